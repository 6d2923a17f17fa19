#include "runfile/schema.h"

#include <assert.h>
#include <stdio.h>

#define COUNT(row, member, units, long_name)                                                       \
  {                                                                                                \
#member, SCHEMA_COUNT, offsetof(row, member), units, long_name                                 \
  }
#define REAL(row, member, units, long_name)                                                        \
  {                                                                                                \
#member, SCHEMA_REAL, offsetof(row, member), units, long_name                                  \
  }
#define TABLE(fields)                                                                              \
  {                                                                                                \
    fields, sizeof fields / sizeof fields[0]                                                       \
  }

/* The first column of a table of rows is the scale of the others. */
static const schema_field train_fields[] = {
    COUNT(run_train_row, step, "1", "updates done"),
    REAL(run_train_row, loss, "nats per token", "training loss, mean over the interval"),
    REAL(run_train_row, perplexity, "1", "training perplexity"),
    REAL(run_train_row, grad_norm, "1", "gradient norm before clipping, mean over the interval"),
    REAL(run_train_row, clip_scale, "1", "factor of gradient clipping, mean over the interval"),
    REAL(run_train_row, learning_rate, "1", "learning rate of the last step"),
    COUNT(run_train_row, tokens, "tokens", "tokens trained on since the beginning"),
    REAL(run_train_row, seconds, "s", "training time since the beginning"),
    REAL(run_train_row, tokens_per_second, "tokens s-1", "speed over the interval"),
    REAL(run_train_row, compute_seconds, "s", "computing per step, mean over ranks"),
    REAL(run_train_row, compute_seconds_max, "s", "computing per step, maximum over ranks"),
    REAL(run_train_row, exchange_seconds, "s", "gradient exchange per step, mean over ranks"),
    REAL(run_train_row, exchange_seconds_max, "s",
         "gradient exchange per step, maximum over ranks"),
    REAL(run_train_row, wait_seconds, "s", "waiting per step, mean over ranks"),
    REAL(run_train_row, wait_seconds_max, "s", "waiting per step, maximum over ranks"),
    COUNT(run_train_row, skipped, "1", "updates skipped since the beginning"),
};
const schema_table schema_train = TABLE(train_fields);

static const schema_field valid_fields[] = {
    COUNT(run_valid_row, step, "1", "updates done"),
    REAL(run_valid_row, loss, "nats per token", "validation loss"),
    REAL(run_valid_row, perplexity, "1", "validation perplexity"),
    REAL(run_valid_row, bits_per_character, "bits per character", "validation loss per character"),
};
const schema_table schema_valid = TABLE(valid_fields);

#define INTERVAL_TIME(name, k)                                                                     \
  {                                                                                                \
    "interval_" name, SCHEMA_REAL, offsetof(run_state, interval_times) + (k) * sizeof(double),     \
        NULL, NULL                                                                                 \
  }

static const schema_field state_fields[] = {
    COUNT(run_state, step, NULL, NULL),
    COUNT(run_state, epoch, NULL, NULL),
    COUNT(run_state, window, NULL, NULL),
    COUNT(run_state, tokens, NULL, NULL),
    COUNT(run_state, skipped, NULL, NULL),
    COUNT(run_state, skipped_in_row, NULL, NULL),
    COUNT(run_state, updates, NULL, NULL),
    REAL(run_state, seconds, NULL, NULL),
    REAL(run_state, best_loss, NULL, NULL),
    COUNT(run_state, best_step, NULL, NULL),
    COUNT(run_state, validations_since_best, NULL, NULL),
    REAL(run_state, lr_factor, NULL, NULL),
    COUNT(run_state, plateau_wait, NULL, NULL),
    {"finished", SCHEMA_FLAG, offsetof(run_state, finished), NULL, NULL},
    COUNT(run_state, interval_steps, NULL, NULL),
    COUNT(run_state, interval_tokens, NULL, NULL),
    REAL(run_state, interval_loss, NULL, NULL),
    REAL(run_state, interval_norm, NULL, NULL),
    REAL(run_state, interval_scale, NULL, NULL),
    REAL(run_state, interval_seconds, NULL, NULL),
    INTERVAL_TIME("compute_seconds", 0),
    INTERVAL_TIME("compute_seconds_max", 1),
    INTERVAL_TIME("exchange_seconds", 2),
    INTERVAL_TIME("exchange_seconds_max", 3),
    INTERVAL_TIME("wait_seconds", 4),
    INTERVAL_TIME("wait_seconds_max", 5),
};
const schema_table schema_state = TABLE(state_fields);

#define TEXT(name, member)                                                                         \
  {                                                                                                \
    name, SCHEMA_TEXT, offsetof(run_provenance, member), NULL, NULL                                \
  }

/* command_line is not here: it belongs to /config. */
static const schema_field provenance_fields[] = {
    TEXT("started", started),
    TEXT("written", written),
    TEXT("hosts", hosts),
    TEXT("cpu", cpu),
    TEXT("code_path", code_path),
    TEXT("SLURM_JOB_ID", slurm_job),
    COUNT(run_provenance, ranks, NULL, NULL),
    COUNT(run_provenance, threads, NULL, NULL),
    COUNT(run_provenance, train_tokens, NULL, NULL),
    COUNT(run_provenance, valid_tokens, NULL, NULL),
    COUNT(run_provenance, train_characters, NULL, NULL),
    COUNT(run_provenance, valid_characters, NULL, NULL),
    COUNT(run_provenance, unknown_tokens, NULL, NULL),
};
const schema_table schema_provenance = TABLE(provenance_fields);

void schema_option_name(const char *option, char out[SCHEMA_NAME])
{
  int n = snprintf(out, SCHEMA_NAME, "%s", option);
  assert(n > 0 && n < SCHEMA_NAME);
  for (int i = 0; i < n; ++i) {
    if (out[i] == '-') { out[i] = '_'; }
  }
}

size_t schema_moments(unroll_optimizer optimizer)
{
  switch (optimizer) {
  case UNROLL_OPTIMIZER_SGD:
    return 0;
  case UNROLL_OPTIMIZER_MOMENTUM:
    return 1;
  case UNROLL_OPTIMIZER_ADAM:
    return 2;
  }
  return 0;
}

const char *schema_moment_name(size_t n_moments, size_t k)
{
  assert(n_moments <= 2 && k < n_moments);
  return n_moments == 1 ? "velocity" : k == 0 ? "first" : "second";
}
