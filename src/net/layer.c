#include "net/layer.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

#include <string.h>

/* Rows of W_xh and of W_hh in memory, all blocks together. */
static size_t input_rows(const layer *l)
{
  return blocks_size(l->cell->inputs, l->params->shape.H);
}

size_t layer_recurrent_rows(const layer *l)
{
  return blocks_size(l->cell->recurrent, l->params->shape.H);
}

static unroll_status start_weights(layer *l)
{
  unroll_status st = UNROLL_OK;
  const size_t H = l->params->shape.H, blocks = l->cell->recurrent;
  const bool trains = size_has_backward(&l->size);

  if (blocks > 0) {
    UNROLL_TRY(
        memory_new_reals(blocks * weights_packed_size(H, H), "packed weights", &l->recur_forward));
  }
  if (blocks > 0 && trains) {
    UNROLL_TRY(memory_new_reals(weights_packed_size(H, layer_recurrent_rows(l)), "packed weights",
                                &l->recur_backward));
  }
  if (blocks > 0 && l->size.drop_weights) {
    UNROLL_TRY(memory_new_reals(layer_recurrent_rows(l) * kernels_ld(H), "dropped weights",
                                &l->dropped_W_hh));
  }
  if (l->below > 0) {
    UNROLL_TRY(memory_new_reals(weights_packed_size(input_rows(l), l->below), "packed weights",
                                &l->below_forward));
  }
  if (l->below > 0 && trains) {
    UNROLL_TRY(memory_new_reals(weights_packed_size(l->below, input_rows(l)), "packed weights",
                                &l->below_backward));
  }

cleanup:
  return st;
}

/* Memory for the backward pass. */
static unroll_status start_backward(layer *l)
{
  unroll_status st = UNROLL_OK;
  const network_size *size = &l->size;
  const size_t state = size->B * l->ld;

  UNROLL_TRY(memory_new_reals(state_panels_size(size->T, size->B, l->params->shape.H),
                              "hidden states", &l->state_panels));
  UNROLL_TRY(memory_new(size->B, sizeof *l->panel_row, "panel rows", &l->panel_row));
  if (size->dropout || l->skips) {
    UNROLL_TRY(memory_new_reals(state_panels_size(size->T, size->B, l->params->shape.H),
                                "hidden states", &l->dropped_panels));
  }
  if (size->per_shard) {
    UNROLL_TRY(memory_new_reals(size->B * l->ld_deltas, "hidden gradients", &l->after));
  }
  if (l->cell->memory) { UNROLL_TRY(memory_new_reals(state, "hidden gradients", &l->dc)); }
  if (l->cell->bypass) { UNROLL_TRY(memory_new_reals(state, "hidden gradients", &l->bypass)); }

cleanup:
  return st;
}

unroll_status layer_init(const unroll_params *params, size_t number, const network_size *size,
                         layer *l)
{
  unroll_status st = UNROLL_OK;
  const size_t H = params->shape.H;

  *l = (layer){.params = params,
               .number = number,
               .cell = params_cell(params),
               .size = *size,
               .xi = 1.0,
               .below = params_below(params, number),
               .skips = params->shape.skip && number > 0,
               .ld = kernels_ld(H)};
  l->ld_deltas = l->cell->kept > 0 ? kernels_ld(l->cell->kept * kernels_pad(H)) : l->ld;
  const size_t states = (size->T + 1) * size->B * l->ld;

  UNROLL_TRY(start_weights(l));
  UNROLL_TRY(memory_new_reals(states, "hidden states", &l->h));
  if (l->cell->memory) { UNROLL_TRY(memory_new_reals(states, "hidden states", &l->c)); }
  if (size->dropout || l->skips) {
    UNROLL_TRY(memory_new_reals(states, "hidden states", &l->dropped));
  }
  if (l->cell->kept > 0 && (size_has_backward(size) || size->keep_gates)) {
    UNROLL_TRY(
        memory_new_reals(size->T * size->B * l->ld_deltas + KERNELS_PAD, "gates", &l->deltas));
  }
  if (size_has_backward(size)) { UNROLL_TRY(start_backward(l)); }
  l->output = l->h;
  l->output_panels = l->state_panels;

cleanup:
  return st;
}

void layer_destroy(layer *l)
{
  memory_free(&l->dropped_panels);
  memory_free(&l->dropped);
  memory_free(&l->bypass);
  memory_free(&l->dc);
  memory_free(&l->after);
  memory_free(&l->panel_row);
  memory_free(&l->state_panels);
  memory_free(&l->deltas);
  memory_free(&l->c);
  memory_free(&l->h);
  memory_free(&l->dropped_W_hh);
  memory_free(&l->below_backward);
  memory_free(&l->below_forward);
  memory_free(&l->recur_backward);
  memory_free(&l->recur_forward);
}

/* Dropout of rows [begin, end) of W_hh, or of its gradient. */
static void drop_weights(const layer *l, const dropout *how, size_t begin, size_t end,
                         const unroll_real *from, unroll_real *to)
{
  const dropout_matrix m = {.how = how,
                            .layer = l->number,
                            .blocks = l->cell->recurrent,
                            .H = l->params->shape.H,
                            .ld = params_tensor(l->params, l->number, PARAMS_W_HH)->ld,
                            .begin = begin,
                            .end = end,
                            .from = from,
                            .to = to};
  dropout_weights(&m);
}

void layer_drop_gradient(const layer *l, const dropout *how, size_t begin, size_t end,
                         unroll_real *gradient)
{
  unroll_real *of = gradient + params_tensor(l->params, l->number, PARAMS_W_HH)->offset;
  drop_weights(l, how, begin, end, of, of);
}

void layer_pack(layer *l, const dropout *how)
{
  const unroll_params *params = l->params;
  const size_t H = params->shape.H, rows = layer_recurrent_rows(l);
  const unroll_tensor *W_hh = params_tensor(params, l->number, PARAMS_W_HH);
  const unroll_tensor *W_xh = params_tensor(params, l->number, PARAMS_W_XH);
  const unroll_real *below = params->values + W_xh->offset;

  if (W_hh != NULL) {
    const unroll_real *recur = params->values + W_hh->offset;
    if (how->p_weights > 0.0) {
      drop_weights(l, how, 0, rows, recur, l->dropped_W_hh);
      recur = l->dropped_W_hh;
    }
    recurrent_pack(l->cell->recurrent, H, recur, W_hh->ld, l->recur_forward);
    if (l->recur_backward != NULL) {
      weights_pack(rows, H, recur, W_hh->ld, 0, l->recur_backward);
      if (l->xi != 1.0) { /* once here, instead of at every step */
        weights_scale(weights_packed_size(H, rows), l->xi, l->recur_backward);
      }
    }
  }
  if (l->below_forward != NULL) {
    weights_pack(input_rows(l), l->below, below, W_xh->ld, 1, l->below_forward);
  }
  if (l->below_backward != NULL) {
    weights_pack(input_rows(l), l->below, below, W_xh->ld, 0, l->below_backward);
  }
}

/* The arguments of the kernels for T steps from `begin` on. */
static recurrence recurrence_of(const layer *l, size_t begin, size_t T)
{
  const unroll_params *params = l->params;
  const unroll_tensor *b_h = params_tensor(params, l->number, PARAMS_B_H),
                      *b_hn = params_tensor(params, l->number, PARAMS_B_HN);
  const size_t B = l->size.B, states = begin * B * l->ld;
  return (recurrence){.T = T,
                      .B = B,
                      .H = params->shape.H,
                      .cell = l->cell,
                      .ld = l->ld,
                      .h = l->h + states,
                      .c = l->c != NULL ? l->c + states : NULL,
                      .deltas = l->deltas != NULL ? l->deltas + begin * B * l->ld_deltas : NULL,
                      .ld_deltas = l->ld_deltas,
                      .forward = l->recur_forward,
                      .backward = l->recur_backward,
                      .xi = l->xi,
                      .bias = params->values + b_h->offset,
                      .hidden_bias = b_hn != NULL ? params->values + b_hn->offset : NULL,
                      .state_panels = l->state_panels,
                      .panel_T = l->size.T,
                      .shards = l->size.shards,
                      .panel_row = l->panel_row,
                      .dc = l->dc,
                      .bypass = l->bypass};
}

/* -------------------------------------------------------------------- forward */

size_t layer_input_ld(const layer *l)
{
  return kernels_ld(input_rows(l));
}

layer_below layer_output(const layer *l)
{
  return (layer_below){l->output + l->size.B * l->ld, l->params->shape.H, l->ld, l->output_panels};
}

layer_input layer_project_input(const layer *l, layer_below below, size_t T, unroll_real *rows)
{
  linear(T * l->size.B, below.n, input_rows(l), below.rows, below.ld, l->below_forward, rows,
         layer_input_ld(l));
  return (layer_input){rows, layer_input_ld(l), NULL};
}

void layer_forward(layer *l, layer_input input, size_t T)
{
  recurrence r = recurrence_of(l, 0, T);
  r.input = input.rows;
  r.ld_input = input.ld;
  r.index = input.index;
  recurrence_forward(&r);
}

void layer_apply_mask(layer *l, size_t T, const int32_t *y)
{
  const recurrence r = recurrence_of(l, 0, T);
  for (size_t n = 0; n < T * r.B; ++n) {
    if (y[n] < 0) { recurrence_zero_state(&r, n / r.B + 1, n % r.B); }
  }
}

/* ------------------------------------------------------------- what is passed */

/* h, or h after dropout, and with it what was read. */
static void add_below(const layer *l, const layer *below, bool dropped, size_t T)
{
  const size_t slot = l->size.B * l->ld;
#pragma omp parallel for default(none) schedule(static) shared(l, below, dropped, T, slot)
  for (size_t t = 1; t <= T; ++t) {
    if (!dropped) { memcpy(l->dropped + t * slot, l->h + t * slot, slot * sizeof *l->h); }
    kernels()->add(slot, below->output + t * slot, l->dropped + t * slot);
  }
}

void layer_pass(layer *l, const dropout *how, const layer *below, size_t T)
{
  const bool drops = how->p > 0.0, copies = drops || l->skips;
  l->output = copies ? l->dropped : l->h;
  l->output_panels = copies ? l->dropped_panels : l->state_panels;
  if (!copies) { return; }

  const size_t H = l->params->shape.H, B = l->size.B, slot = B * l->ld;
  const dropout_rows rows = {how,   l->number,   how->p,           T, B, H,
                             l->ld, l->h + slot, l->dropped + slot};
  const state_rows panels = {.T = T,
                             .B = B,
                             .H = H,
                             .shards = l->size.shards,
                             .h = rows.to,
                             .ld = l->ld,
                             .slot = 1,
                             .state_panels = l->dropped_panels,
                             .panel_T = l->size.T};
  if (drops) { dropout_run(&rows); }
  if (l->skips) { add_below(l, below, drops, T); }
  if (l->dropped_panels != NULL) { state_panels_copy(&panels); }
}

void layer_drop_backward(const layer *l, const dropout *how, network_span span, unroll_real *dh)
{
  dropout at = *how;
  const dropout_rows rows = {
      &at, l->number, how->p, span.end - span.begin, l->size.B, l->params->shape.H, l->ld, dh, dh};
  at.step += span.begin;
  if (how->p > 0.0) { dropout_run(&rows); }
}

/* ------------------------------------------------------------------- backward */

layer_deltas layer_backward(layer *l, network_span span, unroll_real *dh, bool last,
                            kernel_poll poll)
{
  recurrence r = recurrence_of(l, span.begin, span.end - span.begin);
  if (r.deltas == NULL) { r.deltas = dh; }
  r.dh = dh;
  r.after = last ? NULL : l->after;
  recurrence_backward(&r, poll);
  return (layer_deltas){r.deltas, l->ld_deltas};
}

void layer_save_boundary(layer *l, layer_deltas d)
{
  memcpy(l->after, d.rows, l->size.B * d.ld * sizeof *d.rows);
}

void layer_clear_boundary(layer *l, size_t begin, size_t end)
{
  const size_t n = end - begin, states = begin * l->ld;
  memset(l->after + begin * l->ld_deltas, 0, n * l->ld_deltas * sizeof *l->after);
  if (l->dc != NULL) { memset(l->dc + states, 0, n * l->ld * sizeof *l->dc); }
  if (l->bypass != NULL) { memset(l->bypass + states, 0, n * l->ld * sizeof *l->bypass); }
}

unroll_status layer_backward_weights(const layer *l, network_span span, layer_deltas d,
                                     const gradient_sink *sink)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = l->params;
  const size_t block = kernels_pad(params->shape.H), T = span.end - span.begin;
  const unroll_tensor *W_hh = params_tensor(params, l->number, PARAMS_W_HH),
                      *b_h = params_tensor(params, l->number, PARAMS_B_H),
                      *b_hn = params_tensor(params, l->number, PARAMS_B_HN);
  const bool shared = cell_shares_bias(l->cell);

  if (W_hh != NULL) { /* dW_hh = sum_t dA_t h_{t-1}^T, db_h = sum_t dA_t */
    const sink_product p = {.W = W_hh,
                            .b = shared ? b_h : NULL,
                            .source = GRADIENT_ROWS,
                            .dZ = d.rows + l->cell->first_recurrent * block,
                            .ld_dZ = d.ld,
                            .T = T,
                            .state_panels = l->state_panels,
                            .slot = span.begin};
    UNROLL_TRY(sink_add_product(sink, &p));
  }
  if (!shared) { UNROLL_TRY(sink_add_bias(sink, b_h, T, d.rows, d.ld)); }
  if (b_hn != NULL) {
    UNROLL_TRY(sink_add_bias(sink, b_hn, T, d.rows + l->cell->inputs * block, d.ld));
  }

cleanup:
  return st;
}

unroll_status layer_backward_input(const layer *l, layer_below below, network_span span,
                                   layer_deltas d, unroll_real *dh, const gradient_sink *sink)
{
  unroll_status st = UNROLL_OK;
  const size_t T = span.end - span.begin;
  /* dW_xh = sum_t dA_t h_t(below)^T, dH_t(below) = dA_t W_xh */
  const sink_product p = {.W = params_tensor(l->params, l->number, PARAMS_W_XH),
                          .source = GRADIENT_ROWS,
                          .dZ = d.rows,
                          .ld_dZ = d.ld,
                          .T = T,
                          .state_panels = below.panels,
                          .slot = span.begin + 1};
  UNROLL_TRY(sink_add_product(sink, &p));
  linear(T * l->size.B, input_rows(l), below.n, d.rows, d.ld, l->below_backward, dh, below.ld);

cleanup:
  return st;
}

/* -------------------------------------------------------------- carried state */

static unroll_real *state_of(const layer *l, size_t which)
{
  return which == 0 ? l->h : l->c;
}

void layer_reset(layer *l)
{
  for (size_t k = 0; k < params_states(l->params); ++k) {
    memset(state_of(l, k), 0, l->size.B * l->ld * sizeof *l->h);
  }
}

void layer_carry(layer *l, size_t T)
{
  const size_t slot = l->size.B * l->ld;
  if (T == 0) { return; } /* the state stays what it is */
  for (size_t k = 0; k < params_states(l->params); ++k) {
    memcpy(state_of(l, k), state_of(l, k) + T * slot, slot * sizeof *l->h);
  }
}

void layer_get_state(const layer *l, size_t which, size_t slot, const uint32_t *row,
                     unroll_real *state)
{
  const size_t H = l->params->shape.H;
  for (size_t b = 0; b < l->size.B; ++b) {
    memcpy(state + (row != NULL ? row[b] : b) * H,
           state_of(l, which) + (slot * l->size.B + b) * l->ld, H * sizeof *state);
  }
}

void layer_set_state(layer *l, size_t which, const uint32_t *row, const unroll_real *state)
{
  const size_t H = l->params->shape.H;
  for (size_t b = 0; b < l->size.B; ++b) {
    memcpy(state_of(l, which) + b * l->ld, state + (row != NULL ? row[b] : b) * H,
           H * sizeof *state);
  }
}
