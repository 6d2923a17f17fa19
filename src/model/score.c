#include "model/score.h"

#include "kernels/gradient.h"

#include <string.h>

void score_streams(network *net, const streams *s, score_listener listener, double *sums)
{
  memset(sums, 0, net->shards * sizeof *sums);
  for (uint64_t position = 0; position < s->length;) {
    size_t T = s->length - position < net->T ? (size_t)(s->length - position) : net->T;
    for (size_t b = 0; b < net->B; ++b) {
      streams_copy(s, s->first + b, position, T, net->B, net->x + b, net->y + b);
    }
    network_forward(net, T);
    network_output(net, T, 0.0, true);
    loss_by_shard(T * (net->B / net->shards), net->shards, net->nll, sums);
    if (listener.call != NULL) { listener.call(listener.context, T, net->y, net->nll); }
    network_carry(net, T);
    position += T;
  }
}
