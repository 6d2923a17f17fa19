#ifndef RUNFILE_SAVE_H
#define RUNFILE_SAVE_H

/*
 * Bytes to disk, so that a file of that name is complete at every moment, in two steps: save_prepare makes all
 * of it safe under a temporary name, save_commit gives it its own. Between them, what was there before may be kept.
 */
#include <stddef.h>
#include <unroll/status.h>

/**
 * The file that a name means: what its symbolic links lead to, be it there or not. save_prepare, save_commit and
 * save_clean take it for `path`, so that a link stays one, and temporary files lie on the file system of the file.
 *
 * @param[out] target  to be freed with memory_free
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: links without end
 */
unroll_status save_target(const char *path, char **target);

/**
 * Write a file under a temporary name beside `path`, fsync, close.
 *
 * @param[out] prepared  the name it has, for save_commit or save_drop, which free it
 *
 * @return UNROLL_OK, or UNROLL_ERR_IO: nothing temporary is left
 */
unroll_status save_prepare(const char *path, const void *bytes, size_t n, char **prepared);

/**
 * The same of the file `path` for the name `to`, to be renamed to it: a second link where the file system has them, else a copy.
 */
unroll_status save_again(const char *path, const char *to, char **prepared);

/**
 * Rename it to `path`, fsync the folder.
 *
 * @return UNROLL_OK, or UNROLL_ERR_IO: what was there before is untouched, except when only the last
 *         fsync failed; nothing temporary is left
 */
unroll_status save_commit(const char *path, char **prepared);

/** Remove it, if it is there. */
void save_drop(char **prepared);

/** Remove temporary files that dead processes have left for `path`; there must be no living one that writes it. */
unroll_status save_clean(const char *path);

/** Both steps at once. */
unroll_status save_bytes(const char *path, const void *bytes, size_t n);

#endif
