#include "comm/comm.h"

#include "base/memory.h"
#include "comm/check.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* A size_t travels as MPI_UINT64_T. */
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes are 64-bit");

/* What comm_agree sends: the status and the line of the rank that failed. */
typedef struct verdict {
  int status;
  char line[4096]; /* as long as unroll_message() can be */
} verdict;

/* ------------------------------------------------------------- create, free */

unroll_status unroll_comm_new(MPI_Comm parent, unroll_comm **out)
{
  unroll_status st = UNROLL_OK;
  unroll_comm *comm = NULL;
  int started = 0;
  int level = MPI_THREAD_SINGLE;

  UNROLL_TRY(memory_new(1, sizeof *comm, "the communicator", &comm));
  comm->handle = MPI_COMM_NULL;
  UNROLL_TRY_MPI(MPI_Initialized(&started));
  if (!started) {
    st = unroll_fail(UNROLL_ERR_MPI, "MPI is not started: call MPI_Init_thread first");
    goto cleanup;
  }
  UNROLL_TRY_MPI(MPI_Query_thread(&level));
  if (level < MPI_THREAD_FUNNELED) {
    st = unroll_fail(UNROLL_ERR_MPI, "MPI was started without support for threads: call "
                                     "MPI_Init_thread with MPI_THREAD_FUNNELED or more");
    goto cleanup;
  }
  UNROLL_TRY_MPI(MPI_Comm_dup(parent, &comm->handle));
  UNROLL_TRY_MPI(MPI_Comm_set_errhandler(comm->handle, MPI_ERRORS_RETURN));
  UNROLL_TRY_MPI(MPI_Comm_rank(comm->handle, &comm->rank));
  UNROLL_TRY_MPI(MPI_Comm_size(comm->handle, &comm->size));
  UNROLL_TRY(memory_new((size_t)comm->size * COMM_BLOCK, sizeof *comm->block,
                        "the terms of a sum in rank order", &comm->block));
  *out = comm;
  comm = NULL;

cleanup:
  unroll_comm_free(&comm);
  return st;
}

void unroll_comm_free(unroll_comm **comm)
{
  if (*comm == NULL) { return; }
  memory_free(&(*comm)->block);
  if ((*comm)->handle != MPI_COMM_NULL) { (void)MPI_Comm_free(&(*comm)->handle); }
  memory_free(comm);
}

int unroll_comm_rank(const unroll_comm *comm)
{
  return comm->rank;
}

int unroll_comm_size(const unroll_comm *comm)
{
  return comm->size;
}

unroll_status unroll_fail_mpi(int code, const char *call, const char *file, int line)
{
  char words[MPI_MAX_ERROR_STRING] = "";
  int length = 0;

  if (MPI_Error_string(code, words, &length) != MPI_SUCCESS) {
    (void)snprintf(words, sizeof words, "MPI error %d", code);
  }
  return unroll_fail(UNROLL_ERR_MPI, "%s: %s failed in %s:%d", words, call, file, line);
}

/* ---------------------------------------------------------------- agreement */

unroll_status comm_agree(unroll_comm *comm, unroll_status mine)
{
  unroll_status st = UNROLL_OK;
  int first = mine == UNROLL_OK ? comm->size : comm->rank;
  verdict v = {.status = (int)mine};

  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm->handle));
  if (first < comm->size) {
    (void)snprintf(v.line, sizeof v.line, "%s", unroll_message());
    UNROLL_TRY_MPI(MPI_Bcast(&v, (int)sizeof v, MPI_BYTE, first, comm->handle));
    st = unroll_fail((unroll_status)v.status, "%s", v.line);
  }

cleanup:
  return st;
}

/* ----------------------------------------------- broadcast, sums and maxima */

static size_t piece_of(size_t left, size_t longest)
{
  return left < longest ? left : longest;
}

unroll_status comm_broadcast(unroll_comm *comm, void *bytes, size_t n, int root)
{
  unroll_status st = UNROLL_OK;
  char *at = bytes;

  for (size_t i = 0; i < n; i += COMM_PIECE) {
    int count = (int)piece_of(n - i, COMM_PIECE);
    UNROLL_TRY_MPI(MPI_Bcast(at + i, count, MPI_BYTE, root, comm->handle));
  }

cleanup:
  return st;
}

/* Reduce in place, for operations whose order does not matter. */
static unroll_status reduce(unroll_comm *comm, void *x, size_t n, MPI_Datatype type, size_t width,
                            MPI_Op op)
{
  unroll_status st = UNROLL_OK;
  char *at = x;

  for (size_t i = 0; i < n; i += COMM_PIECE) {
    int count = (int)piece_of(n - i, COMM_PIECE);
    UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, at + i * width, count, type, op, comm->handle));
  }

cleanup:
  return st;
}

unroll_status comm_sum_u64(unroll_comm *comm, uint64_t *x, size_t n)
{
  return reduce(comm, x, n, MPI_UINT64_T, sizeof *x, MPI_SUM);
}

unroll_status comm_max_u64(unroll_comm *comm, uint64_t *x, size_t n)
{
  return reduce(comm, x, n, MPI_UINT64_T, sizeof *x, MPI_MAX);
}

unroll_status comm_or_u64(unroll_comm *comm, uint64_t *x, size_t n)
{
  return reduce(comm, x, n, MPI_UINT64_T, sizeof *x, MPI_BOR);
}

unroll_status comm_max_double(unroll_comm *comm, double *x, size_t n)
{
  return reduce(comm, x, n, MPI_DOUBLE, sizeof *x, MPI_MAX);
}

unroll_status comm_sum_real_in_any_order(unroll_comm *comm, unroll_real *x, size_t n)
{
  return reduce(comm, x, n, sizeof *x == sizeof(float) ? MPI_FLOAT : MPI_DOUBLE, sizeof *x,
                MPI_SUM);
}

unroll_status comm_sum_double(unroll_comm *comm, double *x, size_t n)
{
  unroll_status st = UNROLL_OK;

  for (size_t i = 0; i < n; i += COMM_BLOCK) {
    size_t count = piece_of(n - i, COMM_BLOCK);
    UNROLL_TRY_MPI(MPI_Allgather(x + i, (int)count, MPI_DOUBLE, comm->block, (int)count, MPI_DOUBLE,
                                 comm->handle));
    for (size_t k = 0; k < count; ++k) {
      double sum = comm->block[k];
      for (size_t r = 1; r < (size_t)comm->size; ++r) { sum += comm->block[r * count + k]; }
      x[i + k] = sum;
    }
  }

cleanup:
  return st;
}

/* ------------------------------------------------------------------- gather */

/* Send a block to `root` in pieces. */
static unroll_status send_block(unroll_comm *comm, const char *bytes, size_t n, int root)
{
  unroll_status st = UNROLL_OK;

  for (size_t i = 0; i < n; i += COMM_PIECE) {
    int count = (int)piece_of(n - i, COMM_PIECE);
    UNROLL_TRY_MPI(MPI_Send(bytes + i, count, MPI_BYTE, root, COMM_TAG, comm->handle));
  }

cleanup:
  return st;
}

/* Receive what send_block of `source` sends. */
static unroll_status receive_block(unroll_comm *comm, char *bytes, size_t n, int source)
{
  unroll_status st = UNROLL_OK;

  for (size_t i = 0; i < n; i += COMM_PIECE) {
    int count = (int)piece_of(n - i, COMM_PIECE);
    UNROLL_TRY_MPI(
        MPI_Recv(bytes + i, count, MPI_BYTE, source, COMM_TAG, comm->handle, MPI_STATUS_IGNORE));
  }

cleanup:
  return st;
}

unroll_status comm_gather_bytes(unroll_comm *comm, const void *bytes, size_t n, int root,
                                size_t **sizes, void **all)
{
  unroll_status st = UNROLL_OK;
  size_t *each = NULL;
  char *blocks = NULL;
  size_t total = 0;
  const int collector = root >= 0 ? root : 0;
  const bool receives = root < 0 || comm->rank == root;

  *sizes = NULL;
  *all = NULL;

  /* Every rank keeps the sizes until the end: so all know alike what follows. */
  st = memory_new((size_t)comm->size, sizeof *each, "sizes of the gathered blocks", &each);
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY_MPI(MPI_Allgather(&n, 1, MPI_UINT64_T, each, 1, MPI_UINT64_T, comm->handle));
  for (int r = 0; r < comm->size; ++r) { total += each[r]; }
  if (receives) { st = memory_new(total, 1, "gathered blocks", &blocks); }
  UNROLL_TRY(comm_agree(comm, st));

  if (comm->rank != collector) {
    UNROLL_TRY(send_block(comm, bytes, n, collector));
  } else {
    char *at = blocks;
    for (int r = 0; r < comm->size; ++r) {
      if (r != collector) {
        UNROLL_TRY(receive_block(comm, at, each[r], r));
      } else if (n > 0) {
        memcpy(at, bytes, n);
      }
      at += each[r];
    }
  }
  if (root < 0) { UNROLL_TRY(comm_broadcast(comm, blocks, total, collector)); }

  if (receives) {
    *sizes = each;
    *all = blocks;
    each = NULL;
    blocks = NULL;
  }

cleanup:
  memory_free(&blocks);
  memory_free(&each);
  return st;
}
