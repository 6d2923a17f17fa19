#ifndef UNROLL_CONFIG_H
#define UNROLL_CONFIG_H

/*
 * Settings of a training run: one open struct, described by one table.
 *
 * The table (src/base/config.c) drives the command line, --help, the range
 * checks, the man page and the /config group of the run file, so that none of
 * them can disagree. Counts are 64-bit; `offset`s into this struct are safe
 * because it is plain data without pointers, and so it can be copied freely.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a text option, with the final zero: PATH_MAX of Linux. */
#define UNROLL_CONFIG_TEXT 4096

/* Most rows of a table of options. */
#define UNROLL_OPTIONS_MAX 128

/* The values of the choices; order and names as in the table. */
typedef enum unroll_level {
  UNROLL_LEVEL_BYTE,
  UNROLL_LEVEL_CHAR,
  UNROLL_LEVEL_WORD,
  UNROLL_LEVEL_BPE
} unroll_level;

/** "byte", "character", "word" or "subword". */
static inline const char *unroll_level_text(unroll_level level)
{
  return level == UNROLL_LEVEL_BYTE   ? "byte"
         : level == UNROLL_LEVEL_CHAR ? "character"
         : level == UNROLL_LEVEL_WORD ? "word"
                                      : "subword";
}

typedef enum unroll_partition {
  UNROLL_PARTITION_SEQUENTIAL,
  UNROLL_PARTITION_RANDOM
} unroll_partition;
typedef enum unroll_sequences {
  UNROLL_SEQUENCES_STREAM,
  UNROLL_SEQUENCES_LINE,
  UNROLL_SEQUENCES_PARAGRAPH
} unroll_sequences;
typedef enum unroll_cell {
  UNROLL_CELL_RNN,
  UNROLL_CELL_LSTM,
  UNROLL_CELL_GRU,
  UNROLL_CELL_MINGRU
} unroll_cell;
typedef enum unroll_activation { UNROLL_ACTIVATION_TANH, UNROLL_ACTIVATION_RELU } unroll_activation;
typedef enum unroll_init {
  UNROLL_INIT_UNIFORM,
  UNROLL_INIT_ORTHOGONAL,
  UNROLL_INIT_IDENTITY
} unroll_init;
typedef enum unroll_bptt {
  UNROLL_BPTT_TRUNCATED,
  UNROLL_BPTT_FULL,
  UNROLL_BPTT_RANDOMIZED
} unroll_bptt;
typedef enum unroll_windows { UNROLL_WINDOWS_FIXED, UNROLL_WINDOWS_RANDOM } unroll_windows;
typedef enum unroll_offset { UNROLL_OFFSET_ZERO, UNROLL_OFFSET_RANDOM } unroll_offset;
typedef enum unroll_optimizer {
  UNROLL_OPTIMIZER_SGD,
  UNROLL_OPTIMIZER_MOMENTUM,
  UNROLL_OPTIMIZER_ADAM
} unroll_optimizer;
typedef enum unroll_schedule {
  UNROLL_SCHEDULE_CONSTANT,
  UNROLL_SCHEDULE_STEP,
  UNROLL_SCHEDULE_COSINE,
  UNROLL_SCHEDULE_PLATEAU
} unroll_schedule;

typedef enum unroll_dropout { UNROLL_DROPOUT_STEP, UNROLL_DROPOUT_WINDOW } unroll_dropout;

typedef enum unroll_average {
  UNROLL_AVERAGE_OFF,
  UNROLL_AVERAGE_ASGD,
  UNROLL_AVERAGE_EMA,
  UNROLL_AVERAGE_NT_ASGD
} unroll_average;

typedef enum unroll_preset {
  UNROLL_PRESET_OFF,
  UNROLL_PRESET_CHAR,
  UNROLL_PRESET_WORD,
  UNROLL_PRESET_QUICK
} unroll_preset;

typedef enum unroll_log_format { UNROLL_LOG_SHORT, UNROLL_LOG_FULL } unroll_log_format;

/* How often: every `count` of a unit; 0 is never. */
typedef enum unroll_every_unit { UNROLL_EVERY_STEPS, UNROLL_EVERY_SECONDS } unroll_every_unit;
typedef struct unroll_every {
  uint64_t count;         /* [steps or seconds] */
  unroll_every_unit unit; /* "500" is steps; "90s", "30m", "2h" are times */
} unroll_every;

typedef struct unroll_config {
  unroll_preset preset; /* whose options unroll_config_set has set. Only noted */
  /* data */
  unroll_level level;
  bool lowercase;
  bool letters;
  uint64_t min_count;
  uint64_t max_vocab;             /* 0: no limit */
  uint64_t vocab_size;            /* of level bpe */
  char valid[UNROLL_CONFIG_TEXT]; /* "": none */
  double valid_fraction;
  unroll_partition partition;
  unroll_sequences sequences;
  /* model */
  uint64_t hidden;
  uint64_t layers;
  uint64_t embedding; /* 0: none */
  bool tied;          /* the embeddings are the output weights */
  bool skip;          /* layers above the first add what they read to what they pass upwards */
  unroll_cell cell;
  unroll_activation activation; /* of cell rnn */
  unroll_init init;
  double init_scale;                  /* factor of the orthogonal or identity W_hh */
  double forget_bias;                 /* of an lstm, at the start */
  char init_from[UNROLL_CONFIG_TEXT]; /* run file of the first weights; "": random ones */
  /* back-propagation through time */
  unroll_bptt bptt;
  unroll_windows windows; /* their lengths; truncated */
  unroll_offset offset;   /* where an epoch begins; truncated */
  uint64_t steps;
  uint64_t stride; /* 0: as steps */
  /* regularisation */
  double dropout;            /* probability; 0: off */
  double dropout_embedding;  /* the same of the embeddings */
  double dropout_words;      /* the same of whole words */
  double dropout_weights;    /* the same of W_hh */
  double penalty_activation; /* alpha; 0: off */
  double penalty_change;     /* beta; the same */
  unroll_dropout dropout_kind;
  unroll_average average;    /* of the weights over updates */
  uint64_t average_from;     /* [epochs] before it begins; asgd and ema */
  double average_decay;      /* of ema */
  uint64_t average_patience; /* [validations] of nt-asgd */
  /* optimization */
  uint64_t batch;     /* 0: from the size of the text */
  uint64_t epochs;    /* 0: the same; 10 where batch is not 0 */
  uint64_t max_steps; /* 0: no limit */
  unroll_optimizer optimizer;
  double lr;
  double momentum;
  double beta1;
  double beta2;
  double epsilon;
  double weight_decay; /* lambda */
  unroll_schedule schedule;
  double lr_decay;        /* factor of schedules step and plateau */
  uint64_t decay_every;   /* [epochs] of schedule step */
  uint64_t decay_from;    /* [epochs] before its first decay; 0: decay_every */
  double lr_min;          /* end of schedule cosine */
  uint64_t patience;      /* [validations] of schedule plateau */
  uint64_t warmup;        /* [steps] */
  uint64_t early_stop;    /* [validations] without a new best; 0: off */
  double label_smoothing; /* eps */
  double clip;            /* theta; 0: off */
  uint64_t max_skips;     /* updates skipped in a row before the run stops */
  uint64_t seed;
  /* output */
  char out[UNROLL_CONFIG_TEXT];
  char config_file[UNROLL_CONFIG_TEXT]; /* that unroll_config_read has read; "": none. Only noted */
  unroll_every checkpoint_every;
  uint64_t keep;
  bool resume;
  bool change; /* on resume epochs, rate and their kin may have other values from there on */
  bool overwrite;
  unroll_every valid_every;     /* 0: at the end of every epoch */
  uint64_t log_every;           /* [steps] */
  unroll_log_format log_format; /* of the program's lines */
  unroll_every diagnose_every;
  /* parallel */
  uint64_t shards;         /* 0: 16, or the largest power of two below it that divides batch */
  unroll_every wait_limit; /* a time; 0: none */
  bool dry_run;
  uint64_t ranks; /* of the dry run; 0: those of the communicator */
  /* not an option: [k] is set when option k of the table was given on the command line */
  bool given[UNROLL_OPTIONS_MAX];
} unroll_config;

/** Fill in every default. */
void unroll_config_init(unroll_config *config);

/**
 * Set one option by name from text, as the command line would, for example
 * ("hidden", "512"), ("clip", "1e-3"), ("checkpoint-every", "30m"), ("letters", "yes").
 * ("preset", "char") also sets every option of that preset that is not given.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: no such option (the nearest is named), not a value of its
 *         type, or out of range (the range is named); config is unchanged then
 *
 * Collective: no
 */
unroll_status unroll_config_set(unroll_config *config, const char *name, const char *value);

/**
 * Read options from a file. What is given already, as by unroll_config_set, stays.
 *
 * The file is text, lines of `key = value` with the names of the command line (# begins a comment), which then count as
 * given; or a run file, whose run had these options: none counts as given, and what is about a call (out, resume,
 * change, overwrite and their like) is not read.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: the message has the file, and the number of the line; config is unchanged then,
 *         or UNROLL_ERR_ARG: a run file, and a preset is given
 *
 * Collective: no
 */
unroll_status unroll_config_read(unroll_config *config, const char *path);

/**
 * Check the options against each other (options without effect, shards that does not divide batch, and so on) and
 * fill in derived values: shards, and the stride of truncated BPTT. What the size of the text decides stays 0 until
 * unroll_train knows it.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG
 */
unroll_status unroll_config_resolve(unroll_config *config);

#ifdef __cplusplus
}
#endif
#endif
