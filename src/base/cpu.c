#include "base/cpu.h"

#include <stdio.h>
#include <string.h>

void cpu_name(size_t size, char *out)
{
  char line[256];
  FILE *f = fopen("/proc/cpuinfo", "r");
  (void)snprintf(out, size, "unknown");
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    const char *value = strchr(line, ':');
    if (strncmp(line, "model name", strlen("model name")) == 0 && value != NULL) {
      (void)snprintf(out, size, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
      break;
    }
  }
  if (f != NULL) { (void)fclose(f); }
}
