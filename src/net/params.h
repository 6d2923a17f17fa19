#ifndef NET_PARAMS_H
#define NET_PARAMS_H

/* Tensors of a model by place instead of by name: the table's order is that of unroll/params.h. */
#include "kernels/cell.h"
#include <unroll/params.h>

enum { PARAMS_W_QH, PARAMS_B_Q, PARAMS_OUTPUTS };
typedef enum params_name { PARAMS_W_HH, PARAMS_B_H, PARAMS_B_HN, PARAMS_W_XH } params_name;

/** W_qh or b_q. */
static inline const unroll_tensor *params_output(const unroll_params *p, int which)
{
  return &p->tensors[which];
}

/** A tensor of layer l, or NULL: the cell has none of that name. */
const unroll_tensor *params_tensor(const unroll_params *p, size_t l, params_name which);

/** The gathered table of the inputs, which comes last in memory. */
static inline const unroll_tensor *params_input_table(const unroll_params *p)
{
  return &p->tensors[p->n_tensors - 1];
}

/** Rows in memory. */
static inline size_t params_memory_rows(const unroll_tensor *t)
{
  return t->col_dim == NULL ? 1 : t->transposed ? t->cols : t->blocks * t->block;
}

/** What the options say of a model over a vocabulary of V, and of its start. */
unroll_shape params_shape(const unroll_config *config, size_t V);
unroll_start params_start(const unroll_config *config);

/** What the cell of this model does. */
static inline const cell *params_cell(const unroll_params *p)
{
  return cell_of(p->shape.cell, p->shape.activation);
}

/**
 * Floating-point operations of a training step for each token: a product of n blocks of (H, H) costs 2 n H^2 forward and
 * twice that backward; the gathered input nothing.
 */
double params_flops_per_token(const unroll_params *p);

/** Named vectors of the state of a layer: h, and c of a cell with memory. */
static inline size_t params_states(const unroll_params *p)
{
  return params_cell(p)->memory ? 2 : 1;
}

/** Vectors (H) of the state of one sequence, over all layers. */
static inline size_t params_state_vectors(const unroll_params *p)
{
  return params_states(p) * p->shape.L;
}

static inline const char *params_state_name(size_t which)
{
  return which == 0 ? "h" : "c";
}

/**
 * unroll_params_start for elements [begin, end) of the flat array alone, which are zero before: parts that make up
 * [0, params->n) make up the whole. An orthogonal W_hh comes as a whole with its first element, wherever it ends.
 *
 * Threads: opens regions
 */
unroll_status params_start_range(unroll_params *params, const unroll_start *start, size_t begin,
                                 size_t end);

#endif
