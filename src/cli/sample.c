#include "base/check.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "data/corpus.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <unroll/config.h>
#include <unroll/model.h>

struct sample_settings {
  unroll_weights weights;
  char prime[UNROLL_CONFIG_TEXT];
  char prime_file[UNROLL_CONFIG_TEXT];
  uint64_t length;
  double temperature;
  uint64_t top_k;
  double top_p;
  uint64_t seed;
  uint64_t count;
};

#define AT(field) .offset = offsetof(struct sample_settings, field)

static const option rows[] = {
    {CLI_WEIGHTS, .offset = offsetof(struct sample_settings, weights)},
    {.name = "prime",
     .type = OPTION_TEXT,
     AT(prime),
     .default_text = "",
     .unit = "text",
     .heading = "Sampling",
     .others = "prompt|start|prime-text|primetext",
     .help = "text to go on from; it is printed first"},
    {.name = "prime-file",
     .type = OPTION_TEXT,
     AT(prime_file),
     .default_text = "",
     .unit = "file",
     .heading = "Sampling",
     .others = "prompt-file",
     .help = "go on from the text of this file"},
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
    {.name = "top-p",
     .type = OPTION_REAL,
     AT(top_p),
     .default_text = "1",
     .low = 0,
     .high = 1,
     .above_low = true,
     .heading = "Sampling",
     .others = "nucleus",
     .help = "of these, draw from the fewest likeliest that together have this share or more of "
             "their probability"},
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

/* ------------------------------------------------------------------ a sample */

struct printing {
  const struct sample_settings *settings;
  const char *prime;
  uint64_t sample; /* from 1 */
  bool begun;
  bool
      at_once; /* whoever reads sees each token as it is drawn, and when he has gone no more are drawn */
};

/* What goes before a sample comes with its first token: until then the prime may yet be refused. */
static void print_text(void *context, const char *text, size_t n)
{
  struct printing *p = context;
  if (!p->begun) {
    if (p->settings->count > 1) {
      (void)printf("--- sample %" PRIu64 " of %" PRIu64 "\n", p->sample, p->settings->count);
    }
    (void)printf("%s", p->prime);
    p->begun = true;
  }
  (void)fwrite(text, 1, n, stdout);
  if (p->at_once) { (void)fflush(stdout); }
}

/* main.c says why standard output failed. */
static bool output_failed(void *context)
{
  (void)context;
  return ferror(stdout) != 0;
}

/* Is standard output anything but a file? */
static bool is_output_read(void)
{
  struct stat out;
  return fstat(STDOUT_FILENO, &out) == 0 && !S_ISREG(out.st_mode);
}

static unroll_status warn_of_unseen(const unroll_model *model, const char *prime)
{
  char unseen[256] = "";
  unroll_status st =
      vocab_unseen(unroll_model_vocab_view(model), prime, strlen(prime), sizeof unseen, unseen);
  if (st == UNROLL_OK && unseen[0] != '\0') {
    (void)fprintf(stderr,
                  "unroll: warning: --prime: the model has never seen these, which become "
                  "<unk>: %s\n",
                  unseen);
  }
  return st;
}

/* Print the prime and how it goes on, as sample number `sample`, from 0. */
static unroll_status draw(unroll_model *model, const struct sample_settings *s, const char *prime,
                          uint64_t sample)
{
  struct printing printing = {
      .settings = s, .prime = prime, .sample = sample + 1, .at_once = is_output_read()};
  const unroll_sampling how = {.prime = prime,
                               .length = s->length,
                               .temperature = s->temperature,
                               .top_k = s->top_k,
                               .top_p = s->top_p,
                               .seed = s->seed,
                               .sample = sample,
                               .stop = output_failed};
  unroll_status st = unroll_model_sample(model, &how, print_text, &printing);
  if (st == UNROLL_OK) { (void)printf("\n"); }
  return st;
}

/* ---------------------------------------------------------------- the prime */

/* The whole of a file, with a final zero; to be freed with memory_free. */
static unroll_status read_prime(const char *path, char **out)
{
  unroll_status st = UNROLL_OK;
  FILE *f = fopen(path, "rb");
  char *text = NULL;
  size_t n = 0, room = 4096, more = 1;

  if (f == NULL) {
    return unroll_fail(UNROLL_ERR_INPUT, "--prime-file %s: %s", path, strerror(errno));
  }
  UNROLL_TRY(memory_new(room + 1, 1, "the prime", &text));
  while (more > 0) {
    if (n == room) {
      UNROLL_TRY(memory_resize(room + 1, 2 * room + 1, 1, "the prime", &text));
      room *= 2;
    }
    more = fread(text + n, 1, room - n, f);
    n += more;
  }
  if (ferror(f)) {
    st = unroll_fail(UNROLL_ERR_INPUT, "--prime-file %s: %s", path, strerror(errno));
  } else if (memchr(text, '\0', n) != NULL) {
    st = unroll_fail(UNROLL_ERR_INPUT, "--prime-file %s: byte %zu is zero: this is no text", path,
                     strlen(text));
  }
  if (st != UNROLL_OK) { goto cleanup; }
  text[n] = '\0';
  *out = text;
  text = NULL;

cleanup:
  memory_free(&text);
  (void)fclose(f);
  return st;
}

/* ----------------------------------------------------------- on a terminal */

/* `unroll sample RUN` alone, typed by someone. */
static bool is_interactive(const cli_call *call)
{
  const struct sample_settings *s = call->settings;
  return s->prime[0] == '\0' && s->prime_file[0] == '\0' && s->count == 1 &&
         isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
}

/* Read a prime, print how it goes on, and so forth. One that is refused is told, and the next may be better. */
static unroll_status converse(unroll_model *model, const struct sample_settings *s)
{
  unroll_status st = UNROLL_OK;
  char *line = NULL, *prime = NULL;
  size_t size = 0;

  UNROLL_TRY(memory_string("", &prime));
  (void)printf(
      "Type a text, then Enter: the model goes on from it. Enter alone: from the same text,\n"
      "in another way. Ctrl-D ends.\n");
  for (uint64_t sample = 0;; ++sample) {
    (void)printf("> ");
    (void)fflush(stdout);
    if (getline(&line, &size, stdin) < 0) { break; }
    line[strcspn(line, "\n")] = '\0';
    if (line[0] != '\0') {
      memory_free(&prime);
      UNROLL_TRY(memory_string(line, &prime));
    }
    if (warn_of_unseen(model, prime) != UNROLL_OK || draw(model, s, prime, sample) != UNROLL_OK) {
      (void)fprintf(stderr, "unroll: %s\n", unroll_message());
    }
  }
  (void)printf("\n");

cleanup:
  memory_free(&prime);
  free(line);
  return st;
}

static unroll_status check(const cli_call *call)
{
  const struct sample_settings *s = call->settings;
  if (s->prime[0] != '\0' && s->prime_file[0] != '\0') {
    return unroll_fail(UNROLL_ERR_ARG, "--prime and --prime-file are both given; legal is one");
  }
  return options_check_needs(&table, s, call->given);
}

static unroll_status run(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct sample_settings *s = call->settings;
  unroll_model *model = NULL;
  char *prime = NULL;

  UNROLL_TRY(unroll_model_load_weights(call->comm, call->operands[0], s->weights, &model));
  if (unroll_comm_rank(call->comm) != 0) { goto cleanup; }
  cli_say_weights(model);
  if (is_interactive(call)) {
    st = converse(model, s);
    goto cleanup;
  }
  UNROLL_TRY(s->prime_file[0] != '\0' ? read_prime(s->prime_file, &prime)
                                      : memory_string(s->prime, &prime));
  UNROLL_TRY(warn_of_unseen(model, prime));
  for (uint64_t k = 0; k < s->count && ferror(stdout) == 0; ++k) {
    UNROLL_TRY(draw(model, s, prime, k));
  }

cleanup:
  memory_free(&prime);
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
             "is enough. <unk> is never drawn.\n"
             "\n"
             "On a terminal, without --prime, --prime-file and --count, it asks for a text\n"
             "to go on from, again and again.",
         .notes = "Several samples are set apart by lines `--- sample 1 of 3`.\n"
                  "\n"
                  "Examples:\n"
                  "  unroll sample run.h5\n"
                  "  unroll sample --prime 'Once upon' --length 1k --temperature 0.7 run.h5\n"
                  "  unroll sample --prime-file chapter1.txt --top-p 0.9 run.h5"},
    .table = &table,
    .settings_size = sizeof(struct sample_settings),
    .check = check,
    .run = run,
};
