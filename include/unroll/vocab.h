#ifndef UNROLL_VOCAB_H
#define UNROLL_VOCAB_H

/*
 * Vocabulary: the tokens of a model and their indices.
 *
 * Level byte: the 256 bytes, index = byte. Level bpe: the same, then subwords
 * in the order in which they were learned (src/data/bpe.h). Levels char and word: index 0 is
 * `<unk>`, then the tokens of the training text by falling count, equal counts
 * by the bytes of the token; so it never depends on the number of ranks.
 * Opaque because the order and the lookup table must agree.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/config.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How text becomes tokens; part of the vocabulary, because other text must be read by the same rules. */
typedef struct unroll_text_rules {
  unroll_level level;
  bool lowercase;
  bool letters; /* a to z, everything else one space; implies lowercase */
} unroll_text_rules;

typedef struct unroll_vocab unroll_vocab;

/**
 * A vocabulary from the data of a run file.
 *
 * @param[in] V       tokens, >= 1
 * @param[in] tokens  (V) zero-terminated UTF-8; at level byte NULL is fine
 * @param[in] counts  (V) occurrences in the training text
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: a token stands twice, or is no token of the level
 */
unroll_status unroll_vocab_new(unroll_text_rules rules, size_t V, const char *const *tokens,
                               const uint64_t *counts, unroll_vocab **out);
void unroll_vocab_free(unroll_vocab **vocab);

size_t unroll_vocab_size(const unroll_vocab *vocab);
unroll_text_rules unroll_vocab_rules(const unroll_vocab *vocab);

/** Name of a token in UTF-8, for files and people: a byte above 127 or a control byte is "\xNN". */
const char *unroll_vocab_token_view(const unroll_vocab *vocab, size_t index);

/** The text the token stands for, *n bytes: what sampling prints. `<unk>` is U+FFFD at level char. */
const char *unroll_vocab_text_view(const unroll_vocab *vocab, size_t index, size_t *n);

/** Code point at level char, byte at levels byte and bpe, -1 for words, longer subwords and `<unk>`. */
int64_t unroll_vocab_code(const unroll_vocab *vocab, size_t index);
uint64_t unroll_vocab_count(const unroll_vocab *vocab, size_t index);

/** Index of a token by its name as in the file; of an unknown one `<unk>`'s, or -1 at levels byte and bpe. */
int64_t unroll_vocab_find(const unroll_vocab *vocab, const char *token);

#ifdef __cplusplus
}
#endif
#endif
