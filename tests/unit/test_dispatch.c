#include "kernel_support.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

static void test_start_takes_the_named_path(void)
{
  CHECK_OK(path_use("portable") ? UNROLL_OK : UNROLL_ERR_ARG);
  CU_ASSERT_STRING_EQUAL(kernels()->name, "portable");
  CU_ASSERT_STRING_EQUAL(kernels_name(), "portable");
  path_restore();
  CU_ASSERT_STRING_EQUAL(kernels()->name, own_path);
}

static void test_start_refuses_an_unknown_path_and_keeps_the_last(void)
{
  setenv("UNROLL_ISA", "mmx", 1);
  CHECK_FAILS(kernels_start(), UNROLL_ERR_ARG, "UNROLL_ISA=mmx");
  setenv("UNROLL_ISA", "", 1);
  CHECK_FAILS(kernels_start(), UNROLL_ERR_ARG, "avx512, avx2 and portable");
  CU_ASSERT_STRING_EQUAL(kernels()->name, own_path);
  path_restore();
}

static void test_start_without_a_name_takes_a_path_that_runs(void)
{
  unsetenv("UNROLL_ISA");
  CHECK_OK(kernels_start());
  CU_ASSERT(path_use(kernels()->name));
  path_restore();
}

/* Padding and panels of every path fit each other: kernels.h relies on it. */
static void test_every_path_has_sizes_that_divide_the_padding(void)
{
  const char *const names[] = {"avx512", "avx2", "portable"};
  for (size_t i = 0; i < COUNT(names); ++i) {
    if (!path_use(names[i])) { continue; }
    CU_ASSERT_STRING_EQUAL(kernels()->name, names[i]);
    CU_ASSERT(KERNELS_PAD % kernels()->lanes == 0);
    CU_ASSERT(kernels()->nr == 2 * kernels()->lanes);
    CU_ASSERT(kernels()->mr >= 1);
  }
  path_restore();
}

/* Denormals count as zero on every thread, whoever started it. */
static void test_start_makes_every_thread_flush_denormals(void)
{
#if defined(__SSE__)
  const unsigned flags = 0x8040; /* flush to zero, denormals are zero */
  for (size_t i = 0; i < COUNT(thread_counts); ++i) {
    int all = 1;
    omp_set_num_threads(thread_counts[i]);
#pragma omp parallel default(none) shared(flags)
    _mm_setcsr(_mm_getcsr() & ~flags);
    CHECK_OK(kernels_start());
#pragma omp parallel default(none) shared(flags) reduction(& : all)
    all &= (_mm_getcsr() & flags) == flags;
    CU_ASSERT(all);
  }
#endif
}

static void test_pad_rounds_up_and_ld_avoids_powers_of_two(void)
{
  for (size_t n = 0; n < 2000; ++n) {
    CU_ASSERT(kernels_pad(n) >= n && kernels_pad(n) < n + KERNELS_PAD);
    CU_ASSERT(kernels_pad(n) % KERNELS_PAD == 0);
    CU_ASSERT(kernels_ld(n) >= kernels_pad(n) && kernels_ld(n) <= kernels_pad(n) + KERNELS_PAD);
    CU_ASSERT(kernels_ld(n) % KERNELS_PAD == 0 && (n == 0 || kernels_ld(n) % 256 != 0));
  }
}

int main(void)
{
  static const struct test_case cases[] = {
      {"start: named", test_start_takes_the_named_path},
      {"start: unknown", test_start_refuses_an_unknown_path_and_keeps_the_last},
      {"start: no name", test_start_without_a_name_takes_a_path_that_runs},
      {"paths: sizes", test_every_path_has_sizes_that_divide_the_padding},
      {"start: denormals", test_start_makes_every_thread_flush_denormals},
      {"padding", test_pad_rounds_up_and_ld_avoids_powers_of_two},
  };
  return run_kernel_cases("dispatch", COUNT(cases), cases);
}
