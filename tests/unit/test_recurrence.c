#include "kernel_support.h"

#include "kernels/recurrence.h"

#define TOKENS 4 /* rows of an indexed input */

typedef struct sizes {
  size_t T, B, H, shards;
} sizes;

/* What the passes write: T + 1 slots of states, T steps of gradients, what crosses the edge of a step. */
typedef struct window {
  matrix h, c;       /* (T + 1) * B rows of H */
  matrix deltas, dh; /* T * B rows, of blocks of H and of H */
  matrix dc, bypass; /* B rows of H */
} window;

/* One layer and a window of it. */
typedef struct layer {
  sizes n;
  size_t panel_T;
  const cell *cell;
  int indexed;
  double xi;
  matrix W, forward, backward, input, bias, hidden_bias;
  window w;
  matrix panels; /* state panels */
  int32_t *index;
  uint32_t *panel_row;
} layer;

static const struct {
  unroll_cell kind;
  unroll_activation activation;
} all_cells[] = {{UNROLL_CELL_RNN, UNROLL_ACTIVATION_TANH},
                 {UNROLL_CELL_RNN, UNROLL_ACTIVATION_RELU},
                 {UNROLL_CELL_LSTM, UNROLL_ACTIVATION_TANH},
                 {UNROLL_CELL_GRU, UNROLL_ACTIVATION_TANH},
                 {UNROLL_CELL_MINGRU, UNROLL_ACTIVATION_TANH}};

static const cell *cell_number(size_t i)
{
  return cell_of(all_cells[i].kind, all_cells[i].activation);
}

/* Blocks of H columns at random, zero between them. */
static void fill_blocks(const matrix *m, size_t H)
{
  for (size_t r = 0; r < m->rows; ++r) {
    for (size_t c = 0; c < m->width; ++c) {
      *at(m, r, c) = c % kernels_pad(H) < H ? next_real() : 0;
    }
  }
}

/* Nothing was written beside blocks of H columns, and what is between them is zero. */
static int blocks_are_clean(const matrix *m, size_t H)
{
  int ok = matrix_is_clean(m);
  for (size_t r = 0; r < m->rows; ++r) {
    for (size_t c = 0; c < m->width; ++c) { ok &= c % kernels_pad(H) < H || *at(m, r, c) == 0; }
  }
  return ok;
}

static window window_new(sizes n, const cell *c)
{
  window w = {.h = matrix_new((n.T + 1) * n.B, n.H),
              .c = matrix_new((n.T + 1) * n.B, n.H),
              .deltas = matrix_new(n.T * n.B, blocks_size(cell_deltas(c), n.H)),
              .dh = matrix_new(n.T * n.B, n.H),
              .dc = matrix_new(n.B, n.H),
              .bypass = matrix_new(n.B, n.H)};
  fill_blocks(&w.h, n.H);
  fill_blocks(&w.c, n.H);
  fill_blocks(&w.deltas, n.H);
  fill_blocks(&w.dh, n.H);
  fill_blocks(&w.dc, n.H);
  fill_blocks(&w.bypass, n.H);
  return w;
}

static void window_free(window *w)
{
  matrix_free(&w->h);
  matrix_free(&w->c);
  matrix_free(&w->deltas);
  matrix_free(&w->dh);
  matrix_free(&w->dc);
  matrix_free(&w->bypass);
}

static void window_copy(const window *from, const window *to)
{
  matrix_copy(&from->h, &to->h);
  matrix_copy(&from->c, &to->c);
  matrix_copy(&from->deltas, &to->deltas);
  matrix_copy(&from->dh, &to->dh);
  matrix_copy(&from->dc, &to->dc);
  matrix_copy(&from->bypass, &to->bypass);
}

static int window_equal(const window *a, const window *b)
{
  return matrix_equal(&a->h, &b->h) && matrix_equal(&a->c, &b->c) &&
         matrix_equal(&a->deltas, &b->deltas) && matrix_equal(&a->dh, &b->dh) &&
         matrix_equal(&a->dc, &b->dc) && matrix_equal(&a->bypass, &b->bypass);
}

static layer layer_new(sizes n, const cell *c, int indexed)
{
  layer l = {.n = n, .panel_T = n.T + 2, .cell = c, .indexed = indexed, .xi = 1.0};
  const size_t rows = blocks_size(c->recurrent, n.H), in = blocks_size(c->inputs, n.H);
  l.W = matrix_new(rows, n.H);
  l.forward = flat_new(c->recurrent * weights_packed_size(n.H, n.H));
  l.backward = flat_new(weights_packed_size(n.H, rows));
  l.input = matrix_new(indexed ? TOKENS : n.T * n.B, in);
  l.bias = matrix_shaped(1, in, kernels_pad(in), kernels_pad(in));
  l.hidden_bias = matrix_shaped(1, n.H, kernels_pad(n.H), kernels_pad(n.H));
  l.w = window_new(n, c);
  l.panels = flat_new(state_panels_size(l.panel_T, n.B, n.H));
  l.index = test_alloc(n.T * n.B, sizeof *l.index);
  l.panel_row = test_alloc(n.B, sizeof *l.panel_row);
  matrix_fill(&l.W);
  for (size_t i = 0; i < rows; ++i) { /* sums of the size of 1: tanh neither linear nor saturated */
    const float scale = i % kernels_pad(n.H) < n.H ? 2 / sqrtf((float)n.H) : 0;
    for (size_t j = 0; j < n.H; ++j) { *at(&l.W, i, j) *= scale; }
  }
  fill_blocks(&l.input, n.H);
  fill_blocks(&l.bias, n.H);
  fill_blocks(&l.hidden_bias, n.H);
  for (size_t i = 0; i < n.T * n.B; ++i) { l.index[i] = (int32_t)next_below(TOKENS); }
  if (c->recurrent > 0) {
    recurrent_pack(c->recurrent, n.H, l.W.x, l.W.ld, l.forward.x);
    weights_pack(rows, n.H, l.W.x, l.W.ld, 0, l.backward.x);
  }
  return l;
}

/* The factor of randomized back-propagation; a power of two, so that it changes no digit. */
static void layer_set_xi(layer *l, double xi)
{
  weights_scale(weights_packed_size(l->n.H, l->W.rows), xi / l->xi, l->backward.x);
  l->xi = xi;
}

static void layer_free(layer *l)
{
  matrix_free(&l->W);
  matrix_free(&l->forward);
  matrix_free(&l->backward);
  matrix_free(&l->input);
  matrix_free(&l->bias);
  matrix_free(&l->hidden_bias);
  window_free(&l->w);
  matrix_free(&l->panels);
  free(l->index);
  free(l->panel_row);
}

/* Where the deltas go: in the place of dh, of a cell that keeps nothing. */
static const matrix *deltas_of(const layer *l)
{
  return l->cell->kept > 0 ? &l->w.deltas : &l->w.dh;
}

/* Steps [from, from + T) as a window of their own. */
static recurrence steps_of(const layer *l, size_t from, size_t T)
{
  const size_t row = from * l->n.B;
  const cell *c = l->cell;
  return (recurrence){.T = T,
                      .B = l->n.B,
                      .H = l->n.H,
                      .cell = c,
                      .ld = l->w.h.ld,
                      .h = at(&l->w.h, row, 0),
                      .c = c->memory ? at(&l->w.c, row, 0) : NULL,
                      .forward = c->recurrent > 0 ? l->forward.x : NULL,
                      .backward = c->recurrent > 0 ? l->backward.x : NULL,
                      .input = l->indexed ? l->input.x : at(&l->input, row, 0),
                      .ld_input = l->input.ld,
                      .index = l->indexed ? l->index + row : NULL,
                      .bias = l->bias.x,
                      .hidden_bias = c->id == CELL_gru ? l->hidden_bias.x : NULL,
                      .panel_T = l->panel_T,
                      .shards = l->n.shards,
                      .panel_row = l->panel_row,
                      .deltas = at(deltas_of(l), row, 0),
                      .ld_deltas = deltas_of(l)->ld,
                      .xi = l->xi,
                      .dh = at(&l->w.dh, row, 0),
                      .dc = c->memory ? l->w.dc.x : NULL,
                      .bypass = c->bypass ? l->w.bypass.x : NULL};
}

static recurrence whole(const layer *l)
{
  recurrence r = steps_of(l, 0, l->n.T);
  r.state_panels = l->panels.x;
  return r;
}

static void pass_both_ways(const layer *l)
{
  recurrence r = whole(l);
  recurrence_forward(&r);
  recurrence_backward(&r, (kernel_poll){NULL, NULL});
}

static void count_call(void *calls)
{
  *(size_t *)calls += 1;
}

/* ----------------------------------------------------------------- equations */

/*
 * One unit of one sequence in one step: the cells of design.md section 1 in double, their blocks in the order that the
 * table of cell.h gives.
 */
typedef struct unit {
  double in[CELL_BLOCKS], recur[CELL_BLOCKS]; /* W_xh x_t + b_h, W_hh h_{t-1} */
  double b_hn, h_before, c_before;
  double h, c, kept[CELL_BLOCKS];
  double size; /* of the terms of the sums */
} unit;

/* Gradients: of h_t and c_t in; of the pre-activations, and past the product of h_{t-1} and c_{t-1}, out. */
typedef struct unit_gradient {
  double dh, dc;
  double delta[CELL_BLOCKS], dh_before, dc_before;
} unit_gradient;

static double logistic(double a)
{
  return 1 / (1 + exp(-a));
}

static void unit_forward(const cell *c, unit *u)
{
  const double *in = u->in, *recur = u->recur;
  switch (c->id) {
  case CELL_tanh:
    u->h = tanh(in[0] + recur[0]);
    break;
  case CELL_relu:
    u->h = fmax(0, in[0] + recur[0]);
    break;
  case CELL_lstm: { /* i f g o */
    double i = logistic(in[0] + recur[0]), f = logistic(in[1] + recur[1]);
    double g = tanh(in[2] + recur[2]), o = logistic(in[3] + recur[3]);
    u->c = f * u->c_before + i * g;
    u->h = o * tanh(u->c);
    memcpy(u->kept, (double[]){i, f, g, o}, sizeof u->kept);
    break;
  }
  case CELL_gru: { /* W_xh: n r z; W_hh: r z n */
    double r = logistic(in[1] + recur[0]), z = logistic(in[2] + recur[1]);
    double back = recur[2] + u->b_hn, n = tanh(in[0] + r * back);
    u->h = (1 - z) * n + z * u->h_before;
    memcpy(u->kept, (double[]){n, r, z, back}, sizeof u->kept);
    break;
  }
  case CELL_mingru: { /* z n */
    double z = logistic(in[0]), n = in[1];
    u->h = (1 - z) * u->h_before + z * n;
    memcpy(u->kept, (double[]){z, n, 0, 0}, sizeof u->kept);
    break;
  }
  case CELL_COUNT:
    break;
  }
}

/* With s the logistic function: s' = s (1 - s), tanh' = 1 - tanh^2. */
static void unit_backward(const cell *c, const unit *u, unit_gradient *d)
{
  const double *kept = u->kept, dh = d->dh;
  d->dh_before = d->dc_before = 0;
  switch (c->id) {
  case CELL_tanh:
    d->delta[0] = dh * (1 - u->h * u->h);
    break;
  case CELL_relu:
    d->delta[0] = u->h > 0 ? dh : 0;
    break;
  case CELL_lstm: {
    double i = kept[0], f = kept[1], g = kept[2], o = kept[3], t = tanh(u->c);
    double dc = d->dc + dh * o * (1 - t * t); /* h_t = o tanh(c_t) */
    d->delta[0] = dc * g * i * (1 - i);
    d->delta[1] = dc * u->c_before * f * (1 - f);
    d->delta[2] = dc * i * (1 - g * g);
    d->delta[3] = dh * t * o * (1 - o);
    d->dc_before = dc * f;
    break;
  }
  case CELL_gru: {
    double n = kept[0], r = kept[1], z = kept[2], back = kept[3];
    double dn = dh * (1 - z), dz = dh * (u->h_before - n);
    d->delta[0] = dn * (1 - n * n);
    d->delta[1] = d->delta[0] * back * r * (1 - r);
    d->delta[2] = dz * z * (1 - z);
    d->delta[3] = d->delta[0] * r; /* of W_hn h_{t-1} + b_hn */
    d->dh_before = dh * z;
    break;
  }
  case CELL_mingru: {
    double z = kept[0], n = kept[1];
    d->delta[0] = dh * (n - u->h_before) * z * (1 - z);
    d->delta[1] = dh * z;
    d->dh_before = dh * (1 - z);
    break;
  }
  case CELL_COUNT:
    break;
  }
}

/* ------------------------------------------------------------------- oracles */

/*
 * x is what float makes of the equations, whose values and slopes are of the size of 1, from terms of this size in
 * sum: some roundings of that, as those of a long sum mostly cancel. 8 were seen.
 */
static int near(unroll_real x, double exact, double size)
{
  return fabs((double)x - exact) <= 32 * ROUNDOFF * (1 + size); /* false of NaN */
}

static size_t input_row(const layer *l, size_t row)
{
  return l->indexed ? (size_t)l->index[row] : row;
}

/* W_hh h of a block's unit. */
static dot recurrent_sum(const layer *l, size_t row, size_t k, size_t j)
{
  dot d = dot_start(0);
  for (size_t i = 0; i < l->n.H; ++i) {
    dot_add(&d, *at(&l->w.h, row, i), *at(&l->W, k * kernels_pad(l->n.H) + j, i));
  }
  return d;
}

/* One element of slot t + 1, and what is kept, from slot t as it was computed. */
static int state_is(const layer *l, size_t t, size_t b, size_t j, unit *u)
{
  const cell *c = l->cell;
  const size_t row = t * l->n.B + b, after = row + l->n.B, block = kernels_pad(l->n.H);
  const unroll_real *in = at(&l->input, input_row(l, row), j), *bias = at(&l->bias, 0, j);
  const unroll_real out = *at(&l->w.h, after, j);
  dot d = dot_start(0);
  *u = (unit){.h_before = (double)*at(&l->w.h, row, j),
              .c_before = (double)*at(&l->w.c, row, j),
              .b_hn = (double)*at(&l->hidden_bias, 0, j)};
  for (size_t k = 0; k < c->inputs; ++k) {
    u->in[k] = (double)in[k * block] + (double)bias[k * block];
    u->size += fabs(u->in[k]);
  }
  for (size_t k = 0; k < c->recurrent; ++k) {
    d = recurrent_sum(l, row, k, j);
    u->recur[k] = d.sum;
    u->size += d.size;
  }
  unit_forward(c, u);

  int ok = near(out, u->h, u->size);
  if (c->memory) { ok &= near(*at(&l->w.c, after, j), u->c, u->size); }
  for (size_t k = 0; k < c->kept; ++k) {
    ok &= near(*at(&l->w.deltas, row, k * block + j), u->kept[k], u->size);
  }
  const unroll_real a = (d.chain + *in) + *bias; /* to the bit, where one sum is all */
  if (c->id == CELL_tanh) { ok &= same_bits(out, path_tanh(a)); }
  if (c->id == CELL_relu) { ok &= same_bits(out, a > 0 ? a : 0); }
  u->h = (double)out; /* for the slope of ReLU, which jumps where h is as good as zero */
  return ok;
}

/* What of the gradient reaches the step before past the product, and the size of all that it was made of. */
typedef struct flow {
  double dh, dc, size;
} flow;

/* One element of dL/da_t from dL/da_{t+1} as it was computed; dL/dh from above stands in `from`. */
static int gradient_is(const layer *l, const unit *u, const matrix *from, size_t t, size_t b,
                       size_t j, flow *f)
{
  const cell *c = l->cell;
  const matrix *deltas = deltas_of(l);
  const size_t row = t * l->n.B + b, block = kernels_pad(l->n.H);
  dot d = dot_start(0);
  for (size_t k = 0; k < c->recurrent && t + 1 < l->n.T; ++k) {
    for (size_t i = 0; i < l->n.H; ++i) {
      dot_add(&d, *at(deltas, row + l->n.B, (c->first_recurrent + k) * block + i),
              (unroll_real)l->xi * *at(&l->W, k * block + i, j));
    }
  }
  const unroll_real above = *at(from, row, j);
  const double size = d.size + fabs((double)above) + f->size;
  unit_gradient g = {.dh = d.sum + (double)above + f->dh, .dc = f->dc};
  unit_backward(c, u, &g);

  int ok = 1;
  for (size_t k = 0; k < cell_deltas(c); ++k) {
    ok &= near(*at(deltas, row, k * block + j), g.delta[k], size);
  }
  *f = (flow){l->xi * g.dh_before, l->xi * g.dc_before, l->xi * size};
  if (c->memory && t == 0) { ok &= near(*at(&l->w.dc, b, j), f->dc, f->size); }
  if (c->bypass && t == 0) { ok &= near(*at(&l->w.bypass, b, j), f->dh, f->size); }

  const unroll_real dh = d.chain + above, out = *at(deltas, row, j),
                    h = *at(&l->w.h, row + l->n.B, j);
  if (c->id == CELL_tanh) { ok &= same_bits(out, dh * madd(-h, h, 1)); }
  if (c->id == CELL_relu) { ok &= same_bits(out, h > 0 ? dh : 0); }
  return ok;
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
               at(&l->w.h, t * l->n.B + b, q * nr), width * sizeof *expected.x);
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

/* `units` (T, B, H) is what the equations say of each. */
static int forward_is(const layer *l, unit *units)
{
  int ok = blocks_are_clean(&l->w.h, l->n.H) && blocks_are_clean(&l->w.c, l->n.H) && panels_are(l);
  for (size_t t = 0; t < l->n.T; ++t) {
    for (size_t b = 0; b < l->n.B; ++b) {
      for (size_t j = 0; j < l->n.H; ++j) { ok &= state_is(l, t, b, j, units++); }
    }
  }
  return ok;
}

static int backward_is(const layer *l, const unit *units, const matrix *from)
{
  const size_t B = l->n.B, H = l->n.H;
  int ok = blocks_are_clean(deltas_of(l), H);
  for (size_t b = 0; b < B; ++b) {
    for (size_t j = 0; j < H; ++j) {
      flow f = {0};
      for (size_t t = l->n.T; t-- > 0;) {
        ok &= gradient_is(l, &units[(t * B + b) * H + j], from, t, b, j, &f);
      }
    }
  }
  return ok;
}

static void check_layer(sizes n, const cell *c, int indexed, double xi)
{
  layer l = layer_new(n, c, indexed);
  window start = window_new(n, c), first = window_new(n, c);
  unit *units = test_alloc(n.T * n.B * n.H, sizeof *units);
  layer_set_xi(&l, xi);
  window_copy(&l.w, &start);
  for (size_t i = 0; i < COUNT(thread_counts); ++i) {
    size_t calls = 0;
    omp_set_num_threads(thread_counts[i]);
    window_copy(&start, &l.w);
    recurrence r = whole(&l);
    recurrence_forward(&r);
    if (i == 0) {
      CHECK_AT(forward_is(&l, units), "forward: T %zu B %zu H %zu cell %d", n.T, n.B, n.H,
               (int)c->id);
    }
    recurrence_backward(&r, (kernel_poll){count_call, &calls});
    if (i == 0) {
      CHECK_AT(backward_is(&l, units, &start.dh), "backward: T %zu B %zu H %zu cell %d xi %g", n.T,
               n.B, n.H, (int)c->id, xi);
      window_copy(&l.w, &first);
    }
    CHECK_AT(window_equal(&first, &l.w) && panels_are(&l), "T %zu B %zu H %zu cell %d threads %d",
             n.T, n.B, n.H, (int)c->id, thread_counts[i]);
    CHECK_AT(calls == n.T, "polled %zu times in %zu steps: B %zu H %zu threads %d", calls, n.T, n.B,
             n.H, thread_counts[i]);
  }
  free(units);
  window_free(&start);
  window_free(&first);
  layer_free(&l);
}

static void check_cell(unroll_cell kind, unroll_activation activation)
{
  const cell *c = cell_of(kind, activation);
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    check_layer(all_sizes[i], c, i % 2 == 0, i % 3 == 0 ? 1.0 : 2.0);
  }
}

static void test_tanh_layer_follows_its_equations_for_any_threads(void)
{
  check_cell(UNROLL_CELL_RNN, UNROLL_ACTIVATION_TANH);
}

static void test_relu_layer_follows_its_equations_for_any_threads(void)
{
  check_cell(UNROLL_CELL_RNN, UNROLL_ACTIVATION_RELU);
}

static void test_lstm_layer_follows_its_equations_for_any_threads(void)
{
  check_cell(UNROLL_CELL_LSTM, UNROLL_ACTIVATION_TANH);
}

static void test_gru_layer_follows_its_equations_for_any_threads(void)
{
  check_cell(UNROLL_CELL_GRU, UNROLL_ACTIVATION_TANH);
}

static void test_mingru_layer_follows_its_equations_for_any_threads(void)
{
  check_cell(UNROLL_CELL_MINGRU, UNROLL_ACTIVATION_TANH);
}

static void test_forward_of_a_window_is_the_forward_of_its_steps(void)
{
  for (size_t i = 0; i < COUNT(all_cells); ++i) {
    const sizes n = {5, 16, 33, 4};
    layer l = layer_new(n, cell_number(i), 1);
    window made = window_new(n, l.cell);
    recurrence r = whole(&l);
    recurrence_forward(&r);
    window_copy(&l.w, &made);
    for (size_t row = n.B; row < l.w.h.rows; ++row) {
      memset(at(&l.w.h, row, 0), 0, l.w.h.width * sizeof *l.w.h.x);
      memset(at(&l.w.c, row, 0), 0, l.w.c.width * sizeof *l.w.c.x);
    }
    matrix_zero(&l.w.deltas);
    for (size_t t = 0; t < n.T; ++t) {
      recurrence step = steps_of(&l, t, 1);   /* without state panels: they are not wanted */
      if (t % 2 == 1) { step.deltas = NULL; } /* nor is what is kept: no backward pass will come */
      recurrence_forward(&step);
    }
    for (size_t row = 0; row < l.w.deltas.rows && l.cell->kept > 0; ++row) {
      const unroll_real *kept = at(&l.w.deltas, row, 0), *all = at(&made.deltas, row, 0);
      const size_t bytes = l.w.deltas.width * sizeof *kept;
      if (row / n.B % 2 == 1) {
        for (size_t j = 0; j < l.w.deltas.width; ++j) { CU_ASSERT(kept[j] == 0); }
      } else {
        CU_ASSERT(memcmp(kept, all, bytes) == 0);
      }
    }
    CHECK_AT(matrix_equal(&made.h, &l.w.h) && (!l.cell->memory || matrix_equal(&made.c, &l.w.c)),
             "cell %d", (int)l.cell->id);
    window_free(&made);
    layer_free(&l);
  }
}

/* Walked back in two parts, the later one first, the window has the bits that it has in one. */
static void check_backward_in_parts(sizes n, const cell *c)
{
  layer l = layer_new(n, c, 1);
  window forward = window_new(n, c), made = window_new(n, c);
  matrix after = matrix_new(n.B, deltas_of(&l)->cols);
  recurrence r = whole(&l);
  layer_set_xi(&l, 2.0);
  r.xi = l.xi;
  recurrence_forward(&r);
  window_copy(&l.w, &forward);
  recurrence_backward(&r, (kernel_poll){NULL, NULL});
  window_copy(&l.w, &made);
  for (size_t t = 0; t < COUNT(thread_counts); ++t) {
    for (size_t half = 1; half < n.T; ++half) {
      omp_set_num_threads(thread_counts[t]);
      window_copy(&forward, &l.w);
      recurrence late = steps_of(&l, half, n.T - half), early = steps_of(&l, 0, half);
      recurrence_backward(&late, (kernel_poll){NULL, NULL});
      for (size_t b = 0; b < n.B; ++b) {
        memcpy(at(&after, b, 0), at(deltas_of(&l), half * n.B + b, 0),
               after.width * sizeof *after.x);
      }
      early.after = after.x; /* a copy of its own, as the model has it */
      recurrence_backward(&early, (kernel_poll){NULL, NULL});
      CHECK_AT(window_equal(&made, &l.w), "B %zu H %zu cell %d threads %d, cut before step %zu",
               n.B, n.H, (int)c->id, thread_counts[t], half);
    }
  }
  window_free(&forward);
  window_free(&made);
  matrix_free(&after);
  layer_free(&l);
}

static void test_backward_continues_from_the_step_behind(void)
{
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    for (size_t k = 0; k < COUNT(all_cells); ++k) {
      const sizes n = {5, all_sizes[i].B, all_sizes[i].H, all_sizes[i].shards};
      check_backward_in_parts(n, cell_number(k));
    }
  }
}

/* One state becomes zero wherever it stands, and nothing else changes. */
static void check_clear(sizes n, const cell *c)
{
  layer l = layer_new(n, c, 1);
  window expected = window_new(n, c);
  recurrence r = whole(&l);
  recurrence_forward(&r);
  for (size_t t = 0; t <= n.T; t += 2) {
    const size_t b = (t + 5) % n.B, row = t * n.B + b;
    window_copy(&l.w, &expected);
    memset(at(&expected.h, row, 0), 0, expected.h.width * sizeof *expected.h.x);
    if (c->memory) { memset(at(&expected.c, row, 0), 0, expected.c.width * sizeof *expected.c.x); }
    recurrence_zero_state(&r, t, b);
    CHECK_AT(window_equal(&expected, &l.w) && panels_are(&l),
             "T %zu B %zu H %zu shards %zu cell %d slot %zu", n.T, n.B, n.H, n.shards, (int)c->id,
             t);
  }
  matrix before = flat_new(l.panels.cols);
  matrix_copy(&l.panels, &before);
  r.state_panels = NULL; /* not wanted: the rows alone */
  recurrence_zero_state(&r, n.T, 0);
  CU_ASSERT(*at(&l.w.h, n.T * n.B, 0) == 0 && matrix_equal(&before, &l.panels));
  matrix_free(&before);
  window_free(&expected);
  layer_free(&l);
}

static void test_clear_sets_one_state_to_zero(void)
{
  for (size_t i = 0; i < COUNT(all_sizes); ++i) {
    for (size_t k = 0; k < COUNT(all_cells); ++k) { check_clear(all_sizes[i], cell_number(k)); }
  }
}

/* A sequence that has ended, its states cleared, has the gradients of the window that ends with it. */
static void check_ended(const cell *c)
{
  const sizes n = {5, 6, 33, 2};
  const size_t b = 4, end = 3, bytes = kernels_pad(n.H) * sizeof(unroll_real);
  layer l = layer_new(n, c, 1);
  window forward = window_new(n, c), made = window_new(n, c);
  layer_set_xi(&l, 2.0);
  recurrence r = whole(&l), until = steps_of(&l, 0, end);
  recurrence_forward(&r);
  for (size_t t = end; t < n.T; ++t) {
    recurrence_zero_state(&r, t + 1, b);
    memset(at(&l.w.dh, t * n.B + b, 0), 0, bytes);
  }
  window_copy(&l.w, &forward);
  recurrence_backward(&r, (kernel_poll){NULL, NULL});
  window_copy(&l.w, &made);
  window_copy(&forward, &l.w);
  recurrence_backward(&until, (kernel_poll){NULL, NULL});

  const matrix *expected = deltas_of(&l), *deltas = c->kept > 0 ? &made.deltas : &made.dh;
  for (size_t t = 0; t < n.T; ++t) {
    const size_t row = t * n.B + b;
    for (size_t j = 0; j < deltas->width; ++j) {
      CHECK_AT(*at(deltas, row, j) == (t < end ? *at(expected, row, j) : 0),
               "cell %d step %zu column %zu", (int)c->id, t, j);
    }
  }
  for (size_t j = 0; j < n.H; ++j) {
    CU_ASSERT(!c->memory || *at(&made.dc, b, j) == *at(&l.w.dc, b, j));
    CU_ASSERT(!c->bypass || *at(&made.bypass, b, j) == *at(&l.w.bypass, b, j));
  }
  window_free(&forward);
  window_free(&made);
  layer_free(&l);
}

static void test_ended_sequence_has_the_gradients_of_the_shorter_window(void)
{
  for (size_t k = 0; k < COUNT(all_cells); ++k) { check_ended(cell_number(k)); }
}

/* A sequence is no other sequence's business: alone it has the bits that it has among others. */
static void check_alone(const cell *c)
{
  const sizes n = {5, 17, 65, 1};
  layer l = layer_new(n, c, 1), one = layer_new((sizes){5, 1, 65, 1}, c, 1);
  const size_t b = 11, state = l.w.h.width * sizeof *l.w.h.x,
               deltas = deltas_of(&l)->width * sizeof *l.w.h.x;
  matrix_copy(&l.W, &one.W);
  matrix_copy(&l.forward, &one.forward);
  matrix_copy(&l.backward, &one.backward);
  matrix_copy(&l.input, &one.input);
  matrix_copy(&l.bias, &one.bias);
  matrix_copy(&l.hidden_bias, &one.hidden_bias);
  memcpy(one.w.h.x, at(&l.w.h, b, 0), state);
  memcpy(one.w.c.x, at(&l.w.c, b, 0), state);
  for (size_t t = 0; t < n.T; ++t) {
    one.index[t] = l.index[t * n.B + b];
    memcpy(at(&one.w.dh, t, 0), at(&l.w.dh, t * n.B + b, 0), state);
  }
  pass_both_ways(&l);
  pass_both_ways(&one);
  for (size_t t = 0; t < n.T; ++t) {
    const size_t row = t * n.B + b;
    CU_ASSERT(memcmp(at(&one.w.h, t + 1, 0), at(&l.w.h, row + n.B, 0), state) == 0);
    CU_ASSERT(memcmp(at(deltas_of(&one), t, 0), at(deltas_of(&l), row, 0), deltas) == 0);
  }
  layer_free(&l);
  layer_free(&one);
}

static void test_sequence_alone_is_the_same_as_among_others(void)
{
  for (size_t k = 0; k < COUNT(all_cells); ++k) { check_alone(cell_number(k)); }
}

/* NaN in the state carried in shows in all later states of its sequence, and in no other; a product spreads it. */
static void test_nan_shows_in_its_sequence_alone(void)
{
  for (size_t k = 0; k < COUNT(all_cells); ++k) {
    layer l = layer_new((sizes){3, 16, 33, 1}, cell_number(k), 1);
    *at(&l.w.h, 5, 20) = NAN;
    recurrence r = whole(&l);
    recurrence_forward(&r);
    for (size_t row = 16; row < l.w.h.rows; ++row) {
      for (size_t j = 0; j < 33; ++j) {
        const int reached = row % 16 == 5 && (l.cell->recurrent > 0 || j == 20);
        CU_ASSERT((isnan(*at(&l.w.h, row, j)) != 0) == reached);
      }
    }
    layer_free(&l);
  }
}

static uint64_t recurrence_fingerprint(void)
{
  uint64_t hash = FINGERPRINT_START;
  for (size_t k = 0; k < COUNT(all_cells); ++k) {
    layer l = layer_new((sizes){5, 6, 77, 2}, cell_number(k), 1);
    pass_both_ways(&l);
    hash = matrix_fingerprint(matrix_fingerprint(hash, &l.w.h), deltas_of(&l));
    hash = matrix_fingerprint(matrix_fingerprint(hash, &l.w.c), &l.w.dc);
    layer_free(&l);
  }
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
      {"lstm: equations, any threads", test_lstm_layer_follows_its_equations_for_any_threads},
      {"gru: equations, any threads", test_gru_layer_follows_its_equations_for_any_threads},
      {"mingru: equations, any threads", test_mingru_layer_follows_its_equations_for_any_threads},
      {"window equals steps", test_forward_of_a_window_is_the_forward_of_its_steps},
      {"backward continues", test_backward_continues_from_the_step_behind},
      {"clear", test_clear_sets_one_state_to_zero},
      {"ended sequence", test_ended_sequence_has_the_gradients_of_the_shorter_window},
      {"sequences are independent", test_sequence_alone_is_the_same_as_among_others},
      {"NaN stays in its sequence", test_nan_shows_in_its_sequence_alone},
      {"avx2 equals avx512", test_recurrence_of_avx2_and_avx512_is_equal},
  };
  return run_kernel_cases("recurrence", COUNT(cases), cases);
}
