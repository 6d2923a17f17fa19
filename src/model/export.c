/* Weights as safetensors, metrics as comma-separated values. */
#include "model/export.h"

#include "base/build.h"
#include "base/check.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/model.h"
#include "net/params.h"
#include "runfile/save.h"
#include "runfile/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- metadata */

/* A value as its JSON text; the value is taken over. */
static json_t *as_text(json_t *value)
{
  char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
  json_t *out = text == NULL ? NULL : json_string(text);
  free(text);
  json_decref(value);
  return out;
}

unroll_status export_metadata(const unroll_model *model, json_t **out)
{
  const run *r = model->run;
  json_t *object = json_object(), *token = json_array(), *code = json_array();
  bool bad = false;

  for (size_t v = 0; v < unroll_vocab_size(r->vocab); ++v) {
    json_append(token, json_text(unroll_vocab_token_view(r->vocab, v)), &bad);
    json_append(code, json_integer((json_int_t)unroll_vocab_code(r->vocab, v)), &bad);
  }
  json_put(object, "format", json_string("pt"), &bad);
  json_put(object, "source", json_string("unroll " UNROLL_VERSION), &bad);
  json_put(object, "step", as_text(json_count(r->state.step)), &bad);
  json_put(object, "config", as_text(schema_pack_config(&r->config, &bad)), &bad);
  json_put(object, "token", as_text(token), &bad);
  json_put(object, "code", as_text(code), &bad);
  if (bad) {
    json_decref(object);
    return unroll_fail(UNROLL_ERR_MEMORY, "no memory for the metadata of an export");
  }
  *out = object;
  return UNROLL_OK;
}

/* ------------------------------------------------------------- safetensors */

/*
 *   | 8 bytes: length n of the header | header: JSON, n bytes, padded with spaces | values, tensor after tensor |
 *
 * The header has an entry for each tensor: {"dtype", "shape", "data_offsets": [begin, end)}, from the first value on.
 * Format: https://github.com/huggingface/safetensors#format
 */
#define LENGTH_BYTES ((size_t)8)
#define HEADER_ALIGN ((size_t)8)

/* A tensor of the file: values of `from`, from row `begin` on; the others, or all without `from`, are zero. */
struct entry {
  char name[40];
  const unroll_tensor *from;
  size_t rows, cols; /* cols 0: a vector */
  size_t begin;
};

#define MAX_ENTRIES_OF_LAYER 4
#define ENTRIES_OF_REST      3

static size_t values_of(const struct entry *e)
{
  return e->rows * (e->cols > 0 ? e->cols : 1);
}

/* The whole of a tensor, under torch's name. */
static struct entry whole(const unroll_tensor *t)
{
  return (struct entry){.from = t, .rows = t->rows, .cols = t->col_dim == NULL ? 0 : t->cols};
}

static size_t list_layer(const unroll_params *p, size_t l, struct entry *e)
{
  const unroll_tensor *W_hh = params_tensor(p, l, PARAMS_W_HH),
                      *b_h = params_tensor(p, l, PARAMS_B_H),
                      *b_hn = params_tensor(p, l, PARAMS_B_HN);
  size_t n = 0;

  e[n] = whole(params_tensor(p, l, PARAMS_W_XH));
  (void)snprintf(e[n++].name, sizeof e->name, "rnn.weight_ih_l%zu", l);
  if (W_hh != NULL) {
    e[n] = whole(W_hh);
    (void)snprintf(e[n++].name, sizeof e->name, "rnn.weight_hh_l%zu", l);
  }
  e[n] = whole(b_h);
  (void)snprintf(e[n++].name, sizeof e->name, "rnn.bias_ih_l%zu", l);
  if (W_hh !=
      NULL) { /* torch's second bias, of which a gru alone has a part: that of n, its last block */
    e[n] = (struct entry){.from = b_hn, .rows = b_h->rows, .begin = b_h->rows - p->shape.H};
    (void)snprintf(e[n++].name, sizeof e->name, "rnn.bias_hh_l%zu", l);
  }
  return n;
}

static size_t list_entries(const unroll_params *p, struct entry *e)
{
  size_t n = 0;
  if (p->shape.E > 0) {
    e[n] = whole(params_input_table(p));
    (void)snprintf(e[n++].name, sizeof e->name, "embedding.weight");
  }
  for (size_t l = 0; l < p->shape.L; ++l) { n += list_layer(p, l, e + n); }
  e[n] = whole(params_output(p, PARAMS_W_QH));
  (void)snprintf(e[n++].name, sizeof e->name, "out.weight");
  e[n] = whole(params_output(p, PARAMS_B_Q));
  (void)snprintf(e[n++].name, sizeof e->name, "out.bias");
  return n;
}

/* The header, to be freed with free; *values are the values behind it. */
static unroll_status make_header(const unroll_model *model, size_t n, const struct entry *entries,
                                 char **header, size_t *values)
{
  unroll_status st = UNROLL_OK;
  json_t *object = json_object(), *metadata = NULL;
  const size_t size = sizeof(unroll_real);
  size_t end = 0;
  bool bad = false;

  UNROLL_TRY(export_metadata(model, &metadata));
  json_put(object, "__metadata__", json_incref(metadata), &bad);
  for (size_t i = 0; i < n; ++i) {
    const struct entry *e = &entries[i];
    const size_t begin = end;
    json_t *shape = json_array();
    json_append(shape, json_count(e->rows), &bad);
    if (e->cols > 0) { json_append(shape, json_count(e->cols), &bad); }
    end += values_of(e);
    json_put(object, e->name,
             json_pack("{s:s, s:o, s:[I, I]}", "dtype", size == 4 ? "F32" : "F64", "shape", shape,
                       "data_offsets", (json_int_t)(begin * size), (json_int_t)(end * size)),
             &bad);
  }
  *values = end;
  *header = bad ? NULL : json_dumps(object, JSON_COMPACT);
  if (*header == NULL) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "no memory for the header of an export");
  }

cleanup:
  json_decref(metadata);
  json_decref(object);
  return st;
}

static void copy_entry(const unroll_params *p, const struct entry *e, unroll_real *out)
{
  const unroll_tensor *t = e->from;
  if (t == NULL) { return; }
  for (size_t r = 0; r < t->rows; ++r) {
    for (size_t c = 0; c < t->cols; ++c) {
      out[(e->begin + r) * t->cols + c] = p->values[unroll_tensor_index(t, r, c)];
    }
  }
}

unroll_status unroll_export_safetensors(const unroll_model *model, const char *path)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *p = model->run->params;
  struct entry *entries = NULL;
  char *header = NULL;
  unsigned char *bytes = NULL;
  size_t values = 0;

  UNROLL_TRY(memory_new(MAX_ENTRIES_OF_LAYER * p->shape.L + ENTRIES_OF_REST, sizeof *entries,
                        "a table of tensors", &entries));
  const size_t n = list_entries(p, entries);
  UNROLL_TRY(make_header(model, n, entries, &header, &values));
  const size_t used = strlen(header);
  const uint64_t length = (used + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
  const size_t size = LENGTH_BYTES + (size_t)length + values * sizeof(unroll_real);
  UNROLL_TRY(memory_new(size, 1, "an export", &bytes));
  memcpy(bytes, &length, LENGTH_BYTES);
  memset(bytes + LENGTH_BYTES, ' ', (size_t)length);
  memcpy(bytes + LENGTH_BYTES, header, used);
  unroll_real *at = (unroll_real *)(void *)(bytes + LENGTH_BYTES + length);
  for (size_t i = 0; i < n; at += values_of(&entries[i]), ++i) { copy_entry(p, &entries[i], at); }
  UNROLL_TRY(save_bytes(path, bytes, size));

cleanup:
  memory_free(&bytes);
  free(header);
  memory_free(&entries);
  return st;
}

/* --------------------------------------------------------------------- csv */

/* The column of that name, or NULL: schema_find wants it to be there. */
static const schema_field *find_column(const schema_table *table, const char *name)
{
  for (size_t i = 0; i < table->n; ++i) {
    if (strcmp(table->fields[i].name, name) == 0) { return &table->fields[i]; }
  }
  return NULL;
}

/* Names of the columns: those of the training, then what the validation has beside them; NULL behind the last. */
static const char *column_name(size_t i)
{
  if (i < schema_train.n) { return schema_train.fields[i].name; }
  i -= schema_train.n;
  for (size_t k = 0; k < schema_valid.n; ++k) {
    const char *name = schema_valid.fields[k].name;
    if (find_column(&schema_train, name) == NULL && i-- == 0) { return name; }
  }
  return NULL;
}

static void print_row(FILE *f, const char *kind, const schema_table *table, const void *row)
{
  const char *name = NULL;

  (void)fprintf(f, "%s", kind);
  for (size_t i = 0; (name = column_name(i)) != NULL; ++i) {
    const schema_field *field = find_column(table, name);
    const char *at = (const char *)row + (field == NULL ? 0 : field->offset);
    (void)fputc(',', f);
    if (field != NULL && field->type == SCHEMA_COUNT) {
      (void)fprintf(f, "%" PRIu64, *(const uint64_t *)(const void *)at);
    } else if (field != NULL) {
      (void)fprintf(f, "%.17g", *(const double *)(const void *)at);
    }
  }
  (void)fputc('\n', f);
}

unroll_status unroll_export_csv(const unroll_model *model, const char *path)
{
  unroll_status st = UNROLL_OK;
  const run *r = model->run;
  char *text = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&text, &size);

  if (f == NULL) { return unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for the table", path); }
  (void)fprintf(f, "kind");
  for (size_t i = 0; column_name(i) != NULL; ++i) { (void)fprintf(f, ",%s", column_name(i)); }
  (void)fputc('\n', f);
  for (size_t i = 0, k = 0; i < r->n_train || k < r->n_valid;) { /* of equal steps training first */
    if (k == r->n_valid || (i < r->n_train && r->train[i].step <= r->valid[k].step)) {
      print_row(f, "train", &schema_train, &r->train[i++]);
    } else {
      print_row(f, "valid", &schema_valid, &r->valid[k++]);
    }
  }
  const bool bad = ferror(f) != 0;
  if (fclose(f) != 0 || bad) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for the table", path);
    goto cleanup;
  }
  UNROLL_TRY(save_bytes(path, text, size));

cleanup:
  free(text);
  return st;
}
