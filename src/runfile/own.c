#include "runfile/own.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unroll/config.h>

/* What follows the last slash. */
static const char *base_name(const char *path)
{
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

/* Is it the same folder in which these two are? */
static bool same_folder(const char *a, const char *b)
{
  struct stat of[2] = {0};
  const char *paths[2] = {a, b};
  for (size_t i = 0; i < 2; ++i) {
    char folder[UNROLL_CONFIG_TEXT] = ".";
    const size_t n = (size_t)(base_name(paths[i]) - paths[i]);
    if (n >= sizeof folder) { return false; }
    if (n > 0) {
      memcpy(folder, paths[i], n);
      folder[n] = '\0';
    }
    if (stat(folder, &of[i]) != 0) { return false; }
  }
  return of[0].st_dev == of[1].st_dev && of[0].st_ino == of[1].st_ino;
}

/* Length of `name` without ".PID.tmp" or ".PID.1.tmp", where it ends so. */
static size_t without_temporary(const char *name)
{
  const size_t all = strlen(name);
  if (all < 4 || strcmp(name + all - 4, ".tmp") != 0) { return all; }
  for (size_t n = all - 4, k = n;; n = k = k - 1) {
    while (k > 0 && name[k - 1] >= '0' && name[k - 1] <= '9') { --k; }
    if (k == n || k == 0 || name[k - 1] != '.') { return n < all - 4 ? n : all; }
  }
}

bool own_is(const char *run, const char *path)
{
  const char *out = base_name(run), *name = base_name(path);
  const size_t n_out = strlen(out), n = without_temporary(name);
  const size_t ending = n_out > 3 && strcmp(out + n_out - 3, ".h5") == 0 ? 3 : 0;
  const size_t stem = n_out - ending;

  if (n < stem || strncmp(name, out, stem) != 0) { return false; }
  const char *middle = name + stem; /* "" "best" "12" and the ending, or "jsonl" */
  const size_t left = n - stem;
  bool own = left == ending && strncmp(middle, out + stem, ending) == 0;
  if (left > ending + 1 && middle[0] == '.') {
    const size_t k = left - ending - 1;
    const bool ends = strncmp(middle + 1 + k, out + stem, ending) == 0;
    own |= ends &&
           (strspn(middle + 1, "0123456789") == k || (k == 4 && !strncmp(middle + 1, "best", 4)));
  }
  own |= strcmp(middle, ".jsonl") == 0;
  return own && same_folder(run, path);
}
