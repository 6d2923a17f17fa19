#ifndef NET_SPECTRUM_H
#define NET_SPECTRUM_H

/* Eigenvalues and singular values of a square matrix, by LAPACK. */
#include <stddef.h>
#include <unroll/real.h>
#include <unroll/status.h>

/**
 * All eigenvalues and singular values of W (n, n), rows ld apart.
 *
 * @param[out] re, im    (n) eigenvalues by falling modulus; a pair stands with the positive imaginary part first
 * @param[out] singular  (n) falling
 *
 * @return UNROLL_OK, UNROLL_ERR_DIVERGED: W is not finite, or the iteration does not converge,
 *         UNROLL_ERR_MEMORY
 *
 * Threads: one; the last digits depend on the LAPACK library, which may choose its code by the CPU
 */
unroll_status spectrum_of(size_t n, const unroll_real *W, size_t ld, double *re, double *im,
                          double *singular);

#endif
