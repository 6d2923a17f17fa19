#ifndef DATA_STREAMS_H
#define DATA_STREAMS_H

/*
 * Tokens -> streams -> windows.
 *
 * The N tokens of a part are cut into B contiguous streams of equal length
 * (the remainder at the end is not used): the rows of a text source.
 *
 *   length  = floor((N - 1) / B)        tokens predicted per stream
 *
 * sequential  one batch has the streams whole: windows that follow each other are cut from it, the state is
 *             carried
 * random      in each epoch a stream's windows begin at a random offset in [0, T) and come in a
 *             random order, the state is zero; windows per epoch = floor((length - (T - 1)) / T),
 *             at least 1. Offset and order depend on (seed, epoch, b) alone.
 *
 * Source: Dive into Deep Learning 9.3, Partitioning Sequences
 */
#include "data/text_source.h"

/** Whole streams of `length` tokens, or with a random partition their windows. */
void streams_cut(text_source *s, uint64_t length);

/** Cut a part and read this rank's streams: text_source_new. Collective */
unroll_status streams_read(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                           const corpus_part *part, text_source *s);

/** text_source_stretch */
stretch streams_stretch(const text_source *s, uint64_t epoch, uint64_t k, size_t b);

#endif
