#include "runfile/save.h"

#include "base/check.h"
#include "base/memory.h"
#include "runfile/runfile.h"

#include <dirent.h>
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

/* ------------------------------------------------------------------ names */

/* The folder a file is in. */
static unroll_status folder_name(const char *path, char **out)
{
  const char *slash = strrchr(path, '/');
  unroll_status st = memory_string(slash == NULL ? "." : path, out);
  if (st == UNROLL_OK && slash != NULL) { (*out)[slash == path ? 1 : slash - path] = '\0'; }
  return st;
}

/* Links followed from a name to its file, as many as Linux follows. */
#define LINKS 40

unroll_status save_target(const char *path, char **out)
{
  unroll_status st = UNROLL_OK;
  char *at = NULL, *next = NULL;
  char means[4096];

  UNROLL_TRY(memory_string(path, &at));
  for (int i = 0;; ++i) {
    ssize_t n = readlink(at, means, sizeof means - 1);
    if (n < 0) { break; } /* no link, or nothing there: whoever opens it will say */
    if (i == LINKS) {
      st = unroll_fail(UNROLL_ERR_INPUT, "%s: more than %d symbolic links in a row", path, LINKS);
      goto cleanup;
    }
    means[n] = '\0';
    const char *slash = strrchr(at, '/');
    const int folder = means[0] == '/' || slash == NULL ? 0 : (int)(slash - at) + 1;
    const size_t size = (size_t)folder + (size_t)n + 1;
    UNROLL_TRY(memory_new(size, 1, "a file name", &next));
    (void)snprintf(next, size, "%.*s%s", folder, at, means);
    memory_free(&at);
    at = next;
    next = NULL;
  }
  *out = at;
  at = NULL;

cleanup:
  memory_free(&at);
  return st;
}

/* Names tried for a temporary file: those of a dead process of the same number may be there. */
#define TRIES 100

/* Name k: "run.h5" becomes "run.h5.PID.tmp", "run.h5.PID.1.tmp", ...: beside it, so that rename is atomic. */
static unroll_status temporary_name(const char *path, int k, char **out)
{
  size_t size = strlen(path) + 48;
  unroll_status st = memory_new(size, 1, "a file name", out);
  if (st != UNROLL_OK) { return st; }
  if (k == 0) {
    (void)snprintf(*out, size, "%s.%ld.tmp", path, (long)getpid());
  } else {
    (void)snprintf(*out, size, "%s.%ld.%d.tmp", path, (long)getpid(), k);
  }
  return st;
}

/* Create a file for `path` under the first such name that nothing has, link or file. *fd < 0: why is in errno. */
static unroll_status create(const char *path, char **name, int *fd)
{
  unroll_status st = UNROLL_OK;
  int k = 0;

  do {
    memory_free(name);
    UNROLL_TRY(temporary_name(path, k++, name));
    *fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, MODE);
  } while (*fd < 0 && errno == EEXIST && k < TRIES);

cleanup:
  return st;
}

/* ---------------------------------------------------------- bytes to disk */

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

/* All that was written is on the disk, and the file closed. */
static unroll_status finish(int *fd, const char *name)
{
  int code = sync_now(*fd);
  int closed = close(*fd);
  *fd = -1;
  if (code != 0) {
    return unroll_fail(UNROLL_ERR_IO, "%s: fsync failed: %s", name, strerror(code));
  }
  if (closed != 0 && errno != EINTR) {
    return unroll_fail(UNROLL_ERR_IO, "%s: closing failed: %s", name, strerror(errno));
  }
  return UNROLL_OK;
}

void save_drop(char **name)
{
  if (*name != NULL) { (void)unlink(*name); }
  memory_free(name);
}

unroll_status save_prepare(const char *path, const void *bytes, size_t n, char **prepared)
{
  unroll_status st = UNROLL_OK;
  char *target = NULL;
  char *name = NULL;
  int fd = -1;

  UNROLL_TRY(save_target(path, &target));
  UNROLL_TRY(create(target, &name, &fd));
  if (fd < 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot create the file: %s", name, strerror(errno));
    memory_free(&name);
    goto cleanup;
  }
  UNROLL_TRY(write_all(fd, bytes, n, name));
  UNROLL_TRY(finish(&fd, name));
  *prepared = name;
  name = NULL;

cleanup:
  if (fd >= 0) { (void)close(fd); }
  save_drop(&name);
  memory_free(&target);
  return st;
}

unroll_status save_commit(const char *path, char **prepared)
{
  unroll_status st = UNROLL_OK;
  char *target = NULL;
  char *folder = NULL;

  UNROLL_TRY(save_target(path, &target));
  UNROLL_TRY(folder_name(target, &folder));
  if (rename(*prepared, target) != 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot rename %s to it: %s", path, *prepared,
                     strerror(errno));
    goto cleanup;
  }
  memory_free(prepared);
  UNROLL_TRY(sync_folder(folder));

cleanup:
  save_drop(prepared);
  memory_free(&folder);
  memory_free(&target);
  return st;
}

unroll_status save_bytes(const char *path, const void *bytes, size_t n)
{
  unroll_status st = UNROLL_OK;
  char *prepared = NULL;

  UNROLL_TRY(save_prepare(path, bytes, n, &prepared));
  UNROLL_TRY(save_commit(path, &prepared));

cleanup:
  return st;
}

/* ------------------------------------------------------------ second names */

/* Bytes copied at a time. */
#define COPY_BUFFER ((size_t)1 << 20)

static unroll_status copy(const char *path, int from, int to, const char *name)
{
  unroll_status st = UNROLL_OK;
  unsigned char *buffer = NULL;
  ssize_t n = 0;

  UNROLL_TRY(memory_new(COPY_BUFFER, 1, "a part of a file", &buffer));
  do {
    n = read(from, buffer, COPY_BUFFER);
    if (n < 0 && errno != EINTR) {
      st = unroll_fail(UNROLL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
      goto cleanup;
    }
    if (n > 0) { UNROLL_TRY(write_all(to, buffer, (size_t)n, name)); }
  } while (n != 0);

cleanup:
  memory_free(&buffer);
  return st;
}

unroll_status save_again(const char *path, const char *to, char **prepared)
{
  unroll_status st = UNROLL_OK;
  char *target = NULL;
  char *name = NULL;
  int from = -1, fd = -1;

  /* Of the file, not of a link: that would mean the next file as well. */
  UNROLL_TRY(save_target(path, &target));
  UNROLL_TRY(temporary_name(to, 0, &name));
  if (link(target, name) != 0) { /* refused for whatever reason: file systems give several */
    memory_free(&name);
    from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
      st = unroll_fail(UNROLL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
      goto cleanup;
    }
    UNROLL_TRY(create(to, &name, &fd));
    if (fd < 0) {
      st = unroll_fail(UNROLL_ERR_IO, "%s: cannot create the file: %s", name, strerror(errno));
      memory_free(&name);
      goto cleanup;
    }
    UNROLL_TRY(copy(path, from, fd, name));
    UNROLL_TRY(finish(&fd, name));
  }
  *prepared = name;
  name = NULL;

cleanup:
  if (from >= 0) { (void)close(from); }
  if (fd >= 0) { (void)close(fd); }
  save_drop(&name);
  memory_free(&target);
  return st;
}

/* --------------------------------------------------------------- left-overs */

/* Is it "run.h5.PID.tmp" or "run.h5.PID.1.tmp", for "run.h5"? */
static bool is_temporary(const char *name, const char *of)
{
  const size_t n = strlen(of);
  if (strncmp(name, of, n) != 0 || name[n] != '.') { return false; }
  const char *rest = name + n + 1;
  return rest[0] >= '0' && rest[0] <= '9' && strcmp(rest + strspn(rest, "0123456789."), "tmp") == 0;
}

unroll_status save_clean(const char *path)
{
  unroll_status st = UNROLL_OK;
  char *target = NULL;
  char *folder = NULL;
  struct stat info = {0};

  UNROLL_TRY(save_target(path, &target));
  UNROLL_TRY(folder_name(target, &folder));
  const char *slash = strrchr(target, '/');
  const char *name = slash != NULL ? slash + 1 : target;
  DIR *d = opendir(folder);
  for (struct dirent *e = NULL; d != NULL && (e = readdir(d)) != NULL;) {
    if (is_temporary(e->d_name, name) &&
        fstatat(dirfd(d), e->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode)) {
      (void)unlinkat(dirfd(d), e->d_name, 0);
    }
  }
  if (d != NULL) { (void)closedir(d); }

cleanup:
  memory_free(&folder);
  memory_free(&target);
  return st;
}

/* ------------------------------------------------------------------ checks */

unroll_status runfile_check_output(const char *path, int may_exist)
{
  unroll_status st = UNROLL_OK;
  struct stat info = {0};
  char *target = NULL;
  char *name = NULL;
  char *folder = NULL;
  int fd = -1;

  UNROLL_TRY(save_target(path, &target));
  UNROLL_TRY(folder_name(target, &folder));
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
  UNROLL_TRY(create(target, &name, &fd));
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
  memory_free(&target);
  return st;
}

bool runfile_is_same(const char *a, const char *b)
{
  struct stat x = {0}, y = {0};
  return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int runfile_exists(const char *path)
{
  struct stat info = {0};
  return stat(path, &info) == 0;
}
