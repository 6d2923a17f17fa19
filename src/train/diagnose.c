#include "train/diagnose.h"

#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "comm/watchdog.h"
#include "model/gradflow.h"

#include <inttypes.h>

/* Fewer than in `unroll gradflow`, as this is measured often. */
#define POSITIONS                                                                                  \
  64 /* losses to propagate back: the mean is known to about a tenth of their spread */
#define LAGS    64 /* [steps] as far as a window of the default --steps */
#define CONTEXT 64 /* [tokens] read before, from the zero state */

/* What is measured, the same on every rank. */
typedef struct plan {
  const text_source *text;
  uint64_t shard; /* [tokens] predicted in one shard */
  size_t T, K;    /* steps of a window, lags: fewer where a shard is short */
} plan;

static plan plan_on(const trainer *t, const text_source *text)
{
  const unroll_config *config = &t->run->config;
  plan p = {.text = text, .shard = text->length * (config->batch / config->shards)};
  p.T = p.shard < LAGS + 1 + CONTEXT ? (size_t)p.shard : LAGS + 1 + CONTEXT;
  p.K = p.T > LAGS ? LAGS : p.T - 1;
  return p;
}

/* On the validation text, unless none of its shards has two tokens to predict. */
static plan plan_of(const trainer *t)
{
  plan p = plan_on(t, t->train);
  if (t->valid != NULL) {
    plan other = plan_on(t, t->valid);
    if (other.K > 0) { p = other; }
  }
  return p;
}

/* The sizes of a result, without its arrays, for run_flows_fit. */
static unroll_gradflow result_of(const trainer *t, const plan *p)
{
  return (unroll_gradflow){.L = t->run->params->shape.L,
                           .H = t->run->params->shape.H,
                           .positions = POSITIONS,
                           .lags = p->K,
                           .context = p->T - 1 - p->K};
}

unroll_status diagnose_check(const trainer *t)
{
  const unroll_config *config = &t->run->config;
  if (config->diagnose_every.count == 0) { return UNROLL_OK; }

  const plan p = plan_of(t);
  if (p.K < 1) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "--diagnose-every needs 2 tokens or more in each of the %" PRIu64
                       " shards: give a longer text, or a lower --batch",
                       config->shards);
  }
  const unroll_gradflow now = result_of(t, &p);
  if (!run_flows_fit(&t->run->flows, &now)) {
    const unroll_gradflow *old = &t->run->flows.rows;
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: /diagnostics has positions %" PRIu64 ", lags %" PRIu64
                       ", context %" PRIu64 ", this program would add %" PRIu64 ", %" PRIu64
                       ", %" PRIu64 "; --diagnose-every 0 goes on without",
                       config->out, old->positions, old->lags, old->context, now.positions,
                       now.lags, now.context);
  }
  return UNROLL_OK;
}

/* ----------------------------------------------------------------- windows */

/* First token of window i, counted from the first stream's. */
static uint64_t window_start(const plan *p, uint64_t i)
{
  uint64_t start = gradflow_window(p->text->cut.B * p->text->length + 1, p->T, POSITIONS, i);
  uint64_t last = start - start % p->shard + p->shard - p->T; /* of this shard */
  return start < last ? start : last;
}

/* Windows that begin before this stream: starts are ascending. */
static uint64_t windows_before(const plan *p, size_t stream)
{
  uint64_t i = 0;
  while (i < POSITIONS && window_start(p, i) < stream * p->text->length) { ++i; }
  return i;
}

/* The tokens of this rank's windows [first, first + n): its streams are one text. */
static unroll_status copy_windows(const plan *p, uint64_t first, size_t n, int32_t **tokens)
{
  unroll_status st = UNROLL_OK;
  const text_source *text = p->text;

  UNROLL_TRY(memory_new(n, (p->T + 1) * sizeof **tokens, "tokens", tokens));
  for (size_t i = 0; i < n; ++i) {
    const uint64_t start = window_start(p, first + i) - text->cut.first * text->length;
    for (size_t k = 0; k <= p->T; ++k) {
      (*tokens)[i * (p->T + 1) + k] = corpus_stored(text->tokens, text->width, start + k);
    }
  }

cleanup:
  return st;
}

/* ----------------------------------------------------------------- measure */

/* Row, log and observer. Rank 0. */
static unroll_status record(trainer *t, const unroll_gradflow *flow)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(run_add_flow(t->run, flow));
  if (runlog_flow(t->run->config.out, flow) != UNROLL_OK) {
    record_notify(t, UNROLL_EVENT_WARNING, unroll_message()); /* the run file itself has the row */
  }
  t->progress.flow = flow;
  record_notify(t, UNROLL_EVENT_DIAGNOSE, NULL);
  t->progress.flow = NULL;

cleanup:
  return st;
}

unroll_status diagnose(trainer *t)
{
  unroll_status st = UNROLL_OK;
  const run *r = t->run;
  const plan p = plan_of(t);
  const uint64_t first = windows_before(&p, t->first);
  const size_t n = (size_t)(windows_before(&p, t->first + t->count) - first);
  int32_t *tokens = NULL;
  unroll_gradflow *flow = NULL;

  watchdog_phase("the gradient flow is measured, the spectra by rank 0");
  st = copy_windows(&p, first, n, &tokens);
  if (st == UNROLL_OK) { st = gradflow_new(&r->params->shape, POSITIONS, p.K, &flow); }
  UNROLL_TRY(comm_agree(t->comm, st));
  st = gradflow_measure(t->comm, r->params, p.T, first, n, tokens, flow);
  if (st == UNROLL_ERR_DIVERGED) {
    record_notify(t, UNROLL_EVENT_WARNING, unroll_message());
    st = UNROLL_OK;
    goto cleanup;
  }
  if (st != UNROLL_OK) { goto cleanup; }
  flow->step = r->state.step;
  UNROLL_TRY(comm_agree(t->comm, unroll_comm_rank(t->comm) == 0 ? record(t, flow) : UNROLL_OK));

cleanup:
  unroll_gradflow_free(&flow);
  memory_free(&tokens);
  return st;
}
