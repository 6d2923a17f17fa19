#include <unroll/bench.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/median.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "comm/team.h"

#include <assert.h>
#include <math.h>

/* Repetitions at most; odd, so that the median is one of them. */
#define REPEATS 9

/* [seconds] of a block of sums: long compared with the skew of the ranks at its start. */
#define BLOCK_SECONDS 0.002
#define BLOCK_MAX     1000

typedef struct exchange_bench {
  unroll_comm *comm;
  comm_team *team;
  comm_exchange *exchange;
  unroll_real *copy; /* (n) what MPI_Allreduce sums */
  size_t n;
} exchange_bench;

static unroll_status run_exchange(exchange_bench *b)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(comm_team_fence(b->team));
  UNROLL_TRY(comm_exchange_start(b->exchange, 0, b->n));
  UNROLL_TRY(comm_exchange_wait(b->exchange));
  UNROLL_TRY(comm_team_fence(b->team));

cleanup:
  return st;
}

static unroll_status run_mpi(exchange_bench *b)
{
  return comm_sum_real_in_any_order(b->comm, b->copy, b->n);
}

/* [seconds] of one sum, the slowest rank's, over a block of `count` one behind the other. */
static unroll_status time_block(exchange_bench *b, unroll_status (*sum)(exchange_bench *),
                                size_t count, double *seconds)
{
  unroll_status st = UNROLL_OK;
  double nothing = 0.0;
  UNROLL_TRY(comm_tree_sum(b->comm, &nothing, 1)); /* all begin together */
  const double before = clock_seconds();
  for (size_t k = 0; k < count; ++k) { UNROLL_TRY(sum(b)); }
  *seconds = (clock_seconds() - before) / (double)count;
  UNROLL_TRY(comm_max_double(b->comm, seconds, 1));

cleanup:
  return st;
}

/* The exchange and MPI_Allreduce in turns. */
static unroll_status measure(exchange_bench *b, double seconds, unroll_exchange_result *r)
{
  unroll_status st = UNROLL_OK;
  double tree[REPEATS] = {0}, mpi[REPEATS] = {0}, warm = 0.0;
  size_t repeats = REPEATS;

  UNROLL_TRY(time_block(b, run_exchange, 1, &warm));
  UNROLL_TRY(time_block(b, run_mpi, 1, &warm));
  UNROLL_TRY(time_block(b, run_exchange, 1, &tree[0]));
  UNROLL_TRY(time_block(b, run_mpi, 1, &mpi[0]));
  const double both = tree[0] + mpi[0]; /* of the slowest rank: the same on all */
  const size_t count = (size_t)fmin(BLOCK_MAX, fmax(1.0, BLOCK_SECONDS / both));
  while (repeats > 1 && (double)(repeats * count) * both > seconds) { repeats -= 2; }

  const uint64_t sent = comm_exchange_sent(b->exchange);
  for (size_t k = 0; k < repeats; ++k) {
    UNROLL_TRY(time_block(b, run_exchange, count, &tree[k]));
    UNROLL_TRY(time_block(b, run_mpi, count, &mpi[k]));
  }
  r->sent = (comm_exchange_sent(b->exchange) - sent) / (repeats * count);
  UNROLL_TRY(comm_max_u64(b->comm, &r->sent, 1));
  r->seconds = tree[median_index(repeats, tree)];
  r->mpi_seconds = mpi[median_index(repeats, mpi)];

cleanup:
  return st;
}

unroll_status unroll_bench_exchange(unroll_comm *comm, uint64_t bytes, double seconds,
                                    unroll_exchange_result *result)
{
  unroll_status st = UNROLL_OK;
  exchange_bench b = {.comm = comm, .n = (size_t)bytes / sizeof *b.copy};
  unroll_exchange_result r = {.bytes = b.n * sizeof *b.copy};
  assert(b.n >= 1 && seconds > 0.0);

  UNROLL_TRY(comm_team_new(comm, (size_t)r.bytes, 0, &b.team));
  UNROLL_TRY(comm_agree(comm, comm_exchange_new(b.team, &b.exchange)));
  UNROLL_TRY(comm_agree(comm, memory_new(b.n, sizeof *b.copy, "what MPI sums", &b.copy)));
  UNROLL_TRY(measure(&b, seconds, &r));
  *result = r;

cleanup:
  memory_free(&b.copy);
  comm_exchange_free(&b.exchange);
  comm_team_free(&b.team);
  return st;
}
