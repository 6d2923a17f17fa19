/*
 * What a run file or a command line holds may come from anywhere, and terminals obey control characters: ESC [ and
 * U+009B begin commands that move, recolour, rename and on some terminals answer. So where standard output or standard
 * error is a terminal, all that the program prints goes through a filter, here and nowhere else: newline and tab stay,
 * another control character is shown as \u001b, a byte that is not UTF-8 as \x9b.
 */
#define _GNU_SOURCE /* fopencookie */

#include "cli/cli.h"
#include "comm/launcher.h"
#include "data/scan.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------- is it a terminal? */

/* Does this descriptor of another process lead to a terminal? */
static bool is_terminal_of(long process, int fd)
{
  char name[64];
  struct stat info = {0};
  (void)snprintf(name, sizeof name, "/proc/%ld/fd/%d", process, fd);
  if (stat(name, &info) != 0 || !S_ISCHR(info.st_mode)) { return false; }
  const int other = open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  const bool terminal = other >= 0 && isatty(other) == 1;
  if (other >= 0) { (void)close(other); }
  return terminal;
}

/* Open MPI's mpirun gives each rank a terminal as standard output, and a pipe as standard error, and passes on what comes:
 * its own streams decide. Nobody can know those of one on another host: the bytes of a result stay then. */
static bool is_terminal(int fd)
{
  const launcher_kind by = launcher_find().kind;
  const long process = by == LAUNCHER_NONE ? 0 : launcher_process();
  if (process > 0) { return is_terminal_of(process, fd); }
  return by != LAUNCHER_OPENMPI && isatty(fd) == 1;
}

/* ------------------------------------------------------------------ filter */

/* [bytes] Written at once, and the most that one byte adds: all that was held, escaped, and itself. */
#define PIECE 4096
#define MOST  32

typedef struct filter {
  FILE *stream; /* that prints through it */
  FILE *to;
  size_t n_held;
  char held[4]; /* the beginning of a character of UTF-8, or a carriage return */
  size_t n;
  char piece[PIECE];
} filter;

/* Standard output and standard error, and the two of say.h. */
#define FILTERS 4
static filter filters[FILTERS];
static size_t n_filters;

static bool write_all(FILE *to, const char *bytes, size_t n)
{
  return fwrite(bytes, 1, n, to) == n && fflush(to) == 0;
}

static void put(filter *f, const char *bytes, size_t n)
{
  memcpy(f->piece + f->n, bytes, n);
  f->n += n;
}

static void put_escaped(filter *f, char kind, int digits, int32_t code)
{
  char text[16];
  put(f, text, (size_t)snprintf(text, sizeof text, "\\%c%0*x", kind, digits, (unsigned)code));
}

static void put_character(filter *f, const char *bytes, size_t n, int32_t code)
{
  const bool control =
      (code < ' ' && code != '\n' && code != '\t') || (code >= 0x7f && code < 0xa0);
  if (control) {
    put_escaped(f, 'u', 4, code);
  } else {
    put(f, bytes, n);
  }
}

/* What was held is no character of several bytes. */
static void put_held(filter *f)
{
  for (size_t i = 0; i < f->n_held; ++i) {
    const unsigned char byte = (unsigned char)f->held[i];
    if (byte < 0x80) {
      put_character(f, f->held + i, 1, byte);
    } else {
      put_escaped(f, 'x', 2, byte);
    }
  }
  f->n_held = 0;
}

/* [bytes] of a character that begins so; 1: it is one, or none begins so. */
static size_t length_of(unsigned char first)
{
  return first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static void put_byte(filter *f, char c)
{
  const unsigned char byte = (unsigned char)c;
  int32_t code = 0;

  if (f->n_held > 0 && f->held[0] == '\r' && c == '\n') { /* a line end of two characters */
    put(f, "\r", 1);
    f->n_held = 0;
  } else if (f->n_held > 0 && (f->held[0] == '\r' || (byte & 0xc0) != 0x80)) {
    put_held(f);
  }
  f->held[f->n_held++] = c;
  if (c == '\r' || f->n_held < length_of((unsigned char)f->held[0])) { return; }
  if (scan_utf8_decode(f->held, f->n_held, &code) == f->n_held) {
    put_character(f, f->held, f->n_held, code);
    f->n_held = 0;
  }
  put_held(f);
}

/* The functions of a stream: that of writing returns less than it was given where it failed. */
static ssize_t filter_write(void *cookie, const char *bytes, size_t n)
{
  filter *f = cookie;
  bool good = true;

  for (size_t i = 0; i < n && good; ++i) {
    put_byte(f, bytes[i]);
    if (f->n + MOST > PIECE || i + 1 == n) {
      good = write_all(f->to, f->piece, f->n);
      f->n = 0;
    }
  }
  return good ? (ssize_t)n : 0;
}

static int filter_close(void *cookie)
{
  filter *f = cookie;
  put_held(f);
  const bool good = write_all(f->to, f->piece, f->n);
  f->n = 0;
  return fclose(f->to) == 0 && good ? 0 : EOF;
}

/* ------------------------------------------------------------------- public */

FILE *terminal_filter(FILE *to, int fd)
{
  const cookie_io_functions_t functions = {.write = filter_write, .close = filter_close};
  if (n_filters == FILTERS || !is_terminal(fd)) { return to; }
  filter *f = &filters[n_filters];
  *f = (filter){.to = to, .stream = fopencookie(f, "w", functions)};
  if (f->stream == NULL) { return to; }
  n_filters += 1;
  return f->stream;
}

void terminal_protect(void)
{
  stdout = terminal_filter(stdout, STDOUT_FILENO);
  stderr = terminal_filter(stderr, STDERR_FILENO);
  (void)setvbuf(stdout, NULL, _IOLBF, 0);
  (void)setvbuf(stderr, NULL, _IONBF, 0);
}

void terminal_control(FILE *stream, const char *sequence)
{
  (void)fflush(stream);
  for (size_t i = 0; i < n_filters; ++i) {
    if (filters[i].stream == stream) { stream = filters[i].to; }
  }
  (void)write_all(stream, sequence, strlen(sequence));
}
