/*
 * Dropout: what a mask is a function of, and how often it drops. That its gradient is the derivative: test_bptt.c.
 */
#include "support.h"

#include "base/random.h"
#include "kernels/dispatch.h"
#include "kernels/dropout.h"

#include <math.h>
#include <string.h>

enum { T = 7, B = 6, N = 53, LD = 64, ELEMENTS = T * B * LD };

static unroll_real h[ELEMENTS]; /* not zero, but in the padding */

static void fill(void)
{
  CHECK_OK(kernels_start());
  memset(h, 0, sizeof h);
  for (size_t i = 0; i < ELEMENTS; ++i) {
    if (i % LD < N) { h[i] = (unroll_real)(0.25 + random_uniform(1, RANDOM_SYNTHETIC, i, 0)); }
  }
}

static dropout of(double p, bool per_step)
{
  return (dropout){.p = p, .per_step = per_step, .seed = 9, .update = 3, .first = 5, .step = 11};
}

/* Rows [t, t + rows) of sequences [b, b + columns), which lie as they do in the whole. */
static void drop(const dropout *how, size_t layer, size_t rows, size_t columns,
                 const unroll_real *from, unroll_real *to)
{
  const dropout_rows r = {how, layer, how->p, rows, columns, N, LD, from, to};
  dropout_run(&r);
}

/* Is a unit dropped? From the definition, a unit at a time. */
static bool is_dropped(const dropout *how, size_t layer, size_t t, size_t b, size_t unit)
{
  const uint64_t row =
      random_bits(how->seed, RANDOM_DROPOUT, how->update * 256 + layer,
                  ((uint64_t)(how->first + b) << 40) + (how->per_step ? how->step + t : 0));
  const uint64_t word = random_mix(row + (unit / 4 + 1) * UINT64_C(0x9e3779b97f4a7c15));
  return (double)(word >> (unit % 4 * 16) & 0xffff) < floor(how->p * 65536.0 + 0.5);
}

static void test_a_unit_is_dropped_by_the_definition_or_scaled(void)
{
  static unroll_real out[ELEMENTS];
  const double p[] = {0.1, 0.5, 0.65, 0.95};
  fill();
  for (size_t k = 0; k < 8; ++k) {
    const dropout how = of(p[k / 2], k % 2 == 0);
    const double kept = 1.0 - floor(how.p * 65536.0 + 0.5) / 65536.0;
    size_t wrong = 0;
    drop(&how, 2, T, B, h, out);
    for (size_t i = 0; i < ELEMENTS; ++i) {
      const size_t unit = i % LD, b = i / LD % B, t = i / LD / B;
      const bool dropped = unit >= N || is_dropped(&how, 2, t, b, unit);
      wrong += out[i] != (dropped ? 0 : h[i] * (unroll_real)(1.0 / kept));
    }
    CU_ASSERT_EQUAL(wrong, 0);
  }
}

/* Five standard deviations of a binomial count. */
static void test_the_share_dropped_is_p(void)
{
  static unroll_real out[ELEMENTS];
  const double p[] = {0.05, 0.2, 0.5, 0.9};
  fill();
  for (size_t k = 0; k < sizeof p / sizeof p[0]; ++k) {
    dropout how = of(p[k], true);
    double n = 0.0, dropped = 0.0;
    for (how.update = 1; how.update <= 20; ++how.update) {
      drop(&how, 0, T, B, h, out);
      for (size_t i = 0; i < ELEMENTS; ++i) {
        n += i % LD < N;
        dropped += i % LD < N && out[i] == 0;
      }
    }
    CU_ASSERT(fabs(dropped - n * p[k]) < 5.0 * sqrt(n * p[k] * (1.0 - p[k])));
  }
}

/* Whoever has a sequence, and wherever its states begin. */
static void test_parts_have_the_bits_of_the_whole(void)
{
  static unroll_real whole[ELEMENTS], part[ELEMENTS];
  fill();
  for (int per_step = 0; per_step < 2; ++per_step) {
    const dropout how = of(0.4, per_step);
    drop(&how, 1, T, B, h, whole);
    memcpy(part, h, sizeof part);
    for (size_t t = 0; t < T; ++t) {
      for (size_t b = 0; b < B; b += 2) { /* two sequences, one step, in place */
        dropout at = how;
        at.step += t;
        at.first += b;
        drop(&at, 1, 1, 2, part + (t * B + b) * LD, part + (t * B + b) * LD);
      }
    }
    CU_ASSERT(memcmp(whole, part, sizeof whole) == 0);
  }
}

/* Units with the same fate in both: half of them, if nothing binds one mask to the other. */
static double share_alike(const unroll_real *a, const unroll_real *b)
{
  double n = 0.0, alike = 0.0;
  for (size_t i = 0; i < ELEMENTS; ++i) {
    n += i % LD < N;
    alike += i % LD < N && (a[i] == 0) == (b[i] == 0);
  }
  return alike / n;
}

static void test_masks_of_others_are_others(void)
{
  static unroll_real a[ELEMENTS], b[ELEMENTS];
  const dropout how = of(0.5, true);
  const double near = 5.0 * 0.5 / sqrt(T * B * N);
  dropout other = how;
  fill();
  drop(&how, 0, T, B, h, a);
  drop(&how, 1, T, B, h, b);
  CU_ASSERT_DOUBLE_EQUAL(share_alike(a, b), 0.5, near); /* layer */
  other.update += 1;
  drop(&other, 0, T, B, h, b);
  CU_ASSERT_DOUBLE_EQUAL(share_alike(a, b), 0.5, near);
  other = how;
  other.seed += 1;
  drop(&other, 0, T, B, h, b);
  CU_ASSERT_DOUBLE_EQUAL(share_alike(a, b), 0.5, near);
  other = how;
  other.first += B;
  drop(&other, 0, T, B, h, b);
  CU_ASSERT_DOUBLE_EQUAL(share_alike(a, b), 0.5, near);
  other = how;
  other.step += T;
  drop(&other, 0, T, B, h, b);
  CU_ASSERT_DOUBLE_EQUAL(share_alike(a, b), 0.5, near);
  other.per_step = false;
  drop(&other, 0, T, B, h, b);
  for (size_t t = 1; t < T; ++t) { /* the same for all steps */
    size_t unlike = 0;
    for (size_t i = 0; i < B * LD; ++i) { unlike += (b[i] == 0) != (b[t * B * LD + i] == 0); }
    CU_ASSERT_EQUAL(unlike, 0);
  }
}

/* A word is dropped everywhere or nowhere, in another update another one, and elsewhere scaled; about p of them are. */
static void test_words_are_dropped_by_the_definition(void)
{
  static unroll_real out[ELEMENTS];
  static int32_t x[T * B];
  const dropout how = {.p_words = 0.3, .seed = 9, .update = 3, .first = 5, .step = 11};
  const double cut = floor(0.3 * 65536.0 + 0.5);
  double dropped = 0.0;
  size_t wrong = 0;
  fill();
  memcpy(out, h, sizeof out);
  for (size_t i = 0; i < T * B; ++i) { x[i] = (int32_t)(i * i % 13); }
  dropout_words(&how, T * B, x, LD, out);
  for (size_t i = 0; i < ELEMENTS; ++i) {
    const uint64_t word = random_bits(9, RANDOM_WORD, 3, (uint64_t)x[i / LD]) & 0xffff;
    const unroll_real scale = (unroll_real)(65536.0 / (65536.0 - cut));
    wrong += out[i] != ((double)word < cut ? 0 : h[i] * scale);
  }
  CU_ASSERT_EQUAL(wrong, 0);
  for (int32_t token = 0; token < 10000; ++token) {
    unroll_real row[16] = {1};
    dropout_words(&how, 1, &token, 16, row);
    dropped += row[0] == 0;
  }
  CU_ASSERT(fabs(dropped - 3000) < 5 * sqrt(10000 * 0.3 * 0.7));
}

/* Blocks of rows with padding between them: a weight by its row of the file, whoever has which rows. */
static void test_weights_are_dropped_by_the_definition(void)
{
  enum { H = 21, BLOCK = 32, ROW = 32, BLOCKS = 3 };
  static unroll_real W[BLOCKS * BLOCK * ROW], out[BLOCKS * BLOCK * ROW];
  const dropout how = {.p_weights = 0.4, .seed = 9, .update = 3};
  const double cut = floor(0.4 * 65536.0 + 0.5);
  const unroll_real scale = (unroll_real)(65536.0 / (65536.0 - cut));
  size_t wrong = 0, dropped = 0;
  fill();
  for (size_t i = 0; i < sizeof W / sizeof *W; ++i) {
    const bool is_weight = i % ROW < H && i / ROW % BLOCK < H;
    W[i] = is_weight ? (unroll_real)(0.5 + random_uniform(2, RANDOM_SYNTHETIC, i, 0)) : 0;
  }
  memcpy(out, W, sizeof out);
  for (size_t begin = 0; begin < BLOCKS * BLOCK; begin += 12) {
    dropout_weights(&(dropout_matrix){&how, 2, BLOCKS, H, ROW, begin, begin + 12, out, out});
  }
  for (size_t i = 0; i < sizeof W / sizeof *W; ++i) {
    const size_t row = i / ROW / BLOCK * H + i / ROW % BLOCK, col = i % ROW;
    const uint64_t from = random_bits(9, RANDOM_WEIGHT, 3 * 256 + 2, row);
    const uint64_t word = random_mix(from + (col / 4 + 1) * UINT64_C(0x9e3779b97f4a7c15));
    const bool drops = (double)(word >> (col % 4 * 16) & 0xffff) < cut;
    wrong += out[i] != (drops ? 0 : W[i] * scale);
    dropped += W[i] != 0 && out[i] == 0;
  }
  CU_ASSERT_EQUAL(wrong, 0);
  CU_ASSERT(fabs((double)dropped - 0.4 * BLOCKS * H * H) < 5 * sqrt(0.4 * 0.6 * BLOCKS * H * H));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"the definition", test_a_unit_is_dropped_by_the_definition_or_scaled},
      {"how often", test_the_share_dropped_is_p},
      {"parts and whole: the same bits", test_parts_have_the_bits_of_the_whole},
      {"weights", test_weights_are_dropped_by_the_definition},
      {"whole words", test_words_are_dropped_by_the_definition},
      {"masks of others are others", test_masks_of_others_are_others},
  };
  return run_cases("dropout", sizeof cases / sizeof cases[0], cases);
}
