#ifndef RUNFILE_IMAGE_H
#define RUNFILE_IMAGE_H

/*
 * A file built in memory by HDF5's core driver and written by save.c.
 * Not by HDF5 itself: when a write fails on a full disk, HDF5 1.10.8 cannot
 * close the file any more, keeps it open, and crashes as the process ends. It
 * also asks file systems for locks that a file of a new name does not need.
 *
 *   image_create, h5_put_..., image_prepare, close of file->id, image_free
 */
#include "runfile/h5.h"

/* The bytes of the file; reserved in advance, so that memory is short before HDF5 begins, not within. */
typedef struct image {
  unsigned char *bytes;
  size_t size;
} image;

/** Create the file in the image. `estimate` [bytes] is at least what the data need, and what lies around them. */
unroll_status image_create(h5_file *file, image *m, size_t estimate);

/** save_prepare of the image and its digest, for file->path. Nothing may be written to the file after it. */
unroll_status image_prepare(const h5_file *file, const image *m, char **prepared);

/** After the file is closed, whatever happened before; all zero is fine. */
void image_free(image *m);

#endif
