#include "comm/launcher.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Innermost first, as a launcher's helpers on other hosts are often started by the one below: srun. In a
 * batch script there are SLURM_NTASKS and SLURM_PROCID too, where one rank may be wanted; SLURM_STEP_* are
 * there only for what srun started. PMI_* are set by many, by srun --mpi=pmi2 and PALS as well.
 */
static const struct {
  launcher_kind kind;
  const char *name;
  const char *detect; /* it is this launcher where this variable is set */
  const char *size, *rank;
} launchers[] = {
    {LAUNCHER_OPENMPI, "mpirun of Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_RANK"},
    {LAUNCHER_HYDRA, "mpiexec of MPICH or Intel MPI", "MPI_LOCALNRANKS", "PMI_SIZE", "PMI_RANK"},
    {LAUNCHER_OTHER, "mpirun_rsh of MVAPICH", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE",
     "MV2_COMM_WORLD_RANK"},
    {LAUNCHER_OTHER, "mpiexec of PALS", "PALS_LOCAL_SIZE", "PALS_LOCAL_SIZE", "PALS_RANKID"},
    {LAUNCHER_SLURM, "srun", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"},
    {LAUNCHER_OTHER, "a launcher that speaks PMI", "PMI_SIZE", "PMI_SIZE", "PMI_RANK"},
    {LAUNCHER_OTHER, "a launcher that speaks PMIx", "PMIX_RANK", NULL, "PMIX_RANK"},
};
#define N_LAUNCHERS (sizeof launchers / sizeof launchers[0])

static bool is_open_mpi(void)
{
  char library[16];
  launcher_mpi_library(sizeof library, library);
  return strncmp(library, "Open MPI", 8) == 0;
}

launcher launcher_find(void)
{
  launcher by = {.kind = LAUNCHER_NONE, .name = "nobody", .processes = 1, .first = true};
  const launcher_kind own = is_open_mpi() ? LAUNCHER_OPENMPI : LAUNCHER_HYDRA;
  size_t k = 0;

  /* That of this library first: a process of another's job may have called it. */
  while (k < N_LAUNCHERS && (launchers[k].kind != own || getenv(launchers[k].detect) == NULL)) {
    k += 1;
  }
  if (k == N_LAUNCHERS) { k = 0; }
  while (k < N_LAUNCHERS && getenv(launchers[k].detect) == NULL) { k += 1; }
  if (k == N_LAUNCHERS) { return by; }

  const char *size = launchers[k].size != NULL ? getenv(launchers[k].size) : NULL;
  const char *rank = getenv(launchers[k].rank);
  by.kind = launchers[k].kind;
  by.name = launchers[k].name;
  by.size_variable = size != NULL ? launchers[k].size : NULL;
  by.processes = size != NULL ? strtol(size, NULL, 10) : 1;
  by.first = rank == NULL || strcmp(rank, "0") == 0;
  return by;
}

/* Name and parent of a process, where the system says so. */
static bool look(long process, char name[64], long *parent)
{
  char path[64], line[512] = "";
  (void)snprintf(path, sizeof path, "/proc/%ld/stat", process);
  FILE *f = fopen(path, "r");
  if (f == NULL) { return false; }
  line[fread(line, 1, sizeof line - 1, f)] = '\0';
  (void)fclose(f);
  const char *rest = strrchr(line, ')'); /* the name may hold anything */
  return sscanf(line, "%*d (%63[^)]", name) == 1 && rest != NULL &&
         sscanf(rest + 1, " %*c %ld", parent) == 1;
}

/* Scripts and wrappers between a launcher and its process, at most. */
#define GENERATIONS 16

long launcher_process(void)
{
  static const char *const names[] = {"mpirun", "mpiexec", "orterun", "prterun"};
  char name[64];
  long process = (long)getppid(), parent = 0;

  for (int i = 0; i < GENERATIONS && process > 1 && look(process, name, &parent); ++i) {
    for (size_t k = 0; k < sizeof names / sizeof names[0]; ++k) { /* also mpiexec.hydra */
      if (strncmp(name, names[k], strlen(names[k])) == 0) { return process; }
    }
    process = parent;
  }
  return 0;
}

void launcher_prepare_alone(void)
{
  if (is_open_mpi() && launcher_find().kind == LAUNCHER_NONE) {
    (void)setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
  }
}

void launcher_mpi_library(size_t size, char *out)
{
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  char name[64] = "", version[64] = "";
  int n = 0;

  if (MPI_Get_library_version(text, &n) != MPI_SUCCESS) { text[0] = '\0'; }
  text[strcspn(text, ",\n")] = '\0'; /* name and version stand first; how it was built follows */
  if (sscanf(text, "%63s Version: %63s", name, version) == 2) { /* MPICH and MVAPICH */
    (void)snprintf(out, size, "%s %s", name, version);
  } else {
    (void)snprintf(out, size, "%s", text[0] != '\0' ? text : "an unknown MPI");
  }
}

unroll_status launcher_check(const unroll_comm *comm)
{
  const launcher by = launcher_find();
  char library[MPI_MAX_LIBRARY_VERSION_STRING];

  if (unroll_comm_size(comm) > 1 || by.processes <= 1) { return UNROLL_OK; }
  launcher_mpi_library(sizeof library, library);
  return unroll_fail(
      UNROLL_ERR_ARG,
      "%s started %ld processes (%s), but to MPI each is alone: this program is built "
      "with %s; start it with the mpirun or mpiexec of that, or with srun --mpi=%s "
      "(srun --mpi=list shows what there is)",
      by.name, by.processes, by.size_variable, library, is_open_mpi() ? "pmix" : "pmi2");
}
