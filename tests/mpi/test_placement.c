/* Binding this process to a core is no part of POSIX. */
#define _GNU_SOURCE

#include "support.h"

#include "base/cpu.h"
#include "comm/comm.h"
#include "comm/placement.h"
#include <omp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -------------------------------------------------------------- the setting */

static cpu_set_t mask_before;
static int threads_before;

static int at_least_one(int n)
{
  return n > 1 ? n : 1;
}

/* Cores of this host, no more than the CPU time of a container; and those that one of the unbound ranks may use. */
static int cores_here(void)
{
  uint64_t group = 0;
  int cores = CPU_COUNT(&mask_before),
      quota = cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup", &group);
  return quota > 0 && quota < cores ? quota : cores;
}

static int cores_of_one(void)
{
  int cores = CPU_COUNT(&mask_before);
  return cores_here() == cores ? cores : at_least_one(cores_here() / test_size);
}

/* Bind this rank to core k (modulo their number) of those it may use; run this many threads. */
static void bind(int k, int threads)
{
  cpu_set_t one;
  int skip = k % CPU_COUNT(&mask_before);
  CPU_ZERO(&one);
  for (size_t c = 0; c < CPU_SETSIZE; ++c) {
    if (CPU_ISSET(c, &mask_before) && skip-- == 0) { CPU_SET(c, &one); }
  }
  CU_ASSERT_EQUAL(sched_setaffinity(0, sizeof one, &one), 0);
  omp_set_num_threads(threads);
}

static void unbind(void)
{
  CU_ASSERT_EQUAL(sched_setaffinity(0, sizeof mask_before, &mask_before), 0);
  omp_set_num_threads(threads_before);
}

static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_RANK",
                                        "MPI_LOCALNRANKS",
                                        "PMI_SIZE",
                                        "PMI_RANK",
                                        "PMIX_RANK",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_CPUS_PER_TASK",
                                        "SLURM_CPUS_ON_NODE",
                                        "OMP_NUM_THREADS"};
#define N_VARIABLES (sizeof variables / sizeof variables[0])
static char *variables_before[N_VARIABLES];

/* Set one of these environment variables, or none (NULL); unset the others. */
static void set_only(const char *name, const char *value)
{
  for (size_t k = 0; k < N_VARIABLES; ++k) { unsetenv(variables[k]); }
  if (name != NULL) { setenv(name, value, 1); }
}

static void restore_environment(void)
{
  for (size_t k = 0; k < N_VARIABLES; ++k) {
    unsetenv(variables[k]);
    if (variables_before[k] != NULL) { setenv(variables[k], variables_before[k], 1); }
  }
}

/* ------------------------------------------------------------------- facts */

static void test_new_reports_threads_cores_and_hosts(void)
{
  char host[256] = "";
  placement *p = NULL;
  gethostname(host, sizeof host - 1);
  bind(test_rank, test_rank + 1);
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->ranks == test_size && p->threads_min == 1 && p->threads_max == test_size);
  CHECK_ALL(p->cores_min == 1 && p->cores_max == 1);
  CHECK_ALL(p->n_hosts == 1 && strcmp(p->hosts, host) == 0);
  placement_free(&p);
  CHECK_ALL(p == NULL);
  placement_free(&p);
  unbind();
}

static void test_new_of_unbound_ranks_counts_all_cores(void)
{
  placement *p = NULL;
  omp_set_num_threads(1);
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->cores_min == cores_of_one() && p->cores_max == p->cores_min);
  placement_free(&p);
  unbind();
}

static void test_new_with_more_threads_than_bound_cores_is_oversubscribed(void)
{
  placement *p = NULL;
  bind(0, 2);
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->oversubscribed && p->oversubscribed_rank == 0 &&
            p->oversubscribed_ranks == test_size);
  CHECK_ALL(p->oversubscribed_threads == 2 * test_size && p->oversubscribed_cores == 1);
  CHECK_ALL(p->host_ranks == test_size && p->host_cores >= 1);
  placement_free(&p);
  unbind();
}

/* The others are unbound, with one thread: rank 0 is oversubscribed by them only where cores are few. */
static void test_new_with_the_last_rank_oversubscribed_names_it(void)
{
  const int last = test_size - 1;
  const bool room = test_size + 1 <= CPU_COUNT(&mask_before);
  placement *p = NULL;
  omp_set_num_threads(1);
  if (test_rank == last) { bind(0, 2); }
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->oversubscribed && p->oversubscribed_rank == (room ? last : 0));
  CHECK_ALL(!room || (p->oversubscribed_ranks == 1 && p->oversubscribed_threads == 2 &&
                      p->oversubscribed_cores == 1));
  placement_free(&p);
  unbind();
}

/* One thread on a core of its own: only more ranks than cores are too many. */
static void test_new_with_a_core_for_each_thread_is_not_oversubscribed(void)
{
  placement *p = NULL;
  bind(test_rank, 1);
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->oversubscribed == (test_size > CPU_COUNT(&mask_before)));
  placement_free(&p);
  unbind();
}

/* Unbound ranks with a thread for every core each: too many together, unless there is one rank. */
static void test_new_with_threads_of_all_ranks_beyond_the_cores_is_oversubscribed(void)
{
  placement *p = NULL;
  omp_set_num_threads(CPU_COUNT(&mask_before));
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->oversubscribed == (test_size > 1));
  CHECK_ALL(!p->oversubscribed || p->oversubscribed_threads == test_size * CPU_COUNT(&mask_before));
  placement_free(&p);
  unbind();
}

/* Of srun --cpus-per-task without task affinity: the mask has more cores, but the grant counts. */
static void test_new_with_more_threads_than_srun_gave_is_oversubscribed(void)
{
  placement *p = NULL;
  set_only("SLURM_STEP_NUM_TASKS", "2");
  setenv("SLURM_CPUS_PER_TASK", "1", 1);
  omp_set_num_threads(2);
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->cores_min == 1 && p->cores_max == 1);
  CHECK_ALL(p->oversubscribed && p->oversubscribed_rank == 0 && p->oversubscribed_cores == 1);
  CHECK_ALL(CPU_COUNT(&mask_before) == 1 ||
            (p->oversubscribed_ranks == 1 && p->oversubscribed_threads == 2));
  placement_free(&p);
  unbind();
  restore_environment();
}

/* In a batch script and under mpirun it is not what a rank was given. */
static void test_new_outside_of_srun_ignores_cpus_per_task(void)
{
  placement *p = NULL;
  set_only("SLURM_CPUS_PER_TASK", "1");
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->cores_min == cores_of_one());
  placement_free(&p);
  restore_environment();
}

/* A job that was given one core of the host, whatever the masks say. */
static void test_new_with_more_threads_than_the_job_has_is_oversubscribed(void)
{
  placement *p = NULL;
  set_only("SLURM_CPUS_ON_NODE", "1");
  omp_set_num_threads(test_rank == 0 ? 2 : 1);
  CHECK_OK(placement_new(test_comm, &p));
  CHECK_ALL(p->host_cores == 1 && p->host_ranks == test_size);
  CHECK_ALL(p->host_threads == test_size + 1 && p->oversubscribed);
  placement_free(&p);
  unbind();
  restore_environment();
}

/* Ranks look at those of their host alone; every rank its own host here. */
static void test_new_of_several_hosts_judges_each_by_itself(void)
{
  placement *p = NULL;
  unroll_comm *comm = NULL;
  char host[256] = "", more[32];
  size_t names = 1;
  int world = 0;
  gethostname(host, sizeof host - 1);
  MPI_Comm_rank(MPI_COMM_WORLD, &world);
  CHECK_OK(comm_new_on_hosts(MPI_COMM_WORLD, world, &comm));
  bind(0,
       world == test_size - 1 ? 2 : 1); /* all on one core: hosts of their own, so not too many */
  CHECK_OK(placement_new(comm, &p));
  CHECK_ALL(p->n_hosts == test_size && p->oversubscribed &&
            p->oversubscribed_rank == test_size - 1);
  CHECK_ALL(p->oversubscribed_ranks == 1 && p->oversubscribed_threads == 2 && p->host_ranks == 1);
  for (const char *at = p->hosts; *at != '\0'; ++at) { names += *at == ','; }
  CHECK_ALL(strncmp(p->hosts, host, strlen(host)) == 0);
  CHECK_ALL(names == (size_t)(test_size < 32 ? test_size : 32));
  (void)snprintf(more, sizeof more, " and %d more", test_size - 32);
  CHECK_ALL((strstr(p->hosts, more) != NULL) == (test_size > 32));
  placement_free(&p);
  unroll_comm_free(&comm);
  unbind();
}

/* ----------------------------------------------------------------- threads */

/* Threads after placement_set_threads, when there were 77 before. */
static int threads_set(void)
{
  int threads = 0;
  omp_set_num_threads(77);
  CHECK_OK(placement_set_threads(test_comm));
  threads = omp_get_max_threads();
  return threads;
}

static void test_threads_of_a_bound_rank_are_its_cores(void)
{
  set_only(NULL, NULL);
  bind(test_rank, 1);
  CHECK_ALL(threads_set() == 1);
  unbind();
  restore_environment();
}

static void test_threads_of_unbound_ranks_are_their_share(void)
{
  set_only(NULL, NULL);
  CHECK_ALL(threads_set() == at_least_one(cores_here() / test_size));
  unbind();
  restore_environment();
}

/* Rank 0 may use all cores, the others live on the first: together no more than the host has. */
static void test_threads_of_nested_ranks_fit_on_the_host(void)
{
  int all = cores_here();
  set_only(NULL, NULL);
  if (test_rank > 0) { bind(0, 1); }
  int threads = threads_set();
  CHECK_ALL(test_size == 1 ? threads == all
                           : threads == (test_rank > 0 ? 1 : at_least_one(all / test_size)));
  unbind();
  restore_environment();
}

static void test_threads_are_no_more_than_srun_gave(void)
{
  set_only("SLURM_STEP_NUM_TASKS", "2");
  setenv("SLURM_CPUS_PER_TASK", "1", 1);
  CHECK_ALL(threads_set() == 1);
  set_only("SLURM_CPUS_ON_NODE", "1");
  CHECK_ALL(threads_set() == 1);
  unbind();
  restore_environment();
}

static void test_threads_that_were_asked_for_are_kept(void)
{
  set_only("OMP_NUM_THREADS", "77");
  CHECK_ALL(threads_set() == 77);
  unbind();
  restore_environment();
}

/* ------------------------------------------------------------------ advice */

/* Advice for ranks with so many threads together on so many cores, on such a host. */
static void advise(int ranks, int threads, int cores, int host_ranks, int host_cores, char out[512])
{
  const placement p = {.ranks = host_ranks,
                       .threads_min = threads / ranks,
                       .threads_max = threads / ranks,
                       .n_hosts = 1,
                       .oversubscribed = threads > cores,
                       .oversubscribed_rank = 3,
                       .oversubscribed_ranks = ranks,
                       .oversubscribed_threads = threads,
                       .oversubscribed_cores = cores,
                       .host_ranks = host_ranks,
                       .host_cores = host_cores};
  placement_advice(&p, 512, out);
}

static void test_advice_when_all_is_well_is_empty(void)
{
  char line[512] = "left over";
  advise(1, 2, 2, 1, 2, line);
  CU_ASSERT_STRING_EQUAL(line, "");
}

static void test_advice_for_a_bound_rank_under_mpirun_is_to_unbind(void)
{
  char line[512];
  set_only("OMPI_COMM_WORLD_SIZE", "2");
  advise(1, 4, 1, 2, 8, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "rank 3 runs 4 threads on 1 core:"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "mpirun --bind-to none"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "--map-by slot:PE=4 --bind-to core"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "or set OMP_NUM_THREADS=1"));
  restore_environment();
}

static void test_advice_for_a_bound_rank_on_a_small_host_lowers_threads_too(void)
{
  char line[512];
  set_only("OMPI_COMM_WORLD_SIZE", "2");
  advise(1, 8, 1, 2, 8, line); /* 2 ranks of 8 threads on 8 cores: 4 each would fit */
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "mpirun -x OMP_NUM_THREADS=4 --bind-to none"));
  advise(1, 2, 1, 2, 2, line); /* 2 ranks on 2 cores: unbinding gains nothing */
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "set OMP_NUM_THREADS=1"));
  CU_ASSERT_PTR_NULL(strstr(line, "--bind-to"));
  restore_environment();
}

static void test_advice_for_idle_cores_names_the_share_of_a_rank(void)
{
  char line[512];
  const placement p = {.ranks = 2,
                       .threads_min = 1,
                       .threads_max = 1,
                       .cores_min = 1,
                       .cores_max = 1,
                       .host_ranks = 2,
                       .host_cores = 16,
                       .host_threads = 2};
  set_only("OMPI_COMM_WORLD_SIZE", "2");
  placement_advice(&p, sizeof line, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "2 threads on the 16 cores of a host:"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "mpirun -x OMP_NUM_THREADS=8 --bind-to none"));
  setenv("OMP_NUM_THREADS", "1", 1); /* asked for: respected */
  placement_advice(&p, sizeof line, line);
  CU_ASSERT_STRING_EQUAL(line, "");
  restore_environment();
}

static void test_advice_for_a_bound_rank_under_srun_is_cpus_per_task(void)
{
  char line[512];
  set_only("SLURM_STEP_NUM_TASKS", "2");
  advise(1, 4, 1, 2, 8, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "start with srun --cpus-per-task=4"));
  CU_ASSERT_PTR_NULL(strstr(line, "mpirun"));
  restore_environment();
}

static void test_advice_for_a_bound_rank_under_mpiexec_is_its_flag(void)
{
  char line[512];
  set_only("MPI_LOCALNRANKS", "2");
  advise(1, 4, 1, 2, 8, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "start with mpiexec -bind-to core:4"));
  set_only("PMI_SIZE", "2"); /* a launcher whose flags are not known */
  advise(1, 4, 2, 2, 8, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "on 2 cores: set OMP_NUM_THREADS=2"));
  CU_ASSERT_PTR_NULL(strstr(line, "bind"));
  restore_environment();
}

static void test_advice_for_more_threads_than_srun_gave_names_both_ways(void)
{
  char line[512];
  set_only("SLURM_STEP_NUM_TASKS", "2");
  advise(1, 4, 2, 2, 4, line);
  CU_ASSERT_PTR_NOT_NULL(
      strstr(line, "set OMP_NUM_THREADS=2, or start with srun --cpus-per-task=4"));
  restore_environment();
}

static void test_advice_for_too_many_threads_names_how_many_fit(void)
{
  char line[512];
  set_only("OMPI_COMM_WORLD_SIZE", "4");
  advise(4, 32, 8, 4, 8, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "4 ranks (the first is rank 3) run 32 threads on 8 cores:"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "set OMP_NUM_THREADS=2 "));
  set_only(NULL, NULL);
  advise(1, 4, 2, 1, 8, line); /* no launcher: a cpuset or taskset, no binding of ours */
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "set OMP_NUM_THREADS=2"));
  restore_environment();
}

static void test_advice_for_more_ranks_than_cores_names_how_many_fit(void)
{
  char line[512];
  set_only("OMPI_COMM_WORLD_SIZE", "8");
  advise(8, 8, 2, 8, 2, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "at most 2 ranks"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "mpirun -n 2"));
  set_only("SLURM_STEP_NUM_TASKS", "8");
  advise(8, 16, 2, 8, 2, line);
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "srun --ntasks-per-node=2"));
  CU_ASSERT_PTR_NOT_NULL(strstr(line, "OMP_NUM_THREADS=1"));
  restore_environment();
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"new: threads, cores, hosts", test_new_reports_threads_cores_and_hosts},
      {"new: unbound", test_new_of_unbound_ranks_counts_all_cores},
      {"new: more threads than bound cores",
       test_new_with_more_threads_than_bound_cores_is_oversubscribed},
      {"new: the last rank", test_new_with_the_last_rank_oversubscribed_names_it},
      {"new: a core for each thread", test_new_with_a_core_for_each_thread_is_not_oversubscribed},
      {"new: all ranks' threads together",
       test_new_with_threads_of_all_ranks_beyond_the_cores_is_oversubscribed},
      {"new: more threads than srun gave",
       test_new_with_more_threads_than_srun_gave_is_oversubscribed},
      {"new: SLURM_CPUS_PER_TASK outside of srun", test_new_outside_of_srun_ignores_cpus_per_task},
      {"new: more threads than the job has",
       test_new_with_more_threads_than_the_job_has_is_oversubscribed},
      {"new: several hosts", test_new_of_several_hosts_judges_each_by_itself},
      {"threads: bound", test_threads_of_a_bound_rank_are_its_cores},
      {"threads: unbound", test_threads_of_unbound_ranks_are_their_share},
      {"threads: nested", test_threads_of_nested_ranks_fit_on_the_host},
      {"threads: given by srun", test_threads_are_no_more_than_srun_gave},
      {"threads: asked for", test_threads_that_were_asked_for_are_kept},
      {"advice: all well", test_advice_when_all_is_well_is_empty},
      {"advice: bound, mpirun", test_advice_for_a_bound_rank_under_mpirun_is_to_unbind},
      {"advice: bound, small host",
       test_advice_for_a_bound_rank_on_a_small_host_lowers_threads_too},
      {"advice: idle cores name the share of a rank",
       test_advice_for_idle_cores_names_the_share_of_a_rank},
      {"advice: bound, srun", test_advice_for_a_bound_rank_under_srun_is_cpus_per_task},
      {"advice: bound, mpiexec", test_advice_for_a_bound_rank_under_mpiexec_is_its_flag},
      {"advice: given by srun", test_advice_for_more_threads_than_srun_gave_names_both_ways},
      {"advice: too many threads", test_advice_for_too_many_threads_names_how_many_fit},
      {"advice: too many ranks", test_advice_for_more_ranks_than_cores_names_how_many_fit},
  };
  /* Every core there is, whatever the launcher bound this rank to. */
  for (size_t c = 0; c < CPU_SETSIZE; ++c) { CPU_SET(c, &mask_before); }
  (void)sched_setaffinity(0, sizeof mask_before, &mask_before);
  (void)sched_getaffinity(0, sizeof mask_before, &mask_before);
  threads_before = omp_get_max_threads();
  for (size_t k = 0; k < N_VARIABLES; ++k) {
    const char *text = getenv(variables[k]);
    variables_before[k] = text != NULL ? strdup(text) : NULL;
  }
  static const struct test_case hosts = {"new: several hosts",
                                         test_new_of_several_hosts_judges_each_by_itself};
  bool many = argc > 1 && strcmp(argv[1], "hosts") == 0; /* this case alone, for many ranks */
  int status = many ? run_mpi_cases(argc, argv, "placement", 1, &hosts)
                    : run_mpi_cases(argc, argv, "placement", sizeof cases / sizeof cases[0], cases);
  for (size_t k = 0; k < N_VARIABLES; ++k) { free(variables_before[k]); }
  return status;
}
