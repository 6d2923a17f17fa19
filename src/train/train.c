#include "base/check.h"
#include "base/clock.h"
#include "comm/signals.h"
#include "comm/watchdog.h"
#include "kernels/shard_tree.h"
#include "net/params.h"
#include "net/score.h"
#include "train/average.h"
#include "train/diagnose.h"
#include "train/schedule.h"
#include "train/trainer.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* ------------------------------------------------------------- one step */

/* The flags that are summed over the ranks in a step. */
enum { STOP, CHECKPOINT };

/* A signal to stop, on any rank; a checkpoint that is due by rank 0's clock. */
static void set_flags(void *context, double *flags)
{
  const trainer *t = context;
  const unroll_every every = t->run->config.checkpoint_every;
  flags[STOP] = signals_pending() != 0;
  flags[CHECKPOINT] = every.unit == UNROLL_EVERY_SECONDS && every.count > 0 &&
                      unroll_comm_rank(t->comm) == 0 && clock_seconds() >= t->next_checkpoint;
}

#define SKIPPED                                                                                    \
  "step %" PRIu64 ": %" PRIu64 " updates in a row had a loss or gradient that is not finite; "

/* Count an update that was skipped, its loss or norm not finite: too many in a row end the run. */
static unroll_status skip(trainer *t)
{
  const unroll_config *config = &t->run->config;
  run_state *state = &t->run->state;
  const char *clip = config->clip > 0.0 ? "" : " 1"; /* there is none to be lowered */
  state->skipped += 1;
  state->skipped_in_row += 1;
  if (state->skipped_in_row < config->max_skips) { return UNROLL_OK; }
  if (t->has_checkpoint && t->checkpoint_is_good) {
    return unroll_fail(UNROLL_ERR_DIVERGED,
                       SKIPPED
                       "the last good checkpoint is %s; go on from it with --resume --change "
                       "and a lower --lr or --clip%s",
                       state->step + 1, state->skipped_in_row, config->out, clip);
  }
  return unroll_fail(UNROLL_ERR_DIVERGED, SKIPPED "%s%s; start again with a lower --lr or --clip%s",
                     state->step + 1, state->skipped_in_row,
                     t->has_checkpoint ? "the loss of the last checkpoint is not finite either: "
                                       : "no checkpoint was written before",
                     t->has_checkpoint ? config->out : "", clip);
}

/* piece -> new weights -> record */
static unroll_status step(trainer *t, step_outcome *out)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  run_state *state = &t->run->state;
  const double before = clock_seconds(),
               rate = schedule_rate(config, state->step, t->pieces.updates, state->epoch,
                                    state->lr_factor),
               share = average_share(config, state);

  UNROLL_TRY(piece_next(t->comm, config, t->train, state, &t->piece));
  t->stepper->times.total += clock_seconds() - before;
  UNROLL_TRY(step_run(t->stepper, &t->piece, t->train, rate * t->piece.rate, share,
                      state->updates + 1, (step_flags){set_flags, t}, out));
  t->progress.learning_rate = rate; /* of a skipped update too */
  if (out->updated) {
    state->updates += 1;
    state->averaged += share > 0.0;
    state->skipped_in_row = 0;
    t->checkpoint_is_good = true;
    record_step(t, out->loss, out->norm, out->scale);
  } else {
    UNROLL_TRY(skip(t));
  }
  state->step += 1;
  state->tokens += (uint64_t)t->piece.tokens;
  piece_advance(&t->piece, state);

cleanup:
  return st;
}

/* ---------------------------------------------------------- the whole run */

/* The weights that a validation takes, in place of those in training: none dropped, and their average, once it has
 * begun. And back. */
static void exchange_weights(trainer *t)
{
  network *net = t->stepper->net;
  const bool averaged = t->run->state.averaged > 0;

  if (!averaged && t->run->config.dropout_weights == 0.0) { return; }
  if (averaged) { run_swap_average(t->run); }
  net->dropout = (dropout){0};
  network_pack(net);
}

/* Loss on the validation text: the same on every rank. The carried state is saved and restored. */
static unroll_status score_valid(trainer *t, double *loss)
{
  unroll_status st = UNROLL_OK;
  network *net = t->stepper->net;
  double *sums = t->stepper->shard_sums;

  watchdog_phase("validation");
  network_get_state(net, t->carried);
  exchange_weights(t);
  score_text(net, t->valid, (score_listener){0}, sums);
  exchange_weights(t);
  network_set_state(net, t->carried);

  double sum = shard_tree_sum(net->size.shards, net->size.group, sums);
  UNROLL_TRY(comm_tree_sum(t->comm, &sum, 1));
  *loss = sum / (double)t->valid->total;

cleanup:
  return st;
}

/* What given weights are worth on the text before the first update: a row to compare with, no model of this run. */
static unroll_status validate_start(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const run *r = t->run;
  double loss = 0.0;

  if (r->config.init_from[0] == '\0' || r->state.step > 0 || t->valid == NULL) { goto cleanup; }
  UNROLL_TRY(score_valid(t, &loss));
  UNROLL_TRY(record_validation(t, loss));

cleanup:
  return st;
}

/* Does the average of nt-asgd begin? Rank 0 has the losses. Collective */
static unroll_status begin_average(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const run *r = t->run;
  uint64_t begins = 0;

  if (r->config.average != UNROLL_AVERAGE_NT_ASGD || r->state.averages) { goto cleanup; }
  begins = average_is_triggered(r->config.average_patience, r->n_valid, r->valid);
  UNROLL_TRY(comm_max_u64(t->comm, &begins, 1));
  t->run->state.averages = begins != 0;

cleanup:
  return st;
}

static unroll_status validate(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  double loss = 0.0;

  UNROLL_TRY(score_valid(t, &loss));
  bool best = schedule_record_validation(config, loss, &t->run->state);
  UNROLL_TRY(record_validation(t, loss));
  UNROLL_TRY(begin_average(t));
  if (best) { UNROLL_TRY(record_best(t)); }

cleanup:
  return st;
}

/* Is something due that happens every so many steps? */
static bool due(unroll_every every, uint64_t step)
{
  return every.unit == UNROLL_EVERY_STEPS && every.count > 0 && step % every.count == 0;
}

/* Why the loop ended, in a few words; also of a run that had ended before this call. */
static const char *why_ended(const trainer *t)
{
  const run_state *state = &t->run->state;
  return state->step == t->pieces.updates ? "all epochs done"
         : state->finished                ? "the validation loss no longer falls"
                                          : "--max-steps reached";
}

/* A loss above that of a uniform guess by this factor is no accident of the first updates. */
#define WORSE_THAN_GUESSED 1.1

/* Say of a run that has ended well, as far as its status tells, that it has not. */
static void warn_of_result(trainer *t)
{
  const run *r = t->run;
  const run_state *s = &r->state;
  const double guess = log((double)r->params->shape.V);
  const double loss = s->interval_tokens > 0 ? s->interval_loss / (double)s->interval_tokens
                      : r->n_train > 0       ? r->train[r->n_train - 1].loss
                                             : 0.0;
  char line[256] = "";

  if (unroll_comm_rank(t->comm) != 0) { return; }
  if (!params_are_finite(r->params)) {
    (void)snprintf(
        line, sizeof line,
        "the weights are not finite: the run has diverged; start again with a lower --lr");
  } else if (s->skipped_in_row > 0) {
    (void)snprintf(line, sizeof line,
                   "the last %" PRIu64 " updates were skipped, as their loss or gradient was not "
                   "finite; start again with a lower --lr or --clip",
                   s->skipped_in_row);
  } else if (loss > WORSE_THAN_GUESSED * guess) {
    (void)snprintf(
        line, sizeof line,
        "the loss of the last updates, %.4g, is worse than a uniform guess, %.4g: the run "
        "has diverged; start again with a lower --lr",
        loss, guess);
  }
  if (line[0] != '\0') { record_notify(t, UNROLL_EVENT_WARNING, line); }
}

/* Steps until the run ends by itself, or a signal ends it. */
static unroll_status loop(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &t->run->config;
  run_state *state = &t->run->state;
  const uint64_t all = t->pieces.updates, last = t->pieces.last;

  while (state->step < last && !state->finished) {
    step_outcome out = {0};
    UNROLL_TRY(step(t, &out));
    watchdog_step(state->step);
    record_notify(t, UNROLL_EVENT_STEP, NULL);

    if (state->step % config->log_every == 0 || state->step == all) {
      UNROLL_TRY(record_interval(t));
    }
    if (due(config->diagnose_every, state->step)) { UNROLL_TRY(diagnose(t)); }
    if (t->valid != NULL &&
        (config->valid_every.count == 0 ? t->piece.ends_epoch || state->step == all
                                        : due(config->valid_every, state->step))) {
      UNROLL_TRY(validate(t));
      if (schedule_stops_early(config, state)) { state->finished = 1; }
    }
    if (state->step == all) { state->finished = 1; }
    bool ends = state->finished || state->step == last;
    /* Weights without a finite loss must not replace a good checkpoint, except where the run ends or stops. */
    bool good = state->skipped_in_row == 0;
    if (ends || out.flags[STOP] > 0.0 ||
        (good && (out.flags[CHECKPOINT] > 0.0 || due(config->checkpoint_every, state->step)))) {
      UNROLL_TRY(record_checkpoint(t));
    }
    if (out.flags[STOP] > 0.0 && !ends) {
      UNROLL_TRY(comm_agree(t->comm, t->saved));
      st = unroll_fail(UNROLL_STOPPED,
                       "stopped on a signal at step %" PRIu64
                       ", checkpoint in %s; the same command with --resume goes on",
                       state->step, config->out);
      goto cleanup;
    }
  }
  warn_of_result(t);
  record_end(t, why_ended(t));
  UNROLL_TRY(comm_agree(t->comm, record_outcome(t)));

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
  record_notify(t, UNROLL_EVENT_START, NULL);
  for (size_t i = 0; i < t->n_notes; ++i) { record_notify(t, t->notes[i].event, t->notes[i].text); }
  UNROLL_TRY(validate_start(t));
  UNROLL_TRY(loop(t));

cleanup:
  trainer_free(&t);
  return st;
}
