#include "train/piece.h"

#include "base/check.h"
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

/* How pieces are cut: a strategy, or each batch as a whole. */
typedef enum piece_cut { WINDOWS, CUTS, BATCHES } piece_cut;

static piece_cut cut_of(const unroll_config *config)
{
  return config->bptt == UNROLL_BPTT_RANDOMIZED ? CUTS
         : config->bptt == UNROLL_BPTT_TRUNCATED && config->partition == UNROLL_PARTITION_SEQUENTIAL
             ? WINDOWS
             : BATCHES;
}

static uint64_t windows_of(const unroll_config *config, const text_source *text)
{
  return text->length / config->stride;
}

static piece_count totals_of_cuts(const unroll_config *config, uint64_t length)
{
  piece_count c = {0};
  for (uint64_t epoch = 0; epoch < config->epochs; ++epoch) {
    for (uint64_t start = 0, steps = 0; start < length; start += steps) {
      steps = uncut_steps(config, length, epoch, start);
      if (steps > c.longest) { c.longest = (size_t)steps; }
      c.updates += 1;
    }
    if (epoch == 0) { c.per_epoch = c.updates; }
  }
  return c;
}

piece_count piece_totals(const unroll_config *config, const text_source *text)
{
  const piece_cut cut = cut_of(config);
  const uint64_t n = cut == WINDOWS ? windows_of(config, text) : text->batches;
  const uint64_t longest = cut == WINDOWS ? config->steps : text->longest;
  piece_count c = {.updates = n * config->epochs, .per_epoch = n, .longest = (size_t)longest};
  if (cut == CUTS) { c = totals_of_cuts(config, text->length); }
  c.last = config->max_steps > 0 && config->max_steps < c.updates ? config->max_steps : c.updates;
  return c;
}

/* Start of window k of truncated BPTT, whose last --stride tokens are new: 0 or later. */
static uint64_t window_start(const unroll_config *config, uint64_t k)
{
  uint64_t end = (k + 1) * config->stride;
  return end > config->steps ? end - config->steps : 0;
}

unroll_status piece_next(unroll_comm *comm, const unroll_config *config, const text_source *text,
                         const run_state *state, piece *out)
{
  unroll_status st = UNROLL_OK;
  const piece_cut cut = cut_of(config);
  const uint64_t k = state->window;
  piece p = {.epoch = state->epoch};
  text_extent all = {0}; /* of a batch */

  switch (cut) {
  case WINDOWS:
    p.start = window_start(config, k);
    p.steps = (size_t)((k + 1) * config->stride - p.start);
    p.scored = p.steps - (size_t)config->stride;
    p.advance = (size_t)(window_start(config, k + 1) - p.start);
    p.ends_epoch = k + 1 == windows_of(config, text);
    break;
  case CUTS:
    p.start = state->position;
    p.steps = p.advance = (size_t)uncut_steps(config, text->length, p.epoch, p.start);
    p.ends_epoch = p.start + p.steps == text->length;
    break;
  case BATCHES:
    UNROLL_TRY(text_source_extent_of_all(comm, text, p.epoch, k, &all));
    p.batch = k;
    p.steps = p.advance = (size_t)all.steps;
    p.ends_epoch = k + 1 == text->batches;
    break;
  }
  p.from_zero = p.start == 0;
  p.tokens =
      cut == BATCHES ? (double)all.tokens : (double)(p.steps - p.scored) * (double)config->batch;
  /* A token of a randomized piece weighs what it weighs in a window of the mean length. */
  p.scale = config->bptt == UNROLL_BPTT_RANDOMIZED
                ? 1.0 / ((double)config->steps * (double)config->batch)
                : 1.0 / p.tokens;
  *out = p;

cleanup:
  return st;
}

void piece_advance(const piece *p, run_state *state)
{
  state->window += 1;
  state->position += p->steps - p->scored;
  if (p->ends_epoch) {
    state->window = state->position = 0;
    state->epoch += 1;
  }
}

double piece_xi(const unroll_config *config)
{
  return config->bptt == UNROLL_BPTT_RANDOMIZED && config->steps > 1
             ? (double)config->steps / (double)(config->steps - 1)
             : 1.0;
}
