/* Several run files side by side: a ranking, and what differs between them. */
#include "base/check.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "report/ranking.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/config.h>

struct compare_settings {
  bool json;
};

static const option rows[] = {
    {CLI_JSON, .offset = offsetof(struct compare_settings, json)},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* --------------------------------------------------------------------- JSON */

static unroll_status print_json(size_t n, const ranking_entry *entries)
{
  bool bad = false;
  json_t *object = json_object(), *runs = json_array();

  for (size_t i = 0; i < n; ++i) { json_append(runs, ranking_pack(i, n, entries, &bad), &bad); }
  json_put(object, "runs", runs, &bad);
  return cli_print_json(object, bad);
}

/* -------------------------------------------------------------------- tables */

/* Cells of text, printed in columns as wide as they must be. */
struct grid {
  size_t lines, columns;
  char **cell; /* (lines, columns) owned */
};

static unroll_status grid_new(size_t lines, size_t columns, struct grid *g)
{
  *g = (struct grid){.lines = lines, .columns = columns};
  return memory_new(lines * columns, sizeof *g->cell, "a table", &g->cell);
}

static void grid_free(struct grid *g)
{
  for (size_t i = 0; g->cell != NULL && i < g->lines * g->columns; ++i) {
    memory_free(&g->cell[i]);
  }
  memory_free(&g->cell);
}

static unroll_status grid_set(struct grid *g, size_t line, size_t column, const char *text)
{
  unroll_status st = UNROLL_OK;
  char **cell = &g->cell[line * g->columns + column];
  UNROLL_TRY(memory_new(strlen(text) + 1, 1, "a cell of a table", cell));
  memcpy(*cell, text, strlen(text) + 1);

cleanup:
  return st;
}

/* The first column to the left, the others to the right: they are numbers, mostly. */
static void grid_print(const struct grid *g)
{
  for (size_t i = 0; i < g->lines; ++i) {
    for (size_t k = 0; k < g->columns; ++k) {
      const char *text = g->cell[i * g->columns + k];
      int width = 0;
      for (size_t j = 0; j < g->lines; ++j) {
        int length = (int)strlen(g->cell[j * g->columns + k]);
        width = length > width ? length : width;
      }
      (void)printf(k == 0 ? "  %-*s" : "  %*s", width, text);
    }
    (void)printf("\n");
  }
}

/* A number where there is one. */
static void number(const char *format, double x, size_t size, char *out)
{
  if (isfinite(x)) {
    (void)snprintf(out, size, format, x);
  } else {
    (void)snprintf(out, size, "-");
  }
}

enum { FILE_NAME, BITS, LOSS, PERPLEXITY, BEST_STEP, STEP, SPEED, PLACE, WEIGHTS, COLUMNS };
static const char *const headings[COLUMNS] = {"run", "bits/char", "loss", "perplexity", "at step",
                                              "of",  "tokens/s",  "on",   "weights"};

static unroll_status print_ranking(size_t n, const ranking_entry *entries)
{
  unroll_status st = UNROLL_OK;
  struct grid g = {0};

  UNROLL_TRY(grid_new(n + 1, COLUMNS, &g));
  for (size_t k = 0; k < COLUMNS; ++k) { UNROLL_TRY(grid_set(&g, 0, k, headings[k])); }
  for (size_t i = 0; i < n; ++i) {
    const ranking_entry *e = &entries[i];
    char text[COLUMNS][4096];
    (void)snprintf(text[FILE_NAME], sizeof text[0], "%zu %s", i + 1, e->path);
    number("%.4f", e->best_bits, sizeof text[0], text[BITS]);
    number("%.4f", e->best_loss, sizeof text[0], text[LOSS]);
    number("%.4g", exp(e->best_loss), sizeof text[0], text[PERPLEXITY]);
    (void)snprintf(text[BEST_STEP], sizeof text[0], "%" PRIu64, e->best_step);
    (void)snprintf(text[STEP], sizeof text[0], "%" PRIu64 "%s", e->step, e->finished ? "" : "...");
    number("%.0f", ranking_speed(e), sizeof text[0], text[SPEED]);
    (void)snprintf(text[PLACE], sizeof text[0], "%" PRIu64 " x %" PRIu64, e->ranks, e->threads);
    (void)snprintf(text[WEIGHTS], sizeof text[0], "%.8s", e->weights);
    for (size_t k = 0; k < COLUMNS; ++k) { UNROLL_TRY(grid_set(&g, i + 1, k, text[k])); }
  }
  grid_print(&g);

cleanup:
  grid_free(&g);
  return st;
}

static unroll_status print_options(size_t n, const ranking_entry *entries)
{
  unroll_status st = UNROLL_OK;
  struct grid g = {0};
  size_t count = 0, i = 0;

  for (size_t k = 0; k < config_table.n_rows; ++k) { count += ranking_differs(k, n, entries); }
  if (count == 0) {
    (void)printf("\nno option differs\n");
    goto cleanup;
  }
  UNROLL_TRY(grid_new(count + 1, n + 1, &g));
  UNROLL_TRY(grid_set(&g, 0, 0, "option"));
  for (size_t c = 0; c < n; ++c) {
    char text[24];
    (void)snprintf(text, sizeof text, "%zu", c + 1);
    UNROLL_TRY(grid_set(&g, 0, c + 1, text));
  }
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &config_table.rows[k];
    if (!ranking_differs(k, n, entries)) { continue; }
    i += 1;
    UNROLL_TRY(grid_set(&g, i, 0, row->name));
    for (size_t c = 0; c < n; ++c) {
      char text[UNROLL_CONFIG_TEXT];
      options_format(row, &entries[c].config, sizeof text, text);
      UNROLL_TRY(grid_set(&g, i, c + 1, text[0] == '\0' ? "none" : text));
    }
  }
  (void)printf("\noptions that differ, by the number of the run\n");
  grid_print(&g);

cleanup:
  grid_free(&g);
  return st;
}

/* What the tables do not say by themselves. */
static void print_notes(size_t n, const ranking_entry *entries)
{
  bool finished = true, validated = true;
  for (size_t i = 0; i < n; ++i) {
    finished &= entries[i].finished;
    validated &= isfinite(entries[i].best_loss);
  }

  (void)printf("\n");
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      if (strcmp(entries[i].weights, entries[j].weights) == 0) {
        (void)printf("%zu and %zu have the same weights, bit for bit\n", i + 1, j + 1);
        break;
      }
    }
  }
  if (!finished) { (void)printf("... has not finished\n"); }
  if (!validated) { (void)printf("without a validation: ranked last, by their training loss\n"); }
  (void)printf(ranking_same_texts(n, entries)
                   ? "texts: the same\n"
                   : "texts: not the same (files, --valid-fraction, --lowercase or --letters), so "
                     "the losses "
                     "are of different texts\n");
}

/* ------------------------------------------------------------------ command */

static unroll_status read_entry(const char *path, size_t place, ranking_entry *e)
{
  unroll_status st = UNROLL_OK;
  run *r = NULL;

  UNROLL_TRY(runfile_read(path, &r));
  UNROLL_TRY(ranking_take(path, place, r, e));

cleanup:
  run_free(&r);
  return st;
}

static unroll_status run_compare(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct compare_settings *s = call->settings;
  const size_t n = call->n_operands;
  ranking_entry *entries = NULL;

  if (unroll_comm_rank(call->comm) != 0) { return UNROLL_OK; }
  UNROLL_TRY(memory_new(n, sizeof *entries, "the runs to compare", &entries));
  for (size_t i = 0; i < n; ++i) { UNROLL_TRY(read_entry(call->operands[i], i, &entries[i])); }
  ranking_sort(n, entries);
  if (s->json) {
    UNROLL_TRY(print_json(n, entries));
    goto cleanup;
  }
  UNROLL_TRY(print_ranking(n, entries));
  UNROLL_TRY(print_options(n, entries));
  print_notes(n, entries);

cleanup:
  memory_free(&entries);
  return st;
}

const cli_command cli_compare = {
    .usage = {.command = "compare",
              .operands = "RUN...",
              .min_operands = 1,
              .max_operands = SIZE_MAX,
              .purpose =
                  "Rank runs, and show what differs between them.\n"
                  "\n"
                  "The best validation comes first: by bits per character, which runs on bytes,\n"
                  "characters and words have in common; then by loss, in nats per token. Runs on\n"
                  "texts with tokens that are not in their vocabulary have no bits per character.",
              .notes =
                  "The best validation was `at step`, the file stands at step `of`. tokens/s is\n"
                  "the mean over the whole run, `on` so many ranks x threads. `weights` begins\n"
                  "the SHA-256 of the values of all datasets of /weights, in the order of their\n"
                  "paths: where it is the same, so is every bit.\n"
                  "\n"
                  "With --json the object has `runs`, in the same order, with whole hashes, and\n"
                  "under `options` those that differ; null where there is no figure.\n"
                  "\n"
                  "Examples:\n"
                  "  unroll compare a.h5 b.h5\n"
                  "  unroll compare --json sweep/*.h5 | jq -r .runs[0].file"},
    .table = &table,
    .settings_size = sizeof(struct compare_settings),
    .run = run_compare,
    .of_one = true,
};
