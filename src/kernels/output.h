#ifndef KERNELS_OUTPUT_H
#define KERNELS_OUTPUT_H

/*
 * The output layer of a window: logits, softmax cross-entropy and the gradient
 * that flows back, in one pass over token panels (kernels.h), each owned by one
 * thread from start to end.
 *
 *   O = W_qh H + b_q,  nll = -log softmax(O)[y],  dO = scale * (softmax(O) - onehot(y))
 *   dH = W_qh^T dO
 *
 * Tokens are ordered shard by shard, within a shard by (t, b); each shard begins a
 * new panel, so that dO is the operand of the weight gradient as it is.
 */
#include "kernels/kernels.h"

typedef struct output_layer {
  size_t T, B, V, H;    /* B sequences of this rank */
  size_t shards;        /* of this rank; divides B */
  const unroll_real *W; /* W_qh (V, H), ld_W */
  size_t ld_W;
  const unroll_real *bias; /* b_q (V) */
  const unroll_real *h;    /* (T, B, ld): slots 1..T of the top layer */
  size_t ld;
  const int32_t *y; /* (T, B) targets; below 0: no token */
  unroll_real scale;
  double
      smoothing;   /* eps: dO is that of (1 - eps) nll + eps mean_v -log softmax(O)[v]; 0: of nll */
  int only_loss;   /* leave out dO and dH */
  unroll_real *O;  /* (output_panels, V, nr) */
  unroll_real *dh; /* (T, B, ld) */
  double *nll;     /* (T * B) [nats] in the order of the tokens above */
  unroll_real *scratch; /* output_scratch(H) elements for each thread, zero at first */
  int32_t *y_panel;     /* (T * B) targets in the order of the tokens above */
} output_layer;

/** Token panels of a window. */
size_t output_panels(size_t T, size_t B, size_t shards);

/** Elements of scratch for one thread. */
size_t output_scratch(size_t H);

/** Opens a region. */
void output_layer_run(const output_layer *p);

#endif
