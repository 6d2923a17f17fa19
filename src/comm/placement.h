#ifndef COMM_PLACEMENT_H
#define COMM_PLACEMENT_H

/*
 * Where the ranks run: hosts, cores each rank may use, threads, and advice when
 * they do not fit together. Reports facts; printing is the program's business.
 *
 * The cores that a rank may use, its grant: those of its affinity mask, no more than srun --cpus-per-task
 * gave it, no more than its share of the CPU time of its control group (containers, Kubernetes).
 * The cores of a host: those it has, no more than SLURM_CPUS_ON_NODE and that CPU time.
 *
 * Only ranks of one host exchange facts, so that memory does not grow with the number of ranks, except for 8 bytes per
 * rank on rank 0 for a moment.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/comm.h>
#include <unroll/status.h>

typedef struct placement {
  int ranks;
  int threads_min, threads_max; /* OpenMP threads per rank, over the ranks */
  int cores_min, cores_max;     /* cores a rank may use */
  int n_hosts;                  /* groups of ranks that can share memory */
  char *hosts; /* names, in rank order, separated by commas, of more than 32 "and 61 more"; owned */
  bool oversubscribed;      /* some rank has more threads than cores, or ranks that may use the
                        same cores have more threads together than those cores, or all of a host */
  int oversubscribed_rank;  /* the lowest such rank, as unroll_comm_new's parent counts; this and
                        the next three are meaningful when oversubscribed */
  int oversubscribed_ranks; /* ranks that may use no core but its cores, itself included */
  int oversubscribed_threads, oversubscribed_cores; /* the threads of these together; those cores */
  int host_ranks, host_cores,
      host_threads; /* of the whole host of oversubscribed_rank, or of rank 0 */
} placement;

/**
 * Set the number of OpenMP threads of this rank, unless OMP_NUM_THREADS does: the cores that it may use; ranks
 * that may use the very same cores divide them; and all ranks of a host run no more than its cores. One at
 * least. For a program to call at its start.
 *
 * Collective
 */
unroll_status placement_set_threads(unroll_comm *comm);

/** Collect the facts; same on every rank. Collective. */
unroll_status placement_new(unroll_comm *comm, placement **out);
void placement_free(placement **p);

/** One line of advice with the exact mpirun or srun flag to use; "" when all is well. */
void placement_advice(const placement *p, size_t size, char *out);

#endif
