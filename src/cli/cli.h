#ifndef CLI_CLI_H
#define CLI_CLI_H

/*
 * The program: one file per subcommand, options -> library call -> report.
 *
 * main.c reads the command line before MPI starts, so that help and mistakes
 * need no mpirun; then every rank calls `run`. Rank 0 alone prints, results to
 * standard output, all else to standard error; but any rank says that it is stuck
 * (progress_stuck, progress_waits).
 *
 * A new subcommand is a file with a cli_command, a line below, and a line in
 * the table of main.c; help and man page follow from it.
 */
#include "base/options.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unroll/comm.h>
#include <unroll/model.h>
#include <unroll/status.h>
#include <unroll/train.h>

/* What a subcommand is called with; all borrowed. */
typedef struct cli_call {
  unroll_comm *comm;              /* NULL in `check`: MPI is not started yet */
  const void *settings;           /* the struct of the command's table */
  bool given[UNROLL_OPTIONS_MAX]; /* [k]: option k of the table was given */
  size_t n_operands;
  const char *const *operands;
  const char *command_line; /* as one could type it again */
} cli_call;

typedef struct cli_command {
  options_usage usage;
  const option_table *table;
  size_t settings_size; /* [bytes] */
  unroll_status (*prepare)(void *settings,
                           bool *given);        /* what stands elsewhere; before check; or NULL */
  unroll_status (*check)(const cli_call *call); /* before MPI starts; NULL: options_check_needs */
  unroll_status (*run)(const cli_call *call);   /* collective over call->comm */
  bool of_one; /* where each process is a rank alone, the first of them does it all */
} cli_command;

extern const cli_command cli_train, cli_eval, cli_sample, cli_info, cli_compare, cli_report,
    cli_watch, cli_export, cli_gradflow, cli_bench;

/* Exit statuses, for --help and the man page. */
#define CLI_EXIT_TEXT                                                                              \
  "0 done, 1 the run failed, 2 usage or input, 75 stopped on a\n"                                  \
  "signal with a checkpoint"

/* The option --json of all commands that have it, but its offset. */
#define CLI_JSON                                                                                   \
  .name = "json", .type = OPTION_FLAG, .default_text = "no", .heading = "Output",                  \
  .help = "print one JSON object with stable keys"

/* The option --weights of all commands that work with a model, but its offset: an unroll_weights. */
#define CLI_WEIGHTS                                                                                \
  .name = "weights", .type = OPTION_CHOICE, .default_text = "average", .choices = "average|last",  \
  .heading = "Model",                                                                              \
  .help = "of a run with --average: the average of the weights, or those of the last update"

/** Say on standard error that the weights of a model are an average, if they are. Rank 0. */
void cli_say_weights(const unroll_model *model);

/**
 * Refuse ranks that were not started alike: the first difference, and the rank that has it. `rank` is this one as
 * launchers count; `read` the outcome of reading its command line, without which there is no `command`. Collective.
 */
unroll_status alike_check(unroll_comm *comm, int rank, unroll_status read,
                          const cli_command *command, const cli_call *call);

/** Print a JSON object, which is taken over; `bad`: there was no memory for all of it. Rank 0. */
struct json_t;
unroll_status cli_print_json(struct json_t *object, bool bad);

/* Where the ranks run: comm/placement.h. */
struct placement;

/**
 * From now on no control character of a name, a token or an option reaches a terminal: it is shown as \u001b. What goes
 * to a file or a pipe stays as it is.
 */
void terminal_protect(void);

/** A stream that does so for one more that prints to descriptor `fd`; `to` itself where that is no terminal. */
FILE *terminal_filter(FILE *to, int fd);

/** A control sequence of our own, to a stream that is a terminal. */
void terminal_control(FILE *stream, const char *sequence);

/** Print version, ranks, threads, hosts and libraries to standard error, and placement advice. Rank 0. */
void banner_show(const struct placement *where);

/** The same of the ranks of comm. Collective. */
unroll_status banner_print(unroll_comm *comm);

/** Print only the advice, if there is any, for commands whose output is their own. Collective. */
unroll_status banner_advise(unroll_comm *comm);

/* The observer of a training run, and what the summary needs of it. */
typedef struct progress {
  const struct placement *where; /* for the banner; NULL once an event has shown it */
  bool terminal;                 /* standard error is one: show a progress line */
  bool full;                     /* --log-format full */
  bool shown;                    /* that line stands there now */
  double drawn, told; /* [seconds] when it was drawn last, when a line was printed last */
  uint64_t step, best_step;
  double best_loss; /* [nats per token] */
  char end[256];    /* why training is over; "" before */
  char weights_sha256[65];
} progress;

/** The first event shows the banner of `where`, borrowed until then: before it, input may still be refused. */
void progress_start(progress *p, const struct placement *where, unroll_log_format format);

/** An unroll_observer.tell; `context` is a progress. */
void progress_tell(void *context, const unroll_progress *now);

/**
 * An unroll_observer.stuck: print the line, the first time with advice, to standard error; when it is over end this
 * process, and so the job. Reads nothing of `context`, which the main thread may be writing.
 */
void progress_stuck(void *context, const char *line, bool over);

/** The same for commands that have no checkpoints and no limit. */
void progress_waits(void *context, const char *line, bool over);

/** Best validation, the run file and what to do next, to standard error. */
void progress_summary(const progress *p, const char *path);

/** The man page unroll.1, from the tables of the commands, to standard output. */
void manpage_print(size_t n, const cli_command *const *commands);

#endif
