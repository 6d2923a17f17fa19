#ifndef COMM_COMM_H
#define COMM_COMM_H

/*
 * All that the other layers use of MPI. P ranks; every function here is
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

/** unroll_comm_new with simulated hosts, for tests: ranks with the same `host` >= 0 count as one host. */
unroll_status comm_new_on_hosts(MPI_Comm parent, int host, unroll_comm **out);

/**
 * Agree on one status at the end of a phase that may fail on some ranks only (files, memory), so that all ranks leave
 * it together: every rank returns the status of the lowest rank that failed, with that rank's line as
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
 * Scatter n bytes of rank 0: every rank chooses a range [begin, end), which it receives at `mine`; ranges may overlap.
 * Allocates a buffer for one message. Ranks other than 0 may pass NULL for `all`.
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
 * The exchange, an allreduce: x <- sum over the ranks of x, the same bits on every rank and
 * for every P that is a power of two, as the upper levels of the balanced
 * binary tree over shards (comm/tree.h; design.md section 5): inside the teams
 * first, then between them. For other P the order depends on P alone.
 */
typedef struct comm_exchange comm_exchange;

/** The exchange of a team (comm/team.h; borrowed until it is freed): x is a rank's segment. Memory only; not
 * collective. */
unroll_status comm_exchange_new(const comm_team *team, comm_exchange **out);
void comm_exchange_free(comm_exchange **exchange);

/**
 * Start the sum of x[at, at + n), in reals, into the segment of the team's first rank. Between the last write to this
 * range and the call there must be a fence of the team; the range must not be used before comm_exchange_wait and
 * another fence. Several ranges may be in flight, started in the same order on every rank.
 */
unroll_status comm_exchange_start(comm_exchange *exchange, size_t at, size_t n);

/**
 * Progress the exchange without waiting; cheap, does nothing when none is in flight. The caller may ignore a failure:
 * the next start or wait returns it too. Not collective.
 */
unroll_status comm_exchange_poll(comm_exchange *exchange);

/** Wait for this rank's messages of all that was started: the sums are complete after the next fence of the team. */
unroll_status comm_exchange_wait(comm_exchange *exchange);

/** Is there another team to exchange with? */
bool comm_exchange_has_peers(const comm_exchange *exchange);

/** [bytes] that this rank has sent to other teams so far. */
uint64_t comm_exchange_sent(const comm_exchange *exchange);

/*
 * The cost of the exchange among `ranks` ranks that share no memory, from the plan of the exchange: computed on one
 * process. `multi_host`: they are on several hosts. Not collective.
 *
 *   memory  *held [bytes] of a rank's buffers, for x of `bytes` bytes; UNROLL_OK or UNROLL_ERR_MEMORY
 *   sent    [bytes] by rank 0 for x of n reals: the most of all ranks, up to rounding
 *   depth   messages that depend one on the other
 */
unroll_status comm_exchange_predict_memory(int ranks, bool multi_host, size_t bytes,
                                           uint64_t *held);
uint64_t comm_exchange_predict_sent(int ranks, bool multi_host, size_t n);
int comm_exchange_predict_depth(int ranks);

/** Sum of n <= 64 doubles over the ranks in the same tree (losses), blocking. */
unroll_status comm_tree_sum(unroll_comm *comm, double *x, size_t n);

#endif
