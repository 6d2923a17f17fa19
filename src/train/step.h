#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

/*
 * One step of training on one rank, from tokens to new weights; `train` and `bench` both run it:
 *
 *   forward    hidden states; losses and dL/do
 *   backward   the gradient of this rank; the exchange of complete slices starts meanwhile
 *   sum        gradient, loss and flags over all ranks
 *   norm       of the global gradient
 *   update     clip, update, pack; or nothing where loss or norm is not finite
 *
 * The ranks of a team (comm/team.h) share one copy of parameters and moments, and divide norm and update by
 * elements, with a fence after each.
 *
 * A piece longer than the network's chunk is propagated back with its states recomputed (net/segments.h);
 * losses and dL/do are then part of the backward phase. Each phase adds its seconds to `times`. Nothing is
 * allocated after step_new.
 */
#include "comm/comm.h"
#include "comm/team.h"
#include "net/segments.h"
#include "train/piece.h"
#include <unroll/config.h>

/* [seconds] of this rank, added up over `steps` steps. No two phases overlap. */
typedef struct step_times {
  double total;    /* of the steps, whatever they did */
  double forward;  /* hidden states of all layers */
  double output;   /* logits, losses, dL/do and dL/dh */
  double backward; /* without the exchange that it overlaps */
  double exchange; /* sending, receiving and adding, inside the other phases or between them */
  double wait;     /* blocked until messages and ranks of an exchange arrived */
  double norm;     /* of the gradient */
  double update;   /* optimizer, and packing the new weights */
  uint64_t steps;
  uint64_t tokens; /* of these steps, with a loss, over all ranks */
} step_times;

typedef struct stepper {
  unroll_comm *comm;
  size_t ranks;                /* of the run */
  const unroll_config *config; /* resolved */
  unroll_params *params;
  unroll_real **moments; /* run_moments(config) */
  bool moved;            /* parameters and moments are in the team's memory */
  network *net;
  segments *segments; /* NULL where no piece is longer than a chunk */
  comm_team *team;
  comm_exchange *exchange;
  unroll_real *rows; /* (n_touched, ld) of the input table for the exchange, behind the gradient */
  unroll_real *sum;  /* (params->n_gradient) over all ranks, then touched rows; of the team */
  double *squares;   /* (blocks) sums of squares of the gradient; of the team */
  double *norm_scratch; /* (blocks) */
  double *shard_sums;   /* (shards of this rank) [nats] losses of the piece */
  step_times times;
} stepper;

/**
 * The sequences [first, first + count) of the global batch that a rank owns.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: the shards cannot be divided evenly; the message names legal numbers of ranks
 */
unroll_status step_owned_sequences(uint64_t ranks, uint64_t rank, const unroll_config *config,
                                   size_t *first, size_t *count);

/**
 * The workspace of a step on this rank, hidden state zero. The arguments are borrowed, except that params->values and
 * the moments, as many as run_moments, move into memory of the team: they live as long as the stepper and are NULL afterwards. The caller packs
 * the weights before the first step, when params->values are final: network_pack(s->net).
 *
 * @param[in] ranks    of the run: those of comm; or, with a comm of one rank, as many as are planned: that rank then
 *                     has the batch of one of them, and sums over itself only
 * @param[in] longest  [steps] of a piece, the same on every rank
 *
 * Collective; the same status on every rank
 */
unroll_status step_new(unroll_comm *comm, const unroll_config *config, size_t ranks, size_t longest,
                       unroll_params *params, unroll_real **moments, stepper **out);

/* [bytes] that the stepper of one rank of many would hold. */
typedef struct step_memory {
  uint64_t gradient;  /* in the memory of the team: this rank's segment */
  uint64_t common;    /* in the memory of the team: mostly parameters and moments */
  uint64_t workspace; /* hidden states, logits, packed weights and so on */
} step_memory;

/**
 * Count what step_new would allocate, by the same code: memory is reserved, but hardly a page is written. Arguments as
 * of step_new; parameters and moments are not moved.
 */
unroll_status step_measure(unroll_comm *comm, const unroll_config *config, size_t ranks,
                           size_t longest, unroll_params *params, step_memory *out);

/** Elements that a step sums over the ranks: `dense`, the first of the gradient; `rows`, the touched rows. _max: for
 * pieces of at most `window` tokens of all ranks; else those of the last step. */
size_t step_exchange_dense_max(const unroll_params *params, size_t window);
size_t step_exchange_rows_max(const unroll_params *params, size_t window);
size_t step_exchange_dense(const stepper *s);
size_t step_exchange_rows(const stepper *s);

/** Collective */
void step_free(stepper **s);

/* Small counts that are summed together with the loss. */
#define STEP_FLAGS 2

typedef struct step_flags {
  /* Sets the flags (STEP_FLAGS) of this rank, zero before. Called after the backward pass, as late as possible.
   * NULL: they stay zero. */
  void (*set)(void *context, double *flags);
  void *context;
} step_flags;

/* The same on every rank. */
typedef struct step_outcome {
  double loss;              /* [nats per token] of the piece, over all ranks */
  double norm;              /* of the global mean gradient, before clipping */
  double flags[STEP_FLAGS]; /* summed over the ranks */
  bool updated;             /* loss and norm are finite: the weights are new */
  double scale;             /* then: clip factor */
} step_outcome;

/**
 * Run one step. Where loss or norm is not finite, weights and moments are not changed, and the carried state, which
 * may not be finite either, is set to zero.
 *
 * @param[in] p       a piece of `text`, of which the rows of this rank are the sequences of s->net
 * @param[in] rate    learning rate
 * @param[in] share   of the new weights in their average; 0: it stays as it is
 * @param[in] update  counts applied updates from 1
 *
 * Collective
 */
unroll_status step_run(stepper *s, const piece *p, const text_source *text, double rate,
                       double share, uint64_t update, step_flags flags, step_outcome *out);

#endif
