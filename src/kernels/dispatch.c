#include "kernels/dispatch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
extern const kernel_table kernel_table_avx512, kernel_table_avx2;
#endif
extern const kernel_table kernel_table_portable;

static const kernel_table *chosen;
static block_sizes blocks;

typedef struct path {
  const kernel_table *table;
  bool runs_here;
} path;

#define MAX_PATHS 3

/* The paths of this build, the fastest first. */
static size_t paths(path out[MAX_PATHS])
{
  size_t n = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  out[n++] = (path){&kernel_table_avx512, avx512};
  out[n++] = (path){&kernel_table_avx2, avx2};
#endif
  out[n++] = (path){&kernel_table_portable, true};
  return n;
}

static unroll_status choose(void)
{
  path all[MAX_PATHS];
  size_t n = paths(all);
  const char *wanted = getenv("UNROLL_ISA");

  for (size_t i = 0; i < n; ++i) {
    bool asked = wanted != NULL && strcmp(wanted, all[i].table->name) == 0;
    if (asked && !all[i].runs_here) {
      return unroll_fail(UNROLL_ERR_ARG, "UNROLL_ISA=%s: this CPU has no such instructions",
                         wanted);
    }
    if (asked || (wanted == NULL && all[i].runs_here)) {
      chosen = all[i].table;
      return UNROLL_OK;
    }
  }
  return unroll_fail(UNROLL_ERR_ARG,
                     "UNROLL_ISA=%s: no such code path; legal are avx512, avx2 and portable",
                     wanted);
}

unroll_status kernels_start(void)
{
  cpu_cache_sizes caches;
  unroll_status st = choose();
  if (st == UNROLL_OK) { st = cpu_caches(CPU_CACHE_FOLDER, &caches); }
  if (st != UNROLL_OK) { return st; }
  blocks = blocks_of(&caches);
#if defined(__x86_64__)
  const unsigned flush_to_zero = 0x8000, denormals_are_zero = 0x0040; /* bits of MXCSR */
  /* LLVM's libomp gives each region the setting that its first thread had before, and that thread has it back
   * afterwards: so it is set outside too. To GNU's libgomp each thread keeps its own. */
  _mm_setcsr(_mm_getcsr() | flush_to_zero | denormals_are_zero);
#pragma omp parallel default(none) shared(flush_to_zero, denormals_are_zero)
  _mm_setcsr(_mm_getcsr() | flush_to_zero | denormals_are_zero);
#endif
  return UNROLL_OK;
}

const kernel_table *kernels(void)
{
  return chosen;
}

const block_sizes *kernels_blocks(void)
{
  return &blocks;
}

const char *kernels_name(void)
{
  return chosen != NULL || choose() == UNROLL_OK ? chosen->name : "none";
}
