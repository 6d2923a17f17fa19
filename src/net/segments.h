#ifndef NET_SEGMENTS_H
#define NET_SEGMENTS_H

/*
 * Gradient checkpointing: the exact gradient of sequences of any length, in memory that
 * grows as the square root of the length, for one more forward pass.
 *
 *   steps     0                 T                2T                3T       n
 *             |----- segment ----|----- segment ----|----- segment ----|------|
 *   kept      h                  h                  h                  h        (checkpoints)
 *   chunks    |----|----|----|---|----|----|----|---|----|----|----|---|----|-|
 *
 *   forward   all segments; the state at the start of each is saved
 *   backward  segments from the last to the first: recompute the states from the saved one, then for each chunk
 *             from the last to the first: losses, dL/da, weight gradients
 *
 * The states of one segment are in memory at a time, and the logits of one chunk. A shard's gradient is the sum
 * over its chunks, from the last to the first, and chunks begin at multiples of their length: so the bits depend
 * neither on the number of checkpoints nor on the number of ranks.
 *
 * Source: Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost", section 3
 */
#include "net/network.h"

/* Fills x and y (T, B) with steps [first, first + T) of this rank's sequences. */
typedef struct token_source {
  void (*fill)(void *context, size_t first, size_t T, int32_t *x, int32_t *y);
  void (*measure)(void *context,
                  uint64_t *length); /* (B) [steps] of each sequence; NULL: all are as long */
  void *context;
} token_source;

typedef struct segments {
  network *net;             /* borrowed */
  size_t max_segments;      /* segments at most */
  size_t n;                 /* steps of the current sequences */
  unroll_real *checkpoints; /* (most, states, L, B, H) state at the start of each segment */
  unroll_real *end;         /* (states, L, B, H) state behind the last step */
} segments;

/**
 * Steps of a chunk, the same on every rank: enough tokens to make the weight gradients
 * efficient, as long as the logits of all ranks together stay below CHUNK_LOGITS.
 */
size_t segments_chunk_steps(size_t B, size_t V);

/**
 * Steps of a segment: whole sequences where their states fit in SEGMENT_BYTES, else about the square root of half
 * the longest, which balances checkpoints and the states of a segment. A multiple of the chunk.
 *
 * @param[in] B      sequences of this rank
 * @param[in] drops  the layers have dropout or skip connections, and with them a copy of h
 */
size_t segments_steps(size_t longest, size_t chunk, const unroll_params *params, size_t B,
                      bool drops);

/** For sequences of up to `longest` steps. */
unroll_status segments_new(network *net, size_t longest, segments **out);
void segments_free(segments **s);

/** All n steps from the carried state of the network, the zero state where sequences are of unequal lengths; marks tokens for embedding_set_touched_rows where the table is
 * sparse. */
void segments_forward(segments *s, size_t n, token_source source);

/**
 * The gradient of the n steps, and their losses.
 *
 * @param[in]  scale  weight of each token's loss in the gradient
 * @param[out] sums   (shards) [nats] losses of each shard
 */
unroll_status segments_backward(segments *s, double scale, token_source source, double *sums,
                                const network_ready *ready);

/** The state behind the last step becomes the carried state of the network. */
void segments_carry(const segments *s);

#endif
