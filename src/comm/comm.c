#include "comm/comm.h"

#include "base/memory.h"
#include "comm/check.h"
#include "comm/watchdog.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A size_t is sent as MPI_UINT64_T. */
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes are 64-bit");

/* Receives that the root of a gather posts at a time; few enough that tests need several rounds. */
#define GATHER_AT_ONCE 8

/* What comm_agree sends: the status and the line of the rank that failed. */
typedef struct verdict {
  int status;
  char line[COMM_LINE];
} verdict;

/* ------------------------------------------------------------- create, free */

static unroll_status check_mpi(void)
{
  unroll_status st = UNROLL_OK;
  int started = 0;
  int level = MPI_THREAD_SINGLE;

  UNROLL_TRY_MPI(MPI_Initialized(&started));
  if (!started) {
    return unroll_fail(UNROLL_ERR_MPI, "MPI is not started: call MPI_Init_thread first");
  }
  UNROLL_TRY_MPI(MPI_Query_thread(&level));
  if (level < MPI_THREAD_FUNNELED) {
    return unroll_fail(UNROLL_ERR_MPI, "MPI was started without support for threads: call "
                                       "MPI_Init_thread with MPI_THREAD_FUNNELED or more");
  }

cleanup:
  return st;
}

/* The ranks of this host: those that can share memory, or those of the same simulated host >= 0. */
static unroll_status find_host(unroll_comm *comm, int host)
{
  unroll_status st = UNROLL_OK;
  if (host >= 0) {
    UNROLL_TRY_MPI(MPI_Comm_split(comm->handle, host, comm->rank, &comm->host));
  } else {
    UNROLL_TRY_MPI(MPI_Comm_split_type(comm->handle, MPI_COMM_TYPE_SHARED, comm->rank,
                                       MPI_INFO_NULL, &comm->host));
  }
  UNROLL_TRY_MPI(MPI_Comm_set_errhandler(comm->host, MPI_ERRORS_RETURN));

cleanup:
  return st;
}

/*
 * Renumber the ranks so that those of each host are consecutive: hosts ordered by their lowest rank, within a host the
 * order is kept. Nothing changes where they are consecutive already.
 */
static unroll_status order_by_host(unroll_comm *comm)
{
  unroll_status st = UNROLL_OK;
  MPI_Comm ordered = MPI_COMM_NULL;
  int ends[2] = {comm->rank, -comm->rank}, n = 0;

  UNROLL_TRY_MPI(MPI_Comm_size(comm->host, &n));
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_INT, MPI_MIN, comm->host));
  int scattered = -ends[1] - ends[0] + 1 != n;
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &scattered, 1, MPI_INT, MPI_MAX, comm->handle));
  if (scattered) {
    UNROLL_TRY_MPI(MPI_Comm_split(comm->handle, 0, ends[0], &ordered)); /* ties: the old order */
    UNROLL_TRY_MPI(MPI_Comm_set_errhandler(ordered, MPI_ERRORS_RETURN));
    UNROLL_TRY_MPI(MPI_Comm_free(&comm->handle));
    comm->handle = ordered;
    UNROLL_TRY_MPI(MPI_Comm_rank(comm->handle, &comm->rank));
  }

cleanup:
  return st;
}

unroll_status comm_new_on_hosts(MPI_Comm parent, int host, unroll_comm **out)
{
  unroll_status st = UNROLL_OK;
  unroll_comm *comm = NULL;

  UNROLL_TRY(memory_new(1, sizeof *comm, "the communicator", &comm));
  comm->handle = comm->host = MPI_COMM_NULL;
  UNROLL_TRY(check_mpi());
  UNROLL_TRY_MPI(MPI_Comm_dup(parent, &comm->handle));
  UNROLL_TRY_MPI(MPI_Comm_set_errhandler(comm->handle, MPI_ERRORS_RETURN));
  UNROLL_TRY_MPI(MPI_Comm_rank(comm->handle, &comm->rank));
  UNROLL_TRY_MPI(MPI_Comm_size(comm->handle, &comm->size));
  comm->parent_rank = comm->rank;
  UNROLL_TRY(find_host(comm, host));
  UNROLL_TRY(order_by_host(comm));
  *out = comm;
  comm = NULL;

cleanup:
  unroll_comm_free(&comm);
  return st;
}

unroll_status unroll_comm_new(MPI_Comm parent, unroll_comm **out)
{
  return comm_new_on_hosts(parent, -1, out);
}

void unroll_comm_free(unroll_comm **comm)
{
  if (*comm == NULL) { return; }
  if ((*comm)->host != MPI_COMM_NULL) { (void)MPI_Comm_free(&(*comm)->host); }
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

/* May it fail on this rank alone? Then the line names the rank and its host. */
static bool is_of_one_rank(unroll_status status)
{
  return status == UNROLL_ERR_MEMORY || status == UNROLL_ERR_IO;
}

/* The line of this rank, with rank and host; a line that was agreed on before has them already. */
static void write_line(const unroll_comm *comm, unroll_status mine, char line[COMM_LINE])
{
  char host[256] = "", place[300] = "";

  if (comm->size > 1 && is_of_one_rank(mine) && strcmp(unroll_message(), comm->agreed) != 0) {
    if (gethostname(host, sizeof host - 1) != 0) { (void)snprintf(host, sizeof host, "?"); }
    (void)snprintf(place, sizeof place, " (rank %d on %s)", comm->parent_rank, host);
  }
  (void)snprintf(line, COMM_LINE, "%.*s%s", (int)(COMM_LINE - 1 - strlen(place)), unroll_message(),
                 place);
}

unroll_status comm_agree(unroll_comm *comm, unroll_status mine)
{
  unroll_status st = UNROLL_OK;
  int first = mine == UNROLL_OK ? comm->size : comm->rank;
  verdict v = {.status = (int)mine};

  watchdog_wait_begin_any("agreement of all ranks");
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm->handle));
  if (first < comm->size) {
    if (first == comm->rank) { write_line(comm, mine, v.line); }
    UNROLL_TRY_MPI(MPI_Bcast(&v, (int)sizeof v, MPI_BYTE, first, comm->handle));
    memcpy(comm->agreed, v.line, sizeof v.line);
    st = unroll_fail((unroll_status)v.status, "%s", v.line);
  }

cleanup:
  watchdog_wait_end();
  return st;
}

/* ----------------------------------------------- broadcast, sums and maxima */

unroll_status comm_broadcast(unroll_comm *comm, void *bytes, size_t n, int root)
{
  unroll_status st = UNROLL_OK;
  char *at = bytes;

  for (size_t i = 0; i < n; i += COMM_MESSAGE_MAX) {
    int count = comm_message_count(n - i);
    comm_wait_begin_rooted(comm, root, "broadcast to all ranks");
    UNROLL_TRY_MPI(MPI_Bcast(at + i, count, MPI_BYTE, root, comm->handle));
  }

cleanup:
  watchdog_wait_end();
  return st;
}

/* Allreduce in place, where the order of the operations does not matter. */
static unroll_status reduce(unroll_comm *comm, void *x, size_t n, MPI_Datatype type, size_t width,
                            MPI_Op op)
{
  unroll_status st = UNROLL_OK;
  char *at = x;

  for (size_t i = 0; i < n; i += COMM_MESSAGE_MAX) {
    int count = comm_message_count(n - i);
    watchdog_wait_begin_any("sum over all ranks");
    UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, at + i * width, count, type, op, comm->handle));
  }

cleanup:
  watchdog_wait_end();
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
  return reduce(comm, x, n, MPI_DOUBLE, sizeof *x, MPI_SUM);
}

/* ------------------------------------------------------------------- gather */

/* Receive a block of sizes[rank] bytes from comm_send of each other rank; copy the own one. */
static unroll_status receive_blocks(unroll_comm *comm, const void *own, const size_t *sizes,
                                    char *blocks)
{
  unroll_status st = UNROLL_OK;
  MPI_Request under_way[GATHER_AT_ONCE];
  MPI_Status
      statuses[GATHER_AT_ONCE]; /* to gcc, MPICH's MPI_STATUSES_IGNORE is an array too short */
  int n = 0;

  for (int r = 0; r < comm->size; blocks += sizes[r], ++r) {
    if (r == comm->rank && sizes[r] > 0) { memcpy(blocks, own, sizes[r]); }
    for (size_t i = 0; r != comm->rank && i < sizes[r]; i += COMM_MESSAGE_MAX) {
      int count = comm_message_count(sizes[r] - i);
      if (n == GATHER_AT_ONCE) {
        watchdog_wait_begin_any("gathering from all ranks");
        UNROLL_TRY_MPI(MPI_Waitall(n, under_way, statuses));
        n = 0;
      }
      UNROLL_TRY_MPI(
          MPI_Irecv(blocks + i, count, MPI_BYTE, r, COMM_TAG, comm->handle, &under_way[n]));
      n += 1;
    }
  }
  watchdog_wait_begin_any("gathering from all ranks");
  UNROLL_TRY_MPI(MPI_Waitall(n, under_way, statuses));

cleanup:
  watchdog_wait_end();
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

  if (receives) {
    st = memory_new((size_t)comm->size, sizeof *each, "sizes of the gathered blocks", &each);
  }
  UNROLL_TRY(comm_agree(comm, st));
  watchdog_wait_begin_any("gathering from all ranks");
  if (root < 0) {
    UNROLL_TRY_MPI(MPI_Allgather(&n, 1, MPI_UINT64_T, each, 1, MPI_UINT64_T, comm->handle));
  } else {
    UNROLL_TRY_MPI(MPI_Gather(&n, 1, MPI_UINT64_T, each, 1, MPI_UINT64_T, root, comm->handle));
  }
  watchdog_wait_end();
  for (int r = 0; receives && r < comm->size; ++r) { total += each[r]; }
  if (receives) { st = memory_new(total, 1, "gathered blocks", &blocks); }
  UNROLL_TRY(comm_agree(comm, st));

  if (comm->rank == collector) {
    UNROLL_TRY(receive_blocks(comm, bytes, each, blocks));
  } else {
    UNROLL_TRY(comm_send(comm, bytes, n, collector));
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
