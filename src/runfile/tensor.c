#include "runfile/tensor.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "runfile/runfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Elements of a block, or one row where that is longer. */
#define BLOCK ((size_t)1 << 20)

unroll_status tensor_block_new(const unroll_params *p, unroll_real **block)
{
  size_t n = BLOCK;
  for (size_t i = 0; i < p->n_tensors; ++i) {
    if (p->tensors[i].cols > n) { n = p->tensors[i].cols; }
  }
  return memory_new_reals(n, "a block of parameters", block);
}

/*
 * Rows [row, row + n) of a tensor, to or from the shape of the file, along its memory: rows at once, or of a transposed one
 * columns outside.
 */
static void gather_rows(const unroll_tensor *t, const unroll_real *values, size_t row, size_t n,
                        unroll_real *block)
{
  if (!t->transposed) {
    for (size_t i = 0; i < n; ++i) {
      memcpy(block + i * t->cols, values + unroll_tensor_index(t, row + i, 0),
             t->cols * sizeof *block);
    }
    return;
  }
  for (size_t c = 0; c < t->cols; ++c) {
    for (size_t i = 0; i < n; ++i) {
      block[i * t->cols + c] = values[unroll_tensor_index(t, row + i, c)];
    }
  }
}

static void scatter_rows(const unroll_tensor *t, const unroll_real *block, size_t row, size_t n,
                         unroll_real *values)
{
  if (!t->transposed) {
    for (size_t i = 0; i < n; ++i) {
      memcpy(values + unroll_tensor_index(t, row + i, 0), block + i * t->cols,
             t->cols * sizeof *block);
    }
    return;
  }
  for (size_t c = 0; c < t->cols; ++c) {
    for (size_t i = 0; i < n; ++i) {
      values[unroll_tensor_index(t, row + i, c)] = block[i * t->cols + c];
    }
  }
}

/* Block after block: written from `from`, or where that is NULL read to `to`. */
static unroll_status transfer(const h5_file *file, const char *object, hid_t dataset,
                              const unroll_tensor *t, const unroll_real *from, unroll_real *to,
                              unroll_real *block)
{
  unroll_status st = UNROLL_OK;
  hid_t space = H5I_INVALID_HID;
  hid_t memory = H5I_INVALID_HID;
  const int rank = t->col_dim == NULL ? 1 : 2;
  const size_t most = t->cols < BLOCK ? BLOCK / t->cols : 1;

  UNROLL_TRY_H5(space = H5Dget_space(dataset));
  for (size_t row = 0; row < t->rows; row += most) {
    const hsize_t start[2] = {row, 0};
    const hsize_t n[2] = {t->rows - row < most ? t->rows - row : most, t->cols};
    UNROLL_TRY_H5(H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, n, NULL));
    UNROLL_TRY_H5(memory = H5Screate_simple(rank, n, NULL));
    if (from != NULL) {
      gather_rows(t, from, row, n[0], block);
      UNROLL_TRY_H5(H5Dwrite(dataset, H5_REAL, memory, space, H5P_DEFAULT, block));
    } else {
      UNROLL_TRY_H5(H5Dread(dataset, H5_REAL, memory, space, H5P_DEFAULT, block));
      scatter_rows(t, block, row, n[0], to);
    }
    UNROLL_TRY(h5_close(file, st, H5Sclose, &memory));
  }

cleanup:
  st = h5_close(file, st, H5Sclose, &memory);
  st = h5_close(file, st, H5Sclose, &space);
  return st;
}

unroll_status tensor_write(const h5_file *file, const char *object, hid_t dataset,
                           const unroll_tensor *t, const unroll_real *values, unroll_real *block)
{
  return transfer(file, object, dataset, t, values, NULL, block);
}

unroll_status tensor_read(const h5_file *file, const char *object, hid_t dataset,
                          const unroll_tensor *t, unroll_real *values, unroll_real *block)
{
  return transfer(file, object, dataset, t, NULL, values, block);
}

/* "layer0/W_xh" */
static void name_of(const unroll_tensor *t, char name[H5_PATH])
{
  (void)snprintf(name, H5_PATH, "%s/%s", t->group, t->name);
}

static int compare_names(const void *a, const void *b)
{
  char left[H5_PATH], right[H5_PATH];
  name_of(*(const unroll_tensor *const *)a, left);
  name_of(*(const unroll_tensor *const *)b, right);
  return strcmp(left, right);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "values are hashed as they lie in memory");

unroll_status runfile_hash_weights(const unroll_params *p, char text[65])
{
  _Static_assert(SHA256_TEXT == 65, "the header says so");
  unroll_status st = UNROLL_OK;
  const unroll_tensor **order = NULL;
  unroll_real *block = NULL;
  sha256 *s = NULL;

  UNROLL_TRY(memory_new(p->n_tensors, sizeof(unroll_tensor *), "the order of tensors", &order));
  UNROLL_TRY(tensor_block_new(p, &block));
  UNROLL_TRY(sha256_new(&s));
  for (size_t i = 0; i < p->n_tensors; ++i) { order[i] = &p->tensors[i]; }
  qsort(order, p->n_tensors, sizeof(unroll_tensor *), compare_names);
  for (size_t i = 0; i < p->n_tensors; ++i) {
    const unroll_tensor *t = order[i];
    const size_t most = t->cols < BLOCK ? BLOCK / t->cols : 1;
    for (size_t row = 0; row < t->rows; row += most) {
      const size_t n = t->rows - row < most ? t->rows - row : most;
      gather_rows(t, p->values, row, n, block);
      sha256_add(s, block, n * t->cols * sizeof *block);
    }
  }
  UNROLL_TRY(sha256_end(s, text));

cleanup:
  sha256_free(&s);
  memory_free(&block);
  memory_free(&order);
  return st;
}
