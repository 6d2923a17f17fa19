#include "data/bpe.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"

#include <assert.h>
#include <string.h>

/* Pieces that a scanner remembers, and the longest of them [bytes]: most of a text is few short ones. */
#define MEMORY_PIECES ((size_t)1 << 16)
#define MEMORY_BYTES  64

struct bpe {
  size_t V;
  int32_t *left, *right; /* (V) of a merge; -1 of a byte */
  int32_t *slot;         /* (n_slots) open addressing by the pair: 0, or its merge */
  size_t n_slots;        /* a power of two, at least twice V */
};

/* ------------------------------------------------------------------- merges */

static size_t find_slot(const bpe *b, int32_t left, int32_t right)
{
  const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  size_t k = (size_t)random_mix(pair) & (b->n_slots - 1);
  for (; b->slot[k] != 0; k = (k + 1) & (b->n_slots - 1)) {
    const int32_t merge = b->slot[k];
    if (b->left[merge] == left && b->right[merge] == right) { break; }
  }
  return k;
}

size_t bpe_merge(int32_t left, int32_t right, int32_t merge, size_t n, int32_t *tokens)
{
  size_t m = 0;
  for (size_t i = 0; i < n; ++i) {
    const bool both = tokens[i] == left && i + 1 < n && tokens[i + 1] == right;
    tokens[m++] = both ? merge : tokens[i];
    i += both;
  }
  return m;
}

size_t bpe_encode(const bpe *b, const char *piece, size_t n, int32_t *tokens)
{
  for (size_t i = 0; i < n; ++i) { tokens[i] = (unsigned char)piece[i]; }
  for (;;) {
    int32_t least = 0;
    for (size_t i = 0; i + 1 < n; ++i) {
      const int32_t merge = b->slot[find_slot(b, tokens[i], tokens[i + 1])];
      if (merge != 0 && (least == 0 || merge < least)) { least = merge; }
    }
    if (least == 0) { return n; }
    n = bpe_merge(b->left[least], b->right[least], least, n, tokens);
  }
}

unroll_status bpe_new(const words *texts, size_t *bad, bpe **out)
{
  unroll_status st = UNROLL_OK;
  bpe *b = NULL;
  int32_t *tokens = NULL;
  size_t n = 0, longest = 1, k = 0;

  for (size_t i = 0; i < texts->n; ++i) {
    (void)words_view(texts, i, &n);
    longest = n > longest ? n : longest;
  }
  UNROLL_TRY(memory_new(1, sizeof *b, "the merges", &b));
  *b = (bpe){.V = texts->n, .n_slots = 1024};
  while (b->n_slots < 2 * b->V) { b->n_slots *= 2; }
  UNROLL_TRY(memory_new(b->V, sizeof *b->left, "the merges", &b->left));
  UNROLL_TRY(memory_new(b->V, sizeof *b->right, "the merges", &b->right));
  UNROLL_TRY(memory_new(b->n_slots, sizeof *b->slot, "the merges", &b->slot));
  UNROLL_TRY(memory_new(longest, sizeof *tokens, "the longest token", &tokens));
  for (; k < texts->n; ++k) {
    const char *text = words_view(texts, k, &n);
    const size_t parts = bpe_encode(b, text, n, tokens);
    if (k < BPE_BYTES ? n != 1 || tokens[0] != (int32_t)k : parts != 2) { break; }
    b->left[k] = k < BPE_BYTES ? -1 : tokens[0];
    b->right[k] = k < BPE_BYTES ? -1 : tokens[1];
    if (k >= BPE_BYTES) { b->slot[find_slot(b, tokens[0], tokens[1])] = (int32_t)k; }
  }
  *bad = k;
  if (k == texts->n) {
    *out = b;
    b = NULL;
  }

cleanup:
  memory_free(&tokens);
  bpe_free(&b);
  return st;
}

void bpe_free(bpe **b)
{
  if (*b == NULL) { return; }
  memory_free(&(*b)->slot);
  memory_free(&(*b)->right);
  memory_free(&(*b)->left);
  memory_free(b);
}

/* --------------------------------------------------------- reading a range */

struct bpe_memory {
  words pieces;
  size_t *start;   /* (pieces.n + 1) of the tokens of a piece; room for MEMORY_PIECES */
  int32_t *tokens; /* (max) */
  size_t max;
  int32_t *piece;         /* (SCAN_PIECE) the tokens of a piece that is not remembered */
  const int32_t *pending; /* (n_pending) */
  size_t n_pending;
};

void bpe_memory_free(bpe_memory **m)
{
  if (*m == NULL) { return; }
  memory_free(&(*m)->piece);
  memory_free(&(*m)->tokens);
  memory_free(&(*m)->start);
  words_free(&(*m)->pieces);
  memory_free(m);
}

void bpe_memory_restart(bpe_memory *m)
{
  if (m != NULL) { m->n_pending = 0; }
}

static unroll_status memory_of_scan(scan *s, bpe_memory **out)
{
  unroll_status st = UNROLL_OK;
  bpe_memory **m = scan_memory(s);

  if (*m == NULL) {
    UNROLL_TRY(memory_new(1, sizeof **m, "the pieces of a scanner", m));
    UNROLL_TRY(memory_new(MEMORY_PIECES + 1, sizeof *(*m)->start, "the pieces of a scanner",
                          &(*m)->start));
    UNROLL_TRY(memory_new(SCAN_PIECE, sizeof *(*m)->piece, "the tokens of a piece", &(*m)->piece));
  }
  *out = *m;

cleanup:
  return st;
}

/* The tokens of a piece become those that are pending. */
static unroll_status take_piece(const bpe *b, bpe_memory *m, const char *piece, size_t n)
{
  unroll_status st = UNROLL_OK;
  const int64_t known = words_find(&m->pieces, piece, n);
  size_t i = (size_t)known;

  if (known < 0 && (m->pieces.n == MEMORY_PIECES || n > MEMORY_BYTES)) {
    m->pending = m->piece;
    m->n_pending = bpe_encode(b, piece, n, m->piece);
    goto cleanup;
  }
  if (known < 0) {
    const size_t used = m->start[m->pieces.n];
    if (used + n > m->max) {
      const size_t max = 2 * m->max + 4096;
      UNROLL_TRY(memory_resize(m->max, max, sizeof *m->tokens, "the tokens of pieces", &m->tokens));
      m->max = max;
    }
    UNROLL_TRY(words_add(&m->pieces, piece, n, &i));
    m->start[i + 1] = used + bpe_encode(b, piece, n, m->tokens + used);
  }
  m->pending = m->tokens + m->start[i];
  m->n_pending = m->start[i + 1] - m->start[i];

cleanup:
  return st;
}

unroll_status bpe_scan(const bpe *b, scan *s, size_t max, int32_t *tokens, size_t *n)
{
  unroll_status st = UNROLL_OK;
  bpe_memory *memory = NULL;
  size_t m = 0;

  UNROLL_TRY(memory_of_scan(s, &memory));
  while (m < max) {
    const char *piece = NULL;
    size_t bytes = 0;
    if (memory->n_pending == 0) {
      UNROLL_TRY(scan_piece(s, &piece, &bytes));
      if (bytes == 0) { break; }
      UNROLL_TRY(take_piece(b, memory, piece, bytes));
    }
    const size_t take = memory->n_pending < max - m ? memory->n_pending : max - m;
    memcpy(tokens + m, memory->pending, take * sizeof *tokens);
    memory->pending += take;
    memory->n_pending -= take;
    m += take;
  }
  *n = m;

cleanup:
  return st;
}
