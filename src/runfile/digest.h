#ifndef RUNFILE_DIGEST_H
#define RUNFILE_DIGEST_H

/*
 * The digest of a run file: a line of text behind the end of what HDF5 knows, which ignores it. HDF5 itself crashes or
 * loops on some damaged files, so the digest is checked before it sees one. A tool that opens the file for writing cuts
 * the line off as it closes it: such a file has none, as those of older versions have none.
 *
 *   "\nunroll-digest sha256 <64 digits> of <20 digits> bytes\n"
 */
#include "base/sha256.h"
#include <stddef.h>
#include <stdint.h>
#include <unroll/status.h>

#define DIGEST_TAIL 117 /* bytes of that line */

typedef enum digest {
  DIGEST_NONE,
  DIGEST_RIGHT,
  DIGEST_WRONG, /* or cut, or not at the end */
} digest;

/** The line for the first n bytes, to stand behind them, without a zero. */
unroll_status digest_put(const void *bytes, size_t n, char tail[DIGEST_TAIL]);

/**
 * Read all of an open file and compare.
 *
 * @param[out] text  the SHA-256 of what stands before the line; "" without a line
 *
 * @return UNROLL_OK, or UNROLL_ERR_IO, with the name `path`
 */
unroll_status digest_check(const char *path, int fd, uint64_t bytes, digest *found,
                           char text[SHA256_TEXT]);

#endif
