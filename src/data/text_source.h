#ifndef DATA_TEXT_SOURCE_H
#define DATA_TEXT_SOURCE_H

/*
 * What training and scoring read: the tokens of a part of the text in batches, whether they come as streams
 * (streams.h) or as sequences of their own (sequences.h).
 *
 * The text is cut into B rows; row b is global sequence b of every batch, and a rank holds the tokens of its rows
 * [first, first + count) only. Batch k of an epoch takes one stretch of each row:
 *
 *   x[t, b] = token[start + t],  y[t, b] = token[start + t + 1]      t < length of the stretch
 *   x[t, b] = line end,          y[t, b] = -1                        behind it
 *
 *                               batches of an epoch       a stretch
 *   streams                     1                         the whole row
 *   streams in random windows   windows of a row          `window` tokens
 *   sequences                   most sequences of a row   a line or paragraph, with the line end before it; or none
 *
 * Which stretch it is depends on (seed, epoch, k, b) alone. A text source is not changed after text_source_new.
 */
#include "data/vocab.h"

/* How a part is cut, and which of its rows this rank has. */
typedef struct text_cut {
  unroll_sequences kind;
  unroll_partition partition; /* order of sequences; or of the windows of streams */
  uint64_t seed;              /* of a random order */
  size_t
      window; /* [tokens] of truncated BPTT: a stream has one at least; 0: streams are taken whole */
  size_t B;   /* rows over all ranks */
  size_t first, count; /* this rank's; count may be 0 */
  size_t ranks; /* of the run, for messages: those of the communicator, or as many as are planned */
  const char *what;   /* "training" or "validation", for messages */
  const char *option; /* that sets B, for messages; NULL: --batch */
} text_cut;

static inline const char *text_cut_option(const text_cut *cut)
{
  return cut->option != NULL ? cut->option : "--batch";
}

typedef struct text_source {
  text_cut cut;
  /* The same on every rank: */
  uint64_t batches; /* of an epoch */
  uint64_t longest; /* [tokens] of a stretch */
  uint64_t total;   /* [tokens] of all stretches of an epoch */
  uint64_t unknown; /* [tokens] of the rows that are to be predicted and not in the vocabulary */
  uint64_t length;  /* [tokens] of the row of a stream; 0 of sequences */
  bool
      ragged; /* the stretches of a batch differ in length, and the state behind their ends is zero */
  int32_t line_end;           /* token; below 0: the vocabulary has none */
  int32_t white[VOCAB_WHITE]; /* (n_white) tokens of white space within lines */
  size_t n_white;
  /* Of this rank: */
  size_t width; /* bytes of a stored token */
  void *tokens; /* of its rows, and the one before */
  /* Of sequences, else NULL: */
  uint64_t *row;       /* (count + 1) first sequence of each row, numbered from this rank's first */
  uint64_t *start;     /* (row[count] + 1) where each sequence starts: at the line end before it */
  uint64_t *by_length; /* (row[count]) within each row, its sequences from the shortest on */
} text_source;

/* Of a row in one batch. */
typedef struct stretch {
  uint64_t start;  /* in the tokens of this rank */
  uint64_t length; /* [tokens] predicted; 0: none */
} stretch;

/* Of a batch. */
typedef struct text_extent {
  uint64_t steps;  /* of its longest stretch */
  uint64_t tokens; /* of all stretches */
} text_extent;

/**
 * Cut a counted part and read this rank's rows.
 *
 * @return the same on every rank: UNROLL_OK, or UNROLL_ERR_INPUT: too little text, with the largest legal --batch and
 *         --steps in the message; or sequences of a vocabulary without line end
 *
 * Collective: over comm
 */
unroll_status text_source_new(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                              const corpus_part *part, const text_cut *cut, text_source **out);
void text_source_free(text_source **text);

/** What batch k of an epoch has of row b, one of this rank's. Not collective. */
stretch text_source_stretch(const text_source *text, uint64_t epoch, uint64_t k, size_t b);

/** length (count) [tokens] of the stretches of batch k of an epoch, of this rank's rows. Not collective. */
void text_source_lengths(const text_source *text, uint64_t epoch, uint64_t k, uint64_t *length);

/** Batch k of an epoch on this rank. Not collective. */
text_extent text_source_extent(const text_source *text, uint64_t epoch, uint64_t k);

/** The same over all ranks. Collective over comm where the text is ragged, else not: comm may then be NULL. */
unroll_status text_source_extent_of_all(unroll_comm *comm, const text_source *text, uint64_t epoch,
                                        uint64_t k, text_extent *out);

/** x and y (n, count) of steps [first, first + n) of batch k of an epoch: all of this rank's rows. Not collective. */
void text_source_fill(const text_source *text, uint64_t epoch, uint64_t k, uint64_t first, size_t n,
                      int32_t *x, int32_t *y);

#endif
