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

double update_norm(size_t count, double *blocks)
{
  if (count == 0) { return 0.0; }
  /* neighbours in pairs; an odd one goes up alone */
  for (; count > 1; count = (count + 1) / 2) {
    for (size_t i = 0; i < count / 2; ++i) { blocks[i] = blocks[2 * i] + blocks[2 * i + 1]; }
    if (count % 2 == 1) { blocks[count / 2] = blocks[count - 1]; }
  }
  return sqrt(blocks[0]);
}

/* Set blocks [begin, end) to `marked` where they may hold non-zero elements, else to 0. */
static void mark_blocks(size_t begin, size_t end, const sparse_rows *rows, double marked,
                        double *blocks)
{
  size_t dense = rows == NULL ? end : update_norm_blocks(rows->begin);
  for (size_t i = begin; i < end; ++i) { blocks[i] = i < dense ? marked : 0.0; }
  for (size_t r = 0; rows != NULL && r < rows->n_rows; ++r) {
    size_t at = rows->begin + rows->row[r] * rows->ld;
    size_t first = at / KERNELS_NORM_BLOCK, last = (at + rows->ld - 1) / KERNELS_NORM_BLOCK;
    for (size_t i = first > begin ? first : begin; i <= last && i < end; ++i) {
      blocks[i] = marked;
    }
  }
}

void update_sum_squares(size_t n, const unroll_real *g, const sparse_rows *rows, size_t begin,
                        size_t end, double *blocks)
{
  const kernel_table *k = kernels();
  const double marked = -1.0;
  assert(n % KERNELS_PAD == 0 && end <= update_norm_blocks(n));

  mark_blocks(begin, end, rows, marked, blocks);
#pragma omp parallel for default(none) shared(k, n, g, begin, end, blocks, marked) schedule(static)
  for (size_t i = begin; i < end; ++i) {
    if (blocks[i] == marked) {
      blocks[i] = k->sum_squares(block_size(n, i), g + i * KERNELS_NORM_BLOCK);
    }
  }
}

void update_sgd_rows(double scale, double eta, const unroll_real *g, const sparse_rows *rows,
                     unroll_real *w)
{
  const kernel_table *k = kernels();
#pragma omp parallel for default(none) shared(k, scale, eta, g, rows, w) schedule(static)
  for (size_t r = 0; r < rows->n_rows; ++r) {
    size_t at = rows->begin + rows->row[r] * rows->ld;
    k->sgd(rows->ld, scale, eta, 1.0, g + at, w + at);
  }
}

void update_sgd(size_t n, double scale, double eta, double keep, const unroll_real *g,
                unroll_real *w)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
#pragma omp parallel for default(none) shared(k, n, scale, eta, keep, g, w, count) schedule(static)
  for (size_t i = 0; i < count; ++i) {
    size_t at = i * KERNELS_NORM_BLOCK;
    k->sgd(block_size(n, i), scale, eta, keep, g + at, w + at);
  }
}

void update_momentum(size_t n, double scale, double eta, double keep, double mu,
                     const unroll_real *g, unroll_real *v, unroll_real *w)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
#pragma omp parallel for default(none) shared(k, n, scale, eta, keep, mu, g, v, w, count)          \
    schedule(static)
  for (size_t i = 0; i < count; ++i) {
    size_t at = i * KERNELS_NORM_BLOCK;
    k->momentum(block_size(n, i), scale, eta, keep, mu, g + at, v + at, w + at);
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

void update_average(size_t n, double share, const unroll_real *w, unroll_real *a)
{
  const kernel_table *k = kernels();
  size_t count = update_norm_blocks(n);
#pragma omp parallel for default(none) shared(k, n, share, w, a, count) schedule(static)
  for (size_t i = 0; i < count; ++i) {
    size_t at = i * KERNELS_NORM_BLOCK;
    k->average(block_size(n, i), share, w + at, a + at);
  }
}
