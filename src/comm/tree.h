#ifndef COMM_TREE_H
#define COMM_TREE_H

/*
 * The order in which the terms of P ranks are added: the upper levels of the balanced tree over shards (design.md
 * section 5). With P no power of two, the terms above the largest power of two are first folded onto the lowest:
 *
 *   P = 4   (0 + 1) + (2 + 3)           P = 6   ((0 + 4) + (1 + 5)) + (2 + 3)
 *
 * The bits depend neither on which rank adds the terms nor on how they were sent.
 */
#include <stddef.h>
#include <unroll/real.h>

/** Largest power of two that is at most P, P >= 1. */
static inline int tree_floor_pow2(int P)
{
  int pow2 = 1;
  while (pow2 <= P / 2) { pow2 *= 2; }
  return pow2;
}

/* Largest number of terms; a power of two. */
#define TREE_TERMS_MAX 2048

/** out[i] = the sum over k < P of terms[k][i], i < n. `out` may be one of the terms. Threads: safe. */
void tree_sum(int P, const unroll_real *const *terms, size_t n, unroll_real *out);

#endif
