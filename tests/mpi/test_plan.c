/* What is said of a rank of many, on that rank alone, against the rank of a run. */
#include "support.h"

#include "base/memory.h"
#include "kernels/dispatch.h"
#include "runfile/runfile.h"
#include "train/optimizer.h"
#include "train/step.h"

#include <stdlib.h>
#include <unroll/bench.h>

/* Every number of ranks of the suite (1, 2, 3, 4, 8) shares 24 shards. */
static unroll_config small_config(void)
{
  unroll_config config;
  unroll_config_init(&config);
  config.hidden = 40;
  config.layers = 2;
  config.steps = 6;
  config.batch = 24;
  config.shards = 24;
  CHECK_OK(unroll_config_resolve(&config));
  return config;
}

/* A vocabulary within the window of 144 tokens, and one beyond it, of which rows travel. */
static const size_t vocabularies[] = {50, 3000};

static unroll_params *params_of(const unroll_config *config, size_t V)
{
  unroll_params *params = NULL;
  CHECK_OK(unroll_params_new(
      &(unroll_shape){.V = V, .H = (size_t)config->hidden, .L = (size_t)config->layers}, &params));
  return params;
}

/* Of pieces of so many steps: a stepper on all ranks takes what is said on one. */
static void check_memory(const unroll_config *config, size_t longest, size_t V)
{
  unroll_params *params = params_of(config, V);
  unroll_real *moments[RUN_MOMENTS] = {NULL};
  unroll_comm *alone = NULL;
  stepper *s = NULL;
  step_memory said = {0};
  uint64_t buffers = 0;
  const size_t arrays = 1 + run_moments(config);

  CHECK_OK(kernels_start());
  CHECK_OK(unroll_comm_new(MPI_COMM_SELF, &alone));
  CHECK_OK(step_measure(alone, config, (size_t)test_size, longest, params, &said));
  CHECK_OK(comm_exchange_predict_memory(test_size, false, said.gradient, &buffers));
  for (size_t i = 0; i + 1 < arrays; ++i) {
    CHECK_OK(memory_new(params->n, sizeof *moments[i], "moments", &moments[i]));
  }
  const uint64_t before =
      memory_live_bytes() - arrays * params->n * sizeof **moments; /* which move */
  CHECK_OK(step_new(test_comm, config, (size_t)test_size, longest, params, moments, &s));
  CHECK_ALL(s->team->size == 1); /* UNROLL_TEAM, below */
  CHECK_ALL(memory_live_bytes() - before == said.workspace + buffers);
  CHECK_ALL(s->team->segment_bytes == said.gradient);
  CHECK_ALL(s->team->total_bytes == said.gradient + said.common);
  step_free(&s);
  unroll_comm_free(&alone);
  unroll_params_free(&params);
}

static void test_plan_memory_is_that_of_a_rank(void)
{
  unroll_config config = small_config();
  for (size_t i = 0; i < 2; ++i) {
    config.average = i == 0 ? UNROLL_AVERAGE_OFF : UNROLL_AVERAGE_ASGD;
    check_memory(&config, 6, vocabularies[i]);
  }
}

static void test_plan_memory_of_long_sequences(void)
{
  unroll_config config = small_config();
  config.bptt = UNROLL_BPTT_FULL;
  for (size_t i = 0; i < 2; ++i) { check_memory(&config, 2000, vocabularies[i]); }
}

/* The gradient that is summed: exactly of a small vocabulary, at most of a large one. */
static void test_plan_gradient_is_what_is_exchanged(void)
{
  const unroll_config config = small_config();
  for (size_t i = 0; i < 2; ++i) {
    unroll_params *params = params_of(&config, vocabularies[i]);
    unroll_bench_result r = {0};
    const size_t dense = step_exchange_dense_max(params, 144),
                 rows = step_exchange_rows_max(params, 144);
    const uint64_t said = (dense + rows) * sizeof(unroll_real);
    CHECK_OK(unroll_bench(test_comm, vocabularies[i], &config, 0.01, &r));
    CHECK_ALL(r.exchange_bytes <= said &&
              r.exchange_bytes > dense * sizeof(unroll_real) * (i == 1));
    CHECK_ALL(i == 1 || r.exchange_bytes == said);
    unroll_params_free(&params);
  }
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"memory is that of a rank", test_plan_memory_is_that_of_a_rank},
      {"memory of long sequences", test_plan_memory_of_long_sequences},
      {"gradient is what is exchanged", test_plan_gradient_is_what_is_exchanged},
  };
  (void)setenv("UNROLL_TEAM", "1", 1);
  return run_mpi_cases(argc, argv, "plan", sizeof cases / sizeof cases[0], cases);
}
