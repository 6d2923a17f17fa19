/*
 * The norms over lags against central differences, in the double build.
 *
 *   |G^l_k|,  G^l_k[j] = (l_t(h^l_{t-k}[j] + s) - l_t(h^l_{t-k}[j] - s)) / 2 s, and of c the same
 *
 * l_t is the loss of the last token of a window by a plain model written from the equations, which can
 * perturb any state on its way; unperturbed it is the loss that the program itself computes. The tangent
 * and the mean derivative are compared with plain products of that model's Jacobians, those of gated cells by differences.
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
  size_t layer, step, unit, which; /* which 0: h, 1: c, after h was made of it */
  double by;
} change;

static const change NO_CHANGE = {0, STEPS, 0, 0, 0.0};

/* A layer after a step. */
typedef struct state {
  double x[4][UNITS];       /* W_xh x + b_h, block by block in the file's order */
  double v[2][UNITS];       /* h, c */
  double derivative[UNITS]; /* phi', or the factor of the state past the product */
} state;

static double weight(const unroll_params *p, const unroll_tensor *t, size_t i, size_t j)
{
  return (double)p->values[unroll_tensor_index(t, i, j)];
}

static double sigmoid(double a)
{
  return 1.0 / (1.0 + exp(-a));
}

/* The step of a layer from x and the state before, unit by unit (design.md section 1). */
static void plain_step(const unroll_params *p, kind of, size_t l, double (*before)[UNITS], state *s)
{
  const size_t H = p->shape.H;
  const unroll_tensor *W = params_tensor(p, l, PARAMS_W_HH),
                      *b_hn = params_tensor(p, l, PARAMS_B_HN);
  for (size_t i = 0; i < H; ++i) {
    double a[4], *x[4] = {s->x[0] + i, s->x[1] + i, s->x[2] + i, s->x[3] + i};
    double h = before[0][i], c = before[1][i];
    for (size_t k = 0; k < 4; ++k) {
      a[k] = 0.0;
      for (size_t j = 0; W != NULL && k * H < W->rows && j < H; ++j) {
        a[k] += weight(p, W, k * H + i, j) * before[0][j];
      }
    }
    switch (of.cell) {
    case UNROLL_CELL_RNN: {
      double sum = *x[0] + a[0];
      h = of.activation == UNROLL_ACTIVATION_TANH ? tanh(sum) : sum > 0.0 ? sum : 0.0;
      s->derivative[i] = of.activation == UNROLL_ACTIVATION_TANH ? 1.0 - h * h
                         : h > 0.0                               ? 1.0
                                                                 : 0.0;
      break;
    }
    case UNROLL_CELL_LSTM:
      s->derivative[i] = sigmoid(*x[1] + a[1]);
      c = s->derivative[i] * c + sigmoid(*x[0] + a[0]) * tanh(*x[2] + a[2]);
      h = sigmoid(*x[3] + a[3]) * tanh(c);
      break;
    case UNROLL_CELL_GRU: {
      double r = sigmoid(*x[0] + a[0]), z = sigmoid(*x[1] + a[1]);
      h = (1.0 - z) * tanh(*x[2] + r * (a[2] + weight(p, b_hn, i, 0))) + z * h;
      s->derivative[i] = z;
      break;
    }
    case UNROLL_CELL_MINGRU: {
      double z = sigmoid(*x[0]);
      h = (1.0 - z) * h + z * *x[1];
      s->derivative[i] = 1.0 - z;
      break;
    }
    }
    s->v[0][i] = h;
    s->v[1][i] = c;
  }
}

static double no_state[2][UNITS];

/* Loss of the last token [nats]; s (STEPS, MOST) the states of all steps. */
static double plain_loss(const unroll_params *p, kind of, const int32_t *tokens, change c,
                         state (*s)[MOST])
{
  const size_t H = p->shape.H;
  for (size_t t = 0; t < STEPS; ++t) {
    for (size_t l = 0; l < p->shape.L; ++l) {
      const unroll_tensor *W = params_tensor(p, l, PARAMS_W_XH),
                          *b_h = params_tensor(p, l, PARAMS_B_H);
      for (size_t i = 0; i < W->rows; ++i) {
        double a = weight(p, b_h, i, 0);
        for (size_t j = 0; j < H; ++j) {
          a += l > 0 ? weight(p, W, i, j) * s[t][l - 1].v[0][j] : 0.0;
        }
        a += l == 0 ? weight(p, W, i, (size_t)tokens[t]) : 0.0;
        s[t][l].x[i / H][i % H] = a;
      }
      plain_step(p, of, l, t > 0 ? s[t - 1][l].v : no_state, &s[t][l]);
      if (c.step == t && c.layer == l) { s[t][l].v[c.which][c.unit] += c.by; }
    }
  }
  double sum = 0.0, target = 0.0;
  for (size_t v = 0; v < p->shape.V; ++v) {
    double o = weight(p, params_output(p, PARAMS_B_Q), v, 0);
    for (size_t j = 0; j < H; ++j) {
      o += weight(p, params_output(p, PARAMS_W_QH), v, j) * s[STEPS - 1][p->shape.L - 1].v[0][j];
    }
    sum += exp(o);
    if (v == (size_t)tokens[STEPS]) { target = o; }
  }
  return log(sum) - target;
}

static double size_of(size_t H, double (*u)[UNITS])
{
  double squares = 0.0;
  for (size_t j = 0; j < H; ++j) { squares += u[0][j] * u[0][j] + u[1][j] * u[1][j]; }
  return sqrt(squares);
}

/* u <- J u of a step: from the equations, or by differences along u. */
static void plain_jacobian(const unroll_params *p, kind of, size_t l, double (*before)[UNITS],
                           const state *now, double (*u)[UNITS])
{
  const size_t H = p->shape.H;
  if (of.cell == UNROLL_CELL_RNN) {
    double next[UNITS];
    for (size_t i = 0; i < H; ++i) {
      next[i] = 0.0;
      for (size_t j = 0; j < H; ++j) {
        next[i] += weight(p, params_tensor(p, l, PARAMS_W_HH), i, j) * u[0][j];
      }
      next[i] *= now->derivative[i];
    }
    memcpy(u[0], next, sizeof next);
    return;
  }
  state up = *now, down = *now;
  double from[2][2][UNITS];
  const double step = STEP / size_of(H, u);
  for (size_t j = 0; j < H; ++j) {
    for (size_t which = 0; which < 2; ++which) {
      from[0][which][j] = before[which][j] + step * u[which][j];
      from[1][which][j] = before[which][j] - step * u[which][j];
    }
  }
  plain_step(p, of, l, from[0], &up);
  plain_step(p, of, l, from[1], &down);
  for (size_t j = 0; j < H; ++j) {
    for (size_t which = 0; which < 2; ++which) {
      u[which][j] = (up.v[which][j] - down.v[which][j]) / (2.0 * step);
    }
    if (of.cell != UNROLL_CELL_LSTM) { u[1][j] = 0.0; }
  }
}

/* ln of the growth of u over the last K steps, from the same first vector. */
static double plain_tangent(const unroll_params *p, kind of, size_t l, uint64_t window,
                            state (*s)[MOST])
{
  const size_t H = p->shape.H;
  double u[2][UNITS] = {{0}}, before = 0.0, after = 0.0;

  for (size_t j = 0; j < params_states(p) * H; ++j) {
    u[j / H][j % H] = 2.0 * random_uniform(0, RANDOM_TANGENT, window, j) - 1.0;
  }
  for (size_t t = 0; t < STEPS; ++t) {
    plain_jacobian(p, of, l, t > 0 ? s[t - 1][l].v : no_state, &s[t][l], u);
    if (t == STEPS - 1 - K) { before = size_of(H, u); }
    if (t == STEPS - 1) { after = size_of(H, u); }
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

/* The norm of the derivative of the loss by h (0) or c (1) of that layer and lag. */
static double plain_norm(const unroll_params *p, kind of, const int32_t *tokens, size_t l, size_t k,
                         size_t which)
{
  static state scratch[STEPS][MOST];
  double squares = 0.0;
  for (size_t j = 0; j < p->shape.H; ++j) {
    double up = plain_loss(p, of, tokens, (change){l, STEPS - 1 - k, j, which, STEP}, scratch);
    double down = plain_loss(p, of, tokens, (change){l, STEPS - 1 - k, j, which, -STEP}, scratch);
    squares += pow((up - down) / (2.0 * STEP), 2.0);
  }
  return sqrt(squares);
}

static void check_norm(const char *what, size_t l, size_t k, double a, double n)
{
  if (!(fabs(a - n) < 1e-6 * n)) {
    fprintf(stderr, "%s, layer %zu, lag %zu: %.10g, differences say %.10g\n", what, l, k, a, n);
  }
  CU_ASSERT(fabs(a - n) < 1e-6 * n);
  CU_ASSERT(n > 1e-4); /* there was something to compare */
}

static void check_window(const unroll_params *p, kind of, const int32_t *tokens, uint64_t window,
                         const double *record)
{
  static state s[STEPS][MOST];
  const size_t states = params_states(p);
  double loss = plain_loss(p, of, tokens, NO_CHANGE, s);
  CU_ASSERT(fabs(loss - program_loss(p, tokens)) < 1e-12);

  for (size_t l = 0; l < p->shape.L; ++l, record += LAGS_RECORD(states, 1, K)) {
    for (size_t k = 0; k <= K; ++k) {
      check_norm("h", l, k, exp(record[k]), plain_norm(p, of, tokens, l, k, 0));
      if (states > 1 && k > 0) {
        check_norm("c", l, k, exp(record[LAGS_MEMORY(K) + k]), plain_norm(p, of, tokens, l, k, 1));
      }
    }
    if (states > 1) { CU_ASSERT(record[LAGS_MEMORY(K)] == -INFINITY); }

    double derivative = 0.0;
    for (size_t k = 0; k <= K; ++k) {
      for (size_t j = 0; j < p->shape.H; ++j) { derivative += s[STEPS - 1 - k][l].derivative[j]; }
    }
    CU_ASSERT(fabs(record[LAGS_DERIVATIVE(K)] - derivative / (double)((K + 1) * p->shape.H)) <
              1e-13);
    double tangent = plain_tangent(p, of, l, window, s),
           tolerance = of.cell == UNROLL_CELL_RNN ? 1e-11 : 1e-7;
    CU_ASSERT(fabs(record[LAGS_TANGENT(K)] - tangent) < tolerance * fmax(1.0, fabs(tangent)));
  }
}

static void check_model(size_t V, size_t H, size_t L, kind of)
{
  const uint64_t first = 40;
  const unroll_shape shape = shape_of(V, H, L, of);
  unroll_params *p = NULL;
  int32_t tokens[N * (STEPS + 1)];
  if (kernels_start() != UNROLL_OK || unroll_params_new(&shape, &p) != UNROLL_OK ||
      unroll_params_start(p, &(unroll_start){.seed = 29}) != UNROLL_OK) {
    abort();
  }
  const size_t one = LAGS_RECORD(params_states(p), L, K);
  double *records = calloc(N, one * sizeof *records);
  if (records == NULL) { abort(); }
  /* Twice the usual weights: neither linear, nor vanished after K steps. */
  for (size_t i = 0; i < p->n; ++i) { p->values[i] *= 2.0; }
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; ++i) {
    tokens[i] = (int32_t)random_below(6, RANDOM_SYNTHETIC, V, i, V);
  }
  CHECK_OK(lags_measure(p, N, STEPS, K, tokens, first, records));
  for (size_t i = 0; i < N; ++i) {
    check_window(p, of, tokens + i * (STEPS + 1), first + i, records + i * one);
  }
  unroll_params_free(&p);
  free(records);
}

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

static void test_lags_of_gated_cells_are_the_derivative(void)
{
  for (size_t i = GATED; i < KINDS; ++i) {
    check_model(7, 9, 1, all_kinds[i]);
    check_model(5, 16, 2, all_kinds[i]);
    check_model(11, 6, 3, all_kinds[i]);
  }
}

int main(void)
{
  static const struct test_case cases[] = {
      {"the build is in double", test_real_is_double},
      {"tanh, one to three layers", test_lags_tanh_are_the_derivative},
      {"ReLU, one to three layers", test_lags_relu_are_the_derivative},
      {"gated cells, one to three layers", test_lags_of_gated_cells_are_the_derivative},
  };
  return run_cases("gradflow_gradient", sizeof cases / sizeof cases[0], cases);
}
