#ifndef COMM_TEAM_H
#define COMM_TEAM_H

/*
 * A team: consecutive ranks of one host with shared memory. Parameters, optimizer
 * moments and their update exist once per team instead of once per rank, and its
 * ranks divide the work. All teams have the same size, a power of two unless the
 * team is the whole world, so that the tree over the ranks (comm.h) runs inside
 * the teams first and then between them.
 *
 *   rank          0 1 2 3 | 4 5 6 7        two hosts of four ranks
 *   rank of team  0 1 2 3 | 0 1 2 3        across: {0, 4}, {1, 5}, {2, 6}, {3, 7}
 *
 * A rank that cannot share memory with its neighbours is a team of its own: hosts with odd numbers of ranks, or no room
 * for shared memory. Results do not depend on the teams.
 *
 *   memory   segment of rank 0 | ... | segment of rank size - 1 | common | arrivals of the watchdog
 */
#include "comm/tree.h"
#include "comm/watchdog.h"
#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <unroll/comm.h>
#include <unroll/status.h>

/* Ranks of a team at most; a power of two. */
#define COMM_TEAM_MAX TREE_TERMS_MAX

typedef struct comm_team {
  MPI_Comm handle; /* this team */
  MPI_Comm across; /* the ranks with the same rank in their teams, one of each team */
  int first;       /* rank of its first in the communicator */
  int rank, size;
  bool multi_host;                   /* the run has more than one host */
  size_t segment_bytes, total_bytes; /* of one rank's segment; of the whole shared memory */
  unsigned char *memory;
  watchdog_arrivals *arrivals; /* (size) fences that each rank has reached */
} comm_team;

/**
 * Form the teams, of at most UNROLL_TEAM ranks where that is set in the environment, and their memory:
 * a segment of `segment` bytes for every rank and `common` bytes for the team, zeroed, on page boundaries. Pages are
 * allocated by (so on the NUMA node of) the rank of the segment; of the common memory by the rank that owns the range.
 *
 * @return UNROLL_OK, UNROLL_ERR_ARG: UNROLL_TEAM is no number, or UNROLL_ERR_MEMORY; the same on every rank
 *
 * Collective
 */
unroll_status comm_team_new(unroll_comm *comm, size_t segment, size_t common, comm_team **out);

/** Collective. Unmaps the memory. */
void comm_team_free(comm_team **team);

/** The segment of one rank of the team; the common memory. */
void *comm_team_segment(const comm_team *team, int rank);
void *comm_team_common(const comm_team *team);

/** The range [*begin, *end) of n elements that this rank works on, cut at multiples of `grain`; together they cover
 * [0, n). */
void comm_team_owned_range(const comm_team *team, size_t n, size_t grain, size_t *begin,
                           size_t *end);

/** A barrier that also orders memory: writes of any rank before it are visible to all after it. Collective over the
 * team. */
unroll_status comm_team_fence(const comm_team *team);

#endif
