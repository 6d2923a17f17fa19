#ifndef NET_PARAMS_H
#define NET_PARAMS_H

/* Access to the tensors of a model by index instead of by name, in the order of unroll/params.h. */
#include "kernels/cell.h"
#include <stdbool.h>
#include <unroll/params.h>

enum { PARAMS_W_QH, PARAMS_B_Q, PARAMS_OUTPUTS };
typedef enum params_name { PARAMS_W_HH, PARAMS_B_H, PARAMS_B_HN, PARAMS_W_XH } params_name;

/** W_qh or b_q. */
static inline const unroll_tensor *params_output(const unroll_params *p, int which)
{
  return &p->tensors[which];
}

/** A tensor of layer l; NULL where the cell has none of that name. */
const unroll_tensor *params_tensor(const unroll_params *p, size_t l, params_name which);

/** Is there a table of embeddings of its own? */
static inline bool params_has_W_xe(const unroll_shape *shape)
{
  return shape->E > 0 && !shape->tied;
}

/** What a token's row is gathered from: W_xe, or without an embedding W_xh of layer 0, the last tensor in memory; tied:
 * W_qh, the first. */
static inline const unroll_tensor *params_input_table(const unroll_params *p)
{
  return p->shape.tied ? params_output(p, PARAMS_W_QH) : &p->tensors[p->n_tensors - 1];
}

/** Where a gradient has that of the input table, its last elements. */
static inline size_t params_table_gradient(const unroll_params *p)
{
  return p->shape.tied ? p->n : params_input_table(p)->offset;
}

/** Rows of a tensor in memory; a vector has one. */
static inline size_t params_memory_rows(const unroll_tensor *t)
{
  return t->col_dim == NULL ? 1 : t->transposed ? t->cols : t->blocks * t->block;
}

/** Elements of a row of the input table in memory, the padding of blocks included. */
static inline size_t params_table_width(const unroll_tensor *table)
{
  return table->transposed ? table->blocks * table->block : table->cols;
}

/** Elements of what layer l reads from below; 0: rows gathered by token. */
static inline size_t params_below(const unroll_params *p, size_t l)
{
  return l > 0 ? p->shape.H : p->shape.E;
}

/** The shape of the model that the options describe, with a vocabulary of V; its initialization. */
unroll_shape params_shape(const unroll_config *config, size_t V);
unroll_start params_start(const unroll_config *config);

/** The units of a layer as people call them: "tanh", "ReLU", "LSTM", "GRU" or "minGRU". */
const char *params_units(const unroll_shape *shape);

/** The cell of this model. */
static inline const cell *params_cell(const unroll_params *p)
{
  return cell_of(p->shape.cell, p->shape.activation);
}

/**
 * Floating-point operations of a training step per token: a product of n blocks of (H, H) costs 2 n H^2 forward and
 * twice that backward; gathered rows cost none.
 */
double params_flops_per_token(const unroll_params *p);

/** Number of state vectors of a layer: h, and c of a cell with memory. */
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

/** Is no value NaN or infinite? */
bool params_are_finite(const unroll_params *p);

/**
 * unroll_params_start for elements [begin, end) of the flat array only, which must be zero before; ranges that cover
 * [0, params->n) give the same values. An orthogonal W_hh is set as a whole by the range with its first element.
 *
 * Threads: opens regions
 */
unroll_status params_start_range(unroll_params *params, const unroll_start *start, size_t begin,
                                 size_t end);

#endif
