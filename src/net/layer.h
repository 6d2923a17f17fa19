#ifndef NET_LAYER_H
#define NET_LAYER_H

/*
 * The workspace of one recurrent layer: packed weights, states, what its cell saves for the backward pass, and the
 * gradients at the boundary between two chunks.
 *
 * State of a sequence: h; of a cell with memory h and c (params_states vectors).
 */
#include "kernels/dropout.h"
#include "net/embedding.h"

typedef struct layer {
  const unroll_params *params; /* borrowed */
  size_t number;               /* 0: the lowest */
  const cell *cell;
  network_size size;
  double xi; /* factor of the gradient from a step to the one before */
  unroll_real *recur_forward, *recur_backward; /* W_hh packed */
  unroll_real *dropped_W_hh;                   /* after dropout; size.drop_weights only */
  size_t below; /* elements of a row from below; 0: the input is gathered by token */
  unroll_real *below_forward, *below_backward; /* W_xh packed, where there is a below */
  size_t ld, ld_deltas;                        /* of states; of deltas */
  unroll_real *h, *c;                          /* (T + 1, B, ld): slot 0 is carried in */
  unroll_real *
      deltas; /* (T, B, ld_deltas): saved by the forward pass, then deltas; NULL: the cell saves nothing */
  unroll_real *state_panels; /* copy of h for the weight gradients (kernels/recurrence.h) */
  uint32_t *panel_row;       /* (B) */
  bool skips;                /* adds what it reads to what it passes upwards */
  unroll_real *dropped,
      *dropped_panels; /* h and state_panels after dropout, what was read added; only with either */
  const unroll_real *output, *output_panels; /* what is passed upwards: of both pairs one */
  unroll_real *after; /* (B, ld_deltas) deltas of the step after a chunk; per_shard only */
  unroll_real *dc,
      *bypass; /* (B, ld) gradients that pass that boundary without a product (cell.h) */
} layer;

/** Frees nothing on error: layer_destroy is safe then. */
unroll_status layer_init(const unroll_params *params, size_t number, const network_size *size,
                         layer *l);
void layer_destroy(layer *l);

/** Pack the weights, those of W_hh after dropout: after every change of the parameters, of xi, or of the masks. */
void layer_pack(layer *l, const dropout *how);

/** Rows of W_hh in memory; 0: the cell has none. */
size_t layer_recurrent_rows(const layer *l);

/** The gradient of W_hh, its rows [begin, end), from that of W_hh after dropout, in place in a gradient. */
void layer_drop_gradient(const layer *l, const dropout *how, size_t begin, size_t end,
                         unroll_real *gradient);

/** Leading dimension of the rows of layer_project_input. */
size_t layer_input_ld(const layer *l);

/** What the layer above reads. */
layer_below layer_output(const layer *l);

/** The input from below: X_t = H_t(below) W_xh^T, T steps in one product, to rows (T, B, layer_input_ld). */
layer_input layer_project_input(const layer *l, layer_below below, size_t T, unroll_real *rows);

/** The states of the first T steps. */
void layer_forward(layer *l, layer_input input, size_t T);

/**
 * What is passed upwards of the first T steps: h after dropout, or as it is with p 0; and where the layer skips,
 * with what `below` passed, the layer below. After layer_forward and layer_apply_mask.
 */
void layer_pass(layer *l, const dropout *how, const layer *below, size_t T);

/** dL/dh of a span from dL/d(output), dh (T, B, ld), in place; that of what was read past the layer is dL/d(output). */
void layer_drop_backward(const layer *l, const dropout *how, network_span span, unroll_real *dh);

/**
 * Set the states to zero where y (T, B) is below 0, behind the end of a sequence: they neither grow nor enter a
 * gradient. After layer_forward.
 */
void layer_apply_mask(layer *l, size_t T, const int32_t *y);

/* Deltas of a span: gradients of the pre-activations. */
typedef struct layer_deltas {
  unroll_real *rows; /* (T, B, ld) */
  size_t ld;
} layer_deltas;

/**
 * The deltas of a span from dh (T, B, ld), dL/dh from the layer above; they may overwrite dh.
 *
 * @param[in] last  the span ends the sequences; else the deltas of the step after it come from layer_save_boundary
 */
layer_deltas layer_backward(layer *l, network_span span, unroll_real *dh, bool last,
                            kernel_poll poll);

/** Save the deltas of the first step of a chunk, for the chunk before it in time. */
void layer_save_boundary(layer *l, layer_deltas d);

/** Set what was saved there to zero for sequences [begin, end), which end with the chunk before. */
void layer_clear_boundary(layer *l, size_t begin, size_t end);

/** Gradients of W_hh and the biases; the sink is notified of each. */
unroll_status layer_backward_weights(const layer *l, network_span span, layer_deltas d,
                                     const gradient_sink *sink);

/** Gradient of W_xh; dh (T, B, ld of below) becomes that of what was read from below. */
unroll_status layer_backward_input(const layer *l, layer_below below, network_span span,
                                   layer_deltas d, unroll_real *dh, const gradient_sink *sink);

/** Set the carried state, slot 0, to zero; to that of slot T. */
void layer_reset(layer *l);
void layer_carry(layer *l, size_t T);

/**
 * Copy state vector `which` (0: h, 1: c) of a slot to (B, H) without padding, sequence b to row[b], or to b where row is
 * NULL; the same to slot 0 from it.
 */
void layer_get_state(const layer *l, size_t which, size_t slot, const uint32_t *row,
                     unroll_real *state);
void layer_set_state(layer *l, size_t which, const uint32_t *row, const unroll_real *state);

#endif
