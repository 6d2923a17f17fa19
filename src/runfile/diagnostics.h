#ifndef RUNFILE_DIAGNOSTICS_H
#define RUNFILE_DIAGNOSTICS_H

/* The gradient flow of a run in an HDF5 file of its own; schema: README.md. */
#include <unroll/gradflow.h>

#define DIAGNOSTICS_FORMAT  "unroll-gradflow"
#define DIAGNOSTICS_VERSION 1 /* raised when a reader of the old schema would misread the new one */

/**
 * Write a complete file, as runfile_write does: what was there before stays whatever fails.
 *
 * @param[in] run           name of the run file that was measured
 * @param[in] command_line  for the record
 *
 * @return UNROLL_OK, UNROLL_ERR_IO, UNROLL_ERR_HDF5 or UNROLL_ERR_MEMORY
 *
 * Collective: no; rank 0 only
 */
unroll_status diagnostics_write(const char *path, const unroll_gradflow *flow, const char *run,
                                const char *command_line);

#endif
