#include "support.h"

#include "comm/launcher.h"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------- environment */

static const char *const names[] = {"OMPI_COMM_WORLD_SIZE",
                                    "OMPI_COMM_WORLD_RANK",
                                    "MPI_LOCALNRANKS",
                                    "PMI_SIZE",
                                    "PMI_RANK",
                                    "MV2_COMM_WORLD_SIZE",
                                    "MV2_COMM_WORLD_RANK",
                                    "PALS_LOCAL_SIZE",
                                    "PALS_RANKID",
                                    "SLURM_STEP_NUM_TASKS",
                                    "SLURM_PROCID",
                                    "SLURM_NTASKS",
                                    "SLURM_STEP_ID",
                                    "PMIX_RANK"};
#define N_NAMES (sizeof names / sizeof names[0])
static char *before[N_NAMES];

static void clear(void)
{
  for (size_t k = 0; k < N_NAMES; ++k) { unsetenv(names[k]); }
}

/* The environment is this list alone, "NAME=VALUE NAME=VALUE"; as far as launchers go. */
static void set_only(const char *list)
{
  char text[512];
  clear();
  (void)snprintf(text, sizeof text, "%s", list);
  for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
    char *value = strchr(word, '=');
    *value = '\0';
    setenv(word, value + 1, 1);
  }
}

static void keep_environment(void)
{
  for (size_t k = 0; k < N_NAMES; ++k) {
    const char *text = getenv(names[k]);
    before[k] = text != NULL ? strdup(text) : NULL;
  }
}

static void restore_environment(void)
{
  clear();
  for (size_t k = 0; k < N_NAMES; ++k) {
    if (before[k] != NULL) { setenv(names[k], before[k], 1); }
    free(before[k]);
  }
}

/* What real launchers of Debian 12 set, and what one more process would find. */
static const struct {
  const char *list;
  launcher_kind kind;
  long processes;
  bool first;
} seen[] = {
    {"", LAUNCHER_NONE, 1, true},
    /* Open MPI 4.1.4 */
    {"OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=0 PMIX_RANK=0", LAUNCHER_OPENMPI, 2, true},
    {"OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 PMIX_RANK=1", LAUNCHER_OPENMPI, 2, false},
    /* the same on the second node of a Slurm job: the helper there is a task of srun */
    {"OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=3 PMIX_RANK=3 SLURM_STEP_NUM_TASKS=1 "
     "SLURM_PROCID=0",
     LAUNCHER_OPENMPI, 4, false},
    {"OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0 SLURM_STEP_NUM_TASKS=3 SLURM_PROCID=2",
     LAUNCHER_OPENMPI, 1, true},
    /* MPICH 4.0.2, and as a task of srun --mpi=pmix */
    {"MPI_LOCALNRANKS=2 PMI_SIZE=3 PMI_RANK=2", LAUNCHER_HYDRA, 3, false},
    {"MPI_LOCALNRANKS=1 PMI_SIZE=1 PMI_RANK=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 PMIX_RANK=1",
     LAUNCHER_HYDRA, 1, true},
    /* srun --mpi=none, pmi2, pmix of Slurm 22.05 */
    {"SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 SLURM_NTASKS=2", LAUNCHER_SLURM, 2, false},
    {"SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 PMI_SIZE=2 PMI_RANK=0", LAUNCHER_SLURM, 2, true},
    {"SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 PMIX_RANK=1", LAUNCHER_SLURM, 2, false},
    /* a batch script of four tasks, in which one rank may be wanted */
    {"SLURM_NTASKS=4 SLURM_PROCID=0", LAUNCHER_NONE, 1, true},
#ifdef OPEN_MPI
    /* started by a process of another MPI's job */
    {"OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_RANK=0 MPI_LOCALNRANKS=2 PMI_SIZE=2 PMI_RANK=1",
     LAUNCHER_OPENMPI, 1, true},
#else
    {"OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=1 MPI_LOCALNRANKS=1 PMI_SIZE=1 PMI_RANK=0",
     LAUNCHER_HYDRA, 1, true},
#endif
    /* not tried, from their documentation */
    {"PALS_LOCAL_SIZE=2 PALS_RANKID=1 PMI_SIZE=4 PMI_RANK=1", LAUNCHER_OTHER, 2, false},
    {"MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_RANK=0", LAUNCHER_OTHER, 2, true},
    {"PMI_SIZE=2 PMI_RANK=1", LAUNCHER_OTHER, 2, false},
    {"PMIX_RANK=1", LAUNCHER_OTHER, 1, false},
};
#define N_SEEN (sizeof seen / sizeof seen[0])

/* ------------------------------------------------------------------- cases */

static void test_find_recognizes_each_launcher(void)
{
  keep_environment();
  for (size_t k = 0; k < N_SEEN; ++k) {
    set_only(seen[k].list);
    launcher by = launcher_find();
    int ok = by.kind == seen[k].kind && by.processes == seen[k].processes &&
             by.first == seen[k].first && by.name != NULL;
    if (!ok) { (void)printf("wrong: %s\n", seen[k].list); }
    CU_ASSERT(ok);
  }
  restore_environment();
}

/* This process was started by a launcher: it knows how many there are. */
static void test_find_of_the_real_launcher_knows_the_ranks(void)
{
  launcher by = launcher_find();
  CHECK_ALL(by.processes == test_size && by.first == (test_rank == 0));
}

static void test_check_refuses_a_lone_rank_of_several_processes(void)
{
  keep_environment();
  for (size_t k = 0; k < N_SEEN; ++k) {
    set_only(seen[k].list);
    unroll_status st = launcher_check(test_comm);
    if (test_size == 1 && seen[k].processes > 1) {
      char library[256], number[64];
      launcher_mpi_library(sizeof library, library);
      (void)snprintf(number, sizeof number, "started %ld processes", seen[k].processes);
      CHECK_ALL(st == UNROLL_ERR_ARG && strstr(unroll_message(), number) != NULL);
      CHECK_ALL(strstr(unroll_message(), library) != NULL);
      CHECK_ALL(strstr(unroll_message(), "srun --mpi=pm") != NULL);
    } else {
      CHECK_OK(st);
    }
  }
  restore_environment();
}

static void test_library_is_a_name_and_a_version_in_one_line(void)
{
  char library[256] = "", tiny[4] = "";
  launcher_mpi_library(sizeof library, library);
  CHECK_ALL(strlen(library) > 4 && strlen(library) < 80);
  CHECK_ALL(strpbrk(library, "\n\t,") == NULL && strpbrk(library, "0123456789") != NULL);
  launcher_mpi_library(sizeof tiny, tiny);
  CHECK_ALL(strlen(tiny) == 3 && strncmp(tiny, library, 3) == 0);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"find: each launcher", test_find_recognizes_each_launcher},
      {"find: the real one", test_find_of_the_real_launcher_knows_the_ranks},
      {"check: lone ranks", test_check_refuses_a_lone_rank_of_several_processes},
      {"MPI library", test_library_is_a_name_and_a_version_in_one_line},
  };
  return run_mpi_cases(argc, argv, "launcher", sizeof cases / sizeof cases[0], cases);
}
