#include "comm/watchdog.h"

#include "base/memory.h"
#include "comm/check.h"
#include "comm/comm.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* [seconds] between two checks. */
#define TICK 0.25

/* [seconds] counted per check at most: more passes only while the whole process is stopped. */
#define TICK_MAX 1.0

/* A wait below this many times the longest step may be due to unequal work: no line before. */
#define STEP_FACTOR 3

/* Ranks named one by one in a line. */
#define NAMED_MAX 8

/* Where a rank runs. */
typedef struct identity {
  char host[56];
  int32_t process, rank; /* as the launcher counts */
} identity;
_Static_assert(sizeof(identity) == 64, "what watchdog_start says it holds");

/* ------------------------------------------------------------------ record */

/*
 * A seqlock: written by the main thread, read by the watchdog's. `sequence` is odd during a wait and different for each
 * wait; what was read is consistent when `sequence` was the same before and after.
 */
static struct {
  atomic_uint_least64_t sequence;
  _Atomic(const char *) what;
  atomic_int first, count; /* ranks waited for; count 0: some of all the others */
  atomic_int mine;         /* this rank among them, where `arrivals` is not NULL */
  _Atomic(const watchdog_arrivals *) arrivals;
} record;

static _Atomic(const char *) phase;
static atomic_uint_least64_t steps_done; /* UNKNOWN before the first */
static _Atomic double abort_limit;

#define UNKNOWN UINT64_MAX

static void begin(int first, int count, int mine, const watchdog_arrivals *arrivals,
                  const char *what)
{
  const uint64_t sequence = atomic_load_explicit(&record.sequence, memory_order_relaxed);
  atomic_store_explicit(&record.sequence, (sequence + 1) & ~UINT64_C(1), memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&record.what, what, memory_order_relaxed);
  atomic_store_explicit(&record.first, first, memory_order_relaxed);
  atomic_store_explicit(&record.count, count, memory_order_relaxed);
  atomic_store_explicit(&record.mine, mine, memory_order_relaxed);
  atomic_store_explicit(&record.arrivals, arrivals, memory_order_relaxed);
  atomic_store_explicit(&record.sequence, (sequence + 1) | 1, memory_order_release);
}

void watchdog_wait_begin(int rank, const char *what)
{
  begin(rank, 1, 0, NULL, what);
}

void watchdog_wait_begin_any(const char *what)
{
  begin(0, 0, 0, NULL, what);
}

void watchdog_wait_begin_team(int first, int count, int mine, watchdog_arrivals *arrivals,
                              const char *what)
{
  atomic_fetch_add_explicit(&arrivals[mine].count, 1, memory_order_relaxed);
  begin(first, count, mine, arrivals, what);
}

void watchdog_wait_end(void)
{
  const uint64_t sequence = atomic_load_explicit(&record.sequence, memory_order_relaxed);
  atomic_store_explicit(&record.sequence, (sequence + 1) & ~UINT64_C(1), memory_order_release);
}

void watchdog_step(uint64_t done)
{
  atomic_store_explicit(&steps_done, done, memory_order_relaxed);
  atomic_store_explicit(&phase, NULL, memory_order_relaxed);
}

void watchdog_phase(const char *what)
{
  atomic_store_explicit(&phase, what, memory_order_relaxed);
}

void watchdog_set_limit(double seconds)
{
  atomic_store_explicit(&abort_limit, seconds > 0.0 ? seconds : INFINITY, memory_order_relaxed);
}

/* ------------------------------------------------------------------- thread */

static struct {
  bool running;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool stop; /* under the lock */
  identity self;
  double warn_after;
  identity *identities; /* (size) */
  atomic_int
      other; /* of two ranks the one that is not this; -1: there are more, or it is not yet known who it is */
  void (*report)(void *context, const char *line, bool over);
  void *context;
} watchdog;

/* What the thread keeps from one check to the next. */
typedef struct wait_state {
  uint64_t sequence;
  double waited;  /* [seconds] in this wait */
  int lines;      /* reported about it */
  uint64_t done;  /* steps */
  double since;   /* [seconds] since `done` changed */
  bool mixed;     /* there was a phase since then */
  double longest; /* [seconds] longest step without a phase */
} wait_state;

/* Append to a line that is cut off where it would not fit. */
#define APPEND(line, size, ...)                                                                    \
  do {                                                                                             \
    size_t used = strlen(line);                                                                    \
    (void)snprintf((line) + used, (size)-used, __VA_ARGS__);                                       \
  } while (0)

/* "rank 3 on h2 (process 4711)" */
static void name_one(const identity *r, size_t size, char *line)
{
  APPEND(line, size, "rank %" PRId32 " on %s (process %" PRId32 ")", r->rank, r->host, r->process);
}

/* The same of one more rank of a list, unless the list is long enough. */
static void name_next(int rank, int named, size_t size, char *line)
{
  if (named >= NAMED_MAX) { return; }
  if (named > 0) { APPEND(line, size, ", "); }
  name_one(&watchdog.identities[rank], size, line);
}

/*
 * "rank 1 on h1 (process 12), rank 3 on h1 (process 14)": those of a team that have not reached the fence. Where all
 * have, one of them is stuck inside it, and which cannot be known from here: the others are named.
 */
static void name_team(int first, int count, int mine, const watchdog_arrivals *arrivals,
                      size_t size, char *line)
{
  const uint64_t own = atomic_load_explicit(&arrivals[mine].count, memory_order_relaxed);
  int named = 0;
  for (int k = 0; k < count; ++k) {
    if (atomic_load_explicit(&arrivals[k].count, memory_order_relaxed) < own) {
      name_next(first + k, named++, size, line);
    }
  }
  const bool all_arrived = named == 0;
  if (all_arrived) {
    APPEND(line, size, "MPI_Barrier to return, which was entered by ");
    for (int k = 0; k < count; ++k) {
      if (k != mine) { name_next(first + k, named++, size, line); }
    }
  }
  if (named > NAMED_MAX) { APPEND(line, size, " and %d more", named - NAMED_MAX); }
  if (all_arrived) {
    APPEND(line, size, " too; ps and gdb -p show which process is stopped or hangs in it");
  }
}

/* What the main thread waits for. False: that wait is over. */
static bool describe(const wait_state *s, size_t size, char *line)
{
  const int first = atomic_load_explicit(&record.first, memory_order_relaxed);
  const int count = atomic_load_explicit(&record.count, memory_order_relaxed);
  const int mine = atomic_load_explicit(&record.mine, memory_order_relaxed);
  const watchdog_arrivals *arrivals = atomic_load_explicit(&record.arrivals, memory_order_relaxed);
  const char *what = atomic_load_explicit(&record.what, memory_order_relaxed);
  const char *during = atomic_load_explicit(&phase, memory_order_relaxed);
  const uint64_t done = atomic_load_explicit(&steps_done, memory_order_relaxed);
  atomic_thread_fence(memory_order_acquire);
  if (atomic_load_explicit(&record.sequence, memory_order_relaxed) != s->sequence) { return false; }

  line[0] = '\0';
  name_one(&watchdog.self, size, line);
  APPEND(line, size, " has waited %.0f s for ", s->waited);
  const int other = atomic_load_explicit(&watchdog.other, memory_order_acquire);
  if (count == 0 && other >= 0) {
    name_one(&watchdog.identities[other], size, line);
  } else if (count == 0) {
    APPEND(line, size, "others, it cannot know for which");
  } else if (arrivals != NULL) {
    name_team(first, count, mine, arrivals, size, line);
  } else {
    name_one(&watchdog.identities[first], size, line);
  }
  APPEND(line, size, ": %s", what);
  if (done != UNKNOWN) { APPEND(line, size, ", step %" PRIu64, done + 1); }
  if (during != NULL) { APPEND(line, size, " (%s)", during); }
  return true;
}

static void check(wait_state *s, double elapsed)
{
  const uint64_t done = atomic_load_explicit(&steps_done, memory_order_relaxed);
  const uint64_t sequence = atomic_load_explicit(&record.sequence, memory_order_acquire);
  const bool patient = atomic_load_explicit(&phase, memory_order_relaxed) != NULL;

  s->since += elapsed;
  if (done != s->done) {
    if (s->done != UNKNOWN && !s->mixed && s->since > s->longest) { s->longest = s->since; }
    s->done = done;
    s->since = 0.0;
    s->mixed = false;
  }
  s->mixed |= patient;

  if (sequence != s->sequence || sequence % 2 == 0) {
    s->sequence = sequence;
    s->waited = 0.0;
    s->lines = 0;
    return;
  }
  s->waited += elapsed;
  const double least = STEP_FACTOR * s->longest, scale = patient ? WATCHDOG_PHASE_FACTOR : 1.0;
  const double warn = ldexp(fmax(watchdog.warn_after, least) * scale, s->lines);
  const double over = fmax(atomic_load_explicit(&abort_limit, memory_order_relaxed), least) * scale;
  char line[1024];

  if ((s->waited >= warn || s->waited >= over) && describe(s, sizeof line, line)) {
    s->lines += 1;
    watchdog.report(watchdog.context, line, s->waited >= over);
  }
}

static double now(void)
{
  struct timespec t = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *watch(void *unused)
{
  wait_state s = {.done = UNKNOWN};
  double before = now();
  (void)unused;

  (void)pthread_mutex_lock(&watchdog.lock);
  while (!watchdog.stop) {
    const double until = now() + TICK;
    const struct timespec t = {.tv_sec = (time_t)until,
                               .tv_nsec = (long)((until - floor(until)) * 1e9)};
    if (pthread_cond_timedwait(&watchdog.wake, &watchdog.lock, &t) != ETIMEDOUT) { continue; }
    const double at = now();
    check(&s, fmin(at - before, TICK_MAX));
    before = at;
  }
  (void)pthread_mutex_unlock(&watchdog.lock);
  return NULL;
}

/* A thread that no signal interrupts: they are the main thread's. */
static bool start_thread(void)
{
  pthread_condattr_t monotonic;
  sigset_t all, before;
  bool ok = pthread_condattr_init(&monotonic) == 0;
  if (!ok) { return false; }

  ok = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
       pthread_cond_init(&watchdog.wake, &monotonic) == 0;
  (void)pthread_condattr_destroy(&monotonic);
  if (!ok) { return false; }
  if (pthread_mutex_init(&watchdog.lock, NULL) != 0) {
    (void)pthread_cond_destroy(&watchdog.wake);
    return false;
  }
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  watchdog.running = pthread_create(&watchdog.thread, NULL, watch, NULL) == 0;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!watchdog.running) {
    (void)pthread_mutex_destroy(&watchdog.lock);
    (void)pthread_cond_destroy(&watchdog.wake);
  }
  return watchdog.running;
}

/* -------------------------------------------------------------- start, stop */

/* Where this rank runs, so that a line can begin with it. Not collective. */
static unroll_status note_self(const unroll_comm *comm)
{
  unroll_status st = UNROLL_OK;
  identity *self = &watchdog.self;

  UNROLL_TRY(memory_new((size_t)comm->size, sizeof *watchdog.identities, "hosts of the ranks",
                        &watchdog.identities));
  if (gethostname(self->host, sizeof self->host) != 0) {
    (void)snprintf(self->host, sizeof self->host, "unknown");
  }
  self->host[sizeof self->host - 1] = '\0';
  self->process = (int32_t)getpid();
  self->rank = (int32_t)comm->parent_rank;

cleanup:
  return st;
}

/* The thread runs already; it reads those of others only in waits that come after this one. */
static unroll_status gather_identities(unroll_comm *comm)
{
  unroll_status st = UNROLL_OK;

  watchdog_wait_begin_any("hosts of the ranks");
  UNROLL_TRY_MPI(MPI_Allgather(&watchdog.self, (int)sizeof watchdog.self, MPI_BYTE,
                               watchdog.identities, (int)sizeof watchdog.self, MPI_BYTE,
                               comm->handle));
  if (comm->size == 2) {
    atomic_store_explicit(&watchdog.other, 1 - comm->rank, memory_order_release);
  }

cleanup:
  watchdog_wait_end();
  return st;
}

unroll_status watchdog_start(unroll_comm *comm, double warn_after, double abort_after,
                             void (*report)(void *context, const char *line, bool over),
                             void *context)
{
  unroll_status st = UNROLL_OK;
  assert(!watchdog.running && warn_after > 0.0);
  if (comm->size == 1 || report == NULL) { goto cleanup; }

  watchdog.stop = false;
  atomic_store(&watchdog.other, -1);
  watchdog.warn_after = warn_after;
  watchdog.report = report;
  watchdog.context = context;
  watchdog_wait_end();
  watchdog_step(UNKNOWN);
  watchdog_phase("reading the text and setting up");
  watchdog_set_limit(abort_after);
  st = note_self(comm);
  if (st == UNROLL_OK && !start_thread()) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "no thread for the watchdog");
  }
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(gather_identities(comm));

cleanup:
  if (st != UNROLL_OK) { watchdog_stop(); }
  return st;
}

void watchdog_let_go(void)
{
  if (watchdog.running) {
    (void)pthread_mutex_lock(&watchdog.lock);
    (void)pthread_mutex_unlock(&watchdog.lock);
  }
}

void watchdog_stop(void)
{
  if (watchdog.running) {
    (void)pthread_mutex_lock(&watchdog.lock);
    watchdog.stop = true;
    (void)pthread_cond_signal(&watchdog.wake);
    (void)pthread_mutex_unlock(&watchdog.lock);
    (void)pthread_join(watchdog.thread, NULL);
    (void)pthread_mutex_destroy(&watchdog.lock);
    (void)pthread_cond_destroy(&watchdog.wake);
    watchdog.running = false;
  }
  memory_free(&watchdog.identities);
}
