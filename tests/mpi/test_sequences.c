/*
 * Lines and paragraphs against a naive splitter of the text, and what every rank must agree on.
 */
#include "support.h"

#include "data/text_source.h"
#include "data/vocab.h"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define SEQUENTIAL   UNROLL_PARTITION_SEQUENTIAL
#define RANDOM       UNROLL_PARTITION_RANDOM

static void *test_alloc(size_t count, size_t size)
{
  void *p = calloc(count + 1, size);
  if (p == NULL) { abort(); }
  return p;
}

/* ------------------------------------------------------------------- oracle */

/* Tokens of one line: bytes, characters (all but the bytes that continue one), or words and the line end. */
static size_t tokens_of_line(unroll_level level, const char *line, size_t n)
{
  size_t tokens = 0;
  for (size_t i = 0; i < n; ++i) {
    int blank = line[i] == ' ' || line[i] == '\r' || line[i] == '\n';
    int before = i == 0 || line[i - 1] == ' ' || line[i - 1] == '\r';
    if (level == UNROLL_LEVEL_BYTE) { tokens += 1; }
    if (level == UNROLL_LEVEL_CHAR) { tokens += ((unsigned char)line[i] & 0xc0) != 0x80; }
    if (level == UNROLL_LEVEL_WORD) { tokens += line[i] == '\n' || (!blank && before); }
  }
  return tokens;
}

/*
 * Lengths of the sequences of a text, *n of them, to be freed. A line is what `fgets` would read; at level
 * word an empty one is one without words. A paragraph is all lines up to and with those of white space behind them.
 */
static uint64_t *split(const char *text, size_t size, unroll_level level, unroll_sequences kind,
                       size_t *n)
{
  uint64_t *length = test_alloc(size, sizeof *length);
  int empty = 0; /* the line before */
  *n = 0;
  for (size_t at = 0, bytes = 0; at < size; at += bytes) {
    const char *end = memchr(text + at, '\n', size - at);
    bytes = end != NULL ? (size_t)(end - text) - at + 1 : size - at;
    size_t tokens = tokens_of_line(level, text + at, bytes);
    int is_empty = strspn(text + at, " \r\n") >= bytes;
    if (tokens == 0) { break; } /* blanks at the end of the text are no word */
    if (*n == 0 || kind == UNROLL_SEQUENCES_LINE || (empty && !is_empty)) { length[(*n)++] = 0; }
    length[*n - 1] += tokens;
    empty = is_empty;
  }
  return length;
}

/* ------------------------------------------------------------------- helpers */

struct source {
  corpus *c;
  unroll_vocab *vocab;
  corpus_part part;
};

static const char *folder(void)
{
  static char name[256];
  if (name[0] == '\0') {
    if (test_rank == 0) { test_folder(name); }
    MPI_Bcast(name, sizeof name, MPI_CHAR, 0, MPI_COMM_WORLD);
  }
  return name;
}

static struct source source_of(unroll_comm *comm, const char *path, unroll_level level)
{
  const unroll_text_rules rules = {level, false, false};
  struct source s = {0};
  CHECK_OK(corpus_open(comm, UNROLL_LEVEL_BYTE, 1, &path, NULL, &s.c));
  s.part.end = corpus_bytes(s.c);
  CHECK_OK(vocab_build(comm, s.c, &s.part, rules, 1, 0, &s.vocab));
  CHECK_OK(corpus_count(comm, s.c, s.vocab, &s.part));
  return s;
}

static void free_source(struct source *s)
{
  corpus_part_free(&s->part);
  unroll_vocab_free(&s->vocab);
  corpus_free(&s->c);
}

/* The file of a text, written by rank 0. */
static const char *file_of(const char *text, size_t size)
{
  static char path[300];
  (void)snprintf(path, sizeof path, "%s/text", folder());
  MPI_Barrier(MPI_COMM_WORLD);
  if (test_rank == 0) { test_write_file(path, text, size); }
  MPI_Barrier(MPI_COMM_WORLD);
  return path;
}

/* B rows, this rank's share of them. */
static text_cut cut_of(unroll_sequences kind, size_t B, unroll_partition partition, uint64_t seed)
{
  const size_t first = B * (size_t)test_rank / (size_t)test_size;
  return (text_cut){.kind = kind,
                    .partition = partition,
                    .seed = seed,
                    .B = B,
                    .first = first,
                    .count = B * (size_t)(test_rank + 1) / (size_t)test_size - first,
                    .ranks = (size_t)test_size,
                    .what = "training"};
}

static text_source *made(const struct source *src, text_cut cut)
{
  text_source *s = NULL;
  CHECK_ALL(test_ok(text_source_new(test_comm, src->c, src->vocab, &src->part, &cut, &s),
                    "text_source_new", __FILE__, __LINE__));
  return s;
}

/* The same text in another order. Not to be freed. */
static text_source ordered(const text_source *s, unroll_partition partition, uint64_t seed)
{
  text_source other = *s;
  other.cut.partition = partition;
  other.cut.seed = seed;
  return other;
}

/* All tokens of a part; to be freed. */
static int32_t *tokens_of(const struct source *src)
{
  int32_t *tokens = test_alloc(src->part.tokens, sizeof *tokens);
  CHECK_OK(
      corpus_read(src->c, src->vocab, &src->part, 0, src->part.tokens, sizeof *tokens, tokens));
  return tokens;
}

/* ------------------------------------------------------------------- content */

/*
 * x and y of row b of batch k: y is `tokens`, x is one step behind and begins with the line end; behind it -1. Read
 * in windows of 7 steps of all rows of the rank.
 */
static int fill_is(const text_source *s, uint64_t k, size_t b, const int32_t *tokens)
{
  enum { STEPS = 7 };
  const size_t count = s->cut.count, column = b - s->cut.first;
  const uint64_t length = text_source_stretch(s, k, k, b).length;
  int32_t *x = test_alloc(STEPS * count, sizeof *x), *y = test_alloc(STEPS * count, sizeof *y);
  int ok = 1;
  for (uint64_t first = 0; first < length + 2 * STEPS; first += STEPS) {
    for (size_t i = 0; i <= STEPS * count; ++i) { x[i] = y[i] = -77; }
    text_source_fill(s, k, k, first, STEPS, x, y);
    for (size_t t = 0; t < STEPS; ++t) {
      uint64_t at = first + t;
      ok &= y[count * t + column] == (at < length ? tokens[at] : -1);
      ok &= x[count * t + column] == (at > 0 && at < length ? tokens[at - 1] : s->line_end);
    }
    ok &= x[STEPS * count] == -77 && y[STEPS * count] == -77;
  }
  free(x);
  free(y);
  return ok;
}

/*
 * In sequential order the rows of all ranks, one after the other, are the sequences of the text, one after the
 * other; rows differ by one sequence at most. `length` (n) says what they are.
 */
static int is_sequential(const text_source *s, const struct source *src, const uint64_t *length,
                         size_t n)
{
  const size_t B = s->cut.B;
  int32_t *tokens = tokens_of(src);
  uint64_t *in_row = test_alloc(B, sizeof *in_row);
  int ok = 1;
  for (size_t b = s->cut.first; b < s->cut.first + s->cut.count; ++b) {
    for (uint64_t k = 0; k < s->batches; ++k) {
      in_row[b] += text_source_stretch(s, k, k, b).length > 0;
    }
  }
  MPI_Allreduce(MPI_IN_PLACE, in_row, (int)B, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
  uint64_t number = 0, place = 0, rows = 0, most = 0, least = n;
  for (size_t b = 0; b < B; ++b) {
    const int mine = b >= s->cut.first && b < s->cut.first + s->cut.count;
    for (uint64_t k = 0; k < in_row[b] && number < n; ++k, place += length[number++]) {
      if (!mine) { continue; }
      ok &= text_source_stretch(s, k, k, b).length == length[number];
      if (ok) { ok &= fill_is(s, k, b, tokens + place); }
    }
    for (uint64_t k = in_row[b]; k < s->batches && mine; ++k) { /* and then none */
      ok &= text_source_stretch(s, 0, k, b).length == 0;
    }
    rows += in_row[b];
    most = in_row[b] > most ? in_row[b] : most;
    least = in_row[b] < least ? in_row[b] : least;
  }
  ok &= rows == n && number == n && place == src->part.tokens;
  ok &= most == s->batches && most - least <= 1;
  free(in_row);
  free(tokens);
  return ok;
}

/* In random order each row has the sequences that it has in sequential order, each once. */
static int is_permuted(const text_source *s, uint64_t epoch, int *moved)
{
  const text_source mixed = ordered(s, RANDOM, 9);
  int ok = 1;
  for (size_t b = s->cut.first; b < s->cut.first + s->cut.count; ++b) {
    uint64_t in_row = 0, found = 0;
    for (uint64_t i = 0; i < s->batches; ++i) {
      const stretch row = text_source_stretch(s, epoch, i, b);
      uint64_t times = 0;
      for (uint64_t k = 0; k < s->batches && row.length > 0; ++k) {
        const stretch other = text_source_stretch(&mixed, epoch, k, b);
        int same = other.length == row.length && other.start == row.start;
        times += (uint64_t)same;
        *moved |= same && k != i;
      }
      in_row += row.length > 0;
      found += times;
      ok &= times == (row.length > 0);
    }
    ok &= in_row == found;
  }
  return ok;
}

/* The numbers that all ranks must have alike; of each batch, too, which together have all tokens. */
static int agrees(const text_source *s, uint64_t total, uint64_t longest, uint64_t batches)
{
  uint64_t tokens = 0, steps = 0;
  int ok = s->ragged && s->total == total && s->longest == longest && s->batches == batches;
  for (uint64_t k = 0; k < s->batches; ++k) {
    text_extent all = {0}, mine = text_source_extent(s, 1, k);
    ok &= text_source_extent_of_all(test_comm, s, 1, k, &all) == UNROLL_OK;
    ok &= mine.steps <= all.steps && mine.tokens <= all.tokens;
    tokens += all.tokens;
    steps = all.steps > steps ? all.steps : steps;
  }
  return ok && tokens == total && steps == longest;
}

static void check_text(const char *text, size_t size, unroll_level level, unroll_sequences kind)
{
  size_t n = 0;
  uint64_t *length = split(text, size, level, kind, &n);
  struct source src = source_of(test_comm, file_of(text, size), level);
  uint64_t total = 0, longest = 0;
  for (size_t i = 0; i < n; ++i) {
    total += length[i];
    longest = length[i] > longest ? length[i] : longest;
  }
  CHECK_ALL(total == src.part.tokens);
  for (size_t B = (size_t)test_size; B <= n; B += n / 3 + 1) {
    text_source *s = made(&src, cut_of(kind, B, SEQUENTIAL, 0));
    int moved = 0;
    CHECK_ALL(agrees(s, total, longest, (n + B - 1) / B));
    CHECK_ALL(is_sequential(s, &src, length, n));
    CHECK_ALL(is_permuted(s, 0, &moved) && is_permuted(s, 1, &moved));
    text_source_free(&s);
    text_source_free(&s);
  }
  free_source(&src);
  free(length);
}

/* --------------------------------------------------------------------- cases */

static const char *const small[] = {
    "one\ntwo words\n\nthree\nfour four four\nfive\n\n\n\nsix\n", /* empty lines, one or more */
    "a\nbb\n\nccc\n\ndddd\ne f g\nhh",        /* no line end at the end of the text */
    "a\n\nb\n\nc\n\nd\n\n",                   /* empty lines at the end */
    "\n\n\n\n\n\n",                           /* nothing else */
    "\nfirst\n\nsecond\n\nthird\n\nfourth\n", /* an empty line begins the text */
    "\n\n\nfirst\n\nsecond\n\nthird\n\nfourth\n",
    "w\r\nx\r\n\r\ny y\r\n\n\rz\r\n\nv\n\nu\n\n",       /* only LF ends lines; CR is white space */
    "a b\r\nc\r\n\r\nd\r\n\r\n\r\ne\r\nf\r\n\r\ng\r\n", /* every line ends as in Windows */
    "  \n a\n \n  \n   b\n   \nc \n\n   d\n \n  ",      /* blank lines and indented ones */
    "gr\xc3\xbc\xc3\x9f\n\n\xe2\x82\xac\n\nna\xc3\xafve\n\nb\n\nc", /* more bytes than characters */
};

static void test_small_texts_are_split_as_by_hand(void)
{
  for (size_t i = 0; i < COUNT(small); ++i) {
    for (int level = UNROLL_LEVEL_BYTE; level <= UNROLL_LEVEL_WORD; ++level) {
      check_text(small[i], strlen(small[i]), (unroll_level)level, UNROLL_SEQUENCES_LINE);
      check_text(small[i], strlen(small[i]), (unroll_level)level, UNROLL_SEQUENCES_PARAGRAPH);
    }
  }
}

/* Blank lines longer than what is read at a time, so that ranks begin and end in the middle of them. */
static void test_long_blank_lines_are_looked_through(void)
{
  enum { BLANK = 9000, N = 6 };
  char *text = test_alloc(N * (2 * BLANK + 8), 1);
  size_t size = 0;
  for (size_t i = 0; i < N; ++i) {
    for (size_t k = 0; k < 2 * BLANK; ++k) { text[size++] = k % BLANK == BLANK - 1 ? '\n' : ' '; }
    memcpy(text + size, i % 2 ? "   ab\n" : "c\n", i % 2 ? 6 : 2);
    size += i % 2 ? 6 : 2;
  }
  check_text(text, size, UNROLL_LEVEL_CHAR, UNROLL_SEQUENCES_PARAGRAPH);
  check_text(text, size, UNROLL_LEVEL_BYTE, UNROLL_SEQUENCES_LINE);
  free(text);
}

/* The splitter itself, on what can be counted by eye. */
static void test_oracle_counts_as_one_does_by_eye(void)
{
  size_t n = 0;
  uint64_t *length = split("ab c\n\n\nd\n", 9, UNROLL_LEVEL_WORD, UNROLL_SEQUENCES_LINE, &n);
  CU_ASSERT(n == 4 && length[0] == 3 && length[1] == 1 && length[2] == 1 && length[3] == 2);
  free(length);
  length = split("ab c\n\n\nd\n", 9, UNROLL_LEVEL_CHAR, UNROLL_SEQUENCES_PARAGRAPH, &n);
  CU_ASSERT(n == 2 && length[0] == 7 && length[1] == 2);
  free(length);
  length = split("a\r\n \r\nb\r\n", 9, UNROLL_LEVEL_CHAR, UNROLL_SEQUENCES_PARAGRAPH, &n);
  CU_ASSERT(n == 2 && length[0] == 6 && length[1] == 3);
  free(length);
  length = split("\nab\ncd", 6, UNROLL_LEVEL_BYTE, UNROLL_SEQUENCES_PARAGRAPH, &n);
  CU_ASSERT(n == 2 && length[0] == 1 && length[1] == 5);
  free(length);
}

/* A text of `size` bytes in lines of some 40, a fifth of them empty; with line ends around where blocks of the
 * text and the ranks' shares of it begin. */
static char *large_text(size_t size)
{
  char *text = test_alloc(size, 1);
  uint64_t x = 12345;
  for (size_t i = 0; i < size; ++i) {
    x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    text[i] = (x >> 40) % 40 == 0 || (i > 0 && text[i - 1] == '\n' && (x >> 50) % 5 == 0)
                  ? '\n'
                  : (char)('a' + (x >> 33) % 26);
  }
  for (size_t k = 1; k < 24; ++k) {
    const size_t edges[] = {k * CORPUS_BLOCK, size / 24 * k};
    for (size_t e = 0; e < COUNT(edges); ++e) {
      if (edges[e] < 4 || edges[e] + 4 > size) { continue; }
      char *at =
          text + edges[e] - k % 4; /* the first of two line ends, before, at and behind the edge */
      memcpy(at - 1, "x\n\nx", 4);
    }
  }
  return text;
}

static void test_large_text_is_split_as_by_hand(void)
{
  const size_t size =
      24 * 110001; /* two blocks and a half; shares of 1 to 4 ranks begin at edges */
  const unroll_sequences kinds[] = {UNROLL_SEQUENCES_LINE, UNROLL_SEQUENCES_PARAGRAPH};
  char *text = large_text(size);
  for (size_t i = 0; i < COUNT(kinds); ++i) {
    size_t n = 0;
    uint64_t *length = split(text, size, UNROLL_LEVEL_BYTE, kinds[i], &n);
    struct source src = source_of(test_comm, file_of(text, size), UNROLL_LEVEL_BYTE);
    text_source *s = made(&src, cut_of(kinds[i], 12, SEQUENTIAL, 0));
    CHECK_ALL(n > 1000 && s->batches == (n + 11) / 12);
    CHECK_ALL(is_sequential(s, &src, length, n));
    text_source_free(&s);
    free_source(&src);
    free(length);
  }
  free(text);
}

/* ---------------------------------------------------------------- random order */

/* 300 lines of lengths that tell them apart. */
static const char *lines_file(void)
{
  char *text = test_alloc(300, 400);
  size_t used = 0;
  for (size_t i = 0; i < 300; ++i) {
    memset(text + used, 'a' + (int)(i % 26), i);
    used += i;
    text[used++] = '\n';
  }
  const char *path = file_of(text, used);
  free(text);
  return path;
}

/* Lengths in order of the rows of an epoch, all rows of all ranks: (B, batches), to be freed. */
static uint64_t *order_of(const text_source *s, uint64_t seed, uint64_t epoch)
{
  const text_source mixed = ordered(s, RANDOM, seed);
  uint64_t *length = test_alloc(s->cut.B * s->batches, sizeof *length);
  for (size_t b = s->cut.first; b < s->cut.first + s->cut.count; ++b) {
    for (uint64_t k = 0; k < s->batches; ++k) {
      length[b * s->batches + k] = text_source_stretch(&mixed, epoch, k, b).length;
    }
  }
  MPI_Allreduce(MPI_IN_PLACE, length, (int)(s->cut.B * s->batches), MPI_UINT64_T, MPI_SUM,
                MPI_COMM_WORLD);
  return length;
}

static int same_order(const uint64_t *a, const uint64_t *b, size_t n)
{
  return memcmp(a, b, n * sizeof *a) == 0;
}

static void test_random_order_is_a_function_of_seed_epoch_and_row(void)
{
  const size_t B = 12, n = 300;
  struct source src = source_of(test_comm, lines_file(), UNROLL_LEVEL_BYTE);
  text_source *s = made(&src, cut_of(UNROLL_SEQUENCES_LINE, B, SEQUENTIAL, 0)), *alone = NULL;
  uint64_t *first = order_of(s, 5, 0), *again = order_of(s, 5, 0), *later = order_of(s, 5, 1),
           *other = order_of(s, 6, 0);
  int moved = 0;
  CHECK_ALL(s->batches == 25 && is_permuted(s, 0, &moved));
  CHECK_ALL(moved);
  CHECK_ALL(same_order(first, again, n));
  CHECK_ALL(!same_order(first, later, n) && !same_order(first, other, n));
  int alike = 0; /* each row has an order of its own: lengths of row b are 25 b + 1 ... */
  for (size_t b = 1; b < B; ++b) {
    int same = 1;
    for (size_t k = 0; k < 25; ++k) { same &= first[b * 25 + k] - 25 * b == first[k]; }
    alike += same;
  }
  CHECK_ALL(alike == 0);

  /* One rank that has all the rows takes them in the same order. */
  unroll_comm *self = NULL;
  CHECK_OK(unroll_comm_new(MPI_COMM_SELF, &self));
  struct source own = source_of(self, corpus_file_name(src.c, 0), UNROLL_LEVEL_BYTE);
  const text_cut whole = {.kind = UNROLL_SEQUENCES_LINE,
                          .partition = RANDOM,
                          .seed = 5,
                          .B = B,
                          .count = B,
                          .ranks = 1,
                          .what = "training"};
  CHECK_OK(text_source_new(self, own.c, own.vocab, &own.part, &whole, &alone));
  int same = 1;
  for (size_t b = 0; b < B; ++b) {
    for (uint64_t k = 0; k < 25; ++k) {
      same &= text_source_stretch(alone, 1, k, b).length == later[b * 25 + k];
    }
  }
  CHECK_ALL(same);
  text_source_free(&alone);
  free_source(&own);
  unroll_comm_free(&self);

  free(first);
  free(again);
  free(later);
  free(other);
  text_source_free(&s);
  free_source(&src);
}

/* -------------------------------------------------------------------- mistakes */

static int fails(const struct source *src, size_t B, const char *what, const char *part)
{
  text_source *out = NULL;
  text_cut cut = cut_of(UNROLL_SEQUENCES_LINE, B, SEQUENTIAL, 0);
  cut.what = what;
  unroll_status st = text_source_new(test_comm, src->c, src->vocab, &src->part, &cut, &out);
  return test_fails(st, UNROLL_ERR_INPUT, part, __FILE__, __LINE__) && out == NULL;
}

/* The batch that is named is legal, one more for each rank is not. */
static void test_too_few_sequences_name_the_largest_legal_batch(void)
{
  struct source src = source_of(test_comm, lines_file(), UNROLL_LEVEL_BYTE);
  const size_t P = (size_t)test_size;
  char message[300];
  for (size_t lines = 300; lines >= 290; --lines) {
    /* Fewer lines: the last ones are left out of the part. */
    src.part.tokens = lines * (lines + 1) / 2;
    size_t largest = lines / P * P;
    (void)snprintf(message, sizeof message,
                   "validation text has %zu sequences, too few for --batch %zu: the largest legal "
                   "--batch is %zu",
                   lines, largest + P, largest);
    CHECK_ALL(fails(&src, largest + P, "validation", message));
    text_source *s = made(&src, cut_of(UNROLL_SEQUENCES_LINE, largest, SEQUENTIAL, 0));
    CHECK_ALL(s->total == src.part.tokens && s->longest == lines);
    text_source_free(&s);
  }
  if (P > 1) { /* not even one for each rank */
    src.part.tokens = 1;
    (void)snprintf(message, sizeof message,
                   "training text has 1 sequences, too few for --batch %zu: at least %zu are "
                   "needed",
                   P, P);
    CHECK_ALL(fails(&src, P, "training", message));
  }
  free_source(&src);
}

static void test_vocabulary_without_line_end_is_an_error(void)
{
  const char text[] = "a b c d e f g h";
  const size_t P = (size_t)test_size;
  for (int level = UNROLL_LEVEL_CHAR; level <= UNROLL_LEVEL_WORD; ++level) {
    struct source src = source_of(test_comm, file_of(text, strlen(text)), (unroll_level)level);
    CHECK_ALL(fails(&src, P, "training",
                    "--sequences line: the vocabulary of the training text "
                    "has no line end"));
    free_source(&src);
  }
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"oracle", test_oracle_counts_as_one_does_by_eye},
      {"small texts", test_small_texts_are_split_as_by_hand},
      {"long blank lines", test_long_blank_lines_are_looked_through},
      {"a large text", test_large_text_is_split_as_by_hand},
      {"random order", test_random_order_is_a_function_of_seed_epoch_and_row},
      {"too few: largest legal batch", test_too_few_sequences_name_the_largest_legal_batch},
      {"no line end", test_vocabulary_without_line_end_is_an_error},
  };
  return run_mpi_cases(argc, argv, "sequences", COUNT(cases), cases);
}
