#include "base/build.h"
#include "base/check.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "cli/say.h"
#include "comm/comm.h"
#include "comm/deadline.h"
#include "comm/launcher.h"
#include "comm/placement.h"
#include "comm/watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <mpi.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unroll/model.h>

static const cli_command *const commands[] = {
    &cli_train,  &cli_eval,  &cli_sample, &cli_info,     &cli_compare,
    &cli_report, &cli_watch, &cli_export, &cli_gradflow, &cli_bench,
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

/* ------------------------------------------------------------------ output */

/* How SIGPIPE was handled when the program was started, and whether the program would have died of it. */
static void (*sigpipe_before)(int) = SIG_DFL;
static bool output_unread;

static void print_failure(unroll_status st)
{
  if (output_unread && sigpipe_before == SIG_DFL) { return; }
  const bool error = st != UNROLL_STOPPED && st != UNROLL_UNFINISHED && st != UNROLL_UNPROVEN;
  (void)fprintf(say_err, "unroll: %s%s\n", error ? "error: " : "",
                unroll_message()[0] == '\0' ? unroll_status_text(st) : unroll_message());
}

/* Nobody reads standard output any more: it is a pipe, or a socket, that was closed at the other end. */
static bool is_output_closed(void)
{
  struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
  return poll(&out, 1, 0) == 1 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

/* A full disk or a closed pipe may show only now, and why an earlier write failed is forgotten. */
static unroll_status close_output(unroll_status st)
{
  bool bad = ferror(say_out) != 0 || ferror(stdout) != 0 || fflush(stdout) != 0;
  const bool unread = bad && is_output_closed();

  bad |= fclose(stdout) != 0;
  if (!bad || st != UNROLL_OK) { return st; }
  output_unread = unread;
  return unroll_fail(UNROLL_ERR_IO, "standard output could not be written: %s",
                     unread ? "it was closed by whoever read it" : "a full disk?");
}

unroll_status cli_print_json(json_t *object, bool bad)
{
  if (!bad) {
    (void)json_dumpf(object, stdout, JSON_INDENT(2)); /* close_output looks at the error flag */
    (void)printf("\n");
  }
  json_decref(object);
  return bad ? unroll_fail(UNROLL_ERR_MEMORY, "no memory for the JSON object") : UNROLL_OK;
}

void cli_say_weights(const unroll_model *model)
{
  if (unroll_model_averaged(model) == 0) { return; }
  (void)fprintf(say_err,
                "unroll: the weights are the average of %" PRIu64
                " updates; --weights last takes those of the last one\n",
                unroll_model_averaged(model));
}

static void print_usage(FILE *out)
{
  (void)fprintf(out, "Usage: unroll COMMAND [OPTION]... [ARGUMENT]...\n"
                     "Train recurrent-neural-network language models on CPU clusters.\n\n");
  for (size_t i = 0; i < N_COMMANDS; ++i) {
    const options_usage *usage = &commands[i]->usage;
    (void)fprintf(out, "  unroll %-9s%-13s%.*s\n", usage->command, usage->operands,
                  (int)strcspn(usage->purpose, "\n"), usage->purpose);
  }
  (void)fprintf(out, "\n"
                     "  unroll COMMAND --help, unroll help COMMAND   its options\n"
                     "  unroll --version                             version and how it was built\n"
                     "\n"
                     "On a cluster start it with mpirun or srun; alone it runs as one rank.\n"
                     "Exit status: " CLI_EXIT_TEXT ".\n");
}

static void print_version(void)
{
  (void)printf("unroll %s (revision %s)\ncompiler: %s\nflags: %s\n", UNROLL_VERSION, build_revision,
               UNROLL_COMPILER, UNROLL_FLAGS);
}

/* ------------------------------------------------------------ command line */

static const cli_command *find_command(const char *name)
{
  for (size_t i = 0; i < N_COMMANDS; ++i) {
    if (strcmp(commands[i]->usage.command, name) == 0) { return commands[i]; }
  }
  return NULL;
}

/* Append a word so that a shell would read it back, quoting where it must. */
static void append_word(char **end, const char *word)
{
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "-_./=:,+%@";
  bool quote = word[0] == '\0' || word[strspn(word, plain)] != '\0';
  char *out = *end;

  if (quote) { *out++ = '\''; }
  for (; *word != '\0'; ++word) {
    if (*word == '\'') {
      memcpy(out, "'\\''", 4);
      out += 4;
    } else {
      *out++ = *word;
    }
  }
  if (quote) { *out++ = '\''; }
  *end = out;
}

/* "unroll train 'my text' -o run.h5"; to be freed with memory_free. */
static unroll_status join_words(int argc, char **argv, char **out)
{
  unroll_status st = UNROLL_OK;
  size_t size = sizeof "unroll";
  char *line = NULL;

  for (int i = 1; i < argc; ++i) { size += 4 * strlen(argv[i]) + 3; }
  UNROLL_TRY(memory_new(size, 1, "the command line", &line));
  char *end = line + strlen(strcpy(line, "unroll"));
  for (int i = 1; i < argc; ++i) {
    *end++ = ' ';
    append_word(&end, argv[i]);
  }
  *end = '\0';
  *out = line;

cleanup:
  return st;
}

/* ------------------------------------------------------------- with MPI */

/* Nothing collective is safe any more: this process speaks for itself and takes all down. */
static void abort_all(void)
{
  int rank = 0;
  (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  (void)fprintf(say_err, "unroll: error: rank %d: %s\n", rank, unroll_message());
  (void)MPI_Abort(MPI_COMM_WORLD, unroll_status_exit(UNROLL_ERR_MPI));
}

/* In all commands ranks may wait long while others work, so that a wait is said late, and never ends the job. Training,
 * whose steps tell what is long, takes over with a watchdog of its own. */
static unroll_status watch(unroll_comm *comm, const cli_command *command)
{
  const char *given = getenv("UNROLL_WAIT_WARNING");
  const double seconds = given != NULL ? strtod(given, NULL) : 0.0;
  const double first = seconds > 0.0 ? seconds / WATCHDOG_PHASE_FACTOR : WATCHDOG_WARN_AFTER;
  unroll_status st = watchdog_start(comm, first, 0.0, progress_waits, NULL);
  watchdog_phase(command->usage.command);
  return st;
}

/* Collective over all processes; returns the same status on all of them. `read`: whether there is a command. */
static unroll_status run_command(unroll_status read, const cli_command *command, cli_call *call)
{
  unroll_status st = UNROLL_OK;
  int provided = MPI_THREAD_SINGLE, rank = 0;
  bool idle = false;

  launcher_prepare_alone();
  deadline_begin("MPI to start on all ranks");
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    st = unroll_fail(UNROLL_ERR_MPI, "MPI did not start");
    print_failure(st);
    return st;
  }
  UNROLL_TRY(unroll_comm_new(MPI_COMM_WORLD, &call->comm));
  if (provided < MPI_THREAD_FUNNELED) {
    st = unroll_fail(UNROLL_ERR_ARG, "this MPI library does not allow threads beside the one that "
                                     "calls it (MPI_THREAD_FUNNELED)");
  } else {
    st = launcher_check(call->comm);
    if (st != UNROLL_OK && command != NULL && command->of_one) {
      st = UNROLL_OK;
      idle = !launcher_find().first;
    }
  }
  (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (st == UNROLL_OK) { st = alike_check(call->comm, rank, read, command, call); }
  if (st == UNROLL_OK) { st = placement_set_threads(call->comm); }
  deadline_end();
  if (st == UNROLL_OK) { st = watch(call->comm, command); }
  if (st == UNROLL_OK && !idle) { st = command->run(call); }
  if (st == UNROLL_ERR_MPI) { goto cleanup; }
  if (unroll_comm_rank(call->comm) == 0) { st = close_output(st); }
  UNROLL_TRY(comm_agree(call->comm, st));

cleanup:
  deadline_end();
  watchdog_stop();
  if (st == UNROLL_ERR_MPI) { abort_all(); }
  if (st != UNROLL_OK && unroll_comm_rank(call->comm) == 0 && launcher_find().first) {
    print_failure(st);
  }
  deadline_begin("MPI to end on all ranks");
  unroll_comm_free(&call->comm);
  (void)MPI_Finalize();
  deadline_end();
  return st;
}

/* --------------------------------------------------------------- without MPI */

/* What needs no command: true when the word was one of these. */
static bool answer_general(const char *word)
{
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
    print_usage(stdout);
  } else if (strcmp(word, "--version") == 0) {
    print_version();
  } else if (strcmp(word, "--man") == 0) { /* for the build, which installs its output */
    manpage_print(N_COMMANDS, commands);
  } else {
    return false;
  }
  return true;
}

/* A command line, read: what `call` borrows is owned here. */
struct request {
  const cli_command *command; /* NULL: nothing is left to do */
  cli_call call;
  void *settings;
  const char **operands;
  char *command_line;
};

static void request_free(struct request *r)
{
  memory_free(&r->command_line);
  memory_free(&r->operands);
  memory_free(&r->settings);
}

/* Answer requests for help and the like; check everything that needs no MPI. argc >= 2. */
static unroll_status read_request(int argc, char **argv, struct request *r)
{
  unroll_status st = UNROLL_OK;
  char help[] = "--help";
  char *help_words[] = {help, NULL};
  bool asks = argc > 2 && strcmp(argv[1], "help") == 0;
  const char *name = argv[asks ? 2 : 1];
  const cli_command *command = find_command(name);
  bool helped = false;

  if (command == NULL && !asks && answer_general(name)) { return close_output(UNROLL_OK); }
  if (command == NULL) {
    return unroll_fail(UNROLL_ERR_ARG, "there is no command \"%s\"; unroll --help lists them",
                       name);
  }
  UNROLL_TRY(memory_new(1, command->settings_size, "the settings", &r->settings));
  UNROLL_TRY(options_parse(command->table, &command->usage, asks ? 1 : argc - 2,
                           asks ? help_words : argv + 2, r->settings, r->call.given,
                           &r->call.n_operands, &r->operands, &helped));
  if (helped) {
    st = close_output(UNROLL_OK);
    goto cleanup;
  }
  UNROLL_TRY(join_words(argc, argv, &r->command_line));
  r->call.settings = r->settings;
  r->call.operands = r->operands;
  r->call.command_line = r->command_line;
  if (command->prepare != NULL) { UNROLL_TRY(command->prepare(r->settings, r->call.given)); }
  UNROLL_TRY(command->check != NULL
                 ? command->check(&r->call)
                 : options_check_needs(command->table, r->settings, r->call.given));
  r->command = command;

cleanup:
  return st;
}

/* Of standard input, output and error those that are closed: else a file or a connection of MPI would take their place,
 * and get what is printed. Opened the wrong way round, so that using them fails, as it would have. */
static void fill_closed(void)
{
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) {
      return;
    }
  }
}

int main(int argc, char **argv)
{
  fill_closed();
  struct request request = {0};
  const launcher by = launcher_find();
  const bool first = by.first; /* of several processes one speaks */
  unroll_status st = UNROLL_OK;

  sigpipe_before = signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write: all ranks leave */
  (void)signal(SIGXFSZ, SIG_IGN); /* a file as large as ulimit -f lets it be: as on a full disk */
  terminal_protect();
  if (argc < 2) {
    if (first) { print_usage(stderr); }
    return unroll_status_exit(UNROLL_ERR_ARG);
  }
  const bool may_print = first || freopen("/dev/null", "w", stdout) != NULL;
  say_begin();
  if (!may_print) {
    st = unroll_fail(UNROLL_ERR_IO, "/dev/null: %s", strerror(errno));
  } else {
    st = read_request(argc, argv, &request);
  }
  /* Of several processes each is told of a mistake on one of them: nobody must wait for one that has left. */
  if (st == UNROLL_OK ? request.command != NULL : by.processes > 1) {
    st = run_command(st, request.command, &request.call);
  } else if (st != UNROLL_OK && first) {
    print_failure(st);
  }
  request_free(&request);
  say_end();
  if (output_unread) { /* end as `... | head` makes every tool end, quietly; not where that is ignored */
    (void)signal(SIGPIPE, sigpipe_before);
    (void)raise(SIGPIPE);
  }
  return unroll_status_exit(st);
}
