#include "data/text_source.h"

#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "data/sequences.h"
#include "data/streams.h"
#include "data/vocab.h"

#include <assert.h>

/* ----------------------------------------------------------- create, free */

/* A row of streams predicts each token behind its first; what the part has behind the last row is in none. */
static unroll_status count_unknown(unroll_comm *comm, const unroll_vocab *vocab,
                                   const corpus_part *part, text_source *text)
{
  const uint64_t n = text->cut.count * text->length;
  text->unknown = 0;
  if (unroll_vocab_rules(vocab).level == UNROLL_LEVEL_BYTE) { return UNROLL_OK; }
  if (text->ragged) {
    text->unknown = part->unknown;
    return UNROLL_OK;
  }
  for (uint64_t i = 1; i <= n; ++i) {
    text->unknown += corpus_stored(text->tokens, text->width, i) == 0;
  }
  return comm_sum_u64(comm, &text->unknown, 1);
}

unroll_status text_source_new(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                              const corpus_part *part, const text_cut *cut, text_source **out)
{
  unroll_status st = UNROLL_OK;
  text_source *text = NULL;
  assert(cut->B >= 1 && cut->first + cut->count <= cut->B);

  UNROLL_TRY(comm_agree(comm, memory_new(1, sizeof *text, "text", &text)));
  *text = (text_source){.cut = *cut,
                        .ragged = cut->kind != UNROLL_SEQUENCES_STREAM,
                        .line_end = vocab_line_end(vocab),
                        .width = corpus_token_width(unroll_vocab_size(vocab))};
  text->n_white = vocab_white(vocab, text->white);
  UNROLL_TRY(text->ragged ? sequences_read(comm, c, vocab, part, text)
                          : streams_read(comm, c, vocab, part, text));
  UNROLL_TRY(count_unknown(comm, vocab, part, text));
  *out = text;
  text = NULL;

cleanup:
  text_source_free(&text);
  return st;
}

void text_source_free(text_source **text)
{
  if (*text == NULL) { return; }
  memory_free(&(*text)->by_length);
  memory_free(&(*text)->start);
  memory_free(&(*text)->row);
  memory_free(&(*text)->tokens);
  memory_free(text);
}

/* ----------------------------------------------------------------- batches */

stretch text_source_stretch(const text_source *text, uint64_t epoch, uint64_t k, size_t b)
{
  assert(b >= text->cut.first && b - text->cut.first < text->cut.count && k < text->batches);
  return text->ragged ? sequences_stretch(text, epoch, k, b) : streams_stretch(text, epoch, k, b);
}

void text_source_lengths(const text_source *text, uint64_t epoch, uint64_t k, uint64_t *length)
{
  for (size_t b = 0; b < text->cut.count; ++b) {
    length[b] = text_source_stretch(text, epoch, k, text->cut.first + b).length;
  }
}

text_extent text_source_extent(const text_source *text, uint64_t epoch, uint64_t k)
{
  text_extent e = {0};
  for (size_t b = 0; b < text->cut.count; ++b) {
    const stretch row = text_source_stretch(text, epoch, k, text->cut.first + b);
    if (row.length > e.steps) { e.steps = row.length; }
    e.tokens += row.length;
  }
  return e;
}

unroll_status text_source_extent_of_all(unroll_comm *comm, const text_source *text, uint64_t epoch,
                                        uint64_t k, text_extent *out)
{
  unroll_status st = UNROLL_OK;
  *out = (text_extent){text->longest, text->longest * text->cut.B};
  if (!text->ragged) { goto cleanup; }
  *out = text_source_extent(text, epoch, k);
  UNROLL_TRY(comm_max_u64(comm, &out->steps, 1));
  UNROLL_TRY(comm_sum_u64(comm, &out->tokens, 1));

cleanup:
  return st;
}

/* Rows copied together: what a cache line of x holds. Time-major rows are often a power of two apart, where the
 * lines that one sequence alone would write fall on each other in the cache. */
#define BLOCK 16

void text_source_fill(const text_source *text, uint64_t epoch, uint64_t k, uint64_t first, size_t n,
                      int32_t *x, int32_t *y)
{
  const size_t count = text->cut.count;
  for (size_t begin = 0; begin < count; begin += BLOCK) {
    const size_t rows = count - begin < BLOCK ? count - begin : BLOCK;
    stretch row[BLOCK];
    for (size_t i = 0; i < rows; ++i) {
      row[i] = text_source_stretch(text, epoch, k, text->cut.first + begin + i);
    }
    for (size_t t = 0; t < n; ++t) {
      int32_t *x_t = x + t * count + begin, *y_t = y + t * count + begin;
      for (size_t i = 0; i < rows; ++i) {
        const uint64_t from = row[i].start + first + t;
        const bool inside = first + t < row[i].length;
        x_t[i] = inside ? corpus_stored(text->tokens, text->width, from) : text->line_end;
        y_t[i] = inside ? corpus_stored(text->tokens, text->width, from + 1) : -1;
      }
    }
  }
}
