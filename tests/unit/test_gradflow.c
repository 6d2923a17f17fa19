/* Gradient flow: spectra, norms over lags of constructed models, statistics. */
#include "support.h"

#include "base/random.h"
#include "kernels/dispatch.h"
#include "model/gradflow.h"
#include "net/lags.h"
#include "net/params.h"
#include "net/spectrum.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define LN2  0.693147180559945309417
#define LN10 2.302585092994045684018

static int near(double a, double b, double tolerance)
{
  return fabs(a - b) <= tolerance * fmax(1.0, fabs(b));
}

/* ------------------------------------------------------------------ spectra */

/* Blocks r R(theta): eigenvalues r e^(+-i theta), singular values r twice. Columns behind n are not read. */
static void test_spectrum_of_scaled_rotations_is_known(void)
{
  enum { n = 6, ld = 9 };
  static const double r[] = {0.5, 2.0, 1.25}, theta[] = {1.0, 2.5, 0.25};
  static const size_t order[] = {1, 2, 0};
  unroll_real W[n * ld];
  double re[n], im[n], singular[n];

  for (size_t i = 0; i < n * ld; ++i) { W[i] = i % ld < n ? 0 : 1000; }
  for (size_t k = 0; k < 3; ++k) {
    size_t i = 2 * k;
    W[i * ld + i] = W[(i + 1) * ld + i + 1] = (unroll_real)(r[k] * cos(theta[k]));
    W[i * ld + i + 1] = (unroll_real)(-r[k] * sin(theta[k]));
    W[(i + 1) * ld + i] = (unroll_real)(r[k] * sin(theta[k]));
  }
  CHECK_OK(spectrum_of(n, W, ld, re, im, singular));
  for (size_t i = 0; i < n; ++i) {
    size_t k = order[i / 2];
    CU_ASSERT(near(re[i], r[k] * cos(theta[k]), 1e-6));
    CU_ASSERT(near(im[i], (i % 2 == 0 ? 1 : -1) * r[k] * sin(theta[k]), 1e-6));
    CU_ASSERT(near(singular[i], r[k], 1e-6));
  }
}

/* Far from normal: the norm is 200 times the spectral radius. */
static void test_spectrum_of_a_triangle_is_its_diagonal(void)
{
  const unroll_real W[] = {(unroll_real)0.25, 100, 0, (unroll_real)-0.5};
  double re[2], im[2], singular[2];

  CHECK_OK(spectrum_of(2, W, 2, re, im, singular));
  CU_ASSERT(near(re[0], -0.5, 1e-13) && near(re[1], 0.25, 1e-13));
  CU_ASSERT(im[0] == 0.0 && im[1] == 0.0);
  CU_ASSERT(singular[0] > 100.0 && singular[1] < singular[0]);
  CU_ASSERT(near(singular[0] * singular[1], 0.125, 1e-12));
  CU_ASSERT(near(hypot(singular[0], singular[1]), sqrt(100.0 * 100.0 + 0.0625 + 0.25), 1e-13));
}

static void test_spectrum_of_nan_is_refused(void)
{
  const unroll_real W[] = {1, NAN, 0, 1};
  double re[2], im[2], singular[2];
  CHECK_FAILS(spectrum_of(2, W, 2, re, im, singular), UNROLL_ERR_DIVERGED, "not finite");
}

/* ----------------------------------------------------------- constructed models */

static unroll_params *new_params(size_t V, size_t H, size_t L)
{
  unroll_params *p = NULL;
  if (kernels_start() != UNROLL_OK ||
      unroll_params_new(&(unroll_shape){.V = V, .H = H, .L = L}, &p) != UNROLL_OK ||
      unroll_params_start(p, &(unroll_start){.seed = 3}) != UNROLL_OK) {
    abort();
  }
  return p;
}

static void set(unroll_params *p, size_t l, int which, size_t i, size_t j, double value)
{
  p->values[unroll_tensor_index(params_tensor(p, l, which), i, j)] = (unroll_real)value;
}

/*
 * A layer of ReLU that never leaves its linear region: W_hh = c Q with the orthogonal
 * Q = 2/H 1 1^T - I, whose sums of rows are 1; all inputs are the same for all units and positive, so that
 * every state is a positive multiple of 1. H is a power of two: Q is exact.
 */
static void make_linear(unroll_params *p, size_t l, double c)
{
  const size_t H = p->shape.H, inputs = l == 0 ? p->shape.V : H;
  for (size_t i = 0; i < H; ++i) {
    set(p, l, PARAMS_B_H, i, 0, 0.25);
    for (size_t j = 0; j < H; ++j) {
      set(p, l, PARAMS_W_HH, i, j, c * (2.0 / (double)H - (i == j ? 1.0 : 0.0)));
    }
    for (size_t j = 0; j < inputs; ++j) {
      set(p, l, PARAMS_W_XH, i, j, 1.0 / (double)(j % p->shape.V + 1));
    }
  }
}

/* States that double in each step must not make the output certain: then there would be no gradient. */
static void shrink_output(unroll_params *p)
{
  for (size_t i = 0; i < p->n_output; ++i) { p->values[i] *= (unroll_real)0x1p-24; }
}

static int32_t *new_tokens(size_t n, size_t V)
{
  int32_t *tokens = malloc(n * sizeof *tokens);
  if (tokens == NULL) { abort(); }
  for (size_t i = 0; i < n; ++i) {
    tokens[i] = (int32_t)random_below(9, RANDOM_SYNTHETIC, 0, i, V);
  }
  return tokens;
}

static double *measure(unroll_params *p, unroll_activation of, size_t n, size_t T, size_t K,
                       const int32_t *tokens, uint64_t first)
{
  double *out = malloc(n * LAGS_RECORD(params_states(p), p->shape.L, K) * sizeof *out);
  if (out == NULL) { abort(); }
  p->shape.activation = of;
  CHECK_OK(lags_measure(p, n, T, K, tokens, first, out));
  return out;
}

static void test_lags_of_a_scaled_orthogonal_matrix_grow_by_the_scale(void)
{
  enum { V = 5, H = 16, T = 24, K = 20, N = 6 };
  static const double scales[] = {0.5, 1.0, 2.0};
  unroll_params *p = new_params(V, H, 1);
  int32_t *tokens = new_tokens(N * (T + 1), V);
  shrink_output(p);

  for (size_t s = 0; s < 3; ++s) {
    const double c = scales[s];
    make_linear(p, 0, c);
    double *x = measure(p, UNROLL_ACTIVATION_RELU, N, T, K, tokens, 0);
    for (size_t i = 0; i < N; ++i) {
      const double *record = x + i * LAGS_RECORD(1, 1, K);
      CU_ASSERT(isfinite(record[0]));
      for (size_t k = 1; k <= K; ++k) {
        CU_ASSERT(near(record[k] - record[0], (double)k * log(c), 1e-12));
      }
      CU_ASSERT(near(record[LAGS_TANGENT(K)] / K, log(c), 1e-13));
      CU_ASSERT(near(record[LAGS_DERIVATIVE(K)], 1.0, 1e-14));
    }
    free(x);

    double re[H], im[H], singular[H];
    const unroll_tensor *W = params_tensor(p, 0, PARAMS_W_HH);
    CHECK_OK(spectrum_of(H, p->values + W->offset, W->ld, re, im, singular));
    CU_ASSERT(near(hypot(re[0], im[0]), c, 1e-13));
    CU_ASSERT(near(singular[0], c, 1e-13) && near(singular[H - 1], c, 1e-13));
  }
  free(tokens);
  unroll_params_free(&p);
}

/* 2^-1200 in the upper layer and 1 in the lower one, in the same window. */
static void test_lags_far_below_the_smallest_number_are_right(void)
{
  enum { V = 3, H = 8, T = 61, K = 60, N = 2 };
  unroll_params *p = new_params(V, H, 2);
  int32_t *tokens = new_tokens(N * (T + 1), V);
  make_linear(p, 0, 1.0);
  make_linear(p, 1, 0x1p-20);

  double *x = measure(p, UNROLL_ACTIVATION_RELU, N, T, K, tokens, 0);
  for (size_t i = 0; i < N; ++i) {
    const double *lower = x + i * LAGS_RECORD(1, 2, K), *upper = lower + LAGS_RECORD(1, 1, K);
    for (size_t k = 0; k <= K; ++k) {
      CU_ASSERT(near(upper[k] - upper[0], -20.0 * LN2 * (double)k, 1e-13));
    }
    for (size_t k = 5; k <= K; ++k) { CU_ASSERT(near(lower[k], lower[4], 1e-13)); }
    CU_ASSERT(near(upper[LAGS_TANGENT(K)] / K, -20.0 * LN2, 1e-13));
    CU_ASSERT(near(lower[LAGS_TANGENT(K)] / K, 0.0, 1e-13));
  }
  free(x);
  free(tokens);
  unroll_params_free(&p);
}

/* f = 1, i = 0: c passes whatever it is given, and nothing goes through h. */
static void test_lags_of_an_open_memory_do_not_change(void)
{
  enum { V = 5, H = 11, T = 40, K = 30, N = 3 };
  const size_t one = LAGS_RECORD(2, 1, K);
  const unroll_shape shape = {.V = V, .H = H, .L = 1, .cell = UNROLL_CELL_LSTM};
  unroll_params *p = NULL;
  unroll_gradflow *f = NULL;
  int32_t *tokens = new_tokens(N * (T + 1), V);
  if (kernels_start() != UNROLL_OK || unroll_params_new(&shape, &p) != UNROLL_OK ||
      unroll_params_start(p, &(unroll_start){.seed = 3}) != UNROLL_OK ||
      gradflow_new(&shape, N, K, &f) != UNROLL_OK) {
    abort();
  }
  const int zero[] = {PARAMS_W_HH, PARAMS_W_XH};
  for (size_t k = 0; k < sizeof zero / sizeof zero[0]; ++k) {
    const unroll_tensor *W = params_tensor(p, 0, zero[k]);
    memset(p->values + W->offset, 0, params_memory_rows(W) * W->ld * sizeof *p->values);
  }
  for (size_t j = 0; j < H; ++j) {
    set(p, 0, PARAMS_B_H, j, 0, -100.0);
    set(p, 0, PARAMS_B_H, H + j, 0, 100.0);
  }

  double *x = measure(p, UNROLL_ACTIVATION_TANH, N, T, K, tokens, 0);
  for (size_t i = 0; i < N; ++i) {
    const double *record = x + i * one, *memory = record + LAGS_MEMORY(K);
    CU_ASSERT(isfinite(record[0]) && record[1] == -INFINITY && record[K] == -INFINITY);
    CU_ASSERT(memory[0] == -INFINITY && isfinite(memory[1]));
    for (size_t k = 2; k <= K; ++k) { CU_ASSERT(memory[k] == memory[1]); }
    CU_ASSERT(record[LAGS_TANGENT(K)] == 0.0);
    CU_ASSERT(record[LAGS_DERIVATIVE(K)] == 1.0);
  }
  CHECK_OK(gradflow_summarize(x, f));
  CU_ASSERT(f->growth[0] == 1.0 && f->lyapunov[0] == 0.0);
  CU_ASSERT(f->verdict[0] == UNROLL_FLOW_STABLE && f->norm_mean[K] == 0.0);
  unroll_gradflow_free(&f);
  free(x);
  free(tokens);
  unroll_params_free(&p);
}

static void test_lags_of_dead_units_are_zero(void)
{
  enum { V = 3, H = 4, T = 5, K = 3 };
  unroll_params *p = new_params(V, H, 1);
  int32_t *tokens = new_tokens(T + 1, V);
  for (size_t i = 0; i < H; ++i) { set(p, 0, PARAMS_B_H, i, 0, -100.0); }

  double *x = measure(p, UNROLL_ACTIVATION_RELU, 1, T, K, tokens, 0);
  CU_ASSERT(isfinite(x[0])); /* the output depends on the last state */
  CU_ASSERT(x[1] == -INFINITY && x[K] == -INFINITY);
  CU_ASSERT(x[LAGS_TANGENT(K)] == -INFINITY);
  CU_ASSERT(x[LAGS_DERIVATIVE(K)] == 0.0);
  free(x);
  free(tokens);
  unroll_params_free(&p);
}

/* More windows than run together, and a number that no group divides. */
static void test_lags_of_a_window_depend_on_nothing_else(void)
{
  enum { V = 11, H = 19, L = 2, T = 12, K = 7, N = 131, FIRST = 122, SOME = 9 };
  const size_t record = LAGS_RECORD(1, L, K);
  unroll_params *p = new_params(V, H, L);
  int32_t *tokens = new_tokens(N * (T + 1), V);
  int threads = omp_get_max_threads();

  omp_set_num_threads(1);
  double *one = measure(p, UNROLL_ACTIVATION_TANH, N, T, K, tokens, 0);
  omp_set_num_threads(3);
  double *three = measure(p, UNROLL_ACTIVATION_TANH, N, T, K, tokens, 0);
  double *some = measure(p, UNROLL_ACTIVATION_TANH, SOME, T, K, tokens + FIRST * (T + 1), FIRST);
  omp_set_num_threads(threads);

  CU_ASSERT(memcmp(one, three, N * record * sizeof *one) == 0);
  CU_ASSERT(memcmp(one + FIRST * record, some, SOME * record * sizeof *one) == 0);
  CU_ASSERT(memcmp(one, one + record, record * sizeof *one) != 0);
  for (size_t i = 0; i < N * record; ++i) { CU_ASSERT(isfinite(one[i])); }
  free(one);
  free(three);
  free(some);
  free(tokens);
  unroll_params_free(&p);
}

/* ---------------------------------------------------------------- statistics */

/* Records of n positions and one layer: norms size[i] * factor^k, tangents and derivatives of i. */
static unroll_gradflow *summary(size_t n, const double *size, double log_factor, size_t K)
{
  unroll_gradflow *f = NULL;
  double *records = malloc(n * LAGS_RECORD(1, 1, K) * sizeof *records);
  if (records == NULL ||
      gradflow_new(&(unroll_shape){.V = 1, .H = 1, .L = 1}, n, K, &f) != UNROLL_OK) {
    abort();
  }
  for (size_t i = 0; i < n; ++i) {
    double *record = records + i * LAGS_RECORD(1, 1, K);
    for (size_t k = 0; k <= K; ++k) { record[k] = log(size[i]) + (double)k * log_factor; }
    record[LAGS_TANGENT(K)] = (double)i * (double)K;
    record[LAGS_DERIVATIVE(K)] = (double)i;
  }
  CHECK_OK(gradflow_summarize(records, f));
  free(records);
  return f;
}

static void test_summarize_finds_mean_and_quantiles(void)
{
  static const double sizes[] = {3, 10, 1, 4, 2};
  unroll_gradflow *f = summary(5, sizes, -LN2, 3);
  for (size_t k = 0; k <= 3; ++k) {
    double factor = pow(0.5, (double)k);
    CU_ASSERT(near(f->norm_mean[k], 4.0 * factor, 1e-14));
    CU_ASSERT(near(f->norm_q10[k], 1.4 * factor, 1e-14));
    CU_ASSERT(near(f->norm_q50[k], 3.0 * factor, 1e-14));
    CU_ASSERT(near(f->norm_q90[k], 7.6 * factor, 1e-14));
    CU_ASSERT(near(f->norm_log10[k], log10(240.0) / 5.0 + log10(factor), 1e-14));
  }
  CU_ASSERT(near(f->lyapunov[0], 2.0, 1e-14));
  CU_ASSERT(near(f->derivative[0], 2.0, 1e-14));
  unroll_gradflow_free(&f);
}

static void check_verdict(double factor, size_t K, unroll_flow verdict, int64_t half,
                          int64_t percent)
{
  static const double sizes[] = {1, 3};
  unroll_gradflow *f = summary(2, sizes, log(factor), K);
  CU_ASSERT_EQUAL(f->verdict[0], verdict);
  CU_ASSERT_EQUAL(f->half_lag[0], half);
  CU_ASSERT_EQUAL(f->percent_lag[0], percent);
  CU_ASSERT(near(f->growth[0], factor, 1e-12));
  unroll_gradflow_free(&f);
}

static void test_summarize_judges_by_what_is_left(void)
{
  check_verdict(0.5, 7, UNROLL_FLOW_VANISHING, 1, 7); /* 1/128 is less than 1% */
  check_verdict(0.5, 6, UNROLL_FLOW_STABLE, 1, -1);   /* 1/64 is not */
  check_verdict(0.9, 44, UNROLL_FLOW_VANISHING, 7, 44);
  check_verdict(0.9, 43, UNROLL_FLOW_STABLE, 7, -1);
  check_verdict(1.0, 50, UNROLL_FLOW_STABLE, -1, -1);
  check_verdict(2.0, 6, UNROLL_FLOW_STABLE, -1, -1);
  check_verdict(2.0, 7, UNROLL_FLOW_EXPLODING, -1, -1);
  check_verdict(0.75, 1, UNROLL_FLOW_STABLE, -1, -1);
  CU_ASSERT_STRING_EQUAL(unroll_flow_text(UNROLL_FLOW_VANISHING), "vanishing");
  CU_ASSERT_STRING_EQUAL(unroll_flow_text(UNROLL_FLOW_STABLE), "stable");
  CU_ASSERT_STRING_EQUAL(unroll_flow_text(UNROLL_FLOW_EXPLODING), "exploding");
}

/* Below the smallest double the logarithm goes on. */
static void test_summarize_of_tiny_norms_keeps_their_logarithm(void)
{
  static const double sizes[] = {1, 1, 1};
  unroll_gradflow *f = summary(3, sizes, -100.0 * LN10, 10);
  CU_ASSERT(f->norm_mean[2] > 0.999e-200 && f->norm_mean[2] < 1.001e-200);
  CU_ASSERT(f->norm_mean[10] == 0.0 && f->norm_q50[10] == 0.0);
  CU_ASSERT(near(f->norm_log10[10], -1000.0, 1e-13));
  CU_ASSERT(f->growth[0] > 0.999e-100 && f->growth[0] < 1.001e-100);
  unroll_gradflow_free(&f);
}

static void test_summarize_of_zero_vanishes_and_of_nan_fails(void)
{
  enum { K = 2, N = 2 };
  unroll_gradflow *f = NULL;
  double records[N * LAGS_RECORD(1, 2, K)];
  const size_t second = LAGS_RECORD(1, 1, K);

  if (gradflow_new(&(unroll_shape){.V = 1, .H = 1, .L = 2}, N, K, &f) != UNROLL_OK) { abort(); }
  memset(records, 0, sizeof records);
  records[1] = records[2] = -INFINITY;               /* one of two positions */
  records[second] = records[second + 1] = -INFINITY; /* both positions, all lags */
  records[second + 2] = records[3 * second] = -INFINITY;
  records[3 * second + 1] = records[3 * second + 2] = -INFINITY;
  CHECK_OK(gradflow_summarize(records, f));
  CU_ASSERT(near(f->norm_mean[1], 0.5, 1e-15) && near(f->norm_q50[1], 0.5, 1e-15));
  CU_ASSERT(f->norm_log10[1] == -INFINITY && f->growth[0] == 0.0);
  CU_ASSERT(f->verdict[0] == UNROLL_FLOW_STABLE && f->half_lag[0] == 1);
  CU_ASSERT(f->norm_mean[3] == 0.0 && f->verdict[1] == UNROLL_FLOW_VANISHING);
  CU_ASSERT(f->half_lag[1] == -1 && f->percent_lag[1] == -1);

  records[3 * second + 1] = NAN;
  CHECK_FAILS(gradflow_summarize(records, f), UNROLL_ERR_DIVERGED, "layer 1");
  records[3 * second + 1] = INFINITY;
  CHECK_FAILS(gradflow_summarize(records, f), UNROLL_ERR_DIVERGED, "layer 1");
  unroll_gradflow_free(&f);
  unroll_gradflow_free(&f);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"spectrum: rotations", test_spectrum_of_scaled_rotations_is_known},
      {"spectrum: triangle", test_spectrum_of_a_triangle_is_its_diagonal},
      {"spectrum: NaN", test_spectrum_of_nan_is_refused},
      {"lags: scaled orthogonal", test_lags_of_a_scaled_orthogonal_matrix_grow_by_the_scale},
      {"lags: 2^-1200", test_lags_far_below_the_smallest_number_are_right},
      {"lags: open memory", test_lags_of_an_open_memory_do_not_change},
      {"lags: dead units", test_lags_of_dead_units_are_zero},
      {"lags: threads, batches", test_lags_of_a_window_depend_on_nothing_else},
      {"summary: mean, quantiles", test_summarize_finds_mean_and_quantiles},
      {"summary: verdicts", test_summarize_judges_by_what_is_left},
      {"summary: tiny norms", test_summarize_of_tiny_norms_keeps_their_logarithm},
      {"summary: zero and NaN", test_summarize_of_zero_vanishes_and_of_nan_fails},
  };
  return run_cases("gradflow", sizeof cases / sizeof cases[0], cases);
}
