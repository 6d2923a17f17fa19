/* A command line of `train`: words, each ended by a zero byte, as in /proc/PID/cmdline. */
#include "base/memory.h"
#include "base/options.h"
#include "fuzz.h"

#include <unroll/config.h>

#define MOST 64 /* words */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
  (void)argc;
  (void)argv;
  MUST(freopen("/dev/null", "w", stdout) != NULL); /* --help */
  return 0;
}

/* Every value is written as it is read: by the command line, and in a run file. */
static void must_come_back(const unroll_config *config)
{
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &config_table.rows[k];
    char text[UNROLL_CONFIG_TEXT];
    unroll_config again;
    if (options_is_open(row, config)) { continue; } /* no value yet, and so no text of one */
    unroll_config_init(&again);
    options_format(row, config, sizeof text, text);
    MUST(unroll_config_set(&again, row->name, text) == UNROLL_OK);
    MUST(options_equal(row, config, &again));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  static const options_usage usage = {
      .command = "train", .operands = "TEXT...", .purpose = "Train.", .max_operands = 8};
  char *words[MOST] = {NULL};
  int n = 0;
  char *all = malloc(size + 1);
  unroll_config config;
  const char **operands = NULL;
  size_t n_operands = 0;
  bool help = false;
  const int64_t alive = memory_live_blocks();

  memcpy(all, data, size);
  all[size] = '\0';
  for (size_t at = 0; at < size && n < MOST; at += strlen(all + at) + 1) { words[n++] = all + at; }

  memset(&config, 0, sizeof config);
  unroll_status st =
      options_parse(&config_table, &usage, n, words, &config, NULL, &n_operands, &operands, &help);
  if (st == UNROLL_OK && !help) {
    MUST(n_operands <= usage.max_operands);
    must_come_back(&config);
    st = unroll_config_resolve(&config);
    if (st == UNROLL_OK) {
      must_come_back(&config);
      MUST(config.batch == 0 || (config.shards >= 1 && config.batch % config.shards == 0));
      const unroll_config before = config;
      MUST(unroll_config_resolve(&config) == UNROLL_OK); /* as a run file is read */
      MUST(memcmp(&before, &config, sizeof config) == 0);
    }
  }
  if (st != UNROLL_OK) {
    MUST(st == UNROLL_ERR_ARG);
    must_be_told();
  }
  memory_free(&operands);
  MUST(memory_live_blocks() == alive);
  free(all);
  return 0;
}
