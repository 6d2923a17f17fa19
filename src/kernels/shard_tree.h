#ifndef KERNELS_SHARD_TREE_H
#define KERNELS_SHARD_TREE_H

/*
 * The balanced binary tree over S shards (design.md section 5).
 *
 * S = group * 2^q with `group` odd. The leaves of the tree are sums of `group` neighbouring
 * shards, added in order; above them q levels add neighbours in pairs. A rank
 * that owns S/P shards, P a power of two that divides S, computes a whole
 * subtree, and the exchange between ranks is the rest of the same tree:
 *
 *   S = 8, P = 2      s0 s1 s2 s3   s4 s5 s6 s7
 *                      \ /   \ /     \ /   \ /
 *                       +     +       +     +      rank-local
 *                        \   /         \   /
 *                          +             +
 *                            \         /
 *                                 +                between ranks
 */
#include <stddef.h>

/* Neighbouring shards that are added in sequence: the odd part of S. */
static inline size_t shard_tree_group(size_t S)
{
  while (S % 2 == 0 && S > 0) { S /= 2; }
  return S;
}

/* Most levels that a tree can have: S is below 2^32. */
#define SHARD_TREE_LEVELS 32

/* Sum of x (shards) by the tree; destroys x. */
static inline double shard_tree_sum(size_t shards, size_t group, double *x)
{
  size_t units = shards / group;
  for (size_t u = 0; u < units; ++u) {
    double s = x[u * group];
    for (size_t i = 1; i < group; ++i) { s += x[u * group + i]; }
    x[u] = s;
  }
  for (; units > 1; units /= 2) {
    for (size_t u = 0; u < units / 2; ++u) { x[u] = x[2 * u] + x[2 * u + 1]; }
  }
  return x[0];
}

#endif
