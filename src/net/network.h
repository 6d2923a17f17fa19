#ifndef NET_NETWORK_H
#define NET_NETWORK_H

/*
 * The network of one rank at work: parameters in the kernels' packed form, the
 * hidden states, and what back-propagation through time needs, for windows of
 * up to T steps of B sequences in `shards` shards. Allocated once; a step
 * allocates nothing.
 *
 *   network_pack       after every change of the parameters
 *   x, y               filled by the caller, time-major (T, B)
 *   network_forward    h of every layer, steps 1..T, from slot 0
 *   network_output     nll of every token; dO, dH of the top layer when training
 *   network_backward   the gradient, in the order in which its parts become complete
 *   network_carry      the last state becomes slot 0 of the next window
 *
 * A sequence longer than a chunk is walked back chunk by chunk instead (segments.h):
 * network_output and network_backward_chunk for each, network_combine at the end.
 */
#include "kernels/recurrence.h"
#include "net/params.h"
#include <stdbool.h>
#include <unroll/params.h>

typedef struct network_size {
  size_t T;      /* steps of which the states are kept */
  size_t chunk;  /* steps at most that output layer and backward pass work on together */
  size_t B;      /* sequences of this rank, >= 1 */
  size_t shards; /* of this rank; divides B */
  size_t group;  /* odd part of the number of all shards */
  size_t
      window; /* tokens of the longest sequences over all ranks; 0: no memory for the backward pass */
  bool apart; /* sequences longer than a chunk come: keep a gradient for each shard */
  unroll_real
      *gradient; /* borrowed, (params->n) zeros: where the gradient goes; NULL: memory of its own */
  unroll_real *rows; /* borrowed, (window, ld of the input table), or NULL: see `rows` below */
} network_size;

/* Steps of the states at hand, worked on together; only those from `scored` on have losses. */
typedef struct network_span {
  size_t begin, scored, end; /* begin <= scored < end <= begin + chunk */
} network_span;

typedef struct network {
  /* sizes */
  size_t T, chunk, B, V, H, L;
  size_t shards, group; /* of this rank; group as in shard_tree.h */
  size_t ld;            /* rows of h, dh */
  unroll_activation activation;
  const unroll_params *params; /* borrowed */
  bool training;

  /* packed weights, (L) each */
  unroll_real **recur_forward, **recur_backward; /* W_hh */
  unroll_real **below_forward, **below_backward; /* W_xh of layers above the first, else NULL */

  double xi; /* factor of the gradient from a step to the one before; 1 but for randomized BPTT */

  /* a window */
  int32_t *x, *y;          /* (T, B); y below 0: no token, and the state there is zero */
  bool masked;             /* y is below 0 somewhere: sequences of unequal lengths */
  unroll_real **h;         /* (L) of (T + 1, B, ld) */
  unroll_real *from_below; /* (T, B, ld) W_xh h of the layer below; L > 1 */
  double *nll; /* of the steps that network_output last had: shard by shard, by (t, b) */

  /* backward */
  unroll_real **state_panels; /* (L) h once more, for the weight gradients (kernels/recurrence.h) */
  uint32_t *panel_row;        /* (B) */
  unroll_real *dh[2];         /* (chunk, B, ld) the layer at work, and the one below */
  unroll_real **after;        /* (L) of (B, ld) dA of the step behind a chunk; apart only */
  unroll_real *apart;         /* (shards, params->n) each shard's gradient so far, or NULL */
  unroll_real *gradient;      /* (params->n), layout of params */
  unroll_real *own_gradient;  /* what of it is this network's to free */

  /*
   * The rows of the input table's gradient that can be non-zero: those of the tokens of the window, on
   * any rank. With a vocabulary larger than the global window (`sparse`) only these are summed over the
   * ranks, measured and updated; the others stay zero.
   */
  bool sparse;
  uint64_t *seen;    /* (V bits) tokens of the window */
  uint32_t *touched; /* (n_touched) rows, ascending */
  size_t n_touched;
  unroll_real *
      rows; /* (n_touched, ld of the table) the touched rows beside each other, to be told; or NULL */

  /* scratch of the kernels */
  unroll_real *O, *output_scratch, *gradient_scratch;
  int32_t *y_panel;
  uint32_t *start, *list;
} network;

/** Are few of a large vocabulary's tokens in a global window of so many, so that rows of the input table are told apart? */
static inline bool network_is_sparse(const unroll_params *params, size_t window)
{
  return params->V > window;
}

/**
 * @param[in] params  borrowed until the network is freed
 *
 * @return UNROLL_OK, UNROLL_ERR_MEMORY, or UNROLL_ERR_ARG: (T + 1) B tokens exceed 32 bits, in which they are numbered
 */
unroll_status network_new(const unroll_params *params, unroll_activation activation,
                          const network_size *size, network **out);
void network_free(network **net);

void network_pack(network *net);

/** Set the carried state, slot 0 of every layer, to zero. */
void network_reset(network *net);

/** The first T <= net->T steps. */
void network_forward(network *net, size_t T);

/** Losses of the scored steps; with training also dO and dH, each token weighted by `scale`. */
void network_output(network *net, network_span span, double scale, bool only_loss);

/**
 * Note the tokens of the first T steps in `seen`, beside those noted before unless `first`: the first of
 * two steps, between which ranks may unite theirs.
 */
void network_see(network *net, size_t T, bool first);

/** The rows that `seen` names become the touched ones; those touched before become zero. */
void network_touch(network *net);

/** The touched rows of the gradient to net->rows, and rows [begin, end) of a sum of these into `g` (params->n). */
void network_rows_out(const network *net);
void network_rows_in(const network *net, const unroll_real *rows, size_t begin, size_t end,
                     unroll_real *g);

/* Words of `seen`. */
static inline size_t network_seen_words(const network *net)
{
  return (net->V + 63) / 64;
}

/*
 * What is told while the gradient grows: elements x (n) of it are complete, or all of `rows`, which stand for the input
 * table where there are any; with `sparse` the table itself is never told. A weight matrix is told in slices of at least
 * `slice` elements, up to SLICES_MAX, as soon as each is complete; 0: whole.
 */
#define SLICES_MAX 8
typedef struct network_ready {
  unroll_status (*call)(void *context, const unroll_real *x, size_t n);
  void *context;
  size_t slice;
  kernel_poll poll;
} network_ready;

/**
 * The gradient of a window, after network_output with training and network_touch. The input table comes before W_hh of
 * its layer: little work, and much to be told while the products that follow are computed.
 */
unroll_status network_backward(network *net, network_span span, const network_ready *ready);

/**
 * Add the gradient of a chunk to `apart`, after its network_output with training. Chunks come from the last
 * of their sequences, which sets everything to zero first, to the first.
 */
void network_backward_chunk(network *net, network_span span, bool last);

/** The gradient from `apart`. */
unroll_status network_combine(network *net, const network_ready *ready);

void network_carry(network *net, size_t T);

/** Copy the carried state out to (L, B, H) without padding, or in from it. */
void network_get_state(const network *net, unroll_real *state);
void network_get_slot(const network *net, size_t slot, unroll_real *state); /* of any slot */
void network_set_state(network *net, const unroll_real *state);

#endif
