#include "support.h"

#include "runfile/apart.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unroll_status do_well(void *context)
{
  (void)context;
  return UNROLL_OK;
}

static unroll_status do_badly(void *context)
{
  return unroll_fail(UNROLL_ERR_INPUT, "%s", (const char *)context);
}

/* As HDF5 and the C library die: with words of their own. */
static unroll_status die(void *context)
{
  (void)fprintf(stderr, "infinite loop\n");
  (void)raise(*(const int *)context);
  return UNROLL_OK;
}

static unroll_status end_as_a_sanitizer(void *context)
{
  (void)context;
  _exit(1);
}

/* What MPI does. */
static void talk(int number)
{
  static const char words[] = "*** Process received signal ***\n";
  ssize_t n = write(STDERR_FILENO, words, sizeof words - 1);
  (void)signal(number, SIG_DFL);
  if (n > 0) { (void)raise(number); }
}

static void test_apart_good_and_failed_work_come_back(void)
{
  char line[] = "a line";

  CU_ASSERT_EQUAL(apart_run(1000, do_well, NULL), APART_GOOD);
  CU_ASSERT_EQUAL(apart_run(1000, do_badly, line), APART_FAILED);
  CU_ASSERT_STRING_EQUAL(unroll_message(), line);
}

static void test_apart_death_is_told_and_nothing_else_said(void)
{
  static const int deadly[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL};
  char folder[256], path[300];

  test_folder(folder);
  (void)snprintf(path, sizeof path, "%s/err", folder);
  const int before = dup(STDERR_FILENO);
  CU_ASSERT_PTR_NOT_NULL_FATAL(freopen(path, "w", stderr));
  for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; ++i) {
    int number = deadly[i];
    (void)signal(number, talk);
    CU_ASSERT_EQUAL(apart_run(1000, die, &number), APART_DIED);
    (void)signal(number, SIG_DFL);
  }
  CU_ASSERT_EQUAL(ftell(stderr), 0);
  CU_ASSERT_EQUAL(lseek(STDERR_FILENO, 0, SEEK_END), 0);
  (void)dup2(before, STDERR_FILENO);
  (void)close(before);
}

static void test_apart_end_without_a_word_is_a_death(void)
{
  CU_ASSERT_EQUAL(apart_run(1000, end_as_a_sanitizer, NULL), APART_DIED);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"good and failed work come back", test_apart_good_and_failed_work_come_back},
      {"a death is told, and nothing else said", test_apart_death_is_told_and_nothing_else_said},
      {"an end without a word is a death", test_apart_end_without_a_word_is_a_death},
  };
  return run_cases("apart", sizeof cases / sizeof cases[0], cases);
}
