#ifndef KINDS_H
#define KINDS_H

/* The cells of test models: each with its activation, as the kernels know them. */
#include <unroll/params.h>

typedef struct kind {
  unroll_cell cell;
  unroll_activation activation;
} kind;

#define KIND_TANH ((kind){UNROLL_CELL_RNN, UNROLL_ACTIVATION_TANH})
#define KIND_RELU ((kind){UNROLL_CELL_RNN, UNROLL_ACTIVATION_RELU})

static const kind all_kinds[] = {{UNROLL_CELL_RNN, UNROLL_ACTIVATION_TANH},
                                 {UNROLL_CELL_RNN, UNROLL_ACTIVATION_RELU},
                                 {UNROLL_CELL_LSTM, UNROLL_ACTIVATION_TANH},
                                 {UNROLL_CELL_GRU, UNROLL_ACTIVATION_TANH},
                                 {UNROLL_CELL_MINGRU, UNROLL_ACTIVATION_TANH}};
enum {
  GATED = 2,
  KINDS = sizeof all_kinds / sizeof all_kinds[0]
}; /* the gated ones stand from GATED on */

static inline unroll_shape shape_of(size_t V, size_t H, size_t L, kind k)
{
  return (unroll_shape){.V = V, .H = H, .L = L, .cell = k.cell, .activation = k.activation};
}

#endif
