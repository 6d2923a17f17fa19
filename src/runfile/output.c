#include "base/check.h"
#include "base/memory.h"
#include "base/options.h"
#include "runfile/keep.h"
#include "runfile/runfile.h"
#include "runfile/save.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a run may write: nothing that it reads, and without --overwrite nothing that is not its own. */

/* ------------------------------------------------------------ same run? */

static bool is_same_string(const char *a, const char *b)
{
  return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

static bool is_same_text(const run_provenance *a, const run_provenance *b)
{
  bool same = a->n_files == b->n_files;
  for (size_t i = 0; same && i < a->n_files; ++i) {
    same = strcmp(a->file_sha256[i], b->file_sha256[i]) == 0;
  }
  return same;
}

/* Both come from one start. */
static bool is_same_run(const run *a, const run *b)
{
  return is_same_text(&a->provenance, &b->provenance) &&
         is_same_string(a->provenance.started, b->provenance.started) &&
         is_same_string(a->provenance.command_line, b->provenance.command_line);
}

/* Both have the same text, first weights and all options that shape a result: what one of them made, the other makes again. */
static bool is_same_training(const run *a, const run *b)
{
  bool same = is_same_text(&a->provenance, &b->provenance) &&
              is_same_string(a->provenance.init_sha256, b->provenance.init_sha256);
  for (size_t i = 0; same && i < config_table.n_rows; ++i) {
    const option *row = &config_table.rows[i];
    same = row->may_change || options_equal(row, &a->config, &b->config);
  }
  return same;
}

/* ---------------------------------------------------------- own or not? */

/* The log has no name of its run; but nothing else begins as it does. Empty is as good as not there. */
static bool is_log(const char *path)
{
  static const char start[] = "{\"kind\": \"";
  char found[sizeof start] = "";
  FILE *f = fopen(path, "r");
  if (f == NULL) { return false; }
  size_t n = fread(found, 1, sizeof start - 1, f);
  bool ours = ferror(f) == 0 && memcmp(found, start, n) == 0;
  (void)fclose(f);
  return ours;
}

/* A run file that r made, or would make again. */
static bool is_own(const char *path, const run *r, bool resumed)
{
  run *other = NULL;
  bool own = runfile_read_origin(path, &other) == UNROLL_OK &&
             (resumed ? is_same_run(r, other) : is_same_training(r, other));
  run_free(&other);
  return own;
}

/* -------------------------------------------------------------- checks */

/* Is there something of that name? Only a regular file may be replaced. */
static unroll_status look(const char *name, size_t i, struct stat *info, bool *exists)
{
  *exists = stat(name, info) == 0;
  if (!*exists && errno != ENOENT) {
    return unroll_fail(UNROLL_ERR_INPUT, "%s: %s, cannot be written: %s", name, keep_what(i),
                       strerror(errno));
  }
  if (*exists && !S_ISREG(info->st_mode)) {
    return unroll_fail(UNROLL_ERR_INPUT, "%s: is no regular file, and the run would write it: %s",
                       name, keep_what(i));
  }
  return UNROLL_OK;
}

unroll_status runfile_check_free(const char *path, size_t keep)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  struct stat info = {0};
  bool exists = false;

  for (size_t i = KEEP_LOG; keep_name(path, keep, i, name); ++i) {
    UNROLL_TRY(look(name, i, &info, &exists));
    if (!exists || (i == KEEP_LOG && info.st_size == 0)) { continue; }
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: exists already, and the run %s would write it: %s; --overwrite replaces "
                     "it, --out may have another name",
                     name, path, keep_what(i));
    goto cleanup;
  }

cleanup:
  return st;
}

unroll_status runfile_check_own(const run *r, bool resumed)
{
  unroll_status st = UNROLL_OK;
  const char *path = r->config.out;
  char name[KEEP_NAME];
  struct stat info = {0};
  bool exists = false;

  for (size_t i = KEEP_LOG; keep_name(path, (size_t)r->config.keep, i, name); ++i) {
    UNROLL_TRY(look(name, i, &info, &exists));
    if (!exists || (i == KEEP_LOG ? is_log(name) : is_own(name, r, resumed))) { continue; }
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: is not of the run %s, which would write it: %s; move one of them away",
                     name, path, keep_what(i));
    goto cleanup;
  }

cleanup:
  return st;
}

unroll_status runfile_check_apart(const char *path, size_t keep, size_t n,
                                  const char *const *inputs)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  struct stat out = {0}, in = {0};
  bool exists = false;

  for (size_t i = 0; keep_name(path, keep, i, name); ++i) {
    UNROLL_TRY(look(name, i, &out, &exists));
    for (size_t k = 0; exists && k < n; ++k) {
      if (stat(inputs[k], &in) != 0 || in.st_dev != out.st_dev || in.st_ino != out.st_ino) {
        continue;
      }
      st = unroll_fail(UNROLL_ERR_INPUT,
                       "%s: is read, and the run would write it: %s; --out needs another "
                       "name than %s",
                       inputs[k], keep_what(i), path);
      goto cleanup;
    }
  }

cleanup:
  return st;
}

/* ---------------------------------------------------- of which run it is */

void runfile_read_whole(const char *path, const run *r, char name[KEEP_NAME], run **out)
{
  *out = NULL;
  if (!keep_is_best_name(path, name) || runfile_read_origin(name, out) != UNROLL_OK) { return; }
  if (!is_same_run(r, *out)) { run_free(out); }
}

/* ------------------------------------------------------------ an old run */

/* A link to it stays, for the next one. */
static void remove_file(const char *name)
{
  char *target = NULL;
  if (save_target(name, &target) == UNROLL_OK) { (void)unlink(target); }
  memory_free(&target);
}

void runfile_remove_old(const run *r, bool but_best)
{
  const char *path = r->config.out;
  char name[KEEP_NAME];
  run *old = NULL;
  const bool is_there = runfile_read_origin(path, &old) == UNROLL_OK;

  keep_best_name(path, name);
  if (!but_best && runfile_exists(name) && is_own(name, is_there ? old : r, is_there)) {
    remove_file(name);
  }
  for (size_t i = KEEP_OLDER; is_there; ++i) {
    (void)keep_name(path, i, i, name);
    if (!runfile_exists(name)) { break; }
    if (is_own(name, old, true)) { remove_file(name); }
  }
  run_free(&old);
}
