#include "comm/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

/* [ns] A signal that comes again before is the same request, delivered twice. */
#define SECOND_AFTER 1000000000LL

static const int handled[] = {SIGTERM, SIGUSR1, SIGINT, SIGUSR2, SIGHUP, SIGXCPU};
#define N_HANDLED (sizeof handled / sizeof handled[0])

static struct sigaction before[N_HANDLED];
static bool installed;
static volatile sig_atomic_t pending;
/* [ns] When the first signal came; 0: none yet. Atomic: any thread may be the interrupted one. */
static atomic_llong first;

static long long now_ns(void)
{
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void on_signal(int number)
{
  const long long now = now_ns();
  long long came = 0;

  if (atomic_compare_exchange_strong(&first, &came, now)) {
    pending = number;
  } else if (now - came >= SECOND_AFTER && number != SIGXCPU) { /* which comes every second */
    struct sigaction end = {.sa_handler = SIG_DFL};
    (void)sigaction(number, &end, NULL);
    (void)raise(number); /* takes effect when this handler returns */
  }
}

void signals_install(void)
{
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, now = {0};

  if (!installed) {
    pending = 0;
    atomic_store(&first, 0);
  }
  (void)sigemptyset(&action.sa_mask);
  for (size_t k = 0; k < N_HANDLED; ++k) {
    (void)sigaction(handled[k], NULL, &now);
    if (!installed) { before[k] = now; }
    /* nohup ignores the end of the terminal on behalf of what it starts. */
    const bool ignored = handled[k] == SIGHUP && now.sa_handler == SIG_IGN;
    if (!ignored) { (void)sigaction(handled[k], &action, NULL); }
  }
  installed = true;
}

void signals_restore(void)
{
  if (!installed) { return; }
  for (size_t k = 0; k < N_HANDLED; ++k) { (void)sigaction(handled[k], &before[k], NULL); }
  installed = false;
}

int signals_pending(void)
{
  return (int)pending;
}
