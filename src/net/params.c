#include "net/params.h"
#include "base/check.h"
#include "base/memory.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unroll/params.h>

/* Layers; their names fit a tensor's group. */
#define MOST_LAYERS UINT32_MAX

/* What a tensor is, before its place in memory is known. */
typedef struct shape {
  const char *name, *long_name, *row_dim, *col_dim;
  size_t rows, cols;
  bool transposed;
} shape;

/* Place one tensor behind those already there. */
static unroll_status place(unroll_params *p, const char *group, const shape *s)
{
  unroll_tensor *t = &p->tensors[p->n_tensors];
  size_t lines = s->col_dim == NULL ? 1 : s->transposed ? s->cols : s->rows;
  size_t length = s->col_dim == NULL || s->transposed ? s->rows : s->cols;
  size_t most = PTRDIFF_MAX / sizeof(unroll_real);

  if (length > most / 2 || lines > (most - p->n) / kernels_ld(length)) {
    return unroll_fail(
        UNROLL_ERR_MEMORY,
        "a model with V %zu, H %zu, L %zu has more parameters than a machine can address", p->V,
        p->H, p->L);
  }
  (void)snprintf(t->group, sizeof t->group, "%s", group);
  (void)snprintf(t->name, sizeof t->name, "%s", s->name);
  t->long_name = s->long_name;
  t->row_dim = s->row_dim;
  t->col_dim = s->col_dim;
  t->rows = s->rows;
  t->cols = s->cols;
  t->transposed = s->transposed;
  t->ld = kernels_ld(length);
  t->offset = p->n;

  p->n += lines * t->ld;
  p->n_real += s->rows * s->cols;
  p->n_tensors += 1;
  return UNROLL_OK;
}

unroll_status unroll_params_new(size_t V, size_t H, size_t L, unroll_params **out)
{
  assert(V >= 1 && H >= 1 && L >= 1);
  unroll_status st = UNROLL_OK;
  unroll_params *p = NULL;
  const shape W_qh = {"W_qh", "hidden-output weights", "vocab", "hidden", V, H, false};
  const shape b_q = {"b_q", "output bias", "vocab", NULL, V, 1, false};
  const shape W_hh = {"W_hh", "hidden-hidden weights", "hidden", "hidden_in", H, H, false};
  const shape W_xh = {"W_xh", "input-hidden weights", "hidden", "vocab", H, V, true};
  const shape W_up = {
      "W_xh", "input-hidden weights, from the layer below", "hidden", "hidden_below", H, H, false};
  const shape b_h = {"b_h", "hidden bias", "hidden", NULL, H, 1, false};

  UNROLL_TRY(memory_new(1, sizeof *p, "parameters", &p));
  p->V = V;
  p->H = H;
  p->L = L;
  if (L > MOST_LAYERS) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "%zu layers are more than a machine can address", L);
    goto cleanup;
  }
  UNROLL_TRY(memory_new(2 + 3 * L, sizeof *p->tensors, "the table of parameters", &p->tensors));

  UNROLL_TRY(place(p, "output", &W_qh));
  UNROLL_TRY(place(p, "output", &b_q));
  p->n_output = p->n;
  for (size_t l = L; l-- > 0;) {
    char group[sizeof p->tensors->group];
    (void)snprintf(group, sizeof group, "layer%u", (unsigned)l);
    UNROLL_TRY(place(p, group, &W_hh));
    UNROLL_TRY(place(p, group, &b_h));
    UNROLL_TRY(place(p, group, l == 0 ? &W_xh : &W_up));
  }
  UNROLL_TRY(memory_new(p->n, sizeof *p->values, "parameters", &p->values));
  *out = p;
  p = NULL;

cleanup:
  unroll_params_free(&p);
  return st;
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
