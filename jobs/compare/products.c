/*
 * Single matrix products of one library, for products.sh: C (M, N) = A (M, K) W^T, W (N, K), float.
 *
 *   products LIBRARY SECONDS
 *
 * LIBRARY is linear (unroll's kernel, weights packed once as in a training step), packed (the packing
 * counted each time), openblas, onednn, or recurrence: the steps of a window as unroll computes them, the
 * threads started once for all, the gathering of W_xh, tanh and the copy for the weight gradient included.
 * Prints a line `M N K GFLOP/s` for each shape: squares (not recurrence), and the product of a time step, B
 * sequences by H x H weights. The best of some blocks counts.
 *
 * One process measures one library, because the threads of one would spin while another works.
 */
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/dispatch.h"
#include "kernels/recurrence.h"

#include <cblas.h>
#include <math.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 5

/* Of `recurrence`: time steps of a window, and tokens to gather W_xh by. */
#define WINDOW 64
#define VOCAB  64

typedef struct product {
  size_t M, N, K;
  size_t lda, ldw, ldc;
  float *A, *W, *C, *panels;
  recurrence layer; /* of `recurrence`, else empty: M sequences, N = K hidden units */
} product;

static void run_packed(const product *p)
{
  weights_pack(p->N, p->K, p->W, p->ldw, 1, p->panels);
  linear(p->M, p->K, p->N, p->A, p->lda, p->panels, p->C, p->ldc);
}

static void run_linear(const product *p)
{
  linear(p->M, p->K, p->N, p->A, p->lda, p->panels, p->C, p->ldc);
}

static void run_openblas(const product *p)
{
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)p->M, (int)p->N, (int)p->K, 1, p->A,
              (int)p->lda, p->W, (int)p->ldw, 0, p->C, (int)p->ldc);
}

static void run_onednn(const product *p)
{
  (void)dnnl_sgemm('N', 'T', (dnnl_dim_t)p->M, (dnnl_dim_t)p->N, (dnnl_dim_t)p->K, 1, p->A,
                   (dnnl_dim_t)p->lda, p->W, (dnnl_dim_t)p->ldw, 0, p->C, (dnnl_dim_t)p->ldc);
}

static void run_recurrence(const product *p)
{
  recurrence_forward(&p->layer);
}

typedef struct library {
  const char *name;
  void (*run)(const product *p);
  size_t steps; /* products in one run */
} library;

static const library *find(const char *name)
{
  static const library all[] = {{"linear", run_linear, 1},
                                {"packed", run_packed, 1},
                                {"openblas", run_openblas, 1},
                                {"onednn", run_onednn, 1},
                                {"recurrence", run_recurrence, WINDOW}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    if (strcmp(all[i].name, name) == 0) { return &all[i]; }
  }
  return NULL;
}

static void *new_array(size_t n, size_t size)
{
  void *x = NULL;
  if (memory_new(n, size, "a matrix", &x) != UNROLL_OK) {
    (void)fprintf(stderr, "products: %s\n", unroll_message());
    exit(1);
  }
  return x;
}

static float *new_matrix(size_t n)
{
  float *x = new_array(n, sizeof *x);
  for (size_t i = 0; i < n; ++i) { x[i] = (float)((i * 2654435761u >> 7 & 1023)) / 512 - 1; }
  return x;
}

/* The layer whose last step multiplies p->A to p->C. */
static void layer_new(product *p)
{
  const size_t B = p->M, H = p->N, slot = B * p->lda;
  float *h = new_matrix((WINDOW + 1) * slot);
  int32_t *index = new_array(WINDOW * B, sizeof *index);
  for (size_t n = 0; n < WINDOW * B; ++n) { index[n] = (int32_t)(n * 7919 % VOCAB); }
  p->layer = (recurrence){.T = WINDOW,
                          .B = B,
                          .H = H,
                          .activation = UNROLL_ACTIVATION_TANH,
                          .ld = p->lda,
                          .h = h,
                          .forward = p->panels,
                          .input = new_matrix(VOCAB * p->lda),
                          .ld_input = p->lda,
                          .index = index,
                          .bias = new_matrix(kernels_pad(H)),
                          .state_panels = new_matrix(state_panels_size(WINDOW, B, H)),
                          .panel_T = WINDOW,
                          .shards = 2,
                          .panel_row = new_array(B, sizeof *p->layer.panel_row)};
  p->A = h + (WINDOW - 1) * slot;
  p->C = h + WINDOW * slot;
}

static void layer_free(recurrence *r)
{
  memory_free(&r->panel_row);
  memory_free(&r->state_panels);
  memory_free(&r->bias);
  memory_free(&r->index);
  memory_free(&r->input);
  memory_free(&r->h);
}

/* Is C what a plain sum says, at some places? A wrong product would be a fast one. */
static void check(const product *p)
{
  const recurrence *r = &p->layer;
  for (size_t n = 0; n < 100; ++n) {
    size_t i = n * 7919 % p->M, j = n * 104729 % p->N;
    double sum = 0, size = 0;
    for (size_t k = 0; k < p->K; ++k) {
      double term = (double)p->A[i * p->lda + k] * (double)p->W[j * p->ldw + k];
      sum += term;
      size += fabs(term);
    }
    if (r->T > 0) {
      size_t token = (size_t)r->index[(WINDOW - 1) * p->M + i];
      sum = tanh(sum + (double)r->input[token * r->ld_input + j] + (double)r->bias[j]);
    }
    if (!(fabs(sum - (double)p->C[i * p->ldc + j]) < 1e-5 * size)) {
      (void)fprintf(stderr, "products: element (%zu, %zu) of %zu x %zu is wrong\n", i, j, p->M,
                    p->N);
      exit(1);
    }
  }
}

/* Best GFLOP/s of some blocks that take `seconds` together. */
static double measure(const library *lib, size_t M, size_t N, size_t K, double seconds)
{
  product p = {
      .M = M, .N = N, .K = K, .lda = kernels_ld(K), .ldw = kernels_ld(K), .ldc = kernels_ld(N)};
  double work = 2e-9 * (double)M * (double)N * (double)K * (double)lib->steps;
  double best = 0, elapsed = 0;
  size_t times = 1;

  p.W = new_matrix(N * p.ldw);
  p.panels = new_matrix(weights_packed_size(N, K));
  if (lib->run == run_recurrence) {
    layer_new(&p);
  } else {
    p.A = new_matrix(M * p.lda);
    p.C = new_matrix(M * p.ldc);
  }
  weights_pack(N, K, p.W, p.ldw, 1, p.panels);
  for (; elapsed < seconds / BLOCKS; times *= 2) {
    double before = clock_seconds();
    for (size_t i = 0; i < times; ++i) { lib->run(&p); }
    elapsed = clock_seconds() - before;
  }
  times /= 2;
  for (int block = 0; block < BLOCKS; ++block) {
    double before = clock_seconds();
    for (size_t i = 0; i < times; ++i) { lib->run(&p); }
    best = fmax(best, (double)times * work / (clock_seconds() - before));
  }
  check(&p);
  if (lib->run == run_recurrence) {
    layer_free(&p.layer);
  } else {
    memory_free(&p.C);
    memory_free(&p.A);
  }
  memory_free(&p.panels);
  memory_free(&p.W);
  return best;
}

int main(int argc, char **argv)
{
  const library *lib = argc == 3 ? find(argv[1]) : NULL;
  double seconds = argc == 3 ? atof(argv[2]) : 0;
  if (lib == NULL || kernels_start() != UNROLL_OK) {
    (void)fprintf(stderr, "usage: products linear|packed|recurrence|openblas|onednn SECONDS\n");
    return 2;
  }
  for (size_t n = 256; n <= 2048 && lib->steps == 1; n *= 2) {
    (void)printf("%zu %zu %zu %.2f\n", n, n, n, measure(lib, n, n, n, seconds));
  }
  for (size_t H = 64; H <= 1024; H *= 2) {
    for (size_t B = 8; B <= 64; B *= 2) {
      (void)printf("%zu %zu %zu %.2f\n", B, H, H, measure(lib, B, H, H, seconds));
    }
  }
  return 0;
}
