#ifndef TESTS_KERNEL_SUPPORT_H
#define TESTS_KERNEL_SUPPORT_H

/*
 * What the kernel tests share: matrices that notice a stray write or a stray
 * read, the contract's order of summation in scalar code, a bound on its
 * rounding, and the switch between code paths.
 *
 *   guard | row 0: columns, zero padding, gap | row 1: ... | guard
 *
 * Guards and gaps hold a NaN with a payload of its own: a kernel that computes
 * with one of them yields NaN, one that writes there is seen by matrix_is_clean.
 */
#include "support.h"

#include "kernels/dispatch.h"
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* Unit roundoff of float: half the distance from 1 to the next number. */
#define ROUNDOFF (FLT_EPSILON / 2.0)

/* CU_ASSERT that prints the sizes of the case when it fails. */
#define CHECK_AT(ok, ...) CU_ASSERT(test_at((ok), __LINE__, __VA_ARGS__))
__attribute__((format(printf, 3, 4))) static inline int test_at(int ok, int line,
                                                                const char *format, ...)
{
  static int printed;
  if (!ok && printed++ < 20) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "line %d: ", line);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
  }
  return ok;
}

/* ---------------------------------------------------------------- code paths */

/* Exit status of a test program that CTest counts as skipped. */
#define EXIT_SKIP 77

static const char *own_path;

/* Take a code path by name; false when this CPU or this build has none of that name. */
static inline int path_use(const char *name)
{
  setenv("UNROLL_ISA", name, 1);
  return kernels_start() == UNROLL_OK;
}

/* Back to the path that this run was started for. */
static inline void path_restore(void)
{
  CHECK_OK(path_use(own_path) ? UNROLL_OK : UNROLL_ERR_ARG);
}

/* Runs the cases on the path that UNROLL_ISA names, else on the fastest. */
static inline int run_kernel_cases(const char *suite, size_t n, const struct test_case *cases)
{
  if (kernels_start() != UNROLL_OK) {
    fprintf(stderr, "%s\n", unroll_message());
    return strstr(unroll_message(), "this CPU has no") != NULL ? EXIT_SKIP : EXIT_FAILURE;
  }
  own_path = kernels()->name;
  omp_set_dynamic(0);
  printf("code path: %s\n", own_path);
  return run_cases(suite, n, cases);
}

/* Does this path fuse a * b + c? On x86-64 the portable one rounds twice. */
static inline int path_fuses(void)
{
#ifdef __FP_FAST_FMAF
  return 1;
#else
  return strcmp(kernels()->name, "portable") != 0;
#endif
}

/* The contract's a * b + c. */
static inline unroll_real madd(unroll_real a, unroll_real b, unroll_real c)
{
  return path_fuses() ? fmaf(a, b, c) : a * b + c;
}

/* FNV-1a over bytes, continued from `hash`; FINGERPRINT_START begins. */
#define FINGERPRINT_START UINT64_C(0xcbf29ce484222325)
static inline uint64_t fingerprint_add(uint64_t hash, const void *bytes, size_t n)
{
  const unsigned char *b = bytes;
  for (size_t i = 0; i < n; ++i) { hash = (hash ^ b[i]) * UINT64_C(0x100000001b3); }
  return hash;
}

/* No result may depend on the threads; 5 are sometimes more than there are rows or tiles. */
static const int thread_counts[] = {1, 2, 3, 5};

/* ------------------------------------------------------------------ matrices */

#define GUARD 64 /* elements: keeps the alignment of the block */

typedef struct matrix {
  size_t rows, cols, width, ld; /* width: columns and padding */
  size_t size;                  /* elements of the block, with both guards */
  unroll_real *block, *x;
} matrix;

static inline unroll_real poison(void)
{
  const uint32_t bits = UINT32_C(0x7fc0dead);
  unroll_real x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline int same_bits(unroll_real a, unroll_real b)
{
  return memcmp(&a, &b, sizeof a) == 0;
}

static inline void *test_alloc(size_t count, size_t size)
{
  void *p = aligned_alloc(64, (count * size + 64) / 64 * 64);
  if (p == NULL) { abort(); }
  return p;
}

/* Rows of `width` elements, `ld` apart; everything poisoned. */
static inline matrix matrix_shaped(size_t rows, size_t cols, size_t width, size_t ld)
{
  matrix m = {
      .rows = rows, .cols = cols, .width = width, .ld = ld, .size = rows * ld + (size_t)2 * GUARD};
  m.block = test_alloc(m.size, sizeof *m.block);
  m.x = m.block + GUARD;
  for (size_t i = 0; i < m.size; ++i) { m.block[i] = poison(); }
  return m;
}

/* The layout of kernels.h, with a gap behind every row. */
static inline matrix matrix_new(size_t rows, size_t cols)
{
  return matrix_shaped(rows, cols, kernels_pad(cols), kernels_pad(cols) + KERNELS_PAD);
}

/* n elements in a row. */
static inline matrix flat_new(size_t n)
{
  return matrix_shaped(1, n, n, n);
}

static inline void matrix_free(matrix *m)
{
  free(m->block);
  m->block = m->x = NULL;
}

static inline unroll_real *at(const matrix *m, size_t row, size_t col)
{
  return m->x + row * m->ld + col;
}

static uint64_t random_state = 1;

/* The next number in [-1, 1), with 24 random bits. */
static inline unroll_real next_real(void)
{
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (unroll_real)((double)(random_state >> 40) * 0x1p-23 - 1.0);
}

static inline size_t next_below(size_t n)
{
  return (size_t)(((double)next_real() + 1.0) / 2 * (double)n) % n;
}

/* Columns at random, padding zero. */
static inline void matrix_fill(const matrix *m)
{
  for (size_t r = 0; r < m->rows; ++r) {
    for (size_t c = 0; c < m->width; ++c) { *at(m, r, c) = c < m->cols ? next_real() : 0; }
  }
}

/* Columns; the padding stays. */
static inline void matrix_poison(const matrix *m)
{
  for (size_t r = 0; r < m->rows; ++r) {
    for (size_t c = 0; c < m->cols; ++c) { *at(m, r, c) = poison(); }
  }
}

static inline void matrix_zero(const matrix *m)
{
  for (size_t r = 0; r < m->rows; ++r) { memset(at(m, r, 0), 0, m->width * sizeof *m->x); }
}

static inline void matrix_copy(const matrix *from, const matrix *to)
{
  memcpy(to->block, from->block, from->size * sizeof *from->block);
}

/* Nothing was written outside the rows, and their padding is zero. */
static inline int matrix_is_clean(const matrix *m)
{
  for (size_t i = 0; i < GUARD; ++i) {
    if (!same_bits(m->block[i], poison()) || !same_bits(m->block[m->size - 1 - i], poison())) {
      return 0;
    }
  }
  for (size_t r = 0; r < m->rows; ++r) {
    for (size_t c = m->cols; c < m->ld; ++c) {
      unroll_real x = *at(m, r, c);
      if (c < m->width ? !(x == 0) : !same_bits(x, poison())) { return 0; }
    }
  }
  return 1;
}

/* The same bits everywhere, guards and gaps included. */
static inline int matrix_equal(const matrix *a, const matrix *b)
{
  return a->size == b->size && memcmp(a->block, b->block, a->size * sizeof *a->block) == 0;
}

static inline uint64_t matrix_fingerprint(uint64_t hash, const matrix *m)
{
  for (size_t r = 0; r < m->rows; ++r) {
    hash = fingerprint_add(hash, at(m, r, 0), m->cols * sizeof *m->x);
  }
  return hash;
}

/*
 * Does `fingerprint`, from the same random numbers, give the same on AVX2 and
 * AVX-512? True where the CPU lacks one of them: there is nothing to compare.
 */
static inline int paths_agree(uint64_t (*fingerprint)(void))
{
  uint64_t state = random_state;
  int same = 1;
  if (path_use("avx512")) {
    uint64_t wide = fingerprint();
    random_state = state;
    same = path_use("avx2") && fingerprint() == wide;
  }
  path_restore();
  return same;
}

/* ------------------------------------------------------------------- oracles */

/*
 * A sum of products: in the contract's order, and in double. Every term and
 * every addition rounds once, so |chain - sum| <= (terms + 1) u sum |a b| up to
 * terms of order u^2 (Higham, Accuracy and Stability, section 3.1).
 */
typedef struct dot {
  unroll_real chain;
  double sum, size;
  size_t terms;
} dot;

static inline dot dot_start(unroll_real x)
{
  return (dot){.chain = x, .sum = (double)x, .size = fabs((double)x)};
}

static inline void dot_add(dot *d, unroll_real a, unroll_real b)
{
  d->chain = madd(a, b, d->chain);
  d->sum += (double)a * (double)b;
  d->size += fabs((double)a * (double)b);
  d->terms += 1;
}

static inline double dot_bound(const dot *d)
{
  return 1.001 * (double)(d->terms + 1) * ROUNDOFF * d->size;
}

/* x has the bits of the chain and the value of the sum. */
static inline int dot_is(const dot *d, unroll_real x)
{
  return same_bits(x, d->chain) && fabs((double)x - d->sum) <= dot_bound(d);
}

/* The vector functions of the path, one element at a time. */
static inline unroll_real path_tanh(unroll_real x)
{
  unroll_real in[KERNELS_PAD] = {x}, out[KERNELS_PAD];
  kernels()->tanh(KERNELS_PAD, in, out);
  return out[0];
}

static inline unroll_real path_exp(unroll_real x)
{
  unroll_real in[KERNELS_PAD] = {x}, out[KERNELS_PAD];
  kernels()->exp(KERNELS_PAD, in, out);
  return out[0];
}

/* The shard tree of shard_tree.h as a recursion: halves while more than a group, else in a row. */
static inline unroll_real tree_of(size_t shards, size_t group, const unroll_real *x)
{
  if (shards > group) {
    return tree_of(shards / 2, group, x) + tree_of(shards / 2, group, x + shards / 2);
  }
  unroll_real s = x[0];
  for (size_t i = 1; i < shards; ++i) { s += x[i]; }
  return s;
}

#endif
