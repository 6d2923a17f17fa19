#ifndef MODEL_GRADFLOW_H
#define MODEL_GRADFLOW_H

/* From the records of windows (lags.h) to what is reported of them. */
#include <unroll/gradflow.h>

/** A result with all arrays of its sizes, zero. */
unroll_status gradflow_new(size_t L, size_t H, uint64_t positions, uint64_t lags,
                           unroll_gradflow **out);

/**
 * Fill in all but the spectra: norms, lyapunov, derivative, growth, lags and verdicts.
 *
 * @param[in] records  (positions, LAGS_RECORD(L, lags)), in the order of the positions
 *
 * @return UNROLL_OK, UNROLL_ERR_DIVERGED: a record is not finite, or UNROLL_ERR_MEMORY
 *
 * Collective: no
 */
unroll_status gradflow_summarize(const double *records, unroll_gradflow *flow);

#endif
