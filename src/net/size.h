#ifndef NET_SIZE_H
#define NET_SIZE_H

/* How much of a batch a network works on at a time: what all its parts have in common. */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/real.h>

typedef struct network_size {
  size_t T;      /* steps of which the states are kept */
  size_t chunk;  /* steps at most that output layer and backward pass work on together */
  size_t B;      /* sequences of this rank, >= 1 */
  size_t shards; /* of this rank; divides B */
  size_t group;  /* odd part of the number of all shards: shard_tree.h */
  size_t
      window; /* tokens of the longest sequences over all ranks; 0: no memory for the backward pass */
  bool keep_gates; /* what the cells keep, although there is no backward pass */
  bool per_shard;  /* sequences longer than a chunk come: keep a gradient for each shard */
  unroll_real
      *gradient; /* borrowed, (params->n) zeros: where the gradient goes; NULL: memory of its own */
  unroll_real *rows; /* borrowed, (window, ld of the input table), or NULL: embedding.h */
} network_size;

/* Is there a backward pass? */
static inline bool size_has_backward(const network_size *size)
{
  return size->window > 0;
}

/* Steps of the states at hand, worked on together; only those from `scored` on have losses. */
typedef struct network_span {
  size_t begin, scored, end; /* begin <= scored < end <= begin + chunk */
} network_span;

#endif
