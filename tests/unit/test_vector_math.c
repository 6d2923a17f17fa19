#include "kernel_support.h"

/*
 * exp and tanh of every path against the C library in double, on a sample of
 * the floats; with the argument `all` on every float (ctest label slow).
 */

/* The claims of src/kernels/isa/math.h [ulp of the exact result]. */
#define EXP_ULP  1.1
#define TANH_ULP 2.7

#define EXP_LEAST (-87.3f)
#define EXP_MOST  88.3f
#define TANH_ONE  9.1f     /* 1 - tanh is less than half a unit below 1 from here on */
#define EXP_TWICE (-65.0f) /* from here on where a multiply-add rounds twice */

static uint32_t stride = 2003; /* a prime: all low bits occur */

typedef void vector_function(size_t n, const unroll_real *x, unroll_real *y);

static unroll_real from_bits(uint32_t bits)
{
  unroll_real x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static uint32_t to_bits(unroll_real x)
{
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static unroll_real one(vector_function *f, unroll_real x)
{
  unroll_real in[KERNELS_PAD], out[KERNELS_PAD];
  for (size_t i = 0; i < KERNELS_PAD; ++i) { in[i] = x; }
  f(KERNELS_PAD, in, out);
  for (size_t i = 1; i < KERNELS_PAD; ++i) { CU_ASSERT(same_bits(out[0], out[i])); }
  return out[0];
}

/* Distance of y from the exact value, in units of the last place of a float there. */
static double ulps(unroll_real y, double exact)
{
  int exponent;
  (void)frexp(exact, &exponent); /* exact = m 2^exponent, 1/2 <= m < 1 */
  return fabs((double)y - exact) / ldexp(1.0, exponent - FLT_MANT_DIG);
}

/* Largest error of f over every stride-th float of [from, to] by magnitude, of one sign. */
static double worst(vector_function *f, double exact(double), float from, float to, uint32_t sign,
                    float *where)
{
  enum { BLOCK = 4096 };
  uint32_t low = to_bits(from), high = to_bits(to);
  uint64_t points = (high - low) / stride + 1, blocks = (points + BLOCK - 1) / BLOCK;
  double most = 0.0;
  omp_set_num_threads(2);
#pragma omp parallel for default(none) schedule(static)                                            \
    shared(f, exact, low, high, points, blocks, sign, stride, most, where)
  for (uint64_t b = 0; b < blocks; ++b) {
    unroll_real x[BLOCK], y[BLOCK];
    for (uint64_t i = 0; i < BLOCK; ++i) {
      uint64_t point = b * BLOCK + i < points ? b * BLOCK + i : points - 1;
      x[i] = from_bits((low + (uint32_t)point * stride) | sign);
    }
    f(BLOCK, x, y);
    for (int i = 0; i < BLOCK; ++i) {
      double error = ulps(y[i], exact((double)x[i]));
      if (!(error <= most)) {
#pragma omp critical
        if (!(error <= most)) {
          most = error;
          *where = x[i];
        }
      }
    }
  }
  return most;
}

/* Both signs from the least normal number to `low` and `high`; smaller numbers count as zero. */
static void check_error(const char *name, vector_function *f, double exact(double), float low,
                        float high, double claim)
{
  float where[2] = {0};
  double negative = worst(f, exact, FLT_MIN, -low, UINT32_C(1) << 31, &where[0]);
  double positive = worst(f, exact, FLT_MIN, high, 0, &where[1]);
  printf("%s: %.4f ulp at %a, %.4f ulp at %a, ", name, negative, (double)where[0], positive,
         (double)where[1]);
  CU_ASSERT(negative <= claim && positive <= claim);
}

static void test_exp_error_is_as_claimed(void)
{
  check_error("exp", kernels()->exp, exp, path_fuses() ? EXP_LEAST : EXP_TWICE, EXP_MOST, EXP_ULP);
}

/* Where rounding twice lets a part of the sum underflow, the absolute error is still nothing. */
static void test_exp_far_below_zero_errs_by_less_than_a_normal_number(void)
{
  for (uint32_t bits = to_bits(-EXP_TWICE); bits <= to_bits(-EXP_LEAST); bits += 101) {
    unroll_real x = -from_bits(bits);
    double exact = exp((double)x), claim = EXP_ULP * exact * (double)FLT_EPSILON;
    CU_ASSERT(fabs((double)one(kernels()->exp, x) - exact) <= claim + (double)FLT_MIN);
  }
}

static void test_tanh_error_is_as_claimed(void)
{
  check_error("tanh", kernels()->tanh, tanh, -TANH_ONE, TANH_ONE, TANH_ULP);
}

static void test_exp_of_zero_and_denormals_is_one(void)
{
  const uint32_t tiny[] = {0, 1, 0x7fffff, 0x400000};
  for (size_t i = 0; i < COUNT(tiny); ++i) {
    CU_ASSERT(one(kernels()->exp, from_bits(tiny[i])) == 1);
    CU_ASSERT(one(kernels()->exp, from_bits(tiny[i] | UINT32_C(1) << 31)) == 1);
  }
}

/* Softmax needs no more: far below the maximum exp is next to nothing, and nothing overflows. */
static void test_exp_outside_its_range_stays_at_its_ends(void)
{
  const unroll_real below[] = {-87.31f, -100, -1e4f, -FLT_MAX, -INFINITY};
  const unroll_real above[] = {88.38f, 100, 1e4f, FLT_MAX, INFINITY};
  unroll_real least = one(kernels()->exp, EXP_LEAST), most = one(kernels()->exp, 88.37f);
  CU_ASSERT(least >= FLT_MIN && least < 2 * FLT_MIN);
  CU_ASSERT(most > FLT_MAX / 2 && most <= FLT_MAX);
  for (size_t i = 0; i < COUNT(below); ++i) {
    CU_ASSERT(same_bits(one(kernels()->exp, below[i]), least));
    CU_ASSERT(same_bits(one(kernels()->exp, above[i]), most));
  }
}

static void test_tanh_is_odd_and_keeps_the_sign_of_zero(void)
{
  const uint32_t tiny[] = {0, 1, 0x7fffff, 0x400000};
  for (size_t i = 0; i < COUNT(tiny); ++i) { /* denormals are zero: kernels_start */
    CU_ASSERT(to_bits(one(kernels()->tanh, from_bits(tiny[i]))) == 0);
    CU_ASSERT(to_bits(one(kernels()->tanh, from_bits(tiny[i] | UINT32_C(1) << 31))) == UINT32_C(1)
                                                                                           << 31);
  }
  for (int i = 0; i < 1000; ++i) {
    unroll_real x = 12 * next_real();
    CU_ASSERT(same_bits(one(kernels()->tanh, -x), -one(kernels()->tanh, x)));
  }
}

/* Never beyond 1, and once there it stays. */
static void test_tanh_saturates_at_one(void)
{
  const uint32_t last = to_bits(INFINITY);
  int inside = 1, stays = 1;
  for (uint32_t bits = to_bits(0.5f); bits < last; bits += stride < 2003 ? 97 : stride) {
    unroll_real x[KERNELS_PAD], y[KERNELS_PAD];
    for (uint32_t i = 0; i < KERNELS_PAD; ++i) {
      x[i] = from_bits(bits + i < last ? bits + i : last);
    }
    kernels()->tanh(KERNELS_PAD, x, y);
    for (int i = 0; i < KERNELS_PAD; ++i) {
      inside &= y[i] <= 1;
      stays &= x[i] < TANH_ONE || y[i] == 1;
    }
  }
  CU_ASSERT(inside);
  CU_ASSERT(stays);
  CU_ASSERT(one(kernels()->tanh, INFINITY) == 1);
  CU_ASSERT(one(kernels()->tanh, -INFINITY) == -1);
}

static void test_nan_stays_nan_in_its_lane(void)
{
  const uint32_t nans[] = {0x7fc00000, 0xffc00000, 0x7f800001, 0x7fffffff, 0xffffffff};
  vector_function *const f[] = {kernels()->exp, kernels()->tanh};
  for (size_t i = 0; i < COUNT(nans); ++i) {
    for (size_t j = 0; j < COUNT(f); ++j) {
      for (size_t lane = 0; lane < KERNELS_PAD; ++lane) {
        unroll_real x[KERNELS_PAD] = {0}, y[KERNELS_PAD];
        x[lane] = from_bits(nans[i]);
        f[j](KERNELS_PAD, x, y);
        for (size_t k = 0; k < KERNELS_PAD; ++k) { CU_ASSERT(!!isnan(y[k]) == (k == lane)); }
      }
    }
  }
}

static void test_functions_write_n_elements(void)
{
  vector_function *const f[] = {kernels()->exp, kernels()->tanh};
  for (size_t n = KERNELS_PAD; n <= (size_t)5 * KERNELS_PAD; n += KERNELS_PAD) {
    matrix x = flat_new(n), y = flat_new(n);
    matrix_fill(&x);
    for (size_t j = 0; j < COUNT(f); ++j) {
      f[j](n, x.x, y.x);
      CU_ASSERT(matrix_is_clean(&y));
      for (size_t i = 0; i < n; ++i) { CU_ASSERT(same_bits(y.x[i], one(f[j], x.x[i]))); }
    }
    matrix_free(&x);
    matrix_free(&y);
  }
}

/* The bits of both functions over the sample, NaN and infinities included. */
static uint64_t math_fingerprint(void)
{
  enum { POINTS = 1 << 16 };
  unroll_real *x = test_alloc(POINTS, sizeof *x), *y = test_alloc(POINTS, sizeof *y);
  uint64_t hash = FINGERPRINT_START;
  for (uint32_t i = 0; i < POINTS; ++i) { x[i] = from_bits(i * UINT32_C(65537)); }
  kernels()->exp(POINTS, x, y);
  hash = fingerprint_add(hash, y, POINTS * sizeof *y);
  kernels()->tanh(POINTS, x, y);
  hash = fingerprint_add(hash, y, POINTS * sizeof *y);
  free(x);
  free(y);
  return hash;
}

static void test_math_of_avx2_and_avx512_is_equal(void)
{
  CU_ASSERT(paths_agree(math_fingerprint));
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"exp: error", test_exp_error_is_as_claimed},
      {"tanh: error", test_tanh_error_is_as_claimed},
      {"exp: far below zero", test_exp_far_below_zero_errs_by_less_than_a_normal_number},
      {"exp: zero and denormals", test_exp_of_zero_and_denormals_is_one},
      {"exp: outside its range", test_exp_outside_its_range_stays_at_its_ends},
      {"tanh: odd, signed zero", test_tanh_is_odd_and_keeps_the_sign_of_zero},
      {"tanh: saturation", test_tanh_saturates_at_one},
      {"NaN stays", test_nan_stays_nan_in_its_lane},
      {"n elements", test_functions_write_n_elements},
      {"avx2 equals avx512", test_math_of_avx2_and_avx512_is_equal},
  };
  if (argc == 2 && strcmp(argv[1], "all") == 0) { stride = 1; }
  return run_kernel_cases("vector math", COUNT(cases), cases);
}
