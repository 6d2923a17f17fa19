/*
 * Within a team each rank adds up its share of the teams' parts, where they lie. Between the teams the shares travel,
 * in pieces that pass through the levels of a plan, several at a time and independent of each other: while one is
 * added, the next ones are on the wire, in both directions.
 *
 * A level has groups of `radix` ranks. Each cuts the block at hand into as many parts, sends part j to member j, and
 * adds up the parts that come to its own; with that it goes on to the next level. The way back is the way out with
 * send and receive exchanged. Four ranks, one level; A B C D are the quarters of a piece:
 *
 *   stage   rank 0              rank 1              rank 2              rank 3
 *   out     send B C D          send A C D          send A B D          send A B C
 *           A = tree of four    B = tree of four    C = tree of four    D = tree of four
 *   back    send A to all       send B to all       send C to all       send D to all
 *
 * Every rank sends and receives 2 n (P - 1) / P elements of n, the least that an allreduce can do (Patarasu and Yuan
 * 2009), in whatever order the terms are added: so the order is that of tree.h for every P. Each element is added up
 * by one rank of a group and copied to the others: the bits are the same everywhere, even those of a NaN.
 *
 * P = RADIX_MAX ranks at most are one level: two messages deep. More are several levels of a power of two each, where
 * P is one; else one level up to DIRECT_MAX, and beyond that the ranks above the largest power of two are folded onto
 * the lowest ones first, whole pieces, which costs those up to 2 n.
 *
 * Messages are short enough that every transport sends them at once. Longer ones wait for the receiver's word, which
 * stands in line behind what the receiver itself is sending: Open MPI then leaves TCP links half used, a different
 * half each time.
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

/* [bytes] of a message between hosts: with its header below the 64 KiB that Open MPI and MPICH send at once over TCP. */
#define MESSAGE_WIRE ((size_t)60 << 10)

/* [bytes] of a message where no wire lies between the ranks: a part of a second-level cache. */
#define MESSAGE_HOST ((size_t)1 << 20)

/* [bytes] that a rank may have under way in one direction, so that a long wire is full. */
#define UNDER_WAY ((size_t)4 << 20)

/* [reals] Where a piece is cut, so that whole vectors and cache lines stay together. */
#define GRAIN ((size_t)16)

/* Ranks of a level, a power of two: a latency costs about as much as so many messages. Tests set less. */
#ifndef RADIX_MAX
#define RADIX_MAX 16
#endif

/* Ranks that are no power of two and one level. */
#ifndef DIRECT_MAX
#define DIRECT_MAX 64
#endif

/* A fold, and a level for each of the 31 bits of a rank number at most. */
#define LEVELS_MAX 32

/* Parts of the gradient that may wait for their turn. */
#define QUEUE 256

/* Terms of a level at most. */
#define TERMS_MAX (RADIX_MAX > DIRECT_MAX ? RADIX_MAX : DIRECT_MAX)

/* Pieces are told apart by their tags: the number of the piece, modulo this, and its stage. */
#define TAG_PIECES 512
#define TAG_STAGES (2 * LEVELS_MAX)
_Static_assert(TAG_PIECES *TAG_STAGES <= 32768, "every MPI allows tags up to 32767");

/* Groups of ranks at a distance from each other. */
typedef struct level {
  int radix; /* members of this rank's group; 1: it has no partner here */
  int index; /* of this rank among them */
  int first; /* rank of member 0; the others follow at `distance` */
  int distance;
  bool fold; /* member 0 gets all of the block, member 1 nothing */
} level;

/* Elements of x. */
typedef struct span {
  size_t at, n;
} span;

/* A piece on its way, in a slot. */
typedef struct piece {
  span block[LEVELS_MAX + 1]; /* [k] what this rank works on at level k */
  size_t stage;               /* levels out, then back */
  int number, pending;        /* messages of the stage that are not complete */
} piece;

struct comm_exchange {
  const comm_team *team;
  int rank, size; /* of this team among the teams */
  size_t n_levels;
  level levels[LEVELS_MAX];
  size_t n_piece, n_inbox;    /* [reals] longest piece; what comes to one for a level */
  size_t n_slots, n_partners; /* pieces at once; most partners of a level */
  piece *slots;               /* (n_slots); a slot is free when its stage is 2 n_levels */
  unroll_real *inbox;         /* (n_slots, n_inbox) */
  MPI_Request *requests;      /* (n_slots, 2, n_partners): receives, then sends */
  MPI_Status *statuses; /* as many: to gcc, MPICH's MPI_STATUSES_IGNORE is an array too short */
  int *done;            /* (n_slots * 2 * n_partners) scratch */
  const unroll_real **terms; /* (team->size) parts of the team */
  span queue[QUEUE];         /* parts that are not all in slots yet, from `first` on */
  size_t first, n_queue;
  int number;           /* of the next piece */
  int in_flight;        /* messages posted and not yet complete */
  uint64_t sent;        /* [bytes] since the exchange was made */
  unroll_status failed; /* the first failure; every later call returns it: messages may be lost */
};

static bool is_power_of_two(int P)
{
  return (P & (P - 1)) == 0;
}

/* --------------------------------------------------------------------- plan */

/* A level of groups of `radix` neighbours at this distance. */
static level level_of(int rank, int distance, int radix)
{
  int index = rank / distance % radix;
  return (level){
      .radix = radix, .index = index, .first = rank - index * distance, .distance = distance};
}

/* Ranks from `core` on with those `core` below. */
static level fold_of(int rank, int size, int core)
{
  int first = rank % core;
  return (level){.radix = first + core < size ? 2 : 1,
                 .index = rank / core,
                 .first = first,
                 .distance = core,
                 .fold = true};
}

static void plan(comm_exchange *e)
{
  int core = e->size;
  size_t k = 0;

  if (!is_power_of_two(e->size) && e->size <= DIRECT_MAX) {
    e->levels[k++] = level_of(e->rank, 1, e->size);
    core = 1;
  } else if (!is_power_of_two(e->size)) {
    core = tree_floor_pow2(e->size);
    e->levels[k++] = fold_of(e->rank, e->size, core);
  }
  for (int distance = 1, radix = 1; distance < core; distance *= radix) {
    int left = core / distance;
    radix = left < RADIX_MAX ? left : RADIX_MAX;
    e->levels[k++] = level_of(e->rank % core, distance, radix);
  }
  assert(k <= LEVELS_MAX);
  e->n_levels = k;
}

/* Part j of a block. */
static span cut(const level *l, span block, int j)
{
  size_t grains = (block.n + GRAIN - 1) / GRAIN, radix = (size_t)l->radix;
  size_t begin = grains * (size_t)j / radix * GRAIN, end = grains * ((size_t)j + 1) / radix * GRAIN;
  if (l->fold) { return (span){block.at, j == 0 ? block.n : 0}; }
  begin = begin < block.n ? begin : block.n;
  end = end < block.n ? end : block.n;
  return (span){block.at + begin, end - begin};
}

/* ------------------------------------------------------------- create, free */

static size_t least(size_t a, size_t b)
{
  return a < b ? a : b;
}

/* Lengths of messages and pieces of what has at most so many bytes. */
static void size_room(comm_exchange *e, bool multi_host, size_t longest)
{
  const size_t bytes = multi_host ? MESSAGE_WIRE : MESSAGE_HOST, message = bytes / sizeof *e->inbox;
  size_t radix = e->levels[0].fold ? 1 : (size_t)e->levels[0].radix;

  for (size_t k = 0; k < e->n_levels; ++k) {
    const size_t most = e->levels[k].fold ? 2 : (size_t)e->levels[k].radix;
    e->n_partners = e->n_partners > most - 1 ? e->n_partners : most - 1;
  }
  e->n_piece = radix * message;
  e->n_inbox = e->n_partners * message;
  e->n_slots = UNDER_WAY / (bytes * e->n_partners);
  e->n_slots = e->n_slots > 2 ? e->n_slots : 2;

  size_t most = longest / sizeof *e->inbox; /* a short gradient fills few slots */
  e->n_slots = least(e->n_slots, most / e->n_piece + 2);
}

/* Room for what is under way. */
static unroll_status make_room(comm_exchange *e)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(memory_new(e->n_slots, sizeof *e->slots, "pieces of the exchange", &e->slots));
  for (size_t s = 0; s < e->n_slots; ++s) { e->slots[s].stage = 2 * e->n_levels; }
  UNROLL_TRY(
      memory_new(e->n_slots * e->n_inbox, sizeof *e->inbox, "buffer of the exchange", &e->inbox));
  const size_t n_requests = e->n_slots * 2 * e->n_partners;
  UNROLL_TRY(memory_new(n_requests, sizeof *e->done, "messages of the exchange", &e->done));
  UNROLL_TRY(memory_new(n_requests, sizeof *e->statuses, "messages of the exchange", &e->statuses));
  UNROLL_TRY(memory_new(n_requests, sizeof *e->requests, "messages of the exchange", &e->requests));
  for (size_t k = 0; k < n_requests; ++k) { e->requests[k] = MPI_REQUEST_NULL; }

cleanup:
  return st;
}

static void free_room(comm_exchange *e)
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
    size_room(e, team->multi_host, team->segment_bytes);
    UNROLL_TRY(make_room(e));
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
  for (size_t k = 0; e->requests != NULL && k < e->n_slots * 2 * e->n_partners; ++k) {
    if (e->requests[k] != MPI_REQUEST_NULL) {
      (void)MPI_Cancel(&e->requests[k]);
      (void)MPI_Request_free(&e->requests[k]);
    }
  }
  memory_free(&e->terms);
  free_room(e);
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

/* Where a level and its direction stand in the stages. */
static size_t level_at(const comm_exchange *e, size_t stage)
{
  return stage < e->n_levels ? stage : 2 * e->n_levels - 1 - stage;
}

/* Post the messages of a stage: out, the others' parts of the block go and mine of theirs come to the inbox; back, my
 * part goes to all and theirs come to their place. */
static unroll_status post(comm_exchange *e, size_t slot)
{
  unroll_status st = UNROLL_OK;
  piece *p = &e->slots[slot];
  const size_t k = level_at(e, p->stage);
  const level *l = &e->levels[k];
  const bool out = p->stage < e->n_levels;
  const span mine = p->block[k + 1];
  const int tag = p->number * TAG_STAGES + (int)p->stage;
  MPI_Request *receives = e->requests + slot * 2 * e->n_partners, *sends = receives + e->n_partners;

  for (int i = 1; i < l->radix;
       ++i) { /* each begins with its neighbour: no rank is met by all at once */
    const int j = (l->index + i) % l->radix, partner = l->first + j * l->distance;
    const span theirs = cut(l, p->block[k], j);
    const span come = out ? mine : theirs, go = out ? theirs : mine;
    unroll_real *to =
        out ? e->inbox + slot * e->n_inbox + (size_t)(i - 1) * mine.n : x_of(e) + come.at;
    if (come.n > 0) {
      UNROLL_TRY_MPI(MPI_Irecv(to, (int)come.n, type_of_reals(), partner, tag, e->team->across,
                               &receives[i - 1]));
      p->pending += 1;
      e->in_flight += 1;
    }
    if (go.n > 0) {
      UNROLL_TRY_MPI(MPI_Isend(x_of(e) + go.at, (int)go.n, type_of_reals(), partner, tag,
                               e->team->across, &sends[i - 1]));
      p->pending += 1;
      e->in_flight += 1;
      e->sent += go.n * sizeof(unroll_real);
    }
  }

cleanup:
  return st;
}

/* All messages of a stage are complete: on the way out, add up what came. */
static void add(const comm_exchange *e, size_t slot)
{
  const piece *p = &e->slots[slot];
  const size_t k = level_at(e, p->stage);
  const level *l = &e->levels[k];
  const span mine = p->block[k + 1];
  const unroll_real *terms[TERMS_MAX];

  if (p->stage >= e->n_levels || mine.n == 0) { return; }
  for (int i = 0; i < l->radix; ++i) {
    terms[(l->index + i) % l->radix] =
        i == 0 ? x_of(e) + mine.at : e->inbox + slot * e->n_inbox + (size_t)(i - 1) * mine.n;
  }
  if (l->radix > 1) { tree_sum(l->radix, terms, mine.n, x_of(e) + mine.at); }
}

/* Go through the stages of a piece as far as no message is to be waited for. */
static unroll_status go_on(comm_exchange *e, size_t slot)
{
  unroll_status st = UNROLL_OK;
  piece *p = &e->slots[slot];

  while (p->stage < 2 * e->n_levels) {
    UNROLL_TRY(post(e, slot));
    if (p->pending > 0) { break; }
    add(e, slot);
    p->stage += 1;
  }

cleanup:
  return st;
}

/* What this rank works on of a piece, level by level. */
static void cut_all(const comm_exchange *e, span whole, span *block)
{
  block[0] = whole;
  for (size_t k = 0; k < e->n_levels; ++k) {
    block[k + 1] = cut(&e->levels[k], block[k], e->levels[k].index);
  }
}

/* Put the next piece of the queue into a slot. */
static unroll_status begin(comm_exchange *e, size_t slot)
{
  piece *p = &e->slots[slot];
  span *part = &e->queue[e->first];
  const span whole = {part->at, least(part->n, e->n_piece)};

  *p = (piece){.number = e->number};
  e->number = (e->number + 1) % TAG_PIECES;
  cut_all(e, whole, p->block);
  part->at += whole.n;
  part->n -= whole.n;
  if (part->n == 0) {
    e->first = (e->first + 1) % QUEUE;
    e->n_queue -= 1;
  }
  return go_on(e, slot);
}

/* Fill the free slots, in the order of the queue. */
static unroll_status fill(comm_exchange *e)
{
  unroll_status st = UNROLL_OK;
  for (size_t s = 0; s < e->n_slots && e->n_queue > 0; ++s) {
    while (e->slots[s].stage == 2 * e->n_levels && e->n_queue > 0) { UNROLL_TRY(begin(e, s)); }
  }

cleanup:
  return st;
}

/* A rank, among all, for whose message this one waits. */
static int waited_for(const comm_exchange *e)
{
  int team = e->rank;
  for (size_t k = 0; k < e->n_slots * 2 * e->n_partners; ++k) {
    if (e->requests[k] == MPI_REQUEST_NULL) { continue; }
    const piece *p = &e->slots[k / (2 * e->n_partners)];
    const level *l = &e->levels[level_at(e, p->stage)];
    const int i = (int)(k % e->n_partners) + 1; /* as post counts */
    team = l->first + (l->index + i) % l->radix * l->distance;
    break;
  }
  return team * e->team->size + e->team->rank;
}

/* Take in the messages that are complete, of which there is at least one when `blocking`. */
static unroll_status advance(comm_exchange *e, bool blocking)
{
  unroll_status st = e->failed;
  const size_t each = 2 * e->n_partners;
  int n_done = 0;

  if (st != UNROLL_OK || e->in_flight == 0) { goto cleanup; }
  if (blocking) { watchdog_wait_begin(waited_for(e), "sum of the gradient"); }
  UNROLL_TRY_MPI((blocking ? MPI_Waitsome : MPI_Testsome)((int)(e->n_slots * each), e->requests,
                                                          &n_done, e->done, e->statuses));
  assert(n_done >= 0); /* MPI_UNDEFINED, were none in flight */
  e->in_flight -= n_done;
  for (int i = 0; i < n_done; ++i) {
    size_t slot = (size_t)e->done[i] / each;
    piece *p = &e->slots[slot];
    p->pending -= 1;
    if (p->pending > 0) { continue; }
    add(e, slot);
    p->stage += 1;
    UNROLL_TRY(go_on(e, slot));
  }
  if (n_done > 0) { UNROLL_TRY(fill(e)); }

cleanup:
  e->failed = st;
  watchdog_wait_end();
  return st;
}

/* ------------------------------------------------------------ within a team */

/* The sum over the team of x[at, at + n), to the part of its first rank. */
static void sum_team(const comm_exchange *e, size_t at, size_t n)
{
  const comm_team *team = e->team;
  const size_t block = 4096; /* elements of a thread's turn */
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

  UNROLL_TRY(e->failed); /* a poll did */
  comm_team_owned_range(e->team, n, GRAIN, &begins, &ends);
  sum_team(e, at + begins, ends - begins);
  if (e->size == 1 || begins == ends) { goto cleanup; }
  while (e->n_queue == QUEUE) { UNROLL_TRY(advance(e, true)); }
  e->queue[(e->first + e->n_queue) % QUEUE] = (span){at + begins, ends - begins};
  e->n_queue += 1;
  UNROLL_TRY(fill(e));

cleanup:
  e->failed = st;
  return st;
}

unroll_status comm_exchange_poll(comm_exchange *exchange)
{
  return advance(exchange, false);
}

unroll_status comm_exchange_wait(comm_exchange *exchange)
{
  unroll_status st = exchange->failed;
  while (st == UNROLL_OK && exchange->in_flight > 0) { st = advance(exchange, true); }
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

/* Of the first of so many ranks on as many hosts. */
static comm_exchange planned(int ranks, bool multi_host, size_t bytes)
{
  comm_exchange e = {.size = ranks};
  plan(&e);
  if (ranks > 1) { size_room(&e, multi_host, bytes); }
  return e;
}

unroll_status comm_exchange_predict_memory(int ranks, bool multi_host, size_t bytes, uint64_t *held)
{
  unroll_status st = UNROLL_OK;
  comm_exchange e = planned(ranks, multi_host, bytes);
  const uint64_t before = memory_live_bytes();

  if (ranks > 1) { UNROLL_TRY(make_room(&e)); }
  *held = memory_live_bytes() - before;

cleanup:
  free_room(&e);
  return st;
}

uint64_t comm_exchange_predict_sent(int ranks, bool multi_host, size_t n)
{
  const comm_exchange e = planned(ranks, multi_host, n * sizeof *e.inbox);
  span block[LEVELS_MAX + 1];
  uint64_t sum = 0; /* [reals] */

  for (size_t at = 0; ranks > 1 && at < n; at += e.n_piece) {
    cut_all(&e, (span){at, least(n - at, e.n_piece)}, block);
    for (size_t k = 0; k < e.n_levels; ++k) { /* out: the parts of others; back: mine to each */
      sum += block[k].n - block[k + 1].n + ((size_t)e.levels[k].radix - 1) * block[k + 1].n;
    }
  }
  return sum * sizeof *e.inbox;
}

int comm_exchange_predict_depth(int ranks)
{
  return 2 * (int)planned(ranks, true, 0).n_levels;
}

/* ------------------------------------------------------------------- losses */

/* Largest n of comm_tree_sum. */
#define TREE_MAX 64

unroll_status comm_tree_sum(unroll_comm *comm, double *x, size_t n)
{
  unroll_status st = UNROLL_OK;
  const MPI_Comm handle = comm->handle;
  const int rank = comm->rank;
  const int core = tree_floor_pow2(comm->size);
  const int count = (int)n;
  double y[TREE_MAX];

  assert(n <= TREE_MAX);
  if (rank >= core) {
    watchdog_wait_begin(rank - core, "sum of the losses");
    UNROLL_TRY_MPI(MPI_Send(x, count, MPI_DOUBLE, rank - core, COMM_TAG, handle));
    UNROLL_TRY_MPI(
        MPI_Recv(x, count, MPI_DOUBLE, rank - core, COMM_TAG, handle, MPI_STATUS_IGNORE));
    goto cleanup;
  }

  if (rank + core < comm->size) {
    watchdog_wait_begin(rank + core, "sum of the losses");
    UNROLL_TRY_MPI(
        MPI_Recv(y, count, MPI_DOUBLE, rank + core, COMM_TAG, handle, MPI_STATUS_IGNORE));
    for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
  }
  for (int d = 1; d < core; d *= 2) {
    watchdog_wait_begin(rank ^ d, "sum of the losses");
    UNROLL_TRY_MPI(MPI_Sendrecv(x, count, MPI_DOUBLE, rank ^ d, COMM_TAG, y, count, MPI_DOUBLE,
                                rank ^ d, COMM_TAG, handle, MPI_STATUS_IGNORE));
    for (size_t i = 0; i < n; ++i) { x[i] += y[i]; }
  }
  if (rank + core < comm->size) {
    watchdog_wait_begin(rank + core, "sum of the losses");
    UNROLL_TRY_MPI(MPI_Send(x, count, MPI_DOUBLE, rank + core, COMM_TAG, handle));
  }

cleanup:
  watchdog_wait_end();
  return st;
}
