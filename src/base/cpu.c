#include "base/cpu.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* First line of a file of a folder, "" if there is none. */
static void read_line(const char *folder, const char *name, size_t size, char *line)
{
  char path[4400];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "r");
  line[0] = '\0';
  if (f != NULL && fgets(line, (int)size, f) == NULL) { line[0] = '\0'; }
  if (f != NULL) { (void)fclose(f); }
}

/* Quota of one group in cores, rounded up; 0: no limit. */
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

/* PATH of a line "ID:CONTROLLERS:PATH" if that group limits CPU time, else NULL. Version 2 names no controllers. */
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

/* ------------------------------------------------------------------- caches */

/* Sizes of levels that are not reported: small ones among CPUs in use, as too small a block costs little. */
static const cpu_cache_sizes small_caches = {.l1d = 32 << 10, .l2 = 256 << 10, .l3 = 2 << 20};

/* "512K" in bytes, and what follows it; 0: no size, or out of range. */
static size_t read_size(const char *text, const char **rest)
{
  static const char units[] = "KMG";
  size_t size = 0, unit = 1;
  const char *end = text;

  for (; *end >= '0' && *end <= '9'; ++end) {
    size = 10 * size + (size_t)(*end - '0');
    if (size > CPU_CACHE_MAX) { return 0; }
  }
  const char *letter = *end != '\0' ? strchr(units, *end) : NULL;
  if (letter != NULL) {
    unit = (size_t)1 << 10 * (letter - units + 1);
    end += 1;
  }
  *rest = end;
  return size <= CPU_CACHE_MAX / unit ? size * unit : 0;
}

/* "32K,512K,32M" */
static bool read_sizes(const char *text, cpu_cache_sizes *out)
{
  out->l1d = read_size(text, &text);
  if (out->l1d == 0 || *text++ != ',') { return false; }
  out->l2 = read_size(text, &text);
  if (out->l2 == 0 || *text++ != ',') { return false; }
  out->l3 = read_size(text, &text);
  return out->l3 != 0 && *text == '\0';
}

/* The sizes in sysfs, a folder for each cache; other levels are not changed. */
static void read_folder(const char *folder, cpu_cache_sizes *out)
{
  size_t *const levels[] = {&out->l1d, &out->l2, &out->l3};
  for (int k = 0;; ++k) {
    char name[32], line[128];
    const char *rest = NULL;

    (void)snprintf(name, sizeof name, "index%d/level", k);
    read_line(folder, name, sizeof line, line);
    if (line[0] == '\0') { return; }
    const int level = line[0] - '0';
    (void)snprintf(name, sizeof name, "index%d/type", k);
    read_line(folder, name, sizeof line, line);
    const bool holds_data = strncmp(line, "Instruction", strlen("Instruction")) != 0;
    (void)snprintf(name, sizeof name, "index%d/size", k);
    read_line(folder, name, sizeof line, line);
    const size_t size = read_size(line, &rest);
    if (level >= 1 && level <= 3 && holds_data && size > 0) { *levels[level - 1] = size; }
  }
}

/* The sizes that the C library reports; other levels are not changed. */
static void read_library(cpu_cache_sizes *out)
{
#ifdef _SC_LEVEL1_DCACHE_SIZE
  const long reported[] = {sysconf(_SC_LEVEL1_DCACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE),
                           sysconf(_SC_LEVEL3_CACHE_SIZE)};
  size_t *const levels[] = {&out->l1d, &out->l2, &out->l3};
  for (size_t i = 0; i < 3; ++i) {
    if (reported[i] > 0 && (size_t)reported[i] <= CPU_CACHE_MAX) {
      *levels[i] = (size_t)reported[i];
    }
  }
#else
  (void)out;
#endif
}

unroll_status cpu_caches(const char *folder, cpu_cache_sizes *out)
{
  const char *wanted = getenv("UNROLL_CACHES");
  cpu_cache_sizes sizes = small_caches;

  if (wanted != NULL && !read_sizes(wanted, &sizes)) {
    return unroll_fail(
        UNROLL_ERR_ARG,
        "UNROLL_CACHES=%s: legal are three sizes in bytes, each from 1 to 1024G, of the "
        "first-level data cache, the second and the third level, as 32K,512K,32M",
        wanted);
  }
  if (wanted == NULL) {
    /* The folder overrides the library: glibc 2.36 gives the third level of a Zen 4 ten times too large. */
    read_library(&sizes);
    read_folder(folder, &sizes);
  }
  *out = sizes;
  return UNROLL_OK;
}
