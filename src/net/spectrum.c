#include "net/spectrum.h"

#include "base/check.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Let LAPACK use n threads; returns how many it used before, 0 where that is unknown. With another number of
 * threads OpenBLAS adds in another order; its own functions are looked up, because any LAPACK will do. */
static int use_threads(int n)
{
  void (*set)(int) = NULL;
  int (*get)(void) = NULL;
  void *program = dlopen(NULL, RTLD_LAZY);
  int before = 0;

  if (program == NULL) { return 0; }
  void *set_address = dlsym(program, "openblas_set_num_threads"),
       *get_address = dlsym(program, "openblas_get_num_threads");
  if (set_address != NULL && get_address != NULL) { /* POSIX, not C, lets them be functions */
    memcpy(&set, &set_address, sizeof set);
    memcpy(&get, &get_address, sizeof get);
    before = get();
    set(n);
  }
  (void)dlclose(program);
  return before;
}

/* LAPACK overwrites the matrix. Read column by column it is W^T, whose values are the same. */
static void copy(size_t n, const unroll_real *W, size_t ld, double *out)
{
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) { out[i * n + j] = (double)W[i * ld + j]; }
  }
}

static unroll_status outcome(lapack_int info, const char *what)
{
  if (info == 0) { return UNROLL_OK; }
  if (info == LAPACK_WORK_MEMORY_ERROR || info == LAPACK_TRANSPOSE_MEMORY_ERROR) {
    return unroll_fail(UNROLL_ERR_MEMORY, "no memory for the %s of W_hh", what);
  }
  return unroll_fail(UNROLL_ERR_DIVERGED, "the %s of W_hh cannot be found: %s (LAPACK says %d)",
                     what, info < 0 ? "a weight is not finite" : "the iteration does not converge",
                     (int)info);
}

typedef struct eigenvalue {
  double modulus, re, im;
} eigenvalue;

static int falling(double a, double b)
{
  return (a < b) - (a > b);
}

static int compare(const void *a, const void *b)
{
  const eigenvalue *x = a, *y = b;
  int order = falling(x->modulus, y->modulus);
  if (order == 0) { order = falling(x->re, y->re); }
  return order != 0 ? order : falling(x->im, y->im);
}

unroll_status spectrum_of(size_t n, const unroll_real *W, size_t ld, double *re, double *im,
                          double *singular)
{
  unroll_status st = UNROLL_OK;
  lapack_int N = (lapack_int)n;
  double *matrix = NULL, *unused = NULL;
  eigenvalue *found = NULL;
  const int threads = use_threads(1);

  UNROLL_TRY(memory_new(n * n, sizeof *matrix, "a copy of W_hh", &matrix));
  UNROLL_TRY(memory_new(n, sizeof *unused, "a copy of W_hh", &unused));
  UNROLL_TRY(memory_new(n, sizeof *found, "eigenvalues", &found));

  copy(n, W, ld, matrix);
  UNROLL_TRY(
      outcome(LAPACKE_dgeev(LAPACK_COL_MAJOR, 'N', 'N', N, matrix, N, re, im, NULL, 1, NULL, 1),
              "eigenvalues"));
  for (size_t i = 0; i < n; ++i) { found[i] = (eigenvalue){hypot(re[i], im[i]), re[i], im[i]}; }
  qsort(found, n, sizeof *found, compare);
  for (size_t i = 0; i < n; ++i) {
    re[i] = found[i].re;
    im[i] = found[i].im;
  }

  copy(n, W, ld, matrix);
  UNROLL_TRY(outcome(LAPACKE_dgesvd(LAPACK_COL_MAJOR, 'N', 'N', N, N, matrix, N, singular, NULL, 1,
                                    NULL, 1, unused),
                     "singular values"));

cleanup:
  if (threads > 0) { (void)use_threads(threads); }
  memory_free(&found);
  memory_free(&unused);
  memory_free(&matrix);
  return st;
}
