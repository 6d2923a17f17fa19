#include "base/presets.h"

#include "base/options.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

typedef struct preset_option {
  unroll_preset preset;
  const char *name, *value;
} preset_option;

/*
 * Batch and epochs are left to the size of the text, see config_fit; all else to the defaults.
 *
 * char   a gated cell with dropout. Of 256 units each a GRU learns more from few updates than an LSTM: validation loss
 *        of The Time Machine after 1,660 updates 1.76 and 2.03, with --lr 4e-3 1.79
 * word   two layers of LSTM and one table for embeddings and output, as PyTorch's word_language_model has them, after
 *        Zaremba et al. (2014) and Press and Wolf (2017)
 * quick  the GRU of 256 units without dropout: some two minutes of one core for that book
 */
static const preset_option rows[] = {
    {UNROLL_PRESET_CHAR, "level", "char"},    {UNROLL_PRESET_CHAR, "cell", "gru"},
    {UNROLL_PRESET_CHAR, "hidden", "512"},    {UNROLL_PRESET_CHAR, "dropout", "0.3"},

    {UNROLL_PRESET_WORD, "level", "word"},    {UNROLL_PRESET_WORD, "cell", "lstm"},
    {UNROLL_PRESET_WORD, "layers", "2"},      {UNROLL_PRESET_WORD, "hidden", "200"},
    {UNROLL_PRESET_WORD, "embedding", "200"}, {UNROLL_PRESET_WORD, "tied", "yes"},
    {UNROLL_PRESET_WORD, "dropout", "0.3"},   {UNROLL_PRESET_WORD, "steps", "35"},

    {UNROLL_PRESET_QUICK, "cell", "gru"},
};

#define N_ROWS (sizeof rows / sizeof rows[0])

static size_t find_option(const char *name)
{
  size_t k = 0;
  while (k < config_table.n_rows && strcmp(config_table.rows[k].name, name) != 0) { ++k; }
  assert(k < config_table.n_rows);
  return k;
}

void presets_apply(unroll_config *config)
{
  for (size_t i = 0; i < N_ROWS; ++i) {
    if (rows[i].preset != config->preset || config->given[find_option(rows[i].name)]) { continue; }
    unroll_status st = options_set(&config_table, rows[i].name, rows[i].value, config, NULL);
    assert(st == UNROLL_OK); /* an illegal value is a mistake in the table */
    (void)st;
  }
}

void presets_describe(const unroll_config *config, size_t size, char *out)
{
  char value[UNROLL_CONFIG_TEXT];
  size_t n = 0;

  options_format(&config_table.rows[find_option("preset")], config, sizeof value, value);
  n += (size_t)snprintf(out, size, "%s", value);
  for (size_t i = 0, told = 0; i < N_ROWS; ++i) {
    if (rows[i].preset != config->preset) { continue; }
    options_format(&config_table.rows[find_option(rows[i].name)], config, sizeof value, value);
    n += (size_t)snprintf(out + n, size - n, "%s %s %s", told++ == 0 ? ":" : ",", rows[i].name,
                          value);
    assert(n < size); /* of few options that are numbers and choices */
  }
}
