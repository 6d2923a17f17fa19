#include "base/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

/* First line of a file of a group, "" if there is none. */
static void read_line(const char *group, const char *name, size_t size, char *line)
{
  char path[4400];
  (void)snprintf(path, sizeof path, "%s/%s", group, name);
  FILE *f = fopen(path, "r");
  line[0] = '\0';
  if (f != NULL && fgets(line, (int)size, f) == NULL) { line[0] = '\0'; }
  if (f != NULL) { (void)fclose(f); }
}

/* Cores' worth of one group, rounded up; 0: no limit. */
static int limit_of(const char *group)
{
  char line[128];
  long long quota = -1, period = 0;

  read_line(group, "cpu.max", sizeof line, line); /* version 2: "max 100000", "150000 100000" */
  if (sscanf(line, "%lld %lld", &quota, &period) != 2) {
    read_line(group, "cpu.cfs_quota_us", sizeof line, line); /* version 1: -1 without limit */
    quota = line[0] != '\0' ? strtoll(line, NULL, 10) : -1;
    read_line(group, "cpu.cfs_period_us", sizeof line, line);
    period = strtoll(line, NULL, 10);
  }
  return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* Does the line "ID:CONTROLLERS:PATH" tell the group that limits CPU time? Version 2 names no controllers. */
static const char *path_of(char *line)
{
  char *controllers = strchr(line, ':');
  char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
  if (path == NULL) { return NULL; }
  *path++ = '\0';
  path[strcspn(path, "\n")] = '\0';

  if (controllers[1] == '\0') { return path; }
  for (char *word = strtok(controllers + 1, ","); word != NULL; word = strtok(NULL, ",")) {
    if (strcmp(word, "cpu") == 0) { return path; }
  }
  return NULL;
}

int cpu_quota(const char *groups, const char *root, uint64_t *group)
{
  static const char *const mounts[] = {"", "/cpu", "/unified"};
  char line[4096];
  int least = 0;
  FILE *f = fopen(groups, "r");

  *group = 0;
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    const char *path = path_of(line);
    for (size_t k = 0; path != NULL && k < sizeof mounts / sizeof mounts[0]; ++k) {
      /* From the group outwards. In a container the path may be that of outside: then only the root is there. */
      char at[4200];
      (void)snprintf(at, sizeof at, "%s%s%s", root, mounts[k], path);
      const size_t end = strlen(root) + strlen(mounts[k]);
      for (char *cut = at + strlen(at); cut != NULL && cut >= at + end; cut = strrchr(at, '/')) {
        struct stat facts;
        *cut = '\0';
        int limit = limit_of(at);
        if (limit > 0 && (least == 0 || limit < least) && stat(at, &facts) == 0) {
          least = limit;
          *group = (uint64_t)facts.st_ino;
        }
      }
    }
  }
  if (f != NULL) { (void)fclose(f); }
  return least;
}
