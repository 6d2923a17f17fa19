#ifndef DATA_SEQUENCES_H
#define DATA_SEQUENCES_H

/*
 * Lines or paragraphs as sequences of their own, of unequal lengths.
 *
 * The M sequences of a part are cut into B rows of consecutive ones, those of a text source; a batch has one sequence
 * of every row, or none where a row has one fewer than others. No token is lost: each sequence is read after a line
 * end, from which its first token is predicted. Before the first of the text there is none: it is added.
 *
 *   line        ends with its line end, or with the text
 *   paragraph   begins with the line that follows one blank line or more: white space only, as between \r\n and \r\n
 *
 * sequential  batch k has sequence k of each row
 * random      each row is sorted by length; a random order of the places, the same in all rows, is a function of
 *             (seed, epoch), and neighbours within NEIGHBOURS places are mixed, by (seed, epoch, row). So the
 *             sequences of a batch are about equally long, and little is computed behind their ends.
 */
#include "data/text_source.h"

/** Find the sequences of a part and read this rank's: text_source_new. Collective */
unroll_status sequences_read(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                             const corpus_part *part, text_source *s);

/** text_source_stretch */
stretch sequences_stretch(const text_source *s, uint64_t epoch, uint64_t k, size_t b);

#endif
