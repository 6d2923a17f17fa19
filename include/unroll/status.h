#ifndef UNROLL_STATUS_H
#define UNROLL_STATUS_H

/*
 * Status codes and the one line that explains a failure.
 *
 * Every function that can fail (input, files, memory, MPI) returns an unroll_status.
 * The first function that knows the cause records one line with unroll_fail: what,
 * with which value, where, and what would be legal. Callers return the code and
 * do not change the line. The library never prints, exits or aborts.
 */

#ifdef __cplusplus
extern "C" {
#endif

/* name, value, text, exit status of the program (design: 1 failed, 2 usage or input, 75 requeue) */
#define UNROLL_STATUS_LIST(X)                                                                      \
  X(UNROLL_OK, 0, "success", 0)                                                                    \
  X(UNROLL_STOPPED, -1, "stopped on a signal, with a checkpoint", 75)                              \
  X(UNROLL_ERR_ARG, -2, "an option or argument is not legal", 2)                                   \
  X(UNROLL_ERR_INPUT, -3, "an input file is not usable", 2)                                        \
  X(UNROLL_ERR_DIVERGED, -4, "the loss or the gradient is not finite", 1)                          \
  X(UNROLL_ERR_IO, -5, "a file could not be read or written", 1)                                   \
  X(UNROLL_ERR_HDF5, -6, "an HDF5 call failed", 1)                                                 \
  X(UNROLL_ERR_MEMORY, -7, "out of memory", 1)                                                     \
  X(UNROLL_ERR_MPI, -8, "an MPI call failed", 1)                                                   \
  X(UNROLL_UNFINISHED, -9, "the run is not finished", 1)                                           \
  X(UNROLL_UNPROVEN, -10, "nothing proves that the whole file is as it was written", 1)

typedef enum unroll_status {
#define UNROLL_STATUS_ENUM(name, value, text, exit_status) name = (value),
  UNROLL_STATUS_LIST(UNROLL_STATUS_ENUM)
#undef UNROLL_STATUS_ENUM
} unroll_status;

/** Name of a status in plain words, for example "out of memory". Never NULL. */
const char *unroll_status_text(unroll_status st);

/** Exit status of a program that ends with this status: 0, 1, 2 or 75. */
int unroll_status_exit(unroll_status st);

/** The line recorded by the last failure of this thread; "" before any. Valid until the next failure. */
const char *unroll_message(void);

/**
 * Record one line about a failure and return its code, so that `return unroll_fail(...)` reads well.
 *
 * @param[in] st      the code to return, not UNROLL_OK
 * @param[in] format  printf format of the line, without a newline; control characters become question marks
 *
 * Threads: main thread only
 */
unroll_status unroll_fail(unroll_status st, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
