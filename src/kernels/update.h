#ifndef KERNELS_UPDATE_H
#define KERNELS_UPDATE_H

/* The norm of a gradient and the optimizers' updates, over a flat array of n reals, n a multiple of
 * KERNELS_PAD. Every function opens a region. */
#include "kernels/kernels.h"

/**
 * Euclidean norm: squares in double, in blocks of KERNELS_NORM_BLOCK, the blocks added as a balanced
 * tree; the same bits for any number of threads.
 *
 * @param[out] blocks  (update_norm_blocks(n)) scratch
 */
double update_norm(size_t n, const unroll_real *g, double *blocks);
size_t update_norm_blocks(size_t n);

/* g is scaled by `scale` (clipping) on its way into the update. Equations: train/optimizer.h. */
void update_sgd(size_t n, double scale, double eta, const unroll_real *g, unroll_real *w);
void update_momentum(size_t n, double scale, double eta, double mu, const unroll_real *g,
                     unroll_real *v, unroll_real *w);
void update_adam(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
                 unroll_real *v, unroll_real *w);

#endif
