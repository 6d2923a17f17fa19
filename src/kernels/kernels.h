#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

/*
 * The serial vector kernels, compiled once per instruction set (isa/) and
 * chosen at run time (dispatch.c). Everything here runs on one thread, without
 * allocation, status, MPI or I/O; the OpenMP loops over them stand in
 * recurrence.c, output.c, gradient.c and update.c.
 *
 * The rule that makes every path give the same bits (design.md section 5):
 * each element of a product is one chain of fused multiply-adds over k
 * ascending, starting from +0 (from the bias where there is one), whatever the tile, the thread or the vector
 * length. Sums over many elements run over a fixed number of logical lanes and
 * are added as a fixed tree.
 *
 * Matrices are row-major with a leading dimension `ld` in elements; rows are
 * padded with zeros to whole vectors (KERNELS_PAD elements), so that kernels
 * never need a mask: what is computed in the padding stays zero by itself.
 *
 * Letters: M rows of the result, N columns, K the summed dimension.
 */
#include "kernels/cell.h"
#include <stddef.h>
#include <stdint.h>
#include <unroll/config.h>
#include <unroll/real.h>

/* Elements; rows are padded to a multiple of this: one AVX-512 vector of floats. */
#define KERNELS_PAD 16

/* Elements of a cache line. */
#define CACHE_LINE (64 / sizeof(unroll_real))

static inline size_t kernels_pad(size_t n)
{
  return (n + KERNELS_PAD - 1) / KERNELS_PAD * KERNELS_PAD;
}

/* Rows; a multiple of the register tile of every instruction set (isa/tile.h), so that work cut at multiples of it
 * wastes no tile, and is cut alike on unlike CPUs. */
#define KERNELS_TILES 42

/*
 * Leading dimension of rows of n elements: padded, and never a multiple of 256
 * elements (1 KiB), because rows at such a distance fall into the same few sets
 * of the first-level cache and evict each other within one register tile.
 */
static inline size_t kernels_ld(size_t n)
{
  size_t ld = kernels_pad(n);
  return ld % 256 == 0 && ld != 0 ? ld + KERNELS_PAD : ld;
}

/*
 * C (M, N) = A (M, K) * B (K, N), B packed in panels: activations times weights.
 *
 *   panels: panel p holds columns [p * nr, p * nr + nr) of B as K rows of nr elements (of `lanes` elements in
 *   the last panel when one vector is enough); panels are nr * kernels_pad(K) elements apart. Only panels
 *   [first, last) are computed.
 */
typedef struct rows_product {
  size_t M, K, N;
  size_t
      block_K; /* of K at a time: so much of the rows of A stays in the cache while all panels pass */
  const unroll_real *A;
  size_t lda;
  const unroll_real *panels;
  size_t first, last;
  unroll_real *C;
  size_t ldc;
} rows_product;

/*
 * One step of a cell (cell.h) for M sequences and the units of panels [first, last): the product with the states
 * before, and what the cell makes of its sums while they are in the first-level cache.
 *
 *   panels: as above of each block of W_hh^T, the blocks of a panel of units behind each other
 *   blocks of input, bias and gates are kernels_pad(H) elements apart
 */
typedef struct cell_step {
  size_t M, H;
  size_t first, last;
  size_t ld; /* of the states */
  const unroll_real *h_before, *c_before;
  unroll_real *h, *c; /* c of a cell with memory */
  const unroll_real *panels;
  const unroll_real
      *input; /* rows added: W_xh^T gathered by token, or the product of the layer below */
  size_t ld_input;
  const int32_t *index;           /* (M) row of `input` for each sequence; NULL: row m */
  const unroll_real *bias;        /* (inputs, H) */
  const unroll_real *hidden_bias; /* (H) b_hn of a gru */
  unroll_real *gates;             /* (M, kept, H) for the backward pass; NULL: none will come */
  size_t ld_gates;
  unroll_real *copy;        /* h once more, in state panels (recurrence.h); NULL: no */
  size_t copy_panel;        /* elements from one of them to the next */
  const uint32_t *copy_row; /* (M) row there of each sequence, from row copy_first on */
  size_t copy_first;
} cell_step;

/*
 * The same step backwards: dL/dh_t (from above, and through the product from the deltas of step t + 1) becomes the
 * deltas of step t.
 *
 *   panels: of W_hh, the blocks behind each other in K
 */
typedef struct cell_back {
  size_t M, H;
  size_t first, last;
  size_t K;                 /* of the product: 0 where nothing comes from a step behind */
  const unroll_real *after; /* (M, K) deltas of W_hh of step t + 1, ld_deltas apart */
  const unroll_real *panels;
  size_t ld; /* of states and their gradients */
  const unroll_real *h, *h_before, *c, *c_before;
  const unroll_real *dh; /* from above */
  unroll_real *deltas; /* in: what was kept; out: deltas. Of a cell that keeps nothing: may be dh */
  size_t ld_deltas;
  unroll_real *dc;     /* dL/dc_t from step t + 1 in, dL/dc_{t-1} out */
  unroll_real *bypass; /* what of dL/dh_t came past the product in, what so reaches h_{t-1} out */
  unroll_real xi;      /* factor of both on their way out; of the product it is in the weights */
} cell_back;

/*
 * The output layer keeps tokens in the vector lanes: a token panel is a matrix
 * with one row per vocabulary entry (or hidden unit) and nr columns, one per
 * token. So weights are the broadcast operand, read where they lie and never
 * packed, and the softmax runs down the columns without crossing lanes.
 *
 * C (M, nr) per panel = W (M, K) * B (K, nr) [+ bias (M)]
 */
typedef struct panels_product {
  size_t M, K;
  size_t block_K;       /* of K at a time: the chains continue through C */
  const unroll_real *W; /* element (m, k) at m * row_stride + k * col_stride */
  size_t row_stride, col_stride;
  size_t n_panels;
  const unroll_real *B; /* panels of K rows, panel_B elements apart */
  size_t panel_B;
  unroll_real *C; /* panels of M rows, panel_C elements apart */
  size_t panel_C;
  const unroll_real *bias; /* NULL: none */
  size_t last_tokens;      /* in the last panel; its further vectors are left alone */
} panels_product;

/*
 * Part of a weight gradient: rows [first, last) of one panel of `columns` columns,
 *
 *   C[i, j] = tree over shards of ( sum over the shard's tokens n ascending of A[i, n] * B[n, j] )
 *
 * and this part of it: shards [shard, shard + shards) of the `all` of the tree (`group`: shard_tree.h), which are a
 * subtree, or less than a group. The tiles of the shards are combined up the tree while they are in registers and
 * first-level cache; what then waits for shards to come lies in `nodes` until a later call takes it up. The call that
 * has the last shard writes C. Where `sums` is not NULL it receives the same tree over A alone: the bias gradient.
 *
 *   A: element (i, n) of a shard at i * row_stride + n_in_run * token_stride, tokens in runs of `run`
 *      that are `run_stride` apart; shards are shard_A apart, A is the first of the call
 *   packed: what gradient_pack made of A: tile after tile, `packed_tile` elements apart, for each token the rows of the
 *      tile, `pack` apart
 *   B: rows of tokens, ldb apart; shards are shard_B apart, B is the first of the call
 */
typedef struct gradient_block {
  size_t first, last, columns;
  size_t shard, shards, all, group;
  size_t tokens; /* of each shard */
  const unroll_real *A;
  size_t row_stride, token_stride, run, run_stride, shard_A;
  int ahead; /* A comes from memory: fetch the rows of the next tile meanwhile; token_stride is 1 */
  unroll_real *packed; /* or NULL: A is read where it lies */
  size_t packed_tile;
  const unroll_real *B;
  size_t ldb, shard_B;
  unroll_real
      *nodes; /* a `node` for each tile, level after level; NULL where the call has all shards */
  size_t
      level_nodes; /* elements from one to the next: the group at hand, then the levels above a call */
  int add;         /* to what C and sums hold */
  unroll_real *C;
  size_t ldc;
  unroll_real *sums; /* indexed by row, or NULL */
} gradient_block;

/* Loss, softmax and its gradient on one token panel O (V, nr), in place. */
typedef struct softmax_panel {
  size_t V;
  size_t tokens; /* in the panel, <= nr; further lanes of their last vector become zero */
  const int32_t
      *y; /* (tokens) targets; below 0: no token, its loss and its column of dL/do are zero */
  unroll_real scale; /* dL/do = scale * (softmax(o) - onehot(y)) */
  unroll_real *O;    /* in: logits; out: dL/do, unless only_loss */
  int only_loss;
  double *nll; /* (tokens) [nats] */
} softmax_panel;

typedef struct adam_step {
  double beta1, beta2, epsilon;
  double rate;       /* eta / (1 - beta1^t) */
  double correction; /* 1 / (1 - beta2^t) */
  double keep;       /* of a weight: 1 - eta lambda, weight decay */
} adam_step;

/* Elements summed by one call of sum_squares: blocks of a norm are this long, whatever the threads. */
#define KERNELS_NORM_BLOCK 4096

typedef struct kernel_table {
  const char *name; /* "avx512", "avx2", "portable" */
  size_t lanes;     /* reals in a vector */
  size_t nr;        /* columns of a panel: two vectors */
  size_t mr;        /* most rows of a register tile */
  size_t pack;      /* elements of a token in a packed tile of a gradient: mr and a rest */
  size_t node;      /* elements of a tile's node of the shard tree */

  void (*rows)(const rows_product *p);
  void (*forward[CELL_COUNT])(const cell_step *p);
  void (*backward[CELL_COUNT])(const cell_back *p);
  void (*panels)(const panels_product *p);
  void (*gradient)(const gradient_block *p);
  void (*gradient_pack)(const gradient_block *p); /* A into packed; row_stride is 1 */
  void (*softmax)(const softmax_panel *p);

  /* Transpose `count` rows of n elements, wherever they lie, into a panel of n rows of ld columns, and back:
   * panel[j, i] = rows[i][j]. n is rounded up to KERNELS_PAD, ld is `lanes` or `nr`; columns from `count` on
   * become zero in gather and are not read in scatter. */
  void (*gather_panel)(size_t n, size_t count, const unroll_real *const *rows, unroll_real *panel,
                       size_t ld);
  void (*scatter_panel)(size_t n, size_t count, const unroll_real *panel, size_t ld,
                        unroll_real *const *rows);

  /* out[0..n) = tree over shards of the rows of X named by list, n a multiple of KERNELS_PAD; the list
   * holds row numbers, shard after shard, those of shard s in [start[s], start[s + 1]). */
  void (*sum_rows)(size_t n, size_t shards, size_t group, const uint32_t *start,
                   const uint32_t *list, const unroll_real *X, size_t ldx, unroll_real *out);

  /* Sum of squares of n <= KERNELS_NORM_BLOCK elements, n a multiple of KERNELS_PAD, in double. */
  double (*sum_squares)(size_t n, const unroll_real *x);

  /* x += y and the three updates with g scaled by `scale`, w first multiplied by `keep`; n a multiple of KERNELS_PAD. */
  void (*add)(size_t n, const unroll_real *y, unroll_real *x);
  void (*sgd)(size_t n, double scale, double eta, double keep, const unroll_real *g,
              unroll_real *w);
  void (*momentum)(size_t n, double scale, double eta, double keep, double mu, const unroll_real *g,
                   unroll_real *v, unroll_real *w);
  void (*adam)(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
               unroll_real *v, unroll_real *w);

  /* a += share * (w - a); n a multiple of KERNELS_PAD. */
  void (*average)(size_t n, double share, const unroll_real *w, unroll_real *a);

  /* As many multiply-adds as a core can do, for `rounds` rounds: the floating-point operations done.
   * out (lanes) gets a result, so that none is left out. */
  double (*peak)(size_t rounds, unroll_real *out);

  /* The vector functions themselves, for tests: y = f(x). */
  void (*exp)(size_t n, const unroll_real *x, unroll_real *y);
  void (*tanh)(size_t n, const unroll_real *x, unroll_real *y);
  void (*sigmoid)(size_t n, const unroll_real *x, unroll_real *y);
} kernel_table;

#endif
