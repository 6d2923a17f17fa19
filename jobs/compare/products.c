/*
 * Single matrix products of one library, for products.sh: C (M, N) = A (M, K) W^T, W (N, K), float.
 *
 *   products LIBRARY SECONDS
 *
 * LIBRARY is linear (unroll's kernel, weights packed once as in a training step), packed (the packing
 * counted each time), openblas or onednn. Prints a line `M N K GFLOP/s` for each shape: squares, and the
 * product of a time step, B sequences by H x H weights. The best of some blocks counts.
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

typedef struct product {
  size_t M, N, K;
  size_t lda, ldw, ldc;
  float *A, *W, *C, *panels;
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

typedef void run_product(const product *p);

static run_product *find(const char *library)
{
  static const struct {
    const char *name;
    run_product *run;
  } all[] = {{"linear", run_linear},
             {"packed", run_packed},
             {"openblas", run_openblas},
             {"onednn", run_onednn}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
    if (strcmp(all[i].name, library) == 0) { return all[i].run; }
  }
  return NULL;
}

static float *new_matrix(size_t n)
{
  float *x = NULL;
  if (memory_new(n, sizeof *x, "a matrix", &x) != UNROLL_OK) {
    (void)fprintf(stderr, "products: %s\n", unroll_message());
    exit(1);
  }
  for (size_t i = 0; i < n; ++i) { x[i] = (float)((i * 2654435761u >> 7 & 1023)) / 512 - 1; }
  return x;
}

/* Is C what a plain sum says, at some places? A wrong product would be a fast one. */
static void check(const product *p)
{
  for (size_t n = 0; n < 100; ++n) {
    size_t i = n * 7919 % p->M, j = n * 104729 % p->N;
    double sum = 0, size = 0;
    for (size_t k = 0; k < p->K; ++k) {
      double term = (double)p->A[i * p->lda + k] * (double)p->W[j * p->ldw + k];
      sum += term;
      size += fabs(term);
    }
    if (!(fabs(sum - (double)p->C[i * p->ldc + j]) < 1e-5 * size)) {
      (void)fprintf(stderr, "products: element (%zu, %zu) of %zu x %zu is wrong\n", i, j, p->M,
                    p->N);
      exit(1);
    }
  }
}

/* Best GFLOP/s of some blocks that take `seconds` together. */
static double measure(run_product *run, size_t M, size_t N, size_t K, double seconds)
{
  product p = {
      .M = M, .N = N, .K = K, .lda = kernels_ld(K), .ldw = kernels_ld(K), .ldc = kernels_ld(N)};
  double work = 2e-9 * (double)M * (double)N * (double)K, best = 0, elapsed = 0;
  size_t times = 1;

  p.A = new_matrix(M * p.lda);
  p.W = new_matrix(N * p.ldw);
  p.C = new_matrix(M * p.ldc);
  p.panels = new_matrix(weights_packed_size(N, K));
  weights_pack(N, K, p.W, p.ldw, 1, p.panels);
  for (; elapsed < seconds / BLOCKS; times *= 2) {
    double before = clock_seconds();
    for (size_t i = 0; i < times; ++i) { run(&p); }
    elapsed = clock_seconds() - before;
  }
  times /= 2;
  for (int block = 0; block < BLOCKS; ++block) {
    double before = clock_seconds();
    for (size_t i = 0; i < times; ++i) { run(&p); }
    best = fmax(best, (double)times * work / (clock_seconds() - before));
  }
  check(&p);
  memory_free(&p.panels);
  memory_free(&p.C);
  memory_free(&p.W);
  memory_free(&p.A);
  return best;
}

int main(int argc, char **argv)
{
  run_product *run = argc == 3 ? find(argv[1]) : NULL;
  double seconds = argc == 3 ? atof(argv[2]) : 0;
  if (run == NULL || kernels_start() != UNROLL_OK) {
    (void)fprintf(stderr, "usage: products linear|packed|openblas|onednn SECONDS\n");
    return 2;
  }
  for (size_t n = 256; n <= 2048; n *= 2) {
    (void)printf("%zu %zu %zu %.2f\n", n, n, n, measure(run, n, n, n, seconds));
  }
  for (size_t H = 64; H <= 1024; H *= 2) {
    for (size_t B = 8; B <= 64; B *= 2) {
      (void)printf("%zu %zu %zu %.2f\n", B, H, H, measure(run, B, H, H, seconds));
    }
  }
  return 0;
}
