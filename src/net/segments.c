#include "net/segments.h"

#include "base/check.h"
#include "base/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* [steps] Powers of two between them; the least fills the token panels of a shard of one sequence. */
#define MAX_CHUNK 256
#define MIN_CHUNK 32

/* [reals] 64 MiB in float. */
#define CHUNK_LOGITS ((size_t)1 << 24)

/* [bytes] of states up to which nothing is recomputed, as that would cost a forward pass. */
#define SEGMENT_BYTES ((size_t)1 << 26)

size_t segments_chunk_steps(size_t B, size_t V)
{
  size_t chunk = MAX_CHUNK;
  while (chunk > MIN_CHUNK && chunk * B * V > CHUNK_LOGITS) { chunk /= 2; }
  return chunk;
}

size_t segments_steps(size_t longest, size_t chunk, const unroll_params *params, size_t B,
                      bool drops)
{
  const cell *c = params_cell(params);
  /* h as rows and as panels, both again after dropout, c, and what the cell keeps */
  const size_t vectors = 1 + params_states(params) + c->kept + (drops ? 2 : 0);
  const size_t layers = vectors * params->shape.L * kernels_ld(params->shape.H);
  const size_t embedded = 2 * kernels_ld(params->shape.E); /* as rows and as panels */
  const size_t step = (layers + embedded) * B * sizeof(unroll_real);
  size_t fit = SEGMENT_BYTES / step, root = (size_t)sqrt((double)longest / 2.0);
  size_t steps = fit > root ? fit : root;
  if (steps > longest) { steps = longest; }
  return (steps + chunk - 1) / chunk * chunk;
}

unroll_status segments_new(network *net, size_t longest, segments **out)
{
  unroll_status st = UNROLL_OK;
  segments *s = NULL;
  assert(net->size.T % net->size.chunk == 0 && net->size.per_shard);

  UNROLL_TRY(memory_new(1, sizeof *s, "segments", &s));
  *s = (segments){.net = net, .max_segments = (longest + net->size.T - 1) / net->size.T};
  UNROLL_TRY(memory_new(s->max_segments, network_state_size(net) * sizeof *s->checkpoints,
                        "states of segments", &s->checkpoints));
  UNROLL_TRY(memory_new(network_state_size(net), sizeof *s->end, "states of segments", &s->end));
  *out = s;
  s = NULL;

cleanup:
  segments_free(&s);
  return st;
}

void segments_free(segments **s)
{
  if (*s == NULL) { return; }
  memory_free(&(*s)->end);
  memory_free(&(*s)->checkpoints);
  memory_free(s);
}

/* Steps of segment k of the current sequences. */
static size_t segment_steps(const segments *s, size_t k)
{
  size_t left = s->n - k * s->net->size.T;
  return left < s->net->size.T ? left : s->net->size.T;
}

/* The states of segment k from the carried one. */
static void forward_segment(segments *s, size_t k, token_source source)
{
  network *net = s->net;
  net->dropout.step = k * net->size.T;
  source.fill(source.context, k * net->size.T, segment_steps(s, k), net->x, net->y);
  if (net->sorted) { network_gather(net, segment_steps(s, k)); }
  network_forward(net, segment_steps(s, k));
}

/* Sequences that end before segment k take no part in it. */
static void take_part(segments *s, size_t k)
{
  if (s->net->sorted) { network_take_part(s->net, k * s->net->size.T); }
}

static size_t segment_count(const segments *s)
{
  return (s->n + s->net->size.T - 1) / s->net->size.T;
}

void segments_forward(segments *s, size_t n, token_source source)
{
  network *net = s->net;
  s->n = n;
  assert(n >= 1 && segment_count(s) <= s->max_segments);
  if (source.measure != NULL) { /* a rank may have less than others, or nothing */
    source.measure(source.context, net->ragged.length);
    s->n = (size_t)network_sort(net);
    memset(s->end, 0, network_state_size(net) * sizeof *s->end);
    if (net->embedding.sparse) { embedding_mark_tokens(&net->embedding, 0, net->x, true); }
  }

  for (size_t k = 0; k < segment_count(s); ++k) {
    if (k > 0) { network_carry(net, net->size.T); }
    take_part(s, k);
    network_get_state(net, s->checkpoints + k * network_state_size(net));
    forward_segment(s, k, source);
    if (net->embedding.sparse) {
      embedding_mark_tokens(&net->embedding, segment_steps(s, k) * net->size.B, net->x, k == 0);
    }
  }
  if (s->n == n) { network_get_state_at(net, segment_steps(s, segment_count(s) - 1), s->end); }
}

unroll_status segments_backward(segments *s, double scale, token_source source, double *sums,
                                const network_ready *ready)
{
  network *net = s->net;
  const size_t count = segment_count(s);

  memset(sums, 0, net->ragged.shards * sizeof *sums);
  network_start_chunks(net);
  for (size_t k = count; k-- > 0;) {
    size_t T = segment_steps(s, k);
    if (k + 1 < count) { /* the last one's states are still there */
      take_part(s, k);
      network_set_state(net, s->checkpoints + k * network_state_size(net));
      forward_segment(s, k, source);
    }
    for (size_t chunk = (T + net->size.chunk - 1) / net->size.chunk; chunk-- > 0;) {
      size_t begin = chunk * net->size.chunk,
             end = begin + net->size.chunk < T ? begin + net->size.chunk : T;
      const network_span span = {begin, begin, end};
      network_output(net, span, scale, false);
      network_add_losses(net, end - begin, sums);
      network_backward_chunk(net, span, k + 1 == count && end == T);
    }
  }
  const unroll_status st = network_combine(net, ready);
  if (net->sorted) { network_unsort(net); }
  return st;
}

void segments_carry(const segments *s)
{
  network_set_state(s->net, s->end);
}
