#ifndef KERNELS_UPDATE_H
#define KERNELS_UPDATE_H

/* The norm of a gradient and the optimizers' updates, over a flat array of n reals, n a multiple of
 * KERNELS_PAD. Every function opens a region. */
#include "kernels/kernels.h"

/*
 * A gradient whose end, from `begin` on, is a table of rows of ld elements, of which only the rows in `row` (ascending)
 * can be non-zero. Skipping the others leaves out zeros: the results have the same bits.
 */
typedef struct sparse_rows {
  size_t begin, ld;
  size_t n_rows;
  const uint32_t *row;
} sparse_rows;

/*
 * Euclidean norm: sums of squares in double over blocks of KERNELS_NORM_BLOCK, added as a balanced
 * tree; the same bits for any number of threads, and for any distribution of the blocks over ranks.
 */
size_t update_norm_blocks(size_t n);

/**
 * The sums of squares of blocks [begin, end).
 *
 * @param[in]  rows    what of g can be non-zero; NULL: everything
 * @param[out] blocks  (update_norm_blocks(n)) of which [begin, end) are written
 */
void update_sum_squares(size_t n, const unroll_real *g, const sparse_rows *rows, size_t begin,
                        size_t end, double *blocks);

/** The norm from the sums of all blocks, which it overwrites. */
double update_norm(size_t count, double *blocks);

/* Updates with scale * g (clipping) of keep * w (weight decay). Equations: train/optimizer.h. */
void update_sgd(size_t n, double scale, double eta, double keep, const unroll_real *g,
                unroll_real *w);
void update_sgd_rows(double scale, double eta, const unroll_real *g, const sparse_rows *rows,
                     unroll_real *w); /* these rows of the table alone, keep 1 */
void update_momentum(size_t n, double scale, double eta, double keep, double mu,
                     const unroll_real *g, unroll_real *v, unroll_real *w);
void update_adam(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
                 unroll_real *v, unroll_real *w);

/** a <- a + share * (w - a). */
void update_average(size_t n, double share, const unroll_real *w, unroll_real *a);

#endif
