#ifndef NET_LAYER_H
#define NET_LAYER_H

/* Layer l of a network as the kernels take it; shared by forward.c and backward.c. */
#include "net/network.h"

static inline recurrence layer_recurrence(network *net, size_t l, size_t T)
{
  const unroll_params *params = net->params;
  const unroll_tensor *W_xh = params_tensor(params, l, PARAMS_W_XH),
                      *b_h = params_tensor(params, l, PARAMS_B_H);
  return (recurrence){.T = T,
                      .B = net->B,
                      .H = net->H,
                      .activation = net->activation,
                      .ld = net->ld,
                      .h = net->h[l],
                      .forward = net->recur_forward[l],
                      .backward = net->recur_backward[l],
                      .input = l == 0 ? params->values + W_xh->offset : net->from_below,
                      .ld_input = l == 0 ? W_xh->ld : net->ld,
                      .index = l == 0 ? net->x : NULL,
                      .bias = params->values + b_h->offset,
                      .state_panels = net->state_panels[l],
                      .panel_T = net->T,
                      .shards = net->shards,
                      .panel_row = net->panel_row};
}

#endif
