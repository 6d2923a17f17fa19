#ifndef TRAIN_STEP_H
#define TRAIN_STEP_H

/*
 * One step of training on one rank, as the list of its phases; `train` and
 * `bench` both run it:
 *
 *   step_forward   hidden states; losses and dL/do
 *   step_backward  the gradient of this rank, its finished parts already on their way
 *   step_sum       gradient and loss over all ranks
 *   step_norm      of the global gradient
 *   step_update    clip, update, pack
 *
 * The ranks of a team (comm/team.h) have parameters and moments once and share norm and update: each
 * takes some of the elements, and a fence ends what all must have done.
 *
 * A piece longer than the network's chunk is walked back with its states recomputed (net/segments.h);
 * losses and dL/do are then part of step_backward. Each phase adds its seconds to `times`. Nothing is
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
unroll_status step_share(uint64_t ranks, uint64_t rank, const unroll_config *config, size_t *first,
                         size_t *count);

/**
 * What this rank computes with, weights packed, hidden state zero. Everything passed in is borrowed, but
 * params->values and the moments move into memory of the team: they live as long as the stepper, and are NULL after.
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
size_t step_exchanged_of(const unroll_params *params, size_t window);
size_t step_exchanged_rows_of(const unroll_params *params, size_t window);
size_t step_exchanged(const stepper *s);
size_t step_exchanged_rows(const stepper *s);

/** Collective */
void step_free(stepper **s);

void step_forward(stepper *s, const piece *p, token_source source);
unroll_status step_backward(stepper *s, const piece *p, token_source source);

/**
 * End the exchange of the gradient; sum over the ranks the losses and what else the caller wants to know.
 *
 * @param[out]    loss    [nats per token] of the piece, over all ranks
 * @param[in,out] flags   (n_flags) small counts, summed over the ranks
 *
 * Collective
 */
unroll_status step_sum(stepper *s, const piece *p, double *loss, size_t n_flags, double *flags);

/** Collective */
unroll_status step_norm(stepper *s, double *norm);

/**
 * w <- w - eta (clipped gradient), by the optimizer.
 *
 * @param[in]  update  counts updates from 1
 * @param[out] scale   the clip factor
 *
 * Collective
 */
unroll_status step_update(stepper *s, double norm, double eta, uint64_t update, double *scale);

#endif
