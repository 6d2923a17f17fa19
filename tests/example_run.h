#ifndef TESTS_EXAMPLE_RUN_H
#define TESTS_EXAMPLE_RUN_H

/*
 * A run with every part filled in, for the tests of the run file. Values are
 * functions of their index, all different, so that a swap is seen; strings
 * hold UTF-8, counts need 64 bits, some numbers are not finite.
 */
#include "base/memory.h"
#include "model/gradflow.h"
#include "runfile/runfile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct example {
  unroll_level level; /* byte: V is 256 */
  size_t V, H, L, B;
  unroll_optimizer optimizer;
  size_t rows; /* of metrics */
} example;

/* Distinct, exact in float and double. */
static unroll_real example_value(size_t salt, size_t i)
{
  return (unroll_real)((double)salt + (double)(i % 4096) / 4096.0 - (double)(i / 4096));
}

static void example_fill(const unroll_params *p, size_t salt, unroll_real *values)
{
  for (size_t k = 0; k < p->n_tensors; ++k) {
    const unroll_tensor *t = &p->tensors[k];
    for (size_t row = 0; row < t->rows; ++row) {
      for (size_t col = 0; col < t->cols; ++col) {
        values[unroll_tensor_index(t, row, col)] =
            example_value(salt + 10 * k, row * t->cols + col);
      }
    }
  }
}

static unroll_vocab *example_vocab(const example *e)
{
  static const char *const first[] = {"<unk>",           "e", "t", "\xc3\xa4", "\xe2\x82\xac",
                                      "\xf0\x9f\x90\xa7"};
  unroll_vocab *vocab = NULL;
  char **names = calloc(e->V, sizeof *names);
  uint64_t *counts = calloc(e->V, sizeof *counts);

  for (size_t v = 0; v < e->V; ++v) {
    names[v] = calloc(1, 32);
    if (v < sizeof first / sizeof first[0]) {
      (void)snprintf(names[v], 32, "%s", first[v]);
    } else if (e->level == UNROLL_LEVEL_WORD) {
      (void)snprintf(names[v], 32, "word%zu", v);
    } else { /* from U+4E00 on: three bytes each */
      (void)snprintf(names[v], 32, "%c%c%c", (char)0xe4, (char)(0xb8 + v / 64),
                     (char)(0x80 + v % 64));
    }
    counts[v] = UINT64_C(5000000000) - v;
  }
  unroll_status st = unroll_vocab_new(
      (unroll_text_rules){e->level, false, false}, e->V,
      e->level == UNROLL_LEVEL_BYTE ? NULL : (const char *const *)names, counts, &vocab);
  if (st != UNROLL_OK) {
    fprintf(stderr, "example vocabulary: %s\n", unroll_message());
    abort();
  }
  for (size_t v = 0; v < e->V; ++v) { free(names[v]); }
  free(names);
  free(counts);
  return vocab;
}

static void example_string(const char *text, char **out)
{
  if (memory_string(text, out) != UNROLL_OK) { abort(); }
}

static void example_provenance(run_provenance *p)
{
  example_string("unroll train b\xc3\xbc"
                 "cher \"a b\" -o run.h5",
                 &p->command_line);
  example_string("2026-01-31T12:34:56Z", &p->started);
  example_string("2026-01-31T13:34:56Z", &p->written);
  example_string("node1,node2", &p->hosts);
  example_string("An Example CPU", &p->cpu);
  example_string("avx2", &p->code_path);
  example_string("", &p->slurm_job);
  example_string("base.h5", &p->init_file);
  example_string("60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                 &p->init_sha256);
  p->n_changed = 2;
  if (memory_new(2, sizeof *p->changed, "test", &p->changed) != UNROLL_OK) { abort(); }
  example_string("step 3: epochs 3 -> 5", &p->changed[0]);
  example_string("step 70: lr 0.002 -> 0.001", &p->changed[1]);
  p->ranks = 4;
  p->threads = 2;
  p->train_tokens = UINT64_C(6000000000);
  p->valid_tokens = 70000;
  p->train_characters = UINT64_C(6100000000);
  p->valid_characters = 70001;
  p->unknown_tokens = 3;
  p->valid_unknown_tokens = 2;

  p->n_files = 2;
  if (memory_new(2, sizeof *p->file_name, "test", &p->file_name) != UNROLL_OK ||
      memory_new(2, sizeof *p->file_sha256, "test", &p->file_sha256) != UNROLL_OK ||
      memory_new(2, sizeof *p->file_bytes, "test", &p->file_bytes) != UNROLL_OK) {
    abort();
  }
  example_string("b\xc3\xbc"
                 "cher/eins.txt",
                 &p->file_name[0]);
  example_string("zwei.txt", &p->file_name[1]);
  example_string("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                 &p->file_sha256[0]);
  example_string("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                 &p->file_sha256[1]);
  p->file_bytes[0] = UINT64_C(6100000000);
  p->file_bytes[1] = 70001;
}

static void example_state(const example *e, run_state *s)
{
  uint64_t *counts[] = {&s->step,
                        &s->epoch,
                        &s->window,
                        &s->position,
                        &s->interval_tokens,
                        &s->tokens,
                        &s->skipped,
                        &s->skipped_in_row,
                        &s->updates,
                        &s->best_step,
                        &s->validations_since_best,
                        &s->plateau_wait,
                        &s->interval_steps};
  double *reals[] = {&s->seconds, &s->lr_factor, &s->interval_loss, &s->interval_norm,
                     &s->interval_scale};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) { *counts[i] = UINT64_MAX - i; }
  for (size_t i = 0; i < sizeof reals / sizeof reals[0]; ++i) { *reals[i] = 1.0 / (double)(3 + i); }
  s->step = 10 * e->rows;
  s->best_loss = INFINITY;
  s->finished = 1;
  s->n_hidden = e->L * e->B * e->H;
  if (memory_new(s->n_hidden, sizeof *s->hidden, "test", &s->hidden) != UNROLL_OK) { abort(); }
  for (size_t i = 0; i < s->n_hidden; ++i) { s->hidden[i] = example_value(7, i); }
}

/* Lags so few and H so small that no two dimensions are alike. */
static void example_flow(run *r, uint64_t step)
{
  unroll_gradflow *f = NULL;
  const size_t L = r->params->shape.L, H = r->params->shape.H, K = H + 2;
  if (gradflow_new(&r->params->shape, 64, K, &f) != UNROLL_OK) { abort(); }
  double *const curves[] = {f->norm_mean, f->norm_q10, f->norm_q50, f->norm_q90, f->norm_log10};
  double *const spectra[] = {f->eigenvalue_re, f->eigenvalue_im, f->singular_value};
  double *const numbers[] = {f->spectral_radius, f->spectral_norm, f->lyapunov, f->derivative,
                             f->growth};
  double x = (double)step;
  for (size_t i = 0; i < 5 * L * (K + 1); ++i) {
    curves[i / (L * (K + 1))][i % (L * (K + 1))] = x += 1.0 / 3.0;
  }
  for (size_t i = 0; i < 3 * L * H; ++i) { spectra[i / (L * H)][i % (L * H)] = x += 1.0 / 3.0; }
  for (size_t i = 0; i < 5 * L; ++i) { numbers[i / L][i % L] = x += 1.0 / 3.0; }
  for (size_t l = 0; l < L; ++l) {
    f->half_lag[l] = (int64_t)(l + step);
    f->percent_lag[l] = -1;
    f->verdict[l] = (unroll_flow)((l + step / 10) % 3);
  }
  f->norm_log10[K] = -INFINITY;
  f->context = 7;
  f->step = step;
  if (run_add_flow(r, f) != UNROLL_OK) { abort(); }
  unroll_gradflow_free(&f);
}

static void example_rows(const example *e, run *r)
{
  for (size_t i = 0; i < e->rows; ++i) {
    double x = 1.0 / (double)(i + 3);
    run_train_row train = {
        .step = 10 * (i + 1), .loss = 2 + x, .perplexity = exp(2 + x), .grad_norm = 3 + x};
    run_valid_row valid = {10 * (i + 1), 4 + x, exp(4 + x), 5 + x};
    train.clip_scale = x;
    train.learning_rate = 0.1 * x;
    train.tokens = UINT64_C(5000000000) * (i + 1);
    train.seconds = 10 * x;
    train.tokens_per_second = 11 * x;
    train.compute_seconds = 12 * x;
    train.compute_seconds_max = 13 * x;
    train.exchange_seconds = 14 * x;
    train.exchange_seconds_max = 15 * x;
    train.wait_seconds = 16 * x;
    train.wait_seconds_max = 17 * x;
    train.skipped = i;
    if (i == 1) { train.loss = NAN; }
    if (i == 1) { train.perplexity = INFINITY; }
    if (run_add_train(r, &train) != UNROLL_OK) { abort(); }
    if (i % 2 == 1 && run_add_valid(r, &valid) != UNROLL_OK) { abort(); }
    if (i % 3 == 0) { example_flow(r, 10 * (i + 1)); }
  }
}

/* To be freed with run_free. */
static run *example_run(example e)
{
  run *r = NULL;
  if (e.level == UNROLL_LEVEL_BYTE) { e.V = 256; }
  if (run_new(&r) != UNROLL_OK ||
      unroll_params_new(&(unroll_shape){.V = e.V, .H = e.H, .L = e.L}, &r->params) != UNROLL_OK) {
    abort();
  }

  unroll_config_init(&r->config);
  r->config.level = e.level;
  r->config.hidden = e.H;
  r->config.layers = e.L;
  r->config.batch = e.B;
  r->config.epochs = 10;
  r->config.optimizer = e.optimizer;
  r->config.seed = UINT64_MAX;
  r->config.lr = 1.0 / 3.0;
  r->config.resume = true;
  r->config.checkpoint_every = (unroll_every){90, UNROLL_EVERY_SECONDS};
  (void)snprintf(r->config.valid, sizeof r->config.valid,
                 "pr\xc3\xbc"
                 "fung.txt");

  r->vocab = example_vocab(&e);
  example_fill(r->params, 1, r->params->values);
  r->n_moments = run_moments(&r->config);
  for (size_t k = 0; k < r->n_moments; ++k) {
    if (memory_new(r->params->n, sizeof(unroll_real), "test", &r->moments[k]) != UNROLL_OK) {
      abort();
    }
    example_fill(r->params, 200 + 100 * k, r->moments[k]);
  }
  example_state(&e, &r->state);
  example_provenance(&r->provenance);
  example_rows(&e, r);
  return r;
}

#endif
