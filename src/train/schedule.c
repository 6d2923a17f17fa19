#include "train/schedule.h"

#include <math.h>

double schedule_rate(const unroll_config *config, uint64_t step, uint64_t steps, uint64_t epoch,
                     double factor)
{
  if (step < config->warmup) { return config->lr * (double)(step + 1) / (double)config->warmup; }

  switch (config->schedule) {
  case UNROLL_SCHEDULE_CONSTANT:
    break;
  case UNROLL_SCHEDULE_STEP: {
    const uint64_t every = config->decay_every;
    const uint64_t from = config->decay_from > 0 ? config->decay_from : every;
    double rate = config->lr;
    for (uint64_t at = from; at <= epoch; at += every) { rate *= config->lr_decay; }
    return rate;
  }
  case UNROLL_SCHEDULE_COSINE: {
    double length = steps > config->warmup ? (double)(steps - config->warmup) : 1.0;
    double s = (double)(step - config->warmup) / length;
    return config->lr_min +
           (config->lr - config->lr_min) * 0.5 * (1.0 + cos(3.14159265358979323846 * fmin(s, 1.0)));
  }
  case UNROLL_SCHEDULE_PLATEAU:
    return config->lr * factor;
  }
  return config->lr;
}

bool schedule_record_validation(const unroll_config *config, double loss, run_state *state)
{
  if (loss < state->best_loss) {
    state->best_loss = loss;
    state->best_step = state->step;
    state->validations_since_best = 0;
    state->plateau_wait = 0;
    return true;
  }
  state->validations_since_best += 1;
  state->plateau_wait += 1;
  if (config->schedule == UNROLL_SCHEDULE_PLATEAU && state->plateau_wait >= config->patience) {
    state->lr_factor *= config->lr_decay;
    state->plateau_wait = 0;
  }
  return false;
}

bool schedule_stops_early(const unroll_config *config, const run_state *state)
{
  return config->early_stop > 0 && state->validations_since_best >= config->early_stop;
}
