#include "kernels/gradient.h"

#include "kernels/dispatch.h"
#include "kernels/shard_tree.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

/* ----------------------------------------------------------- weight gradient */

/*
 * The work is cut into pieces: (part of the shards) x (panel of columns) x (tile of rows). Usually one part holds all shards;
 * a product with few tiles is cut into 2^k subtrees as well, whose sums are combined at the end by the
 * upper levels of the same tree. PIECES per thread keep the threads equally busy.
 *
 * Two orders, by what stays in the second-level cache while the other operand streams past:
 *
 *   by panel   a panel of h (tokens x nr) stays, tiles of dZ pass        many tokens
 *   by rows    a block of rows of dZ (ROW_BYTES) stays, panels pass      few tokens, many rows: large V
 */
#define PIECES          4
#define ROW_BYTES       ((size_t)1 << 18)
#define LEAST_ROW_TILES 4 /* in a block of rows, else h would stream too often */
#define MAX_MR          14
#define MAX_NR          32

/* Below PIECES * threads pieces the parts are doubled: at most twice as many partial tiles. */
size_t gradient_scratch(size_t threads)
{
  return 2 * PIECES * threads * (MAX_MR * MAX_NR + MAX_MR);
}

typedef struct plan {
  size_t parts;         /* subtrees */
  size_t begin, end;    /* rows of the result */
  size_t panels, tiles; /* of these rows */
  size_t tokens;        /* of a shard */
  size_t row_tiles;     /* of a block of rows; 0: by panel */
  size_t part_elements; /* of one part's partial result: dW panel by panel, then db */
} plan;

static plan plan_of(const weight_gradient *p, size_t begin, size_t end, size_t threads)
{
  const kernel_table *k = kernels();
  plan c = {.parts = 1,
            .begin = begin,
            .end = end,
            .panels = panel_count(p->N),
            .tiles = (end - begin + k->mr - 1) / k->mr,
            .tokens = p->T * (p->B / p->shards)};
  if (p->per_shard > 0) { /* each shard is a part, and its own result */
    c.parts = p->shards;
    return c;
  }
  size_t units = p->shards / p->group;
  while (c.parts * 2 <= units && units % (c.parts * 2) == 0 &&
         c.parts * c.panels * c.tiles < PIECES * threads) {
    c.parts *= 2;
  }
  c.part_elements = (end - begin) * (c.panels * k->nr + 1);
  size_t row_tiles = ROW_BYTES / (p->T * p->B * k->mr * sizeof(unroll_real));
  if (row_tiles >= LEAST_ROW_TILES && c.tiles >= 2 * PIECES * threads) { c.row_tiles = row_tiles; }
  return c;
}

/* Row tiles [first, last) of one part and panel. */
static void gradient_piece(const weight_gradient *p, const plan *c, size_t part, size_t panel,
                           size_t first, size_t last)
{
  const kernel_table *k = kernels();
  size_t in_shard = p->B / p->shards, shards = p->shards / c->parts;
  size_t row = c->begin + first * k->mr, column = panel * k->nr, width = panel_width(p->N, panel);
  unroll_real *C = p->dW + row * p->ld_dW + column, *sums = p->db != NULL ? p->db + row : NULL;
  size_t ldc = p->ld_dW, shard_rows = (p->panel_T + 1) * in_shard;
  const unroll_real *h = p->h + panel * state_panels_stride(p->panel_T, p->B);

  if (p->per_shard > 0) {
    C += part * p->per_shard;
    if (sums != NULL) { sums += part * p->per_shard; }
  } else if (c->parts > 1) {
    unroll_real *mine = p->scratch + part * c->part_elements;
    size_t rows = c->end - c->begin, in_part = row - c->begin;
    C = mine + panel * k->nr * rows + in_part * k->nr;
    ldc = k->nr;
    sums = mine + c->panels * k->nr * rows + in_part;
  }
  gradient_block block = {.first = row,
                          .last =
                              c->begin + last * k->mr < c->end ? c->begin + last * k->mr : c->end,
                          .columns = width,
                          .shards = shards,
                          .group = p->per_shard > 0 ? 1 : p->group,
                          .tokens = c->tokens,
                          .B = h + (part * shards * shard_rows + p->slot * in_shard) * width,
                          .ldb = width,
                          .shard_B = shard_rows * width,
                          .add = p->per_shard > 0,
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
    block.ahead = c->row_tiles > 0 && panel == 0; /* it stays in the cache for the further panels */
    block.run = k->nr;
    block.run_stride = p->M * k->nr;
    block.shard_A = (c->tokens + k->nr - 1) / k->nr * block.run_stride;
  }
  block.A = p->dZ + part * shards * block.shard_A;
  k->gradient(&block);
  if (p->poll.call != NULL && omp_get_thread_num() == 0) { p->poll.call(p->poll.context); }
}

/* This thread's pieces, a column of tiles at a time: the panel stays in the cache. */
static void run_by_panel(const weight_gradient *p, const plan *c, size_t thread, size_t threads)
{
  size_t pieces = c->parts * c->panels * c->tiles;
  size_t end = pieces * (thread + 1) / threads;
  for (size_t piece = pieces * thread / threads, next = 0; piece < end; piece = next) {
    size_t column = piece / c->tiles, begin = column * c->tiles;
    next = begin + c->tiles < end ? begin + c->tiles : end;
    gradient_piece(p, c, column / c->panels, column % c->panels, piece - begin, next - begin);
  }
}

/* This thread's row tiles, a block of rows at a time: the block stays in the cache. */
static void run_by_rows(const weight_gradient *p, const plan *c, size_t thread, size_t threads)
{
  size_t end = c->tiles * (thread + 1) / threads;
  for (size_t tile = c->tiles * thread / threads, next = 0; tile < end; tile = next) {
    next = tile + c->row_tiles < end ? tile + c->row_tiles : end;
    for (size_t panel = 0; panel < c->panels; ++panel) {
      gradient_piece(p, c, 0, panel, tile, next);
    }
  }
}

/* The upper levels of the tree: neighbours in pairs until one part is left, then to its place. */
static void combine_parts(const weight_gradient *p, const plan *c)
{
  unroll_real *partial = p->scratch;
  const kernel_table *k = kernels();
  const size_t rows = c->end - c->begin;
  for (size_t step = 1; step < c->parts; step *= 2) {
    for (size_t part = 0; part + step < c->parts; part += 2 * step) {
      unroll_real *left = partial + part * c->part_elements;
      const unroll_real *right = left + step * c->part_elements;
      for (size_t i = 0; i < c->part_elements; ++i) { left[i] += right[i]; }
    }
  }
  for (size_t panel = 0; panel < c->panels; ++panel) {
    for (size_t i = 0; i < rows; ++i) {
      memcpy(p->dW + (c->begin + i) * p->ld_dW + panel * k->nr,
             partial + (panel * rows + i) * k->nr, panel_width(p->N, panel) * sizeof *partial);
    }
  }
  if (p->db != NULL) {
    memcpy(p->db + c->begin, partial + c->panels * k->nr * rows, rows * sizeof *partial);
  }
}

void weight_gradient_rows(const weight_gradient *p, size_t begin, size_t end)
{
  size_t most = (size_t)omp_get_max_threads();
  plan c = plan_of(p, begin, end, most);
  assert(begin < end && end <= p->M);
  assert(kernels()->mr <= MAX_MR && kernels()->nr <= MAX_NR);
  assert(c.parts == 1 || p->per_shard > 0 ||
         (c.row_tiles == 0 && c.parts * c.part_elements <= gradient_scratch(most)));

#pragma omp parallel default(none) shared(p, c)
  {
    size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
    if (c.row_tiles > 0) {
      run_by_rows(p, &c, thread, threads);
    } else {
      run_by_panel(p, &c, thread, threads);
    }
  }
  if (c.parts > 1 && p->per_shard == 0) { combine_parts(p, &c); }
}

/* ------------------------------------------------------------ token gradient */

static size_t token_of(const token_gradient *p, size_t n)
{
  return p->x != NULL ? (size_t)p->x[n] : 0;
}

/* Lists of the rows of each (token, shard), in the order of the shard: a counting sort. */
static void sort_tokens(const token_gradient *p)
{
  size_t in_shard = p->B / p->shards, keys = p->V * p->shards, n = 0;
  memset(p->start, 0, (keys + 1) * sizeof *p->start);
  for (size_t t = 0; t < p->T; ++t) {
    for (size_t s = 0; s < p->shards; ++s) {
      for (size_t b = 0; b < in_shard; ++b) { p->start[token_of(p, n++) * p->shards + s + 1] += 1; }
    }
  }
  for (size_t i = 0; i < keys; ++i) { p->start[i + 1] += p->start[i]; }
  n = 0;
  for (size_t t = 0; t < p->T; ++t) {
    for (size_t s = 0; s < p->shards; ++s) {
      for (size_t b = 0; b < in_shard; ++b, ++n) {
        p->list[p->start[token_of(p, n) * p->shards + s]++] = (uint32_t)n;
      }
    }
  }
  for (size_t i = keys; i > 0; --i) { p->start[i] = p->start[i - 1]; }
  p->start[0] = 0;
}

/* Each shard's own table: the rows of its tokens are added one after the other, columns shared out. */
static void add_tokens(const token_gradient *p)
{
#pragma omp parallel default(none) shared(p)
  {
    size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
    size_t units = kernels_pad(p->H) / KERNELS_PAD, in_shard = p->B / p->shards;
    size_t first = units * thread / threads * KERNELS_PAD;
    size_t last = units * (thread + 1) / threads * KERNELS_PAD;
    for (size_t n = 0; n < p->T * p->B && first < last; ++n) {
      unroll_real *table = p->dW + n % p->B / in_shard * p->per_shard;
      kernels()->add(last - first, p->dZ + n * p->ld + first,
                     table + token_of(p, n) * p->ld_dW + first);
    }
  }
}

void token_gradient_run(const token_gradient *p)
{
  const kernel_table *k = kernels();
  if (p->per_shard > 0) {
    add_tokens(p);
    return;
  }
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
      if (start[0] != start[p->shards]) {
        k->sum_rows(last - first, p->shards, p->group, start, p->list, p->dZ + first, p->ld, out);
      }
    }
  }
}

/* ------------------------------------------------------------ gradients per shard */

void shards_combine(size_t shards, size_t group, size_t n, size_t per_shard, unroll_real *x,
                    unroll_real *out)
{
  const size_t block =
      4096; /* elements that a thread takes through the whole tree: in the first-level cache */
  const kernel_table *k = kernels();
  size_t blocks = (n + block - 1) / block;

#pragma omp parallel for default(none) schedule(static)                                            \
    shared(k, shards, group, n, per_shard, x, out, block, blocks)
  for (size_t i = 0; i < blocks; ++i) {
    size_t first = i * block, count = n - first < block ? n - first : block;
    unroll_real *mine = x + first;
    for (size_t unit = 0; unit < shards; unit += group) {
      for (size_t s = 1; s < group; ++s) {
        k->add(count, mine + (unit + s) * per_shard, mine + unit * per_shard);
      }
    }
    for (size_t step = group; step < shards; step *= 2) {
      for (size_t s = 0; s + step < shards; s += 2 * step) {
        k->add(count, mine + (s + step) * per_shard, mine + s * per_shard);
      }
    }
    memcpy(out + first, mine, count * sizeof *mine);
  }
}

void loss_by_shard(size_t tokens_in_shard, size_t shards, const double *nll, double *sums)
{
  for (size_t s = 0; s < shards; ++s) {
    for (size_t n = 0; n < tokens_in_shard; ++n) { sums[s] += *nll++; }
  }
}
