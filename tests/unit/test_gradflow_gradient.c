/*
 * The norms over lags against central differences, in the double build.
 *
 *   |G^l_k|,  G^l_k[j] = (l_t(h^l_{t-k}[j] + s) - l_t(h^l_{t-k}[j] - s)) / 2 s
 *
 * l_t is the loss of the last token of a window by a plain model written from the equations, which can
 * perturb any state on its way; unperturbed it is the loss that the program itself computes. The tangent
 * and the mean derivative are compared with plain products of that model's Jacobians.
 */
#include "kinds.h"
#include "support.h"

#include "base/random.h"
#include "kernels/dispatch.h"
#include "net/lags.h"
#include "net/network.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP                                                                                       \
  1e-5 /* [1] truncation and rounding error of a difference are both near 1e-10 with it */
#define STEPS 9
#define K     6
#define N     5 /* windows: more than one group of rows, the second not full */
#define MOST  3 /* layers */
#define UNITS 24

/* ------------------------------------------------------------- the plain model */

/* Where a state is changed before it is used; step STEPS: nowhere. */
typedef struct change {
  size_t layer, step, unit;
  double by;
} change;

static const change NO_CHANGE = {0, STEPS, 0, 0.0};

static double weight(const unroll_params *p, const unroll_tensor *t, size_t i, size_t j)
{
  return (double)p->values[unroll_tensor_index(t, i, j)];
}

/* Loss of the last token [nats]; a and h (STEPS, MOST, UNITS) of all steps. */
static double plain_loss(const unroll_params *p, kind of, const int32_t *tokens, change c,
                         double (*h)[MOST][UNITS])
{
  for (size_t t = 0; t < STEPS; ++t) {
    for (size_t l = 0; l < p->shape.L; ++l) {
      const unroll_tensor *W_xh = params_tensor(p, l, PARAMS_W_XH),
                          *W_hh = params_tensor(p, l, PARAMS_W_HH),
                          *b_h = params_tensor(p, l, PARAMS_B_H);
      for (size_t i = 0; i < p->shape.H; ++i) {
        double a = weight(p, b_h, i, 0);
        for (size_t j = 0; j < p->shape.H; ++j) {
          a += t > 0 ? weight(p, W_hh, i, j) * h[t - 1][l][j] : 0.0;
          a += l > 0 ? weight(p, W_xh, i, j) * h[t][l - 1][j] : 0.0;
        }
        a += l == 0 ? weight(p, W_xh, i, (size_t)tokens[t]) : 0.0;
        h[t][l][i] = of.activation == UNROLL_ACTIVATION_TANH ? tanh(a) : a > 0.0 ? a : 0.0;
      }
      if (c.step == t && c.layer == l) { h[t][l][c.unit] += c.by; }
    }
  }
  double sum = 0.0, target = 0.0;
  for (size_t v = 0; v < p->shape.V; ++v) {
    double o = weight(p, params_output(p, PARAMS_B_Q), v, 0);
    for (size_t j = 0; j < p->shape.H; ++j) {
      o += weight(p, params_output(p, PARAMS_W_QH), v, j) * h[STEPS - 1][p->shape.L - 1][j];
    }
    sum += exp(o);
    if (v == (size_t)tokens[STEPS]) { target = o; }
  }
  return log(sum) - target;
}

static double plain_derivative(kind of, double h)
{
  return of.activation == UNROLL_ACTIVATION_TANH ? 1.0 - h * h : h > 0.0 ? 1.0 : 0.0;
}

/* ln of the growth of u over the last K steps, from the same first vector. */
static double plain_tangent(const unroll_params *p, kind of, size_t l, uint64_t window,
                            double (*h)[MOST][UNITS])
{
  const unroll_tensor *W = params_tensor(p, l, PARAMS_W_HH);
  double u[UNITS], next[UNITS], before = 0.0, after = 0.0;

  for (size_t j = 0; j < p->shape.H; ++j) {
    u[j] = 2.0 * random_uniform(0, RANDOM_TANGENT, window, j) - 1.0;
  }
  for (size_t t = 0; t < STEPS; ++t) {
    for (size_t i = 0; i < p->shape.H; ++i) {
      next[i] = 0.0;
      for (size_t j = 0; j < p->shape.H; ++j) { next[i] += weight(p, W, i, j) * u[j]; }
      next[i] *= plain_derivative(of, h[t][l][i]);
    }
    memcpy(u, next, sizeof u);
    if (t != STEPS - 1 - K && t != STEPS - 1) { continue; }
    double size = 0.0;
    for (size_t j = 0; j < p->shape.H; ++j) { size += u[j] * u[j]; }
    *(t == STEPS - 1 ? &after : &before) = sqrt(size);
  }
  return log(after / before);
}

/* ------------------------------------------------------------------ comparison */

static double program_loss(const unroll_params *p, const int32_t *tokens)
{
  network *net = NULL;
  const network_size size = {.T = STEPS, .chunk = STEPS, .B = 1, .shards = 1, .group = 1};
  CHECK_OK(network_new(p, &size, &net));
  network_pack(net);
  network_reset(net);
  memcpy(net->x, tokens, STEPS * sizeof *tokens);
  memcpy(net->y, tokens + 1, STEPS * sizeof *tokens);
  network_forward(net, STEPS);
  network_output(net, (network_span){0, 0, STEPS}, 0.0, true);
  double loss = net->head.nll[STEPS - 1];
  network_free(&net);
  return loss;
}

static void check_window(const unroll_params *p, kind of, const int32_t *tokens, uint64_t window,
                         const double *record)
{
  static double h[STEPS][MOST][UNITS], scratch[STEPS][MOST][UNITS];
  double loss = plain_loss(p, of, tokens, NO_CHANGE, h);
  CU_ASSERT(fabs(loss - program_loss(p, tokens)) < 1e-12);

  for (size_t l = 0; l < p->shape.L; ++l, record += LAGS_RECORD(1, 1, K)) {
    for (size_t k = 0; k <= K; ++k) {
      double squares = 0.0;
      for (size_t j = 0; j < p->shape.H; ++j) {
        double up = plain_loss(p, of, tokens, (change){l, STEPS - 1 - k, j, STEP}, scratch);
        double down = plain_loss(p, of, tokens, (change){l, STEPS - 1 - k, j, -STEP}, scratch);
        squares += pow((up - down) / (2.0 * STEP), 2.0);
      }
      double n = sqrt(squares), a = exp(record[k]);
      if (!(fabs(a - n) < 1e-6 * n)) {
        fprintf(stderr, "layer %zu, lag %zu: %.10g, differences say %.10g\n", l, k, a, n);
      }
      CU_ASSERT(fabs(a - n) < 1e-6 * n);
      CU_ASSERT(n > 1e-4); /* there was something to compare */
    }

    double derivative = 0.0;
    for (size_t k = 0; k <= K; ++k) {
      for (size_t j = 0; j < p->shape.H; ++j) {
        derivative += plain_derivative(of, h[STEPS - 1 - k][l][j]);
      }
    }
    CU_ASSERT(fabs(record[LAGS_DERIVATIVE(K)] - derivative / (double)((K + 1) * p->shape.H)) <
              1e-13);
    double tangent = plain_tangent(p, of, l, window, h);
    CU_ASSERT(fabs(record[LAGS_TANGENT(K)] - tangent) < 1e-11 * fmax(1.0, fabs(tangent)));
  }
}

static void check_model(size_t V, size_t H, size_t L, kind of)
{
  const uint64_t first = 40;
  const unroll_shape shape = shape_of(V, H, L, of);
  unroll_params *p = NULL;
  int32_t tokens[N * (STEPS + 1)];
  double *records = calloc(N, LAGS_RECORD(1, L, K) * sizeof *records);

  if (records == NULL || kernels_start() != UNROLL_OK ||
      unroll_params_new(&shape, &p) != UNROLL_OK ||
      unroll_params_start(p, &(unroll_start){.seed = 29}) != UNROLL_OK) {
    abort();
  }
  /* Twice the usual weights: neither linear, nor vanished after K steps. */
  for (size_t i = 0; i < p->n; ++i) { p->values[i] *= 2.0; }
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; ++i) {
    tokens[i] = (int32_t)random_below(6, RANDOM_SYNTHETIC, V, i, V);
  }
  CHECK_OK(lags_measure(p, N, STEPS, K, tokens, first, records));
  for (size_t i = 0; i < N; ++i) {
    check_window(p, of, tokens + i * (STEPS + 1), first + i, records + i * LAGS_RECORD(1, L, K));
  }
  unroll_params_free(&p);
  free(records);
}

/* ------------------------------------------------------------------ gated cells */

/*
 * By the program's own steps: the states are run to step t-k, one number of them is changed by hand, and the rest of
 * the window is run on. The Jacobian of a step's state has its columns by differences of the same kind.
 */
typedef struct machine {
  const unroll_params *p;
  network *net;
  size_t states, n; /* (states, L, H), of which a layer has some */
} machine;

/* From the state behind step `first` - 1 to that behind step `last` - 1; the loss where that is the last. */
static double run_steps(const machine *m, const int32_t *tokens, size_t first, size_t last,
                        double *state)
{
  double loss = 0.0;
  network_set_state(m->net, state);
  for (size_t t = first; t < last; ++t) {
    m->net->x[0] = tokens[t];
    m->net->y[0] = tokens[t + 1];
    network_forward(m->net, 1);
    network_carry(m->net, 1);
  }
  network_get_state(m->net, state);
  network_output(m->net, (network_span){0, 0, 1}, 0.0, true);
  loss = m->net->head.nll[0];
  return loss;
}

/* Loss when the state vector `which` of layer l, unit j, behind step t is changed. A change behind the last step is one
 * of what the head sees. */
static double changed_loss(const machine *m, const int32_t *tokens, size_t t, size_t at, double by)
{
  double state[2 * MOST * UNITS] = {0};
  (void)run_steps(m, tokens, 0, t + 1, state);
  state[at] += by;
  if (t + 1 < STEPS) { return run_steps(m, tokens, t + 1, STEPS, state); }
  const size_t H = m->p->shape.H, top = m->p->shape.L - 1;
  double sum = 0.0, target = 0.0;
  for (size_t v = 0; v < m->p->shape.V; ++v) {
    double o = weight(m->p, params_output(m->p, PARAMS_B_Q), v, 0);
    for (size_t j = 0; j < H; ++j) {
      o += weight(m->p, params_output(m->p, PARAMS_W_QH), v, j) * state[top * H + j];
    }
    sum += exp(o);
    if (v == (size_t)tokens[STEPS]) { target = o; }
  }
  return log(sum) - target;
}
OTHER
/* ------------------------------------------------------------------------ cases */

static void test_real_is_double(void)
{
  CU_ASSERT_EQUAL(sizeof(unroll_real), 8);
}

static void test_lags_tanh_are_the_derivative(void)
{
  check_model(7, 9, 1, KIND_TANH);
  check_model(5, 8, 2, KIND_TANH);
  check_model(11, 6, 3, KIND_TANH);
}

static void test_lags_relu_are_the_derivative(void)
{
  check_model(7, 10, 1, KIND_RELU);
  check_model(5, 13, 2, KIND_RELU);
  check_model(11, UNITS, MOST, KIND_RELU);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"the build is in double", test_real_is_double},
      {"tanh, one to three layers", test_lags_tanh_are_the_derivative},
      {"ReLU, one to three layers", test_lags_relu_are_the_derivative},
  };
  return run_cases("gradflow_gradient", sizeof cases / sizeof cases[0], cases);
}
