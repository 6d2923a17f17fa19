#ifndef COMM_SIGNALS_H
#define COMM_SIGNALS_H

/*
 * SIGTERM, SIGINT and what batch systems send before they kill, SIGUSR1, SIGUSR2,
 * SIGXCPU and SIGHUP (but under nohup), ask for a checkpoint and a clean end. The
 * handler only sets a flag; the ranks agree on it at a step boundary. A second
 * signal (a second or more after the first: launchers deliver one signal twice)
 * ends the process at once, but SIGXCPU, which the kernel repeats.
 */

/**
 * Install the handlers: before MPI_Init, as a signal may come while it starts, and again behind it, as a library may
 * have put its own in their place. What came meanwhile is kept.
 */
void signals_install(void);

/** Restore what was there before. */
void signals_restore(void);

/** The signal that came, or 0. Of this rank alone. */
int signals_pending(void);

#endif
