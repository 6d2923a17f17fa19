#ifndef KERNELS_CELL_H
#define KERNELS_CELL_H

/*
 * The cells of design.md section 1 as a table, in blocks of H units.
 *
 *   a_t = W_xh x_t + W_hh h_{t-1} + b_h     pre-activations, block by block
 *
 *   inputs            blocks of W_xh and b_h
 *   recurrent         blocks of W_hh; 0: the step has no product
 *   kept              blocks that the forward pass saves for the backward pass, which overwrites them with the deltas,
 *                     the gradients of the pre-activations; 0: only h is saved, and the one delta overwrites dL/dh
 *   first_recurrent   index of the first delta that belongs to W_hh; those of W_xh begin at 0
 *   memory            there is a second state, c
 *   bypass            part of dL/dh_t reaches h_{t-1} without the product with W_hh (gru, mingru)
 *   gates             a letter for each block of W_hh in the file; "": it is one matrix, or there is none
 *
 *            kept, then deltas    W_xh and b_h    W_hh
 *   lstm     i f g o              i f g o         i f g o
 *   gru      n r z q              n r z           r z q       q = W_hn h_{t-1} + b_hn, which r multiplies
 *   mingru   z n                  z n             -
 *
 * In the file the blocks of a gru are in PyTorch's order r z n; in memory those of W_xh are rotated to n r z, so that
 * the deltas of each product are contiguous.
 *
 * A cell is a line here and two functions on vectors, forward_NAME and backward_NAME (cell_functions.inc): without
 * them the kernels do not compile.
 */
#include <stdbool.h>
#include <stddef.h>
#include <unroll/config.h>

/* name, inputs, recurrent, kept, first_recurrent, memory, bypass, gates */
#define CELLS(X)                                                                                   \
  X(tanh, 1, 1, 0, 0, 0, 0, "")                                                                    \
  X(relu, 1, 1, 0, 0, 0, 0, "")                                                                    \
  X(lstm, 4, 4, 4, 0, 1, 0, "ifgo")                                                                \
  X(gru, 3, 3, 4, 1, 0, 1, "rzn")                                                                  \
  X(mingru, 2, 0, 2, 0, 0, 1, "")

/* Largest number of blocks. */
#define CELL_BLOCKS 4

typedef enum cell_id {
#define CELL_ID(name, ...) CELL_##name,
  CELLS(CELL_ID)
#undef CELL_ID
      CELL_COUNT
} cell_id;

typedef struct cell {
  cell_id id;
  size_t inputs, recurrent, kept, first_recurrent;
  bool memory, bypass;
  const char *gates;
} cell;

/** The cell of these options. */
const cell *cell_of(unroll_cell kind, unroll_activation activation);

/** Number of delta blocks, at least one. */
static inline size_t cell_deltas(const cell *c)
{
  return c->kept > 0 ? c->kept : 1;
}

/** Are the deltas of b_h those of W_hh, so that one product computes both gradients? */
static inline bool cell_shares_bias(const cell *c)
{
  return c->first_recurrent == 0 && c->recurrent == c->inputs;
}

#endif
