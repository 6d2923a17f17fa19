#ifndef KERNELS_BLOCKS_H
#define KERNELS_BLOCKS_H

/*
 * How much of an operand the loops of the products take at a time. Speed depends on it, and no bit: a block never
 * cuts or reorders a sum.
 */
#include "base/cpu.h"

/* [elements] */
typedef struct block_sizes {
  size_t
      panel; /* a panel over which tile after tile passes: first-level cache, or what of it streams from the second */
  size_t
      block; /* what stays while panels stream past: rows of A, rows of W; and a copy of the stream beside it: a
                   quarter of the second-level cache */
  size_t
      whole; /* what every step, panel or tile reads again: W_hh of a thread, packed rows of dZ, the token panels of a
                   chunk: half of it */
} block_sizes;

/* n / d, rounded up. */
static inline size_t ceil_div(size_t n, size_t d)
{
  return (n + d - 1) / d;
}

/** Block sizes for such caches; more than 4 MiB of second-level cache count as 4. */
block_sizes blocks_of(const cpu_cache_sizes *caches);

#endif
