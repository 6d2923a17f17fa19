#include "runfile/claim.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "runfile/keep.h"
#include "runfile/save.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* [bytes] Most of a claim. */
#define TEXT_SIZE 1024

struct claim {
  char *path; /* of the claim itself */
  char text[TEXT_SIZE];
};

/* ------------------------------------------------------------------- who */

/* Who has it. A process is known by host, namespace, number and start: numbers come again, in containers soon. */
typedef struct holder {
  char host[256];
  unsigned long long space; /* namespace of process numbers; 0: the system has none */
  long process;
  unsigned long long born; /* [ticks since the host started]; 0: the system does not say */
  char job[128];           /* of the batch system, "-": none */
  char life[32];           /* how often Slurm has started that job again; "-": no Slurm */
  char since[CLOCK_ISO_SIZE];
} holder;

/* State and start of a process, where the system says so. */
static bool process_look(long process, char *state, unsigned long long *born)
{
  char name[64], line[1024] = "";
  (void)snprintf(name, sizeof name, "/proc/%ld/stat", process);
  FILE *f = fopen(name, "r");
  if (f == NULL) { return false; }
  size_t n = fread(line, 1, sizeof line - 1, f);
  (void)fclose(f);
  line[n] = '\0';
  const char *rest = strrchr(line, ')'); /* the name of the program may hold anything */
  return rest != NULL && sscanf(rest + 1,
                                " %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                                "%*s %*s %*s %llu",
                                state, born) == 2;
}

static bool is_alive(const holder *h)
{
  char state = '\0';
  unsigned long long born = 0;
  if (kill((pid_t)h->process, 0) != 0 && errno == ESRCH) { return false; }
  if (!process_look(h->process, &state, &born)) { return true; }
  return state != 'Z' && state != 'X' && (h->born == 0 || h->born == born);
}

static const char *environment(const char *name)
{
  const char *value = getenv(name);
  return value != NULL && value[0] != '\0' ? value : NULL;
}

/* "Slurm:1234", "PBS:..." */
static void find_job(holder *h)
{
  static const char *const systems[][2] = {
      {"Slurm", "SLURM_JOB_ID"}, {"PBS", "PBS_JOBID"}, {"LSF", "LSB_JOBID"}};
  (void)snprintf(h->job, sizeof h->job, "-");
  (void)snprintf(h->life, sizeof h->life, "-");
  for (size_t i = 0; i < sizeof systems / sizeof systems[0]; ++i) {
    const char *id = environment(systems[i][1]);
    if (id == NULL) { continue; }
    (void)snprintf(h->job, sizeof h->job, "%s:%.100s", systems[i][0], id);
    if (i == 0) {
      const char *again = environment("SLURM_RESTART_COUNT");
      (void)snprintf(h->life, sizeof h->life, "%.30s", again != NULL ? again : "0");
    }
    break;
  }
}

static void find_myself(holder *h)
{
  struct stat space = {0};
  char state = '\0';

  *h = (holder){.process = (long)getpid()};
  if (gethostname(h->host, sizeof h->host - 1) != 0 || h->host[0] == '\0') {
    (void)snprintf(h->host, sizeof h->host, "-");
  }
  if (stat("/proc/self/ns/pid", &space) == 0) { h->space = (unsigned long long)space.st_ino; }
  if (!process_look(h->process, &state, &h->born)) { h->born = 0; }
  find_job(h);
  clock_iso(h->since);
}

static void print(const holder *h, char text[TEXT_SIZE])
{
  (void)snprintf(text, TEXT_SIZE,
                 "unroll writes this run\nhost %s\nspace %llu\nprocess %ld\nborn %llu\njob %s\n"
                 "life %s\nsince %s\n",
                 h->host, h->space, h->process, h->born, h->job, h->life, h->since);
}

static bool scan(const char *text, holder *h)
{
  return sscanf(text,
                "unroll writes this run host %255s space %llu process %ld born %llu job %127s "
                "life %31s since %20s",
                h->host, &h->space, &h->process, &h->born, h->job, h->life, h->since) == 7;
}

/* ----------------------------------------------------------- dead or alive */

/* Slurm starts this job after the end of that one, whatever came of it; "after:" alone is after its start. */
static bool waited_for(const char *job)
{
  const char *list = environment("SLURM_JOB_DEPENDENCY");
  const char *id = strchr(job, ':');
  if (list == NULL || id == NULL || strncmp(job, "Slurm:", 6) != 0) { return false; }
  if (strstr(list, "after:") != NULL) { return false; }
  for (const char *at = strstr(list, id); at != NULL; at = strstr(at + 1, id)) {
    if (strchr("0123456789_", at[strlen(id)]) == NULL || at[strlen(id)] == '\0') { return true; }
  }
  return false;
}

static bool is_on_my_host(const holder *me, const holder *h)
{
  return strcmp(me->host, h->host) == 0 && me->space == h->space;
}

static bool has_ended(const holder *me, const holder *h)
{
  const bool same_job = strcmp(me->job, "-") != 0 && strcmp(me->job, h->job) == 0;
  if (same_job && strcmp(me->life, h->life) != 0) { return true; }
  if (is_on_my_host(me, h)) { return !is_alive(h); }
  return (same_job && strcmp(me->life, "-") == 0) || waited_for(h->job);
}

static unroll_status refuse(const char *path, const char *name, const holder *me, const holder *h)
{
  const bool in_job = strcmp(h->job, "-") != 0;
  return unroll_fail(UNROLL_ERR_INPUT,
                     "%s: another run writes it, on host %s, process %ld%s%s, since %s; legal is "
                     "another --out%s%s",
                     path, h->host, h->process, in_job ? ", job " : "", in_job ? h->job : "",
                     h->since, is_on_my_host(me, h) ? "" : ", or, if that run is dead, to remove ",
                     is_on_my_host(me, h) ? "" : name);
}

/* ------------------------------------------------------------------ files */

/* "folder/.run.claim" for "folder/run.h5" and "folder/run", whose logs have one name. */
static unroll_status claim_name(const char *path, char **out)
{
  unroll_status st = UNROLL_OK;
  char *target = NULL;

  UNROLL_TRY(save_target(path, &target));
  const char *slash = strrchr(target, '/');
  const int folder = slash != NULL ? (int)(slash - target) + 1 : 0;
  const size_t size = strlen(target) + sizeof "..claim";
  UNROLL_TRY(memory_new(size, 1, "a file name", out));
  (void)snprintf(*out, size, "%.*s.%.*s.claim", folder, target, (int)keep_stem(target + folder),
                 target + folder);

cleanup:
  memory_free(&target);
  return st;
}

/* 0, or the errno of what failed. */
static int read_text(const char *name, char text[TEXT_SIZE])
{
  int code = 0;
  int fd = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) { return errno; }
  ssize_t n = read(fd, text, TEXT_SIZE - 1);
  if (n < 0) { code = errno; }
  text[n > 0 ? n : 0] = '\0';
  (void)close(fd);
  return code;
}

/* 0, or the errno of what failed: EEXIST where there is one. */
static int create(const char *name, const char *text)
{
  const size_t n = strlen(text);
  int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0) { return errno; }
  ssize_t k = write(fd, text, n);
  int code = k == (ssize_t)n ? 0 : k < 0 ? errno : ENOSPC;
  if (close(fd) != 0 && code == 0) { code = errno; }
  if (code != 0) { (void)unlink(name); }
  return code;
}

/* Remove the claim with this text and no other: of several that would, one moves it away. */
static unroll_status remove_dead(const char *name, const char *text)
{
  unroll_status st = UNROLL_OK;
  const size_t size = strlen(name) + 32;
  char *aside = NULL;
  char moved[TEXT_SIZE];

  UNROLL_TRY(memory_new(size, 1, "a file name", &aside));
  (void)snprintf(aside, size, "%s.%ld", name, (long)getpid());
  if (rename(name, aside) != 0) {
    if (errno != ENOENT) { /* else somebody else was quicker */
      st = unroll_fail(UNROLL_ERR_INPUT, "%s: is of a dead run, and cannot be removed: %s", name,
                       strerror(errno));
    }
    goto cleanup;
  }
  if (read_text(aside, moved) == 0 && strcmp(moved, text) != 0) {
    (void)rename(aside, name); /* somebody else was quicker, and has claimed it since */
  } else {
    (void)unlink(aside);
  }

cleanup:
  memory_free(&aside);
  return st;
}

/* ------------------------------------------------------------------- claim */

/* [ns], and times: a claim that is just created is empty for a moment, and a process that was killed is still there. */
#define WAIT  50000000
#define WAITS 40

static unroll_status take(const char *path, claim *c, const holder *me)
{
  unroll_status st = UNROLL_OK;
  char text[TEXT_SIZE];
  holder other;
  int code = 0;

  for (int waits = 0; (code = create(c->path, c->text)) != 0;) {
    if (code != EEXIST || ((code = read_text(c->path, text)) != 0 && code != ENOENT)) {
      st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot be claimed by a file %s: %s", path, c->path,
                       strerror(code));
      goto cleanup;
    }
    if (code == ENOENT) { continue; } /* it has just been given back */
    const bool known = scan(text, &other);
    if (known && has_ended(me, &other)) {
      UNROLL_TRY(remove_dead(c->path, text));
    } else if (waits++ < WAITS && (text[0] == '\0' || (known && is_on_my_host(me, &other)))) {
      (void)nanosleep(&(struct timespec){.tv_nsec = WAIT}, NULL);
    } else if (text[0] == '\0') { /* died before it could say who it is */
      UNROLL_TRY(remove_dead(c->path, text));
    } else if (known) {
      st = refuse(path, c->path, me, &other);
      goto cleanup;
    } else {
      st = unroll_fail(UNROLL_ERR_INPUT, "%s: %s is there, but is no claim of a run; move it away",
                       path, c->path);
      goto cleanup;
    }
  }

cleanup:
  return st;
}

unroll_status claim_take(const char *path, claim **out)
{
  unroll_status st = UNROLL_OK;
  claim *c = NULL;
  holder me;
  char name[KEEP_NAME];

  UNROLL_TRY(memory_new(1, sizeof *c, "a claim", &c));
  UNROLL_TRY(claim_name(path, &c->path));
  find_myself(&me);
  print(&me, c->text);
  st = take(path, c, &me);
  if (st != UNROLL_OK) {
    memory_free(&c->path); /* it is not ours */
    goto cleanup;
  }
  for (size_t i = 0; keep_name(path, 1, i, name); ++i) { UNROLL_TRY(save_clean(name)); }
  *out = c;
  c = NULL;

cleanup:
  claim_free(&c);
  return st;
}

unroll_status claim_check(const claim *c)
{
  char text[TEXT_SIZE];
  holder other;
  if (c == NULL || read_text(c->path, text) != 0 || strcmp(text, c->text) == 0 ||
      !scan(text, &other)) {
    return UNROLL_OK;
  }
  return unroll_fail(UNROLL_ERR_IO,
                     "%s: the run on host %s, process %ld, has taken this one's place; it is no "
                     "longer written here",
                     c->path, other.host, other.process);
}

void claim_free(claim **c)
{
  char text[TEXT_SIZE];
  if (*c == NULL) { return; }
  if ((*c)->path != NULL && read_text((*c)->path, text) == 0 && strcmp(text, (*c)->text) == 0) {
    (void)unlink((*c)->path);
  }
  memory_free(&(*c)->path);
  memory_free(c);
}
