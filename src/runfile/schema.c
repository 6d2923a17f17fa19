#include "runfile/schema.h"

#include "base/json.h"
#include "base/options.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* A field of this type and place, named as in the struct, or otherwise. */
#define COUNT(row, field) .name = #field, .type = SCHEMA_COUNT, .offset = offsetof(row, field)
#define REAL(row, field)  .name = #field, .type = SCHEMA_REAL, .offset = offsetof(row, field)
#define FLAG(row, field)  .name = #field, .type = SCHEMA_FLAG, .offset = offsetof(row, field)
#define TEXT(row, field)  .name = #field, .type = SCHEMA_TEXT, .offset = offsetof(row, field)

#define LENGTH(fields) (sizeof fields / sizeof fields[0])

/* The first column of a table of rows is the scale of the others. */
static const schema_field train_fields[] = {
    {COUNT(run_train_row, step), .units = "1", .long_name = "updates done"},
    {REAL(run_train_row, loss), .units = "nats per token",
     .long_name = "training loss, mean over the interval"},
    {REAL(run_train_row, perplexity), .units = "1", .long_name = "training perplexity"},
    {REAL(run_train_row, grad_norm), .units = "1",
     .long_name = "gradient norm before clipping, mean over the interval"},
    {REAL(run_train_row, clip_scale), .units = "1",
     .long_name = "factor of gradient clipping, mean over the interval"},
    {REAL(run_train_row, learning_rate), .units = "1",
     .long_name = "learning rate of the last step"},
    {COUNT(run_train_row, tokens), .units = "tokens",
     .long_name = "tokens trained on since the beginning"},
    {REAL(run_train_row, seconds), .units = "s", .long_name = "training time since the beginning"},
    {REAL(run_train_row, tokens_per_second), .units = "tokens s-1",
     .long_name = "speed over the interval"},
    {REAL(run_train_row, compute_seconds), .units = "s",
     .long_name = "computing per step, mean over ranks"},
    {REAL(run_train_row, compute_seconds_max), .units = "s",
     .long_name = "computing per step, maximum over ranks"},
    {REAL(run_train_row, exchange_seconds), .units = "s",
     .long_name = "gradient exchange per step, mean over ranks"},
    {REAL(run_train_row, exchange_seconds_max), .units = "s",
     .long_name = "gradient exchange per step, maximum over ranks"},
    {REAL(run_train_row, wait_seconds), .units = "s",
     .long_name = "waiting per step, mean over ranks"},
    {REAL(run_train_row, wait_seconds_max), .units = "s",
     .long_name = "waiting per step, maximum over ranks"},
    {COUNT(run_train_row, skipped), .units = "1",
     .long_name = "updates skipped since the beginning"},
};
const schema_table schema_train = {train_fields, LENGTH(train_fields)};

static const schema_field valid_fields[] = {
    {COUNT(run_valid_row, step), .units = "1", .long_name = "updates done"},
    {REAL(run_valid_row, loss), .units = "nats per token", .long_name = "validation loss"},
    {REAL(run_valid_row, perplexity), .units = "1", .long_name = "validation perplexity"},
    {REAL(run_valid_row, bits_per_character), .units = "bits per character",
     .long_name = "validation loss per character"},
};
const schema_table schema_valid = {valid_fields, LENGTH(valid_fields)};

static const schema_field state_fields[] = {
    {COUNT(run_state, step)},
    {COUNT(run_state, epoch)},
    {COUNT(run_state, window)},
    {COUNT(run_state, position)},
    {COUNT(run_state, tokens)},
    {COUNT(run_state, skipped)},
    {COUNT(run_state, skipped_in_row)},
    {COUNT(run_state, updates)},
    {REAL(run_state, seconds)},
    {REAL(run_state, best_loss)},
    {COUNT(run_state, best_step)},
    {COUNT(run_state, validations_since_best)},
    {REAL(run_state, lr_factor)},
    {COUNT(run_state, plateau_wait)},
    {COUNT(run_state, averaged), .added = true},
    {FLAG(run_state, averages), .added = true},
    {FLAG(run_state, finished)},
    {COUNT(run_state, interval_steps)},
    {COUNT(run_state, interval_tokens)},
    {REAL(run_state, interval_loss)},
    {REAL(run_state, interval_norm)},
    {REAL(run_state, interval_scale)},
};
const schema_table schema_state = {state_fields, LENGTH(state_fields)};

/* command_line is not here: it belongs to /config. */
static const schema_field provenance_fields[] = {
    {TEXT(run_provenance, started)},
    {TEXT(run_provenance, written)},
    {TEXT(run_provenance, hosts)},
    {TEXT(run_provenance, cpu)},
    {TEXT(run_provenance, code_path)},
    {.name = "SLURM_JOB_ID", .type = SCHEMA_TEXT, .offset = offsetof(run_provenance, slurm_job)},
    {TEXT(run_provenance, init_file), .added = true},
    {TEXT(run_provenance, init_sha256), .added = true},

    {COUNT(run_provenance, ranks)},
    {COUNT(run_provenance, threads)},
    {COUNT(run_provenance, train_tokens)},
    {COUNT(run_provenance, valid_tokens)},
    {COUNT(run_provenance, train_characters)},
    {COUNT(run_provenance, valid_characters)},
    {COUNT(run_provenance, unknown_tokens)},
    {COUNT(run_provenance, valid_unknown_tokens), .added = true},
};
const schema_table schema_provenance = {provenance_fields, LENGTH(provenance_fields)};

const schema_field *schema_find(const schema_table *table, const char *name)
{
  size_t i = 0;
  while (i < table->n && strcmp(table->fields[i].name, name) != 0) { ++i; }
  assert(i < table->n);
  return &table->fields[i];
}

json_t *schema_pack(const schema_field *field, const void *of)
{
  const void *at = (const char *)of + field->offset;
  switch (field->type) {
  case SCHEMA_COUNT:
    return json_count(*(const uint64_t *)at);
  case SCHEMA_REAL:
    return json_number(*(const double *)at);
  case SCHEMA_FLAG:
    return json_boolean(*(const int *)at);
  case SCHEMA_TEXT:
    return json_text(*(char *const *)at);
  }
  return NULL;
}

json_t *schema_pack_config(const unroll_config *config, bool *bad)
{
  const option_table *t = &config_table;
  json_t *object = json_object();

  for (size_t k = 0; k < t->n_rows; ++k) {
    const option *row = &t->rows[k];
    const char *value = (const char *)config + row->offset;
    char text[UNROLL_CONFIG_TEXT];
    options_format(row, config, sizeof text, text);
    switch (row->type) {
    case OPTION_FLAG:
      json_put(object, row->name, json_boolean(*(const bool *)value), bad);
      break;
    case OPTION_COUNT:
      json_put(object, row->name, json_count(*(const uint64_t *)value), bad);
      break;
    case OPTION_REAL:
      json_put(object, row->name, json_number(*(const double *)value), bad);
      break;
    case OPTION_CHOICE:
    case OPTION_TEXT:
    case OPTION_EVERY:
      json_put(object, row->name, json_text(text), bad);
      break;
    }
  }
  return object;
}

void schema_option_name(const char *text, char out[SCHEMA_NAME])
{
  int n = snprintf(out, SCHEMA_NAME, "%s", text);
  assert(n > 0 && n < SCHEMA_NAME);
  for (int i = 0; i < n; ++i) {
    if (out[i] == '-') { out[i] = '_'; }
  }
}

const schema_moment *schema_moment_at(const unroll_config *config, size_t k)
{
  static const char optimizer[] = "/optimizer";
  static const schema_moment velocity = {"/optimizer/velocity", optimizer, "velocity of the "};
  static const schema_moment adam[] = {
      {"/optimizer/first", optimizer, "decaying mean of the gradients of the "},
      {"/optimizer/second", optimizer, "decaying mean of the squared gradients of the "},
  };
  static const schema_moment average = {"/average", "/average", "average over updates of the "};
  assert(k < run_moments(config));
  if (config->average != UNROLL_AVERAGE_OFF && k == run_average(config)) { return &average; }
  return config->optimizer == UNROLL_OPTIMIZER_MOMENTUM ? &velocity : &adam[k];
}
