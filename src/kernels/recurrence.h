#ifndef KERNELS_RECURRENCE_H
#define KERNELS_RECURRENCE_H

/*
 * One recurrent layer over the T steps of a window, forward and backward
 * (design.md sections 1 and 6), and the product of a layer with the one below.
 *
 *   B sequences of this rank, H hidden units, time-major, rows of `ld` elements:
 *   H_t = cell(X_t + H_{t-1} W_hh^T + b_h)              a batch's rows are sequences
 *   dA_t from dH_t + dA_{t+1} W_hh                      by the cell (cell.h)
 *
 * Blocks, one for each gate, have a stride of kernels_pad(H) elements (or rows); a single block has H.
 *
 * A row never depends on another row, so any split over threads gives the same
 * bits. Weights are packed once per update (weights_pack).
 */
#include "kernels/kernels.h"

/* Called by the main thread between time steps, or tiles of a gradient, to progress an exchange. */
typedef struct kernel_poll {
  void (*call)(void *context); /* NULL: nothing to do */
  void *context;
} kernel_poll;

/** Number of panels of n columns; columns stored of a panel: nr, or in the last one a single vector where that is
 * enough. */
size_t panel_count(size_t n);
size_t panel_width(size_t n, size_t panel);

/** Elements of a packed weight matrix with n columns of the product and k summed. */
size_t weights_packed_size(size_t n, size_t k);

/**
 * Pack W (rows, cols) for products with activations: panels of B = W^T (transposed, rows columns) for
 * C = A W^T, or of B = W for C = A W.
 */
void weights_pack(size_t rows, size_t cols, const unroll_real *W, size_t ld, int transposed,
                  unroll_real *panels);

/** Rows in memory of a matrix, or elements of a row of activations, that consist of `blocks` blocks of H. */
static inline size_t blocks_size(size_t blocks, size_t H)
{
  return blocks == 1 ? H : blocks * kernels_pad(H);
}

/**
 * Pack W_hh (blocks, H; H) for the forward step: panels of W_hh^T, interleaved: the panels of all blocks for the same
 * units are contiguous. The backward step takes weights_pack(blocks_size(...), H, W, ld, 0, ...).
 */
void recurrent_pack(size_t blocks, size_t H, const unroll_real *W, size_t ld, unroll_real *panels);

/** Multiply packed weights by a factor. Opens a region. */
void weights_scale(size_t n, double factor, unroll_real *panels);

/** C (M, N) = A (M, K) B, B packed: all rows at once. Opens a region. */
void linear(size_t M, size_t K, size_t N, const unroll_real *A, size_t lda,
            const unroll_real *panels, unroll_real *C, size_t ldc);

/*
 * State panels: a copy of the hidden states in the layout that the weight gradients read. Panel p holds columns
 * [p * nr, p * nr + nr) (one vector in the last panel where that is enough); its rows are, shard after
 * shard, the slots 0..T of the shard's sequences: row (s, t, b) = (s * (T + 1) + t) * (B / shards) + b.
 * So the states before a step (slots 0..T-1) and after it (1..T) are both contiguous in a shard.
 */

/** Elements of the state panels of one layer; stride of a panel. */
size_t state_panels_size(size_t T, size_t B, size_t H);
size_t state_panels_stride(size_t T, size_t B);

typedef struct recurrence {
  size_t T, B, H;
  const cell *cell;
  size_t ld;           /* of h, c, dh, dc and bypass */
  unroll_real *h;      /* (T + 1, B, ld): slot 0 is the state carried in */
  unroll_real *c;      /* the same of a cell with memory */
  unroll_real *deltas; /* (T, B, ld_deltas): what the cell keeps, then dL/da. Of a cell that keeps
                                  nothing: dh. NULL: no backward pass will come */
  size_t ld_deltas;
  const unroll_real *forward;  /* recurrent_pack */
  const unroll_real *backward; /* packed W_hh, times xi */
  double xi;                /* factor on the gradient from step t to t - 1: here on dc and bypass */
  const unroll_real *input; /* rows to add: table of W_xh^T with `index`, or (T, B, ld_input) */
  size_t ld_input;
  const int32_t *index;           /* (T, B) tokens, or NULL */
  const unroll_real *bias;        /* (inputs, H) padded */
  const unroll_real *hidden_bias; /* (H) padded, of a gru */
  unroll_real *state_panels;      /* filled by the forward pass; NULL: not needed */
  size_t panel_T;                 /* their T, which may be more than this window's */
  size_t shards;                  /* their shards */
  uint32_t *panel_row;            /* (B) scratch */
  unroll_real *dh;                /* (T, B, ld): dL/dh from above */
  const unroll_real *
      after; /* (B, ld_deltas): deltas of the step behind the last; NULL: no gradient comes from there */
  unroll_real *dc,
      *bypass; /* (B, ld) of a cell that has them: from the step behind the last, unless `after` is
                               NULL; then to the step before the first */
} recurrence;

/** Slots 1..T of h from slot 0. Opens a region. */
void recurrence_forward(const recurrence *r);

/* States of T steps from slot `slot` on, and state panels of `panel_T` steps that they belong into. */
typedef struct state_rows {
  size_t T, B, H, shards;
  const unroll_real *h; /* the first row of that slot */
  size_t ld, slot;
  unroll_real *state_panels;
  size_t panel_T;
} state_rows;

/** Copy states into state panels, as recurrence_forward does with those that it computes. Opens a region. */
void state_panels_copy(const state_rows *r);

/** Set the states of one sequence in a slot to zero, in h, c and the state panels. */
void recurrence_zero_state(const recurrence *r, size_t slot, size_t b);

/** dL/da of all steps, from dL/dh of the layers above alone, from the last step to the first. Opens a region. */
void recurrence_backward(const recurrence *r, kernel_poll poll);

#endif
