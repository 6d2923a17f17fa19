#ifndef DATA_BLOCKS_H
#define DATA_BLOCKS_H

/*
 * The blocks of a part: where they lie, which rank counts them, and their
 * tokens. The blocks of a rank are scanned by its threads; a block is the work
 * of one thread, so nothing depends on how many there are.
 */
#include "data/scan.h"

/** Blocks of a part, counted from its beginning. */
size_t corpus_blocks(const corpus_part *part);

/** Where block k of a part begins; for k = corpus_blocks(part) the end of the part. */
uint64_t corpus_block_begin(const corpus_part *part, size_t k);

/** The blocks [*first, *last) that this rank scans: neighbours, so that it reads straight on. */
void corpus_share(const unroll_comm *comm, const corpus_part *part, size_t *first, size_t *last);

/** Threads that scan_blocks takes for so many blocks, >= 1. */
size_t scan_threads(size_t blocks);

/** What a thread does with block k, to which its scanner has been set. */
typedef unroll_status scan_work(void *context, size_t thread, size_t k, scan *s);

/**
 * Scan the blocks [first, last) of a part, shared out over the threads: each has neighbours, in their order.
 *
 * @return UNROLL_OK, or the status of the first block that failed, with its line
 *
 * Threads: opens a region, in which `work` is called
 */
unroll_status scan_blocks(const corpus *c, unroll_text_rules rules, const corpus_part *part,
                          size_t first, size_t last, scan_work *work, void *context);

/* What a rank counts of its share of the blocks of a part. */
typedef struct block_counts {
  uint64_t *table;  /* (blocks + 1); owned */
  uint64_t *tokens; /* (blocks) of each block, all in the table; zeros but for this rank's share */
  scan_counts text; /* of the share */
  uint64_t unknown; /* tokens of the share that are not in the vocabulary */
} block_counts;

/** Zeros for the blocks of a part. The caller owns what is in *counts. */
unroll_status block_counts_new(const corpus_part *part, block_counts *counts);
void block_counts_free(block_counts *counts);

/** Add what is not told block by block, of a block that has been scanned. Any thread. */
void block_counts_add(block_counts *counts, const scan *s, uint64_t unknown);

/** Sum over the ranks: the counts of the part, which takes the table over. Collective. */
unroll_status block_counts_sum(unroll_comm *comm, block_counts *counts, corpus_part *part);

#endif
