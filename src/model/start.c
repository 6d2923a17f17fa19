/* Initial parameters: functions of the seed and of an element's place in the file's shape alone. */
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/params.h"

#include <math.h>
#include <string.h>

/* A number for the tensor that does not depend on the memory layout: eight for each layer. */
static uint64_t stream_of(size_t l, int which)
{
  static const uint64_t streams[PARAMS_PER_LAYER] = {
      [PARAMS_W_HH] = 0, [PARAMS_W_XH] = 1, [PARAMS_B_H] = 2};
  return (uint64_t)l * 8 + streams[which];
}
#define STREAM_OUTPUT 4 /* W_qh and b_q: streams 4 and 5 of layer 0's eight */

static void start_uniform(unroll_params *p, const unroll_tensor *t, uint64_t seed, uint64_t stream)
{
  double bound = 1.0 / sqrt((double)p->H);
  for (size_t i = 0; i < t->rows; ++i) {
    for (size_t j = 0; j < t->cols; ++j) {
      double u = random_uniform(seed, RANDOM_INIT, stream, i * t->cols + j);
      p->values[unroll_tensor_index(t, i, j)] = (unroll_real)(bound * (2.0 * u - 1.0));
    }
  }
}

/* Standard normal number by Box and Muller (1958). */
static double normal(uint64_t seed, uint64_t stream, uint64_t j)
{
  double u = 1.0 - random_uniform(seed, RANDOM_INIT, stream, 2 * j); /* in (0, 1] */
  double v = random_uniform(seed, RANDOM_INIT, stream, 2 * j + 1);
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/*
 * Q of the QR decomposition of a Gaussian matrix by modified Gram-Schmidt on the rows, R with a
 * positive diagonal: Haar distributed (Mezzadri 2007). In double, so that Q is orthogonal to the
 * rounding of float. Our own instead of LAPACK's: its bits would depend on the library and the CPU.
 */
static unroll_status start_orthogonal(unroll_params *p, const unroll_tensor *t, double scale,
                                      uint64_t seed, uint64_t stream)
{
  unroll_status st = UNROLL_OK;
  size_t n = p->H;
  double *q = NULL;
  UNROLL_TRY(memory_new(n * n, sizeof *q, "orthogonal start", &q));

  for (size_t i = 0; i < n; ++i) {
    double *row = q + i * n;
    for (size_t j = 0; j < n; ++j) { row[j] = normal(seed, stream, i * n + j); }
  }
  for (size_t i = 0; i < n; ++i) {
    double *row = q + i * n;
    double norm = 0.0;
    for (size_t j = 0; j < n; ++j) { norm += row[j] * row[j]; }
    norm = sqrt(norm);
    for (size_t j = 0; j < n; ++j) { row[j] /= norm; }
#pragma omp parallel for default(none) shared(q, row, n, i) schedule(static)
    for (size_t k = i + 1; k < n; ++k) {
      double dot = 0.0;
      for (size_t j = 0; j < n; ++j) { dot += row[j] * q[k * n + j]; }
      for (size_t j = 0; j < n; ++j) { q[k * n + j] -= dot * row[j]; }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      p->values[unroll_tensor_index(t, i, j)] = (unroll_real)(scale * q[i * n + j]);
    }
  }

cleanup:
  memory_free(&q);
  return st;
}

/* W_hh = scale * I and b_h = 0 (Le, Jaitly and Hinton 2015). */
static void start_identity(unroll_params *p, const unroll_tensor *W_hh, const unroll_tensor *b_h,
                           double scale)
{
  for (size_t i = 0; i < p->H; ++i) {
    for (size_t j = 0; j < p->H; ++j) {
      p->values[unroll_tensor_index(W_hh, i, j)] = i == j ? (unroll_real)scale : 0;
    }
    p->values[unroll_tensor_index(b_h, i, 0)] = 0;
  }
}

unroll_status unroll_params_start(unroll_params *params, unroll_init init, double scale,
                                  uint64_t seed)
{
  unroll_status st = UNROLL_OK;
  memset(params->values, 0, params->n * sizeof *params->values);
  for (int which = 0; which < PARAMS_OUTPUTS; ++which) {
    start_uniform(params, params_output(params, which), seed, STREAM_OUTPUT + (uint64_t)which);
  }
  for (size_t l = 0; l < params->L; ++l) {
    for (int which = 0; which < PARAMS_PER_LAYER; ++which) {
      start_uniform(params, params_tensor(params, l, which), seed, stream_of(l, which));
    }
    const unroll_tensor *W_hh = params_tensor(params, l, PARAMS_W_HH);
    if (init == UNROLL_INIT_ORTHOGONAL) {
      UNROLL_TRY(start_orthogonal(params, W_hh, scale, seed, stream_of(l, PARAMS_W_HH)));
    } else if (init == UNROLL_INIT_IDENTITY) {
      start_identity(params, W_hh, params_tensor(params, l, PARAMS_B_H), scale);
    }
  }

cleanup:
  return st;
}
