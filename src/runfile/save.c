#include "runfile/save.h"

#include "base/check.h"
#include "base/memory.h"
#include "runfile/runfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes per call: Linux writes no more than 2 GiB at once. */
#define PIECE ((size_t)1 << 30)

/* Owner and group read and write, as far as the umask lets them. */
#define MODE 0666

/* "run.h5" becomes "run.h5.PID.tmp": of this process alone, and beside it, so that rename is atomic. */
static unroll_status temporary_name(const char *path, char **out)
{
  size_t size = strlen(path) + 32;
  unroll_status st = memory_new(size, 1, "a file name", out);
  if (st == UNROLL_OK) { (void)snprintf(*out, size, "%s.%ld.tmp", path, (long)getpid()); }
  return st;
}

/* The folder a file is in. */
static unroll_status folder_name(const char *path, char **out)
{
  const char *slash = strrchr(path, '/');
  unroll_status st = memory_string(slash == NULL ? "." : path, out);
  if (st == UNROLL_OK && slash != NULL) { (*out)[slash == path ? 1 : slash - path] = '\0'; }
  return st;
}

static unroll_status write_all(int fd, const unsigned char *bytes, size_t n, const char *name)
{
  for (size_t done = 0; done < n;) {
    ssize_t k = write(fd, bytes + done, n - done < PIECE ? n - done : PIECE);
    if (k < 0 && errno != EINTR) {
      return unroll_fail(UNROLL_ERR_IO, "%s: writing %zu bytes failed: %s", name, n,
                         strerror(errno));
    }
    done += k > 0 ? (size_t)k : 0;
  }
  return UNROLL_OK;
}

/* 0, or the errno of a failed fsync. */
static int sync_now(int fd)
{
  int code = 0;
  do {
    code = fsync(fd) == 0 ? 0 : errno;
  } while (code == EINTR);
  return code;
}

/* Make a rename in this folder survive a power loss. */
static unroll_status sync_folder(const char *folder)
{
  unroll_status st = UNROLL_OK;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (fd < 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot open the folder: %s", folder, strerror(errno));
    goto cleanup;
  }
  int code = sync_now(fd);
  /* Some network file systems know no fsync of a folder and say EINVAL: there is nothing more to do. */
  if (code != 0 && code != EINVAL) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: fsync of the folder failed: %s", folder, strerror(code));
  }

cleanup:
  if (fd >= 0) { (void)close(fd); }
  return st;
}

unroll_status save_bytes(const char *path, const void *bytes, size_t n)
{
  unroll_status st = UNROLL_OK;
  char *name = NULL;
  char *folder = NULL;
  int fd = -1;
  bool made = false;

  UNROLL_TRY(temporary_name(path, &name));
  UNROLL_TRY(folder_name(path, &folder));
  fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, MODE);
  if (fd < 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot create the file: %s", name, strerror(errno));
    goto cleanup;
  }
  made = true;
  UNROLL_TRY(write_all(fd, bytes, n, name));
  int code = sync_now(fd);
  if (code != 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: fsync failed: %s", name, strerror(code));
    goto cleanup;
  }
  int closed = close(fd);
  fd = -1;
  if (closed != 0 && errno != EINTR) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: closing failed: %s", name, strerror(errno));
    goto cleanup;
  }
  if (rename(name, path) != 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot rename %s to it: %s", path, name, strerror(errno));
    goto cleanup;
  }
  made = false;
  UNROLL_TRY(sync_folder(folder));

cleanup:
  if (fd >= 0) { (void)close(fd); }
  if (made) { (void)unlink(name); }
  memory_free(&folder);
  memory_free(&name);
  return st;
}

unroll_status runfile_check_output(const char *path, int may_exist)
{
  unroll_status st = UNROLL_OK;
  struct stat info = {0};
  char *name = NULL;
  char *folder = NULL;
  int fd = -1;

  UNROLL_TRY(temporary_name(path, &name));
  UNROLL_TRY(folder_name(path, &folder));
  if (path[0] == '\0') {
    st = unroll_fail(UNROLL_ERR_INPUT, "the output has no name");
    goto cleanup;
  }
  bool exists = stat(path, &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: is a folder; the output is a file", path);
    goto cleanup;
  }
  if (exists && !S_ISREG(info.st_mode)) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: is no regular file", path);
    goto cleanup;
  }
  if (exists && !may_exist) {
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: exists already; --resume continues it, --overwrite replaces it", path);
    goto cleanup;
  }
  /* Permission bits prove nothing on a read-only or full file system, nor for root: try it. */
  fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, MODE);
  if (fd < 0) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot create a file in folder %s: %s", path, folder,
                     strerror(errno));
    goto cleanup;
  }

cleanup:
  if (fd >= 0) {
    (void)close(fd);
    (void)unlink(name);
  }
  memory_free(&folder);
  memory_free(&name);
  return st;
}

int runfile_exists(const char *path)
{
  struct stat info = {0};
  return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}
