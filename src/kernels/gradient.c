#include "kernels/gradient.h"

#include "kernels/dispatch.h"
#include "kernels/shard_tree.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

/* ----------------------------------------------------------- weight gradient */

/*
 * Work is cut into pieces: (part of the shards) x (panel of columns) x (tile of
 * rows). Usually one part holds all shards; a product with few tiles is cut into
 * 2^k subtrees as well, whose sums are combined at the end by the upper levels
 * of the same tree. PIECES per thread keep the threads equally busy.
 */
#define PIECES 4
/* Most partial tiles: below PIECES * threads pieces the parts are doubled at most once more. */
#define PARTIALS(threads) (2 * PIECES * (threads))
#define MAX_MR            14
#define MAX_NR            32

/* A product that is cut into parts has fewer than this many elements in all its padded tiles. */
static size_t partial_elements(size_t threads)
{
  return PARTIALS(threads) * (MAX_MR * MAX_NR + MAX_MR);
}

size_t gradient_scratch(size_t T, size_t B, size_t threads)
{
  return threads * kernels_pad(T * B) * MAX_NR + partial_elements(threads);
}

/* One panel of h: columns [column, column + width) of all tokens, shard after shard. */
static void pack_tokens(const weight_gradient *p, size_t first, size_t shards, size_t column,
                        size_t width, unroll_real *panel)
{
  size_t in_shard = p->B / p->shards;
  for (size_t s = first; s < first + shards; ++s) {
    for (size_t t = 0; t < p->T; ++t) {
      const unroll_real *row = p->h + (t * p->B + s * in_shard) * p->ld_h + column;
      for (size_t b = 0; b < in_shard; ++b, row += p->ld_h, panel += width) {
        if (width == MAX_NR) { /* a constant length: copied without a call */
          memcpy(panel, row, MAX_NR * sizeof *row);
        } else {
          memcpy(panel, row, width * sizeof *row);
        }
      }
    }
  }
}

typedef struct cut {
  size_t parts;         /* subtrees */
  size_t panels, tiles; /* of the result */
  size_t part_elements; /* of one part's partial result: dW tight by panel, then db */
} cut;

static cut cut_of(const weight_gradient *p, size_t threads)
{
  const kernel_table *k = kernels();
  cut c = {.parts = 1,
           .panels = (kernels_pad(p->N) + k->nr - 1) / k->nr,
           .tiles = (p->M + k->mr - 1) / k->mr};
  size_t units = p->shards / p->group;
  while (c.parts * 2 <= units && units % (c.parts * 2) == 0 &&
         c.parts * c.panels * c.tiles < PIECES * threads) {
    c.parts *= 2;
  }
  c.part_elements = p->M * (c.panels * k->nr + 1);
  return c;
}

/* Pieces [first, last) of one part and panel: consecutive row tiles. */
static void gradient_piece(const weight_gradient *p, const cut *c, size_t part, size_t panel,
                           size_t first, size_t last, const unroll_real *tokens, size_t width,
                           unroll_real *partial)
{
  const kernel_table *k = kernels();
  size_t in_shard = p->B / p->shards, n = p->T * in_shard, shards = p->shards / c->parts;
  size_t row = first * k->mr, column = panel * k->nr;
  unroll_real *C = p->dW + row * p->ld_dW + column, *sums = p->db != NULL ? p->db + row : NULL;
  size_t ldc = p->ld_dW;

  if (c->parts > 1) {
    unroll_real *mine = partial + part * c->part_elements;
    C = mine + panel * k->nr * p->M + row * k->nr;
    ldc = k->nr;
    sums = mine + c->panels * k->nr * p->M + row;
  }
  gradient_block block = {.first = row,
                          .last = last * k->mr < p->M ? last * k->mr : p->M,
                          .columns = width,
                          .shards = shards,
                          .group = p->group,
                          .tokens = n,
                          .B = tokens,
                          .ldb = width,
                          .shard_B = n * width,
                          .C = C,
                          .ldc = ldc,
                          .sums = p->db != NULL && panel == 0 ? sums : NULL};
  if (p->source == GRADIENT_ROWS) {
    block.row_stride = 1;
    block.token_stride = p->ld_dZ;
    block.run = in_shard;
    block.run_stride = p->B * p->ld_dZ;
    block.shard_A = in_shard * p->ld_dZ;
  } else {
    block.row_stride = k->nr;
    block.token_stride = 1;
    block.run = k->nr;
    block.run_stride = p->M * k->nr;
    block.shard_A = (n + k->nr - 1) / k->nr * block.run_stride;
  }
  block.A = p->dZ + part * shards * block.shard_A;
  k->gradient(&block);
}

/* The upper levels of the tree: neighbours in pairs until one part is left, then to its place. */
static void combine_parts(const weight_gradient *p, const cut *c, unroll_real *partial)
{
  const kernel_table *k = kernels();
  for (size_t step = 1; step < c->parts; step *= 2) {
    for (size_t part = 0; part + step < c->parts; part += 2 * step) {
      unroll_real *left = partial + part * c->part_elements;
      const unroll_real *right = left + step * c->part_elements;
      for (size_t i = 0; i < c->part_elements; ++i) { left[i] += right[i]; }
    }
  }
  for (size_t panel = 0; panel < c->panels; ++panel) {
    size_t left = kernels_pad(p->N) - panel * k->nr, width = left < k->nr ? left : k->nr;
    for (size_t i = 0; i < p->M; ++i) {
      memcpy(p->dW + i * p->ld_dW + panel * k->nr, partial + (panel * p->M + i) * k->nr,
             width * sizeof *partial);
    }
  }
  if (p->db != NULL) { memcpy(p->db, partial + c->panels * k->nr * p->M, p->M * sizeof *partial); }
}

void weight_gradient_run(const weight_gradient *p)
{
  const kernel_table *k = kernels();
  size_t threads_most = (size_t)omp_get_max_threads();
  unroll_real *partial = p->scratch + threads_most * kernels_pad(p->T * p->B) * MAX_NR;
  cut c = cut_of(p, threads_most);
  assert(k->mr <= MAX_MR && k->nr <= MAX_NR);
  assert(c.parts == 1 || c.parts * c.part_elements <= partial_elements(threads_most));

#pragma omp parallel default(none) shared(p, k, c, partial)
  {
    size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
    unroll_real *tokens = p->scratch + thread * kernels_pad(p->T * p->B) * MAX_NR;
    size_t pieces = c.parts * c.panels * c.tiles;
    size_t end = pieces * (thread + 1) / threads;
    for (size_t piece = pieces * thread / threads, next = 0; piece < end; piece = next) {
      size_t column = piece / c.tiles, part = column / c.panels, panel = column % c.panels;
      size_t left = kernels_pad(p->N) - panel * k->nr, width = left < k->nr ? left : k->nr;
      size_t shards = p->shards / c.parts;
      next = (column + 1) * c.tiles < end ? (column + 1) * c.tiles : end;
      pack_tokens(p, part * shards, shards, panel * k->nr, width, tokens);
      gradient_piece(p, &c, part, panel, piece - column * c.tiles, next - column * c.tiles, tokens,
                     width, partial);
    }
  }
  if (c.parts > 1) { combine_parts(p, &c, partial); }
}

/* ------------------------------------------------------------ token gradient */

/* Lists of the rows of each (token, shard), in the order of the shard: a counting sort. */
static void sort_tokens(const token_gradient *p)
{
  size_t in_shard = p->B / p->shards, keys = p->V * p->shards;
  memset(p->start, 0, (keys + 1) * sizeof *p->start);
  for (size_t n = 0; n < p->T * p->B; ++n) {
    p->start[(size_t)p->x[n] * p->shards + n % p->B / in_shard + 1] += 1;
  }
  for (size_t i = 0; i < keys; ++i) { p->start[i + 1] += p->start[i]; }
  for (size_t n = 0; n < p->T * p->B; ++n) {
    p->list[p->start[(size_t)p->x[n] * p->shards + n % p->B / in_shard]++] = (uint32_t)n;
  }
  for (size_t i = keys; i > 0; --i) { p->start[i] = p->start[i - 1]; }
  p->start[0] = 0;
}

void token_gradient_run(const token_gradient *p)
{
  const kernel_table *k = kernels();
  sort_tokens(p);

#pragma omp parallel default(none) shared(p, k)
  {
    /* Columns are shared out where there are enough of them: the load is then equal whatever the text. */
    size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
    size_t units = kernels_pad(p->H) / KERNELS_PAD;
    int by_columns = units >= threads;
    size_t first = by_columns ? units * thread / threads * KERNELS_PAD : 0;
    size_t last = by_columns ? units * (thread + 1) / threads * KERNELS_PAD : kernels_pad(p->H);
    size_t v = by_columns ? 0 : p->V * thread / threads;
    size_t end = by_columns ? p->V : p->V * (thread + 1) / threads;
    for (; v < end; ++v) {
      const uint32_t *start = p->start + v * p->shards;
      unroll_real *out = p->dW + v * p->ld_dW + first;
      if (start[0] == start[p->shards]) {
        memset(out, 0, (last - first) * sizeof *out);
      } else {
        k->sum_rows(last - first, p->shards, p->group, start, p->list, p->dZ + first, p->ld, out);
      }
    }
  }
}

void loss_by_shard(size_t tokens_in_shard, size_t shards, const double *nll, double *sums)
{
  for (size_t s = 0; s < shards; ++s) {
    for (size_t n = 0; n < tokens_in_shard; ++n) { sums[s] += *nll++; }
  }
}
