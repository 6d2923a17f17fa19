#ifndef RUNFILE_SAVE_H
#define RUNFILE_SAVE_H

/* Bytes to disk, so that a file of that name is complete at every moment. */
#include <stddef.h>
#include <unroll/status.h>

/**
 * Write a file under a temporary name beside it, fsync, close, rename, fsync the folder.
 *
 * @return UNROLL_OK, or UNROLL_ERR_IO: what was there before is untouched, except when only the last
 *         fsync failed; nothing temporary is left
 */
unroll_status save_bytes(const char *path, const void *bytes, size_t n);

#endif
