#include "comm/check.h"
#include "comm/comm.h"

/* [bytes] of one message, of those that make up the block. */
static int piece_of(size_t left)
{
  return (int)(left < COMM_PIECE ? left : COMM_PIECE);
}

unroll_status comm_send(unroll_comm *comm, const void *bytes, size_t n, int to)
{
  unroll_status st = UNROLL_OK;
  const char *at = bytes;

  for (size_t i = 0; i < n; i += COMM_PIECE) {
    UNROLL_TRY_MPI(MPI_Send(at + i, piece_of(n - i), MPI_BYTE, to, COMM_TAG, comm->handle));
  }

cleanup:
  return st;
}

unroll_status comm_receive(unroll_comm *comm, void *bytes, size_t n, int from)
{
  unroll_status st = UNROLL_OK;
  char *at = bytes;

  for (size_t i = 0; i < n; i += COMM_PIECE) {
    UNROLL_TRY_MPI(MPI_Recv(at + i, piece_of(n - i), MPI_BYTE, from, COMM_TAG, comm->handle,
                            MPI_STATUS_IGNORE));
  }

cleanup:
  return st;
}
