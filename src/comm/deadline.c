#include "comm/deadline.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct sigaction before;
static volatile sig_atomic_t left; /* [seconds] */
static char line[1024];            /* written beforehand: a handler must not format */

/* Counts seconds one by one: they pass only while the process runs. */
static void on_alarm(int number)
{
  (void)number;
  left -= 1;
  if (left > 0) {
    (void)alarm(1);
    return;
  }
  struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
  if (poll(&p, 1, 0) == 1) { /* else nobody reads, and writing would wait for ever */
    const ssize_t written = write(STDERR_FILENO, line, strlen(line));
    (void)written;
  }
  _exit(EXIT_FAILURE);
}

void deadline_begin(const char *what)
{
  struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
  const char *given = getenv("UNROLL_START_LIMIT");
  const long seconds = given != NULL ? strtol(given, NULL, 10) : DEADLINE_SECONDS;
  char host[256] = "";

  if (seconds <= 0 || seconds > 1000000) { return; }
  if (gethostname(host, sizeof host - 1) != 0) { (void)snprintf(host, sizeof host, "?"); }
  (void)snprintf(
      line, sizeof line,
      "unroll: error: process %ld on %s has waited %ld s for %s: another process of this "
      "job is stopped or lost, or was started with a command that needs no MPI, like "
      "--version; legal is the same command on all ranks, and a longer "
      "UNROLL_START_LIMIT where the start takes so long\n",
      (long)getpid(), host, seconds, what);
  left = (sig_atomic_t)seconds;
  (void)sigemptyset(&action.sa_mask);
  (void)sigaction(SIGALRM, &action, &before);
  (void)alarm(1);
}

void deadline_end(void)
{
  if (left == 0) { return; }
  (void)alarm(0);
  left = 0;
  (void)sigaction(SIGALRM, &before, NULL);
}
