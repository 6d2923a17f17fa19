#include "base/check.h"
#include "base/clock.h"
#include "comm/signals.h"
#include "comm/watchdog.h"
#include "kernels/shard_tree.h"
#include "net/score.h"
#include "train/diagnose.h"
#include "train/schedule.h"
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* ------------------------------------------------------------- one step */

/* x and y of steps [first, first + T) of the piece, of this rank's sequences. */
static void fill_piece(void *context, size_t first, size_t T, int32_t *x, int32_t *y)
{
  const trainer *t = context;
  const piece *p = &t->piece;
  text_source_fill(t->train, p->epoch, p->batch, p->start + first, T, x, y);
}

/* What a step learns of all ranks. */
typedef struct outcome {
  double loss; /* [nats per token] of the global batch */
  double norm; /* of the global mean gradient, before clipping */
  bool stop, checkpoint;
} outcome;

/* Gradient and loss over all ranks; the wish to stop, and rank 0's clock, travel with them. */
static unroll_status sum_over_ranks(trainer *t, outcome *out)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  bool due = config->checkpoint_every.unit == UNROLL_EVERY_SECONDS &&
             config->checkpoint_every.count > 0 && unroll_comm_rank(t->comm) == 0 &&
             clock_seconds() >= t->next_checkpoint;
  double wishes[2] = {signals_pending() != 0, due};

  UNROLL_TRY(step_sum(t->stepper, &t->piece, &out->loss, 2, wishes));
  out->stop = wishes[0] > 0.0;
  out->checkpoint = wishes[1] > 0.0;

cleanup:
  return st;
}

/* Clip and update, unless loss or norm is not finite: then the update is skipped and counted. */
static unroll_status apply(trainer *t, const outcome *out)
{
  const unroll_config *config = &t->run->config;
  run_state *state = &t->run->state;
  double rate =
      schedule_rate(config, state->step, t->pieces.updates, state->epoch, state->lr_factor);

  t->progress.learning_rate = rate; /* of a skipped update too */
  if (!isfinite(out->loss) || !isfinite(out->norm)) {
    state->skipped += 1;
    state->skipped_in_row += 1;
    network_reset(t->stepper->net); /* the state may hold what was not finite */
    if (state->skipped_in_row < config->max_skips) { return UNROLL_OK; }
    return unroll_fail(UNROLL_ERR_DIVERGED,
                       "step %" PRIu64 ": %" PRIu64
                       " updates in a row had a loss or gradient that is not finite; %s%s; lower "
                       "--lr or --clip",
                       state->step + 1, state->skipped_in_row,
                       t->has_checkpoint ? "the last good checkpoint is "
                                         : "no checkpoint was written before",
                       t->has_checkpoint ? config->out : "");
  }
  state->skipped_in_row = 0;
  state->updates += 1;
  double scale = 1.0;
  unroll_status st = step_update(t->stepper, out->norm, rate, state->updates, &scale);
  if (st == UNROLL_OK) { record_step(t, out->loss, out->norm, scale); }
  return st;
}

/* window -> forward -> backward -> sum over ranks -> clip -> update -> record */
static unroll_status step(trainer *t, outcome *out)
{
  unroll_status st = UNROLL_OK;
  run_state *state = &t->run->state;
  step_times *times = &t->stepper->times;
  const token_source source = {fill_piece, t};
  const piece *p = &t->piece;
  double before = clock_seconds();

  UNROLL_TRY(piece_next(t->comm, &t->run->config, t->train, state, &t->piece));
  step_forward(t->stepper, p, source);
  UNROLL_TRY(step_backward(t->stepper, p, source));
  UNROLL_TRY(sum_over_ranks(t, out));
  UNROLL_TRY(step_norm(t->stepper, &out->norm));
  UNROLL_TRY(apply(t, out));

  state->step += 1;
  state->tokens += (uint64_t)p->tokens;
  piece_done(p, state);
  times->total += clock_seconds() - before;
  times->steps += 1;
  times->tokens += (uint64_t)p->tokens;

cleanup:
  return st;
}

/* ---------------------------------------------------------- the whole run */

/* Loss on the validation text: the same on every rank. The training state is put aside meanwhile. */
static unroll_status validate(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  network *net = t->stepper->net;
  double *sums = t->stepper->shard_sums;

  watchdog_phase("validation");
  network_get_state(net, t->carried);
  score_text(net, t->valid, (score_listener){0}, sums);
  network_set_state(net, t->carried);

  double sum = shard_tree_sum(net->size.shards, net->size.group, sums);
  UNROLL_TRY(comm_tree_sum(t->comm, &sum, 1));
  double loss = sum / (double)t->valid->total;
  bool best = schedule_validated(config, loss, &t->run->state);
  UNROLL_TRY(record_validation(t, loss));
  if (best) { UNROLL_TRY(record_best(t)); }

cleanup:
  return st;
}

/* Does something that happens every so many steps happen now? */
static bool due(unroll_every every, uint64_t step)
{
  return every.unit == UNROLL_EVERY_STEPS && every.count > 0 && step % every.count == 0;
}

/* Why the loop ended, in a few words; of a run that had ended before too. */
static const char *why_ended(const trainer *t)
{
  const run_state *state = &t->run->state;
  return state->step == t->pieces.updates ? "all epochs done"
         : state->finished                ? "the validation loss no longer falls"
                                          : "--max-steps reached";
}

/* Steps until the run ends by itself, or a signal ends it. */
static unroll_status loop(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  run_state *state = &t->run->state;
  uint64_t last = config->max_steps > 0 && config->max_steps < t->pieces.updates
                      ? config->max_steps
                      : t->pieces.updates;

  while (state->step < last && !state->finished) {
    outcome out = {0};
    UNROLL_TRY(step(t, &out));
    watchdog_step(state->step);
    record_tell(t, UNROLL_EVENT_STEP, NULL);

    if (state->step % config->log_every == 0 || state->step == t->pieces.updates) {
      UNROLL_TRY(record_interval(t));
    }
    if (due(config->diagnose_every, state->step)) { UNROLL_TRY(diagnose(t)); }
    if (t->valid != NULL &&
        (config->valid_every.count == 0 ? t->piece.ends_epoch || state->step == t->pieces.updates
                                        : due(config->valid_every, state->step))) {
      UNROLL_TRY(validate(t));
      if (schedule_stops_early(config, state)) { state->finished = 1; }
    }
    if (state->step == t->pieces.updates) { state->finished = 1; }
    bool ends = state->finished || state->step == last;
    /* Weights that give no finite loss must not replace a good checkpoint; a stop needs them all the same. */
    bool good = state->skipped_in_row == 0;
    if (ends || out.stop ||
        (good && (out.checkpoint || due(config->checkpoint_every, state->step)))) {
      UNROLL_TRY(record_checkpoint(t));
    }
    if (out.stop && !ends) {
      UNROLL_TRY(comm_agree(t->comm, t->saved));
      st = unroll_fail(UNROLL_STOPPED,
                       "stopped on a signal at step %" PRIu64
                       ", checkpoint in %s; the same command with --resume goes on",
                       state->step, config->out);
      goto cleanup;
    }
  }
  record_tell(t, UNROLL_EVENT_END, why_ended(t));
  UNROLL_TRY(
      comm_agree(t->comm, t->saved)); /* the exit status tells when the last checkpoint failed */

cleanup:
  return st;
}

unroll_status unroll_train(unroll_comm *comm, const unroll_config *config, size_t n_texts,
                           const char *const *texts, const char *command,
                           const unroll_observer *observer)
{
  unroll_status st = UNROLL_OK;
  trainer *t = NULL;

  if (config->dry_run) {
    st = unroll_fail(UNROLL_ERR_ARG, "--dry-run trains nothing; legal is unroll_plan_make");
    goto cleanup;
  }
  UNROLL_TRY(trainer_new(comm, config, n_texts, texts, command, observer, &t));
  record_tell(t, UNROLL_EVENT_START, NULL);
  UNROLL_TRY(loop(t));

cleanup:
  trainer_free(&t);
  return st;
}
