/* The model as an ONNX graph. Operators: https://onnx.ai/onnx/operators */
#include "model/export.h"

#include "base/check.h"

#ifdef UNROLL_ONNX

#include "base/build.h"
#include "base/json.h"
#include "base/memory.h"
#include "model/model.h"
#include "net/params.h"
#include "runfile/save.h"

#include <onnx.pb-c.h>
#include <stdio.h>
#include <string.h>

/* The operators used are those of this version, and the file is of the version that came with it. */
#define OPSET 14
#define IR    7

/* Numbers of the standard. */
enum { TYPE_FLOAT = 1, TYPE_INT64 = 7, TYPE_DOUBLE = 11 };
enum { ATTRIBUTE_INT = 2, ATTRIBUTE_GRAPH = 5, ATTRIBUTE_STRINGS = 8 };
#define TYPE_REAL (sizeof(unroll_real) == 4 ? TYPE_FLOAT : TYPE_DOUBLE)

#define WHAT      "an ONNX graph"
#define NAME_SIZE 48

/* ---------------------------------------------------------------- messages */

/* A message owns what is below it; all of it is freed at once, however far it was built. */
static void release(void *context, void *block)
{
  (void)context;
  memory_free(&block);
}

/* A new message, `out`, as the field of another one. Expects `st` and a label `cleanup`, as all that follows. */
#define PUT(field, init, out)                                                                      \
  do {                                                                                             \
    UNROLL_TRY(memory_new(1, sizeof *(out), WHAT, &(out)));                                        \
    init(out);                                                                                     \
    (field) = (out);                                                                               \
  } while (0)

/* The same at the end of a repeated field. */
#define ADD(message, field, init, out)                                                             \
  do {                                                                                             \
    UNROLL_TRY(grow((message)->n_##field, &(message)->field));                                     \
    UNROLL_TRY(memory_new(1, sizeof *(out), WHAT, &(out)));                                        \
    init(out);                                                                                     \
    (message)->field[(message)->n_##field++] = (out);                                              \
  } while (0)

/* Room for one more pointer in an array of n. */
static unroll_status grow(size_t n, void *array)
{
  return memory_resize(n, n + 1, sizeof(void *), WHAT, array);
}

/* ------------------------------------------------------------------- nodes */

/* Names between commas, of which some may be empty: inputs that are left out. */
static unroll_status add_names(const char *names, size_t *n, char ***array)
{
  unroll_status st = UNROLL_OK;

  for (const char *at = names;; ++at) {
    const size_t length = strcspn(at, ",");
    UNROLL_TRY(grow(*n, array));
    UNROLL_TRY(memory_new(length + 1, 1, WHAT, &(*array)[*n]));
    memcpy((*array)[*n], at, length);
    *n += 1;
    at += length;
    if (*at == '\0') { break; }
  }

cleanup:
  return st;
}

/* outputs = op(inputs); *out may be given attributes. */
static unroll_status add_node(Onnx__GraphProto *g, const char *op, const char *inputs,
                              const char *outputs, Onnx__NodeProto **out)
{
  unroll_status st = UNROLL_OK;
  Onnx__NodeProto *node = NULL;

  ADD(g, node, onnx__node_proto__init, node);
  UNROLL_TRY(memory_string(op, &node->op_type));
  UNROLL_TRY(add_names(inputs, &node->n_input, &node->input));
  UNROLL_TRY(add_names(outputs, &node->n_output, &node->output));
  UNROLL_TRY(memory_string(node->output[0], &node->name));
  if (out != NULL) { *out = node; }

cleanup:
  return st;
}

static unroll_status add_attribute(Onnx__NodeProto *node, const char *name, int type,
                                   Onnx__AttributeProto **out)
{
  unroll_status st = UNROLL_OK;
  Onnx__AttributeProto *attribute = NULL;

  ADD(node, attribute, onnx__attribute_proto__init, attribute);
  UNROLL_TRY(memory_string(name, &attribute->name));
  attribute->has_type = true;
  attribute->type = type;
  *out = attribute;

cleanup:
  return st;
}

static unroll_status set_int(Onnx__NodeProto *node, const char *name, int64_t value)
{
  unroll_status st = UNROLL_OK;
  Onnx__AttributeProto *attribute = NULL;

  UNROLL_TRY(add_attribute(node, name, ATTRIBUTE_INT, &attribute));
  attribute->has_i = true;
  attribute->i = value;

cleanup:
  return st;
}

/* A list of one text. */
static unroll_status set_text(Onnx__NodeProto *node, const char *name, const char *value)
{
  unroll_status st = UNROLL_OK;
  Onnx__AttributeProto *attribute = NULL;

  UNROLL_TRY(add_attribute(node, name, ATTRIBUTE_STRINGS, &attribute));
  UNROLL_TRY(memory_new(1, sizeof *attribute->strings, WHAT, &attribute->strings));
  attribute->n_strings = 1;
  attribute->strings[0].len = strlen(value);
  UNROLL_TRY(memory_string(value, (char **)&attribute->strings[0].data));

cleanup:
  return st;
}

/* --------------------------------------------------------- values, weights */

/* A dimension: its size, or its name. */
typedef struct dim {
  size_t n;
  const char *name;
} dim;

static unroll_status add_value(size_t *n_values, Onnx__ValueInfoProto ***values, const char *name,
                               int type, size_t rank, const dim *dims)
{
  unroll_status st = UNROLL_OK;
  Onnx__ValueInfoProto *value = NULL;
  Onnx__TypeProto *kind = NULL;
  Onnx__TensorTypeProto *tensor = NULL;
  Onnx__TensorShapeProto *shape = NULL;

  UNROLL_TRY(grow(*n_values, values));
  PUT((*values)[*n_values], onnx__value_info_proto__init, value);
  *n_values += 1;
  UNROLL_TRY(memory_string(name, &value->name));
  PUT(value->type, onnx__type_proto__init, kind);
  PUT(kind->tensor_type, onnx__tensor_type_proto__init, tensor);
  tensor->has_elem_type = true;
  tensor->elem_type = type;
  PUT(tensor->shape, onnx__tensor_shape_proto__init, shape);
  for (size_t i = 0; i < rank; ++i) {
    Onnx__DimensionProto *d = NULL;
    ADD(shape, dim, onnx__dimension_proto__init, d);
    if (dims[i].name != NULL) {
      UNROLL_TRY(memory_string(dims[i].name, &d->dim_param));
    } else {
      d->has_dim_value = true;
      d->dim_value = (int64_t)dims[i].n;
    }
  }

cleanup:
  return st;
}

/* A constant of zeros, to be filled in through *data. */
static unroll_status add_constant(Onnx__GraphProto *g, const char *name, int type, size_t rank,
                                  const size_t *dims, void *data)
{
  unroll_status st = UNROLL_OK;
  Onnx__TensorProto *tensor = NULL;
  size_t n = type == TYPE_FLOAT ? sizeof(float) : 8;

  ADD(g, initializer, onnx__tensor_proto__init, tensor);
  UNROLL_TRY(memory_string(name, &tensor->name));
  tensor->has_data_type = true;
  tensor->data_type = type;
  UNROLL_TRY(memory_new(rank, sizeof *tensor->dims, WHAT, &tensor->dims));
  tensor->n_dims = rank;
  for (size_t i = 0; i < rank; ++i) {
    tensor->dims[i] = (int64_t)dims[i];
    n *= dims[i];
  }
  UNROLL_TRY(memory_new(n, 1, WHAT, &tensor->raw_data.data));
  tensor->has_raw_data = true;
  tensor->raw_data.len = n;
  memcpy(data, &tensor->raw_data.data, sizeof(void *));

cleanup:
  return st;
}

static unroll_status add_index(Onnx__GraphProto *g, const char *name, size_t value)
{
  unroll_status st = UNROLL_OK;
  int64_t *data = NULL;

  UNROLL_TRY(add_constant(g, name, TYPE_INT64, 1, (size_t[]){1}, &data));
  data[0] = (int64_t)value;

cleanup:
  return st;
}

/* A tensor in the file's shape; block k is block order[k] of the file. `turned`: its transpose. */
static void copy_tensor(const unroll_params *p, const unroll_tensor *t, const size_t *order,
                        bool turned, unroll_real *out)
{
  const size_t H = t->rows / t->blocks;
  for (size_t r = 0; r < t->rows; ++r) {
    const size_t row = order[r / H] * H + r % H;
    for (size_t c = 0; c < t->cols; ++c) {
      out[turned ? c * t->rows + r : r * t->cols + c] = p->values[unroll_tensor_index(t, row, c)];
    }
  }
}

/* -------------------------------------------------------------- recurrence */

static const size_t in_order[CELL_BLOCKS] = {0, 1, 2, 3};

/* An operator of ONNX: the blocks of unroll's file in its order. */
typedef struct operation {
  const char *name;
  size_t order[CELL_BLOCKS];
} operation;

static const operation operations[CELL_COUNT] = {
    [CELL_tanh] = {"RNN", {0}},
    [CELL_relu] = {"RNN", {0}},
    [CELL_lstm] = {"LSTM", {0, 3, 1, 2}}, /* i f g o -> i o f c */
    [CELL_gru] = {"GRU", {1, 0, 2}},      /* r z n -> z r h */
};

/* W{l} (1, G H, in), R{l} (1, G H, H), b{l} (1, 2 G H): the biases of the input, then those of the state. */
static unroll_status add_weights(Onnx__GraphProto *g, const unroll_params *p, size_t l,
                                 const size_t *order)
{
  unroll_status st = UNROLL_OK;
  const unroll_tensor *W_xh = params_tensor(p, l, PARAMS_W_XH),
                      *W_hh = params_tensor(p, l, PARAMS_W_HH),
                      *b_h = params_tensor(p, l, PARAMS_B_H),
                      *b_hn = params_tensor(p, l, PARAMS_B_HN);
  char name[NAME_SIZE];
  unroll_real *data = NULL;

  (void)snprintf(name, sizeof name, "W%zu", l);
  UNROLL_TRY(add_constant(g, name, TYPE_REAL, 3, (size_t[]){1, W_xh->rows, W_xh->cols}, &data));
  copy_tensor(p, W_xh, order, false, data);
  (void)snprintf(name, sizeof name, "R%zu", l);
  UNROLL_TRY(add_constant(g, name, TYPE_REAL, 3, (size_t[]){1, W_hh->rows, W_hh->cols}, &data));
  copy_tensor(p, W_hh, order, false, data);
  (void)snprintf(name, sizeof name, "b%zu", l);
  UNROLL_TRY(add_constant(g, name, TYPE_REAL, 2, (size_t[]){1, 2 * b_h->rows}, &data));
  copy_tensor(p, b_h, order, false, data);
  if (b_hn != NULL) { copy_tensor(p, b_hn, in_order, false, data + 2 * b_h->rows - b_hn->rows); }

cleanup:
  return st;
}

/* A node of layer l, whose number stands for each # of the names. */
static unroll_status add_layer_node(Onnx__GraphProto *g, size_t l, const char *op,
                                    const char *inputs, const char *outputs, Onnx__NodeProto **out)
{
  const char *from[2] = {inputs, outputs};
  char names[2][3 * NAME_SIZE];

  for (size_t i = 0; i < 2; ++i) {
    size_t used = 0;
    for (const char *at = from[i]; *at != '\0'; ++at) {
      const size_t left = sizeof names[i] - used;
      used += (size_t)(*at == '#' ? snprintf(names[i] + used, left, "%zu", l)
                                  : snprintf(names[i] + used, left, "%c", *at));
    }
  }
  return add_node(g, op, names[0], names[1], out);
}

/* x{l} (T, B, in), h{l} (1, B, H) -> x{l+1} (T, B, H), h_next{l}; for an lstm also c{l} -> c_next{l}. */
static unroll_status add_recurrent(Onnx__GraphProto *g, const unroll_params *p, size_t l)
{
  unroll_status st = UNROLL_OK;
  const cell *c = params_cell(p);
  const operation *op = &operations[c->id];
  Onnx__NodeProto *node = NULL;
  char in[NAME_SIZE], out[NAME_SIZE];

  UNROLL_TRY(add_weights(g, p, l, op->order));
  UNROLL_TRY(add_layer_node(g, l, op->name, c->memory ? "x#,W#,R#,b#,,h#,c#" : "x#,W#,R#,b#,,h#",
                            c->memory ? "y#,h_next#,c_next#" : "y#,h_next#", &node));
  UNROLL_TRY(set_int(node, "hidden_size", (int64_t)p->shape.H));
  if (c->id == CELL_gru) { UNROLL_TRY(set_int(node, "linear_before_reset", 1)); }
  if (c->id == CELL_relu) { UNROLL_TRY(set_text(node, "activations", "Relu")); }
  (void)snprintf(in, sizeof in, "y%zu,axis1", l); /* the direction, of which there is one */
  (void)snprintf(out, sizeof out, "x%zu", l + 1);
  UNROLL_TRY(add_node(g, "Squeeze", in, out, NULL));

cleanup:
  return st;
}

/* One step of a minGRU: (1 - z) h + z n = h + z (n - h), as the state and as the output; all (B, H). */
static unroll_status fill_step(Onnx__GraphProto *g, size_t H)
{
  unroll_status st = UNROLL_OK;
  const dim dims[] = {{0, "B"}, {H, NULL}};

  UNROLL_TRY(memory_string("mingru", &g->name));
  UNROLL_TRY(add_value(&g->n_input, &g->input, "before", TYPE_REAL, 2, dims));
  UNROLL_TRY(add_value(&g->n_input, &g->input, "z", TYPE_REAL, 2, dims));
  UNROLL_TRY(add_value(&g->n_input, &g->input, "n", TYPE_REAL, 2, dims));
  UNROLL_TRY(add_node(g, "Sub", "n,before", "change", NULL));
  UNROLL_TRY(add_node(g, "Mul", "z,change", "part", NULL));
  UNROLL_TRY(add_node(g, "Add", "before,part", "after", NULL));
  UNROLL_TRY(add_node(g, "Identity", "after", "y", NULL));
  UNROLL_TRY(add_value(&g->n_output, &g->output, "after", TYPE_REAL, 2, dims));
  UNROLL_TRY(add_value(&g->n_output, &g->output, "y", TYPE_REAL, 2, dims));

cleanup:
  return st;
}

/* The same as add_recurrent for a minGRU, of which h{l} is (1, B, H) too: z and n of all steps, then a scan over them. */
static unroll_status add_mingru(Onnx__GraphProto *g, const unroll_params *p, size_t l)
{
  unroll_status st = UNROLL_OK;
  const unroll_tensor *W_xh = params_tensor(p, l, PARAMS_W_XH),
                      *b_h = params_tensor(p, l, PARAMS_B_H);
  Onnx__NodeProto *node = NULL;
  Onnx__AttributeProto *body = NULL;
  Onnx__GraphProto *step = NULL;
  unroll_real *data = NULL;
  char names[2][NAME_SIZE];

  (void)snprintf(names[0], sizeof names[0], "W%zu", l);
  UNROLL_TRY(add_constant(g, names[0], TYPE_REAL, 2, (size_t[]){W_xh->cols, W_xh->rows}, &data));
  copy_tensor(p, W_xh, in_order, true, data);
  (void)snprintf(names[0], sizeof names[0], "b%zu", l);
  UNROLL_TRY(add_constant(g, names[0], TYPE_REAL, 1, (size_t[]){b_h->rows}, &data));
  copy_tensor(p, b_h, in_order, false, data);

  UNROLL_TRY(add_layer_node(g, l, "MatMul", "x#,W#", "product#", NULL));
  UNROLL_TRY(add_layer_node(g, l, "Add", "product#,b#", "a#", NULL));
  UNROLL_TRY(add_layer_node(g, l, "Split", "a#", "a_z#,n#", &node));
  UNROLL_TRY(set_int(node, "axis", 2));
  UNROLL_TRY(add_layer_node(g, l, "Sigmoid", "a_z#", "z#", NULL));
  UNROLL_TRY(add_layer_node(g, l, "Squeeze", "h#,axis0", "before#", NULL));
  UNROLL_TRY(add_layer_node(g, l, "Scan", "before#,z#,n#", "after#,y#", &node));
  UNROLL_TRY(set_int(node, "num_scan_inputs", 2));
  UNROLL_TRY(add_attribute(node, "body", ATTRIBUTE_GRAPH, &body));
  PUT(body->g, onnx__graph_proto__init, step);
  UNROLL_TRY(fill_step(step, p->shape.H));
  UNROLL_TRY(add_layer_node(g, l, "Unsqueeze", "after#,axis0", "h_next#", NULL));
  (void)snprintf(names[0], sizeof names[0], "y%zu", l);
  (void)snprintf(names[1], sizeof names[1], "x%zu", l + 1);
  UNROLL_TRY(add_node(g, "Identity", names[0], names[1], NULL));

cleanup:
  return st;
}

/* ------------------------------------------------------------------- graph */

/* tokens (T, B) -> x0 (T, B, E), their rows of W_e; or one-hot (T, B, V). */
static unroll_status add_tokens(Onnx__GraphProto *g, const unroll_params *p)
{
  unroll_status st = UNROLL_OK;
  const size_t V = p->shape.V, E = p->shape.E;
  Onnx__NodeProto *node = NULL;
  unroll_real *off_on = NULL, *table = NULL;

  UNROLL_TRY(
      add_value(&g->n_input, &g->input, "tokens", TYPE_INT64, 2, (dim[]){{0, "T"}, {0, "B"}}));
  if (E > 0) {
    UNROLL_TRY(add_constant(g, "W_e", TYPE_REAL, 2, (size_t[]){V, E}, &table));
    copy_tensor(p, params_input_table(p), in_order, false, table);
    UNROLL_TRY(add_node(g, "Gather", "W_e,tokens", "x0", &node));
    UNROLL_TRY(set_int(node, "axis", 0));
    goto cleanup;
  }
  UNROLL_TRY(add_index(g, "depth", V));
  UNROLL_TRY(add_constant(g, "off_on", TYPE_REAL, 1, (size_t[]){2}, &off_on));
  off_on[1] = 1;
  UNROLL_TRY(add_node(g, "OneHot", "tokens,depth,off_on", "x0", NULL));

cleanup:
  return st;
}

/* The state `name` (L, B, H) -> of each layer {name}{l} (1, B, H). */
static unroll_status add_state(Onnx__GraphProto *g, const unroll_shape *shape, const char *name)
{
  unroll_status st = UNROLL_OK;
  Onnx__NodeProto *node = NULL;
  char in[NAME_SIZE], out[NAME_SIZE];

  UNROLL_TRY(add_value(&g->n_input, &g->input, name, TYPE_REAL, 3,
                       (dim[]){{shape->L, NULL}, {0, "B"}, {shape->H, NULL}}));
  for (size_t l = 0; l < shape->L; ++l) {
    (void)snprintf(in, sizeof in, "%s,layer%zu", name, l);
    (void)snprintf(out, sizeof out, "%s%zu", name, l);
    UNROLL_TRY(add_node(g, "Gather", in, out, &node));
    UNROLL_TRY(set_int(node, "axis", 0));
  }

cleanup:
  return st;
}

/* {name}_next{l} (1, B, H) of each layer -> {name}_next (L, B, H). */
static unroll_status add_state_after(Onnx__GraphProto *g, const unroll_shape *shape,
                                     const char *name)
{
  unroll_status st = UNROLL_OK;
  Onnx__NodeProto *node = NULL;
  char *in = NULL, out[NAME_SIZE];
  size_t used = 0;

  UNROLL_TRY(memory_new(shape->L, NAME_SIZE, WHAT, &in));
  for (size_t l = 0; l < shape->L; ++l) {
    used += (size_t)snprintf(in + used, NAME_SIZE, "%s%s_next%zu", l > 0 ? "," : "", name, l);
  }
  (void)snprintf(out, sizeof out, "%s_next", name);
  UNROLL_TRY(add_node(g, "Concat", in, out, &node));
  UNROLL_TRY(set_int(node, "axis", 0));
  UNROLL_TRY(add_value(&g->n_output, &g->output, out, TYPE_REAL, 3,
                       (dim[]){{shape->L, NULL}, {0, "B"}, {shape->H, NULL}}));

cleanup:
  memory_free(&in);
  return st;
}

/* x{L} (T, B, H) -> logits (T, B, V). */
static unroll_status add_output(Onnx__GraphProto *g, const unroll_params *p)
{
  unroll_status st = UNROLL_OK;
  const unroll_shape *shape = &p->shape;
  unroll_real *data = NULL;
  char in[NAME_SIZE];

  if (shape->tied) {
    UNROLL_TRY(add_node(g, "Transpose", "W_e", "W_q", NULL));
  } else {
    UNROLL_TRY(add_constant(g, "W_q", TYPE_REAL, 2, (size_t[]){shape->H, shape->V}, &data));
    copy_tensor(p, params_output(p, PARAMS_W_QH), in_order, true, data);
  }
  UNROLL_TRY(add_constant(g, "b_q", TYPE_REAL, 1, (size_t[]){shape->V}, &data));
  copy_tensor(p, params_output(p, PARAMS_B_Q), in_order, false, data);
  (void)snprintf(in, sizeof in, "x%zu,W_q", shape->L);
  UNROLL_TRY(add_node(g, "MatMul", in, "product", NULL));
  UNROLL_TRY(add_node(g, "Add", "product,b_q", "logits", NULL));
  UNROLL_TRY(add_value(&g->n_output, &g->output, "logits", TYPE_REAL, 3,
                       (dim[]){{0, "T"}, {0, "B"}, {shape->V, NULL}}));

cleanup:
  return st;
}

static unroll_status fill_graph(Onnx__GraphProto *g, const unroll_params *p)
{
  unroll_status st = UNROLL_OK;
  const cell *c = params_cell(p);
  char name[NAME_SIZE];

  UNROLL_TRY(memory_string("unroll", &g->name));
  UNROLL_TRY(add_index(g, c->id == CELL_mingru ? "axis0" : "axis1", c->id == CELL_mingru ? 0 : 1));
  for (size_t l = 0; l < p->shape.L; ++l) {
    (void)snprintf(name, sizeof name, "layer%zu", l);
    UNROLL_TRY(add_index(g, name, l));
  }
  UNROLL_TRY(add_tokens(g, p));
  for (size_t s = 0; s < params_states(p); ++s) {
    UNROLL_TRY(add_state(g, &p->shape, params_state_name(s)));
  }
  for (size_t l = 0; l < p->shape.L; ++l) {
    UNROLL_TRY(c->id == CELL_mingru ? add_mingru(g, p, l) : add_recurrent(g, p, l));
  }
  UNROLL_TRY(add_output(g, p));
  for (size_t s = 0; s < params_states(p); ++s) {
    UNROLL_TRY(add_state_after(g, &p->shape, params_state_name(s)));
  }

cleanup:
  return st;
}

/* ------------------------------------------------------------------- model */

static unroll_status add_metadata(Onnx__ModelProto *m, const unroll_model *model)
{
  unroll_status st = UNROLL_OK;
  json_t *metadata = NULL, *value = NULL;
  const char *key = NULL;

  UNROLL_TRY(export_metadata(model, &metadata));
  json_object_foreach(metadata, key, value)
  {
    Onnx__StringStringEntryProto *entry = NULL;
    ADD(m, metadata_props, onnx__string_string_entry_proto__init, entry);
    UNROLL_TRY(memory_string(key, &entry->key));
    UNROLL_TRY(memory_string(json_string_value(value), &entry->value));
  }

cleanup:
  json_decref(metadata);
  return st;
}

static unroll_status fill_model(Onnx__ModelProto *m, const unroll_model *model)
{
  unroll_status st = UNROLL_OK;
  Onnx__OperatorSetIdProto *opset = NULL;
  Onnx__GraphProto *g = NULL;

  m->has_ir_version = true;
  m->ir_version = IR;
  UNROLL_TRY(memory_string("unroll", &m->producer_name));
  UNROLL_TRY(memory_string(UNROLL_VERSION, &m->producer_version));
  ADD(m, opset_import, onnx__operator_set_id_proto__init, opset);
  UNROLL_TRY(memory_string("", &opset->domain));
  opset->has_version = true;
  opset->version = OPSET;
  PUT(m->graph, onnx__graph_proto__init, g);
  UNROLL_TRY(fill_graph(g, model->run->params));
  UNROLL_TRY(add_metadata(m, model));

cleanup:
  return st;
}

bool unroll_export_has_onnx(void)
{
  return true;
}

unroll_status unroll_export_onnx(const unroll_model *model, const char *path)
{
  unroll_status st = UNROLL_OK;
  ProtobufCAllocator allocator = {.free = release};
  Onnx__ModelProto *m = NULL;
  unsigned char *bytes = NULL;

  if (model->run->params->shape.skip) {
    st = unroll_fail(UNROLL_ERR_ARG,
                     "%s: skip connections are not written to ONNX files; legal is a model without "
                     "--skip, or --safetensors",
                     path);
    goto cleanup;
  }
  UNROLL_TRY(memory_new(1, sizeof *m, WHAT, &m));
  onnx__model_proto__init(m);
  UNROLL_TRY(fill_model(m, model));
  const size_t size = onnx__model_proto__get_packed_size(m);
  if (size > INT32_MAX) {
    st = unroll_fail(UNROLL_ERR_ARG, "%s: the model takes %zu bytes; legal in an ONNX file are %d",
                     path, size, INT32_MAX);
    goto cleanup;
  }
  UNROLL_TRY(memory_new(size, 1, WHAT, &bytes));
  (void)onnx__model_proto__pack(m, bytes);
  UNROLL_TRY(save_bytes(path, bytes, size));

cleanup:
  memory_free(&bytes);
  if (m != NULL) { onnx__model_proto__free_unpacked(m, &allocator); }
  return st;
}

#else

bool unroll_export_has_onnx(void)
{
  return false;
}

unroll_status unroll_export_onnx(const unroll_model *model, const char *path)
{
  (void)model;
  return unroll_fail(UNROLL_ERR_ARG,
                     "%s: this unroll was built without protobuf-c, which writes ONNX files", path);
}

#endif
