/*
 * What goes wrong in a system call, on demand: to be preloaded into the program (LD_PRELOAD).
 *
 *   UNROLL_FAULT=CLASS:N:WHAT[+]   at the N-th call of a class, from 1 on; with + at all later ones too
 *   UNROLL_FAULT_RANK=RANK         on this rank of mpirun alone; else on any
 *   UNROLL_FAULT_IN=FOLDER         calls on files in this folder alone, and on the shared memory of unroll
 *   UNROLL_FAULT_TRACE=FILE        gets a line `CLASS N CALL FILE` for each call, `hit` behind the one that WHAT came to
 *
 * CLASS   save   what brings bytes to the disk: open for writing, write, fsync, ftruncate, close, rename, link, fopen, fclose
 *         read   read and pread
 *         start  MPI_Init_thread
 * WHAT    ENOSPC, EIO    the call fails so, and what it should have written is not there
 *         SHORT          write writes half
 *         KILL, TERM...  this process gets the signal before the call
 *         mpirun:KILL... its parent gets it
 *
 * The calls that fail are those that the program makes by itself; what the C library does inside of fclose is one call.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL(call, ...) ((__typeof__(&call))dlsym(RTLD_NEXT, #call))(__VA_ARGS__)

enum { SAVE, READ, START, N_CLASSES };
static const char *const class_names[N_CLASSES] = {"save", "read", "start"};
static atomic_int calls[N_CLASSES];

/* What is to happen now. */
enum { NOTHING, FAIL, HALF };

static const char *setting(const char *name)
{
  const char *value = getenv(name);
  return value != NULL ? value : "";
}

static bool is_chosen_rank(void)
{
  const char *wanted = setting("UNROLL_FAULT_RANK");
  const char *rank = setting(getenv("OMPI_COMM_WORLD_RANK") ? "OMPI_COMM_WORLD_RANK" : "PMI_RANK");
  return wanted[0] == '\0' || strcmp(wanted, rank) == 0;
}

static bool is_file_of_run(const char *file)
{
  static const char shared[] = "/dev/shm/unroll.";
  const char *folder = setting("UNROLL_FAULT_IN");
  const size_t n = strlen(folder);
  if (strncmp(file, shared, sizeof shared - 1) == 0) { return true; }
  return strncmp(file, folder, n) == 0 && (file[n] == '/' || file[n] == '\0');
}

/* A line of the trace, in one piece: several processes write it. */
static void trace(int class, int n, const char *call, const char *file, const char *end)
{
  char line[PATH_MAX + 64];
  const char *name = setting("UNROLL_FAULT_TRACE");
  const int fd = name[0] == '\0' ? -1 : REAL(open, name, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (fd < 0) { return; }
  (void)snprintf(line, sizeof line, "%s %d %s %s%s\n", class_names[class], n, call, file, end);
  if (REAL(write, fd, line, strlen(line)) < 0) { abort(); }
  (void)REAL(close, fd);
}

static void send_signal(const char *name)
{
  static const struct {
    const char *name;
    int number;
  } known[] = {{"KILL", SIGKILL}, {"TERM", SIGTERM}, {"INT", SIGINT},   {"HUP", SIGHUP},
               {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"XCPU", SIGXCPU}, {"STOP", SIGSTOP}};
  const bool parent = strncmp(name, "mpirun:", 7) == 0;
  if (parent) { name += 7; }
  for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
    if (strncmp(name, known[i].name, strlen(known[i].name)) != 0) { continue; }
    (void)kill(parent ? getppid() : getpid(), known[i].number);
    return;
  }
  (void)fprintf(stderr, "UNROLL_FAULT: no %s\n", name);
  abort();
}

/* A call is about to be made. */
static int happens(int class, const char *call, const char *file)
{
  const char *fault = setting("UNROLL_FAULT");
  const size_t n_class = strlen(class_names[class]);
  const int saved = errno;
  char *what = NULL;

  if (!is_chosen_rank()) { return NOTHING; }
  const int n = atomic_fetch_add(&calls[class], 1) + 1;
  const bool of_class = strncmp(fault, class_names[class], n_class) == 0 && fault[n_class] == ':';
  const long at = of_class ? strtol(fault + n_class + 1, &what, 10) : 0;
  const bool hit = of_class && (n == at || (n > at && strchr(what, '+') != NULL));
  trace(class, n, call, file, hit ? " hit" : "");
  errno = saved;
  if (!hit) { return NOTHING; }
  what += 1;
  if (strncmp(what, "ENOSPC", 6) == 0 || strncmp(what, "EIO", 3) == 0) {
    errno = what[1] == 'I' ? EIO : ENOSPC;
    return FAIL;
  }
  if (strncmp(what, "SHORT", 5) == 0) { return HALF; }
  send_signal(what);
  return NOTHING;
}

/* The same with a name or an open file, of which only those of the run count. */
static int happens_to_name(int class, const char *call, const char *name)
{
  char folder[PATH_MAX], real[PATH_MAX], file[2 * PATH_MAX];
  const char *slash = strrchr(name, '/');

  (void)snprintf(folder, sizeof folder, "%.*s", slash == NULL ? 1 : (int)(slash - name),
                 slash == NULL ? "." : name);
  if (realpath(folder, real) == NULL) { return NOTHING; }
  (void)snprintf(file, sizeof file, "%s/%s", real, slash == NULL ? name : slash + 1);
  return is_file_of_run(file) ? happens(class, call, file) : NOTHING;
}

static int happens_to_file(int class, const char *call, int fd)
{
  char link[64], file[PATH_MAX];

  (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, file, sizeof file - 1);
  if (n <= 0) { return NOTHING; }
  file[n] = '\0';
  return is_file_of_run(file) ? happens(class, call, file) : NOTHING;
}

/* Folders are opened to make a rename last. */
static bool is_for_saving(int flags)
{
  return (flags & O_ACCMODE) != O_RDONLY || (flags & O_DIRECTORY) != 0;
}

/* ------------------------------------------------------------- what saves */

int open(const char *name, int flags, ...)
{
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  if (is_for_saving(flags) && happens_to_name(SAVE, "open", name) == FAIL) { return -1; }
  return REAL(open, name, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
  const int what = happens_to_file(SAVE, "write", fd);
  if (what == FAIL) { return -1; }
  return REAL(write, fd, bytes, what == HALF && n > 1 ? n / 2 : n);
}

int fsync(int fd)
{
  return happens_to_file(SAVE, "fsync", fd) == FAIL ? -1 : REAL(fsync, fd);
}

int ftruncate(int fd, off_t n)
{
  return happens_to_file(SAVE, "ftruncate", fd) == FAIL ? -1 : REAL(ftruncate, fd, n);
}

/* Whatever it says, the file is closed then. */
int close(int fd)
{
  const int flags = fcntl(fd, F_GETFL);
  const bool fails =
      flags >= 0 && is_for_saving(flags) && happens_to_file(SAVE, "close", fd) == FAIL;
  const int code = errno, closed = REAL(close, fd);
  if (!fails) { return closed; }
  errno = code;
  return -1;
}

int rename(const char *from, const char *to)
{
  return happens_to_name(SAVE, "rename", to) == FAIL ? -1 : REAL(rename, from, to);
}

int link(const char *from, const char *to)
{
  return happens_to_name(SAVE, "link", to) == FAIL ? -1 : REAL(link, from, to);
}

FILE *fopen(const char *name, const char *mode)
{
  if (mode[0] != 'r' && happens_to_name(SAVE, "fopen", name) == FAIL) { return NULL; }
  return REAL(fopen, name, mode);
}

/* What the buffer still held is lost. */
int fclose(FILE *f)
{
  const bool fails = __fwritable(f) && happens_to_file(SAVE, "fclose", fileno(f)) == FAIL;
  const int code = errno;
  if (fails) { __fpurge(f); }
  const int closed = REAL(fclose, f);
  if (!fails) { return closed; }
  errno = code;
  return EOF;
}

/* ------------------------------------------------- what only brings signals */

ssize_t read(int fd, void *bytes, size_t n)
{
  return happens_to_file(READ, "read", fd) == FAIL ? -1 : REAL(read, fd, bytes, n);
}

ssize_t pread(int fd, void *bytes, size_t n, off_t at)
{
  return happens_to_file(READ, "pread", fd) == FAIL ? -1 : REAL(pread, fd, bytes, n, at);
}

int PMPI_Init_thread(int *argc, char ***argv, int wanted, int *provided);
int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided);

int MPI_Init_thread(int *argc, char ***argv, int wanted, int *provided)
{
  (void)happens(START, "MPI_Init_thread", "-");
  return PMPI_Init_thread(argc, argv, wanted, provided);
}
