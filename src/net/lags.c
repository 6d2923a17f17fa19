#include "net/lags.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "base/random.h"
#include "net/network.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* The vector type of cell_functions.inc: one unit in double. A product and a sum are two roundings. */
typedef double vec;
#define INLINE static inline

INLINE vec vec_splat(double x)
{
  return x;
}

INLINE vec vec_fma(vec a, vec b, vec c)
{
  return a * b + c;
}

INLINE vec vec_max(vec bound, vec x)
{
  return bound > x ? bound : x;
}

INLINE vec vec_select(int mask, vec a, vec b)
{
  return mask ? a : b;
}

INLINE vec vec_tanh(vec x)
{
  return tanh(x);
}

INLINE vec vec_sigmoid(vec x)
{
  return 1.0 / (1.0 + exp(-x));
}

#include "kernels/cell_functions.inc"

/* Windows that one thread propagates together: each row of a weight matrix is read once for all. */
#define GROUP 4

/* Windows of a batch at most: enough rows for the matrix products of the forward pass. */
#define MAX_WINDOWS 64

/* Coefficients stored at a time, at most: a quarter of a gigabyte. */
#define MAX_COEFFICIENTS ((size_t)1 << 25)

/* ------------------------------------------------------- rows with exponents */

/* GROUP vectors, each of some blocks of H: row r is m[r] * 2^e[r]. */
typedef struct rows {
  double *m; /* (GROUP, n) */
  size_t n;
  long e[GROUP];
} rows;

/* Exponent of a row of zeros: below any other, and differences do not overflow. */
#define ZERO_EXPONENT (-(1L << 40))

/* 2^e for e <= 0, and 0 where that is below the normal numbers. */
static double exp2_or_zero(long e)
{
  return e < -1000 ? 0.0 : ldexp(1.0, (int)e);
}

static void set_zero(rows *a)
{
  memset(a->m, 0, GROUP * a->n * sizeof *a->m);
  for (size_t r = 0; r < GROUP; ++r) { a->e[r] = ZERO_EXPONENT; }
}

/* `blocks` matrices W (H, H) with leading dimension ld and a stride of `block` rows. */
typedef struct matrix {
  const unroll_real *W;
  size_t ld, blocks, block;
} matrix;

/* c (GROUP, H) += a (GROUP, H) W (H, H) with leading dimensions ldc, lda, ld; summed over the rows of W ascending. */
static void multiply(size_t H, const double *a, size_t lda, const unroll_real *W, size_t ld,
                     double *c, size_t ldc)
{
  double *restrict c0 = c, *restrict c1 = c0 + ldc, *restrict c2 = c1 + ldc,
                   *restrict c3 = c2 + ldc;
  _Static_assert(GROUP == 4, "the rows below");

  for (size_t i = 0; i < H; i += 2) { /* two at a time: a sum is loaded and stored half as often */
    const int pair = i + 1 < H;
    const unroll_real *restrict w0 = W + i * ld, *restrict w1 = pair ? w0 + ld : w0;
    double p[GROUP], q[GROUP];
    for (size_t r = 0; r < GROUP; ++r) {
      p[r] = a[r * lda + i];
      q[r] = pair ? a[r * lda + i + 1] : 0.0;
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

/* c = sum_k a_{from + k} W_k over the blocks k of W. */
static void multiply_back(size_t H, const rows *a, size_t from, matrix W, rows *c)
{
  memset(c->m, 0, GROUP * H * sizeof *c->m);
  memcpy(c->e, a->e, sizeof c->e);
  for (size_t k = 0; k < W.blocks; ++k) {
    multiply(H, a->m + (from + k) * H, a->n, W.W + k * W.block * W.ld, W.ld, c->m, c->n);
  }
}

/* c += a */
static void add(const rows *a, rows *c)
{
  for (size_t r = 0; r < GROUP; ++r) {
    long e = a->e[r] > c->e[r] ? a->e[r] : c->e[r];
    double of_a = exp2_or_zero(a->e[r] - e), of_c = exp2_or_zero(c->e[r] - e);
    for (size_t j = r * a->n; j < (r + 1) * a->n; ++j) {
      c->m[j] = of_c * c->m[j] + of_a * a->m[j];
    }
    c->e[r] = e;
  }
}

/* Give each row of c the exponent of a's, which must not be smaller. */
static void align(const rows *a, rows *c)
{
  for (size_t r = 0; r < GROUP; ++r) {
    assert(a->e[r] >= c->e[r]);
    double of_c = exp2_or_zero(c->e[r] - a->e[r]);
    for (size_t j = r * c->n; j < (r + 1) * c->n; ++j) { c->m[j] *= of_c; }
    c->e[r] = a->e[r];
  }
}

static double norm(size_t H, const double *m)
{
  double sum = 0.0;
  for (size_t j = 0; j < H; ++j) { sum += m[j] * m[j]; }
  return sqrt(sum);
}

static double log_norm(const rows *a, size_t r)
{
  double size = norm(a->n, a->m + r * a->n);
  return size == 0.0 ? -INFINITY : log(size) + (double)a->e[r] * LN2;
}

/* Move the size of each row into its exponent: the norm of m becomes 1/2 to 1. */
static void normalize(rows *a)
{
  for (size_t r = 0; r < GROUP; ++r) {
    int e = 0;
    double size = norm(a->n, a->m + r * a->n);
    if (!isfinite(size)) { continue; } /* stays, so that the result shows it */
    (void)frexp(size, &e);
    for (size_t j = r * a->n; j < (r + 1) * a->n; ++j) { a->m[j] = ldexp(a->m[j], -e); }
    a->e[r] = size == 0.0 ? ZERO_EXPONENT : a->e[r] + e;
  }
}

/* ------------------------------------------------------------------- a batch */

/*
 * The gradient leaves a step backwards along `n_paths` paths of H units each: the deltas, then dc of the step before,
 * then the bypass to its h (cell.h). Each is linear in the gradients of the states, unit by unit: path x has
 * coefficient x for dh and coefficient n_paths + x for dc.
 *
 * A batch has B windows; the threads work on groups of GROUP.
 */
typedef struct batch {
  network *net; /* of one step */
  const unroll_params *params;
  const cell *cell;
  size_t B, H, L, V, K, groups, states, n_paths;
  double *coefficients;    /* (L, K + 1, B, states, n_paths, H): of step t - k */
  unroll_real *transposed; /* (L, recurrent, H, H) W_hh^T */
  double *mantissas;       /* of all rows below */
  rows *tangent;           /* (groups, L) of states */
  rows *outgoing; /* (groups, L) of n_paths: gradients that leave the step of the last lag */
  rows *tangent_outgoing; /* (groups) of n_paths: scratch of tangent_step */
  rows *dh, *dc, *own;    /* (groups) G of h and c; scratch of add_from_future */
  double *logits;         /* (groups, V) */
} batch;

static void batch_free(batch *b)
{
  memory_free(&b->logits);
  memory_free(&b->own);
  memory_free(&b->dc);
  memory_free(&b->dh);
  memory_free(&b->tangent_outgoing);
  memory_free(&b->outgoing);
  memory_free(&b->tangent);
  memory_free(&b->mantissas);
  memory_free(&b->transposed);
  memory_free(&b->coefficients);
  network_free(&b->net);
}

static unroll_status new_rows(size_t count, size_t n, double **mantissas, rows **out)
{
  unroll_status st = memory_new(count, sizeof **out, "gradients", out);
  for (size_t i = 0; i < count && st == UNROLL_OK; ++i, *mantissas += GROUP * n) {
    (*out)[i].m = *mantissas;
    (*out)[i].n = n;
  }
  return st;
}

/* W_hh or W_xh of a layer, in the order of the deltas. */
static matrix matrix_of(const unroll_params *params, size_t l, params_name which)
{
  const unroll_tensor *W = params_tensor(params, l, which);
  return W == NULL ? (matrix){0} : (matrix){params->values + W->offset, W->ld, W->blocks, W->block};
}

static void transpose(size_t H, matrix W, unroll_real *out)
{
  for (size_t k = 0; k < W.blocks; ++k, out += H * H) {
    for (size_t i = 0; i < H; ++i) {
      for (size_t j = 0; j < H; ++j) { out[j * H + i] = W.W[(k * W.block + i) * W.ld + j]; }
    }
  }
}

/* Frees nothing on error: batch_free is safe then. */
static unroll_status batch_start(const unroll_params *params, size_t n, size_t K, batch *b)
{
  unroll_status st = UNROLL_OK;
  const cell *c = params_cell(params);
  const size_t H = params->shape.H, L = params->shape.L, states = params_states(params);
  const size_t n_paths = cell_deltas(c) + c->memory + c->bypass;
  const size_t matrices = c->recurrent * H * H,
               max = MAX_COEFFICIENTS / (L * (K + 1) * states * n_paths * H);
  double *mantissas = NULL;

  *b = (batch){.params = params,
               .cell = c,
               .H = H,
               .L = L,
               .V = params->shape.V,
               .K = K,
               .states = states,
               .n_paths = n_paths};
  b->B = max < 1 ? 1 : max < MAX_WINDOWS ? max : MAX_WINDOWS;
  b->B = n < b->B ? n : b->B;
  b->groups = (b->B + GROUP - 1) / GROUP;
  const network_size size = {
      .T = 1, .chunk = 1, .B = b->B, .shards = 1, .group = 1, .keep_gates = true};
  UNROLL_TRY(network_new(params, &size, &b->net));
  network_pack(b->net);
  UNROLL_TRY(memory_new(L * (K + 1), b->B * states * n_paths * H * sizeof *b->coefficients,
                        "coefficients", &b->coefficients));
  UNROLL_TRY(memory_new(L, matrices * sizeof *b->transposed, "weights", &b->transposed));
  for (size_t l = 0; l < L; ++l) {
    transpose(H, matrix_of(params, l, PARAMS_W_HH), b->transposed + l * matrices);
  }
  UNROLL_TRY(memory_new(b->groups * (L * (states + n_paths) + n_paths + 3),
                        GROUP * H * sizeof *b->mantissas, "gradients", &b->mantissas));
  mantissas = b->mantissas;
  UNROLL_TRY(new_rows(b->groups * L, states * H, &mantissas, &b->tangent));
  UNROLL_TRY(new_rows(b->groups * L, n_paths * H, &mantissas, &b->outgoing));
  UNROLL_TRY(new_rows(b->groups, n_paths * H, &mantissas, &b->tangent_outgoing));
  UNROLL_TRY(new_rows(b->groups, H, &mantissas, &b->dh));
  UNROLL_TRY(new_rows(b->groups, H, &mantissas, &b->dc));
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

static double *coefficients_of(const batch *b, size_t l, size_t lag, size_t window)
{
  return b->coefficients + ((l * (b->K + 1) + lag) * b->B + window) * b->states * b->n_paths * b->H;
}

/* The coefficients for dh (state 0) or dc (state 1) of the step that network_forward has just computed. */
static void set_coefficients(const batch *b, const layer *l, size_t window, size_t state,
                             double *out)
{
  const cell *c = b->cell;
  const size_t H = b->H, block = kernels_pad(H), before = window * l->ld,
               now = (b->B + window) * l->ld;
  for (size_t j = 0; j < H; ++j) {
    backward_vectors v = {.h = (double)l->h[now + j],
                          .h_before = (double)l->h[before + j],
                          .dh = state == 0,
                          .dc = state == 1};
    if (c->memory) {
      v.c = (double)l->c[now + j];
      v.c_before = (double)l->c[before + j];
    }
    for (size_t k = 0; k < c->kept; ++k) {
      v.delta[k] = (double)l->deltas[window * l->ld_deltas + k * block + j];
    }
    backward_of(c->id, &v);
    size_t path = 0;
    for (size_t k = 0; k < cell_deltas(c); ++k) { out[path++ * H + j] = v.delta[k]; }
    if (c->memory) { out[path++ * H + j] = v.dc; }
    if (c->bypass) { out[path++ * H + j] = v.bypass; }
  }
}

/* out (H) = coefficients * in unit by unit; unless `first`, added to out. */
static void multiply_units(size_t H, const double *coefficients, const double *in, bool first,
                           double *out)
{
  for (size_t j = 0; j < H; ++j) {
    double x = coefficients[j] * in[j];
    out[j] = first ? x : out[j] + x;
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
        for (size_t j = 0; j < u->n; ++j) {
          u->m[r * u->n + j] = 2.0 * random_uniform(0, RANDOM_TANGENT, window, j) - 1.0;
        }
      }
      normalize(u);
    }
  }
}

/* u <- J_t u of a layer, the transpose of the backward step: first the value of each path, then the states from
 * these. */
static void tangent_step(batch *b, size_t group, size_t l, size_t lag)
{
  const cell *c = b->cell;
  const size_t H = b->H, deltas = cell_deltas(c);
  rows *u = &b->tangent[group * b->L + l], *z = &b->tangent_outgoing[group];

  memset(z->m, 0, GROUP * z->n * sizeof *z->m);
  for (size_t k = 0; k < c->recurrent; ++k) {
    multiply(H, u->m, u->n, b->transposed + (l * c->recurrent + k) * H * H, H,
             z->m + (c->first_recurrent + k) * H, z->n);
  }
  for (size_t r = 0; r < GROUP; ++r) {
    const double *in = u->m + r * u->n;
    double *path = z->m + r * z->n + deltas * H;
    if (c->memory) {
      memcpy(path, in + H, H * sizeof *path);
      path += H;
    }
    if (c->bypass) { memcpy(path, in, H * sizeof *path); }
  }
  for (size_t r = 0; r < GROUP; ++r) {
    const double *coefficients = coefficients_of(b, l, lag, window_of(b, group, r));
    for (size_t s = 0; s < b->states; ++s) {
      for (size_t x = 0; x < b->n_paths; ++x) {
        multiply_units(H, coefficients + (s * b->n_paths + x) * H, z->m + r * z->n + x * H, x == 0,
                       u->m + r * u->n + s * H);
      }
    }
  }
  normalize(u);
}

/* The record of a layer of a window. */
static double *record_of(const batch *b, double *out, size_t window, size_t l)
{
  return out + (window * b->L + l) * LAGS_RECORD(b->states, 1, b->K);
}

/* Record the size of the tangents before the last K steps; at the end, the growth since. */
static void record_tangents(const batch *b, size_t group, bool end, double *out)
{
  for (size_t l = 0; l < b->L; ++l) {
    for (size_t r = 0; r < GROUP && group * GROUP + r < b->B; ++r) {
      double *growth = record_of(b, out, group * GROUP + r, l) + LAGS_TANGENT(b->K);
      double size = log_norm(&b->tangent[group * b->L + l], r);
      *growth = end && size != -INFINITY ? size - *growth : size;
    }
  }
}

/* All steps of the batch's windows: coefficients of the last K + 1 steps, growth of the tangents. */
static void forward(batch *b, size_t T, const int32_t *tokens, double *out)
{
  network_reset(b->net);
  for (size_t t = 0; t < T; ++t) {
    const size_t lag = T - 1 - t;
    const size_t slot = lag < b->K ? lag : b->K; /* steps before the first lag make room for it */
    for (size_t window = 0; window < b->B; ++window) {
      b->net->x[window] = tokens[window * (T + 1) + t];
    }
    network_forward(b->net, 1);
#pragma omp parallel for default(none) shared(b, lag, slot, out) schedule(static)
    for (size_t group = 0; group < b->groups; ++group) {
      for (size_t l = 0; l < b->L; ++l) {
        for (size_t r = 0; r < GROUP && group * GROUP + r < b->B; ++r) {
          double *coefficients = coefficients_of(b, l, slot, group * GROUP + r);
          for (size_t s = 0; s < b->states; ++s) {
            set_coefficients(b, &b->net->layers[l], group * GROUP + r, s,
                             coefficients + s * b->n_paths * b->H);
          }
        }
        tangent_step(b, group, l, slot);
      }
      if (lag == b->K || lag == 0) { record_tangents(b, group, lag == 0, out); }
    }
    network_carry(b->net, 1);
  }
}

/* ------------------------------------------------------------------- backward */

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

/* The gradient from the next step in time to the states of a layer: dh += W_hh^T deltas + bypass; dc. */
static void add_from_future(const batch *b, size_t group, size_t l, rows *dh, rows *dc)
{
  const cell *c = b->cell;
  const size_t H = b->H;
  const rows *outgoing = &b->outgoing[group * b->L + l];
  rows *own = &b->own[group];

  multiply_back(H, outgoing, c->first_recurrent, matrix_of(b->params, l, PARAMS_W_HH), own);
  for (size_t r = 0; r < GROUP; ++r) {
    const double *path = outgoing->m + r * outgoing->n + cell_deltas(c) * H;
    if (c->memory) {
      memcpy(dc->m + r * H, path, H * sizeof *path);
      dc->e[r] = outgoing->e[r];
      path += H;
    }
    for (size_t j = 0; j < H && c->bypass; ++j) { own->m[r * H + j] += path[j]; }
  }
  add(own, dh);
}

/* The gradients that leave the step of this lag, from those of its states. */
static void step_back(const batch *b, size_t group, size_t l, size_t lag, const rows *dh, rows *dc)
{
  const size_t H = b->H;
  rows *outgoing = &b->outgoing[group * b->L + l];

  /* dh has the exponent of dc or a larger one: add_from_future added gradients of that exponent to it. */
  if (b->states > 1) { align(dh, dc); }
  memcpy(outgoing->e, dh->e, sizeof outgoing->e);
  for (size_t r = 0; r < GROUP; ++r) {
    const double *coefficients = coefficients_of(b, l, lag, window_of(b, group, r));
    for (size_t x = 0; x < b->n_paths; ++x) {
      double *path = outgoing->m + r * outgoing->n + x * H;
      multiply_units(H, coefficients + x * H, dh->m + r * H, true, path);
      if (b->states > 1) {
        multiply_units(H, coefficients + (b->n_paths + x) * H, dc->m + r * H, false, path);
      }
    }
  }
  normalize(outgoing);
}

/* The factor from the state to itself without products: c to c (lstm), else h to h (bypass), else phi'. */
static double sum_derivative(const batch *b, size_t l, size_t lag, size_t window)
{
  const size_t path = b->cell->memory   ? b->n_paths + cell_deltas(b->cell)
                      : b->cell->bypass ? cell_deltas(b->cell)
                                        : 0;
  const double *slope = coefficients_of(b, l, lag, window) + path * b->H;
  double sum = 0.0;
  for (size_t j = 0; j < b->H; ++j) { sum += slope[j]; }
  return sum;
}

static void record_norms(const batch *b, size_t group, size_t l, size_t lag, double *out)
{
  for (size_t r = 0; r < GROUP && group * GROUP + r < b->B; ++r) {
    double *record = record_of(b, out, group * GROUP + r, l),
           *mean = record + LAGS_DERIVATIVE(b->K);
    record[lag] = log_norm(&b->dh[group], r);
    if (b->cell->memory) { record[LAGS_MEMORY(b->K) + lag] = log_norm(&b->dc[group], r); }
    *mean = (lag == 0 ? 0.0 : *mean) + sum_derivative(b, l, lag, group * GROUP + r);
    if (lag == b->K) { *mean /= (double)b->H * (double)(b->K + 1); }
  }
}

/* All lags of a group's windows. */
static void backward(batch *b, size_t group, size_t T, const int32_t *tokens, double *out)
{
  const layer *top = network_top(b->net);
  rows *dh = &b->dh[group], *dc = &b->dc[group];

  for (size_t lag = 0; lag <= b->K; ++lag) {
    set_zero(dh);
    for (size_t r = 0; r < GROUP && lag == 0; ++r) {
      size_t window = window_of(b, group, r); /* slot 1 has the last state */
      output_gradient(b, top->h + (b->B + window) * top->ld, tokens[window * (T + 1) + T],
                      b->logits + group * b->V, dh->m + r * b->H);
      dh->e[r] = 0;
    }
    for (size_t l = b->L; l-- > 0;) {
      set_zero(dc);
      if (lag > 0) { add_from_future(b, group, l, dh, dc); }
      record_norms(b, group, l, lag, out);
      step_back(b, group, l, lag, dh, dc);
      if (l > 0) { /* dh of the layer below: W_xh^T deltas */
        multiply_back(b->H, &b->outgoing[group * b->L + l], 0, matrix_of(b->params, l, PARAMS_W_XH),
                      dh);
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
    double *records = out + begin * LAGS_RECORD(b->states, b->L, K);
    tangents_start(b, first + begin);
    forward(b, T, x, records);
#pragma omp parallel for default(none) shared(b, T, x, records) schedule(static)
    for (size_t group = 0; group < b->groups; ++group) { backward(b, group, T, x, records); }
  }

cleanup:
  batch_free(b);
  return st;
}
