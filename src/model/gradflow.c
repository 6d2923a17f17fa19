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

/* A gradient of which less than this is left has vanished; one that has grown by its inverse explodes. */
#define LEFT 0.01

/* ------------------------------------------------------------- create and free */

unroll_status gradflow_new(size_t L, size_t H, uint64_t positions, uint64_t lags,
                           unroll_gradflow **out)
{
  unroll_status st = UNROLL_OK;
  unroll_gradflow *f = NULL;
  const size_t curve = L * ((size_t)lags + 1);

  UNROLL_TRY(memory_new(1, sizeof *f, "gradient flow", &f));
  *f = (unroll_gradflow){.L = L, .H = H, .positions = positions, .lags = lags};
  double **const curves[] = {&f->norm_mean, &f->norm_q10, &f->norm_q50, &f->norm_q90,
                             &f->norm_log10};
  double **const spectra[] = {&f->eigenvalue_re, &f->eigenvalue_im, &f->singular_value};
  double **const scalars[] = {&f->spectral_radius, &f->spectral_norm, &f->lyapunov, &f->derivative,
                              &f->growth};
  for (size_t i = 0; i < sizeof curves / sizeof curves[0]; ++i) {
    UNROLL_TRY(memory_new(curve, sizeof(double), "norms", curves[i]));
  }
  for (size_t i = 0; i < sizeof spectra / sizeof spectra[0]; ++i) {
    UNROLL_TRY(memory_new(L * H, sizeof(double), "spectra", spectra[i]));
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
  memory_free(&f->norm_log10);
  memory_free(&f->norm_q90);
  memory_free(&f->norm_q50);
  memory_free(&f->norm_q10);
  memory_free(&f->norm_mean);
  memory_free(flow);
}

unroll_status gradflow_check(const unroll_params *params)
{
  if (params->shape.cell == UNROLL_CELL_RNN) { return UNROLL_OK; }
  return unroll_fail(UNROLL_ERR_ARG, "the gradient flow is not yet measured in cells with gates; "
                                     "legal is a model of --cell rnn");
}

/* ----------------------------------------------------------------- statistics */

static int ascending(const void *a, const void *b)
{
  const double *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

/* Quantile q of n ascending logarithms, between neighbours along the line of the numbers themselves. */
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

/* First lag at which the mean norm is `part` of lag 0's or less, but for rounding; -1 without one. */
static int64_t lag_of(size_t n, const double *log_means, double part)
{
  for (size_t k = 0; k < n; ++k) {
    if (log_means[k] - log_means[0] <= log(part) + 1e-9) { return (int64_t)k; }
  }
  return -1;
}

static void judge(unroll_gradflow *f, size_t l, const double *log_means)
{
  const size_t K = (size_t)f->lags, half = K / 2;
  const double *logs = f->norm_log10 + l * (K + 1);
  double change = log_means[K] - log_means[0];

  f->growth[l] =
      logs[K] == -INFINITY ? 0.0 : exp((logs[K] - logs[half]) * LN10 / (double)(K - half));
  f->half_lag[l] = lag_of(K + 1, log_means, 0.5);
  f->percent_lag[l] = lag_of(K + 1, log_means, LEFT);
  f->verdict[l] = log_means[0] == -INFINITY || change < log(LEFT) ? UNROLL_FLOW_VANISHING
                  : change > -log(LEFT)                           ? UNROLL_FLOW_EXPLODING
                                                                  : UNROLL_FLOW_STABLE;
}

static unroll_status check_finite(const unroll_gradflow *f, const double *records)
{
  const size_t K = (size_t)f->lags, n = (size_t)f->positions * LAGS_RECORD(f->L, K);
  for (size_t i = 0; i < n; ++i) {
    if (!(records[i] < INFINITY)) { /* minus infinity is the logarithm of zero */
      return unroll_fail(UNROLL_ERR_DIVERGED,
                         "gradients of layer %zu are not finite: the weights are not, or the "
                         "hidden states overflow within a window; there `unroll gradflow` with "
                         "fewer --lags and less --context may help",
                         i / LAGS_RECORD(1, K) % f->L);
    }
  }
  return UNROLL_OK;
}

unroll_status gradflow_summarize(const double *records, unroll_gradflow *f)
{
  unroll_status st = UNROLL_OK;
  const size_t n = (size_t)f->positions, K = (size_t)f->lags;
  double *column = NULL, *log_means = NULL;

  UNROLL_TRY(check_finite(f, records));
  UNROLL_TRY(memory_new(n, sizeof *column, "norms", &column));
  UNROLL_TRY(memory_new(K + 1, sizeof *log_means, "norms", &log_means));
  for (size_t l = 0; l < f->L; ++l) {
    for (size_t k = 0; k < LAGS_RECORD(1, K); ++k) {
      for (size_t i = 0; i < n; ++i) {
        column[i] = records[i * LAGS_RECORD(f->L, K) + l * LAGS_RECORD(1, K) + k];
      }
      if (k == LAGS_TANGENT(K)) {
        f->lyapunov[l] = mean(n, column) / (double)K;
      } else if (k == LAGS_DERIVATIVE(K)) {
        f->derivative[l] = mean(n, column);
      } else {
        size_t at = l * (K + 1) + k;
        f->norm_log10[at] = mean(n, column) / LN10;
        qsort(column, n, sizeof *column, ascending);
        log_means[k] = log_of_mean(n, column);
        f->norm_mean[at] = exp(log_means[k]);
        f->norm_q10[at] = quantile(n, column, 0.1);
        f->norm_q50[at] = quantile(n, column, 0.5);
        f->norm_q90[at] = quantile(n, column, 0.9);
      }
    }
    judge(f, l, log_means);
  }

cleanup:
  memory_free(&log_means);
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

  for (size_t l = 0; l < f->L && unroll_comm_rank(comm) == 0 && st == UNROLL_OK; ++l) {
    const unroll_tensor *W = params_tensor(params, l, PARAMS_W_HH);
    st = spectrum_of(f->H, params->values + W->offset, W->ld, f->eigenvalue_re + l * f->H,
                     f->eigenvalue_im + l * f->H, f->singular_value + l * f->H);
  }
  UNROLL_TRY(comm_agree(comm, st));
  for (size_t i = 0; i < sizeof spectra / sizeof spectra[0]; ++i) {
    UNROLL_TRY(comm_broadcast(comm, spectra[i], f->L * f->H * sizeof(double), 0));
  }
  for (size_t l = 0; l < f->L; ++l) {
    f->spectral_radius[l] = hypot(f->eigenvalue_re[l * f->H], f->eigenvalue_im[l * f->H]);
    f->spectral_norm[l] = f->singular_value[l * f->H];
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
static unroll_status measure_mine(const unroll_params *params, size_t T, size_t K, uint64_t first,
                                  size_t n, const int32_t *tokens, double **records)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(memory_new(n, LAGS_RECORD(params->shape.L, K) * sizeof **records, "norms", records));
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

  UNROLL_TRY(comm_agree(comm, measure_mine(params, T, K, first, n, tokens, &mine)));
  UNROLL_TRY(comm_gather_bytes(comm, mine, n * LAGS_RECORD(params->shape.L, K) * sizeof *mine, -1,
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

  UNROLL_TRY(gradflow_check(params));
  if (plan->positions < 1 || plan->lags < 1) {
    st = unroll_fail(UNROLL_ERR_ARG,
                     "%" PRIu64 " positions and %" PRIu64 " lags: legal is 1 or more",
                     plan->positions, plan->lags);
    goto cleanup;
  }
  const uint64_t first = plan->positions * rank / P;
  const size_t n = (size_t)(plan->positions * (rank + 1) / P - first);

  UNROLL_TRY(corpus_open(comm, n_texts, texts, &text));
  UNROLL_TRY(comm_agree(comm, corpus_split(text, unroll_vocab_rules(vocab), 0.0, &part, &none)));
  UNROLL_TRY(corpus_count(comm, text, vocab, &part));
  UNROLL_TRY(window_steps(plan, part.tokens, &T));
  UNROLL_TRY(comm_agree(
      comm, gradflow_new(params->shape.L, params->shape.H, plan->positions, plan->lags, &f)));
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
