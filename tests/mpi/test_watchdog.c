#include "support.h"

#include "comm/comm.h"
#include "comm/placement.h"
#include "comm/team.h"
#include "comm/watchdog.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* [seconds] of a wait before the first line; what the sleeper of a case sleeps, where not said otherwise. */
#define FIRST 0.4
#define NAP   1.2

/* The rank that the others wait for. */
#define SLEEPER 1

/* What this rank's watchdog said in a case; read after its thread has ended. */
static char said[16][1024];
static size_t n_said, n_over;

static void note(void *context, const char *line, bool over)
{
  CU_ASSERT(context == said);
  n_over += over;
  if (n_said < sizeof said / sizeof said[0]) {
    (void)snprintf(said[n_said++], sizeof said[0], "%s", line);
  }
}

static void start(double first, double last)
{
  n_said = n_over = 0;
  CHECK_OK(watchdog_start(test_comm, first, last, note, said));
}

static void nap(double seconds)
{
  const struct timespec t = {.tv_sec = (time_t)seconds,
                             .tv_nsec = (long)(fmod(seconds, 1.0) * 1e9)};
  (void)nanosleep(&t, NULL);
}

static void sum(void)
{
  double x = 1.0;
  CHECK_OK(comm_tree_sum(test_comm, &x, 1));
}

/* "rank 1 on HOST (process PID)", as every rank should know it. */
static void sleeper(size_t size, char *out)
{
  char host[256] = "";
  int process = (int)getpid();
  CU_ASSERT(gethostname(host, sizeof host - 1) == 0);
  MPI_Bcast(&process, 1, MPI_INT, SLEEPER, MPI_COMM_WORLD);
  (void)snprintf(out, size, "rank %d on %.59s (process %d)", SLEEPER, host, process);
}

/* What a wait for any of the others says: who sleeps, where it can only be that one. */
static const char *others(void)
{
  static char who[400];
  sleeper(sizeof who, who);
  return test_size == 2 ? who : "others, it cannot know for which";
}

/* How many of this rank's lines have all three of these parts. */
static size_t lines_with(const char *a, const char *b, const char *c)
{
  size_t n = 0;
  for (size_t i = 0; i < n_said; ++i) {
    n += strstr(said[i], a) != NULL && strstr(said[i], b) != NULL && strstr(said[i], c) != NULL;
  }
  return n;
}

/* On how many ranks this holds. */
static int count_ranks(bool holds)
{
  int mine = holds, all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  return all;
}

/* Some rank names the sleeper and what for; the sleeper, which waits for nobody, says nothing. */
static void check_named(const char *what)
{
  char who[400], waits_for[410];
  sleeper(sizeof who, who);
  (void)snprintf(waits_for, sizeof waits_for, " for %s", who);
  const int naming = count_ranks(test_rank != SLEEPER && lines_with(waits_for, what, "") > 0);
  CU_ASSERT(naming > 0);
  for (size_t i = 0; naming == 0 && i < n_said; ++i) { fprintf(stderr, "said: %s\n", said[i]); }
  CHECK_ALL(test_rank != SLEEPER || n_said == 0);
}

/* ------------------------------------------------------------ who is named */

static void test_tree_sum_names_the_rank_that_sleeps(void)
{
  char self[64];
  if (test_size == 1) { return; }
  start(FIRST, 0.0);
  watchdog_step(56);
  if (test_rank == SLEEPER) { nap(NAP); }
  sum();
  watchdog_stop();
  check_named("step 57");
  CHECK_ALL(lines_with("sum of the losses", "", "") == n_said && n_over == 0);
  (void)snprintf(self, sizeof self, "rank %d on ",
                 test_rank); /* each line begins with its own rank */
  for (size_t i = 0; i < n_said; ++i) { CU_ASSERT(strncmp(said[i], self, strlen(self)) == 0); }
}

static void test_fence_names_only_those_who_are_late(void)
{
  comm_team *team = NULL;
  if (test_size == 1) { return; }
  CHECK_OK(comm_team_new(test_comm, 64, 64, &team));
  start(FIRST, 0.0);
  watchdog_step(0);
  for (int k = 0; k < 5; ++k) { CHECK_OK(comm_team_fence(team)); }
  if (test_rank == SLEEPER) { nap(NAP); }
  CHECK_OK(comm_team_fence(team));
  watchdog_stop();
  if (team->size == test_size) {
    check_named("shared memory of the host, step 1");
    CHECK_ALL(test_rank == SLEEPER || n_said > 0);
    for (int r = 0; r < test_size; ++r) {
      char other[32];
      (void)snprintf(other, sizeof other, "for rank %d on", r);
      CHECK_ALL(r == SLEEPER || lines_with(other, "", "") == 0);
      (void)snprintf(other, sizeof other, ", rank %d on", r);
      CHECK_ALL(lines_with(other, "", "") == 0);
    }
  }
  comm_team_free(&team);
}

/* The sleeper sleeps in these calls of MPI while this is set. */
static int sleeps;

int MPI_Barrier(MPI_Comm comm)
{
  if (sleeps && test_rank == SLEEPER) { nap(NAP); }
  return PMPI_Barrier(comm);
}

static void test_fence_that_all_have_entered_names_the_others(void)
{
  comm_team *team = NULL;
  char who[400], self[32];
  if (test_size == 1) { return; }
  CHECK_OK(comm_team_new(test_comm, 64, 64, &team));
  start(FIRST, 0.0);
  watchdog_step(0);
  sleeps = 1;
  CHECK_OK(comm_team_fence(team));
  sleeps = 0;
  watchdog_stop();
  sleeper(sizeof who, who);
  (void)snprintf(self, sizeof self, "rank %d on ", test_rank);
  if (team->size == test_size) {
    CHECK_ALL(lines_with("for MPI_Barrier to return", "hangs in it: shared memory", "step 1") > 0);
    CHECK_ALL(test_rank == SLEEPER || lines_with("entered by ", who, "") > 0);
    for (size_t i = 0; i < n_said; ++i) { /* not itself among those to look at */
      const char *at = strstr(said[i], "entered by ");
      CU_ASSERT(at == NULL || strstr(at, self) == NULL);
    }
  }
  comm_team_free(&team);
}

static void test_exchange_names_the_partner(void)
{
  comm_team *team = NULL;
  comm_exchange *exchange = NULL;
  const char *set = getenv("UNROLL_TEAM");
  char *before = set != NULL ? strdup(set) : NULL;
  const size_t n = 1000;
  if (test_size == 1) { return; }

  setenv("UNROLL_TEAM", "1", 1); /* as on hosts of one rank each */
  CHECK_OK(comm_team_new(test_comm, n * sizeof(unroll_real), 0, &team));
  CHECK_OK(comm_exchange_new(team, &exchange));
  start(FIRST, 0.0);
  watchdog_step(0);
  if (test_rank == SLEEPER) { nap(NAP); }
  CHECK_OK(comm_exchange_start(exchange, 0, n));
  CHECK_OK(comm_exchange_wait(exchange));
  watchdog_stop();
  check_named("sum of the gradient, step 1");
  comm_exchange_free(&exchange);
  comm_team_free(&team);
  if (before != NULL) {
    setenv("UNROLL_TEAM", before, 1);
  } else {
    unsetenv("UNROLL_TEAM");
  }
  free(before);
}

static void test_agreement_reports_a_wait_for_others(void)
{
  if (test_size == 1) { return; }
  start(FIRST, 0.0);
  watchdog_step(3);
  if (test_rank == SLEEPER) { nap(NAP); }
  CHECK_OK(comm_agree(test_comm, UNROLL_OK));
  watchdog_stop();
  const char *whom = others();
  CHECK_ALL(test_rank == SLEEPER || lines_with(whom, "agreement", "step 4") > 0);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *out)
{
  if (sleeps && test_rank == SLEEPER) { nap(NAP); }
  return PMPI_Comm_split(comm, color, key, out);
}

int MPI_Exscan(const void *from, void *to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm)
{
  if (sleeps && test_rank == SLEEPER) { nap(NAP); }
  return PMPI_Exscan(from, to, n, type, op, comm);
}

static void test_start_reports_what_is_waited_for(void)
{
  comm_team *team = NULL;
  placement *where = NULL;
  if (test_size == 1) { return; }
  sleeps = 1;
  start(FIRST, 0.0);
  watchdog_step(0);
  CHECK_OK(comm_team_new(test_comm, 64, 64, &team));
  watchdog_stop();
  const char *whom = others();
  CHECK_ALL(test_rank == SLEEPER || lines_with(whom, "forming the teams", "") > 0);
  start(FIRST, 0.0);
  watchdog_step(0);
  CHECK_OK(placement_new(test_comm, &where));
  watchdog_stop();
  CHECK_ALL(test_rank == SLEEPER || lines_with(whom, "places of the ranks", "") > 0);
  sleeps = 0;
  placement_free(&where);
  comm_team_free(&team);
}

/* ----------------------------------------------------------- whose memory */

static atomic_bool reading; /* the thread is inside the check that read the arrivals */

static void read_long(void *context, const char *line, bool over)
{
  (void)context;
  (void)line;
  (void)over;
  atomic_store(&reading, true);
  nap(NAP);
  atomic_store(&reading, false);
}

static void test_a_team_goes_only_when_it_is_read_no_more(void)
{
  comm_team *team = NULL;
  if (test_size == 1) { return; }
  CHECK_OK(comm_team_new(test_comm, 64, 64, &team));
  CHECK_OK(watchdog_start(test_comm, FIRST, 0.0, read_long, NULL));
  watchdog_step(0);
  if (test_rank == SLEEPER) { nap(2 * FIRST); }
  CHECK_OK(comm_team_fence(team));
  comm_team_free(&team);
  CU_ASSERT(!atomic_load(&reading));
  watchdog_stop();
}

/* ------------------------------------------------------------------- when */

static void test_lines_are_repeated_when_a_wait_has_doubled(void)
{
  if (test_size == 1) { return; }
  start(1.0, 0.0);
  watchdog_step(0);
  if (test_rank == SLEEPER) { nap(3.2); }
  sum();
  watchdog_stop();
  CU_ASSERT(count_ranks(n_said >= 2) > 0);
  for (size_t i = 0, before = 0; i < n_said; ++i) {
    const char *at = strstr(said[i], "has waited ");
    size_t seconds = at != NULL ? strtoul(at + strlen("has waited "), NULL, 10) : 0;
    CU_ASSERT(seconds >= 1 && seconds >= 2 * before);
    before = seconds;
  }
}

static void test_moving_along_is_no_wait(void)
{
  if (test_size == 1) { return; }
  start(1.2, 0.0);
  watchdog_step(0);
  for (int k = 0; k < 5; ++k) {
    if (test_rank == SLEEPER) { nap(0.6); }
    sum();
  }
  watchdog_stop();
  CHECK_ALL(n_said == 0);
}

static void test_phases_and_the_start_have_longer_limits(void)
{
  if (test_size == 1) { return; }
  for (int k = 0; k < 2; ++k) {
    start(FIRST, FIRST); /* the start is a phase */
    if (k > 0) {
      watchdog_step(9);
      watchdog_phase("rank 1 sleeps");
    }
    if (test_rank == SLEEPER) { nap(NAP); }
    sum();
    watchdog_stop();
    CHECK_ALL(n_said == 0);
  }
}

static void test_phase_that_is_too_long_is_named(void)
{
  if (test_size == 1) { return; }
  start(0.05, 0.0);
  watchdog_phase("rank 1 sleeps");
  if (test_rank == SLEEPER) { nap(NAP); }
  sum();
  watchdog_stop();
  check_named("(rank 1 sleeps)");
}

static void test_long_steps_make_long_limits(void)
{
  if (test_size == 1) { return; }
  start(FIRST, FIRST);
  for (uint64_t step = 0; step < 3; ++step) {
    watchdog_step(step);
    nap(0.6);
    sum();
  }
  if (test_rank == SLEEPER) { nap(0.8); } /* less than three steps */
  sum();
  watchdog_stop();
  CHECK_ALL(n_said == 0);
}

static void test_last_limit_is_over(void)
{
  if (test_size == 1) { return; }
  start(100.0, 100.0);
  watchdog_step(0);
  watchdog_set_limit(0.6); /* that of a run file */
  if (test_rank == SLEEPER) { nap(NAP); }
  sum();
  watchdog_stop();
  CU_ASSERT(count_ranks(n_over > 0 && n_over == n_said) > 0);
  check_named("sum of the losses");
}

static void test_one_rank_or_no_listener_start_nothing(void)
{
  n_said = 0;
  CHECK_OK(watchdog_start(test_comm, 1e-3, 0.0, test_size == 1 ? note : NULL, said));
  watchdog_step(0);
  watchdog_wait_begin(0, "nothing");
  nap(0.6);
  watchdog_wait_end();
  watchdog_stop();
  watchdog_stop();
  CHECK_ALL(n_said == 0);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"tree sum: the sleeper", test_tree_sum_names_the_rank_that_sleeps},
      {"fence: only the late", test_fence_names_only_those_who_are_late},
      {"fence: all have entered", test_fence_that_all_have_entered_names_the_others},
      {"exchange: the partner", test_exchange_names_the_partner},
      {"agreement: others", test_agreement_reports_a_wait_for_others},
      {"start: others, what for", test_start_reports_what_is_waited_for},
      {"a team: not while it is read", test_a_team_goes_only_when_it_is_read_no_more},
      {"lines: when doubled", test_lines_are_repeated_when_a_wait_has_doubled},
      {"moving along: silence", test_moving_along_is_no_wait},
      {"phases: longer limits", test_phases_and_the_start_have_longer_limits},
      {"phases: named", test_phase_that_is_too_long_is_named},
      {"long steps: long limits", test_long_steps_make_long_limits},
      {"last limit: over", test_last_limit_is_over},
      {"alone: nothing", test_one_rank_or_no_listener_start_nothing},
  };
  return run_mpi_cases(argc, argv, "watchdog", sizeof cases / sizeof cases[0], cases);
}
