/* The matrix products: loop nests over register tiles (tile.h). */
#include "kernels/blocks.h"
#include "kernels/isa/table.h"
#include "kernels/isa/tile.h"
#include "kernels/shard_tree.h"

#include <assert.h>
#include <stdbool.h>

/* ---------------------------------------------------- activations x weights */

void ISA(rows)(const rows_product *p)
{
  tile_sum s = {.row_stride = p->lda, .k_stride = 1, .ldc = p->ldc};
  for (size_t k = 0; k < p->K; k += p->block_K) {
    s.K = s.run = p->K - k < p->block_K ? p->K - k : p->block_K;
    for (size_t panel = p->first; panel < p->last; ++panel) {
      size_t vecs = panel_vecs(p->N, panel);
      s.ldb = vecs * LANES;
      const unroll_real *b = p->panels + panel * PANEL * kernels_pad(p->K) + k * s.ldb;
      for (size_t m = 0, rows = 0; m < p->M; m += rows) {
        rows = tile_rows(p->M - m);
        unroll_real *C = p->C + m * p->ldc + panel * PANEL;
        tile_multiply(rows, vecs, &s, p->A + m * p->lda + k, b, k > 0 ? C : NULL, C);
      }
    }
  }
}

/* ---------------------------------------------------- weights x token panels */

/*
 * Where K is cut, the chains continue through C, at the price of one load and store for each block of K. W itself comes
 * from memory: the next tile's rows are prefetched while this one's pass over the panels.
 */
/* Elements [0, columns) of `rows` rows, into the second-level cache. */
INLINE void prefetch_rows(const unroll_real *W, size_t rows, size_t ld, size_t columns)
{
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < columns; j += CACHE_LINE) { __builtin_prefetch(W + i * ld + j, 0, 2); }
  }
}

void ISA(panels)(const panels_product *p)
{
  tile_sum s = {.row_stride = p->row_stride, .k_stride = p->col_stride, .ldb = PANEL, .ldc = PANEL};
  const size_t block = p->block_K;
  tile_buffer bias;

  for (size_t k = 0; k < p->K; k += block) {
    s.K = s.run = p->K - k < block ? p->K - k : block;
    for (size_t m = 0, rows = 0; m < p->M; m += rows) {
      rows = tile_rows(p->M - m);
      const unroll_real *w = p->W + m * p->row_stride + k * p->col_stride;
      if (p->col_stride == 1 && m + rows < p->M) { /* the rows below */
        prefetch_rows(w + rows * p->row_stride, tile_rows(p->M - m - rows), p->row_stride, s.K);
      } else if (p->col_stride > 1 && k + block < p->K) { /* the same columns, further down */
        size_t left = p->K - k - block;
        prefetch_rows(w + block * p->col_stride, left < block ? left : block, p->col_stride, rows);
      }
      for (size_t i = 0; i < rows && k == 0 && p->bias != NULL; ++i) {
        for (size_t v = 0; v < TILE_VECS; ++v) {
          vec_store(bias.c + i * PANEL + v * LANES, vec_splat(p->bias[m + i]));
        }
      }
      for (size_t q = 0; q < p->n_panels; ++q) {
        unroll_real *C = p->C + q * p->panel_C + m * PANEL;
        const unroll_real *start = k > 0 ? C : p->bias != NULL ? bias.c : NULL;
        size_t vecs = q + 1 == p->n_panels && p->last_tokens <= LANES ? 1 : TILE_VECS;
        tile_multiply(rows, vecs, &s, w, p->B + q * p->panel_B + k * PANEL, start, C);
      }
    }
  }
}

/* ----------------------------------------------------------- weight gradient */

/* out = left + right: one node of the shard tree. */
static void combine(size_t rows, size_t vecs, const gradient_tile *left, const gradient_tile *right,
                    gradient_tile *out)
{
  for (size_t i = 0; i < rows; ++i) {
    for (size_t v = 0; v < vecs; ++v) {
      size_t at = i * PANEL + v * LANES;
      vec_store(out->sum.c + at, vec_load(left->sum.c + at) + vec_load(right->sum.c + at));
    }
  }
  for (size_t v = 0; v < PACK; v += LANES) {
    vec_store(out->column + v, vec_load(left->column + v) + vec_load(right->column + v));
  }
}

/* Sums over a shard's tokens where the rows of A lie beside each other: row i in lane i. Lanes behind
 * the rows hold what lies there; nobody reads them. */
static void sum_columns(const tile_sum *s, const unroll_real *a, unroll_real *column)
{
  vec sum[PACK / LANES];
  for (size_t v = 0; v < PACK / LANES; ++v) { sum[v] = (vec){0}; }
  for (size_t n = 0; n < s->K; n += s->run, a += s->run_stride) {
    size_t run = s->K - n < s->run ? s->K - n : s->run;
    for (size_t i = 0; i < run; ++i) {
      for (size_t v = 0; v < PACK / LANES; ++v) {
        sum[v] += vec_load(a + i * s->k_stride + v * LANES);
      }
    }
  }
  for (size_t v = 0; v < PACK / LANES; ++v) { vec_store(column + v * LANES, sum[v]); }
}

/* The same for one row whose tokens lie beside each other; the lanes behind the last token are zero. */
static unroll_real sum_row(const gradient_block *p, const unroll_real *a)
{
  vec lanes[VECS_OF_PAD];
  size_t u = 0;
  for (size_t v = 0; v < VECS_OF_PAD; ++v) { lanes[v] = (vec){0}; }
  for (size_t n = 0; n < p->tokens; n += p->run, a += p->run_stride) {
    for (size_t i = 0; i < p->run && n + i < p->tokens; i += LANES, ++u) {
      lanes[u % VECS_OF_PAD] += vec_load(a + i);
    }
  }
  return lanes_sum(lanes);
}

/* As many rows of A again, into the second-level cache: those of the next tile. */
static void prefetch_below(const gradient_block *p, const unroll_real *a, size_t rows)
{
  for (size_t n = 0; n < p->tokens; n += p->run, a += p->run_stride) {
    prefetch_rows(a, rows, p->row_stride, p->run);
  }
}

/* Tokens that are packed at a time: their rows of A stay in the first-level cache while tile after tile is written, of
 * each a piece that fills whole lines. */
#define PACK_TOKENS 16

/* A vector reaches into the rows of the next tile, or behind the last, for what no tile uses. */
static void pack_tokens(const gradient_block *p, size_t tokens, const unroll_real *a,
                        unroll_real *out)
{
  for (size_t m = p->first, rows = 0; m < p->last; m += rows, out += p->packed_tile) {
    rows = tile_rows(p->last - m);
    for (size_t i = 0; i < tokens; ++i) {
      for (size_t v = 0; v < PACK; v += LANES) {
        vec_store(out + i * PACK + v, vec_load(a + i * p->token_stride + m + v));
      }
    }
  }
}

/* Tokens ahead of which rows of A are fetched: they lie pages apart, where no CPU looks for them by itself. */
#define PACK_AHEAD 16

/* Run number `run` of shard `shard`, or of one of the shards behind it. */
INLINE const unroll_real *run_of(const gradient_block *p, size_t shard, size_t run, size_t runs)
{
  while (run >= runs) {
    run -= runs;
    ++shard;
  }
  return p->A + shard * p->shard_A + run * p->run_stride;
}

void ISA(gradient_pack)(const gradient_block *p)
{
  const size_t runs = ceil_div(p->tokens, p->run), ahead = ceil_div(PACK_AHEAD, p->run);
  unroll_real *out = p->packed;
  assert(p->row_stride == 1);

  for (size_t shard = 0; shard < p->shards; ++shard) {
    for (size_t r = 0; r < runs; ++r) {
      const unroll_real *a = p->A + shard * p->shard_A + r * p->run_stride;
      const size_t left = p->tokens - r * p->run, run = left < p->run ? left : p->run;
      prefetch_rows(run_of(p, shard, r + ahead, runs) + p->first, run, p->token_stride,
                    p->last - p->first);
      for (size_t i = 0, tokens = 0; i < run; i += tokens, out += tokens * PACK) {
        tokens = run - i < PACK_TOKENS ? run - i : PACK_TOKENS;
        pack_tokens(p, tokens, a + i * p->token_stride, out);
      }
    }
  }
}

/* The tile of shard number `shard` of this call: its tokens ascending, in runs. */
static void gradient_shard(const gradient_block *p, const tile_sum *s, size_t shard, size_t m,
                           size_t rows, size_t vecs, const unroll_real *packed, gradient_tile *out)
{
  const unroll_real *lies = p->A + shard * p->shard_A + m * p->row_stride;
  const unroll_real *a = packed != NULL ? packed + shard * p->tokens * PACK : lies;
  if (p->ahead) { prefetch_below(p, a + rows * p->row_stride, rows); }
  tile_multiply(rows, vecs, s, a, p->B + shard * p->shard_B, NULL, out->sum.c);
  if (p->sums != NULL && s->k_stride == 1) {
    for (size_t i = 0; i < rows; ++i) { out->column[i] = sum_row(p, a + i * p->row_stride); }
  } else if (p->sums != NULL) {
    sum_columns(s, a, out->column);
  }
}

/* A finished tile to its place. */
static void gradient_store(const gradient_block *p, size_t m, size_t rows, size_t vecs,
                           const gradient_tile *tile)
{
  for (size_t i = 0; i < rows; ++i) {
    size_t row = m - p->first + i;
    for (size_t v = 0; v < vecs; ++v) {
      unroll_real *C = p->C + row * p->ldc + v * LANES;
      vec sum = vec_load(tile->sum.c + i * PANEL + v * LANES);
      vec_store(C, p->add ? vec_load(C) + sum : sum);
    }
    if (p->sums != NULL) {
      p->sums[row] = p->add ? p->sums[row] + tile->column[i] : tile->column[i];
    }
  }
}

void ISA(gradient)(const gradient_block *p)
{
  gradient_tile stack[SHARD_TREE_LEVELS], now = {{{0}}, {0}}, next = {{{0}}, {0}};
  const tile_sum where = {.K = p->tokens,
                          .run = p->run,
                          .run_stride = p->run_stride,
                          .row_stride = p->row_stride,
                          .k_stride = p->token_stride,
                          .ldb = p->ldb,
                          .ldc = PANEL};
  const tile_sum packed = {.K = p->tokens,
                           .run = p->tokens,
                           .row_stride = 1,
                           .k_stride = PACK,
                           .ldb = p->ldb,
                           .ldc = PANEL};
  const size_t vecs = p->columns > LANES ? TILE_VECS : 1;
  const bool whole = p->shards % p->group == 0; /* groups; else one comes in several calls */
  size_t inside = 0;                            /* levels of the tree within a call */
  while (whole && (p->group << (inside + 1)) <= p->shards) { ++inside; }
  assert(p->shard % p->shards == 0 && p->shard + p->shards <= p->all && p->all % p->group == 0);

  for (size_t m = p->first, rows = 0, tile = 0; m < p->last; m += rows, ++tile) {
    const size_t apart = p->level_nodes / TILE_NODE;
    const unroll_real *a = p->packed != NULL ? p->packed + tile * p->packed_tile : NULL;
    gradient_tile *nodes = (gradient_tile *)p->nodes + tile;
    rows = tile_rows(p->last - m);
    for (size_t i = 0; i < p->shards; ++i) {
      const size_t shard = p->shard + i, unit = shard / p->group;
      size_t levels = 0; /* that the unit completes; then its sum waits for the unit's neighbour */
      while ((unit >> levels) & 1) { ++levels; }
#define NODE(level) ((level) < inside ? &stack[level] : nodes + ((level)-inside + 1) * apart)
      gradient_tile *last = (unit + 1) * p->group < p->all ? NODE(levels) : &now;
      gradient_tile *sum = !whole ? nodes : levels == 0 ? last : &now;
      gradient_tile *shard_sum = shard % p->group == 0 ? sum : &next;
      gradient_shard(p, a != NULL ? &packed : &where, i, m, rows, vecs, a, shard_sum);
      if (shard_sum == &next) { combine(rows, vecs, sum, &next, sum); }
      if ((shard + 1) % p->group != 0) { continue; }
      if (levels == 0 && sum != last) { *last = *sum; }
      for (size_t level = 0; level < levels; ++level) {
        combine(rows, vecs, NODE(level), level == 0 ? sum : &now, level + 1 < levels ? &now : last);
      }
#undef NODE
    }
    if (p->shard + p->shards == p->all) { gradient_store(p, m, rows, vecs, &now); }
  }
}
