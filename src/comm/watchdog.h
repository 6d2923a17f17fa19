#ifndef COMM_WATCHDOG_H
#define COMM_WATCHDOG_H

/*
 * Reports which rank waits for which when one is stuck, and ends a wait that is too long.
 *
 * A rank that waits is blocked inside MPI, so a thread watches it: four times a second it reads a record
 * of what the main thread waits for. The thread calls no MPI (MPI_THREAD_FUNNELED) and prints nothing:
 * it passes a line to the callback of watchdog_start, which may print it and end the process.
 *
 * Code that blocks in MPI writes the record, whether the watchdog runs or not; it costs a few stores:
 *
 *   watchdog_wait_begin(partner, "sum of the gradient");
 *   UNROLL_TRY_MPI(MPI_Waitsome(...));
 * cleanup:
 *   watchdog_wait_end();
 *
 * Each begin restarts the time, so a loop of short waits counts as many waits, not as one. An end without a begin is
 * legal. Only the main thread calls these functions. Ranks are those of the communicator of watchdog_start.
 *
 *   line   after max(warn_after, 3 longest) seconds of one wait, `longest` being the longest step so far; then
 *          again each time that the wait is twice as long
 *   end    after max(abort_after, 3 longest)
 *
 * Both take WATCHDOG_PHASE_FACTOR times longer in a phase in which ranks are expected to wait for others. Time in
 * which the whole process was stopped (a suspended job) does not count.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/status.h>

/* [seconds] `warn_after` of a training: longer than any step or hiccup of a network should be. */
#define WATCHDOG_WARN_AFTER 5.0

/* Factor on both limits in a phase: a first line after a minute. */
#define WATCHDOG_PHASE_FACTOR 12

/* ---------------------------------------------------------------- waiting */

/* The main thread begins to wait for one rank; for any of the others. `what`: a string constant. */
void watchdog_wait_begin(int rank, const char *what);
void watchdog_wait_begin_any(const char *what);

/* How often a rank has reached a fence of its team; a cache line each, zero at first, in the team's shared memory. */
typedef struct watchdog_arrivals {
  _Alignas(64) atomic_uint_least64_t count;
} watchdog_arrivals;

/*
 * Rank first + mine reaches a fence of ranks first .. first + count - 1 and waits for those that have reached fewer:
 * they are named. Adds 1 to its own count. arrivals (count) must stay valid until the wait has ended and after that
 * watchdog_let_go or watchdog_stop has returned.
 */
void watchdog_wait_begin_team(int first, int count, int mine, watchdog_arrivals *arrivals,
                              const char *what);

void watchdog_wait_end(void);

/** Behind a wait: its arrivals are not read any more, and may go. */
void watchdog_let_go(void);

/* ---------------------------------------------------- steps, phases, limits */

/** `done` steps are done; the phase is over. The time before the first such call is a phase. */
void watchdog_step(uint64_t done);

/** A phase begins in which some ranks may wait long for others: "rank 0 writes a checkpoint", a string constant. */
void watchdog_phase(const char *what);

/** [seconds] A new abort_after; 0: never. */
void watchdog_set_limit(double seconds);

/* ------------------------------------------------------------- start, stop */

/**
 * Start to watch this rank. Does nothing with one rank, or where `report` is NULL.
 *
 * Holds 64 bytes for every rank: its host and process (4 MB with 65,536 ranks).
 *
 * @param[in] warn_after   [seconds] of a wait before the first line, > 0
 * @param[in] abort_after  [seconds] of a wait before the end; 0: never
 * @param[in] report       called by the watchdog's own thread with a line, without a newline; `over`: the wait has
 *                         lasted abort_after, and the callee should end the process with _exit: MPI must be called by
 *                         the main thread only
 *
 * @return UNROLL_OK, or UNROLL_ERR_MEMORY, the same on every rank
 *
 * Collective
 */
unroll_status watchdog_start(unroll_comm *comm, double warn_after, double abort_after,
                             void (*report)(void *context, const char *line, bool over),
                             void *context);

/** Twice is safe. Not collective. */
void watchdog_stop(void);

#endif
