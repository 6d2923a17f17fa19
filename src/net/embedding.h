#ifndef NET_EMBEDDING_H
#define NET_EMBEDDING_H

/*
 * The input of the first layer: a one-hot token times a matrix is a row of a table, gathered instead of multiplied; the
 * gradient of the table is a scatter-add over the tokens. The table is W_xh of the first layer, whose rows are
 * added to its pre-activations; or W_xe, whose rows the first layer reads as those above it read states.
 *
 * Only the rows of tokens in the window, on any rank, can be non-zero in that gradient: the touched rows. With a
 * vocabulary larger than the global window (`sparse`) only these are exchanged, enter the norm and are updated; the
 * others stay zero. A step with a sparse table:
 *
 *   embedding_mark_tokens        token_mask of this rank's tokens; the caller then unites it with those of other ranks
 *   embedding_set_touched_rows   token_mask -> touched
 *   embedding_backward           the gradient of the table
 *   embedding_notify             touched rows gathered to `rows`, whose exchange can start
 *   embedding_scatter_rows       their sum over the ranks, back into the gradient
 *
 * A tied table is W_qh too, and has two gradients until then: that of the output layer, and behind all others that of its
 * rows. Each is summed over the ranks by itself, and embedding_add_tied adds the second to the first: adding them before
 * would make the order of the additions, and so the bits, depend on the number of ranks.
 */
#include "kernels/dropout.h"
#include "net/sink.h"

/* Rows added to the product of a layer: row index[t, b] of a table, or row (t, b). */
typedef struct layer_input {
  const unroll_real *rows;
  size_t ld;
  const int32_t *index; /* (T, B) or NULL */
} layer_input;

/* What a layer multiplies by its W_xh: the states of the layer below, or embeddings. */
typedef struct layer_below {
  const unroll_real *rows; /* (T, B, ld) */
  size_t n, ld;            /* elements of a row */
  const unroll_real
      *panels; /* the same as state panels (kernels/recurrence.h), those of step t in slot t + 1 */
} layer_below;

typedef struct embedding {
  const unroll_params *params; /* borrowed */
  const unroll_tensor *table;
  size_t gradient; /* offset of that of the table in a gradient */
  network_size size;
  bool sparse;
  uint64_t *token_mask; /* (V bits) set for tokens of the window */
  uint32_t *touched;    /* (n_touched) rows, ascending */
  size_t n_touched;
  unroll_real *rows; /* (n_touched, ld of the table) the touched rows, contiguous; NULL: one rank */
  unroll_real *gathered, *panels; /* of W_xe: layer_below; panels where there is a backward pass */
} embedding;

/** Is the vocabulary larger than a global window of so many tokens, so that only touched rows are exchanged? */
bool embedding_is_sparse(const unroll_params *params, size_t window);

/** Allocates for a backward pass where size has one. Frees nothing on error: embedding_destroy is safe then. */
unroll_status embedding_init(const unroll_params *params, const network_size *size, embedding *e);
void embedding_destroy(embedding *e);

/** The input of the first layer for tokens x, of a table W_xh. */
layer_input embedding_forward(const embedding *e, const int32_t *x);

/** Gather the rows of W_xe for tokens x of T steps, after dropout: what the first layer reads. Opens regions. */
layer_below embedding_gather(const embedding *e, const dropout *how, size_t T, const int32_t *x);

/** dL/d(row) of the tokens x of a span from dL/d(what was read), rows (T, B, ld), in place. */
void embedding_drop_backward(const embedding *e, const dropout *how, network_span span,
                             const int32_t *x, unroll_real *rows);

/** What embedding_gather has gathered. */
layer_below embedding_gathered(const embedding *e);

/** Set the bits of n tokens x in token_mask; `first`: clear it before. */
void embedding_mark_tokens(embedding *e, size_t n, const int32_t *x, bool first);

/** The touched rows become those set in token_mask; first those of `gradient` touched before are set to zero. */
void embedding_set_touched_rows(embedding *e, unroll_real *gradient);

/** Words of token_mask. */
size_t embedding_mask_words(const embedding *e);

/** Copy the touched rows of `gradient` into e->rows; scatter `rows`, [begin, end) of the touched ones, into
 * `gradient`. */
void embedding_gather_rows(const embedding *e, const unroll_real *gradient);
void embedding_scatter_rows(const embedding *e, const unroll_real *rows, size_t begin, size_t end,
                            unroll_real *gradient);

/** Rows of the table that may have a gradient: the touched ones, or all. */
size_t embedding_rows(const embedding *e);

/** Add the gradient of a tied table to that of W_qh: [begin, end) of those rows. */
void embedding_add_tied(const embedding *e, size_t begin, size_t end, unroll_real *gradient);

/** The gradient of the table: x (T, B), the gradients of the rows (T, B, ld): of W_xh the first layer's deltas. */
void embedding_backward(const embedding *e, size_t T, const int32_t *x, const unroll_real *deltas,
                        size_t ld, const gradient_sink *sink);

/** Notify the sink that the gradient of the table, or of its touched rows, is complete. */
unroll_status embedding_notify(const embedding *e, const gradient_sink *sink);

#endif
