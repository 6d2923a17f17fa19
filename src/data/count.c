/*
 * Counting: the tokens of a part, over all ranks, to a vocabulary.
 *
 *   each rank     scans its share of the blocks into tallies, one a thread, that are added up, and notes how
 *                 many tokens each block has
 *   merge         up a binary tree: ranks at distance 1 add up their tallies, then at distance 2, 4, ...
 *                 so that a rank takes part in log2 P rounds, and holds its merged tally and one message
 *   rank 0        orders the tokens and drops the rare; at level bpe, where pieces are counted, it learns the tokens
 *   broadcast     every rank builds the same vocabulary
 *
 * The sums are exact and the order of the tokens is total, so the result does
 * not depend on P.
 */
#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "data/blocks.h"
#include "data/bpe.h"
#include "data/vocab.h"
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Codes scanned at a time: they stay in L1. */
#define BATCH 4096

/* Tokens and how often they occur. */
typedef struct tally {
  words texts;
  uint64_t *counts; /* (max) */
  size_t max;
} tally;

static void tally_free(tally *t)
{
  memory_free(&t->counts);
  words_free(&t->texts);
}

static unroll_status tally_add(tally *t, const char *text, size_t n, uint64_t count)
{
  unroll_status st = UNROLL_OK;
  size_t index = 0;

  UNROLL_TRY(words_add(&t->texts, text, n, &index));
  if (index >= t->max) {
    size_t max = t->max == 0 ? 512 : 2 * t->max;
    UNROLL_TRY(
        memory_resize(t->max, max, sizeof *t->counts, "the counts of the words", &t->counts));
    t->max = max;
  }
  t->counts[index] += count;

cleanup:
  return st;
}

/* -------------------------------------------------------- one rank's share */

/* What one thread counts. */
typedef struct thread_counts {
  tally words;         /* levels word and bpe */
  uint64_t *histogram; /* (codes) levels byte and char */
} thread_counts;

/* What the threads need to know. */
typedef struct counting {
  unroll_text_rules rules;
  thread_counts *of; /* (threads) */
  block_counts *counts;
} counting;

static size_t codes_of(unroll_text_rules rules)
{
  return rules.level == UNROLL_LEVEL_BYTE ? 256 : rules.level == UNROLL_LEVEL_CHAR ? SCAN_CODES : 0;
}

static unroll_status count_codes(scan *s, uint64_t *histogram, uint64_t *tokens)
{
  unroll_status st = UNROLL_OK;
  int32_t codes[BATCH];
  size_t n = 0;

  do {
    UNROLL_TRY(scan_codes(s, BATCH, codes, &n));
    for (size_t i = 0; i < n; ++i) { histogram[codes[i]] += 1; }
    *tokens += n;
  } while (n > 0);

cleanup:
  return st;
}

static unroll_status count_words(scan *s, bool of_pieces, tally *t, uint64_t *tokens)
{
  unroll_status st = UNROLL_OK;
  const char *word = NULL;
  size_t n = 0;

  for (;;) {
    UNROLL_TRY(of_pieces ? scan_piece(s, &word, &n) : scan_word(s, &word, &n));
    if (n == 0) { break; }
    UNROLL_TRY(tally_add(t, word, n, 1));
    *tokens += 1;
  }

cleanup:
  return st;
}

static unroll_status count_block(void *context, size_t thread, size_t k, scan *s)
{
  unroll_status st = UNROLL_OK;
  const counting *c = context;
  thread_counts *mine = &c->of[thread];
  uint64_t tokens = 0;

  if (codes_of(c->rules) == 0) {
    UNROLL_TRY(count_words(s, c->rules.level == UNROLL_LEVEL_BPE, &mine->words, &tokens));
  } else {
    if (mine->histogram == NULL) {
      UNROLL_TRY(memory_new(codes_of(c->rules), sizeof *mine->histogram,
                            "the counts of the characters", &mine->histogram));
    }
    UNROLL_TRY(count_codes(s, mine->histogram, &tokens));
  }
  c->counts->tokens[k] = tokens;
  block_counts_add(c->counts, s, 0);

cleanup:
  return st;
}

/* Add what the threads have counted to a tally: of codes at level byte all 256, else those that occur. */
static unroll_status add_threads(const counting *c, size_t threads, tally *t)
{
  unroll_status st = UNROLL_OK;

  for (size_t i = 0; i < threads; ++i) {
    const tally *one = &c->of[i].words;
    for (size_t k = 0; k < one->texts.n; ++k) {
      size_t n = 0;
      const char *text = words_view(&one->texts, k, &n);
      UNROLL_TRY(tally_add(t, text, n, one->counts[k]));
    }
  }
  for (size_t code = 0; code < codes_of(c->rules); ++code) {
    char text[4] = {(char)code};
    bool byte = c->rules.level == UNROLL_LEVEL_BYTE;
    uint64_t count = 0;
    for (size_t i = 0; i < threads; ++i) {
      count += c->of[i].histogram != NULL ? c->of[i].histogram[code] : 0;
    }
    if (!byte && count == 0) { continue; }
    size_t n = byte ? 1 : scan_utf8_encode((int32_t)code, text);
    UNROLL_TRY(tally_add(t, text, n, count));
  }

cleanup:
  return st;
}

/* The tokens of a rank's share of the part, and how many lie in each of its blocks. At level byte the texts are the
 * 256 bytes, in order. */
static unroll_status count_share(unroll_comm *comm, const corpus *c, const corpus_part *part,
                                 unroll_text_rules rules, tally *t, block_counts *counts)
{
  unroll_status st = UNROLL_OK;
  counting context = {.rules = rules, .counts = counts};
  size_t first = 0;
  size_t last = 0;

  corpus_share(comm, part, &first, &last);
  const size_t threads = scan_threads(last - first);
  UNROLL_TRY(block_counts_new(part, counts));
  UNROLL_TRY(memory_new(threads, sizeof *context.of, "the counts of the threads", &context.of));
  UNROLL_TRY(scan_blocks(c, rules, part, first, last, count_block, &context));
  UNROLL_TRY(add_threads(&context, threads, t));

cleanup:
  for (size_t i = 0; context.of != NULL && i < threads; ++i) {
    memory_free(&context.of[i].histogram);
    tally_free(&context.of[i].words);
  }
  memory_free(&context.of);
  return st;
}

/* ------------------------------------------------------ tallies as messages
 *
 *   | count (8 bytes) | n (8 bytes) | text (n bytes) | next token ...
 */

#define HEAD 16

static void pack_token(char **to, uint64_t count, const char *text, size_t n)
{
  uint64_t head[2] = {count, n};
  memcpy(*to, head, HEAD);
  memcpy(*to + HEAD, text, n);
  *to += HEAD + n;
}

/* Add what a message holds to a tally. */
static unroll_status unpack_tokens(const char *message, size_t size, tally *t)
{
  unroll_status st = UNROLL_OK;
  uint64_t head[2] = {0};

  for (size_t at = 0; at < size; at += HEAD + (size_t)head[1]) {
    memcpy(head, message + at, HEAD);
    UNROLL_TRY(tally_add(t, message + at + HEAD, (size_t)head[1], head[0]));
  }

cleanup:
  return st;
}

/* All of a tally as a message. */
static unroll_status pack_tally(const tally *t, size_t *size, char **message)
{
  unroll_status st = UNROLL_OK;
  const size_t V = t->texts.n;
  const size_t total = V == 0 ? 0 : V * HEAD + (size_t)t->texts.start[V];

  UNROLL_TRY(memory_new(total, 1, "a message of counts", message));
  char *to = *message;
  for (size_t i = 0; i < V; ++i) {
    size_t n = 0;
    const char *text = words_view(&t->texts, i, &n);
    pack_token(&to, t->counts[i], text, n);
  }
  *size = total;

cleanup:
  return st;
}

/* One round of the merge: rank `rank` adds to its tally that of rank `rank + d`. Collective. */
static unroll_status merge_round(unroll_comm *comm, int d, tally *t)
{
  unroll_status st = UNROLL_OK;
  const int rank = unroll_comm_rank(comm);
  const bool gives = rank % (2 * d) == d;
  const bool takes = rank % (2 * d) == 0 && d < unroll_comm_size(comm) - rank;
  char *message = NULL;
  size_t size = 0;

  if (gives) { st = pack_tally(t, &size, &message); }
  UNROLL_TRY(comm_agree(comm, st));
  if (gives) { UNROLL_TRY(comm_send(comm, &size, sizeof size, rank - d)); }
  if (takes) {
    UNROLL_TRY(comm_receive(comm, &size, sizeof size, rank + d));
    st = memory_new(size, 1, "a message of counts", &message);
  }
  UNROLL_TRY(comm_agree(comm, st)); /* before anybody sends into memory that is not there */
  if (gives) {
    tally_free(t);
    UNROLL_TRY(comm_send(comm, message, size, rank - d));
  }
  if (takes) {
    UNROLL_TRY(comm_receive(comm, message, size, rank + d));
    st = unpack_tokens(message, size, t);
  }
  UNROLL_TRY(comm_agree(comm, st));

cleanup:
  memory_free(&message);
  return st;
}

/* Add the tallies of all ranks to that of rank 0, up a binary tree. Collective. */
static unroll_status merge(unroll_comm *comm, tally *t)
{
  unroll_status st = UNROLL_OK;
  const int P = unroll_comm_size(comm);

  for (int d = 1; d < P; d *= 2) { UNROLL_TRY(merge_round(comm, d, t)); }

cleanup:
  return st;
}

/* -------------------------------------------------------- order, drop, share */

typedef struct entry {
  uint64_t count;
  const char *text;
  size_t n;
} entry;

static bool is_text(const entry *e, const char *text)
{
  return e->n == strlen(text) && memcmp(e->text, text, e->n) == 0;
}

static int compare_bytes(const char *a, size_t a_n, const char *b, size_t b_n)
{
  int order = memcmp(a, b, a_n < b_n ? a_n : b_n);
  return order != 0 ? order : a_n < b_n ? -1 : a_n > b_n;
}

/* Falling count, then the bytes of the token; at level word those of the name of the line end, and it before a word
 * of that name. */
static int compare_words(const void *left, const void *right)
{
  entry a = *(const entry *)left, b = *(const entry *)right;
  const int ends = is_text(&b, SCAN_LINE_END) - is_text(&a, SCAN_LINE_END);
  if (a.count != b.count) { return a.count > b.count ? -1 : 1; }
  if (ends < 0) { a = (entry){a.count, SCAN_EOS, strlen(SCAN_EOS)}; }
  if (ends > 0) { b = (entry){b.count, SCAN_EOS, strlen(SCAN_EOS)}; }
  const int order = compare_bytes(a.text, a.n, b.text, b.n);
  return order != 0 ? order : ends;
}

static int compare_characters(const void *left, const void *right)
{
  const entry *a = left, *b = right;
  if (a->count != b->count) { return a->count > b->count ? -1 : 1; }
  return compare_bytes(a->text, a->n, b->text, b->n);
}

/*
 * The vocabulary as a message: `<unk>`, then the kept tokens in order.
 *
 * At level word the line end is kept even where it is rare: a text with lines
 * needs it, and the reader of a vocabulary expects it.
 */
static unroll_status pack_vocabulary(const tally *t, unroll_level level, uint64_t min_count,
                                     uint64_t max_vocab, size_t *size, char **message)
{
  unroll_status st = UNROLL_OK;
  const bool of_words = level == UNROLL_LEVEL_WORD;
  entry *entries = NULL;
  uint64_t unknown = 0;
  uint64_t room = max_vocab == 0 ? UINT64_MAX : max_vocab - 1; /* for tokens beside <unk> */
  size_t total = HEAD + strlen(SCAN_UNK);
  size_t m = 0;

  UNROLL_TRY(memory_new(t->texts.n, sizeof *entries, "the order of the tokens", &entries));
  for (size_t i = 0; i < t->texts.n; ++i) {
    entry e = {.count = t->counts[i]};
    e.text = words_view(&t->texts, i, &e.n);
    if (is_text(&e, SCAN_UNK)) {
      unknown += e.count;
    } else {
      if (of_words && is_text(&e, SCAN_LINE_END) && room > 0) { --room; }
      entries[m++] = e;
    }
  }
  qsort(entries, m, sizeof *entries, of_words ? compare_words : compare_characters);

  size_t kept = 0;
  for (size_t i = 0; i < m; ++i) {
    bool eos = of_words && is_text(&entries[i], SCAN_LINE_END);
    if (!eos && (entries[i].count < min_count || room == 0)) {
      unknown += entries[i].count;
      continue;
    }
    if (!eos) { --room; }
    total += HEAD + entries[i].n;
    entries[kept++] = entries[i];
  }

  UNROLL_TRY(memory_new(total, 1, "the message of the vocabulary", message));
  char *to = *message;
  pack_token(&to, unknown, SCAN_UNK, strlen(SCAN_UNK));
  for (size_t i = 0; i < kept; ++i) {
    pack_token(&to, entries[i].count, entries[i].text, entries[i].n);
  }
  *size = total;

cleanup:
  memory_free(&entries);
  return st;
}

/* Level byte: the bytes are the vocabulary. */
static unroll_status pack_bytes(const tally *t, size_t *size, char **message)
{
  unroll_status st = UNROLL_OK;
  size_t n = 0;

  assert(t->texts.n == 256);
  UNROLL_TRY(memory_new(256, HEAD + 1, "the message of the vocabulary", message));
  char *to = *message;
  for (size_t i = 0; i < 256; ++i) {
    const char *text = words_view(&t->texts, i, &n);
    pack_token(&to, t->counts[i], text, n);
  }
  *size = (size_t)(to - *message);

cleanup:
  return st;
}

/* Level bpe: at most V tokens, learned from the pieces. */
static unroll_status pack_subwords(const tally *pieces, uint64_t V, size_t *size, char **message)
{
  unroll_status st = UNROLL_OK;
  tally learned = {0};

  UNROLL_TRY(bpe_learn(&pieces->texts, pieces->counts, (size_t)V, &learned.texts, &learned.counts));
  UNROLL_TRY(pack_tally(&learned, size, message));

cleanup:
  tally_free(&learned);
  return st;
}

/* The vocabulary of the merged tally of rank 0, to every rank. Collective. */
static unroll_status share_vocabulary(unroll_comm *comm, const corpus *c, const tally *t,
                                      unroll_text_rules rules, uint64_t min_count,
                                      uint64_t max_vocab, unroll_vocab **out)
{
  unroll_status st = UNROLL_OK;
  const bool root = unroll_comm_rank(comm) == 0;
  size_t size = 0;
  char *message = NULL;
  tally final = {0};

  if (root && t->texts.n == 0) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: the text has no word: nothing but separators",
                     c->names[0]);
  } else if (root && rules.level == UNROLL_LEVEL_BYTE) {
    st = pack_bytes(t, &size, &message);
  } else if (root && rules.level == UNROLL_LEVEL_BPE) {
    st = pack_subwords(t, max_vocab, &size, &message);
  } else if (root) {
    st = pack_vocabulary(t, rules.level, min_count, max_vocab, &size, &message);
  }
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(comm_broadcast(comm, &size, sizeof size, 0));
  if (!root) { st = memory_new(size, 1, "the message of the vocabulary", &message); }
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(comm_broadcast(comm, message, size, 0));
  st = unpack_tokens(message, size, &final);
  if (st == UNROLL_OK) { st = vocab_assemble(rules, &final.texts, &final.counts, out); }
  st = comm_agree(comm, st);
  if (st != UNROLL_OK) { unroll_vocab_free(out); }

cleanup:
  tally_free(&final);
  memory_free(&message);
  return st;
}

unroll_status vocab_build(unroll_comm *comm, const corpus *c, corpus_part *part,
                          unroll_text_rules rules, uint64_t min_count, uint64_t max_vocab,
                          unroll_vocab **out)
{
  unroll_status st = UNROLL_OK;
  tally t = {0};
  block_counts counts = {0};
  unroll_vocab *vocab = NULL;

  st = count_share(comm, c, part, rules, &t, &counts);
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(merge(comm, &t));
  UNROLL_TRY(share_vocabulary(comm, c, &t, rules, min_count, max_vocab, &vocab));
  if (rules.level == UNROLL_LEVEL_BPE) { /* only now is it known how many tokens the pieces are */
    UNROLL_TRY(corpus_count(comm, c, vocab, part));
  } else {
    UNROLL_TRY(block_counts_sum(comm, &counts, part));
    /* Only now is it known which tokens are rare. */
    part->unknown = rules.level == UNROLL_LEVEL_BYTE ? 0 : unroll_vocab_count(vocab, 0);
  }
  *out = vocab;
  vocab = NULL;

cleanup:
  unroll_vocab_free(&vocab);
  block_counts_free(&counts);
  tally_free(&t);
  return st;
}
