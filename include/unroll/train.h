#ifndef UNROLL_TRAIN_H
#define UNROLL_TRAIN_H

/*
 * Train a model: text in, one run file out.
 *
 * The data flow of one step, as src/train/train.c reads:
 *   window -> forward -> backward -> sum over ranks -> clip -> update -> record
 *
 * The library never prints: what happens is told to an observer.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/config.h>
#include <unroll/gradflow.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum unroll_event {
  UNROLL_EVENT_START,      /* everything is read: vocab .. windows are set, training begins */
  UNROLL_EVENT_STEP,       /* a step is done: a chance to refresh a progress line */
  UNROLL_EVENT_REPORT,     /* a report interval is over: a line for the log */
  UNROLL_EVENT_VALID,      /* a validation is done */
  UNROLL_EVENT_DIAGNOSE,   /* the gradient flow was measured: `flow` */
  UNROLL_EVENT_CHECKPOINT, /* a run file was written */
  UNROLL_EVENT_WARNING,    /* `text` says what went wrong; training goes on */
  UNROLL_EVENT_END         /* training is over; `text` says why, in a few words */
} unroll_event;

/* What an observer is told. Fields keep their last value between events. */
typedef struct unroll_progress {
  unroll_event event;
  const char *text;       /* WARNING, END, CHECKPOINT (the path); else NULL */
  uint64_t step, steps;   /* updates done; in the whole run */
  uint64_t epoch, epochs; /* from 1 */
  double loss; /* [nats per token] mean over the report interval; STEP: of the interval so far */
  double perplexity;
  double grad_norm, clip_scale, learning_rate;
  uint64_t tokens;          /* trained on so far */
  double tokens_per_second; /* over the interval */
  double seconds, seconds_left;
  double compute_seconds, wait_seconds, exchange_seconds; /* per step, mean over ranks */
  double valid_loss, valid_perplexity, valid_bits_per_character;
  uint64_t best_step; /* of the best validation; 0: none */
  double best_loss;
  const unroll_gradflow *flow; /* DIAGNOSE, for the time of the call; else NULL */
  /* set at START */
  uint64_t V, parameters, train_tokens, valid_tokens, unknown_tokens, windows;
  uint64_t resumed_step; /* 0: a new run */
  uint64_t shards;
} unroll_progress;

typedef struct unroll_observer {
  void *context;
  void (*tell)(void *context, const unroll_progress *progress); /* on rank 0; may be NULL */
  /*
   * This rank has waited long for others: `line` names both sides with host and process, what for and in which
   * step; more than once if it goes on. `over`: config->wait_limit is reached; end the process, by _exit: with
   * any other call the main thread would have to help, and it waits. On any rank, by a thread of its own; may be NULL.
   */
  void (*stuck)(void *context, const char *line, bool over);
} unroll_observer;

/**
 * Train as `config` says on the text of these files and folders; writes config->out.
 *
 * @param[in] config    options; `given` says which were set explicitly, for --resume
 * @param[in] texts     (n_texts) files and folders; none with --resume: those of the run file
 * @param[in] command   the command line, for the record
 * @param[in] observer  what is told, and on which ranks, stands above; the same functions on every rank; may be NULL
 *
 * @return the same on every rank: UNROLL_OK,
 *         UNROLL_STOPPED: a signal came, a checkpoint is written,
 *         UNROLL_ERR_ARG, UNROLL_ERR_INPUT: options or files are not usable, nothing was written,
 *         UNROLL_ERR_DIVERGED: max_skips updates in a row were not finite,
 *         UNROLL_ERR_IO, UNROLL_ERR_HDF5: the last checkpoint could not be written,
 *         UNROLL_ERR_MEMORY, UNROLL_ERR_MPI
 *
 * Collective: over comm
 * Threads:    main thread only; opens parallel regions
 */
unroll_status unroll_train(unroll_comm *comm, const unroll_config *config, size_t n_texts,
                           const char *const *texts, const char *command,
                           const unroll_observer *observer);

#ifdef __cplusplus
}
#endif
#endif
