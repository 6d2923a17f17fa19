#include "net/layer.h"
#include "net/network.h"

#include "base/check.h"
#include "kernels/gradient.h"

#include <assert.h>
#include <string.h>

/* Where the sums over the tokens of a span go: the tree over the shards to the gradient, or each shard's own
 * to what it has (kernels/gradient.h). */
typedef struct target {
  unroll_real *gradient;
  size_t apart;
} target;

/* A product dW = sum_n dZ_n h_n^T over T steps, h of a layer from `slot` on, and db = sum_n dZ_n where b is not NULL. */
typedef struct product {
  const unroll_tensor *W, *b;
  gradient_source source;
  const unroll_real *dZ;
  size_t T, layer, slot;
} product;

/* Where slice k of n of the rows of W begins. */
static size_t slice_begin(const unroll_tensor *W, size_t k, size_t n)
{
  const size_t tile = weight_gradient_tile();
  size_t row = k == n ? W->rows : W->rows * k / n / tile * tile;
  return row < W->rows ? row : W->rows;
}

/* Elements x[at, at + n) of the gradient are complete. */
static unroll_status tell(const network *net, const network_ready *ready, size_t at, size_t n)
{
  if (ready == NULL || n == 0) { return UNROLL_OK; }
  return ready->call(ready->context, net->gradient + at, n);
}

/* The product, told in slices as they become complete; b, which lies behind W, with the last. */
static unroll_status gradient_of(network *net, const target *to, const product *p,
                                 const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const unroll_tensor *W = p->W, *b = p->b;
  weight_gradient g = {.T = p->T,
                       .B = net->B,
                       .shards = net->shards,
                       .group = net->group,
                       .M = W->rows,
                       .N = W->cols,
                       .source = p->source,
                       .dZ = p->dZ,
                       .ld_dZ = net->ld,
                       .h = net->state_panels[p->layer],
                       .panel_T = net->T,
                       .slot = p->slot,
                       .dW = to->gradient + W->offset,
                       .ld_dW = W->ld,
                       .db = b != NULL ? to->gradient + b->offset : NULL,
                       .apart = to->apart,
                       .scratch = net->gradient_scratch};
  size_t slices = 1, end = W->offset + W->rows * W->ld;
  if (ready != NULL) { g.poll = ready->poll; }
  if (ready != NULL && ready->slice > 0) { slices = W->rows * W->ld / ready->slice; }
  if (slices > SLICES_MAX) { slices = SLICES_MAX; }
  if (b != NULL) { end = b->offset + b->ld; }

  for (size_t k = 0; k < slices || k == 0; ++k) {
    size_t first = slices > 1 ? slice_begin(W, k, slices) : 0;
    size_t last = slices > 1 ? slice_begin(W, k + 1, slices) : W->rows;
    if (first == last) { continue; }
    weight_gradient_rows(&g, first, last);
    size_t at = W->offset + first * W->ld;
    UNROLL_TRY(tell(net, ready, at, (last == W->rows ? end : W->offset + last * W->ld) - at));
  }

cleanup:
  return st;
}

/* dW_qh = sum_t dO_t h_t^T, db_q = sum_t dO_t; dH of steps without a loss. */
static unroll_status backward_output(network *net, const target *to, network_span span,
                                     const network_ready *ready)
{
  const product W_qh = {.W = params_output(net->params, PARAMS_W_QH),
                        .b = params_output(net->params, PARAMS_B_Q),
                        .source = GRADIENT_PANELS,
                        .dZ = net->O,
                        .T = span.end - span.scored,
                        .layer = net->L - 1,
                        .slot = span.scored + 1};
  memset(net->dh[0], 0, (span.scored - span.begin) * net->B * net->ld * sizeof *net->dh[0]);
  return gradient_of(net, to, &W_qh, ready);
}

/* The input table is complete: it, or its touched rows, are told. */
static unroll_status tell_input(const network *net, const network_ready *ready)
{
  const unroll_tensor *W_xh = params_tensor(net->params, 0, PARAMS_W_XH);
  if (!net->sparse) { return tell(net, ready, W_xh->offset, net->V * W_xh->ld); }
  if (net->rows == NULL || ready == NULL) { return UNROLL_OK; }
  network_rows_out(net);
  return ready->call(ready->context, net->rows, net->n_touched * W_xh->ld);
}

/* dW_xh of the first layer: the columns of the tokens seen. */
static void backward_input(network *net, const target *to, network_span span, const unroll_real *dh)
{
  const unroll_tensor *W_xh = params_tensor(net->params, 0, PARAMS_W_XH);
  unroll_real *table = to->gradient + W_xh->offset;
  const token_gradient g = {.T = span.end - span.begin,
                            .B = net->B,
                            .shards = net->shards,
                            .group = net->group,
                            .V = net->V,
                            .H = net->H,
                            .x = net->x + span.begin * net->B,
                            .dZ = dh,
                            .ld = net->ld,
                            .dW = table,
                            .ld_dW = W_xh->ld,
                            .apart = to->apart,
                            .start = net->start,
                            .list = net->list};
  if (to->apart == 0 && !net->sparse) { memset(table, 0, net->V * W_xh->ld * sizeof *table); }
  token_gradient_run(&g);
}

/* Layer l: dh, dL/dh of its states from above, becomes dL/da; `below` gets dL/dh of the layer below. */
static unroll_status backward_layer(network *net, const target *to, network_span span, size_t l,
                                    const unroll_real *after, unroll_real *dh, unroll_real *below,
                                    const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = net->params;
  const size_t T = span.end - span.begin;
  recurrence r = layer_recurrence(net, l, T);
  r.h += span.begin * net->B * net->ld;
  r.dh = dh;
  r.after = after;
  recurrence_backward(&r, ready != NULL ? ready->poll : (kernel_poll){0});

  if (l == 0) {
    backward_input(net, to, span, dh);
    UNROLL_TRY(tell_input(net, ready));
  }
  /* dW_hh = sum_t dA_t h_{t-1}^T, db_h = sum_t dA_t */
  const product W_hh = {.W = params_tensor(params, l, PARAMS_W_HH),
                        .b = params_tensor(params, l, PARAMS_B_H),
                        .source = GRADIENT_ROWS,
                        .dZ = dh,
                        .T = T,
                        .layer = l,
                        .slot = span.begin};
  UNROLL_TRY(gradient_of(net, to, &W_hh, ready));
  if (l > 0) { /* dW_xh = sum_t dA_t h_t(below)^T, dH_t(below) = dA_t W_xh */
    const product W_xh = {.W = params_tensor(params, l, PARAMS_W_XH),
                          .source = GRADIENT_ROWS,
                          .dZ = dh,
                          .T = T,
                          .layer = l - 1,
                          .slot = span.begin + 1};
    UNROLL_TRY(gradient_of(net, to, &W_xh, ready));
    linear(T * net->B, net->H, net->H, dh, net->ld, net->below_backward[l], below, net->ld);
  }

cleanup:
  return st;
}

unroll_status network_backward(network *net, network_span span, const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const target to = {net->gradient, 0};

  UNROLL_TRY(backward_output(net, &to, span, ready));
  for (size_t l = net->L; l-- > 0;) {
    size_t turn = (net->L - 1 - l) % 2; /* the two buffers take turns from layer to layer */
    UNROLL_TRY(backward_layer(net, &to, span, l, NULL, net->dh[turn], net->dh[1 - turn], ready));
  }

cleanup:
  return st;
}

void network_backward_chunk(network *net, network_span span, bool last)
{
  const target to = {net->apart, net->params->n};
  const size_t slot = net->B * net->ld;
  assert(net->apart != NULL);

  /* Nothing is told before all chunks are added up, and only telling can fail. */
  if (last) { memset(net->apart, 0, net->shards * to.apart * sizeof *net->apart); }
  (void)backward_output(net, &to, span, NULL);
  for (size_t l = net->L; l-- > 0;) {
    size_t turn = (net->L - 1 - l) % 2;
    unroll_real *dh = net->dh[turn];
    (void)backward_layer(net, &to, span, l, last ? NULL : net->after[l], dh, net->dh[1 - turn],
                         NULL);
    memcpy(net->after[l], dh, slot * sizeof *dh);
  }
}

unroll_status network_combine(network *net, const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = net->params;

  shards_combine(net->shards, net->group, params->n, params->n, net->apart, net->gradient);
  UNROLL_TRY(tell(net, ready, 0, params_tensor(params, 0, PARAMS_W_XH)->offset));
  UNROLL_TRY(tell_input(net, ready));

cleanup:
  return st;
}
