#include <unroll/bench.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/median.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/random.h"
#include "data/streams.h"
#include "kernels/dispatch.h"
#include "train/bench.h"
#include "train/optimizer.h"
#include "train/step.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

/* Odd, so that the median is one of the blocks: its phases add up to its time. */
#define BLOCKS 9

/* Windows of synthetic text, used in turn: more than the caches hold. */
#define WINDOWS 16

#define PEAK_SECONDS 0.02 /* of one run of the peak kernel: long beside starting a region */

#define EXCHANGE_REPEATS 5 /* of the whole gradient, to time one alone; odd */

typedef struct bench {
  unroll_comm *comm;
  size_t ranks;         /* of the run: those of comm, or as many as are planned */
  unroll_config config; /* resolved */
  size_t V;
  unroll_params *params;
  unroll_real *moments[RUN_MOMENTS];
  stepper *stepper;
  text_source text; /* synthetic streams, of this rank */
  uint64_t step;
  double loss;
  step_times blocks[BLOCKS];
  double peaks[BLOCKS]; /* [GFLOP/s] before each block */
} bench;

/* Wait for all ranks, so that they start what follows together. */
static unroll_status barrier(unroll_comm *comm)
{
  double nothing = 0.0;
  return comm_tree_sum(comm, &nothing, 1);
}

/* ----------------------------------------------------------- multiply-add peak */

/* [operations per second] of the threads of this rank, all at once. */
static double peak_of_rank(size_t rounds)
{
  double operations = 0.0, before = clock_seconds();
#pragma omp parallel default(none) shared(rounds, operations)
  {
    _Alignas(MEMORY_ALIGNMENT) unroll_real out[KERNELS_PAD];
    double mine = kernels()->peak(rounds, out);
#pragma omp critical
    operations += mine; /* whole numbers: exact in any order */
  }
  return operations / (clock_seconds() - before);
}

/* Rounds that take one thread about `seconds`, from the shortest of some runs: longer ones were interrupted. */
static size_t peak_rounds(double seconds)
{
  const size_t rounds = 50000; /* about 1e6 cycles */
  double shortest = INFINITY;
  for (int i = 0; i < 10; ++i) {
    unroll_real out[KERNELS_PAD];
    double before = clock_seconds();
    (void)kernels()->peak(rounds, out);
    shortest = fmin(shortest, clock_seconds() - before);
  }
  return (size_t)((double)rounds * fmax(1.0, seconds / shortest));
}

/* [GFLOP/s] All threads of all ranks at once, in one short run. */
static unroll_status measure_peak(unroll_comm *comm, size_t rounds, double *peak)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(barrier(comm));
  *peak = peak_of_rank(rounds) * 1e-9;
  UNROLL_TRY(comm_sum_double(comm, peak, 1));

cleanup:
  return st;
}

/* ------------------------------------------------------------------- set up */

/* Uniform random tokens, a function of sequence and position alone. */
static unroll_status make_text(bench *b)
{
  unroll_status st = UNROLL_OK;
  text_source *text = &b->text;
  const uint64_t length = WINDOWS * b->config.steps, n = text->cut.count * length + 1;
  int32_t *tokens = NULL;

  text->cut.B = (size_t)b->config.batch;
  text->width = sizeof *tokens;
  streams_cut(text, length);
  UNROLL_TRY(memory_new((size_t)n, sizeof *tokens, "synthetic text", &tokens));
  text->tokens = tokens;
  for (uint64_t i = 0; i < n; ++i) {
    uint64_t sequence = text->cut.first + i / length;
    tokens[i] = (int32_t)random_below(b->config.seed, RANDOM_SYNTHETIC, sequence, i % length, b->V);
  }

cleanup:
  return st;
}

static unroll_status make_model(bench *b)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &b->config;
  const unroll_shape shape = params_shape(config, b->V);
  const unroll_start start = params_start(config);

  UNROLL_TRY(unroll_params_new(&shape, &b->params));
  UNROLL_TRY(unroll_params_start(b->params, &start));
  for (size_t i = 0; i < run_moments(config); ++i) {
    UNROLL_TRY(
        memory_new(b->params->n, sizeof *b->moments[i], "optimizer moments", &b->moments[i]));
  }
  UNROLL_TRY(make_text(b));

cleanup:
  return st;
}

static unroll_status set_up(bench *b)
{
  unroll_status st = UNROLL_OK;
  config_fit(&b->config, UINT64_MAX); /* as of a large text */
  UNROLL_TRY(unroll_config_resolve(&b->config));
  if (b->config.stride == 0) { b->config.stride = b->config.steps; }
  UNROLL_TRY(step_owned_sequences(b->ranks, (uint64_t)unroll_comm_rank(b->comm), &b->config,
                                  &b->text.cut.first, &b->text.cut.count));
  UNROLL_TRY(comm_agree(b->comm, make_model(b)));
  UNROLL_TRY(step_new(b->comm, &b->config, b->ranks, (size_t)b->config.steps, b->params, b->moments,
                      &b->stepper));
  network_pack(b->stepper->net);

cleanup:
  return st;
}

static void tear_down(bench *b)
{
  step_free(&b->stepper);
  memory_free(&b->text.tokens);
  for (size_t k = RUN_MOMENTS; k-- > 0;) { memory_free(&b->moments[k]); }
  unroll_params_free(&b->params);
}

/* ------------------------------------------------------------------ measure */

/* A window of the text: the same few in turn. */
static unroll_status step(bench *b)
{
  const uint64_t T = b->config.steps, stride = b->config.stride;
  const double tokens = (double)stride * (double)b->config.batch;
  const piece p = {.start = b->step % WINDOWS * T,
                   .steps = (size_t)T,
                   .scored = (size_t)(T - stride),
                   .advance = (size_t)stride,
                   .tokens = tokens,
                   .scale = 1.0 / tokens};
  step_outcome o = {0};

  b->step += 1;
  const double share = b->config.average != UNROLL_AVERAGE_OFF ? 1.0 / (double)b->step : 0.0;
  unroll_status st =
      step_run(b->stepper, &p, &b->text, b->config.lr, share, b->step, (step_flags){0}, &o);
  b->loss = o.loss;
  if (st == UNROLL_OK && !o.updated) {
    st = unroll_fail(UNROLL_ERR_DIVERGED, "the loss of the synthetic text is not finite");
  }
  return st;
}

/* So many steps, timed alone. */
static unroll_status run_block(bench *b, uint64_t steps, step_times *times)
{
  unroll_status st = UNROLL_OK;
  UNROLL_TRY(barrier(b->comm));
  b->stepper->times = (step_times){0};
  for (uint64_t k = 0; k < steps; ++k) { UNROLL_TRY(step(b)); }
  *times = b->stepper->times;

cleanup:
  return st;
}

/*
 * All blocks. The first runs warm up, and give the number of steps of a block. The peak is measured
 * before each block, so that other load on the machine affects both alike; the medians are compared.
 */
static unroll_status run_blocks(bench *b, double seconds)
{
  unroll_status st = UNROLL_OK;
  uint64_t steps = 1;
  step_times trial = {0};

  for (int k = 0; k < 3; ++k) {
    UNROLL_TRY(run_block(b, steps, &trial));
    UNROLL_TRY(comm_max_double(b->comm, &trial.total, 1)); /* all ranks decide alike */
    double fit = seconds / BLOCKS / (trial.total / (double)steps);
    steps = (uint64_t)fmax(1.0, fmin(fit, 1e9));
  }
  const size_t rounds = peak_rounds(PEAK_SECONDS);
  for (size_t k = 0; k < BLOCKS; ++k) {
    UNROLL_TRY(measure_peak(b->comm, rounds, &b->peaks[k]));
    UNROLL_TRY(run_block(b, steps, &b->blocks[k]));
  }

cleanup:
  return st;
}

/* Speed and phases of the median block. */
static unroll_status reduce_blocks(const bench *b, unroll_bench_result *out)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = &b->config;
  const double P = (double)unroll_comm_size(b->comm);
  double total[BLOCKS];

  for (size_t k = 0; k < BLOCKS; ++k) { total[k] = b->blocks[k].total; }
  UNROLL_TRY(comm_max_double(b->comm, total, BLOCKS));
  size_t k = median_index(BLOCKS, total);
  const step_times *t = &b->blocks[k];
  double mean[] = {t->total,    t->forward, t->output, t->backward,
                   t->exchange, t->wait,    t->norm,   t->update};
  const size_t n = sizeof mean / sizeof mean[0];
  UNROLL_TRY(comm_sum_double(b->comm, mean, n));
  for (size_t i = 0; i < n; ++i) { mean[i] /= P * (double)t->steps; }

  double tokens = (double)(t->steps * config->steps * config->batch);
  out->updates = BLOCKS * t->steps;
  out->tokens_per_second = tokens / total[k];
  out->gflops = out->tokens_per_second * params_flops_per_token(b->params) * 1e-9;
  out->step_seconds = mean[0];
  out->forward_seconds = mean[1];
  out->output_seconds = mean[2];
  out->backward_seconds = mean[3];
  out->exchange_seconds = mean[4];
  out->wait_seconds = mean[5];
  out->norm_seconds = mean[6];
  out->update_seconds = mean[7];
  out->other_seconds = mean[0];
  for (size_t i = 1; i < n; ++i) { out->other_seconds -= mean[i]; }
  out->loss = b->loss;

cleanup:
  return st;
}

/* Time the exchange of a step alone: of a large vocabulary only the touched rows. */
static unroll_status measure_exchange(const bench *b, unroll_bench_result *out)
{
  unroll_status st = UNROLL_OK;
  stepper *s = b->stepper;
  const size_t n = b->params->n_gradient;
  const size_t dense = step_exchange_dense(s), rows = step_exchange_rows(s);
  double seconds[EXCHANGE_REPEATS];

  out->exchange_bytes = (dense + rows) * sizeof *s->sum;
  if (unroll_comm_size(b->comm) == 1) { goto cleanup; }
  memset(s->net->gradient, 0, n * sizeof *s->sum); /* sums of sums would overflow */
  if (rows > 0) { memset(s->rows, 0, rows * sizeof *s->rows); }
  for (size_t k = 0; k < EXCHANGE_REPEATS; ++k) {
    UNROLL_TRY(barrier(b->comm));
    double before = clock_seconds();
    UNROLL_TRY(comm_exchange_start(s->exchange, 0, dense));
    UNROLL_TRY(comm_exchange_start(s->exchange, n, rows));
    UNROLL_TRY(comm_exchange_wait(s->exchange));
    UNROLL_TRY(comm_team_fence(s->team));
    seconds[k] = clock_seconds() - before;
  }
  UNROLL_TRY(comm_max_double(b->comm, seconds, EXCHANGE_REPEATS));
  const double alone = seconds[median_index(EXCHANGE_REPEATS, seconds)];
  out->exchange_bandwidth = (double)out->exchange_bytes / alone;
  out->exchange_hidden = fmax(0.0, 1.0 - (out->exchange_seconds + out->wait_seconds) / alone);

cleanup:
  return st;
}

unroll_status unroll_bench(unroll_comm *comm, uint64_t V, const unroll_config *config,
                           double seconds, unroll_bench_result *result)
{
  unroll_config whole = *config;
  whole.stride = 0; /* every token of a window has its loss */
  return bench_ranks(comm, (size_t)unroll_comm_size(comm), V, &whole, seconds, result);
}

unroll_status bench_ranks(unroll_comm *comm, size_t ranks, uint64_t V, const unroll_config *config,
                          double seconds, unroll_bench_result *result)
{
  unroll_status st = UNROLL_OK;
  bench b = {.comm = comm, .ranks = ranks, .config = *config, .V = (size_t)V};
  unroll_bench_result r = {.ranks = (uint64_t)unroll_comm_size(comm)};
  uint64_t most[2] = {(uint64_t)omp_get_max_threads(), 0};
  assert(V >= 1 && seconds > 0.0);

  UNROLL_TRY(comm_agree(comm, kernels_start()));
  UNROLL_TRY(set_up(&b));
  UNROLL_TRY(run_blocks(&b, seconds));
  UNROLL_TRY(reduce_blocks(&b, &r));
  UNROLL_TRY(measure_exchange(&b, &r));
  most[1] = memory_peak_rss();
  UNROLL_TRY(comm_max_u64(comm, most, 2));
  r.threads = most[0];
  r.peak_memory = most[1];
  r.shards = b.config.shards;
  r.peak_gflops = b.peaks[median_index(BLOCKS, b.peaks)];
  r.fraction_of_peak = r.gflops / r.peak_gflops;
  *result = r;

cleanup:
  tear_down(&b);
  return st;
}
