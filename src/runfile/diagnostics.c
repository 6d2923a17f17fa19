#include "runfile/diagnostics.h"

#include "base/build.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "net/params.h"
#include "runfile/image.h"
#include "runfile/save.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GROUP "/diagnostics"

/* ------------------------------------------------------------------- table */

/* A dataset of a result, for each layer: a curve over the lags, of h or of c; values by their rank, or a number, for
 * each block of W_hh; or a number. */
typedef enum kind { CURVE, MEMORY_CURVE, SPECTRUM, BLOCK_NUMBER, NUMBER } kind;
typedef enum type { REAL, WHOLE, VERDICT } type; /* double, int64_t, unroll_flow */
typedef struct dataset {
  const char *name;
  type type;
  kind kind;
  size_t offset; /* of the pointer in unroll_gradflow */
  const char *units, *long_name;
} dataset;

#define AT(field) .name = #field, .offset = offsetof(unroll_gradflow, field)

static const dataset datasets[] = {
    {AT(norm_mean), .kind = CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the hidden state some steps before, mean over "
                  "positions"},
    {AT(norm_q10), .kind = CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the hidden state some steps before, quantile "
                  "0.1 over positions"},
    {AT(norm_q50), .kind = CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the hidden state some steps before, median "
                  "over positions"},
    {AT(norm_q90), .kind = CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the hidden state some steps before, quantile "
                  "0.9 over positions"},
    {AT(norm_log10), .kind = CURVE, .units = "1",
     .long_name = "decimal logarithm of the norm of the gradient of a loss by the hidden state "
                  "some steps before, mean over positions"},
    {AT(norm_c_mean), .kind = MEMORY_CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the memory c some steps before, mean over "
                  "positions"},
    {AT(norm_c_q10), .kind = MEMORY_CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the memory c some steps before, quantile 0.1 "
                  "over positions"},
    {AT(norm_c_q50), .kind = MEMORY_CURVE, .units = "nats",
     .long_name =
         "norm of the gradient of a loss by the memory c some steps before, median over positions"},
    {AT(norm_c_q90), .kind = MEMORY_CURVE, .units = "nats",
     .long_name = "norm of the gradient of a loss by the memory c some steps before, quantile 0.9 "
                  "over positions"},
    {AT(norm_c_log10), .kind = MEMORY_CURVE, .units = "1",
     .long_name = "decimal logarithm of the norm of the gradient of a loss by the memory c some "
                  "steps before, mean over positions"},
    {AT(eigenvalue_re), .kind = SPECTRUM, .units = "1",
     .long_name = "eigenvalues of W_hh by falling modulus, real part"},
    {AT(eigenvalue_im), .kind = SPECTRUM, .units = "1",
     .long_name = "eigenvalues of W_hh by falling modulus, imaginary part"},
    {AT(singular_value), .kind = SPECTRUM, .units = "1", .long_name = "singular values of W_hh"},
    {AT(spectral_radius), .kind = BLOCK_NUMBER, .units = "1",
     .long_name = "largest modulus of an eigenvalue of W_hh"},
    {AT(spectral_norm), .kind = BLOCK_NUMBER, .units = "1",
     .long_name = "largest singular value of W_hh"},
    {AT(lyapunov), .kind = NUMBER, .units = "step-1",
     .long_name = "largest Lyapunov exponent of the product of Jacobians along the text"},
    {AT(derivative), .kind = NUMBER, .units = "1",
     .long_name = "derivative of the activation, or factor of a gated state past the product, mean "
                  "over units and steps"},
    {AT(growth), .kind = NUMBER, .units = "1",
     .long_name = "factor per step of the norm of the gradient over the farther half of the lags"},
    {AT(half_lag), .type = WHOLE, .kind = NUMBER, .units = "steps",
     .long_name = "first lag with half of the mean norm of the gradient at lag 0, -1 for none"},
    {AT(percent_lag), .type = WHOLE, .kind = NUMBER, .units = "steps",
     .long_name = "first lag with 1% of the mean norm of the gradient at lag 0, -1 for none"},
    {AT(verdict), .type = VERDICT, .kind = NUMBER, .units = "1",
     .long_name = "what gradients do over the lags: vanishing, stable or exploding"},
};
#define N_DATASETS (sizeof datasets / sizeof datasets[0])

static char *array_of(const unroll_gradflow *f, const dataset *d)
{
  char *array = NULL;
  memcpy(&array, (const char *)f + d->offset, sizeof array);
  return array;
}

/* Elements of one result; 0: models of this cell have no such dataset. */
static size_t length_of(const unroll_gradflow *f, const dataset *d)
{
  switch (d->kind) {
  case CURVE:
    return f->L * ((size_t)f->lags + 1);
  case MEMORY_CURVE:
    return f->memory ? f->L * ((size_t)f->lags + 1) : 0;
  case SPECTRUM:
    return f->L * f->blocks * f->H;
  case BLOCK_NUMBER:
    return f->L * f->blocks;
  case NUMBER:
    break;
  }
  return f->L;
}

/* Dimensions of one result: layer, block of several, lag or mode. Returns their number. */
static int dimensions_of(const unroll_gradflow *f, const dataset *d, h5_dim *dim)
{
  const bool curve = d->kind == CURVE || d->kind == MEMORY_CURVE;
  const bool by_block = d->kind == SPECTRUM || d->kind == BLOCK_NUMBER;
  int rank = 0;

  dim[rank++] = (h5_dim){f->L, GROUP "/layer"};
  if (by_block && f->blocks > 1) { dim[rank++] = (h5_dim){f->blocks, GROUP "/block"}; }
  if (curve) { dim[rank++] = (h5_dim){(size_t)f->lags + 1, GROUP "/lag"}; }
  if (d->kind == SPECTRUM) { dim[rank++] = (h5_dim){f->H, GROUP "/mode"}; }
  return rank;
}

/* Bytes of one result. */
static size_t bytes_of(const unroll_gradflow *f, const dataset *d)
{
  return length_of(f, d) * (d->type == REAL    ? sizeof(double)
                            : d->type == WHOLE ? sizeof(int64_t)
                                               : sizeof(unroll_flow));
}

/* -------------------------------------------------------------------- rows */

static unroll_status grow(run_flows *flows, size_t max)
{
  unroll_status st = UNROLL_OK;
  unroll_gradflow *rows = &flows->rows;

  UNROLL_TRY(memory_resize(flows->n, max, sizeof *flows->step, "gradient flow", &flows->step));
  for (size_t i = 0; i < N_DATASETS; ++i) {
    if (length_of(rows, &datasets[i]) == 0) { continue; }
    UNROLL_TRY(memory_resize(flows->n, max, bytes_of(rows, &datasets[i]), "gradient flow",
                             (char *)rows + datasets[i].offset));
  }
  flows->max = max;

cleanup:
  return st;
}

bool run_flows_fit(const run_flows *flows, const unroll_gradflow *flow)
{
  const unroll_gradflow *rows = &flows->rows;
  return flows->n == 0 ||
         (rows->L == flow->L && rows->H == flow->H && rows->positions == flow->positions &&
          rows->lags == flow->lags && rows->context == flow->context);
}

unroll_status run_add_flow(run *r, const unroll_gradflow *flow)
{
  assert(run_flows_fit(&r->flows, flow));
  unroll_status st = UNROLL_OK;
  run_flows *flows = &r->flows;

  if (flows->n == 0) {
    diagnostics_free(flows);
    flows->rows = (unroll_gradflow){.L = flow->L,
                                    .H = flow->H,
                                    .memory = flow->memory,
                                    .blocks = flow->blocks,
                                    .gates = flow->gates,
                                    .positions = flow->positions,
                                    .lags = flow->lags,
                                    .context = flow->context};
  }
  if (flows->n == flows->max) { UNROLL_TRY(grow(flows, flows->max == 0 ? 16 : 2 * flows->max)); }
  for (size_t i = 0; i < N_DATASETS; ++i) {
    size_t bytes = bytes_of(flow, &datasets[i]);
    if (bytes == 0) { continue; }
    memcpy(array_of(&flows->rows, &datasets[i]) + flows->n * bytes, array_of(flow, &datasets[i]),
           bytes);
  }
  flows->step[flows->n++] = flow->step;

cleanup:
  return st;
}

unroll_gradflow run_flow_view(const run_flows *flows, size_t i)
{
  assert(i < flows->n);
  unroll_gradflow row = flows->rows;
  for (size_t k = 0; k < N_DATASETS; ++k) {
    if (length_of(&row, &datasets[k]) == 0) { continue; }
    char *array = array_of(&row, &datasets[k]) + i * bytes_of(&row, &datasets[k]);
    memcpy((char *)&row + datasets[k].offset, &array, sizeof array);
  }
  row.step = flows->step[i];
  return row;
}

void diagnostics_free(run_flows *flows)
{
  for (size_t i = 0; i < N_DATASETS; ++i) {
    memory_free((char *)&flows->rows + datasets[i].offset);
  }
  memory_free(&flows->step);
  *flows = (run_flows){0};
}

/* ---------------------------------------------------------------- datasets */

/* A dataset of results one after the other: n rows along the dimension step, or without it one. */
static unroll_status put_dataset(const h5_file *file, const dataset *d, const unroll_gradflow *f,
                                 size_t n, bool rows)
{
  unroll_status st = UNROLL_OK;
  h5_shape shape = {.grows = rows, .units = d->units, .long_name = d->long_name};
  const void *data = array_of(f, d);
  const char **text = NULL;
  char object[H5_PATH];

  if (rows) { shape.dim[shape.rank++] = (h5_dim){n, GROUP "/step"}; }
  shape.rank += dimensions_of(f, d, shape.dim + shape.rank);
  (void)snprintf(object, sizeof object, GROUP "/%s", d->name);
  switch (d->type) {
  case REAL:
    UNROLL_TRY(h5_put(file, object, H5T_IEEE_F64LE, &shape, H5T_NATIVE_DOUBLE, data));
    break;
  case WHOLE:
    UNROLL_TRY(h5_put(file, object, H5T_STD_I64LE, &shape, H5T_NATIVE_INT64, data));
    break;
  case VERDICT:
    UNROLL_TRY(memory_new(n * f->L, sizeof *text, "verdicts", &text));
    for (size_t i = 0; i < n * f->L; ++i) {
      text[i] = unroll_flow_text(((const unroll_flow *)data)[i]);
    }
    UNROLL_TRY(h5_put_strings(file, object, &shape, text));
    break;
  }

cleanup:
  memory_free(&text);
  return st;
}

/* The scale of the blocks of W_hh: their letters. */
static unroll_status put_blocks(const h5_file *file, const unroll_gradflow *f)
{
  const h5_shape shape = {
      1, {{f->blocks, GROUP "/block"}}, false, "1", "block of W_hh, the letter of its gate"};
  char letter[CELL_BLOCKS][2] = {{0}};
  const char *text[CELL_BLOCKS] = {0};

  for (size_t k = 0; k < f->blocks; ++k) {
    letter[k][0] = f->gates[k];
    text[k] = letter[k];
  }
  return h5_put_strings(file, GROUP "/block", &shape, text);
}

/* The scales but step, and all that was measured. */
static unroll_status put_datasets(const h5_file *file, const unroll_gradflow *f, size_t n,
                                  bool rows)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(h5_put_index(file, GROUP "/layer", "layer, from the input on", f->L));
  UNROLL_TRY(h5_put_index(file, GROUP "/lag", "steps back from the loss", (size_t)f->lags + 1));
  if (f->blocks > 0) {
    UNROLL_TRY(h5_put_index(file, GROUP "/mode",
                            "eigenvalue or singular value, from the largest on", f->H));
  }
  if (f->blocks > 1) { UNROLL_TRY(put_blocks(file, f)); }
  for (size_t i = 0; i < N_DATASETS; ++i) {
    if (length_of(f, &datasets[i]) == 0) { continue; }
    UNROLL_TRY(put_dataset(file, &datasets[i], f, n, rows));
  }

cleanup:
  return st;
}

/* What all results of a group have in common. */
static unroll_status put_plan(const h5_file *file, const unroll_gradflow *f)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(h5_put_count(file, GROUP, "positions", f->positions));
  UNROLL_TRY(h5_put_count(file, GROUP, "lags", f->lags));
  UNROLL_TRY(h5_put_count(file, GROUP, "context", f->context));

cleanup:
  return st;
}

/* [bytes] Of n results: data, what HDF5 puts around them, and the texts. */
static size_t estimate(const unroll_gradflow *f, size_t n)
{
  size_t elements = 0;
  for (size_t i = 0; i < N_DATASETS; ++i) { elements += length_of(f, &datasets[i]); }
  return n * (16 * elements + 64 * f->L);
}

/* ------------------------------------------------------------- of a training */

size_t diagnostics_estimate(const run_flows *flows)
{
  return estimate(&flows->rows, flows->n);
}

unroll_status diagnostics_put(const h5_file *file, const run_flows *flows)
{
  unroll_status st = UNROLL_OK;
  const h5_shape steps = {1, {{flows->n, GROUP "/step"}}, true, "1", "updates done"};

  if (flows->n == 0) { goto cleanup; }
  UNROLL_TRY(h5_put_group(file, GROUP));
  UNROLL_TRY(put_plan(file, &flows->rows));
  UNROLL_TRY(h5_put(file, GROUP "/step", H5T_STD_I64LE, &steps, H5T_NATIVE_UINT64, flows->step));
  UNROLL_TRY(put_datasets(file, &flows->rows, flows->n, true));

cleanup:
  return st;
}

/* The opposite of unroll_flow_text. */
static bool find_verdict(const char *text, unroll_flow *verdict)
{
  static const unroll_flow all[] = {UNROLL_FLOW_VANISHING, UNROLL_FLOW_STABLE,
                                    UNROLL_FLOW_EXPLODING};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    *verdict = all[i];
    if (strcmp(text, unroll_flow_text(*verdict)) == 0) { return true; }
  }
  return false;
}

static unroll_status get_verdicts(const h5_file *file, const char *object, const hsize_t *shape,
                                  unroll_flow *verdict)
{
  unroll_status st = UNROLL_OK;
  const size_t n = (size_t)(shape[0] * shape[1]);
  char **text = NULL;

  UNROLL_TRY(h5_get_strings(file, object, 2, shape, &text));
  for (size_t i = 0; i < n; ++i) {
    if (find_verdict(text[i], &verdict[i])) { continue; }
    st = unroll_fail(file->failure, "%s: %s has \"%.40s\"; legal is vanishing, stable or exploding",
                     file->path, object, text[i]);
    goto cleanup;
  }

cleanup:
  h5_free_strings(n, &text);
  return st;
}

static unroll_status get_dataset(const h5_file *file, const dataset *d, const unroll_gradflow *rows,
                                 size_t n)
{
  char object[H5_PATH];
  h5_dim dim[H5_RANK];
  const int rank = 1 + dimensions_of(rows, d, dim);
  hsize_t shape[H5_RANK] = {n};
  void *data = array_of(rows, d);

  for (int i = 1; i < rank; ++i) { shape[i] = dim[i - 1].n; }
  (void)snprintf(object, sizeof object, GROUP "/%s", d->name);
  switch (d->type) {
  case REAL:
    return h5_get(file, object, H5T_FLOAT, rank, shape, H5T_NATIVE_DOUBLE, data);
  case WHOLE:
    return h5_get(file, object, H5T_INTEGER, rank, shape, H5T_NATIVE_INT64, data);
  case VERDICT:
    return get_verdicts(file, object, shape, data);
  }
  return UNROLL_OK;
}

unroll_status diagnostics_get(const h5_file *file, const unroll_params *params, run_flows *flows)
{
  unroll_status st = UNROLL_OK;
  const cell *c = params_cell(params);
  run_flows made = {.rows = {.L = params->shape.L,
                             .H = params->shape.H,
                             .memory = c->memory,
                             .blocks = c->recurrent,
                             .gates = c->gates}};
  hid_t steps = H5I_INVALID_HID;
  hsize_t n[1] = {0};
  bool has = false;

  UNROLL_TRY(h5_has(file, GROUP, &has));
  if (!has) { goto cleanup; }
  UNROLL_TRY(h5_get_count(file, GROUP, "positions", &made.rows.positions));
  UNROLL_TRY(h5_get_count(file, GROUP, "lags", &made.rows.lags));
  UNROLL_TRY(h5_get_count(file, GROUP, "context", &made.rows.context));
  if (made.rows.lags > INT32_MAX) { /* before memory is asked for */
    st = unroll_fail(file->failure, "%s: lags of " GROUP " is %" PRIu64 "; 1 to %d are legal",
                     file->path, made.rows.lags, INT32_MAX);
    goto cleanup;
  }
  UNROLL_TRY(h5_open(file, GROUP "/step", H5T_INTEGER, 1, n, &steps));
  UNROLL_TRY(grow(&made, (size_t)n[0]));
  made.n = (size_t)n[0];
  UNROLL_TRY(h5_get(file, GROUP "/step", H5T_INTEGER, 1, n, H5T_NATIVE_UINT64, made.step));
  for (size_t i = 0; i < N_DATASETS; ++i) {
    if (length_of(&made.rows, &datasets[i]) == 0) { continue; }
    UNROLL_TRY(get_dataset(file, &datasets[i], &made.rows, made.n));
  }
  *flows = made;
  made = (run_flows){0};

cleanup:
  diagnostics_free(&made);
  st = h5_close(file, st, H5Dclose, &steps);
  return st;
}

/* -------------------------------------------------------------------- JSON */

/* One value; -1 stands for a lag that there is not: null. */
static json_t *pack_value(const unroll_gradflow *f, const dataset *d, size_t l)
{
  const void *data = array_of(f, d);
  switch (d->type) {
  case REAL:
    return json_number(((const double *)data)[l]);
  case WHOLE: {
    int64_t x = ((const int64_t *)data)[l];
    return x >= 0 ? json_integer((json_int_t)x) : json_null();
  }
  case VERDICT:
    return json_string(unroll_flow_text(((const unroll_flow *)data)[l]));
  }
  return NULL;
}

/* An object of the blocks of W_hh, by their letters. */
static json_t *pack_blocks(const unroll_gradflow *f, const dataset *d, size_t l, bool *bad)
{
  json_t *object = json_object();
  for (size_t k = 0; k < f->blocks; ++k) {
    const char letter[] = {f->gates[k], '\0'};
    json_put(object, letter, pack_value(f, d, l * f->blocks + k), bad);
  }
  return object;
}

void diagnostics_pack(const unroll_gradflow *f, json_t *object, bool *bad)
{
  json_put(object, "step", json_count(f->step), bad);
  for (size_t i = 0; i < N_DATASETS; ++i) {
    const dataset *d = &datasets[i];
    if ((d->kind != NUMBER && d->kind != BLOCK_NUMBER) || length_of(f, d) == 0) { continue; }
    json_t *array = json_array();
    for (size_t l = 0; l < f->L; ++l) {
      const bool by_block = d->kind == BLOCK_NUMBER && f->blocks > 1;
      json_append(array, by_block ? pack_blocks(f, d, l, bad) : pack_value(f, d, l), bad);
    }
    json_put(object, d->name, array, bad);
  }
}

/* ----------------------------------------------------------- a file of its own */

static unroll_status put_root(const h5_file *file, const unroll_gradflow *f,
                              const char *command_line)
{
  char title[160], now[CLOCK_ISO_SIZE];

  clock_iso(now);
  (void)snprintf(title, sizeof title, "gradient flow: hidden units %zu, layers %zu, lags %zu", f->H,
                 f->L, (size_t)f->lags);
  return h5_put_root(file, DIAGNOSTICS_FORMAT, DIAGNOSTICS_VERSION, title, now, command_line);
}

static unroll_status put_group(const h5_file *file, const unroll_gradflow *f, const char *run_name)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(h5_put_group(file, GROUP));
  UNROLL_TRY(h5_put_text(file, GROUP, "run", run_name));
  UNROLL_TRY(h5_put_count(file, GROUP, "step", f->step));
  UNROLL_TRY(put_plan(file, f));
  UNROLL_TRY(h5_put_count(file, GROUP, "tokens", f->tokens));
  UNROLL_TRY(h5_put_count(file, GROUP, "unknown", f->unknown));
  UNROLL_TRY(put_datasets(file, f, 1, false));

cleanup:
  return st;
}

unroll_status diagnostics_write(const char *path, const unroll_gradflow *f, const char *run_name,
                                const char *command_line)
{
  unroll_status st = UNROLL_OK;
  h5_file opened = {H5I_INVALID_HID, path, UNROLL_ERR_HDF5};
  const h5_file *file = &opened;
  image m = {0};
  char *prepared = NULL;
  h5_printing before = {0};

  h5_quiet(&before);
  UNROLL_TRY(image_create(&opened, &m, estimate(f, 1) + 4 * strlen(command_line)));
  UNROLL_TRY(put_root(file, f, command_line));
  UNROLL_TRY(put_group(file, f, run_name));
  UNROLL_TRY(image_prepare(file, &m, &prepared));
  UNROLL_TRY(save_commit(path, &prepared));

cleanup:
  st = h5_close(file, st, H5Fclose, &opened.id);
  image_free(&m);
  h5_loud(&before);
  return st;
}
