#ifndef UNROLL_REAL_H
#define UNROLL_REAL_H

/*
 * The floating-point type of parameters, activations and gradients.
 *
 * The installed library computes in float. The same sources compiled with
 * UNROLL_DOUBLE compute in double: that build exists for gradient checks only.
 */
#ifdef UNROLL_DOUBLE
typedef double unroll_real;
#else
typedef float unroll_real;
#endif

#endif
