#include "runfile/checksums.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* Damaged datasets that the line names; of more it tells how many. */
#define NAMED 5

typedef struct walk {
  const h5_file *file;
  checksums found;
  size_t n_damaged;
  char names[NAMED * H5_PATH];
  unroll_status st; /* what is no damage: no memory */
} walk;

/* Has the dataset HDF5's checksum? */
static unroll_status has_checksum(const h5_file *file, const char *object, hid_t dataset, bool *has)
{
  unroll_status st = UNROLL_OK;
  hid_t how = H5I_INVALID_HID;
  unsigned flags = 0;
  size_t n = 0;

  UNROLL_TRY_H5(how = H5Dget_create_plist(dataset));
  *has = H5Pget_filter_by_id2(how, H5Z_FILTER_FLETCHER32, &flags, &n, NULL, 0, NULL, NULL) >= 0;

cleanup:
  st = h5_close(file, st, H5Pclose, &how);
  return st;
}

/* Read numbers to look at none of them: HDF5 checks as it reads. */
static unroll_status read_numbers(const h5_file *file, const char *object, hid_t dataset,
                                  hid_t type, size_t n)
{
  unroll_status st = UNROLL_OK;
  char *values = NULL;

  UNROLL_TRY(memory_new(n, H5Tget_size(type), object, &values));
  UNROLL_TRY_H5(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values));

cleanup:
  memory_free(&values);
  return st;
}

/* *checked: it has a checksum. A failure is that of the checksum, but for UNROLL_ERR_MEMORY. */
static unroll_status check_dataset(const h5_file *file, const char *object, hid_t dataset,
                                   bool *checked)
{
  unroll_status st = UNROLL_OK;
  hid_t space = H5I_INVALID_HID, type = H5I_INVALID_HID;
  hsize_t shape[H5S_MAX_RANK] = {0};
  char **strings = NULL;
  size_t n = 1;
  int rank = 0;

  UNROLL_TRY_H5(space = H5Dget_space(dataset));
  UNROLL_TRY_H5(type = H5Dget_type(dataset));
  UNROLL_TRY_H5(rank = H5Sget_simple_extent_dims(space, shape, NULL));
  for (int i = 0; i < rank; ++i) { n *= (size_t)shape[i]; }
  if (H5Tget_class(type) == H5T_STRING) {
    UNROLL_TRY(h5_has_attribute(file, object, "sha256", checked));
    *checked = *checked && rank >= 1 && rank <= H5_RANK;
    if (*checked) { UNROLL_TRY(h5_get_strings(file, object, rank, shape, &strings)); }
  } else {
    UNROLL_TRY(has_checksum(file, object, dataset, checked));
    *checked = *checked && H5Tdetect_class(type, H5T_VLEN) <= 0;
    if (*checked) { UNROLL_TRY(read_numbers(file, object, dataset, type, n)); }
  }

cleanup:
  h5_free_strings(n, &strings);
  st = h5_close(file, st, H5Tclose, &type);
  st = h5_close(file, st, H5Sclose, &space);
  return st;
}

static void note_damage(walk *w, const char *object)
{
  const size_t used = strlen(w->names);
  if (w->n_damaged < NAMED) {
    (void)snprintf(w->names + used, sizeof w->names - used, "%s%s", used == 0 ? "" : ", ", object);
  }
  w->n_damaged += 1;
}

static herr_t pass(hid_t object, const char *name, const H5A_info_t *info, void *context)
{
  (void)object, (void)name, (void)info, (void)context;
  return 0;
}

/* Are the attributes as they were written? HDF5 checks as it looks at them. */
static bool attributes_hold(hid_t object)
{
  return H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, pass, NULL) >= 0;
}

static herr_t look_at_link(hid_t root, const char *name, const H5L_info_t *link, void *context)
{
  walk *w = context;
  const h5_file *file = w->file;
  char object[H5_PATH];
  bool checked = false;

  (void)snprintf(object, sizeof object, "/%s", name);
  if (link->type != H5L_TYPE_HARD) { return 0; }
  hid_t opened = H5Oopen(root, name, H5P_DEFAULT);
  if (opened < 0) {
    note_damage(w, object);
    return 0;
  }
  bool damaged = !attributes_hold(opened);
  if (H5Iget_type(opened) == H5I_DATASET) {
    const unroll_status st = check_dataset(file, object, opened, &checked);
    if (st == UNROLL_ERR_MEMORY) { w->st = st; }
    damaged |= st != UNROLL_OK && st != UNROLL_ERR_MEMORY;
    w->found.n_checked += checked;
    w->found.n_without += !checked;
  }
  if (damaged) { note_damage(w, object); }
  (void)H5Oclose(opened);
  return w->st == UNROLL_OK ? 0 : 1; /* 1 ends the walk */
}

unroll_status checksums_check(const h5_file *file, checksums *found)
{
  unroll_status st = UNROLL_OK;
  const char *object = "/";
  walk w = {.file = file};

  if (!attributes_hold(file->id)) { note_damage(&w, object); }
  UNROLL_TRY_H5(H5Lvisit(file->id, H5_INDEX_NAME, H5_ITER_NATIVE, look_at_link, &w));
  UNROLL_TRY(w.st);
  if (w.n_damaged > NAMED) {
    st = unroll_fail(file->failure, "%s: damaged: %s and %zu more", file->path, w.names,
                     w.n_damaged - NAMED);
    goto cleanup;
  }
  if (w.n_damaged > 0) {
    st = unroll_fail(file->failure, "%s: damaged: %s", file->path, w.names);
    goto cleanup;
  }
  *found = w.found;

cleanup:
  return st;
}
