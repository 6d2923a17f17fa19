#ifndef NET_HEAD_H
#define NET_HEAD_H

/* The output layer and the loss, on the states of the top layer. */
#include "net/layer.h"

typedef struct head {
  const unroll_params *params; /* borrowed */
  network_size size;
  double smoothing; /* of labels, in the gradient alone; 0 unless it is set */
  double *nll; /* [nats] of the scored steps of the last head_forward: shard by shard, by (t, b) */
  unroll_real *O; /* token panels (kernels/output.h): logits, then their gradient */
  unroll_real *scratch;
  int32_t *y_panel;
} head;

/** Frees nothing on error: head_destroy is safe then. */
unroll_status head_init(const unroll_params *params, const network_size *size, head *o);
void head_destroy(head *o);

/**
 * Losses of the scored steps of a span, for targets y (T, B) of the window.
 *
 * @param[in]  scale  weight of the loss of each token in dh
 * @param[out] dh     (span, B, ld) dL/dh of the top layer, zero for steps without a loss; NULL: losses alone
 */
void head_forward(head *o, network_span span, const layer *top, const int32_t *y, double scale,
                  unroll_real *dh);

/** The gradient of W_qh and b_q, after head_forward with dh. */
unroll_status head_backward(const head *o, network_span span, const layer *top,
                            const gradient_sink *sink);

#endif
