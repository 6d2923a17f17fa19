#ifndef MODEL_GRADFLOW_H
#define MODEL_GRADFLOW_H

/* Gradient flow: windows of text -> their records (lags.h) -> the statistics that are reported. */
#include <unroll/comm.h>
#include <unroll/gradflow.h>
#include <unroll/params.h>

/** A result for models of this shape, its arrays allocated and zero. */
unroll_status gradflow_new(const unroll_shape *shape, uint64_t positions, uint64_t lags,
                           unroll_gradflow **out);

/**
 * Fill in all but the spectra: norms, lyapunov, derivative, growth, lags and verdicts.
 *
 * @param[in] records  (positions, LAGS_RECORD(1 + memory, L, lags)), in the order of the positions
 *
 * @return UNROLL_OK, UNROLL_ERR_DIVERGED: a record is not finite, or UNROLL_ERR_MEMORY
 *
 * Collective: no
 */
unroll_status gradflow_summarize(const double *records, unroll_gradflow *flow);

/** First token of window i of n, T + 1 tokens each: spread evenly from the first token to the last. */
uint64_t gradflow_window(uint64_t tokens, size_t T, uint64_t n, uint64_t i);

/**
 * Measure this rank's windows, gather those of all ranks, and fill in all but tokens, unknown and step.
 *
 * @param[in]     T       steps of a window, > flow->lags
 * @param[in]     first   index of this rank's first window; it has n of flow->positions, 0 or more
 * @param[in]     tokens  (n, T + 1)
 * @param[in,out] flow    new, of the same sizes on every rank
 *
 * @return the same on every rank: UNROLL_OK, UNROLL_ERR_DIVERGED: weights, states or gradients are not
 *         finite, UNROLL_ERR_MEMORY, UNROLL_ERR_MPI
 *
 * Collective: over comm; the same result on every rank, whatever their number
 */
unroll_status gradflow_measure(unroll_comm *comm, const unroll_params *params, size_t T,
                               uint64_t first, size_t n, const int32_t *tokens,
                               unroll_gradflow *flow);

#endif
