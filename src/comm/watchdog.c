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

/* [seconds] between two looks. */
#define TICK 0.25

/* [seconds] A look counts at most so much: more passes only while the whole process is stopped. */
#define TICK_MOST 1.0

/* A wait of so many times the longest step is no matter of unequal work. */
#define STEPS 3

/* Ranks named one by one in a line. */
#define NAMED_MOST 8

/* Who a rank is: one slot of the table. */
typedef struct resident {
  char host[56];
  int32_t process, rank; /* as the launcher counts */
} resident;
_Static_assert(sizeof(resident) == 64, "what watchdog_start says it holds");

/* ------------------------------------------------------------------ record */

/*
 * Written by the main thread, read by the watchdog's. `turn` is odd during a wait and another number for each; what
 * is read is whole when `turn` was the same before and after.
 */
static struct {
  atomic_uint_least64_t turn;
  _Atomic(const char *) what;
  atomic_int first, count; /* ranks waited for; count 0: some of all the others */
  atomic_int mine;         /* this rank among them, where there are marks */
  _Atomic(const watchdog_arrivals *) marks;
} record;

static _Atomic(const char *) phase;
static atomic_uint_least64_t steps_done; /* UNKNOWN before the first */
static _Atomic double last_limit;

#define UNKNOWN UINT64_MAX

static void begin(int first, int count, int mine, const watchdog_arrivals *marks, const char *what)
{
  const uint64_t turn = atomic_load_explicit(&record.turn, memory_order_relaxed);
  atomic_store_explicit(&record.turn, (turn + 1) & ~UINT64_C(1), memory_order_relaxed);
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&record.what, what, memory_order_relaxed);
  atomic_store_explicit(&record.first, first, memory_order_relaxed);
  atomic_store_explicit(&record.count, count, memory_order_relaxed);
  atomic_store_explicit(&record.mine, mine, memory_order_relaxed);
  atomic_store_explicit(&record.marks, marks, memory_order_relaxed);
  atomic_store_explicit(&record.turn, (turn + 1) | 1, memory_order_release);
}

void watchdog_wait_begin(int rank, const char *what)
{
  begin(rank, 1, 0, NULL, what);
}

void watchdog_wait_begin_any(const char *what)
{
  begin(0, 0, 0, NULL, what);
}

void watchdog_wait_begin_team(int first, int count, int mine, watchdog_arrivals *marks,
                              const char *what)
{
  atomic_fetch_add_explicit(&marks[mine].times, 1, memory_order_relaxed);
  begin(first, count, mine, marks, what);
}

void watchdog_wait_end(void)
{
  const uint64_t turn = atomic_load_explicit(&record.turn, memory_order_relaxed);
  atomic_store_explicit(&record.turn, (turn + 1) & ~UINT64_C(1), memory_order_release);
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
  atomic_store_explicit(&last_limit, seconds > 0.0 ? seconds : INFINITY, memory_order_relaxed);
}

/* ------------------------------------------------------------------- thread */

static struct {
  bool running;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool stop; /* under the lock */
  int rank;
  double first;
  resident *residents; /* (size) */
  void (*tell)(void *context, const char *line, bool over);
  void *context;
} dog;

/* What the thread remembers from one look to the next. */
typedef struct sight {
  uint64_t turn;
  double waited; /* [seconds] in this turn */
  int lines;     /* said about it */
  uint64_t done;
  double since;   /* [seconds] since `done` changed */
  bool mixed;     /* there was a phase since then */
  double longest; /* [seconds] step without a phase */
} sight;

/* Append to a line that is cut off where it would not fit. */
#define APPEND(line, size, ...)                                                                    \
  do {                                                                                             \
    size_t used = strlen(line);                                                                    \
    (void)snprintf((line) + used, (size)-used, __VA_ARGS__);                                       \
  } while (0)

/* "rank 3 on h2 (process 4711)" */
static void name_one(int rank, size_t size, char *line)
{
  const resident *r = &dog.residents[rank];
  APPEND(line, size, "rank %" PRId32 " on %s (process %" PRId32 ")", r->rank, r->host, r->process);
}

/* "rank 1 on h1 (process 12), rank 3 on h1 (process 14)": those of a team that are late. */
static void name_team(int first, int count, int mine, const watchdog_arrivals *marks, size_t size,
                      char *line)
{
  const uint64_t times = atomic_load_explicit(&marks[mine].times, memory_order_relaxed);
  int late = 0;
  for (int k = 0; k < count; ++k) {
    if (atomic_load_explicit(&marks[k].times, memory_order_relaxed) >= times) { continue; }
    late += 1;
    if (late > NAMED_MOST) { continue; }
    if (late > 1) { APPEND(line, size, ", "); }
    name_one(first + k, size, line);
  }
  if (late > NAMED_MOST) { APPEND(line, size, " and %d more", late - NAMED_MOST); }
  if (late == 0) { APPEND(line, size, "nobody, as all have come: a fault of the MPI library?"); }
}

/* What the main thread waits for. False: not in this turn any more. */
static bool describe(const sight *s, size_t size, char *line)
{
  const int first = atomic_load_explicit(&record.first, memory_order_relaxed);
  const int count = atomic_load_explicit(&record.count, memory_order_relaxed);
  const int mine = atomic_load_explicit(&record.mine, memory_order_relaxed);
  const watchdog_arrivals *marks = atomic_load_explicit(&record.marks, memory_order_relaxed);
  const char *what = atomic_load_explicit(&record.what, memory_order_relaxed);
  const char *during = atomic_load_explicit(&phase, memory_order_relaxed);
  const uint64_t done = atomic_load_explicit(&steps_done, memory_order_relaxed);
  atomic_thread_fence(memory_order_acquire);
  if (atomic_load_explicit(&record.turn, memory_order_relaxed) != s->turn) { return false; }

  line[0] = '\0';
  name_one(dog.rank, size, line);
  APPEND(line, size, " has waited %.0f s for ", s->waited);
  if (count == 0) {
    APPEND(line, size, "others, it cannot know for which");
  } else if (marks != NULL) {
    name_team(first, count, mine, marks, size, line);
  } else {
    name_one(first, size, line);
  }
  APPEND(line, size, ": %s", what);
  if (done == UNKNOWN) {
    APPEND(line, size, ", at the start");
  } else {
    APPEND(line, size, ", step %" PRIu64, done + 1);
  }
  if (during != NULL) { APPEND(line, size, " (%s)", during); }
  return true;
}

static void look(sight *s, double elapsed)
{
  const uint64_t done = atomic_load_explicit(&steps_done, memory_order_relaxed);
  const uint64_t turn = atomic_load_explicit(&record.turn, memory_order_acquire);
  const bool patient = atomic_load_explicit(&phase, memory_order_relaxed) != NULL;

  s->since += elapsed;
  if (done != s->done) {
    if (s->done != UNKNOWN && !s->mixed && s->since > s->longest) { s->longest = s->since; }
    s->done = done;
    s->since = 0.0;
    s->mixed = false;
  }
  s->mixed |= patient;

  if (turn != s->turn || turn % 2 == 0) {
    s->turn = turn;
    s->waited = 0.0;
    s->lines = 0;
    return;
  }
  s->waited += elapsed;
  const double least = STEPS * s->longest, scale = patient ? WATCHDOG_PHASE_FACTOR : 1.0;
  const double next = ldexp(fmax(dog.first, least) * scale, s->lines);
  const double last = fmax(atomic_load_explicit(&last_limit, memory_order_relaxed), least) * scale;
  char line[1024];

  if ((s->waited >= next || s->waited >= last) && describe(s, sizeof line, line)) {
    s->lines += 1;
    dog.tell(dog.context, line, s->waited >= last);
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
  sight s = {.done = UNKNOWN};
  double before = now();
  (void)unused;

  (void)pthread_mutex_lock(&dog.lock);
  while (!dog.stop) {
    const double until = now() + TICK;
    const struct timespec t = {.tv_sec = (time_t)until,
                               .tv_nsec = (long)((until - floor(until)) * 1e9)};
    if (pthread_cond_timedwait(&dog.wake, &dog.lock, &t) != ETIMEDOUT) { continue; }
    const double at = now();
    look(&s, fmin(at - before, TICK_MOST));
    before = at;
  }
  (void)pthread_mutex_unlock(&dog.lock);
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
       pthread_cond_init(&dog.wake, &monotonic) == 0;
  (void)pthread_condattr_destroy(&monotonic);
  if (!ok) { return false; }
  if (pthread_mutex_init(&dog.lock, NULL) != 0) {
    (void)pthread_cond_destroy(&dog.wake);
    return false;
  }
  (void)sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  dog.running = pthread_create(&dog.thread, NULL, watch, NULL) == 0;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!dog.running) {
    (void)pthread_mutex_destroy(&dog.lock);
    (void)pthread_cond_destroy(&dog.wake);
  }
  return dog.running;
}

/* -------------------------------------------------------------- start, stop */

static unroll_status meet(unroll_comm *comm)
{
  unroll_status st = UNROLL_OK;
  resident *all = NULL;

  UNROLL_TRY(comm_agree(
      comm, memory_new((size_t)comm->size, sizeof *all, "hosts of the ranks", &dog.residents)));
  all = dog.residents;
  resident *self = &all[comm->rank];
  if (gethostname(self->host, sizeof self->host) != 0) {
    (void)snprintf(self->host, sizeof self->host, "unknown");
  }
  self->host[sizeof self->host - 1] = '\0';
  self->process = (int32_t)getpid();
  self->rank = (int32_t)comm->parent_rank;
  UNROLL_TRY_MPI(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, (int)sizeof *all, MPI_BYTE,
                               comm->handle));

cleanup:
  return st;
}

unroll_status watchdog_start(unroll_comm *comm, double first, double last,
                             void (*tell)(void *context, const char *line, bool over),
                             void *context)
{
  unroll_status st = UNROLL_OK;
  assert(!dog.running && first > 0.0);
  if (comm->size == 1 || tell == NULL) { goto cleanup; }

  dog.stop = false;
  dog.rank = comm->rank;
  dog.first = first;
  dog.tell = tell;
  dog.context = context;
  watchdog_wait_end();
  watchdog_step(UNKNOWN);
  watchdog_phase("reading the text and setting up");
  watchdog_set_limit(last);
  UNROLL_TRY(meet(comm));
  if (!start_thread()) { st = unroll_fail(UNROLL_ERR_MEMORY, "no thread for the watchdog"); }
  UNROLL_TRY(comm_agree(comm, st));

cleanup:
  if (st != UNROLL_OK) { watchdog_stop(); }
  return st;
}

void watchdog_stop(void)
{
  if (dog.running) {
    (void)pthread_mutex_lock(&dog.lock);
    dog.stop = true;
    (void)pthread_cond_signal(&dog.wake);
    (void)pthread_mutex_unlock(&dog.lock);
    (void)pthread_join(dog.thread, NULL);
    (void)pthread_mutex_destroy(&dog.lock);
    (void)pthread_cond_destroy(&dog.wake);
    dog.running = false;
  }
  memory_free(&dog.residents);
}
