#define _DEFAULT_SOURCE /* madvise */
#include "base/memory.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* Header stored before a block: malloc aligns to 16 bytes at least, so there is room. */
typedef struct head {
  void *whole;  /* the address that calloc returned */
  size_t bytes; /* of the block */
} head;
_Static_assert(_Alignof(max_align_t) >= sizeof(head), "room for a head before an aligned block");

/* [bytes] A large page, and from what size on a block begins with one and asks for them: fewer would waste too much. */
#define LARGE_PAGE ((size_t)1 << 21)
#define MANY_PAGES (4 * LARGE_PAGE)

static _Atomic int64_t alive;
static _Atomic int64_t total;
static _Atomic uint64_t held;

unroll_status memory_new(size_t count, size_t size, const char *what, void *out)
{
  size_t bytes = 0;

  if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX - LARGE_PAGE) {
    return unroll_fail(UNROLL_ERR_MEMORY,
                       "%s: %zu elements of %zu bytes are more than a machine can address", what,
                       count, size);
  }
  /* calloc knows which pages come zeroed from the system and leaves them alone: they cost nothing until
   * they are used, and then lie near the thread that uses them. */
  const size_t alignment = bytes < MANY_PAGES ? MEMORY_ALIGNMENT : LARGE_PAGE;
  unsigned char *whole = calloc(1, bytes + alignment);
  if (whole == NULL) {
    return unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for %zu bytes", what, bytes);
  }
  unsigned char *block = whole + alignment - (uintptr_t)whole % alignment;
#ifdef MADV_HUGEPAGE
  /* Where the system gives large pages on request only. Rows that are far apart then need few entries of the TLB. */
  if (bytes >= MANY_PAGES) { (void)madvise(block, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE); }
#endif
  const head h = {whole, bytes};
  memcpy(block - sizeof h, &h, sizeof h);
  memcpy(out, &block, sizeof block);
  held += bytes;
  alive += 1;
  total += 1;
  return UNROLL_OK;
}

unroll_status memory_new_reals(size_t count, const char *what, unroll_real **out)
{
  return memory_new(count, sizeof **out, what, out);
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
  unsigned char *block = NULL;
  head h = {0};
  memcpy(&block, p, sizeof block);
  if (block == NULL) { return; }
  memcpy(&h, block - sizeof h, sizeof h);
  free(h.whole);
  held -= h.bytes;
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

int64_t memory_live_blocks(void)
{
  return alive;
}

int64_t memory_total_blocks(void)
{
  return total;
}

uint64_t memory_live_bytes(void)
{
  return held;
}

uint64_t memory_peak_rss(void)
{
  struct rusage usage = {0};
  (void)getrusage(RUSAGE_SELF, &usage);
  return (uint64_t)usage.ru_maxrss * 1024; /* Linux counts in KiB */
}
