#include "base/build.h"
#include "base/check.h"
#include "base/memory.h"
#include "base/options.h"
#include "data/lowercase.h"
#include "net/params.h"
#include "runfile/diagnostics.h"
#include "runfile/escape.h"
#include "runfile/h5.h"
#include "runfile/image.h"
#include "runfile/save.h"
#include "runfile/schema.h"
#include "runfile/tensor.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* [bytes] More than the file can need: its data, and generously what HDF5 puts around them. */
static size_t estimate(const run *r)
{
  const run_provenance *p = &r->provenance;
  size_t V = unroll_vocab_size(r->vocab);
  size_t bytes = 0;

  bytes += (1 + r->n_moments) * (r->params->n * sizeof(unroll_real) + r->params->n_tensors * 8192);
  bytes += 4 * sizeof(int32_t) *
           (V + 3 * r->params->shape.H + r->params->shape.E + r->config.batch); /* scales */
  bytes += r->state.n_hidden * sizeof(unroll_real);
  bytes += 16 * (r->n_train * schema_train.n + r->n_valid * schema_valid.n);
  bytes += diagnostics_estimate(&r->flows);
  for (size_t v = 0; v < V; ++v) {
    bytes += 128 + 2 * strlen(unroll_vocab_token_view(r->vocab, v));
  }
  for (size_t i = 0; i < p->n_files; ++i) { bytes += 512 + 4 * strlen(p->file_name[i]); }
  for (size_t i = 0; i < p->n_changed; ++i) { bytes += 128 + 4 * strlen(p->changed[i]); }
  bytes += p->command_line == NULL ? 0 : 4 * strlen(p->command_line);
  bytes += p->hosts == NULL ? 0 : 4 * strlen(p->hosts);
  return bytes;
}

/* ----------------------------------------------------------- attributes */

static const char *text_of(const char *text)
{
  return text == NULL ? "" : text;
}

/* Every row of a table as an attribute of an object. */
static unroll_status put_fields(const h5_file *file, const char *object, const schema_table *table,
                                const void *of)
{
  unroll_status st = UNROLL_OK;

  for (size_t i = 0; i < table->n; ++i) {
    const schema_field *f = &table->fields[i];
    const void *at = (const char *)of + f->offset;
    switch (f->type) {
    case SCHEMA_COUNT:
      UNROLL_TRY(h5_put_count(file, object, f->name, *(const uint64_t *)at));
      break;
    case SCHEMA_REAL:
      UNROLL_TRY(h5_put_real(file, object, f->name, *(const double *)at));
      break;
    case SCHEMA_FLAG:
      UNROLL_TRY(h5_put_int(file, object, f->name, *(const int *)at));
      break;
    case SCHEMA_TEXT:
      UNROLL_TRY(h5_put_text(file, object, f->name, text_of(*(char *const *)at)));
      break;
    }
  }

cleanup:
  return st;
}

static unroll_status put_root(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;
  const run_provenance *p = &r->provenance;
  const unroll_shape *shape = &r->params->shape;
  const int version = shape->E > 0 ? RUNFILE_VERSION : shape->cell == UNROLL_CELL_RNN ? 1 : 2;
  char title[160];

  (void)snprintf(title, sizeof title,
                 "recurrent %s model: vocabulary %zu, hidden units %zu, layers %zu",
                 unroll_level_text(r->config.level), shape->V, shape->H, shape->L);
  UNROLL_TRY(h5_put_root(file, RUNFILE_FORMAT, version, title, text_of(p->started),
                         text_of(p->command_line)));
  UNROLL_TRY(h5_put_text(file, "/", "default", "metrics"));

cleanup:
  return st;
}

static unroll_status put_config(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;
  const option_table *table = &config_table;

  UNROLL_TRY(h5_put_group(file, "/config"));
  for (size_t i = 0; i < table->n_rows; ++i) {
    const option *row = &table->rows[i];
    const void *at = (const char *)&r->config + row->offset;
    char name[SCHEMA_NAME];
    char text[UNROLL_CONFIG_TEXT];

    schema_option_name(row->name, name);
    switch (row->type) {
    case OPTION_FLAG:
      UNROLL_TRY(h5_put_int(file, "/config", name, *(const bool *)at));
      break;
    case OPTION_COUNT:
      UNROLL_TRY(h5_put_count(file, "/config", name, *(const uint64_t *)at));
      break;
    case OPTION_REAL:
      UNROLL_TRY(h5_put_real(file, "/config", name, *(const double *)at));
      break;
    case OPTION_CHOICE:
    case OPTION_TEXT:
    case OPTION_EVERY:
      options_format(row, &r->config, sizeof text, text);
      UNROLL_TRY(h5_put_text(file, "/config", name, text));
      break;
    }
  }
  UNROLL_TRY(h5_put_text(file, "/config", "command_line", text_of(r->provenance.command_line)));

cleanup:
  return st;
}

/* -------------------------------------------------------------- datasets */

/* Scales that are nothing but numbers from 0 on. */
static const struct {
  const char *name, *long_name;
} indices[] = {
    {"vocab", "index of a token"},
    {"hidden", "hidden unit"},
    {"gate", "unit of a gate, gate after gate"},
    {"hidden_in", "hidden unit of the time step before"},
    {"hidden_below", "hidden unit of the layer below"},
    {"embedding", "element of an embedding"},
    {"layer", "layer, from the input on"},
    {"sequence", "sequence of the global batch"},
};

/* The scale of a dimension in a group, made when it is first needed; its path goes to `path`. */
static unroll_status put_index(const h5_file *file, const char *group, const char *name, size_t n,
                               char path[H5_PATH])
{
  unroll_status st = UNROLL_OK;
  const char *long_name = NULL;
  bool has = false;

  (void)snprintf(path, H5_PATH, "%s/%s", group, name);
  UNROLL_TRY(h5_has(file, path, &has));
  if (has) { goto cleanup; }
  for (size_t i = 0; i < sizeof indices / sizeof indices[0]; ++i) {
    if (strcmp(indices[i].name, name) == 0) { long_name = indices[i].long_name; }
  }
  assert(long_name != NULL);
  UNROLL_TRY(h5_put_index(file, path, long_name, n));

cleanup:
  return st;
}

/* A list of texts that may be no UTF-8. */
static unroll_status put_escaped(const h5_file *file, const char *object, const h5_shape *shape,
                                 char *const *texts)
{
  unroll_status st = UNROLL_OK;
  const size_t n = shape->dim[0].n;
  char **escaped = NULL;

  UNROLL_TRY(memory_new(n, sizeof *escaped, "texts of the run file", &escaped));
  for (size_t i = 0; i < n; ++i) { UNROLL_TRY(escape_new(texts[i], &escaped[i])); }
  UNROLL_TRY(h5_put_strings(file, object, shape, (const char *const *)escaped));

cleanup:
  for (size_t i = 0; i < n && escaped != NULL; ++i) { memory_free(&escaped[i]); }
  memory_free(&escaped);
  return st;
}

static unroll_status put_provenance(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;
  const char *object = "/provenance";
  const run_provenance *p = &r->provenance;
  const h5_dim files = {p->n_files, "/provenance/file"};
  unsigned v[3] = {0};
  char version[32];
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  int openmp = 0;
#ifdef _OPENMP
  openmp = _OPENMP;
#endif

  UNROLL_TRY_H5(H5get_libversion(&v[0], &v[1], &v[2]));
  (void)snprintf(version, sizeof version, "%u.%u.%u", v[0], v[1], v[2]);
  (void)MPI_Get_library_version(mpi, &length); /* legal before MPI_Init; "" if it fails */

  UNROLL_TRY(h5_put_group(file, object));
  UNROLL_TRY(h5_put_text(file, object, "version", UNROLL_VERSION));
  UNROLL_TRY(h5_put_text(file, object, "revision", build_revision));
  UNROLL_TRY(h5_put_text(file, object, "compiler", UNROLL_COMPILER));
  UNROLL_TRY(h5_put_text(file, object, "flags", UNROLL_FLAGS));
  UNROLL_TRY(h5_put_text(file, object, "hdf5", version));
  UNROLL_TRY(h5_put_text(file, object, "mpi", mpi));
  UNROLL_TRY(h5_put_int(file, object, "openmp", openmp));
  UNROLL_TRY(h5_put_text(file, object, "unicode", LOWERCASE_UNICODE));
  UNROLL_TRY(put_fields(file, object, &schema_provenance, p));
  if (p->n_changed > 0) {
    const h5_dim changed = {p->n_changed, "/provenance/changed"};
    UNROLL_TRY(put_escaped(
        file, "/provenance/changed",
        &(h5_shape){1, {changed}, false, "1", "options that --change has changed, and when"},
        p->changed));
  }
  if (p->n_files == 0) { goto cleanup; }

  UNROLL_TRY(put_escaped(
      file, "/provenance/file",
      &(h5_shape){1, {files}, false, "1", "corpus file, training then validation"}, p->file_name));
  UNROLL_TRY(h5_put(file, "/provenance/bytes", H5T_STD_I64LE,
                    &(h5_shape){1, {files}, false, "byte", "length of the file"}, H5T_NATIVE_UINT64,
                    p->file_bytes));
  UNROLL_TRY(h5_put_strings(file, "/provenance/sha256",
                            &(h5_shape){1, {files}, false, "1", "SHA-256 of the file, hexadecimal"},
                            (const char *const *)p->file_sha256));

cleanup:
  return st;
}

static unroll_status put_vocab(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;
  size_t V = unroll_vocab_size(r->vocab);
  char scale[H5_PATH];
  const h5_dim vocab = {V, scale};
  const char **token = NULL;
  int64_t *code = NULL;
  uint64_t *count = NULL;

  UNROLL_TRY(memory_new(V, sizeof *token, "tokens", &token));
  UNROLL_TRY(memory_new(V, sizeof *code, "tokens", &code));
  UNROLL_TRY(memory_new(V, sizeof *count, "tokens", &count));
  for (size_t v = 0; v < V; ++v) {
    token[v] = unroll_vocab_token_view(r->vocab, v);
    code[v] = unroll_vocab_code(r->vocab, v);
    count[v] = unroll_vocab_count(r->vocab, v);
  }

  UNROLL_TRY(h5_put_group(file, "/vocab"));
  UNROLL_TRY(put_index(file, "/vocab", "vocab", V, scale));
  UNROLL_TRY(
      h5_put_strings(file, "/vocab/token", &(h5_shape){1, {vocab}, false, "1", "token"}, token));
  UNROLL_TRY(
      h5_put(file, "/vocab/code", H5T_STD_I64LE,
             &(h5_shape){1, {vocab}, false, "1", "code point or byte of the token, -1 for none"},
             H5T_NATIVE_INT64, code));
  UNROLL_TRY(h5_put(file, "/vocab/count", H5T_STD_I64LE,
                    &(h5_shape){1, {vocab}, false, "1", "occurrences in the training text"},
                    H5T_NATIVE_UINT64, count));

cleanup:
  memory_free(&count);
  memory_free(&code);
  memory_free(&token);
  return st;
}

/* An array in the layout of the parameters as it is in the file. */
typedef struct tensor_folder {
  const char *top;    /* the scales lie here, where all tensors see them */
  const char *folder; /* in it, or the same; tensors are in `folder`/layer0/W_xh */
  const char *what;   /* of a parameter the values are, "" for itself: begins the long names */
} tensor_folder;

/* One tensor of a flat array. */
static unroll_status put_tensor(const h5_file *file, const tensor_folder *to,
                                const unroll_tensor *t, const unroll_real *values,
                                unroll_real *block)
{
  unroll_status st = UNROLL_OK;
  char object[H5_PATH];
  char long_name[2 * H5_PATH];
  char row_scale[H5_PATH];
  char col_scale[H5_PATH];
  h5_shape shape = {.rank = t->col_dim == NULL ? 1 : 2,
                    .dim = {{t->rows, row_scale}, {t->cols, col_scale}},
                    .units = "1",
                    .long_name = long_name};
  hid_t dataset = H5I_INVALID_HID;

  (void)snprintf(object, sizeof object, "%s/%s/%s", to->folder, t->group, t->name);
  (void)snprintf(long_name, sizeof long_name, "%s%s", to->what, t->long_name);
  UNROLL_TRY(put_index(file, to->top, t->row_dim, t->rows, row_scale));
  if (t->col_dim != NULL) { UNROLL_TRY(put_index(file, to->top, t->col_dim, t->cols, col_scale)); }
  UNROLL_TRY(h5_create(file, object, H5_DISK_REAL, &shape, &dataset));
  UNROLL_TRY(tensor_write(file, object, dataset, t, values, block));

cleanup:
  st = h5_close(file, st, H5Dclose, &dataset);
  return st;
}

/* All tensors of an array: groups input, layer0, layer1, ..., output in the folder, which is there. */
static unroll_status put_tensors(const h5_file *file, const tensor_folder *to,
                                 const unroll_params *p, const unroll_real *values)
{
  unroll_status st = UNROLL_OK;
  unroll_real *block = NULL;

  UNROLL_TRY(tensor_block_new(p, &block));
  /* From the last to the first: people expect layer0 before the output. */
  for (size_t i = p->n_tensors; i-- > 0;) {
    char group[H5_PATH];
    (void)snprintf(group, sizeof group, "%s/%s", to->folder, p->tensors[i].group);
    bool has = false;
    UNROLL_TRY(h5_has(file, group, &has));
    if (!has) { UNROLL_TRY(h5_put_group(file, group)); }
    UNROLL_TRY(put_tensor(file, to, &p->tensors[i], values, block));
  }

cleanup:
  memory_free(&block);
  return st;
}

/* Moments of the optimizer, and the average once it has begun. */
static unroll_status put_moments(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;

  for (size_t k = 0; k < r->n_moments; ++k) {
    const schema_moment *m = schema_moment_at(&r->config, k);
    const bool own = strcmp(m->folder, m->top) == 0;
    if (own && r->state.averaged == 0) { continue; }
    if (k == 0 || own) { UNROLL_TRY(h5_put_group(file, m->top)); }
    if (!own) { UNROLL_TRY(h5_put_group(file, m->folder)); }
    UNROLL_TRY(put_tensors(file, &(tensor_folder){m->top, m->folder, m->of_tensor}, r->params,
                           r->moments[k]));
  }

cleanup:
  return st;
}

/* A table of n rows of `size` bytes as one dataset per column, with the first column as the scale. For viewers that know
 * NeXus it is data to be drawn: its loss over that scale. */
static unroll_status put_rows(const h5_file *file, const char *group, const schema_table *table,
                              size_t n, size_t size, const void *rows)
{
  unroll_status st = UNROLL_OK;
  char scale[H5_PATH];
  uint64_t *column = NULL; /* or doubles: 8 bytes either way */
  _Static_assert(sizeof(uint64_t) == sizeof(double), "columns are of 8-byte elements");

  (void)snprintf(scale, sizeof scale, "%s/%s", group, table->fields[0].name);
  UNROLL_TRY(memory_new(n, sizeof *column, "a column of the metrics", &column));
  UNROLL_TRY(h5_put_group(file, group));
  UNROLL_TRY(h5_put_text(file, group, "NX_class", "NXdata"));
  UNROLL_TRY(h5_put_text(file, group, "signal", "loss"));
  UNROLL_TRY(h5_put_text(file, group, "axes", table->fields[0].name));
  for (size_t k = 0; k < table->n; ++k) {
    const schema_field *f = &table->fields[k];
    bool real = f->type == SCHEMA_REAL;
    char object[H5_PATH];
    (void)snprintf(object, sizeof object, "%s/%s", group, f->name);
    for (size_t i = 0; i < n; ++i) {
      memcpy(&column[i], (const char *)rows + i * size + f->offset, sizeof column[i]);
    }
    UNROLL_TRY(h5_put(file, object, real ? H5T_IEEE_F64LE : H5T_STD_I64LE,
                      &(h5_shape){1, {{n, scale}}, true, f->units, f->long_name},
                      real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_UINT64, column));
  }

cleanup:
  memory_free(&column);
  return st;
}

static unroll_status put_metrics(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;
  const char *object = "/metrics";

  UNROLL_TRY(h5_put_group(file, object));
  UNROLL_TRY(h5_put_text(file, object, "NX_class", "NXentry"));
  UNROLL_TRY(h5_put_text(file, object, "default", "train"));
  UNROLL_TRY(
      put_rows(file, "/metrics/train", &schema_train, r->n_train, sizeof *r->train, r->train));
  UNROLL_TRY(
      put_rows(file, "/metrics/valid", &schema_valid, r->n_valid, sizeof *r->valid, r->valid));

cleanup:
  return st;
}

static unroll_status put_state(const h5_file *file, const run *r)
{
  unroll_status st = UNROLL_OK;
  const size_t L = r->params->shape.L, H = r->params->shape.H, states = params_states(r->params);
  const size_t B = r->state.n_hidden / (states * L * H);
  char layer[H5_PATH];
  char sequence[H5_PATH];
  char hidden[H5_PATH];
  assert(r->state.n_hidden == states * L * B * H);

  UNROLL_TRY(h5_put_group(file, "/state"));
  UNROLL_TRY(put_fields(file, "/state", &schema_state, &r->state));
  if (B == 0) { goto cleanup; }
  UNROLL_TRY(put_index(file, "/state", "layer", L, layer));
  UNROLL_TRY(put_index(file, "/state", "sequence", B, sequence));
  UNROLL_TRY(put_index(file, "/state", "hidden", H, hidden));
  for (size_t k = 0; k < states; ++k) {
    const h5_shape shape = {3,
                            {{L, layer}, {B, sequence}, {H, hidden}},
                            false,
                            "1",
                            k == 0 ? "hidden states carried to the next window"
                                   : "memory cells carried to the next window"};
    char object[H5_PATH];
    (void)snprintf(object, sizeof object, "/state/%s", params_state_name(k));
    UNROLL_TRY(
        h5_put(file, object, H5_DISK_REAL, &shape, H5_REAL, r->state.hidden + k * L * B * H));
  }

cleanup:
  return st;
}

/* ----------------------------------------------------------------- file */

unroll_status runfile_prepare(const char *path, const run *r, char **prepared)
{
  assert(r->vocab != NULL && r->params != NULL &&
         r->params->shape.V == unroll_vocab_size(r->vocab));
  assert(r->config.hidden == r->params->shape.H && r->config.layers == r->params->shape.L);
  assert(r->n_moments == run_moments(&r->config));
  unroll_status st = UNROLL_OK;
  h5_file opened = {H5I_INVALID_HID, path, UNROLL_ERR_HDF5};
  const h5_file *file = &opened;
  image m = {0};
  h5_printing before = {0};

  h5_quiet(&before);
  UNROLL_TRY(image_create(&opened, &m, estimate(r)));
  UNROLL_TRY(put_root(file, r));
  UNROLL_TRY(put_config(file, r));
  UNROLL_TRY(put_provenance(file, r));
  UNROLL_TRY(put_vocab(file, r));
  UNROLL_TRY(h5_put_group(file, "/weights"));
  UNROLL_TRY(put_tensors(file, &(tensor_folder){"/weights", "/weights", ""}, r->params,
                         r->params->values));
  UNROLL_TRY(put_moments(file, r));
  UNROLL_TRY(put_metrics(file, r));
  UNROLL_TRY(diagnostics_put(file, &r->flows));
  UNROLL_TRY(put_state(file, r));
  UNROLL_TRY(image_prepare(file, &m, prepared));

cleanup:
  st = h5_close(file, st, H5Fclose, &opened.id);
  image_free(&m);
  h5_loud(&before);
  if (st != UNROLL_OK) { save_drop(prepared); }
  return st;
}

unroll_status runfile_write(const char *path, const run *r)
{
  unroll_status st = UNROLL_OK;
  char *prepared = NULL;

  UNROLL_TRY(runfile_prepare(path, r, &prepared));
  UNROLL_TRY(save_commit(path, &prepared));

cleanup:
  return st;
}
