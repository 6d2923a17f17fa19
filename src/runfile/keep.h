#ifndef RUNFILE_KEEP_H
#define RUNFILE_KEEP_H

/*
 * The files beside a run file NAME.h5: NAME.jsonl, the log, NAME.best.h5, the best on validation,
 * and with --keep N the N checkpoints before the last, NAME.1.h5 the newest.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/config.h>
#include <unroll/status.h>

/* Room for the longest path and what is put into it. */
#define KEEP_NAME (UNROLL_CONFIG_TEXT + 32)

/** Characters of the path without the ending .h5. */
size_t keep_stem(const char *path);

/** NAME.jsonl and NAME.best.h5 for NAME.h5; a name without that ending gets it all behind it. */
void keep_log_name(const char *path, char out[KEEP_NAME]);
void keep_best_name(const char *path, char out[KEEP_NAME]);

/** NAME.h5 for NAME.best.h5; false: the path is not named so. */
bool keep_is_best_name(const char *path, char of[KEEP_NAME]);

/* All files of a run: the run file itself, its log, its best model, then the older checkpoints. */
enum { KEEP_RUN, KEEP_LOG, KEEP_BEST, KEEP_OLDER };

/** Name i of them with --keep n; false: there are no more. */
bool keep_name(const char *path, size_t n, size_t i, char out[KEEP_NAME]);

/** What it is, in words. */
const char *keep_what(size_t i);

/**
 * Make room for the next checkpoint, to be called when that is safe under a temporary name: the file of that name also
 * becomes NAME.1.h5, those before it move on by one, the oldest goes. The file itself stays in place at every
 * moment. Does nothing when n is 0 or there is no file yet.
 *
 * @return UNROLL_OK, or UNROLL_ERR_IO: no checkpoint is lost
 */
unroll_status keep_older(const char *path, size_t n);

#endif
