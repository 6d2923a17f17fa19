/* Gradient flow of a model on text: positions -> windows -> records of all ranks -> statistics. */
#include "model/gradflow.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "comm/comm.h"
#include "data/corpus.h"
#include "model/model.h"
#include "net/lags.h"
#include "net/params.h"
#include "net/spectrum.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A gradient has vanished below this fraction of its norm at lag 0, and explodes above the inverse. */
#define VANISHED 0.01

/* ------------------------------------------------------------- create and free */

unroll_status gradflow_new(const unroll_shape *shape, uint64_t positions, uint64_t lags,
                           unroll_gradflow **out)
{
  unroll_status st = UNROLL_OK;
  unroll_gradflow *f = NULL;
  const cell *c = cell_of(shape->cell, shape->activation);
  const size_t L = shape->L, curve = L * ((size_t)lags + 1), blocks = L * c->recurrent;

  UNROLL_TRY(memory_new(1, sizeof *f, "gradient flow", &f));
  *f = (unroll_gradflow){.L = L,
                         .H = shape->H,
                         .memory = c->memory,
                         .blocks = c->recurrent,
                         .gates = c->gates,
                         .positions = positions,
                         .lags = lags};
  double **const curves[] = {&f->norm_mean, &f->norm_q10, &f->norm_q50, &f->norm_q90,
                             &f->norm_log10};
  double **const memory[] = {&f->norm_c_mean, &f->norm_c_q10, &f->norm_c_q50, &f->norm_c_q90,
                             &f->norm_c_log10};
  double **const spectra[] = {&f->eigenvalue_re, &f->eigenvalue_im, &f->singular_value};
  double **const largest[] = {&f->spectral_radius, &f->spectral_norm};
  double **const scalars[] = {&f->lyapunov, &f->derivative, &f->growth};
  for (size_t i = 0; i < sizeof curves / sizeof curves[0]; ++i) {
    UNROLL_TRY(memory_new(curve, sizeof(double), "norms", curves[i]));
  }
  for (size_t i = 0; i < sizeof memory / sizeof memory[0] && f->memory; ++i) {
    UNROLL_TRY(memory_new(curve, sizeof(double), "norms", memory[i]));
  }
  for (size_t i = 0; i < sizeof spectra / sizeof spectra[0] && blocks > 0; ++i) {
    UNROLL_TRY(memory_new(blocks * f->H, sizeof(double), "spectra", spectra[i]));
  }
  for (size_t i = 0; i < sizeof largest / sizeof largest[0] && blocks > 0; ++i) {
    UNROLL_TRY(memory_new(blocks, sizeof(double), "spectra", largest[i]));
  }
  for (size_t i = 0; i < sizeof scalars / sizeof scalars[0]; ++i) {
    UNROLL_TRY(memory_new(L, sizeof(double), "gradient flow", scalars[i]));
  }
  UNROLL_TRY(memory_new(L, sizeof *f->half_lag, "gradient flow", &f->half_lag));
  UNROLL_TRY(memory_new(L, sizeof *f->percent_lag, "gradient flow", &f->percent_lag));
  UNROLL_TRY(memory_new(L, sizeof *f->verdict, "gradient flow", &f->verdict));
  *out = f;
  f = NULL;

cleanup:
  unroll_gradflow_free(&f);
  return st;
}

void unroll_gradflow_free(unroll_gradflow **flow)
{
  if (flow == NULL || *flow == NULL) { return; }
  unroll_gradflow *f = *flow;
  memory_free(&f->verdict);
  memory_free(&f->percent_lag);
  memory_free(&f->half_lag);
  memory_free(&f->growth);
  memory_free(&f->derivative);
  memory_free(&f->lyapunov);
  memory_free(&f->spectral_norm);
  memory_free(&f->spectral_radius);
  memory_free(&f->singular_value);
  memory_free(&f->eigenvalue_im);
  memory_free(&f->eigenvalue_re);
  memory_free(&f->norm_c_log10);
  memory_free(&f->norm_c_q90);
  memory_free(&f->norm_c_q50);
  memory_free(&f->norm_c_q10);
  memory_free(&f->norm_c_mean);
  memory_free(&f->norm_log10);
  memory_free(&f->norm_q90);
  memory_free(&f->norm_q50);
  memory_free(&f->norm_q10);
  memory_free(&f->norm_mean);
  memory_free(flow);
}

/* ----------------------------------------------------------------- statistics */

static int ascending(const void *a, const void *b)
{
  const double *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

/* Quantile q of the numbers whose ascending logarithms are given, interpolated linearly between the numbers. */
static double quantile(size_t n, const double *logs, double q)
{
  double place = q * (double)(n - 1);
  size_t i = (size_t)place, next = i + 1 < n ? i + 1 : i;
  double low = exp(logs[i]);
  return low + (place - (double)i) * (exp(logs[next]) - low);
}

/* ln of the mean of n numbers given by ascending logarithms. */
static double log_of_mean(size_t n, const double *logs)
{
  double top = logs[n - 1], sum = 0.0;
  if (top == -INFINITY) { return top; }
  for (size_t i = 0; i < n; ++i) { sum += exp(logs[i] - top); }
  return top + log(sum / (double)n);
}

static double mean(size_t n, const double *x)
{
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) { sum += x[i]; }
  return sum / (double)n;
}

/* First lag at which the mean norm is at most `fraction` of lag 0's, up to rounding; -1 without one. */
static int64_t lag_of(size_t n, const double *log_means, double fraction)
{
  for (size_t k = 0; k < n; ++k) {
    if (log_means[k] - log_means[0] <= log(fraction) + 1e-9) { return (int64_t)k; }
  }
  return -1;
}

/* Growth, lags and verdict from the norms of the whole state at each lag: log_means the ln of their mean, logs the mean
 * of their log10. */
static void classify(unroll_gradflow *f, size_t l, const double *log_means, const double *logs)
{
  const size_t K = (size_t)f->lags, half = K / 2;
  double change = log_means[K] - log_means[0];

  f->growth[l] =
      logs[K] == -INFINITY ? 0.0 : exp((logs[K] - logs[half]) * LN10 / (double)(K - half));
  f->half_lag[l] = lag_of(K + 1, log_means, 0.5);
  f->percent_lag[l] = lag_of(K + 1, log_means, VANISHED);
  f->verdict[l] = log_means[0] == -INFINITY || change < log(VANISHED) ? UNROLL_FLOW_VANISHING
                  : change > -log(VANISHED)                           ? UNROLL_FLOW_EXPLODING
                                                                      : UNROLL_FLOW_STABLE;
}

static size_t states_of(const unroll_gradflow *f)
{
  return f->memory ? 2 : 1;
}

static unroll_status check_finite(const unroll_gradflow *f, const double *records)
{
  const size_t K = (size_t)f->lags, one = LAGS_RECORD(states_of(f), 1, K),
               n = (size_t)f->positions * f->L * one;
  for (size_t i = 0; i < n; ++i) {
    if (!(records[i] < INFINITY)) { /* minus infinity is the logarithm of zero */
      return unroll_fail(UNROLL_ERR_DIVERGED,
                         "gradients of layer %zu are not finite: the weights are not, or the "
                         "hidden states overflow within a window; there `unroll gradflow` with "
                         "fewer --lags and less --context may help",
                         i / one % f->L);
    }
  }
  return UNROLL_OK;
}

/* Number k of the records of layer l at all positions. */
static void gather_column(const unroll_gradflow *f, const double *records, size_t l, size_t k,
                          double *column)
{
  const size_t one = LAGS_RECORD(states_of(f), 1, (size_t)f->lags);
  for (size_t i = 0; i < (size_t)f->positions; ++i) {
    column[i] = records[(i * f->L + l) * one + k];
  }
}

/* ln sqrt(x^2 + y^2) of logarithms. */
static double log_hypot(double x, double y)
{
  double top = fmax(x, y), other = fmin(x, y);
  return top == -INFINITY ? top : top + 0.5 * log1p(exp(2.0 * (other - top)));
}

/* Statistics of the logarithms of norms at one lag, which are sorted; the logarithm of their mean. */
typedef struct curves {
  double *mean, *q10, *q50, *q90, *log10;
} curves;

static double summarize(size_t n, double *column, curves c, size_t at)
{
  c.log10[at] = mean(n, column) / LN10;
  qsort(column, n, sizeof *column, ascending);
  double log_mean = log_of_mean(n, column);
  c.mean[at] = exp(log_mean);
  c.q10[at] = quantile(n, column, 0.1);
  c.q50[at] = quantile(n, column, 0.5);
  c.q90[at] = quantile(n, column, 0.9);
  return log_mean;
}

unroll_status gradflow_summarize(const double *records, unroll_gradflow *f)
{
  unroll_status st = UNROLL_OK;
  const size_t n = (size_t)f->positions, K = (size_t)f->lags;
  const curves of_h = {f->norm_mean, f->norm_q10, f->norm_q50, f->norm_q90, f->norm_log10},
               of_c = {f->norm_c_mean, f->norm_c_q10, f->norm_c_q50, f->norm_c_q90,
                       f->norm_c_log10};
  double *column = NULL, *whole = NULL, *log_means = NULL, *logs = NULL;

  UNROLL_TRY(check_finite(f, records));
  UNROLL_TRY(memory_new(n, sizeof *column, "norms", &column));
  UNROLL_TRY(memory_new(n, sizeof *whole, "norms", &whole));
  UNROLL_TRY(memory_new(K + 1, sizeof *log_means, "norms", &log_means));
  UNROLL_TRY(memory_new(K + 1, sizeof *logs, "norms", &logs));
  for (size_t l = 0; l < f->L; ++l) {
    for (size_t k = 0; k <= K; ++k) {
      const size_t at = l * (K + 1) + k;
      gather_column(f, records, l, k, column);
      memcpy(whole, column, n * sizeof *whole);
      log_means[k] = summarize(n, column, of_h, at);
      logs[k] = f->norm_log10[at];
      if (!f->memory) { continue; }
      gather_column(f, records, l, LAGS_MEMORY(K) + k, column);
      for (size_t i = 0; i < n; ++i) { whole[i] = log_hypot(whole[i], column[i]); }
      (void)summarize(n, column, of_c, at);
      logs[k] = mean(n, whole) / LN10;
      qsort(whole, n, sizeof *whole, ascending);
      log_means[k] = log_of_mean(n, whole);
    }
    gather_column(f, records, l, LAGS_TANGENT(K), column);
    f->lyapunov[l] = mean(n, column) / (double)K;
    gather_column(f, records, l, LAGS_DERIVATIVE(K), column);
    f->derivative[l] = mean(n, column);
    classify(f, l, log_means, logs);
  }

cleanup:
  memory_free(&logs);
  memory_free(&log_means);
  memory_free(&whole);
  memory_free(&column);
  return st;
}

/* -------------------------------------------------------------------- spectra */

/* Rank 0 alone computes, so that all have the same digits. Collective. */
static unroll_status find_spectra(unroll_comm *comm, const unroll_params *params,
                                  unroll_gradflow *f)
{
  unroll_status st = UNROLL_OK;
  double *const spectra[] = {f->eigenvalue_re, f->eigenvalue_im, f->singular_value};

  for (size_t i = 0; i < f->L * f->blocks && unroll_comm_rank(comm) == 0 && st == UNROLL_OK; ++i) {
    const unroll_tensor *W = params_tensor(params, i / f->blocks, PARAMS_W_HH);
    const size_t first = unroll_tensor_index(W, i % f->blocks * f->H, 0);
    st = spectrum_of(f->H, params->values + first, W->ld, f->eigenvalue_re + i * f->H,
                     f->eigenvalue_im + i * f->H, f->singular_value + i * f->H);
  }
  UNROLL_TRY(comm_agree(comm, st));
  for (size_t i = 0; i < sizeof spectra / sizeof spectra[0] && f->blocks > 0; ++i) {
    UNROLL_TRY(comm_broadcast(comm, spectra[i], f->L * f->blocks * f->H * sizeof(double), 0));
  }
  for (size_t i = 0; i < f->L * f->blocks; ++i) {
    f->spectral_radius[i] = hypot(f->eigenvalue_re[i * f->H], f->eigenvalue_im[i * f->H]);
    f->spectral_norm[i] = f->singular_value[i * f->H];
  }

cleanup:
  return st;
}

/* -------------------------------------------------------------------- windows */

uint64_t gradflow_window(uint64_t tokens, size_t T, uint64_t n, uint64_t i)
{
  __extension__ typedef unsigned __int128 wide;
  assert(tokens > T && i < n);
  uint64_t last = tokens - 1 - T;
  return n == 1 ? last : (uint64_t)((wide)last * i / (n - 1));
}

/* The records of windows [first, first + n). */
static unroll_status measure_windows(const unroll_params *params, size_t T, size_t K,
                                     uint64_t first, size_t n, const int32_t *tokens,
                                     double **records)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(memory_new(n,
                        LAGS_RECORD(params_states(params), params->shape.L, K) * sizeof **records,
                        "norms", records));
  if (n > 0) { UNROLL_TRY(lags_measure(params, n, T, K, tokens, first, *records)); }

cleanup:
  return st;
}

unroll_status gradflow_measure(unroll_comm *comm, const unroll_params *params, size_t T,
                               uint64_t first, size_t n, const int32_t *tokens, unroll_gradflow *f)
{
  unroll_status st = UNROLL_OK;
  const size_t K = (size_t)f->lags;
  double *mine = NULL, *records = NULL;
  size_t *sizes = NULL;

  UNROLL_TRY(comm_agree(comm, measure_windows(params, T, K, first, n, tokens, &mine)));
  UNROLL_TRY(comm_gather_bytes(
      comm, mine, n * LAGS_RECORD(params_states(params), params->shape.L, K) * sizeof *mine, -1,
      &sizes, (void **)&records));
  UNROLL_TRY(comm_agree(comm, gradflow_summarize(records, f)));
  UNROLL_TRY(find_spectra(comm, params, f));
  f->context = T - 1 - K;

cleanup:
  memory_free(&records);
  memory_free(&sizes);
  memory_free(&mine);
  return st;
}

/* ----------------------------------------------------------------------- text */

/* Steps of a window: K + 1, and before them the context, shortened until the text holds all windows. */
static unroll_status window_steps(const unroll_gradflow_plan *plan, uint64_t tokens, size_t *T)
{
  const uint64_t least = plan->lags + 1, n = plan->positions;
  if (tokens < least + n) {
    uint64_t most = tokens > n + 1 ? tokens - n - 1 : 0;
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%" PRIu64 " tokens are too few for %" PRIu64 " positions and %" PRIu64
                       " lags: with them the largest legal --lags is %" PRIu64
                       ", the largest --positions %" PRIu64,
                       tokens, n, plan->lags, most, tokens > least ? tokens - least : 0);
  }
  *T = (size_t)(plan->context < tokens - n - least ? least + plan->context : tokens - n);
  return UNROLL_OK;
}

/* The windows of positions [first, first + n). */
static unroll_status read_windows(const unroll_model *model, const corpus *text,
                                  const corpus_part *part, uint64_t positions, size_t T,
                                  uint64_t first, size_t n, int32_t **tokens)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(memory_new(n, (T + 1) * sizeof **tokens, "tokens", tokens));
  for (size_t i = 0; i < n; ++i) {
    UNROLL_TRY(corpus_read(text, model->run->vocab, part,
                           gradflow_window(part->tokens, T, positions, first + i), T + 1,
                           sizeof **tokens, *tokens + i * (T + 1)));
  }

cleanup:
  return st;
}

unroll_status unroll_model_gradflow(unroll_model *model, unroll_comm *comm, size_t n_texts,
                                    const char *const *texts, const unroll_gradflow_plan *plan,
                                    unroll_gradflow **out)
{
  unroll_status st = UNROLL_OK;
  const unroll_vocab *vocab = model->run->vocab;
  const unroll_params *params = model->run->params;
  const uint64_t P = (uint64_t)unroll_comm_size(comm), rank = (uint64_t)unroll_comm_rank(comm);
  corpus *text = NULL;
  corpus_part part = {0}, none = {0};
  unroll_gradflow *f = NULL;
  int32_t *tokens = NULL;
  size_t T = 0;

  if (params->shape.skip) {
    st = unroll_fail(UNROLL_ERR_ARG,
                     "a model with --skip: its gradients flow past layers too, which is not "
                     "measured; legal is one without");
    goto cleanup;
  }
  if (plan->positions < 1 || plan->lags < 1) {
    st = unroll_fail(UNROLL_ERR_ARG,
                     "%" PRIu64 " positions and %" PRIu64 " lags: legal is 1 or more",
                     plan->positions, plan->lags);
    goto cleanup;
  }
  const uint64_t first = plan->positions * rank / P;
  const size_t n = (size_t)(plan->positions * (rank + 1) / P - first);

  UNROLL_TRY(corpus_open(comm, unroll_vocab_rules(vocab).level, n_texts, texts, NULL, &text));
  UNROLL_TRY(comm_agree(comm, corpus_split(text, unroll_vocab_rules(vocab), 0.0, &part, &none)));
  UNROLL_TRY(corpus_count(comm, text, vocab, &part));
  UNROLL_TRY(window_steps(plan, part.tokens, &T));
  UNROLL_TRY(comm_agree(comm, gradflow_new(&params->shape, plan->positions, plan->lags, &f)));
  UNROLL_TRY(
      comm_agree(comm, read_windows(model, text, &part, plan->positions, T, first, n, &tokens)));
  UNROLL_TRY(gradflow_measure(comm, params, T, first, n, tokens, f));
  f->tokens = part.tokens;
  f->unknown = part.unknown;
  f->step = model->run->state.step;
  *out = f;
  f = NULL;

cleanup:
  memory_free(&tokens);
  unroll_gradflow_free(&f);
  corpus_part_free(&none);
  corpus_part_free(&part);
  corpus_free(&text);
  return st;
}
