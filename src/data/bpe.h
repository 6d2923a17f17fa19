#ifndef DATA_BPE_H
#define DATA_BPE_H

/*
 * Subwords: byte pair encoding (Sennrich, Haddow and Birch 2016) over bytes (Radford et al. 2019).
 *
 *   piece   a word with the space before it, or one byte of other white space (scan_piece): no token crosses them
 *   token   0 to 255: a byte; k >= 256: two earlier tokens side by side, the merge of rank k
 *
 *   learn    until there are V tokens: the pair of neighbours that is most frequent in the pieces of the training text
 *            becomes a token, everywhere, from left to right. Of equally frequent ones that of the lower left token, then
 *            of the lower right one. A pair that occurs once is none.
 *   encode   from the bytes of a piece, the merge of the lowest rank among its neighbours, everywhere, until there is none
 *
 * So the texts of the tokens in their order are the merges too: encoded by the merges before it, the text of token k is
 * two tokens.
 */
#include "data/vocab.h"

#define BPE_BYTES 256

typedef struct bpe bpe;

/**
 * The merges of tokens in their order.
 *
 * @param[out] bad  the first text that is no token in this place; texts->n where all are
 *
 * @return UNROLL_OK, also where one is bad: *out is NULL then
 */
unroll_status bpe_new(const words *texts, size_t *bad, bpe **out);
void bpe_free(bpe **b);

/** The tokens of a piece of n bytes: how many. tokens (n). */
size_t bpe_encode(const bpe *b, const char *piece, size_t n, int32_t *tokens);

/** Put token `merge` for every pair of left and right, from left to right; how many of the n tokens are left. */
size_t bpe_merge(int32_t left, int32_t right, int32_t merge, size_t n, int32_t *tokens);

/**
 * Learn at most V tokens from pieces and how often each occurs; the order of the pieces does not matter.
 *
 * @param[out] texts   of the tokens, empty before
 * @param[out] counts  (texts->n) of the tokens in all of the pieces; to be freed
 */
unroll_status bpe_learn(const words *pieces, const uint64_t *of_pieces, size_t V, words *texts,
                        uint64_t **counts);

/* What a scanner remembers of the pieces that it has met, and the tokens of the last one that are not yet taken. */
typedef struct bpe_memory bpe_memory;
void bpe_memory_free(bpe_memory **m);

/** Forget the tokens that are not yet taken. m may be NULL. */
void bpe_memory_restart(bpe_memory *m);

/** The next tokens of the range of a scanner, at most max of them; *n is 0 when it is done. */
unroll_status bpe_scan(const bpe *b, scan *s, size_t max, int32_t *tokens, size_t *n);

#endif
