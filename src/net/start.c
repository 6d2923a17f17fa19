/* Initial parameters: functions of the seed and of an element's place in the file's shape alone. */
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "net/params.h"

#include <math.h>
#include <string.h>

/*
 * Number of the random stream of a tensor, which does not depend on the memory layout. Eight per layer, of which 4 and
 * 5 of layer 0 are those of the output layer: part of the contract, as they fix the initial values. New tensors outside
 * the layers count down from 2^64 - 1.
 */
#define STREAMS_OF_LAYER 8
#define STREAM_OUTPUT    4 /* W_qh, then b_q */
#define STREAM_W_XE      UINT64_MAX

/* Bound of the embeddings, whatever their sizes: https://github.com/pytorch/examples/tree/main/word_language_model,
 * and Merity, Keskar and Socher 2018. */
#define BOUND_W_XE 0.1

static uint64_t stream_of(size_t l, params_name which)
{
  static const uint64_t streams[] = {
      [PARAMS_W_HH] = 0, [PARAMS_W_XH] = 1, [PARAMS_B_H] = 2, [PARAMS_B_HN] = 3};
  _Static_assert(sizeof streams / sizeof streams[0] <= STREAM_OUTPUT, "below the output's");
  return (uint64_t)l * STREAMS_OF_LAYER + streams[which];
}

/* Elements [begin, end) of the flat array, as far as they belong to the tensor. */
static void start_uniform(unroll_params *p, const unroll_tensor *t, double bound, uint64_t seed,
                          uint64_t stream, size_t begin, size_t end)
{
  const bool consecutive_rows =
      t->transposed ||
      t->col_dim == NULL; /* the elements of a row in memory are consecutive rows of the file */
  const size_t memory_rows = params_memory_rows(t), H = t->rows / t->blocks;

#pragma omp parallel for default(none) schedule(static)                                            \
    shared(p, t, seed, stream, begin, end, bound, consecutive_rows, memory_rows, H)
  for (size_t memory_row = 0; memory_row < memory_rows; ++memory_row) {
    const size_t blocks = consecutive_rows ? t->blocks : 1, run = consecutive_rows ? H : t->cols;
    for (size_t block = 0; block < blocks; ++block) {
      const size_t at = t->offset + memory_row * t->ld + block * t->block;
      const size_t first = begin > at ? begin - at : 0, last = end > at ? end - at : 0;
      const size_t in = consecutive_rows ? 0 : memory_row % t->block,
                   of = consecutive_rows ? block : memory_row / t->block;
      const size_t row = (of + t->blocks - t->turn) % t->blocks * H + in; /* in the file */
      if (in >= H) { break; }                                             /* padding */
      for (size_t k = first; k < run && k < last; ++k) {
        uint64_t number = consecutive_rows ? (row + k) * t->cols + memory_row : row * t->cols + k;
        double u = random_uniform(seed, RANDOM_INIT, stream, number);
        p->values[at + k] = (unroll_real)(bound * (2.0 * u - 1.0));
      }
    }
  }
}

/* 1 / sqrt(H), of all that is no embedding. */
static double bound_of(const unroll_params *p)
{
  return 1.0 / sqrt((double)p->shape.H);
}

/* Standard normal number by Box and Muller (1958). */
static double normal(uint64_t seed, uint64_t stream, uint64_t j)
{
  double u = 1.0 - random_uniform(seed, RANDOM_INIT, stream, 2 * j); /* in (0, 1] */
  double v = random_uniform(seed, RANDOM_INIT, stream, 2 * j + 1);
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/*
 * Q of the QR decomposition of a Gaussian matrix by modified Gram-Schmidt on the rows, R with a
 * positive diagonal: Haar distributed (Mezzadri 2007). In double, so that Q is orthogonal to the
 * rounding of float. Our own instead of LAPACK's: its bits would depend on the library and the CPU.
 */
static unroll_status start_orthogonal(unroll_params *p, const unroll_tensor *t, size_t block,
                                      double scale, uint64_t seed, uint64_t stream)
{
  unroll_status st = UNROLL_OK;
  const size_t n = p->shape.H, row0 = block * n;
  double *q = NULL;
  UNROLL_TRY(memory_new(n * n, sizeof *q, "orthogonal start", &q));

  for (size_t i = 0; i < n; ++i) {
    double *row = q + i * n;
    for (size_t j = 0; j < n; ++j) { row[j] = normal(seed, stream, (row0 + i) * n + j); }
  }
  for (size_t i = 0; i < n; ++i) {
    double *row = q + i * n;
    double norm = 0.0;
    for (size_t j = 0; j < n; ++j) { norm += row[j] * row[j]; }
    norm = sqrt(norm);
    for (size_t j = 0; j < n; ++j) { row[j] /= norm; }
#pragma omp parallel for default(none) shared(q, row, n, i) schedule(static)
    for (size_t k = i + 1; k < n; ++k) {
      double dot = 0.0;
      for (size_t j = 0; j < n; ++j) { dot += row[j] * q[k * n + j]; }
      for (size_t j = 0; j < n; ++j) { q[k * n + j] -= dot * row[j]; }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      p->values[unroll_tensor_index(t, row0 + i, j)] = (unroll_real)(scale * q[i * n + j]);
    }
  }

cleanup:
  memory_free(&q);
  return st;
}

/* W_hh = scale * I and b_h = 0 (Le, Jaitly and Hinton 2015): zeros are there already. */
static void start_identity(unroll_params *p, const unroll_tensor *W_hh, double scale, size_t begin,
                           size_t end)
{
  for (size_t i = 0; i < p->shape.H; ++i) {
    size_t at = unroll_tensor_index(W_hh, i, i);
    if (at >= begin && at < end) { p->values[at] = (unroll_real)scale; }
  }
}

/* The forget block of b_h of an lstm (Gers, Schmidhuber and Cummins 2000; Jozefowicz et al. 2015 on its value). */
static void start_forget(unroll_params *p, const unroll_tensor *b_h, double bias, size_t begin,
                         size_t end)
{
  const size_t H = p->shape.H;
  for (size_t j = 0; j < H; ++j) {
    size_t at = unroll_tensor_index(b_h, H + j, 0);
    if (at >= begin && at < end) { p->values[at] = (unroll_real)bias; }
  }
}

static unroll_status start_layer(unroll_params *p, size_t l, const unroll_start *start,
                                 size_t begin, size_t end)
{
  unroll_status st = UNROLL_OK;
  const unroll_tensor *W_hh = params_tensor(p, l, PARAMS_W_HH);
  const uint64_t seed = start->seed;
  const unroll_init init = start->init;
  const double bound = bound_of(p);

  for (params_name which = PARAMS_W_HH; which <= PARAMS_W_XH; ++which) {
    const unroll_tensor *t = params_tensor(p, l, which);
    bool set_elsewhere = (which == PARAMS_W_HH && init != UNROLL_INIT_UNIFORM) ||
                         (which == PARAMS_B_H && init == UNROLL_INIT_IDENTITY);
    if (set_elsewhere || t == NULL) { continue; }
    start_uniform(p, t, bound, seed, stream_of(l, which), begin, end);
  }
  if (p->shape.cell == UNROLL_CELL_LSTM) {
    start_forget(p, params_tensor(p, l, PARAMS_B_H), start->forget_bias, begin, end);
  }
  if (W_hh == NULL) { goto cleanup; }
  if (init == UNROLL_INIT_ORTHOGONAL && W_hh->offset >= begin && W_hh->offset < end) {
    for (size_t block = 0; block < W_hh->blocks; ++block) {
      UNROLL_TRY(start_orthogonal(p, W_hh, block, start->scale, seed, stream_of(l, PARAMS_W_HH)));
    }
  } else if (init == UNROLL_INIT_IDENTITY) {
    start_identity(p, W_hh, start->scale, begin, end);
  }

cleanup:
  return st;
}

unroll_status params_start_range(unroll_params *params, const unroll_start *start, size_t begin,
                                 size_t end)
{
  unroll_status st = UNROLL_OK;

  for (int which = 0; which < PARAMS_OUTPUTS; ++which) {
    const double bound = which == PARAMS_W_QH && params->shape.tied ? BOUND_W_XE : bound_of(params);
    start_uniform(params, params_output(params, which), bound, start->seed,
                  STREAM_OUTPUT + (uint64_t)which, begin, end);
  }
  if (params_has_W_xe(&params->shape)) {
    start_uniform(params, params_input_table(params), BOUND_W_XE, start->seed, STREAM_W_XE, begin,
                  end);
  }
  for (size_t l = 0; l < params->shape.L; ++l) {
    UNROLL_TRY(start_layer(params, l, start, begin, end));
  }

cleanup:
  return st;
}

unroll_status unroll_params_start(unroll_params *params, const unroll_start *start)
{
  memset(params->values, 0, params->n * sizeof *params->values);
  return params_start_range(params, start, 0, params->n);
}
