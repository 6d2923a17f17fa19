#include "runfile/contents.h"

#include "base/check.h"

#include <stdio.h>

/* A block that deflate made yields at most so many times its bytes: 258 for each quarter of a byte. */
#define DEFLATE_RATIO 1032

/* What the walk over the links hands on. */
typedef struct walk {
  const h5_file *file;
  uint64_t bytes;
  bool whole;
  unroll_status st;
} walk;

/* a * b, or the largest number where that is less. */
static uint64_t times(uint64_t a, uint64_t b)
{
  return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

static unroll_status check_filters(const h5_file *file, const char *object, hid_t how,
                                   bool *deflate, bool *checksum)
{
  unroll_status st = UNROLL_OK;
  int n = 0;

  UNROLL_TRY_H5(n = H5Pget_nfilters(how));
  for (int i = 0; i < n; ++i) {
    unsigned flags = 0, config = 0;
    size_t n_values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(how, (unsigned)i, &flags, &n_values, NULL, 0, NULL, &config);
    if (filter == H5Z_FILTER_DEFLATE) {
      *deflate = true;
    } else if (filter == H5Z_FILTER_FLETCHER32) {
      *checksum = true;
    } else if (filter != H5Z_FILTER_SHUFFLE) {
      st = unroll_fail(file->failure,
                       "%s: %s has filter %d; legal are deflate, shuffle and fletcher32",
                       file->path, object, (int)filter);
      goto cleanup;
    }
  }

cleanup:
  return st;
}

/* Can what is stored hold what the shape declares, and one chunk? Dimensions are multiplied here: HDF5's own count may wrap. */
static unroll_status check_size(const walk *w, const char *object, hid_t dataset, hid_t how,
                                bool deflate)
{
  unroll_status st = UNROLL_OK;
  const h5_file *file = w->file;
  hid_t space = H5I_INVALID_HID, type = H5I_INVALID_HID;
  hsize_t n[H5S_MAX_RANK] = {0};
  int rank = 0;

  UNROLL_TRY_H5(space = H5Dget_space(dataset));
  UNROLL_TRY_H5(type = H5Dget_type(dataset));
  UNROLL_TRY_H5(rank = H5Sget_simple_extent_dims(space, n, NULL));
  const uint64_t stored = H5Dget_storage_size(dataset);
  /* What was never written is all zero: no more of it than of the file. */
  const uint64_t held = stored == 0 || stored > w->bytes ? w->bytes : stored;
  const uint64_t room = times(held, deflate && stored != 0 ? DEFLATE_RATIO : 1);
  uint64_t declared = H5Sget_simple_extent_type(space) == H5S_NULL ? 0 : H5Tget_size(type);
  for (int i = 0; i < rank; ++i) { declared = times(declared, n[i]); }
  if (declared > 0 && H5Pget_layout(how) == H5D_CHUNKED) {
    uint64_t chunk = H5Tget_size(type);
    UNROLL_TRY_H5(H5Pget_chunk(how, rank, n));
    for (int i = 0; i < rank; ++i) { chunk = times(chunk, n[i]); }
    declared = chunk > declared ? chunk : declared;
  }
  if (declared > room) {
    st = unroll_fail(
        file->failure,
        "%s: %s declares %llu bytes, but %llu are stored in a file of %llu: the file is "
        "damaged, or was not made by unroll",
        file->path, object, (unsigned long long)declared, (unsigned long long)stored,
        (unsigned long long)w->bytes);
  }

cleanup:
  st = h5_close(file, st, H5Tclose, &type);
  st = h5_close(file, st, H5Sclose, &space);
  return st;
}

/* Are all chunks of a dataset with a checksum there, and was none of them written without? Where the index of the chunks is
 * damaged HDF5 takes one for never written, and reads zeros. */
static unroll_status check_chunks(const walk *w, const char *object, hid_t dataset, hid_t how)
{
  unroll_status st = UNROLL_OK;
#if H5_VERSION_GE(1, 10, 5)
  const h5_file *file = w->file;
  hid_t space = H5I_INVALID_HID;
  hsize_t n[H5S_MAX_RANK] = {0}, chunk[H5S_MAX_RANK] = {0}, at[H5S_MAX_RANK] = {0}, bytes = 0;
  haddr_t address = HADDR_UNDEF;
  unsigned skipped = 0;
  int rank = 0, i = 0;

  UNROLL_TRY_H5(space = H5Dget_space(dataset));
  if (H5Sget_simple_extent_npoints(space) == 0) { goto cleanup; }
  UNROLL_TRY_H5(rank = H5Sget_simple_extent_dims(space, n, NULL));
  UNROLL_TRY_H5(H5Pget_chunk(how, rank, chunk));
  do {
    UNROLL_TRY_H5(H5Dget_chunk_info_by_coord(dataset, at, &skipped, &address, &bytes));
    if (address == HADDR_UNDEF || skipped != 0) {
      st = unroll_fail(file->failure, "%s: %s is damaged: a part of it %s", file->path, object,
                       skipped != 0 ? "has no checksum" : "is missing");
      goto cleanup;
    }
    for (i = rank - 1; i >= 0 && (at[i] += chunk[i]) >= n[i]; --i) { at[i] = 0; }
  } while (i >= 0);

cleanup:
  st = h5_close(file, st, H5Sclose, &space);
#else
  (void)w, (void)object, (void)dataset, (void)how;
#endif
  return st;
}

static unroll_status check_dataset(const walk *w, const char *object, hid_t dataset)
{
  unroll_status st = UNROLL_OK;
  const h5_file *file = w->file;
  hid_t how = H5I_INVALID_HID;
  bool deflate = false, checksum = false;

  UNROLL_TRY_H5(how = H5Dget_create_plist(dataset));
  if (H5Pget_layout(how) == H5D_VIRTUAL) {
    st = unroll_fail(file->failure, "%s: %s is a virtual dataset; a run file holds its own values",
                     file->path, object);
    goto cleanup;
  }
  if (H5Pget_external_count(how) != 0) {
    st = unroll_fail(file->failure,
                     "%s: %s keeps its values in another file; a run file holds its own",
                     file->path, object);
    goto cleanup;
  }
  UNROLL_TRY(check_filters(file, object, how, &deflate, &checksum));
  UNROLL_TRY(check_size(w, object, dataset, how, deflate));
  if (checksum && !w->whole) { UNROLL_TRY(check_chunks(w, object, dataset, how)); }

cleanup:
  st = h5_close(file, st, H5Pclose, &how);
  return st;
}

static herr_t check_link(hid_t root, const char *name, const H5L_info_t *link, void *context)
{
  walk *w = context;
  unroll_status st = UNROLL_OK;
  const h5_file *file = w->file;
  hid_t opened = H5I_INVALID_HID;
  char object[H5_PATH];

  (void)snprintf(object, sizeof object, "/%s", name);
  if (link->type == H5L_TYPE_SOFT) {
    goto cleanup;
  } /* stays in the file, as no link leads out of it */
  if (link->type != H5L_TYPE_HARD) {
    st = unroll_fail(file->failure,
                     "%s: %s is a link to another file; a run file holds its own values",
                     file->path, object);
    goto cleanup;
  }
  UNROLL_TRY_H5(opened = H5Oopen(root, name, H5P_DEFAULT));
  if (H5Iget_type(opened) == H5I_DATASET) { UNROLL_TRY(check_dataset(w, object, opened)); }

cleanup:
  st = h5_close(file, st, H5Oclose, &opened);
  w->st = st;
  return st == UNROLL_OK ? 0 : 1; /* 1 ends the walk */
}

unroll_status contents_check(const h5_file *file, uint64_t bytes, bool whole)
{
  unroll_status st = UNROLL_OK;
  const char *object = "/";
  walk w = {file, bytes, whole, UNROLL_OK};

  UNROLL_TRY_H5(H5Lvisit(file->id, H5_INDEX_NAME, H5_ITER_NATIVE, check_link, &w));
  st = w.st;

cleanup:
  return st;
}
