#include "runfile/h5.h"
#include "runfile/escape.h"

#include "base/build.h"
#include "base/check.h"
#include "base/memory.h"
#include "base/sha256.h"

#include <assert.h>
#include <hdf5_hl.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------- messages */

void h5_quiet(h5_printing *before)
{
  (void)H5Eget_auto2(H5E_DEFAULT, &before->function, &before->context);
  (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void h5_loud(const h5_printing *before)
{
  (void)H5Eset_auto2(H5E_DEFAULT, before->function, before->context);
}

/* What the error stack says: its innermost entry, and whether a lock was refused. */
typedef struct reason {
  char text[512];
  bool lock;
} reason;

static herr_t look_at_entry(unsigned n, const H5E_error2_t *entry, void *context)
{
  reason *why = context;
  if (n == 0) { (void)snprintf(why->text, sizeof why->text, "%s", entry->desc); }
  if (strstr(entry->desc, "lock file") != NULL) { why->lock = true; }
  return 0;
}

unroll_status h5_fail(const h5_file *file, const char *object)
{
  reason why = {"HDF5 gives no reason", false};
  (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, look_at_entry, &why);
  return unroll_fail(
      file->failure, "%s: %s%s%s%s", file->path, object, object[0] == '\0' ? "" : ": ", why.text,
      why.lock ? "; if no other program has the file open for writing, the file system "
                 "refuses locks: set HDF5_USE_FILE_LOCKING=FALSE"
               : "");
}

unroll_status h5_close(const h5_file *file, unroll_status st, herr_t (*closer)(hid_t), hid_t *id)
{
  if (*id >= 0 && closer(*id) < 0 && st == UNROLL_OK) { st = h5_fail(file, "closing"); }
  *id = H5I_INVALID_HID;
  return st;
}

/* ---------------------------------------------------------------- types */

unroll_status h5_strings(const h5_file *file, const char *object, hid_t *type)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY_H5(*type = H5Tcopy(H5T_C_S1));
  UNROLL_TRY_H5(H5Tset_size(*type, H5T_VARIABLE));
  UNROLL_TRY_H5(H5Tset_cset(*type, H5T_CSET_UTF8));

cleanup:
  return st;
}

/* -------------------------------------------------------------- writing */

unroll_status h5_put_group(const h5_file *file, const char *object)
{
  unroll_status st = UNROLL_OK;
  hid_t how = H5I_INVALID_HID;
  hid_t group = H5I_INVALID_HID;

  UNROLL_TRY_H5(how = H5Pcreate(H5P_GROUP_CREATE));
  UNROLL_TRY_H5(H5Pset_link_creation_order(how, H5_ORDER));
  UNROLL_TRY_H5(H5Pset_attr_creation_order(how, H5_ORDER));
  UNROLL_TRY_H5(H5Pset_obj_track_times(how, false));
  UNROLL_TRY_H5(group = H5Gcreate2(file->id, object, H5P_DEFAULT, how, H5P_DEFAULT));

cleanup:
  st = h5_close(file, st, H5Gclose, &group);
  st = h5_close(file, st, H5Pclose, &how);
  return st;
}

/* A scalar attribute of any type. */
static unroll_status put_attribute(const h5_file *file, const char *object, const char *name,
                                   hid_t type, hid_t memory, const void *value)
{
  unroll_status st = UNROLL_OK;
  hid_t space = H5I_INVALID_HID;
  hid_t attribute = H5I_INVALID_HID;

  UNROLL_TRY_H5(space = H5Screate(H5S_SCALAR));
  UNROLL_TRY_H5(attribute = H5Acreate_by_name(file->id, object, name, type, space, H5P_DEFAULT,
                                              H5P_DEFAULT, H5P_DEFAULT));
  UNROLL_TRY_H5(H5Awrite(attribute, memory, value));

cleanup:
  st = h5_close(file, st, H5Aclose, &attribute);
  st = h5_close(file, st, H5Sclose, &space);
  return st;
}

unroll_status h5_put_text(const h5_file *file, const char *object, const char *name,
                          const char *text)
{
  unroll_status st = UNROLL_OK;
  hid_t type = H5I_INVALID_HID;
  char *escaped = NULL;

  UNROLL_TRY(escape_new(text, &escaped));
  UNROLL_TRY_H5(type = H5Tcopy(H5T_C_S1));
  UNROLL_TRY_H5(H5Tset_size(type, strlen(escaped) + 1));
  UNROLL_TRY_H5(H5Tset_cset(type, H5T_CSET_UTF8));
  UNROLL_TRY(put_attribute(file, object, name, type, type, escaped));

cleanup:
  memory_free(&escaped);
  st = h5_close(file, st, H5Tclose, &type);
  return st;
}

unroll_status h5_put_count(const h5_file *file, const char *object, const char *name,
                           uint64_t value)
{
  return put_attribute(file, object, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

unroll_status h5_put_real(const h5_file *file, const char *object, const char *name, double value)
{
  return put_attribute(file, object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

unroll_status h5_put_int(const h5_file *file, const char *object, const char *name, int value)
{
  return put_attribute(file, object, name, H5T_STD_I32LE, H5T_NATIVE_INT, &value);
}

unroll_status h5_put_root(const h5_file *file, const char *format, int version, const char *title,
                          const char *when, const char *command_line)
{
  unroll_status st = UNROLL_OK;
  const size_t size = strlen(when) + 1 + strlen(command_line) + 1;
  char *history = NULL;

  UNROLL_TRY(memory_new(size, 1, "the history", &history));
  (void)snprintf(history, size, "%s %s", when, command_line);
  UNROLL_TRY(h5_put_text(file, "/", "format", format));
  UNROLL_TRY(h5_put_int(file, "/", "format_version", version));
  UNROLL_TRY(h5_put_text(file, "/", "title", title));
  UNROLL_TRY(h5_put_text(file, "/", "source", "unroll " UNROLL_VERSION));
  UNROLL_TRY(h5_put_text(file, "/", "history", history));

cleanup:
  memory_free(&history);
  return st;
}

/* Make dimension i of a dataset the one that a scale describes. */
static unroll_status attach(const h5_file *file, const char *object, hid_t dataset, unsigned i,
                            const char *scale_path)
{
  unroll_status st = UNROLL_OK;
  hid_t scale = H5I_INVALID_HID;

  if (strcmp(object, scale_path) == 0) {
    UNROLL_TRY_H5(H5DSset_scale(dataset, strrchr(object, '/') + 1));
  } else {
    UNROLL_TRY_H5(scale = H5Dopen2(file->id, scale_path, H5P_DEFAULT));
    UNROLL_TRY_H5(H5DSattach_scale(dataset, scale, i));
  }

cleanup:
  st = h5_close(file, st, H5Dclose, &scale);
  return st;
}

/* Elements of a chunk at most: half a megabyte, two of which fit into HDF5's cache of one. */
#define CHUNK_ELEMENTS 65536

/* As many rows as fit into a chunk, whole as long as they do; chunks of one size, so that the last is nearly full. */
static void choose_chunk(int rank, const hsize_t *n, hsize_t *chunk)
{
  hsize_t room = CHUNK_ELEMENTS;
  for (int i = rank - 1; i >= 0; --i) {
    const hsize_t pieces = (n[i] + room - 1) / room;
    chunk[i] = n[i] == 0 ? 1 : (n[i] + pieces - 1) / pieces;
    room = room / chunk[i] > 0 ? room / chunk[i] : 1;
  }
}

unroll_status h5_create(const h5_file *file, const char *object, hid_t type, const h5_shape *shape,
                        hid_t *dataset)
{
  assert(shape->rank >= 1 && shape->rank <= H5_RANK);
  unroll_status st = UNROLL_OK;
  hid_t how = H5I_INVALID_HID;
  hid_t space = H5I_INVALID_HID;
  hid_t made = H5I_INVALID_HID;
  hsize_t n[H5_RANK] = {0};
  hsize_t most[H5_RANK] = {0};
  hsize_t chunk[H5_RANK] = {0};

  for (int i = 0; i < shape->rank; ++i) { most[i] = n[i] = shape->dim[i].n; }
  const bool checked = H5Tget_class(type) != H5T_STRING && n[0] > 0;
  UNROLL_TRY_H5(how = H5Pcreate(H5P_DATASET_CREATE));
  UNROLL_TRY_H5(H5Pset_attr_creation_order(how, H5_ORDER));
  UNROLL_TRY_H5(H5Pset_obj_track_times(how, false));
  if (shape->grows) { most[0] = H5S_UNLIMITED; }
  if (shape->grows || checked) {
    choose_chunk(shape->rank, n, chunk);
    UNROLL_TRY_H5(H5Pset_chunk(how, shape->rank, chunk));
  }
  if (checked) { UNROLL_TRY_H5(H5Pset_fletcher32(how)); }
  UNROLL_TRY_H5(space = H5Screate_simple(shape->rank, n, most));
  UNROLL_TRY_H5(made = H5Dcreate2(file->id, object, type, space, H5P_DEFAULT, how, H5P_DEFAULT));
  for (int i = 0; i < shape->rank; ++i) {
    UNROLL_TRY(attach(file, object, made, (unsigned)i, shape->dim[i].scale));
  }
  UNROLL_TRY(h5_put_text(file, object, "units", shape->units));
  UNROLL_TRY(h5_put_text(file, object, "long_name", shape->long_name));
  *dataset = made;
  made = H5I_INVALID_HID;

cleanup:
  st = h5_close(file, st, H5Dclose, &made);
  st = h5_close(file, st, H5Sclose, &space);
  st = h5_close(file, st, H5Pclose, &how);
  return st;
}

unroll_status h5_put(const h5_file *file, const char *object, hid_t type, const h5_shape *shape,
                     hid_t memory, const void *data)
{
  unroll_status st = UNROLL_OK;
  hid_t dataset = H5I_INVALID_HID;

  UNROLL_TRY(h5_create(file, object, type, shape, &dataset));
  if (shape->dim[0].n > 0) {
    UNROLL_TRY_H5(H5Dwrite(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
  }

cleanup:
  st = h5_close(file, st, H5Dclose, &dataset);
  return st;
}

/* SHA-256 of strings, each with its zero; NULL is an empty one. */
static unroll_status hash_strings(size_t n, const char *const *strings, char text[SHA256_TEXT])
{
  unroll_status st = UNROLL_OK;
  sha256 *s = NULL;

  UNROLL_TRY(sha256_new(&s));
  for (size_t i = 0; i < n; ++i) {
    const char *string = strings[i] == NULL ? "" : strings[i];
    sha256_add(s, string, strlen(string) + 1);
  }
  UNROLL_TRY(sha256_end(s, text));

cleanup:
  sha256_free(&s);
  return st;
}

unroll_status h5_put_strings(const h5_file *file, const char *object, const h5_shape *shape,
                             const char *const *strings)
{
  unroll_status st = UNROLL_OK;
  hid_t type = H5I_INVALID_HID;
  char hash[SHA256_TEXT];
  size_t n = 1;

  for (int i = 0; i < shape->rank; ++i) { n *= shape->dim[i].n; }
  UNROLL_TRY(h5_strings(file, object, &type));
  UNROLL_TRY(h5_put(file, object, type, shape, type, strings));
  UNROLL_TRY(hash_strings(n, strings, hash));
  UNROLL_TRY(h5_put_text(file, object, "sha256", hash));

cleanup:
  st = h5_close(file, st, H5Tclose, &type);
  return st;
}

unroll_status h5_put_index(const h5_file *file, const char *object, const char *long_name, size_t n)
{
  unroll_status st = UNROLL_OK;
  int32_t *values = NULL;
  const h5_shape shape = {1, {{n, object}}, false, "1", long_name};

  UNROLL_TRY(memory_new(n, sizeof *values, "a dimension scale", &values));
  for (size_t i = 0; i < n; ++i) { values[i] = (int32_t)i; }
  UNROLL_TRY(h5_put(file, object, H5T_STD_I32LE, &shape, H5T_NATIVE_INT32, values));

cleanup:
  memory_free(&values);
  return st;
}

/* -------------------------------------------------------------- reading */

unroll_status h5_has(const h5_file *file, const char *object, bool *has)
{
  unroll_status st = UNROLL_OK;
  char part[H5_PATH];
  htri_t there = 1;
  (void)snprintf(part, sizeof part, "%s", object);

  /* HDF5 asks for each link on the way by itself. */
  for (char *end = strchr(part + 1, '/'); there > 0 && end != NULL; end = strchr(end + 1, '/')) {
    *end = '\0';
    UNROLL_TRY_H5(there = H5Lexists(file->id, part, H5P_DEFAULT));
    *end = '/';
  }
  if (there > 0) { UNROLL_TRY_H5(there = H5Lexists(file->id, part, H5P_DEFAULT)); }
  *has = there > 0;

cleanup:
  return st;
}

unroll_status h5_has_attribute(const h5_file *file, const char *object, const char *name, bool *has)
{
  unroll_status st = UNROLL_OK;
  htri_t there = 0;

  UNROLL_TRY_H5(there = H5Aexists_by_name(file->id, object, name, H5P_DEFAULT));
  *has = there > 0;

cleanup:
  return st;
}

/* Open a scalar attribute; *type is its type in the file. */
static unroll_status open_attribute(const h5_file *file, const char *object, const char *name,
                                    hid_t *attribute, hid_t *type)
{
  unroll_status st = UNROLL_OK;
  hid_t space = H5I_INVALID_HID;
  bool has = false;

  UNROLL_TRY(h5_has_attribute(file, object, name, &has));
  if (!has) {
    st = unroll_fail(file->failure, "%s: %s has no attribute %s", file->path, object, name);
    goto cleanup;
  }
  UNROLL_TRY_H5(*attribute = H5Aopen_by_name(file->id, object, name, H5P_DEFAULT, H5P_DEFAULT));
  UNROLL_TRY_H5(*type = H5Aget_type(*attribute));
  UNROLL_TRY_H5(space = H5Aget_space(*attribute));
  if (H5Sget_simple_extent_npoints(space) != 1) {
    st = unroll_fail(file->failure, "%s: attribute %s of %s is not one value", file->path, name,
                     object);
  }

cleanup:
  st = h5_close(file, st, H5Sclose, &space);
  return st;
}

unroll_status h5_get_text(const h5_file *file, const char *object, const char *name, char **text)
{
  unroll_status st = UNROLL_OK;
  hid_t attribute = H5I_INVALID_HID;
  hid_t type = H5I_INVALID_HID;
  char *fixed = NULL;
  char *variable = NULL;

  UNROLL_TRY(open_attribute(file, object, name, &attribute, &type));
  if (H5Tget_class(type) != H5T_STRING) {
    st = unroll_fail(file->failure, "%s: attribute %s of %s is not a text", file->path, name,
                     object);
    goto cleanup;
  }
  if (H5Tis_variable_str(type) > 0) { /* written so by h5py */
    UNROLL_TRY_H5(H5Aread(attribute, type, &variable));
    UNROLL_TRY(memory_string(variable == NULL ? "" : variable, text));
  } else {
    size_t size = H5Tget_size(type);
    UNROLL_TRY(memory_new(size, 2, "a text of the run file", &fixed)); /* room for the zero */
    UNROLL_TRY_H5(H5Aread(attribute, type, fixed));
    UNROLL_TRY(memory_string(fixed, text));
  }
  escape_undo(*text);

cleanup:
  if (variable != NULL) { (void)H5free_memory(variable); }
  memory_free(&fixed);
  st = h5_close(file, st, H5Tclose, &type);
  st = h5_close(file, st, H5Aclose, &attribute);
  return st;
}

static unroll_status get_number(const h5_file *file, const char *object, const char *name,
                                hid_t memory, void *value)
{
  unroll_status st = UNROLL_OK;
  hid_t attribute = H5I_INVALID_HID;
  hid_t type = H5I_INVALID_HID;

  UNROLL_TRY(open_attribute(file, object, name, &attribute, &type));
  if (H5Tget_class(type) != H5T_INTEGER && H5Tget_class(type) != H5T_FLOAT) {
    st = unroll_fail(file->failure, "%s: attribute %s of %s is not a number", file->path, name,
                     object);
    goto cleanup;
  }
  UNROLL_TRY_H5(H5Aread(attribute, memory, value));

cleanup:
  st = h5_close(file, st, H5Tclose, &type);
  st = h5_close(file, st, H5Aclose, &attribute);
  return st;
}

unroll_status h5_get_count(const h5_file *file, const char *object, const char *name,
                           uint64_t *value)
{
  return get_number(file, object, name, H5T_NATIVE_UINT64, value);
}

unroll_status h5_get_real(const h5_file *file, const char *object, const char *name, double *value)
{
  return get_number(file, object, name, H5T_NATIVE_DOUBLE, value);
}

unroll_status h5_get_int(const h5_file *file, const char *object, const char *name, int *value)
{
  return get_number(file, object, name, H5T_NATIVE_INT, value);
}

unroll_status h5_open(const h5_file *file, const char *object, H5T_class_t kind, int rank,
                      hsize_t *n, hid_t *dataset)
{
  unroll_status st = UNROLL_OK;
  hid_t made = H5I_INVALID_HID;
  hid_t type = H5I_INVALID_HID;
  hid_t space = H5I_INVALID_HID;
  bool has = false;

  UNROLL_TRY(h5_has(file, object, &has));
  if (!has) {
    st = unroll_fail(file->failure, "%s: %s is missing", file->path, object);
    goto cleanup;
  }
  UNROLL_TRY_H5(made = H5Dopen2(file->id, object, H5P_DEFAULT));
  UNROLL_TRY_H5(type = H5Dget_type(made));
  UNROLL_TRY_H5(space = H5Dget_space(made));
  if (H5Tget_class(type) != kind) {
    st = unroll_fail(file->failure, "%s: the elements of %s are not %s", file->path, object,
                     kind == H5T_FLOAT     ? "floating-point numbers"
                     : kind == H5T_INTEGER ? "integers"
                                           : "strings");
    goto cleanup;
  }
  if (H5Sget_simple_extent_ndims(space) != rank) {
    st = unroll_fail(file->failure, "%s: %s has %d dimensions, expected %d", file->path, object,
                     H5Sget_simple_extent_ndims(space), rank);
    goto cleanup;
  }
  UNROLL_TRY_H5(H5Sget_simple_extent_dims(space, n, NULL));
  *dataset = made;
  made = H5I_INVALID_HID;

cleanup:
  st = h5_close(file, st, H5Sclose, &space);
  st = h5_close(file, st, H5Tclose, &type);
  st = h5_close(file, st, H5Dclose, &made);
  return st;
}

unroll_status h5_get(const h5_file *file, const char *object, H5T_class_t kind, int rank,
                     const hsize_t *n, hid_t memory, void *data)
{
  unroll_status st = UNROLL_OK;
  hid_t dataset = H5I_INVALID_HID;
  hsize_t found[H5_RANK] = {0};
  assert(rank >= 1 && rank <= H5_RANK);

  UNROLL_TRY(h5_open(file, object, kind, rank, found, &dataset));
  for (int i = 0; i < rank; ++i) {
    if (found[i] != n[i]) {
      st = unroll_fail(file->failure, "%s: dimension %d of %s is %llu, expected %llu", file->path,
                       i + 1, object, (unsigned long long)found[i], (unsigned long long)n[i]);
      goto cleanup;
    }
  }
  if (n[0] > 0) { UNROLL_TRY_H5(H5Dread(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data)); }

cleanup:
  st = h5_close(file, st, H5Dclose, &dataset);
  return st;
}

/* Are strings those that were written? A file of an older version does not say. */
static unroll_status check_strings(const h5_file *file, const char *object, size_t n,
                                   const char *const *strings)
{
  unroll_status st = UNROLL_OK;
  char *written = NULL, hash[SHA256_TEXT];
  bool has = false;

  UNROLL_TRY(h5_has_attribute(file, object, "sha256", &has));
  if (!has) { goto cleanup; }
  UNROLL_TRY(h5_get_text(file, object, "sha256", &written));
  UNROLL_TRY(hash_strings(n, strings, hash));
  if (strcmp(written, hash) != 0) {
    st = unroll_fail(
        file->failure,
        "%s: %s is damaged: its SHA-256 is not its attribute sha256, which whoever changes the "
        "strings on purpose has to remove",
        file->path, object);
  }

cleanup:
  memory_free(&written);
  return st;
}

unroll_status h5_get_strings(const h5_file *file, const char *object, int rank, const hsize_t *n,
                             char ***strings)
{
  unroll_status st = UNROLL_OK;
  hid_t type = H5I_INVALID_HID;
  hid_t space = H5I_INVALID_HID;
  char **raw = NULL; /* the strings are HDF5's */
  char **copy = NULL;
  size_t all = 1;

  for (int i = 0; i < rank; ++i) { all *= (size_t)n[i]; }
  UNROLL_TRY(memory_new(all, sizeof *raw, object, &raw));
  UNROLL_TRY(memory_new(all, sizeof *copy, object, &copy));
  UNROLL_TRY(h5_strings(file, object, &type));
  UNROLL_TRY_H5(space = H5Screate_simple(rank, n, NULL));
  UNROLL_TRY(h5_get(file, object, H5T_STRING, rank, n, type, raw));
  for (size_t i = 0; i < all; ++i) {
    UNROLL_TRY(memory_string(raw[i] == NULL ? "" : raw[i], &copy[i]));
  }
  UNROLL_TRY(check_strings(file, object, all, (const char *const *)copy));
  *strings = copy;
  copy = NULL;

cleanup:
  h5_free_strings(all, &copy);
  if (raw != NULL && space >= 0) { (void)H5Dvlen_reclaim(type, space, H5P_DEFAULT, raw); }
  memory_free(&raw);
  st = h5_close(file, st, H5Sclose, &space);
  st = h5_close(file, st, H5Tclose, &type);
  return st;
}

void h5_free_strings(size_t n, char ***strings)
{
  if (*strings == NULL) { return; }
  for (size_t i = 0; i < n; ++i) { memory_free(&(*strings)[i]); }
  memory_free(strings);
}
