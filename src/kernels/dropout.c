#include "kernels/dropout.h"

#include "base/random.h"

#include <assert.h>

/* Bits of a random word for each unit. */
#define BITS  16
#define UNITS (64 / BITS)

/*
 * A row: the words are SplitMix64's from the row's own seed on. A fresh counter for each word would cost four times
 * the multiplications, and drawing is what dropout costs.
 */
static void drop_row(uint64_t seed, uint64_t cut, unroll_real scale, size_t n,
                     const unroll_real *from, unroll_real *to)
{
  const uint64_t low = (UINT64_C(1) << BITS) - 1;
  for (size_t k = 0; k < n; k += UNITS) {
    seed += RANDOM_GOLDEN;
    const uint64_t word = random_mix(seed);
    for (size_t i = 0; i < UNITS; ++i) {
      const bool dropped = (word >> (BITS * i) & low) < cut;
      to[k + i] = dropped ? 0 : from[k + i] * scale;
    }
  }
}

void dropout_run(const dropout_rows *r)
{
  const dropout *how = r->how;
  const double units = (double)(UINT64_C(1) << BITS);
  const uint64_t cut = (uint64_t)(how->p * units + 0.5);
  const unroll_real scale = (unroll_real)(units / (units - (double)cut));
  const size_t padded = kernels_pad(r->n); /* zeros stay zero */
  assert(how->p >= 0.0 && how->p < 0.999 && r->ld >= padded);

#pragma omp parallel for collapse(2) schedule(static) default(none)                                \
    shared(r, how, cut, scale, padded)
  for (size_t t = 0; t < r->T; ++t) {
    for (size_t b = 0; b < r->B; ++b) {
      const uint64_t i = how->update << 8 | r->layer;
      const uint64_t j = (uint64_t)(how->first + b) << 40 | (how->per_step ? how->step + t : 0);
      const size_t at = (t * r->B + b) * r->ld;
      drop_row(random_bits(how->seed, RANDOM_DROPOUT, i, j), cut, scale, padded, r->from + at,
               r->to + at);
    }
  }
}
