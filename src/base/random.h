#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

/*
 * Counter-based random numbers: a value is a hash of (seed, purpose, i, j),
 * never of what was drawn before, of the rank or of the thread. So any rank
 * can draw any number at any time, and a resumed run draws what the
 * uninterrupted one would have drawn.
 *
 * The mixer is the finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast
 * splittable pseudorandom number generators", figure 17), applied once per
 * word of the counter.
 */
#include <stdint.h>

/* What a number is drawn for: each purpose is a stream of its own. Values are part of the contract. */
typedef enum random_purpose {
  RANDOM_INIT = 1, /* initial parameters: i = tensor, j = element */
  RANDOM_OFFSET =
      2, /* start of the first window: i = epoch, j = global sequence, of a random partition, or 0 */
  RANDOM_ORDER =
      3, /* random partition, order of windows or lines: i = epoch and sequence, j = swap */
  RANDOM_SAMPLE = 4,    /* sampling text: i = sample, j = position */
  RANDOM_CUT = 5,       /* randomized BPTT: i = epoch, j = position of the step behind the cut */
  RANDOM_SYNTHETIC = 6, /* tokens of `unroll bench`: i = sequence, j = position */
  RANDOM_TANGENT = 7,   /* first vectors of `unroll gradflow`: i = position, j = hidden unit */
  RANDOM_DROPOUT = 8,   /* masks: i = update and layer, j = global sequence and step */
  RANDOM_WORD = 9,      /* masks of whole words: i = update, j = token */
  RANDOM_WEIGHT = 10,   /* masks of W_hh: i = update and layer, j = row */
  RANDOM_LENGTH = 11,   /* of a window: i = epoch, j = its first step and which of the draws */
} random_purpose;

#define RANDOM_GOLDEN UINT64_C(0x9e3779b97f4a7c15) /* 2^64 divided by the golden ratio */

static inline uint64_t random_mix(uint64_t z)
{
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/** 64 random bits of counter (i, j) in the stream of a purpose. */
static inline uint64_t random_bits(uint64_t seed, random_purpose purpose, uint64_t i, uint64_t j)
{
  uint64_t z = random_mix(seed + RANDOM_GOLDEN);
  z = random_mix((z ^ (uint64_t)purpose) + RANDOM_GOLDEN);
  z = random_mix((z ^ i) + RANDOM_GOLDEN);
  return random_mix((z ^ j) + RANDOM_GOLDEN);
}

/** Uniform in [0, 1) with 53 random bits. */
static inline double random_uniform(uint64_t seed, random_purpose purpose, uint64_t i, uint64_t j)
{
  return (double)(random_bits(seed, purpose, i, j) >> 11) * 0x1p-53;
}

/** Uniform integer in [0, n), n >= 1: the high word of a product, biased by less than n / 2^64. */
static inline uint64_t random_below(uint64_t seed, random_purpose purpose, uint64_t i, uint64_t j,
                                    uint64_t n)
{
  __extension__ typedef unsigned __int128 wide;
  return (uint64_t)(((wide)random_bits(seed, purpose, i, j) * n) >> 64);
}

/**
 * Element k of the permutation of [0, n) that `key` names, k < n.
 *
 * Source: Black and Rogaway 2002, "Ciphers with arbitrary finite domains", sections 4 and 5
 */
uint64_t random_permuted(uint64_t seed, random_purpose purpose, uint64_t key, uint64_t n,
                         uint64_t k);

#endif
