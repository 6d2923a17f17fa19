/* Options from a file: lines of `key = value`, or the options of a run. */
#include "base/check.h"
#include "base/memory.h"
#include "base/options.h"
#include "runfile/runfile.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_BYTES ((size_t)1 << 20) /* of a file of lines: more is none */

static const char signature[8] = "\x89HDF\r\n\x1a\n";

static size_t find_row(const char *name)
{
  size_t k = 0;
  while (k < config_table.n_rows && strcmp(config_table.rows[k].name, name) != 0) { ++k; }
  return k;
}

/* ------------------------------------------------------------- key = value */

/* Without white space around it, in place. */
static char *trim(char *text)
{
  size_t n = strlen(text);
  while (n > 0 && isspace((unsigned char)text[n - 1])) { text[--n] = '\0'; }
  while (isspace((unsigned char)*text)) { ++text; }
  return text;
}

/* A # at the beginning, or behind white space, begins a comment: a file name may have one. */
static void cut_comment(char *line)
{
  for (char *c = line; *c != '\0'; ++c) {
    if (*c == '#' && (c == line || isspace((unsigned char)c[-1]))) {
      *c = '\0';
      return;
    }
  }
}

/* Set the option of a line in `config`, where the command line has not; `seen`: in which line it was before. */
static unroll_status take_line(const char *path, uint64_t number, char *line, uint64_t *seen,
                               unroll_config *config)
{
  cut_comment(line);
  line = trim(line);
  if (*line == '\0') { return UNROLL_OK; }

  char *value = strchr(line, '=');
  if (value == NULL) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: line %" PRIu64 ": \"%.60s\" is not `key = value`, such as `hidden = "
                       "512`; legal is that, # and a comment, or a run file instead",
                       path, number, line);
  }
  *value++ = '\0';
  const char *key = trim(line);
  const size_t k = find_row(key);
  unroll_config scratch = *config;
  if (unroll_config_set(&scratch, key, trim(value)) != UNROLL_OK) {
    char why[2048];
    (void)snprintf(why, sizeof why, "%s", unroll_message());
    return unroll_fail(UNROLL_ERR_INPUT, "%s: line %" PRIu64 ": %s", path, number, why);
  }
  if (config_table.rows[k].offset == offsetof(unroll_config, config_file)) {
    return unroll_fail(UNROLL_ERR_INPUT, "%s: line %" PRIu64 ": a file of options names no other",
                       path, number);
  }
  if (seen[k] != 0) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: line %" PRIu64 ": %s is set twice, before in line %" PRIu64
                       "; set it once",
                       path, number, key, seen[k]);
  }
  seen[k] = number;
  if (!config->given[k]) { *config = scratch; }
  return UNROLL_OK;
}

/* The whole file, with a zero behind it; to be freed with memory_free. */
static unroll_status read_lines(const char *path, int fd, size_t bytes, char **out)
{
  unroll_status st = UNROLL_OK;
  char *text = NULL;
  size_t n = 0;

  if (bytes > MOST_BYTES) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: has %zu bytes; legal is a file of lines `key = value`, at most 1 MiB, "
                       "or a run file",
                       path, bytes);
  }
  UNROLL_TRY(memory_new(bytes + 1, 1, "the file of options", &text));
  while (n < bytes) {
    const ssize_t got = read(fd, text + n, bytes - n);
    if (got < 0 && errno == EINTR) { continue; }
    if (got < 0) {
      st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
      goto cleanup;
    }
    if (got == 0) { break; }
    n += (size_t)got;
  }
  if (memchr(text, '\0', n) != NULL) {
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: is no text; legal is a file of lines `key = value`, or a run file", path);
    goto cleanup;
  }
  *out = text;
  text = NULL;

cleanup:
  memory_free(&text);
  return st;
}

static unroll_status take_lines(const char *path, char *text, unroll_config *config)
{
  unroll_status st = UNROLL_OK;
  uint64_t seen[UNROLL_OPTIONS_MAX] = {0};
  unroll_config merged = *config;

  if (strncmp(text, "\xef\xbb\xbf", 3) == 0) { text += 3; } /* the mark of UTF-8 */
  for (uint64_t number = 1; text != NULL; ++number) {
    char *end = strchr(text, '\n');
    if (end != NULL) { *end++ = '\0'; }
    UNROLL_TRY(take_line(path, number, text, seen, &merged));
    text = end;
  }
  *config = merged;

cleanup:
  return st;
}

/* -------------------------------------------------------------------- a run */

/*
 * The options of a run, which has them all: none counts as given. What it derived from another option that is given now
 * is left to be derived again.
 */
static void take_run(const unroll_config *of_run, unroll_config *config)
{
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &config_table.rows[k];
    if (!config->given[k] && !config_is_of_call(row)) { options_copy(row, of_run, config); }
  }
  if (config_is_given(config, offsetof(unroll_config, batch)) &&
      !config_is_given(config, offsetof(unroll_config, shards)) &&
      of_run->shards == config_shards(of_run->batch)) {
    config->shards = 0;
  }
  if (config_is_given(config, offsetof(unroll_config, steps)) &&
      !config_is_given(config, offsetof(unroll_config, stride)) &&
      of_run->stride == of_run->steps) {
    config->stride = 0;
  }
  if (config_is_given(config, offsetof(unroll_config, valid_fraction)) &&
      !config_is_given(config, offsetof(unroll_config, valid))) {
    config->valid[0] = '\0';
  }
}

/* --------------------------------------------------------------------- both */

unroll_status unroll_config_read(unroll_config *config, const char *path)
{
  unroll_status st = UNROLL_OK;
  char start[sizeof signature] = "";
  struct stat info = {0};
  char *text = NULL;
  run *r = NULL;
  const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would wait for a writer */

  if (fd < 0 || fstat(fd, &info) != 0) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot open the file of options: %s", path,
                     errno == ENXIO ? "it is no regular file" : strerror(errno));
    goto cleanup;
  }
  if (!S_ISREG(info.st_mode)) { /* the ranks of other hosts could not read it */
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot read the file of options: %s", path,
                     S_ISDIR(info.st_mode) ? strerror(EISDIR) : "it is no regular file");
    goto cleanup;
  }
  if (pread(fd, start, sizeof start, 0) == (ssize_t)sizeof start &&
      memcmp(start, signature, sizeof start) == 0) {
    if (config_is_given(config, offsetof(unroll_config, preset))) {
      st = unroll_fail(UNROLL_ERR_ARG,
                       "--preset: the run of --config %s has all options; legal is one of the two",
                       path);
      goto cleanup;
    }
    UNROLL_TRY(runfile_read_origin(path, &r));
    take_run(&r->config, config);
  } else {
    UNROLL_TRY(read_lines(path, fd, (size_t)info.st_size, &text));
    UNROLL_TRY(take_lines(path, text, config));
  }

cleanup:
  run_free(&r);
  memory_free(&text);
  if (fd >= 0) { (void)close(fd); }
  return st;
}
