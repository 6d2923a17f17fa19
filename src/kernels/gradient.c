#include "kernels/gradient.h"

#include "kernels/dispatch.h"
#include "kernels/shard_tree.h"

#include <assert.h>
#include <omp.h>
#include <stdbool.h>
#include <string.h>

/* ----------------------------------------------------------- weight gradient */

/*
 * The loops of Goto and van de Geijn (2008), around the shard tree. Each thread has a share, (part of the shards) x
 * (tiles of rows) x (panels of columns), and of it, from the outermost loop to the innermost:
 *
 *   block    of row tiles and panels, whose nodes of the tree have room in scratch
 *   chunk    of the tree, some shards: of it the rows of dZ are packed (second-level cache)
 *   panel    of h, of the chunk's tokens (first-level cache)
 *   tile     of rows
 *
 * Usually one part holds all shards; a product with few tiles is cut into 2^k subtrees as well, whose sums are combined
 * at the end by the upper levels of the same tree. The bits depend on none of it.
 */
#define MAX_MR 14
#define MAX_NR 32

/* Fewer panels than these do not repay packing: dZ is read where it lies. */
#define LEAST_PANELS 8

/* A combined element costs as much as so many multiply-adds: it goes through memory, on one thread. */
#define COMBINE_WORK 16

/* Parts are doubled while there are fewer tiles in all than these for each thread. */
#define PIECES 4

/* [bytes] Of the nodes of a thread, for which its blocks are cut. They are written and read once a chunk. */
#define NODES_BYTES ((size_t)1 << 21)

static size_t least(size_t a, size_t b)
{
  return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
  return a > b ? a : b;
}

/* Tokens of a chunk: whole shards, at least one. */
static size_t chunk_tokens(size_t shard_tokens)
{
  return most(kernels_blocks()->panel / kernels()->nr, shard_tokens);
}

/* [elements] From one packed tile of so many tokens to the next: an odd number of cache lines, so that tiles that are
 * written side by side do not fall into the same sets of a cache. */
static size_t packed_tile(size_t tokens)
{
  return (ceil_div(tokens * kernels()->pack, CACHE_LINE) | 1) * CACHE_LINE;
}

static size_t packed_most(size_t shard_tokens)
{
  return kernels_pad(most(kernels_blocks()->whole, packed_tile(chunk_tokens(shard_tokens))));
}

static size_t nodes_most(void)
{
  return kernels_pad(most(NODES_BYTES / sizeof(unroll_real), SHARD_TREE_LEVELS * kernels()->node));
}

/* Below PIECES * threads pieces the parts are doubled: at most twice as many partial tiles. */
static size_t parts_most(size_t threads)
{
  return 2 * PIECES * threads * (MAX_MR * MAX_NR + MAX_MR);
}

size_t gradient_scratch(size_t shard_tokens, size_t threads)
{
  return parts_most(threads) + threads * (packed_most(shard_tokens) + nodes_most());
}

typedef struct plan {
  size_t begin, end;            /* rows of the result */
  size_t panels, tiles;         /* of these rows */
  size_t tokens;                /* of a shard */
  size_t parts, down, across;   /* shares: subtrees, of the tiles, of the panels */
  size_t shards, group, chunk;  /* of a part; of a chunk: 2^n groups, or a part of one */
  size_t row_tiles, row_panels; /* of a block */
  size_t part_elements;         /* of one part's partial result: dW panel by panel, then db */
} plan;

/* The largest share decides; of packing, as if it were a panel more. */
static void cut_among_threads(plan *c, size_t threads, bool parts_are_given)
{
  const size_t all = c->parts * c->shards;
  size_t best = SIZE_MAX;
  for (size_t parts = c->parts; all / c->group % parts == 0; parts *= 2) {
    for (size_t across = 1; across <= least(threads, c->panels); ++across) {
      const size_t down = least(c->tiles, ceil_div(threads, least(threads, parts * across)));
      const size_t turns = ceil_div(parts * down * across, threads);
      const size_t share = ceil_div(c->tiles, down) * (ceil_div(c->panels, across) + 1);
      size_t work = turns * share * (all / parts * c->tokens);
      if (parts > 1 && !parts_are_given) { work += parts * c->tiles * c->panels * COMBINE_WORK; }
      if (work < best) {
        best = work;
        c->parts = parts;
        c->down = down;
        c->across = across;
      }
    }
    if (parts_are_given || parts * c->tiles * c->panels >= PIECES * threads) { break; }
  }
  c->shards = all / c->parts;
}

static plan plan_of(const weight_gradient *p, size_t begin, size_t end, size_t threads)
{
  const kernel_table *k = kernels();
  const bool apart = p->per_shard > 0; /* each shard is a part, and its own result */
  plan c = {.begin = begin,
            .end = end,
            .panels = panel_count(p->N),
            .tiles = ceil_div(end - begin, k->mr),
            .tokens = p->T * (p->B / p->shards),
            .parts = apart ? p->shards : 1,
            .shards = apart ? 1 : p->shards,
            .group = apart ? 1 : p->group,
            .chunk = 1,
            .part_elements = (end - begin) * (panel_count(p->N) * k->nr + 1)};
  cut_among_threads(&c, threads, apart);

  const size_t room = chunk_tokens(c.tokens);
  size_t waiting = 2; /* nodes of the tree above a chunk: the group at hand, and the levels */
  for (size_t part = 2; part <= c.group && part * c.tokens <= room; ++part) { /* of a group */
    if (c.group % part == 0) { c.chunk = part; }
  }
  while (c.chunk % c.group == 0 && 2 * c.chunk * c.tokens <= room &&
         c.shards % (2 * c.chunk) == 0) {
    c.chunk *= 2;
  }
  while (c.shards / most(c.chunk, c.group) >> (waiting - 2) > 0) { ++waiting; }
  const size_t nodes = nodes_most() / k->node / waiting; /* tiles for which there is room */
  c.row_tiles = most(1, kernels_blocks()->whole / packed_tile(c.chunk * c.tokens));
  c.row_tiles = least(least(c.row_tiles, nodes), ceil_div(c.tiles, c.down));
  c.row_panels = most(1, nodes / c.row_tiles);
  return c;
}

/* A block's tiles [first, last), a chunk of a part. */
static gradient_block block_of(const weight_gradient *p, const plan *c, size_t part, size_t first,
                               size_t last, size_t shard)
{
  const kernel_table *k = kernels();
  const size_t in_shard = p->B / p->shards;
  gradient_block b = {.first = c->begin + first * k->mr,
                      .last = least(c->begin + last * k->mr, c->end),
                      .shard = shard,
                      .shards = c->chunk,
                      .all = c->shards,
                      .group = c->group,
                      .tokens = c->tokens,
                      .add = p->per_shard > 0};
  if (p->source == GRADIENT_ROWS) {
    b.row_stride = 1;
    b.token_stride = p->ld_dZ;
    b.run = in_shard;
    b.run_stride = p->B * p->ld_dZ;
    b.shard_A = in_shard * p->ld_dZ;
  } else {
    b.row_stride = k->nr;
    b.token_stride = 1;
    b.run = k->nr;
    b.run_stride = p->M * k->nr;
    b.shard_A = ceil_div(c->tokens, k->nr) * b.run_stride;
  }
  b.A = p->dZ + (part * c->shards + shard) * b.shard_A;
  return b;
}

/* Where a block's panel comes from and goes to. */
static void set_panel(const weight_gradient *p, const plan *c, size_t part, size_t panel,
                      gradient_block *b)
{
  const size_t width = panel_width(p->N, panel), nr = kernels()->nr, in_shard = p->B / p->shards;
  const size_t shard = part * c->shards + b->shard, from = b->first - c->begin;
  const size_t shard_rows = (p->panel_T + 1) * in_shard;
  b->columns = width;
  b->ldb = width;
  b->shard_B = shard_rows * width;
  b->B = p->h + panel * state_panels_stride(p->panel_T, p->B) +
         (shard * shard_rows + p->slot * in_shard) * width;
  b->C = p->dW + part * p->per_shard + b->first * p->ld_dW + panel * nr;
  b->ldc = p->ld_dW;
  b->sums = p->db != NULL ? p->db + part * p->per_shard + b->first : NULL;
  if (c->parts > 1 && p->per_shard == 0) {
    unroll_real *mine = p->scratch + part * c->part_elements;
    b->C = mine + (panel * (c->end - c->begin) + from) * nr;
    b->ldc = nr;
    b->sums = p->db != NULL ? mine + c->panels * (c->end - c->begin) * nr + from : NULL;
  }
  if (panel > 0) { b->sums = NULL; }
}

/* Tiles [first, last) x panels [left, right) of a part, all its chunks. */
static void run_block(const weight_gradient *p, const plan *c, size_t part, size_t first,
                      size_t last, size_t left, size_t right, unroll_real *scratch)
{
  const kernel_table *k = kernels();
  for (size_t shard = 0; shard < c->shards; shard += c->chunk) {
    gradient_block b = block_of(p, c, part, first, last, shard);
    if (p->source == GRADIENT_ROWS && right - left >= LEAST_PANELS) {
      b.packed = scratch;
      b.packed_tile = packed_tile(b.shards * b.tokens);
      k->gradient_pack(&b);
    }
    b.level_nodes = c->row_tiles * c->row_panels * k->node;
    for (size_t panel = left; panel < right; ++panel) {
      b.nodes = scratch + packed_most(c->tokens) + (panel - left) * c->row_tiles * k->node;
      b.ahead = p->source == GRADIENT_PANELS && panel == left;
      set_panel(p, c, part, panel, &b);
      k->gradient(&b);
      if (p->poll.call != NULL && omp_get_thread_num() == 0) { p->poll.call(p->poll.context); }
    }
  }
}

static void run_share(const weight_gradient *p, const plan *c, size_t share, unroll_real *scratch)
{
  const size_t part = share / (c->down * c->across);
  const size_t down = share / c->across % c->down, across = share % c->across;
  const size_t last = c->tiles * (down + 1) / c->down, end = c->panels * (across + 1) / c->across;
  for (size_t tile = c->tiles * down / c->down; tile < last; tile += c->row_tiles) {
    for (size_t panel = c->panels * across / c->across; panel < end; panel += c->row_panels) {
      run_block(p, c, part, tile, least(tile + c->row_tiles, last), panel,
                least(panel + c->row_panels, end), scratch);
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
  const size_t threads = (size_t)omp_get_max_threads();
  const plan c = plan_of(p, begin, end, threads);
  const size_t mine = packed_most(c.tokens) + nodes_most();
  assert(begin < end && end <= p->M);
  assert(kernels()->mr <= MAX_MR && kernels()->nr <= MAX_NR);
  assert(c.parts == 1 || p->per_shard > 0 || c.parts * c.part_elements <= parts_most(threads));

#pragma omp parallel default(none) shared(p, c, threads, mine)
  {
    const size_t thread = (size_t)omp_get_thread_num();
    unroll_real *scratch = p->scratch + parts_most(threads) + thread * mine;
    for (size_t i = thread; i < c.parts * c.down * c.across; i += (size_t)omp_get_num_threads()) {
      run_share(p, &c, i, scratch);
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

static unroll_real *of_shard(unroll_real *x, const uint32_t *place, size_t s, size_t per_shard)
{
  return x + (place != NULL ? place[s] : s) * per_shard;
}

void shards_combine(size_t shards, size_t group, const uint32_t *place, size_t n, size_t per_shard,
                    unroll_real *x, unroll_real *out)
{
  const size_t block =
      4096; /* elements that a thread takes through the whole tree: in the first-level cache */
  const kernel_table *k = kernels();
  size_t blocks = (n + block - 1) / block;

#pragma omp parallel for default(none) schedule(static)                                            \
    shared(k, shards, group, place, n, per_shard, x, out, block, blocks)
  for (size_t i = 0; i < blocks; ++i) {
    size_t first = i * block, count = n - first < block ? n - first : block;
    unroll_real *mine = x + first;
    for (size_t unit = 0; unit < shards; unit += group) {
      unroll_real *sum = of_shard(mine, place, unit, per_shard);
      for (size_t s = 1; s < group; ++s) {
        k->add(count, of_shard(mine, place, unit + s, per_shard), sum);
      }
    }
    for (size_t step = group; step < shards; step *= 2) {
      for (size_t s = 0; s + step < shards; s += 2 * step) {
        k->add(count, of_shard(mine, place, s + step, per_shard),
               of_shard(mine, place, s, per_shard));
      }
    }
    memcpy(out + first, of_shard(mine, place, 0, per_shard), count * sizeof *mine);
  }
}

void loss_by_shard(size_t tokens_in_shard, size_t shards, const double *nll, double *sums)
{
  for (size_t s = 0; s < shards; ++s) {
    for (size_t n = 0; n < tokens_in_shard; ++n) { sums[s] += *nll++; }
  }
}
