#include "support.h"

#include "base/memory.h"
#include "net/params.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/params.h>

static const struct {
  size_t V, H, L;
} models[] = {{28, 32, 1}, {65, 17, 2}, {3, 50, 3}, {7, 1, 1}};
#define N_MODELS (sizeof models / sizeof models[0])

static unroll_params *started(size_t m, unroll_init init, double scale, uint64_t seed)
{
  unroll_params *p = NULL;
  CHECK_OK(
      unroll_params_new(&(unroll_shape){.V = models[m].V, .H = models[m].H, .L = models[m].L}, &p));
  memset(p->values, 0xff, p->n * sizeof *p->values); /* NaN: what stays unset is seen */
  CHECK_OK(unroll_params_start(p, &(unroll_start){.init = init, .scale = scale, .seed = seed}));
  return p;
}

static double value(const unroll_params *p, const unroll_tensor *t, size_t row, size_t col)
{
  return (double)p->values[unroll_tensor_index(t, row, col)];
}

static int is_recurrent(const unroll_tensor *t)
{
  return strcmp(t->name, "W_hh") == 0;
}

/* The same values of the tensors that `skip` does not name. */
static int same_but(const unroll_params *a, const unroll_params *b, const char *skip,
                    const char *skip_too)
{
  int same = 1;
  for (size_t k = 0; k < a->n_tensors; ++k) {
    const unroll_tensor *t = &a->tensors[k];
    if (strcmp(t->name, skip) == 0 || strcmp(t->name, skip_too) == 0) { continue; }
    const unroll_tensor *u = unroll_params_find(b, t->group, t->name);
    for (size_t row = 0; row < t->rows; ++row) {
      for (size_t col = 0; col < t->cols; ++col) {
        same &= value(a, t, row, col) == value(b, u, row, col);
      }
    }
  }
  return same;
}

/* ------------------------------------------------------------------ uniform */

static void test_start_uniform_has_its_bounds_mean_and_variance(void)
{
  for (size_t m = 0; m < N_MODELS; ++m) {
    unroll_params *p = started(m, UNROLL_INIT_UNIFORM, 1.0, 11);
    double bound = 1.0 / sqrt((double)p->shape.H), sum = 0.0, squares = 0.0, largest = 0.0;
    for (size_t k = 0; k < p->n_tensors; ++k) {
      const unroll_tensor *t = &p->tensors[k];
      double mean = 0.0, n = (double)(t->rows * t->cols);
      for (size_t row = 0; row < t->rows; ++row) {
        for (size_t col = 0; col < t->cols; ++col) {
          double w = value(p, t, row, col) / bound;
          largest = fmax(largest, fabs(w));
          mean += w / n;
          squares += w * w;
        }
      }
      CU_ASSERT(fabs(mean) < 5.0 / sqrt(3.0 * n)); /* 5 standard errors; the variance is 1/3 */
      sum += mean * n;
    }
    double n = (double)p->n_real;
    CU_ASSERT(largest <= 1.0 + 1e-6 && largest > 1.0 - 20.0 / n);
    CU_ASSERT(fabs(sum / n) < 5.0 / sqrt(3.0 * n));
    CU_ASSERT(fabs(squares / n - 1.0 / 3.0) < 5.0 * sqrt(4.0 / 45.0 / n)); /* of u^2: 4/45 */
    unroll_params_free(&p);
  }
}

static void test_start_leaves_the_padding_zero(void)
{
  for (int init = UNROLL_INIT_UNIFORM; init <= UNROLL_INIT_IDENTITY; ++init) {
    unroll_params *p = started(1, (unroll_init)init, 1.0, 11);
    size_t zeros = 0, real_zeros = 0;
    for (size_t i = 0; i < p->n; ++i) { zeros += p->values[i] == 0; }
    for (size_t k = 0; k < p->n_tensors; ++k) {
      const unroll_tensor *t = &p->tensors[k];
      for (size_t row = 0; row < t->rows; ++row) {
        for (size_t col = 0; col < t->cols; ++col) { real_zeros += value(p, t, row, col) == 0; }
      }
    }
    CU_ASSERT(p->n > p->n_real);
    CU_ASSERT_EQUAL(zeros, p->n - p->n_real + real_zeros);
    unroll_params_free(&p);
  }
}

static void test_start_depends_on_the_seed_and_on_the_tensor(void)
{
  unroll_params *a = started(1, UNROLL_INIT_UNIFORM, 1.0, 11);
  unroll_params *b = started(1, UNROLL_INIT_UNIFORM, 1.0, 11);
  unroll_params *c = started(1, UNROLL_INIT_UNIFORM, 1.0, 12);
  CU_ASSERT(same_but(a, b, "", ""));
  size_t equal = 0;
  for (size_t i = 0; i < a->n; ++i) { equal += a->values[i] != 0 && a->values[i] == c->values[i]; }
  CU_ASSERT(equal < 3);

  /* No two tensors begin alike. */
  for (size_t k = 0; k < a->n_tensors; ++k) {
    for (size_t j = 0; j < k; ++j) {
      CU_ASSERT(value(a, &a->tensors[k], 0, 0) != value(a, &a->tensors[j], 0, 0));
    }
  }
  unroll_params_free(&c);
  unroll_params_free(&b);
  unroll_params_free(&a);
}

/* The same table laid out otherwise: every matrix turned, rows further apart, tensors in another order. */
static void test_start_does_not_depend_on_the_memory_layout(void)
{
  for (int init = UNROLL_INIT_UNIFORM; init <= UNROLL_INIT_IDENTITY; ++init) {
    unroll_params *a = started(1, (unroll_init)init, 0.9, 11), *b = NULL;
    CHECK_OK(unroll_params_new(
        &(unroll_shape){.V = models[1].V, .H = models[1].H, .L = models[1].L}, &b));
    b->n = 0;
    for (size_t k = b->n_tensors; k-- > 0;) {
      unroll_tensor *t = &b->tensors[k];
      t->transposed = !t->transposed && t->col_dim != NULL;
      t->ld = 128;
      t->offset = b->n;
      b->n += 128 * (t->rows > t->cols ? t->rows : t->cols);
    }
    memory_free(&b->values);
    CHECK_OK(memory_new(b->n, sizeof *b->values, "test", &b->values));
    CHECK_OK(unroll_params_start(
        b, &(unroll_start){.init = (unroll_init)init, .scale = 0.9, .seed = 11}));
    CU_ASSERT(same_but(a, b, "", ""));
    unroll_params_free(&b);
    unroll_params_free(&a);
  }
}

/* Parts that make up the array, in any order, cut within rows and tensors. */
static void test_start_by_parts_is_the_whole(void)
{
  for (int init = UNROLL_INIT_UNIFORM; init <= UNROLL_INIT_IDENTITY; ++init) {
    for (size_t m = 0; m < N_MODELS; ++m) {
      unroll_params *whole = started(m, (unroll_init)init, 0.9, 11), *parts = NULL;
      CHECK_OK(unroll_params_new(
          &(unroll_shape){.V = models[m].V, .H = models[m].H, .L = models[m].L}, &parts));
      const size_t n = parts->n, cut[] = {0, n / 7, n / 7 + 1, n / 3, n / 2 + 5, n};
      for (size_t k = 5; k-- > 0;) {
        CHECK_OK(params_start_range(
            parts, &(unroll_start){.init = (unroll_init)init, .scale = 0.9, .seed = 11}, cut[k],
            cut[k + 1]));
      }
      CU_ASSERT_EQUAL(memcmp(parts->values, whole->values, n * sizeof *whole->values), 0);
      unroll_params_free(&parts);
      unroll_params_free(&whole);
    }
  }
}

/* ---------------------------------------------------------------- embedding */

/* Within +-0.1 whatever the sizes, of a stream of its own, by parts as at once; the others are as without it. */
static void test_start_of_an_embedding(void)
{
  const unroll_shape shape = {.V = 65, .H = 17, .L = 2, .E = 33};
  const unroll_start start = {.seed = 11};
  unroll_params *plain = started(1, UNROLL_INIT_UNIFORM, 1.0, 11), *p = NULL, *parts = NULL;
  CHECK_OK(unroll_params_new(&shape, &p));
  CHECK_OK(unroll_params_new(&shape, &parts));
  CHECK_OK(unroll_params_start(p, &start));
  const unroll_tensor *t = unroll_params_find(p, "input", "W_xe");
  double sum = 0.0, squares = 0.0, largest = 0.0, n = 65 * 33;
  for (size_t i = 0; i < t->rows * t->cols; ++i) {
    double w = value(p, t, i / t->cols, i % t->cols) / 0.1;
    sum += w;
    squares += w * w;
    largest = fmax(largest, fabs(w));
  }
  CU_ASSERT(largest <= 1.0 + 1e-6 && largest > 1.0 - 20.0 / n);
  CU_ASSERT(fabs(sum / n) < 5.0 / sqrt(3.0 * n));
  CU_ASSERT(fabs(squares / n - 1.0 / 3.0) < 5.0 * sqrt(4.0 / 45.0 / n));
  CU_ASSERT(same_but(plain, p, "W_xh", ""));

  const size_t cut[] = {0, t->offset / 2, t->offset + 7, p->n};
  for (size_t k = 3; k-- > 0;) { CHECK_OK(params_start_range(parts, &start, cut[k], cut[k + 1])); }
  CU_ASSERT_EQUAL(memcmp(parts->values, p->values, p->n * sizeof *p->values), 0);
  for (size_t k = 0; k + 1 < p->n_tensors; ++k) {
    CU_ASSERT(fabs(value(p, &p->tensors[k], 0, 0) * sqrt(17.0) - value(p, t, 0, 0) / 0.1) > 1e-4);
  }
  unroll_params_free(&parts);
  unroll_params_free(&p);
  unroll_params_free(&plain);
}

/* --------------------------------------------------------------- orthogonal */

/* W W^T = W^T W = scale^2 I, to the rounding of float. */
static void test_start_orthogonal_is_a_scaled_rotation(void)
{
  static const double scales[] = {1.0, 0.5, 3.0};
  for (size_t m = 0; m < N_MODELS; ++m) {
    for (size_t s = 0; s < 3; ++s) {
      unroll_params *p = started(m, UNROLL_INIT_ORTHOGONAL, scales[s], 11);
      double worst = 0.0;
      for (size_t k = 0; k < p->n_tensors; ++k) {
        const unroll_tensor *t = &p->tensors[k];
        for (size_t i = 0; is_recurrent(t) && i < p->shape.H; ++i) {
          for (size_t j = 0; j < p->shape.H; ++j) {
            double rows = 0.0, cols = 0.0;
            for (size_t q = 0; q < p->shape.H; ++q) {
              rows += value(p, t, i, q) * value(p, t, j, q);
              cols += value(p, t, q, i) * value(p, t, q, j);
            }
            double expected = i == j ? 1.0 : 0.0, square = scales[s] * scales[s];
            worst = fmax(worst, fabs(rows / square - expected));
            worst = fmax(worst, fabs(cols / square - expected));
          }
        }
      }
      CU_ASSERT(worst < 1e-6);
      unroll_params_free(&p);
    }
  }
}

/* Haar: no direction is preferred, so the trace of a rotation has mean 0 and variance 1. */
static void test_start_orthogonal_prefers_no_direction(void)
{
  enum { SEEDS = 200 };
  double sum = 0.0, squares = 0.0;
  for (uint64_t seed = 0; seed < SEEDS; ++seed) {
    unroll_params *p = started(1, UNROLL_INIT_ORTHOGONAL, 1.0, seed);
    const unroll_tensor *t = unroll_params_find(p, "layer0", "W_hh");
    double trace = 0.0;
    for (size_t i = 0; i < p->shape.H; ++i) { trace += value(p, t, i, i); }
    sum += trace;
    squares += trace * trace;
    unroll_params_free(&p);
  }
  CU_ASSERT(fabs(sum / SEEDS) < 5.0 / sqrt((double)SEEDS));
  CU_ASSERT(fabs(squares / SEEDS - 1.0) < 5.0 * sqrt(2.0 / SEEDS)); /* nearly normal: variance 2 */
}

static void test_start_orthogonal_leaves_the_other_tensors_uniform(void)
{
  unroll_params *a = started(1, UNROLL_INIT_UNIFORM, 1.0, 11);
  unroll_params *b = started(1, UNROLL_INIT_ORTHOGONAL, 2.0, 11);
  CU_ASSERT(same_but(a, b, "W_hh", ""));
  CU_ASSERT_FALSE(same_but(a, b, "", ""));
  unroll_params_free(&b);
  unroll_params_free(&a);
}

static void test_start_orthogonal_does_not_depend_on_threads(void)
{
  int before = omp_get_max_threads();
  omp_set_num_threads(1);
  unroll_params *a = started(0, UNROLL_INIT_ORTHOGONAL, 1.0, 11);
  for (int threads = 2; threads <= 5; ++threads) {
    omp_set_num_threads(threads);
    unroll_params *b = started(0, UNROLL_INIT_ORTHOGONAL, 1.0, 11);
    CU_ASSERT(memcmp(a->values, b->values, a->n * sizeof *a->values) == 0);
    unroll_params_free(&b);
  }
  omp_set_num_threads(before);
  unroll_params_free(&a);
}

/* ----------------------------------------------------------------- identity */

static void test_start_identity_is_a_scaled_identity_without_bias(void)
{
  for (size_t m = 0; m < N_MODELS; ++m) {
    unroll_params *a = started(m, UNROLL_INIT_UNIFORM, 1.0, 11);
    unroll_params *b = started(m, UNROLL_INIT_IDENTITY, 0.25, 11);
    int good = 1;
    for (size_t k = 0; k < b->n_tensors; ++k) {
      const unroll_tensor *t = &b->tensors[k];
      for (size_t i = 0; i < b->shape.H; ++i) {
        if (strcmp(t->name, "b_h") == 0) { good &= value(b, t, i, 0) == 0.0; }
        for (size_t j = 0; is_recurrent(t) && j < b->shape.H; ++j) {
          good &= value(b, t, i, j) == (i == j ? 0.25 : 0.0);
        }
      }
    }
    CU_ASSERT(good);
    CU_ASSERT(same_but(a, b, "W_hh", "b_h"));
    unroll_params_free(&b);
    unroll_params_free(&a);
  }
}

int main(void)
{
  static const struct test_case cases[] = {
      {"uniform: bounds, mean, variance", test_start_uniform_has_its_bounds_mean_and_variance},
      {"the padding is zero", test_start_leaves_the_padding_zero},
      {"seed and tensor", test_start_depends_on_the_seed_and_on_the_tensor},
      {"memory layout", test_start_does_not_depend_on_the_memory_layout},
      {"start: by parts is the whole", test_start_by_parts_is_the_whole},
      {"embedding", test_start_of_an_embedding},
      {"orthogonal: Q Q^T = I, scaled", test_start_orthogonal_is_a_scaled_rotation},
      {"orthogonal: no direction preferred", test_start_orthogonal_prefers_no_direction},
      {"orthogonal: W_hh alone", test_start_orthogonal_leaves_the_other_tensors_uniform},
      {"orthogonal: threads", test_start_orthogonal_does_not_depend_on_threads},
      {"identity", test_start_identity_is_a_scaled_identity_without_bias},
  };
  return run_cases("start", sizeof cases / sizeof cases[0], cases);
}
