#include "net/sink.h"

#include "base/check.h"

/* First row of slice k of n of W: the same on every CPU, as ranks exchange slices. */
static size_t slice_begin(size_t rows, size_t k, size_t n)
{
  return k == n ? rows : rows * k / n / KERNELS_TILES * KERNELS_TILES;
}

unroll_status sink_notify(const gradient_sink *sink, size_t at, size_t n)
{
  if (sink->ready == NULL || n == 0) { return UNROLL_OK; }
  return sink->ready->call(sink->ready->context, at, n);
}

unroll_status sink_add_product(const gradient_sink *sink, const sink_product *p)
{
  unroll_status st = UNROLL_OK;
  const network_size *size = sink->size;
  const network_ready *ready = sink->ready;
  const unroll_tensor *W = p->W, *b = p->b;
  const size_t rows = params_memory_rows(W);
  const size_t end = b != NULL ? b->offset + b->ld : W->offset + rows * W->ld;
  weight_gradient g = {.T = p->T,
                       .B = size->B,
                       .shards = size->shards,
                       .group = size->group,
                       .M = rows,
                       .N = W->cols,
                       .source = p->source,
                       .dZ = p->dZ,
                       .ld_dZ = p->ld_dZ,
                       .h = p->state_panels,
                       .panel_T = size->T,
                       .slot = p->slot,
                       .dW = sink->gradient + W->offset,
                       .ld_dW = W->ld,
                       .db = b != NULL ? sink->gradient + b->offset : NULL,
                       .per_shard = sink->per_shard,
                       .scratch = sink->scratch};
  size_t slices = 1;
  if (ready != NULL) { g.poll = ready->poll; }
  if (ready != NULL && ready->slice > 0) { slices = rows * W->ld / ready->slice; }
  slices = slices < 1 ? 1 : slices > SLICES_MAX ? SLICES_MAX : slices;

  for (size_t k = 0; k < slices; ++k) {
    const size_t first = slice_begin(rows, k, slices), last = slice_begin(rows, k + 1, slices);
    const size_t at = W->offset + first * W->ld;
    if (first == last) { continue; }
    weight_gradient_rows(&g, first, last);
    UNROLL_TRY(sink_notify(sink, at, (last == rows ? end : W->offset + last * W->ld) - at));
  }

cleanup:
  return st;
}

unroll_status sink_add_bias(const gradient_sink *sink, const unroll_tensor *b, size_t T,
                            const unroll_real *dZ, size_t ld)
{
  const token_gradient g = {.T = T,
                            .B = sink->size->B,
                            .shards = sink->size->shards,
                            .group = sink->size->group,
                            .V = 1,
                            .H = blocks_size(b->blocks, b->rows / b->blocks),
                            .dZ = dZ,
                            .ld = ld,
                            .dW = sink->gradient + b->offset,
                            .ld_dW = b->ld,
                            .per_shard = sink->per_shard,
                            .start = sink->start,
                            .list = sink->list};
  token_gradient_run(&g);
  return sink_notify(sink, b->offset, b->ld);
}
