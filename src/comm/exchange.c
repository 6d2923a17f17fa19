/*
 * The sum of the gradient over all ranks: an allreduce as reduce-scatter and allgather, in the fixed order of tree.h.
 *
 * Within a team each rank adds up its range of the team's segments, in shared memory. Between the teams these ranges
 * are exchanged in chunks, several in flight and independent of each other: while one is added, the next ones are on
 * the network, in both directions. A chunk passes through the levels of a plan.
 *
 * A level has groups of `radix` ranks. Reduce-scatter: each cuts its block into `radix` blocks, sends block j to member
 * j, and adds up the blocks that it receives for its own, with which it goes on to the next level. Allgather: the
 * levels in reverse order, with send and receive exchanged. Four ranks, one level; A B C D are the quarters of a chunk:
 *
 *   stage            rank 0              rank 1              rank 2              rank 3
 *   reduce-scatter   send B C D          send A C D          send A B D          send A B C
 *                    A = tree of four    B = tree of four    C = tree of four    D = tree of four
 *   allgather        send A to all       send B to all       send C to all       send D to all
 *
 * Every rank sends and receives 2 n (P - 1) / P elements of n, the least that an allreduce can do (Patarasu and Yuan
 * 2009), whatever the order of the additions: so it can be that of tree.h for every P. Each element is added up
 * by one rank of a group and copied to the others: the bits are the same everywhere, even those of a NaN.
 *
 * Up to P = RADIX_MAX ranks are one level: a depth of two messages. More ranks, if P is a power of two, are several
 * levels, each a power of two. Other P up to DIRECT_MAX are one level; beyond that the ranks above the largest power of
 * two are folded onto the lowest ones first: they send whole chunks, which costs these pairs up to 2 n.
 *
 * Messages are short enough for the eager protocol of every transport. Longer ones use a rendezvous, whose reply queues
 * behind what the receiver itself is sending: Open MPI then leaves TCP links half used, a different half each time.
 */
#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include "comm/team.h"
#include "comm/tree.h"
#include "comm/watchdog.h"
#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

/* [bytes] of a message between hosts: with its header below the 64 KiB of the eager limit of Open MPI and MPICH over
 * TCP. */
#define MESSAGE_NETWORK ((size_t)60 << 10)

/* [bytes] of a message within a host: fits into a second-level cache. */
#define MESSAGE_SAME_HOST ((size_t)1 << 20)

/* [bytes] in flight from a rank in one direction: above the bandwidth-delay product of the network. */
#define IN_FLIGHT_MAX ((size_t)4 << 20)

/* [reals] Chunks are cut at multiples of it: whole vectors and cache lines. */
#define GRAIN ((size_t)16)

/* Ranks of a level at most, a power of two: about as many messages as one latency is worth. Tests set less. */
#ifndef RADIX_MAX
#define RADIX_MAX 16
#endif

/* Ranks at most that form one level where their number is no power of two. */
#ifndef DIRECT_MAX
#define DIRECT_MAX 64
#endif

/* Levels at most: a fold, and one for each of the 31 bits of a rank. */
#define LEVELS_MAX 32

/* Ranges of the gradient that may be queued. */
#define QUEUE_MAX 256

/* Terms of a level at most. */
#define TERMS_MAX (RADIX_MAX > DIRECT_MAX ? RADIX_MAX : DIRECT_MAX)

/* The tag of a message is the number of its chunk, modulo TAG_CHUNKS, and its stage. */
#define TAG_CHUNKS 512
#define TAG_STAGES (2 * LEVELS_MAX)
_Static_assert(TAG_CHUNKS *TAG_STAGES <= 32768, "every MPI allows tags up to 32767");

/* Groups of ranks that are `distance` apart. */
typedef struct level {
  int radix; /* members of this rank's group; 1: it has no partner here */
  int index; /* of this rank among them */
  int first; /* rank of member 0; the others follow at `distance` */
  int distance;
  bool fold; /* member 0 gets all of the block, member 1 nothing */
} level;

/* Elements [at, at + n) of x. */
typedef struct range {
  size_t at, n;
} range;

/* A chunk in flight, in a slot. */
typedef struct chunk {
  range block[LEVELS_MAX + 1]; /* [k] what this rank works on at level k */
  size_t stage;                /* reduce-scatter: 0 .. n_levels - 1; then allgather */
  int number;
  int pending; /* messages of the stage that are not complete */
} chunk;

struct comm_exchange {
  const comm_team *team;
  int rank, size; /* of this team among the teams */
  size_t n_levels;
  level levels[LEVELS_MAX];
  size_t chunk_reals, inbox_reals; /* [reals] longest chunk; received for one at a level */
  size_t n_slots, n_partners;      /* chunks at once; most partners of a level */
  chunk *slots;                    /* (n_slots); a slot is free when its stage is 2 n_levels */
  unroll_real *inbox;              /* (n_slots, inbox_reals) */
  MPI_Request *requests;           /* (n_slots, 2, n_partners): receives, then sends */
  MPI_Status *statuses; /* as many: to gcc, MPICH's MPI_STATUSES_IGNORE is an array too short */
  int *done;            /* (n_slots * 2 * n_partners) scratch */
  const unroll_real **terms; /* (team->size) segments of the team */
  range queue[QUEUE_MAX];    /* a ring: ranges that are not all in slots yet, from `first` on */
  size_t first, n_queue;
  int number;           /* of the next chunk */
  int in_flight;        /* messages posted and not yet complete */
  uint64_t sent;        /* [bytes] since the exchange was made */
  unroll_status failed; /* the first failure; every later call returns it: messages may be lost */
};

static bool is_power_of_two(int P)
{
  return (P & (P - 1)) == 0;
}

/* --------------------------------------------------------------------- plan */

/* A level of groups of `radix` ranks at this distance. */
static level level_of(int rank, int distance, int radix)
{
  int index = rank / distance % radix;
  return (level){
      .radix = radix, .index = index, .first = rank - index * distance, .distance = distance};
}

/* Each rank from `pow2` on with the rank that is `pow2` lower. */
static level fold_of(int rank, int size, int pow2)
{
  int first = rank % pow2;
  return (level){.radix = first + pow2 < size ? 2 : 1,
                 .index = rank / pow2,
                 .first = first,
                 .distance = pow2,
                 .fold = true};
}

static void plan(comm_exchange *e)
{
  int pow2 = e->size;
  size_t k = 0;

  if (!is_power_of_two(e->size) && e->size <= DIRECT_MAX) {
    e->levels[k++] = level_of(e->rank, 1, e->size);
    pow2 = 1;
  } else if (!is_power_of_two(e->size)) {
    pow2 = tree_floor_pow2(e->size);
    e->levels[k++] = fold_of(e->rank, e->size, pow2);
  }
  for (int distance = 1, radix = 1; distance < pow2; distance *= radix) {
    int left = pow2 / distance;
    radix = left < RADIX_MAX ? left : RADIX_MAX;
    e->levels[k++] = level_of(e->rank % pow2, distance, radix);
  }
  assert(k <= LEVELS_MAX);
  e->n_levels = k;
}

/* The block of member j within a block. */
static range block_of(const level *l, range block, int j)
{
  size_t grains = (block.n + GRAIN - 1) / GRAIN, radix = (size_t)l->radix;
  size_t begin = grains * (size_t)j / radix * GRAIN, end = grains * ((size_t)j + 1) / radix * GRAIN;
  if (l->fold) { return (range){block.at, j == 0 ? block.n : 0}; }
  begin = begin < block.n ? begin : block.n;
  end = end < block.n ? end : block.n;
  return (range){block.at + begin, end - begin};
}

/* ------------------------------------------------------------- create, free */

static size_t min_size(size_t a, size_t b)
{
  return a < b ? a : b;
}

/* Lengths and numbers of messages and chunks, for x of at most `longest` bytes. */
static void size_buffers(comm_exchange *e, bool multi_host, size_t longest)
{
  const size_t bytes = multi_host ? MESSAGE_NETWORK : MESSAGE_SAME_HOST,
               message = bytes / sizeof *e->inbox;
  size_t radix = e->levels[0].fold ? 1 : (size_t)e->levels[0].radix;

  for (size_t k = 0; k < e->n_levels; ++k) {
    const size_t max = e->levels[k].fold ? 2 : (size_t)e->levels[k].radix;
    e->n_partners = e->n_partners > max - 1 ? e->n_partners : max - 1;
  }
  e->chunk_reals = radix * message;
  e->inbox_reals = e->n_partners * message;
  e->n_slots = IN_FLIGHT_MAX / (bytes * e->n_partners);
  e->n_slots = e->n_slots > 2 ? e->n_slots : 2;

  size_t max = longest / sizeof *e->inbox; /* a short gradient fills few slots */
  e->n_slots = min_size(e->n_slots, max / e->chunk_reals + 2);
}

/* Buffers for all that is in flight. */
static unroll_status alloc_buffers(comm_exchange *e)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(memory_new(e->n_slots, sizeof *e->slots, "pieces of the exchange", &e->slots));
  for (size_t s = 0; s < e->n_slots; ++s) { e->slots[s].stage = 2 * e->n_levels; }
  UNROLL_TRY(memory_new(e->n_slots * e->inbox_reals, sizeof *e->inbox, "buffer of the exchange",
                        &e->inbox));
  const size_t n_requests = e->n_slots * 2 * e->n_partners;
  UNROLL_TRY(memory_new(n_requests, sizeof *e->done, "messages of the exchange", &e->done));
  UNROLL_TRY(memory_new(n_requests, sizeof *e->statuses, "messages of the exchange", &e->statuses));
  UNROLL_TRY(memory_new(n_requests, sizeof *e->requests, "messages of the exchange", &e->requests));
  for (size_t k = 0; k < n_requests; ++k) { e->requests[k] = MPI_REQUEST_NULL; }

cleanup:
  return st;
}

static void free_buffers(comm_exchange *e)
{
  memory_free(&e->requests);
  memory_free(&e->statuses);
  memory_free(&e->done);
  memory_free(&e->inbox);
  memory_free(&e->slots);
}

unroll_status comm_exchange_new(const comm_team *team, comm_exchange **out)
{
  unroll_status st = UNROLL_OK;
  comm_exchange *e = NULL;

  UNROLL_TRY(memory_new(1, sizeof *e, "an exchange", &e));
  e->team = team;
  UNROLL_TRY_MPI(MPI_Comm_rank(team->across, &e->rank));
  UNROLL_TRY_MPI(MPI_Comm_size(team->across, &e->size));
  UNROLL_TRY(memory_new((size_t)team->size, sizeof *e->terms, "parts of the team", &e->terms));
  plan(e);
  if (e->size > 1) {
    size_buffers(e, team->multi_host, team->segment_bytes);
    UNROLL_TRY(alloc_buffers(e));
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

  /* Messages are in flight here only after a failed MPI call, and then the job ends:
   * until it does, nothing may be received into freed memory. */
  for (size_t k = 0; e->requests != NULL && k < e->n_slots * 2 * e->n_partners; ++k) {
    if (e->requests[k] != MPI_REQUEST_NULL) {
      (void)MPI_Cancel(&e->requests[k]);
      (void)MPI_Request_free(&e->requests[k]);
    }
  }
  memory_free(&e->terms);
  free_buffers(e);
  memory_free(exchange);
}

/* ------------------------------------------------------------ state machine */

static unroll_real *x_of(const comm_exchange *e)
{
  return comm_team_segment(e->team, 0);
}

static MPI_Datatype type_of_reals(void)
{
  return sizeof(unroll_real) == sizeof(float) ? MPI_FLOAT : MPI_DOUBLE;
}

/* The level of a stage. */
static size_t level_of_stage(const comm_exchange *e, size_t stage)
{
  return stage < e->n_levels ? stage : 2 * e->n_levels - 1 - stage;
}

/* Post the messages of a stage. Reduce-scatter: send the others their blocks, receive mine of theirs into the inbox;
 * allgather: send mine to all, receive theirs in place. */
static unroll_status post(comm_exchange *e, size_t slot)
{
  unroll_status st = UNROLL_OK;
  chunk *p = &e->slots[slot];
  const size_t k = level_of_stage(e, p->stage);
  const level *l = &e->levels[k];
  const bool scatter = p->stage < e->n_levels;
  const range mine = p->block[k + 1];
  const int tag = p->number * TAG_STAGES + (int)p->stage;
  MPI_Request *receives = e->requests + slot * 2 * e->n_partners, *sends = receives + e->n_partners;

  for (int i = 1; i < l->radix;
       ++i) { /* starting with the next rank: not all send to the same one at once */
    const int j = (l->index + i) % l->radix, partner = l->first + j * l->distance;
    const range theirs = block_of(l, p->block[k], j);
    const range in = scatter ? mine : theirs, out = scatter ? theirs : mine;
    unroll_real *to =
        scatter ? e->inbox + slot * e->inbox_reals + (size_t)(i - 1) * mine.n : x_of(e) + in.at;
    if (in.n > 0) {
      UNROLL_TRY_MPI(MPI_Irecv(to, (int)in.n, type_of_reals(), partner, tag, e->team->across,
                               &receives[i - 1]));
      p->pending += 1;
      e->in_flight += 1;
    }
    if (out.n > 0) {
      UNROLL_TRY_MPI(MPI_Isend(x_of(e) + out.at, (int)out.n, type_of_reals(), partner, tag,
                               e->team->across, &sends[i - 1]));
      p->pending += 1;
      e->in_flight += 1;
      e->sent += out.n * sizeof(unroll_real);
    }
  }

cleanup:
  return st;
}

/* All messages of a stage are complete: add up what was received, in the reduce-scatter. */
static void reduce(const comm_exchange *e, size_t slot)
{
  const chunk *p = &e->slots[slot];
  const size_t k = level_of_stage(e, p->stage);
  const level *l = &e->levels[k];
  const range mine = p->block[k + 1];
  const unroll_real *terms[TERMS_MAX];

  if (p->stage >= e->n_levels || mine.n == 0) { return; }
  for (int i = 0; i < l->radix; ++i) {
    terms[(l->index + i) % l->radix] =
        i == 0 ? x_of(e) + mine.at : e->inbox + slot * e->inbox_reals + (size_t)(i - 1) * mine.n;
  }
  if (l->radix > 1) { tree_sum(l->radix, terms, mine.n, x_of(e) + mine.at); }
}

/* Advance a chunk through its stages until one has messages to wait for. */
static unroll_status progress_slot(comm_exchange *e, size_t slot)
{
  unroll_status st = UNROLL_OK;
  chunk *p = &e->slots[slot];

  while (p->stage < 2 * e->n_levels) {
    UNROLL_TRY(post(e, slot));
    if (p->pending > 0) { break; }
    reduce(e, slot);
    p->stage += 1;
  }

cleanup:
  return st;
}

/* The blocks of a chunk that this rank works on, level by level. */
static void split_blocks(const comm_exchange *e, range whole, range *block)
{
  block[0] = whole;
  for (size_t k = 0; k < e->n_levels; ++k) {
    block[k + 1] = block_of(&e->levels[k], block[k], e->levels[k].index);
  }
}

/* Put the next chunk of the queue into a slot. */
static unroll_status begin_chunk(comm_exchange *e, size_t slot)
{
  chunk *p = &e->slots[slot];
  range *next = &e->queue[e->first];
  const range whole = {next->at, min_size(next->n, e->chunk_reals)};

  *p = (chunk){.number = e->number};
  e->number = (e->number + 1) % TAG_CHUNKS;
  split_blocks(e, whole, p->block);
  next->at += whole.n;
  next->n -= whole.n;
  if (next->n == 0) {
    e->first = (e->first + 1) % QUEUE_MAX;
    e->n_queue -= 1;
  }
  return progress_slot(e, slot);
}

/* Fill the free slots, in the order of the queue. */
static unroll_status fill_slots(comm_exchange *e)
{
  unroll_status st = UNROLL_OK;
  for (size_t s = 0; s < e->n_slots && e->n_queue > 0; ++s) {
    while (e->slots[s].stage == 2 * e->n_levels && e->n_queue > 0) {
      UNROLL_TRY(begin_chunk(e, s));
    }
  }

cleanup:
  return st;
}

/* A rank of the communicator whose message this one waits for. */
static int awaited_rank(const comm_exchange *e)
{
  int team = e->rank;
  for (size_t k = 0; k < e->n_slots * 2 * e->n_partners; ++k) {
    if (e->requests[k] == MPI_REQUEST_NULL) { continue; }
    const chunk *p = &e->slots[k / (2 * e->n_partners)];
    const level *l = &e->levels[level_of_stage(e, p->stage)];
    const int i = (int)(k % e->n_partners) + 1; /* as post counts */
    team = l->first + (l->index + i) % l->radix * l->distance;
    break;
  }
  return team * e->team->size + e->team->rank;
}

/* Handle the messages that are complete; `blocking`: wait until at least one is. */
static unroll_status progress(comm_exchange *e, bool blocking)
{
  unroll_status st = e->failed;
  const size_t each = 2 * e->n_partners;
  int n_done = 0;

  if (st != UNROLL_OK || e->in_flight == 0) { goto cleanup; }
  if (blocking) { watchdog_wait_begin(awaited_rank(e), "sum of the gradient"); }
  UNROLL_TRY_MPI((blocking ? MPI_Waitsome : MPI_Testsome)((int)(e->n_slots * each), e->requests,
                                                          &n_done, e->done, e->statuses));
  assert(n_done >= 0); /* MPI_UNDEFINED, were none in flight */
  e->in_flight -= n_done;
  for (int i = 0; i < n_done; ++i) {
    size_t slot = (size_t)e->done[i] / each;
    chunk *p = &e->slots[slot];
    p->pending -= 1;
    if (p->pending > 0) { continue; }
    reduce(e, slot);
    p->stage += 1;
    UNROLL_TRY(progress_slot(e, slot));
  }
  if (n_done > 0) { UNROLL_TRY(fill_slots(e)); }

cleanup:
  e->failed = st;
  watchdog_wait_end();
  return st;
}

/* ------------------------------------------------------------ within a team */

/* The sum over the team of x[at, at + n), to the segment of its first rank. */
static void sum_team(const comm_exchange *e, size_t at, size_t n)
{
  const comm_team *team = e->team;
  const size_t block = 4096; /* elements added at a time by a thread */
  unroll_real *to = x_of(e) + at;
  const int size = team->size;
  const unroll_real **terms = e->terms;
  if (size == 1) { return; }

  for (int r = 0; r < size; ++r) { terms[r] = comm_team_segment(team, r); }
#pragma omp parallel default(none) shared(size, at, n, to, terms, block)
  {
    const unroll_real *here[TREE_TERMS_MAX];
#pragma omp for schedule(static)
    for (size_t i = 0; i < n; i += block) {
      for (int r = 0; r < size; ++r) { here[r] = terms[r] + at + i; }
      tree_sum(size, here, n - i < block ? n - i : block, to + i);
    }
  }
}

/* --------------------------------------------------------------- operations */

unroll_status comm_exchange_start(comm_exchange *exchange, size_t at, size_t n)
{
  unroll_status st = UNROLL_OK;
  comm_exchange *e = exchange;
  size_t begins = 0, ends = 0;
  assert(at + n <= e->team->segment_bytes / sizeof(unroll_real));

  UNROLL_TRY(e->failed); /* of an earlier poll */
  comm_team_owned_range(e->team, n, GRAIN, &begins, &ends);
  sum_team(e, at + begins, ends - begins);
  if (e->size == 1 || begins == ends) { goto cleanup; }
  while (e->n_queue == QUEUE_MAX) { UNROLL_TRY(progress(e, true)); }
  e->queue[(e->first + e->n_queue) % QUEUE_MAX] = (range){at + begins, ends - begins};
  e->n_queue += 1;
  UNROLL_TRY(fill_slots(e));

cleanup:
  e->failed = st;
  return st;
}

unroll_status comm_exchange_poll(comm_exchange *exchange)
{
  return progress(exchange, false);
}

unroll_status comm_exchange_wait(comm_exchange *exchange)
{
  unroll_status st = exchange->failed;
  while (st == UNROLL_OK && exchange->in_flight > 0) { st = progress(exchange, true); }
  return st;
}

bool comm_exchange_has_peers(const comm_exchange *exchange)
{
  return exchange->size > 1;
}

uint64_t comm_exchange_sent(const comm_exchange *exchange)
{
  return exchange->sent;
}

/* --------------------------------------------------------------------- cost */

/* The plan of rank 0 of `ranks` teams, without buffers. */
static comm_exchange plan_only(int ranks, bool multi_host, size_t bytes)
{
  comm_exchange e = {.size = ranks};
  plan(&e);
  if (ranks > 1) { size_buffers(&e, multi_host, bytes); }
  return e;
}

unroll_status comm_exchange_predict_memory(int ranks, bool multi_host, size_t bytes, uint64_t *held)
{
  unroll_status st = UNROLL_OK;
  comm_exchange e = plan_only(ranks, multi_host, bytes);
  const uint64_t before = memory_live_bytes();

  if (ranks > 1) { UNROLL_TRY(alloc_buffers(&e)); }
  *held = memory_live_bytes() - before;

cleanup:
  free_buffers(&e);
  return st;
}

uint64_t comm_exchange_predict_sent(int ranks, bool multi_host, size_t n)
{
  const comm_exchange e = plan_only(ranks, multi_host, n * sizeof *e.inbox);
  range block[LEVELS_MAX + 1];
  uint64_t sum = 0; /* [reals] */

  for (size_t at = 0; ranks > 1 && at < n; at += e.chunk_reals) {
    split_blocks(&e, (range){at, min_size(n - at, e.chunk_reals)}, block);
    for (size_t k = 0; k < e.n_levels;
         ++k) { /* reduce-scatter: the others' blocks; allgather: mine to each */
      sum += block[k].n - block[k + 1].n + ((size_t)e.levels[k].radix - 1) * block[k + 1].n;
    }
  }
  return sum * sizeof *e.inbox;
}

int comm_exchange_predict_depth(int ranks)
{
  return 2 * (int)plan_only(ranks, true, 0).n_levels;
}

/* ------------------------------------------------------------------- losses */

/* Largest n of comm_tree_sum. */
#define TREE_SUM_MAX 64

unroll_status comm_tree_sum(unroll_comm *comm, double *x, size_t n)
{
  unroll_status st = UNROLL_OK;
  const MPI_Comm handle = comm->handle;
  const int rank = comm->rank;
  const int pow2 = tree_floor_pow2(comm->size);
  const int count = (int)n;
  double y[TREE_SUM_MAX];

  assert(n <= TREE_SUM_MAX);
  if (rank >= pow2) {
    watchdog_wait_begin(rank - pow2, "sum of the losses");
    UNROLL_TRY_MPI(MPI_Send(x, count, MPI_DOUBLE, rank - pow2, COMM_TAG, handle));
    UNROLL_TRY_MPI(
        MPI_Recv(x, count, MPI_DOUBLE, rank - pow2, COMM_TAG, handle, MPI_STATUS_IGNORE));
    goto cleanup;
  }

  if (rank + pow2 < comm->size) {
    watchdog_wait_begin(rank + pow2, "sum of the losses");
    UNROLL_TRY_MPI(
        MPI_Recv(y, count, MPI_DOUBLE, rank + pow2, COMM_TAG, handle, MPI_STATUS_IGNORE));
    for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
  }
  for (int d = 1; d < pow2; d *= 2) {
    watchdog_wait_begin(rank ^ d, "sum of the losses");
    UNROLL_TRY_MPI(MPI_Sendrecv(x, count, MPI_DOUBLE, rank ^ d, COMM_TAG, y, count, MPI_DOUBLE,
                                rank ^ d, COMM_TAG, handle, MPI_STATUS_IGNORE));
    for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
  }
  if (rank + pow2 < comm->size) {
    watchdog_wait_begin(rank + pow2, "sum of the losses");
    UNROLL_TRY_MPI(MPI_Send(x, count, MPI_DOUBLE, rank + pow2, COMM_TAG, handle));
  }

cleanup:
  watchdog_wait_end();
  return st;
}
