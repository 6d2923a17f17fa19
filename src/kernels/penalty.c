#include "kernels/penalty.h"

#include "kernels/kernels.h"

#include <stdbool.h>

static unroll_real factor_of(const penalty_rows *p)
{
  return (unroll_real)(2.0 * p->weight / (double)p->H);
}

void penalty_activation(const penalty_rows *p, const unroll_real *out)
{
  const unroll_real by = factor_of(p);
  const size_t padded = kernels_pad(p->H); /* zeros stay zero */

#pragma omp parallel for schedule(static) default(none) shared(p, out, by, padded)
  for (size_t n = p->scored * p->B; n < p->T * p->B; ++n) {
    if (p->y[n] < 0) { continue; }
    const unroll_real *from = out + n * p->ld;
    unroll_real *dh = p->dh + n * p->ld;
    for (size_t k = 0; k < padded; ++k) { dh[k] += by * from[k]; }
  }
}

void penalty_change(const penalty_rows *p, double xi, const unroll_real *h, unroll_real *next)
{
  const unroll_real by = factor_of(p), back = (unroll_real)xi;
  const size_t padded = kernels_pad(p->H), slot = p->B * p->ld;

#pragma omp parallel for schedule(static) default(none) shared(p, h, next, by, back, padded, slot)
  for (size_t b = 0; b < p->B; ++b) {
    unroll_real *behind = next + b * p->ld;
    for (size_t t = p->T; t-- > 0;) {
      const bool counts = t >= p->scored && p->y[t * p->B + b] >= 0;
      const unroll_real *before = h + t * slot + b * p->ld;
      unroll_real *dh = p->dh + t * slot + b * p->ld;
      for (size_t k = 0; k < padded; ++k) {
        const unroll_real change = counts ? before[slot + k] - before[k] : 0;
        dh[k] += by * (change - back * behind[k]);
        behind[k] = change;
      }
    }
  }
}
