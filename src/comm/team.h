#ifndef COMM_TEAM_H
#define COMM_TEAM_H

/*
 * A team: neighbouring ranks of one host, and memory that all of them see. What
 * every rank would else keep and compute for itself, parameters and their
 * update above all, a team has once, and its ranks share the work. All teams
 * are of one size, a power of two unless the team is the whole world, so that
 * the tree over the ranks (comm.h) runs inside the teams first and then between them.
 *
 *   rank          0 1 2 3 | 4 5 6 7        two hosts of four ranks
 *   rank of team  0 1 2 3 | 0 1 2 3        across: {0, 4}, {1, 5}, {2, 6}, {3, 7}
 *
 * A rank that cannot share with its neighbours is a team of its own: hosts of odd numbers of ranks, or no room
 * for shared memory. Results do not depend on the teams.
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
  MPI_Comm across; /* the ranks that have the same place in their teams */
  int first;       /* rank of its first in the communicator */
  int rank, size;
  bool multi_host;                   /* the teams live on several hosts */
  size_t segment_bytes, total_bytes; /* [bytes] of one part; of the whole memory */
  unsigned char *memory;
  watchdog_arrivals *arrivals; /* (size) how often each came to a fence; behind the common memory */
} comm_team;

/**
 * Form the teams, of at most UNROLL_TEAM ranks where that is set in the environment, and their memory:
 * a part of `each` bytes for every rank and `common` bytes for the team, zeroed, on page boundaries. Pages lie
 * near the rank of their part, those of the common memory near the rank of their share.
 *
 * @return UNROLL_OK, UNROLL_ERR_ARG: UNROLL_TEAM is no number, or UNROLL_ERR_MEMORY; the same on every rank
 *
 * Collective
 */
unroll_status comm_team_new(unroll_comm *comm, size_t each, size_t common, comm_team **out);

/** Collective. The memory ends here. */
void comm_team_free(comm_team **team);

/** The memory of one rank of the team, and of all. */
void *comm_team_segment(const comm_team *team, int rank);
void *comm_team_common(const comm_team *team);

/** This rank's share [*begin, *end) of n elements, cut at multiples of `grain`; the shares make up [0, n). */
void comm_team_owned_range(const comm_team *team, size_t n, size_t grain, size_t *begin,
                           size_t *end);

/** What any rank of the team wrote before, all see after. Collective over the team. */
unroll_status comm_team_fence(const comm_team *team);

#endif
