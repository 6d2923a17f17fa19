#ifndef CLI_SAY_H
#define CLI_SAY_H

/*
 * Standard output and standard error of a training: streams that never wait for whoever reads them.
 *
 * A pipe that nobody empties (a stopped `less`, a pager that was forgotten, a launcher that no longer reads) must not
 * hold up rank 0, and with it all ranks; nor a terminal that was stopped with ^S. A line that cannot be written at
 * once is kept until the next one comes; those that come meanwhile are left out and counted, and where writing is
 * possible again their number is said first. Files, being always writable, get every line.
 *
 * For progress and messages only. A command whose output is its product waits, as any filter does, and prints to
 * stdout. An error of writing is seen with ferror. Any thread may print.
 */
#include <stdio.h>

extern FILE *say_out, *say_err;

/** Open both, as descriptors 1 and 2 are now. Once. */
void say_begin(void);

/** The last chance for what was kept: waits for at most a second each. Printing goes on to be legal. */
void say_end(void);

#endif
