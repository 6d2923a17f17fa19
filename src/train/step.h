#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

/*
 * One step of training on one rank, from tokens to new weights; `train` and `bench` both run it:
 *
 *   forward    hidden states; losses and dL/do
 *   backward   the gradient of this rank, its finished parts already on their way
 *   sum        gradient and loss over all ranks, and what else they tell each other
 *   norm       of the global gradient
 *   update     clip, update, pack; or nothing where loss or norm is not finite
 *
 * The ranks of a team (comm/team.h) have parameters and moments once and share norm and update: each
 * takes some of the elements, and a fence ends what all must have done.
 *
 * A piece longer than the network's chunk is walked back with its states recomputed (net/segments.h);
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
  double output;   /* logits, losses and the gradient that they send back */
  double backward; /* without the exchange that runs meanwhile */
  double exchange; /* sending, receiving and adding, between and beside the computing */
  double wait;     /* blocked until the other ranks' parts of an exchange arrived */
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
  unroll_real **moments; /* as many as the optimizer has */
  bool moved;            /* parameters and moments are in the team's memory */
  network *net;
  segments *segments; /* NULL where no piece is longer than a chunk */
  comm_team *team;
  comm_exchange *exchange;
  unroll_real *rows;    /* (touched, ld) of the input table on their way, behind the gradient */
  unroll_real *sum;     /* (params->n) gradient over all ranks, and rows; of the team */
  double *squares;      /* (blocks) of the gradient, of the team */
  double *norm_scratch; /* (blocks) */
  double *shard_sums;   /* (shards of this rank) [nats] losses of the piece */
  step_times times;
} stepper;

/**
 * The sequences [first, first + count) of the global batch that a rank of so many has.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: the shards cannot be shared out evenly; the message names what would do
 */
unroll_status step_owned_sequences(uint64_t ranks, uint64_t rank, const unroll_config *config,
                                   size_t *first, size_t *count);

/**
 * What this rank computes with, hidden state zero. Everything passed in is borrowed, but params->values and the moments
 * move into memory of the team: they live as long as the stepper, and are NULL after. When the values are what they
 * shall be, and before the first step, the caller packs them: network_pack(s->net).
 *
 * @param[in] ranks    of the run: those of comm; or, with a comm of one rank, as many as are planned: that rank then
 *                     has its share of the batch, and adds up nothing but its own
 * @param[in] longest  [steps] of a piece, the same on every rank
 *
 * Collective; the same status on every rank
 */
unroll_status step_new(unroll_comm *comm, const unroll_config *config, size_t ranks, size_t longest,
                       unroll_params *params, unroll_real **moments, stepper **out);

/* [bytes] that the stepper of one rank of many would hold. */
typedef struct step_memory {
  uint64_t gradient;  /* in the memory of the team: this rank's part */
  uint64_t common;    /* in the memory of the team: parameters and moments above all */
  uint64_t workspace; /* hidden states, logits, packed weights and so on */
} step_memory;

/**
 * Count what step_new would allocate, by the same code: nothing is computed and next to no page is used. As step_new;
 * the parameters and moments stay where they are.
 */
unroll_status step_measure(unroll_comm *comm, const unroll_config *config, size_t ranks,
                           size_t longest, unroll_params *params, step_memory *out);

/** Elements of the gradient summed over the ranks in every step, from its begin on, for pieces of at most so many tokens
 * of all ranks; and of the rows behind it: at most, and as many as the last step touched. */
size_t step_exchange_dense_max(const unroll_params *params, size_t window);
size_t step_exchange_rows_max(const unroll_params *params, size_t window);
size_t step_exchange_dense(const stepper *s);
size_t step_exchange_rows(const stepper *s);

/** Collective */
void step_free(stepper **s);

/* Small counts that travel with the loss. */
#define STEP_FLAGS 2

typedef struct step_flags {
  /* Sets the flags (STEP_FLAGS) of this rank, zero before. Called when its gradient is computed, so that whatever
   * happened meanwhile counts. NULL: they stay zero. */
  void (*ask)(void *context, double *flags);
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
 * All of a step. Where loss or norm is not finite, weights and moments stay as they are, and the carried state, which
 * may not be finite either, becomes zero.
 *
 * @param[in] p       a piece of `text`, of which the rows of this rank are the sequences of s->net
 * @param[in] rate    learning rate
 * @param[in] update  counts applied updates from 1
 *
 * Collective
 */
unroll_status step_run(stepper *s, const piece *p, const text_source *text, double rate,
                       uint64_t update, step_flags flags, step_outcome *out);

#endif
