#ifndef DATA_SCAN_H
#define DATA_SCAN_H

/*
 * Bytes -> tokens, by the rules of a vocabulary.
 *
 * One scanner serves counting and reading, so the two cannot disagree. It reads
 * a range of the text in pieces and never holds more than one buffer of it.
 *
 *   byte  every byte is a token
 *   char  every code point is a token
 *   word  every maximal run of bytes other than space, \t, \r, \v, \f and \n is a token, and every
 *         \n is the token <eos>, given as SCAN_LINE_END; a file's end separates words
 *
 *   bpe   every maximal run of such bytes, with the space before it where there is one, and every other byte of white
 *         space is a piece, whose tokens the vocabulary knows (bpe.h): as tokens they all begin where the piece begins
 *
 *   --lowercase  code points are lowered one by one, see lowercase.h (at levels byte and bpe: A to Z)
 *   --letters    A to Z are lowered; at levels byte and char every maximal run of anything else is
 *                one space, begun where the run begins; at level word it separates
 *
 * A token belongs to a range when its first byte lies in it: the scanner looks
 * back from the beginning and reads past the end, so ranges that tile a text
 * yield the tokens of the text, wherever the cuts fall. Malformed UTF-8 (a bad
 * or missing continuation byte, an overlong form, a surrogate, a code point
 * above U+10FFFF, a sequence across a file's end) is an error except at levels
 * byte and bpe; it belongs to the range in which the sequence begins.
 *
 * Not collective. A scanner belongs to one thread.
 */
#include "data/corpus.h"

/* What of a file is no text, and what is text that it does not have. */
typedef struct corpus_edges {
  uint8_t mark;   /* bytes at its beginning that are passed over: a byte order mark */
  uint8_t joined; /* 1: a line end behind it, as its last line has none and another file follows */
} corpus_edges;

/* The files of a text; open to this folder only. */
struct corpus {
  size_t n_files;
  const char **names;  /* (n_files) into name_pool */
  char *name_pool;     /* every name with its final zero */
  uint64_t *start;     /* (n_files + 1) [bytes] of the text before each file */
  corpus_edges *edges; /* (n_files); NULL: nothing of the kind */
  corpus_notes notes;  /* rank 0 */
  const char *string;  /* NULL; else the text itself, which then is the only "file" */
};

#define SCAN_CODES 0x110000 /* code points lie below */
#define SCAN_WORD                                                                                  \
  ((size_t)1 << 16) /* bytes of the longest word: a longer one is no text but data */

/*
 * Line ends and what is unknown are tokens with names that a text may have as words. In a text <unk> is what it
 * says; <eos> is a word as any other, as the scanner gives a line end as what no word can be.
 */
#define SCAN_LINE_END "\n"
#define SCAN_EOS      "<eos>" /* name of the line end */
#define SCAN_UNK      "<unk>" /* name of all that is not in the vocabulary */

typedef struct scan scan;

/** A scanner of `c`, which is borrowed. The caller owns *out. */
unroll_status scan_new(const corpus *c, unroll_text_rules rules, scan **out);
void scan_free(scan **s);

/** Begin with the tokens that begin in bytes [begin, end) of the text. */
unroll_status scan_start(scan *s, uint64_t begin, uint64_t end);

/**
 * The next tokens of the range at levels byte and char.
 *
 * @param[in]  max    room in codes, >= 1
 * @param[out] codes  (max) bytes or code points
 * @param[out] n      0: the range is done
 *
 * @return UNROLL_OK, UNROLL_ERR_INPUT: malformed, or the file changed (a string: UNROLL_ERR_ARG), or
 *         UNROLL_ERR_IO
 */
unroll_status scan_codes(scan *s, size_t max, int32_t *codes, size_t *n);

/** The next word of the range at level word, valid until the next call; *n is 0 when it is done. */
unroll_status scan_word(scan *s, const char **word, size_t *n);

/* Bytes of the longest piece: a word and a space. */
#define SCAN_PIECE (SCAN_WORD + 1)

/** The same for the next piece of the range at level bpe. */
unroll_status scan_piece(scan *s, const char **piece, size_t *n);

/** Where what bpe.h remembers for a scanner is kept; scan_free frees it. */
struct bpe_memory **scan_memory(scan *s);

/* Of a range, once it is done. */
typedef struct scan_counts {
  /* Characters that begin in it: code points after --lowercase and --letters, the same number at every level (at levels
   * byte and bpe: bytes that are no continuation bytes of UTF-8). */
  uint64_t characters;
  uint64_t unk_words, eos_words; /* level word: words of the text that are <unk> or <eos> */
} scan_counts;

scan_counts scan_counted(const scan *s);

/** The largest position <= `position` at which a token begins; 0 when there is none. Ends the range. */
unroll_status scan_token_begin(scan *s, uint64_t position, uint64_t *begin);

/** Is this byte part of a word by these rules (and neither a separator nor a line end)? */
bool scan_is_word_byte(unroll_text_rules rules, unsigned char byte);

/** Bytes of the code point that begins at b, of which n >= 1 may be read; 0: malformed. */
size_t scan_utf8_decode(const char *b, size_t n, int32_t *code);

/** UTF-8 of a code point; its length. */
size_t scan_utf8_encode(int32_t code, char out[4]);

#endif
