#include "base/check.h"
#include "base/json.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <math.h>
#include <unroll/model.h>

struct eval_settings {
  unroll_weights weights;
  bool per_line;
  bool json;
  uint64_t streams;
  unroll_adaptation adapt;
};

static const option rows[] = {
    {CLI_WEIGHTS, .offset = offsetof(struct eval_settings, weights)},
    {.name = "per-line",
     .type = OPTION_FLAG,
     .offset = offsetof(struct eval_settings, per_line),
     .default_text = "no",
     .heading = "Scores",
     .help = "also score each line: its number, tokens, nats and perplexity",
     .needs = "--streams 1"},
    {.name = "streams",
     .type = OPTION_COUNT,
     .offset = offsetof(struct eval_settings, streams),
     .default_text = "1",
     .low = 1,
     .high = 1e6,
     .heading = "Scores",
     .help = "cut the text into so many parts scored at once, each from the zero state: faster, "
             "slightly pessimistic"},
    {.name = "dynamic-lr",
     .type = OPTION_REAL,
     .offset = offsetof(struct eval_settings, adapt.rate),
     .default_text = "0",
     .low = 0,
     .high = INFINITY,
     .heading = "Adaptation",
     .others = "dynamic|dynamic-eval|dynamic-evaluation",
     .help = "also score the text by dynamic evaluation (Krause et al. 2018): a step of gradient "
             "descent at this rate on each window, once it is scored; 0: off",
     .needs = "--streams 1"},
    {.name = "dynamic-decay",
     .type = OPTION_REAL,
     .offset = offsetof(struct eval_settings, adapt.decay),
     .default_text = "0",
     .low = 0,
     .high = 1,
     .heading = "Adaptation",
     .help = "before each of these steps go this share of the way back to the trained weights",
     .needs = "--dynamic-lr"},
    {.name = "dynamic-steps",
     .type = OPTION_COUNT,
     .offset = offsetof(struct eval_settings, adapt.steps),
     .default_text = "20",
     .unit = "tokens",
     .low = 1,
     .high = 1e6,
     .heading = "Adaptation",
     .help = "length of these windows",
     .needs = "--dynamic-lr"},
    {.name = "cache",
     .type = OPTION_COUNT,
     .offset = offsetof(struct eval_settings, adapt.cache),
     .default_text = "0",
     .unit = "tokens",
     .low = 0,
     .high = 1e7,
     .heading = "Adaptation",
     .others = "cache-size|pointer|neural-cache",
     .help = "also score the text with a continuous cache (Grave et al. 2017) of so many tokens, "
             "which are likely again where the state is alike; 0: off",
     .needs = "--streams 1"},
    {.name = "cache-theta",
     .type = OPTION_REAL,
     .offset = offsetof(struct eval_settings, adapt.theta),
     .default_text = "0.3",
     .low = 0,
     .high = INFINITY,
     .heading = "Adaptation",
     .others = "theta",
     .help = "how much the cache prefers like states: factor of their scalar products",
     .needs = "--cache"},
    {.name = "cache-lambda",
     .type = OPTION_REAL,
     .offset = offsetof(struct eval_settings, adapt.lambda),
     .default_text = "0.1",
     .low = 0,
     .high = 0.999999,
     .heading = "Adaptation",
     .others = "lambda|lambdasm",
     .help = "share of the cache in the probability of a token",
     .needs = "--cache"},
    {CLI_JSON, .offset = offsetof(struct eval_settings, json)},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* ---------------------------------------------------------- scores of lines */

static double line_perplexity(const unroll_line_score *line)
{
  return line->tokens == 0 ? 1.0 : exp(line->nats / (double)line->tokens);
}

/* Lines so far; `array` is for --json. */
struct lines {
  bool begun;
  json_t *array;
  bool lost; /* there was no memory for one */
};

/* The heading comes with the first line: until then the text may yet be refused. */
static void print_line(void *context, const unroll_line_score *line)
{
  struct lines *lines = context;
  if (!lines->begun) { (void)printf("line\ttokens\tnats\tperplexity\n"); }
  lines->begun = true;
  (void)printf("%" PRIu64 "\t%" PRIu64 "\t%.6f\t%.6g\n", line->line, line->tokens, line->nats,
               line_perplexity(line));
}

static void collect_line(void *context, const unroll_line_score *line)
{
  struct lines *lines = context;
  json_append(lines->array,
              json_pack("{s:I, s:I, s:o, s:o}", "line", (json_int_t)line->line, "tokens",
                        (json_int_t)line->tokens, "nats", json_number(line->nats), "perplexity",
                        json_number(line_perplexity(line))),
              &lines->lost);
}

/* -------------------------------------------------------------- adaptation */

/* What the other line of figures is called; NULL: there is none. */
static const char *adaptation_name(const unroll_adaptation *how)
{
  return how->rate > 0.0 && how->cache > 0 ? "dynamic evaluation and a cache"
         : how->rate > 0.0                 ? "dynamic evaluation"
         : how->cache > 0                  ? "a cache"
                                           : NULL;
}

static void print_adapted(FILE *out, const unroll_adaptation *how, const unroll_score *s)
{
  (void)fprintf(out, "with %s: loss %.6f  perplexity %.6g", adaptation_name(how), s->loss,
                s->perplexity);
  if (s->unknown == 0) { (void)fprintf(out, "  bits_per_character %.6f", s->bits_per_character); }
  if (how->rate > 0.0) {
    (void)fprintf(out, "  dynamic_lr %g  dynamic_decay %g  dynamic_steps %" PRIu64, how->rate,
                  how->decay, how->steps);
  }
  if (how->cache > 0) {
    (void)fprintf(out, "  cache %" PRIu64 "  cache_theta %g  cache_lambda %g", how->cache,
                  how->theta, how->lambda);
  }
  (void)fprintf(out, "  tokens_per_second %.0f\n", s->tokens_per_second);
}

static json_t *pack_adapted(const unroll_adaptation *how, const unroll_score *s, bool *bad)
{
  json_t *object = json_pack("{s:s, s:o, s:o, s:o, s:o}", "with", adaptation_name(how), "loss",
                             json_number(s->loss), "perplexity", json_number(s->perplexity),
                             "bits_per_character",
                             s->unknown == 0 ? json_number(s->bits_per_character) : json_null(),
                             "tokens_per_second", json_number(s->tokens_per_second));
  *bad |= object == NULL;
  if (how->rate > 0.0) {
    json_put(object, "dynamic_lr", json_number(how->rate), bad);
    json_put(object, "dynamic_decay", json_number(how->decay), bad);
    json_put(object, "dynamic_steps", json_count(how->steps), bad);
  }
  if (how->cache > 0) {
    json_put(object, "cache", json_count(how->cache), bad);
    json_put(object, "cache_theta", json_number(how->theta), bad);
    json_put(object, "cache_lambda", json_number(how->lambda), bad);
  }
  return object;
}

/* ---------------------------------------------------------------- reports */

/* <unk> costs its own probability alone, not that of the token it stands for: there are no bits per character then. */
static void print_score(FILE *out, const unroll_score *s, uint64_t averaged)
{
  (void)fprintf(out, "tokens %" PRIu64 "  loss %.6f  perplexity %.6g  ", s->tokens, s->loss,
                s->perplexity);
  if (s->unknown == 0) { (void)fprintf(out, "bits_per_character %.6f  ", s->bits_per_character); }
  (void)fprintf(out, "tokens_per_second %.0f  characters %" PRIu64 "  unknown %" PRIu64,
                s->tokens_per_second, s->characters, s->unknown);
  if (averaged > 0) { (void)fprintf(out, "  averaged %" PRIu64, averaged); }
  (void)fprintf(out, "\n");
}

static unroll_status print_json(const unroll_score *s, uint64_t averaged, const struct lines *lines,
                                const unroll_adaptation *how, const unroll_score *adapted)
{
  json_t *object = json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "tokens", (json_int_t)s->tokens,
                             "characters", (json_int_t)s->characters, "unknown",
                             (json_int_t)s->unknown, "loss", json_number(s->loss), "perplexity",
                             json_number(s->perplexity), "bits_per_character",
                             s->unknown == 0 ? json_number(s->bits_per_character) : json_null(),
                             "tokens_per_second", json_number(s->tokens_per_second));
  bool bad = object == NULL || lines->lost;

  if (averaged > 0) { json_put(object, "averaged", json_count(averaged), &bad); }
  if (adaptation_name(how) != NULL) {
    json_put(object, "adapted", pack_adapted(how, adapted, &bad), &bad);
  }
  if (lines->array != NULL) { json_put(object, "lines", json_incref(lines->array), &bad); }
  return cli_print_json(object, bad);
}

static unroll_status run(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct eval_settings *s = call->settings;
  bool root = unroll_comm_rank(call->comm) == 0;
  unroll_model *model = NULL;
  unroll_score score = {0}, adapted = {0};
  struct lines lines = {0};
  void (*tell)(void *, const unroll_line_score *) = NULL;

  if (s->per_line && s->json) {
    lines.array = json_array();
    tell = collect_line;
  } else if (s->per_line) {
    tell = print_line;
  }
  UNROLL_TRY(banner_advise(call->comm));
  UNROLL_TRY(unroll_model_load_weights(call->comm, call->operands[0], s->weights, &model));
  UNROLL_TRY(unroll_model_evaluate(model, call->comm, call->n_operands - 1, call->operands + 1,
                                   (size_t)s->streams, tell, &lines, &score));
  if (adaptation_name(&s->adapt) != NULL) {
    if (root && unroll_comm_size(call->comm) > 1) {
      (void)fprintf(stderr, "unroll: with %s a text is one stream: one rank scores it alone\n",
                    adaptation_name(&s->adapt));
    }
    UNROLL_TRY(unroll_model_evaluate_adapting(model, call->comm, call->n_operands - 1,
                                              call->operands + 1, &s->adapt, &adapted));
  }
  if (root && score.unknown > score.tokens / 2) {
    (void)fprintf(stderr,
                  "unroll: warning: %" PRIu64 " of %" PRIu64
                  " tokens of the text are <unk>: the model "
                  "was not trained on text like this\n",
                  score.unknown, score.tokens);
  }
  if (root && s->json) {
    UNROLL_TRY(print_json(&score, unroll_model_averaged(model), &lines, &s->adapt, &adapted));
  } else if (root) {
    print_score(s->per_line ? stderr : stdout, &score, unroll_model_averaged(model));
    if (adaptation_name(&s->adapt) != NULL) {
      print_adapted(s->per_line ? stderr : stdout, &s->adapt, &adapted);
    }
  }
  if (!isfinite(score.loss)) { /* the same on all ranks */
    st = unroll_fail(UNROLL_ERR_DIVERGED,
                     "%s: the loss of the text is not finite: weights so large have diverged; its "
                     "best model or an older checkpoint (train --keep) may be good",
                     call->operands[0]);
  } else if (!isfinite(adapted.loss)) {
    st = unroll_fail(
        UNROLL_ERR_DIVERGED,
        "the loss with %s is not finite: --dynamic-lr %g is too high; legal is a lower one",
        adaptation_name(&s->adapt), s->adapt.rate);
  }

cleanup:
  json_decref(lines.array);
  unroll_model_free(&model);
  return st;
}

const cli_command cli_eval = {
    .usage =
        {.command = "eval",
         .operands = "RUN TEXT...",
         .min_operands = 2,
         .max_operands = SIZE_MAX,
         .purpose =
             "Score text: loss, perplexity, bits per character.\n"
             "\n"
             "Tokens 2 to N of the text are scored, each given all before it, from the zero\n"
             "state. Loss is in nats per token. There are no bits per character (JSON: null)\n"
             "where the text has tokens that are not in the vocabulary: they cost only the\n"
             "probability of <unk>, whatever they are.",
         .notes =
             "Standard output has one line of `key value` pairs. With --per-line it is a\n"
             "table with tabs and a header line, and the totals go to standard error. With\n"
             "--json it is one object with the same keys, and `lines` with --per-line. Where\n"
             "the weights are an average, `averaged` says of how many updates.\n"
             "\n"
             "A model that adapts to the text while it is scored has other figures, which are\n"
             "not those of the model: they stand in a line of their own, `with dynamic\n"
             "evaluation: loss ...`, in JSON in the object `adapted`.\n"
             "\n"
             "Examples:\n"
             "  unroll eval run.h5 test.txt\n"
             "  mpirun -n 4 unroll eval --streams 64 --json run.h5 test/"},
    .table = &table,
    .settings_size = sizeof(struct eval_settings),
    .run = run,
};
