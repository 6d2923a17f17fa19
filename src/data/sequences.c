#include "data/sequences.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "comm/comm.h"
#include "data/vocab.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Places mixed in a row sorted by length: enough that batches differ from epoch to epoch. */
#define NEIGHBOURS 16

/* [tokens] read at a time while looking for starts: a corpus block of the shortest tokens. */
#define READ CORPUS_BLOCK

/* [tokens] read at a time while looking for the end of white space: more than is usual of it. */
#define BACK ((uint64_t)4096)

/* ---------------------------------------------------------- where they start */

/* Places of starts within a share of the tokens. */
typedef struct starts {
  uint64_t *place;
  size_t n, room;
} starts;

static unroll_status starts_add(starts *s, uint64_t place)
{
  unroll_status st = UNROLL_OK;
  if (s->n == s->room) {
    uint64_t *more = NULL;
    size_t room = s->room == 0 ? 1024 : 2 * s->room;
    UNROLL_TRY(memory_new(room, sizeof *more, "starts of sequences", &more));
    if (s->n > 0) { memcpy(more, s->place, s->n * sizeof *more); }
    memory_free(&s->place);
    s->place = more;
    s->room = room;
  }
  s->place[s->n++] = place;

cleanup:
  return st;
}

/* The line in which a token stands, for one pass over the tokens of a part. */
typedef struct line {
  const text_source *text;
  uint64_t begin;   /* place of its first token */
  bool blank;       /* white space only, so far */
  bool after_blank; /* the line before was blank */
} line;

/* Is this token neither the end of a line nor white space? */
static bool is_ink(const text_source *s, int32_t token)
{
  bool white = token == s->line_end;
  for (size_t i = 0; i < s->n_white; ++i) { white |= token == s->white[i]; }
  return !white;
}

/* Is it still open whether a paragraph starts at the beginning of this line? */
static bool is_open(const line *l)
{
  return l->text->cut.kind == UNROLL_SEQUENCES_PARAGRAPH && l->blank && l->after_blank;
}

/* Pass over a token: true when a sequence turns out to start at l->begin. */
static bool pass(line *l, uint64_t place, int32_t token)
{
  bool begins = place == 0;
  if (l->text->cut.kind == UNROLL_SEQUENCES_LINE) { begins |= place == l->begin; }
  if (is_ink(l->text, token)) {
    begins |= is_open(l);
    l->blank = false;
  }
  return begins;
}

/* Go on to the next token. */
static void step(line *l, uint64_t place, int32_t token)
{
  if (token != l->text->line_end) { return; }
  *l = (line){.text = l->text, .begin = place + 1, .blank = true, .after_blank = l->blank};
}

/* Where to begin to read, so that it is known in which line place `begin` is: at the last token before that is no white
 * space, or at the very first; in `tokens` is room for READ. */
static unroll_status find_ink(const corpus *c, const unroll_vocab *vocab, const corpus_part *part,
                              const text_source *s, uint64_t begin, void *tokens, uint64_t *from)
{
  unroll_status st = UNROLL_OK;

  *from = begin;
  while (*from > 0) {
    const uint64_t n = *from < BACK ? *from : BACK;
    UNROLL_TRY(corpus_read(c, vocab, part, *from - n, n, s->width, tokens));
    for (uint64_t i = n; i > 0; --i) {
      *from -= 1;
      if (is_ink(s, corpus_stored(tokens, s->width, i - 1))) { goto cleanup; }
    }
  }

cleanup:
  return st;
}

/* Starts among the tokens [begin, end) of a part. */
static unroll_status find_starts(const corpus *c, const unroll_vocab *vocab,
                                 const corpus_part *part, const text_source *s, uint64_t begin,
                                 uint64_t end, starts *out)
{
  unroll_status st = UNROLL_OK;
  void *tokens = NULL;
  uint64_t at = 0;

  UNROLL_TRY(memory_new((size_t)READ, s->width, "tokens", &tokens));
  UNROLL_TRY(find_ink(c, vocab, part, s, begin, tokens, &at));
  line l = {.text = s, .begin = at, .blank = true};
  while (at < end || (at < part->tokens && is_open(&l) && l.begin < end)) {
    const uint64_t left = at < end ? end - at : part->tokens - at;
    const uint64_t most = at < end ? READ : BACK;
    const uint64_t n = left < most ? left : most;
    UNROLL_TRY(corpus_read(c, vocab, part, at, n, s->width, tokens));
    for (uint64_t i = 0; i < n; ++i) {
      const int32_t token = corpus_stored(tokens, s->width, i);
      const bool starts_here = pass(&l, at + i, token);
      if (starts_here && l.begin >= begin && l.begin < end) {
        UNROLL_TRY(starts_add(out, l.begin));
      }
      step(&l, at + i, token);
    }
    at += n;
  }

cleanup:
  memory_free(&tokens);
  return st;
}

/* First of M sequences in row b of B. */
static uint64_t row_start(uint64_t M, size_t B, size_t b)
{
  return M / B * b + M % B * b / B;
}

/* ------------------------------------------------------------ by their length */

typedef struct by_length {
  uint64_t length, number;
} by_length;

static int shorter(const void *a, const void *b)
{
  const by_length *x = a, *y = b;
  int order = (x->length > y->length) - (x->length < y->length);
  return order != 0 ? order : (x->number > y->number) - (x->number < y->number);
}

static unroll_status sort_rows(text_source *s)
{
  unroll_status st = UNROLL_OK;
  const size_t n = (size_t)s->row[s->cut.count];
  by_length *all = NULL;

  UNROLL_TRY(memory_new(n, sizeof *s->by_length, "order of sequences", &s->by_length));
  UNROLL_TRY(memory_new(n, sizeof *all, "order of sequences", &all));
  for (size_t i = 0; i < n; ++i) { all[i] = (by_length){s->start[i + 1] - s->start[i], i}; }
  for (size_t b = 0; b < s->cut.count; ++b) {
    qsort(all + s->row[b], (size_t)(s->row[b + 1] - s->row[b]), sizeof *all, shorter);
  }
  for (size_t i = 0; i < n; ++i) { s->by_length[i] = all[i].number; }

cleanup:
  memory_free(&all);
  return st;
}

/* ----------------------------------------------------------- create, free */

/* Say that M sequences are too few for B rows on P ranks, and which batch they would do for. */
static unroll_status fail_few(const text_cut *cut, uint64_t M)
{
  const char *what = cut->what, *option = text_cut_option(cut);
  const size_t B = cut->B, P = cut->ranks;
  uint64_t fewest = B % P == 0 ? P : 1; /* every rank has the same number of rows */
  if (M < fewest) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s text has %" PRIu64 " sequences, too few for %s %zu: at least %" PRIu64
                       " are needed",
                       what, M, option, B, fewest);
  }
  return unroll_fail(UNROLL_ERR_INPUT,
                     "%s text has %" PRIu64
                     " sequences, too few for %s %zu: the largest legal %s is %" PRIu64 "%s",
                     what, M, option, B, option, M - M % fewest,
                     strcmp(what, "validation") == 0 ? "; --valid-fraction or --valid give it more"
                                                     : "");
}

/*
 * Where each row begins in the text: every rank looks through its share of all
 * tokens, the counts give each start its number, and whoever has found the
 * first of a row tells its place. Collective.
 */
static unroll_status place_rows(unroll_comm *comm, const starts *mine, const text_cut *cut,
                                uint64_t *M, uint64_t *place)
{
  unroll_status st = UNROLL_OK;
  const size_t B = cut->B;
  size_t P = (size_t)unroll_comm_size(comm), rank = (size_t)unroll_comm_rank(comm);
  uint64_t *counts = NULL, before = 0;

  UNROLL_TRY(comm_agree(comm, memory_new(P, sizeof *counts, "numbers of sequences", &counts)));
  counts[rank] = mine->n;
  UNROLL_TRY(comm_sum_u64(comm, counts, P));
  *M = 0;
  for (size_t r = 0; r < P; ++r) {
    if (r == rank) { before = *M; }
    *M += counts[r];
  }
  if (*M < B) {
    st = fail_few(cut, *M);
    goto cleanup;
  }
  for (size_t b = 0; b < B; ++b) {
    uint64_t number = row_start(*M, B, b);
    if (number >= before && number - before < mine->n) { place[b] = mine->place[number - before]; }
  }
  UNROLL_TRY(comm_sum_u64(comm, place, B));

cleanup:
  memory_free(&counts);
  return st;
}

/* Tokens of the longest sequence of all N tokens; `mine` are the starts in this rank's share of them. Collective. */
static unroll_status find_longest(unroll_comm *comm, const starts *mine, uint64_t N,
                                  uint64_t *longest)
{
  unroll_status st = UNROLL_OK;
  const size_t P = (size_t)unroll_comm_size(comm), rank = (size_t)unroll_comm_rank(comm);
  size_t next = rank + 1;
  uint64_t *first = NULL; /* of each rank's starts; 0: it has none behind the first of all */

  UNROLL_TRY(comm_agree(comm, memory_new(P + 1, sizeof *first, "places of sequences", &first)));
  if (mine->n > 0) { first[rank] = mine->place[0]; }
  UNROLL_TRY(comm_sum_u64(comm, first, P));
  first[P] = N;
  while (next < P && first[next] == 0) { next += 1; }
  *longest = 0;
  for (size_t i = 0; i < mine->n; ++i) {
    uint64_t length = (i + 1 < mine->n ? mine->place[i + 1] : first[next]) - mine->place[i];
    if (length > *longest) { *longest = length; }
  }
  UNROLL_TRY(comm_max_u64(comm, longest, 1));

cleanup:
  memory_free(&first);
  return st;
}

/* This rank's rows: tokens from `begin` to `end` of the part, behind a line end, with M sequences in all rows. */
static unroll_status read_rows(const corpus *c, const unroll_vocab *vocab, const corpus_part *part,
                               uint64_t M, uint64_t begin, uint64_t end, text_source *s)
{
  unroll_status st = UNROLL_OK;
  const size_t count = s->cut.count;
  starts found = {0};
  const uint64_t base = row_start(M, s->cut.B, s->cut.first);

  UNROLL_TRY(memory_new(count + 1, sizeof *s->row, "rows", &s->row));
  for (size_t b = 0; b <= count; ++b) {
    s->row[b] = row_start(M, s->cut.B, s->cut.first + b) - base;
  }
  UNROLL_TRY(find_starts(c, vocab, part, s, begin, end, &found));
  UNROLL_TRY(starts_add(&found, end));
  for (size_t i = 0; i < found.n; ++i) { found.place[i] -= begin; }
  assert(found.n == s->row[count] + 1);
  UNROLL_TRY(memory_new((size_t)(end - begin) + 1, s->width, "the tokens of this rank's sequences",
                        &s->tokens));
  corpus_store(&s->line_end, 1, s->width, s->tokens, 0);
  UNROLL_TRY(
      corpus_read(c, vocab, part, begin, end - begin, s->width, (char *)s->tokens + s->width));
  s->start = found.place;
  found.place = NULL;
  UNROLL_TRY(sort_rows(s));

cleanup:
  memory_free(&found.place);
  return st;
}

unroll_status sequences_read(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                             const corpus_part *part, text_source *s)
{
  unroll_status st = UNROLL_OK;
  const text_cut *cut = &s->cut;
  const size_t B = cut->B;
  starts mine = {0};
  uint64_t *place = NULL, M = 0;
  const uint64_t N = part->tokens, P = (uint64_t)unroll_comm_size(comm),
                 rank = (uint64_t)unroll_comm_rank(comm);

  if (s->line_end < 0) {
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "--sequences %s: the vocabulary of the %s text has no line end",
                     cut->kind == UNROLL_SEQUENCES_LINE ? "line" : "paragraph", cut->what);
    goto cleanup;
  }
  UNROLL_TRY(comm_agree(comm, memory_new(B + 1, sizeof *place, "places of rows", &place)));
  UNROLL_TRY(comm_agree(comm, find_starts(c, vocab, part, s, N / P * rank + N % P * rank / P,
                                          N / P * (rank + 1) + N % P * (rank + 1) / P, &mine)));
  UNROLL_TRY(place_rows(comm, &mine, cut, &M, place));
  UNROLL_TRY(find_longest(comm, &mine, N, &s->longest));
  place[B] = N;
  memory_free(&mine.place);
  s->batches = (M + B - 1) / B;
  s->total = N;
  UNROLL_TRY(comm_agree(
      comm, read_rows(c, vocab, part, M, place[cut->first], place[cut->first + cut->count], s)));

cleanup:
  memory_free(&mine.place);
  memory_free(&place);
  return st;
}

/* ----------------------------------------------------------------- batches */

stretch sequences_stretch(const text_source *s, uint64_t epoch, uint64_t k, size_t b)
{
  const uint64_t seed = s->cut.seed, *row = s->row + (b - s->cut.first);
  const uint64_t n = row[1] - row[0];
  const bool in_order = s->cut.partition == UNROLL_PARTITION_SEQUENTIAL;
  uint64_t place = k, number = 0;

  if (!in_order) {
    uint64_t of_all = random_bits(seed, RANDOM_ORDER, epoch, s->cut.B);
    place = random_permuted(seed, RANDOM_ORDER, of_all, s->batches, k);
  }
  if (place >= n) { return (stretch){0}; }
  number = row[0] + place;
  if (!in_order) {
    uint64_t begin = place - place % NEIGHBOURS;
    uint64_t width = n - begin < NEIGHBOURS ? n - begin : NEIGHBOURS;
    uint64_t of_row = random_bits(seed, RANDOM_ORDER, epoch, b);
    uint64_t key = random_bits(seed, RANDOM_ORDER, of_row, begin);
    number = s->by_length[row[0] + begin +
                          random_permuted(seed, RANDOM_ORDER, key, width, place - begin)];
  }
  return (stretch){s->start[number], s->start[number + 1] - s->start[number]};
}
