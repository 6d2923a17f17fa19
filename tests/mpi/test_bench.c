#include "support.h"

#include "base/memory.h"
#include "kernels/dispatch.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <unroll/bench.h>

/* Every number of ranks of the suite (1, 2, 3, 4, 8) shares 24 shards. */
static unroll_config small_config(void)
{
  unroll_config config;
  unroll_config_init(&config);
  config.hidden = 20;
  config.steps = 6;
  config.batch = 24;
  config.shards = 24;
  config.optimizer = UNROLL_OPTIMIZER_SGD;
  return config;
}

#define V       50
#define SECONDS 0.02

static void test_bench_figures_belong_together(void)
{
  const unroll_config config = small_config();
  unroll_bench_result r = {0};
  CHECK_OK(unroll_bench(test_comm, V, &config, SECONDS, &r));

  CHECK_ALL(r.ranks == (uint64_t)test_size && r.threads == (uint64_t)omp_get_max_threads());
  CHECK_ALL(r.shards == 24 && r.updates >= 9);
  double work = 6 * 20.0 * 20.0 + 6 * 20.0 * V;
  CHECK_ALL(fabs(r.gflops / (r.tokens_per_second * work * 1e-9) - 1) < 1e-12);
  CHECK_ALL(fabs(r.fraction_of_peak * r.peak_gflops / r.gflops - 1) < 1e-12);
  CHECK_ALL(r.fraction_of_peak > 0); /* not below 1: they are timed at two moments */
  /* A step of the slowest rank is at least as long as the mean over the ranks. */
  double slowest = 24.0 * 6.0 / r.tokens_per_second;
  CHECK_ALL(r.step_seconds > 0 && r.step_seconds <= slowest * (1 + 1e-9));
  CHECK_ALL(test_size > 1 || fabs(r.step_seconds / slowest - 1) < 1e-9);
}

static void test_bench_phases_add_up_to_the_step(void)
{
  const unroll_config config = small_config();
  unroll_bench_result r = {0};
  CHECK_OK(unroll_bench(test_comm, V, &config, SECONDS, &r));

  const double phases[] = {r.forward_seconds, r.output_seconds, r.backward_seconds, r.norm_seconds,
                           r.update_seconds,  r.other_seconds,  r.exchange_seconds, r.wait_seconds};
  double sum = 0;
  for (size_t i = 0; i < sizeof phases / sizeof phases[0]; ++i) {
    CHECK_ALL(phases[i] >= 0);
    sum += phases[i];
  }
  CHECK_ALL(fabs(sum / r.step_seconds - 1) < 1e-9);
  CHECK_ALL(r.forward_seconds > 0 && r.output_seconds > 0 && r.backward_seconds > 0);
  CHECK_ALL(r.update_seconds > 0);
  CHECK_ALL(r.other_seconds < 0.9 * r.step_seconds); /* the stopwatches see the work */
}

static void test_bench_exchange_is_of_the_gradient(void)
{
  const unroll_config config = small_config();
  unroll_bench_result r = {0};
  CHECK_OK(unroll_bench(test_comm, V, &config, SECONDS, &r));

  /* (H, V), (H, H), (H), (V, H), (V), and padding */
  size_t parameters = 20 * V + 20 * 20 + 20 + V * 20 + V;
  CHECK_ALL(r.exchange_bytes >= parameters * sizeof(unroll_real));
  CHECK_ALL(r.exchange_bytes < 3 * parameters * sizeof(unroll_real));
  CHECK_ALL((r.exchange_bandwidth > 0) == (test_size > 1));
  CHECK_ALL(r.peak_memory > r.exchange_bytes);
}

/* Whoever knows nothing says that all tokens are alike; with a high rate the few windows would be learnt by heart. */
static void test_bench_loss_is_that_of_random_tokens(void)
{
  unroll_config config = small_config();
  unroll_bench_result r = {0};
  config.lr = 1e-9;
  CHECK_OK(unroll_bench(test_comm, V, &config, SECONDS, &r));
  CHECK_ALL(fabs(r.loss - log(V)) < 0.3);
}

static void test_bench_counts_the_work_of_further_layers(void)
{
  unroll_config config = small_config();
  unroll_bench_result r = {0};
  config.layers = 3;
  config.optimizer = UNROLL_OPTIMIZER_ADAM;
  CHECK_OK(unroll_bench(test_comm, V, &config, SECONDS, &r));
  double work = 6 * 20.0 * 20.0 + 6 * 20.0 * V + 2 * 12 * 20.0 * 20.0;
  CHECK_ALL(fabs(r.gflops / (r.tokens_per_second * work * 1e-9) - 1) < 1e-12);
}

/* By hand, of H 20 and V 50: the output 2 x 1000 forward and twice that backward, each product of (H, H) 2 x 400 and
 * so. */
static void test_bench_counts_the_work_of_gates(void)
{
  static const struct {
    unroll_cell cell;
    uint64_t layers;
    double work;
  } cases[] = {
      {UNROLL_CELL_LSTM, 1, 6000 + 4 * 2400.0},
      {UNROLL_CELL_LSTM, 2, 6000 + 12 * 2400.0},
      {UNROLL_CELL_GRU, 1, 6000 + 3 * 2400.0},
      {UNROLL_CELL_GRU, 2, 6000 + 9 * 2400.0},
      {UNROLL_CELL_MINGRU, 1, 6000},
      {UNROLL_CELL_MINGRU, 2, 6000 + 2 * 2400.0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    unroll_config config = small_config();
    unroll_bench_result r = {0};
    config.cell = cases[i].cell;
    config.layers = cases[i].layers;
    CHECK_OK(unroll_bench(test_comm, V, &config, SECONDS, &r));
    CHECK_ALL(fabs(r.gflops / (r.tokens_per_second * cases[i].work * 1e-9) - 1) < 1e-12);
  }
}

/* More steps allocate as much as few: nothing is allocated in a step. */
static void test_step_allocates_nothing(void)
{
  unroll_config config = small_config();
  unroll_bench_result few = {0}, many = {0};
  config.layers = 2;
  config.optimizer = UNROLL_OPTIMIZER_ADAM;

  int64_t start = memory_total_blocks();
  CHECK_OK(unroll_bench(test_comm, V, &config, 1e-6, &few));
  int64_t of_few = memory_total_blocks() - start, of_many = 0;
  /* On a oversubscribed machine a step may take long: longer then, until there are more of them. */
  for (double seconds = 0.2; seconds < 60 && many.updates <= few.updates; seconds *= 4) {
    start = memory_total_blocks();
    CHECK_OK(unroll_bench(test_comm, V, &config, seconds, &many));
    of_many = memory_total_blocks() - start;
  }
  CHECK_ALL(many.updates > few.updates);
  CHECK_ALL(of_many == of_few);
}

static void test_bench_of_sizes_that_do_not_fit_is_refused(void)
{
  unroll_config config = small_config();
  unroll_bench_result r = {.ranks = 77};
  config.shards = 5; /* does not divide 24 */
  CHECK_FAILS(unroll_bench(test_comm, V, &config, SECONDS, &r), UNROLL_ERR_ARG, "shards");
  CHECK_ALL(r.ranks == 77);
}

static void test_bench_of_shards_that_cannot_be_shared_is_refused(void)
{
  unroll_config config = small_config();
  unroll_bench_result r = {0};
  config.shards = 1;
  if (test_size == 1) { return; }
  CHECK_FAILS(unroll_bench(test_comm, V, &config, SECONDS, &r), UNROLL_ERR_ARG, "shards evenly");
}

/* Every chain tends to 2, so their sum tells how many there were: none may be left out. */
static void test_peak_does_the_operations_it_claims(void)
{
  static const char *const paths[] = {"portable", "avx2", "avx512"};
  const size_t rounds = 1000;
  for (size_t i = 0; i < sizeof paths / sizeof paths[0]; ++i) {
    unroll_real out[KERNELS_PAD] = {0};
    (void)setenv("UNROLL_ISA", paths[i], 1);
    if (kernels_start() != UNROLL_OK) { continue; } /* not on this CPU */
    double operations = kernels()->peak(rounds, out);
    double chains = (double)out[0] / 2;
    CHECK_ALL(chains >= 10);
    CHECK_ALL(operations == (double)rounds * 2 * chains * (double)kernels()->lanes);
  }
  (void)unsetenv("UNROLL_ISA");
  CHECK_OK(kernels_start());
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"figures belong together", test_bench_figures_belong_together},
      {"phases add up to the step", test_bench_phases_add_up_to_the_step},
      {"exchange is of the gradient", test_bench_exchange_is_of_the_gradient},
      {"loss is that of random tokens", test_bench_loss_is_that_of_random_tokens},
      {"counts the work of further layers", test_bench_counts_the_work_of_further_layers},
      {"counts the work of gates", test_bench_counts_the_work_of_gates},
      {"a step allocates nothing", test_step_allocates_nothing},
      {"sizes that do not fit are refused", test_bench_of_sizes_that_do_not_fit_is_refused},
      {"shards that cannot be shared are refused",
       test_bench_of_shards_that_cannot_be_shared_is_refused},
      {"peak does the operations it claims", test_peak_does_the_operations_it_claims},
  };
  return run_mpi_cases(argc, argv, "bench", sizeof cases / sizeof cases[0], cases);
}
