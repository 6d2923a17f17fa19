#include "base/check.h"
#include "base/json.h"
#include "runfile/diagnostics.h"
#include "runfile/keep.h"
#include "runfile/schema.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Print an object, which is freed, as one line; `bad`: there was no memory for all of it. */
static unroll_status print_line(FILE *f, const char *name, json_t *object, bool bad)
{
  unroll_status st = UNROLL_OK;
  char *line = bad ? NULL : json_dumps(object, 0);

  if (line == NULL) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for a line of the log", name);
  } else if (fprintf(f, "%s\n", line) < 0) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot write the log: %s", name, strerror(errno));
  }
  free(line);
  json_decref(object);
  return st;
}

static json_t *pack_row(const char *kind, const schema_table *table, const void *row, bool *bad)
{
  json_t *object = json_object();

  json_put(object, "kind", json_string(kind), bad);
  for (size_t k = 0; k < table->n; ++k) {
    json_put(object, table->fields[k].name, schema_pack(&table->fields[k], row), bad);
  }
  return object;
}

/* A row as one line. Who watches cannot tell from a row how far the run goes, so that a line of training says it. */
static unroll_status print_train(FILE *f, const char *name, uint64_t steps,
                                 const run_train_row *row)
{
  bool bad = false;
  json_t *object = pack_row("train", &schema_train, row, &bad);

  json_put(object, "steps", json_count(steps), &bad);
  return print_line(f, name, object, bad);
}

static unroll_status print_valid(FILE *f, const char *name, const run_valid_row *row)
{
  bool bad = false;
  json_t *object = pack_row("valid", &schema_valid, row, &bad);

  return print_line(f, name, object, bad);
}

static unroll_status print_flow(FILE *f, const char *name, const unroll_gradflow *flow)
{
  json_t *object = json_object();
  bool bad = false;

  json_put(object, "kind", json_string("diagnose"), &bad);
  diagnostics_pack(flow, object, &bad);
  return print_line(f, name, object, bad);
}

/* "step 300: epochs 3 -> 5": the step, and from where the rest of the line goes on. */
static uint64_t step_of_change(const char *line, const char **rest)
{
  uint64_t step = 0;
  int n = 0;
  const bool ours = sscanf(line, "step %" SCNu64 ": %n", &step, &n) == 1 && n > 0;
  *rest = line + (ours ? n : 0);
  return ours ? step : 0;
}

static unroll_status print_change(FILE *f, const char *name, const char *line)
{
  json_t *object = json_object();
  bool bad = false;
  const char *rest = NULL;

  json_put(object, "kind", json_string("change"), &bad);
  json_put(object, "step", json_count(step_of_change(line, &rest)), &bad);
  json_put(object, "changed", json_text(rest), &bad);
  return print_line(f, name, object, bad);
}

static unroll_status log_open(const char *path, const char *mode, char name[KEEP_NAME], FILE **f)
{
  keep_log_name(path, name);
  *f = fopen(name, mode);
  if (*f == NULL) {
    return unroll_fail(UNROLL_ERR_IO, "%s: cannot open the log: %s", name, strerror(errno));
  }
  return UNROLL_OK;
}

static unroll_status log_close(unroll_status st, const char *name, FILE **f)
{
  if (*f != NULL && fclose(*f) != 0 && st == UNROLL_OK) {
    st = unroll_fail(UNROLL_ERR_IO, "%s: cannot write the log: %s", name, strerror(errno));
  }
  *f = NULL;
  return st;
}

/* The run holds every row, so the log is written anew: right also where it was lost or cut short. */
unroll_status runlog_start(const char *path, uint64_t steps, const run *r)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  FILE *f = NULL;
  size_t i = 0;
  size_t j = 0;
  size_t k = 0;
  size_t c = 0;
  const char *rest = NULL;
  const run_provenance *p = &r->provenance;

  UNROLL_TRY(log_open(path, "w", name, &f));
  while (true) { /* of equal steps in the order in which they were made */
    uint64_t train = i < r->n_train ? r->train[i].step : UINT64_MAX;
    uint64_t flow = j < r->flows.n ? r->flows.step[j] : UINT64_MAX;
    uint64_t valid = k < r->n_valid ? r->valid[k].step : UINT64_MAX;
    uint64_t step = train < flow ? train : flow;
    step = step < valid ? step : valid;
    for (; c < p->n_changed && step_of_change(p->changed[c], &rest) < step;
         ++c) { /* it came after its step */
      UNROLL_TRY(print_change(f, name, p->changed[c]));
    }
    if (step == UINT64_MAX || step > r->state.step) { break; }
    if (step == train) {
      UNROLL_TRY(print_train(f, name, steps, &r->train[i++]));
    } else if (step == flow) {
      const unroll_gradflow row = run_flow_view(&r->flows, j++);
      UNROLL_TRY(print_flow(f, name, &row));
    } else {
      UNROLL_TRY(print_valid(f, name, &r->valid[k++]));
    }
  }

cleanup:
  return log_close(st, name, &f);
}

unroll_status runlog_train(const char *path, uint64_t steps, const run_train_row *row)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  FILE *f = NULL;

  UNROLL_TRY(log_open(path, "a", name, &f));
  UNROLL_TRY(print_train(f, name, steps, row));

cleanup:
  return log_close(st, name, &f);
}

unroll_status runlog_valid(const char *path, const run_valid_row *row)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  FILE *f = NULL;

  UNROLL_TRY(log_open(path, "a", name, &f));
  UNROLL_TRY(print_valid(f, name, row));

cleanup:
  return log_close(st, name, &f);
}

unroll_status runlog_flow(const char *path, const unroll_gradflow *flow)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  FILE *f = NULL;

  UNROLL_TRY(log_open(path, "a", name, &f));
  UNROLL_TRY(print_flow(f, name, flow));

cleanup:
  return log_close(st, name, &f);
}

unroll_status runlog_end(const char *path, const run_state *state, const char *weights_sha256)
{
  unroll_status st = UNROLL_OK;
  char name[KEEP_NAME];
  FILE *f = NULL;
  json_t *object = json_object();
  bool bad = false;

  json_put(object, "kind", json_string("end"), &bad);
  json_put(object, "step", json_count(state->step), &bad);
  json_put(object, "finished", json_boolean(state->finished), &bad);
  json_put(object, "weights_sha256", json_string(weights_sha256), &bad);
  st = log_open(path, "a", name, &f);
  if (st == UNROLL_OK) {
    st = print_line(f, name, object, bad);
  } else {
    json_decref(object);
  }
  return log_close(st, name, &f);
}
