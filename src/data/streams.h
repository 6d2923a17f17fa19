#ifndef DATA_STREAMS_H
#define DATA_STREAMS_H

/*
 * Tokens -> streams -> windows.
 *
 * The N tokens of a part are cut into B contiguous streams of equal length
 * (the remainder at the end is not used); stream b is global sequence b of
 * every batch. A rank holds the tokens of its own sequences only.
 *
 *   length  = floor((N - 1) / B)        tokens predicted per stream
 *   x[t, b] = token[b * length + position + t],  y[t, b] = the next token
 *
 * sequential  windows follow each other, the state is carried; windows per epoch = floor(length / T)
 * random      in each epoch a stream's windows begin at a random offset in [0, T) and come in a
 *             random order, the state is zero; windows per epoch = floor((length - (T - 1)) / T),
 *             at least 1. Offset and order depend on (seed, epoch, b) alone.
 *
 * Source: Dive into Deep Learning 9.3, Partitioning Sequences
 */
#include "data/corpus.h"

typedef struct streams {
  size_t B;            /* sequences of the global batch */
  size_t first, count; /* this rank holds global sequences [first, first + count) */
  uint64_t length;     /* tokens predicted per stream */
  size_t width;        /* bytes of a stored token */
  void *tokens;        /* (count * length + 1): neighbouring streams share their border token */
} streams;

/**
 * Read this rank's streams of a counted part.
 *
 * @param[in] B             sequences over all ranks; first, count: this rank's
 * @param[in] ranks         of the run, for the message: those of comm, or as many as are planned
 * @param[in] least         [tokens] shortest legal stream: T for training, 1 for validation
 * @param[in] what          "training" or "validation", for the message
 *
 * @return the same on every rank: UNROLL_OK, or UNROLL_ERR_INPUT: too little text; the message names
 *         the largest legal batch for this T and the largest legal T for this batch
 *
 * Collective: over comm
 */
unroll_status streams_new(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                          const corpus_part *part, size_t B, size_t first, size_t count,
                          size_t ranks, size_t least, const char *what, streams **out);
void streams_free(streams **s);

/** Windows of T tokens in an epoch: the same number on every rank. */
uint64_t streams_windows(const streams *s, unroll_partition partition, size_t T);

/** Where window k of an epoch begins in stream b (global number). */
uint64_t streams_position(const streams *s, unroll_partition partition, size_t T, uint64_t seed,
                          uint64_t epoch, uint64_t k, size_t b);

/**
 * Inputs and targets of n tokens from `position` of one of this rank's streams on, written with a
 * stride so that a batch is time-major: x[t * stride] for t < n.
 */
void streams_copy(const streams *s, size_t b, uint64_t position, size_t n, size_t stride,
                  int32_t *x, int32_t *y);

/** The same of all of this rank's streams: x and y (n, count). */
void streams_window(const streams *s, uint64_t position, size_t n, int32_t *x, int32_t *y);

#endif
