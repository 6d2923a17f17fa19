#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

/*
 * One update of all parameters from the clipped gradient g <- scale * g, after the decay of the weights.
 *
 *   decay      w <- (1 - eta lambda) w                      (Loshchilov and Hutter 2019, decoupled)
 *   sgd        w <- w - eta g
 *   momentum   v <- mu v + g,  w <- w - eta v              (Polyak 1964, PyTorch's form)
 *   adam       m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2
 *              w <- w - eta (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)
 *                                                           (Kingma and Ba 2015, algorithm 1)
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/config.h>
#include <unroll/real.h>

/** Does an update leave parameters with a zero gradient unchanged? Only without moments and decay. */
static inline bool optimizer_skips_zeros(const unroll_config *config)
{
  return config->optimizer == UNROLL_OPTIMIZER_SGD && config->weight_decay == 0.0;
}

/**
 * Elements [begin, end), both multiples of 16.
 *
 * @param[in]     eta      learning rate
 * @param[in]     t        number of this update, from 1: Adam's t
 * @param[in]     g        of all
 * @param[in,out] moments  of all, as many arrays as the optimizer has
 * @param[in,out] w        all
 *
 * Threads: opens a region
 */
void optimizer_update(const unroll_config *config, size_t begin, size_t end, double scale,
                      double eta, uint64_t t, const unroll_real *g, unroll_real *const *moments,
                      unroll_real *w);

/**
 * Factor min(1, theta / norm) that clips a gradient of this norm; 1 when theta is 0 (off).
 *
 * Equation: g <- min(1, theta / ||g||) g
 * Source:   Dive into Deep Learning 9.5, Gradient Clipping
 */
double clip_scale(double theta, double norm);

#endif
