/* The affinity mask of a process is no part of POSIX: sched_getaffinity and CPU_* need this. */
#define _GNU_SOURCE

#include "comm/placement.h"

#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"
#include "comm/launcher.h"
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Sets of 1024 cores each in a mask: 8192 is the most that Linux for x86-64 knows. */
#define MASK_SETS 8

/* What one rank knows of itself. */
typedef struct fact {
  char host[256];
  int threads;
  int host_cores; /* of the host, as far as the job was given them */
  cpu_set_t mask[MASK_SETS];
} fact;

static int cores_of(const fact *f)
{
  return CPU_COUNT_S(sizeof f->mask, f->mask);
}

/* May `inner` use no core but those of `outer`, on the same host? */
static bool lies_within(const fact *inner, const fact *outer)
{
  cpu_set_t both[MASK_SETS];
  CPU_AND_S(sizeof both, both, inner->mask, outer->mask);
  return strcmp(inner->host, outer->host) == 0 && CPU_EQUAL_S(sizeof both, both, inner->mask);
}

/* -------------------------------------------------------------- this rank */

/* Cores of this host that the job may use: in a Slurm job not more than it was given. */
static int count_host_cores(void)
{
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  const char *text = getenv("SLURM_CPUS_ON_NODE");
  long given = text != NULL ? strtol(text, NULL, 10) : 0;
  return (int)(given > 0 && given < online ? given : online);
}

static void look_around(fact *f)
{
  memset(f, 0, sizeof *f);
  if (gethostname(f->host, sizeof f->host - 1) != 0) {
    (void)snprintf(f->host, sizeof f->host, "unknown");
  }
  f->threads = omp_get_max_threads();
  f->host_cores = count_host_cores();
  if (sched_getaffinity(0, sizeof f->mask, f->mask) != 0) {
    CPU_ZERO_S(sizeof f->mask, f->mask);
    for (int k = 0; k < f->host_cores; ++k) { CPU_SET_S((size_t)k, sizeof f->mask, f->mask); }
  }
}

/* -------------------------------------------------------------- all ranks */

/* Names of the hosts, in rank order, each once. */
static unroll_status name_hosts(placement *p, const fact *facts)
{
  size_t used = 0;
  unroll_status st =
      memory_new((size_t)p->ranks * sizeof facts->host, 1, "names of the hosts", &p->hosts);
  if (st != UNROLL_OK) { return st; }

  for (int r = 0; r < p->ranks; ++r) {
    int same = 0;
    while (strcmp(facts[same].host, facts[r].host) != 0) { same += 1; }
    if (same < r) { continue; }
    size_t room = (size_t)p->ranks * sizeof facts->host - used;
    used += (size_t)snprintf(p->hosts + used, room, "%s%s", used > 0 ? "," : "", facts[r].host);
    p->n_hosts += 1;
  }
  return UNROLL_OK;
}

/*
 * Fill in the crowded fields if the ranks that must live on the cores of rank r
 * have more threads than there are cores. Masks are equal, nested or disjoint
 * wherever a launcher made them: then no other set of cores can be short unless
 * the one of some rank is.
 */
static void judge(placement *p, const fact *facts, int r)
{
  int ranks = 0;
  int threads = 0;
  for (int q = 0; q < p->ranks; ++q) {
    if (lies_within(&facts[q], &facts[r])) {
      ranks += 1;
      threads += facts[q].threads;
    }
  }
  if (threads <= cores_of(&facts[r])) { return; }

  p->crowded = true;
  p->crowded_rank = r;
  p->crowded_ranks = ranks;
  p->crowded_threads = threads;
  p->crowded_cores = cores_of(&facts[r]);
}

/* Ranks, threads and cores of the host on which rank r lives. */
static void note_host(placement *p, const fact *facts, int r)
{
  p->host_cores = facts[r].host_cores;
  for (int q = 0; q < p->ranks; ++q) {
    if (strcmp(facts[q].host, facts[r].host) == 0) {
      p->host_ranks += 1;
      p->host_threads += facts[q].threads;
    }
  }
}

unroll_status placement_new(unroll_comm *comm, placement **out)
{
  unroll_status st = UNROLL_OK;
  placement *p = NULL;
  void *all = NULL;
  size_t *sizes = NULL;
  fact mine;

  look_around(&mine);
  UNROLL_TRY(comm_gather_bytes(comm, &mine, sizeof mine, -1, &sizes, &all));
  const fact *facts = all;
  UNROLL_TRY(memory_new(1, sizeof *p, "the placement of the ranks", &p));
  p->ranks = comm->size;
  UNROLL_TRY(name_hosts(p, facts));

  p->threads_low = p->threads_high = facts[0].threads;
  p->cores_low = p->cores_high = cores_of(&facts[0]);
  for (int r = 1; r < p->ranks; ++r) {
    int threads = facts[r].threads;
    int cores = cores_of(&facts[r]);
    p->threads_low = threads < p->threads_low ? threads : p->threads_low;
    p->threads_high = threads > p->threads_high ? threads : p->threads_high;
    p->cores_low = cores < p->cores_low ? cores : p->cores_low;
    p->cores_high = cores > p->cores_high ? cores : p->cores_high;
  }
  for (int r = 0; r < p->ranks && !p->crowded; ++r) { judge(p, facts, r); }
  note_host(p, facts, p->crowded ? p->crowded_rank : 0);
  *out = p;
  p = NULL;

cleanup:
  placement_free(&p);
  memory_free(&all);
  memory_free(&sizes);
  return st;
}

void placement_free(placement **p)
{
  if (*p == NULL) { return; }
  memory_free(&(*p)->hosts);
  memory_free(p);
}

/* ----------------------------------------------------------------- advice */

/* "rank 0 runs 2 threads on 1 core" */
static void describe(const placement *p, size_t size, char *out)
{
  char who[64];
  if (p->crowded_ranks == 1) {
    (void)snprintf(who, sizeof who, "rank %d runs", p->crowded_rank);
  } else {
    (void)snprintf(who, sizeof who, "%d ranks (the first is rank %d) run", p->crowded_ranks,
                   p->crowded_rank);
  }
  (void)snprintf(out, size, "%s %d threads on %d core%s", who, p->crowded_threads, p->crowded_cores,
                 p->crowded_cores == 1 ? "" : "s");
}

/* More ranks than cores: no number of threads helps. */
static void advise_ranks(const placement *p, launcher_kind by, int most, size_t size, char *out)
{
  char flag[64] = "";
  if (by == LAUNCHER_SLURM) {
    (void)snprintf(flag, sizeof flag, " (srun --ntasks-per-node=%d)", most);
  } else if (by == LAUNCHER_OPENMPI && p->n_hosts > 1) {
    (void)snprintf(flag, sizeof flag, " (mpirun --map-by ppr:%d:node)", most);
  } else if (by == LAUNCHER_OPENMPI) {
    (void)snprintf(flag, sizeof flag, " (mpirun -n %d)", most);
  }
  (void)snprintf(out, size, "start at most %d rank%s on such a host%s%s", most,
                 most == 1 ? "" : "s", flag, p->threads_high > 1 ? ", with OMP_NUM_THREADS=1" : "");
}

/*
 * Ranks bound to fewer cores than their host has for them: `threads` a rank
 * would have room on the host, `fit` have it where the ranks are. The latter is
 * named too, as it helps even where the cores are all that this job may use.
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
  } else {
    (void)snprintf(out, size,
                   "start with mpirun %s--bind-to none (or --map-by slot:PE=%d --bind-to core)%s",
                   number, threads, stay);
  }
}

/*
 * Cores that nobody uses because each rank is bound to fewer than its share: what Open MPI does with two
 * ranks or fewer, and OpenMP then starts one thread. A number of threads that was asked for is respected.
 */
static void advise_idle(const placement *p, size_t size, char *out)
{
  const launcher_kind by = launcher_find().kind;
  const int share = p->host_ranks > 0 ? p->host_cores / p->host_ranks : 0;
  char remedy[200];

  if (by == LAUNCHER_NONE || getenv("OMP_NUM_THREADS") != NULL || p->cores_high >= share) {
    return;
  }
  advise_binding(by, share, 0, by == LAUNCHER_OPENMPI, sizeof remedy, remedy);
  (void)snprintf(out, size, "%d thread%s on the %d cores of a host: %s", p->host_threads,
                 p->host_threads == 1 ? "" : "s", p->host_cores, remedy);
}

void placement_advice(const placement *p, size_t size, char *out)
{
  char fact_line[160];
  char remedy[200];

  (void)snprintf(out, size, "%s", "");
  if (!p->crowded) {
    advise_idle(p, size, out);
    return;
  }

  /* Threads a rank has, could have on these cores, and could have on the whole host. */
  const int has = (p->crowded_threads + p->crowded_ranks - 1) / p->crowded_ranks;
  const int fit = p->crowded_cores / p->crowded_ranks;
  const int share = p->host_cores / p->host_ranks;
  const int reach = has < share ? has : share;
  const launcher_kind by = launcher_find().kind;
  const bool bound = by != LAUNCHER_NONE && p->crowded_cores < p->host_cores;

  if (bound && reach > fit) {
    advise_binding(by, reach, fit, reach < has, sizeof remedy, remedy);
  } else if (fit > 0) {
    (void)snprintf(remedy, sizeof remedy, "set OMP_NUM_THREADS=%d%s", fit,
                   by == LAUNCHER_OPENMPI ? " (to all hosts: mpirun -x OMP_NUM_THREADS)" : "");
  } else {
    advise_ranks(p, by, share == 0 ? p->host_cores : p->crowded_cores, sizeof remedy, remedy);
  }
  describe(p, sizeof fact_line, fact_line);
  (void)snprintf(out, size, "%s: %s", fact_line, remedy);
}
