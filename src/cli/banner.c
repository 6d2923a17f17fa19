#include "base/build.h"
#include "base/check.h"
#include "cli/cli.h"
#include "cli/say.h"
#include "comm/launcher.h"
#include "comm/placement.h"
#include "kernels/dispatch.h"

#include <hdf5.h>
#include <mpi.h>

/* The OpenMP standard is named by its date. */
#ifdef _OPENMP
#define OPENMP_DATE _OPENMP
#else
#error "unroll needs OpenMP: compile with -fopenmp"
#endif

static void print_range(int low, int high, const char *what)
{
  if (low == high) {
    (void)fprintf(say_err, "%d %s%s", low, what, low == 1 ? "" : "s");
  } else {
    (void)fprintf(say_err, "%d to %d %ss", low, high, what);
  }
}

static void print_places(const placement *p)
{
  (void)fprintf(say_err, "%d rank%s x ", p->ranks, p->ranks == 1 ? "" : "s");
  print_range(p->threads_min, p->threads_max, "thread");
  (void)fprintf(say_err, ", ");
  print_range(p->cores_min, p->cores_max, "core");
  (void)fprintf(say_err, " for each rank, %d host%s: %s\n", p->n_hosts, p->n_hosts == 1 ? "" : "s",
                p->hosts);
}

static void print_libraries(void)
{
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  unsigned major = 0, minor = 0, release = 0;

  launcher_mpi_library(sizeof mpi, mpi);
  (void)H5get_libversion(&major, &minor, &release);
  (void)fprintf(say_err, "kernels %s, %s, OpenMP %d, HDF5 %u.%u.%u\n", kernels_name(), mpi,
                OPENMP_DATE, major, minor, release);
}

static void print_advice(const placement *p)
{
  char advice[1024] = "";
  placement_advice(p, sizeof advice, advice);
  if (advice[0] != '\0') { (void)fprintf(say_err, "unroll: warning: %s\n", advice); }
}

void banner_show(const placement *where)
{
  (void)fprintf(say_err, "unroll %s (revision %s)\n", UNROLL_VERSION, build_revision);
  print_places(where);
  print_libraries();
  print_advice(where);
}

/* Collective. */
static unroll_status show_placement(unroll_comm *comm, void (*show)(const placement *))
{
  unroll_status st = UNROLL_OK;
  placement *p = NULL;

  UNROLL_TRY(placement_new(comm, &p));
  if (unroll_comm_rank(comm) == 0) { show(p); }

cleanup:
  placement_free(&p);
  return st;
}

unroll_status banner_print(unroll_comm *comm)
{
  return show_placement(comm, banner_show);
}

unroll_status banner_advise(unroll_comm *comm)
{
  return show_placement(comm, print_advice);
}
