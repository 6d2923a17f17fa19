#include "runfile/keep.h"

#include "base/check.h"
#include "runfile/save.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------ names */

size_t keep_stem(const char *path)
{
  size_t n = strlen(path);
  return n > 3 && strcmp(path + n - 3, ".h5") == 0 ? n - 3 : n;
}

/* NAME.h5 with ".middle" before the ending, or behind a name without that ending. */
static void name_between(const char *path, const char *middle, char out[KEEP_NAME])
{
  size_t n = keep_stem(path);
  (void)snprintf(out, KEEP_NAME, "%.*s.%s%s", (int)n, path, middle, path + n);
}

void keep_log_name(const char *path, char out[KEEP_NAME])
{
  (void)snprintf(out, KEEP_NAME, "%.*s.jsonl", (int)keep_stem(path), path);
}

void keep_best_name(const char *path, char out[KEEP_NAME])
{
  name_between(path, "best", out);
}

bool keep_is_best_name(const char *path, char of[KEEP_NAME])
{
  static const char best[] = ".best";
  const size_t n = keep_stem(path), k = sizeof best - 1;
  if (n <= k || strncmp(path + n - k, best, k) != 0) { return false; }
  (void)snprintf(of, KEEP_NAME, "%.*s%s", (int)(n - k), path, path + n);
  return true;
}

static void numbered_name(const char *path, size_t k, char out[KEEP_NAME])
{
  char number[24];
  (void)snprintf(number, sizeof number, "%zu", k);
  name_between(path, number, out);
}

bool keep_name(const char *path, size_t n, size_t i, char out[KEEP_NAME])
{
  if (i >= KEEP_OLDER + n) { return false; }
  switch (i) {
  case KEEP_RUN:
    (void)snprintf(out, KEEP_NAME, "%s", path);
    break;
  case KEEP_LOG:
    keep_log_name(path, out);
    break;
  case KEEP_BEST:
    keep_best_name(path, out);
    break;
  default:
    numbered_name(path, i - KEEP_OLDER + 1, out);
  }
  return true;
}

const char *keep_what(size_t i)
{
  static const char *const what[] = {"the run file", "the log", "the best model"};
  return i < KEEP_OLDER ? what[i] : "an older checkpoint (--keep)";
}

/* --------------------------------------------------------------- rotation */

unroll_status keep_older(const char *path, size_t n)
{
  unroll_status st = UNROLL_OK;
  char from[KEEP_NAME], to[KEEP_NAME];
  char *again = NULL;
  size_t free = 1; /* first number that no file has, or n */

  if (n == 0 || access(path, F_OK) != 0) { goto cleanup; }
  numbered_name(path, 1, to);
  UNROLL_TRY(
      save_again(path, to, &again)); /* what may fail comes first: all files are still there */
  while (free < n && access(to, F_OK) == 0) { numbered_name(path, ++free, to); }
  for (size_t k = free; k > 1; --k) {
    numbered_name(path, k - 1, from);
    numbered_name(path, k, to);
    if (rename(from, to) != 0) {
      st = unroll_fail(UNROLL_ERR_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
      goto cleanup;
    }
  }
  numbered_name(path, 1, to);
  if (rename(again, to) != 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot be renamed to %s: %s", again, to, strerror(errno));
    goto cleanup;
  }

cleanup:
  save_drop(&again); /* of two links to one file rename removes none */
  return st;
}
