/* MAP_ANONYMOUS is no part of POSIX 2008. */
#define _DEFAULT_SOURCE

#include "comm/team.h"

#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Names tried for the shared memory: some may belong to jobs in other containers, or to a killed job. */
#define NAMES_TRIED 1000

/* What the watchdog says that ranks wait for here; allocating the pages of a large model takes time. */
static const char forming[] = "forming the teams";

/* ------------------------------------------------------------ communicators */

/* Ranks of a team at most, by the environment. */
static unroll_status read_limit(int *limit)
{
  const char *text = getenv("UNROLL_TEAM");
  char *end = NULL;
  *limit = COMM_TEAM_MAX;
  if (text == NULL) { return UNROLL_OK; }

  long value = strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < 1) {
    return unroll_fail(
        UNROLL_ERR_ARG,
        "UNROLL_TEAM=%s: legal are whole numbers from 1, the ranks of a host that may "
        "share memory",
        text);
  }
  *limit = value < COMM_TEAM_MAX ? (int)value : COMM_TEAM_MAX;
  return UNROLL_OK;
}

/* Largest team of at most `limit` ranks that rank can be in when ranks [first, last] live on its host. */
static int largest_team(int size, int limit, int rank, int first, int last)
{
  int team = 1;
  if ((size & (size - 1)) != 0) { return last - first + 1 == size && size <= limit ? size : 1; }
  while (team <= limit / 2) {
    int begin = rank / (2 * team) * (2 * team);
    if (begin < first || begin + 2 * team - 1 > last) { break; }
    team *= 2;
  }
  return team;
}

/* The largest size that is possible for every rank. The ranks of a host are consecutive. */
static unroll_status find_size(unroll_comm *comm, int limit, int *size)
{
  unroll_status st = UNROLL_OK;
  int place = 0, n = 0;

  UNROLL_TRY_MPI(MPI_Comm_rank(comm->host, &place));
  UNROLL_TRY_MPI(MPI_Comm_size(comm->host, &n));
  *size =
      largest_team(comm->size, limit, comm->rank, comm->rank - place, comm->rank - place + n - 1);
  watchdog_wait_begin_any(forming);
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, size, 1, MPI_INT, MPI_MIN, comm->handle));

cleanup:
  watchdog_wait_end();
  return st;
}

static unroll_status split(const unroll_comm *comm, int color, MPI_Comm *out)
{
  unroll_status st = UNROLL_OK;
  watchdog_wait_begin_any(forming);
  UNROLL_TRY_MPI(MPI_Comm_split(comm->handle, color, comm->rank, out));
  UNROLL_TRY_MPI(MPI_Comm_set_errhandler(*out, MPI_ERRORS_RETURN));

cleanup:
  watchdog_wait_end();
  return st;
}

static unroll_status split_communicators(comm_team *team, const unroll_comm *comm, int size)
{
  unroll_status st = UNROLL_OK;
  int of_host = 0;

  UNROLL_TRY_MPI(MPI_Comm_size(comm->host, &of_host));
  team->multi_host = of_host < comm->size;
  team->size = size;
  team->rank = comm->rank % size;
  team->first = comm->rank - team->rank;
  UNROLL_TRY(split(comm, comm->rank / size, &team->handle));
  UNROLL_TRY(split(comm, team->rank, &team->across));

cleanup:
  return st;
}

static void free_communicators(comm_team *team)
{
  if (team->across != MPI_COMM_NULL) { (void)MPI_Comm_free(&team->across); }
  if (team->handle != MPI_COMM_NULL) { (void)MPI_Comm_free(&team->handle); }
}

/* -------------------------------------------------------------- memory */

static size_t round_up_to_pages(size_t bytes)
{
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return (bytes + page - 1) / page * page;
}

/* New shared memory under an unused name, or -1. */
static int create_shared(char *name, size_t size_of_name, size_t bytes)
{
  for (int k = 0; k < NAMES_TRIED; ++k) {
    (void)snprintf(name, size_of_name, "/unroll.%ld.%d", (long)getpid(), k);
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR);
    if (file >= 0 && ftruncate(file, (off_t)bytes) == 0) { return file; }
    if (file >= 0) {
      (void)close(file);
      (void)shm_unlink(name);
      break;
    }
    if (errno != EEXIST) { break; }
  }
  name[0] = '\0';
  return -1;
}

/* Allocate the pages now, on this rank's NUMA node: where there is no room, a later write would raise SIGBUS. */
static bool reserve(int file, size_t begin, size_t end)
{
  int error = 0;
  do {
    error = begin < end ? posix_fallocate(file, (off_t)begin, (off_t)(end - begin)) : 0;
  } while (error == EINTR);
  return error == 0;
}

static size_t bytes_of_arrivals(const comm_team *team)
{
  return round_up_to_pages((size_t)team->size * sizeof(watchdog_arrivals));
}

static watchdog_arrivals *arrivals_of(const comm_team *team)
{
  return (watchdog_arrivals *)(void *)(team->memory + team->total_bytes - bytes_of_arrivals(team));
}

static bool map(comm_team *team, int file)
{
  int flags = file >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void *at = mmap(NULL, team->total_bytes, PROT_READ | PROT_WRITE, flags, file, 0);
  team->memory = at == MAP_FAILED ? NULL : at;
  team->arrivals = at == MAP_FAILED ? NULL : arrivals_of(team);
  if (at != MAP_FAILED) {
    (void)madvise(at, team->total_bytes, MADV_HUGEPAGE);
  } /* no harm where it is refused */
  return team->memory != NULL;
}

static void unmap(comm_team *team)
{
  if (team->memory != NULL) { (void)munmap(team->memory, team->total_bytes); }
  team->memory = NULL;
}

/*
 * Memory shared by the team. MPI_Win_allocate_shared would do the same, but Open MPI 4.1 hangs where
 * there is no room for it. *ok: all ranks of all teams have theirs. The name is unlinked before pages are
 * allocated: a rank that is killed then (out of memory) leaves nothing in /dev/shm.
 */
static unroll_status map_shared(unroll_comm *comm, comm_team *team, bool *ok)
{
  unroll_status st = UNROLL_OK;
  char name[64] = "";
  const size_t parts = (size_t)team->size * team->segment_bytes,
               mine = (size_t)team->rank * team->segment_bytes;
  size_t begin = 0, end = 0;
  int file = -1, good = 0;

  watchdog_wait_begin_any(forming);
  if (team->rank == 0) { file = create_shared(name, sizeof name, team->total_bytes); }
  UNROLL_TRY_MPI(MPI_Bcast(name, (int)sizeof name, MPI_CHAR, 0, team->handle));
  if (team->rank > 0 && name[0] != '\0') { file = shm_open(name, O_RDWR, 0); }
  UNROLL_TRY_MPI(MPI_Barrier(team->handle)); /* all have opened it */
  if (team->rank == 0 && name[0] != '\0') { (void)shm_unlink(name); }
  name[0] = '\0';
  UNROLL_TRY_MPI(MPI_Barrier(team->handle)); /* it has no name now */

  comm_team_owned_range(team, team->total_bytes - parts, round_up_to_pages(1), &begin, &end);
  good = file >= 0 && reserve(file, mine, mine + team->segment_bytes) &&
         reserve(file, parts + begin, parts + end) && map(team, file);
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &good, 1, MPI_INT, MPI_MIN, comm->handle));
  *ok = good != 0;

cleanup:
  watchdog_wait_end();
  if (team->rank == 0 && name[0] != '\0') { (void)shm_unlink(name); }
  if (file >= 0) { (void)close(file); }
  return st;
}

static unroll_status map_private(comm_team *team)
{
  if (map(team, -1)) { return UNROLL_OK; }
  return unroll_fail(UNROLL_ERR_MEMORY, "parameters and gradient: no memory for %zu bytes",
                     team->total_bytes);
}

/* ---------------------------------------------------------- create, free */

static unroll_status size_memory(comm_team *team, size_t segment, size_t common)
{
  size_t max = PTRDIFF_MAX / 2;
  if (segment > max / (size_t)team->size || common > max - segment * (size_t)team->size) {
    return unroll_fail(UNROLL_ERR_MEMORY,
                       "parameters and gradients of %d ranks are more than a machine can address",
                       team->size);
  }
  team->segment_bytes = round_up_to_pages(segment);
  team->total_bytes = (size_t)team->size * team->segment_bytes + round_up_to_pages(common + 1) +
                      bytes_of_arrivals(team);
  return UNROLL_OK;
}

/* Teams of this size with their memory. *ok: there is room for it; else they are freed again. */
static unroll_status make(unroll_comm *comm, comm_team *team, int size, size_t segment,
                          size_t common, bool *ok)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(split_communicators(team, comm, size));
  UNROLL_TRY(comm_agree(comm, size_memory(team, segment, common)));
  if (size == 1) {
    UNROLL_TRY(comm_agree(comm, map_private(team)));
    *ok = true;
  } else {
    UNROLL_TRY(map_shared(comm, team, ok));
  }
  if (!*ok) {
    unmap(team);
    free_communicators(team);
  }

cleanup:
  return st;
}

unroll_status comm_team_new(unroll_comm *comm, size_t segment, size_t common, comm_team **out)
{
  unroll_status st = UNROLL_OK;
  comm_team *team = NULL;
  int limit = 0, size = 1;
  bool ok = false;

  UNROLL_TRY(comm_agree(comm, read_limit(&limit)));
  UNROLL_TRY(comm_agree(comm, memory_new(1, sizeof *team, "a team", &team)));
  team->handle = team->across = MPI_COMM_NULL;
  UNROLL_TRY(find_size(comm, limit, &size));
  UNROLL_TRY(make(comm, team, size, segment, common, &ok));
  if (!ok) { UNROLL_TRY(make(comm, team, 1, segment, common, &ok)); }
  *out = team;
  team = NULL;

cleanup:
  comm_team_free(&team);
  return st;
}

void comm_team_free(comm_team **team)
{
  if (*team == NULL) { return; }
  watchdog_let_go();
  unmap(*team);
  free_communicators(*team);
  memory_free(team);
}

/* -------------------------------------------------------------------- use */

void *comm_team_segment(const comm_team *team, int rank)
{
  return team->memory + (size_t)rank * team->segment_bytes;
}

void *comm_team_common(const comm_team *team)
{
  return comm_team_segment(team, team->size);
}

void comm_team_owned_range(const comm_team *team, size_t n, size_t grain, size_t *begin,
                           size_t *end)
{
  size_t rank = (size_t)team->rank, size = (size_t)team->size, grains = (n + grain - 1) / grain;
  size_t first = grains * rank / size * grain, last = grains * (rank + 1) / size * grain;
  *begin = first < n ? first : n;
  *end = last < n ? last : n;
}

unroll_status comm_team_fence(const comm_team *team)
{
  unroll_status st = UNROLL_OK;
  if (team->size > 1) {
    watchdog_wait_begin_team(team->first, team->size, team->rank, team->arrivals,
                             "shared memory of the host");
    UNROLL_TRY_MPI(MPI_Barrier(team->handle));
  }

cleanup:
  watchdog_wait_end();
  return st;
}
