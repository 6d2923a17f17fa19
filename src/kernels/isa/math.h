#ifndef KERNELS_ISA_MATH_H
#define KERNELS_ISA_MATH_H

/*
 * exp and tanh on vectors, the same operations on every path.
 *
 * Float: x = n ln2 + r with |r| <= ln2 / 2, then e^r - 1 = r + r^2 q(r) with a
 * polynomial q of degree 4 (minimax fit of relative error, see
 * tests/oracle/fit_expm1.py), then the scaling by 2^n:
 *
 *   exp(x)  = 2^n + 2^n (e^r - 1)                        x <= 88.37
 *   expm1(x) = (2^n - 1) + 2^n (e^r - 1)
 *   tanh(x) = sign(x) e / (e + 2),  e = expm1(2 |x|)      no cancellation near 0
 *
 * Largest error over all floats: exp 1.1 ulp on [-87.3, 88.3], tanh 2.7 ulp
 * everywhere (tests/unit/test_vector_math.c; every float under label slow).
 * Outside of that range exp stays at its ends, 1.2e-38 and 2.4e38. Where
 * vec_fma rounds twice, 2^n (e^r - 1) underflows below -65: exp then errs by
 * the smallest normal number, 1.2e-38, at most. NaN stays NaN.
 *
 * Double, for gradient checks only: the C library, lane by lane.
 */
#include "kernels/isa/vector.h"

#ifdef UNROLL_DOUBLE

INLINE vec vec_exp(vec x)
{
  vec r;
  for (size_t i = 0; i < LANES; ++i) { r[i] = exp(x[i]); }
  return r;
}

INLINE vec vec_tanh(vec x)
{
  vec r;
  for (size_t i = 0; i < LANES; ++i) { r[i] = tanh(x[i]); }
  return r;
}

#else

#define EXPM1_Q0 0x1.fffffep-2f
#define EXPM1_Q1 0x1.5554b0p-3f
#define EXPM1_Q2 0x1.555674p-5f
#define EXPM1_Q3 0x1.122776p-7f
#define EXPM1_Q4 0x1.6bec06p-10f

/* 2^n and e^r - 1 of x; |x| must be below 88.4. */
INLINE vec exp_parts(vec x, vec *scale)
{
  const unroll_real magic =
      0x1.8p23f; /* adding it rounds to an integer that stands in the low bits */
  vec t = vec_fma(x, vec_splat(0x1.715476p+0f), vec_splat(magic)); /* 1 / ln2 */
  vec n = t - vec_splat(magic);
  vec r = vec_fma(n, vec_splat(-0x1.62e400p-1f), x); /* high part of ln2: n times it is exact */
  r = vec_fma(n, vec_splat(-0x1.7f7d1cp-20f), r);    /* low part */
  *scale = (vec)(((vec_int)t << 23) + (vec_int)vec_splat(1.0f));

  vec q = vec_splat(EXPM1_Q4);
  q = vec_fma(q, r, vec_splat(EXPM1_Q3));
  q = vec_fma(q, r, vec_splat(EXPM1_Q2));
  q = vec_fma(q, r, vec_splat(EXPM1_Q1));
  q = vec_fma(q, r, vec_splat(EXPM1_Q0));
  return vec_fma(q, r * r, r);
}

INLINE vec vec_exp(vec x)
{
  vec scale;
  x = vec_max(vec_splat(-87.3f), vec_min(vec_splat(88.37f), x));
  vec p = exp_parts(x, &scale);
  return vec_fma(scale, p, scale);
}

INLINE vec vec_tanh(vec x)
{
  vec scale;
  const vec_int sign_bit = (vec_int)vec_splat(-0.0f);
  vec_int sign = (vec_int)x & sign_bit;
  vec y = (vec)((vec_int)x & ~sign_bit);
  y = vec_min(vec_splat(20.0f), y + y); /* tanh(10) rounds to 1 */
  vec p = exp_parts(y, &scale);
  vec e = vec_fma(scale, p, scale - vec_splat(1.0f));
  return (vec)((vec_int)(e / (e + vec_splat(2.0f))) | sign);
}

#endif

/* 1 / (1 + e^-x), small values with full precision. */
INLINE vec vec_sigmoid(vec x)
{
  const vec one = vec_splat(1);
  return one / (one + vec_exp(-x));
}

#endif
