#ifndef DATA_CORPUS_H
#define DATA_CORPUS_H

/*
 * Text -> vocabulary -> tokens.
 *
 * A corpus is a list of files read as one text, one after the other. The text
 * is cut into blocks of CORPUS_BLOCK bytes; a token belongs to the block in
 * which its first byte lies, whatever rank reads it, so nothing depends on P.
 *
 *   corpus_open      rank 0 lists files and folders, all learn names and sizes
 *   corpus_split     the training part and, after it, the validation part
 *   vocab_build      each rank counts the tokens of its blocks; the counts are merged
 *   corpus_count     tokens and characters per block of a part, known to every rank: where the vocabulary is given
 *   corpus_read      tokens [first, first + n) of a part: any rank, no communication
 *
 * A rank's memory is proportional to what it reads with corpus_read, never to
 * the corpus. Errors: malformed UTF-8 names file and byte offset.
 */
#include <stddef.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/status.h>
#include <unroll/vocab.h>

#define CORPUS_BLOCK                                                                               \
  ((uint64_t)1 << 20) /* bytes: small beside a rank's share, large beside a read */

typedef struct corpus corpus;

/* What is worth knowing of the files of a text. */
typedef struct corpus_notes {
  uint64_t marks,
      returns; /* files with a byte order mark, which is skipped; with lines that end in CR alone */
  size_t first_mark, first_return; /* the first of them */
} corpus_notes;

/* Files that are no text of a folder: those that the run itself writes. */
typedef struct corpus_own {
  bool (*is)(const char *run, const char *path);
  const char *run; /* its file */
} corpus_own;

/**
 * Open files and folders (read recursively, in the order of their bytes; hidden files left out).
 *
 * At level byte every byte of them is text. Else a byte order mark of UTF-8 is not, and a file whose last line has no
 * end gets one where another file follows.
 *
 * @param[in] own  files to be left out wherever they are met; NULL: none
 *
 * @return on every rank the same: UNROLL_OK, or
 *         UNROLL_ERR_INPUT: missing, unreadable, neither file nor folder, or no byte of text at all; except at
 *                            level byte also what is plainly no UTF-8 (look.h); or a rank that has
 *                            other content under a name than rank 0
 *
 * Collective: over comm
 */
unroll_status corpus_open(unroll_comm *comm, unroll_level level, size_t n_paths,
                          const char *const *paths, const corpus_own *own, corpus **out);
void corpus_free(corpus **c);

size_t corpus_files(const corpus *c);
const char *corpus_file_name(const corpus *c, size_t i);
uint64_t corpus_file_bytes(const corpus *c, size_t i);
uint64_t corpus_bytes(const corpus *c); /* of text */

/** Rank 0 alone knows; the others have zeros. */
corpus_notes corpus_noted(const corpus *c);

/* Hexadecimal SHA-256 and its final zero. */
#define CORPUS_HASH_SIZE 65

/** SHA-256 of every file, files shared out over the ranks; hashes (files) of 65 bytes. Collective. */
unroll_status corpus_hash(unroll_comm *comm, const corpus *c, char (*hashes)[CORPUS_HASH_SIZE]);

/* [characters] Mean length of words above which a text seems to have no spaces: twice that of long-winded ones. */
#define CORPUS_LONG_WORD 16

/* A part of the text: the tokens that begin in bytes [begin, end), and where they lie. */
typedef struct corpus_part {
  uint64_t begin, end;   /* [bytes] of the whole text */
  uint64_t tokens;       /* set by vocab_build or corpus_count */
  uint64_t characters;   /* code points after --lowercase and --letters; set by the same */
  uint64_t unknown;      /* tokens that are not in the vocabulary; set by the same */
  uint64_t unk_words;    /* of them those that stand as <unk> in the text; set by the same */
  uint64_t eos_words;    /* words that stand as <eos> in the text; set by the same */
  size_t n_blocks;       /* set by the same */
  uint64_t *first_token; /* (n_blocks + 1) tokens of the part before each block; owned */
} corpus_part;

/** Cut the text in two: the last `fraction` of its bytes, moved back to the start of a token of the
 * rules, is `valid`. With fraction 0 `valid` is empty. Not collective: a function of the bytes. */
unroll_status corpus_split(const corpus *c, unroll_text_rules rules, double fraction,
                           corpus_part *train, corpus_part *valid);
void corpus_part_free(corpus_part *part);

/** Count the tokens of a part and merge the counts: the vocabulary, and the counts of the part as corpus_count
 * would fill them in, without reading the text once more; but at level bpe, where the tokens, max_vocab at most,
 * are learned first. Collective. */
unroll_status vocab_build(unroll_comm *comm, const corpus *c, corpus_part *part,
                          unroll_text_rules rules, uint64_t min_count, uint64_t max_vocab,
                          unroll_vocab **out);

/** Fill in the counts of a part, each rank counting its share of the blocks. Collective. */
unroll_status corpus_count(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                           corpus_part *part);

/* Bytes of a stored token: 1, 2 or 4, the least that holds V. */
size_t corpus_token_width(size_t V);

/** Store n tokens from the token `at` of `out` on, `width` bytes each. */
void corpus_store(const int32_t *tokens, size_t n, size_t width, void *out, uint64_t at);

/* Stored token i. */
static inline int32_t corpus_stored(const void *tokens, size_t width, uint64_t i)
{
  return width == 1   ? ((const uint8_t *)tokens)[i]
         : width == 2 ? ((const uint16_t *)tokens)[i]
                      : ((const int32_t *)tokens)[i];
}

/**
 * Tokens [first, first + n) of a counted part, `width` bytes each.
 *
 * @return UNROLL_OK, UNROLL_ERR_INPUT (malformed, or the file changed since it was counted) or UNROLL_ERR_IO
 *
 * Collective: no
 */
unroll_status corpus_read(const corpus *c, const unroll_vocab *vocab, const corpus_part *part,
                          uint64_t first, uint64_t n, size_t width, void *tokens);

/** The tokens of a string that are not in the vocabulary, each once, by their names, with spaces between; as many as fit
 * into `out`, which is empty when there are none. Not collective. */
unroll_status vocab_unseen(const unroll_vocab *vocab, const char *text, size_t bytes, size_t size,
                           char *out);

/** Tokens of a string (a prime), *n of them; *tokens is to be freed with memory_free. Not collective. */
unroll_status vocab_encode(const unroll_vocab *vocab, const char *text, size_t bytes, size_t *n,
                           int32_t **tokens, size_t *unknown);

#endif
