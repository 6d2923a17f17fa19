#include "net/lags.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "net/network.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LN2 0.693147180559945309417

/* Windows that one thread takes back together: each row of a weight matrix is read once for all. */
#define GROUP 4

/* Windows that run forward together: enough rows for the matrix products. */
#define MOST_WINDOWS 64

/* [reals] Most states kept at a time: a quarter of a gigabyte in float. */
#define MOST_STATES ((size_t)1 << 26)

/* ------------------------------------------------------- rows with exponents */

/* GROUP vectors: row r is m[r] * 2^e[r]. */
typedef struct rows {
  double *m; /* (GROUP, H) */
  long e[GROUP];
} rows;

/* Exponent of a row of zeros: below any other, and the difference of two still fits. */
#define NOTHING (-(1L << 40))

/* 2^e for e <= 0, and 0 where that is below the normal numbers. */
static double power_of_two(long e)
{
  return e < -1000 ? 0.0 : ldexp(1.0, (int)e);
}

static void set_nothing(size_t H, rows *a)
{
  memset(a->m, 0, GROUP * H * sizeof *a->m);
  for (size_t r = 0; r < GROUP; ++r) { a->e[r] = NOTHING; }
}

/* c = a W: W (H, H) with rows ld apart, summed over the rows of W ascending. */
static void multiply(size_t H, const rows *a, const unroll_real *W, size_t ld, rows *c)
{
  double *restrict c0 = c->m, *restrict c1 = c0 + H, *restrict c2 = c1 + H, *restrict c3 = c2 + H;
  _Static_assert(GROUP == 4, "the rows below");

  memset(c->m, 0, GROUP * H * sizeof *c->m);
  memcpy(c->e, a->e, sizeof c->e);
  for (size_t i = 0; i < H; i += 2) { /* two at a time: a sum is loaded and stored half as often */
    const int pair = i + 1 < H;
    const unroll_real *restrict w0 = W + i * ld, *restrict w1 = pair ? w0 + ld : w0;
    double p[GROUP], q[GROUP];
    for (size_t r = 0; r < GROUP; ++r) {
      p[r] = a->m[r * H + i];
      q[r] = pair ? a->m[r * H + i + 1] : 0.0;
    }
    for (size_t j = 0; j < H; ++j) {
      double x = (double)w0[j], y = (double)w1[j];
      c0[j] = c0[j] + p[0] * x + q[0] * y;
      c1[j] = c1[j] + p[1] * x + q[1] * y;
      c2[j] = c2[j] + p[2] * x + q[2] * y;
      c3[j] = c3[j] + p[3] * x + q[3] * y;
    }
  }
}

/* c += a */
static void add(size_t H, const rows *a, rows *c)
{
  for (size_t r = 0; r < GROUP; ++r) {
    long e = a->e[r] > c->e[r] ? a->e[r] : c->e[r];
    double of_a = power_of_two(a->e[r] - e), of_c = power_of_two(c->e[r] - e);
    for (size_t j = r * H; j < (r + 1) * H; ++j) { c->m[j] = of_c * c->m[j] + of_a * a->m[j]; }
    c->e[r] = e;
  }
}

static double norm(size_t H, const double *m)
{
  double sum = 0.0;
  for (size_t j = 0; j < H; ++j) { sum += m[j] * m[j]; }
  return sqrt(sum);
}

static double log_norm(size_t H, const rows *a, size_t r)
{
  double size = norm(H, a->m + r * H);
  return size == 0.0 ? -INFINITY : log(size) + (double)a->e[r] * LN2;
}

/* Move the size of each row into its exponent: the norm of m becomes 1/2 to 1. */
static void normalize(size_t H, rows *a)
{
  for (size_t r = 0; r < GROUP; ++r) {
    int e = 0;
    double size = norm(H, a->m + r * H);
    if (!isfinite(size)) { continue; } /* to be seen in the result */
    (void)frexp(size, &e);
    for (size_t j = r * H; j < (r + 1) * H; ++j) { a->m[j] = ldexp(a->m[j], -e); }
    a->e[r] = size == 0.0 ? NOTHING : a->e[r] + e;
  }
}

/* ------------------------------------------------------------------- a batch */

/* B windows on their way; groups of them are the threads' work. */
typedef struct batch {
  network *net; /* of one step */
  const unroll_params *params;
  size_t B, H, L, V, K, groups;
  unroll_real *states;     /* (L, K + 1, B, H): state k is h_{t-k} */
  unroll_real *transposed; /* (L, H, H) W_hh^T */
  double *mantissas;       /* of all rows below */
  rows *tangent;           /* (groups, L) */
  rows *da;                /* (groups, L) A of the last lag */
  rows *dh, *own;          /* (groups) G, and its part from the future of the own layer */
  double *logits;          /* (groups, V) */
} batch;

static void batch_free(batch *b)
{
  memory_free(&b->logits);
  memory_free(&b->own);
  memory_free(&b->dh);
  memory_free(&b->da);
  memory_free(&b->tangent);
  memory_free(&b->mantissas);
  memory_free(&b->transposed);
  memory_free(&b->states);
  network_free(&b->net);
}

static unroll_status new_rows(size_t n, size_t H, double **mantissas, rows **out)
{
  unroll_status st = memory_new(n, sizeof **out, "gradients", out);
  for (size_t i = 0; i < n && st == UNROLL_OK; ++i, *mantissas += GROUP * H) {
    (*out)[i].m = *mantissas;
  }
  return st;
}

static void transpose(const unroll_params *params, size_t l, unroll_real *out)
{
  const unroll_tensor *W = params_tensor(params, l, PARAMS_W_HH);
  for (size_t i = 0; i < W->rows; ++i) {
    for (size_t j = 0; j < W->cols; ++j) {
      out[j * W->rows + i] = params->values[unroll_tensor_index(W, i, j)];
    }
  }
}

/* Frees nothing on error: batch_free is safe then. */
static unroll_status batch_start(const unroll_params *params, size_t n, size_t K, batch *b)
{
  unroll_status st = UNROLL_OK;
  size_t H = params->shape.H, L = params->shape.L, most = MOST_STATES / (L * (K + 1) * H);
  double *mantissas = NULL;

  *b = (batch){.params = params, .H = H, .L = L, .V = params->shape.V, .K = K};
  b->B = most < 1 ? 1 : most < MOST_WINDOWS ? most : MOST_WINDOWS;
  b->B = n < b->B ? n : b->B;
  b->groups = (b->B + GROUP - 1) / GROUP;
  const network_size size = {.T = 1, .chunk = 1, .B = b->B, .shards = 1, .group = 1};
  UNROLL_TRY(network_new(params, &size, &b->net));
  network_pack(b->net);
  UNROLL_TRY(memory_new(L * (K + 1), b->B * H * sizeof *b->states, "states", &b->states));
  UNROLL_TRY(memory_new(L * H, H * sizeof *b->transposed, "weights", &b->transposed));
  for (size_t l = 0; l < L; ++l) { transpose(params, l, b->transposed + l * H * H); }
  UNROLL_TRY(memory_new(b->groups * (2 * L + 2), GROUP * H * sizeof *b->mantissas, "gradients",
                        &b->mantissas));
  mantissas = b->mantissas;
  UNROLL_TRY(new_rows(b->groups * L, H, &mantissas, &b->tangent));
  UNROLL_TRY(new_rows(b->groups * L, H, &mantissas, &b->da));
  UNROLL_TRY(new_rows(b->groups, H, &mantissas, &b->dh));
  UNROLL_TRY(new_rows(b->groups, H, &mantissas, &b->own));
  UNROLL_TRY(memory_new(b->groups, b->V * sizeof *b->logits, "logits", &b->logits));

cleanup:
  return st;
}

/* Window of row r of a group; rows behind the last window repeat it. */
static size_t window_of(const batch *b, size_t group, size_t r)
{
  size_t window = group * GROUP + r;
  return window < b->B ? window : b->B - 1;
}

/* Of a unit, from its state, as the backward kernels take it. */
static double derivative(const batch *b, unroll_real h)
{
  return b->params->shape.activation == UNROLL_ACTIVATION_TANH ? 1.0 - (double)h * (double)h
         : h > 0                                               ? 1.0
                                                               : 0.0;
}

/* a *= phi'(a_t), given the states h_t, rows ld apart; adds up phi' in sums (GROUP) unless NULL. */
static void differentiate(const batch *b, size_t group, const unroll_real *h, size_t ld, rows *a,
                          double *sums)
{
  for (size_t r = 0; r < GROUP; ++r) {
    const unroll_real *state = h + window_of(b, group, r) * ld;
    for (size_t j = 0; j < b->H; ++j) {
      double slope = derivative(b, state[j]);
      a->m[r * b->H + j] *= slope;
      if (sums != NULL) { sums[r] += slope; }
    }
  }
}

/* -------------------------------------------------------------------- forward */

static void tangents_start(batch *b, uint64_t first)
{
  for (size_t group = 0; group < b->groups; ++group) {
    for (size_t l = 0; l < b->L; ++l) {
      rows *u = &b->tangent[group * b->L + l];
      for (size_t r = 0; r < GROUP; ++r) {
        uint64_t window = first + window_of(b, group, r);
        u->e[r] = 0;
        for (size_t j = 0; j < b->H; ++j) {
          u->m[r * b->H + j] = 2.0 * random_uniform(0, RANDOM_TANGENT, window, j) - 1.0;
        }
      }
      normalize(b->H, u);
    }
  }
}

/* u <- diag(phi'(a_t)) W_hh u of every layer; slot 1 of the network holds h_t. */
static void tangents_step(batch *b, size_t group)
{
  const network *net = b->net;
  rows *next = &b->own[group];
  for (size_t l = 0; l < b->L; ++l) {
    rows *u = &b->tangent[group * b->L + l];
    multiply(b->H, u, b->transposed + l * b->H * b->H, b->H, next);
    differentiate(b, group, net->layers[l].h + b->B * net->layers[l].ld, net->layers[l].ld, next,
                  NULL);
    normalize(b->H, next);
    memcpy(u->m, next->m, GROUP * b->H * sizeof *u->m);
    memcpy(u->e, next->e, sizeof u->e);
  }
}

/* Where the numbers of a layer of a window go. */
static double *record_of(const batch *b, double *out, size_t window, size_t l)
{
  return out + window * LAGS_RECORD(b->L, b->K) + l * LAGS_RECORD(1, b->K);
}

/* The tangents' size when the last K steps begin; at their end, how it has grown. */
static void tangents_note(const batch *b, size_t group, bool end, double *out)
{
  for (size_t l = 0; l < b->L; ++l) {
    for (size_t r = 0; r < GROUP && group * GROUP + r < b->B; ++r) {
      double *growth = record_of(b, out, group * GROUP + r, l) + LAGS_TANGENT(b->K);
      double size = log_norm(b->H, &b->tangent[group * b->L + l], r);
      *growth = end && size != -INFINITY ? size - *growth : size;
    }
  }
}

static void keep_states(batch *b, size_t group, size_t lag)
{
  const network *net = b->net;
  for (size_t l = 0; l < b->L; ++l) {
    for (size_t r = 0; r < GROUP && group * GROUP + r < b->B; ++r) {
      size_t window = group * GROUP + r;
      memcpy(b->states + ((l * (b->K + 1) + lag) * b->B + window) * b->H,
             net->layers[l].h + (b->B + window) * net->layers[l].ld, b->H * sizeof *b->states);
    }
  }
}

/* All steps of the batch's windows: states of the last K + 1 steps, growth of the tangents. */
static void forward(batch *b, size_t T, const int32_t *tokens, double *out)
{
  network_reset(b->net);
  for (size_t t = 0; t < T; ++t) {
    const size_t lag = T - 1 - t;
    for (size_t window = 0; window < b->B; ++window) {
      b->net->x[window] = tokens[window * (T + 1) + t];
    }
    network_forward(b->net, 1);
#pragma omp parallel for default(none) shared(b, lag, out) schedule(static)
    for (size_t group = 0; group < b->groups; ++group) {
      tangents_step(b, group);
      if (lag == b->K || lag == 0) { tangents_note(b, group, lag == 0, out); }
      if (lag <= b->K) { keep_states(b, group, lag); }
    }
    network_carry(b->net, 1);
  }
}

/* ------------------------------------------------------------------- backward */

static const unroll_real *state_of(const batch *b, size_t l, size_t lag)
{
  return b->states + (l * (b->K + 1) + lag) * b->B * b->H;
}

/* dl/dh of one window: W_qh^T (softmax(o) - onehot(y)), o = W_qh h + b_q. */
static void output_gradient(const batch *b, const unroll_real *h, int32_t y, double *o, double *dh)
{
  const unroll_tensor *W = params_output(b->params, PARAMS_W_QH),
                      *b_q = params_output(b->params, PARAMS_B_Q);
  const unroll_real *weights = b->params->values + W->offset;
  double top = -INFINITY, sum = 0.0, others = 0.0;

  for (size_t v = 0; v < b->V; ++v) {
    o[v] = (double)b->params->values[b_q->offset + v];
    for (size_t j = 0; j < b->H; ++j) { o[v] += (double)weights[v * W->ld + j] * (double)h[j]; }
    if (!(o[v] <= top)) { top = o[v]; }
  }
  for (size_t v = 0; v < b->V; ++v) {
    o[v] = exp(o[v] - top);
    sum += o[v];
    if (v != (size_t)y) { others += o[v]; }
  }
  o[y] = -others; /* p - 1 without cancellation where the model is sure */
  memset(dh, 0, b->H * sizeof *dh);
  for (size_t v = 0; v < b->V; ++v) {
    double d = o[v] / sum;
    for (size_t j = 0; j < b->H; ++j) { dh[j] += d * (double)weights[v * W->ld + j]; }
  }
}

/* All lags of a group's windows. */
static void backward(batch *b, size_t group, size_t T, const int32_t *tokens, double *out)
{
  const unroll_params *params = b->params;
  const size_t H = b->H, top = b->L - 1;
  rows *dh = &b->dh[group], *own = &b->own[group];

  for (size_t lag = 0; lag <= b->K; ++lag) {
    set_nothing(H, dh);
    for (size_t r = 0; r < GROUP && lag == 0; ++r) {
      size_t window = window_of(b, group, r);
      output_gradient(b, state_of(b, top, 0) + window * H, tokens[window * (T + 1) + T],
                      b->logits + group * b->V, dh->m + r * H);
      dh->e[r] = 0;
    }
    for (size_t l = b->L; l-- > 0;) {
      const unroll_tensor *W_hh = params_tensor(params, l, PARAMS_W_HH),
                          *W_xh = params_tensor(params, l, PARAMS_W_XH);
      rows *da = &b->da[group * b->L + l];
      double sums[GROUP] = {0};
      if (lag > 0) { /* dh += W_hh^T da of the step after */
        multiply(H, da, params->values + W_hh->offset, W_hh->ld, own);
        add(H, own, dh);
      }
      memcpy(da->m, dh->m, GROUP * H * sizeof *da->m);
      memcpy(da->e, dh->e, sizeof da->e);
      differentiate(b, group, state_of(b, l, lag), H, da, sums);
      normalize(H, da);
      for (size_t r = 0; r < GROUP && group * GROUP + r < b->B; ++r) {
        double *record = record_of(b, out, group * GROUP + r, l),
               *mean = record + LAGS_DERIVATIVE(b->K);
        record[lag] = log_norm(H, dh, r);
        *mean = (lag == 0 ? 0.0 : *mean) + sums[r];
        if (lag == b->K) { *mean /= (double)H * (double)(b->K + 1); }
      }
      if (l > 0) { /* dh of the layer below: W_xh^T da */
        multiply(H, da, params->values + W_xh->offset, W_xh->ld, dh);
      }
    }
  }
}

/* ------------------------------------------------------------------------ all */

unroll_status lags_measure(const unroll_params *params, size_t n, size_t T, size_t K,
                           const int32_t *tokens, uint64_t first, double *out)
{
  assert(n >= 1 && K >= 1 && K < T);
  unroll_status st = UNROLL_OK;
  batch made;
  batch *b = &made;

  UNROLL_TRY(batch_start(params, n, K, b));
  for (size_t done = 0; done < n; done += b->B) {
    /* The last batch reaches back over windows done before: to the same numbers. */
    size_t begin = done + b->B <= n ? done : n - b->B;
    const int32_t *x = tokens + begin * (T + 1);
    double *records = out + begin * LAGS_RECORD(b->L, K);
    tangents_start(b, first + begin);
    forward(b, T, x, records);
#pragma omp parallel for default(none) shared(b, T, x, records) schedule(static)
    for (size_t group = 0; group < b->groups; ++group) { backward(b, group, T, x, records); }
  }

cleanup:
  batch_free(b);
  return st;
}
