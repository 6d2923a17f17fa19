#include "base/check.h"
#include "cli/cli.h"
#include "data/corpus.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <unroll/config.h>
#include <unroll/model.h>

struct sample_settings {
  char prime[UNROLL_CONFIG_TEXT];
  uint64_t length;
  double temperature;
  uint64_t top_k;
  uint64_t seed;
  uint64_t count;
};

#define AT(field) .offset = offsetof(struct sample_settings, field)

static const option rows[] = {
    {.name = "prime",
     .type = OPTION_TEXT,
     AT(prime),
     .default_text = "",
     .unit = "text",
     .heading = "Sampling",
     .others = "prompt|start|prime-text|primetext",
     .help = "text to go on from; it is printed first"},
    {.name = "length",
     .letter = 'n',
     .type = OPTION_COUNT,
     AT(length),
     .default_text = "500",
     .unit = "tokens",
     .low = 1,
     .high = 0x1p64,
     .heading = "Sampling",
     .others = "max-tokens|max-new-tokens|num-tokens",
     .help = "text to draw"},
    {.name = "temperature",
     .type = OPTION_REAL,
     AT(temperature),
     .default_text = "1",
     .low = 0,
     .high = INFINITY,
     .heading = "Sampling",
     .others = "temp",
     .help = "below 1 the text is more likely, above 1 more varied; 0: always the likeliest token"},
    {.name = "top-k",
     .type = OPTION_COUNT,
     AT(top_k),
     .default_text = "0",
     .unit = "tokens",
     .low = 0,
     .high = 0x1p64,
     .heading = "Sampling",
     .help = "draw from the k likeliest only; 0: from all"},
    {.name = "seed",
     .type = OPTION_COUNT,
     AT(seed),
     .default_text = "1",
     .low = 0,
     .high = 0x1p64,
     .heading = "Sampling",
     .help = "of the random numbers"},
    {.name = "count",
     .type = OPTION_COUNT,
     AT(count),
     .default_text = "1",
     .unit = "samples",
     .low = 1,
     .high = 1e6,
     .heading = "Sampling",
     .others = "num-samples|samples",
     .help = "number of texts"},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

struct printing {
  const struct sample_settings *settings;
  uint64_t sample; /* from 1 */
  bool begun;
  bool terminal;
};

/* What goes before a sample comes with its first token: until then the prime may yet be refused. On a
 * terminal the text appears as it is drawn. */
static void print_text(void *context, const char *text, size_t n)
{
  struct printing *p = context;
  if (!p->begun) {
    if (p->settings->count > 1) {
      (void)printf("--- sample %" PRIu64 " of %" PRIu64 "\n", p->sample, p->settings->count);
    }
    (void)printf("%s", p->settings->prime);
    p->begun = true;
  }
  (void)fwrite(text, 1, n, stdout);
  if (p->terminal) { (void)fflush(stdout); }
}

/* main.c says why standard output failed. */
static bool output_failed(void *context)
{
  (void)context;
  return ferror(stdout) != 0;
}

static unroll_status run(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct sample_settings *s = call->settings;
  unroll_model *model = NULL;
  char unseen[256] = "";
  struct printing printing = {.settings = s, .terminal = isatty(STDOUT_FILENO) == 1};

  UNROLL_TRY(unroll_model_load(call->comm, call->operands[0], &model));
  if (unroll_comm_rank(call->comm) != 0) { goto cleanup; }
  UNROLL_TRY(vocab_unseen(unroll_model_vocab_view(model), s->prime, strlen(s->prime), sizeof unseen,
                          unseen));
  if (unseen[0] != '\0') {
    (void)fprintf(stderr,
                  "unroll: warning: --prime: the model has never seen these, which become "
                  "<unk>: %s\n",
                  unseen);
  }

  for (uint64_t k = 0; k < s->count && ferror(stdout) == 0; ++k) {
    const unroll_sampling how = {.prime = s->prime,
                                 .length = s->length,
                                 .temperature = s->temperature,
                                 .top_k = s->top_k,
                                 .seed = s->seed,
                                 .sample = k,
                                 .stop = output_failed};
    printing.begun = false;
    printing.sample = k + 1;
    UNROLL_TRY(unroll_model_sample(model, &how, print_text, &printing));
    (void)printf("\n");
  }

cleanup:
  unroll_model_free(&model);
  return st;
}

const cli_command cli_sample = {
    .usage =
        {.command = "sample",
         .operands = "RUN",
         .min_operands = 1,
         .max_operands = 1,
         .purpose =
             "Draw text from a model.\n"
             "\n"
             "The same seed draws the same text, on any number of ranks and threads; one rank\n"
             "is enough. <unk> is never drawn.",
         .notes = "Several samples are set apart by lines `--- sample 1 of 3`.\n"
                  "\n"
                  "Examples:\n"
                  "  unroll sample run.h5\n"
                  "  unroll sample --prime 'Once upon' --length 1k --temperature 0.7 run.h5"},
    .table = &table,
    .settings_size = sizeof(struct sample_settings),
    .run = run,
};
