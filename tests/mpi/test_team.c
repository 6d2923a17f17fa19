/* fallocate is Linux's own. */
#define _GNU_SOURCE

#include "support.h"

#include "comm/comm.h"
#include "comm/team.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Allocations of pages of shared memory, and those while it still had a name. */
static int allocations, named;

/* Replaces that of the C library, to see which file is allocated. */
int posix_fallocate(int file, off_t offset, off_t length)
{
  struct stat facts;
  allocations += 1;
  named += fstat(file, &facts) != 0 || facts.st_nlink > 0;
  return fallocate(file, 0, offset, length) == 0 ? 0 : errno;
}

static int is_power_of_two(int n)
{
  return (n & (n - 1)) == 0;
}

/* All test ranks live on one host: the largest team that the limit allows. */
static int expected_size(int limit)
{
  int size = 1;
  if (!is_power_of_two(test_size)) { return test_size <= limit ? test_size : 1; }
  while (2 * size <= limit && 2 * size <= test_size) { size *= 2; }
  return size;
}

/* UNROLL_TEAM as the test was started with, while a case changes it. */
static char *before;

static void keep_environment(void)
{
  const char *set = getenv("UNROLL_TEAM");
  before = set != NULL ? strdup(set) : NULL;
}

static void restore_environment(void)
{
  if (before != NULL) {
    setenv("UNROLL_TEAM", before, 1);
  } else {
    unsetenv("UNROLL_TEAM");
  }
  free(before);
}

/* Each limit in turn. */
static const char *const limits[] = {"1", "2", "3", "4", "100", "999999999999"};

static void with_limits(void (*call)(int limit))
{
  keep_environment();
  for (size_t k = 0; k < sizeof limits / sizeof limits[0]; ++k) {
    setenv("UNROLL_TEAM", limits[k], 1);
    long limit = strtol(limits[k], NULL, 10);
    call(limit > 100 ? 100 : (int)limit);
  }
  restore_environment();
}

static void check_places(int limit)
{
  comm_team *team = NULL;
  int across = 0, place = 0;
  CHECK_OK(comm_team_new(test_comm, 1, 1, &team));
  CHECK_ALL(team->size == expected_size(limit));
  CHECK_ALL(team->rank == test_rank % team->size);
  MPI_Comm_size(team->across, &across);
  MPI_Comm_rank(team->across, &place);
  CHECK_ALL(across == test_size / team->size && place == test_rank / team->size);
  CHECK_ALL(!team->multi_host);
  comm_team_free(&team);
}

static void test_teams_are_neighbours_of_one_size(void)
{
  with_limits(check_places);
}

/* Ranks placed cyclically on two hosts: the teams are those of a host. */
static void test_teams_of_cyclic_ranks_are_those_of_the_host(void)
{
  unroll_comm *comm = NULL;
  comm_team *team = NULL;
  int world = 0, odd = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &world);
  CHECK_OK(comm_new_on_hosts(MPI_COMM_WORLD, world % 2, &comm));
  CHECK_OK(comm_team_new(comm, 1, 1, &team));
  bool halves = test_size > 1 && is_power_of_two(test_size) && expected_size(100) > 1;
  CHECK_ALL(team->size == (halves ? test_size / 2 : 1));
  CHECK_ALL(team->multi_host == (test_size > 1));
  MPI_Allreduce(&(int){world % 2}, &odd, 1, MPI_INT, MPI_SUM, team->handle);
  CHECK_ALL(odd == world % 2 * team->size);
  comm_team_free(&team);
  unroll_comm_free(&comm);
}

/* What a rank writes to its segment and to its range is read by its team, and by no other team. */
static void check_memory(int limit)
{
  const size_t bytes = 5000, common = 30001;
  comm_team *team = NULL;
  size_t begin = 0, end = 0;
  int ok = 1;
  (void)limit;
  CHECK_OK(comm_team_new(test_comm, bytes, common, &team));
  const unsigned char *all = comm_team_common(team);
  unsigned char *mine = comm_team_segment(team, team->rank), *share = comm_team_common(team);
  for (size_t i = 0; i < bytes; ++i) { ok &= mine[i] == 0; }
  for (size_t i = 0; i < common; ++i) { ok &= all[i] == 0; }
  CHECK_OK(comm_team_fence(team));

  memset(mine, 10 + test_rank, bytes);
  comm_team_owned_range(team, common, 16, &begin, &end);
  memset(share + begin, 100 + test_rank, end - begin);
  CHECK_OK(comm_team_fence(team));
  for (int r = 0; r < team->size; ++r) {
    const unsigned char *segment = comm_team_segment(team, r);
    for (size_t i = 0; i < bytes; ++i) { ok &= segment[i] == 10 + test_rank - team->rank + r; }
  }
  for (size_t i = 0; i < common; ++i) {
    int r = all[i] - 100 - (test_rank - team->rank);
    ok &= r >= 0 && r < team->size && (i == 0 || all[i] >= all[i - 1]);
    ok &= (r == team->rank) == (i >= begin && i < end);
  }
  CHECK_ALL(ok);
  comm_team_free(&team);
}

static void test_memory_is_seen_by_the_team_alone(void)
{
  with_limits(check_memory);
}

static void test_shares_make_up_the_whole(void)
{
  static const size_t counts[] = {0, 1, 15, 16, 17, 100, 4096, 1000003};
  static const size_t grains[] = {1, 16, 4096};
  for (int size = 1; size <= 7; ++size) {
    for (size_t k = 0; k < 24; ++k) {
      size_t n = counts[k / 3], grain = grains[k % 3], at = 0, most = 0, least = n;
      for (int r = 0; r < size; ++r) {
        comm_team team = {.rank = r, .size = size};
        size_t begin = 0, end = 0;
        comm_team_owned_range(&team, n, grain, &begin, &end);
        CU_ASSERT(begin == at && end >= begin && (begin == n || begin % grain == 0));
        most = end - begin > most ? end - begin : most;
        least = end - begin < least ? end - begin : least;
        at = end;
      }
      CU_ASSERT(at == n);
      CU_ASSERT(most - least < 2 * grain);
    }
  }
}

static void test_no_number_is_refused_on_all_ranks(void)
{
  static const char *const wrong[] = {"", "0", "-2", "two", "2x"};
  keep_environment();
  for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; ++k) {
    comm_team *team = NULL;
    if (test_rank == test_size - 1) { /* another environment on one rank */
      setenv("UNROLL_TEAM", wrong[k], 1);
    } else {
      unsetenv("UNROLL_TEAM");
    }
    CHECK_ALL(comm_team_new(test_comm, 1, 1, &team) == UNROLL_ERR_ARG);
    CHECK_ALL(strstr(unroll_message(), "UNROLL_TEAM=") != NULL && team == NULL);
  }
  restore_environment();
}

/* Without room every rank is alone, and has its memory all the same. */
static void test_no_room_makes_teams_of_one(void)
{
  const size_t huge = (size_t)1 << 42; /* never touched: private memory has no need of room */
  comm_team *team = NULL;
  unroll_status st = comm_team_new(test_comm, huge, 100, &team);
  if (st == UNROLL_OK) {
    CHECK_ALL(team->size == 1);
    memset(comm_team_common(team), 1, 100);
    comm_team_free(&team);
  }
  CHECK_ALL(st == UNROLL_OK || st == UNROLL_ERR_MEMORY); /* a kernel may refuse so much */
  CHECK_ALL(comm_team_new(test_comm, SIZE_MAX / 4, 100, &team) == UNROLL_ERR_MEMORY);
}

/* Whoever is killed while it is filled, for want of memory above all, leaves nothing behind. */
static void test_no_name_is_left_when_the_memory_is_filled(void)
{
  comm_team *team = NULL;
  allocations = named = 0;
  CHECK_OK(comm_team_new(test_comm, 1 << 20, 1, &team));
  CHECK_ALL(team->size == 1 || allocations > 0);
  CHECK_ALL(named == 0);
  comm_team_free(&team);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"neighbours, of one size", test_teams_are_neighbours_of_one_size},
      {"hosts in turns", test_teams_of_cyclic_ranks_are_those_of_the_host},
      {"memory seen by the team alone", test_memory_is_seen_by_the_team_alone},
      {"shares make up the whole", test_shares_make_up_the_whole},
      {"UNROLL_TEAM is no number", test_no_number_is_refused_on_all_ranks},
      {"no room: teams of one", test_no_room_makes_teams_of_one},
      {"no name is left", test_no_name_is_left_when_the_memory_is_filled},
  };
  return run_mpi_cases(argc, argv, "team", sizeof cases / sizeof cases[0], cases);
}
