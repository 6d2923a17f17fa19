#ifndef RUNFILE_RUNFILE_H
#define RUNFILE_RUNFILE_H

/*
 * The run file: one HDF5 file, also valid netCDF-4, that holds everything of a
 * run (schema: src/runfile/README.md, design.md section 7).
 *
 * `struct run` is the file in memory: open, plain, filled by the training loop
 * and by runfile_read. Only rank 0 touches the file system; the other ranks
 * get a run by runfile_load.
 */
#include "runfile/keep.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/config.h>
#include <unroll/gradflow.h>
#include <unroll/params.h>
#include <unroll/status.h>
#include <unroll/vocab.h>

#define RUNFILE_FORMAT "unroll-run"
/* Raised when a reader of the old schema would misread the new one; each file has the lowest that reads it:
 * 2 has other cells than rnn, 3 has an embedding. */
#define RUNFILE_VERSION 3

/* One row per report interval; the same keys as the datasets under /metrics/train. */
typedef struct run_train_row {
  uint64_t step; /* updates done at the end of the interval */
  double loss;   /* [nats per token] mean over the interval */
  double perplexity;
  double grad_norm;         /* before clipping, mean over the interval */
  double clip_scale;        /* factor applied, mean over the interval */
  double learning_rate;     /* at the last step of the interval */
  uint64_t tokens;          /* trained on since the beginning of the run */
  double seconds;           /* since the beginning of the run, resumed time included */
  double tokens_per_second; /* over the interval */
  double compute_seconds, compute_seconds_max; /* per step: mean over ranks, maximum over ranks */
  double exchange_seconds, exchange_seconds_max;
  double wait_seconds, wait_seconds_max;
  uint64_t skipped; /* updates skipped since the beginning: loss or gradient not finite */
} run_train_row;

typedef struct run_valid_row {
  uint64_t step;
  double loss; /* [nats per token] */
  double perplexity;
  double bits_per_character;
} run_valid_row;

/* Gradient flow along the training: n results of the same plan. */
typedef struct run_flows {
  size_t n, max;
  uint64_t *step;       /* (n) updates done */
  unroll_gradflow rows; /* each array (n, ...): result after result */
} run_flows;

/* What exact resume needs beside weights and moments. */
typedef struct run_state {
  uint64_t step;     /* updates done, skipped ones included */
  uint64_t epoch;    /* current epoch, from 0 */
  uint64_t window;   /* next window of that epoch, from 0 */
  uint64_t position; /* tokens of every stream that this epoch has passed */
  uint64_t tokens;   /* trained on */
  uint64_t skipped;  /* updates skipped in all, and in a row */
  uint64_t skipped_in_row;
  uint64_t updates; /* updates applied: Adam's t */
  double seconds;   /* training time so far */
  double best_loss; /* best validation loss so far; INFINITY before the first */
  uint64_t best_step;
  uint64_t validations_since_best;
  double lr_factor;      /* of schedule plateau: product of the decays so far */
  uint64_t plateau_wait; /* validations since the best or the last decay */
  uint64_t averaged;     /* updates in the average of the weights; 0: there is none yet */
  int averages;          /* 1 when --average nt-asgd has begun */
  int finished;          /* 1 when the run ended by itself */
  /* The current report interval, not yet a row: sums so far. */
  uint64_t interval_steps, interval_tokens;
  double interval_loss, interval_norm, interval_scale;
  size_t n_hidden; /* states * L * B * H */
  unroll_real *
      hidden; /* (states, L, B, H) carried to the next window, all sequences, unpadded; net/params.h */
} run_state;

/* Where the run was made. Strings are owned; NULL is written as "". */
typedef struct run_provenance {
  char *command_line;
  char *started, *written; /* ISO 8601 UTC */
  char *hosts;             /* separated by commas */
  char *cpu, *code_path;   /* model name; instruction set of the kernels */
  char *slurm_job;
  char *init_file, *init_sha256; /* of the first weights, where they were given */
  size_t n_changed;
  char **changed; /* (n_changed) by --change: "step 300: epochs 3 -> 5, lr 0.002 -> 0.001" */
  uint64_t ranks, threads;
  size_t n_files; /* corpus files, training then validation */
  char **file_name;
  uint64_t *file_bytes;
  char **file_sha256;
  uint64_t train_tokens, valid_tokens, train_characters, valid_characters;
  uint64_t unknown_tokens;       /* of both texts, that are not in the vocabulary */
  uint64_t valid_unknown_tokens; /* of them, those that a validation predicts */
} run_provenance;

/* Most arrays beside the weights: Adam's moments and the average. */
#define RUN_MOMENTS 3

typedef struct run {
  unroll_config config;
  unroll_vocab *vocab;
  unroll_params *params; /* the weights */
  size_t n_moments;      /* 0 sgd, 1 momentum, 2 adam; with --average one more, the last */
  unroll_real
      *moments[RUN_MOMENTS]; /* each (params->n), in the layout of params: schema_moment_at */
  run_state state;
  run_provenance provenance;
  size_t n_train, max_train;
  run_train_row *train; /* (n_train) */
  size_t n_valid, max_valid;
  run_valid_row *valid; /* (n_valid) */
  run_flows flows;      /* with --diagnose-every */
} run;

/** An empty run: everything zero, best_loss INFINITY, lr_factor 1. */
unroll_status run_new(run **out);
void run_free(run **r); /* and everything it owns */

/** Arrays beside the weights: 0 to 2 of the optimizer, and behind them the average of the weights, with --average. */
size_t run_moments(const unroll_config *config);

/** Which of them is the average; of a run with --average. */
static inline size_t run_average(const unroll_config *config)
{
  return run_moments(config) - 1;
}

/** Exchange weights and average, for who works with the latter. */
void run_swap_average(run *r);

/** Append a line of the provenance: what --change has changed. */
unroll_status run_add_change(run *r, const char *line);

/** Append a row; grows the table. */
unroll_status run_add_train(run *r, const run_train_row *row);
unroll_status run_add_valid(run *r, const run_valid_row *row);

/** The same for gradient flow, which is copied and must fit: sizes and plan are those of the rows there are. */
unroll_status run_add_flow(run *r, const unroll_gradflow *flow);
bool run_flows_fit(const run_flows *flows, const unroll_gradflow *flow);

/** Row i; its arrays are the run's. */
unroll_gradflow run_flow_view(const run_flows *flows, size_t i);

/**
 * Write a complete run file: to a temporary name beside it, closed, fsynced with every result checked,
 * renamed over the old one, the folder fsynced. The old file stays whatever fails.
 *
 * @return UNROLL_OK, UNROLL_ERR_IO or UNROLL_ERR_HDF5: the message has the path, the errno's text and,
 *         for a refused lock, HDF5_USE_FILE_LOCKING=FALSE
 *
 * Collective: no; rank 0 only
 */
unroll_status runfile_write(const char *path, const run *r);

/**
 * The first half of it: complete and safe under a temporary name, *prepared, for save_commit or save_drop
 * (src/runfile/save.h).
 */
unroll_status runfile_prepare(const char *path, const run *r, char **prepared);

/**
 * Remove what an earlier run has left beside r->config.out, before the first file of r takes that name: the best model
 * unless `but_best`, and older checkpoints. That run is the one whose file is there; where there is none, a life of r
 * that died before its first checkpoint.
 *
 * Collective: no; rank 0 only
 */
void runfile_remove_old(const run *r, bool but_best);

/**
 * Find out now whether runfile_write(path) can work: the folder exists, is writable, `path` is no
 * folder and, unless may_exist, nothing is there.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT
 *
 * Collective: no; rank 0 only
 */
unroll_status runfile_check_output(const char *path, int may_exist);

/*
 * The same for all files of a run, src/runfile/keep.h: log, best model, older checkpoints. One line names the file
 * and what the run would do to it.
 *
 *   free   a new run: none of them is there but, of size 0, the log
 *   own    --resume: those that are there are of the run r; where there is no run file (not `resumed`) of one with the
 *          same text and options, a life that died before its first checkpoint. The text is noted in r->provenance
 *   apart  always: none of them, nor the run file, is one of the n files that the run reads, under any name
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT
 *
 * Collective: no; rank 0 only
 */
unroll_status runfile_check_free(const char *path, size_t keep);
unroll_status runfile_check_own(const run *r, bool resumed);
unroll_status runfile_check_apart(const char *path, size_t keep, size_t n,
                                  const char *const *inputs);

/** Is there a file of that name? Not collective. */
int runfile_exists(const char *path);

/** Do both names lead to one file, which is there? Not collective. */
bool runfile_is_same(const char *a, const char *b);

/**
 * Read a run file of this process alone.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: missing, truncated, not HDF5, not ours, of a newer version,
 *         or its parts do not fit together; one line says which
 */
unroll_status runfile_read(const char *path, run **out);

/** Options, provenance and the numbers of the state alone, which is quick. The same errors. */
unroll_status runfile_read_origin(const char *path, run **out);

/* What tells that the bytes of a file are those that were written. */
typedef struct runfile_proof {
  uint64_t bytes;
  bool whole;                  /* the file has its digest, which covers every bit */
  char sha256[65];             /* of all but that digest; "" without one */
  size_t n_checked, n_without; /* datasets that have a checksum, which holds; that have none */
} runfile_proof;

/**
 * Check the bytes of a run file: its digest, and all checksums of datasets.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: as runfile_read; what is damaged is named
 */
unroll_status runfile_verify(const char *path, runfile_proof *out);

/**
 * The run that the file of r at `path` is the best model of, as it is now: read as above, its name to `name`. *out is
 * NULL where `path` is not named like one, or the file of its run does not lie beside it.
 */
void runfile_read_whole(const char *path, const run *r, char name[KEEP_NAME], run **out);

/**
 * The same for all ranks, and weights that are not finite are UNROLL_ERR_INPUT too: rank 0 reads, the others receive options, vocabulary and state. Metrics, provenance and
 * hidden states stay on rank 0, and so do the values of parameters and moments, for which the others have zeros:
 * whoever needs them all broadcasts them, whoever needs a part takes no memory for the rest. Collective.
 */
unroll_status runfile_load(unroll_comm *comm, const char *path, run **out);

/**
 * SHA-256 of the weights, as hexadecimal text: of the values of all tensors in the order of their names ("layer0/W_hh"
 * before "layer0/b_h"), each as its dataset has them: row after row, little-endian.
 */
unroll_status runfile_hash_weights(const unroll_params *params, char text[65]);

/*
 * Metrics as JSON lines beside the run file, for people who watch: NAME.jsonl
 * for NAME.h5. One object per row: {"kind": "train" | "valid" | "diagnose" | "change", "step": ...}; where training has
 * ended by itself the last one has the kind "end". `steps`, in lines of training too, are the updates of the whole run.
 */

/** Cut the log back to rows of step <= r->state.step (a new run: empty it); rank 0 only. */
unroll_status runlog_start(const char *path, uint64_t steps, const run *r);
unroll_status runlog_train(const char *path, uint64_t steps, const run_train_row *row);
unroll_status runlog_valid(const char *path, const run_valid_row *row);
unroll_status runlog_flow(const char *path, const unroll_gradflow *flow);
unroll_status runlog_end(const char *path, const run_state *state, const char *weights_sha256);

#endif
