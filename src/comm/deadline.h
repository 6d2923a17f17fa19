#ifndef COMM_DEADLINE_H
#define COMM_DEADLINE_H

/*
 * A limit on the waits that the watchdog cannot see: MPI starts and ends, and the ranks compare how they were started.
 * Where one of them never starts MPI (`mpirun -n 1 unroll train ... : -n 1 unroll --version`) or is stopped there, the
 * others would wait for ever. Which waits have a limit:
 *
 *   from MPI_Init to the command      deadline
 *   the command                       watchdog: said after a minute (UNROLL_WAIT_WARNING), and waited for
 *   within train                      watchdog with a limit, --wait-limit
 *   MPI_Finalize                      deadline
 *
 * Ways out: main() returns (all ranks agreed on the status); MPI_Abort after an error of MPI; _exit of the watchdog or of
 * a deadline, behind which the launcher ends the others; a second signal.
 */

/** [seconds] of a deadline, unless the environment variable UNROLL_START_LIMIT says otherwise (0: none): longer than the
 * start of MPI on thousands of hosts. Time in which the process is stopped does not count. */
#define DEADLINE_SECONDS 300

/** From now on the process has so long until deadline_end; else it says what it waited for, `what`, and ends with 1. */
void deadline_begin(const char *what);

void deadline_end(void);

#endif
