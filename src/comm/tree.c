#include "comm/tree.h"

#include <assert.h>

/* [reals] of each term that are added up at a time: all sums on the way stay in the first-level cache. */
#define BLOCK ((size_t)1024)

/* Sums on the way at once: one for each level of the tree. */
#define DEPTH 12
_Static_assert(1 << (DEPTH - 1) >= TREE_TERMS_MAX, "the tree of the most terms");

/*
 * Elements [at, at + n) of the sum of the terms [first, first + count) of P, count a power of two, and those folded
 * onto them. Where it lies: in `sums`, or in a term that is alone.
 */
static const unroll_real *sum_of(int P, const unroll_real *const *terms, int first, int count,
                                 size_t at, size_t n, unroll_real (*sums)[BLOCK])
{
  const unroll_real *a = NULL, *b = NULL;
  if (count == 1) {
    int folded = first + tree_floor_pow2(P);
    a = terms[first] + at;
    if (folded >= P) { return a; }
    b = terms[folded] + at;
  } else {
    a = sum_of(P, terms, first, count / 2, at, n, sums);
    b = sum_of(P, terms, first + count / 2, count / 2, at, n, sums + 1);
  }
  for (size_t i = 0; i < n; ++i) { (*sums)[i] = a[i] + b[i]; }
  return *sums;
}

void tree_sum(int P, const unroll_real *const *terms, size_t n, unroll_real *out)
{
  assert(P >= 1 && P <= TREE_TERMS_MAX);
  for (size_t at = 0; at < n; at += BLOCK) {
    unroll_real sums[DEPTH][BLOCK];
    size_t here = n - at < BLOCK ? n - at : BLOCK;
    const unroll_real *sum = sum_of(P, terms, 0, tree_floor_pow2(P), at, here, sums);
    for (size_t i = 0; i < here; ++i) { out[at + i] = sum[i]; }
  }
}
