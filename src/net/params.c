#include "net/params.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Largest number of layers: their names fit unroll_tensor.group. */
#define MAX_LAYERS UINT32_MAX

/* Tensors of a layer: W_hh, b_h, b_hn, W_xh. Of the input: W_xe. */
#define MAX_TENSORS_PER_LAYER 4
#define MAX_TENSORS_OF_INPUT  1

/* A tensor, before its place in memory is known. */
typedef struct description {
  const char *name, *long_name, *row_dim, *col_dim;
  size_t blocks, rows, cols; /* rows of a block */
  size_t turn;
  bool transposed;
} description;

/* Place one tensor behind those already there. */
static unroll_status place(unroll_params *p, const char *group, const description *d)
{
  const size_t max = PTRDIFF_MAX / 2 / sizeof(unroll_real); /* and a tied table's gradient again */
  unroll_tensor *t = &p->tensors[p->n_tensors];

  (void)snprintf(t->group, sizeof t->group, "%s", group);
  (void)snprintf(t->name, sizeof t->name, "%s", d->name);
  t->long_name = d->long_name;
  t->row_dim = d->row_dim;
  t->col_dim = d->col_dim;
  t->blocks = d->blocks;
  t->turn = d->turn;
  t->transposed = d->transposed;
  t->cols = d->cols;
  t->offset = p->n;
  if (d->rows > max / 2 / CELL_BLOCKS || d->cols > max / 2) { goto too_large; }
  t->rows = d->blocks * d->rows;
  t->block = d->blocks == 1 ? d->rows : kernels_pad(d->rows);
  t->ld = kernels_ld(d->col_dim == NULL || d->transposed ? d->blocks * t->block : d->cols);
  if (params_memory_rows(t) > (max - p->n) / t->ld) { goto too_large; }
  p->n += params_memory_rows(t) * t->ld;
  p->n_real += t->rows * t->cols;
  p->n_tensors += 1;
  return UNROLL_OK;

too_large:
  return unroll_fail(
      UNROLL_ERR_MEMORY,
      "a model with V %zu, H %zu, L %zu, E %zu has more parameters than a machine can address",
      p->shape.V, p->shape.H, p->shape.L, p->shape.E);
}

/* The tensors that the cell has in layer l. */
static unroll_status place_layer(unroll_params *p, size_t l)
{
  unroll_status st = UNROLL_OK;
  const cell *c = params_cell(p);
  const size_t V = p->shape.V, H = p->shape.H, G = c->inputs, below = params_below(p, l);
  const bool gated = G > 1;
  const char *const rows = gated ? "gate" : "hidden";
  char group[sizeof p->tensors->group];
  const description W_hh = {.name = "W_hh",
                            .long_name = gated ? "hidden-hidden weights of the gates"
                                               : "hidden-hidden weights",
                            .row_dim = rows,
                            .col_dim = "hidden_in",
                            .blocks = c->recurrent,
                            .rows = H,
                            .cols = H};
  const description b_h = {.name = "b_h",
                           .long_name = gated ? "bias of the gates" : "hidden bias",
                           .row_dim = rows,
                           .blocks = G,
                           .rows = H,
                           .cols = 1,
                           .turn = c->first_recurrent};
  const description b_hn = {.name = "b_hn",
                            .long_name = "bias of the new state's hidden part",
                            .row_dim = "hidden",
                            .blocks = 1,
                            .rows = H,
                            .cols = 1};
  description W_xh = {.name = "W_xh",
                      .long_name =
                          gated ? "input-hidden weights of the gates" : "input-hidden weights",
                      .row_dim = rows,
                      .col_dim = "vocab",
                      .blocks = G,
                      .rows = H,
                      .cols = V,
                      .turn = c->first_recurrent,
                      .transposed = true};
  if (l > 0) {
    W_xh.long_name = gated ? "input-hidden weights of the gates, from the layer below"
                           : "input-hidden weights, from the layer below";
    W_xh.col_dim = "hidden_below";
  } else if (below > 0) {
    W_xh.long_name = gated ? "input-hidden weights of the gates, from the embedding"
                           : "input-hidden weights, from the embedding";
    W_xh.col_dim = "embedding";
  }
  if (below > 0) {
    W_xh.cols = below;
    W_xh.transposed = false;
  }

  (void)snprintf(group, sizeof group, "layer%u", (unsigned)l);
  if (c->recurrent > 0) { UNROLL_TRY(place(p, group, &W_hh)); }
  UNROLL_TRY(place(p, group, &b_h));
  if (c->id == CELL_gru) { UNROLL_TRY(place(p, group, &b_hn)); }
  UNROLL_TRY(place(p, group, &W_xh));

cleanup:
  return st;
}

unroll_status unroll_params_new(const unroll_shape *shape, unroll_params **out)
{
  const size_t V = shape->V, H = shape->H, L = shape->L;
  assert(V >= 1 && H >= 1 && L >= 1 && (!shape->tied || shape->E == H));
  unroll_status st = UNROLL_OK;
  unroll_params *p = NULL;
  const description W_qh = {.name = "W_qh",
                            .long_name = "hidden-output weights",
                            .row_dim = "vocab",
                            .col_dim = "hidden",
                            .blocks = 1,
                            .rows = V,
                            .cols = H};
  const description b_q = {.name = "b_q",
                           .long_name = "output bias",
                           .row_dim = "vocab",
                           .blocks = 1,
                           .rows = V,
                           .cols = 1};
  const description W_xe = {.name = "W_xe",
                            .long_name = "embedding of the tokens",
                            .row_dim = "vocab",
                            .col_dim = "embedding",
                            .blocks = 1,
                            .rows = V,
                            .cols = shape->E};

  UNROLL_TRY(memory_new(1, sizeof *p, "parameters", &p));
  p->shape = *shape;
  if (L > MAX_LAYERS) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "%zu layers are more than a machine can address", L);
    goto cleanup;
  }
  UNROLL_TRY(memory_new(PARAMS_OUTPUTS + MAX_TENSORS_PER_LAYER * L + MAX_TENSORS_OF_INPUT,
                        sizeof *p->tensors, "the table of parameters", &p->tensors));

  UNROLL_TRY(place(p, "output", &W_qh));
  UNROLL_TRY(place(p, "output", &b_q));
  p->n_output = p->n;
  for (size_t l = L; l-- > 0;) { UNROLL_TRY(place_layer(p, l)); }
  if (params_has_W_xe(shape)) { UNROLL_TRY(place(p, "input", &W_xe)); }
  p->n_gradient = p->n;
  if (shape->tied) { p->n_gradient += V * params_output(p, PARAMS_W_QH)->ld; }
  UNROLL_TRY(memory_new(p->n, sizeof *p->values, "parameters", &p->values));
  *out = p;
  p = NULL;

cleanup:
  unroll_params_free(&p);
  return st;
}

const unroll_tensor *params_tensor(const unroll_params *p, size_t l, params_name which)
{
  static const char *const names[] = {
      [PARAMS_W_HH] = "W_hh", [PARAMS_B_H] = "b_h", [PARAMS_B_HN] = "b_hn", [PARAMS_W_XH] = "W_xh"};
  const size_t others = PARAMS_OUTPUTS + params_has_W_xe(&p->shape); /* which is the last */
  const size_t of_layer = (p->n_tensors - others) / p->shape.L;
  const unroll_tensor *t = p->tensors + PARAMS_OUTPUTS + (p->shape.L - 1 - l) * of_layer;
  for (size_t i = 0; i < of_layer; ++i) {
    if (strcmp(t[i].name, names[which]) == 0) { return &t[i]; }
  }
  return NULL;
}

bool params_are_finite(const unroll_params *p)
{
  size_t i = 0;
  while (i < p->n && isfinite(p->values[i])) { ++i; }
  return i == p->n;
}

double params_flops_per_token(const unroll_params *p)
{
  const cell *c = params_cell(p);
  const double V = (double)p->shape.V, H = (double)p->shape.H, above = (double)p->shape.L - 1;
  const double blocks = (double)c->recurrent + above * (double)(c->inputs + c->recurrent);
  return 6 * H * H * blocks + 6 * H * V + 6 * H * (double)(c->inputs * p->shape.E);
}

const char *params_units(const unroll_shape *shape)
{
  switch (shape->cell) {
  case UNROLL_CELL_RNN:
    break;
  case UNROLL_CELL_LSTM:
    return "LSTM";
  case UNROLL_CELL_GRU:
    return "GRU";
  case UNROLL_CELL_MINGRU:
    return "minGRU";
  }
  return shape->activation == UNROLL_ACTIVATION_RELU ? "ReLU" : "tanh";
}

unroll_shape params_shape(const unroll_config *config, size_t V)
{
  return (unroll_shape){.V = V,
                        .H = (size_t)config->hidden,
                        .L = (size_t)config->layers,
                        .E = (size_t)config->embedding,
                        .tied = config->tied,
                        .skip = config->skip,
                        .cell = config->cell,
                        .activation = config->activation};
}

unroll_start params_start(const unroll_config *config)
{
  return (unroll_start){.init = config->init,
                        .scale = config->init_scale,
                        .forget_bias = config->forget_bias,
                        .seed = config->seed};
}

void unroll_params_free(unroll_params **params)
{
  if (params == NULL || *params == NULL) { return; }
  memory_free(&(*params)->values);
  memory_free(&(*params)->tensors);
  memory_free(params);
}

const unroll_tensor *unroll_params_find(const unroll_params *params, const char *group,
                                        const char *name)
{
  for (size_t i = 0; i < params->n_tensors; ++i) {
    const unroll_tensor *t = &params->tensors[i];
    if (strcmp(t->group, group) == 0 && strcmp(t->name, name) == 0) { return t; }
  }
  return NULL;
}
