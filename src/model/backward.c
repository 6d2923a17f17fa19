#include "model/layer.h"
#include "model/network.h"

#include "base/check.h"
#include "kernels/gradient.h"

#include <string.h>

/* dW = sum_n dZ_n h_n^T, h of a layer before or after the step, and db = sum_n dZ_n unless b is NULL. */
static void gradient_of(network *net, size_t T, const unroll_tensor *W, const unroll_tensor *b,
                        gradient_source source, const unroll_real *dZ, size_t layer, int after)
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
                             .after = after,
                             .dW = net->gradient + W->offset,
                             .ld_dW = W->ld,
                             .db = b != NULL ? net->gradient + b->offset : NULL,
                             .scratch = net->gradient_scratch};
  weight_gradient_run(&g);
}

/* Tell that the gradient is complete up to `end`, from *done on. */
static unroll_status tell(const network *net, const network_ready *ready, size_t *done, size_t end)
{
  unroll_status st = ready->call(ready->context, net->gradient + *done, end - *done);
  *done = end;
  return st;
}

unroll_status network_backward(network *net, size_t T, const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = net->params;
  size_t done = 0;
  unroll_real *dh = net->dh[0], *below = net->dh[1];

  /* dW_qh = sum_t dO_t h_t^T, db_q = sum_t dO_t */
  gradient_of(net, T, params_output(params, PARAMS_W_QH), params_output(params, PARAMS_B_Q),
              GRADIENT_PANELS, net->O, net->L - 1, 1);
  UNROLL_TRY(tell(net, ready, &done, params->n_output));

  for (size_t l = net->L; l-- > 0;) {
    const unroll_tensor *W_hh = params_tensor(params, l, PARAMS_W_HH),
                        *b_h = params_tensor(params, l, PARAMS_B_H);
    const unroll_tensor *W_xh = params_tensor(params, l, PARAMS_W_XH);
    recurrence r = layer_recurrence(net, l, T);
    r.dh = dh; /* from here on dL/da of layer l */
    recurrence_backward(&r, ready->poll);

    /* dW_hh = sum_t dA_t h_{t-1}^T, db_h = sum_t dA_t */
    gradient_of(net, T, W_hh, b_h, GRADIENT_ROWS, dh, l, 0);
    if (l == 0) { /* dW_xh: the columns of the tokens seen */
      unroll_real *table = net->gradient + W_xh->offset;
      if (!net->sparse) { memset(table, 0, net->V * W_xh->ld * sizeof *table); }
      const token_gradient g = {.T = T,
                                .B = net->B,
                                .shards = net->shards,
                                .group = net->group,
                                .V = net->V,
                                .H = net->H,
                                .x = net->x,
                                .dZ = dh,
                                .ld = net->ld,
                                .dW = table,
                                .ld_dW = W_xh->ld,
                                .start = net->start,
                                .list = net->list};
      token_gradient_run(&g);
    } else { /* dW_xh = sum_t dA_t h_t(below)^T, dH_t(below) = dA_t W_xh */
      gradient_of(net, T, W_xh, NULL, GRADIENT_ROWS, dh, l - 1, 1);
      linear(T * net->B, net->H, net->H, dh, net->ld, net->below_backward[l], below, net->ld);
    }
    UNROLL_TRY(tell(net, ready, &done,
                    l == 0 && net->sparse ? W_xh->offset : params_layer_end(params, l)));
    unroll_real *swap = dh;
    dh = below;
    below = swap;
  }

cleanup:
  return st;
}
