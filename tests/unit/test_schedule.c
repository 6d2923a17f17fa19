#include "support.h"

#include "train/average.h"
#include "train/schedule.h"

#include <math.h>
#include <stdio.h>

#define STEPS 1000

static unroll_config config_of(unroll_schedule schedule)
{
  unroll_config config;
  unroll_config_init(&config);
  config.schedule = schedule;
  config.lr = 0.5;
  config.lr_decay = 0.25;
  config.lr_min = 0.125;
  return config;
}

static double rate(const unroll_config *config, uint64_t step, uint64_t epoch, double factor)
{
  return schedule_rate(config, step, STEPS, epoch, factor);
}

/* ------------------------------------------------------------------- rates */

static void test_rate_constant_never_moves(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_CONSTANT);
  CU_ASSERT_EQUAL(rate(&config, 0, 0, 1.0), 0.5);
  CU_ASSERT_EQUAL(rate(&config, STEPS - 1, 99, 1.0), 0.5);
}

static void test_rate_warmup_rises_evenly_to_the_full_rate(void)
{
  for (int k = UNROLL_SCHEDULE_CONSTANT; k <= UNROLL_SCHEDULE_PLATEAU; ++k) {
    unroll_config config = config_of((unroll_schedule)k);
    config.warmup = 8;
    for (uint64_t step = 0; step < 8; ++step) {
      CU_ASSERT_DOUBLE_EQUAL(rate(&config, step, 0, 1.0), 0.5 * (double)(step + 1) / 8.0, 1e-15);
    }
    CU_ASSERT_DOUBLE_EQUAL(rate(&config, 8, 0, 1.0), 0.5, 1e-15); /* and goes on from there */
  }
}

static void test_rate_step_decays_with_epochs(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_STEP);
  config.decay_every = 3;
  for (uint64_t epoch = 0; epoch < 10; ++epoch) {
    CU_ASSERT_DOUBLE_EQUAL(rate(&config, 500, epoch, 1.0), 0.5 * pow(0.25, (double)(epoch / 3)),
                           1e-15);
  }
}

/* Zaremba et al. (2014): the full rate for the first epochs, then a decay at the beginning of each. */
static void test_rate_step_begins_to_decay_from_an_epoch_on(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_STEP);
  config.decay_from = 4;
  for (uint64_t epoch = 0; epoch < 10; ++epoch) {
    double k = epoch < 4 ? 0 : (double)(epoch - 3);
    CU_ASSERT_DOUBLE_EQUAL(rate(&config, 500, epoch, 1.0), 0.5 * pow(0.25, k), 1e-15);
  }
  config.decay_every = 3; /* epochs 4, 7, 10 */
  for (uint64_t epoch = 0; epoch < 12; ++epoch) {
    double k = (epoch >= 4) + (epoch >= 7) + (epoch >= 10);
    CU_ASSERT_DOUBLE_EQUAL(rate(&config, 500, epoch, 1.0), 0.5 * pow(0.25, k), 1e-15);
  }
}

/* PyTorch's word_language_model: a quarter of the rate at each validation that is no new best. */
static void test_plateau_with_patience_one_decays_at_once(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_PLATEAU);
  config.patience = 1;
  const double losses[] = {5, 4, 4.5, 4.2, 3, 3.5};
  const double factors[] = {1, 1, 0.25, 0.0625, 0.0625, 0.015625};
  run_state state = {.best_loss = INFINITY, .lr_factor = 1.0};
  for (size_t i = 0; i < sizeof losses / sizeof losses[0]; ++i) {
    state.step = i + 1;
    (void)schedule_record_validation(&config, losses[i], &state);
    CU_ASSERT_EQUAL(state.lr_factor, factors[i]);
  }
}

static void test_rate_cosine_from_lr_to_lr_min(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_COSINE);
  CU_ASSERT_EQUAL(rate(&config, 0, 0, 1.0), 0.5);
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, STEPS / 2, 0, 1.0), (0.5 + 0.125) / 2, 1e-15);
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, STEPS, 0, 1.0), 0.125, 1e-15);
  for (uint64_t step = 0; step < STEPS; ++step) {
    double now = rate(&config, step, 0, 1.0), mirror = rate(&config, STEPS - step, 0, 1.0);
    CU_ASSERT(rate(&config, step + 1, 0, 1.0) < now);
    CU_ASSERT_DOUBLE_EQUAL(now + mirror, 0.5 + 0.125, 1e-14); /* odd about its middle */
  }
}

static void test_rate_cosine_begins_after_warmup(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_COSINE);
  config.warmup = 200;
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, 200, 0, 1.0), 0.5, 1e-15);
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, 600, 0, 1.0), (0.5 + 0.125) / 2, 1e-15);
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, STEPS, 0, 1.0), 0.125, 1e-15);
}

static void test_rate_warmup_as_long_as_the_run_is_finite(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_COSINE);
  config.warmup = STEPS;
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, STEPS - 1, 0, 1.0), 0.5, 1e-15);
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, STEPS, 0, 1.0), 0.5, 1e-15);
  config.warmup = 5 * STEPS;
  CU_ASSERT_DOUBLE_EQUAL(rate(&config, STEPS - 1, 0, 1.0), 0.1, 1e-15);
}

static void test_rate_plateau_follows_the_factor(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_PLATEAU);
  CU_ASSERT_EQUAL(rate(&config, 7, 0, 1.0), 0.5);
  CU_ASSERT_EQUAL(rate(&config, 7, 0, 0.0625), 0.03125);
}

/* -------------------------------------------------------------- validations */

static run_state fresh(void)
{
  return (run_state){.best_loss = INFINITY, .lr_factor = 1.0};
}

/* Validate with each loss of a list, one step apart; the state at the end. */
static run_state validated(const unroll_config *config, size_t n, const double *losses)
{
  run_state state = fresh();
  for (size_t i = 0; i < n; ++i) {
    state.step = i + 1;
    (void)schedule_record_validation(config, losses[i], &state);
  }
  return state;
}

static void test_validated_keeps_the_best(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_CONSTANT);
  run_state state = fresh();
  state.step = 10;
  CU_ASSERT_TRUE(schedule_record_validation(&config, 3.0, &state));
  state.step = 20;
  CU_ASSERT_TRUE(schedule_record_validation(&config, 2.0, &state));
  state.step = 30;
  CU_ASSERT_FALSE(schedule_record_validation(&config, 2.0, &state)); /* as good is not better */
  state.step = 40;
  CU_ASSERT_FALSE(schedule_record_validation(&config, (double)NAN, &state));
  CU_ASSERT_EQUAL(state.best_loss, 2.0);
  CU_ASSERT_EQUAL(state.best_step, 20);
  CU_ASSERT_EQUAL(state.validations_since_best, 2);
  CU_ASSERT_EQUAL(state.lr_factor, 1.0);
}

static void test_validated_plateau_decays_after_each_patience(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_PLATEAU);
  config.patience = 2;
  static const double losses[] = {5, 4, 4.5, 4.5, 4.5, 4.5, 3, 3.5, 3.5};
  static const double factor[] = {1, 1, 1, 0.25, 0.25, 0.0625, 0.0625, 0.0625, 0.015625};
  for (size_t n = 1; n <= sizeof losses / sizeof losses[0]; ++n) {
    CU_ASSERT_EQUAL(validated(&config, n, losses).lr_factor, factor[n - 1]);
  }
}

/* A new best begins the wait anew. */
static void test_validated_plateau_waits_from_the_best(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_PLATEAU);
  config.patience = 2;
  static const double losses[] = {5, 5.5, 4, 4.5, 4.5};
  CU_ASSERT_EQUAL(validated(&config, 4, losses).lr_factor, 1.0);
  CU_ASSERT_EQUAL(validated(&config, 5, losses).lr_factor, 0.25);
}

static void test_stops_early_after_validations_without_a_best(void)
{
  unroll_config config = config_of(UNROLL_SCHEDULE_PLATEAU);
  static const double losses[] = {5, 4, 4.5, 4.5, 3, 3.5, 3.5, 3.5};
  config.early_stop = 3;
  for (size_t n = 1; n <= sizeof losses / sizeof losses[0]; ++n) {
    run_state state = validated(&config, n, losses);
    CU_ASSERT_EQUAL(schedule_stops_early(&config, &state), n == 8);
  }
  config.early_stop = 0;
  run_state state = validated(&config, 8, losses);
  CU_ASSERT_FALSE(schedule_stops_early(&config, &state));
}

/* ----------------------------------------------------------------- average */

static void test_average_has_its_share_from_an_epoch_on(void)
{
  unroll_config config;
  run_state state = {.epoch = 3, .averaged = 4};
  unroll_config_init(&config);
  CU_ASSERT_EQUAL(average_share(&config, &state), 0.0); /* none */
  config.average = UNROLL_AVERAGE_ASGD;
  config.average_from = 4;
  CU_ASSERT_EQUAL(average_share(&config, &state), 0.0);
  config.average_from = 3;
  CU_ASSERT_EQUAL(average_share(&config, &state), 0.2);
  config.average = UNROLL_AVERAGE_EMA;
  config.average_decay = 0.9;
  CU_ASSERT_DOUBLE_EQUAL(average_share(&config, &state), 10.0 / 14, 1e-15); /* an early one */
  state.averaged = 0;
  CU_ASSERT_EQUAL(average_share(&config, &state), 1.0);
  state.averaged = 400;
  CU_ASSERT_DOUBLE_EQUAL(average_share(&config, &state), 0.1, 1e-15);
  config.average_from = 4;
  CU_ASSERT_EQUAL(average_share(&config, &state), 0.0);
  config.average = UNROLL_AVERAGE_NT_ASGD;
  CU_ASSERT_EQUAL(average_share(&config, &state), 0.0);
  state.averages = 1;
  CU_ASSERT_EQUAL(average_share(&config, &state), 1.0 / 401);
}

/* Merity et al.: t > n and v > min of logs[0 .. t - n - 1], t being the number of validations before v. */
static void test_average_begins_where_the_loss_no_longer_falls(void)
{
  static const double losses[] = {9, 6, 5, 5.5, 5.25, 5.75, 4, 4.5, 5.125, 4.25, 3};
  run_valid_row rows[1 + sizeof losses / sizeof losses[0]] = {{.step = 0, .loss = 1}};
  for (size_t i = 0; i < sizeof losses / sizeof losses[0]; ++i) {
    rows[i + 1] = (run_valid_row){.step = i + 1, .loss = losses[i]};
  }
  for (uint64_t n = 1; n <= 4; ++n) {
    size_t triggered = 0;
    for (size_t t = 0; t < sizeof losses / sizeof losses[0]; ++t) {
      double lowest = INFINITY;
      for (size_t l = 0; t > n && l <= t - n - 1; ++l) { lowest = fmin(lowest, losses[l]); }
      CU_ASSERT_EQUAL(average_is_triggered(n, t + 1, rows + 1), losses[t] > lowest);
      CU_ASSERT_EQUAL(average_is_triggered(n, t + 2, rows), losses[t] > lowest);
      triggered += losses[t] > lowest;
    }
    CU_ASSERT(triggered > 0);
  }
  CU_ASSERT_FALSE(average_is_triggered(1, 0, rows));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"constant", test_rate_constant_never_moves},
      {"warm-up, every schedule", test_rate_warmup_rises_evenly_to_the_full_rate},
      {"step", test_rate_step_decays_with_epochs},
      {"step: from an epoch on", test_rate_step_begins_to_decay_from_an_epoch_on},
      {"plateau: at once", test_plateau_with_patience_one_decays_at_once},
      {"cosine at its ends", test_rate_cosine_from_lr_to_lr_min},
      {"cosine after warm-up", test_rate_cosine_begins_after_warmup},
      {"warm-up longer than the run", test_rate_warmup_as_long_as_the_run_is_finite},
      {"plateau", test_rate_plateau_follows_the_factor},
      {"best validation", test_validated_keeps_the_best},
      {"plateau: patience", test_validated_plateau_decays_after_each_patience},
      {"plateau: a new best", test_validated_plateau_waits_from_the_best},
      {"average: its share", test_average_has_its_share_from_an_epoch_on},
      {"average: its trigger", test_average_begins_where_the_loss_no_longer_falls},
      {"early stop", test_stops_early_after_validations_without_a_best},
  };
  return run_cases("schedule", sizeof cases / sizeof cases[0], cases);
}
