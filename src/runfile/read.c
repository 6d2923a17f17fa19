#include "base/check.h"
#include "base/memory.h"
#include "base/options.h"
#include "net/params.h"
#include "runfile/diagnostics.h"
#include "runfile/escape.h"
#include "runfile/guard.h"
#include "runfile/h5.h"
#include "runfile/schema.h"
#include "runfile/tensor.h"

#include <stdio.h>
#include <string.h>

/* Every part is checked against the others before it is used: a file may come from anywhere. */

/* Put the path before a line that a lower layer recorded: it cannot know the file. */
static unroll_status name_file(const h5_file *file, const char *object)
{
  char line[2048];
  (void)snprintf(line, sizeof line, "%s", unroll_message());
  return unroll_fail(file->failure, "%s: %s: %s", file->path, object, line);
}

/* ----------------------------------------------------------- attributes */

static unroll_status get_fields(const h5_file *file, const char *object, const schema_table *table,
                                void *of)
{
  unroll_status st = UNROLL_OK;

  for (size_t i = 0; i < table->n; ++i) {
    const schema_field *f = &table->fields[i];
    void *at = (char *)of + f->offset;
    bool has = true;
    if (f->added) { UNROLL_TRY(h5_has_attribute(file, object, f->name, &has)); }
    if (!has) { continue; }
    switch (f->type) {
    case SCHEMA_COUNT:
      UNROLL_TRY(h5_get_count(file, object, f->name, at));
      break;
    case SCHEMA_REAL:
      UNROLL_TRY(h5_get_real(file, object, f->name, at));
      break;
    case SCHEMA_FLAG:
      UNROLL_TRY(h5_get_int(file, object, f->name, at));
      break;
    case SCHEMA_TEXT:
      UNROLL_TRY(h5_get_text(file, object, f->name, at));
      break;
    }
  }

cleanup:
  return st;
}

/* Is this an HDF5 file at all, one of ours, and not newer than this program? */
static unroll_status check_format(const h5_file *file)
{
  unroll_status st = UNROLL_OK;
  char *format = NULL;
  int version = 0;

  bool ours = false;

  UNROLL_TRY(h5_has_attribute(file, "/", "format", &ours));
  ours = ours && h5_get_text(file, "/", "format", &format) == UNROLL_OK &&
         strcmp(format, RUNFILE_FORMAT) == 0;
  if (!ours) {
    st =
        unroll_fail(file->failure, "%s: is an HDF5 file, but not a run file of unroll", file->path);
    goto cleanup;
  }
  UNROLL_TRY(h5_get_int(file, "/", "format_version", &version));
  if (version < 1 || version > RUNFILE_VERSION) {
    st = unroll_fail(file->failure,
                     "%s: has format version %d, this program reads 1 to %d: a %s unroll is needed",
                     file->path, version, RUNFILE_VERSION, version < 1 ? "different" : "newer");
    goto cleanup;
  }

cleanup:
  memory_free(&format);
  return st;
}

/* The text of one option's attribute, as the command line would have it. */
static unroll_status option_text(const h5_file *file, const option *row, const char *name,
                                 unroll_config *scratch, char **text)
{
  unroll_status st = UNROLL_OK;
  void *at = (char *)scratch + row->offset;
  int flag = 0;
  bool is_text =
      row->type == OPTION_CHOICE || row->type == OPTION_TEXT || row->type == OPTION_EVERY;

  if (is_text) {
    UNROLL_TRY(h5_get_text(file, "/config", name, text));
    goto cleanup;
  }
  if (row->type == OPTION_FLAG) {
    UNROLL_TRY(h5_get_int(file, "/config", name, &flag));
    *(bool *)at = flag != 0;
  } else if (row->type == OPTION_COUNT) {
    UNROLL_TRY(h5_get_count(file, "/config", name, at));
  } else {
    UNROLL_TRY(h5_get_real(file, "/config", name, at));
  }
  UNROLL_TRY(memory_new(UNROLL_CONFIG_TEXT, 1, "an option", text));
  options_format(row, scratch, UNROLL_CONFIG_TEXT, *text);

cleanup:
  return st;
}

/* The options, each through the range check of the command line. One that the file lacks keeps its
 * default: it is younger than the file. */
static unroll_status get_config(const h5_file *file, unroll_config *config)
{
  unroll_status st = UNROLL_OK;
  const option_table *table = &config_table;
  unroll_config scratch;
  char *text = NULL;

  unroll_config_init(config);
  unroll_config_init(&scratch);
  for (size_t i = 0; i < table->n_rows; ++i) {
    const option *row = &table->rows[i];
    char name[SCHEMA_NAME];
    schema_option_name(row->name, name);
    bool has = false;
    UNROLL_TRY(h5_has_attribute(file, "/config", name, &has));
    if (!has) { continue; }
    UNROLL_TRY(option_text(file, row, name, &scratch, &text));
    if (options_set(table, row->name, text, config, NULL) != UNROLL_OK) {
      st = name_file(file, "/config");
      goto cleanup;
    }
    memory_free(&text);
  }
  config_fit(config, UINT64_MAX);

cleanup:
  memory_free(&text);
  return st;
}

/* -------------------------------------------------------------- datasets */

/* Length of a one-dimensional dataset. */
static unroll_status get_length(const h5_file *file, const char *object, H5T_class_t kind,
                                size_t *n)
{
  unroll_status st = UNROLL_OK;
  hid_t dataset = H5I_INVALID_HID;
  hsize_t length[1] = {0};

  UNROLL_TRY(h5_open(file, object, kind, 1, length, &dataset));
  *n = length[0];

cleanup:
  st = h5_close(file, st, H5Dclose, &dataset);
  return st;
}

static unroll_status get_provenance(const h5_file *file, run_provenance *p)
{
  unroll_status st = UNROLL_OK;
  bool has = false;

  UNROLL_TRY(h5_get_text(file, "/config", "command_line", &p->command_line));
  p->valid_unknown_tokens =
      UINT64_MAX; /* where an older file does not say it, it may be all of them */
  UNROLL_TRY(get_fields(file, "/provenance", &schema_provenance, p));
  if (p->valid_unknown_tokens == UINT64_MAX) { p->valid_unknown_tokens = p->unknown_tokens; }
  UNROLL_TRY(h5_has(file, "/provenance/changed", &has));
  if (has) {
    UNROLL_TRY(get_length(file, "/provenance/changed", H5T_STRING, &p->n_changed));
    UNROLL_TRY(
        h5_get_strings(file, "/provenance/changed", 1, (hsize_t[]){p->n_changed}, &p->changed));
    for (size_t i = 0; i < p->n_changed; ++i) { escape_undo(p->changed[i]); }
  }
  UNROLL_TRY(h5_has(file, "/provenance/file", &has));
  if (!has) { goto cleanup; }
  UNROLL_TRY(get_length(file, "/provenance/file", H5T_STRING, &p->n_files));
  UNROLL_TRY(h5_get_strings(file, "/provenance/file", 1, (hsize_t[]){p->n_files}, &p->file_name));
  for (size_t i = 0; i < p->n_files; ++i) { escape_undo(p->file_name[i]); }
  UNROLL_TRY(
      h5_get_strings(file, "/provenance/sha256", 1, (hsize_t[]){p->n_files}, &p->file_sha256));
  UNROLL_TRY(memory_new(p->n_files, sizeof *p->file_bytes, "sizes of files", &p->file_bytes));
  UNROLL_TRY(h5_get(file, "/provenance/bytes", H5T_INTEGER, 1, (hsize_t[]){p->n_files},
                    H5T_NATIVE_UINT64, p->file_bytes));

cleanup:
  return st;
}

static unroll_status get_vocab(const h5_file *file, const unroll_config *config, unroll_vocab **out)
{
  unroll_status st = UNROLL_OK;
  const unroll_text_rules rules = {config->level, config->lowercase, config->letters};
  size_t V = 0;
  char **token = NULL;
  uint64_t *count = NULL;

  UNROLL_TRY(get_length(file, "/vocab/token", H5T_STRING, &V));
  if (V == 0 || V > INT32_MAX) {
    st = unroll_fail(file->failure, "%s: /vocab/token holds %zu tokens; 1 to %d are legal",
                     file->path, V, INT32_MAX);
    goto cleanup;
  }
  UNROLL_TRY(h5_get_strings(file, "/vocab/token", 1, (hsize_t[]){V}, &token));
  UNROLL_TRY(memory_new(V, sizeof *count, "counts of tokens", &count));
  UNROLL_TRY(
      h5_get(file, "/vocab/count", H5T_INTEGER, 1, (hsize_t[]){V}, H5T_NATIVE_UINT64, count));
  st = unroll_vocab_new(rules, V, (const char *const *)token, count, out);
  if (st == UNROLL_ERR_INPUT) { st = name_file(file, "/vocab"); }

cleanup:
  memory_free(&count);
  h5_free_strings(V, &token);
  return st;
}

/* Open a tensor's dataset if it has the shape of a model with these V and H. */
static unroll_status open_tensor(const h5_file *file, const char *object, int rank, size_t rows,
                                 size_t cols, const char *shape, hid_t *dataset)
{
  unroll_status st = UNROLL_OK;
  hsize_t n[2] = {0, 1};

  UNROLL_TRY(h5_open(file, object, H5T_FLOAT, rank, n, dataset));
  if (n[0] != rows || n[1] != cols) {
    st = unroll_fail(
        file->failure,
        "%s: %s has %llu x %llu elements, but vocabulary and config make it %s = %zu x %zu",
        file->path, object, (unsigned long long)n[0], (unsigned long long)n[1], shape, rows, cols);
  }

cleanup:
  return st;
}

static unroll_status get_tensor(const h5_file *file, const char *folder, const unroll_tensor *t,
                                unroll_real *block, unroll_real *values)
{
  unroll_status st = UNROLL_OK;
  char object[H5_PATH];
  char shape[64];
  int rank = t->col_dim == NULL ? 1 : 2;
  hid_t dataset = H5I_INVALID_HID;

  (void)snprintf(object, sizeof object, "%s/%s/%s", folder, t->group, t->name);
  (void)snprintf(shape, sizeof shape, "%s x %s", t->row_dim, rank == 1 ? "1" : t->col_dim);
  UNROLL_TRY(open_tensor(file, object, rank, t->rows, t->cols, shape, &dataset));
  UNROLL_TRY(tensor_read(file, object, dataset, t, values, block));

cleanup:
  st = h5_close(file, st, H5Dclose, &dataset);
  return st;
}

static unroll_status get_tensors(const h5_file *file, const char *folder, const unroll_params *p,
                                 unroll_real *values)
{
  unroll_status st = UNROLL_OK;
  unroll_real *block = NULL;

  UNROLL_TRY(tensor_block_new(p, &block));
  for (size_t i = 0; i < p->n_tensors; ++i) {
    UNROLL_TRY(get_tensor(file, folder, &p->tensors[i], block, values));
  }

cleanup:
  memory_free(&block);
  return st;
}

static unroll_status get_params(const h5_file *file, run *r)
{
  unroll_status st = UNROLL_OK;
  size_t V = unroll_vocab_size(r->vocab);
  size_t H = r->config.hidden, E = r->config.embedding;
  const unroll_shape shape = params_shape(&r->config, V);
  const bool averages = r->config.average != UNROLL_AVERAGE_OFF;
  hid_t dataset = H5I_INVALID_HID;

  if (!averages && r->state.averaged > 0) {
    st = unroll_fail(file->failure, "%s: /state has averaged, but /config average off; legal is 0",
                     file->path);
    goto cleanup;
  }
  if (shape.tied && E != H) {
    st = unroll_fail(file->failure,
                     "%s: /config has tied, and embedding %zu; legal is that of hidden, %zu",
                     file->path, E, H);
    goto cleanup;
  }

  /* Before memory is asked for: a wrong size in the config could ask for all of it. */
  UNROLL_TRY(open_tensor(file, "/weights/output/W_qh", 2, V, H, "vocab x hidden", &dataset));
  if (params_has_W_xe(&shape)) {
    UNROLL_TRY(h5_close(file, st, H5Dclose, &dataset));
    UNROLL_TRY(open_tensor(file, "/weights/input/W_xe", 2, V, E, "vocab x embedding", &dataset));
  }
  UNROLL_TRY(unroll_params_new(&shape, &r->params));
  UNROLL_TRY(get_tensors(file, "/weights", r->params, r->params->values));

  r->n_moments = run_moments(&r->config);
  for (size_t k = 0; k < r->n_moments; ++k) {
    const bool average = averages && k == run_average(&r->config);
    UNROLL_TRY(
        memory_new(r->params->n, sizeof(unroll_real), "the optimizer's moments", &r->moments[k]));
    if (average && r->state.averaged == 0) { continue; } /* it has not begun */
    UNROLL_TRY(
        get_tensors(file, schema_moment_at(&r->config, k)->folder, r->params, r->moments[k]));
  }

cleanup:
  st = h5_close(file, st, H5Dclose, &dataset);
  return st;
}

/* The opposite of put_rows in write.c. *rows is allocated, of *n rows of `size` bytes. */
static unroll_status get_rows(const h5_file *file, const char *group, const schema_table *table,
                              size_t size, size_t *n, void *rows)
{
  unroll_status st = UNROLL_OK;
  char object[H5_PATH];
  size_t length = 0;
  uint64_t *column = NULL; /* or doubles */
  char *made = NULL;

  (void)snprintf(object, sizeof object, "%s/%s", group, table->fields[0].name);
  UNROLL_TRY(get_length(file, object, H5T_INTEGER, &length));
  UNROLL_TRY(memory_new(length, sizeof *column, "a column of the metrics", &column));
  UNROLL_TRY(memory_new(length, size, "the metrics", &made));
  for (size_t k = 0; k < table->n; ++k) {
    const schema_field *f = &table->fields[k];
    bool real = f->type == SCHEMA_REAL;
    (void)snprintf(object, sizeof object, "%s/%s", group, f->name);
    UNROLL_TRY(h5_get(file, object, real ? H5T_FLOAT : H5T_INTEGER, 1, (hsize_t[]){length},
                      real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_UINT64, column));
    for (size_t i = 0; i < length; ++i) {
      memcpy(made + i * size + f->offset, &column[i], sizeof column[i]);
    }
  }
  memcpy(rows, &made, sizeof made);
  *n = length;
  made = NULL;

cleanup:
  memory_free(&made);
  memory_free(&column);
  return st;
}

static unroll_status get_carried(const h5_file *file, run *r)
{
  unroll_status st = UNROLL_OK;
  run_state *s = &r->state;
  const unroll_params *p = r->params;
  const hsize_t shape[3] = {p->shape.L, r->config.batch, p->shape.H};
  const size_t one = p->shape.L * r->config.batch * p->shape.H;
  bool has = false;

  UNROLL_TRY(h5_has(file, "/state/h", &has));
  if (!has) { goto cleanup; }
  UNROLL_TRY(memory_new(params_states(p), one * sizeof *s->hidden, "hidden states", &s->hidden));
  for (size_t k = 0; k < params_states(p); ++k) {
    char object[H5_PATH];
    (void)snprintf(object, sizeof object, "/state/%s", params_state_name(k));
    UNROLL_TRY(h5_get(file, object, H5T_FLOAT, 3, shape, H5_REAL, s->hidden + k * one));
  }
  s->n_hidden = params_states(p) * one;

cleanup:
  return st;
}

/* ----------------------------------------------------------------- file */

/* All but where the run comes from, and how far it is. */
static unroll_status get_rest(const h5_file *file, run *r)
{
  unroll_status st = UNROLL_OK;

  UNROLL_TRY(get_vocab(file, &r->config, &r->vocab));
  UNROLL_TRY(get_params(file, r));
  UNROLL_TRY(
      get_rows(file, "/metrics/train", &schema_train, sizeof *r->train, &r->n_train, &r->train));
  r->max_train = r->n_train;
  UNROLL_TRY(
      get_rows(file, "/metrics/valid", &schema_valid, sizeof *r->valid, &r->n_valid, &r->valid));
  r->max_valid = r->n_valid;
  UNROLL_TRY(diagnostics_get(file, r->params, &r->flows));
  UNROLL_TRY(get_carried(file, r));

cleanup:
  return st;
}

/* What is asked of a file, and where it goes. */
typedef struct request {
  bool all;
  run *r;
} request;

static unroll_status read_opened(const h5_file *file, void *context)
{
  unroll_status st = UNROLL_OK;
  request *q = context;
  run *r = NULL;

  UNROLL_TRY(run_new(&r));
  UNROLL_TRY(check_format(file));
  UNROLL_TRY(get_config(file, &r->config));
  UNROLL_TRY(get_provenance(file, &r->provenance));
  UNROLL_TRY(get_fields(file, "/state", &schema_state, &r->state));
  if (q->all) { UNROLL_TRY(get_rest(file, r)); }
  q->r = r;
  r = NULL;

cleanup:
  run_free(&r);
  return st;
}

unroll_status runfile_read(const char *path, run **out)
{
  request q = {.all = true};
  guarded what;
  unroll_status st = guard_open(path, read_opened, &q, &what);
  if (st == UNROLL_OK) { *out = q.r; }
  return st;
}

unroll_status runfile_read_origin(const char *path, run **out)
{
  request q = {.all = false};
  guarded what;
  unroll_status st = guard_open(path, read_opened, &q, &what);
  if (st == UNROLL_OK) { *out = q.r; }
  return st;
}
