#ifndef BASE_MEDIAN_H
#define BASE_MEDIAN_H

/* The median of measured times, as an index: other measurements of the same run belong to it. */
#include <stddef.h>

/** Index of the median of n values, n odd. */
static inline size_t median_index(size_t n, const double *x)
{
  for (size_t i = 0; i < n; ++i) {
    size_t below = 0;
    for (size_t j = 0; j < n; ++j) { below += x[j] < x[i] || (x[j] == x[i] && j < i); }
    if (below == n / 2) { return i; }
  }
  return 0; /* a NaN is among them */
}

#endif
