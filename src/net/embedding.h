#ifndef NET_EMBEDDING_H
#define NET_EMBEDDING_H

/*
 * The input of the first layer: a one-hot token times W_xh is a row of its table, gathered and never multiplied; its
 * gradient is a scatter-add of the tokens seen.
 *
 * Only the rows of the tokens of the window, on any rank, can be non-zero in that gradient. With a vocabulary larger
 * than the global window (`sparse`) only these are summed over the ranks, measured and updated; the others stay zero.
 */
#include "net/sink.h"

/* Rows added to the product of a layer: those of a table by `index`, or (T, B) of them. */
typedef struct layer_input {
  const unroll_real *rows;
  size_t ld;
  const int32_t *index; /* (T, B) or NULL */
} layer_input;

typedef struct embedding {
  const unroll_params *params; /* borrowed */
  const unroll_tensor *table;
  network_size size;
  bool sparse;
  uint64_t *token_mask; /* (V bits) tokens of the window */
  uint32_t *touched;    /* (n_touched) rows, ascending */
  size_t n_touched;
  unroll_real *rows; /* (n_touched, ld of the table) the touched rows beside each other, or NULL */
} embedding;

/** Are few of a large vocabulary's tokens in a global window of so many, so that its rows go apart from the rest? */
bool embedding_is_sparse(const unroll_params *params, size_t window);

/** Of memory for a backward pass, where size has one. Frees nothing on error: embedding_destroy is safe then. */
unroll_status embedding_init(const unroll_params *params, const network_size *size, embedding *e);
void embedding_destroy(embedding *e);

/** What the tokens x add in the first layer. */
layer_input embedding_forward(const embedding *e, const int32_t *x);

/**
 * Note the n tokens x in `token_mask`, beside those noted before unless `first`: the first of two steps, between which
 * ranks may unite theirs.
 */
void embedding_mark_tokens(embedding *e, size_t n, const int32_t *x, bool first);

/** The rows that `token_mask` names become the touched ones; those of `gradient` touched before become zero. */
void embedding_set_touched_rows(embedding *e, unroll_real *gradient);

/** Words of `token_mask`. */
size_t embedding_mask_words(const embedding *e);

/** The touched rows of the gradient to e->rows, and rows [begin, end) of a sum of these into `gradient`. */
void embedding_gather_rows(const embedding *e, const unroll_real *gradient);
void embedding_scatter_rows(const embedding *e, const unroll_real *rows, size_t begin, size_t end,
                            unroll_real *gradient);

/** The gradient of the table: x (T, B), the first layer's deltas (T, B, ld). */
void embedding_backward(const embedding *e, size_t T, const int32_t *x, const unroll_real *deltas,
                        size_t ld, const gradient_sink *sink);

/** It, or its touched rows, are complete. */
unroll_status embedding_notify(const embedding *e, const gradient_sink *sink);

#endif
