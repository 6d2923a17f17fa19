/* One page about runs, to look at in a browser. */
#include "base/build.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "cli/say.h"
#include "report/data.h"
#include "report/page.h"
#include "report/ranking.h"

#include <string.h>

struct report_settings {
  char out[UNROLL_CONFIG_TEXT];
  uint64_t sample;
  bool overwrite;
};

#define AT(field) .offset = offsetof(struct report_settings, field)

static const option rows[] = {
    {.name = "out",
     .letter = 'o',
     .type = OPTION_TEXT,
     AT(out),
     .default_text = "report.html",
     .unit = "file",
     .heading = "Output",
     .help = "the page; an earlier report of that name is replaced"},
    {.name = "sample",
     .type = OPTION_COUNT,
     AT(sample),
     .default_text = "400",
     .unit = "tokens",
     .low = 0,
     .high = 1e5,
     .heading = "Output",
     .help = "length of a text drawn from each model; 0: none"},
    {.name = "overwrite",
     .type = OPTION_FLAG,
     AT(overwrite),
     .default_text = "no",
     .heading = "Output",
     .help = "replace an existing file that is no report"},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* ------------------------------------------------------------------ output */

/* Before runs are read, which may take long. */
static unroll_status check_output(const cli_call *call)
{
  const struct report_settings *s = call->settings;

  if (s->out[0] == '\0') { return unroll_fail(UNROLL_ERR_ARG, "--out needs a file name"); }
  for (size_t i = 0; i < call->n_operands; ++i) {
    if (runfile_is_same(s->out, call->operands[i])) {
      return unroll_fail(UNROLL_ERR_ARG, "--out %s is the run file itself; legal is another name",
                         s->out);
    }
  }
  if (!s->overwrite && runfile_exists(s->out) && !page_is_one(s->out)) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "--out %s: exists already and is no report; --overwrite replaces it",
                       s->out);
  }
  return runfile_check_output(s->out, true);
}

/* -------------------------------------------------------------------- data */

static unroll_status read_run(const cli_call *call, size_t i, ranking_entry *e, json_t **out,
                              bool *bad)
{
  unroll_status st = UNROLL_OK;
  const struct report_settings *s = call->settings;
  run *r = NULL;

  UNROLL_TRY(runfile_read(call->operands[i], &r));
  UNROLL_TRY(ranking_take(call->operands[i], i, r, e));
  UNROLL_TRY(data_pack(r, s->sample, out, bad));

cleanup:
  run_free(&r);
  return st;
}

/* Names of the options that differ, in the order of the table. */
static json_t *pack_differing(size_t n, const ranking_entry *entries, bool *bad)
{
  json_t *names = json_array();
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    if (ranking_differs(k, n, entries)) {
      json_append(names, json_string(config_table.rows[k].name), bad);
    }
  }
  return names;
}

/* What the page must know of the table of options: heading, default and unit of each. */
static json_t *pack_options(bool *bad)
{
  json_t *options = json_array();
  unroll_config defaults;

  unroll_config_init(&defaults);
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &config_table.rows[k];
    json_t *one = json_object();
    char text[UNROLL_CONFIG_TEXT];
    options_format(row, &defaults, sizeof text, text);
    json_put(one, "name", json_string(row->name), bad);
    json_put(one, "heading", json_string(row->heading), bad);
    json_put(one, "default", json_string(text), bad);
    json_put(one, "unit", json_text(row->unit), bad);
    json_put(one, "help", json_text(row->help), bad);
    json_append(options, one, bad);
  }
  return options;
}

/* The runs (n) as they were given, in the order of the ranking, are taken into the object. */
static json_t *pack_page(size_t n, const ranking_entry *entries, json_t *const *runs, bool *bad)
{
  json_t *object = json_object(), *list = json_array();
  char now[CLOCK_ISO_SIZE];

  clock_iso(now);
  for (size_t i = 0; i < n; ++i) {
    const ranking_entry *e = &entries[i];
    json_t *one = runs[e->place], *ranked = ranking_pack(i, n, entries, bad);
    *bad |= json_object_update(one, ranked) != 0;
    json_put(one, "file", data_text(e->path, strlen(e->path)), bad);
    json_append(list, json_incref(one), bad);
    json_decref(ranked);
  }
  json_put(object, "source", json_string("unroll " UNROLL_VERSION), bad);
  json_put(object, "revision", json_string(build_revision), bad);
  json_put(object, "written", json_string(now), bad);
  json_put(object, "same_texts", json_boolean(ranking_same_texts(n, entries)), bad);
  json_put(object, "differing", pack_differing(n, entries, bad), bad);
  json_put(object, "options", pack_options(bad), bad);
  json_put(object, "runs", list, bad);
  return object;
}

static unroll_status run_report(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct report_settings *s = call->settings;
  const size_t n = call->n_operands;
  ranking_entry *entries = NULL;
  json_t **runs = NULL, *page = NULL;
  bool bad = false;
  size_t bytes = 0;

  if (unroll_comm_rank(call->comm) != 0) { return UNROLL_OK; }
  UNROLL_TRY(check_output(call));
  UNROLL_TRY(memory_new(n, sizeof *entries, "the runs of a report", &entries));
  UNROLL_TRY(memory_new(n, sizeof *runs, "the runs of a report", &runs));
  for (size_t i = 0; i < n; ++i) { UNROLL_TRY(read_run(call, i, &entries[i], &runs[i], &bad)); }
  ranking_sort(n, entries);
  page = pack_page(n, entries, runs, &bad);
  if (bad) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for the page", s->out);
    goto cleanup;
  }
  UNROLL_TRY(page_write(s->out, page, &bytes));
  (void)fprintf(say_err, "%s: a page of %zu run%s, %zu kB, for a browser\n", s->out, n,
                n == 1 ? "" : "s", (bytes + 999) / 1000);

cleanup:
  json_decref(page);
  for (size_t i = 0; runs != NULL && i < n; ++i) { json_decref(runs[i]); }
  memory_free(&runs);
  memory_free(&entries);
  return st;
}

const cli_command cli_report = {
    .usage =
        {.command = "report",
         .operands = "RUN...",
         .min_operands = 1,
         .max_operands = SIZE_MAX,
         .purpose =
             "Make a page about runs, for a browser.\n"
             "\n"
             "Curves, clipping, speed and where the time goes, spectra of the recurrent\n"
             "matrices, gradient flow where it was recorded, a sample, options and origin. Of\n"
             "several runs all curves in one figure, a ranking, and what differs between them.",
         .notes =
             "The page is one file that needs no network: mail it, keep it beside the run. The\n"
             "sample is that of unroll sample --temperature 0.8 --length 400.\n"
             "\n"
             "Curves of more than 1500 reports are thinned: a point is then the mean of\n"
             "several. Losses above twice that of a uniform guess, as of runs that diverged,\n"
             "are drawn at the edge. Eigenvalues are those that --diagnose-every measured\n"
             "last, else those of the weights, which takes seconds for 1024 units and is left\n"
             "out above.\n"
             "\n"
             "Examples:\n"
             "  unroll report run.h5\n"
             "  unroll report sweep/*.h5 -o sweep.html"},
    .table = &table,
    .settings_size = sizeof(struct report_settings),
    .run = run_report,
    .of_one = true,
};
