#ifndef RUNFILE_CHECKSUMS_H
#define RUNFILE_CHECKSUMS_H

/* The checksums of the datasets in a run file: HDF5's Fletcher32 of numbers, a SHA-256 of strings (h5.h). */
#include "runfile/h5.h"

typedef struct checksums {
  size_t n_checked, n_without; /* datasets */
} checksums;

/**
 * Read all datasets that have a checksum, and the attributes of all objects, for which HDF5 has its own.
 *
 * @return UNROLL_OK, or file->failure: a line that names the damaged ones
 */
unroll_status checksums_check(const h5_file *file, checksums *found);

#endif
