#include "support.h"

#include "base/memory.h"
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int is_filled(const unsigned char *bytes, size_t n, unsigned char with)
{
  for (size_t i = 0; i < n; ++i) {
    if (bytes[i] != with) { return 0; }
  }
  return 1;
}

static void test_new_is_zero_and_aligned(void)
{
  static const size_t counts[] = {1, 3, 64, 1000, 100000};
  for (size_t k = 0; k < sizeof counts / sizeof counts[0]; ++k) {
    unsigned char *p = NULL;
    for (int again = 0; again < 2; ++again) { /* the second time in memory that was used */
      CHECK_OK(memory_new(counts[k], 3, "test", &p));
      CU_ASSERT_EQUAL((uintptr_t)p % MEMORY_ALIGNMENT, 0);
      CU_ASSERT(is_filled(p, 3 * counts[k], 0));
      memset(p, 0xff, 3 * counts[k]);
      memory_free(&p);
    }
  }
}

/* Does Linux hold the pages at p for one that asked for large ones ("hg" of VmFlags)? -1: it does not tell. */
static int asks_for_large_pages(const void *p)
{
  char line[512];
  int inside = 0, found = -1;
  FILE *f = fopen("/proc/self/smaps", "r");
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    unsigned long long begin = 0, end = 0;
    if (sscanf(line, "%llx-%llx ", &begin, &end) == 2) {
      inside = (uintptr_t)p >= begin && (uintptr_t)p < end;
    } else if (inside && strncmp(line, "VmFlags:", 8) == 0) {
      found = strstr(line, " hg") != NULL;
    }
  }
  if (f != NULL) { (void)fclose(f); }
  return access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) == 0 ? found : -1;
}

static void test_new_of_large_blocks_asks_for_large_pages(void)
{
  const size_t large = (size_t)1 << 21;
  unsigned char *p = NULL, *small = NULL;
  for (int again = 0; again < 2; ++again) {
    CHECK_OK(memory_new(5 * large, 1, "test", &p));
    CU_ASSERT_EQUAL((uintptr_t)p % large, 0);
    CU_ASSERT(is_filled(p, 5 * large, 0));
    CU_ASSERT_NOT_EQUAL(asks_for_large_pages(p), 0);
    CU_ASSERT_NOT_EQUAL(asks_for_large_pages(p + 5 * large - 1), 0);
    memset(p, 0xff, 5 * large);
    memory_free(&p);
  }
  CHECK_OK(memory_new(large, 1, "test", &small));
  CU_ASSERT_NOT_EQUAL(asks_for_large_pages(small), 1);
  memory_free(&small);
}

static void test_new_of_nothing_is_a_block(void)
{
  char *p = NULL;
  const int64_t before = memory_live_blocks();
  CHECK_OK(memory_new(0, 8, "test", &p));
  CU_ASSERT_PTR_NOT_NULL(p);
  CU_ASSERT_EQUAL(memory_live_blocks(), before + 1);
  memory_free(&p);
}

static void test_new_beyond_the_address_space_fails_and_leaves_out(void)
{
  char mark = 0;
  char *p = &mark;
  const int64_t before = memory_live_blocks();
  /* 8 * (2^61 + 1) wraps around to 8. */
  CHECK_FAILS(memory_new(SIZE_MAX / 8 + 2, 8, "the gradient", &p), UNROLL_ERR_MEMORY,
              "can address");
  CHECK_FAILS(memory_new(SIZE_MAX, 1, "the gradient", &p), UNROLL_ERR_MEMORY, "can address");
  CHECK_FAILS(memory_new(PTRDIFF_MAX, 1, "the gradient", &p), UNROLL_ERR_MEMORY, "can address");
#ifndef __SANITIZE_ADDRESS__ /* it ends the program where malloc would return NULL */
  CHECK_FAILS(memory_new((size_t)1 << 60, 4, "the gradient", &p), UNROLL_ERR_MEMORY,
              "the gradient: no memory for 4611686018427387904 bytes");
#endif
  CU_ASSERT_PTR_EQUAL(p, &mark);
  CU_ASSERT_EQUAL(memory_live_blocks(), before);
}

static void test_resize_keeps_the_old_and_zeroes_the_new(void)
{
  uint32_t *p = NULL;
  CHECK_OK(memory_resize(0, 10, sizeof *p, "test", &p)); /* NULL grows too */
  for (uint32_t i = 0; i < 10; ++i) { p[i] = i + 1; }
  CHECK_OK(memory_resize(10, 1000, sizeof *p, "test", &p));
  for (uint32_t i = 0; i < 10; ++i) { CU_ASSERT_EQUAL(p[i], i + 1); }
  CU_ASSERT(is_filled((unsigned char *)&p[10], 990 * sizeof *p, 0));
  CHECK_OK(memory_resize(1000, 3, sizeof *p, "test", &p));
  CU_ASSERT(p[0] == 1 && p[2] == 3);
  CU_ASSERT_EQUAL((uintptr_t)p % MEMORY_ALIGNMENT, 0);
  memory_free(&p);
}

static void test_resize_that_fails_leaves_the_old_block(void)
{
  uint32_t *p = NULL;
  CHECK_OK(memory_new(2, sizeof *p, "test", &p));
  p[1] = 7;
  uint32_t *const old = p;
  CHECK_FAILS(memory_resize(2, SIZE_MAX / 2, sizeof *p, "the rows", &p), UNROLL_ERR_MEMORY,
              "the rows");
  CU_ASSERT_PTR_EQUAL(p, old);
  CU_ASSERT_EQUAL(p[1], 7);
  memory_free(&p);
}

static void test_free_sets_null_and_twice_is_safe(void)
{
  char *p = NULL;
  const int64_t before = memory_live_blocks();
  CHECK_OK(memory_new(1, 1, "test", &p));
  memory_free(&p);
  CU_ASSERT_PTR_NULL(p);
  memory_free(&p);
  CU_ASSERT_EQUAL(memory_live_blocks(), before);
}

static void test_string_is_a_copy(void)
{
  char text[] = "gr\xc3\xbc\xc3\x9f";
  char *copy = NULL;
  CHECK_OK(memory_string(text, &copy));
  CU_ASSERT_STRING_EQUAL(copy, text);
  text[0] = 'G';
  CU_ASSERT_EQUAL(copy[0], 'g');
  memory_free(&copy);
  CHECK_OK(memory_string("", &copy));
  CU_ASSERT_STRING_EQUAL(copy, "");
  memory_free(&copy);
}

static void test_counts_follow_the_blocks(void)
{
  char *a = NULL;
  char *b = NULL;
  const int64_t alive = memory_live_blocks();
  const int64_t total = memory_total_blocks();
  CHECK_OK(memory_new(1, 1, "test", &a));
  CHECK_OK(memory_new(1, 1, "test", &b));
  CU_ASSERT(memory_live_blocks() == alive + 2 && memory_total_blocks() == total + 2);
  memory_free(&a);
  CU_ASSERT(memory_live_blocks() == alive + 1 && memory_total_blocks() == total + 2);
  memory_free(&b);
  CU_ASSERT(memory_live_blocks() == alive && memory_total_blocks() == total + 2);
}

static void test_peak_grows_with_use(void)
{
  const size_t more = (size_t)64 << 20;
  const uint64_t before = memory_peak_rss();
  char *p = NULL;
  CHECK_OK(memory_new(before + more, 1, "test", &p));
#ifndef __SANITIZE_ADDRESS__                        /* it keeps books on every block */
  CU_ASSERT(memory_peak_rss() < before + more / 2); /* not yet: what is not used takes no memory */
#endif
  memset(p, 1, before + more);
  CU_ASSERT(memory_peak_rss() >= before + more / 2);
  memory_free(&p);
  CU_ASSERT(memory_peak_rss() >= before + more / 2);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"new: zero, aligned", test_new_is_zero_and_aligned},
      {"new: large pages", test_new_of_large_blocks_asks_for_large_pages},
      {"new of nothing: a block", test_new_of_nothing_is_a_block},
      {"new too large: fails", test_new_beyond_the_address_space_fails_and_leaves_out},
      {"resize: keeps, zeroes", test_resize_keeps_the_old_and_zeroes_the_new},
      {"resize too large: old block stays", test_resize_that_fails_leaves_the_old_block},
      {"free: NULL, twice", test_free_sets_null_and_twice_is_safe},
      {"string: a copy", test_string_is_a_copy},
      {"counts", test_counts_follow_the_blocks},
      {"peak", test_peak_grows_with_use},
  };
  return run_cases("memory", sizeof cases / sizeof cases[0], cases);
}
