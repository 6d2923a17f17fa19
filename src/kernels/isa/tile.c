#include "kernels/isa/tile.h"

#include <assert.h>

#define UNROLLED _Pragma("GCC unroll 16")

/* Both strides as the caller's constants, so that addresses of the rows need no multiplication. */
INLINE void multiply(const int rows, const int vecs, const tile_sum *s, size_t row_stride,
                     size_t k_stride, const unroll_real *A, const unroll_real *B,
                     const unroll_real *start, unroll_real *C)
{
  const size_t ldb = s->ldb, ldc = s->ldc;
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
    const unroll_real *a = A;
    size_t run = s->K - k < s->run ? s->K - k : s->run;
    for (size_t i_run = 0; i_run < run; ++i_run) {
      vec b[TILE_VECS];
      UNROLLED for (int v = 0; v < vecs; ++v)
      {
        b[v] = vec_load(B + (size_t)v * LANES);
      }
      UNROLLED for (int i = 0; i < rows; ++i)
      {
        vec ai = vec_splat(a[(size_t)i * row_stride]);
        UNROLLED for (int v = 0; v < vecs; ++v)
        {
          c[i][v] = vec_fma(ai, b[v], c[i][v]);
        }
      }
      a += k_stride;
      B += ldb;
    }
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
    multiply(R, V, s, s->row_stride, 1, A, B, start, C);                                           \
  }                                                                                                \
  static void by_row_##R##_##V(const tile_sum *s, const unroll_real *A, const unroll_real *B,      \
                               const unroll_real *start, unroll_real *C)                           \
  {                                                                                                \
    multiply(R, V, s, 1, s->k_stride, A, B, start, C);                                             \
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
  shapes[rows - 1][s->k_stride == 1][vecs - 1](s, A, B, start, C);
}
