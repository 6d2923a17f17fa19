#include "kernel_support.h"

#include "kernels/recurrence.h"

#define TOKENS 4 /* rows of an indexed input */

typedef struct sizes {
  size_t T, B, H, shards;
} sizes;

/* One layer and a window of it. */
typedef struct layer {
  sizes n;
  size_t panel_T;
  unroll_activation activation;
  int indexed;
  matrix W, forward, backward, input, bias;
  matrix h, dh, panels; /* (T + 1) * B and T * B rows of H; state panels */
  int32_t *index;
  uint32_t *panel_row;
} layer;

static layer layer_new(sizes n, unroll_activation activation, int indexed)
{
  layer l = {.n = n, .panel_T = n.T + 2, .activation = activation, .indexed = indexed};
  l.W = matrix_new(n.H, n.H);
  l.forward = flat_new(weights_packed_size(n.H, n.H));
  l.backward = flat_new(weights_packed_size(n.H, n.H));
  l.input = matrix_new(indexed ? TOKENS : n.T * n.B, n.H);
  l.bias = matrix_shaped(1, n.H, kernels_pad(n.H), kernels_pad(n.H));
  l.h = matrix_new((n.T + 1) * n.B, n.H);
  l.dh = matrix_new(n.T * n.B, n.H);
  l.panels = flat_new(state_panels_size(l.panel_T, n.B, n.H));
  l.index = test_alloc(n.T * n.B, sizeof *l.index);
  l.panel_row = test_alloc(n.B, sizeof *l.panel_row);
  matrix_fill(&l.W);
  for (size_t i = 0; i < n.H; ++i) { /* sums of the size of 1: tanh neither linear nor saturated */
    for (size_t j = 0; j < n.H; ++j) { *at(&l.W, i, j) *= 2 / sqrtf((float)n.H); }
  }
  matrix_fill(&l.input);
  matrix_fill(&l.bias);
  for (size_t i = 0; i < n.T * n.B; ++i) { l.index[i] = (int32_t)next_below(TOKENS); }
  weights_pack(n.H, n.H, l.W.x, l.W.ld, 1, l.forward.x);
  weights_pack(n.H, n.H, l.W.x, l.W.ld, 0, l.backward.x);
  matrix_fill(&l.h);
  matrix_fill(&l.dh);
  return l;
}

static void layer_free(layer *l)
{
  matrix_free(&l->W);
  matrix_free(&l->forward);
  matrix_free(&l->backward);
  matrix_free(&l->input);
  matrix_free(&l->bias);
  matrix_free(&l->h);
  matrix_free(&l->dh);
  matrix_free(&l->panels);
  free(l->index);
  free(l->panel_row);
}

/* Steps [from, from + T) as a window of their own. */
static recurrence steps_of(const layer *l, size_t from, size_t T)
{
  size_t row = from * l->n.B;
  return (recurrence){.T = T,
                      .B = l->n.B,
                      .H = l->n.H,
                      .cell = cell_of(UNROLL_CELL_RNN, l->activation),
                      .ld = l->h.ld,
                      .h = at(&l->h, row, 0),
                      .forward = l->forward.x,
                      .backward = l->backward.x,
                      .input = l->indexed ? l->input.x : at(&l->input, row, 0),
                      .ld_input = l->input.ld,
                      .index = l->indexed ? l->index + row : NULL,
                      .bias = l->bias.x,
                      .panel_T = l->panel_T,
                      .shards = l->n.shards,
                      .panel_row = l->panel_row,
                      .deltas = at(&l->dh, row, 0),
                      .ld_deltas = l->dh.ld,
                      .xi = 1.0,
                      .dh = at(&l->dh, row, 0)};
}

static recurrence whole(const layer *l)
{
  recurrence r = steps_of(l, 0, l->n.T);
  r.state_panels = l->panels.x;
  return r;
}

static void count_call(void *calls)
{
  *(size_t *)calls += 1;
}

/* ------------------------------------------------------------------- oracles */

/* One element of slot t + 1 from slot t as it was computed: the equation of one step. */
static int state_is(const layer *l, size_t t, size_t b, size_t j)
{
  size_t row = t * l->n.B + b;
  dot d = dot_start(0);
  for (size_t k = 0; k < l->n.H; ++k) { dot_add(&d, *at(&l->h, row, k), *at(&l->W, j, k)); }
  unroll_real in = *at(&l->input, l->indexed ? (size_t)l->index[row] : row, j);
  unroll_real bias = *at(&l->bias, 0, j), a = (d.chain + in) + bias;
  unroll_real out = *at(&l->h, row + l->n.B, j);
  double exact = d.sum + (double)in + (double)bias;
  int is_tanh = l->activation == UNROLL_ACTIVATION_TANH;
  exact = is_tanh ? tanh(exact) : fmax(0, exact);
  return same_bits(out, is_tanh ? path_tanh(a)
                        : a > 0 ? a
                                : 0) &&
         fabs((double)out - exact) <= dot_bound(&d) + ROUNDOFF * (3 * (d.size + 2) + 8);
}

/* One element of dL/da_t, from dL/da_{t+1} as it was computed; `from` is dL/dh from above. */
static int gradient_is(const layer *l, const matrix *from, size_t t, size_t b, size_t j)
{
  size_t row = t * l->n.B + b;
  dot d = dot_start(0);
  for (size_t i = 0; i < l->n.H && t + 1 < l->n.T; ++i) {
    dot_add(&d, *at(&l->dh, row + l->n.B, i), *at(&l->W, i, j));
  }
  unroll_real above = *at(from, row, j), h = *at(&l->h, row + l->n.B, j);
  unroll_real dh = d.chain + above, out = *at(&l->dh, row, j), bits;
  double exact = d.sum + (double)above, bound = dot_bound(&d) + 4 * ROUNDOFF * (d.size + 1);
  if (l->activation == UNROLL_ACTIVATION_TANH) {
    bits = dh * madd(-h, h, 1);
    exact *= 1 - (double)h * (double)h;
  } else {
    bits = h > 0 ? dh : 0;
    exact = h > 0 ? exact : 0;
  }
  return same_bits(out, bits) && fabs((double)out - exact) <= bound;
}

/* Every slot stands in the state panels where their drawing says, and nothing else does. */
static int panels_are(const layer *l)
{
  matrix expected = flat_new(l->panels.cols);
  size_t in_shard = l->n.B / l->n.shards, nr = kernels()->nr;
  for (size_t q = 0; q < panel_count(l->n.H); ++q) {
    size_t width = panel_width(l->n.H, q);
    for (size_t t = 0; t <= l->n.T; ++t) {
      for (size_t b = 0; b < l->n.B; ++b) {
        size_t row = (b / in_shard * (l->panel_T + 1) + t) * in_shard + b % in_shard;
        memcpy(expected.x + q * state_panels_stride(l->panel_T, l->n.B) + row * width,
               at(&l->h, t * l->n.B + b, q * nr), width * sizeof *expected.x);
      }
    }
  }
  int ok = matrix_equal(&expected, &l->panels);
  matrix_free(&expected);
  return ok;
}

/* --------------------------------------------------------------------- cases */

/*
 * Both splits: few sequences go to the threads by columns, many (or one panel) by
 * rows; 363 units and more by columns too. Hidden sizes are multiples of nothing,
 * shards have one sequence or several.
 */
static const sizes all_sizes[] = {{1, 1, 1, 1},   {5, 1, 33, 1},   {5, 3, 7, 3},     {1, 3, 129, 1},
                                  {5, 16, 1, 4},  {5, 16, 33, 2},  {5, 16, 129, 16}, {1, 16, 7, 1},
                                  {2, 80, 33, 5}, {2, 80, 129, 1}, {2, 36, 370, 4},  {5, 2, 97, 2}};

static int forward_is(const layer *l)
{
  int ok = matrix_is_clean(&l->h) && panels_are(l);
  for (size_t t = 0; t < l->n.T; ++t) {
    for (size_t b = 0; b < l->n.B; ++b) {
      for (size_t j = 0; j < l->n.H; ++j) { ok &= state_is(l, t, b, j); }
    }
  }
  return ok;
}

static int backward_is(const layer *l, const matrix *from)
{
  int ok = matrix_is_clean(&l->dh);
  for (size_t t = 0; t < l->n.T; ++t) {
    for (size_t b = 0; b < l->n.B; ++b) {
      for (size_t j = 0; j < l->n.H; ++j) { ok &= gradient_is(l, from, t, b, j); }
    }
  }
  return ok;
}

static void check_layer(sizes n, unroll_activation activation, int indexed)
{
  layer l = layer_new(n, activation, indexed);
  matrix start = matrix_new(l.h.rows, n.H), from = matrix_new(l.dh.rows, n.H);
  matrix h = matrix_new(l.h.rows, n.H), dh = matrix_new(l.dh.rows, n.H);
  matrix_copy(&l.h, &start);
  matrix_copy(&l.dh, &from);
  for (size_t i = 0; i < COUNT(thread_counts); ++i) {
    size_t calls = 0;
    omp_set_num_threads(thread_counts[i]);
    matrix_copy(&start, &l.h);
    matrix_copy(&from, &l.dh);
    recurrence r = whole(&l);
    recurrence_forward(&r);
    recurrence_backward(&r, (kernel_poll){count_call, &calls});
    if (i == 0) {
      CHECK_AT(forward_is(&l), "forward: T %zu B %zu H %zu phi %d", n.T, n.B, n.H, (int)activation);
      CHECK_AT(backward_is(&l, &from), "backward: T %zu B %zu H %zu phi %d", n.T, n.B, n.H,
               (int)activation);
      matrix_copy(&l.h, &h);
      matrix_copy(&l.dh, &dh);
    }
    CHECK_AT(matrix_equal(&h, &l.h) && matrix_equal(&dh, &l.dh) && panels_are(&l),
             "T %zu B %zu H %zu phi %d threads %d", n.T, n.B, n.H, (int)activation,
             thread_counts[i]);
    CHECK_AT(calls == n.T, "polled %zu times in %zu steps: B %zu H %zu threads %d", calls, n.T, n.B,
             n.H, thread_counts[i]);
  }
  matrix_free(&start);
  matrix_free(&from);
  matrix_free(&h);
  matrix_free(&dh);
  layer_free(&l);
}

static void test_tanh_layer_follows_its_equations_for_any_threads(void)
{
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    check_layer(all_sizes[i], UNROLL_ACTIVATION_TANH, i % 2 == 0);
  }
}

static void test_relu_layer_follows_its_equations_for_any_threads(void)
{
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    check_layer(all_sizes[i], UNROLL_ACTIVATION_RELU, i % 2 == 1);
  }
}

static void test_forward_of_a_window_is_the_forward_of_its_steps(void)
{
  layer l = layer_new((sizes){5, 16, 33, 4}, UNROLL_ACTIVATION_TANH, 1);
  matrix h = matrix_new(l.h.rows, l.n.H);
  recurrence r = whole(&l);
  recurrence_forward(&r);
  matrix_copy(&l.h, &h);
  for (size_t row = l.n.B; row < l.h.rows; ++row) {
    memset(at(&l.h, row, 0), 0, l.h.width * sizeof *l.h.x);
  }
  for (size_t t = 0; t < l.n.T; ++t) {
    recurrence step = steps_of(&l, t, 1); /* without state panels: they are not wanted */
    recurrence_forward(&step);
  }
  CU_ASSERT(matrix_equal(&h, &l.h));
  matrix_free(&h);
  layer_free(&l);
}

/* Walked back in two parts, the later one first, the window has the bits that it has in one. */
static void test_backward_continues_from_the_step_behind(void)
{
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    for (int relu = 0; relu < 2; ++relu) {
      const sizes n = {5, all_sizes[i].B, all_sizes[i].H, all_sizes[i].shards};
      layer l = layer_new(n, relu ? UNROLL_ACTIVATION_RELU : UNROLL_ACTIVATION_TANH, 1);
      matrix from = matrix_new(l.dh.rows, n.H), dh = matrix_new(l.dh.rows, n.H);
      matrix after = matrix_new(n.B, n.H);
      matrix_copy(&l.dh, &from);
      recurrence r = whole(&l);
      recurrence_forward(&r);
      recurrence_backward(&r, (kernel_poll){NULL, NULL});
      matrix_copy(&l.dh, &dh);
      for (size_t t = 0; t < COUNT(thread_counts); ++t) {
        for (size_t half = 1; half < n.T; ++half) {
          omp_set_num_threads(thread_counts[t]);
          matrix_copy(&from, &l.dh);
          recurrence late = steps_of(&l, half, n.T - half), early = steps_of(&l, 0, half);
          recurrence_backward(&late, (kernel_poll){NULL, NULL});
          for (size_t b = 0; b < n.B; ++b) {
            memcpy(at(&after, b, 0), at(&l.dh, half * n.B + b, 0), l.dh.width * sizeof *l.dh.x);
          }
          early.after = after.x; /* a copy of its own, as the model has it */
          recurrence_backward(&early, (kernel_poll){NULL, NULL});
          CHECK_AT(matrix_equal(&dh, &l.dh), "B %zu H %zu phi %d threads %d, cut before step %zu",
                   n.B, n.H, relu, thread_counts[t], half);
        }
      }
      matrix_free(&from);
      matrix_free(&dh);
      matrix_free(&after);
      layer_free(&l);
    }
  }
}

/* One state becomes zero in both places where it stands, and nothing else changes. */
static void test_clear_sets_one_state_to_zero(void)
{
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    layer l = layer_new(all_sizes[i], UNROLL_ACTIVATION_TANH, 1);
    matrix h = matrix_new(l.h.rows, l.n.H);
    recurrence r = whole(&l);
    recurrence_forward(&r);
    for (size_t t = 0; t <= l.n.T; t += 2) {
      size_t b = (t + 5) % l.n.B;
      matrix_copy(&l.h, &h);
      memset(at(&h, t * l.n.B + b, 0), 0, h.width * sizeof *h.x);
      recurrence_clear(&r, t, b);
      CHECK_AT(matrix_equal(&h, &l.h) && panels_are(&l), "T %zu B %zu H %zu shards %zu slot %zu",
               l.n.T, l.n.B, l.n.H, l.n.shards, t);
    }
    matrix before = flat_new(l.panels.cols);
    matrix_copy(&l.panels, &before);
    r.state_panels = NULL; /* not wanted: the rows alone */
    recurrence_clear(&r, l.n.T, 0);
    CU_ASSERT(*at(&l.h, l.n.T * l.n.B, 0) == 0 && matrix_equal(&before, &l.panels));
    matrix_free(&before);
    matrix_free(&h);
    layer_free(&l);
  }
}

/* A sequence is no other sequence's business: alone it has the bits that it has among others. */
static void test_sequence_alone_is_the_same_as_among_others(void)
{
  layer l = layer_new((sizes){5, 17, 65, 1}, UNROLL_ACTIVATION_TANH, 1);
  layer one = layer_new((sizes){5, 1, 65, 1}, UNROLL_ACTIVATION_TANH, 1);
  const size_t b = 11;
  matrix_copy(&l.W, &one.W);
  matrix_copy(&l.forward, &one.forward);
  matrix_copy(&l.backward, &one.backward);
  matrix_copy(&l.input, &one.input);
  matrix_copy(&l.bias, &one.bias);
  memcpy(one.h.x, at(&l.h, b, 0), l.h.width * sizeof *l.h.x);
  for (size_t t = 0; t < 5; ++t) {
    one.index[t] = l.index[t * 17 + b];
    memcpy(at(&one.dh, t, 0), at(&l.dh, t * 17 + b, 0), l.dh.width * sizeof *l.dh.x);
  }
  recurrence r = whole(&l), r_one = whole(&one);
  recurrence_forward(&r);
  recurrence_backward(&r, (kernel_poll){NULL, NULL});
  recurrence_forward(&r_one);
  recurrence_backward(&r_one, (kernel_poll){NULL, NULL});
  for (size_t t = 0; t < 5; ++t) {
    CU_ASSERT(memcmp(at(&one.h, t + 1, 0), at(&l.h, (t + 1) * 17 + b, 0),
                     l.h.width * sizeof *l.h.x) == 0);
    CU_ASSERT(memcmp(at(&one.dh, t, 0), at(&l.dh, t * 17 + b, 0), l.dh.width * sizeof *l.dh.x) ==
              0);
  }
  layer_free(&l);
  layer_free(&one);
}

/* NaN in the state carried in shows in all later states of its sequence, and in no other. */
static void test_nan_shows_in_its_sequence_alone(void)
{
  for (int relu = 0; relu < 2; ++relu) {
    layer l =
        layer_new((sizes){3, 16, 33, 1}, relu ? UNROLL_ACTIVATION_RELU : UNROLL_ACTIVATION_TANH, 1);
    *at(&l.h, 5, 20) = NAN;
    recurrence r = whole(&l);
    recurrence_forward(&r);
    for (size_t row = 16; row < l.h.rows; ++row) {
      for (size_t j = 0; j < 33; ++j) { CU_ASSERT(!!isnan(*at(&l.h, row, j)) == (row % 16 == 5)); }
    }
    layer_free(&l);
  }
}

static uint64_t recurrence_fingerprint(void)
{
  layer l = layer_new((sizes){5, 6, 77, 2}, UNROLL_ACTIVATION_TANH, 1);
  recurrence r = whole(&l);
  recurrence_forward(&r);
  recurrence_backward(&r, (kernel_poll){NULL, NULL});
  uint64_t hash = matrix_fingerprint(matrix_fingerprint(FINGERPRINT_START, &l.h), &l.dh);
  layer_free(&l);
  return hash;
}

static void test_recurrence_of_avx2_and_avx512_is_equal(void)
{
  CU_ASSERT(paths_agree(recurrence_fingerprint));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"tanh: equations, any threads", test_tanh_layer_follows_its_equations_for_any_threads},
      {"relu: equations, any threads", test_relu_layer_follows_its_equations_for_any_threads},
      {"window equals steps", test_forward_of_a_window_is_the_forward_of_its_steps},
      {"backward continues", test_backward_continues_from_the_step_behind},
      {"clear", test_clear_sets_one_state_to_zero},
      {"sequences are independent", test_sequence_alone_is_the_same_as_among_others},
      {"NaN stays in its sequence", test_nan_shows_in_its_sequence_alone},
      {"avx2 equals avx512", test_recurrence_of_avx2_and_avx512_is_equal},
  };
  return run_kernel_cases("recurrence", COUNT(cases), cases);
}
