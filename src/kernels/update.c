#include "kernels/update.h"

#include "kernels/dispatch.h"

#include <assert.h>
#include <math.h>

size_t update_norm_blocks(size_t n)
{
  return (n + KERNELS_NORM_BLOCK - 1) / KERNELS_NORM_BLOCK;
}

static size_t block_size(size_t n, size_t block)
{
  size_t left = n - block * KERNELS_NORM_BLOCK;
  return left < KERNELS_NORM_BLOCK ? left : KERNELS_NORM_BLOCK;
}

double update_norm(size_t n, const unroll_real *g, double *blocks)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
  assert(n % KERNELS_PAD == 0);
  if (count == 0) { return 0.0; }

#pragma omp parallel for default(none) shared(k, n, g, blocks, count) schedule(static)
  for (size_t i = 0; i < count; ++i) {
    blocks[i] = k->sum_squares(block_size(n, i), g + i * KERNELS_NORM_BLOCK);
  }

  for (; count > 1; count = (count + 1) / 2) {
    for (size_t i = 0; i < count / 2; ++i) { blocks[i] = blocks[2 * i] + blocks[2 * i + 1]; }
    if (count % 2 == 1) { blocks[count / 2] = blocks[count - 1]; }
  }
  return sqrt(blocks[0]);
}

void update_sgd(size_t n, double scale, double eta, const unroll_real *g, unroll_real *w)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
#pragma omp parallel for default(none) shared(k, n, scale, eta, g, w, count) schedule(static)
  for (size_t i = 0; i < count; ++i) {
    size_t at = i * KERNELS_NORM_BLOCK;
    k->sgd(block_size(n, i), scale, eta, g + at, w + at);
  }
}

void update_momentum(size_t n, double scale, double eta, double mu, const unroll_real *g,
                     unroll_real *v, unroll_real *w)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
#pragma omp parallel for default(none) shared(k, n, scale, eta, mu, g, v, w, count) schedule(static)
  for (size_t i = 0; i < count; ++i) {
    size_t at = i * KERNELS_NORM_BLOCK;
    k->momentum(block_size(n, i), scale, eta, mu, g + at, v + at, w + at);
  }
}

void update_adam(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
                 unroll_real *v, unroll_real *w)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
#pragma omp parallel for default(none) shared(k, n, scale, how, g, m, v, w, count) schedule(static)
  for (size_t i = 0; i < count; ++i) {
    size_t at = i * KERNELS_NORM_BLOCK;
    k->adam(block_size(n, i), scale, how, g + at, m + at, v + at, w + at);
  }
}
