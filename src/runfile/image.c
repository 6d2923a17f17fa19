#include "runfile/image.h"

#include "base/check.h"
#include "base/memory.h"
#include "runfile/digest.h"
#include "runfile/save.h"

#include <assert.h>

/* HDF5 asks for room: it has it, and the digest behind it, unless the estimate was too small. */
static void *image_reserve(void *old, size_t size, H5FD_file_image_op_t op, void *context)
{
  (void)op;
  image *m = context;
  assert(old == NULL || old == m->bytes);
  (void)old;
  if (size + DIGEST_TAIL > m->size) {
    if (memory_resize(m->size, size + DIGEST_TAIL, 1, "the image of a file", &m->bytes) !=
        UNROLL_OK) {
      return NULL;
    }
    m->size = size + DIGEST_TAIL;
  }
  return m->bytes;
}

static void *image_first(size_t size, H5FD_file_image_op_t op, void *context)
{
  return image_reserve(NULL, size, op, context);
}

/* The image outlives the file: image_free frees it. */
static herr_t image_keep(void *bytes, H5FD_file_image_op_t op, void *context)
{
  (void)bytes;
  (void)op;
  (void)context;
  return 0;
}

/* HDF5 copies property lists: all copies mean the one image. */
static void *image_share(void *context)
{
  return context;
}

static herr_t image_unshare(void *context)
{
  (void)context;
  return 0;
}

/* H5Fcreate first tries to open a file of that name, and the core driver would read all of the old run
 * file into the image: so the image has a name that no file can have. */
#define IMAGE_NAME "/dev/null/image"

/* Bytes by which HDF5 grows the image. */
#define IMAGE_STEP ((size_t)1 << 20)

unroll_status image_create(h5_file *file, image *m, size_t estimate)
{
  unroll_status st = UNROLL_OK;
  const char *object = "";
  H5FD_file_image_callbacks_t calls = {.image_malloc = image_first,
                                       .image_realloc = image_reserve,
                                       .image_free = image_keep,
                                       .udata_copy = image_share,
                                       .udata_free = image_unshare,
                                       .udata = m};
  hid_t how = H5I_INVALID_HID;
  hid_t access = H5I_INVALID_HID;

  UNROLL_TRY(memory_new(estimate + 2 * IMAGE_STEP, 1, "the image of a file", &m->bytes));
  m->size = estimate + 2 * IMAGE_STEP;
  UNROLL_TRY_H5(access = H5Pcreate(H5P_FILE_ACCESS));
  UNROLL_TRY_H5(H5Pset_fapl_core(access, IMAGE_STEP, false));
  UNROLL_TRY_H5(H5Pset_file_image_callbacks(access, &calls));
  /* The oldest format that holds each object, so that HDF5 1.8 and all that follow read it. */
  UNROLL_TRY_H5(H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST));
  UNROLL_TRY_H5(how = H5Pcreate(H5P_FILE_CREATE));
  UNROLL_TRY_H5(H5Pset_link_creation_order(how, H5_ORDER));
  UNROLL_TRY_H5(H5Pset_attr_creation_order(how, H5_ORDER));
  UNROLL_TRY_H5(H5Pset_obj_track_times(how, false));
  UNROLL_TRY_H5(file->id = H5Fcreate(IMAGE_NAME, H5F_ACC_TRUNC, how, access));

cleanup:
  st = h5_close(file, st, H5Pclose, &how);
  st = h5_close(file, st, H5Pclose, &access);
  return st;
}

unroll_status image_prepare(const h5_file *file, const image *m, char **prepared)
{
  unroll_status st = UNROLL_OK;
  const char *object = "";
  ssize_t size = 0;

  UNROLL_TRY_H5(H5Fflush(file->id, H5F_SCOPE_GLOBAL));
  UNROLL_TRY_H5(size =
                    H5Fget_file_image(file->id, NULL, 0)); /* after a flush the image is the file */
  UNROLL_TRY(digest_put(m->bytes, (size_t)size, (char *)m->bytes + size));
  UNROLL_TRY(save_prepare(file->path, m->bytes, (size_t)size + DIGEST_TAIL, prepared));

cleanup:
  return st;
}

void image_free(image *m)
{
  memory_free(&m->bytes);
}
