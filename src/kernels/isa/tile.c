#include "kernels/isa/tile.h"

#include <assert.h>
#include <stdbool.h>

#define UNROLLED _Pragma("GCC unroll 16")

/*
 * K_STEPS of k in one round of the loop, and addresses of a register or two and a short constant: little but loads and
 * multiply-adds is left to bring in, which is what bounds the tile where another hardware thread takes half of the front
 * end. Measured there (Zen 3, AVX2, operands in the first-level cache): 0.75 of the peak in rounds of one k, 0.94 of four,
 * 0.85 of eight, which no longer fit the cache of decoded instructions.
 */
#if defined(__AVX512F__)
#define K_STEPS 2
#else
#define K_STEPS 4
#endif

/* Rows of A that are addressed from one register, or all where they lie side by side. */
#define ROWS_OF_BASE 3
#define BASES        ((TILE_ROWS + ROWS_OF_BASE - 1) / ROWS_OF_BASE)

/*
 * c += the next `steps` columns of A times as many rows of B; moves the bases of A, returns where B goes on.
 *
 * by_k: k lies side by side in A, and its rows row_stride apart; else the other way round, k k_stride apart.
 */
INLINE const unroll_real *add_columns(const int rows, const int vecs, const bool by_k,
                                      const size_t steps, const tile_sum *s,
                                      const unroll_real *A[BASES], const unroll_real *B,
                                      vec c[TILE_ROWS][TILE_VECS])
{
  const size_t ldb = vecs == TILE_VECS ? PANEL : s->ldb;
  UNROLLED for (size_t step = 0; step < steps; ++step)
  {
    vec b[TILE_VECS];
    UNROLLED for (int v = 0; v < vecs; ++v)
    {
      b[v] = vec_load(B + step * ldb + (size_t)v * LANES);
    }
    UNROLLED for (int i = 0; i < rows; ++i)
    {
      size_t row = (size_t)(i % ROWS_OF_BASE) * s->row_stride;
      vec a = vec_splat(by_k ? A[i / ROWS_OF_BASE][row + step] : A[0][i]);
      UNROLLED for (int v = 0; v < vecs; ++v)
      {
        vec_accumulate(a, b[v], &c[i][v]);
      }
    }
    if (!by_k) { A[0] += s->k_stride; }
  }
  UNROLLED for (int i = 0; i < rows && by_k; i += ROWS_OF_BASE)
  {
    A[i / ROWS_OF_BASE] += steps;
  }
  return B + steps * ldb;
}

INLINE void multiply(const int rows, const int vecs, const bool by_k, const tile_sum *s,
                     const unroll_real *A, const unroll_real *B, const unroll_real *start,
                     unroll_real *C)
{
  const size_t ldc = s->ldc;
  vec c[TILE_ROWS][TILE_VECS];

  UNROLLED for (int i = 0; i < rows; ++i)
  {
    UNROLLED for (int v = 0; v < vecs; ++v)
    {
      c[i][v] = (vec){0};
    }
  }
  if (start != NULL) {
    UNROLLED for (int i = 0; i < rows; ++i)
    {
      UNROLLED for (int v = 0; v < vecs; ++v)
      {
        c[i][v] = vec_load(start + (size_t)i * ldc + (size_t)v * LANES);
      }
    }
  }

  for (size_t k = 0; k < s->K; k += s->run, A += s->run_stride) {
    size_t left = s->K - k < s->run ? s->K - k : s->run;
    const unroll_real *a[BASES];
    UNROLLED for (int i = 0; i < rows; i += ROWS_OF_BASE)
    {
      a[i / ROWS_OF_BASE] = A + (size_t)i * s->row_stride;
    }
    for (; left >= K_STEPS; left -= K_STEPS) {
      B = add_columns(rows, vecs, by_k, K_STEPS, s, a, B, c);
    }
    for (; left > 0; --left) { B = add_columns(rows, vecs, by_k, 1, s, a, B, c); }
  }

  UNROLLED for (int i = 0; i < rows; ++i)
  {
    UNROLLED for (int v = 0; v < vecs; ++v)
    {
      vec_store(C + (size_t)i * ldc + (size_t)v * LANES, c[i][v]);
    }
  }
}

/* One function for each tile shape, so that all loops over the tile are unrolled. */
typedef void multiply_shape(const tile_sum *s, const unroll_real *A, const unroll_real *B,
                            const unroll_real *start, unroll_real *C);

#define SHAPE(R, V)                                                                                \
  static void by_k_##R##_##V(const tile_sum *s, const unroll_real *A, const unroll_real *B,        \
                             const unroll_real *start, unroll_real *C)                             \
  {                                                                                                \
    multiply(R, V, true, s, A, B, start, C);                                                       \
  }                                                                                                \
  static void by_row_##R##_##V(const tile_sum *s, const unroll_real *A, const unroll_real *B,      \
                               const unroll_real *start, unroll_real *C)                           \
  {                                                                                                \
    multiply(R, V, false, s, A, B, start, C);                                                      \
  }
#define SHAPES(R) SHAPE(R, 1) SHAPE(R, 2)
#define ENTRY(R)  {{by_row_##R##_1, by_row_##R##_2}, {by_k_##R##_1, by_k_##R##_2}},

#if TILE_ROWS == 14
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)
#else
#define FOR_EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif

FOR_EACH_ROWS(SHAPES)

/* [rows - 1][k contiguous in A][vectors - 1] */
static multiply_shape *const shapes[TILE_ROWS][2][TILE_VECS] = {FOR_EACH_ROWS(ENTRY)};

void tile_multiply(size_t rows, size_t vecs, const tile_sum *s, const unroll_real *A,
                   const unroll_real *B, const unroll_real *start, unroll_real *C)
{
  assert(rows >= 1 && rows <= TILE_ROWS && vecs >= 1 && vecs <= TILE_VECS);
  assert(s->row_stride == 1 || s->k_stride == 1);
  assert(vecs == 1 || s->ldb == PANEL);
  shapes[rows - 1][s->k_stride == 1][vecs - 1](s, A, B, start, C);
}
