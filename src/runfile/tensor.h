#ifndef RUNFILE_TENSOR_H
#define RUNFILE_TENSOR_H

/*
 * The values of a tensor, between their layout in memory and the shape of its dataset, a block of rows at a
 * time: a transposed tensor would else be copied whole.
 */
#include "runfile/h5.h"
#include <unroll/params.h>

/** Room for a block of any tensor of these parameters, to be freed with memory_free. */
unroll_status tensor_block_new(const unroll_params *p, unroll_real **block);

/** Write a tensor of `values`, a flat array in the layout of the parameters, to its dataset `object`. */
unroll_status tensor_write(const h5_file *file, const char *object, hid_t dataset,
                           const unroll_tensor *t, const unroll_real *values, unroll_real *block);

/** The opposite. */
unroll_status tensor_read(const h5_file *file, const char *object, hid_t dataset,
                          const unroll_tensor *t, unroll_real *values, unroll_real *block);

#endif
