#include "data/streams.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "comm/comm.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* ----------------------------------------------------------- create, free */

/* Say that N tokens are too few, and which batch and which steps they would do for. */
static unroll_status fail_short(const char *what, uint64_t N, size_t B, size_t T, size_t P)
{
  char advice[256] = "";
  int at = 0;
  uint64_t batch = N > 0 ? (N - 1) / T : 0;
  uint64_t steps = N > 0 ? (N - 1) / B : 0;

  if (B % P == 0) { batch -= batch % P; } /* every rank has the same number of sequences */
  if (batch > 0) {
    at = snprintf(advice, sizeof advice, "the largest legal --batch is %" PRIu64, batch);
    if (T > 1) {
      at += snprintf(advice + at, sizeof advice - (size_t)at, " (with --steps %zu)", T);
    }
  }
  if (steps > 0 && T > 1) {
    (void)snprintf(advice + at, sizeof advice - (size_t)at,
                   "%sthe largest legal --steps is %" PRIu64 " (with --batch %zu)",
                   at > 0 ? ", " : "", steps, B);
  } else if (batch == 0) {
    size_t fewest = B % P == 0 ? P : 1;
    uint64_t longest = N > 0 ? (N - 1) / fewest : 0;
    if (longest > 0) {
      (void)snprintf(advice, sizeof advice,
                     "with --batch %zu the largest legal --steps is %" PRIu64, fewest, longest);
    } else {
      (void)snprintf(advice, sizeof advice, "at least %zu tokens are needed", fewest + 1);
    }
  }
  if (T > 1) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s text has %" PRIu64
                       " tokens, too few for --batch %zu with --steps %zu: %s",
                       what, N, B, T, advice);
  }
  return unroll_fail(UNROLL_ERR_INPUT,
                     "%s text has %" PRIu64 " tokens, too few for --batch %zu: %s", what, N, B,
                     advice);
}

/* What one rank does of streams_new. */
static unroll_status read_streams(const corpus *c, const unroll_vocab *vocab,
                                  const corpus_part *part, streams *s)
{
  unroll_status st = UNROLL_OK;
  uint64_t n = s->count == 0 ? 0 : s->count * s->length + 1;

  UNROLL_TRY(memory_new((size_t)n, s->width, "the tokens of this rank's streams", &s->tokens));
  UNROLL_TRY(corpus_read(c, vocab, part, s->first * s->length, n, s->width, s->tokens));

cleanup:
  return st;
}

unroll_status streams_new(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                          const corpus_part *part, size_t B, size_t first, size_t count,
                          size_t ranks, size_t least, const char *what, streams **out)
{
  unroll_status st = UNROLL_OK;
  streams *s = NULL;
  const uint64_t length = part->tokens > 0 ? (part->tokens - 1) / B : 0;
  assert(B >= 1 && least >= 1 && first + count <= B);

  if (length < least) { /* the same numbers, and so the same message, on every rank */
    st = fail_short(what, part->tokens, B, least, ranks);
    goto cleanup;
  }
  st = memory_new(1, sizeof *s, "the streams", &s);
  if (st == UNROLL_OK) {
    *s = (streams){.B = B, .first = first, .count = count, .length = length};
    s->width = corpus_token_width(unroll_vocab_size(vocab));
    st = read_streams(c, vocab, part, s);
  }
  UNROLL_TRY(comm_agree(comm, st));
  *out = s;
  s = NULL;

cleanup:
  streams_free(&s);
  return st;
}

void streams_free(streams **s)
{
  if (*s == NULL) { return; }
  memory_free(&(*s)->tokens);
  memory_free(s);
}

/* ----------------------------------------------------------------- windows */

uint64_t streams_windows(const streams *s, unroll_partition partition, size_t T)
{
  assert(T >= 1);
  if (partition == UNROLL_PARTITION_SEQUENTIAL || s->length < T) { return s->length / T; }
  uint64_t windows = (s->length - (T - 1)) / T;
  return windows > 0 ? windows : 1;
}

uint64_t streams_position(const streams *s, unroll_partition partition, size_t T, uint64_t seed,
                          uint64_t epoch, uint64_t k, size_t b)
{
  const uint64_t windows = streams_windows(s, partition, T);
  assert(k < windows && b < s->B);
  if (partition == UNROLL_PARTITION_SEQUENTIAL) { return k * T; }

  uint64_t spare = s->length - windows * T; /* what the windows leave of the stream */
  uint64_t offsets = spare < T ? spare + 1 : T;
  uint64_t offset = random_below(seed, RANDOM_OFFSET, epoch, b, offsets);
  uint64_t key = random_bits(seed, RANDOM_ORDER, epoch, b);
  return offset + T * random_permuted(seed, RANDOM_ORDER, key, windows, k);
}

/* Of `count` neighbouring streams, of this rank's from the first on: x[t * stride + i] for t < n, i < count. */
static void copy_streams(const streams *s, size_t first, size_t count, uint64_t position, size_t n,
                         size_t stride, int32_t *x, int32_t *y)
{
  assert(first + count <= s->count && position + n <= s->length);
  for (size_t t = 0; t < n; ++t) {
    for (size_t i = 0; i < count; ++i) {
      const uint64_t from = (first + i) * s->length + position + t;
      x[t * stride + i] = corpus_stored(s->tokens, s->width, from);
      y[t * stride + i] = corpus_stored(s->tokens, s->width, from + 1);
    }
  }
}

void streams_copy(const streams *s, size_t b, uint64_t position, size_t n, size_t stride,
                  int32_t *x, int32_t *y)
{
  assert(b >= s->first);
  copy_streams(s, b - s->first, 1, position, n, stride, x, y);
}

/* Sequences copied together: what a cache line of x holds. Time-major rows are often a power of two apart, where the
 * lines that one sequence alone would write fall on each other in the cache. */
#define BLOCK 16

void streams_window(const streams *s, uint64_t position, size_t n, int32_t *x, int32_t *y)
{
  for (size_t first = 0; first < s->count; first += BLOCK) {
    size_t count = s->count - first < BLOCK ? s->count - first : BLOCK;
    copy_streams(s, first, count, position, n, s->count, x + first, y + first);
  }
}
