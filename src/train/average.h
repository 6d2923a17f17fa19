#ifndef TRAIN_AVERAGE_H
#define TRAIN_AVERAGE_H

/*
 * The average a of the weights w over updates: a <- a + share (w - a) behind each update from the first one averaged on.
 * Where n have been averaged before, the share is
 *
 *   asgd     1 / (n + 1): their mean (Polyak and Juditsky 1992), from the beginning of epoch --average-from on
 *   ema      max(10 / (n + 10), 1 - decay): over the last tenth of them or so, so that the first ones are soon
 *            forgotten, until --average-decay forgets more slowly; from the same epoch on
 *   nt-asgd  as asgd, from the first validation on whose loss v_t is above the lowest of v_0 .. v_{t - patience - 1}
 *                                                   (Merity, Keskar and Socher 2018, algorithm 1)
 *
 * Each element is averaged by itself, by the rank that updates it: no bit depends on ranks or threads.
 */
#include "runfile/runfile.h"

/** Share of the weights of the next update; 0: they are not averaged. */
double average_share(const unroll_config *config, const run_state *state);

/** Does the last of n validations begin the average of nt-asgd? One before the first update is not counted. */
bool average_is_triggered(uint64_t patience, size_t n, const run_valid_row *rows);

#endif
