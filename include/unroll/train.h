#ifndef UNROLL_TRAIN_H
#define UNROLL_TRAIN_H

/*
 * Train a model: text in, one run file out.
 *
 * The data flow of one step, as src/train/train.c reads:
 *   window -> forward -> backward -> sum over ranks -> clip -> update -> record
 *
 * The library never prints: events are passed to an observer.
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
  UNROLL_EVENT_STEP,       /* a step is done: refresh a progress line */
  UNROLL_EVENT_REPORT,     /* a report interval is over: a line for the log */
  UNROLL_EVENT_VALID,      /* a validation is done */
  UNROLL_EVENT_DIAGNOSE,   /* the gradient flow was measured: `flow` */
  UNROLL_EVENT_CHECKPOINT, /* a run file was written */
  UNROLL_EVENT_NOTE,       /* `text` says something about the text: after START, if anything */
  UNROLL_EVENT_WARNING,    /* `text` says what went wrong; training goes on */
  UNROLL_EVENT_END         /* training is over; `text` says why, in a few words */
} unroll_event;

/* The argument of unroll_observer.tell. Fields keep their last value between events. */
typedef struct unroll_progress {
  unroll_event event;
  const char *text;       /* NOTE, WARNING, END, CHECKPOINT (the path); else NULL */
  uint64_t step, steps;   /* updates done; in the whole run */
  uint64_t epoch, epochs; /* from 1 */
  double loss; /* [nats per token] mean over the report interval; STEP: of the interval so far */
  double perplexity;
  double grad_norm, clip_scale, learning_rate;
  uint64_t tokens;          /* trained on so far */
  double tokens_per_second; /* over the interval */
  double seconds, seconds_left;
  double compute_seconds, wait_seconds, exchange_seconds; /* per step, mean over ranks */
  double valid_loss, valid_perplexity;
  double
      valid_bits_per_character; /* NAN where tokens that were predicted are not in the vocabulary:
                                      <unk> costs only its own probability */
  uint64_t best_step;           /* of the best validation; 0: none */
  double best_loss;
  const unroll_gradflow *flow; /* DIAGNOSE, for the time of the call; else NULL */
  /* set at START */
  uint64_t V, parameters, train_tokens, valid_tokens, unknown_tokens, windows;
  uint64_t resumed_step; /* 0: a new run */
  const char *preset;    /* "char: cell lstm, hidden 512", its options as they are; NULL: none */
  const char *changed; /* what --change has changed now, "step 300: epochs 3 -> 5"; NULL: nothing */
  uint64_t shards;
  char weights_sha256[65]; /* END: of the weights, see jobs/guides/analyse.md; else "" */
} unroll_progress;

typedef struct unroll_observer {
  void *context;
  void (*tell)(void *context,
               const unroll_progress *progress); /* every event, on rank 0; may be NULL */
  /*
   * This rank has waited long for others: `line` names both sides with host and process, what for and in which
   * step; called again if the wait goes on. `over`: config->wait_limit is reached; end the process with _exit, as exit
   * and MPI_Abort would need the main thread, which is blocked. On any rank, from a separate thread; may be NULL.
   */
  void (*stuck)(void *context, const char *line, bool over);
} unroll_observer;

/**
 * Train as `config` says on the text of these files and folders; writes config->out, and beside it its log, the best
 * model and with config->keep older checkpoints. Only one run at a time may write a name.
 *
 * @param[in] config    options, without dry_run; `given` says which were set explicitly, for --resume
 * @param[in] texts     (n_texts) files and folders; none with --resume: those of the run file
 * @param[in] command   the command line, for the record
 * @param[in] observer  see above; the same functions on every rank; may be NULL
 *
 * @return the same on every rank: UNROLL_OK,
 *         UNROLL_STOPPED: a signal came, a checkpoint is written,
 *         UNROLL_ERR_ARG, UNROLL_ERR_INPUT: options or files are not usable, another run
 *                 writes config->out, or a name is taken by what is not its own: nothing was written,
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

/* An assumed link between hosts, and the times of a run with one rank on each host over it. */
typedef struct unroll_plan_link {
  double gbit_per_second, latency;                    /* [1e9 bits per second], [seconds] */
  double exchange_seconds, step_seconds, run_seconds; /* [seconds] without overlap: upper bounds */
} unroll_plan_link;

#define UNROLL_PLAN_LINKS 3

/* Size and cost of a run. Bytes and seconds are those of one rank. */
typedef struct unroll_plan {
  uint64_t ranks, shards, shards_of_rank, sequences_of_rank;
  uint64_t batch, epochs;
  uint64_t V, parameters, train_tokens, valid_tokens, unknown_tokens;
  uint64_t windows, steps, resumed_step; /* as in unroll_progress */
  uint64_t updates;                      /* still to be done, --max-steps respected */

  /* [bytes] The first four are private to a rank; `shared_memory` exists once for the ranks of a host. */
  uint64_t text_memory;      /* its tokens, and the vocabulary unless it comes from a run file */
  uint64_t gradient_memory;  /* its gradient, and touched rows for the exchange */
  uint64_t workspace_memory; /* hidden states, logits, packed weights and so on */
  uint64_t buffer_memory;    /* of the exchange, between hosts */
  uint64_t shared_memory;    /* parameters and moments */
  uint64_t
      process_memory; /* resident set now: program, libraries, MPI, and what reading the text took */

  /* [bytes] per step, if no ranks shared memory: of the gradient that is summed, and sent by a rank. The maximum where
   * steps differ (touched rows of a large vocabulary). */
  uint64_t exchange_bytes, sent_bytes;

  /* Measured on this machine with all ranks of comm computing: the slowest rank. */
  uint64_t threads;
  double compute_seconds;   /* of a step without its exchange; 0: not measured */
  double run_seconds;       /* of all updates without exchange; 0: not measured */
  const char *not_measured; /* why compute_seconds was not measured, in a few words; else NULL */
  unroll_plan_link
      links[UNROLL_PLAN_LINKS]; /* for more than one rank, where compute_seconds was measured */
} unroll_plan;

/**
 * Dry run: what unroll_train would do with config->ranks ranks (0: those of comm), by the same code: options, files and
 * text are checked, tokens counted, memory counted but not used. Steps of one rank are run for a second on synthetic
 * tokens; at least a dozen, so slow ones take longer. Nothing is written.
 *
 * @param[in]  config, n_texts, texts  as for unroll_train
 * @param[out] plan                    the same on every rank
 *
 * @return the same on every rank: what unroll_train would return before its first step
 *
 * Collective: over comm
 * Threads:    main thread only; opens parallel regions
 */
unroll_status unroll_plan_make(unroll_comm *comm, const unroll_config *config, size_t n_texts,
                               const char *const *texts, unroll_plan *plan);

#ifdef __cplusplus
}
#endif
#endif
