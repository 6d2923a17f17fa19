/*
 * The multiply-add peak of one thread, as a yardstick for the products.
 *
 * CHAINS independent chains c <- c * a + b, no memory: enough to hide the
 * latency of a multiply-add (4 or 5 cycles, two a cycle: 10 chains), and with a
 * and b as many as the registers hold. Each chain tends to b / (1 - a) = 2, so
 * nothing overflows and nothing becomes denormal.
 */
#include "kernels/isa/table.h"

#if defined(__AVX512F__)
#define CHAINS 28 /* of 32 registers */
#elif defined(__AVX2__) && defined(__FMA__)
#define CHAINS 14 /* of 16 registers, with a and b */
#else
#define CHAINS 12 /* without FMA the product needs no register of its own: it replaces c */
#endif

/* All loops over the chains, or the array would live in memory. */
#define UNROLLED _Pragma("GCC unroll 32")

double ISA(peak)(size_t rounds, unroll_real *out)
{
  vec c[CHAINS];
  const vec a = vec_splat((unroll_real)0.5), b = vec_splat(1);

  /* All different, or the compiler would compute one for all. */
  UNROLLED for (int i = 0; i < CHAINS; ++i)
  {
    c[i] = vec_splat((unroll_real)i);
  }
  for (size_t r = 0; r < rounds; ++r) {
    UNROLLED for (int i = 0; i < CHAINS; ++i)
    {
      c[i] = vec_fma(c[i], a, b);
    }
  }
  vec sum = c[0];
  UNROLLED for (int i = 1; i < CHAINS; ++i)
  {
    sum += c[i];
  }
  vec_store(out, sum);
  return (double)rounds * 2.0 * CHAINS * (double)LANES;
}
