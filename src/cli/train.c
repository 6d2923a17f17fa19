#include "base/check.h"
#include "base/presets.h"
#include "cli/cli.h"
#include "comm/placement.h"
#include "comm/signals.h"
#include "comm/watchdog.h"

#include <inttypes.h>
#include <string.h>
#include <unroll/config.h>

/* Each rank reads --config for itself, and main.c compares what came of it. A preset stands below it. */
static unroll_status prepare(void *settings, bool *given)
{
  unroll_status st = UNROLL_OK;
  unroll_config *config = settings;

  memcpy(config->given, given, sizeof config->given);
  presets_apply(config);
  if (config->config_file[0] == '\0') { return UNROLL_OK; }
  UNROLL_TRY(unroll_config_read(config, config->config_file));
  memcpy(given, config->given, sizeof config->given);

cleanup:
  return st;
}

/* Before MPI starts. What --resume or --init-from will read from a run file is not known yet: the library checks. */
static unroll_status check(const cli_call *call)
{
  unroll_config config = *(const unroll_config *)call->settings;
  memcpy(config.given, call->given, sizeof config.given);

  if (!config.dry_run) {
    signals_install();
  } /* a signal from now on is honoured at the first step */
  if (config.resume) { return UNROLL_OK; }
  if (call->n_operands == 0) {
    return unroll_fail(UNROLL_ERR_ARG, "no text to train on: unroll train [OPTION]... TEXT...");
  }
  return config.init_from[0] != '\0' ? UNROLL_OK : unroll_config_resolve(&config);
}

/* --------------------------------------------------------------------- dry run */

static void print_plan(const unroll_plan *p)
{
  (void)printf("plan ranks %" PRIu64 " shards %" PRIu64 " shards_of_rank %" PRIu64
               " sequences_of_rank %" PRIu64 " batch %" PRIu64 " epochs %" PRIu64 "\n",
               p->ranks, p->shards, p->shards_of_rank, p->sequences_of_rank, p->batch, p->epochs);
  (void)printf("text vocab %" PRIu64 " train_tokens %" PRIu64 " valid_tokens %" PRIu64
               " unknown_tokens %" PRIu64 " windows %" PRIu64 " steps %" PRIu64
               " resumed_step %" PRIu64 " updates %" PRIu64 "\n",
               p->V, p->train_tokens, p->valid_tokens, p->unknown_tokens, p->windows, p->steps,
               p->resumed_step, p->updates);
  const uint64_t own = p->text_memory + p->gradient_memory + p->workspace_memory + p->buffer_memory;
  (void)printf("memory parameters %" PRIu64 " rank_bytes %" PRIu64 " text_bytes %" PRIu64
               " gradient_bytes %" PRIu64 " workspace_bytes %" PRIu64 " buffer_bytes %" PRIu64
               " shared_bytes %" PRIu64 " process_bytes %" PRIu64 "\n",
               p->parameters, own, p->text_memory, p->gradient_memory, p->workspace_memory,
               p->buffer_memory, p->shared_memory, p->process_memory);
  (void)printf("exchange exchange_bytes %" PRIu64 " sent_bytes %" PRIu64 "\n", p->exchange_bytes,
               p->sent_bytes);
  if (p->not_measured != NULL) {
    (void)printf("time threads %" PRIu64 " compute_seconds unknown: %s\n", p->threads,
                 p->not_measured);
    return;
  }
  (void)printf("time threads %" PRIu64 " compute_seconds %.4g run_seconds %.4g\n", p->threads,
               p->compute_seconds, p->run_seconds);
  for (size_t i = 0; i < UNROLL_PLAN_LINKS && p->ranks > 1; ++i) {
    const unroll_plan_link *l = &p->links[i];
    (void)printf("link gbit_per_second %g latency_seconds %g exchange_seconds %.4g "
                 "step_seconds %.4g run_seconds %.4g\n",
                 l->gbit_per_second, l->latency, l->exchange_seconds, l->step_seconds,
                 l->run_seconds);
  }
}

static unroll_status run_dry(const cli_call *call, const unroll_config *config)
{
  unroll_status st = UNROLL_OK;
  unroll_plan plan = {0};

  UNROLL_TRY(unroll_plan_make(call->comm, config, call->n_operands, call->operands, &plan));
  UNROLL_TRY(banner_print(call->comm));
  if (unroll_comm_rank(call->comm) == 0) { print_plan(&plan); }

cleanup:
  return st;
}

/* ---------------------------------------------------------------------- train */

static unroll_status run(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  unroll_config config = *(const unroll_config *)call->settings;
  placement *where = NULL;
  progress p;
  const unroll_observer observer = {.context = &p, .tell = progress_tell, .stuck = progress_stuck};

  memcpy(config.given, call->given, sizeof config.given);
  if (config.dry_run) { return run_dry(call, &config); }
  signals_install();
  watchdog_stop(); /* that of every command: training has its own */
  UNROLL_TRY(placement_new(call->comm, &where));
  progress_start(&p, where, config.log_format);
  UNROLL_TRY(unroll_train(call->comm, &config, call->n_operands, call->operands, call->command_line,
                          &observer));
  if (unroll_comm_rank(call->comm) == 0) { progress_summary(&p, config.out); }

cleanup:
  placement_free(&where);
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
             "come from OMP_NUM_THREADS, else from the cores that the rank was granted. With\n"
             "--resume TEXT may be left out: it is then read from the run file.",
         .notes =
             "Standard output has a line of `key value` pairs for each report interval, which\n"
             "begins with `train`, for each validation, `valid`, and for each layer where the\n"
             "gradient flow is measured, `diagnose`. ppl is perplexity, norm grad_norm, tok/s\n"
             "tokens_per_second; --log-format full has all numbers by the keys of the run\n"
             "file. All else goes to standard error; where that is a terminal, it also has a\n"
             "progress line, elsewhere now and then a line where nothing was said for long.\n"
             "Training never waits for whoever reads either: what a full pipe does not take is\n"
             "left out, and counted by a line `left_out` when it is read again; the run file\n"
             "and its log have all.\n"
             "\n"
             "SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGXCPU and SIGHUP write a checkpoint and end\n"
             "with status 75; a second signal ends at once. The same command with --resume\n"
             "goes on, to the same bits. mpirun passes SIGUSR1, SIGUSR2 and SIGXCPU on, and\n"
             "the status; after the others it gives the ranks a second to save, and ends with\n"
             "a status of its own: scripts should ask `unroll info --finished`.\n"
             "\n"
             "--dry-run prints what a run of --ranks would be (`plan`, `text`), take\n"
             "(`memory`, `exchange`: bytes a rank) and last (`time`: computing, measured\n"
             "here; `link`: with an exchange between hosts of one rank each, over an\n"
             "assumed network, nothing hidden).\n"
             "\n"
             "A file of --config has lines such as `hidden = 512` or `letters = yes`, with the\n"
             "names of the options here; # begins a comment. What it sets counts as typed.\n"
             "Of a run file the options are taken as it has them, batch and epochs too, but\n"
             "none about files to write, and the text is to be named.\n"
             "\n"
             "Examples:\n"
             "  mpirun -n 4 unroll train corpus.txt -o run.h5\n"
             "  unroll train --level word --min-count 3 --hidden 650 --valid test/ train/\n"
             "  unroll train --resume --change --epochs 20 -o run.h5\n"
             "  unroll train --init-from run.h5 --lr 5e-4 -o tuned.h5 other.txt\n"
             "  unroll train --config run.h5 --lr 5e-4 -o other.h5 corpus.txt\n"
             "  unroll train --dry-run --ranks 64 --batch 1024 --shards 64 corpus.txt\n"
             "\n"
             "Exit status: " CLI_EXIT_TEXT "."},
    .table = &config_table,
    .settings_size = sizeof(unroll_config),
    .prepare = prepare,
    .check = check,
    .run = run,
};
