#ifndef RUNFILE_H5_H
#define RUNFILE_H5_H

/*
 * HDF5 with every result checked. The only code, with image.c, tensor.c, write.c and read.c, that
 * calls HDF5; main thread only. Objects are named by their full path in the
 * file, because the path is what a message needs.
 *
 * HDF5's own printing is off between h5_quiet and h5_loud: the innermost entry
 * of its error stack, which has the errno and its text, goes into our one line.
 */
#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>
#include <unroll/real.h>
#include <unroll/status.h>

/* An open file, and what a failure in it is called: ERR_INPUT when reading, ERR_HDF5 when writing. */
typedef struct h5_file {
  hid_t id;
  const char *path;
  unroll_status failure;
} h5_file;

/* Expects in the calling function `unroll_status st`, a label `cleanup`, `const h5_file *file`, and
 * `const char *object`, the path of the object at hand. Ids are 64-bit, results are int: the value is
 * compared, never stored. */
#define UNROLL_TRY_H5(call)                                                                        \
  do {                                                                                             \
    if ((call) < 0) {                                                                              \
      st = h5_fail(file, object);                                                                  \
      goto cleanup;                                                                                \
    }                                                                                              \
  } while (0)

/* HDF5's printing, as it was before h5_quiet. */
typedef struct h5_printing {
  H5E_auto2_t function;
  void *context;
} h5_printing;

void h5_quiet(h5_printing *before);
void h5_loud(const h5_printing *before);

/** Record "path: object: what HDF5 says", with the remedy for a refused lock. */
unroll_status h5_fail(const h5_file *file, const char *object);

/** Close *id if it is open. A failed close is an error too, but never hides an earlier one. */
unroll_status h5_close(const h5_file *file, unroll_status st, herr_t (*closer)(hid_t), hid_t *id);

/* --------------------------------------------------------------- types */

/* Of parameters and states, on disk and in memory. */
#ifdef UNROLL_DOUBLE
#define H5_DISK_REAL H5T_IEEE_F64LE
#define H5_REAL      H5T_NATIVE_DOUBLE
#else
#define H5_DISK_REAL H5T_IEEE_F32LE
#define H5_REAL      H5T_NATIVE_FLOAT
#endif

/** The type of variable-length UTF-8 strings, to be closed with H5Tclose. */
unroll_status h5_strings(const h5_file *file, const char *object, hid_t *type);

/* --------------------------------------------------------------- writing */

/* Longest path of an object, with its zero: "/optimizer/velocity/layer4294967295/W_xh" fits twice. */
#define H5_PATH 96

/* Every object keeps the order of its links and attributes, as netCDF-4 wants, and no times, so that
 * equal runs give equal bytes. */
#define H5_ORDER (H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED)

/** Create a group. */
unroll_status h5_put_group(const h5_file *file, const char *object);

/* One scalar attribute. Text is a fixed-length UTF-8 string with its zero, escaped (escape.h) where it is no UTF-8. */
unroll_status h5_put_text(const h5_file *file, const char *object, const char *name,
                          const char *text);
unroll_status h5_put_count(const h5_file *file, const char *object, const char *name,
                           uint64_t value);
unroll_status h5_put_real(const h5_file *file, const char *object, const char *name, double value);
unroll_status h5_put_int(const h5_file *file, const char *object, const char *name, int value);

/** Attributes of the root: format and its version, title, this program, and when which command made the file. */
unroll_status h5_put_root(const h5_file *file, const char *format, int version, const char *title,
                          const char *when, const char *command_line);

/* A dimension: its length and the full path of its scale. The dataset of that path is the scale. */
typedef struct h5_dim {
  size_t n;
  const char *scale;
} h5_dim;

/* Most dimensions of a dataset. */
#define H5_RANK 4

/* What a dataset is. */
typedef struct h5_shape {
  int rank; /* 1 to H5_RANK */
  h5_dim dim[H5_RANK];
  bool grows; /* the first dimension is unlimited, as tables of rows are in netCDF */
  const char *units, *long_name;
} h5_shape;

/** Create a dataset with units, long_name and dimension scales; the scales must exist. Numbers get HDF5's checksum. */
unroll_status h5_create(const h5_file *file, const char *object, hid_t type, const h5_shape *shape,
                        hid_t *dataset);

/** Create a dataset and write all of it from `data` of type `memory`. */
unroll_status h5_put(const h5_file *file, const char *object, hid_t type, const h5_shape *shape,
                     hid_t memory, const void *data);

/** The same of variable-length UTF-8 strings, which that checksum does not cover: their SHA-256 is an attribute. */
unroll_status h5_put_strings(const h5_file *file, const char *object, const h5_shape *shape,
                             const char *const *strings);

/** Create a scale that only counts: 0, 1, ..., n - 1. */
unroll_status h5_put_index(const h5_file *file, const char *object, const char *long_name,
                           size_t n);

/* --------------------------------------------------------------- reading */

/** Is there an object of that path, parents included? A damaged file may not tell. */
unroll_status h5_has(const h5_file *file, const char *object, bool *has);
unroll_status h5_has_attribute(const h5_file *file, const char *object, const char *name,
                               bool *has);

/* One scalar attribute; text of any string type, to be freed with memory_free. */
unroll_status h5_get_text(const h5_file *file, const char *object, const char *name, char **text);
unroll_status h5_get_count(const h5_file *file, const char *object, const char *name,
                           uint64_t *value);
unroll_status h5_get_real(const h5_file *file, const char *object, const char *name, double *value);
unroll_status h5_get_int(const h5_file *file, const char *object, const char *name, int *value);

/**
 * Open a dataset and check what it is.
 *
 * @param[in]  kind  class of its elements: H5T_FLOAT, H5T_INTEGER or H5T_STRING
 * @param[out] n     (rank) its shape
 */
unroll_status h5_open(const h5_file *file, const char *object, H5T_class_t kind, int rank,
                      hsize_t *n, hid_t *dataset);

/** Read a whole dataset that must have this shape. */
unroll_status h5_get(const h5_file *file, const char *object, H5T_class_t kind, int rank,
                     const hsize_t *n, hid_t memory, void *data);

/** The same of strings; each and the array to be freed with h5_free_strings. */
unroll_status h5_get_strings(const h5_file *file, const char *object, int rank, const hsize_t *n,
                             char ***strings);
void h5_free_strings(size_t n, char ***strings);

#endif
