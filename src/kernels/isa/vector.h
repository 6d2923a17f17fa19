#ifndef KERNELS_ISA_VECTOR_H
#define KERNELS_ISA_VECTOR_H

/*
 * Vectors of one instruction set: the only place that knows intrinsics.
 *
 * Included by the files of this folder, which CMake compiles once for each
 * value of KERNEL_ISA (avx512, avx2, portable) with that set's compiler flags;
 * ISA(name) gives each copy its own symbol names.
 *
 * Arithmetic is GCC/Clang vector extensions: +, -, * are one rounding each
 * (-ffp-contract=off), and fusing happens only where vec_fma is written. On a
 * machine without FMA vec_fma rounds twice, so that path has bits of its own.
 */
#include "kernels/kernels.h"
#include <math.h>
#include <string.h>

#define INLINE               static inline __attribute__((always_inline))
#define ISA_JOIN2(name, isa) name##_##isa
#define ISA_JOIN(name, isa)  ISA_JOIN2(name, isa)
#define ISA(name)            ISA_JOIN(name, KERNEL_ISA)

#if defined(__AVX512F__)
#include <immintrin.h>
#define VEC_BYTES 64
#define TILE_ROWS 14 /* 28 accumulators + 2 of B + 1 of A in 32 registers */
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VEC_BYTES 32
#define TILE_ROWS 6 /* 12 accumulators + 2 of B + 1 of A in 16 registers */
#else
#define VEC_BYTES 16
#define TILE_ROWS 6
#endif
#define TILE_VECS 2 /* vectors in a row of a register tile */

typedef unroll_real vec __attribute__((vector_size(VEC_BYTES)));
#ifdef UNROLL_DOUBLE
typedef int64_t vec_int __attribute__((vector_size(VEC_BYTES)));
typedef int64_t real_int;
#else
typedef int32_t vec_int __attribute__((vector_size(VEC_BYTES)));
typedef int32_t real_int;
#endif
/* Unaligned and allowed to alias: what loads and stores go through. */
typedef unroll_real vec_memory
    __attribute__((vector_size(VEC_BYTES), aligned(sizeof(unroll_real)), may_alias));

#define LANES (VEC_BYTES / sizeof(unroll_real))
#define PANEL (TILE_VECS * LANES)
#define VECS_OF_PAD                                                                                \
  (KERNELS_PAD / LANES) /* vectors in one padding unit: the logical lanes of sums */

/* 0, 1, 2, ... */
INLINE vec_int vec_index(void)
{
  static const real_int index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vec_int r;
  memcpy(&r, index, sizeof r);
  return r;
}

/* Elements of x and, numbered on, of y. `from` is a constant by the time that this is compiled: then
 * Clang, which has no shuffle by a vector, makes one of the loop. */
INLINE vec vec_shuffle(vec x, vec y, vec_int from)
{
#ifdef __clang__
  vec out;
  for (size_t i = 0; i < LANES; ++i) {
    size_t k = (size_t)from[i];
    out[i] = k < LANES ? x[k] : y[k - LANES];
  }
  return out;
#else
  return __builtin_shuffle(x, y, from);
#endif
}

INLINE vec vec_load(const unroll_real *p)
{
  return *(const vec_memory *)p;
}

INLINE void vec_store(unroll_real *p, vec x)
{
  *(vec_memory *)p = x;
}

INLINE vec vec_splat(unroll_real x)
{
  return x - (vec){0}; /* x - 0 keeps the sign of -0 and the payload of NaN */
}

/* a * b + c with one rounding. */
INLINE vec vec_fma(vec a, vec b, vec c)
{
#if defined(__AVX512F__) && defined(UNROLL_DOUBLE)
  return (vec)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(UNROLL_DOUBLE)
  return (vec)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__AVX2__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FP_FAST_FMAF)
  vec r;
  for (size_t i = 0; i < LANES; ++i) {
    r[i] = sizeof(unroll_real) == 8 ? (unroll_real)fma(a[i], b[i], c[i])
                                    : (unroll_real)fmaf(a[i], b[i], c[i]);
  }
  return r;
#else
  return a * b + c;
#endif
}

/* c = a * b + c as one instruction that the compiler neither takes apart nor turns round: with its own choice of operands GCC
 * 12 copies accumulators of a register tile to and fro, and b from memory once for every use. */
INLINE void vec_accumulate(vec a, vec b, vec *c)
{
#if defined(__AVX2__) && defined(UNROLL_DOUBLE)
  __asm__("vfmadd231pd %2, %1, %0" : "+v"(*c) : "v"(a), "v"(b));
#elif defined(__AVX2__)
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(*c) : "v"(a), "v"(b));
#else
  *c = vec_fma(a, b, *c);
#endif
}

/* mask ? a : b, lane by lane; a mask comes from a comparison. */
INLINE vec vec_select(vec_int mask, vec a, vec b)
{
  return (vec)((mask & (vec_int)a) | (~mask & (vec_int)b));
}

/* The larger or smaller of two; when x is NaN the result is NaN, so that it stays visible. */
INLINE vec vec_max(vec bound, vec x)
{
#if defined(__AVX512F__) && !defined(UNROLL_DOUBLE)
  return (vec)_mm512_max_ps((__m512)bound, (__m512)x);
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(UNROLL_DOUBLE)
  return (vec)_mm256_max_ps((__m256)bound, (__m256)x);
#else
  return vec_select(bound > x, bound, x);
#endif
}

INLINE vec vec_min(vec bound, vec x)
{
#if defined(__AVX512F__) && !defined(UNROLL_DOUBLE)
  return (vec)_mm512_min_ps((__m512)bound, (__m512)x);
#elif defined(__AVX2__) && !defined(__AVX512F__) && !defined(UNROLL_DOUBLE)
  return (vec)_mm256_min_ps((__m256)bound, (__m256)x);
#else
  return vec_select(bound < x, bound, x);
#endif
}

INLINE vec vec_sqrt(vec x)
{
#if defined(__AVX512F__) && defined(UNROLL_DOUBLE)
  return (vec)_mm512_sqrt_pd((__m512d)x);
#elif defined(__AVX512F__)
  return (vec)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__) && defined(UNROLL_DOUBLE)
  return (vec)_mm256_sqrt_pd((__m256d)x);
#elif defined(__AVX2__)
  return (vec)_mm256_sqrt_ps((__m256)x);
#else
  vec r;
  for (size_t i = 0; i < LANES; ++i) {
    r[i] = sizeof(unroll_real) == 8 ? (unroll_real)sqrt((double)x[i])
                                    : (unroll_real)sqrtf((float)x[i]);
  }
  return r;
#endif
}

/*
 * Sum of KERNELS_PAD logical lanes as the tree (i, i + 8), (i, i + 4), (i, i + 2), (i, i + 1): the same
 * for every vector length.
 */
INLINE unroll_real lanes_sum(const vec *lanes)
{
  unroll_real x[KERNELS_PAD];
  for (size_t v = 0; v < VECS_OF_PAD; ++v) { vec_store(x + v * LANES, lanes[v]); }
  for (size_t half = KERNELS_PAD / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) { x[i] += x[i + half]; }
  }
  return x[0];
}

#endif
