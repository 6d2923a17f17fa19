#include "support.h"

#include "base/memory.h"
#include "base/random.h"
#include "comm/comm.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Edges of the cut at 16, a little over a chunk, more chunks than are under way at once. */
static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 262145, 1000000, 2300000};
#define N_SIZES (sizeof sizes / sizeof sizes[0])
#define LARGEST 2300000

/* Elements behind x that no exchange may touch. */
#define GUARD 16

static unroll_real x[LARGEST + GUARD], other[LARGEST + GUARD];

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
  int core = 1;
  while (core * 2 <= test_size) { core *= 2; }
  for (int r = 0; r < core; ++r) { t[r] = value(r, i); }
  for (int r = core; r < test_size; ++r) { t[r - core] = t[r - core] + value(r, i); }
  for (; core > 1; core /= 2) {
    for (int r = 0; r < core / 2; ++r) { t[r] = t[2 * r] + t[2 * r + 1]; }
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

static void sum_all(comm_exchange *e, unroll_real *data, size_t n)
{
  CHECK_OK(comm_exchange_start(e, data, n));
  CHECK_OK(comm_exchange_wait(e, NULL));
}

/* ------------------------------------------------------------------- cases */

static void test_exchange_of_every_size_equals_the_tree(void)
{
  comm_exchange *e = NULL;
  CHECK_OK(comm_exchange_new(test_comm, LARGEST, &e));
  for (size_t k = 0; k < N_SIZES; ++k) {
    fill(x, sizes[k]);
    sum_all(e, x, sizes[k]);
    CHECK_ALL(is_tree(x, sizes[k]));
    CHECK_ALL(is_same_everywhere(x, sizes[k] * sizeof x[0]));
  }
  comm_exchange_free(&e);
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

static void test_exchange_repeated_gives_the_same_bits(void)
{
  comm_exchange *e = NULL;
  CHECK_OK(comm_exchange_new(test_comm, 70000, &e));
  fill(x, 70000);
  sum_all(e, x, 70000);
  for (int k = 0; k < 5; ++k) {
    fill(other, 70000);
    if (k % 2 == test_rank % 2) { nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }
    sum_all(e, other, 70000);
    CHECK_ALL(memcmp(x, other, 70000 * sizeof x[0]) == 0);
  }
  comm_exchange_free(&e);
}

static void test_exchange_of_integers_is_exact(void)
{
  const size_t n = 300007;
  comm_exchange *e = NULL;
  CHECK_OK(comm_exchange_new(test_comm, n, &e));
  for (size_t i = 0; i < n; ++i) { x[i] = (unroll_real)((i * 31 + (size_t)test_rank * 7) % 1001); }
  sum_all(e, x, n);

  int ok = 1;
  for (size_t i = 0; i < n; ++i) {
    size_t sum = 0;
    for (size_t r = 0; r < (size_t)test_size; ++r) { sum += (i * 31 + r * 7) % 1001; }
    ok &= x[i] == (unroll_real)sum;
  }
  CHECK_ALL(ok);
  comm_exchange_free(&e);
}

static void test_exchange_of_nans_gives_the_same_bits_on_all_ranks(void)
{
  comm_exchange *e = NULL;
  CHECK_OK(comm_exchange_new(test_comm, 64, &e));
  for (size_t i = 0; i < 64; ++i) {
    x[i] = (unroll_real)NAN;
    memcpy(&x[i], &(unsigned char){(unsigned char)(test_rank + 1)}, 1); /* its payload */
  }
  sum_all(e, x, 64);
  CHECK_ALL(isnan(x[0]) && isnan(x[63]));
  CHECK_ALL(is_same_everywhere(x, sizeof x[0] * 64));
  comm_exchange_free(&e);
}

/* Polls alone bring it to its end, and a wait after that has nothing to do. */
static void test_poll_without_wait_finishes(void)
{
  const size_t n = 600000; /* more than one chunk in a leg of two ranks */
  struct timespec start = {0};
  struct timespec now = {0};
  comm_exchange *e = NULL;
  CHECK_OK(comm_exchange_new(test_comm, n, &e));
  fill(x, n);
  for (size_t i = 0; i < n; ++i) { other[i] = tree_of(i); }

  CHECK_OK(comm_exchange_start(e, x, n));
  clock_gettime(CLOCK_MONOTONIC, &start);
  int done = 0;
  do {
    CHECK_OK(comm_exchange_poll(e));
    done = memcmp(x, other, n * sizeof x[0]) == 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (!done && now.tv_sec - start.tv_sec < 20);
  CU_ASSERT(done);
  CHECK_OK(comm_exchange_wait(e, NULL));
  CHECK_ALL(is_tree(x, n));
  comm_exchange_free(&e);
}

static void test_exchange_among_other_calls_is_undisturbed(void)
{
  const size_t n = 200000;
  const size_t m = 1000;
  comm_exchange *a = NULL;
  comm_exchange *b = NULL;
  CHECK_OK(comm_exchange_new(test_comm, n, &a));
  CHECK_OK(comm_exchange_new(test_comm, n, &b));
  fill(x, n);
  fill(other, m);

  CHECK_OK(comm_exchange_start(a, x, n));
  CHECK_OK(comm_exchange_start(b, other, m));
  uint64_t one = 1;
  double two = 2;
  CHECK_OK(comm_sum_u64(test_comm, &one, 1));
  CHECK_OK(comm_exchange_poll(a));
  CHECK_OK(comm_tree_sum(test_comm, &two, 1));
  CHECK_OK(comm_exchange_wait(b, NULL));
  CHECK_OK(comm_exchange_poll(b));
  CHECK_OK(comm_exchange_wait(a, NULL));

  CHECK_ALL(is_tree(x, n) && is_tree(other, m));
  CHECK_ALL(one == (uint64_t)test_size && two == 2 * test_size);
  comm_exchange_free(&b);
  comm_exchange_free(&a);
}

/* Neighbours move two exchanges along in opposite order: no message may end in the wrong one. */
static void test_two_exchanges_polled_in_other_orders_stay_apart(void)
{
  const size_t n = 200000;
  const size_t m = 1000;
  comm_exchange *e[2] = {NULL, NULL};
  CHECK_OK(comm_exchange_new(test_comm, n, &e[0]));
  CHECK_OK(comm_exchange_new(test_comm, n, &e[1]));
  fill(x, n);
  fill(other, m);
  CHECK_OK(comm_exchange_start(e[0], x, n));
  CHECK_OK(comm_exchange_start(e[1], other, m));
  for (int turn = 0; turn < 2; ++turn) {
    const int mine = (turn + test_rank) % 2;
    for (int k = 0; k < 20; ++k) {
      CHECK_OK(comm_exchange_poll(e[mine]));
      nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
  }
  CHECK_OK(comm_exchange_wait(e[0], NULL));
  CHECK_OK(comm_exchange_wait(e[1], NULL));
  CHECK_ALL(is_tree(x, n) && is_tree(other, m));
  comm_exchange_free(&e[1]);
  comm_exchange_free(&e[0]);
}

static void test_exchange_allocates_nothing_after_new(void)
{
  comm_exchange *e = NULL;
  CHECK_OK(comm_exchange_new(test_comm, 70000, &e));
  const int64_t before = memory_total();
  for (int k = 0; k < 3; ++k) {
    fill(x, 70000);
    CHECK_OK(comm_exchange_start(e, x, 70000));
    CHECK_OK(comm_exchange_poll(e));
    CHECK_OK(comm_exchange_wait(e, NULL));
  }
  double y = 1;
  CHECK_OK(comm_tree_sum(test_comm, &y, 1));
  CHECK_OK(comm_sum_double(test_comm, &y, 1));
  CHECK_ALL(memory_total() == before);
  comm_exchange_free(&e);
}

static void test_wait_adds_its_seconds(void)
{
  comm_exchange *e = NULL;
  double seconds = 100;
  CHECK_OK(comm_exchange_new(test_comm, 1000, &e));
  fill(x, 1000);
  MPI_Barrier(MPI_COMM_WORLD);
  if (test_rank == 0) { nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); }
  CHECK_OK(comm_exchange_start(e, x, 1000));
  CHECK_OK(comm_exchange_wait(e, &seconds));
  CHECK_ALL(seconds >= 100 && seconds < 110);
  CHECK_ALL(test_rank == 0 || seconds > 100.01); /* the others waited for rank 0 */
  comm_exchange_free(&e);
}

static void test_idle_exchange_polls_waits_and_frees_twice(void)
{
  comm_exchange *e = NULL;
  double seconds = 0;
  CHECK_OK(comm_exchange_new(test_comm, 0, &e));
  CHECK_OK(comm_exchange_poll(e));
  CHECK_OK(comm_exchange_wait(e, &seconds));
  CHECK_ALL(seconds < 1);
  sum_all(e, x, 0);
  comm_exchange_free(&e);
  CHECK_ALL(e == NULL);
  comm_exchange_free(&e);
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
      int core = 1;
      while (core * 2 <= test_size) { core *= 2; }
      for (int r = 0; r < core; ++r) { t[r] = double_value(r, i); }
      for (int r = core; r < test_size; ++r) { t[r - core] += double_value(r, i); }
      for (; core > 1; core /= 2) {
        for (int r = 0; r < core / 2; ++r) { t[r] = t[2 * r] + t[2 * r + 1]; }
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
      {"the oracle tells the tree from rank order", test_oracle_differs_from_rank_order},
      {"repeated: same bits", test_exchange_repeated_gives_the_same_bits},
      {"integers: exact", test_exchange_of_integers_is_exact},
      {"NaN: same bits on all ranks", test_exchange_of_nans_gives_the_same_bits_on_all_ranks},
      {"polls alone finish it", test_poll_without_wait_finishes},
      {"two exchanges and collectives at once", test_exchange_among_other_calls_is_undisturbed},
      {"two exchanges in other orders", test_two_exchanges_polled_in_other_orders_stay_apart},
      {"no allocation after new", test_exchange_allocates_nothing_after_new},
      {"wait adds its seconds", test_wait_adds_its_seconds},
      {"idle: poll, wait, free twice", test_idle_exchange_polls_waits_and_frees_twice},
      {"tree sum of doubles: equals the tree", test_tree_sum_equals_the_tree},
  };
  return run_mpi_cases(argc, argv, "exchange", sizeof cases / sizeof cases[0], cases);
}
