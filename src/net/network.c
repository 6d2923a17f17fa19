#include "net/network.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

#include <assert.h>
#include <inttypes.h>
#include <omp.h>
#include <string.h>

/* Has any layer a product with what is below it? */
static bool projects(const network *net)
{
  return net->params->shape.L > 1 || net->params->shape.E > 0;
}

/* Memory for the backward pass. */
static unroll_status start_backward(network *net)
{
  unroll_status st = UNROLL_OK;
  const network_size *size = &net->size;
  const size_t n = net->params->n_gradient, tokens = size->chunk * size->B;
  const size_t ld = network_top(net)->ld, below = kernels_ld(net->params->shape.E);
  gradient_sink *sink = &net->sink;

  for (size_t i = 0; i < (projects(net) ? 2 : 1); ++i) {
    UNROLL_TRY(memory_new_reals(tokens * (ld > below ? ld : below) + KERNELS_PAD,
                                "hidden gradients", &net->dh[i]));
  }
  UNROLL_TRY(memory_new_reals(size->B * ld, "hidden gradients", &net->change));
  if (net->params->shape.skip) {
    UNROLL_TRY(memory_new_reals(tokens * ld, "hidden gradients", &net->skipped));
  }
  if (size->gradient == NULL) { UNROLL_TRY(memory_new_reals(n, "gradient", &net->own_gradient)); }
  net->gradient = size->gradient != NULL ? size->gradient : net->own_gradient;
  *sink = (gradient_sink){.size = &net->size, .gradient = net->gradient};
  UNROLL_TRY(
      memory_new_reals(gradient_scratch(tokens / size->shards, (size_t)omp_get_max_threads()),
                       "gradient scratch", &sink->scratch));
  UNROLL_TRY(memory_new(net->params->shape.V * size->shards + 1, sizeof *sink->start, "token lists",
                        &sink->start));
  UNROLL_TRY(memory_new(tokens, sizeof *sink->list, "token lists", &sink->list));
  net->chunks = *sink;
  net->chunks.gradient = NULL;
  net->chunks.per_shard = n;
  if (size->per_shard) {
    UNROLL_TRY(memory_new(size->shards, n * sizeof *net->gradient, "gradients of the shards",
                          &net->chunks.gradient));
  }

cleanup:
  return st;
}

unroll_status network_new(const unroll_params *params, const network_size *size, network **out)
{
  unroll_status st = UNROLL_OK;
  network *net = NULL;
  const size_t T = size->T, B = size->B, L = params->shape.L;
  assert(T >= 1 && size->chunk >= 1 && size->chunk <= T && B >= 1);
  assert(size->shards >= 1 && B % size->shards == 0 && size->shards % size->group == 0);

  if (T >= UINT32_MAX / B) { /* below it no product of sizes exceeds 64 bits: V has 31, L B H 42 */
    st = unroll_fail(UNROLL_ERR_ARG,
                     "a window of %zu steps of %zu sequences on one rank: legal are %" PRIu32
                     " tokens; more ranks, fewer sequences or a shorter window help",
                     T, B, UINT32_MAX);
    goto cleanup;
  }
  UNROLL_TRY(memory_new(1, sizeof *net, "network", &net));
  *net = (network){.params = params, .size = *size};
  UNROLL_TRY(memory_new(T * B, sizeof *net->x, "input tokens", &net->x));
  UNROLL_TRY(memory_new(T * B, sizeof *net->y, "target tokens", &net->y));
  UNROLL_TRY(ragged_init(B, size->shards, &net->ragged));
  UNROLL_TRY(embedding_init(params, size, &net->embedding));
  UNROLL_TRY(memory_new(L, sizeof *net->layers, "layers", &net->layers));
  for (size_t l = 0; l < L; ++l) { UNROLL_TRY(layer_init(params, l, size, &net->layers[l])); }
  UNROLL_TRY(head_init(params, size, &net->head));
  if (projects(net)) {
    UNROLL_TRY(memory_new_reals(T * B * layer_input_ld(network_top(net)), "layer inputs",
                                &net->from_below));
  }
  if (size_has_backward(size)) { UNROLL_TRY(start_backward(net)); }
  *out = net;
  net = NULL;

cleanup:
  network_free(&net);
  return st;
}

void network_free(network **p)
{
  network *net = *p;
  if (net == NULL) { return; }
  memory_free(&net->chunks.gradient);
  memory_free(&net->sink.list);
  memory_free(&net->sink.start);
  memory_free(&net->sink.scratch);
  memory_free(&net->own_gradient);
  memory_free(&net->change);
  memory_free(&net->skipped);
  memory_free(&net->dh[0]);
  memory_free(&net->dh[1]);
  memory_free(&net->from_below);
  head_destroy(&net->head);
  for (size_t l = 0; l < net->params->shape.L && net->layers != NULL; ++l) {
    layer_destroy(&net->layers[l]);
  }
  memory_free(&net->layers);
  embedding_destroy(&net->embedding);
  ragged_destroy(&net->ragged);
  memory_free(&net->y);
  memory_free(&net->x);
  memory_free(p);
}

void network_set_xi(network *net, double xi)
{
  for (size_t l = 0; l < net->params->shape.L; ++l) { net->layers[l].xi = xi; }
}

void network_pack(network *net)
{
  for (size_t l = 0; l < net->params->shape.L; ++l) { layer_pack(&net->layers[l], &net->dropout); }
}

/* ------------------------------------------------------------ unequal lengths */

static void set_shards(network *net, size_t shards)
{
  size_set_shards(&net->size, shards);
  size_set_shards(&net->embedding.size, shards);
  size_set_shards(&net->head.size, shards);
  for (size_t l = 0; l < net->params->shape.L; ++l) {
    size_set_shards(&net->layers[l].size, shards);
  }
}

uint64_t network_sort(network *net)
{
  net->sorted = true;
  net->dropout.row = net->ragged.row;
  return ragged_sort(&net->ragged);
}

void network_take_part(network *net, uint64_t step)
{
  const size_t shards = ragged_active(&net->ragged, step), before = net->size.B;
  const size_t ld = network_top(net)->ld;
  assert(net->sorted && shards >= 1);
  set_shards(net, shards);
  if (!net->size.per_shard || before >= net->size.B) { return; }
  for (size_t l = 0; l < net->params->shape.L; ++l) {
    layer_clear_boundary(&net->layers[l], before, net->size.B);
  }
  memset(net->change + before * ld, 0, (net->size.B - before) * ld * sizeof *net->change);
}

void network_gather(network *net, size_t T)
{
  ragged_gather(&net->ragged, T, net->size.B, net->x);
  ragged_gather(&net->ragged, T, net->size.B, net->y);
}

void network_unsort(network *net)
{
  net->sorted = false;
  net->dropout.row = NULL;
  set_shards(net, net->ragged.shards);
}

/* -------------------------------------------------------------------- forward */

/* The input of layer i. */
static layer_input input_of(network *net, size_t i, size_t T)
{
  const layer *l = &net->layers[i];
  if (l->below == 0) { return embedding_forward(&net->embedding, net->x); }
  const layer_below below =
      i == 0 ? embedding_gather(&net->embedding, &net->dropout, T, net->x) : layer_output(l - 1);
  return layer_project_input(l, below, T, net->from_below);
}

void network_forward(network *net, size_t T)
{
  for (size_t i = 0; i < net->params->shape.L; ++i) {
    layer *l = &net->layers[i];
    layer_forward(l, input_of(net, i, T), T);
    if (net->masked) { layer_apply_mask(l, T, net->y); }
    layer_pass(l, &net->dropout, i > 0 ? l - 1 : NULL, T);
  }
}

void network_output(network *net, network_span span, double scale, bool only_loss)
{
  assert(span.begin <= span.scored && span.scored < span.end);
  assert(span.end <= net->size.T && span.end - span.begin <= net->size.chunk);
  net->scale = scale;
  head_forward(&net->head, span, network_top(net), net->y, scale, only_loss ? NULL : net->dh[0]);
}

void network_add_losses(const network *net, size_t T, double *sums)
{
  const size_t tokens = T * (net->size.B / net->size.shards);
  for (size_t i = 0; i < net->size.shards; ++i) {
    const size_t shard = net->sorted ? net->ragged.place[i].shard : i;
    loss_by_shard(tokens, 1, net->head.nll + i * tokens, sums + shard);
  }
}

/* ------------------------------------------------------------------- backward */

/* The gradient of the input table, from the first layer's deltas; of W_xe by way of dh, and that of W_xh before it. */
static unroll_status backward_table(network *net, network_span span, layer_deltas d,
                                    unroll_real *dh, const gradient_sink *sink)
{
  unroll_status st = UNROLL_OK;
  const layer *first = &net->layers[0];
  const int32_t *x = net->x + span.begin * net->size.B;

  if (first->below > 0) {
    const layer_below below = embedding_gathered(&net->embedding);
    UNROLL_TRY(layer_backward_input(first, below, span, d, dh, sink));
    embedding_drop_backward(&net->embedding, &net->dropout, span, x, dh);
    d = (layer_deltas){dh, below.ld};
  }
  embedding_backward(&net->embedding, span.end - span.begin, x, d.rows, d.ld, sink);
  UNROLL_TRY(embedding_notify(&net->embedding, sink));

cleanup:
  return st;
}

/* The arguments of the penalties of a span. */
static penalty_rows penalty_of(const network *net, network_span span, double factor,
                               unroll_real *dh)
{
  const size_t B = net->size.B;
  return (penalty_rows){.T = span.end - span.begin,
                        .B = B,
                        .H = net->params->shape.H,
                        .ld = network_top(net)->ld,
                        .scored = span.scored - span.begin,
                        .y = net->y + span.begin * B,
                        .weight = net->scale * factor,
                        .dh = dh};
}

/* dL/d(output) of a layer of a span becomes dL/dh; where it skips, `skipped` keeps it. */
static void backward_output(network *net, const layer *l, network_span span, unroll_real *dh,
                            bool last)
{
  const size_t slot = net->size.B * l->ld, steps = span.end - span.begin;
  const bool top = l == network_top(net);

  if (top && net->penalty.activation > 0.0) {
    const penalty_rows rows = penalty_of(net, span, net->penalty.activation, dh);
    penalty_activation(&rows, l->output + (span.begin + 1) * slot);
  }
  if (l->skips) { memcpy(net->skipped, dh, steps * slot * sizeof *dh); }
  layer_drop_backward(l, &net->dropout, span, dh);
  if (top && net->penalty.change > 0.0) {
    const penalty_rows rows = penalty_of(net, span, net->penalty.change, dh);
    if (last) { memset(net->change, 0, slot * sizeof *net->change); }
    penalty_change(&rows, l->xi, l->h + span.begin * slot, net->change);
  }
}

/* dL/d(output) of the layer below, from the product alone in dh, and past a layer. */
static void add_skipped(const network *net, const layer *l, network_span span, unroll_real *dh)
{
  const size_t slot = net->size.B * l->ld, steps = span.end - span.begin;
  const unroll_real *skipped = net->skipped;
#pragma omp parallel for default(none) schedule(static) shared(slot, steps, skipped, dh)
  for (size_t t = 0; t < steps; ++t) { kernels()->add(slot, skipped + t * slot, dh + t * slot); }
}

/* From the loss to the input; with per_shard a chunk of longer sequences, `last` being the first one in this order. */
static unroll_status backward(network *net, network_span span, const gradient_sink *sink, bool last)
{
  unroll_status st = UNROLL_OK;
  const kernel_poll poll = sink->ready != NULL ? sink->ready->poll : (kernel_poll){0};
  const size_t L = net->params->shape.L;

  UNROLL_TRY(head_backward(&net->head, span, network_top(net), sink));
  for (size_t i = L; i-- > 0;) {
    layer *l = &net->layers[i];
    const size_t turn = (L - 1 - i) % 2; /* the two buffers take turns from layer to layer */
    backward_output(net, l, span, net->dh[turn], last);
    const layer_deltas d = layer_backward(l, span, net->dh[turn], last, poll);
    if (i == 0) { UNROLL_TRY(backward_table(net, span, d, net->dh[1 - turn], sink)); }
    UNROLL_TRY(layer_backward_weights(l, span, d, sink));
    if (i > 0) {
      UNROLL_TRY(layer_backward_input(l, layer_output(l - 1), span, d, net->dh[1 - turn], sink));
      if (l->skips) { add_skipped(net, l, span, net->dh[1 - turn]); }
    }
    if (sink->per_shard > 0) { layer_save_boundary(l, d); }
  }

cleanup:
  return st;
}

unroll_status network_backward(network *net, network_span span, const network_ready *ready)
{
  gradient_sink sink = net->sink;
  sink.ready = ready;
  return backward(net, span, &sink, true);
}

void network_start_chunks(network *net)
{
  const gradient_sink *sink = &net->chunks;
  assert(sink->gradient != NULL);
  memset(sink->gradient, 0, net->ragged.shards * sink->per_shard * sizeof *sink->gradient);
}

void network_backward_chunk(network *net, network_span span, bool last)
{
  /* Only a notification can fail, and none is sent. */
  (void)backward(net, span, &net->chunks, last);
}

unroll_status network_combine(network *net, const network_ready *ready)
{
  unroll_status st = UNROLL_OK;
  const size_t n = net->params->n_gradient;
  gradient_sink sink = net->sink;
  sink.ready = ready;

  shards_combine(net->ragged.shards, net->size.group, net->sorted ? net->ragged.place_of : NULL, n,
                 n, net->chunks.gradient, net->gradient);
  UNROLL_TRY(sink_notify(&sink, 0, net->embedding.gradient));
  UNROLL_TRY(embedding_notify(&net->embedding, &sink));

cleanup:
  return st;
}

/* -------------------------------------------------------------- carried state */

void network_reset(network *net)
{
  for (size_t l = 0; l < net->params->shape.L; ++l) { layer_reset(&net->layers[l]); }
}

void network_carry(network *net, size_t T)
{
  for (size_t l = 0; l < net->params->shape.L; ++l) { layer_carry(&net->layers[l], T); }
}

size_t network_state_size_of(const unroll_params *params, size_t B)
{
  return params_states(params) * params->shape.L * B * params->shape.H;
}

size_t network_state_size(const network *net)
{
  return network_state_size_of(net->params, net->ragged.B);
}

static const uint32_t *rows_of(const network *net)
{
  return net->sorted ? net->ragged.row : NULL;
}

void network_get_state_at(const network *net, size_t slot, unroll_real *state)
{
  for (size_t which = 0; which < params_states(net->params); ++which) {
    for (size_t l = 0; l < net->params->shape.L; ++l) {
      layer_get_state(&net->layers[l], which, slot, rows_of(net), state);
      state += net->ragged.B * net->params->shape.H;
    }
  }
}

void network_get_state(const network *net, unroll_real *state)
{
  network_get_state_at(net, 0, state);
}

void network_set_state(network *net, const unroll_real *state)
{
  for (size_t which = 0; which < params_states(net->params); ++which) {
    for (size_t l = 0; l < net->params->shape.L; ++l) {
      layer_set_state(&net->layers[l], which, rows_of(net), state);
      state += net->ragged.B * net->params->shape.H;
    }
  }
}
