#ifndef KERNELS_DISPATCH_H
#define KERNELS_DISPATCH_H

/* The kernels for this CPU, chosen once by CPUID, or forced by UNROLL_ISA=avx512|avx2|portable. */
#include "kernels/blocks.h"
#include "kernels/kernels.h"
#include <unroll/status.h>

/**
 * Choose the kernels and set flush-to-zero and denormals-are-zero on every OpenMP thread.
 * Denormals from saturated gradients would cost a hundredfold, and the setting is part of the
 * contract: results would otherwise depend on where it was forgotten. May be called again.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: UNROLL_ISA names no path, or one that this CPU cannot run; UNROLL_CACHES
 * (base/cpu.h) is not three sizes
 *
 * Threads: main thread only; opens a region
 */
unroll_status kernels_start(void);

/** The chosen kernels; kernels_start must have succeeded. */
const kernel_table *kernels(void);

/** The block sizes for this machine's caches; kernels_start must have succeeded. */
const block_sizes *kernels_blocks(void);

/** Name of the path that kernels_start chose or would choose. */
const char *kernels_name(void);

#endif
