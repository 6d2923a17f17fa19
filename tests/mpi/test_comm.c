#include "support.h"

#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

/* Made-up hosts of the ranks of the world. */
static int in_turns(int r)
{
  return r % 2;
}

static int in_turns_of_three(int r)
{
  return (r + 1) % 3; /* the host of rank 0 is not the lowest number */
}

static int uneven_host(int r)
{
  return r == 0 || r >= 3 ? 1 : 0;
}

static int in_blocks(int r)
{
  return 7 - r / 2;
}

/* World rank of the i-th rank when hosts follow each other in the order of their lowest ranks. */
static int expected_rank(int (*host_of)(int r), int i)
{
  for (int low = 0; low < test_size; ++low) {
    bool lowest = true;
    for (int r = 0; r < low; ++r) { lowest = lowest && host_of(r) != host_of(low); }
    for (int r = low; lowest && r < test_size; ++r) {
      if (host_of(r) == host_of(low) && i-- == 0) { return r; }
    }
  }
  return -1;
}

static void check_order(int (*host_of)(int r))
{
  unroll_comm *comm = NULL;
  int world = 0, n = 0, place = 0, mates = 0, before = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &world);
  CHECK_OK(comm_new_on_hosts(MPI_COMM_WORLD, host_of(world), &comm));
  CHECK_ALL(comm->size == test_size && comm->parent_rank == world);
  CHECK_ALL(world == expected_rank(host_of, comm->rank));
  CHECK_ALL((comm->rank == 0) == (world == 0));
  for (int r = 0; r < test_size; ++r) {
    mates += host_of(r) == host_of(world);
    before += host_of(r) == host_of(world) && r < world;
  }
  MPI_Comm_size(comm->host, &n);
  MPI_Comm_rank(comm->host, &place);
  CHECK_ALL(n == mates && place == before);
  unroll_comm_free(&comm);
}

static void test_comm_ranks_of_a_host_become_neighbours(void)
{
  check_order(in_turns);
  check_order(in_turns_of_three);
  check_order(uneven_host);
}

static void test_comm_neighbours_keep_the_order_of_the_parent(void)
{
  unroll_comm *comm = NULL;
  int world = 0, like = MPI_UNEQUAL;
  MPI_Comm_rank(MPI_COMM_WORLD, &world);
  check_order(in_blocks);
  CHECK_OK(comm_new_on_hosts(MPI_COMM_WORLD, in_blocks(world), &comm));
  MPI_Comm_compare(MPI_COMM_WORLD, comm->handle, &like);
  CHECK_ALL(like == MPI_CONGRUENT);
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
  CHECK_ALL(strncmp(unroll_message(), line, strlen(line)) == 0);
}

/* Does `text` end with the place of this rank of the world? */
static bool ends_with_place(const char *text, int r)
{
  char host[256] = "", place[320];
  gethostname(host, sizeof host - 1);
  (void)snprintf(place, sizeof place, "no room (rank %d on %s)", r, host);
  return strcmp(text, place) == 0;
}

static void test_agree_says_where_memory_or_a_file_failed(void)
{
  static const unroll_status of_one[] = {UNROLL_ERR_MEMORY, UNROLL_ERR_IO};
  for (int k = 0; k < 2; ++k) {
    const int bad = test_size - 1;
    unroll_status mine = test_rank == bad ? unroll_fail(of_one[k], "no room") : UNROLL_OK;
    unroll_status st = comm_agree(test_comm, mine);
    CHECK_ALL(st == of_one[k]);
    if (test_size == 1) {
      CHECK_ALL(strcmp(unroll_message(), "no room") == 0);
    } else {
      CHECK_ALL(ends_with_place(unroll_message(), bad));
    }
    CHECK_ALL(comm_agree(test_comm, st) == of_one[k]); /* a caller agrees again: said once */
    CHECK_ALL(test_size == 1 || ends_with_place(unroll_message(), bad));
  }
}

/* The place is that of the parent, as launchers count. */
static void test_agree_counts_ranks_as_the_parent_does(void)
{
  unroll_comm *comm = NULL;
  int world = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &world);
  CHECK_OK(comm_new_on_hosts(MPI_COMM_WORLD, in_turns(world), &comm));
  unroll_status mine = world == 1 ? unroll_fail(UNROLL_ERR_MEMORY, "no room") : UNROLL_OK;
  unroll_status st = comm_agree(comm, mine);
  CHECK_ALL(st == (test_size > 1 ? UNROLL_ERR_MEMORY : UNROLL_OK));
  CHECK_ALL(test_size == 1 || ends_with_place(unroll_message(), 1));
  unroll_comm_free(&comm);
}

static void test_agree_on_a_line_of_any_length_is_whole_or_cut(void)
{
  char word[5000];
  memset(word, 'x', sizeof word);
  word[sizeof word - 1] = '\0';
  CHECK_ALL(comm_agree(test_comm, unroll_fail(UNROLL_ERR_IO, "%s", word)) == UNROLL_ERR_IO);
  const char *line = unroll_message();
  CHECK_ALL(strlen(line) == COMM_LINE - 1 && strncmp(line, word, COMM_LINE - 400) == 0);
  CHECK_ALL(test_size == 1 || line[COMM_LINE - 2] == ')');
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
  static const size_t sizes[] = {0, 1, 1000, 2 * COMM_MESSAGE_MAX + 5};
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
  const size_t n = COMM_MESSAGE_MAX + 3;
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

static void test_sum_double_adds_all_ranks(void)
{
  double x[35];
  const size_t n = sizeof x / sizeof x[0];
  int ok = 1;
  for (size_t i = 0; i < n; ++i) { x[i] = (double)(test_rank + 1) * (double)i; } /* exact */
  x[n - 1] = test_rank == test_size - 1 ? 0.1 : 0.0; /* one rank's value and zeros: exact */
  CHECK_OK(comm_sum_double(test_comm, x, n));
  for (size_t i = 0; i < n - 1; ++i) {
    ok &= x[i] == (double)(test_size * (test_size + 1) / 2) * (double)i;
  }
  CHECK_ALL(ok && x[n - 1] == 0.1);
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
  return r == test_size - 1 ? 2 * COMM_MESSAGE_MAX + 11 : 5;
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

/* Every rank of odd number sends to its neighbour below, more than a message can hold, and then nothing. */
static void test_send_of_any_length_arrives(void)
{
  const size_t n = COMM_MESSAGE_MAX + 11;
  const int gives = test_rank % 2 == 1, takes = !gives && test_rank + 1 < test_size;
  unsigned char *block = NULL;
  int ok = 1;

  CHECK_OK(memory_new(n, 1, "test", &block));
  for (size_t i = 0; gives && i < n; ++i) { block[i] = byte_of(test_rank, i); }
  if (gives) { CHECK_OK(comm_send(test_comm, block, n, test_rank - 1)); }
  if (gives) { CHECK_OK(comm_send(test_comm, NULL, 0, test_rank - 1)); }
  if (takes) { CHECK_OK(comm_receive(test_comm, block, n, test_rank + 1)); }
  if (takes) { CHECK_OK(comm_receive(test_comm, NULL, 0, test_rank + 1)); }
  for (size_t i = 0; takes && i < n; ++i) { ok &= block[i] == byte_of(test_rank + 1, i); }
  CHECK_ALL(ok);
  memory_free(&block);
}

/* Every rank takes bytes of its own choice: overlapping, across the cut between messages, or none. */
static void test_deal_gives_each_rank_its_choice(void)
{
  const size_t n = COMM_MESSAGE_MAX + 1000, begin = (size_t)test_rank * 100;
  const size_t end = test_rank % 3 == 2 ? begin : n - begin;
  unsigned char *all = NULL, *mine = NULL;
  int ok = 1;

  if (test_rank == 0) { CHECK_OK(memory_new(n, 1, "test", &all)); }
  for (size_t i = 0; test_rank == 0 && i < n; ++i) { all[i] = byte_of(7, i); }
  CHECK_OK(memory_new(end - begin + 1, 1, "test", &mine));
  mine[end - begin] = 0xee;
  CHECK_OK(comm_scatter_ranges(test_comm, all, n, begin, end, mine));
  for (size_t i = begin; i < end; ++i) { ok &= mine[i - begin] == byte_of(7, i); }
  CHECK_ALL(ok && mine[end - begin] == 0xee);
  CHECK_OK(comm_scatter_ranges(test_comm, NULL, 0, 0, 0, NULL));
  memory_free(&mine);
  memory_free(&all);
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
      {"new: ranks of a host are neighbours", test_comm_ranks_of_a_host_become_neighbours},
      {"new: neighbours stay as they are", test_comm_neighbours_keep_the_order_of_the_parent},
      {"failed MPI call: returned, not fatal", test_comm_failed_call_is_returned_with_mpis_words},
      {"agree: all well", test_agree_when_all_are_well_is_ok},
      {"agree: each rank alone fails", test_agree_when_one_failed_gives_all_its_line},
      {"agree: the lowest of several", test_agree_when_several_failed_follows_the_lowest},
      {"agree: where memory or a file failed", test_agree_says_where_memory_or_a_file_failed},
      {"agree: ranks as the parent counts", test_agree_counts_ranks_as_the_parent_does},
      {"agree: a long line", test_agree_on_a_line_of_any_length_is_whole_or_cut},
      {"agree: stop", test_agree_to_stop_is_no_failure_lost},
      {"broadcast: any size", test_broadcast_of_any_size_copies_the_root},
      {"sum, max of integers: exact", test_sum_and_max_u64_are_exact},
      {"sum longer than a message", test_sum_u64_longer_than_a_message_is_whole},
      {"max of doubles", test_max_double_takes_the_largest},
      {"sum of doubles", test_sum_double_adds_all_ranks},
      {"send: any length", test_send_of_any_length_arrives},
      {"deal: each its choice", test_deal_gives_each_rank_its_choice},
      {"gather to all", test_gather_to_all_keeps_rank_order},
      {"gather to one", test_gather_to_each_root_leaves_the_others_empty},
      {"gather nothing", test_gather_of_nothing_is_legal},
  };
  unroll_comm *early = NULL;
  early_status = unroll_comm_new(MPI_COMM_WORLD, &early);
  (void)snprintf(early_line, sizeof early_line, "%s", unroll_message());
  return run_mpi_cases(argc, argv, "comm", sizeof cases / sizeof cases[0], cases);
}
