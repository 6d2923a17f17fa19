/*
 * Edits of a valid run file, as h5py or a villain would make them: the first byte chooses the file and what else than
 * reading is tried, then each edit is a byte for what, one for the object and what it takes besides. All is done with HDF5, so that the file is sound as
 * HDF5 sees it, and gets its digest anew: what is tried is all that the reader itself must hold against a file. (Bytes that
 * HDF5 does not survive are kept from this process, src/runfile/guard.h; campaign/mutate.sh tries that.)
 */
#include "base/memory.h"
#include "example_run.h"
#include "fuzz.h"
#include "runfile/digest.h"
#include "support.h"

#include <hdf5.h>
#include <hdf5_hl.h>

#define MOST_OBJECTS 256
#define N_BASES      3

typedef struct base {
  unsigned char *bytes;
  size_t n; /* without its digest */
} base;

static base bases[N_BASES];
static char *objects[MOST_OBJECTS];
static size_t n_objects;
static char path[300], copy[300];

/* ------------------------------------------------------------------- bases */

static herr_t add_object(hid_t file, const char *name, const H5O_info_t *info, void *context)
{
  (void)file;
  (void)info;
  (void)context;
  for (size_t i = 0; i < n_objects; ++i) {
    if (strcmp(objects[i], name) == 0) { return 0; }
  }
  if (n_objects < MOST_OBJECTS) {
    objects[n_objects] = malloc(strlen(name) + 1);
    strcpy(objects[n_objects++], name);
  }
  return 0;
}

static void make_base(base *b, example e)
{
  run *r = example_run(e);
  MUST(runfile_write(path, r) == UNROLL_OK);
  run_free(&r);
  FILE *f = fopen(path, "rb");
  MUST(f != NULL && fseek(f, 0, SEEK_END) == 0);
  b->n = (size_t)ftell(f) - DIGEST_TAIL;
  b->bytes = malloc(b->n);
  rewind(f);
  MUST(fread(b->bytes, 1, b->n, f) == b->n && fclose(f) == 0);
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  MUST(file >= 0 && H5Ovisit(file, H5_INDEX_NAME, H5_ITER_INC, add_object, NULL) >= 0);
  MUST(H5Fclose(file) >= 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
  char folder[256];
  (void)argc;
  (void)argv;
  test_folder(folder);
  (void)snprintf(path, sizeof path, "%s/run.h5", folder);
  (void)snprintf(copy, sizeof copy, "%s/copy.h5", folder);
  make_base(&bases[0], (example){UNROLL_LEVEL_CHAR, 11, 5, 2, 3, UNROLL_OPTIMIZER_ADAM, 4});
  make_base(&bases[1], (example){UNROLL_LEVEL_WORD, 9, 4, 1, 2, UNROLL_OPTIMIZER_MOMENTUM, 2});
  make_base(&bases[2], (example){UNROLL_LEVEL_BYTE, 256, 3, 1, 2, UNROLL_OPTIMIZER_SGD, 0});
  MUST(H5Eset_auto2(H5E_DEFAULT, NULL, NULL) >= 0);
  return 0;
}

/* ------------------------------------------------------------------- edits */

static hid_t take_type(input *in)
{
  const hid_t types[] = {H5T_STD_I32LE,  H5T_STD_U64LE,   H5T_IEEE_F32LE, H5T_IEEE_F64LE,
                         H5T_STD_I8LE,   H5T_C_S1,        H5T_STD_B16LE,  H5T_STD_U64BE,
                         H5T_IEEE_F32BE, H5T_STD_REF_OBJ, H5T_STD_U8LE};
  return types[take_byte(in) % (sizeof types / sizeof types[0])];
}

static double take_real(input *in)
{
  const uint64_t bits = take_number(in, 8);
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Up to 64 bytes, as a string. */
static const char *take_text(input *in)
{
  static char text[65];
  const size_t n = take_byte(in) % sizeof text;
  for (size_t i = 0; i < n; ++i) { text[i] = (char)take_byte(in); }
  text[n] = '\0';
  return text;
}

/* A number where it is small, else large ones. */
static hsize_t take_length(input *in)
{
  static const hsize_t lengths[] = {65536, UINT32_MAX, (hsize_t)1 << 40, (hsize_t)1 << 62};
  const unsigned byte = take_byte(in);
  return byte < 252 ? byte : lengths[byte - 252];
}

static bool attribute_name(hid_t object, input *in, size_t size, char *name)
{
  H5O_info_t info;
  if (H5Oget_info(object, &info) < 0 || info.num_attrs == 0) { return false; }
  return H5Aget_name_by_idx(object, ".", H5_INDEX_NAME, H5_ITER_INC, take_byte(in) % info.num_attrs,
                            name, size, H5P_DEFAULT) > 0;
}

static void edit_attribute(hid_t object, unsigned what, input *in)
{
  char name[256];
  if (!attribute_name(object, in, sizeof name, name)) { return; }
  (void)H5Adelete(object, name);
  if (what == 0) { return; }
  if (what == 1) {
    const long long value = (long long)take_number(in, 8);
    (void)H5LTset_attribute_long_long(object, ".", name, &value, 1);
  } else if (what == 2) {
    const double value = take_real(in);
    (void)H5LTset_attribute_double(object, ".", name, &value, 1);
  } else if (what == 3) {
    (void)H5LTset_attribute_string(object, ".", name, take_text(in));
  } else {
    const int values[16] = {(int)take_number(in, 4)};
    (void)H5LTset_attribute_int(object, ".", name, values, take_byte(in) % 17);
  }
}

/* One element of a dataset; HDF5 allocates all of them for it, so of no large one. */
static void edit_value(hid_t object, input *in)
{
  const hid_t space = H5Dget_space(object), type = H5Dget_type(object);
  const hid_t one = H5Screate(H5S_SCALAR);
  hsize_t n[H5S_MAX_RANK], at[H5S_MAX_RANK];
  const int rank = H5Sget_simple_extent_dims(space, n, NULL);
  bool fits = rank > 0 && H5Sget_simple_extent_npoints(space) <= 65536;
  for (int i = 0; i < rank; ++i) {
    fits = fits && n[i] > 0;
    at[i] = fits ? take_byte(in) % n[i] : 0;
  }
  if (fits && H5Sselect_elements(space, H5S_SELECT_SET, 1, at) >= 0) {
    if (H5Tget_class(type) == H5T_STRING) {
      const char *text = take_text(in);
      const hid_t strings = H5Tcopy(type);
      if (H5Tis_variable_str(type) > 0) {
        (void)H5Dwrite(object, strings, one, space, H5P_DEFAULT, &text);
      }
      (void)H5Tclose(strings);
    } else {
      const double value = take_real(in);
      (void)H5Dwrite(object, H5T_NATIVE_DOUBLE, one, space, H5P_DEFAULT, &value);
    }
  }
  (void)H5Sclose(one);
  (void)H5Tclose(type);
  (void)H5Sclose(space);
}

/* Another dataset of that name. */
static void replace(hid_t file, const char *name, input *in)
{
  const hid_t how = H5Pcreate(H5P_DATASET_CREATE);
  hid_t type = H5Tcopy(take_type(in));
  const int rank = (int)(take_byte(in) % 5);
  hsize_t n[4] = {0}, chunk[4] = {1, 1, 1, 1};
  const unsigned layout = take_byte(in);

  for (int i = 0; i < rank; ++i) { n[i] = take_length(in); }
  if (H5Tget_class(type) == H5T_STRING) {
    (void)H5Tset_size(type, layout / 8 % 2 == 0 ? H5T_VARIABLE : 3);
  }
  (void)H5Pset_alloc_time(how, H5D_ALLOC_TIME_LATE);
  if (layout % 4 == 1 && rank > 0) { (void)H5Pset_chunk(how, rank, chunk); }
  if (layout % 4 == 2 && rank > 0) {
    (void)H5Pset_chunk(how, rank, chunk);
    (void)H5Pset_deflate(how, 1);
  }
  if (layout % 4 == 3) { (void)H5Pset_layout(how, H5D_COMPACT); }
  (void)H5Ldelete(file, name, H5P_DEFAULT);
  const hid_t space = rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, n, NULL);
  const hid_t made = space < 0 ? H5I_INVALID_HID
                               : H5Dcreate2(file, name, type, space, H5P_DEFAULT, how, H5P_DEFAULT);
  if (made >= 0) { (void)H5Dclose(made); }
  if (space >= 0) { (void)H5Sclose(space); }
  (void)H5Tclose(type);
  (void)H5Pclose(how);
}

static void edit(hid_t file, input *in)
{
  const unsigned what = take_byte(in) % 12;
  const char *name = objects[take_byte(in) % n_objects];
  if (what <= 7) {
    const hid_t object = H5Oopen(file, name, H5P_DEFAULT);
    if (object < 0) { return; }
    if (what <= 4) {
      edit_attribute(object, what, in);
    } else if (H5Iget_type(object) == H5I_DATASET) {
      edit_value(object, in);
    }
    (void)H5Oclose(object);
  } else if (what == 8) {
    replace(file, name, in);
  } else if (what == 9) {
    (void)H5Ldelete(file, name, H5P_DEFAULT);
  } else if (what == 10) {
    const char *other = objects[take_byte(in) % n_objects];
    (void)H5Ldelete(file, name, H5P_DEFAULT);
    if (take_byte(in) % 2 == 0) {
      (void)H5Lcreate_soft(other, file, name, H5P_DEFAULT, H5P_DEFAULT);
    } else {
      (void)H5Lcreate_hard(file, other, file, name, H5P_DEFAULT, H5P_DEFAULT);
    }
  } else {
    const hid_t group = H5Gcreate2(file, take_text(in), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group >= 0) { (void)H5Gclose(group); }
  }
}

/* The edited file at `path`. */
static void make_file(unsigned number, input *in)
{
  const base *b = &bases[number % N_BASES];
  const hid_t file = H5LTopen_file_image(b->bytes, b->n, H5LT_FILE_IMAGE_OPEN_RW);
  char tail[DIGEST_TAIL];
  MUST(file >= 0);
  while (in->left > 0) { edit(file, in); }
  MUST(H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0);
  const ssize_t n = H5Fget_file_image(file, NULL, 0);
  MUST(n > 0);
  char *bytes = malloc((size_t)n + DIGEST_TAIL);
  MUST(H5Fget_file_image(file, bytes, (size_t)n) == n && H5Fclose(file) >= 0);
  MUST(digest_put(bytes, (size_t)n, tail) == UNROLL_OK);
  memcpy(bytes + n, tail, DIGEST_TAIL);
  test_write_file(path, bytes, (size_t)n + DIGEST_TAIL);
  free(bytes);
}

/* What is not a result is a line that names the file. */
static bool is_read(unroll_status st)
{
  if (st == UNROLL_OK) { return true; }
  MUST(st == UNROLL_ERR_INPUT);
  must_be_told();
  MUST(strncmp(unroll_message(), path, strlen(path)) == 0);
  return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  input in = {data, size < 512 ? size : 512};
  run *r = NULL, *again = NULL, *origin = NULL;
  runfile_proof proof;
  char before[65], after[65];
  const unsigned number = take_byte(&in);

  make_file(number, &in);
  const int64_t alive = memory_live_blocks();
  if (number / N_BASES % 8 == 0) {
    (void)is_read(runfile_verify(path, &proof));
    if (is_read(runfile_read_origin(path, &origin))) { run_free(&origin); }
  }
  if (!is_read(runfile_read(path, &r))) { /* told */
  } else if (number / N_BASES % 8 == 1) { /* what is read can be written, and read again */
    MUST(runfile_hash_weights(r->params, before) == UNROLL_OK);
    MUST(runfile_write(copy, r) == UNROLL_OK);
    MUST(runfile_read(copy, &again) == UNROLL_OK);
    MUST(runfile_hash_weights(again->params, after) == UNROLL_OK);
    MUST(strcmp(before, after) == 0 && again->n_train == r->n_train);
    run_free(&again);
  }
  run_free(&r);
  MUST(memory_live_blocks() == alive);
  MUST(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0);
  return 0;
}
