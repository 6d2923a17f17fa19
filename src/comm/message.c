#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include "comm/watchdog.h"

#include <string.h>

unroll_status comm_send(unroll_comm *comm, const void *bytes, size_t n, int to)
{
  unroll_status st = UNROLL_OK;
  const char *at = bytes;

  for (size_t i = 0; i < n; i += COMM_MESSAGE_MAX) {
    watchdog_wait_begin(to, "sending to another rank");
    UNROLL_TRY_MPI(
        MPI_Send(at + i, comm_message_count(n - i), MPI_BYTE, to, COMM_TAG, comm->handle));
  }

cleanup:
  watchdog_wait_end();
  return st;
}

unroll_status comm_receive(unroll_comm *comm, void *bytes, size_t n, int from)
{
  unroll_status st = UNROLL_OK;
  char *at = bytes;

  for (size_t i = 0; i < n; i += COMM_MESSAGE_MAX) {
    watchdog_wait_begin(from, "receiving from another rank");
    UNROLL_TRY_MPI(MPI_Recv(at + i, comm_message_count(n - i), MPI_BYTE, from, COMM_TAG,
                            comm->handle, MPI_STATUS_IGNORE));
  }

cleanup:
  watchdog_wait_end();
  return st;
}

unroll_status comm_scatter_ranges(unroll_comm *comm, const void *all, size_t n, size_t begin,
                                  size_t end, void *mine)
{
  unroll_status st = UNROLL_OK;
  unsigned char *message = NULL, *to = mine;

  UNROLL_TRY(comm_agree(comm, memory_new((size_t)comm_message_count(n), 1, "a message", &message)));
  for (size_t i = 0; i < n; i += COMM_MESSAGE_MAX) {
    const size_t count = (size_t)comm_message_count(n - i);
    if (comm->rank == 0) { memcpy(message, (const unsigned char *)all + i, count); }
    comm_wait_begin_rooted(comm, 0, "dealing out to all ranks");
    UNROLL_TRY_MPI(MPI_Bcast(message, (int)count, MPI_BYTE, 0, comm->handle));
    const size_t first = begin > i ? begin : i, last = end < i + count ? end : i + count;
    if (first < last) { memcpy(to + (first - begin), message + (first - i), last - first); }
  }

cleanup:
  watchdog_wait_end();
  memory_free(&message);
  return st;
}
