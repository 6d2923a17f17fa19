#ifndef COMM_COMM_H
#define COMM_COMM_H

/*
 * What the other layers need of MPI. P ranks; every function here is
 * collective over the communicator unless it says otherwise, and called by the main thread only.
 * Counts may exceed INT_MAX: messages are cut into pieces inside.
 */
#include "comm/team.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/real.h>
#include <unroll/status.h>

/** unroll_comm_new with made-up hosts, for tests: ranks of the same `host` >= 0 are on one. */
unroll_status comm_new_on_hosts(MPI_Comm parent, int host, unroll_comm **out);

/**
 * Agree on one outcome at the end of a phase that touched the world, so that all ranks leave
 * together: every rank returns the status of the lowest rank that failed, with that rank's line as
 * unroll_message(), and UNROLL_OK when none did. Never called after an MPI error.
 *
 * What may go wrong on one rank alone, UNROLL_ERR_MEMORY and UNROLL_ERR_IO, gets " (rank 3 on node2)" at the
 * end of its line where there are several ranks, counted as in the parent; mistakes of usage and
 * input are alike on all ranks and do not.
 */
unroll_status comm_agree(unroll_comm *comm, unroll_status mine);

/** Copy n bytes of `root` to all. */
unroll_status comm_broadcast(unroll_comm *comm, void *bytes, size_t n, int root);

/**
 * Deal out n bytes of rank 0: every rank gets [begin, end) of them, of its own choice, at `mine`, and needs room for
 * one message besides. The others may pass NULL for `all`.
 */
unroll_status comm_scatter_ranges(unroll_comm *comm, const void *all, size_t n, size_t begin,
                                  size_t end, void *mine);

/** Element-wise sum, or maximum, of n integers over the ranks, in place. Exact, so order-free. */
unroll_status comm_sum_u64(unroll_comm *comm, uint64_t *x, size_t n);
unroll_status comm_max_u64(unroll_comm *comm, uint64_t *x, size_t n);

/** Bitwise or of n words over the ranks, in place: the union of sets. */
unroll_status comm_or_u64(unroll_comm *comm, uint64_t *x, size_t n);

/**
 * Element-wise maximum, or sum, of n doubles. The sum is taken in MPI's order: for times, and for results only
 * where all ranks but one have zero.
 */
unroll_status comm_max_double(unroll_comm *comm, double *x, size_t n);
unroll_status comm_sum_double(unroll_comm *comm, double *x, size_t n);

/** Element-wise sum of n reals by the MPI library, in an order of its own: to compare with, never for results. */
unroll_status comm_sum_real_in_any_order(unroll_comm *comm, unroll_real *x, size_t n);

/**
 * Gather byte blocks of unequal size to every rank (or only to rank `root` when root >= 0), in rank
 * order. *sizes (P) and *all are allocated where received; else NULL.
 */
unroll_status comm_gather_bytes(unroll_comm *comm, const void *bytes, size_t n, int root,
                                size_t **sizes, void **all);

/** Send n bytes to rank `to`, which waits for them with comm_receive, or receive them. Of these two ranks alone. */
unroll_status comm_send(unroll_comm *comm, const void *bytes, size_t n, int to);
unroll_status comm_receive(unroll_comm *comm, void *bytes, size_t n, int from);

/*
 * The exchange: x <- sum over the ranks of x, the same bits on every rank and
 * for every P that is a power of two, as the upper levels of the balanced
 * binary tree over shards (comm/tree.h; design.md section 5): inside the teams
 * first, then between them. For other P the order depends on P alone.
 */
typedef struct comm_exchange comm_exchange;

/** The exchange of a team (comm/team.h; kept borrowed): x is the part of a rank. Memory only; not collective. */
unroll_status comm_exchange_new(const comm_team *team, comm_exchange **out);
void comm_exchange_free(comm_exchange **exchange);

/**
 * Begin to sum x[at, at + n), in reals: to the part of the team's first rank. Call it after a fence of the team behind
 * the last write to x; x must stay untouched until the fence behind the wait. Several parts may be under way, begun in
 * the same order on every rank; they travel in that order.
 */
unroll_status comm_exchange_start(comm_exchange *exchange, size_t at, size_t n);

/**
 * Move the exchange along without waiting; cheap, does nothing when none is under way. The caller may let a failure
 * pass: the next start or wait returns it too. Not collective.
 */
unroll_status comm_exchange_poll(comm_exchange *exchange);

/** Finish this rank's share of all that was begun: the sums are whole after the next fence of the team. */
unroll_status comm_exchange_wait(comm_exchange *exchange);

/** Is there another team, so that something travels? */
bool comm_exchange_has_peers(const comm_exchange *exchange);

/** [bytes] that this rank has sent to other teams so far. */
uint64_t comm_exchange_sent(const comm_exchange *exchange);

/*
 * What the exchange of `ranks` ranks that share no memory would take, as the code above does it; no rank is needed for
 * it. `multi_host`: they live on several hosts. Not collective.
 *
 *   memory  *held [bytes] of a rank's buffers, for x of so many bytes; UNROLL_OK or UNROLL_ERR_MEMORY
 *   sends   [bytes] that rank 0 sends for x of n reals; no other sends more, but for the rest of a cut; with a fold some less
 *   depth   messages that wait one for the other
 */
unroll_status comm_exchange_predict_memory(int ranks, bool multi_host, size_t bytes,
                                           uint64_t *held);
uint64_t comm_exchange_predict_sent(int ranks, bool multi_host, size_t n);
int comm_exchange_predict_depth(int ranks);

/** The same tree for a few doubles (loss sums), blocking. n <= 64. */
unroll_status comm_tree_sum(unroll_comm *comm, double *x, size_t n);

#endif
