#ifndef KERNELS_PENALTY_H
#define KERNELS_PENALTY_H

/*
 * Penalties on the states of the top layer, in the gradient of each step that has a loss:
 *
 *   l_t + alpha / H |out_t|^2 + beta / H |h_t - h_{t-1}|^2
 *
 *   out_t   what the layer passes upwards: h_t after dropout, and with skip connections what the layer read
 *   h_0     in front of a piece the state carried in, or zero: held constant, as the loss itself has it
 *
 *   dL/dout_t <- dL/dout_t + s 2 alpha / H out_t                                             s: weight of the loss of a token
 *   dL/dh_t   <- dL/dh_t + s 2 beta / H ((h_t - h_{t-1}) - xi (h_{t+1} - h_t))
 *
 * Means over units, and with s over tokens, as in the program of Merity, McCann and Socher 2017, "Revisiting activation
 * regularization for language RNNs", whose windows lack the difference to the state carried in. Here it is a part of the loss
 * of its step, as the carried state is a part of h_1; so it does not depend on how long a window is, and the mean over the cuts of
 * randomized back-propagation is the full gradient.
 */
#include <stddef.h>
#include <stdint.h>
#include <unroll/real.h>

typedef struct penalty {
  double activation; /* alpha; 0: off */
  double change;     /* beta; the same */
} penalty;

/* T steps of B sequences. */
typedef struct penalty_rows {
  size_t T, B, H, ld;
  size_t scored;    /* steps before it have no loss */
  const int32_t *y; /* (T, B); below 0: no loss */
  double weight;    /* s alpha, or s beta */
  unroll_real *dh;  /* (T, B, ld): the gradient to add to */
} penalty_rows;

/** dL/dout, of out (T, B, ld). Opens a region. */
void penalty_activation(const penalty_rows *p, const unroll_real *out);

/**
 * dL/dh, of h (T + 1, B, ld), from the state before the first step on. Opens a region.
 *
 * @param[in]     xi    factor on the gradient from a step to the one before
 * @param[in,out] next  (B, ld) h_{t+1} - h_t of the last step, zero where that has no loss; then of the step before the first
 */
void penalty_change(const penalty_rows *p, double xi, const unroll_real *h, unroll_real *next);

#endif
