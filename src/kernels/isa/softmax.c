/*
 * Softmax cross-entropy and its gradient on a token panel O (V, PANEL): one
 * column per token, so everything runs down the columns, one token per lane.
 *
 *   nll[n]  = log(sum_v exp(O[v,n] - top_n)) - (O[y_n,n] - top_n)      [nats]
 *   O[v,n] <- scale * (exp(O[v,n] - top_n) / sum - [v = y_n])
 *
 * The column maximum is subtracted, so exp cannot overflow. The sum of a column
 * runs over v ascending in blocks of SUM_BLOCK in the working precision; the
 * blocks are added in double.
 */
#include "kernels/isa/math.h"
#include "kernels/isa/table.h"

#define SUM_BLOCK 64

/* Maxima of all columns in one pass, row after row: O comes from memory, which is slower than the chain of maxima. */
INLINE void column_tops(size_t V, const unroll_real *O, vec top[TILE_VECS])
{
  for (size_t v = 0; v < TILE_VECS; ++v) { top[v] = vec_load(O + v * LANES); }
  for (size_t i = 1; i < V; ++i) {
    for (size_t v = 0; v < TILE_VECS; ++v) {
      top[v] = vec_max(top[v], vec_load(O + i * PANEL + v * LANES));
    }
  }
}

/* One vector of tokens, at most LANES of them. */
INLINE void softmax_lanes(const softmax_panel *p, vec top, size_t tokens, const int32_t *y,
                          unroll_real *O, double *nll)
{
  double target[LANES], total[LANES];
  for (size_t i = 0; i < LANES; ++i) {
    total[i] = 0.0;
    target[i] =
        i < tokens && y[i] >= 0 ? (double)O[(size_t)y[i] * PANEL + i] - (double)top[i] : 0.0;
  }

  for (size_t begin = 0; begin < p->V; begin += SUM_BLOCK) {
    size_t end = p->V - begin < SUM_BLOCK ? p->V : begin + SUM_BLOCK;
    vec sum = {0};
    for (size_t v = begin; v < end; ++v) {
      vec e = vec_exp(vec_load(O + v * PANEL) - top);
      vec_store(O + v * PANEL, e);
      sum += e;
    }
    for (size_t i = 0; i < LANES; ++i) { total[i] += (double)sum[i]; }
  }
  for (size_t i = 0; i < tokens; ++i) { nll[i] = y[i] >= 0 ? log(total[i]) - target[i] : 0.0; }
  if (p->only_loss) { return; }

  vec shrink = {0}; /* stays zero in lanes without a token: they then add nothing to any gradient */
  for (size_t i = 0; i < tokens; ++i) {
    if (y[i] >= 0) { shrink[i] = (unroll_real)((double)p->scale / total[i]); }
  }
  for (size_t v = 0; v < p->V; ++v) { vec_store(O + v * PANEL, vec_load(O + v * PANEL) * shrink); }
  for (size_t i = 0; i < tokens; ++i) {
    if (y[i] >= 0) { O[(size_t)y[i] * PANEL + i] -= p->scale; }
  }
}

void ISA(softmax)(const softmax_panel *p)
{
  vec top[TILE_VECS];
  column_tops(p->V, p->O, top);
  for (size_t n = 0; n < p->tokens; n += LANES) {
    size_t tokens = p->tokens - n < LANES ? p->tokens - n : LANES;
    softmax_lanes(p, top[n / LANES], tokens, p->y + n, p->O + n, p->nll + n);
  }
}
