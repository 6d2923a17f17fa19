#include "net/embedding.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dispatch.h"

#include <string.h>

bool embedding_is_sparse(const unroll_params *params, size_t window)
{
  return params->shape.V > window;
}

unroll_status embedding_init(const unroll_params *params, const network_size *size, embedding *e)
{
  unroll_status st = UNROLL_OK;

  *e = (embedding){.params = params,
                   .table = params_input_table(params),
                   .gradient = params_table_gradient(params),
                   .size = *size,
                   .sparse = size_has_backward(size) && embedding_is_sparse(params, size->window),
                   .rows = size->rows};
  if (e->sparse) {
    UNROLL_TRY(
        memory_new(embedding_mask_words(e), sizeof *e->token_mask, "tokens seen", &e->token_mask));
    UNROLL_TRY(memory_new(size->window, sizeof *e->touched, "rows touched", &e->touched));
  }
  if (params->shape.E > 0) {
    UNROLL_TRY(memory_new_reals(size->T * size->B * e->table->ld, "embedded tokens", &e->gathered));
  }
  if (params->shape.E > 0 && size_has_backward(size)) {
    UNROLL_TRY(memory_new_reals(state_panels_size(size->T, size->B, params->shape.E),
                                "embedded tokens", &e->panels));
  }

cleanup:
  return st;
}

void embedding_destroy(embedding *e)
{
  memory_free(&e->panels);
  memory_free(&e->gathered);
  memory_free(&e->touched);
  memory_free(&e->token_mask);
}

layer_input embedding_forward(const embedding *e, const int32_t *x)
{
  return (layer_input){e->params->values + e->table->offset, e->table->ld, x};
}

layer_below embedding_gathered(const embedding *e)
{
  return (layer_below){e->gathered, e->table->cols, e->table->ld, e->panels};
}

/* Dropout of the rows (T, B, ld) of tokens x, in place. */
static void drop(const embedding *e, const dropout *how, size_t T, const int32_t *x,
                 unroll_real *rows)
{
  const size_t B = e->size.B, ld = e->table->ld;
  const dropout_rows r = {how, DROPOUT_EMBEDDING, how->p_embedding, T, B, e->table->cols, ld, rows,
                          rows};
  if (how->p_words > 0.0) { dropout_words(how, T * B, x, ld, rows); }
  if (how->p_embedding > 0.0) { dropout_run(&r); }
}

void embedding_drop_backward(const embedding *e, const dropout *how, network_span span,
                             const int32_t *x, unroll_real *rows)
{
  dropout at = *how;
  at.step += span.begin;
  drop(e, &at, span.end - span.begin, x, rows);
}

layer_below embedding_gather(const embedding *e, const dropout *how, size_t T, const int32_t *x)
{
  const unroll_real *table = e->params->values + e->table->offset;
  unroll_real *to = e->gathered;
  const size_t n = T * e->size.B, ld = e->table->ld;

#pragma omp parallel for default(none) schedule(static) shared(table, x, to, n, ld)
  for (size_t i = 0; i < n; ++i) {
    memcpy(to + i * ld, table + (size_t)x[i] * ld, ld * sizeof *to);
  }
  drop(e, how, T, x, to);
  if (e->panels != NULL) {
    state_panels_copy(&(state_rows){.T = T,
                                    .B = e->size.B,
                                    .H = e->table->cols,
                                    .shards = e->size.shards,
                                    .h = to,
                                    .ld = ld,
                                    .slot = 1,
                                    .state_panels = e->panels,
                                    .panel_T = e->size.T});
  }
  return embedding_gathered(e);
}

size_t embedding_mask_words(const embedding *e)
{
  return (e->params->shape.V + 63) / 64;
}

void embedding_mark_tokens(embedding *e, size_t n, const int32_t *x, bool first)
{
  if (first) { memset(e->token_mask, 0, embedding_mask_words(e) * sizeof *e->token_mask); }
  for (size_t i = 0; i < n; ++i) {
    e->token_mask[(size_t)x[i] / 64] |= UINT64_C(1) << ((size_t)x[i] % 64);
  }
}

/* Offset of touched row i in a gradient. */
static size_t touched_offset(const embedding *e, size_t i)
{
  return e->gradient + e->touched[i] * e->table->ld;
}

void embedding_set_touched_rows(embedding *e, unroll_real *gradient)
{
  const size_t bytes = e->table->ld * sizeof *gradient;
  for (size_t i = 0; i < e->n_touched; ++i) { memset(gradient + touched_offset(e, i), 0, bytes); }
  e->n_touched = 0;
  for (size_t word = 0; word < embedding_mask_words(e); ++word) {
    for (uint64_t bits = e->token_mask[word], bit = 0; bits != 0; bits >>= 1, ++bit) {
      if (bits & 1) { e->touched[e->n_touched++] = (uint32_t)(word * 64 + bit); }
    }
  }
}

void embedding_gather_rows(const embedding *e, const unroll_real *gradient)
{
  const size_t ld = e->table->ld;
  for (size_t i = 0; i < e->n_touched; ++i) {
    memcpy(e->rows + i * ld, gradient + touched_offset(e, i), ld * sizeof *e->rows);
  }
}

void embedding_scatter_rows(const embedding *e, const unroll_real *rows, size_t begin, size_t end,
                            unroll_real *gradient)
{
  const size_t ld = e->table->ld;
  for (size_t i = begin; i < end; ++i) {
    memcpy(gradient + touched_offset(e, i), rows + i * ld, ld * sizeof *rows);
  }
}

size_t embedding_rows(const embedding *e)
{
  return e->sparse ? e->n_touched : params_memory_rows(e->table);
}

void embedding_add_tied(const embedding *e, size_t begin, size_t end, unroll_real *gradient)
{
  const size_t ld = e->table->ld;
  const kernel_table *k = kernels();

#pragma omp parallel for default(none) schedule(static) shared(e, begin, end, gradient, ld, k)
  for (size_t i = begin; i < end; ++i) {
    const size_t row = (e->sparse ? e->touched[i] : i) * ld;
    k->add(ld, gradient + e->gradient + row, gradient + e->table->offset + row);
  }
}

void embedding_backward(const embedding *e, size_t T, const int32_t *x, const unroll_real *deltas,
                        size_t ld, const gradient_sink *sink)
{
  const unroll_tensor *table = e->table;
  const size_t V = params_memory_rows(table);
  unroll_real *out = sink->gradient + e->gradient;
  const token_gradient g = {.T = T,
                            .B = e->size.B,
                            .shards = e->size.shards,
                            .group = e->size.group,
                            .V = V,
                            .H = params_table_width(table),
                            .x = x,
                            .dZ = deltas,
                            .ld = ld,
                            .dW = out,
                            .ld_dW = table->ld,
                            .per_shard = sink->per_shard,
                            .start = sink->start,
                            .list = sink->list};
  if (sink->per_shard == 0 && !e->sparse) { memset(out, 0, V * table->ld * sizeof *out); }
  token_gradient_run(&g);
}

unroll_status embedding_notify(const embedding *e, const gradient_sink *sink)
{
  const size_t V = params_memory_rows(e->table);
  if (!e->sparse) { return sink_notify(sink, e->gradient, V * e->table->ld); }
  if (e->rows == NULL || sink->ready == NULL) { return UNROLL_OK; }
  embedding_gather_rows(e, sink->gradient);
  return sink_notify(sink, e->params->n_gradient, e->n_touched * e->table->ld);
}
