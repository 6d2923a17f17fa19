#ifndef COMM_LAUNCHER_H
#define COMM_LAUNCHER_H

/*
 * The program that started this process (mpirun, mpiexec, srun), as its environment variables show. Only this file
 * knows these variables. They answer what MPI cannot: which process may print before MPI_Init, whether MPI has
 * found all the processes that were started, and which flags to advise.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/comm.h>
#include <unroll/status.h>

typedef enum launcher_kind {
  LAUNCHER_NONE,
  LAUNCHER_OPENMPI, /* mpirun of Open MPI */
  LAUNCHER_HYDRA,   /* mpiexec of MPICH or Intel MPI */
  LAUNCHER_SLURM,   /* srun */
  LAUNCHER_OTHER,   /* another that speaks PMI, PALS or PMIx */
} launcher_kind;

typedef struct launcher {
  launcher_kind kind;
  const char *name;          /* in words */
  const char *size_variable; /* name of the one that holds the number of processes; NULL: none */
  long processes;            /* that it started, on this host at least; 1 if unknown */
  bool first;                /* this is the first of them */
} launcher;

/** The innermost launcher: mpirun within a Slurm job starts its helpers with srun. */
launcher launcher_find(void);

/**
 * The process of the mpirun or mpiexec that has started this one, itself or through a script; 0: it runs on another host,
 * or there is none.
 */
long launcher_process(void);

/**
 * Before MPI_Init, of a process that nobody launched: Open MPI 4 keeps the folders of all such processes of a user in one
 * place (TMPDIR), where one that ends removes what another has just made and is about to use; the other's MPI_Init then
 * fails (open-mpi/ompi issue 8510). A process alone has nothing to put there, so it does without, unless the user says
 * otherwise.
 */
void launcher_prepare_alone(void);

/** Name and version of the MPI library, "MPICH 4.0.2". Legal before MPI_Init. */
void launcher_mpi_library(size_t size, char *out);

/**
 * Refuse to run as several independent singletons: the launcher started more than one process, but MPI, which is not
 * the one that the launcher belongs to, sees one rank.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG with the way to start this program
 *
 * Collective: no
 */
unroll_status launcher_check(const unroll_comm *comm);

#endif
