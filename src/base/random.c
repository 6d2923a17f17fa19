#include "base/random.h"

#include <assert.h>

/* Four rounds make a Feistel network over a random function random enough for any statistic of the order, and
 * each costs one hash. */
#define ROUNDS 4

/*
 * A Feistel network permutes the numbers of 2h bits, (left, right) of h each:
 *
 *   left, right <- right, left ^ hash(round, right)
 *
 * A number outside [0, n) is sent through again until it falls inside (cycle
 * walking), which keeps it a permutation; 4^h <= 4 n, so about four passes at
 * the most are expected. Nothing is stored and any k can be asked for.
 */
uint64_t random_permuted(uint64_t seed, random_purpose purpose, uint64_t key, uint64_t n,
                         uint64_t k)
{
  unsigned h = 1;
  while (h < 32 && (UINT64_C(1) << (2 * h)) < n) { ++h; }
  const uint64_t mask = (UINT64_C(1) << h) - 1;
  assert(k < n);

  do {
    uint64_t left = k >> h;
    uint64_t right = k & mask;
    for (uint64_t round = 0; round < ROUNDS; ++round) {
      uint64_t mixed = left ^ (random_bits(seed, purpose, key, round << 32 | right) & mask);
      left = right;
      right = mixed;
    }
    k = left << h | right;
  } while (k >= n);
  return k;
}
