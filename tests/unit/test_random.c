#include "support.h"

#include "base/random.h"
#include <math.h>
#include <stdint.h>

#define DRAWS 100000

static int ones(uint64_t bits)
{
  int n = 0;
  for (; bits != 0; bits &= bits - 1) { n += 1; }
  return n;
}

/* The generator of the cited paper with seed 1234567: states are multiples of the golden gamma. */
static void test_mix_equals_the_published_splitmix64(void)
{
  const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
  CU_ASSERT(random_mix(1234567 + golden) == UINT64_C(6457827717110365317));
  CU_ASSERT(random_mix(1234567 + 2 * golden) == UINT64_C(3203168211198807973));
}

/* Runs are resumed and compared across versions: the numbers must never change. */
static void test_bits_are_those_of_the_contract(void)
{
  CU_ASSERT(random_bits(1, RANDOM_INIT, 2, 3) == UINT64_C(0x6b360221edd5a20a));
  CU_ASSERT(random_bits(UINT64_MAX, RANDOM_SYNTHETIC, 0, UINT64_MAX) ==
            UINT64_C(0x78c3636c00e4c055));
}

static void test_bits_do_not_depend_on_what_was_drawn_before(void)
{
  const uint64_t once = random_bits(5, RANDOM_SAMPLE, 1, 2);
  for (uint64_t k = 0; k < 10; ++k) { (void)random_bits(5, RANDOM_SAMPLE, 1, k); }
  CU_ASSERT(random_bits(5, RANDOM_SAMPLE, 1, 2) == once);
}

/* One changed bit in any input flips half of the 64 bits on average. */
static void test_bits_change_with_every_input(void)
{
  double flips[4] = {0};
  const int trials = 64 * 64;
  for (int b = 0; b < 64; ++b) {
    for (uint64_t k = 0; k < 64; ++k) {
      const uint64_t one = UINT64_C(1) << b;
      const uint64_t base = random_bits(k, RANDOM_CUT, k * k, 3 * k);
      flips[0] += ones(base ^ random_bits(k ^ one, RANDOM_CUT, k * k, 3 * k));
      flips[1] += ones(base ^ random_bits(k, RANDOM_CUT, (k * k) ^ one, 3 * k));
      flips[2] += ones(base ^ random_bits(k, RANDOM_CUT, k * k, (3 * k) ^ one));
      flips[3] += ones(base ^ random_bits(k, b % 2 ? RANDOM_INIT : RANDOM_SAMPLE, k * k, 3 * k));
    }
  }
  /* The standard deviation of such a mean is 4 / sqrt(4096) = 0.06. */
  for (int i = 0; i < 4; ++i) { CU_ASSERT_DOUBLE_EQUAL(flips[i] / trials, 32.0, 0.4); }
}

/* The counters are no sum or exclusive or of each other: (i, j) and (j, i) differ. */
static void test_bits_differ_by_counter(void)
{
  int equal = 0;
  for (uint64_t k = 0; k < 1000; ++k) {
    equal += random_bits(1, RANDOM_ORDER, k, k + 1) == random_bits(1, RANDOM_ORDER, k + 1, k);
    equal += random_bits(k, RANDOM_ORDER, k + 1, 0) == random_bits(k + 1, RANDOM_ORDER, k, 0);
    equal += random_bits(1, RANDOM_ORDER, k, 0) == random_bits(1, RANDOM_ORDER, k + 1, 0);
  }
  CU_ASSERT_EQUAL(equal, 0);
}

static void test_uniform_has_the_moments_of_its_distribution(void)
{
  double sum = 0;
  double squares = 0;
  double neighbours = 0;
  int inside = 1;
  double last = 0.5;
  for (uint64_t j = 0; j < DRAWS; ++j) {
    const double u = random_uniform(3, RANDOM_OFFSET, 0, j);
    inside &= u >= 0 && u < 1;
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
    neighbours += (u - 0.5) * (last - 0.5);
    last = u;
  }
  CU_ASSERT(inside);
  CU_ASSERT_DOUBLE_EQUAL(sum / DRAWS, 0.5, 0.005); /* 5 standard deviations */
  CU_ASSERT_DOUBLE_EQUAL(squares / DRAWS, 1.0 / 12, 0.0012);
  CU_ASSERT_DOUBLE_EQUAL(neighbours / DRAWS, 0.0, 0.0014);
}

static void test_below_is_uniform_over_its_range(void)
{
  int count[7] = {0};
  for (uint64_t j = 0; j < DRAWS; ++j) {
    const uint64_t k = random_below(3, RANDOM_ORDER, 1, j, 7);
    if (k < 7) { count[k] += 1; }
  }
  double chi = 0;
  for (int k = 0; k < 7; ++k) { chi += pow(count[k] - DRAWS / 7.0, 2) / (DRAWS / 7.0); }
  CU_ASSERT(chi < 30); /* 6 degrees of freedom: beyond 30 with probability 4e-5 */
}

static void test_below_at_the_ends_of_n_stays_inside(void)
{
  for (uint64_t j = 0; j < 1000; ++j) {
    CU_ASSERT(random_below(3, RANDOM_ORDER, 2, j, 1) == 0);
    CU_ASSERT(random_below(3, RANDOM_ORDER, 2, j, UINT64_MAX) < UINT64_MAX);
  }
}

int main(void)
{
  static const struct test_case cases[] = {
      {"mix: the published numbers", test_mix_equals_the_published_splitmix64},
      {"bits: the contract's numbers", test_bits_are_those_of_the_contract},
      {"bits: no memory", test_bits_do_not_depend_on_what_was_drawn_before},
      {"bits: every input counts", test_bits_change_with_every_input},
      {"bits: counters differ", test_bits_differ_by_counter},
      {"uniform: moments", test_uniform_has_the_moments_of_its_distribution},
      {"below: uniform", test_below_is_uniform_over_its_range},
      {"below: ends", test_below_at_the_ends_of_n_stays_inside},
  };
  return run_cases("random", sizeof cases / sizeof cases[0], cases);
}
