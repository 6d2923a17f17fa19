#include "net/score.h"

#include "kernels/gradient.h"

#include <string.h>

void score_streams(network *net, const streams *s, score_listener listener, double *sums)
{
  memset(sums, 0, net->size.shards * sizeof *sums);
  for (uint64_t position = 0; position < s->length;) {
    size_t T =
        s->length - position < net->size.chunk ? (size_t)(s->length - position) : net->size.chunk;
    streams_window(s, position, T, net->x, net->y);
    network_forward(net, T);
    network_output(net, (network_span){0, 0, T}, 0.0, true);
    loss_by_shard(T * (net->size.B / net->size.shards), net->size.shards, net->head.nll, sums);
    if (listener.call != NULL) { listener.call(listener.context, T, net->y, net->head.nll); }
    network_carry(net, T);
    position += T;
  }
}

void score_sequences(network *net, const sequences *s, score_listener listener, double *sums)
{
  const unroll_partition order =
      listener.call != NULL ? UNROLL_PARTITION_SEQUENTIAL : UNROLL_PARTITION_RANDOM;
  net->masked = true;
  memset(sums, 0, net->size.shards * sizeof *sums);
  for (uint64_t k = 0; k < s->batches; ++k) {
    uint64_t longest = 0;
    for (size_t b = 0; b < net->size.B; ++b) {
      uint64_t length = sequences_view(s, order, 0, 0, k, s->first + b).length;
      if (length > longest) { longest = length; }
    }
    network_reset(net);
    for (uint64_t first = 0; first < longest; first += net->size.chunk) {
      size_t T = longest - first < net->size.chunk ? (size_t)(longest - first) : net->size.chunk;
      for (size_t b = 0; b < net->size.B; ++b) {
        sequences_copy(s, sequences_view(s, order, 0, 0, k, s->first + b), first, T, net->size.B,
                       net->x + b, net->y + b);
      }
      network_forward(net, T);
      network_output(net, (network_span){0, 0, T}, 0.0, true);
      loss_by_shard(T * (net->size.B / net->size.shards), net->size.shards, net->head.nll, sums);
      if (listener.call != NULL) { listener.call(listener.context, T, net->y, net->head.nll); }
      network_carry(net, T);
    }
  }
}
