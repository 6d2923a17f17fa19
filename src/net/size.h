#ifndef NET_SIZE_H
#define NET_SIZE_H

/* The sizes that embedding, layers and head of a network share. */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/real.h>

typedef struct network_size {
  size_t T;      /* steps whose states are stored */
  size_t chunk;  /* steps that output layer and backward pass process at a time, at most */
  size_t B;      /* sequences of this rank, >= 1; of a batch of unequal ones those not ended */
  size_t shards; /* of this rank; divides B; the same */
  size_t group;  /* odd part of the number of all shards: shard_tree.h */
  size_t
      window; /* tokens of the longest sequences over all ranks; 0: no memory for the backward pass */
  bool dropout;      /* layers may have dropout: memory for what they pass upwards */
  bool drop_weights; /* W_hh may have dropout: memory for a copy */
  bool keep_gates;   /* save the gates although there is no backward pass (lags.c) */
  bool per_shard;    /* for sequences longer than a chunk: accumulate a gradient for each shard */
  unroll_real *
      gradient; /* borrowed, (params->n_gradient) zeros: memory for the gradient; NULL: allocated */
  unroll_real *rows; /* borrowed, (window, ld of the input table), or NULL: embedding.h */
} network_size;

/* Is there a backward pass? */
static inline bool size_has_backward(const network_size *size)
{
  return size->window > 0;
}

/* Only the first shards take part from now on: 1 or more, at most as many as memory was allocated for. */
static inline void size_set_shards(network_size *size, size_t shards)
{
  size->B = size->B / size->shards * shards;
  size->shards = shards;
}

/* Steps of the stored states that are processed together; only those from `scored` on have losses. */
typedef struct network_span {
  size_t begin, scored, end; /* begin <= scored < end <= begin + chunk */
} network_span;

#endif
