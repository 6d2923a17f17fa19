#include "base/check.h"
#include "base/json.h"
#include "cli/cli.h"
#include "net/params.h"
#include "runfile/diagnostics.h"
#include "runfile/schema.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define CURVE_COLUMNS 50 /* of a sparkline */
#define LINE_COLUMNS  79 /* of the list of options */

struct info_settings {
  bool json, finished, verify;
};

static const option rows[] = {
    {.name = "finished",
     .type = OPTION_FLAG,
     .offset = offsetof(struct info_settings, finished),
     .default_text = "no",
     .heading = "Output",
     .help = "answer by the exit status alone: 0 the run has finished, 1 it has not, 2 there is no "
             "run file or it cannot be read"},
    {.name = "verify",
     .type = OPTION_FLAG,
     .offset = offsetof(struct info_settings, verify),
     .default_text = "no",
     .heading = "Output",
     .help =
         "check every byte instead; status 0: the file is as unroll wrote it, 1: it has no "
         "SHA-256 of the whole, but what can be checked holds, 2: it is damaged, or no run file"},
    {CLI_JSON, .offset = offsetof(struct info_settings, json)},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* ------------------------------------------------------------ what is shown */

#define N_OF(array) (sizeof(array) / sizeof(array)[0])

/* Which fields of the tables of the run file, and in which order. */
static const char *const train_fields[] = {
    "step",
    "loss",
    "perplexity",
    "grad_norm",
    "clip_scale",
    "learning_rate",
    "tokens",
    "seconds",
    "tokens_per_second",
    "compute_seconds",
    "exchange_seconds",
    "wait_seconds",
    "skipped",
};
static const char *const valid_fields[] = {"step", "loss", "perplexity", "bits_per_character"};
static const char *const state_fields[] = {
    "step",    "epoch",     "tokens",    "updates",  "skipped",
    "seconds", "best_step", "best_loss", "finished", "averaged",
};
static const char *const data_fields[] = {
    "train_tokens", "valid_tokens", "train_characters", "valid_characters", "unknown_tokens",
};
static const char *const place_fields[] = {"started", "written", "hosts", "cpu", "code_path"};

/* ------------------------------------------------------------------- JSON */

static void put_fields(json_t *object, const schema_table *schema, size_t n,
                       const char *const *names, const void *of, bool *bad)
{
  for (size_t i = 0; i < n; ++i) {
    json_put(object, names[i], schema_pack(schema_find(schema, names[i]), of), bad);
  }
}

/* The fields of a row; null where there is no row. */
static json_t *pack_row(const schema_table *schema, size_t n, const char *const *names,
                        const void *row, bool *bad)
{
  if (row == NULL) { return json_null(); }
  json_t *object = json_object();
  put_fields(object, schema, n, names, row, bad);
  return object;
}

/* SHA-256 of the weights, and of their average: "" where there is none. */
typedef struct hashes {
  char weights[65], average[65];
} hashes;

static unroll_status hash(run *r, hashes *out)
{
  unroll_status st = UNROLL_OK;

  *out = (hashes){"", ""};
  UNROLL_TRY(runfile_hash_weights(r->params, out->weights));
  if (r->state.averaged == 0) { goto cleanup; }
  run_swap_average(r);
  st = runfile_hash_weights(r->params, out->average);
  run_swap_average(r);

cleanup:
  return st;
}

static json_t *pack_model(const run *r, const hashes *h, bool *bad)
{
  json_t *object = json_object();
  json_put(object, "vocab", json_count(r->params->shape.V), bad);
  json_put(object, "hidden", json_count(r->params->shape.H), bad);
  json_put(object, "layers", json_count(r->params->shape.L), bad);
  json_put(object, "parameters", json_count(r->params->n_real), bad);
  json_put(object, "weights_sha256", json_text(h->weights), bad);
  json_put(object, "average_sha256", json_text(h->average), bad);
  json_put(object, "weights_finite", json_boolean(params_are_finite(r->params)), bad);
  return object;
}

static json_t *pack_data(const run_provenance *p, bool *bad)
{
  json_t *object = json_object(), *files = json_array();

  put_fields(object, &schema_provenance, N_OF(data_fields), data_fields, p, bad);
  for (size_t i = 0; i < p->n_files; ++i) {
    json_t *file = json_object();
    json_put(file, "name", json_text(p->file_name[i]), bad);
    json_put(file, "bytes", json_count(p->file_bytes[i]), bad);
    json_put(file, "sha256", json_text(p->file_sha256[i]), bad);
    json_append(files, file, bad);
  }
  json_put(object, "files", files, bad);
  return object;
}

static json_t *pack_provenance(const run_provenance *p, bool *bad)
{
  json_t *object = json_object(), *changed = json_array();

  for (size_t i = 0; i < p->n_changed; ++i) { json_append(changed, json_text(p->changed[i]), bad); }
  json_put(object, "command_line", json_text(p->command_line), bad);
  put_fields(object, &schema_provenance, N_OF(place_fields), place_fields, p, bad);
  json_put(object, "slurm_job", json_text(p->slurm_job), bad);
  json_put(object, "init_file", json_text(p->init_file), bad);
  json_put(object, "init_sha256", json_text(p->init_sha256), bad);
  json_put(object, "changed", changed, bad);
  json_put(object, "ranks", json_count(p->ranks), bad);
  json_put(object, "threads", json_count(p->threads), bad);
  return object;
}

/* The last result, null without one. */
static json_t *pack_flow(const run *r, bool *bad)
{
  if (r->flows.n == 0) { return json_null(); }
  const unroll_gradflow last = run_flow_view(&r->flows, r->flows.n - 1);
  json_t *object = json_object();
  diagnostics_pack(&last, object, bad);
  return object;
}

static unroll_status print_json(const char *path, const run *r, const hashes *h)
{
  bool bad = false;
  json_t *object = json_object();
  const run_train_row *train = r->n_train > 0 ? &r->train[r->n_train - 1] : NULL;
  const run_valid_row *valid = r->n_valid > 0 ? &r->valid[r->n_valid - 1] : NULL;

  json_put(object, "file", json_text(path), &bad);
  json_put(object, "model", pack_model(r, h, &bad), &bad);
  json_put(object, "config", schema_pack_config(&r->config, &bad), &bad);
  json_put(object, "data", pack_data(&r->provenance, &bad), &bad);
  json_put(object, "state",
           pack_row(&schema_state, N_OF(state_fields), state_fields, &r->state, &bad), &bad);
  json_put(object, "train", pack_row(&schema_train, N_OF(train_fields), train_fields, train, &bad),
           &bad);
  json_put(object, "valid", pack_row(&schema_valid, N_OF(valid_fields), valid_fields, valid, &bad),
           &bad);
  json_put(object, "diagnose", pack_flow(r, &bad), &bad);
  json_put(object, "provenance", pack_provenance(&r->provenance, &bad), &bad);
  return cli_print_json(object, bad);
}

/* ------------------------------------------------------------------- page */

static double real_at(const void *at)
{
  double value = 0.0;
  memcpy(&value, at, sizeof value);
  return value;
}

/* Mean of the finite values of rows [begin, end); NAN without any. */
static double mean_of(const char *base, size_t stride, size_t begin, size_t end)
{
  double sum = 0.0;
  size_t n = 0;
  for (size_t i = begin; i < end; ++i) {
    double value = real_at(base + i * stride);
    if (isfinite(value)) {
      sum += value;
      n += 1;
    }
  }
  return n == 0 ? (double)NAN : sum / (double)n;
}

/* One line: the curve in blocks, each the mean of some rows, then the first and last value. */
static void print_curve(const char *name, const void *first, size_t stride, size_t n)
{
  double mean[CURVE_COLUMNS];
  size_t columns = n < CURVE_COLUMNS ? n : CURVE_COLUMNS;
  double low = INFINITY, high = -INFINITY;

  if (n == 0) { return; }
  for (size_t k = 0; k < columns; ++k) {
    mean[k] = mean_of(first, stride, k * n / columns, (k + 1) * n / columns);
    low = mean[k] < low ? mean[k] : low;
    high = mean[k] > high ? mean[k] : high;
  }

  (void)printf("  %-20s ", name);
  for (size_t k = 0; k < columns; ++k) {
    /* U+2581 to U+2588: blocks of one to eight eighths */
    int eighths = high > low ? (int)(7.0 * (mean[k] - low) / (high - low) + 0.5) : 0;
    if (isnan(mean[k])) {
      (void)printf(" ");
    } else {
      (void)printf("\xe2\x96%c", 0x81 + eighths);
    }
  }
  (void)printf("  %.4g to %.4g\n", real_at(first), real_at((const char *)first + (n - 1) * stride));
}

static void print_curves(const run *r)
{
  const run_train_row *t = r->train;
  const run_valid_row *v = r->valid;

  if (r->n_train + r->n_valid == 0) { return; }
  (void)printf("\ncurves, from the first to the last report\n");
  if (r->n_train > 0) { print_curve("train loss", &t->loss, sizeof *t, r->n_train); }
  if (r->n_valid > 0) { print_curve("valid loss", &v->loss, sizeof *v, r->n_valid); }
  if (r->n_train > 0) {
    print_curve("grad_norm", &t->grad_norm, sizeof *t, r->n_train);
    print_curve("learning_rate", &t->learning_rate, sizeof *t, r->n_train);
    print_curve("tokens_per_second", &t->tokens_per_second, sizeof *t, r->n_train);
  }
}

/* Growth and spectral radius of each layer over the measurements, and the last of them. */
static void print_flow(const run_flows *flows)
{
  if (flows->n == 0) { return; }
  const size_t L = flows->rows.L;
  const unroll_gradflow last = run_flow_view(flows, flows->n - 1);
  const size_t stride = L * sizeof(double);

  (void)printf("\ngradient flow, from step %" PRIu64 " to step %" PRIu64 "\n", flows->step[0],
               last.step);
  for (size_t l = 0; l < L; ++l) {
    char name[40];
    (void)snprintf(name, sizeof name, "growth, layer %zu", l);
    print_curve(name, flows->rows.growth + l, stride, flows->n);
    for (size_t k = 0; k < last.blocks; ++k) {
      (void)snprintf(name, sizeof name,
                     last.blocks > 1 ? "radius of %.1s, layer %zu" : "radius%.0s, layer %zu",
                     last.gates + k, l);
      print_curve(name, flows->rows.spectral_radius + l * last.blocks + k, last.blocks * stride,
                  flows->n);
    }
  }
  for (size_t l = 0; l < L; ++l) {
    (void)printf("  layer %zu  %s  half_lag %" PRId64 "  percent_lag %" PRId64 "  growth %.4g  "
                 "lyapunov %.4g",
                 l, unroll_flow_text(last.verdict[l]), last.half_lag[l], last.percent_lag[l],
                 last.growth[l], last.lyapunov[l]);
    for (size_t k = 0; k < last.blocks; ++k) {
      (void)printf(k == 0 ? "  spectral_radius %.4g" : " %.4g",
                   last.spectral_radius[l * last.blocks + k]);
    }
    (void)printf("\n");
  }
}

/* Counts and reals of a row on one line. */
static void print_row(const char *title, const schema_table *schema, size_t n,
                      const char *const *names, const void *row)
{
  (void)printf("%s", title);
  for (size_t i = 0; i < n; ++i) {
    const schema_field *field = schema_find(schema, names[i]);
    const void *at = (const char *)row + field->offset;
    if (field->type == SCHEMA_COUNT) {
      (void)printf("  %s %" PRIu64, names[i], *(const uint64_t *)at);
    } else {
      (void)printf("  %s %.6g", names[i], real_at(at));
    }
  }
  (void)printf("\n");
}

/* How far the run is; of a best model also how far the whole run is, whose name this is. */
static void print_state(const run *r, const char *name, const run *whole)
{
  const uint64_t epochs = r->config.epochs;
  const uint64_t epoch = r->state.epoch < epochs ? r->state.epoch + 1 : epochs;

  if (whole != NULL) {
    (void)printf("the best model of %s, which %s after step %" PRIu64 ": ", name,
                 whole->state.finished ? "has finished" : "stands", whole->state.step);
  } else {
    (void)printf("%s ", r->state.finished ? "finished" : "not finished, stands");
  }
  (void)printf("after step %" PRIu64 " in epoch %" PRIu64 " of %" PRIu64 ", %.0f seconds",
               r->state.step, epoch, epochs, r->state.seconds);
  if (r->state.skipped > 0) {
    (void)printf(", %" PRIu64 " updates skipped: not finite", r->state.skipped);
  }
  (void)printf("\n");
}

static void print_model(const char *path, const run *r, const hashes *h)
{
  const unroll_params *p = r->params;
  char embedding[64] = "";

  if (p->shape.E > 0) {
    (void)snprintf(embedding, sizeof embedding, "%sembedding of %zu, ",
                   p->shape.tied ? "tied " : "", p->shape.E);
  }
  (void)printf("%s: %s model, %zu layer%s of %zu %s units, %s%svocabulary of %zu, %zu parameters\n",
               path, unroll_level_text(r->config.level), p->shape.L, p->shape.L == 1 ? "" : "s",
               p->shape.H, params_units(&p->shape), p->shape.skip ? "skip connections, " : "",
               embedding, p->shape.V, p->n_real);
  (void)printf("weights: SHA-256 %s\n", h->weights);
  if (r->state.averaged > 0) {
    (void)printf("average: SHA-256 %s, of %" PRIu64 " updates: validation and eval take it\n",
                 h->average, r->state.averaged);
  }
  if (!params_are_finite(p)) {
    (void)printf("weights: not all are finite, as the run has diverged: eval, sample and train "
                 "refuse them\n");
  }
}

/* What it was trained on, how well it predicts and how fast it learnt: a line each. */
static void print_summary(const run *r)
{
  const run_provenance *p = &r->provenance;
  const run_state *state = &r->state;
  const char *first = p->n_files > 0 && p->file_name[0] != NULL ? p->file_name[0] : "no file";

  (void)printf("text: %s", first);
  if (p->n_files > 1) { (void)printf(" and %zu more", p->n_files - 1); }
  (void)printf(", %" PRIu64 " tokens for training, %" PRIu64 " for validation\n", p->train_tokens,
               p->valid_tokens);
  if (state->best_step > 0) {
    (void)printf("best validation  step %" PRIu64
                 "  loss %.6g  perplexity %.6g (%zu without a model)\n",
                 state->best_step, state->best_loss, exp(state->best_loss), r->params->shape.V);
  }
  if (state->seconds > 0) {
    (void)printf("speed: %.0f tokens per second, mean, on %" PRIu64 " rank%s x %" PRIu64
                 " thread%s\n",
                 (double)state->tokens / state->seconds, p->ranks, p->ranks == 1 ? "" : "s",
                 p->threads, p->threads == 1 ? "" : "s");
  }
}

/* What one may type now. */
static void print_next(const char *path, const run *r, const char *name, const run *whole)
{
  const run *of = whole != NULL ? whole : r;
  char best[KEEP_NAME], page[KEEP_NAME];
  const char *model = path;

  if (whole == NULL) {
    name = path;
    keep_best_name(path, best);
    if (r->state.best_step > 0 && r->state.best_step < r->state.step && runfile_exists(best)) {
      model = best;
    }
  }
  (void)snprintf(page, sizeof page, "%.*s.html", (int)keep_stem(name), name);
  (void)printf("\nnext\n");
  if (model != path || params_are_finite(r->params)) {
    (void)printf("  unroll sample %s%s\n", model, model == path ? "" : "    the best model");
  }
  (void)printf("  unroll report %s -o %s    curves, for a browser\n", name, page);
  if (of->state.finished) {
    (void)printf("  unroll train --resume --change --epochs %" PRIu64 " -o %s    train longer\n",
                 2 * of->config.epochs, name);
  } else {
    const bool stops = of->config.max_steps > 0 && of->state.step >= of->config.max_steps;
    (void)printf("  unroll train --resume %s-o %s    go on\n", stops ? "--max-steps 0 " : "", name);
  }
}

static void print_metrics(const run *r)
{
  /* the times of the last interval are for JSON */
  enum { TRAIN_SHOWN = 6 };

  if (r->n_train + r->n_valid == 0) { return; }
  (void)printf("\nthe last report\n");
  if (r->n_train > 0) {
    print_row("train", &schema_train, TRAIN_SHOWN, train_fields, &r->train[r->n_train - 1]);
  }
  if (r->n_valid > 0) {
    /* the last, bits_per_character, says nothing where <unk> stood for tokens */
    const size_t shown = N_OF(valid_fields) - (r->provenance.valid_unknown_tokens > 0 ? 1 : 0);
    print_row("valid", &schema_valid, shown, valid_fields, &r->valid[r->n_valid - 1]);
  }
}

static void print_data(const run_provenance *p)
{
  (void)printf("\ndata\n");
  for (size_t i = 0; i < N_OF(data_fields); ++i) {
    const schema_field *field = schema_find(&schema_provenance, data_fields[i]);
    const void *at = (const char *)p + field->offset;
    (void)printf("  %-20s %" PRIu64 "\n", field->name, *(const uint64_t *)at);
  }
  for (size_t i = 0; i < p->n_files; ++i) {
    (void)printf("  %s, %" PRIu64 " bytes, SHA-256 %.16s...\n",
                 p->file_name[i] == NULL ? "" : p->file_name[i], p->file_bytes[i],
                 p->file_sha256[i] == NULL ? "" : p->file_sha256[i]);
  }
}

static void print_text(const char *name, const char *text)
{
  if (text != NULL && text[0] != '\0') { (void)printf("  %-20s %s\n", name, text); }
}

static void print_provenance(const run_provenance *p)
{
  (void)printf("\nprovenance\n");
  print_text("command_line", p->command_line);
  for (size_t i = 0; i < N_OF(place_fields); ++i) {
    const schema_field *field = schema_find(&schema_provenance, place_fields[i]);
    print_text(field->name, *(char *const *)((const char *)p + field->offset));
  }
  print_text("slurm_job", p->slurm_job);
  print_text("init_file", p->init_file);
  print_text("init_sha256", p->init_sha256);
  for (size_t i = 0; i < p->n_changed; ++i) { print_text("changed", p->changed[i]); }
  (void)printf("  %-20s %" PRIu64 " x %" PRIu64 "\n", "ranks x threads", p->ranks, p->threads);
}

/* The run's options that differ from their default, or all others, by heading, as many on a line as fit. */
static void print_config(const char *title, const unroll_config *config, bool differs)
{
  const option_table *t = &config_table;
  unroll_config defaults, derived = *config;
  const char *heading = "";
  size_t column = 0;

  unroll_config_init(&defaults);
  derived.shards = derived.stride = 0;
  if (unroll_config_resolve(&derived) == UNROLL_OK) {
    defaults.shards = derived.shards;
    defaults.stride = derived.stride;
  }
  (void)printf("\n%s", title);
  for (size_t k = 0; k < t->n_rows; ++k) {
    char text[UNROLL_CONFIG_TEXT];
    const bool plain =
        config_is_of_call(&t->rows[k]) || options_equal(&t->rows[k], config, &defaults);
    if (plain == differs) { continue; }
    options_format(&t->rows[k], config, sizeof text, text);
    size_t n = strlen(t->rows[k].name) + strlen(text) + 3;
    if (strcmp(heading, t->rows[k].heading) != 0) {
      heading = t->rows[k].heading;
      (void)printf("\n  %s:", heading);
      column = strlen(heading) + 3;
    } else if (column + n > LINE_COLUMNS) {
      (void)printf("\n   ");
      column = 3;
    }
    column += n;
    (void)printf("  %s %s", t->rows[k].name, text[0] == '\0' ? "none" : text);
  }
  (void)printf("%s\n", heading[0] == '\0' ? "\n  none" : "");
}

/* Has the run of this file finished? That of a best model may have, although the model stands before its end. */
static unroll_status check_finished(const char *path)
{
  unroll_status st = UNROLL_OK;
  run *r = NULL, *whole = NULL;
  char name[KEEP_NAME];

  UNROLL_TRY(runfile_read_origin(path, &r));
  runfile_read_whole(path, r, name, &whole);
  const run_state *state = whole != NULL ? &whole->state : &r->state;
  if (!state->finished) {
    st = unroll_fail(UNROLL_UNFINISHED, "%s: not finished, stands after step %" PRIu64,
                     whole != NULL ? name : path, state->step);
  }

cleanup:
  run_free(&whole);
  run_free(&r);
  return st;
}

/* Is every byte as it was written, and does the file make sense? */
static unroll_status verify(const char *path)
{
  unroll_status st = UNROLL_OK;
  runfile_proof proof = {0};
  char weights_sha256[65];
  run *r = NULL;

  UNROLL_TRY(runfile_verify(path, &proof));
  UNROLL_TRY(runfile_read(path, &r));
  UNROLL_TRY(runfile_hash_weights(r->params, weights_sha256));
  if (proof.whole) {
    (void)printf("%s: as it was written: %" PRIu64 " bytes, SHA-256 %s\n", path, proof.bytes,
                 proof.sha256);
  }
  (void)printf("datasets: %zu with a checksum, which holds; %zu without one\n", proof.n_checked,
               proof.n_without);
  (void)printf("weights: SHA-256 %s\n", weights_sha256);
  if (!proof.whole) {
    st = unroll_fail(UNROLL_UNPROVEN,
                     "%s: has no SHA-256 of the whole, as another program has changed it or an "
                     "older unroll wrote it; what has a checksum is as it was written",
                     path);
  }

cleanup:
  run_free(&r);
  return st;
}

static unroll_status check_info(const cli_call *call)
{
  const struct info_settings *s = call->settings;
  if (s->finished + s->verify + s->json > 1) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "more than one of --finished, --verify and --json is given; legal is one");
  }
  return UNROLL_OK;
}

static unroll_status run_info(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct info_settings *s = call->settings;
  const char *path = call->operands[0];
  run *r = NULL, *whole = NULL;
  char name[KEEP_NAME];
  hashes h;

  if (unroll_comm_rank(call->comm) != 0) { return UNROLL_OK; }
  if (s->finished) { return check_finished(path); }
  if (s->verify) { return verify(path); }
  UNROLL_TRY(runfile_read(path, &r));
  UNROLL_TRY(hash(r, &h));
  if (s->json) {
    UNROLL_TRY(print_json(path, r, &h));
    goto cleanup;
  }
  runfile_read_whole(path, r, name, &whole);
  print_model(path, r, &h);
  print_state(r, name, whole);
  print_summary(r);
  print_curves(r);
  print_metrics(r);
  print_flow(&r->flows);
  print_data(&r->provenance);
  print_provenance(&r->provenance);
  print_config("options that differ from their default", &r->config, true);
  print_config("all others", &r->config, false);
  print_next(path, r, name, whole);

cleanup:
  run_free(&whole);
  run_free(&r);
  return st;
}

const cli_command cli_info = {
    .usage = {.command = "info",
              .operands = "RUN",
              .min_operands = 1,
              .max_operands = 1,
              .purpose = "Show what a run file holds, in a page.\n"
                         "\n"
                         "Curves are drawn with block characters, in UTF-8.",
              .notes =
                  "With --json the object has file, model, config, data, state, provenance, and\n"
                  "train, valid and diagnose: the last row of each, null where there is none.\n"
                  "\n"
                  "A run has finished when all epochs are done or --early-stop has ended it. One\n"
                  "that a signal or --max-steps has stopped, or that failed, has not. Scripts\n"
                  "should ask so, as mpirun may put a status of its own in the place of 75: after\n"
                  "SIGTERM, SIGINT and SIGHUP it is 1.\n"
                  "\n"
                  "--verify reads the SHA-256 that the file ends with, and the checksum of each\n"
                  "dataset. Another program that writes into the file takes the former off, and\n"
                  "renews the latter.\n"
                  "\n"
                  "Examples:\n"
                  "  unroll info run.h5\n"
                  "  until unroll info --finished run.h5; do sleep 60; done\n"
                  "  unroll info --json run.h5 | jq .valid.loss"},
    .table = &table,
    .settings_size = sizeof(struct info_settings),
    .check = check_info,
    .run = run_info,
    .of_one = true,
};
