#include "kernels/blocks.h"

#include <unroll/real.h>

/* [bytes] Scratch is allocated by these sizes: a bound, whatever a machine or UNROLL_CACHES says. */
#define CACHE_MOST ((size_t)1 << 22)

block_sizes blocks_of(const cpu_cache_sizes *caches)
{
  const size_t l2 = caches->l2 < CACHE_MOST ? caches->l2 : CACHE_MOST;
  const size_t l1 = caches->l1d < l2 ? caches->l1d : l2;
  const size_t panel = l1 > l2 / 16 ? l1 : l2 / 16;
  return (block_sizes){.panel = panel / sizeof(unroll_real),
                       .block = l2 / 4 / sizeof(unroll_real),
                       .whole = l2 / 2 / sizeof(unroll_real)};
}
