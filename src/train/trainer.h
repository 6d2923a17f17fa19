#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

/*
 * A training run on one rank. train.c is the loop; setup.c prepares the run from
 * options and text or from a run file; record.c notifies the observer and writes
 * run files.
 */
#include "comm/comm.h"
#include "data/text_source.h"
#include "runfile/claim.h"
#include "runfile/runfile.h"
#include "train/step.h"
#include <unroll/train.h>

/* Most lines about the text that are told. */
#define TRAINER_NOTES 8

/* A line for the observer, NOTE or WARNING. */
typedef struct trainer_line {
  unroll_event event;
  char text[1024];
} trainer_line;

typedef struct trainer {
  unroll_comm *comm;
  size_t ranks;                    /* of the run: those of comm, but in a dry run */
  const unroll_observer *observer; /* rank 0 only, else NULL */
  unroll_progress progress;
  char preset[512]; /* of progress */

  claim *claim; /* on the name of the run file; rank 0, not in a dry run */
  run *run;     /* config, vocabulary, parameters, moments, state; metrics on rank 0 */
  text_source *train, *valid; /* valid may be NULL */
  double valid_tokens_per_character;
  uint64_t text_held;                /* [bytes] by the text, on this rank */
  trainer_line notes[TRAINER_NOTES]; /* (n_notes) about the text, to be told when training begins */
  size_t n_notes;
  size_t first, count; /* this rank's sequences */
  piece_count pieces;  /* of the whole run */
  piece piece;         /* of the current update */

  stepper *stepper;     /* its times are those since the last report */
  unroll_real *carried; /* (states, L, count, H) the training state while a validation runs */

  double started;         /* clock at the beginning, less the seconds before a resume */
  double next_checkpoint; /* clock of the next checkpoint by time; rank 0 decides */
  uint64_t resumed_step;
  bool changed;             /* this call has changed options of the run */
  unroll_status saved;      /* outcome of the last checkpoint */
  unroll_status best_saved; /* the same of the best model's file */
  bool has_checkpoint;      /* the file of that name is of this run; rank 0 knows */
  bool checkpoint_is_good;  /* a step from its weights had a finite loss and gradient */
  bool has_best;            /* this life has written the best model's file; the same */
} trainer;

/**
 * Everything before the first step: check, read, initialise or resume.
 *
 * Collective; the same status on every rank.
 */
unroll_status trainer_new(unroll_comm *comm, const unroll_config *config, size_t n_texts,
                          const char *const *texts, const char *command,
                          const unroll_observer *observer, trainer **out);
void trainer_free(trainer **t);

/**
 * The first part of trainer_new, all that a dry run needs: options, text, number of updates, memory for the model.
 * Rank r of comm is rank r modulo t->ranks of the run; t->comm and t->ranks are set.
 */
unroll_status trainer_read(trainer *t, const unroll_config *config, size_t n_texts,
                           const char *const *texts, bool *resumed);

/** Notify the observer, if this rank has one. `text` may be NULL. */
void record_notify(trainer *t, unroll_event event, const char *text);

/** Add a step that was applied to the report interval. */
void record_step(trainer *t, double loss, double norm, double scale);

/** End the report interval: a row of metrics, a line in the log. Collective. */
unroll_status record_interval(trainer *t);

/** Row, log and observer for a validation. Collective. */
unroll_status record_validation(trainer *t, double loss);

/**
 * Write the run file, keeping older ones, or the best model's own file. A failure is a warning to
 * the observer, and stored in t->saved or t->best_saved; training goes on and tries again at the next
 * checkpoint or better model.
 *
 * @return only errors after which nothing collective is safe
 *
 * Collective
 */
unroll_status record_checkpoint(trainer *t);
unroll_status record_best(trainer *t);

/** Training is over, `why`, in a few words: the hash of the weights, if they are saved, to log and observer. */
void record_end(trainer *t, const char *why);

/** What the exit status of an ended run shows: whether its last weights and its best model are saved. Rank 0 knows. */
unroll_status record_outcome(const trainer *t);

#endif
