#ifndef DATA_SEQUENCES_H
#define DATA_SEQUENCES_H

/*
 * Lines or paragraphs as sequences of their own, of unequal lengths.
 *
 * The M sequences of a part are cut into B rows of consecutive ones; a batch of an epoch has one sequence of
 * every row, or none where a row has one fewer than others. A rank holds the text of its own rows only. No token is lost: each
 * sequence is read after a line end, from which its first token is predicted.
 *
 *   line        ends with its line end, or with the text
 *   paragraph   begins where text follows one empty line or more
 *
 *   x[0] = line end, x[t] = token t - 1 of the sequence,  y[t] = token t       t < its length
 *   y[t] = -1 behind it
 *
 * sequential  batch k has sequence k of each row
 * random      each row is sorted by length; a random order of the places, the same in all rows, is a function of
 *             (seed, epoch), and neighbours within NEIGHBOURS places are mixed, by (seed, epoch, row). So the
 *             sequences of a batch are about equally long, and little is computed behind their ends.
 */
#include "data/corpus.h"

typedef struct sequences {
  size_t B;            /* rows of the global batch */
  size_t first, count; /* this rank has the global rows [first, first + count) */
  uint64_t batches;    /* in an epoch: the same number on every rank */
  uint64_t longest;    /* [tokens] of all sequences */
  uint64_t total;      /* [tokens] of all sequences */
  int32_t line_end;    /* token */
  size_t width;        /* bytes of a stored token */
  void *tokens;        /* of this rank's rows */
  uint64_t *row;       /* (count + 1) first sequence of each row, numbered from this rank's first */
  uint64_t *start;     /* (row[count] + 1) first token of each sequence */
  uint64_t *by_length; /* (row[count]) within each row, its sequences from the shortest on */
} sequences;

/* One sequence of this rank. */
typedef struct sequence_view {
  uint64_t start, length; /* [tokens]; length 0: none */
} sequence_view;

/**
 * Find the sequences of a counted part and read this rank's.
 *
 * @param[in] ranks of the run, for the message: those of comm, or as many as are planned
 * @param[in] what  "training" or "validation", for the message
 *
 * @return the same on every rank: UNROLL_OK, or UNROLL_ERR_INPUT: the vocabulary has no line end, or there are
 *         fewer sequences than rows; the message names the largest legal batch
 *
 * Collective: over comm
 */
unroll_status sequences_new(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                            const corpus_part *part, unroll_sequences kind, size_t B, size_t first,
                            size_t count, size_t ranks, const char *what, sequences **out);
void sequences_free(sequences **s);

/** The sequence of global row b, one of this rank's, in batch k of an epoch. */
sequence_view sequences_view(const sequences *s, unroll_partition partition, uint64_t seed,
                             uint64_t epoch, uint64_t k, size_t b);

/** Inputs and targets of steps [first, first + n), written with a stride: x[t * stride] for t < n. */
void sequences_copy(const sequences *s, sequence_view view, uint64_t first, size_t n, size_t stride,
                    int32_t *x, int32_t *y);

#endif
