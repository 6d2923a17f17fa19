/* Several run files side by side: a ranking, and what differs between them. */
#include "base/check.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "cli/cli.h"
#include "runfile/schema.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/config.h>

struct compare_settings {
  bool json;
};

static const option rows[] = {
    {CLI_JSON, .offset = offsetof(struct compare_settings, json)},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* What is kept of a run file: weights and moments of many would not fit into memory. */
struct entry {
  const char *path; /* borrowed */
  size_t place;     /* on the command line, from 0 */
  unroll_config config;
  uint64_t V, parameters, ranks, threads, step, best_step, tokens;
  bool finished;
  double seconds;
  double best_loss, best_bits; /* [nats per token], [bits per character]; INFINITY: none */
  double train_loss;           /* [nats per token] last row; INFINITY: none */
  char weights[SHA256_TEXT];   /* of the values of /weights */
  char texts[SHA256_TEXT];     /* of the hashes of the corpus files, in their order */
};

/* --------------------------------------------------------------------- read */

static int by_path(const void *a, const void *b)
{
  const unroll_tensor *const *t = a, *const *u = b;
  int order = strcmp((*t)->group, (*u)->group);
  return order != 0 ? order : strcmp((*t)->name, (*u)->name);
}

/* SHA-256 of the tensors as their datasets have them, in the order of their paths. */
static unroll_status hash_weights(const unroll_params *p, char text[SHA256_TEXT])
{
  unroll_status st = UNROLL_OK;
  sha256 *hash = NULL;
  const unroll_tensor **tensors = NULL;
  unroll_real *values = NULL;
  size_t longest = 0;

  UNROLL_TRY(memory_new(p->n_tensors, sizeof *tensors, "a list of tensors", &tensors));
  for (size_t i = 0; i < p->n_tensors; ++i) {
    tensors[i] = &p->tensors[i];
    longest = tensors[i]->cols > longest ? tensors[i]->cols : longest;
  }
  qsort(tensors, p->n_tensors, sizeof *tensors, by_path);
  UNROLL_TRY(memory_new(longest, sizeof *values, "a row of a tensor", &values));
  UNROLL_TRY(sha256_new(&hash));
  for (size_t i = 0; i < p->n_tensors; ++i) {
    const unroll_tensor *t = tensors[i];
    for (size_t row = 0; row < t->rows; ++row) {
      for (size_t col = 0; col < t->cols; ++col) {
        values[col] = p->values[unroll_tensor_index(t, row, col)];
      }
      sha256_add(hash, values, t->cols * sizeof *values);
    }
  }
  UNROLL_TRY(sha256_end(hash, text));

cleanup:
  sha256_free(&hash);
  memory_free(&values);
  memory_free(&tensors);
  return st;
}

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

static unroll_status read_entry(const char *path, size_t place, struct entry *e)
{
  unroll_status st = UNROLL_OK;
  run *r = NULL;

  UNROLL_TRY(runfile_read(path, &r));
  *e = (struct entry){.path = path,
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
    if (r->valid[i].step == r->state.best_step) {
      e->best_bits = finite_or_none(r->valid[i].bits_per_character);
    }
  }
  if (r->n_train > 0) { e->train_loss = finite_or_none(r->train[r->n_train - 1].loss); }
  UNROLL_TRY(hash_weights(r->params, e->weights));
  UNROLL_TRY(hash_texts(&r->provenance, e->texts));

cleanup:
  run_free(&r);
  return st;
}

/* --------------------------------------------------------------------- rank */

static int by_number(double a, double b)
{
  return (a > b) - (a < b);
}

/* The better first: by bits per character, which levels have in common; behind those, without such a figure, by loss;
 * equal ones as they were given. */
static int by_quality(const void *a, const void *b)
{
  const struct entry *e = a, *f = b;
  int order = by_number(e->best_bits, f->best_bits);
  if (order == 0) { order = by_number(e->best_loss, f->best_loss); }
  if (order == 0) { order = by_number(e->train_loss, f->train_loss); }
  return order != 0 ? order : (e->place > f->place) - (e->place < f->place);
}

/* Does option k, of the run rather than of a call, differ between the runs? */
static bool differs(size_t k, size_t n, const struct entry *entries)
{
  const option *row = &config_table.rows[k];
  bool any = false;
  if (config_is_of_call(row)) { return false; }
  for (size_t i = 1; i < n; ++i) {
    any |= !options_equal(row, &entries[0].config, &entries[i].config);
  }
  return any;
}

/* Were the losses measured on the same text, as far as can be told? */
static bool same_texts(const struct entry *a, const struct entry *b)
{
  return strcmp(a->texts, b->texts) == 0 && a->config.valid_fraction == b->config.valid_fraction &&
         a->config.lowercase == b->config.lowercase && a->config.letters == b->config.letters;
}

/* --------------------------------------------------------------------- JSON */

static double per_second(const struct entry *e)
{
  return e->seconds > 0.0 ? (double)e->tokens / e->seconds : (double)NAN;
}

static json_t *pack_options(const struct entry *e, size_t n, const struct entry *entries, bool *bad)
{
  json_t *object = json_object(), *all = schema_pack_config(&e->config, bad);
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const char *name = config_table.rows[k].name;
    if (differs(k, n, entries)) {
      json_put(object, name, json_incref(json_object_get(all, name)), bad);
    }
  }
  json_decref(all);
  return object;
}

static unroll_status print_json(size_t n, const struct entry *entries)
{
  bool bad = false;
  json_t *object = json_object(), *runs = json_array();

  for (size_t i = 0; i < n; ++i) {
    const struct entry *e = &entries[i];
    json_t *one = json_object();
    json_put(one, "rank", json_count(i + 1), &bad);
    json_put(one, "file", json_text(e->path), &bad);
    json_put(one, "bits_per_character", json_number(e->best_bits), &bad);
    json_put(one, "best_loss", json_number(e->best_loss), &bad);
    json_put(one, "perplexity", json_number(exp(e->best_loss)), &bad);
    json_put(one, "best_step", json_count(e->best_step), &bad);
    json_put(one, "train_loss", json_number(e->train_loss), &bad);
    json_put(one, "step", json_count(e->step), &bad);
    json_put(one, "finished", json_boolean(e->finished), &bad);
    json_put(one, "tokens", json_count(e->tokens), &bad);
    json_put(one, "seconds", json_number(e->seconds), &bad);
    json_put(one, "tokens_per_second", json_number(per_second(e)), &bad);
    json_put(one, "ranks", json_count(e->ranks), &bad);
    json_put(one, "threads", json_count(e->threads), &bad);
    json_put(one, "vocab", json_count(e->V), &bad);
    json_put(one, "parameters", json_count(e->parameters), &bad);
    json_put(one, "weights_sha256", json_text(e->weights), &bad);
    json_put(one, "texts_sha256", json_text(e->texts), &bad);
    json_put(one, "options", pack_options(e, n, entries, &bad), &bad);
    json_append(runs, one, &bad);
  }
  json_put(object, "runs", runs, &bad);
  return cli_print_json(object, bad);
}

/* -------------------------------------------------------------------- tables */

/* Cells of text, printed in columns as wide as they must be. */
struct grid {
  size_t lines, columns;
  char **cell; /* (lines, columns) owned */
};

static unroll_status grid_new(size_t lines, size_t columns, struct grid *g)
{
  *g = (struct grid){.lines = lines, .columns = columns};
  return memory_new(lines * columns, sizeof *g->cell, "a table", &g->cell);
}

static void grid_free(struct grid *g)
{
  for (size_t i = 0; g->cell != NULL && i < g->lines * g->columns; ++i) {
    memory_free(&g->cell[i]);
  }
  memory_free(&g->cell);
}

static unroll_status grid_set(struct grid *g, size_t line, size_t column, const char *text)
{
  unroll_status st = UNROLL_OK;
  char **cell = &g->cell[line * g->columns + column];
  UNROLL_TRY(memory_new(strlen(text) + 1, 1, "a cell of a table", cell));
  memcpy(*cell, text, strlen(text) + 1);

cleanup:
  return st;
}

/* The first column to the left, the others to the right: they are numbers, mostly. */
static void grid_print(const struct grid *g)
{
  for (size_t i = 0; i < g->lines; ++i) {
    for (size_t k = 0; k < g->columns; ++k) {
      const char *text = g->cell[i * g->columns + k];
      int width = 0;
      for (size_t j = 0; j < g->lines; ++j) {
        int length = (int)strlen(g->cell[j * g->columns + k]);
        width = length > width ? length : width;
      }
      (void)printf(k == 0 ? "  %-*s" : "  %*s", width, text);
    }
    (void)printf("\n");
  }
}

/* A number where there is one. */
static void number(const char *format, double x, size_t size, char *out)
{
  if (isfinite(x)) {
    (void)snprintf(out, size, format, x);
  } else {
    (void)snprintf(out, size, "-");
  }
}

enum { FILE_NAME, BITS, LOSS, PERPLEXITY, BEST_STEP, STEP, SPEED, PLACE, WEIGHTS, COLUMNS };
static const char *const headings[COLUMNS] = {"run", "bits/char", "loss", "perplexity", "at step",
                                              "of",  "tokens/s",  "on",   "weights"};

static unroll_status print_ranking(size_t n, const struct entry *entries)
{
  unroll_status st = UNROLL_OK;
  struct grid g = {0};

  UNROLL_TRY(grid_new(n + 1, COLUMNS, &g));
  for (size_t k = 0; k < COLUMNS; ++k) { UNROLL_TRY(grid_set(&g, 0, k, headings[k])); }
  for (size_t i = 0; i < n; ++i) {
    const struct entry *e = &entries[i];
    char text[COLUMNS][4096];
    (void)snprintf(text[FILE_NAME], sizeof text[0], "%zu %s", i + 1, e->path);
    number("%.4f", e->best_bits, sizeof text[0], text[BITS]);
    number("%.4f", e->best_loss, sizeof text[0], text[LOSS]);
    number("%.4g", exp(e->best_loss), sizeof text[0], text[PERPLEXITY]);
    (void)snprintf(text[BEST_STEP], sizeof text[0], "%" PRIu64, e->best_step);
    (void)snprintf(text[STEP], sizeof text[0], "%" PRIu64 "%s", e->step, e->finished ? "" : "...");
    number("%.0f", per_second(e), sizeof text[0], text[SPEED]);
    (void)snprintf(text[PLACE], sizeof text[0], "%" PRIu64 " x %" PRIu64, e->ranks, e->threads);
    (void)snprintf(text[WEIGHTS], sizeof text[0], "%.8s", e->weights);
    for (size_t k = 0; k < COLUMNS; ++k) { UNROLL_TRY(grid_set(&g, i + 1, k, text[k])); }
  }
  grid_print(&g);

cleanup:
  grid_free(&g);
  return st;
}

static unroll_status print_options(size_t n, const struct entry *entries)
{
  unroll_status st = UNROLL_OK;
  struct grid g = {0};
  size_t count = 0, i = 0;

  for (size_t k = 0; k < config_table.n_rows; ++k) { count += differs(k, n, entries); }
  if (count == 0) {
    (void)printf("\nno option differs\n");
    goto cleanup;
  }
  UNROLL_TRY(grid_new(count + 1, n + 1, &g));
  UNROLL_TRY(grid_set(&g, 0, 0, "option"));
  for (size_t c = 0; c < n; ++c) {
    char text[24];
    (void)snprintf(text, sizeof text, "%zu", c + 1);
    UNROLL_TRY(grid_set(&g, 0, c + 1, text));
  }
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &config_table.rows[k];
    if (!differs(k, n, entries)) { continue; }
    i += 1;
    UNROLL_TRY(grid_set(&g, i, 0, row->name));
    for (size_t c = 0; c < n; ++c) {
      char text[UNROLL_CONFIG_TEXT];
      options_format(row, &entries[c].config, sizeof text, text);
      UNROLL_TRY(grid_set(&g, i, c + 1, text[0] == '\0' ? "none" : text));
    }
  }
  (void)printf("\noptions that differ, by the number of the run\n");
  grid_print(&g);

cleanup:
  grid_free(&g);
  return st;
}

/* What the tables do not say by themselves. */
static void print_notes(size_t n, const struct entry *entries)
{
  bool same = true, finished = true, validated = true;
  for (size_t i = 0; i < n; ++i) {
    same &= same_texts(&entries[0], &entries[i]);
    finished &= entries[i].finished;
    validated &= isfinite(entries[i].best_loss);
  }

  (void)printf("\n");
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      if (strcmp(entries[i].weights, entries[j].weights) == 0) {
        (void)printf("%zu and %zu have the same weights, bit for bit\n", i + 1, j + 1);
        break;
      }
    }
  }
  if (!finished) { (void)printf("... has not finished\n"); }
  if (!validated) { (void)printf("without a validation: ranked last, by their training loss\n"); }
  (void)printf(same ? "texts: the same\n"
                    : "texts: not the same (files, --valid-fraction, --lowercase or --letters), so "
                      "the losses "
                      "are of different texts\n");
}

/* ------------------------------------------------------------------ command */

static unroll_status run_compare(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct compare_settings *s = call->settings;
  const size_t n = call->n_operands;
  struct entry *entries = NULL;

  if (unroll_comm_rank(call->comm) != 0) { return UNROLL_OK; }
  UNROLL_TRY(memory_new(n, sizeof *entries, "the runs to compare", &entries));
  for (size_t i = 0; i < n; ++i) { UNROLL_TRY(read_entry(call->operands[i], i, &entries[i])); }
  qsort(entries, n, sizeof *entries, by_quality);
  if (s->json) {
    UNROLL_TRY(print_json(n, entries));
    goto cleanup;
  }
  UNROLL_TRY(print_ranking(n, entries));
  UNROLL_TRY(print_options(n, entries));
  print_notes(n, entries);

cleanup:
  memory_free(&entries);
  return st;
}

const cli_command cli_compare = {
    .usage = {.command = "compare",
              .operands = "RUN...",
              .min_operands = 1,
              .max_operands = SIZE_MAX,
              .purpose =
                  "Rank runs, and show what differs between them.\n"
                  "\n"
                  "The best validation comes first: by bits per character, which runs on bytes,\n"
                  "characters and words have in common; then by loss, in nats per token.",
              .notes =
                  "The best validation was `at step`, the file stands at step `of`. tokens/s is\n"
                  "the mean over the whole run, `on` so many ranks x threads. `weights` begins\n"
                  "the SHA-256 of the values of all datasets of /weights, in the order of their\n"
                  "paths: where it is the same, so is every bit.\n"
                  "\n"
                  "With --json the object has `runs`, in the same order, with whole hashes, and\n"
                  "under `options` those that differ; null where there is no figure.\n"
                  "\n"
                  "Examples:\n"
                  "  unroll compare a.h5 b.h5\n"
                  "  unroll compare --json sweep/*.h5 | jq -r .runs[0].file"},
    .table = &table,
    .settings_size = sizeof(struct compare_settings),
    .run = run_compare,
    .of_one = true,
};
