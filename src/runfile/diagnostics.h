#ifndef RUNFILE_DIAGNOSTICS_H
#define RUNFILE_DIAGNOSTICS_H

/*
 * Gradient flow in HDF5: of a model in a file of its own, and along a training in the run file, there with
 * a row for each time it was measured; schema: README.md.
 */
#include "runfile/h5.h"
#include "runfile/runfile.h"

#define DIAGNOSTICS_FORMAT  "unroll-gradflow"
#define DIAGNOSTICS_VERSION 1 /* raised when a reader of the old schema would misread the new one */

/**
 * Write a complete file, as runfile_write does: what was there before stays whatever fails.
 *
 * @param[in] run_name      name of the run file that was measured
 * @param[in] command_line  for the record
 *
 * @return UNROLL_OK, UNROLL_ERR_IO, UNROLL_ERR_HDF5 or UNROLL_ERR_MEMORY
 *
 * Collective: no; rank 0 only
 */
unroll_status diagnostics_write(const char *path, const unroll_gradflow *flow, const char *run_name,
                                const char *command_line);

/* The group /diagnostics of a run file: where there are rows, there is a group. */
unroll_status diagnostics_put(const h5_file *file, const run_flows *flows);
unroll_status diagnostics_get(const h5_file *file, const unroll_params *params, run_flows *flows);
size_t diagnostics_estimate(const run_flows *flows); /* [bytes] as image_create wants it */
void diagnostics_free(run_flows *flows);

/* The numbers of each layer, in JSON: an array under each name. */
struct json_t;

/** Add them to an object; *bad becomes true where there is no memory. */
void diagnostics_pack(const unroll_gradflow *flow, struct json_t *object, bool *bad);

#endif
