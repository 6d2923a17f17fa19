#include "base/check.h"
#include "cli/cli.h"
#include "runfile/diagnostics.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#define CURVE_COLUMNS 50 /* of a sparkline */
#define LINE_COLUMNS  79 /* of the list of options */

struct info_settings {
  bool json;
};

static const option rows[] = {
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = offsetof(struct info_settings, json),
     .fallback = "no",
     .heading = "Output",
     .help = CLI_JSON_HELP},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* ------------------------------------------------------------ what is shown */

/* A number of a struct by its key in the file and in JSON. */
typedef struct number {
  const char *key;
  bool whole; /* uint64_t, else double */
  size_t offset;
} number;

#define WHOLE(type, field)                                                                         \
  {                                                                                                \
#field, true, offsetof(type, field)                                                            \
  }
#define REAL(type, field)                                                                          \
  {                                                                                                \
#field, false, offsetof(type, field)                                                           \
  }
#define N_OF(table) (sizeof(table) / sizeof(table)[0])

static const number train_numbers[] = {
    WHOLE(run_train_row, step),
    REAL(run_train_row, loss),
    REAL(run_train_row, perplexity),
    REAL(run_train_row, grad_norm),
    REAL(run_train_row, clip_scale),
    REAL(run_train_row, learning_rate),
    WHOLE(run_train_row, tokens),
    REAL(run_train_row, seconds),
    REAL(run_train_row, tokens_per_second),
    REAL(run_train_row, compute_seconds),
    REAL(run_train_row, exchange_seconds),
    REAL(run_train_row, wait_seconds),
    WHOLE(run_train_row, skipped),
};

static const number valid_numbers[] = {
    WHOLE(run_valid_row, step),
    REAL(run_valid_row, loss),
    REAL(run_valid_row, perplexity),
    REAL(run_valid_row, bits_per_character),
};

static const number state_numbers[] = {
    WHOLE(run_state, step),      WHOLE(run_state, epoch),    WHOLE(run_state, tokens),
    WHOLE(run_state, updates),   WHOLE(run_state, skipped),  REAL(run_state, seconds),
    WHOLE(run_state, best_step), REAL(run_state, best_loss),
};

static const number data_numbers[] = {
    WHOLE(run_provenance, train_tokens),     WHOLE(run_provenance, valid_tokens),
    WHOLE(run_provenance, train_characters), WHOLE(run_provenance, valid_characters),
    WHOLE(run_provenance, unknown_tokens),
};

/* A text of the provenance by its key. */
static const struct {
  const char *key;
  size_t offset;
} texts[] = {
    {"command_line", offsetof(run_provenance, command_line)},
    {"started", offsetof(run_provenance, started)},
    {"written", offsetof(run_provenance, written)},
    {"hosts", offsetof(run_provenance, hosts)},
    {"cpu", offsetof(run_provenance, cpu)},
    {"code_path", offsetof(run_provenance, code_path)},
    {"slurm_job", offsetof(run_provenance, slurm_job)},
};

static const char *text_of(const run_provenance *p, size_t offset)
{
  const char *text = NULL;
  memcpy(&text, (const char *)p + offset, sizeof text);
  return text == NULL ? "" : text;
}

static double real_at(const void *base, size_t offset)
{
  double value = 0.0;
  memcpy(&value, (const char *)base + offset, sizeof value);
  return value;
}

static uint64_t whole_at(const void *base, size_t offset)
{
  uint64_t value = 0;
  memcpy(&value, (const char *)base + offset, sizeof value);
  return value;
}

/* ------------------------------------------------------------------- JSON */

/* Put a new value; the first that finds no memory is remembered. */
static void put(json_t *object, const char *key, json_t *value, bool *bad)
{
  if (json_object_set_new(object, key, value) != 0) { *bad = true; }
}

/* JSON has neither infinity nor bytes that are no UTF-8: null. */
static void put_real(json_t *object, const char *key, double value, bool *bad)
{
  put(object, key, isfinite(value) ? json_real(value) : json_null(), bad);
}

/* JSON's whole numbers are signed; a larger one, at most a seed, is a string. */
static void put_whole(json_t *object, const char *key, uint64_t value, bool *bad)
{
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRIu64, value);
  put(object, key, value <= INT64_MAX ? json_integer((json_int_t)value) : json_string(text), bad);
}

static void put_text(json_t *object, const char *key, const char *text, bool *bad)
{
  json_t *value = json_string(text == NULL ? "" : text);
  put(object, key, value == NULL ? json_null() : value, bad);
}

static json_t *pack_numbers(size_t n, const number *numbers, const void *base, bool *bad)
{
  json_t *object = json_object();
  for (size_t i = 0; i < n; ++i) {
    if (numbers[i].whole) {
      put_whole(object, numbers[i].key, whole_at(base, numbers[i].offset), bad);
    } else {
      put_real(object, numbers[i].key, real_at(base, numbers[i].offset), bad);
    }
  }
  return object;
}

static json_t *pack_model(const run *r, bool *bad)
{
  json_t *object = json_object();
  put_whole(object, "vocab", r->params->shape.V, bad);
  put_whole(object, "hidden", r->params->shape.H, bad);
  put_whole(object, "layers", r->params->shape.L, bad);
  put_whole(object, "parameters", r->params->n_real, bad);
  return object;
}

static json_t *pack_config(const unroll_config *config, bool *bad)
{
  const option_table *t = &config_table;
  json_t *object = json_object();

  for (size_t k = 0; k < t->n_rows; ++k) {
    const option *row = &t->rows[k];
    const char *value = (const char *)config + row->offset;
    char text[UNROLL_CONFIG_TEXT];
    options_format(row, config, sizeof text, text);
    switch (row->type) {
    case OPTION_FLAG:
      put(object, row->name, json_boolean(*(const bool *)value), bad);
      break;
    case OPTION_COUNT:
      put_whole(object, row->name, *(const uint64_t *)value, bad);
      break;
    case OPTION_REAL:
      put_real(object, row->name, *(const double *)value, bad);
      break;
    case OPTION_CHOICE:
    case OPTION_TEXT:
    case OPTION_EVERY:
      put_text(object, row->name, text, bad);
      break;
    }
  }
  return object;
}

static json_t *pack_data(const run_provenance *p, bool *bad)
{
  json_t *object = pack_numbers(N_OF(data_numbers), data_numbers, p, bad);
  json_t *files = json_array();

  for (size_t i = 0; i < p->n_files; ++i) {
    json_t *file = json_object();
    put_text(file, "name", p->file_name[i], bad);
    put_whole(file, "bytes", p->file_bytes[i], bad);
    put_text(file, "sha256", p->file_sha256[i], bad);
    if (json_array_append_new(files, file) != 0) { *bad = true; }
  }
  put(object, "files", files, bad);
  return object;
}

static json_t *pack_provenance(const run_provenance *p, bool *bad)
{
  json_t *object = json_object();
  for (size_t i = 0; i < N_OF(texts); ++i) {
    put_text(object, texts[i].key, text_of(p, texts[i].offset), bad);
  }
  put_whole(object, "ranks", p->ranks, bad);
  put_whole(object, "threads", p->threads, bad);
  return object;
}

/* The last result, null without one. */
static json_t *pack_flow(const run *r, bool *bad)
{
  if (r->flows.n == 0) { return json_null(); }
  const unroll_gradflow last = run_flow_view(&r->flows, r->flows.n - 1);
  json_t *object = json_object();
  if (!diagnostics_pack(&last, object)) { *bad = true; }
  return object;
}

static unroll_status print_json(const char *path, const run *r)
{
  bool bad = false;
  json_t *state = pack_numbers(N_OF(state_numbers), state_numbers, &r->state, &bad);
  json_t *object = json_object();

  put(state, "finished", json_boolean(r->state.finished), &bad);
  put_text(object, "file", path, &bad);
  put(object, "model", pack_model(r, &bad), &bad);
  put(object, "config", pack_config(&r->config, &bad), &bad);
  put(object, "data", pack_data(&r->provenance, &bad), &bad);
  put(object, "state", state, &bad);
  put(object, "train",
      r->n_train == 0
          ? json_null()
          : pack_numbers(N_OF(train_numbers), train_numbers, &r->train[r->n_train - 1], &bad),
      &bad);
  put(object, "valid",
      r->n_valid == 0
          ? json_null()
          : pack_numbers(N_OF(valid_numbers), valid_numbers, &r->valid[r->n_valid - 1], &bad),
      &bad);
  put(object, "diagnose", pack_flow(r, &bad), &bad);
  put(object, "provenance", pack_provenance(&r->provenance, &bad), &bad);
  if (!bad) {
    (void)json_dumpf(object, stdout, JSON_INDENT(2)); /* main.c looks at the stream's error flag */
    (void)printf("\n");
  }
  json_decref(object);
  return bad ? unroll_fail(UNROLL_ERR_MEMORY, "no memory for the JSON object") : UNROLL_OK;
}

/* ------------------------------------------------------------------- page */

/* Mean of the finite values of rows [begin, end); NAN without any. */
static double mean_of(const char *base, size_t stride, size_t begin, size_t end)
{
  double sum = 0.0;
  size_t n = 0;
  for (size_t i = begin; i < end; ++i) {
    double value = real_at(base + i * stride, 0);
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
  (void)printf("  %.4g to %.4g\n", real_at(first, 0),
               real_at((const char *)first + (n - 1) * stride, 0));
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

static void print_numbers(const char *title, size_t n, const number *numbers, const void *base)
{
  (void)printf("%s", title);
  for (size_t i = 0; i < n; ++i) {
    if (numbers[i].whole) {
      (void)printf("  %s %" PRIu64, numbers[i].key, whole_at(base, numbers[i].offset));
    } else {
      (void)printf("  %s %.6g", numbers[i].key, real_at(base, numbers[i].offset));
    }
  }
  (void)printf("\n");
}

static const char *name_of_units(const unroll_shape *shape)
{
  switch (shape->cell) {
  case UNROLL_CELL_RNN:
    break;
  case UNROLL_CELL_LSTM:
    return "LSTM";
  case UNROLL_CELL_GRU:
    return "GRU";
  case UNROLL_CELL_MINGRU:
    return "minGRU";
  }
  return shape->activation == UNROLL_ACTIVATION_RELU ? "ReLU" : "tanh";
}

static void print_model(const char *path, const run *r)
{
  const char *levels[] = {"byte", "character", "word"};
  const unroll_params *p = r->params;
  const char *level = (size_t)r->config.level < N_OF(levels) ? levels[r->config.level] : "unknown";

  (void)printf("%s: %s model, %zu layer%s of %zu %s units, vocabulary of %zu, %zu parameters\n",
               path, level, p->shape.L, p->shape.L == 1 ? "" : "s", p->shape.H,
               name_of_units(&p->shape), p->shape.V, p->n_real);
  (void)printf("%s after step %" PRIu64 " in epoch %" PRIu64 " of %" PRIu64 ", %.0f seconds",
               r->state.finished ? "finished" : "not finished, stands", r->state.step,
               r->state.epoch < r->config.epochs ? r->state.epoch + 1 : r->config.epochs,
               r->config.epochs, r->state.seconds);
  if (r->state.skipped > 0) {
    (void)printf(", %" PRIu64 " updates skipped: not finite", r->state.skipped);
  }
  (void)printf("\n");
}

static void print_metrics(const run *r)
{
  /* the times of the last interval are for JSON */
  enum { TRAIN_SHOWN = 6 };
  if (r->n_train > 0) {
    print_numbers("train", TRAIN_SHOWN, train_numbers, &r->train[r->n_train - 1]);
  }
  if (r->n_valid > 0) {
    print_numbers("valid", N_OF(valid_numbers), valid_numbers, &r->valid[r->n_valid - 1]);
  }
  if (r->state.best_step > 0) {
    (void)printf("best validation  step %" PRIu64 "  loss %.6g  perplexity %.6g\n",
                 r->state.best_step, r->state.best_loss, exp(r->state.best_loss));
  }
}

static void print_data(const run_provenance *p)
{
  (void)printf("\ndata\n");
  for (size_t i = 0; i < N_OF(data_numbers); ++i) {
    (void)printf("  %-20s %" PRIu64 "\n", data_numbers[i].key, whole_at(p, data_numbers[i].offset));
  }
  for (size_t i = 0; i < p->n_files; ++i) {
    (void)printf("  %s, %" PRIu64 " bytes, SHA-256 %.16s...\n",
                 p->file_name[i] == NULL ? "" : p->file_name[i], p->file_bytes[i],
                 p->file_sha256[i] == NULL ? "" : p->file_sha256[i]);
  }
}

static void print_provenance(const run_provenance *p)
{
  (void)printf("\nprovenance\n");
  for (size_t i = 0; i < N_OF(texts); ++i) {
    const char *text = text_of(p, texts[i].offset);
    if (text[0] != '\0') { (void)printf("  %-20s %s\n", texts[i].key, text); }
  }
  (void)printf("  %-20s %" PRIu64 " x %" PRIu64 "\n", "ranks x threads", p->ranks, p->threads);
}

/* The options by heading, as many on a line as fit. */
static void print_config(const unroll_config *config)
{
  const option_table *t = &config_table;
  const char *heading = "";
  size_t column = 0;

  (void)printf("\nconfig");
  for (size_t k = 0; k < t->n_rows; ++k) {
    char text[UNROLL_CONFIG_TEXT];
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
  (void)printf("\n");
}

static unroll_status run_info(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct info_settings *s = call->settings;
  const char *path = call->operands[0];
  run *r = NULL;

  if (unroll_comm_rank(call->comm) != 0) { return UNROLL_OK; }
  UNROLL_TRY(runfile_read(path, &r));
  if (s->json) {
    UNROLL_TRY(print_json(path, r));
    goto cleanup;
  }
  print_model(path, r);
  print_metrics(r);
  print_curves(r);
  print_flow(&r->flows);
  print_data(&r->provenance);
  print_provenance(&r->provenance);
  print_config(&r->config);

cleanup:
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
                  "Examples:\n"
                  "  unroll info run.h5\n"
                  "  unroll info --json run.h5 | jq .valid.loss"},
    .table = &table,
    .settings_size = sizeof(struct info_settings),
    .run = run_info,
};
