#ifndef RUNFILE_OWN_H
#define RUNFILE_OWN_H

/*
 * The files that a run writes: NAME.h5, NAME.best.h5, NAME.1.h5 and so on, their temporary files
 * NAME.h5.PID.tmp, and NAME.jsonl. Whoever reads a folder must be able to tell them from what people keep there.
 */
#include <stdbool.h>

/** Is `path` a file of the run that is written to `run`? By its name and folder, whether there is such a file or not. */
bool own_is(const char *run, const char *path);

#endif
