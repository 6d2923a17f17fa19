#include "runfile/follow.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LAST_REPORTS 10 /* whose rate tells the time left */

/* ------------------------------------------------------------------- lines */

/* A point behind those before it: of a log that was written twice the later line counts. */
static unroll_status add(follow_curve *c, follow_point point)
{
  unroll_status st = UNROLL_OK;

  while (c->n > 0 && c->at[c->n - 1].step >= point.step) { c->n -= 1; }
  if (c->n == c->max) {
    const size_t more = c->max == 0 ? 64 : 2 * c->max;
    UNROLL_TRY(memory_resize(c->max, more, sizeof *c->at, "the curves of a log", &c->at));
    c->max = more;
  }
  c->at[c->n++] = point;

cleanup:
  return st;
}

static double number(const json_t *line, const char *key)
{
  const json_t *value = json_object_get(line, key);
  return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static uint64_t count(const json_t *line, const char *key)
{
  const json_int_t value = json_integer_value(json_object_get(line, key));
  return value > 0 ? (uint64_t)value : 0;
}

/* Lines of other kinds, and what is no line of a log, tell nothing here. */
static unroll_status take(follow *f, const char *text, size_t n)
{
  unroll_status st = UNROLL_OK;
  json_t *line = json_loadb(text, n, 0, NULL);
  const char *kind = json_string_value(json_object_get(line, "kind"));
  const follow_point point = {.step = count(line, "step"), .loss = number(line, "loss")};

  if (kind == NULL || point.step == 0) { goto cleanup; }
  if (strcmp(kind, "train") == 0) {
    follow_point timed = point;
    timed.seconds = number(line, "seconds");
    f->state = FOLLOW_GOING;
    f->steps = count(line, "steps");
    f->tokens_per_second = number(line, "tokens_per_second");
    UNROLL_TRY(add(&f->train, timed));
  } else if (strcmp(kind, "valid") == 0) {
    UNROLL_TRY(add(&f->valid, point));
  } else if (strcmp(kind, "end") == 0) {
    f->state = json_is_true(json_object_get(line, "finished")) ? FOLLOW_FINISHED : FOLLOW_STOPPED;
  }

cleanup:
  json_decref(line);
  return st;
}

/* -------------------------------------------------------------------- file */

static void forget(follow *f)
{
  f->state = FOLLOW_GOING;
  f->train.n = f->valid.n = f->n_tail = 0;
  f->steps = 0;
  f->read = 0;
}

static bool is_continued(const follow *f, int fd)
{
  char tail[FOLLOW_TAIL];
  const ssize_t n = pread(fd, tail, f->n_tail, (off_t)(f->read - (int64_t)f->n_tail));
  return n == (ssize_t)f->n_tail && memcmp(tail, f->tail, f->n_tail) == 0;
}

/* The whole lines behind those that were read. */
static unroll_status read_lines(follow *f, FILE *file, size_t *n_lines)
{
  unroll_status st = UNROLL_OK;
  char *line = NULL;
  size_t room = 0;
  ssize_t n = 0;

  while ((n = getline(&line, &room, file)) > 0) {
    /* A zero is where an NFS client has not got the bytes yet. */
    if (line[n - 1] != '\n' || memchr(line, '\0', (size_t)n) != NULL) { break; }
    UNROLL_TRY(take(f, line, (size_t)n));
    f->read += n;
    f->n_tail = (size_t)n < sizeof f->tail ? (size_t)n : sizeof f->tail;
    memcpy(f->tail, line + n - f->n_tail, f->n_tail);
    *n_lines += 1;
  }

cleanup:
  free(line);
  return st;
}

/* Open for reading; NULL: errno says why. A pipe of that name must not block, and a folder is none. */
static FILE *open_log(const char *name, struct stat *info)
{
  const int fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  FILE *file = NULL;

  if (fd < 0) { return NULL; }
  if (fstat(fd, info) == 0) {
    errno = S_ISDIR(info->st_mode) ? EISDIR : EINVAL;
    file = S_ISREG(info->st_mode) ? fdopen(fd, "r") : NULL;
  }
  if (file == NULL) {
    const int why = errno;
    (void)close(fd);
    errno = why;
  }
  return file;
}

void follow_start(follow *f, const char *name)
{
  *f = (follow){.error = ENOENT, .grown = NAN};
  (void)snprintf(f->name, sizeof f->name, "%s", name);
}

void follow_free(follow *f)
{
  memory_free(&f->train.at);
  memory_free(&f->valid.at);
}

unroll_status follow_look(follow *f)
{
  unroll_status st = UNROLL_OK;
  struct stat info;
  size_t n_lines = 0;
  FILE *file = open_log(f->name, &info);

  f->error = file == NULL ? errno : 0;
  if (file == NULL) { goto cleanup; }
  if (!is_continued(f, fileno(file))) { forget(f); }
  if (fseeko(file, (off_t)f->read, SEEK_SET) != 0) {
    f->error = errno;
    goto cleanup;
  }
  UNROLL_TRY(read_lines(f, file, &n_lines));
  if (ferror(file) != 0) { f->error = EIO; }
  if (isnan(f->grown)) {
    f->grown = clock_seconds() - fmax(0.0, difftime(time(NULL), info.st_mtime));
  } else if (n_lines > 0) {
    f->grown = clock_seconds();
  }

cleanup:
  if (file != NULL) { (void)fclose(file); }
  return st;
}

/* -------------------------------------------------------------------- time */

double follow_left(const follow *f)
{
  const follow_curve *c = &f->train;
  if (c->n == 0 || f->steps == 0) { return (double)NAN; }
  const follow_point last = c->at[c->n - 1];
  const follow_point first =
      c->n > LAST_REPORTS ? c->at[c->n - 1 - LAST_REPORTS] : (follow_point){0};
  if (f->steps <= last.step) { return 0.0; }
  return (double)(f->steps - last.step) * (last.seconds - first.seconds) /
         (double)(last.step - first.step);
}

double follow_silence(const follow *f)
{
  return isnan(f->grown) ? 0.0 : clock_seconds() - f->grown;
}
