#include "model/layer.h"
#include "model/network.h"

#include "kernels/output.h"

void network_forward(network *net, size_t T)
{
  size_t slot = net->B * net->ld;
  for (size_t l = 0; l < net->L; ++l) {
    if (l > 0) { /* X_t = H_t(below) W_xh^T for all steps at once */
      linear(T * net->B, net->H, net->H, net->h[l - 1] + slot, net->ld, net->below_forward[l],
             net->from_below, net->ld);
    }
    recurrence r = layer_recurrence(net, l, T);
    recurrence_forward(&r);
  }
}

void network_output(network *net, size_t T, double scale, bool only_loss)
{
  const unroll_params *params = net->params;
  const unroll_tensor *W_qh = params_output(params, PARAMS_W_QH),
                      *b_q = params_output(params, PARAMS_B_Q);
  const output_layer out = {.T = T,
                            .B = net->B,
                            .V = net->V,
                            .H = net->H,
                            .shards = net->shards,
                            .W = params->values + W_qh->offset,
                            .ld_W = W_qh->ld,
                            .bias = params->values + b_q->offset,
                            .h = net->h[net->L - 1] + net->B * net->ld,
                            .ld = net->ld,
                            .y = net->y,
                            .scale = (unroll_real)scale,
                            .only_loss = only_loss,
                            .O = net->O,
                            .dh = net->dh[0],
                            .nll = net->nll,
                            .scratch = net->output_scratch,
                            .y_panel = net->y_panel};
  output_layer_run(&out);
}
