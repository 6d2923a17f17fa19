#include "base/check.h"
#include "base/memory.h"
#include "runfile/diagnostics.h"

#include <math.h>

unroll_status run_new(run **out)
{
  run *r = NULL;
  unroll_status st = memory_new(1, sizeof *r, "a run", &r);
  if (st != UNROLL_OK) { return st; }
  r->state.best_loss = INFINITY;
  r->state.lr_factor = 1.0;
  *out = r;
  return UNROLL_OK;
}

static void free_provenance(run_provenance *p)
{
  memory_free(&p->command_line);
  memory_free(&p->started);
  memory_free(&p->written);
  memory_free(&p->hosts);
  memory_free(&p->cpu);
  memory_free(&p->code_path);
  memory_free(&p->slurm_job);
  memory_free(&p->init_file);
  memory_free(&p->init_sha256);
  h5_free_strings(p->n_changed, &p->changed);
  h5_free_strings(p->n_files, &p->file_name);
  h5_free_strings(p->n_files, &p->file_sha256);
  memory_free(&p->file_bytes);
}

void run_free(run **r)
{
  if (r == NULL || *r == NULL) { return; }
  diagnostics_free(&(*r)->flows);
  memory_free(&(*r)->valid);
  memory_free(&(*r)->train);
  free_provenance(&(*r)->provenance);
  memory_free(&(*r)->state.hidden);
  for (size_t k = RUN_MOMENTS; k-- > 0;) { memory_free(&(*r)->moments[k]); }
  unroll_params_free(&(*r)->params);
  unroll_vocab_free(&(*r)->vocab);
  memory_free(r);
}

/* Room for one more row of n; doubling keeps a long run's copying linear. */
static unroll_status grow(size_t n, size_t *max, size_t size, void *rows)
{
  if (n < *max) { return UNROLL_OK; }
  size_t more = *max == 0 ? 64 : 2 * *max;
  unroll_status st = memory_resize(n, more, size, "the metrics", rows);
  if (st == UNROLL_OK) { *max = more; }
  return st;
}

unroll_status run_add_change(run *r, const char *line)
{
  unroll_status st = UNROLL_OK;
  run_provenance *p = &r->provenance;

  UNROLL_TRY(memory_resize(p->n_changed, p->n_changed + 1, sizeof *p->changed, "what was changed",
                           &p->changed));
  UNROLL_TRY(memory_string(line, &p->changed[p->n_changed]));
  p->n_changed += 1;

cleanup:
  return st;
}

unroll_status run_add_train(run *r, const run_train_row *row)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(grow(r->n_train, &r->max_train, sizeof *r->train, &r->train));
  r->train[r->n_train++] = *row;

cleanup:
  return st;
}

unroll_status run_add_valid(run *r, const run_valid_row *row)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(grow(r->n_valid, &r->max_valid, sizeof *r->valid, &r->valid));
  r->valid[r->n_valid++] = *row;

cleanup:
  return st;
}

size_t run_moments(const unroll_config *config)
{
  const size_t average = config->average != UNROLL_AVERAGE_OFF;
  switch (config->optimizer) {
  case UNROLL_OPTIMIZER_SGD:
    break;
  case UNROLL_OPTIMIZER_MOMENTUM:
    return 1 + average;
  case UNROLL_OPTIMIZER_ADAM:
    return 2 + average;
  }
  return average;
}

void run_swap_average(run *r)
{
  unroll_real **average = &r->moments[run_average(&r->config)], *values = r->params->values;
  r->params->values = *average;
  *average = values;
}
