/*
 * Back-propagation against central differences, in the double build.
 *
 *   a = dL/dw as network_backward says,  n = (L(w + s) - L(w - s)) / 2 s
 *   |a - n| < 1e-6 max(1, |a|, |n|)      for every parameter, with its sign
 *
 * L is the weighted sum of the losses of one window, and of the penalties on its states, with the state carried into
 * it held constant: that is what truncated BPTT differentiates.
 */
#include "kinds.h"
#include "support.h"

#include "base/random.h"
#include "kernels/dispatch.h"
#include "kernels/gradient.h"
#include "kernels/shard_tree.h"
#include "net/network.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* [1] Of a difference: truncation and rounding error are both near 1e-10 with it. */
#define STEP 1e-5

enum {
  STEPS = 5,
  ROOM = 7, /* steps the network has room for: a window may be shorter */
  BATCH = 4,
  WINDOWS = 3
};

/* Of a token: neither 1 nor the reciprocal of STEPS * BATCH, so that a forgotten weight is seen. */
#define WEIGHT 0.75

/* [reals] Less than a tile of any of the matrices. */
#define SLICE 16

/* Of embeddings and of W_hh; held in all passes of a test. */
static dropout held;
static penalty held_penalty;
static double held_smoothing;

static const network_span all_steps = {0, 0, STEPS};

struct bench {
  unroll_params *params;
  network *net;
  unroll_real *state; /* (L, BATCH, H) carried into the window */
  unroll_real *rows;  /* (ROOM * BATCH, ld) the touched rows of the input table */
  unroll_real *
      copied; /* (params->n_gradient) the gradient, copied slice by slice when notified; NaN: not yet */
  size_t n_notified, slices; /* elements notified so far, and in how many slices */
  int once;                  /* nothing was notified twice, or out of range */
};

static struct bench *bench_new(unroll_shape shape, size_t shards)
{
  struct bench *b = calloc(1, sizeof *b);
  const unroll_start start = {.seed = 17, .forget_bias = 1.0};
  const size_t ld = kernels_ld(4 * kernels_pad(shape.H)) + kernels_ld(shape.E);
  unroll_real *rows = calloc(ROOM * BATCH * ld, sizeof *rows);
  const network_size size = {.T = ROOM,
                             .chunk = ROOM,
                             .B = BATCH,
                             .shards = shards,
                             .group = shard_tree_group(shards),
                             .window = ROOM * BATCH,
                             .dropout = true,
                             .drop_weights = true,
                             .rows = rows};
  if (b == NULL || kernels_start() != UNROLL_OK ||
      unroll_params_new(&shape, &b->params) != UNROLL_OK ||
      unroll_params_start(b->params, &start) != UNROLL_OK ||
      network_new(b->params, &size, &b->net) != UNROLL_OK) {
    fprintf(stderr, "%s\n", unroll_message());
    abort();
  }
  const unroll_tensor *table = params_input_table(b->params);
  for (size_t i = 0; shape.E > 0 && i < table->rows * table->ld; ++i) {
    b->params->values[table->offset + i] *= 10; /* as large as a state, so that it matters */
  }
  b->rows = rows;
  b->state = calloc(network_state_size(b->net), sizeof *b->state);
  b->copied = calloc(b->params->n_gradient, sizeof *b->copied);
  if (b->rows == NULL || b->state == NULL || b->copied == NULL) { abort(); }
  network_pack(b->net);
  network_reset(b->net);
  return b;
}

static void bench_free(struct bench *b)
{
  network_free(&b->net);
  unroll_params_free(&b->params);
  free(b->state);
  free(b->copied);
  free(b->rows);
  free(b);
}

/* Tokens of window w; 0 is frequent, so that a column of W_xh sums over many places. */
static void draw_tokens(struct bench *b, uint64_t w)
{
  for (size_t i = 0; i < STEPS * BATCH; ++i) {
    uint64_t rare = random_below(5, RANDOM_SYNTHETIC, w, 3 * i, 2);
    b->net->x[i] =
        (int32_t)(rare * random_below(5, RANDOM_SYNTHETIC, w, 3 * i + 1, b->params->shape.V));
    b->net->y[i] = (int32_t)random_below(5, RANDOM_SYNTHETIC, w, 3 * i + 2, b->params->shape.V);
  }
}

/* alpha / H |out_t|^2 + beta / H |h_t - h_{t-1}|^2 of all tokens. */
static double penalties_of(const network *net)
{
  const layer *top = network_top(net);
  const size_t H = net->params->shape.H, slot = BATCH * top->ld;
  double out = 0.0, change = 0.0;
  for (size_t n = 0; n < STEPS * BATCH; ++n) {
    const unroll_real *h = top->h + slot + n * top->ld, *up = top->output + slot + n * top->ld;
    for (size_t k = 0; k < H; ++k) {
      out += up[k] * up[k];
      change += (h[k] - (h - slot)[k]) * (h[k] - (h - slot)[k]);
    }
  }
  return (held_penalty.activation * out + held_penalty.change * change) / (double)H;
}

/* Sum of -log p of the targets at hand over the window, after network_forward. */
static double nats_of(network *net)
{
  double sum = 0.0;
  network_output(net, all_steps, 0.0, true);
  for (size_t i = 0; i < STEPS * BATCH; ++i) { sum += net->head.nll[i]; }
  return sum;
}

/* The same, mean over all tokens as targets. */
static double nats_of_any(network *net)
{
  const size_t V = net->params->shape.V;
  int32_t y[STEPS * BATCH];
  double sum = 0.0;
  memcpy(y, net->y, sizeof y);
  for (size_t v = 0; v < V; ++v) {
    for (size_t i = 0; i < STEPS * BATCH; ++i) { net->y[i] = (int32_t)v; }
    sum += nats_of(net);
  }
  memcpy(net->y, y, sizeof y);
  return sum / (double)V;
}

/* L of the window at hand, from the carried state. */
static double window_loss(struct bench *b)
{
  network_pack(b->net);
  network_set_state(b->net, b->state);
  network_forward(b->net, STEPS);
  double sum = (1.0 - held_smoothing) * nats_of(b->net);
  if (held_smoothing > 0.0) { sum += held_smoothing * nats_of_any(b->net); }
  return WEIGHT * (sum + penalties_of(b->net));
}

/* What is notified must be complete: it is copied now and compared at the end. */
static unroll_status hear(void *context, size_t first, size_t n)
{
  struct bench *b = context;
  const unroll_params *p = b->params;
  const embedding *e = &b->net->embedding;
  if (first == p->n_gradient) {
    CU_ASSERT(e->sparse && n == e->n_touched * e->table->ld);
    first = e->gradient; /* rows not touched are zeros, which need no telling */
    n = p->n_gradient - first;
    memset(b->copied + first, 0, n * sizeof *b->copied);
    embedding_scatter_rows(e, b->rows, 0, e->n_touched, b->copied);
  } else {
    b->once &= first + n <= p->n_gradient;
    for (size_t i = first; b->once && i < first + n; ++i) { b->once &= isnan(b->copied[i]) != 0; }
    if (b->once) { memcpy(b->copied + first, b->net->gradient + first, n * sizeof *b->copied); }
  }
  b->n_notified += n;
  b->slices += 1;
  return UNROLL_OK;
}

static void differentiate(struct bench *b)
{
  const network_ready ready = {.call = hear, .context = b, .slice = SLICE};
  const unroll_params *p = b->params;

  for (size_t k = 0; k < p->n_tensors; ++k) { /* a gradient is written, never added to */
    const unroll_tensor *t = &p->tensors[k];
    if (b->net->embedding.sparse && t->offset == b->net->embedding.gradient) {
      break;
    } /* rows not touched stay zero */
    for (size_t row = 0; row < t->rows; ++row) {
      for (size_t col = 0; col < t->cols; ++col) {
        b->net->gradient[unroll_tensor_index(t, row, col)] = NAN;
      }
    }
  }
  for (size_t i = 0; i < p->n_gradient; ++i) { b->copied[i] = NAN; }
  b->n_notified = b->slices = 0;
  b->once = 1;
  network_pack(b->net);
  network_set_state(b->net, b->state);
  network_forward(b->net, STEPS);
  network_output(b->net, all_steps, WEIGHT, false);
  if (b->net->embedding.sparse) {
    embedding_mark_tokens(&b->net->embedding, STEPS * BATCH, b->net->x, true);
    embedding_set_touched_rows(&b->net->embedding, b->net->gradient);
  }
  CHECK_OK(network_backward(b->net, all_steps, &ready));
  CU_ASSERT(b->once && b->n_notified == p->n_gradient);
  if (p->shape.V > 2 * KERNELS_TILES) {
    CU_ASSERT(b->slices > 1 + 2 * p->shape.L);
  } /* W_qh in slices */
  CU_ASSERT(memcmp(b->copied, b->net->gradient, p->n_gradient * sizeof *b->copied) == 0);
  for (size_t l = 0; held.p_weights > 0.0 && l < p->shape.L;
       ++l) { /* in two parts, as two ranks would */
    const size_t rows = layer_recurrent_rows(&b->net->layers[l]);
    layer_drop_gradient(&b->net->layers[l], &held, 0, rows / 2, b->copied);
    layer_drop_gradient(&b->net->layers[l], &held, rows / 2, rows, b->copied);
  }
  if (p->shape.tied) {
    embedding_add_tied(&b->net->embedding, 0, embedding_rows(&b->net->embedding), b->copied);
  }
}

/* Every element of every tensor; the parameters are as before afterwards. */
static void compare_with_differences(struct bench *b)
{
  const unroll_params *p = b->params;
  double worst = 0.0;
  int threads = omp_get_max_threads();

  omp_set_num_threads(1); /* thousands of tiny passes: regions would cost more than the work */
  for (size_t k = 0; k < p->n_tensors; ++k) {
    const unroll_tensor *t = &p->tensors[k];
    double largest = 0.0;
    for (size_t row = 0; row < t->rows; ++row) {
      for (size_t col = 0; col < t->cols; ++col) {
        size_t i = unroll_tensor_index(t, row, col);
        unroll_real w = p->values[i];
        double loss[2];
        p->values[i] = w + STEP;
        loss[1] = window_loss(b);
        p->values[i] = w - STEP;
        loss[0] = window_loss(b);
        p->values[i] = w;

        double a = b->copied[i], n = (loss[1] - loss[0]) / (2.0 * STEP);
        double error = fabs(a - n) / fmax(1.0, fmax(fabs(a), fabs(n)));
        if (!(error < 1e-6)) {
          fprintf(stderr, "%s/%s[%zu,%zu]: %.10g, differences say %.10g\n", t->group, t->name, row,
                  col, a, n);
        }
        worst = error > worst || isnan(error) ? error : worst;
        largest = fmax(largest, fabs(a));
      }
    }
    CU_ASSERT(largest > 1e-3); /* there was something to compare */
  }
  omp_set_num_threads(threads);
  CU_ASSERT(worst < 1e-6);
}

static void check_shape(unroll_shape shape, size_t shards)
{
  struct bench *b = bench_new(shape, shards);
  b->net->dropout = held;
  b->net->penalty = held_penalty;
  b->net->head.smoothing = held_smoothing;
  for (uint64_t w = 0; w < WINDOWS; ++w) {
    draw_tokens(b, w);
    network_get_state(b->net, b->state);
    differentiate(b);
    compare_with_differences(b);
    (void)window_loss(b); /* of the parameters as they are: the state moves on */
    network_carry(b->net, STEPS);
  }
  bench_free(b);
}

static void check_model(size_t V, size_t H, size_t L, kind of, size_t shards)
{
  check_shape(shape_of(V, H, L, of), shards);
}

/* The same with an embedding of E. */
static void check_embedding(size_t V, size_t E, size_t H, size_t L, kind of, size_t shards)
{
  unroll_shape shape = shape_of(V, H, L, of);
  shape.E = E;
  check_shape(shape, shards);
}

/* ------------------------------------------------------------------- cases */

static void test_real_is_double(void)
{
  CU_ASSERT_EQUAL(sizeof(unroll_real), 8);
}

static void test_backward_tanh_is_the_derivative(void)
{
  check_model(11, 7, 1, KIND_TANH, 2);
  check_model(5, 9, 2, KIND_TANH, 4);
  check_model(7, 5, 3, KIND_TANH, 2);
}

static void test_backward_relu_is_the_derivative(void)
{
  check_model(5, 9, 1, KIND_RELU, 4);
  check_model(11, 7, 2, KIND_RELU, 2);
  check_model(7, 5, 3, KIND_RELU, 4);
}

/* Longer than a vector register and a tile of the products, in every direction. */
static void test_backward_past_a_tile_is_the_derivative(void)
{
  check_model(37, 17, 1, KIND_TANH, 1);
  check_model(3, 35, 2, KIND_TANH, 2);
  check_model(101, 7, 1, KIND_TANH, 2);
}

static void test_backward_of_gated_cells_is_the_derivative(void)
{
  for (size_t k = GATED; k < KINDS; ++k) {
    check_model(11, 7, 1, all_kinds[k], 2);
    check_model(5, 18, 2, all_kinds[k], 4);
    check_model(7, 5, 3, all_kinds[k], 2);
  }
}

/* Smaller than a layer and larger, of a vocabulary below the window (dense) and above it (touched rows alone). */
static void test_backward_of_embeddings_is_the_derivative(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    check_embedding(11, 3, 7, 2 - k % 2, all_kinds[k], 2);
    check_embedding(43, 5, 6, 1 + k % 2, all_kinds[k], 4);
  }
  check_embedding(7, 35, 5, 2, KIND_TANH, 1);
}

/* Some of their elements dropped, and some whole words. */
static void test_backward_of_dropped_embeddings_is_the_derivative(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    held = (dropout){.p_embedding = 0.3, .p_words = 0.2, .per_step = k % 2 == 0, .update = k};
    check_embedding(11, 18, 7, 2 - k % 2, all_kinds[k], 2);
    check_embedding(43, 5, 6, 1 + k % 2, all_kinds[k], 4);
  }
  held = (dropout){0};
}

static void test_backward_of_dropped_weights_is_the_derivative(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    if (all_kinds[k].cell == UNROLL_CELL_MINGRU) { continue; }
    held = (dropout){.p_weights = 0.5, .update = 3};
    check_model(7, 18, 2 - k % 2, all_kinds[k], 2);
  }
  held = (dropout){0};
}

static void test_backward_of_smoothed_labels_is_the_derivative(void)
{
  held_smoothing = 0.2;
  check_model(7, 5, 2, KIND_TANH, 2);
  held_penalty = (penalty){.activation = 2.0, .change = 1.0};
  held = (dropout){.p = 0.4, .update = 4};
  check_model(5, 4, 1, all_kinds[GATED], 4);
  held = (dropout){0};
  held_penalty = (penalty){0};
  held_smoothing = 0.0;
}

/* Alone, and with dropout and penalties. */
static void test_backward_of_skip_connections_is_the_derivative(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    unroll_shape shape = shape_of(7, 5, 2 + k % 2, all_kinds[k]);
    shape.skip = true;
    check_shape(shape, 2);
  }
  held = (dropout){.p = 0.4, .per_step = true, .update = 4};
  held_penalty = (penalty){.activation = 2.0, .change = 1.0};
  unroll_shape all = shape_of(6, 5, 3, all_kinds[GATED]);
  all.skip = all.tied = true;
  all.E = all.H;
  check_shape(all, 4);
  held_penalty = (penalty){0};
  held = (dropout){0};
}

/* Alone, and with dropout, embeddings and a tied table. */
static void test_backward_of_penalties_is_the_derivative(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    held_penalty = (penalty){.activation = 2.0, .change = k % 2 == 0 ? 1.0 : 0.0};
    check_model(7, 5, 2 - k % 2, all_kinds[k], 2);
    unroll_shape tied = shape_of(7, 6, 1 + k % 2, all_kinds[k]);
    tied.tied = true;
    tied.E = tied.H;
    held_penalty = (penalty){.activation = k % 2 == 0 ? 0.0 : 2.0, .change = 1.0};
    held = (dropout){.p = 0.4, .p_embedding = 0.3, .per_step = k % 2 == 0, .update = 4};
    check_shape(tied, 4);
    held = (dropout){0};
  }
  held_penalty = (penalty){0};
}

/* One table of embeddings and output weights, whose two gradients are added. */
static void test_backward_of_a_tied_table_is_the_derivative(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    unroll_shape dense = shape_of(11, 7, 2 - k % 2, all_kinds[k]),
                 sparse = shape_of(43, 6, 1 + k % 2, all_kinds[k]);
    dense.tied = sparse.tied = true;
    dense.E = dense.H;
    sparse.E = sparse.H;
    check_shape(dense, 2);
    check_shape(sparse, 4);
  }
}

/* The later windows above would prove nothing if the carried state did not matter. */
static void test_window_loss_depends_on_the_carried_state(void)
{
  struct bench *b = bench_new(shape_of(11, 7, 2, KIND_TANH), 2);
  draw_tokens(b, 0);
  (void)window_loss(b);
  network_carry(b->net, STEPS);
  draw_tokens(b, 1);
  double from_zero = window_loss(b); /* b->state is zero */
  draw_tokens(b, 0);
  (void)window_loss(b);
  network_carry(b->net, STEPS);
  network_get_state(b->net, b->state);
  draw_tokens(b, 1);
  CU_ASSERT(fabs(window_loss(b) - from_zero) > 1e-3);
  bench_free(b);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"the build is in double", test_real_is_double},
      {"tanh, one to three layers", test_backward_tanh_is_the_derivative},
      {"ReLU, one to three layers", test_backward_relu_is_the_derivative},
      {"gated cells, one to three layers", test_backward_of_gated_cells_is_the_derivative},
      {"embeddings, dense and sparse", test_backward_of_embeddings_is_the_derivative},
      {"dropped weights", test_backward_of_dropped_weights_is_the_derivative},
      {"dropped embeddings", test_backward_of_dropped_embeddings_is_the_derivative},
      {"smoothed labels", test_backward_of_smoothed_labels_is_the_derivative},
      {"skip connections", test_backward_of_skip_connections_is_the_derivative},
      {"penalties on the states", test_backward_of_penalties_is_the_derivative},
      {"tied tables, dense and sparse", test_backward_of_a_tied_table_is_the_derivative},
      {"sizes beyond a tile", test_backward_past_a_tile_is_the_derivative},
      {"the carried state matters", test_window_loss_depends_on_the_carried_state},
  };
  return run_cases("model_gradient", sizeof cases / sizeof cases[0], cases);
}
