#ifndef NET_SINK_H
#define NET_SINK_H

/*
 * Where the gradient of a window is written, tensor by tensor, and who is notified of each slice that is complete, so
 * that its exchange can start.
 */
#include "kernels/gradient.h"
#include "net/params.h"
#include "net/size.h"

/*
 * Called when elements [at, at + n) of the gradient are complete; from params->n_gradient on they are touched
 * rows of the input table (embedding.h). A weight matrix is computed in slices of at least `slice` elements, at most
 * SLICES_MAX, each notified when it is complete; 0: as a whole.
 */
#define SLICES_MAX 8
typedef struct network_ready {
  unroll_status (*call)(void *context, size_t at, size_t n);
  void *context;
  size_t slice;
  kernel_poll poll;
} network_ready;

typedef struct gradient_sink {
  const network_size *size;
  unroll_real *gradient; /* (params->n_gradient); with per_shard (shards, params->n_gradient) */
  size_t
      per_shard; /* 0: what comes is the tree over the shards; else each shard's own is added to what it has, so
                       many elements apart */
  unroll_real *scratch;       /* gradient_scratch */
  uint32_t *start, *list;     /* (V * shards + 1), (chunk * B) */
  const network_ready *ready; /* or NULL */
} gradient_sink;

/* A product dW = sum_n dZ_n h_n^T over T steps, and db = sum_n dZ_n where b, which lies behind W, is not NULL. */
typedef struct sink_product {
  const unroll_tensor *W, *b;
  gradient_source source;
  const unroll_real *dZ;
  size_t ld_dZ;
  size_t T;
  const unroll_real *state_panels;
  size_t slot; /* h_n is the state of slot + t */
} sink_product;

/** The product, notified in slices as they become complete; b with the last. */
unroll_status sink_add_product(const gradient_sink *sink, const sink_product *p);

/** db = sum_n dZ_n over the rows (T, B, ld) of dZ. */
unroll_status sink_add_bias(const gradient_sink *sink, const unroll_tensor *b, size_t T,
                            const unroll_real *dZ, size_t ld);

/** Elements [at, at + n) are complete. */
unroll_status sink_notify(const gradient_sink *sink, size_t at, size_t n);

#endif
