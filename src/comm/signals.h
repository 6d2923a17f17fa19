#ifndef COMM_SIGNALS_H
#define COMM_SIGNALS_H

/*
 * SIGTERM, SIGUSR1 and SIGINT ask for a checkpoint and a clean end. The handler
 * only sets a flag; the ranks agree on it at a step boundary. A second signal
 * (a second or more after the first: launchers deliver one signal twice) ends
 * the process at once.
 */

/** Install the handlers; after MPI_Init, which installs its own. */
void signals_install(void);

/** Restore what was there before. */
void signals_restore(void);

/** The signal that came, or 0. Of this rank alone. */
int signals_pending(void);

#endif
