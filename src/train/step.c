#include "train/step.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/gradient.h"
#include "kernels/shard_tree.h"
#include "kernels/update.h"
#include "train/optimizer.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* [reals] Smallest slice of the gradient that is exchanged by itself: 256 KiB, worth the fence that it costs. */
#define SLICE ((size_t)1 << 16)

/* ------------------------------------------------------------------- make */

unroll_status step_owned_sequences(uint64_t ranks, uint64_t rank, const unroll_config *config,
                                   size_t *first, size_t *count)
{
  const uint64_t P = ranks, S = config->shards;
  char legal[256] = "";

  if (S % P == 0) {
    *count = (size_t)(config->batch / P);
    *first = (size_t)rank * *count;
    return UNROLL_OK;
  }
  for (uint64_t p = 1, at = 0; p <= S && at + 24 < sizeof legal; ++p) {
    if (S % p == 0) {
      at += (uint64_t)snprintf(legal + at, sizeof legal - at, "%s%" PRIu64, at > 0 ? ", " : "", p);
    }
  }
  return unroll_fail(UNROLL_ERR_ARG,
                     "%" PRIu64 " ranks cannot share %" PRIu64
                     " shards evenly: start %s ranks, or give --shards and --batch "
                     "multiples of %" PRIu64,
                     P, S, legal, P);
}

/* Arrays in the memory of the team: 0 is the parameters, the others are the moments. */
static size_t arrays_of(const stepper *s)
{
  return 1 + run_moments(s->config);
}

static unroll_real **array_of(stepper *s, size_t i)
{
  return i == 0 ? &s->params->values : &s->moments[i - 1];
}

/*
 * The memory of the team:
 *
 *   segment of a rank   its gradient (params->n_gradient), touched rows of the input table for the exchange
 *   common              parameters, moments (params->n each), sums of squares of the gradient (blocks)
 */
static unroll_status make_team(stepper *s, size_t longest)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = s->params;
  const size_t n = params->n, window = longest * (size_t)s->config->batch;
  const size_t arrays = arrays_of(s);
  const size_t rows = s->ranks > 1 ? step_exchange_rows_max(params, window) : 0;

  UNROLL_TRY(comm_team_new(s->comm, (params->n_gradient + rows) * sizeof *s->sum,
                           arrays * n * sizeof *s->sum + update_norm_blocks(n) * sizeof *s->squares,
                           &s->team));
  s->sum = comm_team_segment(s->team, 0);
  s->rows = (unroll_real *)comm_team_segment(s->team, s->team->rank) + params->n_gradient;
  s->squares = (double *)((unroll_real *)comm_team_common(s->team) + arrays * n);

cleanup:
  return st;
}

/* Memory only, not collective. */
static unroll_status make_network(stepper *s, size_t longest)
{
  unroll_status st = UNROLL_OK;
  const unroll_config *config = s->config;
  const unroll_params *params = s->params;
  size_t first = 0, count = 0, chunk = longest, T = longest, batch = (size_t)config->batch;
  size_t shards = (size_t)config->shards / s->ranks;
  size_t group = shard_tree_group((size_t)config->shards);
  if (shards % group != 0) {
    group = shard_tree_group(shards);
  } /* P is no power of two: another tree */

  UNROLL_TRY(step_owned_sequences(s->ranks, 0, config, &first, &count));
  if (config->bptt != UNROLL_BPTT_TRUNCATED &&
      longest > segments_chunk_steps(batch, params->shape.V)) {
    chunk = segments_chunk_steps(batch, params->shape.V);
    T = segments_steps(longest, chunk, params, count, config->dropout > 0.0 || params->shape.skip);
  }
  const network_size size = {.T = T,
                             .chunk = chunk,
                             .B = count,
                             .shards = shards,
                             .group = group,
                             .window = longest * batch,
                             .dropout = config->dropout > 0.0,
                             .drop_weights = config->dropout_weights > 0.0,
                             .per_shard = longest > chunk,
                             .gradient = comm_team_segment(s->team, s->team->rank),
                             .rows = s->ranks > 1 ? s->rows : NULL};
  UNROLL_TRY(network_new(params, &size, &s->net));
  if (size.per_shard) { UNROLL_TRY(segments_new(s->net, longest, &s->segments)); }
  UNROLL_TRY(
      memory_new(update_norm_blocks(params->n), sizeof *s->norm_scratch, "norm", &s->norm_scratch));
  UNROLL_TRY(memory_new(shards, sizeof *s->shard_sums, "losses", &s->shard_sums));
  UNROLL_TRY(comm_exchange_new(s->team, &s->exchange));
  network_set_xi(s->net, piece_xi(config));
  s->net->head.smoothing = config->label_smoothing;
  s->net->penalty = (penalty){config->penalty_activation, config->penalty_change};

cleanup:
  return st;
}

/* Move parameters and moments, the same on every rank, to the memory of the team: each rank copies its range. */
static unroll_status move_to_team(stepper *s)
{
  unroll_status st = UNROLL_OK;
  const size_t n = s->params->n;
  unroll_real *to = comm_team_common(s->team);
  size_t begin = 0, end = 0;

  comm_team_owned_range(s->team, n, KERNELS_NORM_BLOCK, &begin, &end);
  for (size_t i = 0; i < arrays_of(s); ++i, to += n) {
    unroll_real **from = array_of(s, i);
    memcpy(to + begin, *from + begin, (end - begin) * sizeof *to);
    memory_free(from);
    *from = to;
  }
  s->moved = true;
  UNROLL_TRY(comm_team_fence(s->team));

cleanup:
  return st;
}

/* All memory of a stepper. */
static unroll_status make(unroll_comm *comm, const unroll_config *config, size_t ranks,
                          size_t longest, unroll_params *params, stepper **out)
{
  unroll_status st = UNROLL_OK;
  stepper *s = NULL;
  assert(ranks == (size_t)unroll_comm_size(comm) || unroll_comm_size(comm) == 1);

  UNROLL_TRY(comm_agree(comm, memory_new(1, sizeof *s, "stepper", &s)));
  *s = (stepper){.comm = comm, .ranks = ranks, .config = config, .params = params};
  UNROLL_TRY(make_team(s, longest));
  UNROLL_TRY(comm_agree(comm, make_network(s, longest)));
  *out = s;
  s = NULL;

cleanup:
  step_free(&s);
  return st;
}

unroll_status step_measure(unroll_comm *comm, const unroll_config *config, size_t ranks,
                           size_t longest, unroll_params *params, step_memory *out)
{
  unroll_status st = UNROLL_OK;
  stepper *s = NULL;
  const uint64_t before = memory_live_bytes();

  UNROLL_TRY(make(comm, config, ranks, longest, params, &s));
  *out =
      (step_memory){.gradient = s->team->segment_bytes,
                    .common = s->team->total_bytes - (size_t)s->team->size * s->team->segment_bytes,
                    .workspace = memory_live_bytes() - before};

cleanup:
  step_free(&s);
  return st;
}

unroll_status step_new(unroll_comm *comm, const unroll_config *config, size_t ranks, size_t longest,
                       unroll_params *params, unroll_real **moments, stepper **out)
{
  unroll_status st = UNROLL_OK;
  stepper *s = NULL;

  UNROLL_TRY(make(comm, config, ranks, longest, params, &s));
  s->moments = moments;
  UNROLL_TRY(move_to_team(s));
  *out = s;
  s = NULL;

cleanup:
  step_free(&s);
  return st;
}

void step_free(stepper **p)
{
  stepper *s = *p;
  if (s == NULL) { return; }
  for (size_t i = 0; s->moved && i < arrays_of(s); ++i) { *array_of(s, i) = NULL; }
  comm_exchange_free(&s->exchange);
  memory_free(&s->shard_sums);
  memory_free(&s->norm_scratch);
  segments_free(&s->segments);
  network_free(&s->net);
  comm_team_free(&s->team);
  memory_free(p);
}

/* ------------------------------------------------------------------ phases */

/* Seconds since *since, which becomes now. */
static double lap(double *since)
{
  double now = clock_seconds(), seconds = now - *since;
  *since = now;
  return seconds;
}

/* Is a piece longer than a chunk, so that it needs checkpointing? The same answer on every rank. */
static bool is_long(const stepper *s, const piece *p)
{
  return p->steps > s->net->size.chunk;
}

static network_span span_of(const piece *p)
{
  return (network_span){0, p->scored, p->steps};
}

/* Hidden states; losses and dL/do of a piece that is not long. */
static void forward(stepper *s, const piece *p, token_source source)
{
  network *net = s->net;
  double since = clock_seconds();

  if (p->from_zero) { network_reset(net); }
  if (is_long(s, p)) {
    segments_forward(s->segments, p->steps, source);
    s->times.forward += lap(&since);
    return;
  }
  source.fill(source.context, 0, p->steps, net->x, net->y);
  if (net->embedding.sparse) {
    embedding_mark_tokens(&net->embedding, p->steps * net->size.B, net->x, true);
  }
  network_forward(net, p->steps);
  s->times.forward += lap(&since);
  network_output(net, span_of(p), p->scale, false);
  memset(s->shard_sums, 0, net->size.shards * sizeof *s->shard_sums);
  network_add_losses(net, p->steps - p->scored, s->shard_sums);
  s->times.output += lap(&since);
}

/* Are only the touched rows of the input table exchanged? */
static bool exchanges_rows(const stepper *s)
{
  return s->net->embedding.sparse && s->ranks > 1;
}

/* Is the sum of the gradients not yet the gradient: rows to be put in their place or added to it, masks? */
static bool completes_sum(const stepper *s)
{
  return exchanges_rows(s) || s->params->shape.tied || s->config->dropout_weights > 0.0;
}

/* What is still missing in the sum, in this rank's share. */
static void complete_sum(stepper *s)
{
  const network *net = s->net;
  size_t begin = 0, end = 0;

  comm_team_owned_range(s->team, embedding_rows(&net->embedding), 1, &begin, &end);
  if (exchanges_rows(s)) {
    embedding_scatter_rows(&net->embedding, s->sum + s->params->n_gradient, begin, end, s->sum);
  }
  if (s->params->shape.tied) { embedding_add_tied(&net->embedding, begin, end, s->sum); }
  for (size_t l = 0; s->config->dropout_weights > 0.0 && l < s->params->shape.L; ++l) {
    comm_team_owned_range(s->team, layer_recurrent_rows(&net->layers[l]), 1, &begin, &end);
    layer_drop_gradient(&net->layers[l], &net->dropout, begin, end, s->sum);
  }
}

/* The rows of the input table whose tokens occur in this step, on any rank. Collective */
static unroll_status set_touched_rows(stepper *s)
{
  unroll_status st = UNROLL_OK;
  double since = clock_seconds();
  embedding *e = &s->net->embedding;
  if (!e->sparse) { goto cleanup; }
  UNROLL_TRY(comm_or_u64(s->comm, e->token_mask, embedding_mask_words(e)));
  embedding_set_touched_rows(e, s->net->gradient);
  s->times.exchange += lap(&since);

cleanup:
  return st;
}

/* Does the gradient, as norm and update see it, end with a table of which only touched rows are not zero? */
static bool ends_with_rows(const stepper *s)
{
  return s->net->embedding.sparse && !s->params->shape.tied;
}

static sparse_rows touched_rows(const stepper *s)
{
  const unroll_tensor *table = params_input_table(s->params);
  return (sparse_rows){.begin = table->offset,
                       .ld = table->ld,
                       .n_rows = s->net->embedding.n_touched,
                       .row = s->net->embedding.touched};
}

size_t step_exchange_dense_max(const unroll_params *params, size_t window)
{
  return embedding_is_sparse(params, window) ? params_table_gradient(params) : params->n_gradient;
}

size_t step_exchange_rows_max(const unroll_params *params, size_t window)
{
  return embedding_is_sparse(params, window) ? window * params_input_table(params)->ld : 0;
}

size_t step_exchange_dense(const stepper *s)
{
  return s->net->embedding.sparse ? s->net->embedding.gradient : s->params->n_gradient;
}

size_t step_exchange_rows(const stepper *s)
{
  return s->net->embedding.sparse ? s->net->embedding.n_touched * touched_rows(s).ld : 0;
}

/* Wait until what was exchanged so far, if anything, is complete in the memory of the team. */
static unroll_status wait_exchange(stepper *s)
{
  unroll_status st = UNROLL_OK;
  double since = clock_seconds();
  UNROLL_TRY(comm_exchange_wait(s->exchange));
  UNROLL_TRY(comm_team_fence(s->team));

cleanup:
  s->times.wait += lap(&since);
  return st;
}

/* Start the exchange of a slice of the gradient, or of the touched rows, when all ranks of the team have computed
 * it. */
static unroll_status exchange_slice(void *context, size_t at, size_t n)
{
  stepper *s = context;
  unroll_status st = UNROLL_OK;
  double since = clock_seconds();
  UNROLL_TRY(comm_team_fence(s->team));
  s->times.wait += lap(&since);
  UNROLL_TRY(comm_exchange_start(s->exchange, at, n));
  s->times.exchange += lap(&since);

cleanup:
  return st;
}

static void exchange_poll(void *context)
{
  stepper *s = context;
  double since = clock_seconds();
  (void)comm_exchange_poll(s->exchange); /* an error stays with the exchange until the wait */
  s->times.exchange += lap(&since);
}

/* The gradient of this rank, the exchange of its complete slices started; losses and dL/do of a long piece. */
static unroll_status backward(stepper *s, const piece *p, token_source source)
{
  unroll_status st = UNROLL_OK;
  step_times *times = &s->times;
  const network_ready ready = {.call = exchange_slice,
                               .context = s,
                               .slice = comm_exchange_has_peers(s->exchange) ? SLICE : 0,
                               .poll = {.call = exchange_poll, .context = s}};
  double since = clock_seconds(), exchanged = times->exchange + times->wait;

  UNROLL_TRY(set_touched_rows(s));
  if (is_long(s, p)) {
    UNROLL_TRY(segments_backward(s->segments, p->scale, source, s->shard_sums, &ready));
    segments_carry(s->segments);
  } else {
    UNROLL_TRY(network_backward(s->net, span_of(p), &ready));
    network_carry(s->net, p->advance);
  }
  times->backward += lap(&since) - (times->exchange + times->wait - exchanged);

cleanup:
  return st;
}

/* Complete the exchange of the gradient; sum losses and flags over the ranks. Collective */
static unroll_status sum(stepper *s, const piece *p, double *loss, double *flags)
{
  unroll_status st = UNROLL_OK;
  network *net = s->net;
  double sums[1 + STEP_FLAGS];
  double since = clock_seconds();

  sums[0] = shard_tree_sum(net->size.shards, net->size.group, s->shard_sums);
  memcpy(sums + 1, flags, STEP_FLAGS * sizeof *flags);
  s->times.output += lap(&since);

  UNROLL_TRY(wait_exchange(s));
  since = clock_seconds();
  if (completes_sum(s)) { complete_sum(s); }
  UNROLL_TRY(comm_tree_sum(s->comm, sums, 1 + STEP_FLAGS));
  s->times.exchange += lap(&since);
  *loss = sums[0] / p->tokens;
  memcpy(flags, sums + 1, STEP_FLAGS * sizeof *flags);

cleanup:
  return st;
}

/* The norm of the global gradient. Collective */
static unroll_status global_norm(stepper *s, double *norm)
{
  unroll_status st = UNROLL_OK;
  const sparse_rows rows = touched_rows(s), *sparse = ends_with_rows(s) ? &rows : NULL;
  const size_t n = s->params->n, count = update_norm_blocks(n);
  const size_t dense = sparse != NULL ? update_norm_blocks(rows.begin) : count;
  size_t begin = 0, end = 0;
  double since = 0.0;

  if (completes_sum(s)) { UNROLL_TRY(wait_exchange(s)); } /* of the others too */
  since = clock_seconds();
  comm_team_owned_range(s->team, dense, 1, &begin, &end);
  update_sum_squares(n, s->sum, sparse, begin, end, s->squares);
  if (sparse != NULL) { /* the table separately: most of its blocks cost nothing */
    comm_team_owned_range(s->team, count - dense, 1, &begin, &end);
    update_sum_squares(n, s->sum, sparse, dense + begin, dense + end, s->squares);
  }
  s->times.norm += lap(&since);
  UNROLL_TRY(wait_exchange(s));
  since = clock_seconds();
  memcpy(s->norm_scratch, s->squares, count * sizeof *s->norm_scratch);
  *norm = update_norm(count, s->norm_scratch);
  s->times.norm += lap(&since);

cleanup:
  return st;
}

/* w <- w - eta (clipped gradient), by the optimizer, and their average; the new weights are packed. Collective */
static unroll_status apply(stepper *s, double norm, double eta, double share, uint64_t update,
                           double *scale)
{
  unroll_status st = UNROLL_OK;
  double since = clock_seconds();
  const unroll_config *config = s->config;
  const bool by_rows = ends_with_rows(s) && optimizer_skips_zeros(config) && share == 0.0;
  sparse_rows rows = touched_rows(s);
  size_t begin = 0, end = 0;

  *scale = clip_scale(config->clip, norm);
  comm_team_owned_range(s->team, by_rows ? rows.begin : s->params->n, KERNELS_NORM_BLOCK, &begin,
                        &end);
  optimizer_update(config, begin, end, *scale, eta, update, s->sum, s->moments, s->params->values);
  if (share > 0.0) {
    update_average(end - begin, share, s->params->values + begin,
                   s->moments[run_average(config)] + begin);
  }
  if (by_rows) {
    comm_team_owned_range(s->team, rows.n_rows, 1, &begin, &end);
    rows.row += begin;
    rows.n_rows = end - begin;
    update_sgd_rows(*scale, eta, s->sum, &rows, s->params->values);
  }
  s->times.update += lap(&since);
  UNROLL_TRY(wait_exchange(s));
  since = clock_seconds();
  if (config->dropout_weights == 0.0) {
    network_pack(s->net);
  } /* else the next step does, with its masks */
  s->times.update += lap(&since);

cleanup:
  return st;
}

/* -------------------------------------------------------------------- step */

/* The piece of a text that a step reads. */
typedef struct batch_place {
  const text_source *text;
  const piece *piece;
} batch_place;

static void fill(void *context, size_t first, size_t T, int32_t *x, int32_t *y)
{
  const batch_place *r = context;
  text_source_fill(r->text, r->piece->epoch, r->piece->batch, r->piece->start + first, T, x, y);
}

static void measure(void *context, uint64_t *length)
{
  const batch_place *r = context;
  text_source_lengths(r->text, r->piece->epoch, r->piece->batch, length);
}

unroll_status step_run(stepper *s, const piece *p, const text_source *text, double rate,
                       double share, uint64_t update, step_flags flags, step_outcome *out)
{
  unroll_status st = UNROLL_OK;
  batch_place at = {text, p};
  const token_source source = {fill, text->ragged ? measure : NULL, &at};
  const double before = clock_seconds();

  *out = (step_outcome){0};
  s->net->masked = text->ragged;
  s->net->dropout = (dropout){.p = s->config->dropout,
                              .p_embedding = s->config->dropout_embedding,
                              .p_words = s->config->dropout_words,
                              .p_weights = s->config->dropout_weights,
                              .per_step = s->config->dropout_kind == UNROLL_DROPOUT_STEP,
                              .seed = s->config->seed,
                              .update = update,
                              .first = text->cut.first};
  if (s->config->dropout_weights > 0.0) { network_pack(s->net); }
  forward(s, p, source);
  UNROLL_TRY(backward(s, p, source));
  if (flags.set != NULL) { flags.set(flags.context, out->flags); }
  UNROLL_TRY(sum(s, p, &out->loss, out->flags));
  UNROLL_TRY(global_norm(s, &out->norm));
  out->updated = isfinite(out->loss) && isfinite(out->norm);
  if (out->updated) {
    UNROLL_TRY(apply(s, out->norm, rate, share, update, &out->scale));
  } else {
    network_reset(s->net);
  }
  s->times.total += clock_seconds() - before;
  s->times.steps += 1;
  s->times.tokens += (uint64_t)p->tokens;

cleanup:
  return st;
}
