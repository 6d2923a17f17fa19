/* Score text: its tokens, each given all before it. */
#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "comm/comm.h"
#include "data/vocab.h"
#include "model/adapt.h"
#include "model/model.h"
#include "net/score.h"

#include <math.h>

/* Steps of a scoring window: enough rows for the matrix products of the output layer. */
#define SCORE_STEPS 256

/* Sums the losses of each line and passes them to on_line; a line ends with its line-end token. */
typedef struct line_reporter {
  void (*on_line)(void *context, const unroll_line_score *line);
  void *context;
  int32_t line_end; /* token */
  unroll_line_score line;
} line_reporter;

static void end_line(line_reporter *lines)
{
  lines->on_line(lines->context, &lines->line);
  lines->line = (unroll_line_score){.line = lines->line.line + 1};
}

/* The first token of a stream is not scored. Where it is a line end, the first line is empty: report it. */
static unroll_status report_empty_line(line_reporter *lines, const corpus *text,
                                       const unroll_vocab *vocab, const corpus_part *part)
{
  const size_t width = corpus_token_width(unroll_vocab_size(vocab));
  int32_t token = 0; /* room for any width */
  unroll_status st = corpus_read(text, vocab, part, 0, 1, width, &token);
  if (st == UNROLL_OK && corpus_stored(&token, width, 0) == lines->line_end) { end_line(lines); }
  return st;
}

static void report_lines(void *context, size_t T, const int32_t *y, const double *nll)
{
  line_reporter *lines = context;
  for (size_t t = 0; t < T; ++t) {
    lines->line.tokens += 1;
    lines->line.nats += nll[t];
    if (y[t] == lines->line_end) { end_line(lines); }
  }
}

/* Score this rank's rows of the text: sums (count) [nats] of each row. */
static unroll_status score_rows(unroll_model *model, const text_source *text,
                                score_listener listener, double *sums)
{
  unroll_status st = UNROLL_OK;
  network *net = NULL;
  const size_t T = text->longest < SCORE_STEPS ? (size_t)text->longest : SCORE_STEPS;
  const size_t count = text->cut.count;

  if (count == 0) { goto cleanup; }
  const network_size size = {.T = T, .chunk = T, .B = count, .shards = count, .group = 1};
  UNROLL_TRY(network_new(model->run->params, &size, &net));
  network_pack(net);
  score_text(net, text, listener, sums);

cleanup:
  network_free(&net);
  return st;
}

/* Of a model that adapts with `how`, else NULL. */
static unroll_status evaluate(unroll_model *model, unroll_comm *comm, size_t n_texts,
                              const char *const *texts, size_t n_streams,
                              void (*on_line)(void *context, const unroll_line_score *line),
                              void *context, const unroll_adaptation *how, unroll_score *score)
{
  unroll_status st = UNROLL_OK;
  const unroll_vocab *vocab = model->run->vocab;
  corpus *text = NULL;
  corpus_part part = {0}, none = {0};
  text_source *own = NULL;
  double *sums = NULL;
  line_reporter lines = {.on_line = on_line, .context = context, .line = {.line = 1}};
  score_listener listener = {0};
  const size_t P = (size_t)unroll_comm_size(comm), rank = (size_t)unroll_comm_rank(comm);
  text_cut cut = {.kind = model->run->config.sequences,
                  .partition =
                      UNROLL_PARTITION_RANDOM, /* sequences of about equal length together */
                  .B = n_streams,
                  .first = n_streams * rank / P,
                  .ranks = P,
                  .what = "the",
                  .option = "--streams"};
  cut.count = n_streams * (rank + 1) / P - cut.first;

  if (n_streams < 1 || (on_line != NULL && n_streams != 1)) {
    st = unroll_fail(UNROLL_ERR_ARG,
                     "%zu streams: legal is 1 or more, and 1 where lines are scored", n_streams);
    goto cleanup;
  }
  if (on_line != NULL) {
    lines.line_end = vocab_line_end(vocab);
    if (lines.line_end < 0) {
      st = unroll_fail(UNROLL_ERR_ARG,
                       "lines cannot be told apart: the model's vocabulary has no line end");
      goto cleanup;
    }
    if (rank == 0) { listener = (score_listener){.call = report_lines, .context = &lines}; }
  }
  if (on_line != NULL || how != NULL) { /* in the order of the text, by one rank */
    cut.partition = UNROLL_PARTITION_SEQUENTIAL;
    cut.first = 0;
    cut.count = rank == 0 ? 1 : 0;
  }

  UNROLL_TRY(corpus_open(comm, unroll_vocab_rules(vocab).level, n_texts, texts, NULL, &text));
  UNROLL_TRY(comm_agree(comm, corpus_split(text, unroll_vocab_rules(vocab), 0.0, &part, &none)));
  UNROLL_TRY(corpus_count(comm, text, vocab, &part));
  UNROLL_TRY(text_source_new(comm, text, vocab, &part, &cut, &own));
  UNROLL_TRY(comm_agree(comm, memory_new(n_streams, sizeof *sums, "losses", &sums)));

  if (listener.call != NULL && model->run->config.sequences == UNROLL_SEQUENCES_STREAM) {
    st = report_empty_line(&lines, text, vocab, &part);
  }
  UNROLL_TRY(comm_agree(comm, st));

  double begin = clock_seconds();
  if (how == NULL) {
    st = score_rows(model, own, listener, sums + cut.first);
  } else if (cut.count > 0) {
    st = adapt_score(model->run->params, own, how, sums);
  }
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(comm_sum_double(comm, sums, n_streams)); /* one rank's value and zeros: exact */
  double seconds = clock_seconds() - begin;
  if (listener.call != NULL && lines.line.tokens > 0) { on_line(context, &lines.line); }

  double nats = 0.0;
  for (size_t i = 0; i < n_streams; ++i) { nats += sums[i]; }
  const uint64_t tokens = own->total;
  double per_token = (double)part.tokens / (double)part.characters;
  *score = (unroll_score){.tokens = tokens,
                          .characters = part.characters,
                          .unknown = part.unknown,
                          .loss = nats / (double)tokens};
  score->perplexity = exp(score->loss);
  score->bits_per_character = score->loss * per_token / LN2;
  score->tokens_per_second = seconds > 0.0 ? (double)tokens / seconds : 0.0;

cleanup:
  memory_free(&sums);
  text_source_free(&own);
  corpus_part_free(&none);
  corpus_part_free(&part);
  corpus_free(&text);
  return st;
}

unroll_status unroll_model_evaluate(unroll_model *model, unroll_comm *comm, size_t n_texts,
                                    const char *const *texts, size_t n_streams,
                                    void (*on_line)(void *context, const unroll_line_score *line),
                                    void *context, unroll_score *score)
{
  return evaluate(model, comm, n_texts, texts, n_streams, on_line, context, NULL, score);
}

unroll_status unroll_model_evaluate_adapting(unroll_model *model, unroll_comm *comm, size_t n_texts,
                                             const char *const *texts, const unroll_adaptation *how,
                                             unroll_score *score)
{
  return evaluate(model, comm, n_texts, texts, 1, NULL, NULL, how, score);
}
