#ifndef NET_SCORE_H
#define NET_SCORE_H

/* Losses of whole streams, window after window, with the state carried: validation and `eval`. */
#include "data/sequences.h"
#include "data/streams.h"
#include "net/network.h"

/* Told the losses of each window: nll (T * B) in the order of head.nll, targets y (T, B). */
typedef struct score_listener {
  void (*call)(void *context, size_t T, const int32_t *y, const double *nll);
  void *context;
} score_listener;

/**
 * Score this rank's streams from their start to their end, from the carried state of the network.
 *
 * @param[out] sums  (shards) [nats] summed over each shard; the tree over them is the caller's
 *
 * Collective: no. Threads: opens regions
 */
void score_streams(network *net, const streams *s, score_listener listener, double *sums);

/**
 * The same of this rank's sequences, each from the zero state. With a listener they come in their order, else
 * those of about equal length together. The network becomes `masked`.
 */
void score_sequences(network *net, const sequences *s, score_listener listener, double *sums);

#endif
