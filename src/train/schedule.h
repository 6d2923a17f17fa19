#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H

/*
 * The learning rate as a function of the step and of validation losses.
 *
 *   warm-up   eta * (step + 1) / warmup for the first `warmup` steps
 *   constant  eta
 *   step      eta * lr_decay^k, k = 0 before epoch decay_from (0: decay_every), there 1, and one more every decay_every
 *   cosine    lr_min + (eta - lr_min) (1 + cos(pi s)) / 2, s from 0 to 1 between warm-up and end
 *                                                   (Loshchilov and Hutter 2017, without restarts)
 *   plateau   eta * lr_decay^k, k raised after `patience` validations without a new best
 */
#include "runfile/runfile.h"

/**
 * Learning rate of one step.
 *
 * @param[in] step    from 0
 * @param[in] steps   in the whole run
 * @param[in] epoch   from 0
 * @param[in] factor  of schedule plateau: run_state.lr_factor
 */
double schedule_rate(const unroll_config *config, uint64_t step, uint64_t steps, uint64_t epoch,
                     double factor);

/**
 * Record a validation loss: best value, plateau, early stopping.
 *
 * @return true when the loss is the best so far
 */
bool schedule_record_validation(const unroll_config *config, double loss, run_state *state);

/** Has the run gone without a new best for as many validations as --early-stop says? */
bool schedule_stops_early(const unroll_config *config, const run_state *state);

#endif
