#ifndef COMM_COMM_H
#define COMM_COMM_H

/*
 * What the other layers need of MPI. P ranks; every function here is
 * collective over the communicator and called by the main thread only.
 * Counts may exceed INT_MAX: messages are cut into pieces inside.
 */
#include <stddef.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/real.h>
#include <unroll/status.h>

/**
 * Agree on one outcome at the end of a phase that touched the world, so that all ranks leave
 * together: every rank returns the status of the lowest rank that failed, with that rank's line as
 * unroll_message(), and UNROLL_OK when none did. Never called after an MPI error.
 */
unroll_status comm_agree(unroll_comm *comm, unroll_status mine);

/** Copy n bytes of `root` to all. */
unroll_status comm_broadcast(unroll_comm *comm, void *bytes, size_t n, int root);

/** Element-wise sum, or maximum, of n integers over the ranks, in place. Exact, so order-free. */
unroll_status comm_sum_u64(unroll_comm *comm, uint64_t *x, size_t n);
unroll_status comm_max_u64(unroll_comm *comm, uint64_t *x, size_t n);

/** Bitwise or of n words over the ranks, in place: the union of sets. */
unroll_status comm_or_u64(unroll_comm *comm, uint64_t *x, size_t n);

/** Element-wise maximum, or sum in rank order, of n doubles: for times, never for results. */
unroll_status comm_max_double(unroll_comm *comm, double *x, size_t n);
unroll_status comm_sum_double(unroll_comm *comm, double *x, size_t n);

/**
 * Gather byte blocks of unequal size to every rank (or only to rank `root` when root >= 0), in rank
 * order. *sizes (P) and *all are allocated where received; else NULL.
 */
unroll_status comm_gather_bytes(unroll_comm *comm, const void *bytes, size_t n, int root,
                                size_t **sizes, void **all);

/*
 * The exchange: x <- sum over the ranks of x, the same bits on every rank and
 * for every P that is a power of two, as the upper levels of the balanced
 * binary tree over shards: ranks at distance 1 are added first, then at
 * distance 2, 4, ... (design.md section 5; recursive halving and doubling,
 * Thakur, Rabenseifner and Gropp 2005, section 4.5). Other P fold the ranks
 * above the largest power of two onto the lowest ones first; the order then
 * depends on P alone.
 */
typedef struct comm_exchange comm_exchange;

/** An exchange of at most max_n reals; allocates all it will ever need, keeps `comm` borrowed. */
unroll_status comm_exchange_new(unroll_comm *comm, size_t max_n, comm_exchange **out);
void comm_exchange_free(comm_exchange **exchange);

/** Begin to sum x (n reals), which must stay alive and untouched until the wait. One at a time. */
unroll_status comm_exchange_start(comm_exchange *exchange, unroll_real *x, size_t n);

/** Move the exchange along without waiting; cheap, does nothing when none is under way. Not collective. */
unroll_status comm_exchange_poll(comm_exchange *exchange);

/** Finish it: x is the sum. Adds to *seconds the time spent here, if not NULL. */
unroll_status comm_exchange_wait(comm_exchange *exchange, double *seconds);

/** The same tree for a few doubles (loss sums), blocking. n <= 64. */
unroll_status comm_tree_sum(unroll_comm *comm, double *x, size_t n);

#endif
