/*
 * What an update covers, by each strategy: pieces walked as the loop of training walks them (train/train.c).
 */
#include "support.h"

#include "data/streams.h"
#include "train/piece.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define BATCH        6

/* Resolved options: --batch and --epochs 3 beside these. */
static unroll_config config_of(unroll_bptt bptt, uint64_t steps, uint64_t stride)
{
  unroll_config config;
  unroll_config_init(&config);
  config.bptt = bptt;
  config.steps = steps;
  config.stride = stride;
  config.batch = BATCH;
  config.epochs = 3;
  CHECK_OK(unroll_config_resolve(&config));
  return config;
}

/* An epoch or more, as they come. */
typedef struct walk {
  const unroll_config *config;
  text_source text; /* of which no rank has anything: pieces need no tokens */
  run_state state;
} walk;

static piece next(walk *w)
{
  piece p;
  CHECK_OK(piece_next(NULL, w->config, &w->text, &w->state, &p));
  w->state.step += 1;
  piece_advance(&p, &w->state);
  return p;
}

static walk walk_new(const unroll_config *config, uint64_t length)
{
  walk w = {.config = config,
            .text.cut = {.B = BATCH,
                         .partition = config->partition,
                         .window = config->bptt == UNROLL_BPTT_TRUNCATED ? config->steps : 0}};
  streams_cut(&w.text, length);
  return w;
}

/*
 * One epoch of pieces along the streams: every token up to `covered` has a loss once, in order; each piece begins
 * with the state of its first step, which is the zero state at the first one, and what it hands on is the next one's.
 * Returns the number of pieces.
 */
static uint64_t check_epoch(walk *w, uint64_t covered)
{
  const uint64_t epoch = w->state.epoch;
  uint64_t scored = 0, carried = 0, pieces = 0, offset = 0;
  int ok = 1, ended = 0;
  while (w->state.epoch == epoch && scored < covered + 1000) {
    piece p = next(w);
    ok &= p.start + p.steps <= w->text.length;
    if (pieces == 0) { offset = p.start; }
    ok &= w->config->offset == UNROLL_OFFSET_RANDOM ? offset < w->config->steps : offset == 0;
    p.start -= offset;
    ok &= !ended && p.scored < p.steps;
    ok &= p.start + p.scored == scored;
    ok &= p.from_zero == (p.start == 0) && (p.from_zero || p.start == carried);
    ok &= p.tokens == (double)((p.steps - p.scored) * BATCH);
    ended = p.ends_epoch;
    carried = p.start + p.advance;
    scored = p.start + p.steps;
    pieces += 1;
  }
  ok &= ended && scored == covered;
  CU_ASSERT(ok);
  return pieces;
}

/* ---------------------------------------------------------------- truncated */

static void test_truncated_windows_cover_an_epoch(void)
{
  for (uint64_t steps = 1; steps <= 7; ++steps) {
    for (uint64_t stride = 1; stride <= steps; ++stride) {
      for (uint64_t length = steps; length <= 40; length += 3) {
        const unroll_config config = config_of(UNROLL_BPTT_TRUNCATED, steps, stride);
        walk w = walk_new(&config, length);
        const piece_count count = piece_totals(&config, &w.text);
        for (uint64_t epoch = 0; epoch < 3; ++epoch) {
          CU_ASSERT_EQUAL(check_epoch(&w, length / stride * stride), length / stride);
        }
        CU_ASSERT(count.updates == w.state.step && count.per_epoch == length / stride);
        CU_ASSERT(count.longest == steps);
      }
    }
  }
}

/* A loss reaches back through --steps steps, its own included, or to the beginning. */
static void test_truncated_window_looks_back_as_far_as_it_may(void)
{
  for (uint64_t stride = 1; stride <= 7; ++stride) {
    const unroll_config config = config_of(UNROLL_BPTT_TRUNCATED, 7, stride);
    walk w = walk_new(&config, 45);
    for (uint64_t k = 0; k < 45 / stride; ++k) {
      piece p = next(&w);
      uint64_t end = p.start + p.steps;
      CU_ASSERT(p.steps - p.scored == stride);
      CU_ASSERT(p.steps == (end < 7 ? end : 7));
      CU_ASSERT(p.scale == 1.0 / p.tokens);
    }
  }
}

/* An epoch that begins elsewhere has as many windows as any other, and few of a stream are left out. */
static void test_offsets_move_the_windows(void)
{
  for (uint64_t steps = 1; steps <= 7; steps += 2) {
    for (uint64_t stride = 1; stride <= steps; ++stride) {
      for (uint64_t length = steps; length <= 40; length += 3) {
        unroll_config config = config_of(UNROLL_BPTT_TRUNCATED, steps, stride);
        config.offset = UNROLL_OFFSET_RANDOM;
        walk w = walk_new(&config, length);
        const piece_count count = piece_totals(&config, &w.text);
        const uint64_t spare = length < 2 * steps - 1 ? length - steps : steps - 1;
        for (uint64_t epoch = 0; epoch < 3; ++epoch) {
          CU_ASSERT_EQUAL(check_epoch(&w, (length - spare) / stride * stride), count.per_epoch);
        }
        CU_ASSERT(count.updates == w.state.step && count.per_epoch == (length - spare) / stride);
      }
    }
  }
}

/* Each as often as any other, and by seed and epoch alone. */
static void test_offsets_are_drawn_for_each_epoch(void)
{
  unroll_config config = config_of(UNROLL_BPTT_TRUNCATED, 8, 0), other = config;
  double seen[8] = {0.0};
  config.offset = other.offset = UNROLL_OFFSET_RANDOM;
  other.batch = 60;
  walk w = walk_new(&config, 100), v = walk_new(&other, 900);
  for (uint64_t epoch = 0; epoch < 4000; ++epoch) {
    w.state.epoch = v.state.epoch = epoch;
    w.state.window = v.state.window = 0;
    const piece p = next(&w);
    CU_ASSERT(p.start < 8 && p.start == next(&v).start && p.from_zero);
    seen[p.start] += 1.0;
  }
  for (size_t k = 0; k < 8; ++k) { CU_ASSERT(fabs(seen[k] - 500.0) < 4.0 * sqrt(437.5)); }
}

static void test_random_partition_takes_whole_windows_from_the_zero_state(void)
{
  unroll_config config = config_of(UNROLL_BPTT_TRUNCATED, 7, 0);
  config.partition = UNROLL_PARTITION_RANDOM;
  walk w = walk_new(&config, 45);
  const uint64_t windows = w.text.batches;
  const piece_count count = piece_totals(&config, &w.text);
  CU_ASSERT(windows == 5 && count.per_epoch == 5 && count.updates == 15 && count.longest == 7);
  for (uint64_t k = 0; k < 2 * windows; ++k) {
    piece p = next(&w);
    CU_ASSERT(p.steps == 7 && p.scored == 0 && p.from_zero && p.tokens == 7.0 * BATCH);
    CU_ASSERT(p.epoch == k / windows && p.batch == k % windows && p.start == 0);
    CU_ASSERT(p.ends_epoch == ((k + 1) % windows == 0));
  }
  CU_ASSERT_EQUAL(w.state.epoch, 2);
}

/* --------------------------------------------------------------------- full */

static void test_full_is_one_piece(void)
{
  const unroll_config config = config_of(UNROLL_BPTT_FULL, 64, 0);
  for (uint64_t length = 1; length < 2000; length = 3 * length + 1) {
    walk w = walk_new(&config, length);
    const piece_count count = piece_totals(&config, &w.text);
    for (uint64_t epoch = 0; epoch < 3; ++epoch) { CU_ASSERT_EQUAL(check_epoch(&w, length), 1); }
    CU_ASSERT(count.updates == 3 && count.per_epoch == 1 && count.longest == length);
  }
  CU_ASSERT(piece_xi(&config) == 1.0);
}

/* --------------------------------------------------------------- randomized */

static void test_randomized_pieces_cover_an_epoch(void)
{
  for (uint64_t steps = 1; steps <= 20; steps += 3) {
    for (uint64_t length = 1; length <= 200; length = 2 * length + 1) {
      unroll_config config = config_of(UNROLL_BPTT_RANDOMIZED, steps, 0);
      config.seed = 1000 * steps + length;
      walk w = walk_new(&config, length);
      const uint64_t first = check_epoch(&w, length);
      (void)check_epoch(&w, length);
      (void)check_epoch(&w, length);
      const piece_count count = piece_totals(&config, &w.text);
      CU_ASSERT(count.updates == w.state.step && count.per_epoch == first);

      size_t longest = 0;
      double weight = 0.0;
      for (w = walk_new(&config, length); w.state.epoch < 3;) {
        piece p = next(&w);
        longest = p.steps > longest ? p.steps : longest;
        weight += p.scale * p.tokens;
        CU_ASSERT(p.scale ==
                  1.0 / (double)(steps * BATCH)); /* of a token, however long its piece */
      }
      CU_ASSERT(count.longest == longest);
      CU_ASSERT_DOUBLE_EQUAL(weight, 3.0 * (double)length / (double)steps, 1e-9 * weight);
    }
  }
}

/* Where the pieces of an epoch begin: a mark at each start. To be freed. */
static unsigned char *cuts_of(const unroll_config *config, uint64_t length, uint64_t epoch)
{
  unsigned char *cut = calloc(length + 1, 1);
  walk w = walk_new(config, length);
  if (cut == NULL) { abort(); }
  w.state.epoch = epoch;
  while (w.state.epoch == epoch) { cut[next(&w).start] = 1; }
  return cut;
}

static int same_cuts(const unroll_config *a, const unroll_config *b, uint64_t epoch_a,
                     uint64_t epoch_b)
{
  unsigned char *x = cuts_of(a, 2000, epoch_a), *y = cuts_of(b, 2000, epoch_b);
  int same = memcmp(x, y, 2000) == 0;
  free(x);
  free(y);
  return same;
}

static void test_randomized_cuts_depend_on_seed_epoch_and_position_alone(void)
{
  const unroll_config config = config_of(UNROLL_BPTT_RANDOMIZED, 10, 0);
  unroll_config other = config;
  other.batch = 60;
  other.hidden = 7;
  other.epochs = 9;
  CU_ASSERT(same_cuts(&config, &other, 0, 0));
  CU_ASSERT(same_cuts(&config, &other, 2, 2));
  CU_ASSERT(!same_cuts(&config, &config, 0, 1));
  CU_ASSERT(!same_cuts(&config, &config, 1, 2));
  other.seed += 1;
  CU_ASSERT(!same_cuts(&config, &other, 0, 0));

  /* From anywhere in a piece, the next cut is the same one; and a longer text is cut alike. */
  for (uint64_t at = 0; at < 500; ++at) {
    walk here = walk_new(&config, 2000), on = here, longer = walk_new(&config, 3000);
    here.state.position = longer.state.position = at;
    on.state.position = at + 1;
    piece p = next(&here), q = next(&on);
    CU_ASSERT(p.steps == 1 || p.start + p.steps == q.start + q.steps);
    CU_ASSERT(p.steps == next(&longer).steps);
  }
}

/* Sum over n draws of probability p, within four standard deviations of its mean. */
static int is_binomial(double sum, double n, double p)
{
  return fabs(sum - n * p) <= 4.0 * sqrt(n * p * (1.0 - p));
}

static void test_randomized_lengths_are_geometric(void)
{
  enum { LENGTH = 400000 };
  const uint64_t means[] = {2, 10, 64};
  for (size_t i = 0; i < COUNT(means); ++i) {
    const unroll_config config = config_of(UNROLL_BPTT_RANDOMIZED, means[i], 0);
    const double pi = 1.0 - 1.0 / (double)means[i];
    unsigned char *cut = cuts_of(&config, LENGTH, 0);
    double cuts = 0.0, pairs = 0.0, pieces = 0.0, longer[3] = {0.0};
    for (uint64_t t = 1; t < LENGTH; ++t) {
      cuts += cut[t];
      pairs += t % 2 == 1 && cut[t] && cut[t + 1]; /* disjoint pairs are independent */
    }
    CU_ASSERT(is_binomial(cuts, LENGTH - 1, 1.0 - pi));
    CU_ASSERT(is_binomial(pairs, LENGTH / 2 - 1, (1.0 - pi) * (1.0 - pi)));
    for (walk w = walk_new(&config, LENGTH); w.state.epoch == 0;) {
      piece p = next(&w);
      if (p.ends_epoch) { break; } /* the text cuts the last one */
      pieces += 1.0;
      for (size_t k = 0; k < 3; ++k) { longer[k] += p.steps > (k + 1) * means[i]; }
    }
    /* The mean of n lengths has variance pi / (1 - pi)^2 / n. */
    double mean = (double)means[i], error = mean * sqrt(pi / pieces);
    CU_ASSERT(pieces == cuts && fabs(LENGTH / (pieces + 1.0) - mean) <= 4.0 * error);
    for (size_t k = 0; k < 3; ++k) {
      CU_ASSERT(is_binomial(longer[k], pieces, pow(pi, (double)((k + 1) * means[i]))));
    }
    free(cut);
  }
}

/* -------------------------------------------------------------- random lengths */

static unroll_config config_of_lengths(uint64_t steps, unroll_offset offset)
{
  unroll_config config = config_of(UNROLL_BPTT_TRUNCATED, steps, 0);
  config.windows = UNROLL_WINDOWS_RANDOM;
  config.offset = offset;
  CHECK_OK(unroll_config_resolve(&config));
  return config;
}

static void test_random_lengths_cover_an_epoch(void)
{
  for (uint64_t length = 10; length <= 1000; length = 2 * length + 1) {
    for (int k = 0; k < 2; ++k) {
      const unroll_config config = config_of_lengths(10, k ? UNROLL_OFFSET_RANDOM : 0);
      walk w = walk_new(&config, length);
      const uint64_t covered = length - (k == 0 ? 0 : length < 19 ? length - 10 : 9);
      const piece_count count = piece_totals(&config, &w.text);
      CU_ASSERT_EQUAL(check_epoch(&w, covered), count.per_epoch);
      (void)check_epoch(&w, covered);
      (void)check_epoch(&w, covered);
      CU_ASSERT_EQUAL(count.updates, w.state.step);
    }
  }
}

/* Of two normal distributions; a piece from the middle of a window ends elsewhere, from its start at the same step. */
static void test_random_lengths_are_those_of_their_distribution(void)
{
  const unroll_config config = config_of_lengths(100, UNROLL_OFFSET_ZERO);
  unroll_config other = config;
  other.seed += 1;
  double n = 0.0, halves = 0.0, sum[2] = {0.0}, squares[2] = {0.0};
  size_t longest = 0, unlike = 0;
  walk w = walk_new(&config, 300000);
  while (w.state.epoch < 3) {
    walk v = {.config = &other, .text = w.text, .state = w.state};
    const piece p = next(&w);
    const size_t half = p.steps < 75;
    const double z = ((double)p.steps + 0.5 - (half ? 50.0 : 100.0)) / 5.0;
    CU_ASSERT(p.rate == (double)p.steps / 100.0 && p.scale == 1.0 / p.tokens && p.scored == 0);
    longest = p.steps > longest ? p.steps : longest;
    unlike += next(&v).steps != p.steps;
    if (p.ends_epoch) { continue; } /* the text cuts it */
    n += 1.0;
    halves += (double)half;
    sum[half] += z;
    squares[half] += z * z;
  }
  CU_ASSERT(is_binomial(halves, n, 0.05));
  for (size_t half = 0; half < 2; ++half) {
    const double m = half ? halves : n - halves;
    CU_ASSERT(fabs(sum[half]) < 4.0 * sqrt(m));
    CU_ASSERT(fabs(squares[half] / m - 1.0) < 4.0 * sqrt(2.0 / m) + 1.0 / 300.0); /* rounding */
  }
  CU_ASSERT((double)unlike > 0.9 * n);
  CU_ASSERT_EQUAL(longest, piece_totals(&config, &w.text).longest);
}

static void test_randomized_factor_makes_the_mean_one(void)
{
  for (uint64_t steps = 2; steps < 1000; steps *= 3) {
    const unroll_config config = config_of(UNROLL_BPTT_RANDOMIZED, steps, 0);
    const double pi = 1.0 - 1.0 / (double)steps;
    CU_ASSERT_DOUBLE_EQUAL(pi * piece_xi(&config), 1.0, 1e-12);
  }
  const unroll_config truncated = config_of(UNROLL_BPTT_TRUNCATED, 10, 0);
  CU_ASSERT(piece_xi(&truncated) == 1.0);
}

/* Every boundary is cut: pieces of one step, and no factor of 1 / 0. */
static void test_randomized_of_one_step_is_cut_everywhere(void)
{
  const unroll_config config = config_of(UNROLL_BPTT_RANDOMIZED, 1, 0);
  walk w = walk_new(&config, 300);
  const piece_count count = piece_totals(&config, &w.text);
  CU_ASSERT_EQUAL(check_epoch(&w, 300), 300);
  CU_ASSERT(count.updates == 900 && count.per_epoch == 300 && count.longest == 1);
  CU_ASSERT(piece_xi(&config) == 1.0);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"truncated: an epoch", test_truncated_windows_cover_an_epoch},
      {"truncated: looks back", test_truncated_window_looks_back_as_far_as_it_may},
      {"truncated: offsets", test_offsets_move_the_windows},
      {"truncated: drawn offsets", test_offsets_are_drawn_for_each_epoch},
      {"lengths: an epoch", test_random_lengths_cover_an_epoch},
      {"lengths: distribution", test_random_lengths_are_those_of_their_distribution},
      {"truncated: random partition",
       test_random_partition_takes_whole_windows_from_the_zero_state},
      {"full: an epoch", test_full_is_one_piece},
      {"randomized: an epoch", test_randomized_pieces_cover_an_epoch},
      {"randomized: what cuts depend on",
       test_randomized_cuts_depend_on_seed_epoch_and_position_alone},
      {"randomized: lengths", test_randomized_lengths_are_geometric},
      {"randomized: factor", test_randomized_factor_makes_the_mean_one},
      {"randomized: one step", test_randomized_of_one_step_is_cut_everywhere},
  };
  return run_cases("piece", COUNT(cases), cases);
}
