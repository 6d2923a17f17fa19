#ifndef UNROLL_COMM_H
#define UNROLL_COMM_H

/*
 * The ranks of a run: a duplicate of the caller's communicator on which MPI
 * calls return errors instead of aborting. Opaque because the duplicate and its
 * error handler must belong together.
 *
 * MPI must be initialised with at least MPI_THREAD_FUNNELED before, and the
 * object freed before MPI_Finalize. Main thread only.
 */
#include <mpi.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_comm unroll_comm;

/**
 * Duplicate `parent`. Collective over it. The caller owns *out.
 *
 * The ranks of a host become consecutive, as they share memory and are summed first: where the ranks of `parent` are
 * placed cyclically over the hosts (mpirun --map-by node, srun -m cyclic), they are renumbered. Rank 0 is the same in
 * both. Results do not depend on the order; messages name the ranks of `parent`.
 */
unroll_status unroll_comm_new(MPI_Comm parent, unroll_comm **out);

/** Free; NULL and already freed are fine. Collective. */
void unroll_comm_free(unroll_comm **comm);

int unroll_comm_rank(const unroll_comm *comm);
int unroll_comm_size(const unroll_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
