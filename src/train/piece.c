#include "train/piece.h"

#include "base/random.h"

/* Steps of the randomized piece that begins at `start`. */
static uint64_t uncut_steps(const unroll_config *config, uint64_t length, uint64_t epoch,
                            uint64_t start)
{
  const double pi = 1.0 - 1.0 / (double)config->steps;
  uint64_t end = start + 1;
  while (end < length && random_uniform(config->seed, RANDOM_CUT, epoch, end) < pi) { ++end; }
  return end - start;
}

piece_count piece_counted(const unroll_config *config, uint64_t length, uint64_t windows)
{
  piece_count c = {
      .updates = windows * config->epochs, .per_epoch = windows, .longest = (size_t)config->steps};
  if (config->bptt == UNROLL_BPTT_FULL) {
    c = (piece_count){.updates = config->epochs, .per_epoch = 1, .longest = (size_t)length};
  }
  if (config->bptt == UNROLL_BPTT_RANDOMIZED) {
    c = (piece_count){0};
    for (uint64_t epoch = 0; epoch < config->epochs; ++epoch) {
      for (uint64_t start = 0, steps = 0; start < length; start += steps) {
        steps = uncut_steps(config, length, epoch, start);
        if (steps > c.longest) { c.longest = (size_t)steps; }
        c.updates += 1;
      }
      if (epoch == 0) { c.per_epoch = c.updates; }
    }
  }
  return c;
}

/* Where the window of truncated BPTT begins whose new tokens are number k: no earlier than the text. */
static uint64_t window_start(const unroll_config *config, uint64_t k)
{
  uint64_t end = (k + 1) * config->stride;
  return end > config->steps ? end - config->steps : 0;
}

static piece truncated_piece(const unroll_config *config, uint64_t windows, const run_state *state)
{
  const uint64_t k = state->window, start = window_start(config, k);
  piece p = {.start = start,
             .steps = (size_t)((k + 1) * config->stride - start),
             .advance = (size_t)(window_start(config, k + 1) - start),
             .from_zero = start == 0,
             .ends_epoch = k + 1 == windows};
  if (config->partition == UNROLL_PARTITION_RANDOM) {
    p = (piece){.steps = (size_t)config->steps,
                .advance = (size_t)config->steps,
                .from_zero = true,
                .ends_epoch = k + 1 == windows};
  }
  p.scored = p.steps - (size_t)config->stride;
  return p;
}

piece piece_next(const unroll_config *config, uint64_t length, uint64_t windows,
                 const run_state *state)
{
  const uint64_t at = state->position;
  piece p = {0};

  switch (config->bptt) {
  case UNROLL_BPTT_TRUNCATED:
    p = truncated_piece(config, windows, state);
    break;
  case UNROLL_BPTT_FULL:
    p = (piece){.steps = (size_t)length, .from_zero = true, .ends_epoch = true};
    p.advance = p.steps;
    break;
  case UNROLL_BPTT_RANDOMIZED:
    p = (piece){.start = at, .from_zero = at == 0};
    p.steps = p.advance = (size_t)uncut_steps(config, length, state->epoch, at);
    p.ends_epoch = at + p.steps == length;
    break;
  }
  p.tokens = (double)(p.steps - p.scored) * (double)config->batch;
  /* A token of a randomized piece weighs what it weighs in a window of the mean length. */
  p.scale = config->bptt == UNROLL_BPTT_RANDOMIZED
                ? 1.0 / ((double)config->steps * (double)config->batch)
                : 1.0 / p.tokens;
  return p;
}

double piece_xi(const unroll_config *config)
{
  return config->bptt == UNROLL_BPTT_RANDOMIZED && config->steps > 1
             ? (double)config->steps / (double)(config->steps - 1)
             : 1.0;
}
