#ifndef RUNFILE_APART_H
#define RUNFILE_APART_H

/*
 * Work on a file that HDF5 may not survive, in a process of its own: with a limit of memory and time, and without a
 * trace in this one, whose HDF5 has not seen the file. Main thread only; under MPI too, as the child neither calls MPI nor ends
 * as this process does.
 */
#include <stdint.h>
#include <unroll/status.h>

typedef enum apart {
  APART_GOOD,   /* the work returned UNROLL_OK */
  APART_FAILED, /* it failed: its line is recorded here */
  APART_DIED,   /* it crashed, or met a limit */
} apart;

/**
 * @param[in] bytes  of the file: the limits grow with it
 *
 * @return how it ended; APART_DIED where no process could be started
 */
apart apart_run(uint64_t bytes, unroll_status (*work)(void *context), void *context);

#endif
