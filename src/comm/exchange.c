/*
 * Within a team each rank adds up its share of the teams' parts, where they lie. Between
 * the teams the shares travel: a list of legs, walked by a state machine that
 * never blocks unless it is told to.
 *
 * Four ranks, x cut in quarters A B C D; `+` adds what arrives, `=` stores it:
 *
 *   leg   distance   rank 0         rank 1         rank 2         rank 3
 *   0     1          send CD        send AB        send CD        send AB
 *                    AB += rank 1   CD += rank 0   AB += rank 3   CD += rank 2
 *   1     2          send B         send D         send A         send C
 *                    A += rank 2    C += rank 3    B += rank 0    D += rank 1
 *   2     2          B = rank 2     D = rank 3     A = rank 0     C = rank 1
 *   3     1          CD = rank 1    AB = rank 0    CD = rank 3    AB = rank 2
 *
 * The way back is the way out with send and receive exchanged, in reverse. Each
 * element is added up by one rank per pair, in the order (0 + 1) + (2 + 3), and
 * copied to the others: so the bits are the same everywhere, even those of a NaN.
 * With P no power of two, a first leg folds rank core + i onto rank i, core
 * being the largest power of two below P, and the last one sends it the result.
 *
 * A leg travels in chunks: a chunk is added while it is still in the cache, the
 * next ones are on their way meanwhile, and a poll never does more than the
 * chunks that have arrived.
 */
#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include "comm/team.h"
#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

/*
 * [reals] in a chunk: 1 MiB of float, a part of a second-level cache. Smaller
 * ones measured slower through TCP, larger ones no faster through shared memory.
 */
#define CHUNK ((size_t)1 << 18)
_Static_assert(CHUNK <= INT_MAX, "a chunk is one MPI message");

/* Chunks under way at once, in each direction. */
#define SLOTS 4

/* [reals] Where x is cut, so that whole vectors and cache lines stay together. */
#define GRAIN ((size_t)16)

/* A rank has at most one leg for each of the 31 bits of a rank number and a fold, out and back. */
#define LEGS_MAX 64

/* Largest n of comm_tree_sum. */
#define TREE_MAX 64

/* [reals] of a team's parts that are added up at a time: all sums on the way stay in the first-level cache. */
#define PIECE ((size_t)1024)

/* Sums on the way at once: one for each level of a team's tree. */
#define DEPTH 12
_Static_assert(1 << (DEPTH - 1) >= COMM_TEAM_MAX, "the tree of the largest team");

/* What one partner and this rank send each other. */
typedef struct leg {
  int partner;
  size_t send, n_send; /* elements of x that go */
  size_t recv, n_recv; /* elements of x that come */
  bool add;            /* += what comes; else = */
} leg;

struct comm_exchange {
  const comm_team *team;
  int rank, size; /* of this team among the teams */
  size_t max_n;
  unroll_real *inbox; /* (SLOTS, CHUNK), cut off at max_n: chunks to be added */
  unroll_real *x;     /* this rank's share of what is under way */
  size_t n_legs, now; /* legs[now] is under way; none when now == n_legs */
  leg legs[LEGS_MAX];
  size_t sent, received;           /* elements of this leg for which a message was posted */
  int in_flight;                   /* messages posted and not yet complete */
  MPI_Request requests[2 * SLOTS]; /* receives, then sends */
  size_t first[SLOTS];             /* the chunk that comes in is x[first, first + count) */
  size_t count[SLOTS];
};

/* x[i] += y[i] */
static void add(size_t n, const unroll_real *restrict y, unroll_real *restrict x)
{
  for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
}

/* Largest power of two that is at most P. */
static int core_of(int P)
{
  int core = 1;
  while (core <= P / 2) { core *= 2; }
  return core;
}

/* ------------------------------------------------------------- create, free */

unroll_status comm_exchange_new(const comm_team *team, comm_exchange **out)
{
  unroll_status st = UNROLL_OK;
  comm_exchange *e = NULL;
  size_t max_n = team->each / sizeof *e->x, room = max_n < SLOTS * CHUNK ? max_n : SLOTS * CHUNK;

  UNROLL_TRY(memory_new(1, sizeof *e, "an exchange", &e));
  e->team = team;
  UNROLL_TRY_MPI(MPI_Comm_rank(team->across, &e->rank));
  UNROLL_TRY_MPI(MPI_Comm_size(team->across, &e->size));
  e->max_n = max_n;
  for (size_t k = 0; k < 2 * SLOTS; ++k) { e->requests[k] = MPI_REQUEST_NULL; }
  if (e->size > 1) {
    UNROLL_TRY(memory_new(room, sizeof *e->inbox, "buffer of the exchange", &e->inbox));
  }
  *out = e;
  e = NULL;

cleanup:
  comm_exchange_free(&e);
  return st;
}

void comm_exchange_free(comm_exchange **exchange)
{
  comm_exchange *e = *exchange;
  if (e == NULL) { return; }

  /* Something is under way only after a failed MPI call, and then the job ends:
   * but until it does, nothing may arrive in memory that is no longer ours. */
  for (size_t k = 0; k < 2 * SLOTS; ++k) {
    if (e->requests[k] != MPI_REQUEST_NULL) {
      (void)MPI_Cancel(&e->requests[k]);
      (void)MPI_Request_free(&e->requests[k]);
    }
  }
  memory_free(&e->inbox);
  memory_free(exchange);
}

/* --------------------------------------------------------------------- plan */

/* List the legs of this rank for n elements. */
static void plan(comm_exchange *e, size_t n)
{
  const int core = core_of(e->size);
  size_t k = 0;

  if (e->rank >= core) {
    e->legs[k++] = (leg){.partner = e->rank - core, .n_send = n};
  } else {
    size_t lo = 0;
    if (e->rank + core < e->size) {
      e->legs[k++] = (leg){.partner = e->rank + core, .n_recv = n, .add = true};
    }
    for (int d = 1; d < core; d *= 2) {
      size_t half = (n / 2 + GRAIN - 1) / GRAIN * GRAIN;
      half = half < n ? half : n;
      leg *l = &e->legs[k++];
      if ((e->rank & d) == 0) {
        *l = (leg){e->rank ^ d, lo + half, n - half, lo, half, true};
        n = half;
      } else {
        *l = (leg){e->rank ^ d, lo, half, lo + half, n - half, true};
        lo += half;
        n -= half;
      }
    }
  }

  e->n_legs = 2 * k;
  for (size_t i = 0; i < k; ++i) {
    const leg *l = &e->legs[k - 1 - i];
    e->legs[k + i] = (leg){l->partner, l->recv, l->n_recv, l->send, l->n_send, false};
  }
}

/* ------------------------------------------------------------ state machine */

/* Post the next messages of this leg, as many as there are free slots. */
static unroll_status post(comm_exchange *e)
{
  unroll_status st = UNROLL_OK;
  const MPI_Datatype type = sizeof(unroll_real) == sizeof(float) ? MPI_FLOAT : MPI_DOUBLE;
  const leg *l = &e->legs[e->now];

  for (size_t k = 0; k < SLOTS && e->received < l->n_recv; ++k) {
    if (e->requests[k] != MPI_REQUEST_NULL) { continue; }
    size_t left = l->n_recv - e->received;
    e->first[k] = l->recv + e->received;
    e->count[k] = left < CHUNK ? left : CHUNK;
    UNROLL_TRY_MPI(MPI_Irecv(l->add ? e->inbox + k * CHUNK : e->x + e->first[k], (int)e->count[k],
                             type, l->partner, COMM_TAG, e->team->across, &e->requests[k]));
    e->received += e->count[k];
    e->in_flight += 1;
  }
  for (size_t k = SLOTS; k < 2 * SLOTS && e->sent < l->n_send; ++k) {
    if (e->requests[k] != MPI_REQUEST_NULL) { continue; }
    size_t left = l->n_send - e->sent;
    size_t count = left < CHUNK ? left : CHUNK;
    UNROLL_TRY_MPI(MPI_Isend(e->x + l->send + e->sent, (int)count, type, l->partner, COMM_TAG,
                             e->team->across, &e->requests[k]));
    e->sent += count;
    e->in_flight += 1;
  }

cleanup:
  return st;
}

/* Post what can be posted; go on to the next leg where there is nothing left to wait for. */
static unroll_status post_legs(comm_exchange *e)
{
  unroll_status st = UNROLL_OK;

  while (e->now < e->n_legs) {
    UNROLL_TRY(post(e));
    if (e->in_flight > 0) { break; }
    e->now += 1;
    e->sent = 0;
    e->received = 0;
  }

cleanup:
  return st;
}

/* Take in the messages that are complete, of which there is at least one when `blocking`. */
static unroll_status advance(comm_exchange *e, bool blocking)
{
  unroll_status st = UNROLL_OK;
  int n_done = 0;
  int done[2 * SLOTS];

  if (e->now == e->n_legs) { goto cleanup; }
  UNROLL_TRY_MPI((blocking ? MPI_Waitsome : MPI_Testsome)(2 * SLOTS, e->requests, &n_done, done,
                                                          MPI_STATUSES_IGNORE));
  for (int i = 0; i < n_done; ++i) {
    size_t k = (size_t)done[i];
    if (k < SLOTS && e->legs[e->now].add) {
      add(e->count[k], e->inbox + k * CHUNK, e->x + e->first[k]);
    }
  }
  e->in_flight -= n_done;
  if (n_done > 0) { UNROLL_TRY(post_legs(e)); }

cleanup:
  return st;
}

/* ------------------------------------------------------------ within a team */

/*
 * Sum of x[at, at + n) over the ranks [first, first + count) of the team, count a power of two, and those
 * folded onto them: a balanced tree. Where it lies: in `sums`, or in the part of a rank that is alone.
 */
static const unroll_real *sum_of(const comm_team *team, int first, int count, size_t at, size_t n,
                                 unroll_real (*sums)[PIECE])
{
  const unroll_real *a = NULL, *b = NULL;
  if (count == 1) {
    int folded = first + core_of(team->size);
    a = (const unroll_real *)comm_team_part(team, first) + at;
    if (folded >= team->size) { return a; }
    b = (const unroll_real *)comm_team_part(team, folded) + at;
  } else {
    a = sum_of(team, first, count / 2, at, n, sums);
    b = sum_of(team, first + count / 2, count / 2, at, n, sums + 1);
  }
  for (size_t i = 0; i < n; ++i) { (*sums)[i] = a[i] + b[i]; }
  return *sums;
}

/* The sum over the team of x[at, at + n), to the part of its first rank. */
static void sum_team(const comm_team *team, size_t at, size_t n)
{
  unroll_real *to = (unroll_real *)comm_team_part(team, 0) + at;
  if (team->size == 1) { return; }
#pragma omp parallel for default(none) shared(team, at, n, to) schedule(static)
  for (size_t i = 0; i < n; i += PIECE) {
    unroll_real sums[DEPTH][PIECE];
    size_t here = n - i < PIECE ? n - i : PIECE;
    memcpy(to + i, sum_of(team, 0, core_of(team->size), at + i, here, sums), here * sizeof *to);
  }
}

/* --------------------------------------------------------------- operations */

unroll_status comm_exchange_start(comm_exchange *exchange, size_t at, size_t n)
{
  const comm_team *team = exchange->team;
  size_t begin = 0, end = 0;
  assert(at + n <= exchange->max_n);
  assert(exchange->now == exchange->n_legs); /* one at a time */

  comm_team_share(team, n, GRAIN, &begin, &end);
  sum_team(team, at + begin, end - begin);
  exchange->x = (unroll_real *)comm_team_part(team, 0) + at + begin;
  exchange->now = 0;
  plan(exchange, end - begin);
  return post_legs(exchange);
}

unroll_status comm_exchange_poll(comm_exchange *exchange)
{
  return advance(exchange, false);
}

unroll_status comm_exchange_wait(comm_exchange *exchange)
{
  unroll_status st = UNROLL_OK;
  while (exchange->now < exchange->n_legs) { UNROLL_TRY(advance(exchange, true)); }

cleanup:
  return st;
}

unroll_status comm_tree_sum(unroll_comm *comm, double *x, size_t n)
{
  unroll_status st = UNROLL_OK;
  const MPI_Comm handle = comm->handle;
  const int rank = comm->rank;
  const int core = core_of(comm->size);
  const int count = (int)n;
  double y[TREE_MAX];

  assert(n <= TREE_MAX);
  if (rank >= core) {
    UNROLL_TRY_MPI(MPI_Send(x, count, MPI_DOUBLE, rank - core, COMM_TAG, handle));
    UNROLL_TRY_MPI(
        MPI_Recv(x, count, MPI_DOUBLE, rank - core, COMM_TAG, handle, MPI_STATUS_IGNORE));
    goto cleanup;
  }

  if (rank + core < comm->size) {
    UNROLL_TRY_MPI(
        MPI_Recv(y, count, MPI_DOUBLE, rank + core, COMM_TAG, handle, MPI_STATUS_IGNORE));
    for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
  }
  for (int d = 1; d < core; d *= 2) {
    UNROLL_TRY_MPI(MPI_Sendrecv(x, count, MPI_DOUBLE, rank ^ d, COMM_TAG, y, count, MPI_DOUBLE,
                                rank ^ d, COMM_TAG, handle, MPI_STATUS_IGNORE));
    for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
  }
  if (rank + core < comm->size) {
    UNROLL_TRY_MPI(MPI_Send(x, count, MPI_DOUBLE, rank + core, COMM_TAG, handle));
  }

cleanup:
  return st;
}
