#ifndef TRAIN_DIAGNOSE_H
#define TRAIN_DIAGNOSE_H

/*
 * Gradient flow along the training (--diagnose-every): losses at fixed positions of the validation text,
 * or of the training text where there is no other, propagated back through the current weights.
 *
 * Positions are those of `unroll gradflow`, spread evenly over the tokens of all streams; a window that
 * would cross the end of a shard is moved back into it. A shard is contiguous text that one rank holds,
 * whatever their number, so that every rank measures its own windows and the result does not depend on their number.
 */
#include "train/trainer.h"

/**
 * Check before the first step that diagnose can work. To be called with t->run, train and valid.
 *
 * @return UNROLL_OK, UNROLL_ERR_ARG: lines or paragraphs instead of streams, or UNROLL_ERR_INPUT: too little
 *         text, or the run file has results of another plan
 *
 * Collective: no; the plan is checked on rank 0
 */
unroll_status diagnose_check(const trainer *t);

/**
 * Measure now: a row of /diagnostics, a line in the log, an event. Weights without a finite flow are a
 * warning and no row.
 *
 * Collective; the same status on every rank
 */
unroll_status diagnose(trainer *t);

#endif
