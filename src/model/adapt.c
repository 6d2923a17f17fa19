#include "model/adapt.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/update.h"
#include "net/network.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Steps of a window where no weights change behind it: enough rows for the matrix products of the output layer. */
#define WINDOW 256

/* ------------------------------------------------------------------- cache */

/* The last `size` pairs, in a ring. */
typedef struct cache {
  size_t size, used, next, H;
  double theta, lambda;
  unroll_real *h;  /* (size, H) */
  int32_t *y;      /* (size) */
  double *product; /* (size) theta h_t.h_i */
} cache;

static unroll_status cache_init(const unroll_adaptation *how, size_t H, cache *c)
{
  unroll_status st = UNROLL_OK;
  *c = (cache){.size = (size_t)how->cache, .H = H, .theta = how->theta, .lambda = how->lambda};
  if (c->size == 0) { return UNROLL_OK; }
  UNROLL_TRY(memory_new(c->size, H * sizeof *c->h, "the states of the cache", &c->h));
  UNROLL_TRY(memory_new(c->size, sizeof *c->y, "the tokens of the cache", &c->y));
  UNROLL_TRY(memory_new(c->size, sizeof *c->product, "the scores of the cache", &c->product));

cleanup:
  return st;
}

static void cache_destroy(cache *c)
{
  memory_free(&c->product);
  memory_free(&c->y);
  memory_free(&c->h);
}

/* p_cache(y | h). There must be a pair. Each product is one chain, and all are summed in their order. */
static double cache_probability(const cache *c, const unroll_real *h, int32_t y)
{
  const size_t used = c->used, H = c->H;
  const double theta = c->theta;
  const unroll_real *rows = c->h;
  double *product = c->product;
  double top = -INFINITY, of_y = 0.0, total = 0.0;

#pragma omp parallel for default(none) shared(used, H, theta, rows, product, h) schedule(static)
  for (size_t i = 0; i < used; ++i) {
    double sum = 0.0;
    for (size_t j = 0; j < H; ++j) { sum += (double)rows[i * H + j] * (double)h[j]; }
    product[i] = theta * sum;
  }
  for (size_t i = 0; i < used; ++i) { top = product[i] > top ? product[i] : top; }
  for (size_t i = 0; i < used; ++i) {
    const double weight = exp(product[i] - top);
    total += weight;
    of_y += c->y[i] == y ? weight : 0.0;
  }
  return of_y / total;
}

static void cache_add(cache *c, const unroll_real *h, int32_t y)
{
  memcpy(c->h + c->next * c->H, h, c->H * sizeof *h);
  c->y[c->next] = y;
  c->next = (c->next + 1) % c->size;
  c->used = c->used < c->size ? c->used + 1 : c->size;
}

/* The losses of a window with what the cache says, and its pairs into the cache. */
static double cache_losses(cache *c, const network *net, size_t T)
{
  const layer *top = network_top(net);
  double nats = 0.0;
  for (size_t t = 0; t < T; ++t) {
    const unroll_real *h = top->h + (t + 1) * top->ld;
    const double p = exp(-net->head.nll[t]);
    nats -= c->used == 0
                ? -net->head.nll[t]
                : log((1.0 - c->lambda) * p + c->lambda * cache_probability(c, h, net->y[t]));
    cache_add(c, h, net->y[t]);
  }
  return nats;
}

/* ------------------------------------------------------- dynamic evaluation */

/* A step on the losses of the window that was scored last. */
static unroll_status learn(network *net, unroll_params *params, const unroll_params *trained,
                           const unroll_adaptation *how, size_t T)
{
  unroll_status st = UNROLL_OK;
  embedding *e = &net->embedding;

  if (e->sparse) {
    embedding_mark_tokens(e, T, net->x, true);
    embedding_set_touched_rows(e, net->gradient);
  }
  UNROLL_TRY(network_backward(net, (network_span){0, 0, T}, NULL));
  if (params->shape.tied) { embedding_add_tied(e, 0, embedding_rows(e), net->gradient); }
  update_average(params->n, how->decay, trained->values, params->values);
  update_sgd(params->n, 1.0, how->rate, 1.0, net->gradient, params->values);
  network_pack(net);

cleanup:
  return st;
}

/* --------------------------------------------------------------------- both */

unroll_status adapt_score(const unroll_params *trained, const text_source *text,
                          const unroll_adaptation *how, double *nats)
{
  unroll_status st = UNROLL_OK;
  const bool learns = how->rate > 0.0;
  const uint64_t window = learns ? how->steps : WINDOW;
  const size_t most = window < text->longest ? (size_t)window : (size_t)text->longest;
  unroll_params *params = NULL;
  network *net = NULL;
  cache c = {0};
  double sum = 0.0;
  assert(text->cut.count == 1 && how->steps >= 1);

  UNROLL_TRY(unroll_params_new(&trained->shape, &params));
  memcpy(params->values, trained->values, params->n * sizeof *params->values);
  const network_size size = {
      .T = most, .chunk = most, .B = 1, .shards = 1, .group = 1, .window = learns ? most : 0};
  UNROLL_TRY(network_new(params, &size, &net));
  UNROLL_TRY(cache_init(how, params->shape.H, &c));
  network_pack(net);

  for (uint64_t k = 0; k < text->batches; ++k) {
    const uint64_t steps = text_source_extent(text, 0, k).steps;
    network_reset(net);
    for (uint64_t first = 0; first < steps; first += most) {
      const size_t T = steps - first < most ? (size_t)(steps - first) : most;
      text_source_fill(text, 0, k, first, T, net->x, net->y);
      network_forward(net, T);
      network_output(net, (network_span){0, 0, T}, 1.0 / (double)T, !learns);
      if (c.size > 0) {
        sum += cache_losses(&c, net, T);
      } else {
        for (size_t t = 0; t < T; ++t) { sum += net->head.nll[t]; }
      }
      if (learns) { UNROLL_TRY(learn(net, params, trained, how, T)); }
      network_carry(net, T);
    }
  }
  *nats = sum;

cleanup:
  cache_destroy(&c);
  network_free(&net);
  unroll_params_free(&params);
  return st;
}
