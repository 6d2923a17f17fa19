#include "support.h"

#include "comm/signals.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int handled[] = {SIGTERM, SIGUSR1, SIGINT, SIGUSR2, SIGHUP, SIGXCPU};
#define N_HANDLED (sizeof handled / sizeof handled[0])

static void sleep_ms(long ms)
{
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* What becomes of a child that gets two signals, ms apart: a status of waitpid. */
static int fate_of_child(int first, int second, long ms)
{
  int status = 0;
  pid_t child = fork();
  if (child == 0) {
    signals_install();
    (void)raise(first);
    sleep_ms(ms);
    (void)raise(second);
    _exit(signals_pending() == first ? 0 : 1);
  }
  CU_ASSERT(child > 0 && waitpid(child, &status, 0) == child);
  return status;
}

static void test_pending_before_any_signal_is_none(void)
{
  signals_install();
  CU_ASSERT_EQUAL(signals_pending(), 0);
  signals_restore();
}

static void test_pending_after_each_signal_names_it(void)
{
  for (size_t k = 0; k < N_HANDLED; ++k) {
    signals_install();
    CU_ASSERT_EQUAL(signals_pending(), 0); /* a new start forgets the last one */
    (void)raise(handled[k]);
    CU_ASSERT_EQUAL(signals_pending(), handled[k]);
    signals_restore();
  }
}

static void test_second_signal_at_once_is_the_same_request(void)
{
  const int status = fate_of_child(SIGTERM, SIGTERM, 0);
  CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_second_signal_later_ends_the_process(void)
{
  int status = fate_of_child(SIGTERM, SIGTERM, 1100);
  CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  status = fate_of_child(SIGUSR1, SIGINT, 1100);
  CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
}

static void test_limit_of_cpu_time_that_is_repeated_is_the_same_request(void)
{
  const int status = fate_of_child(SIGXCPU, SIGXCPU, 1100);
  CU_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* MPI_Init comes between the two. */
static void test_install_again_keeps_what_came_and_takes_handlers_back(void)
{
  struct sigaction other = {.sa_handler = SIG_DFL};
  signals_install();
  (void)raise(SIGUSR1);
  (void)sigaction(SIGUSR2, &other, NULL);
  signals_install();
  CU_ASSERT_EQUAL(signals_pending(), SIGUSR1);
  (void)raise(SIGUSR2); /* would end the test */
  signals_restore();
}

static void test_hangup_ignored_by_nohup_stays_ignored(void)
{
  struct sigaction ignore = {.sa_handler = SIG_IGN}, old = {0};
  (void)sigaction(SIGHUP, &ignore, &old);
  signals_install();
  (void)raise(SIGHUP);
  CU_ASSERT_EQUAL(signals_pending(), 0);
  signals_restore();
  (void)sigaction(SIGHUP, &old, NULL);
}

static volatile sig_atomic_t seen;

static void note(int number)
{
  seen = number;
}

static void test_restore_brings_back_the_old_handler(void)
{
  struct sigaction mine = {.sa_handler = note};
  struct sigaction old = {0};
  (void)sigaction(SIGUSR1, &mine, &old);
  signals_install();
  signals_install(); /* twice must not make the library's handler the old one */
  signals_restore();
  signals_restore();
  seen = 0;
  (void)raise(SIGUSR1);
  CU_ASSERT_EQUAL(seen, SIGUSR1);
  (void)sigaction(SIGUSR1, &old, NULL);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"no signal: none pending", test_pending_before_any_signal_is_none},
      {"each signal: pending", test_pending_after_each_signal_names_it},
      {"second at once: ignored", test_second_signal_at_once_is_the_same_request},
      {"second later: ends the process", test_second_signal_later_ends_the_process},
      {"limit of CPU time, repeated: the same",
       test_limit_of_cpu_time_that_is_repeated_is_the_same_request},
      {"install again: keeps what came",
       test_install_again_keeps_what_came_and_takes_handlers_back},
      {"hangup under nohup: ignored", test_hangup_ignored_by_nohup_stays_ignored},
      {"restore: the old handler", test_restore_brings_back_the_old_handler},
  };
  return run_cases("signals", sizeof cases / sizeof cases[0], cases);
}
