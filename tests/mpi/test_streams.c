#include "support.h"

#include "data/streams.h"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENTIAL UNROLL_PARTITION_SEQUENTIAL
#define RANDOM     UNROLL_PARTITION_RANDOM

/* ------------------------------------------------------------------ helpers */

/* A text whose token i is known: word i is the number of i * 7919 modulo `kinds`. */
struct source {
  corpus *c;
  unroll_vocab *vocab;
  corpus_part part;
  int32_t *tokens; /* all of them */
};

static struct source make_source(const char *name, size_t n, size_t kinds)
{
  static char folder[256];
  char path[300];
  const char *const paths[] = {path};
  struct source s = {0};

  if (folder[0] == '\0') {
    if (test_rank == 0) { test_folder(folder); }
    MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
  }
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  if (test_rank == 0) {
    char *text = calloc(n + 1, 8);
    size_t used = 0;
    if (text == NULL) { abort(); }
    for (size_t i = 0; i < n; ++i) {
      used += (size_t)sprintf(text + used, "%zu ", i * 7919 % kinds);
    }
    test_write_file(path, text, used);
    free(text);
  }
  MPI_Barrier(MPI_COMM_WORLD);

  const unroll_text_rules rules = {UNROLL_LEVEL_WORD, false, false};
  s.tokens = calloc(n + 1, sizeof *s.tokens);
  CHECK_ALL(test_ok(corpus_open(test_comm, UNROLL_LEVEL_BYTE, 1, paths, NULL, &s.c), "open",
                    __FILE__, __LINE__));
  s.part.end = corpus_bytes(s.c);
  CHECK_ALL(test_ok(vocab_build(test_comm, s.c, &s.part, rules, 1, 0, &s.vocab), "vocab", __FILE__,
                    __LINE__));
  CHECK_ALL(test_ok(corpus_count(test_comm, s.c, s.vocab, &s.part), "count", __FILE__, __LINE__));
  CHECK_ALL(s.part.tokens == n);
  for (size_t i = 0; i < n; ++i) {
    char word[24];
    (void)snprintf(word, sizeof word, "%zu", i * 7919 % kinds);
    s.tokens[i] = (int32_t)unroll_vocab_find(s.vocab, word);
  }
  return s;
}

static void free_source(struct source *s)
{
  free(s->tokens);
  corpus_part_free(&s->part);
  unroll_vocab_free(&s->vocab);
  corpus_free(&s->c);
}

/* B streams of at least T tokens, this rank's share of them; with a random partition windows of T. */
static text_cut cut_of(size_t B, size_t T, unroll_partition partition, uint64_t seed)
{
  const size_t first = B * (size_t)test_rank / (size_t)test_size;
  return (text_cut){.partition = partition,
                    .seed = seed,
                    .window = T,
                    .B = B,
                    .first = first,
                    .count = B * (size_t)(test_rank + 1) / (size_t)test_size - first,
                    .ranks = (size_t)test_size,
                    .what = T == 1 ? "validation" : "training"};
}

static text_source *made(const struct source *s, text_cut cut)
{
  text_source *out = NULL;
  CHECK_ALL(test_ok(text_source_new(test_comm, s->c, s->vocab, &s->part, &cut, &out),
                    "text_source_new", __FILE__, __LINE__));
  return out;
}

/* Positions need no tokens: streams that this rank would have, all of them. */
static text_source placed(text_cut cut, uint64_t length)
{
  text_source s = {.cut = cut};
  s.cut.first = 0;
  s.cut.count = cut.B;
  streams_cut(&s, length);
  return s;
}

/* Where window k begins in stream b. */
static uint64_t position(const text_source *s, uint64_t epoch, uint64_t k, size_t b)
{
  return text_source_stretch(s, epoch, k, b).start - b * s->length;
}

/* ----------------------------------------------------------------- content */

/* Is every piece of n steps of every batch the right piece of the whole text, and nothing written behind it? */
static int holds_the_text(const text_source *s, const struct source *src, size_t n)
{
  const size_t count = s->cut.count;
  int32_t *x = malloc((n * count + 1) * sizeof *x), *y = malloc((n * count + 1) * sizeof *y);
  int same = s->length == (src->part.tokens - 1) / s->cut.B && !s->ragged;
  for (uint64_t k = 0; same && k < s->batches; ++k) {
    for (uint64_t at = 0; same && at + n <= s->longest; at += n) {
      x[n * count] = y[n * count] = -77;
      text_source_fill(s, 2, k, at, n, x, y);
      for (size_t b = 0; b < count; ++b) {
        const stretch row = text_source_stretch(s, 2, k, s->cut.first + b);
        const int32_t *expected = src->tokens + s->cut.first * s->length + row.start + at;
        same &= row.length == s->longest && row.start >= b * s->length &&
                row.start + row.length <= (b + 1) * s->length;
        for (size_t t = 0; same && t < n; ++t) {
          same = x[t * count + b] == expected[t] && y[t * count + b] == expected[t + 1];
        }
      }
      same = same && x[n * count] == -77 && y[n * count] == -77;
    }
  }
  free(x);
  free(y);
  return same;
}

/* The same numbers on every rank. */
static int extends(const text_source *s)
{
  text_extent all = {0}, mine = text_source_extent(s, 1, s->batches - 1);
  return text_source_extent_of_all(NULL, s, 1, s->batches - 1, &all) == UNROLL_OK &&
         all.steps == s->longest && all.tokens == s->longest * s->cut.B &&
         s->total == s->batches * all.tokens && mine.tokens == s->longest * s->cut.count &&
         mine.steps == (s->cut.count > 0 ? s->longest : 0);
}

static void test_streams_of_all_ranks_are_the_text(void)
{
  static const size_t kinds[] = {100, 300, 70000};
  static const size_t width[] = {1, 2, 4};
  for (size_t k = 0; k < 3; ++k) {
    struct source src = make_source("text", k == 2 ? 70001 : 1001, kinds[k]);
    for (size_t B = 1; B <= 40; B += 3) { /* with fewer sequences than ranks some ranks have none */
      for (int partition = SEQUENTIAL; partition <= RANDOM; ++partition) {
        text_source *s = made(&src, cut_of(B, 5, (unroll_partition)partition, 3));
        CHECK_ALL(s->width == width[k] && (s->batches > 1) == (partition == RANDOM));
        CHECK_ALL(holds_the_text(s, &src, 5));
        CHECK_ALL(holds_the_text(s, &src, 1));
        CHECK_ALL(extends(s));
        text_source_free(&s);
        text_source_free(&s);
      }
    }
    free_source(&src);
  }
}

/* Without a window, too, whatever the partition: validation. */
static void test_streams_are_whole_unless_in_random_windows(void)
{
  struct source src = make_source("sequence", 205, 10);
  for (size_t i = 0; i < 3; ++i) {
    text_source *s = made(&src, cut_of(4, i == 0 ? 10 : 0, i < 2 ? SEQUENTIAL : RANDOM, 1));
    CHECK_ALL(s->length == 51 && s->longest == 51 && s->batches == 1 && s->total == 4 * 51);
    for (size_t b = s->cut.first; b < s->cut.first + s->cut.count; ++b) {
      const stretch row = text_source_stretch(s, 2, 0, b);
      CHECK_OK(row.start == 51 * (b - s->cut.first) && row.length == 51 ? UNROLL_OK
                                                                        : UNROLL_ERR_ARG);
    }
    text_source_free(&s);
  }
  free_source(&src);
}

/* ------------------------------------------------------------------ random */

/* In one epoch of one stream: does every window come once, aligned to one offset below T, inside the stream? */
static int visits_each_window_once(const text_source *s, uint64_t epoch, size_t b)
{
  const uint64_t W = s->batches, T = s->longest, offset = position(s, epoch, 0, b) % T;
  unsigned char *seen = calloc(W, 1);
  int good = seen != NULL;
  for (uint64_t k = 0; good && k < W; ++k) {
    const uint64_t at = position(s, epoch, k, b);
    good = at % T == offset && at + T <= s->length && at / T < W && !seen[at / T];
    if (good) { seen[at / T] = 1; }
  }
  free(seen);
  return good;
}

static void test_streams_random_visits_every_window_once(void)
{
  for (size_t T = 1; T <= 9; T += 2) {
    for (uint64_t length = T; length < 100; ++length) {
      const text_source s = placed(cut_of(3, T, RANDOM, 7), length);
      CU_ASSERT_EQUAL(s.batches, length + 1 < 2 * T ? 1 : (length - (T - 1)) / T);
      CU_ASSERT(visits_each_window_once(&s, length % 4, length % 3));
    }
  }
  static const uint64_t windows[] = {255, 256, 257, 65536,
                                     100003}; /* at and beside powers of four */
  for (size_t i = 0; i < 5; ++i) {
    const text_source s = placed(cut_of(3, 4, RANDOM, 7), 4 * windows[i] + 3);
    CU_ASSERT_EQUAL(s.batches, windows[i]);
    CU_ASSERT(visits_each_window_once(&s, i, i % 3));
  }
}

static void test_streams_random_order_and_offset_differ_and_are_even(void)
{
  enum { T = 4, W = 16, EPOCHS = 4000 };
  const text_source s = placed(cut_of(2, T, RANDOM, 3), W * T + T - 1);
  int at[W][W] = {{0}}; /* how often window w comes k-th */
  int offsets[T] = {0};
  int same = 0;
  for (uint64_t epoch = 0; epoch < EPOCHS; ++epoch) {
    int differs = 0;
    for (uint64_t k = 0; k < W; ++k) {
      uint64_t p = position(&s, epoch, k, 0);
      at[k][p / T] += 1;
      differs |= p != position(&s, epoch, k, 1);
      if (k == 0) { offsets[p % T] += 1; }
    }
    same += !differs;
  }
  CU_ASSERT_EQUAL(same, 0);
  /* Each cell is binomial with mean 250 and deviation 15.3; of 256 cells none leaves 5 deviations. */
  for (int k = 0; k < W; ++k) {
    for (int w = 0; w < W; ++w) { CU_ASSERT(at[k][w] > 250 - 77 && at[k][w] < 250 + 77); }
  }
  for (int i = 0; i < T; ++i) { CU_ASSERT(abs(offsets[i] - EPOCHS / T) < 140); }

  /* A function of its arguments alone: same seed, same place; other seed, other order. */
  const text_source again = placed(cut_of(2, T, RANDOM, 3), s.length);
  const text_source other = placed(cut_of(2, T, RANDOM, 4), s.length);
  int differs = 0;
  for (uint64_t k = 0; k < W; ++k) {
    CU_ASSERT_EQUAL(position(&s, 1, k, 0), position(&again, 1, k, 0));
    differs |= position(&s, 1, k, 0) != position(&other, 1, k, 0);
  }
  CU_ASSERT(differs);
}

/* --------------------------------------------------------------- too little */

static int fails(const struct source *src, size_t B, size_t T, const char *part)
{
  text_source *out = NULL;
  const text_cut cut = cut_of(B, T, SEQUENTIAL, 0);
  unroll_status st = text_source_new(test_comm, src->c, src->vocab, &src->part, &cut, &out);
  return test_fails(st, UNROLL_ERR_INPUT, part, __FILE__, __LINE__) && out == NULL;
}

static void test_streams_of_too_little_text_name_the_largest_legal_values(void)
{
  struct source src = make_source("little", 1200, 10);
  const size_t P = (size_t)test_size;
  const size_t B = 64 * P;
  char message[400];

  /* The values named are legal, and one more (one more for each rank) is not. */
  size_t batch = 1199 / 64 / P * P;
  size_t steps = 1199 / B;
  (void)snprintf(message, sizeof message,
                 "training text has 1200 tokens, too few for --batch %zu with --steps 64: the "
                 "largest legal --batch is %zu "
                 "(with --steps 64), the largest legal --steps is %zu (with --batch %zu)",
                 B, batch, steps, B);
  CHECK_ALL(fails(&src, B, 64, message));
  text_source *s = made(&src, cut_of(batch, 64, SEQUENTIAL, 0));
  text_source_free(&s);
  s = made(&src, cut_of(B, steps, SEQUENTIAL, 0));
  text_source_free(&s);
  CHECK_ALL(fails(&src, batch + P, 64, "too few"));
  CHECK_ALL(fails(&src, B, steps + 1, "too few"));

  (void)snprintf(
      message, sizeof message,
      "validation text has 1200 tokens, too few for --batch %zu: the largest legal --batch is %zu",
      1200 * P, 1199 / P * P);
  CHECK_ALL(fails(&src, 1200 * P, 1, message));
  (void)snprintf(message, sizeof message, "with --batch %zu the largest legal --steps is %zu", P,
                 1199 / P);
  CHECK_ALL(fails(&src, 1200 * P, 5000, message));

  src.part.tokens = src.part.characters = 1;
  (void)snprintf(message, sizeof message, "at least %zu tokens are needed", P + 1);
  CHECK_ALL(fails(&src, P, 8, message));
  free_source(&src);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"all ranks: the text", test_streams_of_all_ranks_are_the_text},
      {"whole unless in random windows", test_streams_are_whole_unless_in_random_windows},
      {"random: every window once", test_streams_random_visits_every_window_once},
      {"random: order and offset differ, evenly",
       test_streams_random_order_and_offset_differ_and_are_even},
      {"too little text: largest legal values named",
       test_streams_of_too_little_text_name_the_largest_legal_values},
  };
  return run_mpi_cases(argc, argv, "streams", sizeof cases / sizeof cases[0], cases);
}
