/* Initial parameters: functions of the seed and of an element's place in the file's shape alone. */
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "net/params.h"

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

/* Elements [begin, end) of the flat array, as far as they belong to the tensor. */
static void start_uniform(unroll_params *p, const unroll_tensor *t, uint64_t seed, uint64_t stream,
                          size_t begin, size_t end)
{
  const double bound = 1.0 / sqrt((double)p->H);
  const bool turned =
      t->transposed || t->col_dim == NULL; /* a vector is one column, a line in memory */
  const size_t lines = turned ? t->cols : t->rows, length = turned ? t->rows : t->cols;

#pragma omp parallel for default(none) schedule(static)                                            \
    shared(p, t, seed, stream, begin, end, bound, turned, lines, length)
  for (size_t line = 0; line < lines; ++line) {
    const size_t at = t->offset + line * t->ld;
    const size_t first = begin > at ? begin - at : 0, most = end > at ? end - at : 0;
    for (size_t k = first; k < length && k < most; ++k) {
      uint64_t number = turned ? k * t->cols + line : line * t->cols + k;
      double u = random_uniform(seed, RANDOM_INIT, stream, number);
      p->values[at + k] = (unroll_real)(bound * (2.0 * u - 1.0));
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

/* W_hh = scale * I and b_h = 0 (Le, Jaitly and Hinton 2015): zeros are there already. */
static void start_identity(unroll_params *p, const unroll_tensor *W_hh, double scale, size_t begin,
                           size_t end)
{
  for (size_t i = 0; i < p->H; ++i) {
    size_t at = unroll_tensor_index(W_hh, i, i);
    if (at >= begin && at < end) { p->values[at] = (unroll_real)scale; }
  }
}

unroll_status params_start_part(unroll_params *params, unroll_init init, double scale,
                                uint64_t seed, size_t begin, size_t end)
{
  unroll_status st = UNROLL_OK;

  for (int which = 0; which < PARAMS_OUTPUTS; ++which) {
    start_uniform(params, params_output(params, which), seed, STREAM_OUTPUT + (uint64_t)which,
                  begin, end);
  }
  for (size_t l = 0; l < params->L; ++l) {
    const unroll_tensor *W_hh = params_tensor(params, l, PARAMS_W_HH);
    for (int which = 0; which < PARAMS_PER_LAYER; ++which) {
      bool otherwise = (which == PARAMS_W_HH && init != UNROLL_INIT_UNIFORM) ||
                       (which == PARAMS_B_H && init == UNROLL_INIT_IDENTITY);
      if (otherwise) { continue; }
      start_uniform(params, params_tensor(params, l, which), seed, stream_of(l, which), begin, end);
    }
    if (init == UNROLL_INIT_ORTHOGONAL && W_hh->offset >= begin && W_hh->offset < end) {
      UNROLL_TRY(start_orthogonal(params, W_hh, scale, seed, stream_of(l, PARAMS_W_HH)));
    } else if (init == UNROLL_INIT_IDENTITY) {
      start_identity(params, W_hh, scale, begin, end);
    }
  }

cleanup:
  return st;
}

unroll_status unroll_params_start(unroll_params *params, unroll_init init, double scale,
                                  uint64_t seed)
{
  memset(params->values, 0, params->n * sizeof *params->values);
  return params_start_part(params, init, scale, seed, 0, params->n);
}
