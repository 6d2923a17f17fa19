#include "base/check.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/options.h"
#include "comm/placement.h"
#include "comm/watchdog.h"
#include "data/corpus.h"
#include "kernels/dispatch.h"
#include "kernels/kernels.h"
#include "train/diagnose.h"
#include "train/optimizer.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ options */

/* The run file to go on from, or an empty run: t->run with the options as resolved. */
static unroll_status open_run(trainer *t, const unroll_config *given, bool *resumed)
{
  unroll_status st = UNROLL_OK;
  unroll_config config = *given;
  uint64_t exists = 0;

  if (given->resume && unroll_comm_rank(t->comm) == 0) { exists = runfile_exists(given->out) != 0; }
  UNROLL_TRY(comm_max_u64(t->comm, &exists, 1));
  *resumed = exists != 0;
  if (*resumed) {
    UNROLL_TRY(runfile_load(t->comm, given->out, &t->run));
    UNROLL_TRY(config_resume(&config, &t->run->config));
  } else {
    UNROLL_TRY(run_new(&t->run));
  }
  UNROLL_TRY(unroll_config_resolve(&config));
  t->run->config = config;

cleanup:
  return st;
}

/* --------------------------------------------------------------------- text */

/* The texts of this run: the operands or, on resume without any, those of the run file (rank 0 knows). */
static unroll_status open_texts(trainer *t, size_t n_texts, const char *const *texts,
                                corpus **train, corpus **valid)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  const run_provenance *before = &t->run->provenance;
  const char *valid_path = config->valid;

  if (config->valid[0] != '\0') { UNROLL_TRY(corpus_open(t->comm, 1, &valid_path, valid)); }
  if (n_texts == 0) {
    size_t of_valid = *valid != NULL ? corpus_files(*valid) : 0;
    n_texts = before->n_files > of_valid ? before->n_files - of_valid : 0;
    texts = (const char *const *)before->file_name;
  }
  UNROLL_TRY(corpus_open(t->comm, n_texts, texts, train));

cleanup:
  return st;
}

/* Note names, sizes and hashes of the files; on resume they must be what they were. */
static unroll_status note_files(trainer *t, const corpus *train, const corpus *valid, bool resumed)
{
  unroll_status st = UNROLL_OK;
  run_provenance now = {0}, *p = &t->run->provenance;
  char(*hashes)[CORPUS_HASH_SIZE] = NULL;
  size_t of_train = corpus_files(train), n = of_train + (valid != NULL ? corpus_files(valid) : 0);
  bool root = unroll_comm_rank(t->comm) == 0;

  UNROLL_TRY(memory_new(n, sizeof *hashes, "hashes of the corpus", &hashes));
  UNROLL_TRY(corpus_hash(t->comm, train, hashes));
  if (valid != NULL) { UNROLL_TRY(corpus_hash(t->comm, valid, hashes + of_train)); }
  if (!root) { goto cleanup; }

  if (resumed && n != p->n_files) {
    st =
        unroll_fail(UNROLL_ERR_INPUT,
                    "%s: files of text of the run: %zu, of this call: %zu; --resume needs the same",
                    t->run->config.out, p->n_files, n);
    goto cleanup;
  }
  if (resumed) {
    for (size_t i = 0; i < n; ++i) {
      const corpus *c = i < of_train ? train : valid;
      size_t k = i < of_train ? i : i - of_train;
      if (strcmp(hashes[i], p->file_sha256[i]) != 0) {
        st = unroll_fail(UNROLL_ERR_INPUT,
                         "%s: not the text that %s was trained on; --resume needs the same files",
                         corpus_file_name(c, k), t->run->config.out);
        goto cleanup;
      }
    }
    goto cleanup;
  }
  UNROLL_TRY(memory_new(n, sizeof *now.file_name, "corpus file names", &now.file_name));
  p->file_name = now.file_name;
  UNROLL_TRY(memory_new(n, sizeof *now.file_bytes, "corpus file sizes", &p->file_bytes));
  UNROLL_TRY(memory_new(n, sizeof *now.file_sha256, "corpus file hashes", &p->file_sha256));
  p->n_files = n;
  for (size_t i = 0; i < n; ++i) {
    const corpus *c = i < of_train ? train : valid;
    size_t k = i < of_train ? i : i - of_train;
    UNROLL_TRY(memory_string(corpus_file_name(c, k), &p->file_name[i]));
    p->file_bytes[i] = corpus_file_bytes(c, k);
    UNROLL_TRY(memory_string(hashes[i], &p->file_sha256[i]));
  }

cleanup:
  memory_free(&hashes);
  return st;
}

/* Text -> vocabulary -> this rank's part of it -> pieces. */
static unroll_status read_text(trainer *t, size_t n_texts, const char *const *texts, bool resumed)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  const unroll_text_rules rules = {
      .level = config->level, .lowercase = config->lowercase, .letters = config->letters};
  corpus *text = NULL, *other = NULL;
  corpus_part train = {0}, valid = {0}, none = {0};
  run_provenance *p = &t->run->provenance;
  text_cut cut = {.kind = config->sequences,
                  .partition = config->partition,
                  .seed = config->seed,
                  .window = config->bptt == UNROLL_BPTT_TRUNCATED ? (size_t)config->steps : 0,
                  .B = (size_t)config->batch,
                  .first = t->first,
                  .count = t->count,
                  .ranks = t->ranks,
                  .what = "training"};

  UNROLL_TRY(open_texts(t, n_texts, texts, &text, &other));
  UNROLL_TRY(comm_agree(t->comm, note_files(t, text, other, resumed)));
  UNROLL_TRY(
      comm_agree(t->comm, corpus_split(text, rules, other == NULL ? config->valid_fraction : 0.0,
                                       &train, &valid)));
  if (other != NULL) {
    UNROLL_TRY(comm_agree(t->comm, corpus_split(other, rules, 0.0, &valid, &none)));
  }
  if (!resumed) {
    UNROLL_TRY(vocab_build(t->comm, text, &train, rules, config->min_count, config->max_vocab,
                           &t->run->vocab));
  } else {
    UNROLL_TRY(corpus_count(t->comm, text, t->run->vocab, &train));
  }
  UNROLL_TRY(text_source_new(t->comm, text, t->run->vocab, &train, &cut, &t->train));
  if (other != NULL || config->valid_fraction > 0.0) {
    const corpus *from = other != NULL ? other : text;
    UNROLL_TRY(corpus_count(t->comm, from, t->run->vocab, &valid));
    cut.what = "validation";
    cut.window = 0;
    cut.partition = UNROLL_PARTITION_RANDOM; /* sequences of about equal length together */
    cut.seed = 0;
    UNROLL_TRY(text_source_new(t->comm, from, t->run->vocab, &valid, &cut, &t->valid));
    t->valid_tokens_per_character = (double)valid.tokens / (double)valid.characters;
  }
  p->train_tokens = train.tokens;
  p->train_characters = train.characters;
  p->valid_tokens = valid.tokens;
  p->valid_characters = valid.characters;
  p->unknown_tokens = train.unknown + valid.unknown;
  t->pieces = piece_totals(config, t->train);

cleanup:
  corpus_part_free(&none);
  corpus_part_free(&valid);
  corpus_part_free(&train);
  corpus_free(&other);
  corpus_free(&text);
  return st;
}

/* -------------------------------------------------------------------- model */

/* Where and by what the run is computed now; rank 0. */
static unroll_status note_place(trainer *t, const char *command, bool resumed,
                                const placement *where)
{
  unroll_status st = UNROLL_OK;
  run_provenance *p = &t->run->provenance;
  const char *job = getenv("SLURM_JOB_ID");
  char text[256];

  memory_free(&p->hosts);
  memory_free(&p->cpu);
  memory_free(&p->code_path);
  memory_free(&p->slurm_job);
  UNROLL_TRY(memory_string(where->hosts, &p->hosts));
  cpu_name(sizeof text, text);
  UNROLL_TRY(memory_string(text, &p->cpu));
  UNROLL_TRY(memory_string(kernels_name(), &p->code_path));
  UNROLL_TRY(memory_string(job != NULL ? job : "", &p->slurm_job));
  p->ranks = (uint64_t)where->ranks;
  p->threads = (uint64_t)where->threads_max;
  if (!resumed) {
    char now[CLOCK_ISO_SIZE];
    clock_iso(now);
    UNROLL_TRY(memory_string(command, &p->command_line));
    UNROLL_TRY(memory_string(now, &p->started));
  }

cleanup:
  return st;
}

/* Parameters and moments of a new run, zero: start_model sets them where they will live. */
static unroll_status new_model(run *r)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &r->config;
  const unroll_shape shape = params_shape(config, unroll_vocab_size(r->vocab));
  UNROLL_TRY(unroll_params_new(&shape, &r->params));
  for (size_t i = 0; i < run_moments(config->optimizer); ++i) {
    UNROLL_TRY(
        memory_new(r->params->n, sizeof *r->moments[i], "optimizer moments", &r->moments[i]));
    r->n_moments = i + 1;
  }

cleanup:
  return st;
}

/* Initial parameters, in the memory of the team, of which each rank makes its share. Collective. */
static unroll_status start_model(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_start start = params_start(&t->run->config);
  const comm_team *team = t->stepper->team;
  unroll_params *params = t->run->params;
  size_t begin = 0, end = 0;

  comm_team_owned_range(team, params->n, KERNELS_NORM_BLOCK, &begin, &end);
  UNROLL_TRY(comm_agree(t->comm, params_start_range(params, &start, begin, end)));
  UNROLL_TRY(comm_team_fence(team));

cleanup:
  return st;
}

/* Parameters and moments, in the order in which the team has them. */
#define MOST_ARRAYS 3

static unroll_real **array_of(run *r, size_t i)
{
  return i == 0 ? &r->params->values : &r->moments[i - 1];
}

/* Rank 0: put aside what it has read of the run file, zeros in its place as the others have. */
static unroll_status put_aside(run *r, unroll_real **read)
{
  unroll_status st = UNROLL_OK;
  for (size_t i = 0; i <= r->n_moments; ++i) {
    read[i] = *array_of(r, i);
    *array_of(r, i) = NULL;
    UNROLL_TRY(memory_new(r->params->n, sizeof **read, "parameters", array_of(r, i)));
  }

cleanup:
  return st;
}

/* Parameters and moments of the run file, from rank 0 into the memory of the teams. Collective. */
static unroll_status deal_model(trainer *t, unroll_real **read)
{
  unroll_status st = UNROLL_OK;
  const comm_team *team = t->stepper->team;
  run *r = t->run;
  const size_t n = r->params->n, size = sizeof **read;
  size_t begin = 0, end = 0;

  comm_team_owned_range(team, n, KERNELS_NORM_BLOCK, &begin, &end);
  for (size_t i = 0; i <= r->n_moments; ++i) {
    UNROLL_TRY(comm_scatter_ranges(t->comm, read[i], n * size, begin * size, end * size,
                                   *array_of(r, i) + begin));
    memory_free(&read[i]);
  }
  UNROLL_TRY(comm_team_fence(team));

cleanup:
  return st;
}

/* This rank's part of the states of all sequences (states, L, B, H), where the run file has them. Collective. */
static unroll_status restore_state(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const run *r = t->run;
  const size_t vectors = params_state_vectors(r->params);
  const size_t row = r->params->shape.H * sizeof *t->carried; /* [bytes] */
  const size_t all = (size_t)r->config.batch * row, mine = t->count * row, first = t->first * row;
  const char *from = (const char *)r->state.hidden; /* NULL but on rank 0 */

  UNROLL_TRY(comm_agree(t->comm, memory_new(network_state_size_of(r->params, t->count),
                                            sizeof *t->carried, "hidden states", &t->carried)));
  if (r->state.n_hidden == 0) { goto cleanup; }
  for (size_t i = 0; i < vectors; ++i) {
    UNROLL_TRY(comm_scatter_ranges(t->comm, from != NULL ? from + i * all : NULL, all, first,
                                   first + mine, (char *)t->carried + i * mine));
  }
  network_set_state(t->stepper->net, t->carried);

cleanup:
  return st;
}

static void note_progress(trainer *t)
{
  const run *r = t->run;
  unroll_progress *p = &t->progress;
  p->V = unroll_vocab_size(r->vocab);
  p->parameters = r->params->n_real;
  p->train_tokens = r->provenance.train_tokens;
  p->valid_tokens = r->provenance.valid_tokens;
  p->unknown_tokens = r->provenance.unknown_tokens;
  p->windows = t->pieces.per_epoch;
  p->resumed_step = t->resumed_step;
  p->shards = r->config.shards;
}

unroll_status trainer_read(trainer *t, const unroll_config *config, size_t n_texts,
                           const char *const *texts, bool *resumed)
{
  unroll_status st = UNROLL_OK;
  unroll_comm *comm = t->comm;
  const bool root = unroll_comm_rank(comm) == 0;

  UNROLL_TRY(comm_agree(comm, kernels_start()));
  UNROLL_TRY(comm_agree(comm, open_run(t, config, resumed)));
  watchdog_set_limit(
      (double)t->run->config.wait_limit.count); /* of the run file, where it was not given */
  const uint64_t rank = (uint64_t)unroll_comm_rank(comm) % t->ranks;
  UNROLL_TRY(comm_agree(
      comm, step_owned_sequences(t->ranks, rank, &t->run->config, &t->first, &t->count)));
  bool may_exist = t->run->config.overwrite || *resumed;
  UNROLL_TRY(
      comm_agree(comm, root ? runfile_check_output(t->run->config.out, may_exist) : UNROLL_OK));
  const uint64_t before = memory_live_bytes();
  UNROLL_TRY(comm_agree(comm, read_text(t, n_texts, texts, *resumed)));
  t->text_held = memory_live_bytes() - before;
  UNROLL_TRY(comm_agree(comm, *resumed ? UNROLL_OK : new_model(t->run)));
  if (*resumed) { t->resumed_step = t->run->state.step; }

cleanup:
  return st;
}

unroll_status trainer_new(unroll_comm *comm, const unroll_config *config, size_t n_texts,
                          const char *const *texts, const char *command,
                          const unroll_observer *observer, trainer **out)
{
  unroll_status st = UNROLL_OK;
  trainer *t = NULL;
  placement *where = NULL;
  unroll_real *read[MOST_ARRAYS] = {NULL}; /* parameters and moments of the run file; rank 0 */
  bool resumed = false, root = unroll_comm_rank(comm) == 0;

  UNROLL_TRY(memory_new(1, sizeof *t, "trainer", &t));
  t->comm = comm;
  t->ranks = (size_t)unroll_comm_size(comm);
  t->observer = root ? observer : NULL;
  if (observer != NULL) {
    UNROLL_TRY(watchdog_start(comm, WATCHDOG_WARN_AFTER, (double)config->wait_limit.count,
                              observer->stuck, observer->context));
  }
  UNROLL_TRY(placement_new(comm, &where));
  UNROLL_TRY(trainer_read(t, config, n_texts, texts, &resumed));
  UNROLL_TRY(comm_agree(comm, resumed && root ? put_aside(t->run, read) : UNROLL_OK));
  UNROLL_TRY(step_new(comm, &t->run->config, t->ranks, t->pieces.longest, t->run->params,
                      t->run->moments, &t->stepper));
  UNROLL_TRY(resumed ? deal_model(t, read) : start_model(t));
  network_pack(t->stepper->net);
  UNROLL_TRY(restore_state(t));
  UNROLL_TRY(comm_agree(comm, diagnose_check(t)));
  UNROLL_TRY(comm_agree(comm, root ? note_place(t, command, resumed, where) : UNROLL_OK));
  UNROLL_TRY(comm_agree(comm, root ? runlog_start(t->run->config.out, t->run) : UNROLL_OK));

  t->has_checkpoint = resumed;
  t->started = clock_seconds() - t->run->state.seconds;
  t->next_checkpoint = clock_seconds() + (double)t->run->config.checkpoint_every.count;
  note_progress(t);
  *out = t;
  t = NULL;

cleanup:
  for (size_t i = 0; i < MOST_ARRAYS; ++i) { memory_free(&read[i]); }
  placement_free(&where);
  trainer_free(&t);
  return st;
}

void trainer_free(trainer **p)
{
  trainer *t = *p;
  if (t == NULL) { return; }
  watchdog_stop(); /* before the memory of the team, which it reads */
  memory_free(&t->carried);
  step_free(&t->stepper);
  text_source_free(&t->valid);
  text_source_free(&t->train);
  run_free(&t->run);
  memory_free(p);
}
