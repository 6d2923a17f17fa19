#include "model/layer.h"
#include "model/network.h"

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

/* dW = sum_n dZ_n h_n^T over T steps, h of a layer from `slot` on, and db = sum_n dZ_n unless b is NULL. */
static void gradient_of(network *net, const target *to, size_t T, const unroll_tensor *W,
                        const unroll_tensor *b, gradient_source source, const unroll_real *dZ,
                        size_t layer, size_t slot)
{
  const weight_gradient g = {.T = T,
                             .B = net->B,
                             .shards = net->shards,
                             .group = net->group,
                             .M = W->rows,
                             .N = W->cols,
                             .source = source,
                             .dZ = dZ,
                             .ld_dZ = net->ld,
                             .h = net->state_panels[layer],
                             .panel_T = net->T,
                             .slot = slot,
                             .dW = to->gradient + W->offset,
                             .ld_dW = W->ld,
                             .db = b != NULL ? to->gradient + b->offset : NULL,
                             .apart = to->apart,
                             .scratch = net->gradient_scratch};
  weight_gradient_run(&g);
}

/* dW_qh = sum_t dO_t h_t^T, db_q = sum_t dO_t; dH of steps without a loss. */
static void backward_output(network *net, const target *to, network_span span)
{
  gradient_of(net, to, span.end - span.scored, params_output(net->params, PARAMS_W_QH),
              params_output(net->params, PARAMS_B_Q), GRADIENT_PANELS, net->O, net->L - 1,
              span.scored + 1);
  memset(net->dh[0], 0, (span.scored - span.begin) * net->B * net->ld * sizeof *net->dh[0]);
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
static void backward_layer(network *net, const target *to, network_span span, size_t l,
                           const unroll_real *after, unroll_real *dh, unroll_real *below,
                           kernel_poll poll)
{
  const unroll_params *params = net->params;
  const size_t T = span.end - span.begin;
  recurrence r = layer_recurrence(net, l, T);
  r.h += span.begin * net->B * net->ld;
  r.dh = dh;
  r.after = after;
  recurrence_backward(&r, poll);

  /* dW_hh = sum_t dA_t h_{t-1}^T, db_h = sum_t dA_t */
  gradient_of(net, to, T, params_tensor(params, l, PARAMS_W_HH),
              params_tensor(params, l, PARAMS_B_H), GRADIENT_ROWS, dh, l, span.begin);
  if (l == 0) {
    backward_input(net, to, span, dh);
  } else { /* dW_xh = sum_t dA_t h_t(below)^T, dH_t(below) = dA_t W_xh */
    gradient_of(net, to, T, params_tensor(params, l, PARAMS_W_XH), NULL, GRADIENT_ROWS, dh, l - 1,
                span.begin + 1);
    linear(T * net->B, net->H, net->H, dh, net->ld, net->below_backward[l], below, net->ld);
  }
}

/* Tell that the gradient is complete up to the end of the output layer, or of layer l, from *done on. */
static unroll_status tell(const network *net, const network_ready *ready, size_t *done, size_t end)
{
  unroll_status st = ready->call(ready->context, net->gradient + *done, end - *done);
  *done = end;
  return st;
}

static size_t told_with_layer(const network *net, size_t l)
{
  return l == 0 && net->sparse ? params_tensor(net->params, 0, PARAMS_W_XH)->offset
                               : params_layer_end(net->params, l);
}

unroll_status network_backward(network *net, network_span span, const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const target to = {net->gradient, 0};
  size_t done = 0;

  backward_output(net, &to, span);
  UNROLL_TRY(tell(net, ready, &done, net->params->n_output));
  for (size_t l = net->L; l-- > 0;) {
    size_t turn = (net->L - 1 - l) % 2; /* the two buffers take turns from layer to layer */
    backward_layer(net, &to, span, l, NULL, net->dh[turn], net->dh[1 - turn], ready->poll);
    UNROLL_TRY(tell(net, ready, &done, told_with_layer(net, l)));
  }

cleanup:
  return st;
}

void network_backward_chunk(network *net, network_span span, bool last)
{
  const target to = {net->apart, net->params->n};
  const size_t slot = net->B * net->ld;
  assert(net->apart != NULL);

  if (last) { memset(net->apart, 0, net->shards * to.apart * sizeof *net->apart); }
  backward_output(net, &to, span);
  for (size_t l = net->L; l-- > 0;) {
    size_t turn = (net->L - 1 - l) % 2;
    unroll_real *dh = net->dh[turn];
    backward_layer(net, &to, span, l, last ? NULL : net->after[l], dh, net->dh[1 - turn],
                   (kernel_poll){0});
    memcpy(net->after[l], dh, slot * sizeof *dh);
  }
}

unroll_status network_combine(network *net, const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = net->params;
  size_t done = 0;

  shards_combine(net->shards, net->group, params->n, params->n, net->apart, net->gradient);
  UNROLL_TRY(tell(net, ready, &done, params->n_output));
  for (size_t l = net->L; l-- > 0;) {
    UNROLL_TRY(tell(net, ready, &done, told_with_layer(net, l)));
  }

cleanup:
  return st;
}
