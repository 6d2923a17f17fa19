#include "net/layer.h"
#include "net/network.h"

#include "kernels/output.h"

#include <assert.h>

/* Behind the end of a sequence its state is zero, so that what goes on there can neither grow nor count. */
static void clear_masked(const network *net, const recurrence *r)
{
  for (size_t n = 0; n < r->T * r->B; ++n) {
    if (net->y[n] < 0) { recurrence_clear(r, n / r->B + 1, n % r->B); }
  }
}

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
    if (net->masked) { clear_masked(net, &r); }
  }
}

void network_output(network *net, network_span span, double scale, bool only_loss)
{
  const size_t slot = net->B * net->ld;
  const unroll_params *params = net->params;
  const unroll_tensor *W_qh = params_output(params, PARAMS_W_QH),
                      *b_q = params_output(params, PARAMS_B_Q);
  assert(span.begin <= span.scored && span.scored < span.end);
  assert(span.end <= net->T && span.end - span.begin <= net->chunk);
  const output_layer out = {.T = span.end - span.scored,
                            .B = net->B,
                            .V = net->V,
                            .H = net->H,
                            .shards = net->shards,
                            .W = params->values + W_qh->offset,
                            .ld_W = W_qh->ld,
                            .bias = params->values + b_q->offset,
                            .h = net->h[net->L - 1] + (span.scored + 1) * slot,
                            .ld = net->ld,
                            .y = net->y + span.scored * net->B,
                            .scale = (unroll_real)scale,
                            .only_loss = only_loss,
                            .O = net->O,
                            .dh = only_loss ? NULL : net->dh[0] + (span.scored - span.begin) * slot,
                            .nll = net->nll,
                            .scratch = net->output_scratch,
                            .y_panel = net->y_panel};
  output_layer_run(&out);
}
