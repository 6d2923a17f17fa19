#include "report/ranking.h"

#include "base/check.h"
#include "base/json.h"
#include "base/options.h"
#include "runfile/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --------------------------------------------------------------------- read */

static unroll_status hash_texts(const run_provenance *p, char text[SHA256_TEXT])
{
  unroll_status st = UNROLL_OK;
  sha256 *hash = NULL;

  UNROLL_TRY(sha256_new(&hash));
  for (size_t i = 0; i < p->n_files; ++i) {
    sha256_add(hash, p->file_sha256[i], p->file_sha256[i] == NULL ? 0 : strlen(p->file_sha256[i]));
  }
  UNROLL_TRY(sha256_end(hash, text));

cleanup:
  sha256_free(&hash);
  return st;
}

static double finite_or_none(double x)
{
  return isfinite(x) ? x : (double)INFINITY;
}

unroll_status ranking_take(const char *path, size_t place, const run *r, ranking_entry *e)
{
  unroll_status st = UNROLL_OK;

  *e = (ranking_entry){.path = path,
                       .place = place,
                       .config = r->config,
                       .V = r->params->shape.V,
                       .parameters = r->params->n_real,
                       .ranks = r->provenance.ranks,
                       .threads = r->provenance.threads,
                       .step = r->state.step,
                       .best_step = r->state.best_step,
                       .tokens = r->state.tokens,
                       .finished = r->state.finished != 0,
                       .seconds = r->state.seconds,
                       .best_loss = finite_or_none(r->state.best_loss),
                       .best_bits = (double)INFINITY,
                       .train_loss = (double)INFINITY};
  for (size_t i = 0; i < r->n_valid; ++i) {
    /* <unk> costs its own probability alone: of such a run they cannot be compared */
    if (r->valid[i].step == r->state.best_step && r->provenance.valid_unknown_tokens == 0) {
      e->best_bits = finite_or_none(r->valid[i].bits_per_character);
    }
  }
  if (r->n_train > 0) { e->train_loss = finite_or_none(r->train[r->n_train - 1].loss); }
  UNROLL_TRY(runfile_hash_weights(r->params, e->weights));
  UNROLL_TRY(hash_texts(&r->provenance, e->texts));

cleanup:
  return st;
}

/* --------------------------------------------------------------------- rank */

static int by_number(double a, double b)
{
  return (a > b) - (a < b);
}

static int by_quality(const void *a, const void *b)
{
  const ranking_entry *e = a, *f = b;
  int order = by_number(e->best_bits, f->best_bits);
  if (order == 0) { order = by_number(e->best_loss, f->best_loss); }
  if (order == 0) { order = by_number(e->train_loss, f->train_loss); }
  return order != 0 ? order : (e->place > f->place) - (e->place < f->place);
}

void ranking_sort(size_t n, ranking_entry *entries)
{
  qsort(entries, n, sizeof *entries, by_quality);
}

bool ranking_differs(size_t k, size_t n, const ranking_entry *entries)
{
  const option *row = &config_table.rows[k];
  bool any = false;
  if (config_is_of_call(row)) { return false; }
  for (size_t i = 1; i < n; ++i) {
    any |= !options_equal(row, &entries[0].config, &entries[i].config);
  }
  return any;
}

static bool same_texts(const ranking_entry *a, const ranking_entry *b)
{
  return strcmp(a->texts, b->texts) == 0 && a->config.valid_fraction == b->config.valid_fraction &&
         a->config.lowercase == b->config.lowercase && a->config.letters == b->config.letters;
}

bool ranking_same_texts(size_t n, const ranking_entry *entries)
{
  bool same = true;
  for (size_t i = 1; i < n; ++i) { same &= same_texts(&entries[0], &entries[i]); }
  return same;
}

double ranking_speed(const ranking_entry *e)
{
  return e->seconds > 0.0 ? (double)e->tokens / e->seconds : (double)NAN;
}

/* --------------------------------------------------------------------- JSON */

static json_t *pack_options(const ranking_entry *e, size_t n, const ranking_entry *entries,
                            bool *bad)
{
  json_t *object = json_object(), *all = schema_pack_config(&e->config, bad);
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const char *name = config_table.rows[k].name;
    if (ranking_differs(k, n, entries)) {
      json_put(object, name, json_incref(json_object_get(all, name)), bad);
    }
  }
  json_decref(all);
  return object;
}

json_t *ranking_pack(size_t i, size_t n, const ranking_entry *entries, bool *bad)
{
  const ranking_entry *e = &entries[i];
  json_t *one = json_object();
  json_put(one, "rank", json_count(i + 1), bad);
  json_put(one, "file", json_text(e->path), bad);
  json_put(one, "bits_per_character", json_number(e->best_bits), bad);
  json_put(one, "best_loss", json_number(e->best_loss), bad);
  json_put(one, "perplexity", json_number(exp(e->best_loss)), bad);
  json_put(one, "best_step", json_count(e->best_step), bad);
  json_put(one, "train_loss", json_number(e->train_loss), bad);
  json_put(one, "step", json_count(e->step), bad);
  json_put(one, "finished", json_boolean(e->finished), bad);
  json_put(one, "tokens", json_count(e->tokens), bad);
  json_put(one, "seconds", json_number(e->seconds), bad);
  json_put(one, "tokens_per_second", json_number(ranking_speed(e)), bad);
  json_put(one, "ranks", json_count(e->ranks), bad);
  json_put(one, "threads", json_count(e->threads), bad);
  json_put(one, "vocab", json_count(e->V), bad);
  json_put(one, "parameters", json_count(e->parameters), bad);
  json_put(one, "weights_sha256", json_text(e->weights), bad);
  json_put(one, "texts_sha256", json_text(e->texts), bad);
  json_put(one, "options", pack_options(e, n, entries, bad), bad);
  return one;
}
