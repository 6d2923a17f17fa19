#ifndef UNROLL_GRADFLOW_H
#define UNROLL_GRADFLOW_H

/*
 * How gradients flow back through time in a trained model, measured on text.
 *
 * The gradient of one loss through k steps is a product of k Jacobians J_t = diag(phi'(a_t)) W_hh: it
 * vanishes or explodes with the size of that product (Dive into Deep Learning 9.7; Pascanu, Mikolov and
 * Bengio 2013). Measured are, for each layer l,
 *
 *   |dl_t / dh^l_{t-k}|, k = 0..K   the loss of one token alone, at positions t spread over the text;
 *                                   the total derivative, through the layers too
 *   |dl_t / dc^l_{t-k}|             the same for a cell with memory: by the c that step t-k passes on, h_{t-k} fixed
 *   W_hh                            eigenvalues, singular values; of a gated cell block by block
 *   derivative                      mean of phi'(a); of a gated cell the mean factor from the state to itself without a
 *                                   product: f of lstm, z of gru, 1 - z of mingru
 *   lyapunov                        mean of ln |J_t ... J_{t-K+1} u| / K: the growth of the product itself
 *
 * Verdict, growth and lags are of the whole state: of the norm of (dl_t/dh, dl_t/dc) where there is a c.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_gradflow_plan {
  uint64_t positions; /* losses to propagate back, >= 1 */
  uint64_t lags;      /* [steps] K, >= 1 */
  uint64_t
      context; /* [tokens] read before those steps, from the zero state; fewer in a short text */
} unroll_gradflow_plan;

typedef enum unroll_flow {
  UNROLL_FLOW_VANISHING, /* less than 1% of the mean norm is left after K steps */
  UNROLL_FLOW_STABLE,
  UNROLL_FLOW_EXPLODING /* the mean norm has grown more than a hundredfold */
} unroll_flow;

/* Arrays are row-major; logarithms are of numbers that a double may not hold. */
typedef struct unroll_gradflow {
  size_t L, H;
  bool memory;       /* the state is h and c */
  size_t blocks;     /* of W_hh; 0: the cell has none */
  const char *gates; /* static: a letter for each of several blocks, in the file's order; else "" */
  uint64_t positions, lags;
  uint64_t context; /* [tokens] as used */
  uint64_t tokens;  /* of the text */
  uint64_t unknown; /* of them not in the vocabulary */
  uint64_t step;    /* of the run: updates done */

  /* (L, lags + 1) [nats] over positions; below 1e-307 zero */
  double *norm_mean, *norm_q10, *norm_q50, *norm_q90;
  double *norm_log10; /* (L, lags + 1) mean over positions of log10 of the norm */

  /* The same of dl_t/dc_{t-k}; NULL without a c */
  double *norm_c_mean, *norm_c_q10, *norm_c_q50, *norm_c_q90, *norm_c_log10;

  /* (L, blocks, H) of W_hh, the largest first; NULL without blocks */
  double *eigenvalue_re, *eigenvalue_im, *singular_value;

  /* (L, blocks); NULL without */
  double *spectral_radius, *spectral_norm;

  /* (L) */
  double *lyapunov;   /* [1/step] */
  double *derivative; /* mean over units, positions and the last K + 1 steps */
  double
      *growth; /* factor per step of the norm, geometric mean over the farther half of the lags */
  int64_t *half_lag; /* first lag with half of the mean norm of lag 0 or less; -1: none up to K */
  int64_t *percent_lag; /* the same for 1% */
  unroll_flow *verdict;
} unroll_gradflow;

/** "vanishing", "stable" or "exploding". */
static inline const char *unroll_flow_text(unroll_flow flow)
{
  return flow == UNROLL_FLOW_VANISHING ? "vanishing"
         : flow == UNROLL_FLOW_STABLE  ? "stable"
                                       : "exploding";
}

/**
 * Measure the gradient flow of a model on the text of these files.
 *
 * Positions are divided over the ranks; the result is the same for any number of ranks and threads.
 * The last digits of what LAPACK finds (eigenvalues, singular values, radius, norm) may differ between
 * LAPACK libraries, and between CPUs where the library chooses its code by the CPU.
 *
 * @param[out] out  the same on every rank; to be freed with unroll_gradflow_free
 *
 * @return the same on every rank: UNROLL_OK,
 *         UNROLL_ERR_ARG: the plan is not legal, UNROLL_ERR_INPUT: text unusable or too short for it,
 *         UNROLL_ERR_DIVERGED: weights, states or gradients are not finite,
 *         UNROLL_ERR_MEMORY, UNROLL_ERR_MPI
 *
 * Collective: over comm
 * Threads:    main thread only; opens parallel regions
 */
unroll_status unroll_model_gradflow(unroll_model *model, unroll_comm *comm, size_t n_texts,
                                    const char *const *texts, const unroll_gradflow_plan *plan,
                                    unroll_gradflow **out);
void unroll_gradflow_free(unroll_gradflow **flow);

#ifdef __cplusplus
}
#endif
#endif
