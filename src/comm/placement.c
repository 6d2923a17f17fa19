/* The affinity mask of a process is no part of POSIX: sched_getaffinity and CPU_* need this. */
#define _GNU_SOURCE

#include "comm/placement.h"

#include "base/cpu.h"
#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include "comm/launcher.h"
#include "comm/watchdog.h"
#include <limits.h>
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* cpu_set_t of 1024 cores each in a mask: 8192 is the maximum of Linux for x86-64. */
#define MASK_SETS 8

/* Hosts whose names are kept; of more only the number. */
#define HOSTS_NAMED 32

/* What the watchdog says that ranks wait for here. */
static const char places[] = "places of the ranks";

/* [bytes] of the name of a host */
#define HOST_NAME 256

/* What one rank knows about itself. */
typedef struct fact {
  int threads;
  int given;      /* cores by srun --cpus-per-task; INT_MAX: not set */
  int host_cores; /* of the host that the job may use */
  int quota;      /* cores' worth of CPU time of its control group; 0: no limit */
  uint64_t group; /* that group: ranks with the same number share the quota */
  cpu_set_t mask[MASK_SETS];
} fact;

/* The ranks of this host; this one has index `me`. */
typedef struct neighbours {
  const fact *facts;
  int n, me;
} neighbours;

static int min_int(int a, int b)
{
  return a < b ? a : b;
}

/* At least one. */
static int cores_per_rank(int cores, int ranks)
{
  return cores > ranks ? cores / ranks : 1;
}

static int cores_of(const fact *f)
{
  return CPU_COUNT_S(sizeof f->mask, f->mask);
}

/* Is the mask of `inner` a subset of that of `outer`, on the same host? */
static bool is_subset(const fact *inner, const fact *outer)
{
  cpu_set_t both[MASK_SETS];
  CPU_AND_S(sizeof both, both, inner->mask, outer->mask);
  return CPU_EQUAL_S(sizeof both, both, inner->mask);
}

/* -------------------------------------------------------------- this rank */

/* An environment variable that is a positive number below `other`, else `other`. */
static int env_count(const char *name, int other)
{
  const char *text = getenv(name);
  long value = text != NULL ? strtol(text, NULL, 10) : 0;
  return value > 0 && value < other ? (int)value : other;
}

static void read_own_facts(fact *f)
{
  memset(f, 0, sizeof *f);
  f->threads = omp_get_max_threads();
  f->host_cores = env_count("SLURM_CPUS_ON_NODE", (int)sysconf(_SC_NPROCESSORS_ONLN));
  /* In a batch script and under mpirun the variable is set too, but does not concern the ranks. */
  f->given =
      launcher_find().kind == LAUNCHER_SLURM ? env_count("SLURM_CPUS_PER_TASK", INT_MAX) : INT_MAX;
  f->quota = cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup", &f->group);
  if (sched_getaffinity(0, sizeof f->mask, f->mask) != 0) {
    CPU_ZERO_S(sizeof f->mask, f->mask);
    for (int k = 0; k < f->host_cores; ++k) { CPU_SET_S((size_t)k, sizeof f->mask, f->mask); }
  }
}

/* -------------------------------------------------------------- this host */

/* Facts of the ranks of this host; *all is to be freed. */
static unroll_status gather_neighbours(unroll_comm *comm, neighbours *host, fact **all)
{
  unroll_status st = UNROLL_OK;
  fact mine;

  UNROLL_TRY_MPI(MPI_Comm_rank(comm->host, &host->me));
  UNROLL_TRY_MPI(MPI_Comm_size(comm->host, &host->n));
  UNROLL_TRY(comm_agree(comm, memory_new((size_t)host->n, sizeof **all, "places of ranks", all)));
  read_own_facts(&mine);
  watchdog_wait_begin_any(places);
  UNROLL_TRY_MPI(MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, *all, (int)sizeof mine, MPI_BYTE,
                               comm->host));
  host->facts = *all;

cleanup:
  watchdog_wait_end();
  return st;
}

/* Ranks that share the quota of f. */
static int quota_ranks(const neighbours *host, const fact *f)
{
  int ranks = 0;
  for (int q = 0; q < host->n; ++q) {
    ranks += host->facts[q].quota > 0 && host->facts[q].group == f->group;
  }
  return ranks;
}

/* Cores that rank r may use: its mask, what srun gave it, its share of a limited CPU time. */
static int granted(const neighbours *host, int r)
{
  const fact *f = &host->facts[r];
  int cores = min_int(cores_of(f), f->given);
  return f->quota > 0 ? min_int(cores, cores_per_rank(f->quota, quota_ranks(host, f))) : cores;
}

/* Cores of the host that the job may use. */
static int host_cores(const neighbours *host)
{
  const fact *f = &host->facts[host->me];
  if (f->quota == 0) { return f->host_cores; }
  long cores = (long)f->quota * host->n / quota_ranks(host, f);
  return cores < f->host_cores ? (int)cores : f->host_cores;
}

/* Cores of rank r when ranks with the same mask divide its cores. */
static int fair_cores(const neighbours *host, int r)
{
  const fact *f = &host->facts[r];
  int same = 0;
  for (int q = 0; q < host->n; ++q) {
    same += CPU_EQUAL_S(sizeof f->mask, f->mask, host->facts[q].mask) != 0;
  }
  return min_int(granted(host, r), cores_per_rank(cores_of(f), same));
}

/* Threads that this rank should run: one for each of its cores, and over all ranks no more than the cores of the
 * host. */
static int fair_threads(const neighbours *host)
{
  long sum = 0;
  for (int r = 0; r < host->n; ++r) { sum += fair_cores(host, r); }
  const int mine = fair_cores(host, host->me);
  return sum > host_cores(host) ? min_int(mine, cores_per_rank(host_cores(host), host->n)) : mine;
}

unroll_status placement_set_threads(unroll_comm *comm)
{
  unroll_status st = UNROLL_OK;
  neighbours host;
  fact *all = NULL;
  const char *asked = getenv("OMP_NUM_THREADS");

  UNROLL_TRY(gather_neighbours(comm, &host, &all));
  if (asked == NULL || asked[0] == '\0') { omp_set_num_threads(fair_threads(&host)); }

cleanup:
  memory_free(&all);
  return st;
}

/* Ranks with more threads than cores. */
typedef struct oversubscription {
  int rank; /* the first of them, as the parent counts */
  int ranks, threads, cores;
  int host_ranks, host_cores, host_threads; /* of their host */
} oversubscription;

/*
 * Are there more threads than cores? Checked are this rank alone on its granted cores; the ranks whose masks are
 * subsets of its mask, on the cores of that mask; and all ranks of the host. Masks set by launchers are equal, nested
 * or disjoint: if any set of cores is oversubscribed, then the mask of some rank is.
 */
static bool is_oversubscribed(const neighbours *host, oversubscription *c)
{
  const fact *f = &host->facts[host->me];
  const int alone = granted(host, host->me);
  int ranks = 0, threads = 0;

  c->host_ranks = host->n;
  c->host_cores = host_cores(host);
  c->host_threads = 0;
  for (int q = 0; q < host->n; ++q) {
    c->host_threads += host->facts[q].threads;
    if (is_subset(&host->facts[q], f)) {
      ranks += 1;
      threads += host->facts[q].threads;
    }
  }

  c->ranks = 1;
  c->threads = f->threads;
  c->cores = alone;
  if (f->threads > alone && alone < cores_of(f)) { return true; }
  c->ranks = ranks;
  c->threads = threads;
  c->cores = cores_of(f);
  if (threads > c->cores) { return true; }
  c->ranks = c->host_ranks;
  c->threads = c->host_threads;
  c->cores = c->host_cores;
  return c->threads > c->cores;
}

/* -------------------------------------------------------------- all ranks */

/* Names of the first HOSTS_NAMED hosts in rank order, and the number of the others; on every rank. */
static unroll_status name_hosts(unroll_comm *comm, placement *p, bool first_of_host)
{
  unroll_status st = UNROLL_OK;
  char own[HOST_NAME] = "", text[HOSTS_NAMED * HOST_NAME + 64] = "";
  int count = first_of_host, before = 0;
  size_t *sizes = NULL;
  void *all = NULL;

  watchdog_wait_begin_any(places);
  UNROLL_TRY_MPI(MPI_Exscan(&count, &before, 1, MPI_INT, MPI_SUM, comm->handle));
  if (comm->rank == 0) { before = 0; } /* MPI leaves it undefined */
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, &count, 1, MPI_INT, MPI_SUM, comm->handle));
  watchdog_wait_end();
  p->n_hosts = count;

  if (gethostname(own, sizeof own - 1) != 0) { (void)snprintf(own, sizeof own, "unknown"); }
  const bool named = first_of_host && before < HOSTS_NAMED;
  UNROLL_TRY(comm_gather_bytes(comm, own, named ? strlen(own) + 1 : 0, 0, &sizes, &all));
  if (comm->rank == 0) {
    size_t used = 0;
    const char *name = all;
    for (int k = 0; k < count && k < HOSTS_NAMED; ++k, name += strlen(name) + 1) {
      used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", k > 0 ? "," : "", name);
    }
    if (count > HOSTS_NAMED) {
      (void)snprintf(text + used, sizeof text - used, " and %d more", count - HOSTS_NAMED);
    }
  }
  UNROLL_TRY(comm_broadcast(comm, text, sizeof text, 0));
  UNROLL_TRY(comm_agree(comm, memory_string(text, &p->hosts)));

cleanup:
  watchdog_wait_end();
  memory_free(&all);
  memory_free(&sizes);
  return st;
}

/* Minimum and maximum over all ranks, and the facts of the lowest oversubscribed rank. */
static unroll_status reduce_facts(unroll_comm *comm, const neighbours *host, placement *p)
{
  unroll_status st = UNROLL_OK;
  const int threads = host->facts[host->me].threads, cores = granted(host, host->me);
  oversubscription c = {.rank = comm->parent_rank};
  const int oversubscribed = is_oversubscribed(host, &c) ? comm->rank : INT_MAX;
  int low[5] = {threads, -threads, cores, -cores, oversubscribed};

  watchdog_wait_begin_any(places);
  UNROLL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, low, 5, MPI_INT, MPI_MIN, comm->handle));
  p->ranks = comm->size;
  p->threads_min = low[0];
  p->threads_max = -low[1];
  p->cores_min = low[2];
  p->cores_max = -low[3];
  p->oversubscribed = low[4] < INT_MAX;
  UNROLL_TRY(comm_broadcast(comm, &c, sizeof c, p->oversubscribed ? low[4] : 0));
  p->oversubscribed_rank = c.rank;
  p->oversubscribed_ranks = c.ranks;
  p->oversubscribed_threads = c.threads;
  p->oversubscribed_cores = c.cores;
  p->host_ranks = c.host_ranks;
  p->host_cores = c.host_cores;
  p->host_threads = c.host_threads;

cleanup:
  watchdog_wait_end();
  return st;
}

unroll_status placement_new(unroll_comm *comm, placement **out)
{
  unroll_status st = UNROLL_OK;
  placement *p = NULL;
  fact *all = NULL;
  neighbours host;

  UNROLL_TRY(comm_agree(comm, memory_new(1, sizeof *p, "the placement of the ranks", &p)));
  UNROLL_TRY(gather_neighbours(comm, &host, &all));
  UNROLL_TRY(reduce_facts(comm, &host, p));
  UNROLL_TRY(name_hosts(comm, p, host.me == 0));
  *out = p;
  p = NULL;

cleanup:
  placement_free(&p);
  memory_free(&all);
  return st;
}

void placement_free(placement **p)
{
  if (*p == NULL) { return; }
  memory_free(&(*p)->hosts);
  memory_free(p);
}

/* ----------------------------------------------------------------- advice */

/* Are the flags of this launcher known here? */
static bool can_bind(launcher_kind by)
{
  return by == LAUNCHER_OPENMPI || by == LAUNCHER_HYDRA || by == LAUNCHER_SLURM;
}

/* "rank 0 runs 2 threads on 1 core" */
static void describe(const placement *p, size_t size, char *out)
{
  char who[64];
  if (p->oversubscribed_ranks == 1) {
    (void)snprintf(who, sizeof who, "rank %d runs", p->oversubscribed_rank);
  } else {
    (void)snprintf(who, sizeof who, "%d ranks (the first is rank %d) run", p->oversubscribed_ranks,
                   p->oversubscribed_rank);
  }
  (void)snprintf(out, size, "%s %d threads on %d core%s", who, p->oversubscribed_threads,
                 p->oversubscribed_cores, p->oversubscribed_cores == 1 ? "" : "s");
}

/* More ranks than cores: no number of threads helps. */
static void advise_ranks(const placement *p, launcher_kind by, int most, size_t size, char *out)
{
  char flag[64] = "";
  if (by == LAUNCHER_SLURM) {
    (void)snprintf(flag, sizeof flag, " (srun --ntasks-per-node=%d)", most);
  } else if (by == LAUNCHER_HYDRA) {
    (void)snprintf(flag, sizeof flag, " (mpiexec -ppn %d)", most);
  } else if (by == LAUNCHER_OPENMPI && p->n_hosts > 1) {
    (void)snprintf(flag, sizeof flag, " (mpirun --map-by ppr:%d:node)", most);
  } else if (by == LAUNCHER_OPENMPI) {
    (void)snprintf(flag, sizeof flag, " (mpirun -n %d)", most);
  }
  (void)snprintf(out, size, "start at most %d rank%s on such a host%s%s", most,
                 most == 1 ? "" : "s", flag, p->threads_max > 1 ? ", with OMP_NUM_THREADS=1" : "");
}

/*
 * Ranks bound to fewer cores than their host has for them: `threads` per rank
 * fit on the host, `fit` on the cores that the ranks are bound to. The latter is
 * named too: it helps even where the job may use no other cores.
 */
static void advise_binding(launcher_kind by, int threads, int fit, bool fewer, size_t size,
                           char *out)
{
  char number[40] = "";
  char stay[40] = "";
  if (fewer) {
    (void)snprintf(number, sizeof number, "%sOMP_NUM_THREADS=%d ",
                   by == LAUNCHER_OPENMPI ? "-x " : "", threads);
  }
  if (fit > 0) { (void)snprintf(stay, sizeof stay, ", or set OMP_NUM_THREADS=%d", fit); }

  if (by == LAUNCHER_SLURM) {
    (void)snprintf(out, size, "start with %ssrun --cpus-per-task=%d%s", number, threads, stay);
  } else if (by == LAUNCHER_HYDRA) {
    (void)snprintf(out, size, "start with %smpiexec -bind-to core:%d%s", number, threads, stay);
  } else {
    (void)snprintf(out, size,
                   "start with mpirun %s--bind-to none (or --map-by slot:PE=%d --bind-to core)%s",
                   number, threads, stay);
  }
}

/*
 * Idle cores, because each rank is bound to fewer than its share: Open MPI binds to one core with two
 * ranks or fewer, and OpenMP then starts one thread. No advice where OMP_NUM_THREADS is set.
 */
static void advise_idle(const placement *p, size_t size, char *out)
{
  const launcher_kind by = launcher_find().kind;
  const int share = p->host_ranks > 0 ? p->host_cores / p->host_ranks : 0;
  char remedy[200];

  if (!can_bind(by) || getenv("OMP_NUM_THREADS") != NULL || p->cores_max >= share) { return; }
  advise_binding(by, share, 0, by == LAUNCHER_OPENMPI, sizeof remedy, remedy);
  (void)snprintf(out, size, "%d thread%s on the %d cores of a host: %s", p->host_threads,
                 p->host_threads == 1 ? "" : "s", p->host_cores, remedy);
}

/* Fewer threads; or more cores from srun, where one rank was given fewer than its threads need. */
static void advise_fewer(const placement *p, launcher_kind by, int fit, int has, size_t size,
                         char *out)
{
  char more[64] = "";
  if (by == LAUNCHER_SLURM && p->oversubscribed_ranks == 1) {
    (void)snprintf(more, sizeof more, ", or start with srun --cpus-per-task=%d", has);
  } else if (by == LAUNCHER_OPENMPI) {
    (void)snprintf(more, sizeof more, " (to all hosts: mpirun -x OMP_NUM_THREADS)");
  }
  (void)snprintf(out, size, "set OMP_NUM_THREADS=%d%s", fit, more);
}

void placement_advice(const placement *p, size_t size, char *out)
{
  char fact_line[160];
  char remedy[200];

  (void)snprintf(out, size, "%s", "");
  if (!p->oversubscribed) {
    advise_idle(p, size, out);
    return;
  }

  /* Threads that a rank has, that fit on its cores, and on the whole host. */
  const int has =
      (p->oversubscribed_threads + p->oversubscribed_ranks - 1) / p->oversubscribed_ranks;
  const int fit = p->oversubscribed_cores / p->oversubscribed_ranks;
  const int share = p->host_cores / p->host_ranks;
  const int reach = has < share ? has : share;
  const launcher_kind by = launcher_find().kind;
  const bool bound = can_bind(by) && p->oversubscribed_cores < p->host_cores;

  if (bound && reach > fit) {
    advise_binding(by, reach, fit, reach < has, sizeof remedy, remedy);
  } else if (fit > 0) {
    advise_fewer(p, by, fit, has, sizeof remedy, remedy);
  } else {
    advise_ranks(p, by, share == 0 ? p->host_cores : p->oversubscribed_cores, sizeof remedy,
                 remedy);
  }
  describe(p, sizeof fact_line, fact_line);
  (void)snprintf(out, size, "%s: %s", fact_line, remedy);
}
