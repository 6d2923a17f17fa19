#ifndef NET_RAGGED_H
#define NET_RAGGED_H

/*
 * Sequences of unequal lengths. A batch has the steps of its longest one; a shard whose sequences have all ended takes
 * no part in the steps that are left, so that one long line among short ones costs little more than its own steps.
 *
 *   shard            0   1   2   3        place    0   1   2   3
 *   steps            3   9   0   5        shard    1   3   0   2        the longest first
 *                                         step 0   x   x   x
 *                                         step 4   x   x
 *                                         step 8   x
 *
 * Those that take part have the first places, and the network works as if it had only so many sequences. What the others
 * would add are zeros: their state is zero (layer_apply_mask), and so are their losses and gradients. So no bit depends
 * on it.
 */
#include <stddef.h>
#include <stdint.h>
#include <unroll/status.h>

typedef struct ragged_place {
  uint64_t steps; /* of the longest sequence of the shard */
  uint32_t shard;
} ragged_place;

typedef struct ragged {
  size_t B, shards;    /* of this rank, all of them */
  uint64_t *length;    /* (B) [steps] of each sequence: filled by the caller */
  ragged_place *place; /* (shards) */
  uint32_t *place_of;  /* (shards) place of each shard */
  uint32_t *row;       /* (B) sequence, place by place */
  int32_t *gathered;   /* (B) scratch */
} ragged;

/** Frees nothing on error: ragged_destroy is safe then. */
unroll_status ragged_init(size_t B, size_t shards, ragged *r);
void ragged_destroy(ragged *r);

/** Give the shards their places, by `length`. Returns the steps of the longest. */
uint64_t ragged_sort(ragged *r);

/** How many shards have a sequence of more steps than these. */
size_t ragged_active(const ragged *r, uint64_t step);

/** x (T, B), in place, to (T, n): the columns of the first n / (B / shards) places. */
void ragged_gather(const ragged *r, size_t T, size_t n, int32_t *x);

#endif
