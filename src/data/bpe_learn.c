/*
 * Learning the merges of bpe.h, in time about linear in the text of the pieces: a table of the pairs with their counts
 * and the pieces that have them, and a heap of pairs. What a merge changes are the pieces that have the pair.
 *
 * A count in the heap is that of some time before: counts of old pairs only fall, so a pair that comes up with too high
 * a count is put back with what it has now. A merge makes new pairs, which have it in them; they enter behind it.
 */
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/bpe.h"

#include <assert.h>
#include <string.h>

typedef struct pair {
  int32_t left, right;
  uint64_t count;  /* neighbours of this kind in the text */
  uint32_t *piece; /* (n) the pieces that had it when it came up, and may have it still */
  size_t n, max;
} pair;

/* In the heap. */
typedef struct candidate {
  uint64_t count;
  size_t pair;
} candidate;

typedef struct learner {
  size_t n_pieces;
  const uint64_t *of_piece; /* (n_pieces) counts */
  uint64_t *start;          /* (n_pieces + 1) into tokens */
  size_t *length;           /* (n_pieces) [tokens] now */
  int32_t *tokens;          /* (start[n_pieces]) */
  pair *pairs;              /* (n_pairs) in the order of their coming */
  size_t n_pairs, max_pairs;
  uint32_t *slot; /* (n_slots) open addressing: 0, or the pair plus one */
  size_t n_slots;
  candidate *heap; /* (n_heap) */
  size_t n_heap, max_heap;
} learner;

static void learner_destroy(learner *l)
{
  for (size_t i = 0; i < l->n_pairs; ++i) { memory_free(&l->pairs[i].piece); }
  memory_free(&l->heap);
  memory_free(&l->slot);
  memory_free(&l->pairs);
  memory_free(&l->tokens);
  memory_free(&l->length);
  memory_free(&l->start);
}

/* -------------------------------------------------------------------- pairs */

static size_t find_slot(const learner *l, int32_t left, int32_t right)
{
  const uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  size_t k = (size_t)random_mix(key) & (l->n_slots - 1);
  for (; l->slot[k] != 0; k = (k + 1) & (l->n_slots - 1)) {
    const pair *p = &l->pairs[l->slot[k] - 1];
    if (p->left == left && p->right == right) { break; }
  }
  return k;
}

/* Room for one more pair. */
static unroll_status make_room(learner *l)
{
  unroll_status st = UNROLL_OK;
  if (l->n_pairs == UINT32_MAX - 1) {
    st = unroll_fail(UNROLL_ERR_INPUT, "the text has more than 2^32 different pairs of tokens");
    goto cleanup;
  }
  if (l->n_pairs == l->max_pairs) {
    const size_t max = 2 * l->max_pairs + 4096;
    UNROLL_TRY(
        memory_resize(l->max_pairs, max, sizeof *l->pairs, "the pairs of tokens", &l->pairs));
    l->max_pairs = max;
  }
  if (2 * (l->n_pairs + 1) > l->n_slots) {
    memory_free(&l->slot);
    l->n_slots = l->n_slots == 0 ? 8192 : 2 * l->n_slots;
    UNROLL_TRY(memory_new(l->n_slots, sizeof *l->slot, "the pairs of tokens", &l->slot));
    for (size_t i = 0; i < l->n_pairs; ++i) {
      l->slot[find_slot(l, l->pairs[i].left, l->pairs[i].right)] = (uint32_t)i + 1;
    }
  }

cleanup:
  return st;
}

/* Add the pairs of a piece to the counts; the piece to what has those from number `first` on. */
static unroll_status add_piece(learner *l, size_t w, size_t first)
{
  unroll_status st = UNROLL_OK;
  const int32_t *t = l->tokens + l->start[w];

  for (size_t i = 0; i + 1 < l->length[w]; ++i) {
    UNROLL_TRY(make_room(l));
    uint32_t *slot = &l->slot[find_slot(l, t[i], t[i + 1])];
    if (*slot == 0) {
      l->pairs[l->n_pairs++] = (pair){.left = t[i], .right = t[i + 1]};
      *slot = (uint32_t)l->n_pairs;
    }
    pair *p = &l->pairs[*slot - 1];
    p->count += l->of_piece[w];
    if (*slot - 1 < first || (p->n > 0 && p->piece[p->n - 1] == w)) { continue; }
    if (p->n == p->max) {
      const size_t max = 2 * p->max + 2;
      UNROLL_TRY(
          memory_resize(p->max, max, sizeof *p->piece, "the pieces that have a pair", &p->piece));
      p->max = max;
    }
    p->piece[p->n++] = (uint32_t)w;
  }

cleanup:
  return st;
}

static void subtract_piece(learner *l, size_t w)
{
  const int32_t *t = l->tokens + l->start[w];
  for (size_t i = 0; i + 1 < l->length[w]; ++i) {
    l->pairs[l->slot[find_slot(l, t[i], t[i + 1])] - 1].count -= l->of_piece[w];
  }
}

/* --------------------------------------------------------------------- heap */

/* Does a come before b? */
static bool is_before(const learner *l, const candidate *a, const candidate *b)
{
  const pair *p = &l->pairs[a->pair], *q = &l->pairs[b->pair];
  if (a->count != b->count) { return a->count > b->count; }
  return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static unroll_status heap_push(learner *l, size_t number)
{
  unroll_status st = UNROLL_OK;
  const candidate c = {l->pairs[number].count, number};
  size_t i = l->n_heap;

  if (c.count < 2) { goto cleanup; }
  if (l->n_heap == l->max_heap) {
    const size_t max = 2 * l->max_heap + 4096;
    UNROLL_TRY(memory_resize(l->max_heap, max, sizeof *l->heap, "the pairs of tokens", &l->heap));
    l->max_heap = max;
  }
  l->n_heap += 1;
  for (; i > 0 && is_before(l, &c, &l->heap[(i - 1) / 2]); i = (i - 1) / 2) {
    l->heap[i] = l->heap[(i - 1) / 2];
  }
  l->heap[i] = c;

cleanup:
  return st;
}

static candidate heap_pop(learner *l)
{
  const candidate top = l->heap[0], last = l->heap[--l->n_heap];
  size_t i = 0;
  for (size_t child = 1; child < l->n_heap; child = 2 * i + 1) {
    if (child + 1 < l->n_heap && is_before(l, &l->heap[child + 1], &l->heap[child])) { ++child; }
    if (!is_before(l, &l->heap[child], &last)) { break; }
    l->heap[i] = l->heap[child];
    i = child;
  }
  l->heap[i] = last;
  return top;
}

/* -------------------------------------------------------------------- learn */

static unroll_status start(learner *l, const words *pieces)
{
  unroll_status st = UNROLL_OK;
  size_t n = 0;

  UNROLL_TRY(memory_new(l->n_pieces + 1, sizeof *l->start, "the pieces", &l->start));
  UNROLL_TRY(memory_new(l->n_pieces, sizeof *l->length, "the pieces", &l->length));
  UNROLL_TRY(memory_new((size_t)pieces->start[l->n_pieces], sizeof *l->tokens,
                        "the tokens of the pieces", &l->tokens));
  memcpy(l->start, pieces->start, (l->n_pieces + 1) * sizeof *l->start);
  for (size_t w = 0; w < l->n_pieces; ++w) {
    const char *piece = words_view(pieces, w, &n);
    l->length[w] = n;
    for (size_t i = 0; i < n; ++i) { l->tokens[l->start[w] + i] = (unsigned char)piece[i]; }
    UNROLL_TRY(add_piece(l, w, 0));
  }
  for (size_t i = 0; i < l->n_pairs; ++i) { UNROLL_TRY(heap_push(l, i)); }

cleanup:
  return st;
}

/* Put token `merge` for a pair, in all pieces. */
static unroll_status apply(learner *l, size_t number, int32_t merge)
{
  unroll_status st = UNROLL_OK;
  const size_t first = l->n_pairs; /* those that come up now have `merge` in them */
  const int32_t left = l->pairs[number].left, right = l->pairs[number].right;

  for (size_t i = 0; i < l->pairs[number].n; ++i) {
    const size_t w = l->pairs[number].piece[i];
    int32_t *t = l->tokens + l->start[w];
    subtract_piece(l, w);
    l->length[w] = bpe_merge(left, right, merge, l->length[w], t);
    UNROLL_TRY(add_piece(l, w, first));
  }
  memory_free(&l->pairs[number].piece);
  l->pairs[number].n = l->pairs[number].max = 0;
  for (size_t i = first; i < l->n_pairs; ++i) { UNROLL_TRY(heap_push(l, i)); }

cleanup:
  return st;
}

/*
 * Add the text of a pair to the tokens. It is none yet: between two places where tokens meet, merges do not depend on
 * what is outside, so that the same text would have become that token here too.
 */
static unroll_status add_text(const pair *p, words *texts)
{
  unroll_status st = UNROLL_OK;
  char *text = NULL;
  size_t n = 0, more = 0, before = texts->n, index = 0;

  const char *left = words_view(texts, (size_t)p->left, &n);
  const char *right = words_view(texts, (size_t)p->right, &more);
  UNROLL_TRY(memory_new(n + more, 1, "the text of a token", &text));
  memcpy(text, left, n);
  memcpy(text + n, right, more);
  UNROLL_TRY(words_add(texts, text, n + more, &index));
  assert(index == before);
  (void)before;

cleanup:
  memory_free(&text);
  return st;
}

unroll_status bpe_learn(const words *pieces, const uint64_t *of_pieces, size_t V, words *texts,
                        uint64_t **counts)
{
  unroll_status st = UNROLL_OK;
  learner l = {.n_pieces = pieces->n, .of_piece = of_pieces};
  size_t index = 0;

  for (int b = 0; b < BPE_BYTES; ++b) { UNROLL_TRY(words_add(texts, &(char){(char)b}, 1, &index)); }
  UNROLL_TRY(start(&l, pieces));
  while (texts->n < V && l.n_heap > 0) {
    const candidate c = heap_pop(&l);
    if (l.pairs[c.pair].count < c.count) {
      UNROLL_TRY(heap_push(&l, c.pair));
      continue;
    }
    UNROLL_TRY(add_text(&l.pairs[c.pair], texts));
    UNROLL_TRY(apply(&l, c.pair, (int32_t)texts->n - 1));
  }

  UNROLL_TRY(memory_new(texts->n, sizeof **counts, "the counts of the tokens", counts));
  for (size_t w = 0; w < l.n_pieces; ++w) {
    for (size_t i = 0; i < l.length[w]; ++i) {
      (*counts)[l.tokens[l.start[w] + i]] += of_pieces[w];
    }
  }

cleanup:
  learner_destroy(&l);
  return st;
}
