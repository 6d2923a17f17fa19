#include "base/build.h"
#include "base/check.h"
#include "base/cpu.h"
#include "cli/cli.h"
#include "comm/comm.h"
#include "kernels/dispatch.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>
#include <unroll/bench.h>

struct bench_settings {
  uint64_t vocab, hidden, steps, batch, layers;
  unroll_cell cell;
  unroll_optimizer optimizer;
  double clip;
  uint64_t shards;
  double seconds;
  bool exchange, json;
};

#define AT(field)       .offset = offsetof(struct bench_settings, field)
#define MODEL           "Model"
#define STEP            "Step"
#define N_MODEL_OPTIONS 6 /* the first rows; the last of them is --cell */

static const option rows[] = {
    {.name = "vocab",
     .type = OPTION_COUNT,
     AT(vocab),
     .default_text = "65",
     .unit = "tokens",
     .low = 1,
     .high = 0x1p31 - 1,
     .heading = MODEL,
     .help = "size of the vocabulary"},
    {.name = "hidden",
     .type = OPTION_COUNT,
     AT(hidden),
     .default_text = "512",
     .unit = "units",
     .low = 1,
     .high = 65536,
     .heading = MODEL,
     .help = "size of each hidden layer"},
    {.name = "steps",
     .type = OPTION_COUNT,
     AT(steps),
     .default_text = "64",
     .unit = "tokens",
     .low = 1,
     .high = 1e6,
     .heading = MODEL,
     .help = "length of a window"},
    {.name = "batch",
     .type = OPTION_COUNT,
     AT(batch),
     .default_text = "64",
     .unit = "sequences",
     .low = 1,
     .high = 1e6,
     .heading = MODEL,
     .help = "size of the batch over all ranks together"},
    {.name = "layers",
     .type = OPTION_COUNT,
     AT(layers),
     .default_text = "1",
     .low = 1,
     .high = 64,
     .heading = MODEL,
     .help = "hidden layers, one above the other"},
    {.name = "cell",
     .type = OPTION_CHOICE,
     AT(cell),
     .default_text = "rnn",
     .choices = "rnn|lstm|gru|mingru",
     .heading = MODEL,
     .help = "what computes the hidden state"},
    {.name = "optimizer",
     .type = OPTION_CHOICE,
     AT(optimizer),
     .default_text = "sgd",
     .choices = "sgd|momentum|adam",
     .heading = STEP,
     .help = "rule of the update"},
    {.name = "clip",
     .type = OPTION_REAL,
     AT(clip),
     .default_text = "1",
     .low = 0,
     .high = INFINITY,
     .heading = STEP,
     .help = "largest norm of the gradient; 0: no limit"},
    {.name = "shards",
     .type = OPTION_COUNT,
     AT(shards),
     .default_text = "0",
     .low = 0,
     .high = 1e6,
     .heading = STEP,
     .help = "parts of the batch that are summed as a tree; 0: as train would choose"},
    {.name = "seconds",
     .type = OPTION_REAL,
     AT(seconds),
     .default_text = "3",
     .unit = "seconds",
     .low = 0,
     .above_low = true,
     .high = 1e6,
     .heading = "Measurement",
     .help = "time for each configuration"},
    {.name = "exchange",
     .type = OPTION_FLAG,
     AT(exchange),
     .default_text = "no",
     .heading = "Measurement",
     .help = "measure the sum over the ranks alone, from 4 bytes to 256 MiB, beside MPI_Allreduce"},
    {CLI_JSON, AT(json)},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* ----------------------------------------------------------- configurations */

typedef struct configuration {
  const char *name;
  uint64_t V, H, T, B, L;
  unroll_cell cell;
} configuration;

/* Where speed is compared: from a textbook example to word models, then gated cells of such sizes. */
static const configuration named[] = {
    {"d2l", 28, 32, 32, 1024, 1, UNROLL_CELL_RNN},
    {"char128", 65, 128, 50, 50, 1, UNROLL_CELL_RNN},
    {"char512", 65, 512, 64, 64, 1, UNROLL_CELL_RNN},
    {"char1024", 256, 1024, 64, 64, 1, UNROLL_CELL_RNN},
    {"word200", 10000, 200, 35, 20, 1, UNROLL_CELL_RNN},
    {"word650", 10000, 650, 35, 20, 1, UNROLL_CELL_RNN},
    {"lstm128", 65, 128, 50, 50, 1, UNROLL_CELL_LSTM},
    {"gru128", 65, 128, 50, 50, 1, UNROLL_CELL_GRU},
    {"lstm512", 65, 512, 64, 64, 1, UNROLL_CELL_LSTM},
    {"gru512", 65, 512, 64, 64, 1, UNROLL_CELL_GRU},
    {"mingru512", 65, 512, 64, 64, 1, UNROLL_CELL_MINGRU},
    {"wordlstm650", 10000, 650, 35, 20, 2, UNROLL_CELL_LSTM},
};
#define N_NAMED (sizeof named / sizeof named[0])
#define NAMED_NAMES                                                                                \
  "d2l, char128, char512, char1024, word200, word650, lstm128, gru128, lstm512, gru512, "          \
  "mingru512 and wordlstm650"

static const configuration *find_named(const char *name)
{
  for (size_t i = 0; i < N_NAMED; ++i) {
    if (strcmp(named[i].name, name) == 0) { return &named[i]; }
  }
  return NULL;
}

static bool model_given(const cli_call *call)
{
  for (size_t k = 0; k < N_MODEL_OPTIONS; ++k) {
    if (call->given[k]) { return true; }
  }
  return false;
}

/* Configurations to measure: the operands, or one by its sizes and cell, or all that have a name. */
static size_t count(const cli_call *call)
{
  return call->n_operands > 0 ? call->n_operands : model_given(call) ? 1 : N_NAMED;
}

static configuration choose(const cli_call *call, size_t i)
{
  const struct bench_settings *s = call->settings;
  if (call->n_operands > 0) { return *find_named(call->operands[i]); }
  if (model_given(call)) {
    return (configuration){"custom", s->vocab, s->hidden, s->steps, s->batch, s->layers, s->cell};
  }
  return named[i];
}

static unroll_status check(const cli_call *call)
{
  const struct bench_settings *s = call->settings;
  if (s->exchange && (call->n_operands > 0 || model_given(call))) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--exchange sums arrays of its own sizes; legal is no NAME and none of the "
                       "options under " MODEL);
  }
  for (size_t i = 0; i < call->n_operands; ++i) {
    if (find_named(call->operands[i]) == NULL) {
      return unroll_fail(UNROLL_ERR_ARG, "%s: no such configuration; legal are " NAMED_NAMES,
                         call->operands[i]);
    }
  }
  if (call->n_operands > 0 && model_given(call)) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "%s is a configuration by name, and options under " MODEL
                       " are given too; legal is one of both",
                       call->operands[0]);
  }
  return UNROLL_OK;
}

/* ----------------------------------------------------------------- reports */

/* As the option --cell names it. */
static const char *cell_name(unroll_cell kind, size_t size, char *out)
{
  const struct bench_settings s = {.cell = kind};
  options_format(&rows[N_MODEL_OPTIONS - 1], &s, size, out);
  return out;
}

static void print_speed_header(void)
{
  (void)printf("%-11s %6s %5s %5s %5s %2s %6s %10s %9s %13s %9s %9s %14s %8s %10s\n", "name", "V",
               "H", "T", "B", "L", "cell", "tokens/s", "GFLOP/s", "peak GFLOP/s", "fraction",
               "step ms", "exchange GB/s", "hidden %", "memory MB");
}

static void print_speed(const configuration *c, const unroll_bench_result *r)
{
  char bandwidth[32] = "-", hidden[32] = "-", kind[32];
  if (r->ranks > 1) {
    (void)snprintf(bandwidth, sizeof bandwidth, "%.4g", r->exchange_bandwidth * 1e-9);
    (void)snprintf(hidden, sizeof hidden, "%.0f", 100.0 * r->exchange_hidden);
  }
  (void)printf("%-11s %6" PRIu64 " %5" PRIu64 " %5" PRIu64 " %5" PRIu64 " %2" PRIu64
               " %6s %10.0f %9.1f %13.1f %9.3f %9.3f %14s %8s %10.0f\n",
               c->name, c->V, c->H, c->T, c->B, c->L, cell_name(c->cell, sizeof kind, kind),
               r->tokens_per_second, r->gflops, r->peak_gflops, r->fraction_of_peak,
               r->step_seconds * 1e3, bandwidth, hidden, (double)r->peak_memory * 1e-6);
}

/* The phases of a step, in the order of the columns and of the keys. */
typedef struct phase {
  const char *name, *key;
  size_t offset;
} phase;

#define PHASE(field)                                                                               \
  {                                                                                                \
#field, #field "_seconds", offsetof(unroll_bench_result, field##_seconds)                      \
  }

static const phase phases[] = {PHASE(forward), PHASE(output), PHASE(backward), PHASE(exchange),
                               PHASE(wait),    PHASE(norm),   PHASE(update),   PHASE(other)};
#define N_PHASES (sizeof phases / sizeof phases[0])

static double seconds_of(const phase *p, const unroll_bench_result *r)
{
  return *(const double *)((const char *)r + p->offset);
}

static void print_phases_header(void)
{
  (void)printf("\n%-11s %9s", "% of step", "step ms");
  for (size_t i = 0; i < N_PHASES; ++i) { (void)printf(" %8s", phases[i].name); }
  (void)printf("\n");
}

static void print_phases(const configuration *c, const unroll_bench_result *r)
{
  (void)printf("%-11s %9.3f", c->name, r->step_seconds * 1e3);
  for (size_t i = 0; i < N_PHASES; ++i) {
    (void)printf(" %8.1f", 100 * seconds_of(&phases[i], r) / r->step_seconds);
  }
  (void)printf("\n");
}

static json_t *pack_result(const configuration *c, const unroll_bench_result *r)
{
  char kind[32];
  json_t *o = json_pack(
      "{s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "name",
      c->name, "vocab", (json_int_t)c->V, "hidden", (json_int_t)c->H, "steps", (json_int_t)c->T,
      "batch", (json_int_t)c->B, "layers", (json_int_t)c->L, "cell",
      cell_name(c->cell, sizeof kind, kind), "ranks", (json_int_t)r->ranks, "threads",
      (json_int_t)r->threads, "shards", (json_int_t)r->shards, "updates", (json_int_t)r->updates,
      "tokens_per_second", r->tokens_per_second, "gflops", r->gflops, "peak_gflops", r->peak_gflops,
      "fraction_of_peak", r->fraction_of_peak, "step_seconds", r->step_seconds);
  for (size_t i = 0; i < N_PHASES; ++i) {
    (void)json_object_set_new(o, phases[i].key, json_real(seconds_of(&phases[i], r)));
  }
  (void)json_object_set_new(o, "exchange_bytes", json_integer((json_int_t)r->exchange_bytes));
  (void)json_object_set_new(o, "exchange_bandwidth",
                            r->ranks > 1 ? json_real(r->exchange_bandwidth) : json_null());
  (void)json_object_set_new(o, "exchange_hidden",
                            r->ranks > 1 ? json_real(r->exchange_hidden) : json_null());
  (void)json_object_set_new(o, "peak_memory", json_integer((json_int_t)r->peak_memory));
  (void)json_object_set_new(o, "loss", json_real(r->loss));
  return o;
}

static size_t bytes_of(size_t reals)
{
  return reals * sizeof(unroll_real);
}

/* And the blocks that follow them. */
static void print_caches(const cpu_cache_sizes *c)
{
  const block_sizes b = blocks_of(c);
  (void)printf("\ncaches: L1d %.10g KiB, L2 %.10g KiB, L3 %.10g KiB\n", (double)c->l1d / 1024,
               (double)c->l2 / 1024, (double)c->l3 / 1024);
  (void)printf("blocks: panel %.10g KiB, block %.10g KiB, whole %.10g KiB\n",
               (double)bytes_of(b.panel) / 1024, (double)bytes_of(b.block) / 1024,
               (double)bytes_of(b.whole) / 1024);
}

/* Takes over `results`, to be printed under `key`; `lost`: there was no memory for one. */
static unroll_status print_json(const cpu_cache_sizes *caches, const char *key, json_t *results,
                                bool lost)
{
  char cpu[256];
  cpu_name(sizeof cpu, cpu);
  const block_sizes b = blocks_of(caches);
  json_t *object = json_pack(
      "{s:s, s:s, s:s, s:s, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:o}", "version", UNROLL_VERSION,
      "revision", build_revision, "cpu", cpu, "kernels", kernels_name(), "caches", "l1d",
      (json_int_t)caches->l1d, "l2", (json_int_t)caches->l2, "l3", (json_int_t)caches->l3, "blocks",
      "panel", (json_int_t)bytes_of(b.panel), "block", (json_int_t)bytes_of(b.block), "whole",
      (json_int_t)bytes_of(b.whole), key, results);
  return cli_print_json(object, object == NULL || lost);
}

/* --------------------------------------------------------------------- run */

static unroll_config settings_of(const struct bench_settings *s, const configuration *c)
{
  unroll_config config;
  unroll_config_init(&config);
  config.hidden = c->H;
  config.steps = c->T;
  config.batch = c->B;
  config.layers = c->L;
  config.cell = c->cell;
  config.optimizer = s->optimizer;
  config.clip = s->clip;
  config.shards = s->shards;
  return config;
}

#define EXCHANGE_LEAST ((uint64_t)4)
#define EXCHANGE_MOST  ((uint64_t)256 << 20)

/* The exchange alone, from a few bytes to the gradient of a large model. */
static unroll_status run_exchange(const cli_call *call, const cpu_cache_sizes *caches)
{
  unroll_status st = UNROLL_OK;
  const struct bench_settings *s = call->settings;
  const bool root = unroll_comm_rank(call->comm) == 0;
  bool lost = false;
  json_t *all = json_array();

  UNROLL_TRY(banner_print(call->comm));
  if (root && !s->json) {
    (void)printf("%12s %12s %14s %9s %18s %9s %6s\n", "bytes", "bytes sent", "exchange us", "GB/s",
                 "MPI_Allreduce us", "GB/s", "ratio");
  }
  for (uint64_t bytes = EXCHANGE_LEAST; bytes <= EXCHANGE_MOST; bytes *= 4) {
    unroll_exchange_result r;
    UNROLL_TRY(unroll_bench_exchange(call->comm, bytes, s->seconds, &r));
    const double rate = (double)r.bytes / r.seconds, mpi_rate = (double)r.bytes / r.mpi_seconds;
    if (root && s->json) {
      json_t *o = json_pack("{s:I, s:I, s:f, s:f, s:f, s:f}", "bytes", (json_int_t)r.bytes,
                            "sent_bytes", (json_int_t)r.sent, "seconds", r.seconds, "bandwidth",
                            rate, "mpi_seconds", r.mpi_seconds, "mpi_bandwidth", mpi_rate);
      lost |= json_array_append_new(all, o) != 0;
    } else if (root) {
      (void)printf("%12" PRIu64 " %12" PRIu64 " %14.1f %9.4f %18.1f %9.4f %6.2f\n", r.bytes, r.sent,
                   r.seconds * 1e6, rate * 1e-9, r.mpi_seconds * 1e6, mpi_rate * 1e-9,
                   r.mpi_seconds / r.seconds);
    }
  }
  if (root && s->json) {
    st = print_json(caches, "exchange", all, lost);
    all = NULL;
  }

cleanup:
  json_decref(all);
  return st;
}

static unroll_status run_steps(const cli_call *call, const cpu_cache_sizes *caches)
{
  unroll_status st = UNROLL_OK;
  const struct bench_settings *s = call->settings;
  const bool root = unroll_comm_rank(call->comm) == 0;
  const bool optional = call->n_operands == 0 && !model_given(call);
  size_t n = 0;
  bool lost = false;
  configuration done[N_NAMED];
  unroll_bench_result results[N_NAMED];
  json_t *all = json_array();

  UNROLL_TRY(banner_print(call->comm));
  if (root && !s->json) { print_speed_header(); }
  for (size_t i = 0; i < count(call); ++i) {
    const configuration c = choose(call, i);
    const unroll_config config = settings_of(s, &c);
    st = unroll_bench(call->comm, c.V, &config, s->seconds, &results[n]);
    if (st == UNROLL_ERR_ARG && optional) { /* a batch too small for so many ranks */
      if (root) { (void)fprintf(stderr, "left out: %s: %s\n", c.name, unroll_message()); }
      st = UNROLL_OK;
      continue;
    }
    UNROLL_TRY(st);
    if (root && s->json) { lost |= json_array_append_new(all, pack_result(&c, &results[n])) != 0; }
    if (root && !s->json) { print_speed(&c, &results[n]); }
    done[n++] = c;
  }
  if (root && s->json) {
    st = print_json(caches, "configurations", all, lost);
    all = NULL;
  } else if (root) {
    print_phases_header();
    for (size_t i = 0; i < n; ++i) { print_phases(&done[i], &results[i]); }
    print_caches(caches);
  }

cleanup:
  json_decref(all);
  return st;
}

static unroll_status run(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct bench_settings *s = call->settings;
  cpu_cache_sizes caches;

  UNROLL_TRY(comm_agree(call->comm, cpu_caches(CPU_CACHE_FOLDER, &caches)));
  st = s->exchange ? run_exchange(call, &caches) : run_steps(call, &caches);

cleanup:
  return st;
}

const cli_command cli_bench = {
    .usage =
        {.command = "bench",
         .operands = "[NAME]...",
         .max_operands = N_NAMED,
         .purpose =
             "Measure the speed of training on this machine.\n"
             "\n"
             "The whole training step runs on synthetic tokens: forward, backward, sum over\n"
             "the ranks, clip, update. NAME is d2l, char128, char512, char1024, word200 or\n"
             "word650, of plain networks, or lstm128, gru128, lstm512, gru512, mingru512\n"
             "(sizes of char128 and char512) or wordlstm650 (of word650, two layers). Without\n"
             "names and without options under Model all of them are measured.",
         .notes =
             "Floating-point operations of a token: 6 G H^2 + 6 H V, and 12 G H^2 for each\n"
             "further layer, with G = 1, lstm 4, gru 3; a mingru has 6 H V, and 12 H^2 for\n"
             "each further layer. The peak is that of multiply-adds in registers, of all\n"
             "threads of all ranks at once, measured before each block of steps. Figures are\n"
             "of the median of nine blocks of steps. Phases are means over the ranks;\n"
             "`exchange` is work on messages, `wait` is waiting for them. `exchange GB/s` is\n"
             "the bytes that a step sums over the ranks by the time of an exchange with\n"
             "nothing beside it, and `hidden` the share of that time that runs beside the\n"
             "computing. `memory` is the largest of a rank since the program started.\n"
             "`caches` are those of the first core, or what the environment variable\n"
             "UNROLL_CACHES says, `blocks` what the kernels take of an operand at a time for\n"
             "them (src/kernels/blocks.h). Compare only figures of one run.\n"
             "\n"
             "With --exchange `bytes sent` is what a rank sends to others that share no memory\n"
             "with it, and `ratio` how many times sooner than MPI_Allreduce it ends.\n"
             "\n"
             "Examples:\n"
             "  unroll bench\n"
             "  mpirun -n 2 unroll bench --json char512 char1024\n"
             "  mpirun -n 4 unroll bench --exchange\n"
             "  unroll bench --vocab 10000 --hidden 650 --steps 35 --batch 20 --layers 2\n"
             "  unroll bench --cell gru --hidden 256"},
    .table = &table,
    .settings_size = sizeof(struct bench_settings),
    .check = check,
    .run = run,
};
