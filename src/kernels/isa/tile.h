#ifndef KERNELS_ISA_TILE_H
#define KERNELS_ISA_TILE_H

/*
 * The register tile: the one inner loop of every matrix product, in the packed
 * style of Goto and van de Geijn (2008) and BLIS.
 *
 *   k step:   panel row of B [ b0 ........... | b1 ........... ]    2 vector loads
 *             a0 (splat)     c00 += a0 b0       c01 += a0 b1
 *             a1             c10 += a1 b0       c11 += a1 b1
 *             ...            up to TILE_ROWS rows: all accumulators in registers
 *
 * AVX-512: 14 x 32 floats = 28 accumulators, 2 of B, 1 of A in 32 registers: 28
 * multiply-adds for 16 loads. AVX2: 6 x 16 floats = 12 accumulators of 16
 * registers: 12 for 8. Where the operands lie: the panel of B in the
 * second-level cache, streamed once per tile; the rows of A in the first-level
 * cache. Measured: bench --json of the named configurations (README, Numbers).
 */
#include "kernels/isa/vector.h"

_Static_assert(KERNELS_TILES % TILE_ROWS == 0, "whole tiles of this instruction set");

/* What a tile sums: k runs over K values, in runs of `run` that are run_stride apart in A; B goes on. */
typedef struct tile_sum {
  size_t K, run, run_stride;
  size_t row_stride, k_stride; /* of A; one of them is 1 */
  size_t ldb, ldc;
} tile_sum;

#define tile_multiply ISA(tile_multiply)

/**
 * C (rows, vecs vectors) = start + sum over k of A[i, k] * B[k, :].
 *
 * Rows of a product are cut into nearly equal tiles (tile_rows), so that edge tiles keep enough
 * independent chains to hide the latency of the multiply-add. An edge tile runs the same loop with
 * fewer rows: the order of operations of an element is the same in every tile.
 *
 * @param[in] start  where the chains begin, rows ldc apart; may be C; NULL: at +0
 */
void tile_multiply(size_t rows, size_t vecs, const tile_sum *s, const unroll_real *A,
                   const unroll_real *B, const unroll_real *start, unroll_real *C);

/* A tile outside the registers: TILE_ROWS rows of PANEL. */
typedef struct tile_buffer {
  unroll_real c[TILE_ROWS * PANEL] __attribute__((aligned(64)));
} tile_buffer;

/* Elements of a token in a packed tile: its rows in whole vectors. */
#define PACK ((TILE_ROWS + LANES - 1) / LANES * LANES)

/* The same of a weight gradient: a node of the shard tree, and the sums over A alone of its rows. */
typedef struct gradient_tile {
  tile_buffer sum;
  unroll_real column[PACK] __attribute__((aligned(64)));
} gradient_tile;

#define TILE_NODE (sizeof(gradient_tile) / sizeof(unroll_real))

/* Vectors of panel number `panel`: a full panel, or what is left of N columns. */
INLINE size_t panel_vecs(size_t N, size_t panel)
{
  size_t vecs = (kernels_pad(N) - panel * PANEL) / LANES;
  return vecs < TILE_VECS ? vecs : TILE_VECS;
}

/* Rows of the next tile when `left` rows remain: as equal as possible, 20 = 10 + 10, not 14 + 6. */
INLINE size_t tile_rows(size_t left)
{
  size_t tiles = (left + TILE_ROWS - 1) / TILE_ROWS;
  return (left + tiles - 1) / tiles;
}

#endif
