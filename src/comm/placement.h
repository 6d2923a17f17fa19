#ifndef COMM_PLACEMENT_H
#define COMM_PLACEMENT_H

/*
 * Where the ranks run: hosts, cores each rank may use, threads, and advice when
 * they do not fit together. Reports facts; printing is the program's business.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/comm.h>
#include <unroll/status.h>

typedef struct placement {
  int ranks;
  int threads_low, threads_high; /* OpenMP threads per rank: least and most over the ranks */
  int cores_low, cores_high;     /* cores a rank may use (its affinity mask) */
  int n_hosts;
  char *hosts;       /* names, in rank order, each once, separated by commas; owned */
  bool crowded;      /* some rank has more threads than cores, or ranks that may use the
                        same cores have more threads together than those cores */
  int crowded_rank;  /* the lowest such rank; this and the next three are meaningful when crowded */
  int crowded_ranks; /* ranks that may use no core but its cores, itself included */
  int crowded_threads, crowded_cores;       /* the threads of these together; those cores */
  int host_ranks, host_cores, host_threads; /* of the whole host of crowded_rank, or of rank 0 */
} placement;

/** Collect the facts; same on every rank. Collective. */
unroll_status placement_new(unroll_comm *comm, placement **out);
void placement_free(placement **p);

/** One line of advice with the exact mpirun or srun flag to use; "" when all is well. */
void placement_advice(const placement *p, size_t size, char *out);

#endif
