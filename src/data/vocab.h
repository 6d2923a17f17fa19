#ifndef DATA_VOCAB_H
#define DATA_VOCAB_H

/*
 * Inside of the vocabulary: a set of words numbered in the order of their
 * coming, and the way from scanned text to indices.
 */
#include "data/scan.h"
#include <unroll/vocab.h>

/*
 * A set of byte strings, each with a number: 0, 1, 2, ... in the order added.
 * All zero is an empty set.
 *
 *   pool   | first string | second string | ...
 *   start    0              start[1]        ...            start[n]
 *   slot   open addressing: 0, or the upper half of the hash above the number plus one
 */
typedef struct words {
  size_t n;        /* strings */
  size_t max_n;    /* room in start, less one */
  uint64_t *start; /* (n + 1) [bytes] */
  char *pool;      /* (start[n]) */
  size_t max_pool; /* [bytes] */
  uint64_t *slot;  /* (n_slots), at most half of them taken */
  size_t n_slots;  /* a power of two, or 0 */
} words;

/** Number of a string, adding it if need be: then *index was w->n. Fails for want of memory only. */
unroll_status words_add(words *w, const char *text, size_t n, size_t *index);

/** Number of a string, or -1. */
int64_t words_find(const words *w, const char *text, size_t n);

/** String i, *n bytes, not zero-terminated; valid until the next words_add. */
const char *words_view(const words *w, size_t i, size_t *n);

/** The hash the set uses: of the bytes alone, the same on every rank of one architecture. */
uint64_t words_hash(const char *text, size_t n);
void words_free(words *w);

/**
 * A vocabulary of texts in their final order: at level byte the 256 bytes, else `<unk>` and then the
 * tokens in UTF-8. Takes over *texts and *counts (V) and leaves them empty, on success only.
 */
unroll_status vocab_assemble(unroll_text_rules rules, words *texts, uint64_t **counts,
                             unroll_vocab **out);

/** The next indices of a range, at most max of them; *n is 0 when it is done. */
unroll_status vocab_scan(const unroll_vocab *vocab, scan *s, size_t max, int32_t *tokens,
                         size_t *n);

/** The token of a line end: the line feed; -1 where the vocabulary has none. */
int32_t vocab_line_end(const unroll_vocab *vocab);

/* Kinds of white space within a line: space, \t, \v, \f and \r. */
#define VOCAB_WHITE 5

/** Tokens that are white space within a line, beside the line end; returns how many: none at level word. */
size_t vocab_white(const unroll_vocab *vocab, int32_t white[VOCAB_WHITE]);

/** How many of these are `<unk>`; none at level byte. */
size_t vocab_unknown(const unroll_vocab *vocab, size_t n, const int32_t *tokens);

#endif
