#ifndef KERNELS_UPDATE_H
#define KERNELS_UPDATE_H

/* The norm of a gradient and the optimizers' updates, over a flat array of n reals, n a multiple of
 * KERNELS_PAD. Every function opens a region. */
#include "kernels/kernels.h"

/*
 * A gradient whose end, from `begin` on, is a table of rows of ld elements of which only the rows named
 * can be non-zero, ascending. What is left out would have added zeros: the results are the same bits.
 */
typedef struct sparse_rows {
  size_t begin, ld;
  size_t n_rows;
  const uint32_t *row;
} sparse_rows;

/*
 * Euclidean norm: squares in double, in blocks of KERNELS_NORM_BLOCK, the blocks added as a balanced
 * tree; the same bits for any number of threads, and whoever computes which blocks.
 */
size_t update_norm_blocks(size_t n);

/**
 * The squares of blocks [begin, end).
 *
 * @param[in]  rows    what of g can be non-zero; NULL: everything
 * @param[out] blocks  (update_norm_blocks(n)) of which [begin, end) are written
 */
void update_sum_squares(size_t n, const unroll_real *g, const sparse_rows *rows, size_t begin,
                        size_t end, double *blocks);

/** The norm from the squares of all blocks, which it overwrites. */
double update_norm(size_t count, double *blocks);

/* g is scaled by `scale` (clipping) on its way into the update. Equations: train/optimizer.h. */
void update_sgd(size_t n, double scale, double eta, const unroll_real *g, unroll_real *w);
void update_sgd_rows(double scale, double eta, const unroll_real *g, const sparse_rows *rows,
                     unroll_real *w); /* these rows of the table alone */
void update_momentum(size_t n, double scale, double eta, double mu, const unroll_real *g,
                     unroll_real *v, unroll_real *w);
void update_adam(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
                 unroll_real *v, unroll_real *w);

#endif
