#ifndef COMM_WATCHDOG_H
#define COMM_WATCHDOG_H

/*
 * Says who waits for whom when a rank is stuck, and ends a wait that has no end.
 *
 * A rank that waits is blocked inside MPI, so a thread looks after it: four times a second it reads a record
 * of what the main thread waits for. The thread calls no MPI (MPI_THREAD_FUNNELED) and prints nothing:
 * it hands a line to the caller of watchdog_start, which may print it and end the process.
 *
 * Whoever blocks in MPI writes the record, whether the watchdog runs or not; it costs a few stores:
 *
 *   watchdog_wait_begin(partner, "sum of the gradient");
 *   UNROLL_TRY_MPI(MPI_Waitsome(...));
 * cleanup:
 *   watchdog_wait_end();
 *
 * Each begin starts the time anew, so a wait in a loop that moves along is none. An end without a begin is
 * legal. Only the main thread calls these functions. Ranks are those of the communicator of watchdog_start.
 *
 * When a line comes: after max(first, 3 longest) seconds of one wait, `longest` being the longest step so far; then
 * again each time that the wait is twice as long. When it ends: after max(last, 3 longest). Both are
 * WATCHDOG_PHASE_FACTOR times longer in a phase in which ranks are expected to wait for others. Time in
 * which the whole process was stopped (a suspended job) does not count.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/status.h>

/* [seconds] `first` of a training: longer than any step or hiccup of a network should be. */
#define WATCHDOG_WARN_AFTER 5.0

/* In a phase limits are so many times longer: a first line after a minute. */
#define WATCHDOG_PHASE_FACTOR 12

/* ---------------------------------------------------------------- waiting */

/* The main thread begins to wait for one rank; for any of all the others. `what`: a string constant. */
void watchdog_wait_begin(int rank, const char *what);
void watchdog_wait_begin_any(const char *what);

/*
 * How often a rank has come to the meeting of its team; a cache line each, zero at first, in memory that
 * all of the team see.
 */
typedef struct watchdog_arrivals {
  _Alignas(64) atomic_uint_least64_t times;
} watchdog_arrivals;

/*
 * Rank first + mine begins to wait for those of ranks first .. first + count - 1 that came less often than
 * itself: they are named. marks (count) must stay until watchdog_stop, or the next begin.
 */
void watchdog_wait_begin_team(int first, int count, int mine, watchdog_arrivals *marks,
                              const char *what);

void watchdog_wait_end(void);

/* ---------------------------------------------------- steps, phases, limits */

/** So many steps are done; the phase is over. The start is a phase: it ends with the first such call. */
void watchdog_step(uint64_t done);

/** A phase begins in which some ranks may wait long for others: "rank 0 writes a checkpoint", a string constant. */
void watchdog_phase(const char *what);

/** [seconds] A new `last`. */
void watchdog_set_limit(double seconds);

/* ------------------------------------------------------------- start, stop */

/**
 * Start to look after this rank. Does nothing with one rank, or without `tell`.
 *
 * Holds 64 bytes for every rank: its host and process (4 MB with 65,536 ranks).
 *
 * @param[in] first    [seconds] of a wait before the first line, > 0
 * @param[in] last     [seconds] of a wait before the end; 0: never
 * @param[in] tell     called by the watchdog's own thread with a line without its end; `over`: the wait has lasted
 *                     `last`, and the callee should end the process, by _exit: MPI is the main thread's
 *
 * @return UNROLL_OK, or UNROLL_ERR_MEMORY, the same on every rank
 *
 * Collective
 */
unroll_status watchdog_start(unroll_comm *comm, double first, double last,
                             void (*tell)(void *context, const char *line, bool over),
                             void *context);

/** Twice is safe. Not collective. */
void watchdog_stop(void);

#endif
