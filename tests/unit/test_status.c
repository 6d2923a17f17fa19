#include "support.h"

#include <stdio.h>
#include <string.h>

static const unroll_status all[] = {
#define TEST_STATUS(name, value, text, exit_status) name,
    UNROLL_STATUS_LIST(TEST_STATUS)
#undef TEST_STATUS
};
#define N_ALL (sizeof all / sizeof all[0])

/* unroll_message() at the start of the program. */
static char first_line[16] = "not read";

static void test_message_before_any_failure_is_empty(void)
{
  CU_ASSERT_STRING_EQUAL(first_line, "");
}

static void test_statuses_are_ok_zero_and_distinct_negatives(void)
{
  CU_ASSERT_EQUAL(UNROLL_OK, 0);
  for (size_t i = 0; i < N_ALL; ++i) {
    CU_ASSERT(all[i] == UNROLL_OK || all[i] < 0);
    for (size_t j = 0; j < i; ++j) {
      CU_ASSERT(all[i] != all[j]);
      CU_ASSERT(strcmp(unroll_status_text(all[i]), unroll_status_text(all[j])) != 0);
    }
  }
}

static void test_status_text_of_a_foreign_code_is_not_null(void)
{
  CU_ASSERT_STRING_EQUAL(unroll_status_text((unroll_status)-99), "unknown status");
}

static void test_status_exit_is_one_of_the_documented(void)
{
  CU_ASSERT_EQUAL(unroll_status_exit(UNROLL_OK), 0);
  CU_ASSERT_EQUAL(unroll_status_exit(UNROLL_STOPPED), 75);
  CU_ASSERT_EQUAL(unroll_status_exit(UNROLL_ERR_ARG), 2);
  CU_ASSERT_EQUAL(unroll_status_exit(UNROLL_ERR_INPUT), 2);
  CU_ASSERT_EQUAL(unroll_status_exit(UNROLL_ERR_MPI), 1);
  CU_ASSERT_EQUAL(unroll_status_exit((unroll_status)-99), 1);
  for (size_t i = 0; i < N_ALL; ++i) {
    const int status = unroll_status_exit(all[i]);
    CU_ASSERT(status == 0 ? all[i] == UNROLL_OK : status == 1 || status == 2 || status == 75);
  }
}

static void test_fail_returns_the_code_and_records_the_line(void)
{
  CU_ASSERT_EQUAL(unroll_fail(UNROLL_ERR_INPUT, "%s: byte %d", "a.txt", 7), UNROLL_ERR_INPUT);
  CU_ASSERT_STRING_EQUAL(unroll_message(), "a.txt: byte 7");
  CU_ASSERT_EQUAL(unroll_fail(UNROLL_ERR_IO, "next"), UNROLL_ERR_IO);
  CU_ASSERT_STRING_EQUAL(unroll_message(), "next");
}

static void test_fail_with_a_long_line_keeps_its_beginning(void)
{
  char line[10000];
  memset(line, 'x', sizeof line);
  line[sizeof line - 1] = '\0';
  (void)unroll_fail(UNROLL_ERR_IO, "%s", line);
  const size_t n = strlen(unroll_message());
  CU_ASSERT(n >= 1000 && n < sizeof line - 1);
  CU_ASSERT_EQUAL(memcmp(unroll_message(), line, n), 0);
}

static void test_fail_with_control_characters_keeps_none(void)
{
  (void)unroll_fail(UNROLL_ERR_IO, "a\n%s[2J\tz\177 \302\23331m \302\240\303\233 \342\202\254",
                    "\033");
  CU_ASSERT_STRING_EQUAL(unroll_message(), "a??[2J?z? ??31m \302\240\303\233 \342\202\254");
}

int main(void)
{
  static const struct test_case cases[] = {
      {"message before any failure: empty", test_message_before_any_failure_is_empty},
      {"codes: 0 and distinct negatives", test_statuses_are_ok_zero_and_distinct_negatives},
      {"text of a foreign code", test_status_text_of_a_foreign_code_is_not_null},
      {"exit statuses", test_status_exit_is_one_of_the_documented},
      {"fail: code and line", test_fail_returns_the_code_and_records_the_line},
      {"fail: long line", test_fail_with_a_long_line_keeps_its_beginning},
      {"fail: control characters", test_fail_with_control_characters_keeps_none},
  };
  (void)snprintf(first_line, sizeof first_line, "%s", unroll_message());
  return run_cases("status", sizeof cases / sizeof cases[0], cases);
}
