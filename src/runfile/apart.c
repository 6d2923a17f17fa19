#include "runfile/apart.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE 4096 /* as long as unroll_message() can be */

/* [s] For a small file; and [bytes per s] the slowest way to read a large one. */
#define SECONDS 60
#define SPEED   ((uint64_t)1 << 20)

/* [bytes] More than reading takes: values, a copy of them, and four times that where they are compressed. */
#define MEMORY ((uint64_t)1 << 30)
#define FACTOR 8

/* [bytes] of address space that this process has. */
static uint64_t address_space(void)
{
  unsigned long long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f != NULL) {
    if (fscanf(f, "%llu", &pages) != 1) { pages = 0; }
    (void)fclose(f);
  }
  return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Hard limits, so that no handler of this program stands in their way. */
static void limit(int what, uint64_t value)
{
  struct rlimit now;
  if (getrlimit(what, &now) != 0) { return; }
  if (now.rlim_max == RLIM_INFINITY || value < now.rlim_max) { now.rlim_max = (rlim_t)value; }
  now.rlim_cur = now.rlim_max;
  (void)setrlimit(what, &now);
}

/* Of what it may die, without the words that MPI has for some of it. */
static const int deadly[] = {SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

static void confine(uint64_t bytes)
{
  const uint64_t seconds = SECONDS + bytes / SPEED, space = address_space();
  sigset_t wanted;

  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, seconds);
  if (space > 0) { limit(RLIMIT_AS, space + MEMORY + FACTOR * bytes); }
  for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; ++i) {
    (void)signal(deadly[i], SIG_DFL);
  }
  (void)sigemptyset(&wanted);
  (void)sigaddset(&wanted, SIGALRM);
  (void)sigprocmask(SIG_UNBLOCK, &wanted, NULL);
  (void)alarm((unsigned)seconds);
}

/* What HDF5 and the C library say as they die is nothing for people; the parent says it in a line. */
static void be_silent(void)
{
  const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere >= 0) { (void)dup2(nowhere, STDERR_FILENO); }
}

/* What a pipe holds until its end, as text. */
static void read_line(int fd, char line[LINE])
{
  size_t n = 0;
  while (n < LINE - 1) {
    ssize_t k = read(fd, line + n, LINE - 1 - n);
    if (k == 0 || (k < 0 && errno != EINTR)) { break; }
    n += k > 0 ? (size_t)k : 0;
  }
  line[n] = '\0';
}

apart apart_run(uint64_t bytes, unroll_status (*work)(void *context), void *context)
{
  int ends[2] = {-1, -1}, status = 0;
  char line[LINE] = "";

  if (pipe(ends) != 0) { return APART_DIED; }
  const pid_t child = fork();
  if (child == 0) {
    (void)close(ends[0]);
    confine(bytes);
    be_silent();
    const unroll_status st = work(context);
    if (st != UNROLL_OK) {
      const char *said = unroll_message();
      if (write(ends[1], said, strlen(said)) < 0) { _exit(2); }
    }
    _exit(st == UNROLL_OK ? 0 : 1);
  }
  (void)close(ends[1]);
  if (child > 0) {
    read_line(ends[0], line);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  }
  (void)close(ends[0]);
  if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status) > 1) { return APART_DIED; }
  if (WEXITSTATUS(status) == 0) { return APART_GOOD; }
  if (line[0] == '\0') { return APART_DIED; } /* a sanitizer ends the process so */
  (void)unroll_fail(UNROLL_ERR_INPUT, "%s", line);
  return APART_FAILED;
}
