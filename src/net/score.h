#ifndef NET_SCORE_H
#define NET_SCORE_H

/* Losses of a text, batch after batch, each from the zero state on: validation and `eval`. */
#include "data/text_source.h"
#include "net/network.h"

/* Called with the losses of each window: nll (T * B) in the order of head.nll, targets y (T, B). */
typedef struct score_listener {
  void (*call)(void *context, size_t T, const int32_t *y, const double *nll);
  void *context;
} score_listener;

/**
 * Score this rank's rows of an epoch of the text, in windows of a chunk of the network.
 *
 * @param[in]  net   of as many sequences as the text has rows on this rank; its carried state is lost
 * @param[out] sums  (shards) [nats] summed over each shard; the tree over them is the caller's
 *
 * Collective: no. Threads: opens regions
 */
void score_text(network *net, const text_source *text, score_listener listener, double *sums);

#endif
