#include "kernels/output.h"

#include "kernels/dispatch.h"

#include <assert.h>
#include <omp.h>

/* Panels per pass over the weights: more of them would not pay, fewer would wait for the weights. */
#define PANELS_PER_PASS 6
#define LEAST_PANELS    3

/* A block of K of W^T: at least so many rows of W, else the chains are stored and loaded too often. */
#define SHORT_K 128
#define MAX_NR  32

size_t output_panels(size_t T, size_t B, size_t shards)
{
  size_t tokens = T * (B / shards), nr = kernels()->nr;
  return shards * ((tokens + nr - 1) / nr);
}

size_t output_scratch(size_t H)
{
  return 2 * (size_t)PANELS_PER_PASS * kernels_pad(H) * kernels()->nr;
}

/* Panels of a pass whose h stays in the cache while the rows of W pass. */
static size_t panels_per_pass(size_t H)
{
  const size_t fit = kernels_blocks()->whole / (kernels_pad(H) * kernels()->nr);
  return fit < LEAST_PANELS ? LEAST_PANELS : fit > PANELS_PER_PASS ? PANELS_PER_PASS : fit;
}

/* Of V in W^T dO: all where dO of a pass stays in the cache, else so many rows of W as stay there. */
static size_t block_of_V(const output_layer *p, size_t panels)
{
  const size_t rows = kernels_blocks()->block / p->ld_W;
  if (p->V * panels * kernels()->nr <= kernels_blocks()->whole) { return p->V; }
  return rows < SHORT_K ? SHORT_K : rows;
}

/* Rows of the tokens of panel q of shard s in a time-major array of rows of ld elements. */
static size_t panel_rows(const output_layer *p, size_t s, size_t q, size_t row[MAX_NR])
{
  size_t nr = kernels()->nr, in_shard = p->B / p->shards, tokens = p->T * in_shard;
  size_t count = tokens - q * nr < nr ? tokens - q * nr : nr;
  size_t t = q * nr / in_shard, b = q * nr % in_shard;
  for (size_t i = 0; i < count; ++i) {
    row[i] = t * p->B + s * in_shard + b;
    if (++b == in_shard) {
      b = 0;
      ++t;
    }
  }
  return count;
}

/* Label smoothing (Szegedy et al. 2016): onehot(y) becomes (1 - eps) onehot(y) + eps / V in a panel of dO. A pass of its
 * own, so that the other one costs and computes what it does without. */
static void smooth(const output_layer *p, size_t tokens, const int32_t *y, unroll_real *dO)
{
  const size_t nr = kernels()->nr;
  const unroll_real back = (unroll_real)((double)p->scale * p->smoothing);
  const unroll_real each = (unroll_real)((double)p->scale * p->smoothing / (double)p->V);
  unroll_real share[MAX_NR] = {0}; /* nothing where there is no token */
  for (size_t i = 0; i < tokens; ++i) { share[i] = y[i] >= 0 ? each : 0; }
  for (size_t v = 0; v < p->V; ++v) {
    for (size_t i = 0; i < tokens; ++i) { dO[v * nr + i] -= share[i]; }
  }
  for (size_t i = 0; i < tokens; ++i) {
    if (y[i] >= 0) { dO[(size_t)y[i] * nr + i] += back; }
  }
}

/* `count` panels of shard s from panel q on: the whole layer for their tokens. */
static void output_pass(const output_layer *p, size_t s, size_t q, size_t count,
                        unroll_real *scratch)
{
  const kernel_table *k = kernels();
  size_t tokens = p->T * (p->B / p->shards);
  size_t per_shard = (tokens + k->nr - 1) / k->nr;
  size_t panel_h = kernels_pad(p->H) * k->nr, panel_O = p->V * k->nr;
  unroll_real *H = scratch,
              *dH = scratch + PANELS_PER_PASS * panel_h; /* padding rows of dH stay zero */
  unroll_real *O = p->O + (s * per_shard + q) * panel_O;
  size_t row[MAX_NR], last = 0;

  for (size_t i = 0; i < count; ++i) {
    const unroll_real *from[MAX_NR];
    last = panel_rows(p, s, q + i, row);
    for (size_t n = 0; n < last; ++n) {
      from[n] = p->h + row[n] * p->ld;
      p->y_panel[s * tokens + (q + i) * k->nr + n] = p->y[row[n]];
    }
    k->gather_panel(p->H, last, from, H + i * panel_h, k->nr);
  }

  /* O (V, n) = W_qh (V, H) H (H, n) + b_q */
  const panels_product logits = {.M = p->V,
                                 .K = p->H,
                                 .block_K = p->H,
                                 .W = p->W,
                                 .row_stride = p->ld_W,
                                 .col_stride = 1,
                                 .n_panels = count,
                                 .B = H,
                                 .panel_B = panel_h,
                                 .C = O,
                                 .panel_C = panel_O,
                                 .bias = p->bias,
                                 .last_tokens = last};
  k->panels(&logits);

  for (size_t i = 0; i < count; ++i) {
    size_t n = s * tokens + (q + i) * k->nr;
    const softmax_panel softmax = {.V = p->V,
                                   .tokens = i + 1 < count ? k->nr : last,
                                   .y = p->y_panel + n,
                                   .scale = p->scale,
                                   .O = O + i * panel_O,
                                   .only_loss = p->only_loss,
                                   .nll = p->nll + n};
    k->softmax(&softmax);
    if (p->smoothing > 0.0 && !p->only_loss) { smooth(p, softmax.tokens, softmax.y, softmax.O); }
  }
  if (p->only_loss) { return; }

  /* dH (H, n) = W_qh^T (H, V) dO (V, n) */
  const panels_product back = {.M = p->H,
                               .K = p->V,
                               .block_K = block_of_V(p, count),
                               .W = p->W,
                               .row_stride = 1,
                               .col_stride = p->ld_W,
                               .n_panels = count,
                               .B = O,
                               .panel_B = panel_O,
                               .C = dH,
                               .panel_C = panel_h,
                               .last_tokens = last};
  k->panels(&back);
  for (size_t i = 0; i < count; ++i) {
    unroll_real *to[MAX_NR];
    size_t n_rows = panel_rows(p, s, q + i, row);
    for (size_t n = 0; n < n_rows; ++n) { to[n] = p->dh + row[n] * p->ld; }
    k->scatter_panel(p->H, n_rows, dH + i * panel_h, k->nr, to);
  }
}

void output_layer_run(const output_layer *p)
{
  size_t panels = output_panels(p->T, p->B, p->shards), per_shard = panels / p->shards;
  size_t scratch = output_scratch(p->H);
  assert(kernels()->nr <= MAX_NR);

#pragma omp parallel default(none) shared(p, panels, per_shard, scratch)
  {
    size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
    size_t last = panels * (thread + 1) / threads;
    for (size_t q = panels * thread / threads, count = 0; q < last; q += count) {
      size_t in_shard = q % per_shard;
      size_t left = last - q < per_shard - in_shard ? last - q : per_shard - in_shard;
      size_t passes = ceil_div(left, panels_per_pass(p->H));
      count = ceil_div(left, passes); /* nearly equal: 8 = 4 + 4, not 6 + 2 */
      output_pass(p, q / per_shard, in_shard, count, p->scratch + thread * scratch);
    }
  }
}
