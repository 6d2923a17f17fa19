#include "report/data.h"

#include "base/check.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/options.h"
#include "data/scan.h"
#include "kernels/dispatch.h"
#include "model/model.h"
#include "net/params.h"
#include "net/spectrum.h"
#include "runfile/schema.h"

#include <math.h>
#include <string.h>

#define SPECTRUM_UNITS 1024 /* a larger block would take LAPACK minutes */
#define MOMENTS        60   /* of the gradient flow, at most */

#define SAMPLE_TEMPERATURE 0.8 /* as page.js says */
#define SAMPLE_SEED        1

/* -------------------------------------------------------------------- text */

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

json_t *data_text(const char *text, size_t n)
{
  json_t *value = NULL;
  char *clean = NULL;
  size_t length = 0;

  if (memory_new(3 * n + 1, 1, "a text", &clean) != UNROLL_OK) { return NULL; }
  for (size_t i = 0; i < n;) {
    int32_t code = 0;
    const size_t bytes = scan_utf8_decode(text + i, n - i, &code);
    const bool good = bytes > 0 && code != 0;
    const char *from = good ? text + i : REPLACEMENT;
    const size_t put = good ? bytes : sizeof REPLACEMENT - 1;
    memcpy(clean + length, from, put);
    length += put;
    i += bytes > 0 ? bytes : 1;
  }
  value = json_stringn(clean, length);
  memory_free(&clean);
  return value;
}

static json_t *pack_text(const char *text)
{
  return data_text(text == NULL ? "" : text, text == NULL ? 0 : strlen(text));
}

/* ------------------------------------------------------------------ curves */

static double real_at(const schema_field *field, const void *row)
{
  double value = 0.0;
  memcpy(&value, (const char *)row + field->offset, sizeof value);
  return value;
}

/* Where the value at the end says more than a mean. */
static bool is_of_the_end(const schema_field *field)
{
  return field->type != SCHEMA_REAL || strcmp(field->name, "seconds") == 0 ||
         strcmp(field->name, "learning_rate") == 0;
}

/* The mean of the finite values in rows [begin, end); NAN: there are none. */
static double mean_of(const schema_field *field, const char *rows, size_t stride, size_t begin,
                      size_t end)
{
  double sum = 0.0;
  size_t n = 0;
  for (size_t i = begin; i < end; ++i) {
    const double value = real_at(field, rows + i * stride);
    if (isfinite(value)) {
      sum += value;
      n += 1;
    }
  }
  return n == 0 ? (double)NAN : sum / (double)n;
}

/* One value for rows [begin, end). */
static json_t *pack_rows(const schema_field *field, const char *rows, size_t stride, size_t begin,
                         size_t end)
{
  if (is_of_the_end(field)) { return schema_pack(field, rows + (end - 1) * stride); }
  return json_number(mean_of(field, rows, stride, begin, end));
}

static size_t rows_per_point(size_t n)
{
  return n <= DATA_POINTS ? 1 : (n + DATA_POINTS - 1) / DATA_POINTS;
}

/* The columns of a table of n rows as arrays. */
static json_t *pack_table(const schema_table *table, const void *rows, size_t stride, size_t n,
                          bool *bad)
{
  json_t *object = json_object();
  const size_t every = rows_per_point(n);

  for (size_t k = 0; k < table->n; ++k) {
    json_t *column = json_array();
    for (size_t i = 0; i < n; i += every) {
      const size_t end = i + every < n ? i + every : n;
      json_append(column, pack_rows(&table->fields[k], rows, stride, i, end), bad);
    }
    json_put(object, table->fields[k].name, column, bad);
  }
  return object;
}

/* The mean of a column of the reports. */
static double mean_of_reports(const run *r, const char *name)
{
  return mean_of(schema_find(&schema_train, name), (const char *)r->train, sizeof *r->train, 0,
                 r->n_train);
}

static json_t *pack_clip(const run *r, bool *bad)
{
  json_t *object = json_object();
  size_t clipped = 0, n = 0;

  for (size_t i = 0; i < r->n_train; ++i) {
    n += isfinite(r->train[i].clip_scale);
    clipped += r->train[i].clip_scale < 1.0;
  }
  json_put(object, "threshold", json_number(r->config.clip), bad);
  json_put(object, "share", json_number(n == 0 ? (double)NAN : (double)clipped / (double)n), bad);
  json_put(object, "scale", json_number(mean_of_reports(r, "clip_scale")), bad);
  return object;
}

static json_t *pack_time(const run *r, bool *bad)
{
  json_t *object = json_object();
  json_put(object, "compute", json_number(mean_of_reports(r, "compute_seconds")), bad);
  json_put(object, "exchange", json_number(mean_of_reports(r, "exchange_seconds")), bad);
  json_put(object, "wait", json_number(mean_of_reports(r, "wait_seconds")), bad);
  return object;
}

/* ----------------------------------------------------------------- spectra */

static json_t *pack_reals(size_t n, const double *x, bool *bad)
{
  json_t *array = json_array();
  for (size_t i = 0; i < n; ++i) { json_append(array, json_number(x[i]), bad); }
  return array;
}

/* Eigenvalues (blocks, H) of a layer. */
static json_t *pack_layer(size_t blocks, size_t H, const char *gates, const double *re,
                          const double *im, bool *bad)
{
  json_t *object = json_object(), *list = json_array();
  for (size_t k = 0; k < blocks; ++k) {
    json_t *block = json_object();
    json_put(block, "re", pack_reals(H, re + k * H, bad), bad);
    json_put(block, "im", pack_reals(H, im + k * H, bad), bad);
    json_append(list, block, bad);
  }
  json_put(object, "gates", json_string(gates), bad);
  json_put(object, "blocks", list, bad);
  return object;
}

/* Those of the last measurement of the gradient flow. */
static void pack_measured(const run *r, json_t *layers, bool *bad)
{
  const unroll_gradflow f = run_flow_view(&r->flows, r->flows.n - 1);
  for (size_t l = 0; l < f.L; ++l) {
    const size_t first = l * f.blocks * f.H;
    json_append(
        layers,
        pack_layer(f.blocks, f.H, f.gates, f.eigenvalue_re + first, f.eigenvalue_im + first, bad),
        bad);
  }
}

/* Those of the weights. */
static unroll_status pack_computed(const run *r, json_t *layers, bool *bad)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *p = r->params;
  const size_t H = p->shape.H, blocks = params_cell(p)->recurrent;
  double *re = NULL, *im = NULL, *singular = NULL;

  UNROLL_TRY(memory_new(blocks * H, sizeof *re, "eigenvalues", &re));
  UNROLL_TRY(memory_new(blocks * H, sizeof *im, "eigenvalues", &im));
  UNROLL_TRY(memory_new(H, sizeof *singular, "singular values", &singular));
  for (size_t l = 0; l < p->shape.L; ++l) {
    const unroll_tensor *W = params_tensor(p, l, PARAMS_W_HH);
    for (size_t k = 0; k < blocks; ++k) {
      UNROLL_TRY(spectrum_of(H, p->values + unroll_tensor_index(W, k * H, 0), W->ld, re + k * H,
                             im + k * H, singular));
    }
    json_append(layers, pack_layer(blocks, H, params_cell(p)->gates, re, im, bad), bad);
  }

cleanup:
  memory_free(&singular);
  memory_free(&im);
  memory_free(&re);
  return st;
}

static unroll_status pack_spectra(const run *r, bool finite, json_t **out, bool *bad)
{
  unroll_status st = UNROLL_OK;
  json_t *object = json_object(), *layers = json_array();
  const unroll_params *p = r->params;
  const bool measured = r->flows.n > 0;
  const char *none = NULL;

  if (params_tensor(p, 0, PARAMS_W_HH) == NULL) {
    none = "a minGRU has no recurrent matrix";
  } else if (measured) {
    pack_measured(r, layers, bad);
  } else if (!finite) {
    none = "the weights are not finite";
  } else if (p->shape.H > SPECTRUM_UNITS) {
    none = "more than 1024 units would take long: train with --diagnose-every to have them";
  } else {
    st = pack_computed(r, layers, bad);
  }
  json_put(object, "step", json_count(measured ? r->flows.step[r->flows.n - 1] : r->state.step),
           bad);
  json_put(object, "layers", json_incref(layers), bad);
  json_decref(layers);
  *out = none != NULL ? json_string(none) : json_incref(object);
  json_decref(object);
  return st;
}

/* ----------------------------------------------------------- gradient flow */

/* Of more than MOMENTS measurements every so many, to the last. */
static size_t moments_every(const run_flows *flows)
{
  return (flows->n + MOMENTS - 1) / MOMENTS;
}

static size_t first_moment(const run_flows *flows)
{
  return (flows->n - 1) % moments_every(flows);
}

/* A number of a layer, of the moments in order; a lag that there is not is null. */
static json_t *pack_moments(const run_flows *flows, const double *x, bool *bad)
{
  json_t *array = json_array();
  for (size_t i = first_moment(flows); i < flows->n; i += moments_every(flows)) {
    json_append(array, json_number(x[i * flows->rows.L]), bad);
  }
  return array;
}

static json_t *pack_lags(const run_flows *flows, const int64_t *x, bool *bad)
{
  json_t *array = json_array();
  for (size_t i = first_moment(flows); i < flows->n; i += moments_every(flows)) {
    const int64_t lag = x[i * flows->rows.L];
    json_append(array, lag < 0 ? json_null() : json_integer((json_int_t)lag), bad);
  }
  return array;
}

static json_t *pack_flow(const run_flows *flows, bool *bad)
{
  const unroll_gradflow *rows = &flows->rows;
  const size_t n = (size_t)rows->lags + 1, every = moments_every(flows),
               first = first_moment(flows);
  json_t *object = json_object(), *steps = json_array(), *layers = json_array();

  for (size_t i = first; i < flows->n; i += every) {
    json_append(steps, json_count(flows->step[i]), bad);
  }
  for (size_t l = 0; l < rows->L; ++l) {
    json_t *layer = json_object(), *norms = json_array();
    for (size_t i = first; i < flows->n; i += every) {
      json_append(norms, pack_reals(n, rows->norm_mean + (i * rows->L + l) * n, bad), bad);
    }
    json_put(layer, "norm_mean", norms, bad);
    json_put(layer, "growth", pack_moments(flows, rows->growth + l, bad), bad);
    json_put(layer, "lyapunov", pack_moments(flows, rows->lyapunov + l, bad), bad);
    json_put(layer, "half_lag", pack_lags(flows, rows->half_lag + l, bad), bad);
    json_put(layer, "percent_lag", pack_lags(flows, rows->percent_lag + l, bad), bad);
    json_append(layers, layer, bad);
  }
  json_put(object, "step", steps, bad);
  json_put(object, "lags", json_count(rows->lags), bad);
  json_put(object, "layers", layers, bad);
  return object;
}

/* ------------------------------------------------------------------ sample */

/* Text that grows. */
struct growing {
  char *text;
  size_t n, max;
  unroll_status st;
};

static void grow(void *context, const char *text, size_t n)
{
  struct growing *g = context;
  if (g->st == UNROLL_OK && g->n + n > g->max) {
    const size_t max = 2 * (g->max + n);
    g->st = memory_resize(g->max, max, 1, "a sample", &g->text);
    g->max = g->st == UNROLL_OK ? max : g->max;
  }
  if (g->st != UNROLL_OK) { return; }
  memcpy(g->text + g->n, text, n);
  g->n += n;
}

static unroll_status pack_sample(run *r, uint64_t length, json_t **out)
{
  unroll_status st = UNROLL_OK;
  struct growing drawn = {.st = UNROLL_OK};
  unroll_model model = {.run = r};
  const unroll_sampling how = {
      .prime = "", .length = length, .temperature = SAMPLE_TEMPERATURE, .seed = SAMPLE_SEED};

  UNROLL_TRY(kernels_start());
  st = unroll_model_sample(&model, &how, grow, &drawn);
  if (st == UNROLL_ERR_INPUT) { /* it knows no token but <unk> */
    st = UNROLL_OK;
    goto cleanup;
  }
  UNROLL_TRY(st);
  UNROLL_TRY(drawn.st);
  *out = data_text(drawn.text, drawn.n);

cleanup:
  memory_free(&drawn.text);
  return st;
}

/* ------------------------------------------------------------------- words */

/* The fields of a table; texts may have any bytes. */
static json_t *pack_fields(const schema_table *table, const void *of, bool *bad)
{
  json_t *object = json_object();
  for (size_t k = 0; k < table->n; ++k) {
    const schema_field *field = &table->fields[k];
    char *const *text = (char *const *)(const void *)((const char *)of + field->offset);
    json_put(object, field->name,
             field->type == SCHEMA_TEXT ? pack_text(*text) : schema_pack(field, of), bad);
  }
  return object;
}

static json_t *pack_files(const run_provenance *p, bool *bad)
{
  json_t *files = json_array();
  for (size_t i = 0; i < p->n_files; ++i) {
    json_t *file = json_object();
    json_put(file, "name", pack_text(p->file_name[i]), bad);
    json_put(file, "bytes", json_count(p->file_bytes[i]), bad);
    json_put(file, "sha256", pack_text(p->file_sha256[i]), bad);
    json_append(files, file, bad);
  }
  return files;
}

static json_t *pack_changed(const run_provenance *p, bool *bad)
{
  json_t *changed = json_array();
  for (size_t i = 0; i < p->n_changed; ++i) { json_append(changed, pack_text(p->changed[i]), bad); }
  return changed;
}

/* Options as the command line would have them: name and text, in the order of the table. */
static json_t *pack_config(const unroll_config *config, bool *bad)
{
  json_t *object = json_object();
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    char text[UNROLL_CONFIG_TEXT];
    options_format(&config_table.rows[k], config, sizeof text, text);
    json_put(object, config_table.rows[k].name, pack_text(text), bad);
  }
  return object;
}

static json_t *pack_model(const run *r, bool *bad)
{
  const unroll_shape *s = &r->params->shape;
  json_t *object = json_object();
  json_put(object, "level", json_string(unroll_level_text(r->config.level)), bad);
  json_put(object, "units", json_string(params_units(s)), bad);
  json_put(object, "hidden", json_count(s->H), bad);
  json_put(object, "layers", json_count(s->L), bad);
  json_put(object, "vocab", json_count(s->V), bad);
  json_put(object, "parameters", json_count(r->params->n_real), bad);
  return object;
}

unroll_status data_pack(run *r, uint64_t sample, json_t **out, bool *bad)
{
  unroll_status st = UNROLL_OK;
  json_t *object = json_object(), *spectra = NULL, *text = NULL;
  const bool finite = params_are_finite(r->params);

  UNROLL_TRY(pack_spectra(r, finite, &spectra, bad));
  if (sample > 0 && finite) { UNROLL_TRY(pack_sample(r, sample, &text)); }
  for (size_t i = 0; r->provenance.valid_unknown_tokens > 0 && i < r->n_valid; ++i) {
    r->valid[i].bits_per_character = (double)NAN; /* cannot be compared: ranking.c */
  }
  json_put(object, "rows_per_point", json_count(rows_per_point(r->n_train)), bad);
  json_put(object, "train", pack_table(&schema_train, r->train, sizeof *r->train, r->n_train, bad),
           bad);
  json_put(object, "valid", pack_table(&schema_valid, r->valid, sizeof *r->valid, r->n_valid, bad),
           bad);
  json_put(object, "clip", pack_clip(r, bad), bad);
  json_put(object, "time", pack_time(r, bad), bad);
  json_put(object, "spectra", json_incref(spectra), bad);
  json_put(object, "flow", r->flows.n > 0 ? pack_flow(&r->flows, bad) : json_null(), bad);
  json_put(object, "sample", text != NULL ? json_incref(text) : json_null(), bad);
  json_put(object, "model", pack_model(r, bad), bad);
  json_put(object, "state", pack_fields(&schema_state, &r->state, bad), bad);
  json_put(object, "provenance", pack_fields(&schema_provenance, &r->provenance, bad), bad);
  json_put(object, "command_line", pack_text(r->provenance.command_line), bad);
  json_put(object, "files", pack_files(&r->provenance, bad), bad);
  json_put(object, "changed", pack_changed(&r->provenance, bad), bad);
  json_put(object, "config", pack_config(&r->config, bad), bad);
  *out = json_incref(object);

cleanup:
  json_decref(text);
  json_decref(spectra);
  json_decref(object);
  return st;
}
