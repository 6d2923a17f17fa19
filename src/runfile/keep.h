#ifndef RUNFILE_KEEP_H
#define RUNFILE_KEEP_H

/*
 * The files beside a run file NAME.h5: NAME.best.h5, the best on validation,
 * and with --keep N the N checkpoints before the last, NAME.1.h5 the newest.
 */
#include <stddef.h>
#include <unroll/status.h>

/** NAME.best.h5 for NAME.h5. */
void keep_best_name(const char *path, size_t size, char *out);

/**
 * Make room for the next checkpoint: the file of that name also becomes NAME.1.h5, those before it move
 * on by one, the oldest goes. The file itself stays in place at every moment. Does nothing when n is 0
 * or there is no file yet.
 *
 * @return UNROLL_OK or UNROLL_ERR_IO
 */
unroll_status keep_older(const char *path, size_t n);

#endif
