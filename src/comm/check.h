#ifndef COMM_CHECK_H
#define COMM_CHECK_H

/*
 * Private to this folder: the members of the communicator, and the check of an MPI call.
 */
#include "base/check.h"
#include "comm/watchdog.h"
#include <mpi.h>
#include <stddef.h>
#include <unroll/comm.h>
#include <unroll/status.h>

/* [bytes] as long as unroll_message() can be. */
#define COMM_LINE 4096

struct unroll_comm {
  MPI_Comm handle; /* a duplicate that returns errors; the ranks of a host are consecutive */
  int rank, size;
  MPI_Comm host; /* the ranks of this host, in the same order */
  int parent_rank; /* in the caller's communicator, as in messages; not `rank` where ranks were placed cyclically */
  char agreed[COMM_LINE]; /* the line of the last failure that all ranks agreed on */
};

/*
 * [elements] Longest message. MPI counts are int; this is far below INT_MAX,
 * costs nothing in speed, and is short enough that tests need several messages.
 */
#define COMM_MESSAGE_MAX ((size_t)1 << 22)

/* Elements of the next message, of `left` still to send. */
static inline int comm_message_count(size_t left)
{
  return (int)(left < COMM_MESSAGE_MAX ? left : COMM_MESSAGE_MAX);
}

/* watchdog_wait_begin for a collective with a root: the root waits for any of the others, they for the root. */
static inline void comm_wait_begin_rooted(const unroll_comm *comm, int root, const char *what)
{
  if (comm->rank == root) {
    watchdog_wait_begin_any(what);
  } else {
    watchdog_wait_begin(root, what);
  }
}

/* Tag of all messages: exchanges have communicators of their own. */
#define COMM_TAG 0

/** Record the failure of an MPI call, with the library's message, and return UNROLL_ERR_MPI. */
unroll_status unroll_fail_mpi(int code, const char *call, const char *file, int line);

/* Expects `unroll_status st` and a label `cleanup` in the calling function. */
#define UNROLL_TRY_MPI(call)                                                                       \
  do {                                                                                             \
    int code = (call);                                                                             \
    if (code != MPI_SUCCESS) {                                                                     \
      st = unroll_fail_mpi(code, #call, __FILE__, __LINE__);                                       \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

#endif
