#include "data/streams.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "comm/comm.h"
#include <inttypes.h>
#include <stdio.h>

/* ----------------------------------------------------------- create, free */

/* Say that N tokens are too few, and which batch and which steps they would do for. */
static unroll_status fail_short(const text_cut *cut, uint64_t N, size_t T)
{
  const char *what = cut->what, *option = text_cut_option(cut);
  const size_t B = cut->B, P = cut->ranks;
  char advice[256] = "";
  int at = 0;
  uint64_t batch = N > 0 ? (N - 1) / T : 0;
  uint64_t steps = N > 0 ? (N - 1) / B : 0;

  if (B % P == 0) { batch -= batch % P; } /* every rank has the same number of sequences */
  if (batch > 0) {
    at = snprintf(advice, sizeof advice, "the largest legal %s is %" PRIu64, option, batch);
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
  return unroll_fail(UNROLL_ERR_INPUT, "%s text has %" PRIu64 " tokens, too few for %s %zu: %s",
                     what, N, option, B, advice);
}

void streams_cut(text_source *s, uint64_t length)
{
  const uint64_t T = s->cut.window;
  const bool in_windows = s->cut.partition == UNROLL_PARTITION_RANDOM && T > 0;
  s->length = length;
  s->longest = in_windows ? T : length;
  s->batches = !in_windows ? 1 : length < 2 * T - 1 ? 1 : (length - (T - 1)) / T;
  s->total = s->batches * s->longest * s->cut.B;
}

/* What one rank does of streams_read. */
static unroll_status read_rows(const corpus *c, const unroll_vocab *vocab, const corpus_part *part,
                               text_source *s)
{
  unroll_status st = UNROLL_OK;
  const text_cut *cut = &s->cut;
  const size_t least = cut->window > 0 ? cut->window : 1;
  const uint64_t length = part->tokens > 0 ? (part->tokens - 1) / cut->B : 0;
  const uint64_t n = cut->count == 0 ? 0 : cut->count * length + 1;

  const bool of_words = unroll_vocab_rules(vocab).level == UNROLL_LEVEL_WORD;
  if (length < least && of_words && part->characters > CORPUS_LONG_WORD * part->tokens) {
    st = unroll_fail(
        UNROLL_ERR_INPUT,
        "%s text has %" PRIu64 " words in %" PRIu64
        " characters: there is hardly any white space between words; a model of --level char reads "
        "any text",
        cut->what, part->tokens, part->characters);
    goto cleanup;
  }
  if (length < least) { /* the same numbers, and so the same message, on every rank */
    st = fail_short(cut, part->tokens, least);
    goto cleanup;
  }
  streams_cut(s, length);
  UNROLL_TRY(memory_new((size_t)n, s->width, "the tokens of this rank's streams", &s->tokens));
  UNROLL_TRY(corpus_read(c, vocab, part, cut->first * length, n, s->width, s->tokens));

cleanup:
  return st;
}

unroll_status streams_read(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                           const corpus_part *part, text_source *s)
{
  return comm_agree(comm, read_rows(c, vocab, part, s));
}

/* ----------------------------------------------------------------- windows */

stretch streams_stretch(const text_source *s, uint64_t epoch, uint64_t k, size_t b)
{
  const uint64_t row = (b - s->cut.first) * s->length, T = s->longest, seed = s->cut.seed;
  const uint64_t spare = s->length - s->batches * T; /* what the windows leave of the stream */
  if (T == s->length) { return (stretch){row, T}; }

  uint64_t offsets = spare < T ? spare + 1 : T;
  uint64_t offset = random_below(seed, RANDOM_OFFSET, epoch, b, offsets);
  uint64_t key = random_bits(seed, RANDOM_ORDER, epoch, b);
  uint64_t window = random_permuted(seed, RANDOM_ORDER, key, s->batches, k);
  return (stretch){row + offset + T * window, T};
}
