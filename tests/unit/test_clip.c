#include "support.h"

#include "base/random.h"
#include "kernels/dispatch.h"
#include "kernels/update.h"
#include "train/optimizer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Several blocks of the norm and an incomplete one. */
#define N (16 * 1001)

/* A gradient of many magnitudes; its norm by a plain loop in long double. */
static unroll_real *gradient(double size, double *norm)
{
  unroll_real *g = aligned_alloc(64, N * sizeof *g);
  long double sum = 0.0L;
  if (g == NULL) { abort(); }
  for (size_t i = 0; i < N; ++i) {
    double u = random_uniform(3, RANDOM_SYNTHETIC, 0, i) - 0.5;
    g[i] = (unroll_real)(size * u * u * u);
    sum += (long double)g[i] * (long double)g[i];
  }
  *norm = (double)sqrtl(sum);
  return g;
}

static double norm_of(const unroll_real *g)
{
  double *blocks = malloc(update_norm_blocks(N) * sizeof *blocks);
  if (blocks == NULL || kernels_start() != UNROLL_OK) { abort(); }
  update_sum_squares(N, g, NULL, 0, update_norm_blocks(N), blocks);
  double norm = update_norm(update_norm_blocks(N), blocks);
  free(blocks);
  return norm;
}

static void test_norm_is_the_euclidean_norm(void)
{
  static const double sizes[] = {1e-12, 1.0,
                                 1e15}; /* squares of the last would overflow in float */
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; ++i) {
    double expected = 0.0;
    unroll_real *g = gradient(sizes[i] * 1e5, &expected);
    CU_ASSERT_DOUBLE_EQUAL(norm_of(g) / expected, 1.0, 1e-12);
    free(g);
  }
}

static void test_norm_of_what_is_not_finite_is_not_finite(void)
{
  static const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t at = 0; at < N; at += N - 1) {
      double before = 0.0;
      unroll_real *g = gradient(1.0, &before);
      g[at] = (unroll_real)bad[i];
      CU_ASSERT_FALSE(isfinite(norm_of(g)));
      free(g);
    }
  }
}

/* w <- w - 1 * (scale * g) from w = 0 shows the gradient as it was applied. */
static void test_clip_above_theta_becomes_theta_and_keeps_direction(void)
{
  double norm = 0.0;
  unroll_real *g = gradient(300.0, &norm), *w = aligned_alloc(64, N * sizeof *w);
  if (w == NULL) { abort(); }
  static const double thetas[] = {1e-3, 0.25, 1.0, 5.0};

  for (size_t i = 0; i < sizeof thetas / sizeof thetas[0]; ++i) {
    double theta = thetas[i], scale = clip_scale(theta, norm_of(g));
    CU_ASSERT(norm > theta);
    memset(w, 0, N * sizeof *w);
    update_sgd(N, scale, 1.0, 1.0, g, w);
    CU_ASSERT_DOUBLE_EQUAL(norm_of(w) / theta, 1.0, 2 * (double)FLT_EPSILON);

    double worst = 0.0;
    for (size_t k = 0; k < N; ++k) {
      double expected = -(double)g[k] * theta / norm;
      worst = fmax(worst, fabs((double)w[k] - expected) - 2 * (double)FLT_EPSILON * fabs(expected));
    }
    CU_ASSERT(worst <= (double)FLT_MIN);
  }
  free(w);
  free(g);
}

static void test_clip_at_or_below_theta_changes_nothing(void)
{
  double norm = 0.0;
  unroll_real *g = gradient(300.0, &norm), *w = aligned_alloc(64, N * sizeof *w);
  if (w == NULL) { abort(); }
  norm = norm_of(g);
  CU_ASSERT_EQUAL(clip_scale(norm, norm), 1.0);
  CU_ASSERT_EQUAL(clip_scale(norm * 2, norm), 1.0);
  CU_ASSERT_EQUAL(clip_scale(1.0, 0.0), 1.0);

  memset(w, 0, N * sizeof *w);
  update_sgd(N, clip_scale(norm, norm), 1.0, 1.0, g, w);
  int same = 1;
  for (size_t k = 0; k < N; ++k) { same &= w[k] == -g[k]; }
  CU_ASSERT(same);
  free(w);
  free(g);
}

static void test_clip_off_changes_nothing(void)
{
  CU_ASSERT_EQUAL(clip_scale(0.0, 1e30), 1.0);
  CU_ASSERT_EQUAL(clip_scale(0.0, 0.0), 1.0);
}

/* Clipping comes before the moments: with momentum 0 and a first Adam step it is all there is. */
static void test_clip_reaches_the_moments(void)
{
  unroll_config config;
  double norm = 0.0;
  unroll_real *g = gradient(300.0, &norm), *memory = aligned_alloc(64, 3 * N * sizeof *memory);
  if (memory == NULL) { abort(); }
  unroll_real *moments[2] = {memory, memory + N}, *w = memory + 2 * N;
  double scale = clip_scale(0.5, norm_of(g));

  unroll_config_init(&config);
  config.optimizer = UNROLL_OPTIMIZER_ADAM;
  memset(memory, 0, 3 * N * sizeof *memory);
  optimizer_update(&config, 0, N, scale, 1e-3, 1, g, moments, w);
  CU_ASSERT_DOUBLE_EQUAL(norm_of(moments[0]) / (0.5 * (1.0 - config.beta1)), 1.0, 1e-6);

  config.optimizer = UNROLL_OPTIMIZER_MOMENTUM;
  memset(memory, 0, 3 * N * sizeof *memory);
  optimizer_update(&config, 0, N, scale, 1e-3, 1, g, moments, w);
  CU_ASSERT_DOUBLE_EQUAL(norm_of(moments[0]) / 0.5, 1.0, 1e-6);
  free(memory);
  free(g);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"the norm is Euclidean", test_norm_is_the_euclidean_norm},
      {"NaN and infinity show in the norm", test_norm_of_what_is_not_finite_is_not_finite},
      {"above theta: norm becomes theta, direction is kept",
       test_clip_above_theta_becomes_theta_and_keeps_direction},
      {"at or below theta: nothing changes", test_clip_at_or_below_theta_changes_nothing},
      {"theta 0 is off", test_clip_off_changes_nothing},
      {"the moments see the clipped gradient", test_clip_reaches_the_moments},
  };
  return run_cases("clip", sizeof cases / sizeof cases[0], cases);
}
