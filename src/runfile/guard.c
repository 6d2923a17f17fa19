#include "runfile/guard.h"

#include "base/check.h"
#include "runfile/apart.h"
#include "runfile/checksums.h"
#include "runfile/contents.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* [bytes] The superblock of the oldest HDF5 format; no file is shorter. */
#define SUPERBLOCK 96

#define REMEDY "an older checkpoint (train --keep) or the best model may be whole"

/* Say plainly what HDF5 would put in its own words: not there, not readable, not HDF5. Then: is it as it was written? */
static unroll_status check_file(const h5_file *file, guarded *what)
{
  static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  unroll_status st = UNROLL_OK;
  unsigned char start[SUPERBLOCK] = {0};
  ssize_t n = 0;
  struct stat info = {0};
  int fd = open(file->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would wait for a writer */

  if (fd < 0 || fstat(fd, &info) != 0) { /* ENXIO: a socket */
    st = unroll_fail(file->failure, "%s: cannot open the run file: %s", file->path,
                     errno == ENXIO ? "it is no regular file" : strerror(errno));
    goto cleanup;
  }
  if (!S_ISREG(info.st_mode)) {
    st = unroll_fail(file->failure, "%s: cannot read the run file: %s", file->path,
                     S_ISDIR(info.st_mode) ? strerror(EISDIR) : "it is no regular file");
    goto cleanup;
  }
  n = read(fd, start, sizeof start);
  if (n < 0) {
    st =
        unroll_fail(file->failure, "%s: cannot read the run file: %s", file->path, strerror(errno));
    goto cleanup;
  }
  if (n < (ssize_t)sizeof signature || memcmp(start, signature, sizeof signature) != 0) {
    st = unroll_fail(file->failure, "%s: is not an HDF5 file", file->path);
    goto cleanup;
  }
  if (n < SUPERBLOCK) {
    st = unroll_fail(file->failure, "%s: is truncated: only %zd bytes are left", file->path, n);
    goto cleanup;
  }
  what->bytes = (uint64_t)info.st_size;
  UNROLL_TRY(digest_check(file->path, fd, what->bytes, &what->digest, what->sha256));

cleanup:
  if (fd >= 0) { (void)close(fd); }
  return st;
}

/* What is to be done with an open file. */
typedef struct job {
  h5_file file;
  const guarded *what;
  unroll_status (*work)(const h5_file *file, void *context);
  void *context;
} job;

static unroll_status do_job(void *context)
{
  unroll_status st = UNROLL_OK;
  job *j = context;
  const h5_file *file = &j->file;
  const char *object = "";
  h5_printing before = {0};

  h5_quiet(&before);
  UNROLL_TRY_H5(j->file.id = H5Fopen(file->path, H5F_ACC_RDONLY, H5P_DEFAULT));
  UNROLL_TRY(contents_check(file, j->what->bytes, j->what->digest == DIGEST_RIGHT));
  UNROLL_TRY(j->work(file, j->context));

cleanup:
  st = h5_close(file, st, H5Fclose, &j->file.id);
  h5_loud(&before);
  return st;
}

static unroll_status find_damage(const h5_file *file, void *context)
{
  return checksums_check(file, context);
}

/* A file that is not as it was written: which part is damaged, where that can be told. */
static unroll_status fail_damaged(const char *path, const guarded *what)
{
  checksums found = {0};
  job j = {{H5I_INVALID_HID, path, UNROLL_ERR_INPUT}, what, find_damage, &found};
  const size_t n = strlen(path);
  char part[2048] = "";

  if (apart_run(what->bytes, do_job, &j) == APART_FAILED) {
    const char *line = unroll_message();
    const bool named = strncmp(line, path, n) == 0 && strncmp(line + n, ": ", 2) == 0;
    (void)snprintf(part, sizeof part, " (%s)", named ? line + n + 2 : line);
  }
  return unroll_fail(
      UNROLL_ERR_INPUT,
      "%s: is damaged or truncated: its SHA-256 is not the one it ends with%s; " REMEDY, path,
      part);
}

unroll_status guard_open(const char *path,
                         unroll_status (*work)(const h5_file *file, void *context), void *context,
                         guarded *what)
{
  unroll_status st = UNROLL_OK;
  job j = {{H5I_INVALID_HID, path, UNROLL_ERR_INPUT}, what, work, context};
  apart end = APART_GOOD;

  UNROLL_TRY(check_file(&j.file, what));
  if (what->digest == DIGEST_WRONG) {
    st = fail_damaged(path, what);
    goto cleanup;
  }
  if (what->digest == DIGEST_NONE) { end = apart_run(what->bytes, do_job, &j); }
  if (end == APART_FAILED) {
    st = UNROLL_ERR_INPUT;
    goto cleanup;
  }
  if (end == APART_DIED) {
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: is damaged: HDF5 crashes on it, or needs more memory or time than its "
                     "size explains; " REMEDY,
                     path);
    goto cleanup;
  }
  UNROLL_TRY(do_job(&j));

cleanup:
  return st;
}
