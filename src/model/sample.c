/* Draw text from a model, token by token. */
#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/corpus.h"
#include "data/vocab.h"
#include "model/model.h"
#include "net/network.h"

#include <math.h>
#include <string.h>

/* Rows summed side by side: enough chains to hide the latency of an addition. */
#define CHAINS 8

/* The logits of the last state, in double, each one chain over the hidden units. */
static void logits_of(const unroll_params *p, const network *net, double *o)
{
  const unroll_tensor *W_qh = params_output(p, PARAMS_W_QH), *b_q = params_output(p, PARAMS_B_Q);
  const unroll_real *h = layer_output(network_top(net)).rows, *W = p->values + W_qh->offset,
                    *b = p->values + b_q->offset;

#pragma omp parallel for default(none) shared(p, W_qh, W, b, h, o) schedule(static)
  for (size_t first = 0; first < p->shape.V; first += CHAINS) {
    double sum[CHAINS] = {0};
    size_t n = p->shape.V - first < CHAINS ? p->shape.V - first : CHAINS;
    for (size_t j = 0; j < p->shape.H; ++j) {
      for (size_t i = 0; i < n; ++i) {
        sum[i] += (double)W[(first + i) * W_qh->ld + j] * (double)h[j];
      }
    }
    for (size_t i = 0; i < n; ++i) { o[first + i] = sum[i] + (double)b[first + i]; }
  }
}

/* Are all of them numbers of the kind that the model computes with, as where text is scored? */
static bool are_finite(size_t V, const double *o)
{
  bool finite = true;
  for (size_t v = 0; v < V; ++v) { finite &= isfinite((unroll_real)o[v]); }
  return finite;
}

/* Is token a more likely than b? Equal ones by index, so that the choice is never left to chance. */
static bool more_likely(const double *o, size_t a, size_t b)
{
  return o[a] > o[b] || (o[a] == o[b] && a < b);
}

/* Let the token in place i of a heap of n, whose first is the most likely, sink to where it belongs. */
static void sink_down(const double *o, size_t n, size_t *heap, size_t i)
{
  for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
    if (child + 1 < n && more_likely(o, heap[child + 1], heap[child])) { ++child; }
    if (!more_likely(o, heap[child], heap[i])) { return; }
    const size_t swap = heap[i];
    heap[i] = heap[child];
    heap[child] = swap;
    i = child;
  }
}

/* Take the most likely of a heap of n tokens: it then stands behind the others, in place n - 1. */
static size_t take_likeliest(const double *o, size_t n, size_t *heap)
{
  const size_t token = heap[0];
  heap[0] = heap[n - 1];
  heap[n - 1] = token;
  sink_down(o, n - 1, heap, 0);
  return token;
}

/* The least likely token that may be drawn of n in `index`, by top_k, then by top_p of what that leaves; V: of all. */
static size_t find_last(const unroll_sampling *how, size_t V, size_t n, const double *o,
                        const double *weight, size_t *index)
{
  const bool few = how->top_k > 0 && how->top_k<n, nucleus = how->top_p> 0.0 && how->top_p < 1.0;
  const size_t k = few ? (size_t)how->top_k : n;
  double total = 0.0, sum = 0.0;
  size_t last = V;

  if (!few && !nucleus) { return V; }
  for (size_t i = 0; i < n && !few; ++i) { total += weight[index[i]]; }
  for (size_t i = n / 2; i-- > 0;) { sink_down(o, n, index, i); }
  for (size_t i = 0; i < k && few; ++i) {
    last = take_likeliest(o, n - i, index);
    total += weight[last];
  }
  for (size_t i = 0; i < k && nucleus && sum < how->top_p * total; ++i) {
    last = few ? index[n - 1 - i] : take_likeliest(o, n - i, index);
    sum += weight[last];
  }
  return last;
}

/* Draw a token from softmax(o / temperature), of the likeliest as top_k and top_p say; `<unk>` never. */
static size_t draw(const unroll_sampling *how, uint64_t position, size_t first, size_t V,
                   const double *o, size_t *index, double *weight)
{
  size_t n = V - first, best = first;
  for (size_t i = 0; i < n; ++i) {
    index[i] = first + i;
    if (more_likely(o, first + i, best)) { best = first + i; }
  }
  if (how->temperature == 0.0) { return best; }

  for (size_t v = first; v < V; ++v) { weight[v] = exp((o[v] - o[best]) / how->temperature); }
  const size_t last = find_last(how, V, n, o, weight, index);
  double total = 0.0;
  for (size_t v = first; v < V; ++v) {
    if (last != V && v != last && !more_likely(o, v, last)) { weight[v] = 0.0; }
    total += weight[v];
  }
  double left = random_uniform(how->seed, RANDOM_SAMPLE, how->sample, position) * total;
  for (size_t v = first; v < V; ++v) {
    if (left < weight[v]) { return v; }
    left -= weight[v];
  }
  return best; /* rounding used up the last weight */
}

/* Does the text end in the middle of a line, with no space behind it? */
static bool ends_within_line(const char *text)
{
  const size_t n = text == NULL ? 0 : strlen(text);
  return n > 0 && strchr(" \t\n\v\f\r", text[n - 1]) == NULL;
}

unroll_status unroll_model_sample(unroll_model *model, const unroll_sampling *how,
                                  void (*on_text)(void *context, const char *text, size_t n),
                                  void *context)
{
  unroll_status st = UNROLL_OK;
  const unroll_vocab *vocab = model->run->vocab;
  const unroll_params *params = model->run->params;
  unroll_level level = unroll_vocab_rules(vocab).level;
  const bool has_unk = level == UNROLL_LEVEL_CHAR || level == UNROLL_LEVEL_WORD; /* token 0 */
  size_t V = params->shape.V, first = has_unk ? 1 : 0, n_prime = 0, unknown = 0;
  const char *prime = how->prime != NULL && how->prime[0] != '\0' ? how->prime
                      : unroll_vocab_rules(vocab).letters         ? " "
                                                                  : "\n";
  network *net = NULL;
  int32_t *tokens = NULL;
  double *o = NULL, *weight = NULL;
  size_t *index = NULL;

  if (!(how->temperature >= 0.0)) {
    st = unroll_fail(UNROLL_ERR_ARG, "temperature %g: legal is 0 or more", how->temperature);
    goto cleanup;
  }
  if (!(how->top_p >= 0.0 && how->top_p <= 1.0)) {
    st = unroll_fail(UNROLL_ERR_ARG, "top_p %g: legal is 0 to 1", how->top_p);
    goto cleanup;
  }
  if (V <= first) {
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "the model knows no token but <unk>: there is nothing to draw");
    goto cleanup;
  }
  UNROLL_TRY(vocab_encode(vocab, prime, strlen(prime), &n_prime, &tokens, &unknown));
  const network_size size = {.T = 1, .chunk = 1, .B = 1, .shards = 1, .group = 1};
  UNROLL_TRY(network_new(params, &size, &net));
  UNROLL_TRY(memory_new(V, sizeof *o, "logits", &o));
  UNROLL_TRY(memory_new(V, sizeof *weight, "probabilities", &weight));
  UNROLL_TRY(memory_new(V, sizeof *index, "order of tokens", &index));
  network_pack(net);

  if (model->run->config.sequences != UNROLL_SEQUENCES_STREAM) { /* all it has seen began so */
    net->x[0] = vocab_line_end(vocab);
    network_forward(net, 1);
    network_carry(net, 1);
  }
  for (size_t i = 0; i < n_prime; ++i) {
    net->x[0] = tokens[i];
    network_forward(net, 1);
    network_carry(net, 1);
  }
  bool within_line = ends_within_line(how->prime);
  for (uint64_t i = 0; i < how->length; ++i) {
    logits_of(params, net, o);
    if (!are_finite(V, o)) {
      st = unroll_fail(UNROLL_ERR_DIVERGED,
                       "scores of the tokens are not finite: weights so large have diverged; the "
                       "best model of the run or an older checkpoint (train --keep) may be good");
      goto cleanup;
    }
    size_t token = draw(how, i, first, V, o, index, weight), bytes = 0;
    const char *text = unroll_vocab_text_view(vocab, token, &bytes);
    if (level == UNROLL_LEVEL_WORD && within_line && text[0] != '\n') { on_text(context, " ", 1); }
    on_text(context, text, bytes);
    if (how->stop != NULL && how->stop(context)) { break; }
    within_line = text[0] != '\n';
    net->x[0] = (int32_t)token;
    network_forward(net, 1);
    network_carry(net, 1);
  }

cleanup:
  memory_free(&index);
  memory_free(&weight);
  memory_free(&o);
  network_free(&net);
  memory_free(&tokens);
  return st;
}
