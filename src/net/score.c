#include "net/score.h"

#include <assert.h>
#include <string.h>

void score_text(network *net, const text_source *text, score_listener listener, double *sums)
{
  const size_t chunk = net->size.chunk;
  assert(net->size.B == text->cut.count);
  net->masked = text->ragged;
  net->dropout = (dropout){0};
  memset(sums, 0, net->size.shards * sizeof *sums);
  for (uint64_t k = 0; k < text->batches; ++k) {
    uint64_t steps = text->longest;
    network_reset(net);
    if (text->ragged) {
      text_source_lengths(text, 0, k, net->ragged.length);
      steps = network_sort(net);
    }
    for (uint64_t first = 0; first < steps; first += chunk) {
      size_t T = steps - first < chunk ? (size_t)(steps - first) : chunk;
      text_source_fill(text, 0, k, first, T, net->x, net->y);
      if (text->ragged) {
        network_take_part(net, first);
        network_gather(net, T);
      }
      network_forward(net, T);
      network_output(net, (network_span){0, 0, T}, 0.0, true);
      network_add_losses(net, T, sums);
      if (listener.call != NULL) { listener.call(listener.context, T, net->y, net->head.nll); }
      network_carry(net, T);
    }
    if (text->ragged) { network_unsort(net); }
  }
}
