#include "base/check.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/presets.h"
#include "base/sha256.h"
#include "comm/placement.h"
#include "comm/watchdog.h"
#include "data/corpus.h"
#include "kernels/dispatch.h"
#include "kernels/kernels.h"
#include "runfile/own.h"
#include "train/diagnose.h"
#include "train/optimizer.h"
#include "train/trainer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* -------------------------------------------------------------------- notes */

/* Remember a line for when training begins: until then input may yet be refused, in one line. Of rank 0. */
static void trainer_note(trainer *t, unroll_event event, const char *format, ...)
{
  trainer_line *note = &t->notes[t->n_notes];
  va_list values;

  if (t->n_notes == TRAINER_NOTES || unroll_comm_rank(t->comm) != 0) { return; }
  note->event = event;
  va_start(values, format);
  (void)vsnprintf(note->text, sizeof note->text, format, values);
  va_end(values);
  t->n_notes += 1;
}

/* ------------------------------------------------------------------ options */

/* The name of the validation text may change, but not whether there is one. */
static unroll_status check_valid(const unroll_config *config, const unroll_config *before)
{
  if ((config->valid[0] == '\0') == (before->valid[0] == '\0')) { return UNROLL_OK; }
  return unroll_fail(UNROLL_ERR_ARG,
                     "--valid \"%s\": the run to resume has %s, and this option shapes the result; "
                     "leave it out, or start a new run with another --out",
                     config->valid, before->valid[0] != '\0' ? before->valid : "none");
}

/* What --change gives another value from here on: the run goes on, and rank 0 has it on record. */
static unroll_status take_changes(trainer *t, const unroll_config *now)
{
  run *r = t->run;
  char line[1024];
  const int begin = snprintf(line, sizeof line, "step %" PRIu64 ": ", r->state.step);
  size_t n = (size_t)begin;

  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &config_table.rows[k];
    char from[64], to[64];
    if (!row->with_change || options_equal(row, &r->config, now)) { continue; }
    options_format(row, &r->config, sizeof from, from);
    options_format(row, now, sizeof to, to);
    n += (size_t)snprintf(line + n, sizeof line - n, "%s%s %s -> %s", t->changed ? ", " : "",
                          row->name, from, to);
    assert(n < sizeof line); /* of few options that are numbers and choices */
    t->changed = true;
  }
  if (!t->changed) { return UNROLL_OK; }
  r->state.finished = 0;
  return unroll_comm_rank(t->comm) == 0 ? run_add_change(r, line) : UNROLL_OK;
}

/* A changed run needs updates to come. */
static unroll_status check_changes(const trainer *t)
{
  const run *r = t->run;
  if (!t->changed || t->pieces.updates > r->state.step) { return UNROLL_OK; }
  return unroll_fail(UNROLL_ERR_ARG,
                     "--change: %s stands after step %" PRIu64 ", and with --epochs %" PRIu64
                     " the run ends after step %" PRIu64 "; legal is a larger --epochs",
                     r->config.out, r->state.step, r->config.epochs, t->pieces.updates);
}

/* Vocabulary, weights and options of the model from the run file of --init-from, into an empty run. Collective. */
static unroll_status take_model(trainer *t, unroll_config *config)
{
  unroll_status st = UNROLL_OK;
  run *from = NULL, *r = t->run;
  char hash[SHA256_TEXT];
  const bool root = unroll_comm_rank(t->comm) == 0;

  UNROLL_TRY(runfile_load(t->comm, config->init_from, &from));
  UNROLL_TRY(config_init_from(config, &from->config));
  UNROLL_TRY(comm_agree(t->comm, root ? sha256_file(config->init_from, hash) : UNROLL_OK));
  if (root) {
    UNROLL_TRY(memory_string(config->init_from, &r->provenance.init_file));
    UNROLL_TRY(memory_string(hash, &r->provenance.init_sha256));
  }
  if (from->state.averaged > 0) { run_swap_average(from); } /* the model is their average */
  r->vocab = from->vocab;
  r->params = from->params;
  from->vocab = NULL;
  from->params = NULL;

cleanup:
  run_free(&from);
  return st;
}

/* The run file to go on from, or an empty run, but for given weights: t->run with the options as resolved. */
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
    UNROLL_TRY(check_valid(&config, &t->run->config));
  } else {
    UNROLL_TRY(run_new(&t->run));
    if (config.init_from[0] != '\0') { UNROLL_TRY(take_model(t, &config)); }
  }
  UNROLL_TRY(unroll_config_resolve(&config));
  if (*resumed) { UNROLL_TRY(take_changes(t, &config)); }
  t->run->config = config;

cleanup:
  return st;
}

/* Rank 0: what can be said of the output before the text is looked at. */
static unroll_status check_output(const unroll_config *config, bool resumed)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(runfile_check_output(config->out, config->overwrite || resumed));
  if (!config->overwrite && !config->resume) {
    UNROLL_TRY(runfile_check_free(config->out, (size_t)config->keep));
  }

cleanup:
  return st;
}

/* --------------------------------------------------------------------- text */

/* A name that the run file has: it may be relative to the folder of that file, if not to this one. *found is owned. */
static unroll_status find_text(const char *out, const char *name, char **found)
{
  unroll_status st = UNROLL_OK;
  const char *slash = strrchr(out, '/');
  const size_t folder = slash == NULL ? 0 : (size_t)(slash - out) + 1;
  char *there = NULL;

  UNROLL_TRY(memory_new(folder + strlen(name) + 1, 1, "the name of a text", &there));
  memcpy(there, out, folder);
  (void)strcpy(there + folder, name);
  const bool moved = name[0] != '/' && access(name, F_OK) != 0 && access(there, F_OK) == 0;
  UNROLL_TRY(memory_string(moved ? there : name, found));

cleanup:
  memory_free(&there);
  return st;
}

/* The texts of this run: the operands or, on resume without any, those of the run file (rank 0 knows). */
static unroll_status open_texts(trainer *t, size_t n_texts, const char *const *texts, bool resumed,
                                corpus **train, corpus **valid)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  const run_provenance *before = &t->run->provenance;
  const corpus_own own = {own_is, config->out};
  char **found = NULL, *valid_path = NULL;
  size_t n_found = 0;

  if (config->valid[0] != '\0') {
    st = resumed ? find_text(config->out, config->valid, &valid_path)
                 : memory_string(config->valid, &valid_path);
    UNROLL_TRY(comm_agree(t->comm, st));
    UNROLL_TRY(
        corpus_open(t->comm, config->level, 1, (const char *const *)&valid_path, &own, valid));
  }
  if (n_texts == 0) {
    const size_t of_valid = *valid != NULL ? corpus_files(*valid) : 0;
    n_found = before->n_files > of_valid ? before->n_files - of_valid : 0;
    st = memory_new(n_found, sizeof *found, "names of texts", &found);
    for (size_t i = 0; i < n_found && st == UNROLL_OK; ++i) {
      st = find_text(config->out, before->file_name[i], &found[i]);
    }
    UNROLL_TRY(comm_agree(t->comm, st));
    n_texts = n_found;
    texts = (const char *const *)found;
  }
  UNROLL_TRY(corpus_open(t->comm, config->level, n_texts, texts, &own, train));

cleanup:
  for (size_t i = 0; i < n_found && found != NULL; ++i) { memory_free(&found[i]); }
  memory_free(&found);
  memory_free(&valid_path);
  return st;
}

/* File i of the run: those of the training text, then those of the validation text. */
static const char *file_name(const corpus *train, const corpus *valid, size_t i)
{
  const size_t of_train = corpus_files(train);
  return i < of_train ? corpus_file_name(train, i) : corpus_file_name(valid, i - of_train);
}

/* The same texts may lie elsewhere now: the run file names where they were found last. Rank 0. */
static unroll_status note_moves(trainer *t, const corpus *train, const corpus *valid)
{
  unroll_status st = UNROLL_OK;
  run_provenance *p = &t->run->provenance;

  for (size_t i = 0; i < p->n_files; ++i) {
    const char *name = file_name(train, valid, i);
    if (strcmp(name, p->file_name[i]) == 0) { continue; }
    trainer_note(t, UNROLL_EVENT_NOTE, "%s, which was %s, has the same content", name,
                 p->file_name[i]);
    memory_free(&p->file_name[i]);
    UNROLL_TRY(memory_string(name, &p->file_name[i]));
  }

cleanup:
  return st;
}

/* Note names, sizes and hashes of the files; on resume their content must be what it was, wherever they are. */
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
      if (strcmp(hashes[i], p->file_sha256[i]) != 0) {
        st = unroll_fail(UNROLL_ERR_INPUT,
                         "%s: not the text that %s was trained on; --resume needs the same files",
                         file_name(train, valid, i), t->run->config.out);
        goto cleanup;
      }
    }
    st = note_moves(t, train, valid);
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

/* Rank 0: nothing that the run reads is among what it writes. */
static unroll_status check_apart(const unroll_config *config, const corpus *train,
                                 const corpus *valid, bool resumed)
{
  unroll_status st = UNROLL_OK;
  size_t n = corpus_files(train) + (valid != NULL ? corpus_files(valid) : 0);
  const char **names = NULL;

  UNROLL_TRY(memory_new(n + 1, sizeof *names, "names of files", &names));
  for (size_t i = 0; i < n; ++i) { names[i] = file_name(train, valid, i); }
  if (!resumed && config->init_from[0] != '\0') { names[n++] = config->init_from; }
  UNROLL_TRY(runfile_check_apart(config->out, (size_t)config->keep, n, names));

cleanup:
  memory_free(&names);
  return st;
}

/* The same files in the same order may still be shared out otherwise to training and validation. Rank 0. */
static unroll_status check_tokens(const run_provenance *before, const corpus_part *train,
                                  const corpus_part *valid, const char *out)
{
  if (train->tokens == before->train_tokens && valid->tokens == before->valid_tokens) {
    return UNROLL_OK;
  }
  return unroll_fail(UNROLL_ERR_INPUT,
                     "%s: tokens for training and validation of the run: %" PRIu64 " and %" PRIu64
                     ", of this call: %" PRIu64 " and %" PRIu64 "; --resume needs the same",
                     out, before->train_tokens, before->valid_tokens, train->tokens, valid->tokens);
}

/* Words of the text that read like names of tokens. */
static void note_words(trainer *t, uint64_t unk, uint64_t eos)
{
  if (unk > 0) {
    trainer_note(t, UNROLL_EVENT_NOTE, "%" PRIu64 " of its words are <unk>: unknown tokens", unk);
  }
  if (eos > 0) {
    trainer_note(t, UNROLL_EVENT_NOTE,
                 "%" PRIu64 " of its words are <eos>: a word, named \\x3ceos>; line ends alone are "
                 "the token <eos>",
                 eos);
  }
}

/* What was found at the borders of its files. */
static void note_edges(trainer *t, const corpus *c)
{
  const corpus_notes n = corpus_noted(c);
  char more[64] = "";

  if (n.marks > 1) { (void)snprintf(more, sizeof more, " and %" PRIu64 " more", n.marks - 1); }
  if (n.marks > 0) {
    trainer_note(t, UNROLL_EVENT_NOTE,
                 "%s%s: the byte order mark at the beginning is no part of it",
                 corpus_file_name(c, n.first_mark), more);
  }
  more[0] = '\0';
  if (n.returns > 1) { (void)snprintf(more, sizeof more, " and %" PRIu64 " more", n.returns - 1); }
  if (n.returns > 0) {
    trainer_note(
        t, UNROLL_EVENT_WARNING,
        "%s%s: lines end in CR alone, which ends no line here; tr '\\r' '\\n' makes them lines",
        corpus_file_name(c, n.first_return), more);
  }
}

/* A text that is hardly read as was meant. */
static void note_reading(trainer *t, const corpus_part *part, const char *what)
{
  const unroll_config *config = &t->run->config;
  if (part->tokens > 0 && part->unknown > part->tokens / 2) {
    trainer_note(t, UNROLL_EVENT_WARNING,
                 "%" PRIu64 " of %" PRIu64
                 " tokens of the %s text are <unk>: more of the text is in the "
                 "vocabulary with a lower --min-count, a higher --max-vocab or --level char",
                 part->unknown, part->tokens, what);
  }
  if (config->level == UNROLL_LEVEL_WORD && part->characters > CORPUS_LONG_WORD * part->tokens) {
    trainer_note(t, UNROLL_EVENT_WARNING,
                 "%" PRIu64 " words in %" PRIu64 " characters of the %s text: it seems to have no "
                 "white space between words; --level char reads any text",
                 part->tokens, part->characters, what);
  }
}

/* Which sequences are this rank's, once the size of the batch is known. */
static unroll_status own_sequences(trainer *t)
{
  const uint64_t rank = (uint64_t)unroll_comm_rank(t->comm) % t->ranks;
  return step_owned_sequences(t->ranks, rank, &t->run->config, &t->first, &t->count);
}

/* What nobody has chosen and the size of the text decides, the same on every rank. */
static unroll_status fit_options(trainer *t, uint64_t tokens)
{
  unroll_status st = UNROLL_OK;
  unroll_config *config = &t->run->config;
  const bool epochs = config->epochs == 0;
  char more[64] = "";

  if (config->batch != 0) { return UNROLL_OK; }
  config_fit(config, tokens);
  UNROLL_TRY(unroll_config_resolve(config));
  UNROLL_TRY(own_sequences(t));
  if (epochs) { (void)snprintf(more, sizeof more, ", --epochs %" PRIu64, config->epochs); }
  trainer_note(t, UNROLL_EVENT_NOTE, "for its size the default is --batch %" PRIu64 "%s",
               config->batch, more);

cleanup:
  return st;
}

/* Text -> vocabulary -> this rank's part of it -> pieces. */
static unroll_status read_text(trainer *t, size_t n_texts, const char *const *texts, bool resumed)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  const unroll_text_rules rules = {
      .level = config->level, .lowercase = config->lowercase, .letters = config->letters};
  const bool root = unroll_comm_rank(t->comm) == 0;
  corpus *text = NULL, *other = NULL;
  corpus_part train = {0}, valid = {0}, none = {0};
  run_provenance *p = &t->run->provenance;
  text_cut cut = {0};

  UNROLL_TRY(open_texts(t, n_texts, texts, resumed, &text, &other));
  UNROLL_TRY(comm_agree(t->comm, root ? check_apart(config, text, other, resumed) : UNROLL_OK));
  UNROLL_TRY(comm_agree(t->comm, note_files(t, text, other, resumed)));
  UNROLL_TRY(
      comm_agree(t->comm, root && config->resume ? runfile_check_own(t->run, resumed) : UNROLL_OK));
  UNROLL_TRY(
      comm_agree(t->comm, corpus_split(text, rules, other == NULL ? config->valid_fraction : 0.0,
                                       &train, &valid)));
  if (other != NULL) {
    UNROLL_TRY(comm_agree(t->comm, corpus_split(other, rules, 0.0, &valid, &none)));
  }
  if (t->run->vocab == NULL) {
    const bool learned = config->level == UNROLL_LEVEL_BPE;
    UNROLL_TRY(vocab_build(t->comm, text, &train, rules, config->min_count,
                           learned ? config->vocab_size : config->max_vocab, &t->run->vocab));
  } else {
    UNROLL_TRY(corpus_count(t->comm, text, t->run->vocab, &train));
  }
  UNROLL_TRY(comm_agree(t->comm, fit_options(t, train.tokens)));
  cut = (text_cut){.kind = config->sequences,
                   .partition = config->partition,
                   .seed = config->seed,
                   .window = config->bptt == UNROLL_BPTT_TRUNCATED ? (size_t)config->steps : 0,
                   .B = (size_t)config->batch,
                   .first = t->first,
                   .count = t->count,
                   .ranks = t->ranks,
                   .what = "training"};
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
  UNROLL_TRY(comm_agree(t->comm, resumed && unroll_comm_rank(t->comm) == 0
                                     ? check_tokens(p, &train, &valid, config->out)
                                     : UNROLL_OK));
  p->train_tokens = train.tokens;
  p->train_characters = train.characters;
  p->valid_tokens = valid.tokens;
  p->valid_characters = valid.characters;
  p->unknown_tokens = train.unknown + valid.unknown;
  p->valid_unknown_tokens = t->valid != NULL ? t->valid->unknown : 0;
  note_edges(t, text);
  if (other != NULL) { note_edges(t, other); }
  note_reading(t, &train, "training");
  note_reading(t, &valid, "validation");
  note_words(t, train.unk_words + valid.unk_words, train.eos_words + valid.eos_words);
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

/* Parameters, unless they are given, and moments of a new run, zero: start_model sets them where they will live. */
static unroll_status new_model(run *r)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &r->config;
  const unroll_shape shape = params_shape(config, unroll_vocab_size(r->vocab));
  if (r->params == NULL) { UNROLL_TRY(unroll_params_new(&shape, &r->params)); }
  for (size_t i = 0; i < run_moments(config); ++i) {
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
#define MOST_ARRAYS (1 + RUN_MOMENTS)

static unroll_real **array_of(run *r, size_t i)
{
  return i == 0 ? &r->params->values : &r->moments[i - 1];
}

/* Of them a run file had the first so many: all of a run to go on with, the parameters of --init-from. */
static size_t arrays_read(const run *r, bool resumed)
{
  return resumed ? 1 + r->n_moments : r->config.init_from[0] != '\0' ? 1 : 0;
}

/* Rank 0: put aside n arrays that it has read of a run file, zeros in their place as the others have. */
static unroll_status put_aside(run *r, size_t n, unroll_real **read)
{
  unroll_status st = UNROLL_OK;
  for (size_t i = 0; i < n; ++i) {
    read[i] = *array_of(r, i);
    *array_of(r, i) = NULL;
    UNROLL_TRY(memory_new(r->params->n, sizeof **read, "parameters", array_of(r, i)));
  }

cleanup:
  return st;
}

/* Those n arrays, from rank 0 into the memory of the teams. Collective. */
static unroll_status deal_model(trainer *t, size_t n_read, unroll_real **read)
{
  unroll_status st = UNROLL_OK;
  const comm_team *team = t->stepper->team;
  run *r = t->run;
  const size_t n = r->params->n, size = sizeof **read;
  size_t begin = 0, end = 0;

  comm_team_owned_range(team, n, KERNELS_NORM_BLOCK, &begin, &end);
  for (size_t i = 0; i < n_read; ++i) {
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

/* Shards that nobody chose, and far fewer than another batch of about that size would have. */
static void note_shards(trainer *t)
{
  const uint64_t batch = t->run->config.batch, shards = t->run->config.shards;
  uint64_t power = 1;
  while (2 * power <= batch) { power *= 2; }
  const uint64_t most = config_shards(power);
  if (4 * shards > most) { return; }
  const uint64_t below = batch / most * most, above = below + most;
  const uint64_t better = batch - below < above - batch ? below : above;
  trainer_note(t, UNROLL_EVENT_WARNING,
               "--batch %" PRIu64 " makes %" PRIu64 " shard%s, so that no more than %" PRIu64
               " rank%s can share it; --batch %" PRIu64 " makes %" PRIu64,
               batch, shards, shards == 1 ? "" : "s", shards, shards == 1 ? "" : "s", better,
               config_shards(better));
}

/* --resume without a text, as that of the run file is meant: there must be one. */
static unroll_status check_resumed(const unroll_config *config, size_t n_texts, bool resumed)
{
  if (!config->resume || resumed || n_texts > 0) { return UNROLL_OK; }
  return unroll_fail(UNROLL_ERR_INPUT,
                     "%s: no such run file to go on from, and without a text no run can begin",
                     config->out);
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
  if (t->changed && r->provenance.n_changed > 0) {
    p->changed = r->provenance.changed[r->provenance.n_changed - 1];
  }
  p->shards = r->config.shards;
  if (r->config.preset != UNROLL_PRESET_OFF) {
    presets_describe(&r->config, sizeof t->preset, t->preset);
    p->preset = t->preset;
  }
}

unroll_status trainer_read(trainer *t, const unroll_config *config, size_t n_texts,
                           const char *const *texts, bool *resumed)
{
  unroll_status st = UNROLL_OK;
  unroll_comm *comm = t->comm;
  const bool root = unroll_comm_rank(comm) == 0;

  UNROLL_TRY(comm_agree(comm, kernels_start()));
  UNROLL_TRY(comm_agree(comm, open_run(t, config, resumed)));
  UNROLL_TRY(check_resumed(config, n_texts, *resumed));
  watchdog_set_limit(
      (double)t->run->config.wait_limit.count); /* of the run file, where it was not given */
  if (t->run->config.batch != 0) {              /* before the text is read */
    UNROLL_TRY(comm_agree(comm, own_sequences(t)));
    if (!*resumed && config->shards == 0) { note_shards(t); }
  }
  UNROLL_TRY(comm_agree(comm, root ? check_output(&t->run->config, *resumed) : UNROLL_OK));
  const uint64_t before = memory_live_bytes();
  UNROLL_TRY(comm_agree(comm, read_text(t, n_texts, texts, *resumed)));
  t->text_held = memory_live_bytes() - before;
  UNROLL_TRY(comm_agree(comm, check_changes(t)));
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
  unroll_real *read[MOST_ARRAYS] = {NULL}; /* parameters and moments of a run file; rank 0 */
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
  /* Before anything is read that another run may be writing, and before the text is listed. */
  UNROLL_TRY(comm_agree(comm, root ? claim_take(config->out, &t->claim) : UNROLL_OK));
  UNROLL_TRY(trainer_read(t, config, n_texts, texts, &resumed));
  const size_t n_read = arrays_read(t->run, resumed);
  UNROLL_TRY(comm_agree(comm, root ? put_aside(t->run, n_read, read) : UNROLL_OK));
  UNROLL_TRY(step_new(comm, &t->run->config, t->ranks, t->pieces.longest, t->run->params,
                      t->run->moments, &t->stepper));
  UNROLL_TRY(n_read > 0 ? deal_model(t, n_read, read) : start_model(t));
  network_pack(t->stepper->net);
  UNROLL_TRY(restore_state(t));
  UNROLL_TRY(comm_agree(comm, diagnose_check(t)));
  UNROLL_TRY(comm_agree(comm, root ? note_place(t, command, resumed, where) : UNROLL_OK));
  UNROLL_TRY(comm_agree(comm, root ? runlog_start(t->run->config.out, t->pieces.last, t->run)
                                   : UNROLL_OK));

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
  claim_free(&t->claim);
  memory_free(p);
}
