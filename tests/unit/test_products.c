#include "kernel_support.h"

#include "kernels/recurrence.h"

/* ------------------------------------------------------ activations x weights */

/* W as the product wants it: (N, K) for C = A W^T, (K, N) for C = A W. */
typedef struct weights {
  size_t N, K;
  int transposed;
  matrix W, packed;
} weights;

static weights weights_new(size_t N, size_t K, int transposed)
{
  weights w = {.N = N, .K = K, .transposed = transposed};
  w.W = transposed ? matrix_new(N, K) : matrix_new(K, N);
  w.packed = flat_new(weights_packed_size(N, K));
  matrix_fill(&w.W);
  weights_pack(w.W.rows, w.W.cols, w.W.x, w.W.ld, transposed, w.packed.x);
  CHECK_AT(matrix_is_clean(&w.packed), "packed N %zu K %zu", N, K);
  return w;
}

static void weights_free(weights *w)
{
  matrix_free(&w->W);
  matrix_free(&w->packed);
}

/* Element (m, n) of A W^T or A W. */
static dot product_at(const weights *w, const matrix *A, size_t m, size_t n)
{
  dot d = dot_start(0);
  for (size_t k = 0; k < w->K; ++k) {
    dot_add(&d, *at(A, m, k), w->transposed ? *at(&w->W, n, k) : *at(&w->W, k, n));
  }
  return d;
}

static int product_is(const weights *w, const matrix *A, const matrix *C)
{
  for (size_t m = 0; m < C->rows; ++m) {
    for (size_t n = 0; n < C->cols; ++n) {
      dot d = product_at(w, A, m, n);
      if (!dot_is(&d, *at(C, m, n))) { return 0; }
    }
  }
  return matrix_is_clean(C);
}

static size_t panels_of(size_t N)
{
  return (kernels_pad(N) + kernels()->nr - 1) / kernels()->nr;
}

static rows_product store_product(const weights *w, const matrix *A, const matrix *C)
{
  return (rows_product){.M = A->rows,
                        .K = w->K,
                        .block_K = 1 + next_below(w->K), /* wherever K is cut */
                        .N = w->N,
                        .A = A->x,
                        .lda = A->ld,
                        .panels = w->packed.x,
                        .first = 0,
                        .last = panels_of(w->N),
                        .C = C->x,
                        .ldc = C->ld};
}

static const size_t edge_rows[] = {1, 5, 6, 7, 13, 14, 15, 16, 29, 33};

/* Around one vector, one panel and several, of every path. */
static const size_t edge_columns[] = {1, 7, 15, 16, 17, 31, 32, 33, 97};

static void test_rows_store_every_edge_is_the_chain(void)
{
  const size_t depths[] = {1, 2, 7, 33, 129};
  for (size_t i = 0; i < COUNT(edge_rows); ++i) {
    for (size_t j = 0; j < COUNT(edge_columns); ++j) {
      for (size_t k = 0; k < COUNT(depths); ++k) {
        weights w = weights_new(edge_columns[j], depths[k], (int)(i + j + k) % 2);
        matrix A = matrix_new(edge_rows[i], w.K), C = matrix_new(edge_rows[i], w.N);
        matrix_fill(&A);
        rows_product p = store_product(&w, &A, &C);
        kernels()->rows(&p);
        CHECK_AT(product_is(&w, &A, &C), "M %zu N %zu K %zu transposed %d", A.rows, w.N, w.K,
                 w.transposed);
        matrix_free(&A);
        matrix_free(&C);
        weights_free(&w);
      }
    }
  }
}

static void test_rows_of_a_panel_range_writes_only_these(void)
{
  const size_t M = 17, K = 9, N = 3 * kernels()->nr + 5;
  weights w = weights_new(N, K, 1);
  matrix A = matrix_new(M, K), C = matrix_new(M, N);
  matrix_fill(&A);
  rows_product p = store_product(&w, &A, &C);
  p.first = 1;
  p.last = 3;
  kernels()->rows(&p);
  for (size_t m = 0; m < M; ++m) {
    for (size_t n = 0; n < C.width; ++n) {
      dot d = n < N ? product_at(&w, &A, m, n) : dot_start(0);
      size_t panel = n / kernels()->nr;
      CHECK_AT(panel == 1 || panel == 2 ? dot_is(&d, *at(&C, m, n))
                                        : same_bits(*at(&C, m, n), poison()),
               "m %zu n %zu", m, n);
    }
  }
  matrix_free(&A);
  matrix_free(&C);
  weights_free(&w);
}

static void test_rows_with_nan_in_one_row_shows_it_there_alone(void)
{
  const size_t M = 15, K = 33, N = 49;
  weights w = weights_new(N, K, 0);
  matrix A = matrix_new(M, K), C = matrix_new(M, N);
  matrix_fill(&A);
  *at(&A, 3, K - 1) = NAN;
  rows_product p = store_product(&w, &A, &C);
  kernels()->rows(&p);
  for (size_t m = 0; m < M; ++m) {
    for (size_t n = 0; n < N; ++n) { CU_ASSERT(!!isnan(*at(&C, m, n)) == (m == 3)); }
  }
  matrix_free(&A);
  matrix_free(&C);
  weights_free(&w);
}

static void test_linear_is_the_chain_for_any_threads(void)
{
  /* Without a region and with one; threads side by side over columns, over rows, over both; blocks of rows. */
  const size_t rows[] = {1, 14, 64, 111, 112, 113, 225}, columns[] = {41, 128};
  for (size_t i = 0; i < COUNT(rows) * COUNT(columns); ++i) {
    weights w = weights_new(columns[i % COUNT(columns)], 41, (int)i % 3 == 0);
    matrix A = matrix_new(rows[i / COUNT(columns)], w.K), C = matrix_new(A.rows, w.N);
    matrix_fill(&A);
    for (int threads = 1; threads <= 5; ++threads) {
      omp_set_num_threads(threads);
      matrix_zero(&C);
      linear(A.rows, w.K, w.N, A.x, A.ld, w.packed.x, C.x, C.ld);
      CHECK_AT(product_is(&w, &A, &C), "M %zu N %zu threads %d", A.rows, w.N, threads);
    }
    matrix_free(&A);
    matrix_free(&C);
    weights_free(&w);
  }
}

static void test_pack_with_any_threads_is_the_same(void)
{
  const size_t N = 129, K = 97;
  matrix W = matrix_new(N, K), one = flat_new(weights_packed_size(N, K)),
         many = flat_new(weights_packed_size(N, K));
  matrix_fill(&W);
  omp_set_num_threads(1);
  weights_pack(N, K, W.x, W.ld, 1, one.x);
  for (size_t t = 1; t < COUNT(thread_counts); ++t) {
    omp_set_num_threads(thread_counts[t]);
    weights_pack(N, K, W.x, W.ld, 1, many.x);
    CU_ASSERT(matrix_equal(&one, &many));
  }
  matrix_free(&W);
  matrix_free(&one);
  matrix_free(&many);
}

/* ----------------------------------------------------- weights x token panels */

/* W (M, K) as it lies or as the transposed of a (K, M) matrix. */
static void check_panels(size_t M, size_t K, size_t count, size_t last, int transposed, int biased)
{
  const kernel_table *k = kernels();
  size_t nr = k->nr, gap = 3;
  matrix W = transposed ? matrix_new(K, M) : matrix_new(M, K);
  matrix bias = matrix_shaped(1, M, kernels_pad(M), kernels_pad(M));
  matrix B = matrix_shaped(count, K * nr, K * nr, (K + gap) * nr);
  matrix C = matrix_shaped(count, M * nr, M * nr, (M + gap) * nr);
  int ok = 1;
  matrix_fill(&W);
  matrix_fill(&bias);
  matrix_fill(&B);
  const panels_product p = {.M = M,
                            .K = K,
                            .block_K = 1 + next_below(K),
                            .W = W.x,
                            .row_stride = transposed ? 1 : W.ld,
                            .col_stride = transposed ? W.ld : 1,
                            .n_panels = count,
                            .B = B.x,
                            .panel_B = B.ld,
                            .C = C.x,
                            .panel_C = C.ld,
                            .bias = biased ? bias.x : NULL,
                            .last_tokens = last};
  k->panels(&p);
  for (size_t q = 0; q < count; ++q) {
    size_t lanes = q + 1 < count ? nr : (last + k->lanes - 1) / k->lanes * k->lanes;
    for (size_t m = 0; m < M; ++m) {
      for (size_t n = 0; n < nr; ++n) {
        dot d = dot_start(biased ? *at(&bias, 0, m) : 0);
        for (size_t i = 0; i < K && n < lanes; ++i) {
          dot_add(&d, transposed ? *at(&W, i, m) : *at(&W, m, i), *at(&B, q, i * nr + n));
        }
        unroll_real c = *at(&C, q, m * nr + n);
        ok &= n < lanes ? dot_is(&d, c) : same_bits(c, poison());
      }
    }
  }
  CHECK_AT(ok && matrix_is_clean(&C), "M %zu K %zu panels %zu last %zu transposed %d bias %d", M, K,
           count, last, transposed, biased);
  matrix_free(&W);
  matrix_free(&bias);
  matrix_free(&B);
  matrix_free(&C);
}

static void test_panels_every_edge_is_the_chain(void)
{
  const size_t depths[] = {1, 7, 33, 255, 256, 257, 1025};
  const size_t lanes = kernels()->lanes;
  const size_t last[] = {1, lanes - 1, lanes, lanes + 1, 2 * lanes};
  size_t turn = 0;
  for (size_t i = 0; i < COUNT(edge_rows); ++i) {
    for (size_t k = 0; k < COUNT(depths); ++k, ++turn) {
      check_panels(edge_rows[i], depths[k], 1 + turn % 4, last[turn % COUNT(last)], (int)turn % 2,
                   (int)turn / 2 % 2);
    }
  }
  for (size_t i = 0; i < COUNT(last); ++i) {
    for (int how = 0; how < 4; ++how) { check_panels(17, 9, 2, last[i], how & 1, how >> 1); }
  }
  /* A wide matrix with a long K: its chains are continued from block to block. */
  for (int how = 0; how < 4; ++how) { check_panels(603, 1060, 2, lanes + 1, how & 1, how >> 1); }
}

/* --------------------------------------------------------------- transposition */

static void check_gather(size_t n, size_t count, size_t ld)
{
  matrix rows = matrix_new(count, n), back = matrix_new(count, n);
  matrix panel = matrix_shaped(kernels_pad(n), ld, ld, ld);
  const unroll_real **from = test_alloc(count, sizeof *from);
  unroll_real **to = test_alloc(count, sizeof *to);
  int ok = 1;
  matrix_fill(&rows);
  for (size_t i = 0; i < count; ++i) { /* in any order in memory */
    size_t row = (i * 7 + 3) % count;
    from[i] = at(&rows, count % 7 == 0 ? i : row, 0);
    to[i] = at(&back, count % 7 == 0 ? i : row, 0);
  }
  kernels()->gather_panel(n, count, from, panel.x, ld);
  for (size_t j = 0; j < kernels_pad(n); ++j) {
    for (size_t i = 0; i < ld; ++i) {
      ok &= same_bits(*at(&panel, j, i), i < count && j < n ? from[i][j] : 0);
    }
  }
  CHECK_AT(ok && matrix_is_clean(&panel), "gather n %zu count %zu ld %zu", n, count, ld);

  for (size_t j = 0; j < panel.rows; ++j) { /* scatter must not look at what has no row */
    for (size_t i = count; i < ld; ++i) { *at(&panel, j, i) = NAN; }
  }
  kernels()->scatter_panel(n, count, panel.x, ld, to);
  CHECK_AT(matrix_equal(&rows, &back), "scatter n %zu count %zu ld %zu", n, count, ld);
  free(from);
  free(to);
  matrix_free(&rows);
  matrix_free(&back);
  matrix_free(&panel);
}

static void test_gather_and_scatter_are_transposition_and_inverse(void)
{
  const size_t lengths[] = {1, 7, 15, 16, 17, 33, 129};
  for (size_t j = 0; j < COUNT(lengths); ++j) {
    for (size_t count = 1; count <= kernels()->nr; ++count) {
      check_gather(lengths[j], count, kernels()->nr);
      if (count <= kernels()->lanes) { check_gather(lengths[j], count, kernels()->lanes); }
    }
  }
}

/* ----------------------------------------------------------------------- paths */

/* The yardstick of the products: it counts what it does, and does not run away. */
static void test_peak_counts_its_rounds(void)
{
  matrix out = flat_new(KERNELS_PAD);
  double once = kernels()->peak(10, out.x);
  CU_ASSERT(once > 0);
  CU_ASSERT(kernels()->peak(1000, out.x) == 100 * once);
  CU_ASSERT(matrix_is_clean(&out));
  for (size_t i = 0; i < kernels()->lanes; ++i) { CU_ASSERT(isfinite(out.x[i])); }
  matrix_free(&out);
}

static uint64_t products_fingerprint(void)
{
  const size_t M = 31, K = 300, N = 77;
  weights w = weights_new(N, K, 1);
  matrix A = matrix_new(M, K), C = matrix_new(M, N);
  matrix_fill(&A);
  linear(M, K, N, A.x, A.ld, w.packed.x, C.x, C.ld);
  uint64_t hash = matrix_fingerprint(FINGERPRINT_START, &C);
  matrix_free(&A);
  matrix_free(&C);
  weights_free(&w);
  return hash;
}

static void test_products_of_avx2_and_avx512_are_equal(void)
{
  CU_ASSERT(paths_agree(products_fingerprint));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"rows: every edge", test_rows_store_every_edge_is_the_chain},
      {"rows: a range of panels", test_rows_of_a_panel_range_writes_only_these},
      {"rows: NaN stays in its row", test_rows_with_nan_in_one_row_shows_it_there_alone},
      {"linear: any threads", test_linear_is_the_chain_for_any_threads},
      {"pack: any threads", test_pack_with_any_threads_is_the_same},
      {"panels: every edge", test_panels_every_edge_is_the_chain},
      {"gather and scatter", test_gather_and_scatter_are_transposition_and_inverse},
      {"peak", test_peak_counts_its_rounds},
      {"avx2 equals avx512", test_products_of_avx2_and_avx512_are_equal},
  };
  return run_kernel_cases("products", COUNT(cases), cases);
}
