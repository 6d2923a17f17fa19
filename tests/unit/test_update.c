#include "kernel_support.h"

#include "kernels/update.h"
#include "runfile/runfile.h"
#include "train/optimizer.h"

/* Around the blocks of a norm; every length is a multiple of KERNELS_PAD. */
static const size_t lengths[] = {16,
                                 48,
                                 KERNELS_NORM_BLOCK - 16,
                                 KERNELS_NORM_BLOCK,
                                 KERNELS_NORM_BLOCK + 16,
                                 5 * KERNELS_NORM_BLOCK + 48};

/* The norm, its blocks divided over `ranks`, one after the other. */
static double norm_by_ranks(const matrix *g, const sparse_rows *rows, size_t ranks)
{
  size_t count = update_norm_blocks(g->cols);
  double *blocks = test_alloc(count + 1, sizeof *blocks);
  for (size_t i = 0; i < count; ++i) { blocks[i] = NAN; }
  blocks[count] = -77;
  for (size_t r = 0; r < ranks; ++r) {
    update_sum_squares(g->cols, g->x, rows, count * r / ranks, count * (r + 1) / ranks, blocks);
  }
  CU_ASSERT(blocks[count] == -77);
  double norm = update_norm(count, blocks);
  free(blocks);
  return norm;
}

static double norm_of(const matrix *g)
{
  return norm_by_ranks(g, NULL, 1);
}

/* ---------------------------------------------------------------------- norm */

/* The contract's order: 16 lanes in a block, lanes as a tree, blocks as a tree. */
static double tree_in_pairs(size_t n, double *x)
{
  for (; n > 1; n = (n + 1) / 2) {
    for (size_t i = 0; i < n; i += 2) { x[i / 2] = i + 1 < n ? x[i] + x[i + 1] : x[i]; }
  }
  return x[0];
}

static double norm_in_order(const matrix *g)
{
  size_t count = update_norm_blocks(g->cols);
  double *block = test_alloc(count, sizeof *block);
  for (size_t b = 0; b < count; ++b) {
    double lane[KERNELS_PAD] = {0};
    for (size_t i = b * KERNELS_NORM_BLOCK; i < g->cols && i < (b + 1) * KERNELS_NORM_BLOCK; ++i) {
      lane[i % KERNELS_PAD] += (double)g->x[i] * (double)g->x[i];
    }
    for (size_t half = KERNELS_PAD / 2; half > 0; half /= 2) {
      for (size_t l = 0; l < half; ++l) { lane[l] += lane[l + half]; }
    }
    block[b] = lane[0];
  }
  double norm = sqrt(tree_in_pairs(count, block));
  free(block);
  return norm;
}

static void test_norm_is_the_root_of_the_squares_for_any_threads(void)
{
  for (size_t i = 0; i < COUNT(lengths); ++i) {
    matrix g = flat_new(lengths[i]);
    long double sum = 0;
    matrix_fill(&g);
    for (size_t k = 0; k < g.cols; ++k) { sum += (long double)g.x[k] * (long double)g.x[k]; }
    for (size_t t = 0; t < COUNT(thread_counts); ++t) {
      omp_set_num_threads(thread_counts[t]);
      double norm = norm_of(&g);
      CHECK_AT(norm == norm_in_order(&g), "n %zu threads %d", lengths[i], thread_counts[t]);
      /* Every square is exact; a sum of n in double errs by n units at most. */
      CU_ASSERT(fabs(norm - (double)sqrtl(sum)) <= (double)lengths[i] * DBL_EPSILON * norm);
    }
    CU_ASSERT(matrix_is_clean(&g));
    matrix_free(&g);
  }
}

static void test_norm_of_integers_is_exact(void)
{
  for (size_t i = 0; i < COUNT(lengths); ++i) {
    matrix g = flat_new(lengths[i]);
    uint64_t sum = 0;
    for (size_t k = 0; k < g.cols; ++k) {
      int64_t integer = (int64_t)next_below(2001) - 1000;
      g.x[k] = (unroll_real)integer;
      sum += (uint64_t)(integer * integer);
    }
    CU_ASSERT(norm_of(&g) == sqrt((double)sum));
    matrix_free(&g);
  }
}

static void test_norm_of_nothing_and_of_zeros_is_zero(void)
{
  matrix none = flat_new(0), zeros = flat_new(48);
  matrix_zero(&zeros);
  CU_ASSERT(norm_of(&none) == 0);
  CU_ASSERT(norm_of(&zeros) == 0);
  matrix_free(&none);
  matrix_free(&zeros);
}

/* Squares of 1e30 and of 1e-30 are far outside float. */
static void test_norm_neither_overflows_nor_underflows(void)
{
  const unroll_real sizes[] = {1e30f, FLT_MAX, 1e-30f, FLT_MIN};
  for (size_t i = 0; i < COUNT(sizes); ++i) {
    matrix g = flat_new(KERNELS_NORM_BLOCK + 16);
    for (size_t k = 0; k < g.cols; ++k) { g.x[k] = k % 2 == 0 ? sizes[i] : -sizes[i]; }
    double exact = (double)sizes[i] * sqrt((double)g.cols);
    CU_ASSERT(fabs(norm_of(&g) - exact) <= 1e-12 * exact);
    matrix_free(&g);
  }
}

static void test_norm_shows_nan_and_infinity_anywhere(void)
{
  matrix g = flat_new(2 * KERNELS_NORM_BLOCK + 16);
  matrix_fill(&g);
  for (size_t k = 0; k < g.cols; k += k < 64 ? 1 : 61) {
    unroll_real keep = g.x[k];
    g.x[k] = NAN;
    CU_ASSERT(isnan(norm_of(&g)));
    g.x[k] = k % 2 == 0 ? INFINITY : -INFINITY;
    CU_ASSERT(isinf(norm_of(&g)));
    g.x[k] = keep;
  }
  CU_ASSERT(isfinite(norm_of(&g)));
  matrix_free(&g);
}

/* ------------------------------------------------------------------ sparse rows */

/* A gradient that begins dense and ends as a table where only the rows in `row` are not zero. */
static sparse_rows sparse_gradient(const matrix *g, size_t begin, size_t ld, uint32_t *row)
{
  sparse_rows rows = {.begin = begin, .ld = ld, .row = row};
  matrix_fill(g);
  for (size_t r = 0; r < (g->cols - begin) / ld; ++r) {
    if (next_below(7) == 0) {
      row[rows.n_rows++] = (uint32_t)r;
    } else {
      memset(g->x + begin + r * ld, 0, ld * sizeof *g->x);
    }
  }
  return rows;
}

static void test_sparse_norm_and_update_are_those_of_the_whole(void)
{
  const size_t shapes[][3] = {/* begin, ld, rows */
                              {0, 16, 40},
                              {48, 48, 1},
                              {4096, 272, 97},
                              {4112, 656, 50},
                              {9000 / 16 * 16, 5008, 9}};
  for (size_t i = 0; i < COUNT(shapes); ++i) {
    for (int time = 0; time < 10; ++time) {
      size_t n = shapes[i][0] + shapes[i][1] * shapes[i][2];
      matrix g = flat_new(n), w = flat_new(n), w_sparse = flat_new(n);
      uint32_t *row = test_alloc(shapes[i][2], sizeof *row);
      sparse_rows rows = sparse_gradient(&g, shapes[i][0], shapes[i][1], row);
      omp_set_num_threads(thread_counts[(size_t)time % COUNT(thread_counts)]);
      for (size_t ranks = 1; ranks <= 3; ++ranks) {
        CU_ASSERT(norm_by_ranks(&g, &rows, ranks) == norm_of(&g));
        CU_ASSERT(norm_by_ranks(&g, NULL, ranks) == norm_of(&g));
      }
      matrix_fill(&w);
      matrix_copy(&w, &w_sparse);
      update_sgd(n, 0.7, 0.3, 1.0, g.x, w.x);
      update_sgd(rows.begin, 0.7, 0.3, 1.0, g.x, w_sparse.x);
      update_sgd_rows(0.7, 0.3, g.x, &rows, w_sparse.x);
      CU_ASSERT(matrix_equal(&w, &w_sparse));
      if (rows.n_rows > 0) {
        g.x[rows.begin + row[rows.n_rows / 2] * rows.ld + rows.ld - 1] = NAN;
        CU_ASSERT(isnan(norm_by_ranks(&g, &rows, 2)));
      }
      free(row);
      matrix_free(&g);
      matrix_free(&w);
      matrix_free(&w_sparse);
    }
  }
}

/* ------------------------------------------------------------------- updates */

#define SCALE 0.75
#define ETA   0.1

static const double decays[] = {0, 0.3}; /* lambda */
#define KEEP(p) (1 - ETA * (p)->config.weight_decay)

/* The state of an optimizer over n parameters, and a copy from before the update. */
typedef struct problem {
  unroll_config config;
  size_t n;
  matrix g, now[3], before[3]; /* w, first and second moment */
} problem;

static problem problem_new(size_t n, unroll_optimizer optimizer)
{
  problem p = {.n = n, .g = flat_new(n)};
  p.config.optimizer = optimizer;
  p.config.momentum = 0.9;
  p.config.beta1 = 0.8;
  p.config.beta2 = 0.99;
  p.config.epsilon = 1e-6;
  matrix_fill(&p.g);
  for (int i = 0; i < 3; ++i) {
    p.now[i] = flat_new(n);
    p.before[i] = flat_new(n);
    matrix_fill(&p.now[i]);
    for (size_t k = 0; k < n && i == 2; ++k) { p.now[i].x[k] = fabsf(p.now[i].x[k]); }
    matrix_copy(&p.now[i], &p.before[i]);
  }
  return p;
}

static void problem_free(problem *p)
{
  matrix_free(&p->g);
  for (int i = 0; i < 3; ++i) {
    matrix_free(&p->now[i]);
    matrix_free(&p->before[i]);
  }
}

static void problem_update(problem *p, double scale, uint64_t t)
{
  unroll_real *moments[2] = {p->now[1].x, p->now[2].x};
  for (int i = 0; i < 3; ++i) { matrix_copy(&p->before[i], &p->now[i]); }
  size_t cut = p->n / 2 / KERNELS_PAD * KERNELS_PAD; /* as two ranks of a team would */
  optimizer_update(&p->config, cut, p->n, scale, ETA, t, p->g.x, moments, p->now[0].x);
  optimizer_update(&p->config, 0, cut, scale, ETA, t, p->g.x, moments, p->now[0].x);
}

/* One parameter after an update: its bits in the contract's order, and the equations in double. */
typedef struct parameter {
  unroll_real bits[3];          /* w, moments */
  double exact[3], rounding[3]; /* rounding: of a few operations, in the units of the result */
} parameter;

static parameter sgd_at(const problem *p, size_t i, uint64_t t)
{
  unroll_real w = p->before[0].x[i], g = (unroll_real)SCALE * p->g.x[i];
  double wd = (double)w, gd = SCALE * (double)p->g.x[i];
  (void)t;
  return (parameter){.bits = {madd((unroll_real)-ETA, g, (unroll_real)KEEP(p) * w)},
                     .exact = {KEEP(p) * wd - ETA * gd},
                     .rounding = {4 * ROUNDOFF * (fabs(wd) + fabs(gd))}};
}

static parameter momentum_at(const problem *p, size_t i, uint64_t t)
{
  unroll_real w = p->before[0].x[i], v = p->before[1].x[i];
  double wd = (double)w, vd = (double)v, gd = SCALE * (double)p->g.x[i];
  double size = 4 * ROUNDOFF * (fabs(vd) + fabs(gd));
  (void)t;
  v = madd((unroll_real)p->config.momentum, v, (unroll_real)SCALE * p->g.x[i]);
  vd = p->config.momentum * vd + gd;
  return (parameter){.bits = {madd((unroll_real)-ETA, v, (unroll_real)KEEP(p) * w), v},
                     .exact = {KEEP(p) * wd - ETA * vd, vd},
                     .rounding = {size + 4 * ROUNDOFF * fabs(wd), size}};
}

static parameter adam_at(const problem *p, size_t i, uint64_t t)
{
  const unroll_config *c = &p->config;
  double rate = ETA / (1 - pow(c->beta1, (double)t));
  double correction = 1 / (1 - pow(c->beta2, (double)t));
  unroll_real w = p->before[0].x[i], m = p->before[1].x[i], v = p->before[2].x[i];
  unroll_real g = (unroll_real)SCALE * p->g.x[i];
  double wd = (double)w, md = (double)m, vd = (double)v, gd = SCALE * (double)p->g.x[i];
  double m_size = 4 * ROUNDOFF * (fabs(md) + fabs(gd));

  m = madd((unroll_real)c->beta1, m, (unroll_real)(1 - c->beta1) * g);
  v = madd((unroll_real)c->beta2, v, (unroll_real)(1 - c->beta2) * (g * g));
  unroll_real root = sqrtf(v * (unroll_real)correction) + (unroll_real)c->epsilon;
  unroll_real bits = madd((unroll_real)-rate, m / root, (unroll_real)KEEP(p) * w);

  md = c->beta1 * md + (1 - c->beta1) * gd;
  vd = c->beta2 * vd + (1 - c->beta2) * gd * gd;
  double m_hat = md / (1 - pow(c->beta1, (double)t)), v_hat = vd / (1 - pow(c->beta2, (double)t));
  double step = ETA * m_hat / (sqrt(v_hat) + c->epsilon);
  double size =
      rate * m_size / (sqrt(v_hat) + c->epsilon) + ROUNDOFF * (12 * fabs(step) + 3 * fabs(wd));
  return (parameter){.bits = {bits, m, v},
                     .exact = {KEEP(p) * wd - step, md, vd},
                     .rounding = {size, m_size, 6 * ROUNDOFF * vd}};
}

static void check_update(unroll_optimizer optimizer,
                         parameter (*at_one)(const problem *p, size_t i, uint64_t t))
{
  const uint64_t times[] = {1, 2, 10, 100000};
  int moments = (int)run_moments(&(unroll_config){.optimizer = optimizer});
  for (size_t l = 0; l < COUNT(lengths); ++l) {
    problem p = problem_new(lengths[l], optimizer);
    for (size_t k = 0; k < COUNT(times) * COUNT(decays); ++k) {
      const uint64_t time = times[k / COUNT(decays)];
      int ok = 1;
      p.config.weight_decay = decays[k % COUNT(decays)];
      omp_set_num_threads(thread_counts[k % COUNT(thread_counts)]);
      problem_update(&p, SCALE, time);
      for (size_t i = 0; i < p.n; ++i) {
        parameter one = at_one(&p, i, time);
        for (int m = 0; m <= moments; ++m) {
          unroll_real x = p.now[m].x[i];
          ok &= same_bits(x, one.bits[m]) && fabs((double)x - one.exact[m]) <= one.rounding[m];
        }
      }
      for (int m = 0; m < 3; ++m) {
        ok &= matrix_is_clean(&p.now[m]) && (m <= moments || matrix_equal(&p.now[m], &p.before[m]));
      }
      CHECK_AT(ok && matrix_is_clean(&p.g), "optimizer %d n %zu t %d", (int)optimizer, p.n,
               (int)time);
    }
    problem_free(&p);
  }
}

static void test_sgd_follows_its_equation(void)
{
  check_update(UNROLL_OPTIMIZER_SGD, sgd_at);
}

static void test_momentum_follows_its_equations(void)
{
  check_update(UNROLL_OPTIMIZER_MOMENTUM, momentum_at);
}

static void test_adam_follows_its_equations(void)
{
  check_update(UNROLL_OPTIMIZER_ADAM, adam_at);
}

/* From zero moments the first step of Adam is -eta sign(g), whatever the size of g. */
static void test_adam_first_step_is_eta(void)
{
  const unroll_real sizes[] = {1e-3f, 1, 1e6f};
  for (size_t s = 0; s < COUNT(sizes); ++s) {
    problem p = problem_new(48, UNROLL_OPTIMIZER_ADAM);
    for (size_t i = 0; i < p.n; ++i) {
      p.g.x[i] = i % 2 == 0 ? sizes[s] : -sizes[s];
      p.before[0].x[i] = p.before[1].x[i] = p.before[2].x[i] = 0;
    }
    problem_update(&p, 1, 1);
    for (size_t i = 0; i < p.n; ++i) {
      double step = (double)p.now[0].x[i] * (i % 2 == 0 ? -1 : 1);
      CU_ASSERT(fabs(step - ETA) <= 0.002 * ETA);
    }
    problem_free(&p);
  }
}

/* A gradient of zero leaves the decay alone: after n updates what is left of a weight is keep^n of it. */
static void test_decay_is_a_factor_of_each_weight(void)
{
  for (int optimizer = UNROLL_OPTIMIZER_SGD; optimizer <= UNROLL_OPTIMIZER_ADAM; ++optimizer) {
    problem p = problem_new(KERNELS_NORM_BLOCK + 48, (unroll_optimizer)optimizer);
    int ok = 1;
    matrix_zero(&p.g);
    matrix_zero(&p.before[1]);
    matrix_zero(&p.before[2]);
    p.config.weight_decay = 2;
    for (uint64_t t = 1; t <= 3; ++t) {
      problem_update(&p, 1, t);
      for (size_t i = 0; i < p.n; ++i) {
        ok &= same_bits(p.now[0].x[i], (unroll_real)(1 - ETA * 2) * p.before[0].x[i]);
      }
      matrix_copy(&p.now[0], &p.before[0]);
    }
    CHECK_AT(ok, "optimizer %d", optimizer);
    problem_free(&p);
  }
}

/* Scaling inside the update is the update of the scaled gradient: a power of two is exact. */
static void test_scale_is_a_factor_of_the_gradient(void)
{
  for (int optimizer = UNROLL_OPTIMIZER_SGD; optimizer <= UNROLL_OPTIMIZER_ADAM; ++optimizer) {
    problem p = problem_new(KERNELS_NORM_BLOCK + 48, (unroll_optimizer)optimizer);
    matrix w = flat_new(p.n);
    problem_update(&p, 0.25, 3);
    matrix_copy(&p.now[0], &w);
    for (size_t i = 0; i < p.n; ++i) { p.g.x[i] *= 0.25f; }
    problem_update(&p, 1, 3);
    CU_ASSERT(matrix_equal(&p.now[0], &w));
    matrix_free(&w);
    problem_free(&p);
  }
}

static void test_update_shows_nan_in_its_parameter_alone(void)
{
  for (int optimizer = UNROLL_OPTIMIZER_SGD; optimizer <= UNROLL_OPTIMIZER_ADAM; ++optimizer) {
    problem p = problem_new(96, (unroll_optimizer)optimizer);
    p.g.x[37] = NAN;
    problem_update(&p, 1, 1);
    for (size_t i = 0; i < p.n; ++i) { CU_ASSERT(!!isnan(p.now[0].x[i]) == (i == 37)); }
    problem_free(&p);
  }
}

/* With the shares 1 / n an average that was zero is the mean of the weights so far, with a fixed one it decays. */
static void test_average_follows_its_equation(void)
{
  static const double fixed[] = {0, 0.25}; /* 0: 1 / n */
  for (size_t k = 0; k < COUNT(lengths) * COUNT(fixed); ++k) {
    matrix w = flat_new(lengths[k / COUNT(fixed)]), a = flat_new(w.cols), before = flat_new(w.cols);
    double *mean = test_alloc(w.cols, sizeof *mean);
    int ok = 1;
    matrix_zero(&a);
    omp_set_num_threads(thread_counts[k % COUNT(thread_counts)]);
    for (uint64_t n = 1; n <= 9; ++n) {
      const double share =
          fixed[k % COUNT(fixed)] > 0.0 && n > 1 ? fixed[k % COUNT(fixed)] : 1.0 / (double)n;
      matrix_fill(&w);
      matrix_copy(&a, &before);
      update_average(w.cols, share, w.x, a.x);
      for (size_t i = 0; i < w.cols; ++i) {
        mean[i] = (n > 1 ? (1 - share) * mean[i] : 0) + share * (double)w.x[i];
        ok &= same_bits(a.x[i], madd((unroll_real)share, w.x[i] - before.x[i], before.x[i]));
        ok &= fabs((double)a.x[i] - mean[i]) <= 4 * (double)n * ROUNDOFF;
        ok &= n > 1 || a.x[i] == w.x[i];
      }
    }
    CHECK_AT(ok && matrix_is_clean(&a) && matrix_is_clean(&w), "n %zu", w.cols);
    free(mean);
    matrix_free(&before);
    matrix_free(&a);
    matrix_free(&w);
  }
}

static void test_add_adds(void)
{
  for (size_t i = 0; i < COUNT(lengths); ++i) {
    matrix x = flat_new(lengths[i]), y = flat_new(lengths[i]), sum = flat_new(lengths[i]);
    int ok = 1;
    matrix_fill(&x);
    matrix_fill(&y);
    matrix_copy(&x, &sum);
    kernels()->add(lengths[i], y.x, sum.x);
    for (size_t k = 0; k < lengths[i]; ++k) { ok &= same_bits(sum.x[k], x.x[k] + y.x[k]); }
    CU_ASSERT(ok && matrix_is_clean(&sum) && matrix_is_clean(&y));
    matrix_free(&x);
    matrix_free(&y);
    matrix_free(&sum);
  }
}

static uint64_t update_fingerprint(void)
{
  uint64_t hash = FINGERPRINT_START;
  for (int optimizer = UNROLL_OPTIMIZER_SGD; optimizer <= UNROLL_OPTIMIZER_ADAM; ++optimizer) {
    problem p = problem_new(KERNELS_NORM_BLOCK + 48, (unroll_optimizer)optimizer);
    double norm = norm_of(&p.g);
    p.config.weight_decay = decays[1];
    problem_update(&p, SCALE, 2);
    hash = fingerprint_add(hash, &norm, sizeof norm);
    for (int i = 0; i < 3; ++i) { hash = matrix_fingerprint(hash, &p.now[i]); }
    problem_free(&p);
  }
  return hash;
}

static void test_updates_of_avx2_and_avx512_are_equal(void)
{
  CU_ASSERT(paths_agree(update_fingerprint));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"norm: root of squares, any threads", test_norm_is_the_root_of_the_squares_for_any_threads},
      {"norm: integers", test_norm_of_integers_is_exact},
      {"norm: nothing", test_norm_of_nothing_and_of_zeros_is_zero},
      {"norm: range", test_norm_neither_overflows_nor_underflows},
      {"norm: NaN and infinity", test_norm_shows_nan_and_infinity_anywhere},
      {"sparse rows equal the whole", test_sparse_norm_and_update_are_those_of_the_whole},
      {"sgd", test_sgd_follows_its_equation},
      {"momentum", test_momentum_follows_its_equations},
      {"adam", test_adam_follows_its_equations},
      {"adam: first step", test_adam_first_step_is_eta},
      {"decay of the weights", test_decay_is_a_factor_of_each_weight},
      {"scale", test_scale_is_a_factor_of_the_gradient},
      {"NaN is visible", test_update_shows_nan_in_its_parameter_alone},
      {"average: its equation", test_average_follows_its_equation},
      {"add", test_add_adds},
      {"avx2 equals avx512", test_updates_of_avx2_and_avx512_are_equal},
  };
  return run_kernel_cases("update", COUNT(cases), cases);
}
