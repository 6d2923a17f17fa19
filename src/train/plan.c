#include "base/check.h"
#include "base/memory.h"
#include "comm/placement.h"
#include "train/bench.h"
#include "train/diagnose.h"
#include "train/trainer.h"

#include <math.h>
#include <unistd.h>

/* [seconds] to measure a step for. */
#define SECONDS 1.0

/* Ethernet with TCP of two kinds, and InfiniBand: round numbers. */
static const unroll_plan_link links[UNROLL_PLAN_LINKS] = {
    {.gbit_per_second = 1, .latency = 50e-6},
    {.gbit_per_second = 10, .latency = 20e-6},
    {.gbit_per_second = 100, .latency = 2e-6},
};

/* ------------------------------------------------------- memory and messages */

/* Memory and bytes sent of one rank, from the code that allocates and plans; `self` has this rank only. */
static unroll_status count_rank(const trainer *t, unroll_comm *self, unroll_plan *p)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = t->run->params;
  const size_t window = t->pieces.longest * (size_t)t->run->config.batch;
  const size_t dense = step_exchange_dense_max(params, window);
  const size_t rows = step_exchange_rows_max(params, window);
  const int ranks = (int)t->ranks;
  step_memory m = {0};

  UNROLL_TRY(step_measure(self, &t->run->config, t->ranks, t->pieces.longest, t->run->params, &m));
  UNROLL_TRY(comm_exchange_predict_memory(ranks, true, m.gradient, &p->buffer_memory));
  p->gradient_memory = m.gradient;
  p->workspace_memory = m.workspace;
  p->shared_memory = m.common;
  p->exchange_bytes = (dense + rows) * sizeof *params->values;
  p->sent_bytes = comm_exchange_predict_sent(ranks, true, dense) +
                  comm_exchange_predict_sent(ranks, true, rows);

cleanup:
  return st;
}

/* ---------------------------------------------------------------------- time */

/* Why a step cannot be measured here, or NULL. Where one host has too little memory, no rank measures. Collective. */
static unroll_status find_why_not_measured(const trainer *t, uint64_t host_ranks, unroll_plan *p)
{
  unroll_status st = UNROLL_OK;
  const uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES);
  const uint64_t half = pages * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
  const uint64_t need = p->gradient_memory + p->workspace_memory + p->shared_memory;

  uint64_t too_large = need > half / host_ranks;

  UNROLL_TRY(comm_max_u64(t->comm, &too_large, 1));
  if (too_large) { p->not_measured = "it would take more than half of the memory here"; }
  if (t->run->config.bptt != UNROLL_BPTT_TRUNCATED) {
    p->not_measured = "its steps differ in length";
  }

cleanup:
  return st;
}

/* Times on each link, without overlap and with one rank per host; more ranks per host send less. */
static void add_links(unroll_plan *p)
{
  const double depth = comm_exchange_predict_depth((int)p->ranks) + ceil(log2((double)p->ranks));

  for (size_t i = 0; i < UNROLL_PLAN_LINKS; ++i) {
    unroll_plan_link *l = &p->links[i];
    *l = links[i];
    l->exchange_seconds =
        depth * l->latency + (double)p->sent_bytes * 8 / (l->gbit_per_second * 1e9);
    l->step_seconds = p->compute_seconds + l->exchange_seconds;
    l->run_seconds = l->step_seconds * (double)p->updates;
  }
}

static unroll_status add_time(const trainer *t, unroll_comm *self, unroll_plan *p)
{
  unroll_status st = UNROLL_OK;
  unroll_bench_result r = {0};

  UNROLL_TRY(comm_agree(t->comm, bench_ranks(self, t->ranks, p->V, &t->run->config, SECONDS, &r)));
  UNROLL_TRY(comm_max_double(t->comm, &r.step_seconds, 1));
  p->compute_seconds = r.step_seconds;
  p->run_seconds = r.step_seconds * (double)p->updates;
  if (p->ranks > 1) { add_links(p); }

cleanup:
  return st;
}

/* ---------------------------------------------------------------------- plan */

static void describe(const trainer *t, unroll_plan *p)
{
  const run *r = t->run;
  const uint64_t last = t->pieces.last;
  p->ranks = t->ranks;
  p->shards = r->config.shards;
  p->shards_of_rank = r->config.shards / t->ranks;
  p->sequences_of_rank = t->count;
  p->batch = r->config.batch;
  p->epochs = r->config.epochs;
  p->V = unroll_vocab_size(r->vocab);
  p->parameters = r->params->n_real;
  p->train_tokens = r->provenance.train_tokens;
  p->valid_tokens = r->provenance.valid_tokens;
  p->unknown_tokens = r->provenance.unknown_tokens;
  p->windows = t->pieces.per_epoch;
  p->steps = t->pieces.updates;
  p->resumed_step = t->resumed_step;
  p->updates = last > t->resumed_step && !r->state.finished ? last - t->resumed_step : 0;
}

unroll_status unroll_plan_make(unroll_comm *comm, const unroll_config *config, size_t n_texts,
                               const char *const *texts, unroll_plan *plan)
{
  unroll_status st = UNROLL_OK;
  unroll_config dry = *config;
  trainer *t = NULL;
  unroll_comm *self = NULL;
  placement *where = NULL;
  unroll_plan p = {0};
  bool resumed = false;

  dry.dry_run = true;
  UNROLL_TRY(comm_agree(comm, memory_new(1, sizeof *t, "trainer", &t)));
  t->comm = comm;
  t->ranks = config->ranks > 0 ? (size_t)config->ranks : (size_t)unroll_comm_size(comm);
  UNROLL_TRY(placement_new(comm, &where));
  UNROLL_TRY(trainer_read(t, &dry, n_texts, texts, &resumed));
  UNROLL_TRY(comm_agree(comm, diagnose_check(t)));
  describe(t, &p);

  UNROLL_TRY(comm_agree(comm, unroll_comm_new(MPI_COMM_SELF, &self)));
  UNROLL_TRY(comm_agree(comm, count_rank(t, self, &p)));
  uint64_t most[] = {t->text_held, memory_peak_rss(), p.workspace_memory}; /* the last by threads */
  UNROLL_TRY(comm_max_u64(comm, most, 3));
  p.text_memory = most[0];
  p.process_memory = most[1];
  p.workspace_memory = most[2];
  p.threads = (uint64_t)where->threads_max;
  UNROLL_TRY(find_why_not_measured(t, (uint64_t)where->host_ranks, &p));
  if (p.not_measured == NULL) { UNROLL_TRY(add_time(t, self, &p)); }
  *plan = p;

cleanup:
  unroll_comm_free(&self);
  placement_free(&where);
  trainer_free(&t);
  return st;
}
