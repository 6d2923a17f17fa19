#include "runfile/keep.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <unroll/config.h>

/* Room for the longest path and a number before its ending. */
#define NAME_SIZE (UNROLL_CONFIG_TEXT + 32)

/* NAME.h5 with ".middle" before the ending, or behind a name without that ending. */
static void name_between(const char *path, const char *middle, size_t size, char *out)
{
  size_t n = strlen(path), ending = n > 3 && strcmp(path + n - 3, ".h5") == 0 ? 3 : 0;
  (void)snprintf(out, size, "%.*s.%s%s", (int)(n - ending), path, middle, path + n - ending);
}

void keep_best_name(const char *path, size_t size, char *out)
{
  name_between(path, "best", size, out);
}

static void numbered_name(const char *path, size_t k, char out[NAME_SIZE])
{
  char number[24];
  (void)snprintf(number, sizeof number, "%zu", k);
  name_between(path, number, NAME_SIZE, out);
}

unroll_status keep_older(const char *path, size_t n)
{
  char from[NAME_SIZE], to[NAME_SIZE];
  if (n == 0 || access(path, F_OK) != 0) { return UNROLL_OK; }

  for (size_t k = n; k > 1; --k) {
    numbered_name(path, k - 1, from);
    numbered_name(path, k, to);
    if (rename(from, to) != 0 && errno != ENOENT) {
      return unroll_fail(UNROLL_ERR_IO, "%s: cannot be renamed to %s: %s", from, to,
                         strerror(errno));
    }
  }
  numbered_name(path, 1, to);
  (void)unlink(to); /* with n = 1 the one before is still there */
  if (link(path, to) != 0) {
    return unroll_fail(UNROLL_ERR_IO, "%s: cannot be kept as %s: %s", path, to, strerror(errno));
  }
  return UNROLL_OK;
}
