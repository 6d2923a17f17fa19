#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int64_t alive;
static int64_t total;

unroll_status memory_new(size_t count, size_t size, const char *what, void *out)
{
  size_t bytes = 0;
  void *block = NULL;

  if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX - MEMORY_ALIGNMENT) {
    return unroll_fail(UNROLL_ERR_MEMORY,
                       "%s: %zu elements of %zu bytes are more than a machine can address", what,
                       count, size);
  }
  bytes = bytes == 0 ? MEMORY_ALIGNMENT : bytes;
  if (posix_memalign(&block, MEMORY_ALIGNMENT, bytes) != 0) {
    return unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for %zu bytes", what, bytes);
  }
  memset(block, 0, bytes);
  memcpy(out, &block, sizeof block);
  alive += 1;
  total += 1;
  return UNROLL_OK;
}

unroll_status memory_resize(size_t old_count, size_t new_count, size_t size, const char *what,
                            void *inout)
{
  void *old = NULL;
  void *block = NULL;
  memcpy(&old, inout, sizeof old);

  unroll_status st = memory_new(new_count, size, what, &block);
  if (st != UNROLL_OK) { return st; }
  if (old != NULL) {
    memcpy(block, old, (old_count < new_count ? old_count : new_count) * size);
    memory_free(&old);
  }
  memcpy(inout, &block, sizeof block);
  return UNROLL_OK;
}

void memory_free(void *p)
{
  void *block = NULL;
  memcpy(&block, p, sizeof block);
  if (block == NULL) { return; }
  free(block);
  block = NULL;
  memcpy(p, &block, sizeof block);
  alive -= 1;
}

unroll_status memory_string(const char *text, char **out)
{
  size_t n = strlen(text) + 1;
  unroll_status st = memory_new(n, 1, "a string", out);
  if (st == UNROLL_OK) { memcpy(*out, text, n); }
  return st;
}

int64_t memory_alive(void)
{
  return alive;
}

int64_t memory_total(void)
{
  return total;
}

uint64_t memory_peak(void)
{
  struct rusage usage = {0};
  (void)getrusage(RUSAGE_SELF, &usage);
  return (uint64_t)usage.ru_maxrss * 1024; /* Linux counts in KiB */
}
