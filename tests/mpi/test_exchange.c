#include "support.h"

#include "base/memory.h"
#include "base/random.h"
#include "comm/comm.h"
#include "comm/team.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Around the grain of 16, a little over a chunk, more chunks than are in flight at once. */
static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 262145, 1000000, 2300000};
#define N_SIZES (sizeof sizes / sizeof sizes[0])
#define LARGEST 2300000

/* Elements behind x that no exchange may touch. */
#define GUARD 16

/* An exchange of its own team, with n elements and a guard. */
typedef struct fixture {
  comm_team *team;
  comm_exchange *e;
  unroll_real *x;         /* (n + GUARD) of this rank */
  const unroll_real *sum; /* (n + GUARD) of the team */
} fixture;

static fixture fixture_new(size_t n)
{
  fixture b = {0};
  CHECK_OK(comm_team_new(test_comm, (n + GUARD) * sizeof *b.x, 0, &b.team));
  CHECK_OK(comm_exchange_new(b.team, &b.e));
  b.x = comm_team_segment(b.team, b.team->rank);
  b.sum = comm_team_segment(b.team, 0);
  return b;
}

static void fixture_free(fixture *b)
{
  comm_exchange_free(&b->e);
  comm_team_free(&b->team);
}

/* The start and the end of an exchange of x[at, at + n), with the fences that it needs. */
static void start(const fixture *b, size_t at, size_t n)
{
  CHECK_OK(comm_team_fence(b->team));
  CHECK_OK(comm_exchange_start(b->e, at, n));
}

static void finish(const fixture *b)
{
  CHECK_OK(comm_exchange_wait(b->e));
  CHECK_OK(comm_team_fence(b->team));
}

static void sum_all(const fixture *b, size_t n)
{
  start(b, 0, n);
  finish(b);
}

/* No rank of the team writes to its segment before all have read the sum. */
static void fence_after_reading(const fixture *b)
{
  CHECK_OK(comm_team_fence(b->team));
}

/* ------------------------------------------------------------------ oracle */

/* Element i of rank r: sizes so different that another order of adding gives other bits. */
static unroll_real value(int r, size_t i)
{
  const double u = random_uniform(7, RANDOM_SYNTHETIC, (uint64_t)r, i);
  return (unroll_real)ldexp(u - 0.5, (int)((i + 5 * (size_t)r) % 12));
}

static void fill(unroll_real *to, size_t n)
{
  for (size_t i = 0; i < n; ++i) { to[i] = value(test_rank, i); }
  for (size_t i = n; i < n + GUARD; ++i) { to[i] = -77; }
}

/* The sum by hand: the ranks above the largest power of two onto the lowest ones, then the tree. */
static unroll_real tree_of(size_t i)
{
  unroll_real t[64];
  int pow2 = 1;
  while (pow2 * 2 <= test_size) { pow2 *= 2; }
  for (int r = 0; r < pow2; ++r) { t[r] = value(r, i); }
  for (int r = pow2; r < test_size; ++r) { t[r - pow2] = t[r - pow2] + value(r, i); }
  for (; pow2 > 1; pow2 /= 2) {
    for (int r = 0; r < pow2 / 2; ++r) { t[r] = t[2 * r] + t[2 * r + 1]; }
  }
  return t[0];
}

static int is_tree(const unroll_real *sum, size_t n)
{
  int ok = 1;
  for (size_t i = 0; i < n; ++i) {
    unroll_real expected = tree_of(i);
    ok &= memcmp(&sum[i], &expected, sizeof expected) == 0;
  }
  for (size_t i = n; i < n + GUARD; ++i) { ok &= sum[i] == -77; }
  return ok;
}

/* Does rank 0 hold the same bytes? */
static int is_same_everywhere(const void *mine, size_t bytes)
{
  char *theirs = malloc(bytes + 1);
  memcpy(theirs, mine, bytes);
  MPI_Bcast(theirs, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
  int same = memcmp(theirs, mine, bytes) == 0;
  free(theirs);
  return same;
}

/* ------------------------------------------------------------------- cases */

static void test_exchange_of_every_size_equals_the_tree(void)
{
  fixture b = fixture_new(LARGEST);
  for (size_t k = 0; k < N_SIZES; ++k) {
    fill(b.x, sizes[k]);
    sum_all(&b, sizes[k]);
    CHECK_ALL(is_tree(b.sum, sizes[k]));
    CHECK_ALL(is_same_everywhere(b.sum, sizes[k] * sizeof *b.sum));
    fence_after_reading(&b);
  }
  fixture_free(&b);
}

/* A part in the middle: what lies before and behind stays what it was. */
static void test_exchange_of_a_part_leaves_the_rest(void)
{
  const size_t n = 50000, at = 1232, part = 20011;
  fixture b = fixture_new(n);
  int ok = 1;
  fill(b.x, n);
  start(&b, at, part);
  finish(&b);
  for (size_t i = 0; i < n; ++i) {
    unroll_real expected =
        i >= at && i < at + part ? tree_of(i) : value(test_rank - b.team->rank, i);
    ok &= b.sum[i] == expected;
    if (b.team->rank > 0) { ok &= b.x[i] == value(test_rank, i); }
  }
  CHECK_ALL(ok);
  fixture_free(&b);
}

static void test_oracle_differs_from_rank_order(void)
{
  int differ = 0;
  for (size_t i = 0; i < 1000; ++i) {
    unroll_real sum = value(0, i);
    for (int r = 1; r < test_size; ++r) { sum += value(r, i); }
    differ |= sum != tree_of(i);
  }
  CHECK_ALL(differ == (test_size >= 3));
}

/* Parts begun one after the other while those before them are under way: more than may wait, out of their order in
 * x. */
static void test_exchange_of_many_parts_at_once_equals_the_tree(void)
{
  const size_t part = 1600, n = 700 * part;
  fixture b = fixture_new(n);
  fill(b.x, n);
  CHECK_OK(comm_team_fence(b.team));
  for (size_t k = 0; k < n / part; ++k) {
    const size_t at = k * 431 % (n / part) * part; /* 431 is prime, so each is met once */
    CHECK_OK(comm_exchange_start(b.e, at, k % 7 == 0 ? part / 2 : part));
    if (k % 7 == 0) { CHECK_OK(comm_exchange_start(b.e, at + part / 2, part / 2)); }
    if (k % 3 == 0) { CHECK_OK(comm_exchange_poll(b.e)); }
  }
  finish(&b);
  CHECK_ALL(is_tree(b.sum, n));
  fixture_free(&b);
}

/* 2 n (P - 1) / P elements a rank, P teams, in a share of n: the least there is, but for what does not divide
 * evenly. */
static void test_exchange_sends_no_more_than_it_must(void)
{
  const size_t n = 1000000;
  fixture b = fixture_new(n);
  const double teams = test_size / b.team->size, share = (double)n / b.team->size;
  const double bytes = 2 * share * (teams - 1) / teams * sizeof *b.x;
  fill(b.x, n);
  sum_all(&b, n);
  uint64_t sent[2] = {comm_exchange_sent(b.e), comm_exchange_sent(b.e)};
  CHECK_OK(comm_max_u64(test_comm, sent, 1));
  CHECK_OK(comm_sum_u64(test_comm, sent + 1, 1));
  CHECK_ALL(fabs((double)sent[1] / test_size - bytes) <= 0.001 * bytes);
#ifndef DIRECT_MAX /* a fold has some ranks send more */
  CHECK_ALL((double)sent[0] <= 1.002 * bytes);
#endif
  fixture_free(&b);
}

/* What is said of ranks that share no memory is what one of them does, with the same buffers. */
static void test_exchange_costs_what_is_said(void)
{
  for (size_t i = 0; i < N_SIZES; ++i) {
    const uint64_t before = memory_live_bytes();
    fixture b = fixture_new(sizes[i]);
    uint64_t held = memory_live_bytes() - before, said = 0, others = 0;
    fill(b.x, sizes[i]);
    sum_all(&b, sizes[i]);
    CHECK_OK(comm_exchange_predict_memory(test_size, false, b.team->segment_bytes, &said));
    /* Beside the buffers: team, exchange and a list of one part. */
    others = held - said;
    if (b.team->size == 1) {
      CHECK_ALL(held >= said && others < 16384);
      CHECK_ALL(test_rank > 0 ||
                comm_exchange_sent(b.e) == comm_exchange_predict_sent(test_size, false, sizes[i]));
    }
    fixture_free(&b);
  }
}

static void test_exchange_repeated_gives_the_same_bits(void)
{
  static unroll_real first[70000];
  fixture b = fixture_new(70000);
  for (int k = 0; k < 6; ++k) {
    fill(b.x, 70000);
    if (k % 2 == test_rank % 2) { nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }
    sum_all(&b, 70000);
    if (k == 0) { memcpy(first, b.sum, sizeof first); }
    CHECK_ALL(memcmp(b.sum, first, sizeof first) == 0);
    fence_after_reading(&b);
  }
  fixture_free(&b);
}

static void test_exchange_of_integers_is_exact(void)
{
  const size_t n = 300007;
  fixture b = fixture_new(n);
  for (size_t i = 0; i < n; ++i) {
    b.x[i] = (unroll_real)((i * 31 + (size_t)test_rank * 7) % 1001);
  }
  sum_all(&b, n);

  int ok = 1;
  for (size_t i = 0; i < n; ++i) {
    size_t sum = 0;
    for (size_t r = 0; r < (size_t)test_size; ++r) { sum += (i * 31 + r * 7) % 1001; }
    ok &= b.sum[i] == (unroll_real)sum;
  }
  CHECK_ALL(ok);
  fixture_free(&b);
}

static void test_exchange_of_nans_gives_the_same_bits_on_all_ranks(void)
{
  fixture b = fixture_new(64);
  for (size_t i = 0; i < 64; ++i) {
    b.x[i] = (unroll_real)NAN;
    memcpy(&b.x[i], &(unsigned char){(unsigned char)(test_rank + 1)}, 1); /* its payload */
  }
  sum_all(&b, 64);
  CHECK_ALL(isnan(b.sum[0]) && isnan(b.sum[63]));
  CHECK_ALL(is_same_everywhere(b.sum, sizeof *b.sum * 64));
  fixture_free(&b);
}

/* Polls alone bring it to its end, and a wait after that has nothing to do. */
static void test_poll_without_wait_finishes(void)
{
  const size_t n = 600000; /* more than one chunk in a leg of two ranks */
  struct timespec begin = {0};
  struct timespec now = {0};
  unroll_real *expected = malloc(n * sizeof *expected);
  fixture b = fixture_new(n);
  fill(b.x, n);
  for (size_t i = 0; i < n; ++i) { expected[i] = tree_of(i); }

  start(&b, 0, n);
  clock_gettime(CLOCK_MONOTONIC, &begin);
  int done = 0;
  do {
    CHECK_OK(comm_exchange_poll(b.e));
    done = memcmp(b.sum, expected, n * sizeof *expected) == 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (!done && now.tv_sec - begin.tv_sec < 20);
  CU_ASSERT(done);
  finish(&b);
  CHECK_ALL(is_tree(b.sum, n));
  fixture_free(&b);
  free(expected);
}

static void test_exchange_among_other_calls_is_undisturbed(void)
{
  const size_t n = 200000;
  const size_t m = 1000;
  fixture a = fixture_new(n);
  fixture b = fixture_new(m);
  fill(a.x, n);
  fill(b.x, m);

  start(&a, 0, n);
  start(&b, 0, m);
  uint64_t one = 1;
  double two = 2;
  CHECK_OK(comm_sum_u64(test_comm, &one, 1));
  CHECK_OK(comm_exchange_poll(a.e));
  CHECK_OK(comm_tree_sum(test_comm, &two, 1));
  finish(&b);
  CHECK_OK(comm_exchange_poll(b.e));
  finish(&a);

  CHECK_ALL(is_tree(a.sum, n) && is_tree(b.sum, m));
  CHECK_ALL(one == (uint64_t)test_size && two == 2 * test_size);
  fixture_free(&b);
  fixture_free(&a);
}

/* Neighbours move two exchanges along in opposite order: no message may end in the wrong one. */
static void test_two_exchanges_polled_in_other_orders_stay_apart(void)
{
  const size_t n = 200000;
  const size_t m = 1000;
  fixture b[2] = {fixture_new(n), fixture_new(m)};
  fill(b[0].x, n);
  fill(b[1].x, m);
  start(&b[0], 0, n);
  start(&b[1], 0, m);
  for (int turn = 0; turn < 2; ++turn) {
    const int mine = (turn + test_rank) % 2;
    for (int k = 0; k < 20; ++k) {
      CHECK_OK(comm_exchange_poll(b[mine].e));
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
  }
  finish(&b[0]);
  finish(&b[1]);
  CHECK_ALL(is_tree(b[0].sum, n) && is_tree(b[1].sum, m));
  fixture_free(&b[1]);
  fixture_free(&b[0]);
}

/* -------------------------------------------------------------- failures */

/* Calls of MPI that fail while these are set. Testsome loses all messages, as a failure may. */
static int testsome_fails, isend_fails;

int MPI_Testsome(int n, MPI_Request *requests, int *n_done, int *done, MPI_Status *statuses)
{
  if (!testsome_fails) { return PMPI_Testsome(n, requests, n_done, done, statuses); }
  (void)PMPI_Waitall(n, requests, statuses);
  return MPI_ERR_OTHER;
}

int MPI_Isend(const void *x, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request *request)
{
  return isend_fails ? MPI_ERR_OTHER : PMPI_Isend(x, n, type, to, tag, comm, request);
}

#ifndef DIRECT_MAX /* with a fold some ranks only receive at first, from those that fail */

static void test_failed_poll_is_returned_by_start_and_wait(void)
{
  const size_t n = 1000;
  fixture b = fixture_new(n);
  fill(b.x, n);
  if (comm_exchange_has_peers(b.e)) {
    start(&b, 0, n);
    testsome_fails = 1;
    (void)comm_exchange_poll(b.e); /* as a step does, which goes on computing */
    testsome_fails = 0;
    CHECK_ALL(comm_exchange_poll(b.e) == UNROLL_ERR_MPI);
    CHECK_ALL(comm_exchange_start(b.e, 0, n) == UNROLL_ERR_MPI);
    CHECK_ALL(comm_exchange_wait(b.e) == UNROLL_ERR_MPI);
  }
  fixture_free(&b);
}

static void test_failed_start_is_returned_by_wait(void)
{
  const size_t n = 1000;
  fixture b = fixture_new(n);
  fill(b.x, n);
  if (comm_exchange_has_peers(b.e)) {
    isend_fails = 1;
    CHECK_ALL(comm_exchange_start(b.e, 0, n) == UNROLL_ERR_MPI);
    isend_fails = 0;
    CHECK_ALL(comm_exchange_wait(b.e) == UNROLL_ERR_MPI);
  }
  fixture_free(&b);
}

#endif

static void test_exchange_allocates_nothing_after_new(void)
{
  fixture b = fixture_new(70000);
  const int64_t before = memory_total_blocks();
  for (int k = 0; k < 3; ++k) {
    fill(b.x, 70000);
    start(&b, 0, 70000);
    CHECK_OK(comm_exchange_poll(b.e));
    finish(&b);
    fence_after_reading(&b);
  }
  double y = 1;
  CHECK_OK(comm_tree_sum(test_comm, &y, 1));
  CHECK_OK(comm_sum_double(test_comm, &y, 1));
  CHECK_ALL(memory_total_blocks() == before);
  fixture_free(&b);
}

/* Where memory fails on one rank, another waits for nobody. */
static void test_exchange_of_one_rank_alone_is_made(void)
{
  fixture b = fixture_new(1000);
  comm_exchange *alone = NULL;
  if (test_rank == 0) { CU_ASSERT(comm_exchange_new(b.team, &alone) == UNROLL_OK); }
  comm_exchange_free(&alone);
  fixture_free(&b);
}

static void test_idle_exchange_polls_waits_and_frees_twice(void)
{
  fixture b = fixture_new(0);
  CHECK_OK(comm_exchange_poll(b.e));
  CHECK_OK(comm_exchange_wait(b.e));
  sum_all(&b, 0);
  comm_exchange_free(&b.e);
  CHECK_ALL(b.e == NULL);
  fixture_free(&b);
  CHECK_ALL(b.team == NULL);
  fixture_free(&b);
}

/* The same tree in double, by hand. */
static double double_value(int r, size_t i)
{
  return ldexp(random_uniform(8, RANDOM_SYNTHETIC, (uint64_t)r, i) - 0.5,
               (int)((i + 9 * (size_t)r) % 30));
}

static void test_tree_sum_equals_the_tree(void)
{
  static const size_t counts[] = {0, 1, 6, 64};
  for (size_t c = 0; c < sizeof counts / sizeof counts[0]; ++c) {
    const size_t n = counts[c];
    double y[65];
    int ok = 1;
    for (size_t i = 0; i < 65; ++i) { y[i] = i < n ? double_value(test_rank, i) : -77; }
    CHECK_OK(comm_tree_sum(test_comm, y, n));

    for (size_t i = 0; i < n; ++i) {
      double t[64];
      int pow2 = 1;
      while (pow2 * 2 <= test_size) { pow2 *= 2; }
      for (int r = 0; r < pow2; ++r) { t[r] = double_value(r, i); }
      for (int r = pow2; r < test_size; ++r) { t[r - pow2] += double_value(r, i); }
      for (; pow2 > 1; pow2 /= 2) {
        for (int r = 0; r < pow2 / 2; ++r) { t[r] = t[2 * r] + t[2 * r + 1]; }
      }
      ok &= y[i] == t[0];
    }
    for (size_t i = n; i < 65; ++i) { ok &= y[i] == -77; }
    CHECK_ALL(ok);
    CHECK_ALL(is_same_everywhere(y, sizeof y));
  }
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"every size: equals the tree on all ranks", test_exchange_of_every_size_equals_the_tree},
      {"a part: the rest stays", test_exchange_of_a_part_leaves_the_rest},
      {"the oracle differs from rank order", test_oracle_differs_from_rank_order},
      {"many parts at once: the tree", test_exchange_of_many_parts_at_once_equals_the_tree},
      {"bytes sent: the least", test_exchange_sends_no_more_than_it_must},
      {"bytes sent and held: as said", test_exchange_costs_what_is_said},
      {"repeated: same bits", test_exchange_repeated_gives_the_same_bits},
      {"integers: exact", test_exchange_of_integers_is_exact},
      {"NaN: same bits on all ranks", test_exchange_of_nans_gives_the_same_bits_on_all_ranks},
      {"polls alone finish it", test_poll_without_wait_finishes},
      {"two exchanges and collectives at once", test_exchange_among_other_calls_is_undisturbed},
      {"two exchanges in other orders", test_two_exchanges_polled_in_other_orders_stay_apart},
#ifndef DIRECT_MAX
      {"a failed poll: start and wait return it", test_failed_poll_is_returned_by_start_and_wait},
      {"a failed start: wait returns it", test_failed_start_is_returned_by_wait},
#endif
      {"no allocation after new", test_exchange_allocates_nothing_after_new},
      {"made by one rank alone", test_exchange_of_one_rank_alone_is_made},
      {"idle: poll, wait, free twice", test_idle_exchange_polls_waits_and_frees_twice},
      {"tree sum of doubles: equals the tree", test_tree_sum_equals_the_tree},
  };
  return run_mpi_cases(argc, argv, "exchange", sizeof cases / sizeof cases[0], cases);
}
