#ifndef BASE_CPU_H
#define BASE_CPU_H

#include <stddef.h>

/** Model name of this machine's CPU, as Linux tells it; "unknown" elsewhere. */
void cpu_name(size_t size, char *out);

#endif
