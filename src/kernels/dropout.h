#ifndef KERNELS_DROPOUT_H
#define KERNELS_DROPOUT_H

/*
 * Dropout of what a layer passes upwards, never of what it passes to its own next step:
 *
 *   out_t = keep_t * h_t / (1 - p)      keep 0 with probability p, else 1, for each unit by itself
 *
 * (Srivastava et al. 2014; of a recurrent network's vertical connections: Zaremba, Sutskever and Vinyals 2014; the
 * same mask for all steps of a window: Gal and Ghahramani 2016.)
 *
 * The embeddings that the first layer reads have a p of their own, as layer DROPOUT_EMBEDDING; and words:
 *
 *   row_x <- keep_x * row_x / (1 - p)   keep 0 with probability p for each token x of the vocabulary, wherever it stands
 *                                       in the window (Gal and Ghahramani 2016; Merity, Keskar and Socher 2018)
 *
 * And weights of the recurrent matrix, for all steps of an update:
 *
 *   W_hh <- keep * W_hh / (1 - p)       dW_hh <- keep * dW_hh / (1 - p)      DropConnect: Wan et al. 2013; of W_hh: Merity
 *                                                                            et al. 2018, whose weights are scaled too
 *
 * A mask is a function of (seed, update, layer, global sequence, step, unit) alone, that of words of (seed, update,
 * token), that of weights of (seed, update, layer, element), so no bit depends on ranks, shards or threads, and the backward
 * pass draws it again instead of keeping it. p is rounded to a multiple of 2^-16, and 1 - p is the probability as rounded:
 * the mean of keep / (1 - p) is 1.
 */
#include "kernels/recurrence.h"
#include <stdbool.h>

typedef struct dropout {
  double p;           /* of the layers; 0: off */
  double p_embedding; /* of the embeddings; the same */
  double p_words;     /* of whole words; the same */
  double p_weights;   /* of W_hh; the same */
  bool per_step;      /* else one mask for all steps of a window; not of words */
  uint64_t seed;
  uint64_t update;     /* below 2^56 */
  size_t first;        /* global sequence of row 0; below 2^24 */
  const uint32_t *row; /* (B) row of sequence b, counted from `first`; NULL: b itself */
  size_t step;         /* of t = 0, counted from the first of the piece of text; below 2^40 */
} dropout;

/* The number of the embedding, in place of a layer's. */
#define DROPOUT_EMBEDDING 255

/* Rows (T, B) of n elements and a layer's number, below 2^8. */
typedef struct dropout_rows {
  const dropout *how;
  size_t layer;
  double p; /* one of those of how */
  size_t T, B, n, ld;
  const unroll_real *from;
  unroll_real *to; /* may be `from` */
} dropout_rows;

/** to = keep * from / (1 - p). Opens a region. */
void dropout_run(const dropout_rows *r);

/** The same of whole words, in place: rows (n, ld) of tokens x (n). Opens a region. */
void dropout_words(const dropout *how, size_t n, const int32_t *x, size_t ld, unroll_real *rows);

/* Rows [begin, end) of a matrix of `blocks` blocks of H rows, padded to whole vectors, of H elements. */
typedef struct dropout_matrix {
  const dropout *how;
  size_t layer;
  size_t blocks, H, ld, begin, end;
  const unroll_real *from; /* the matrix */
  unroll_real *to;         /* may be `from` */
} dropout_matrix;

/** The same of weights; rows of padding are left alone. Opens a region. */
void dropout_weights(const dropout_matrix *m);

#endif
