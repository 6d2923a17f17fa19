#ifndef REPORT_DATA_H
#define REPORT_DATA_H

/*
 * A run as the JSON object that page.js draws. Curves of more than DATA_POINTS rows are thinned to as many points, each
 * the mean of its rows; what is not finite is null.
 *
 *   rows_per_point, train {step, tokens, seconds, loss ... : arrays}, valid {step, loss ... : arrays}
 *   clip     {threshold, share: of the rows with a factor below 1, scale: the mean factor}
 *   time     {compute, exchange, wait: mean seconds of a step}
 *   spectra  {step, layers: [{gates, blocks: [{re, im}]}]}, or a text that says why there are none
 *   flow     {step, lags, layers: [{norm_mean: [row of lags], growth, half_lag, percent_lag, lyapunov}]}, or null
 *   sample   a text, or null
 *   model, state, provenance, files, changed, config
 */
#include "runfile/runfile.h"

#define DATA_POINTS 1500

/** `sample`: tokens of the sample, 0 for none. *bad becomes true where there is no memory. */
struct json_t;
unroll_status data_pack(run *r, uint64_t sample, struct json_t **out, bool *bad);

/** The text as JSON, with U+FFFD for what is no UTF-8: a name or a sample may have any bytes. */
struct json_t *data_text(const char *text, size_t n);

#endif
