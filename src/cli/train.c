#include "base/check.h"
#include "cli/cli.h"
#include "comm/signals.h"

#include <unroll/config.h>

/* Before MPI starts. What --resume will read from the run file is not known yet: the library checks. */
static unroll_status check(const cli_call *call)
{
  unroll_config config = *(const unroll_config *)call->settings;
  config.given = call->given;

  if (config.resume) { return UNROLL_OK; }
  if (call->n_operands == 0) {
    return unroll_fail(UNROLL_ERR_ARG, "no text to train on: unroll train [OPTION]... TEXT...");
  }
  return unroll_config_resolve(&config);
}

static unroll_status run(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  unroll_config config = *(const unroll_config *)call->settings;
  progress p;
  const unroll_observer observer = {.context = &p, .tell = progress_tell, .stuck = progress_stuck};

  config.given = call->given;
  progress_start(&p);
  signals_install();
  UNROLL_TRY(banner_print(call->comm));
  UNROLL_TRY(unroll_train(call->comm, &config, call->n_operands, call->operands, call->command_line,
                          &observer));
  if (unroll_comm_rank(call->comm) == 0) { progress_summary(&p, config.out); }

cleanup:
  signals_restore();
  return st;
}

const cli_command cli_train = {
    .usage =
        {.command = "train",
         .operands = "TEXT...",
         .max_operands = SIZE_MAX,
         .purpose =
             "Train a model: text in, one run file out.\n"
             "\n"
             "TEXT is files and folders, read as one text. The result is the same for every\n"
             "number of ranks (a power of two that divides --shards) and of threads. Threads\n"
             "come from OMP_NUM_THREADS or the binding. With --resume TEXT may be left out: it\n"
             "is then read from the run file.",
         .notes =
             "Standard output has a line of `key value` pairs for each report interval, which\n"
             "begins with `train`, for each validation, `valid`, and for each layer where the\n"
             "gradient flow is measured, `diagnose`; the keys are those of the run file. All\n"
             "else goes to standard error; where that is a terminal, it also has a progress\n"
             "line.\n"
             "\n"
             "SIGTERM, SIGUSR1 and SIGINT write a checkpoint and end with status 75; a second\n"
             "signal ends at once. The same command with --resume goes on, to the same bits.\n"
             "\n"
             "Examples:\n"
             "  mpirun -n 4 unroll train corpus.txt -o run.h5\n"
             "  unroll train --level word --min-count 3 --hidden 650 --valid test/ train/\n"
             "\n"
             "Exit status: " CLI_EXIT_TEXT "."},
    .table = config_table,
    .settings_size = sizeof(unroll_config),
    .check = check,
    .run = run,
};
