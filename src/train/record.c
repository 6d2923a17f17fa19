#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "comm/watchdog.h"
#include "runfile/keep.h"
#include "runfile/save.h"
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool is_root(const trainer *t)
{
  return unroll_comm_rank(t->comm) == 0;
}

static double elapsed(const trainer *t)
{
  return clock_seconds() - t->started;
}

/* ------------------------------------------------------------- the observer */

void record_notify(trainer *t, unroll_event event, const char *text)
{
  const run *r = t->run;
  const run_state *state = &r->state;
  unroll_progress *p = &t->progress;
  if (t->observer == NULL || t->observer->tell == NULL) { return; }

  p->event = event;
  p->text = text;
  p->step = state->step;
  p->steps = t->pieces.last;
  p->epochs = r->config.epochs;
  /* The last step of an epoch is still told as its own. */
  p->epoch = state->epoch + (state->window > 0 || state->step == 0);
  p->tokens = state->tokens;
  p->seconds = elapsed(t);
  if (event == UNROLL_EVENT_STEP && state->interval_steps > 0) {
    p->loss = state->interval_loss / (double)state->interval_tokens;
    p->perplexity = exp(p->loss);
    p->grad_norm = state->interval_norm / (double)state->interval_steps;
    p->clip_scale = state->interval_scale / (double)state->interval_steps;
  }
  const step_times *times = &t->stepper->times;
  if (event == UNROLL_EVENT_STEP && times->total > 0.0) {
    p->tokens_per_second = (double)times->tokens / times->total;
  }
  if (p->tokens_per_second > 0.0 && p->steps > p->step && state->tokens > 0) {
    double per_step = (double)state->tokens / (double)state->step;
    p->seconds_left = (double)(p->steps - p->step) * per_step / p->tokens_per_second;
  } else {
    p->seconds_left = 0.0;
  }
  p->best_step = state->best_step;
  p->best_loss = state->best_loss;
  t->observer->tell(t->observer->context, p);
}

/* ------------------------------------------------------------------ metrics */

/* A failed line in the log beside the run file is a warning: the run file itself has the row. */
static void log_outcome(trainer *t, unroll_status st)
{
  if (st != UNROLL_OK) { record_notify(t, UNROLL_EVENT_WARNING, unroll_message()); }
}

void record_step(trainer *t, double loss, double norm, double scale)
{
  run_state *state = &t->run->state;
  const uint64_t tokens = (uint64_t)t->piece.tokens;
  state->interval_steps += 1;
  state->interval_tokens += tokens;
  state->interval_loss += loss * (double)tokens;
  state->interval_norm += norm;
  state->interval_scale += scale;
}

/* Seconds per step of an interval: mean and maximum over the ranks. */
static unroll_status reduce_times(trainer *t, run_train_row *row)
{
  unroll_status st = UNROLL_OK;
  const step_times *times = &t->stepper->times;
  double n = times->steps > 0 ? (double)times->steps : 1.0;
  double compute = times->total - times->exchange - times->wait;
  double mine[3] = {compute / n, times->exchange / n, times->wait / n};
  double mean[3] = {mine[0], mine[1], mine[2]}, most[3] = {mine[0], mine[1], mine[2]};
  double P = (double)unroll_comm_size(t->comm);

  UNROLL_TRY(comm_sum_double(t->comm, mean, 3));
  UNROLL_TRY(comm_max_double(t->comm, most, 3));
  row->compute_seconds = mean[0] / P;
  row->exchange_seconds = mean[1] / P;
  row->wait_seconds = mean[2] / P;
  row->compute_seconds_max = most[0];
  row->exchange_seconds_max = most[1];
  row->wait_seconds_max = most[2];

cleanup:
  return st;
}

unroll_status record_interval(trainer *t)
{
  unroll_status st = UNROLL_OK;
  run_state *state = &t->run->state;
  const unroll_config *config = &t->run->config;
  double n = (double)state->interval_steps;
  const step_times *times = &t->stepper->times;
  run_train_row row = {.step = state->step,
                       .loss = state->interval_loss / (double)state->interval_tokens,
                       .grad_norm = state->interval_norm / n,
                       .clip_scale = state->interval_scale / n,
                       .learning_rate = t->progress.learning_rate,
                       .tokens = state->tokens,
                       .seconds = elapsed(t),
                       .skipped = state->skipped};

  row.perplexity = exp(row.loss);
  row.tokens_per_second = times->total > 0.0 ? (double)times->tokens / times->total : 0.0;
  UNROLL_TRY(reduce_times(t, &row));
  if (is_root(t)) {
    UNROLL_TRY(run_add_train(t->run, &row));
    log_outcome(t, runlog_train(config->out, t->pieces.last, &row));
  }
  unroll_progress *p = &t->progress;
  p->loss = row.loss;
  p->perplexity = row.perplexity;
  p->grad_norm = row.grad_norm;
  p->clip_scale = row.clip_scale;
  p->tokens_per_second = row.tokens_per_second;
  p->compute_seconds = row.compute_seconds;
  p->exchange_seconds = row.exchange_seconds;
  p->wait_seconds = row.wait_seconds;
  record_notify(t, UNROLL_EVENT_REPORT, NULL);

  state->interval_steps = state->interval_tokens = 0;
  state->interval_loss = state->interval_norm = state->interval_scale = 0.0;
  t->stepper->times = (step_times){0};

cleanup:
  return st;
}

unroll_status record_validation(trainer *t, double loss)
{
  unroll_status st = UNROLL_OK;
  const run_valid_row row = {.step = t->run->state.step,
                             .loss = loss,
                             .perplexity = exp(loss),
                             .bits_per_character = loss * t->valid_tokens_per_character / LN2};
  if (is_root(t)) {
    UNROLL_TRY(run_add_valid(t->run, &row));
    log_outcome(t, runlog_valid(t->run->config.out, &row));
  }
  t->progress.valid_loss = row.loss;
  t->progress.valid_perplexity = row.perplexity;
  t->progress.valid_bits_per_character =
      t->run->provenance.valid_unknown_tokens == 0 ? row.bits_per_character : (double)NAN;
  record_notify(t, UNROLL_EVENT_VALID, NULL);

cleanup:
  return st;
}

/* --------------------------------------------------------------- checkpoints */

/* The carried state of all sequences (states, L, B, H) comes together on rank 0. */
static unroll_status gather_state(trainer *t)
{
  unroll_status st = UNROLL_OK;
  run *r = t->run;
  const size_t vectors = params_state_vectors(r->params);
  const size_t B = (size_t)r->config.batch, H = r->params->shape.H, mine = t->count * H;
  size_t P = (size_t)unroll_comm_size(t->comm);
  size_t *sizes = NULL;
  void *all = NULL;

  network_get_state(t->stepper->net, t->carried);
  UNROLL_TRY(
      comm_gather_bytes(t->comm, t->carried, vectors * mine * sizeof *t->carried, 0, &sizes, &all));
  if (is_root(t)) {
    if (r->state.hidden == NULL) {
      const size_t n = network_state_size_of(r->params, B);
      UNROLL_TRY(memory_new(n, sizeof *r->state.hidden, "hidden states", &r->state.hidden));
      r->state.n_hidden = n;
    }
    for (size_t rank = 0; rank < P; ++rank) {
      for (size_t i = 0; i < vectors; ++i) {
        memcpy(r->state.hidden + (i * B + rank * t->count) * H,
               (const unroll_real *)all + (rank * vectors + i) * mine, mine * sizeof *t->carried);
      }
    }
  }

cleanup:
  memory_free(&all);
  memory_free(&sizes);
  return st;
}

/* Rank 0: the run as it stands now, safe under a temporary name. */
static unroll_status prepare_now(trainer *t, const char *path, char **prepared)
{
  unroll_status st = UNROLL_OK;
  run_provenance *p = &t->run->provenance;
  char now[CLOCK_ISO_SIZE];

  UNROLL_TRY(claim_check(t->claim));
  clock_iso(now);
  memory_free(&p->written);
  UNROLL_TRY(memory_string(now, &p->written));
  t->run->state.seconds = elapsed(t);
  UNROLL_TRY(runfile_prepare(path, t->run, prepared));

cleanup:
  return st;
}

/* Rank 0: the run file. The older one is not touched before the new one is safe, and no failure to keep it
 * prevents the new one from taking its place. */
static unroll_status write_checkpoint(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  char *prepared = NULL;

  UNROLL_TRY(prepare_now(t, config->out, &prepared));
  if (!t->has_checkpoint) {
    if (config->overwrite || config->resume) { runfile_remove_old(t->run, t->has_best); }
  } else if (keep_older(config->out, (size_t)config->keep) != UNROLL_OK) {
    record_notify(t, UNROLL_EVENT_WARNING, unroll_message());
  }
  UNROLL_TRY(save_commit(config->out, &prepared));
  t->has_checkpoint = true;
  t->checkpoint_is_good = false;

cleanup:
  return st;
}

/* Rank 0: the best model's own file. */
static unroll_status write_best(trainer *t)
{
  unroll_status st = UNROLL_OK;
  char path[KEEP_NAME];
  char *prepared = NULL;

  keep_best_name(t->run->config.out, path);
  UNROLL_TRY(prepare_now(t, path, &prepared));
  UNROLL_TRY(save_commit(path, &prepared));
  t->has_best = true;

cleanup:
  return st;
}

unroll_status record_checkpoint(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;

  watchdog_phase("rank 0 writes a checkpoint");
  UNROLL_TRY(gather_state(t));
  if (is_root(t)) {
    t->saved = write_checkpoint(t);
    record_notify(t, t->saved == UNROLL_OK ? UNROLL_EVENT_CHECKPOINT : UNROLL_EVENT_WARNING,
                  t->saved == UNROLL_OK ? config->out : unroll_message());
  }
  t->next_checkpoint = clock_seconds() + (double)config->checkpoint_every.count;

cleanup:
  return st;
}

unroll_status record_best(trainer *t)
{
  unroll_status st = UNROLL_OK;

  watchdog_phase("rank 0 writes the best model");
  UNROLL_TRY(gather_state(t));
  if (is_root(t)) {
    t->best_saved = write_best(t);
    if (t->best_saved != UNROLL_OK) { record_notify(t, UNROLL_EVENT_WARNING, unroll_message()); }
  }

cleanup:
  return st;
}

void record_end(trainer *t, const char *why)
{
  const run *r = t->run;

  if (is_root(t) && t->saved == UNROLL_OK) { /* else no file has these weights */
    unroll_status st = runfile_hash_weights(r->params, t->progress.weights_sha256);
    if (st == UNROLL_OK) { st = runlog_end(r->config.out, &r->state, t->progress.weights_sha256); }
    log_outcome(t, st);
  }
  record_notify(t, UNROLL_EVENT_END, why);
}

unroll_status record_outcome(const trainer *t)
{
  char path[KEEP_NAME];

  if (t->saved != UNROLL_OK || t->best_saved == UNROLL_OK) { return t->saved; }
  keep_best_name(t->run->config.out, path);
  return unroll_fail(t->best_saved,
                     "%s: is not the best model, that of step %" PRIu64
                     ", which could not be written when it came",
                     path, t->run->state.best_step);
}
