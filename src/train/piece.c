#include "train/piece.h"

#include "base/check.h"
#include "base/random.h"

/* Of random lengths: the program of Merity, Keskar and Socher 2018. */
#define HALVED    0.05
#define DEVIATION 5.0
#define LEAST     5

/* Steps of the randomized piece that begins at `start`. */
static uint64_t uncut_steps(const unroll_config *config, uint64_t length, uint64_t epoch,
                            uint64_t start)
{
  const double pi = 1.0 - 1.0 / (double)config->steps;
  uint64_t end = start + 1;
  while (end < length && random_uniform(config->seed, RANDOM_CUT, epoch, end) < pi) { ++end; }
  return end - start;
}

/* Steps of the window of random length that begins at `start`. */
static uint64_t drawn_steps(const unroll_config *config, uint64_t length, uint64_t epoch,
                            uint64_t start)
{
  const uint64_t seed = config->seed, left = length - start;
  const double half = random_uniform(seed, RANDOM_LENGTH, epoch, start << 4) < HALVED ? 0.5 : 1.0;
  double z = -6.0;
  for (uint64_t k = 1; k <= 12; ++k) {
    z += random_uniform(seed, RANDOM_LENGTH, epoch, start << 4 | k);
  }
  const double drawn = half * (double)config->steps + DEVIATION * z;
  const uint64_t steps = drawn < LEAST ? LEAST : (uint64_t)drawn;
  return steps < left ? steps : left;
}

/* How pieces are cut: a strategy, or each batch as a whole. */
typedef enum piece_cut { WINDOWS, LENGTHS, CUTS, BATCHES } piece_cut;

static piece_cut cut_of(const unroll_config *config)
{
  if (config->bptt == UNROLL_BPTT_RANDOMIZED) { return CUTS; }
  if (config->bptt != UNROLL_BPTT_TRUNCATED || config->partition != UNROLL_PARTITION_SEQUENTIAL) {
    return BATCHES;
  }
  return config->windows == UNROLL_WINDOWS_RANDOM ? LENGTHS : WINDOWS;
}

/* Steps that an epoch may begin at. */
static uint64_t offsets_of(const unroll_config *config, const text_source *text)
{
  if (config->offset != UNROLL_OFFSET_RANDOM) { return 1; }
  const uint64_t last = text->length - config->steps; /* a stream has a window at least */
  return last < config->steps ? last + 1 : config->steps;
}

static uint64_t offset_of(const unroll_config *config, const text_source *text, uint64_t epoch)
{
  return random_below(config->seed, RANDOM_OFFSET, epoch, 0, offsets_of(config, text));
}

/* Steps of a stream that an epoch has. */
static uint64_t length_of(const unroll_config *config, const text_source *text)
{
  return text->length - (offsets_of(config, text) - 1);
}

static uint64_t windows_of(const unroll_config *config, const text_source *text)
{
  return length_of(config, text) / config->stride;
}

/* Steps of the piece that begins at `start`, of cuts or random lengths. */
static uint64_t steps_of(const unroll_config *config, uint64_t length, uint64_t epoch,
                         uint64_t start)
{
  return cut_of(config) == CUTS ? uncut_steps(config, length, epoch, start)
                                : drawn_steps(config, length, epoch, start);
}

static piece_count totals_of_steps(const unroll_config *config, uint64_t length)
{
  piece_count c = {0};
  for (uint64_t epoch = 0; epoch < config->epochs; ++epoch) {
    for (uint64_t start = 0, steps = 0; start < length; start += steps) {
      steps = steps_of(config, length, epoch, start);
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
  if (cut == CUTS || cut == LENGTHS) { c = totals_of_steps(config, length_of(config, text)); }
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
  const uint64_t k = state->window, length = length_of(config, text);
  piece p = {.epoch = state->epoch, .rate = 1.0};
  text_extent all = {0}; /* of a batch */

  switch (cut) {
  case WINDOWS:
    p.start = window_start(config, k);
    p.steps = (size_t)((k + 1) * config->stride - p.start);
    p.scored = p.steps - (size_t)config->stride;
    p.advance = (size_t)(window_start(config, k + 1) - p.start);
    p.ends_epoch = k + 1 == windows_of(config, text);
    break;
  case LENGTHS:
  case CUTS:
    p.start = state->position;
    p.steps = p.advance = (size_t)steps_of(config, length, p.epoch, p.start);
    p.ends_epoch = p.start + p.steps == length;
    break;
  case BATCHES:
    UNROLL_TRY(text_source_extent_of_all(comm, text, p.epoch, k, &all));
    p.batch = k;
    p.steps = p.advance = (size_t)all.steps;
    p.ends_epoch = k + 1 == text->batches;
    break;
  }
  p.from_zero = p.start == 0;
  if (config->offset == UNROLL_OFFSET_RANDOM) { p.start += offset_of(config, text, p.epoch); }
  if (cut == LENGTHS) { p.rate = (double)p.steps / (double)config->steps; }
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
