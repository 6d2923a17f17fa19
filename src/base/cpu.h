#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <unroll/status.h>

/** Model name of this machine's CPU, from /proc/cpuinfo; "unknown" without it. */
void cpu_name(size_t size, char *out);

/**
 * CPU quota of the control group (cgroup version 1 or 2) of this process in cores, as containers and Kubernetes
 * set it: the minimum over its group and all parent groups, rounded up.
 *
 * @param[in]  groups  the groups of the process: "/proc/self/cgroup"
 * @param[in]  root    where they are mounted: "/sys/fs/cgroup"
 * @param[out] group   which group has that limit: the same number for processes that share it; 0 without limit
 *
 * @return number of cores, or 0: no limit, or none that can be read
 */
int cpu_quota(const char *groups, const char *root, uint64_t *group);

/* [bytes] Cache sizes of a core, each from 1 to CPU_CACHE_MAX; the third level may be shared by several cores. */
typedef struct cpu_cache_sizes {
  size_t l1d, l2, l3; /* first level for data, second, third */
} cpu_cache_sizes;

#define CPU_CACHE_MAX    ((size_t)1 << 40)
#define CPU_CACHE_FOLDER "/sys/devices/system/cpu/cpu0/cache"

/**
 * Sizes of the caches: those of the environment variable UNROLL_CACHES where it is set ("32K,512K,32M"), else those
 * that the system reports, and a small default for a level that it does not report. Speed may depend on them, bits must
 * not: any values in range are legal, and a test may set "1,1,1".
 *
 * @param[in]  folder  where Linux describes the caches of a core: CPU_CACHE_FOLDER
 * @param[out] out     unchanged on error
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: UNROLL_CACHES is not three sizes
 */
unroll_status cpu_caches(const char *folder, cpu_cache_sizes *out);

#endif
