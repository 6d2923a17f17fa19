#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stddef.h>
#include <stdint.h>

/** Model name of this machine's CPU, as Linux tells it; "unknown" elsewhere. */
void cpu_name(size_t size, char *out);

/**
 * Cores' worth of CPU time that the control group of this process may use, as containers and Kubernetes
 * limit it: the least of its group and the groups around it, version 1 or 2; part of a core counts as one.
 *
 * @param[in]  groups  the groups of the process: "/proc/self/cgroup"
 * @param[in]  root    where they are mounted: "/sys/fs/cgroup"
 * @param[out] group   which group has that limit: the same number for processes that share it; 0 without limit
 *
 * @return number of cores, or 0: no limit, or none that can be read
 */
int cpu_quota(const char *groups, const char *root, uint64_t *group);

#endif
