#ifndef NET_NETWORK_H
#define NET_NETWORK_H

/*
 * The network of one rank with its workspace, embedding -> layers -> head, for windows of up to T steps of B sequences
 * in `shards` shards. Allocated once; a step allocates nothing.
 *
 *   network_pack       pack the weights: after every change of the parameters, and of the masks of W_hh
 *   x, y, dropout      filled by the caller; x and y time-major (T, B)
 *   network_forward    states of every layer, steps 1..T, from slot 0
 *   network_output     nll of every token; dO, dH of the top layer when training
 *   network_backward   the gradient, output layer first
 *   network_carry      the last state becomes slot 0 of the next window
 *
 * Where sequences are of unequal lengths, network_sort gives them places by these, and network_take_part leaves out the
 * ended ones: x, y and all arrays of the workspace then have the columns of the first places. States that are copied out
 * and in stay in the order of the sequences.
 *
 * A sequence longer than a chunk is propagated back chunk by chunk instead (segments.h):
 * network_output and network_backward_chunk for each, network_combine at the end.
 *
 * The state of the network is (states, L, B, H): h of all layers, then c of all layers where the cell has memory.
 */
#include "kernels/penalty.h"
#include "net/head.h"
#include "net/ragged.h"

typedef struct network {
  const unroll_params *params; /* borrowed */
  network_size size;
  int32_t *x, *y; /* (T, B); y below 0: no token, and the state there is zero */
  bool masked;    /* y is below 0 somewhere: sequences of unequal lengths */
  ragged ragged;  /* their places */
  bool sorted;    /* which the sequences have now */
  /* Of embeddings, of the output of every layer and of W_hh, whose p are 0 where size.dropout and size.drop_weights are
   * not set; all zeros in scoring. */
  dropout dropout;
  penalty penalty; /* of the top layer; zeros: none */

  embedding embedding;
  layer *layers; /* (L) */
  head head;

  unroll_real
      *from_below;       /* (T, B, layer_input_ld) W_xh times what is below; L > 1, or embeddings */
  unroll_real *dh[2];    /* (chunk, B, ld) dL/dh of the current layer, and of what is below */
  unroll_real *skipped;  /* (chunk, B, ld) dL/d(output) of the current layer; shape.skip only */
  unroll_real *change;   /* (B, ld) h_{t+1} - h_t of the top layer at the edge of a chunk */
  double scale;          /* of the last network_output */
  unroll_real *gradient; /* (params->n_gradient), layout of params */
  unroll_real *own_gradient; /* the same where this network allocated it, else NULL */
  gradient_sink sink;        /* gradient of a window */
  gradient_sink
      chunks; /* gradients per shard, accumulated over chunks; NULL gradient without size.per_shard */
} network;

/**
 * @param[in] params  borrowed until the network is freed
 *
 * @return UNROLL_OK, UNROLL_ERR_MEMORY, or UNROLL_ERR_ARG: (T + 1) B tokens exceed 32 bits, in which they are numbered
 */
unroll_status network_new(const unroll_params *params, const network_size *size, network **out);
void network_free(network **net);

/** xi: factor on the gradient from step t to t - 1; 1 except in randomized BPTT. Before network_pack. */
void network_set_xi(network *net, double xi);

void network_pack(network *net);

/** Set the carried state, slot 0 of every layer, to zero. */
void network_reset(network *net);

/** The states of the first T <= size.T steps. */
void network_forward(network *net, size_t T);

/** Give the sequences places by net->ragged.length. Returns the steps of the longest. */
uint64_t network_sort(network *net);

/** Only sequences of more steps than these take part, of which there is one; a carried state stays with its sequence. */
void network_take_part(network *net, uint64_t step);

/** x and y (T, B) of all sequences become those of the ones that take part. */
void network_gather(network *net, size_t T);

/** All take part, in their own order; the carried state is undefined. */
void network_unsort(network *net);

/** sums (all shards) [nats] += the losses of T scored steps. */
void network_add_losses(const network *net, size_t T, double *sums);

/** Losses of the scored steps; with training also dO and dH, each token weighted by `scale`. */
void network_output(network *net, network_span span, double scale, bool only_loss);

/**
 * The gradient of a window, after network_output with training and embedding_set_touched_rows. The input table is
 * computed before W_hh of its layer, so that its exchange overlaps the products that follow.
 */
unroll_status network_backward(network *net, network_span span, const network_ready *ready);

/** Set the gradients per shard to zero. */
void network_start_chunks(network *net);

/**
 * Add the gradient of a chunk to the gradients per shard, after its network_output with training. Chunks are processed
 * backwards in time, `last` first.
 */
void network_backward_chunk(network *net, network_span span, bool last);

/** The gradient, as the tree over the gradients per shard. */
unroll_status network_combine(network *net, const network_ready *ready);

/** Slot 0 becomes the state of slot T: the carried state of the next window. */
void network_carry(network *net, size_t T);

/** Elements of a state of this network, of all sequences; of B sequences of a network with these parameters. */
size_t network_state_size(const network *net);
size_t network_state_size_of(const unroll_params *params, size_t B);

/** Copy the carried state out to (states, L, B, H) without padding, or in from it: of those that take part. */
void network_get_state(const network *net, unroll_real *state);
void network_get_state_at(const network *net, size_t slot, unroll_real *state); /* of a slot */
void network_set_state(network *net, const unroll_real *state);

/** The top layer. */
static inline const layer *network_top(const network *net)
{
  return &net->layers[net->params->shape.L - 1];
}

#endif
