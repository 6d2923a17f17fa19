#ifndef NET_LAYER_H
#define NET_LAYER_H

/*
 * One recurrent layer at work: packed weights, states, what its cell keeps for the backward pass, and what crosses the
 * edge of a chunk.
 *
 *   state (params_states vectors of each sequence): h; h and c of a cell with memory
 */
#include "net/embedding.h"

typedef struct layer {
  const unroll_params *params; /* borrowed */
  size_t number;               /* 0: the lowest */
  const cell *cell;
  network_size size;
  double xi; /* factor of the gradient from a step to the one before */
  unroll_real *recur_forward, *recur_backward; /* W_hh packed */
  unroll_real *below_forward, *below_backward; /* W_xh packed, above the first layer */
  size_t ld, ld_deltas;                        /* of states; of what the cell keeps */
  unroll_real *h, *c;                          /* (T + 1, B, ld): slot 0 is carried in */
  unroll_real *deltas; /* (T, B, ld_deltas): kept, then deltas; NULL: the cell keeps nothing */
  unroll_real *state_panels; /* h once more, for the weight gradients (kernels/recurrence.h) */
  uint32_t *panel_row;       /* (B) */
  unroll_real *after;        /* (B, ld_deltas) deltas of the step behind a chunk; per_shard only */
  unroll_real *dc, *bypass;  /* (B, ld) what flows past the product there */
} layer;

/** Frees nothing on error: layer_destroy is safe then. */
unroll_status layer_init(const unroll_params *params, size_t number, const network_size *size,
                         layer *l);
void layer_destroy(layer *l);

/** After every change of the parameters, or of xi. */
void layer_pack(layer *l);

/** Elements of a row of what layer_project_input makes. */
size_t layer_input_ld(const layer *l);

/** X_t = H_t(below) W_xh^T of T steps at once, to rows (T, B, layer_input_ld). */
layer_input layer_project_input(const layer *l, const layer *below, size_t T, unroll_real *rows);

/** The first T steps. */
void layer_forward(layer *l, layer_input input, size_t T);

/**
 * Behind the end of a sequence, where y (T, B) is below 0, its states become zero, so that what goes on there can
 * neither grow nor count. After layer_forward.
 */
void layer_apply_mask(layer *l, size_t T, const int32_t *y);

/* Gradients of the states of a span, as a layer has them from above, and the deltas that it makes of them. */
typedef struct layer_deltas {
  unroll_real *rows; /* (T, B, ld) */
  size_t ld;
} layer_deltas;

/**
 * dh (T, B, ld), dL/dh of the states from above, becomes deltas, which may lie in the same place.
 *
 * @param[in] last  no gradient comes from behind the span; else what layer_save_boundary has kept does
 */
layer_deltas layer_backward(layer *l, network_span span, unroll_real *dh, bool last,
                            kernel_poll poll);

/** What the chunk before this one, in time, will need of it. */
void layer_save_boundary(layer *l, layer_deltas d);

/** Gradients of W_hh and the biases, notified as they are complete. */
unroll_status layer_backward_weights(const layer *l, network_span span, layer_deltas d,
                                     const gradient_sink *sink);

/** Gradient of W_xh, and dL/dh of the layer below to dh (T, B, ld). Above the first layer. */
unroll_status layer_backward_input(const layer *l, const layer *below, network_span span,
                                   layer_deltas d, unroll_real *dh, const gradient_sink *sink);

/** The carried state, slot 0, becomes zero; becomes that of slot T. */
void layer_reset(layer *l);
void layer_carry(layer *l, size_t T);

/** State vector `which` of a slot to (B, H) without padding; of slot 0 from it. */
void layer_get_state(const layer *l, size_t which, size_t slot, unroll_real *state);
void layer_set_state(layer *l, size_t which, const unroll_real *state);

#endif
