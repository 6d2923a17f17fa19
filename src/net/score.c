#include "net/score.h"

#include "kernels/gradient.h"

#include <assert.h>
#include <string.h>

void score_text(network *net, const text_source *text, score_listener listener, double *sums)
{
  const size_t B = net->size.B, shards = net->size.shards, chunk = net->size.chunk;
  assert(B == text->cut.count);
  net->masked = text->ragged;
  net->dropout = (dropout){0};
  memset(sums, 0, shards * sizeof *sums);
  for (uint64_t k = 0; k < text->batches; ++k) {
    const uint64_t steps = text_source_extent(text, 0, k).steps;
    network_reset(net);
    for (uint64_t first = 0; first < steps; first += chunk) {
      size_t T = steps - first < chunk ? (size_t)(steps - first) : chunk;
      text_source_fill(text, 0, k, first, T, net->x, net->y);
      network_forward(net, T);
      network_output(net, (network_span){0, 0, T}, 0.0, true);
      loss_by_shard(T * (B / shards), shards, net->head.nll, sums);
      if (listener.call != NULL) { listener.call(listener.context, T, net->y, net->head.nll); }
      network_carry(net, T);
    }
  }
}
