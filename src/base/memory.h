#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

/*
 * All allocation of the library goes through here: sizes are multiplied with
 * an overflow check, blocks are aligned for vector loads and set to zero, and
 * the blocks alive are counted, so that a test can demand that none is left.
 * Pages of a large block are allocated when they are first written, so
 * what is not used takes no memory.
 */
#include <stddef.h>
#include <stdint.h>
#include <unroll/real.h>
#include <unroll/status.h>

/* Bytes; a cache line and the widest vector register. */
#define MEMORY_ALIGNMENT 64

/**
 * Allocate count * size bytes, zeroed, aligned to MEMORY_ALIGNMENT.
 *
 * @param[in]  count  elements; 0 yields a valid pointer that must be freed
 * @param[in]  size   [bytes] of one element
 * @param[in]  what   what is allocated, in words, for the message
 * @param[out] out    pointer to the new block; untouched on error
 *
 * @return UNROLL_OK, or UNROLL_ERR_MEMORY: the product overflows or there is no memory
 *
 * Threads: safe
 */
unroll_status memory_new(size_t count, size_t size, const char *what, void *out);

/** The same of `count` reals. */
unroll_status memory_new_reals(size_t count, const char *what, unroll_real **out);

/**
 * Change the number of elements, keeping the old ones and zeroing new ones.
 * *inout may point to NULL. On error the old block stays valid.
 */
unroll_status memory_resize(size_t old_count, size_t new_count, size_t size, const char *what,
                            void *inout);

/** Free *p and set it to NULL; a NULL *p is fine. Takes the address of any object pointer. */
void memory_free(void *p);

/** Copy of a string, to be freed with memory_free. */
unroll_status memory_string(const char *text, char **out);

/** Blocks allocated and not yet freed. */
int64_t memory_live_blocks(void);

/** Blocks ever allocated by this process: a hot loop must not raise it. */
int64_t memory_total_blocks(void);

/** [bytes] requested for the blocks alive, whether their pages are in use or not. */
uint64_t memory_live_bytes(void);

/** [bytes] Largest resident set of this process so far. */
uint64_t memory_peak_rss(void);

#endif
