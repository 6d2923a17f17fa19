#ifndef RUNFILE_GUARD_H
#define RUNFILE_GUARD_H

/*
 * Open a run file that may come from anywhere: what is damaged, or no run file, is one line, never a crash. Is it a
 * regular file, HDF5, with the digest that it ends with, and does nothing in it lead out of it? A file without a digest,
 * which another tool has edited or an older version made, is first read in a process of its own (apart.h).
 */
#include "base/sha256.h"
#include "runfile/digest.h"
#include "runfile/h5.h"

/* What was found of a file that was opened. */
typedef struct guarded {
  uint64_t bytes;
  digest digest;            /* NONE or RIGHT */
  char sha256[SHA256_TEXT]; /* that of the digest; "" without one */
} guarded;

/**
 * Do `work` on the open file. Without a digest it is done twice, first elsewhere: only what this process did stays.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT, UNROLL_ERR_MEMORY, UNROLL_ERR_IO, or what `work` returned
 */
unroll_status guard_open(const char *path,
                         unroll_status (*work)(const h5_file *file, void *context), void *context,
                         guarded *what);

#endif
