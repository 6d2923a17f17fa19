#include "base/check.h"
#include "base/json.h"
#include "cli/cli.h"
#include "comm/comm.h"
#include "runfile/diagnostics.h"
#include "runfile/runfile.h"

#include <inttypes.h>
#include <string.h>
#include <unroll/gradflow.h>

struct gradflow_settings {
  unroll_weights weights;
  uint64_t positions, lags, context;
  char out[UNROLL_CONFIG_TEXT];
  bool overwrite;
  bool json;
};

#define AT(field) .offset = offsetof(struct gradflow_settings, field)

static const option rows[] = {
    {CLI_WEIGHTS, .offset = offsetof(struct gradflow_settings, weights)},
    {.name = "lags",
     .type = OPTION_COUNT,
     AT(lags),
     .default_text = "100",
     .unit = "steps",
     .low = 1,
     .high = 100000,
     .heading = "Measurement",
     .help = "how far back to follow each gradient"},
    {.name = "positions",
     .type = OPTION_COUNT,
     AT(positions),
     .default_text = "256",
     .unit = "tokens",
     .low = 1,
     .high = 1e6,
     .heading = "Measurement",
     .help = "losses to follow, spread over the text"},
    {.name = "context",
     .type = OPTION_COUNT,
     AT(context),
     .default_text = "100",
     .unit = "tokens",
     .low = 0,
     .high = 100000,
     .heading = "Measurement",
     .help = "read before those steps, from the zero state, so that hidden states are those of "
             "running text; fewer where the text is short"},
    {.name = "out",
     .letter = 'o',
     .type = OPTION_TEXT,
     AT(out),
     .default_text = "",
     .unit = "file",
     .heading = "Output",
     .help = "also write all of it to this file, HDF5"},
    {.name = "overwrite",
     .type = OPTION_FLAG,
     AT(overwrite),
     .default_text = "no",
     .heading = "Output",
     .help = "replace an existing file",
     .needs = "--out"},
    {CLI_JSON, AT(json)},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* ------------------------------------------------------------------- page */

/* The lag of the next line: 0, 1, 2, 5, 10, 20, 50, 100, ..., and at last K. */
static uint64_t next_lag(uint64_t lag, uint64_t K)
{
  uint64_t power = 1;
  if (lag == 0) { return 1; }
  while (power * 10 <= lag) { power *= 10; }
  uint64_t next = lag < 2 * power ? 2 * power : lag < 5 * power ? 5 * power : 10 * power;
  return lag < K && next > K ? K : next;
}

/* Mean and quantiles 0.1, 0.5, 0.9 over the lags. */
static void print_curves(const unroll_gradflow *f, const char *name, const double *const curve[4])
{
  (void)printf("%5s %6s", "layer", "k");
  for (size_t i = 0; i < 4; ++i) {
    static const char *const what[] = {"mean", "q10", "q50", "q90"};
    (void)printf(" %*s%s", 12 - (int)strlen(what[i]), name, what[i]);
  }
  (void)printf("\n");
  for (size_t l = 0; l < f->L; ++l) {
    for (uint64_t k = 0; k <= f->lags; k = next_lag(k, f->lags)) {
      size_t i = l * ((size_t)f->lags + 1) + (size_t)k;
      (void)printf("%5zu %6" PRIu64 " %12.4e %12.4e %12.4e %12.4e\n", l, k, curve[0][i],
                   curve[1][i], curve[2][i], curve[3][i]);
    }
  }
}

static void print_norms(const unroll_gradflow *f)
{
  (void)printf("norm of dl_t/dh_{t-k}, the gradient of the loss at t by the hidden state k steps "
               "before\n"
               "positions %" PRIu64 "  lags %" PRIu64 "  context %" PRIu64 "  tokens %" PRIu64
               "  unknown %" PRIu64 "  step %" PRIu64 "\n",
               f->positions, f->lags, f->context, f->tokens, f->unknown, f->step);
  print_curves(f, "norm_",
               (const double *const[]){f->norm_mean, f->norm_q10, f->norm_q50, f->norm_q90});
  if (!f->memory) { return; }
  (void)printf("norm of dl_t/dc_{t-k}, the same by the memory that step t-k hands on\n");
  print_curves(
      f, "norm_c_",
      (const double *const[]){f->norm_c_mean, f->norm_c_q10, f->norm_c_q50, f->norm_c_q90});
}

static void print_lag(const char *part, int64_t lag)
{
  if (lag >= 0) { (void)printf(", %s is left at lag %" PRId64, part, lag); }
}

static void print_layers(const unroll_gradflow *f)
{
  for (size_t l = 0; l < f->L; ++l) {
    const size_t first = l * f->blocks;
    for (size_t k = 0; k < f->blocks && f->blocks > 1; ++k) {
      (void)printf("layer %zu  gate %c  spectral_radius %.6g  spectral_norm %.6g\n", l, f->gates[k],
                   f->spectral_radius[first + k], f->spectral_norm[first + k]);
    }
    (void)printf("layer %zu", l);
    if (f->blocks == 1) {
      (void)printf("  spectral_radius %.6g  spectral_norm %.6g", f->spectral_radius[l],
                   f->spectral_norm[l]);
    }
    (void)printf("  lyapunov %.6g  derivative %.6g\n", f->lyapunov[l], f->derivative[l]);
  }
  for (size_t l = 0; l < f->L; ++l) {
    (void)printf("layer %zu  %s: growth %.4g per step", l, unroll_flow_text(f->verdict[l]),
                 f->growth[l]);
    print_lag("half", f->half_lag[l]);
    print_lag("1%", f->percent_lag[l]);
    if (f->half_lag[l] < 0) { (void)printf(", more than half is left at lag %" PRIu64, f->lags); }
    (void)printf("\n");
  }
}

/* ------------------------------------------------------------------- JSON */

static json_t *pack_array(size_t n, const double *x, bool *bad)
{
  json_t *array = json_array();
  for (size_t i = 0; i < n; ++i) { json_append(array, json_number(x[i]), bad); }
  return array;
}

static void put_array(json_t *object, const char *key, size_t n, const double *x, bool *bad)
{
  json_put(object, key, pack_array(n, x, bad), bad);
}

/* Of block k of W_hh: the value itself where there is one block, else by its letter in an object. */
static void put_block(json_t *object, const unroll_gradflow *f, const char *key, size_t k,
                      json_t *value, bool *bad)
{
  const char gate[] = {f->gates[k], '\0'};
  if (f->blocks == 1) {
    json_put(object, key, value, bad);
    return;
  }
  if (k == 0) { json_put(object, key, json_object(), bad); }
  json_put(json_object_get(object, key), gate, value, bad);
}

static void put_lag(json_t *object, const char *key, int64_t lag, bool *bad)
{
  json_put(object, key, lag < 0 ? json_null() : json_integer((json_int_t)lag), bad);
}

static json_t *pack_layer(const unroll_gradflow *f, size_t l, bool *bad)
{
  json_t *o = json_object();
  const size_t n = (size_t)f->lags + 1;

  json_put(o, "layer", json_integer((json_int_t)l), bad);
  json_put(o, "verdict", json_string(unroll_flow_text(f->verdict[l])), bad);
  json_put(o, "growth", json_number(f->growth[l]), bad);
  put_lag(o, "half_lag", f->half_lag[l], bad);
  put_lag(o, "percent_lag", f->percent_lag[l], bad);
  for (size_t k = 0; k < f->blocks; ++k) {
    put_block(o, f, "spectral_radius", k, json_number(f->spectral_radius[l * f->blocks + k]), bad);
    put_block(o, f, "spectral_norm", k, json_number(f->spectral_norm[l * f->blocks + k]), bad);
  }
  json_put(o, "lyapunov", json_number(f->lyapunov[l]), bad);
  json_put(o, "derivative", json_number(f->derivative[l]), bad);
  put_array(o, "norm_mean", n, f->norm_mean + l * n, bad);
  put_array(o, "norm_q10", n, f->norm_q10 + l * n, bad);
  put_array(o, "norm_q50", n, f->norm_q50 + l * n, bad);
  put_array(o, "norm_q90", n, f->norm_q90 + l * n, bad);
  put_array(o, "norm_log10", n, f->norm_log10 + l * n, bad);
  if (f->memory) {
    put_array(o, "norm_c_mean", n, f->norm_c_mean + l * n, bad);
    put_array(o, "norm_c_q10", n, f->norm_c_q10 + l * n, bad);
    put_array(o, "norm_c_q50", n, f->norm_c_q50 + l * n, bad);
    put_array(o, "norm_c_q90", n, f->norm_c_q90 + l * n, bad);
    put_array(o, "norm_c_log10", n, f->norm_c_log10 + l * n, bad);
  }
  for (size_t k = 0; k < f->blocks; ++k) {
    const size_t first = (l * f->blocks + k) * f->H;
    put_block(o, f, "eigenvalue_re", k, pack_array(f->H, f->eigenvalue_re + first, bad), bad);
    put_block(o, f, "eigenvalue_im", k, pack_array(f->H, f->eigenvalue_im + first, bad), bad);
    put_block(o, f, "singular_value", k, pack_array(f->H, f->singular_value + first, bad), bad);
  }
  return o;
}

static unroll_status print_json(const unroll_gradflow *f)
{
  bool bad = false;
  json_t *object = json_object(), *layers = json_array();

  json_put(object, "positions", json_integer((json_int_t)f->positions), &bad);
  json_put(object, "lags", json_integer((json_int_t)f->lags), &bad);
  json_put(object, "context", json_integer((json_int_t)f->context), &bad);
  json_put(object, "tokens", json_integer((json_int_t)f->tokens), &bad);
  json_put(object, "unknown", json_integer((json_int_t)f->unknown), &bad);
  json_put(object, "step", json_integer((json_int_t)f->step), &bad);
  for (size_t l = 0; l < f->L; ++l) { json_append(layers, pack_layer(f, l, &bad), &bad); }
  json_put(object, "layers", layers, &bad);
  return cli_print_json(object, bad);
}

/* -------------------------------------------------------------------- run */

/* The output must not take the place of the run that is measured. */
static unroll_status check_output(const cli_call *call)
{
  const struct gradflow_settings *s = call->settings;
  if (s->out[0] == '\0') { return UNROLL_OK; }
  if (runfile_is_same(s->out, call->operands[0])) {
    return unroll_fail(UNROLL_ERR_ARG, "--out %s is the run file itself; legal is another name",
                       s->out);
  }
  return runfile_check_output(s->out, s->overwrite);
}

static unroll_status run_gradflow(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct gradflow_settings *s = call->settings;
  const bool root = unroll_comm_rank(call->comm) == 0;
  const unroll_gradflow_plan plan = {s->positions, s->lags, s->context};
  unroll_model *model = NULL;
  unroll_gradflow *flow = NULL;

  UNROLL_TRY(banner_advise(call->comm));
  UNROLL_TRY(comm_agree(call->comm, root ? check_output(call) : UNROLL_OK));
  UNROLL_TRY(unroll_model_load_weights(call->comm, call->operands[0], s->weights, &model));
  if (root) { cli_say_weights(model); }
  UNROLL_TRY(unroll_model_gradflow(model, call->comm, call->n_operands - 1, call->operands + 1,
                                   &plan, &flow));
  if (root && s->json) {
    UNROLL_TRY(print_json(flow));
  } else if (root) {
    print_norms(flow);
    print_layers(flow);
  }
  if (root && s->out[0] != '\0') { /* main.c makes all ranks agree on the outcome */
    UNROLL_TRY(diagnostics_write(s->out, flow, call->operands[0], call->command_line));
  }

cleanup:
  unroll_gradflow_free(&flow);
  unroll_model_free(&model);
  return st;
}

const cli_command cli_gradflow = {
    .usage =
        {.command = "gradflow",
         .operands = "RUN TEXT...",
         .min_operands = 2,
         .max_operands = SIZE_MAX,
         .purpose =
             "Measure how gradients flow back through time.\n"
             "\n"
             "The loss of one token is propagated back k steps, and through the layers, at\n"
             "many positions of the text: the norm of dl_t/dh_{t-k} says how much a model can\n"
             "learn across k tokens.",
         .notes =
             "Standard output has a table of norms (mean and quantiles 0.1, 0.5, 0.9 over the\n"
             "positions), then two lines for each layer. `spectral_radius` and\n"
             "`spectral_norm` are of W_hh, in a gated cell of the block of each gate;\n"
             "`lyapunov` is the growth per step of the product of Jacobians along the text,\n"
             "diag(phi'(a)) W_hh for a plain cell, as a natural logarithm; `derivative` is\n"
             "the mean of phi'(a), in a gated cell of the factor of the state past the product\n"
             "(lstm f, gru z, mingru 1 - z). An lstm has a second table, of dl_t/dc_{t-k}; the\n"
             "rest is of its whole state (h, c). `growth` is the factor per step of the\n"
             "norm over the farther half of the lags. A layer is vanishing when less than 1%\n"
             "of the mean norm at lag 0 is left at the last lag, exploding when it has grown\n"
             "a hundredfold, else stable. With --json it is one object with the same keys,\n"
             "and all curves and spectra.\n"
             "\n"
             "Examples:\n"
             "  unroll gradflow run.h5 test.txt\n"
             "  mpirun -n 2 unroll gradflow --lags 200 -o flow.h5 run.h5 test.txt"},
    .table = &table,
    .settings_size = sizeof(struct gradflow_settings),
    .run = run_gradflow,
};
