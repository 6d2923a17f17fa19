#include "net/network.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dispatch.h"
#include "kernels/gradient.h"
#include "kernels/output.h"

#include <assert.h>
#include <inttypes.h>
#include <omp.h>
#include <string.h>

static unroll_status new_reals(size_t n, const char *what, unroll_real **out)
{
  return memory_new(n, sizeof **out, what, out);
}

static unroll_status new_layers(size_t L, unroll_real ***out)
{
  return memory_new(L, sizeof **out, "layers", out);
}

/* What the backward pass needs beside what inference has. */
static unroll_status new_backward(network *net, const network_size *size)
{
  unroll_status st = UNROLL_OK;
  const unroll_params *params = net->params;
  size_t threads = (size_t)omp_get_max_threads(), rows = net->chunk * net->B;

  UNROLL_TRY(memory_new(net->L, sizeof *net->after, "layers", &net->after));
  for (size_t i = 0; i < (net->L > 1 ? 2 : 1); ++i) {
    UNROLL_TRY(new_reals(rows * net->ld + KERNELS_PAD, "hidden gradients", &net->dh[i]));
  }
  if (size->gradient == NULL) { UNROLL_TRY(new_reals(params->n, "gradient", &net->own_gradient)); }
  net->gradient = size->gradient != NULL ? size->gradient : net->own_gradient;
  UNROLL_TRY(new_reals(gradient_scratch(threads), "gradient scratch", &net->gradient_scratch));
  UNROLL_TRY(memory_new(net->V * net->shards + 1, sizeof *net->start, "token lists", &net->start));
  UNROLL_TRY(memory_new(rows, sizeof *net->list, "token lists", &net->list));
  UNROLL_TRY(memory_new(net->B, sizeof *net->panel_row, "panel rows", &net->panel_row));
  if (size->apart) {
    UNROLL_TRY(memory_new(net->shards, params->n * sizeof *net->apart, "gradients of the shards",
                          &net->apart));
    for (size_t l = 0; l < net->L; ++l) {
      UNROLL_TRY(new_reals(net->B * net->ld, "hidden gradients", &net->after[l]));
    }
  }
  if (net->sparse) {
    UNROLL_TRY(memory_new(network_seen_words(net), sizeof *net->seen, "tokens seen", &net->seen));
    UNROLL_TRY(memory_new(size->window, sizeof *net->touched, "rows touched", &net->touched));
  }

cleanup:
  return st;
}

unroll_status network_new(const unroll_params *params, unroll_activation activation,
                          const network_size *size, network **out)
{
  unroll_status st = UNROLL_OK;
  network *net = NULL;
  size_t T = size->T, chunk = size->chunk, B = size->B, shards = size->shards;
  size_t V = params->V, H = params->H, L = params->L, threads = (size_t)omp_get_max_threads();
  size_t ld = kernels_ld(H), rows = T * B;
  bool training = size->window > 0;
  assert(T >= 1 && chunk >= 1 && chunk <= T && B >= 1);
  assert(shards >= 1 && B % shards == 0 && shards % size->group == 0);

  if (T >= UINT32_MAX / B) { /* below it no product of sizes exceeds 64 bits: V has 31, L B H 42 */
    st = unroll_fail(UNROLL_ERR_ARG,
                     "a window of %zu steps of %zu sequences on one rank: legal are %" PRIu32
                     " tokens; more ranks, a smaller --batch or fewer --steps help",
                     T, B, UINT32_MAX);
    goto cleanup;
  }
  UNROLL_TRY(memory_new(1, sizeof *net, "network", &net));
  *net = (network){.T = T,
                   .chunk = chunk,
                   .B = B,
                   .V = V,
                   .H = H,
                   .L = L,
                   .shards = shards,
                   .group = size->group,
                   .ld = ld,
                   .xi = 1.0,
                   .activation = activation,
                   .params = params,
                   .training = training,
                   .sparse = training && network_is_sparse(params, size->window),
                   .rows = size->rows};
  UNROLL_TRY(new_layers(L, &net->recur_forward));
  UNROLL_TRY(new_layers(L, &net->recur_backward));
  UNROLL_TRY(new_layers(L, &net->below_forward));
  UNROLL_TRY(new_layers(L, &net->below_backward));
  UNROLL_TRY(new_layers(L, &net->h));
  UNROLL_TRY(new_layers(L, &net->state_panels));
  for (size_t l = 0; l < L; ++l) {
    size_t packed = weights_packed_size(H, H);
    UNROLL_TRY(new_reals(packed, "packed weights", &net->recur_forward[l]));
    if (training) { UNROLL_TRY(new_reals(packed, "packed weights", &net->recur_backward[l])); }
    if (l > 0) { UNROLL_TRY(new_reals(packed, "packed weights", &net->below_forward[l])); }
    if (l > 0 && training) {
      UNROLL_TRY(new_reals(packed, "packed weights", &net->below_backward[l]));
    }
    UNROLL_TRY(new_reals((T + 1) * B * ld, "hidden states", &net->h[l]));
    if (training) {
      UNROLL_TRY(new_reals(state_panels_size(T, B, H), "hidden states", &net->state_panels[l]));
    }
  }
  UNROLL_TRY(memory_new(rows, sizeof *net->x, "input tokens", &net->x));
  UNROLL_TRY(memory_new(rows, sizeof *net->y, "target tokens", &net->y));
  UNROLL_TRY(memory_new(chunk * B, sizeof *net->y_panel, "target tokens", &net->y_panel));
  UNROLL_TRY(memory_new(chunk * B, sizeof *net->nll, "losses", &net->nll));
  if (L > 1) { UNROLL_TRY(new_reals(rows * ld, "layer inputs", &net->from_below)); }
  UNROLL_TRY(new_reals(output_panels(chunk, B, shards) * V * kernels()->nr, "logits", &net->O));
  UNROLL_TRY(new_reals(threads * output_scratch(H), "output scratch", &net->output_scratch));
  if (training) { UNROLL_TRY(new_backward(net, size)); }
  *out = net;
  net = NULL;

cleanup:
  network_free(&net);
  return st;
}

static void free_layers(size_t L, unroll_real ***layers)
{
  for (size_t l = 0; l < L && *layers != NULL; ++l) { memory_free(&(*layers)[l]); }
  memory_free(layers);
}

void network_free(network **p)
{
  network *net = *p;
  if (net == NULL) { return; }
  memory_free(&net->touched);
  memory_free(&net->seen);
  memory_free(&net->panel_row);
  memory_free(&net->list);
  memory_free(&net->start);
  memory_free(&net->gradient_scratch);
  memory_free(&net->own_gradient);
  memory_free(&net->apart);
  free_layers(net->L, &net->after);
  memory_free(&net->dh[0]);
  memory_free(&net->dh[1]);
  memory_free(&net->output_scratch);
  memory_free(&net->O);
  memory_free(&net->from_below);
  memory_free(&net->nll);
  memory_free(&net->y_panel);
  memory_free(&net->y);
  memory_free(&net->x);
  free_layers(net->L, &net->state_panels);
  free_layers(net->L, &net->h);
  free_layers(net->L, &net->below_backward);
  free_layers(net->L, &net->below_forward);
  free_layers(net->L, &net->recur_backward);
  free_layers(net->L, &net->recur_forward);
  memory_free(p);
}

void network_pack(network *net)
{
  const unroll_params *params = net->params;
  for (size_t l = 0; l < net->L; ++l) {
    const unroll_tensor *W_hh = params_tensor(params, l, PARAMS_W_HH);
    const unroll_tensor *W_xh = params_tensor(params, l, PARAMS_W_XH);
    const unroll_real *recur = params->values + W_hh->offset,
                      *below = params->values + W_xh->offset;
    weights_pack(net->H, net->H, recur, W_hh->ld, 1, net->recur_forward[l]);
    if (net->training) { weights_pack(net->H, net->H, recur, W_hh->ld, 0, net->recur_backward[l]); }
    if (net->training && net->xi != 1.0) { /* once here, instead of at every step */
      weights_scale(weights_packed_size(net->H, net->H), net->xi, net->recur_backward[l]);
    }
    if (l > 0) { weights_pack(net->H, net->H, below, W_xh->ld, 1, net->below_forward[l]); }
    if (l > 0 && net->training) {
      weights_pack(net->H, net->H, below, W_xh->ld, 0, net->below_backward[l]);
    }
  }
}

/* ---------------------------------------------- rows of the input table touched */

void network_see(network *net, size_t T, bool first)
{
  if (first) { memset(net->seen, 0, network_seen_words(net) * sizeof *net->seen); }
  for (size_t n = 0; n < T * net->B; ++n) {
    net->seen[(size_t)net->x[n] / 64] |= UINT64_C(1) << ((size_t)net->x[n] % 64);
  }
}

/* Where row i of those touched begins in a gradient. */
static size_t touched_at(const network *net, size_t i)
{
  const unroll_tensor *table = params_tensor(net->params, 0, PARAMS_W_XH);
  return table->offset + net->touched[i] * table->ld;
}

void network_touch(network *net)
{
  size_t bytes = params_tensor(net->params, 0, PARAMS_W_XH)->ld * sizeof *net->gradient;
  for (size_t i = 0; i < net->n_touched; ++i) {
    memset(net->gradient + touched_at(net, i), 0, bytes);
  }
  net->n_touched = 0;
  for (size_t word = 0; word < network_seen_words(net); ++word) {
    for (uint64_t bits = net->seen[word], bit = 0; bits != 0; bits >>= 1, ++bit) {
      if (bits & 1) { net->touched[net->n_touched++] = (uint32_t)(word * 64 + bit); }
    }
  }
}

void network_rows_out(const network *net)
{
  size_t ld = params_tensor(net->params, 0, PARAMS_W_XH)->ld;
  for (size_t i = 0; i < net->n_touched; ++i) {
    memcpy(net->rows + i * ld, net->gradient + touched_at(net, i), ld * sizeof *net->rows);
  }
}

void network_rows_in(const network *net, const unroll_real *rows, size_t begin, size_t end,
                     unroll_real *g)
{
  size_t ld = params_tensor(net->params, 0, PARAMS_W_XH)->ld;
  for (size_t i = begin; i < end; ++i) {
    memcpy(g + touched_at(net, i), rows + i * ld, ld * sizeof *g);
  }
}

/* --------------------------------------------------------- the carried state */

void network_reset(network *net)
{
  for (size_t l = 0; l < net->L; ++l) { memset(net->h[l], 0, net->B * net->ld * sizeof **net->h); }
}

void network_carry(network *net, size_t T)
{
  size_t slot = net->B * net->ld;
  if (T == 0) { return; } /* the state stays what it is */
  for (size_t l = 0; l < net->L; ++l) {
    memcpy(net->h[l], net->h[l] + T * slot, slot * sizeof **net->h);
  }
}

void network_get_slot(const network *net, size_t slot, unroll_real *state)
{
  for (size_t l = 0; l < net->L; ++l) {
    for (size_t b = 0; b < net->B; ++b, state += net->H) {
      memcpy(state, net->h[l] + (slot * net->B + b) * net->ld, net->H * sizeof *state);
    }
  }
}

void network_get_state(const network *net, unroll_real *state)
{
  network_get_slot(net, 0, state);
}

void network_set_state(network *net, const unroll_real *state)
{
  for (size_t l = 0; l < net->L; ++l) {
    for (size_t b = 0; b < net->B; ++b, state += net->H) {
      memcpy(net->h[l] + b * net->ld, state, net->H * sizeof *state);
    }
  }
}
