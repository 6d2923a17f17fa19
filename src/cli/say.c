#define _GNU_SOURCE /* fopencookie */
#include "cli/say.h"

#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LAST_WAIT 1000 /* [ms] */

FILE *say_out, *say_err;

/* Where lines go. Used under the lock of its stream. */
typedef struct outlet {
  int fd;
  FILE *stream;
  const char *notice; /* format, with the number of lines */
  uint64_t left_out;  /* lines, not yet told */
  size_t kept;        /* [bytes] */
  char text[PIPE_BUF];
  char buffer[PIPE_BUF]; /* of the stream */
} outlet;

static outlet out = {.notice = "left_out lines %" PRIu64 "\n"};
static outlet err = {.notice = "unroll: warning: %" PRIu64 " lines were left out here, as nobody "
                               "read them\n"};

/* A description of a pipe or terminal that is ours alone, so that it can be made not to block: the one that we were
 * given is shared with other processes. Where there is none, what poll says must do. */
static int open_again(int fd)
{
  struct stat s;
  char path[64];
  if (fstat(fd, &s) != 0 || !(S_ISFIFO(s.st_mode) || isatty(fd) == 1)) { return fd; }
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const int again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  return again >= 0 ? again : fd;
}

static bool is_writable(int fd, int milliseconds)
{
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  return poll(&p, 1, milliseconds) == 1;
}

/* Write what is kept, as far as that is possible at once. False: it never will be. */
static bool write_kept(outlet *o)
{
  while (o->kept > 0 && is_writable(o->fd, 0)) {
    const ssize_t n = write(o->fd, o->text, o->kept);
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0 && errno == EAGAIN) { break; }
    if (n < 0) {
      o->kept = 0;
      return false;
    }
    o->kept -= (size_t)n;
    memmove(o->text, o->text + n, o->kept);
  }
  return true;
}

static bool write_notice(outlet *o)
{
  if (o->kept > 0 || o->left_out == 0) { return true; }
  o->kept = (size_t)snprintf(o->text, sizeof o->text, o->notice, o->left_out);
  o->left_out = 0;
  return write_kept(o);
}

static void leave_out(outlet *o, const char *text, size_t n)
{
  for (size_t i = 0; i < n; ++i) { o->left_out += text[i] == '\n'; }
}

/* A cookie_write_function_t: at most as much text as the stream's buffer holds, or more of one long print. */
static ssize_t take(void *cookie, const char *text, size_t n)
{
  outlet *o = cookie;
  if (!write_kept(o) || !write_notice(o)) { return 0; }
  for (size_t done = 0; done < n;) {
    if (o->kept > 0) {
      leave_out(o, text + done, n - done);
      break;
    }
    o->kept = n - done < sizeof o->text ? n - done : sizeof o->text;
    memcpy(o->text, text + done, o->kept);
    done += o->kept;
    if (!write_kept(o)) { return 0; }
  }
  return (ssize_t)n;
}

static FILE *open_outlet(outlet *o, int fd, FILE *otherwise)
{
  o->fd = open_again(fd);
  o->stream = fopencookie(o, "w", (cookie_io_functions_t){.write = take});
  if (o->stream == NULL) { return otherwise; }
  (void)setvbuf(o->stream, o->buffer, _IOLBF, sizeof o->buffer);
  FILE *f = terminal_filter(o->stream, fd);
  if (f != o->stream) { (void)setvbuf(f, NULL, _IOLBF, 0); }
  return f;
}

void say_begin(void)
{
  say_out = open_outlet(&out, STDOUT_FILENO, stdout);
  say_err = open_outlet(&err, STDERR_FILENO, stderr);
}

static void end(outlet *o, FILE *f)
{
  (void)fflush(f);
  if (o->stream == NULL) { return; }
  flockfile(o->stream);
  if (o->kept > 0 || o->left_out > 0) { (void)is_writable(o->fd, LAST_WAIT); }
  if (write_kept(o)) { (void)write_notice(o); }
  funlockfile(o->stream);
}

void say_end(void)
{
  end(&out, say_out);
  end(&err, say_err);
}
