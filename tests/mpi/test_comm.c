#include "support.h"

#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What unroll_comm_new said before MPI was started. */
static unroll_status early_status;
static char early_line[256];

/* ------------------------------------------------------------ communicator */

static void test_comm_new_before_mpi_is_refused(void)
{
  CHECK_ALL(early_status == UNROLL_ERR_MPI);
  CHECK_ALL(strstr(early_line, "MPI_Init_thread") != NULL);
}

static void test_comm_new_duplicates_rank_and_size(void)
{
  unroll_comm *comm = NULL;
  CHECK_OK(unroll_comm_new(MPI_COMM_WORLD, &comm));
  CHECK_ALL(unroll_comm_rank(comm) == test_rank && unroll_comm_size(comm) == test_size);
  CHECK_ALL(comm->handle != MPI_COMM_WORLD);
  unroll_comm_free(&comm);
  CHECK_ALL(comm == NULL);
  unroll_comm_free(&comm);
}

static void test_comm_failed_call_is_returned_with_mpis_words(void)
{
  char byte = 0;
  CU_ASSERT(test_fails(comm_broadcast(test_comm, &byte, 1, test_size), UNROLL_ERR_MPI, "root",
                       __FILE__, __LINE__));
  CU_ASSERT(strstr(unroll_message(), "MPI_Bcast") != NULL);
}

/* --------------------------------------------------------------- agreement */

static void test_agree_when_all_are_well_is_ok(void)
{
  (void)unroll_fail(UNROLL_ERR_ARG, "old line of rank %d", test_rank);
  CHECK_OK(comm_agree(test_comm, UNROLL_OK));
}

static void test_agree_when_one_failed_gives_all_its_line(void)
{
  for (int bad = 0; bad < test_size; ++bad) {
    char line[64];
    unroll_status mine = UNROLL_OK;
    (void)unroll_fail(UNROLL_ERR_IO, "something older on rank %d", test_rank);
    if (test_rank == bad) {
      mine = unroll_fail(UNROLL_ERR_INPUT, "100%% of file %d is bad: %%s", bad);
    }
    unroll_status st = comm_agree(test_comm, mine);
    (void)snprintf(line, sizeof line, "100%% of file %d is bad: %%s", bad);
    CHECK_ALL(st == UNROLL_ERR_INPUT && strcmp(unroll_message(), line) == 0);
  }
}

static void test_agree_when_several_failed_follows_the_lowest(void)
{
  unroll_status mine =
      test_rank == 0 && test_size > 1
          ? UNROLL_OK
          : unroll_fail(test_rank == test_size - 1 ? UNROLL_ERR_IO : UNROLL_ERR_MEMORY,
                        "rank %d failed", test_rank);
  const int first = test_size > 1 ? 1 : 0;
  char line[64];
  unroll_status st = comm_agree(test_comm, mine);
  (void)snprintf(line, sizeof line, "rank %d failed", first);
  CHECK_ALL(st == (first == test_size - 1 ? UNROLL_ERR_IO : UNROLL_ERR_MEMORY));
  CHECK_ALL(strcmp(unroll_message(), line) == 0);
}

static void test_agree_to_stop_is_no_failure_lost(void)
{
  unroll_status mine =
      test_rank == test_size - 1 ? unroll_fail(UNROLL_STOPPED, "stopped by signal 10") : UNROLL_OK;
  CHECK_ALL(comm_agree(test_comm, mine) == UNROLL_STOPPED);
}

/* ----------------------------------------------------- broadcast, sum, max */

static void test_broadcast_of_any_size_copies_the_root(void)
{
  static const size_t sizes[] = {0, 1, 1000, 2 * COMM_PIECE + 5};
  for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; ++k) {
    const size_t n = sizes[k];
    const int root = test_size - 1;
    unsigned char *bytes = NULL;
    int ok = 1;
    CHECK_OK(memory_new(n + 1, 1, "test", &bytes));
    for (size_t i = 0; i < n; ++i) {
      bytes[i] = (unsigned char)(test_rank == root ? i % 251 : 255);
    }
    CHECK_OK(comm_broadcast(test_comm, bytes, n, root));
    for (size_t i = 0; i < n; ++i) { ok &= bytes[i] == i % 251; }
    CHECK_ALL(ok && bytes[n] == 0);
    memory_free(&bytes);
  }
}

static void test_sum_and_max_u64_are_exact(void)
{
  const uint64_t big = UINT64_C(1) << 60;
  uint64_t sum[3] = {1, (uint64_t)test_rank, big + (uint64_t)test_rank};
  uint64_t max[2] = {(uint64_t)(test_size - test_rank), big - (uint64_t)test_rank};
  const uint64_t P = (uint64_t)test_size;
  CHECK_OK(comm_sum_u64(test_comm, sum, 3));
  CHECK_OK(comm_max_u64(test_comm, max, 2));
  CHECK_ALL(sum[0] == P && sum[1] == P * (P - 1) / 2 && sum[2] == P * big + sum[1]);
  CHECK_ALL(max[0] == P && max[1] == big);
  CHECK_OK(comm_sum_u64(test_comm, NULL, 0));
}

static void test_sum_u64_longer_than_a_message_is_whole(void)
{
  const size_t n = COMM_PIECE + 3;
  uint64_t *x = NULL;
  int ok = 1;
  CHECK_OK(memory_new(n, sizeof *x, "test", &x));
  for (size_t i = 0; i < n; ++i) { x[i] = i; }
  CHECK_OK(comm_sum_u64(test_comm, x, n));
  for (size_t i = 0; i < n; ++i) { ok &= x[i] == i * (uint64_t)test_size; }
  CHECK_ALL(ok);
  memory_free(&x);
}

static void test_max_double_takes_the_largest(void)
{
  double x[2] = {-1.0 - test_rank, 0.5 * test_rank};
  CHECK_OK(comm_max_double(test_comm, x, 2));
  CHECK_ALL(x[0] == -1.0 && x[1] == 0.5 * (test_size - 1));
}

/* Terms whose sum depends on the order, more of them than one collected block. */
static double term(int r, size_t i)
{
  return ldexp(1.0 / (double)(3 + (size_t)r * 7 + i), (int)(((size_t)r * 29 + i) % 40));
}

static void test_sum_double_adds_in_rank_order(void)
{
  double x[2 * COMM_BLOCK + 3];
  const size_t n = sizeof x / sizeof x[0];
  int ok = 1;
  for (size_t i = 0; i < n; ++i) { x[i] = term(test_rank, i); }
  CHECK_OK(comm_sum_double(test_comm, x, n));
  for (size_t i = 0; i < n; ++i) {
    double sum = term(0, i);
    for (int r = 1; r < test_size; ++r) { sum += term(r, i); }
    ok &= x[i] == sum;
  }
  CHECK_ALL(ok);
}

/* ------------------------------------------------------------------ gather */

static unsigned char byte_of(int r, size_t i)
{
  return (unsigned char)((i * 7 + (size_t)r * 31) % 253);
}

/* Gather blocks of these sizes and look at every byte where they arrive. */
static void gather(size_t (*size_of)(int r), int root)
{
  const size_t mine = size_of(test_rank);
  unsigned char *block = NULL;
  size_t *sizes = NULL;
  void *all = NULL;
  int ok = 1;

  CHECK_OK(memory_new(mine, 1, "test", &block));
  for (size_t i = 0; i < mine; ++i) { block[i] = byte_of(test_rank, i); }
  CHECK_OK(comm_gather_bytes(test_comm, mine > 0 ? block : NULL, mine, root, &sizes, &all));
  if (root >= 0 && test_rank != root) {
    ok = sizes == NULL && all == NULL;
  } else if (sizes == NULL || all == NULL) {
    ok = 0;
  } else {
    const unsigned char *at = all;
    for (int r = 0; r < test_size; ++r) {
      ok &= sizes[r] == size_of(r);
      for (size_t i = 0; i < size_of(r); ++i) { ok &= *at++ == byte_of(r, i); }
    }
  }
  CHECK_ALL(ok);
  memory_free(&all);
  memory_free(&sizes);
  memory_free(&block);
}

static size_t uneven(int r)
{
  return r % 3 == 1 ? 0 : (size_t)(r * r + 1);
}

static size_t nothing(int r)
{
  (void)r;
  return 0;
}

/* The last rank has more than a message can hold. */
static size_t long_last(int r)
{
  return r == test_size - 1 ? COMM_PIECE + 11 : 5;
}

static void test_gather_to_all_keeps_rank_order(void)
{
  gather(uneven, -1);
  gather(long_last, -1);
}

static void test_gather_to_each_root_leaves_the_others_empty(void)
{
  for (int root = 0; root < test_size; ++root) { gather(uneven, root); }
  gather(long_last, 0);
}

static void test_gather_of_nothing_is_legal(void)
{
  gather(nothing, -1);
  gather(nothing, test_size - 1);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"new before MPI: refused", test_comm_new_before_mpi_is_refused},
      {"new: a duplicate, free twice", test_comm_new_duplicates_rank_and_size},
      {"failed MPI call: returned, not fatal", test_comm_failed_call_is_returned_with_mpis_words},
      {"agree: all well", test_agree_when_all_are_well_is_ok},
      {"agree: each rank alone fails", test_agree_when_one_failed_gives_all_its_line},
      {"agree: the lowest of several", test_agree_when_several_failed_follows_the_lowest},
      {"agree: stop", test_agree_to_stop_is_no_failure_lost},
      {"broadcast: any size", test_broadcast_of_any_size_copies_the_root},
      {"sum, max of integers: exact", test_sum_and_max_u64_are_exact},
      {"sum longer than a message", test_sum_u64_longer_than_a_message_is_whole},
      {"max of doubles", test_max_double_takes_the_largest},
      {"sum of doubles: rank order", test_sum_double_adds_in_rank_order},
      {"gather to all", test_gather_to_all_keeps_rank_order},
      {"gather to one", test_gather_to_each_root_leaves_the_others_empty},
      {"gather nothing", test_gather_of_nothing_is_legal},
  };
  unroll_comm *early = NULL;
  early_status = unroll_comm_new(MPI_COMM_WORLD, &early);
  (void)snprintf(early_line, sizeof early_line, "%s", unroll_message());
  return run_mpi_cases(argc, argv, "comm", sizeof cases / sizeof cases[0], cases);
}
