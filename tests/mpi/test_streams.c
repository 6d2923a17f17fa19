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
  CHECK_ALL(test_ok(corpus_open(test_comm, 1, paths, &s.c), "open", __FILE__, __LINE__));
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

/* This rank's share of B sequences. */
static void share(size_t B, size_t *first, size_t *count)
{
  *first = B * (size_t)test_rank / (size_t)test_size;
  *count = B * (size_t)(test_rank + 1) / (size_t)test_size - *first;
}

static streams *made(const struct source *s, size_t B, size_t T)
{
  streams *out = NULL;
  size_t first = 0;
  size_t count = 0;
  share(B, &first, &count);
  CHECK_ALL(test_ok(streams_new(test_comm, s->c, s->vocab, &s->part, B, first, count,
                                (size_t)test_size, T, "training", &out),
                    "streams_new", __FILE__, __LINE__));
  return out;
}

/* ----------------------------------------------------------------- content */

/* Is every window of this rank the right piece of the whole text? */
static int holds_the_text(const streams *s, const struct source *src, size_t T)
{
  int32_t x[64];
  int32_t y[64];
  int same = s->length == (src->part.tokens - 1) / s->B;
  for (size_t b = s->first; same && b < s->first + s->count; ++b) {
    for (uint64_t at = 0; same && at + T <= s->length; at += T) {
      const int32_t *expected = src->tokens + b * s->length + at;
      memset(x, 0xff, sizeof x);
      streams_copy(s, b, at, T, 3, x, y);
      for (size_t t = 0; same && t < T; ++t) {
        same = x[3 * t] == expected[t] && y[3 * t] == expected[t + 1];
      }
      same = same && x[1] == -1 && x[2] == -1; /* the columns of other sequences */
    }
  }
  return same;
}

/* All streams at once are the streams one after the other. */
static int is_window_of_all(const streams *s, size_t T)
{
  size_t n = T * s->count;
  int32_t *x = malloc((n + 1) * sizeof *x), *y = malloc((n + 1) * sizeof *y);
  int32_t *expected = malloc((2 * n + 1) * sizeof *expected);
  int same = 1;
  for (uint64_t at = 0; at + T <= s->length && at < 3 * T; at += T) {
    for (size_t k = 0; k < s->count; ++k) {
      streams_copy(s, s->first + k, at, T, s->count, expected + k, expected + n + k);
    }
    x[n] = y[n] = -1;
    streams_window(s, at, T, x, y);
    same &= memcmp(x, expected, n * sizeof *x) == 0 && x[n] == -1;
    same &= memcmp(y, expected + n, n * sizeof *y) == 0 && y[n] == -1;
  }
  free(x);
  free(y);
  free(expected);
  return same;
}

static void test_streams_of_all_ranks_are_the_text(void)
{
  static const size_t kinds[] = {100, 300, 70000};
  static const size_t width[] = {1, 2, 4};
  for (size_t k = 0; k < 3; ++k) {
    struct source src = make_source("text", k == 2 ? 70001 : 1001, kinds[k]);
    for (size_t B = 1; B <= 40; B += 3) { /* with fewer sequences than ranks some ranks have none */
      streams *s = made(&src, B, 5);
      CHECK_ALL(s->width == width[k]);
      CHECK_ALL(holds_the_text(s, &src, 5));
      CHECK_ALL(holds_the_text(s, &src, 1));
      CHECK_ALL(is_window_of_all(s, 5));
      streams_free(&s);
      streams_free(&s);
    }
    free_source(&src);
  }
}

static void test_streams_sequential_windows_follow_each_other(void)
{
  struct source src = make_source("sequence", 205, 10);
  streams *s = made(&src, 4, 10); /* length 51 */
  CHECK_ALL(s->length == 51 && streams_windows(s, SEQUENTIAL, 10) == 5 &&
            streams_windows(s, SEQUENTIAL, 51) == 1);
  for (uint64_t k = 0; k < 5; ++k) {
    for (size_t b = 0; b < 4; ++b) {
      CHECK_ALL(streams_position(s, SEQUENTIAL, 10, 1, 2, k, b) == 10 * k);
    }
  }
  streams_free(&s);
  free_source(&src);
}

/* ------------------------------------------------------------------ random */

/* In one epoch of one stream: does every window come once, aligned to one offset below T, inside the stream? */
static int visits_each_window_once(const streams *s, size_t T, uint64_t epoch, size_t b)
{
  const uint64_t W = streams_windows(s, RANDOM, T);
  unsigned char *seen = calloc(W, 1);
  const uint64_t offset = streams_position(s, RANDOM, T, 7, epoch, 0, b) % T;
  int good = seen != NULL;
  for (uint64_t k = 0; good && k < W; ++k) {
    uint64_t position = streams_position(s, RANDOM, T, 7, epoch, k, b);
    good = position % T == offset && position + T <= s->length && position / T < W &&
           !seen[position / T];
    if (good) { seen[position / T] = 1; }
  }
  free(seen);
  return good;
}

static void test_streams_random_visits_every_window_once(void)
{
  streams s = {.B = 3}; /* positions need no tokens */
  for (size_t T = 1; T <= 9; T += 2) {
    for (s.length = T; s.length < 100; ++s.length) {
      uint64_t W = streams_windows(&s, RANDOM, T);
      CU_ASSERT_EQUAL(W, s.length + 1 < 2 * T ? 1 : (s.length - (T - 1)) / T);
      CU_ASSERT(visits_each_window_once(&s, T, s.length % 4, s.length % 3));
    }
  }
  static const uint64_t windows[] = {255, 256, 257, 65536,
                                     100003}; /* at and beside powers of four */
  for (size_t i = 0; i < 5; ++i) {
    s.length = 4 * windows[i] + 3;
    CU_ASSERT_EQUAL(streams_windows(&s, RANDOM, 4), windows[i]);
    CU_ASSERT(visits_each_window_once(&s, 4, i, i % 3));
  }
}

static void test_streams_random_order_and_offset_differ_and_are_even(void)
{
  enum { T = 4, W = 16, EPOCHS = 4000 };
  streams s = {.B = 2, .length = W * T + T - 1};
  int at[W][W] = {{0}}; /* how often window w comes k-th */
  int offsets[T] = {0};
  int same = 0;
  for (uint64_t epoch = 0; epoch < EPOCHS; ++epoch) {
    int differs = 0;
    for (uint64_t k = 0; k < W; ++k) {
      uint64_t p = streams_position(&s, RANDOM, T, 3, epoch, k, 0);
      at[k][p / T] += 1;
      differs |= p != streams_position(&s, RANDOM, T, 3, epoch, k, 1);
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
  int differs = 0;
  for (uint64_t k = 0; k < W; ++k) {
    CU_ASSERT_EQUAL(streams_position(&s, RANDOM, T, 3, 1, k, 0),
                    streams_position(&s, RANDOM, T, 3, 1, k, 0));
    differs |=
        streams_position(&s, RANDOM, T, 3, 1, k, 0) != streams_position(&s, RANDOM, T, 4, 1, k, 0);
  }
  CU_ASSERT(differs);
}

/* --------------------------------------------------------------- too little */

static int fails(const struct source *src, size_t B, size_t T, const char *part)
{
  streams *out = NULL;
  size_t first = 0;
  size_t count = 0;
  share(B, &first, &count);
  unroll_status st = streams_new(test_comm, src->c, src->vocab, &src->part, B, first, count,
                                 (size_t)test_size, T, T == 1 ? "validation" : "training", &out);
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
  streams *s = made(&src, batch, 64);
  streams_free(&s);
  s = made(&src, B, steps);
  streams_free(&s);
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

  src.part.tokens = 1;
  (void)snprintf(message, sizeof message, "at least %zu tokens are needed", P + 1);
  CHECK_ALL(fails(&src, P, 8, message));
  free_source(&src);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"all ranks: the text", test_streams_of_all_ranks_are_the_text},
      {"sequential: windows follow each other", test_streams_sequential_windows_follow_each_other},
      {"random: every window once", test_streams_random_visits_every_window_once},
      {"random: order and offset differ, evenly",
       test_streams_random_order_and_offset_differ_and_are_even},
      {"too little text: largest legal values named",
       test_streams_of_too_little_text_name_the_largest_legal_values},
  };
  return run_mpi_cases(argc, argv, "streams", sizeof cases / sizeof cases[0], cases);
}
