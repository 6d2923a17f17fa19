/*
 * The three strategies of back-propagation through time, as a step of training runs them (train/step.c):
 * pieces up to a chunk at once, longer ones by segments. Against central differences, against each other,
 * and bit for bit where the contract says so.
 *
 *   test_bptt double | float     the width of unroll_real that this program was built for
 *
 * What is true but for rounding is checked in double alone; what is true to the bit, in both.
 */
#include "kinds.h"
#include "support.h"

#include "base/random.h"
#include "kernels/dispatch.h"
#include "kernels/gradient.h"
#include "kernels/shard_tree.h"
#include "net/segments.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* [1] Of a difference: truncation and rounding error are both near 1e-9 with it. */
#define STEP 1e-5

/* Of a token: neither 1 nor the reciprocal of a number of tokens, so that a forgotten weight is seen. */
#define WEIGHT 0.75

/* [steps] Longer than any problem: all at once. */
#define WHOLE 1000

static size_t expected_width;

static void *test_alloc(size_t count, size_t size)
{
  void *p = calloc(count + 1, size);
  if (p == NULL) { abort(); }
  return p;
}

/* ------------------------------------------------------------------ problem */

#define TIED 1000

/* A model and B sequences of n steps. */
typedef struct problem {
  size_t V, H, L, E, B, shards, n; /* E is TIED: a tied table */
  kind of;
  unroll_params *params;
  int32_t *x, *y; /* (n, B) */
  bool masked;    /* some y are below 0 */
  bool padded;    /* all steps are computed for all of them */
  bool sparse;    /* keep a list of touched rows; else none, however large V */
  dropout how;
  penalty penalty;
} problem;

/* Of every problem; p is 0 but in the tests of dropout. */
static dropout held;

/* The same in the tests of penalties and of skip connections. */
static penalty held_penalty;
static bool held_skip;

static problem problem_of(unroll_shape shape, size_t B, size_t shards, size_t n)
{
  const size_t V = shape.V, H = shape.H, L = shape.L;
  shape.skip = held_skip;
  problem p = {.V = V,
               .H = H,
               .L = L,
               .E = shape.tied ? TIED : shape.E,
               .B = B,
               .shards = shards,
               .n = n,
               .of = {shape.cell, shape.activation},
               .how = held,
               .penalty = held_penalty,
               .x = test_alloc(n * B, sizeof *p.x),
               .y = test_alloc(n * B, sizeof *p.y)};
  CHECK_OK(kernels_start());
  CHECK_OK(unroll_params_new(&shape, &p.params));
  CHECK_OK(unroll_params_start(p.params, &(unroll_start){.seed = 17, .forget_bias = 1.0}));
  for (size_t l = 0; l < L; ++l) { /* so that gradients reach back through all steps */
    char group[32];
    (void)snprintf(group, sizeof group, "layer%zu", l);
    const unroll_tensor *W = unroll_params_find(p.params, group, "W_hh");
    for (size_t i = 0; W != NULL && i < W->rows * H; ++i) {
      p.params->values[unroll_tensor_index(W, i / H, i % H)] *= (unroll_real)1.6;
    }
  }
  for (size_t i = 0; i < n * B; ++i) { /* 0 is frequent: a column of W_xh sums over many places */
    uint64_t rare = random_below(5, RANDOM_SYNTHETIC, 0, 3 * i, 2);
    p.x[i] = (int32_t)(rare * random_below(5, RANDOM_SYNTHETIC, 0, 3 * i + 1, V));
    p.y[i] = (int32_t)random_below(5, RANDOM_SYNTHETIC, 0, 3 * i + 2, V);
  }
  return p;
}

static problem problem_new(size_t V, size_t H, size_t L, kind of, size_t B, size_t shards, size_t n)
{
  return problem_of(shape_of(V, H, L, of), B, shards, n);
}

/* The same with an embedding of E, or TIED. */
static problem problem_with(size_t E, size_t V, size_t H, size_t L, kind of, size_t B,
                            size_t shards, size_t n)
{
  unroll_shape shape = shape_of(V, H, L, of);
  shape.tied = E == TIED;
  shape.E = shape.tied ? H : E;
  return problem_of(shape, B, shards, n);
}

static void problem_free(problem *p)
{
  unroll_params_free(&p->params);
  free(p->x);
  free(p->y);
}

/* Sequence b ends after length[b] steps; behind it x is the token `behind`. */
static void set_lengths(problem *p, const size_t *length, int32_t behind)
{
  p->masked = true;
  for (size_t t = 0; t < p->n; ++t) {
    for (size_t b = 0; b < p->B; ++b) {
      if (t < length[b]) { continue; }
      p->x[t * p->B + b] = behind;
      p->y[t * p->B + b] = -1;
    }
  }
}

/* ------------------------------------------------------------------- worker */

/* How the work is cut up; nothing of it may change what comes out. */
typedef struct cut {
  size_t T, chunk; /* [steps] of the states at hand; of a chunk */
} cut;

/* One rank at work on some of the sequences of a problem. */
typedef struct worker {
  const problem *p;
  network *net;
  segments *segments; /* NULL where nothing is longer than a chunk */
  double *sums;       /* (shards of this rank) [nats] */
  unroll_real *state; /* (L, B, H) behind the last piece */
  size_t first, start;
  size_t notified; /* elements of the gradient notified as complete */
} worker;

/* Rank r of P. `longest` [steps] of a piece. */
static worker worker_new(const problem *p, cut c, size_t longest, size_t r, size_t P)
{
  worker w = {.p = p, .first = p->B / P * r};
  size_t chunk = longest < c.chunk ? longest : c.chunk, shards = p->shards / P;
  const network_size size = {.T = longest <= c.chunk ? longest : c.T,
                             .chunk = chunk,
                             .B = p->B / P,
                             .shards = shards,
                             .group = shard_tree_group(p->shards),
                             .window = p->sparse ? longest * p->B : longest * p->B + p->V,
                             .dropout = p->how.p > 0.0,
                             .per_shard = longest > chunk};
  w.sums = test_alloc(shards, sizeof *w.sums);
  CHECK_OK(network_new(p->params, &size, &w.net));
  w.state = test_alloc(network_state_size(w.net), sizeof *w.state);
  w.net->masked = p->masked;
  w.net->dropout = p->how;
  w.net->dropout.first = w.first;
  w.net->penalty = p->penalty;
  CU_ASSERT(w.net->embedding.sparse == p->sparse);
  if (size.per_shard) { CHECK_OK(segments_new(w.net, longest, &w.segments)); }
  network_pack(w.net);
  network_reset(w.net);
  return w;
}

static void worker_free(worker *w)
{
  segments_free(&w->segments);
  network_free(&w->net);
  free(w->sums);
  free(w->state);
}

static void fill(void *context, size_t first, size_t T, int32_t *x, int32_t *y)
{
  const worker *w = context;
  const size_t B = w->net->ragged.B;
  for (size_t t = 0; t < T; ++t) {
    size_t from = (w->start + first + t) * w->p->B + w->first;
    memcpy(x + t * B, w->p->x + from, B * sizeof *x);
    memcpy(y + t * B, w->p->y + from, B * sizeof *y);
  }
}

/* [steps] of each sequence: those with a loss. */
static void measure(void *context, uint64_t *length)
{
  const worker *w = context;
  for (size_t b = 0; b < w->net->ragged.B; ++b) {
    length[b] = 0;
    while (length[b] < w->p->n && w->p->y[length[b] * w->p->B + w->first + b] >= 0) {
      length[b] += 1;
    }
  }
}

/* All slices together are the gradient; that each is complete when notified: test_model_gradient.c. */
static unroll_status hear(void *context, size_t at, size_t n)
{
  worker *w = context;
  CU_ASSERT(at + n <= w->p->params->n_gradient);
  w->notified += n;
  return UNROLL_OK;
}

/* A gradient is written, never added to: what was there before must not matter. */
static void spoil(worker *w)
{
  const unroll_params *p = w->p->params;
  for (size_t k = 0; k < p->n_tensors; ++k) {
    const unroll_tensor *t = &p->tensors[k];
    if (w->net->embedding.sparse && t->offset == w->net->embedding.gradient) {
      break;
    } /* rows not touched stay zero */
    for (size_t i = 0; i < t->rows * t->cols; ++i) {
      w->net->gradient[unroll_tensor_index(t, i / t->cols, i % t->cols)] = NAN;
    }
  }
}

/* Gradient and losses of steps [start, start + steps) from the carried state, which moves on. */
static void run_piece(worker *w, size_t start, size_t scored, size_t steps)
{
  network *net = w->net;
  const network_ready ready = {.call = hear, .context = w};
  const token_source source = {fill, w->p->masked && !w->p->padded ? measure : NULL, w};
  const network_span span = {0, scored, steps};
  const bool is_long = steps > net->size.chunk;
  const unroll_params *p = w->p->params;

  spoil(w);
  w->start = start;
  w->notified = 0;
  if (is_long) {
    segments_forward(w->segments, steps, source);
  } else {
    fill(w, 0, steps, net->x, net->y);
    if (net->embedding.sparse) {
      embedding_mark_tokens(&net->embedding, steps * net->size.B, net->x, true);
    }
    network_forward(net, steps);
    network_output(net, span, WEIGHT, false);
    memset(w->sums, 0, net->size.shards * sizeof *w->sums);
    loss_by_shard((steps - scored) * (net->size.B / net->size.shards), net->size.shards,
                  net->head.nll, w->sums);
  }
  if (net->embedding.sparse) { embedding_set_touched_rows(&net->embedding, net->gradient); }
  if (is_long) {
    CHECK_OK(segments_backward(w->segments, WEIGHT, source, w->sums, &ready));
    segments_carry(w->segments);
  } else {
    CHECK_OK(network_backward(net, span, &ready));
    network_carry(net, steps);
  }
  network_get_state(net, w->state);
  CU_ASSERT_EQUAL(w->notified, net->embedding.sparse ? net->embedding.gradient : p->n_gradient);
}

/* All steps of all sequences, on one rank. To be freed. */
static worker worked(const problem *p, cut c)
{
  worker w = worker_new(p, c, p->n, 0, 1);
  run_piece(&w, 0, 0, p->n);
  return w;
}

static int same_bits(const worker *a, const worker *b)
{
  size_t states = network_state_size(a->net);
  return memcmp(a->net->gradient, b->net->gradient, a->p->params->n_gradient * sizeof *a->state) ==
             0 &&
         memcmp(a->sums, b->sums, a->net->size.shards * sizeof *a->sums) == 0 &&
         memcmp(a->state, b->state, states * sizeof *a->state) == 0;
}

/* The largest difference of two gradients, relative to max(1, |a|, |b|); infinite where one is not finite. */
static double difference(const unroll_params *p, const unroll_real *a, const unroll_real *b)
{
  double worst = 0.0;
  for (size_t i = 0; i < p->n; ++i) {
    double x = (double)a[i], y = (double)b[i];
    double error = fabs(x - y) / fmax(1.0, fmax(fabs(x), fabs(y)));
    if (!(error <= worst)) { worst = isnan(error) ? (double)INFINITY : error; }
  }
  return worst;
}

static int all_finite(const problem *p, const worker *w)
{
  int ok = 1;
  for (size_t i = 0; i < p->params->n; ++i) { ok &= !!isfinite(w->net->gradient[i]); }
  for (size_t s = 0; s < p->shards; ++s) { ok &= !!isfinite(w->sums[s]); }
  for (size_t i = 0; i < p->L * p->B * p->H; ++i) { ok &= !!isfinite(w->state[i]); }
  return ok;
}

/* A problem without gradients that vanish or sequences that agree by accident: else equality proves nothing. */
static void check_is_telling(const problem *p, const worker *w)
{
  for (size_t k = 0; k < p->params->n_tensors; ++k) {
    const unroll_tensor *t = &p->params->tensors[k];
    double largest = 0.0;
    for (size_t i = 0; i < t->rows * t->cols; ++i) {
      largest =
          fmax(largest,
               fabs((double)w->net->gradient[unroll_tensor_index(t, i / t->cols, i % t->cols)]));
    }
    CU_ASSERT(largest > 1e-3);
  }
}

/* -------------------------------------------------------------- differences */

/* alpha / H |out_t|^2 + beta / H |h_t - h_{t-1}|^2 of step and sequence n. */
static double penalty_of(const network *net, const problem *p, size_t n)
{
  const layer *top = network_top(net);
  const size_t slot = p->B * top->ld;
  const unroll_real *h = top->h + slot + n * top->ld, *out = top->output + slot + n * top->ld;
  double sum = 0.0;
  for (size_t k = 0; k < p->H; ++k) {
    const double change = (double)(h[k] - (h - slot)[k]);
    sum += p->penalty.activation * (double)(out[k] * out[k]) + p->penalty.change * change * change;
  }
  return sum / (double)p->H;
}

/* Weighted losses of steps `scored` to the last, from a state held constant: the equations alone, forward. */
static double loss_of(network *net, const problem *p, const unroll_real *state, size_t scored)
{
  double sum = 0.0;
  network_pack(net);
  network_set_state(net, state);
  memcpy(net->x, p->x, p->n * p->B * sizeof *net->x);
  memcpy(net->y, p->y, p->n * p->B * sizeof *net->y);
  network_forward(net, p->n);
  network_output(net, (network_span){0, 0, p->n}, 0.0, true);
  for (size_t i = scored * p->B; i < p->n * p->B; ++i) { /* one shard */
    sum += net->head.nll[i] + (p->y[i] >= 0 ? penalty_of(net, p, i) : 0.0);
  }
  return WEIGHT * sum;
}

/* `gradient` against central differences of the loss from `state` on, every parameter. */
static void compare_with_differences(const problem *p, const unroll_real *gradient,
                                     const unroll_real *state, size_t scored)
{
  const network_size size = {
      .T = p->n, .chunk = p->n, .B = p->B, .shards = 1, .group = 1, .dropout = p->how.p > 0.0};
  network *net = NULL;
  double worst = 0.0;
  int threads = omp_get_max_threads();

  omp_set_num_threads(1); /* thousands of tiny passes: regions would cost more than the work */
  CHECK_OK(network_new(p->params, &size, &net));
  net->masked = p->masked;
  net->dropout = p->how;
  for (size_t k = 0; k < p->params->n_tensors; ++k) {
    const unroll_tensor *t = &p->params->tensors[k];
    for (size_t e = 0; e < t->rows * t->cols; ++e) {
      size_t i = unroll_tensor_index(t, e / t->cols, e % t->cols);
      unroll_real *w = &p->params->values[i], before = *w;
      double loss[2];
      *w = before + (unroll_real)STEP;
      loss[1] = loss_of(net, p, state, scored);
      *w = before - (unroll_real)STEP;
      loss[0] = loss_of(net, p, state, scored);
      *w = before;

      double a = (double)gradient[i], n = (loss[1] - loss[0]) / (2.0 * STEP);
      double error = fabs(a - n) / fmax(1.0, fmax(fabs(a), fabs(n)));
      if (!(error < 1e-6)) {
        fprintf(stderr, "%s/%s[%zu]: %.10g, differences say %.10g\n", t->group, t->name, e, a, n);
      }
      worst = error > worst || isnan(error) ? error : worst;
    }
  }
  network_free(&net);
  omp_set_num_threads(threads);
  CU_ASSERT(worst < 1e-6);
}

static void check_full(size_t E, size_t V, size_t H, size_t L, kind of, size_t n, cut c)
{
  problem p = problem_with(E, V, H, L, of, 4, 2, n);
  unroll_real *zero = test_alloc(2 * L * p.B * H, sizeof *zero); /* h and c */
  worker w = worked(&p, c);
  check_is_telling(&p, &w);
  if (E == TIED) {
    embedding_add_tied(&w.net->embedding, 0, embedding_rows(&w.net->embedding), w.net->gradient);
  }
  compare_with_differences(&p, w.net->gradient, zero, 0);
  worker_free(&w);
  free(zero);
  problem_free(&p);
}

static void test_full_gradient_is_the_derivative(void)
{
  const cut c = {.T = 8, .chunk = 4};
  for (size_t L = 1; L <= 3; ++L) {
    check_full(0, 7, 5, L, KIND_TANH, 23, c);
    check_full(0, 5, 9, L, KIND_RELU, 23, c);
  }
  for (size_t k = GATED; k < KINDS; ++k) {
    check_full(0, 7, 5, 1, all_kinds[k], 11, c);
    check_full(0, 5, 17, 2, all_kinds[k], 13, c);
    check_full(0, 3, 4, 3, all_kinds[k], 9, (cut){.T = 2, .chunk = 1});
    check_full(6, 7, 5, 1 + k % 2, all_kinds[k], 11, c);
  }
  check_full(18, 5, 9, 3, KIND_TANH, 23, c);
  check_full(TIED, 5, 9, 2, KIND_TANH, 23, c);
  check_full(0, 19, 18, 2, KIND_TANH, 17, (cut){.T = 4, .chunk = 4});
  check_full(0, 3, 6, 2, KIND_TANH, 24, (cut){.T = 12, .chunk = 3});
  check_full(0, 3, 6, 1, KIND_RELU, 9, (cut){.T = 1, .chunk = 1});
}

/* ------------------------------------------------------------------ equality */

static void test_full_equals_the_window_that_holds_the_sequence(void)
{
  const size_t steps[] = {5, 8, 9, 16, 17, 23, 24, 25};
  for (size_t i = 0; i < COUNT(steps); ++i) {
    for (size_t k = 0; k < 3 * KINDS; ++k) {
      problem p = problem_new(7, 9, 1 + k % 3, all_kinds[k / 3], 4, 2, steps[i]);
      worker window = worked(&p, (cut){WHOLE, WHOLE}), full = worked(&p, (cut){8, 4});
      check_is_telling(&p, &window);
      CU_ASSERT(difference(p.params, window.net->gradient, full.net->gradient) < 1e-12);
      for (size_t s = 0; s < p.shards; ++s) {
        CU_ASSERT(fabs(window.sums[s] - full.sums[s]) < 1e-12 * window.sums[s]);
      }
      CU_ASSERT(
          memcmp(window.state, full.state, network_state_size(full.net) * sizeof *full.state) == 0);
      worker_free(&window);
      worker_free(&full);
      problem_free(&p);
    }
  }
}

static void test_recomputation_and_threads_change_no_bit(void)
{
  const cut cuts[] = {{4, 4}, {8, 4}, {12, 4}, {24, 4}, {28, 4}};
  const int threads[] = {1, 2, 3};
  const int most = omp_get_max_threads();
  const size_t steps[] = {5, 12, 23, 24, 25};
  for (size_t i = 0; i < COUNT(steps); ++i) {
    for (size_t k = 0; k < 3; ++k) { /* one layer, two, two above an embedding */
      problem p = problem_with(k == 2 ? 19 : 0, 11, 21, k == 0 ? 1 : 2, KIND_TANH, 6, 6, steps[i]);
      worker first = worked(&p, cuts[0]);
      check_is_telling(&p, &first);
      for (size_t j = 0; j < COUNT(cuts) * COUNT(threads); ++j) {
        omp_set_num_threads(threads[j % COUNT(threads)]);
        worker other = worked(&p, cuts[j / COUNT(threads)]);
        CU_ASSERT(same_bits(&first, &other));
        worker_free(&other);
      }
      omp_set_num_threads(most);
      worker_free(&first);
      problem_free(&p);
    }
  }
}

/* A worker may be used again and again, long pieces and short ones in turn. */
static void test_pieces_before_leave_no_trace(void)
{
  problem p = problem_new(7, 9, 2, KIND_TANH, 4, 2, 23);
  const size_t pieces[][2] = {{0, 23}, {20, 3}, {3, 11}, {8, 4}, {1, 22}};
  worker again = worker_new(&p, (cut){8, 4}, p.n, 0, 1);
  for (size_t i = 0; i < COUNT(pieces); ++i) {
    worker once = worker_new(&p, (cut){8, 4}, p.n, 0, 1);
    run_piece(&once, pieces[i][0], 0, pieces[i][1]);
    network_reset(again.net);
    run_piece(&again, pieces[i][0], 0, pieces[i][1]);
    CU_ASSERT(same_bits(&once, &again));
    worker_free(&once);
  }
  worker_free(&again);
  problem_free(&p);
}

/* ranks: workers of P ranks, added by the upper levels of the tree, against the whole. */
static int ranks_compose(const problem *p, const worker *whole, const cut *c, size_t P)
{
  worker w[4];
  int ok = 1;
  size_t shards = p->shards / P, B = p->B / P;
  for (size_t r = 0; r < P; ++r) {
    w[r] = worker_new(p, c[r % 2], p->n, r, P);
    run_piece(&w[r], 0, 0, p->n);
    ok &= memcmp(w[r].sums, whole->sums + r * shards, shards * sizeof *w[r].sums) == 0;
    for (size_t l = 0; l < p->L; ++l) {
      ok &= memcmp(w[r].state + l * B * p->H, whole->state + (l * p->B + r * B) * p->H,
                   B * p->H * sizeof *whole->state) == 0;
    }
  }
  for (size_t step = 1; step < P; step *= 2) {
    for (size_t r = 0; r < P; r += 2 * step) {
      kernels()->add(p->params->n_gradient, w[r + step].net->gradient, w[r].net->gradient);
    }
  }
  ok &= memcmp(w[0].net->gradient, whole->net->gradient,
               p->params->n_gradient * sizeof *whole->net->gradient) == 0;
  for (size_t r = 0; r < P; ++r) { worker_free(&w[r]); }
  return ok;
}

static void test_ranks_compose_to_the_same_bits(void)
{
  const cut one = {8, 4},
            ranks[] = {{4, 4}, {16, 4}}; /* each rank keeps as many states as it likes */
  const size_t shards[] = {4, 12}, steps[] = {23, 5, 4, 3, 1};
  const size_t length[] = {23, 1, 22, 4, 9, 5,
                           2,  3, 4,  1, 0, 2}; /* the last ranks have short ones */
  const size_t tables[] = {0, 7, TIED};
  for (size_t i = 0; i < COUNT(tables) * COUNT(shards); ++i) {
    for (size_t k = 0; k < COUNT(steps); ++k) {
      problem p = problem_with(tables[i / COUNT(shards)], 11, 21, 2, KIND_TANH, 12,
                               shards[i % COUNT(shards)], steps[k]);
      for (int masked = 0; masked < 2; ++masked) {
        if (masked) { set_lengths(&p, length, 0); }
        worker whole = worked(&p, one);
        CU_ASSERT(ranks_compose(&p, &whole, ranks, 2));
        CU_ASSERT(ranks_compose(&p, &whole, ranks, 4));
        worker_free(&whole);
      }
      problem_free(&p);
    }
  }
}

/* ---------------------------------------------------------------- randomized */

/*
 * Mean over all cuts of n steps: boundary t, before step t = 1..n-1, is cut with probability 1 - pi, bit t - 1
 * of `cuts`. The gradient of a piece has xi = 1 / pi at every boundary inside it.
 */
static unroll_real *mean_over_cuts(const problem *p, cut c, double pi)
{
  unroll_real *mean = test_alloc(p->params->n, sizeof *mean);
  double total = 0.0;
  worker w = worker_new(p, c, p->n, 0, 1);
  network_set_xi(w.net, 1.0 / pi);
  network_pack(w.net);
  for (unsigned cuts = 0; cuts < 1u << (p->n - 1); ++cuts) {
    double probability = 1.0;
    for (size_t t = 1; t < p->n; ++t) { probability *= cuts >> (t - 1) & 1 ? 1.0 - pi : pi; }
    total += probability;
    network_reset(w.net);
    for (size_t start = 0, end = 0; start < p->n; start = end) {
      end = start + 1;
      while (end < p->n && (cuts >> (end - 1) & 1) == 0) { ++end; }
      run_piece(&w, start, 0, end - start);
      for (size_t i = 0; i < p->params->n; ++i) {
        mean[i] += (unroll_real)(probability * (double)w.net->gradient[i]);
      }
    }
  }
  CU_ASSERT(fabs(total - 1.0) < 1e-12);
  worker_free(&w);
  return mean;
}

static void test_randomized_over_all_cuts_is_the_full_gradient(void)
{
  const cut cuts[] = {{WHOLE, WHOLE}, {4, 2}, {3, 3}, {1, 1}};
  const double pi[] = {0.75, 0.3};
  for (size_t L = 1; L <= 2; ++L) {
    for (size_t of = 0; of < KINDS; ++of) {
      problem p = problem_new(5, 6, L, all_kinds[of], 4, 2, 6);
      worker full = worked(&p, (cut){WHOLE, WHOLE});
      check_is_telling(&p, &full);
      for (size_t i = 0; i < COUNT(cuts); ++i) {
        for (size_t k = 0; k < COUNT(pi); ++k) {
          unroll_real *mean = mean_over_cuts(&p, cuts[i], pi[k]);
          CU_ASSERT(difference(p.params, mean, full.net->gradient) < 1e-10);
          free(mean);
        }
      }
      worker_free(&full);
      problem_free(&p);
    }
  }
}

/* ------------------------------------------------------------------- stride */

static void test_stride_is_the_derivative_of_the_scored_losses(void)
{
  const size_t scored[] = {0, 1, 4, 6};
  for (size_t L = 1; L <= 2; ++L) {
    for (size_t i = 0; i < COUNT(scored); ++i) {
      problem p = problem_new(7, 5, L, KIND_TANH, 4, 2, 7);
      worker w = worker_new(&p, (cut){WHOLE, WHOLE}, p.n, 0, 1);
      unroll_real *carried = test_alloc(L * p.B * p.H, sizeof *carried);
      run_piece(&w, 0, 0, p.n); /* to a state that is not zero */
      memcpy(carried, w.state, L * p.B * p.H * sizeof *carried);
      run_piece(&w, 0, scored[i], p.n);
      check_is_telling(&p, &w);
      compare_with_differences(&p, w.net->gradient, carried, scored[i]);
      free(carried);
      worker_free(&w);
      problem_free(&p);
    }
  }
}

/* The state carried is that behind `advance` steps, wherever the losses begin. */
static void test_carried_state_is_that_of_the_steps_alone(void)
{
  problem p = problem_new(7, 5, 2, KIND_TANH, 4, 2, 7);
  for (size_t advance = 0; advance <= p.n; ++advance) {
    worker w = worker_new(&p, (cut){WHOLE, WHOLE}, p.n, 0, 1), once = w;
    fill(&w, 0, p.n, w.net->x, w.net->y);
    network_forward(w.net, p.n);
    network_carry(w.net, advance);
    network_get_state(w.net, w.state);
    once = worker_new(&p, (cut){WHOLE, WHOLE}, p.n, 0, 1);
    if (advance > 0) { run_piece(&once, 0, 0, advance); }
    CU_ASSERT(memcmp(once.state, w.state, p.L * p.B * p.H * sizeof *w.state) == 0);
    worker_free(&w);
    worker_free(&once);
  }
  problem_free(&p);
}

/* -------------------------------------------------------------------- masked */

static const size_t unequal[] = {23, 9, 1, 0, 4, 22};

/* Sequence b of p alone, no longer than it is. */
static problem one_sequence(const problem *p, size_t b, size_t length)
{
  problem one = problem_with(p->E, p->V, p->H, p->L, p->of, 1, 1, length);
  memcpy(one.params->values, p->params->values, p->params->n * sizeof *p->params->values);
  for (size_t t = 0; t < length; ++t) {
    one.x[t] = p->x[t * p->B + b];
    one.y[t] = p->y[t * p->B + b];
  }
  return one;
}

static void test_masked_gradient_is_the_sum_of_the_sequences(void)
{
  const cut cuts[] = {{WHOLE, WHOLE}, {8, 4}, {5, 5}};
  for (size_t k = 0; k < 2 * KINDS; ++k) {
    const size_t L = 1 + k % 2;
    if (k / 2 == 1) { continue; } /* states of a ReLU are zero anywhere */
    problem p = problem_with(k % 3 == 0 ? 6 : 0, 7, 9, L, all_kinds[k / 2], COUNT(unequal), 3, 23);
    set_lengths(&p, unequal, 3);
    unroll_real *sum = test_alloc(p.params->n, sizeof *sum);
    double loss[3] = {0.0}; /* of the shards, two sequences each */
    for (size_t b = 0; b < p.B; ++b) {
      if (unequal[b] == 0) { continue; }
      problem one = one_sequence(&p, b, unequal[b]);
      worker w = worked(&one, (cut){WHOLE, WHOLE});
      for (size_t i = 0; i < p.params->n; ++i) { sum[i] += w.net->gradient[i]; }
      loss[b / 2] += w.sums[0];
      worker_free(&w);
      problem_free(&one);
    }
    for (size_t i = 0; i < COUNT(cuts); ++i) {
      worker w = worked(&p, cuts[i]);
      check_is_telling(&p, &w);
      CU_ASSERT(difference(p.params, sum, w.net->gradient) < 1e-12);
      for (size_t s = 0; s < p.shards; ++s) {
        CU_ASSERT(fabs(w.sums[s] - loss[s]) < 1e-12 * loss[s]);
      }
      for (size_t b = 0; b < p.B; ++b) { /* behind an end the state is zero */
        for (size_t j = 0; j < p.L * p.H; ++j) {
          unroll_real h = w.state[(j / p.H * p.B + b) * p.H + j % p.H];
          CU_ASSERT((h == 0) == (unequal[b] < p.n));
        }
      }
      worker_free(&w);
    }
    free(sum);
    problem_free(&p);
  }
}

static void test_what_stands_behind_an_end_changes_no_bit(void)
{
  const cut cuts[] = {{WHOLE, WHOLE}, {8, 4}};
  for (size_t i = 0; i < COUNT(cuts); ++i) {
    for (size_t of = 0; of < KINDS; ++of) {
      problem p = problem_with(i * 6, 7, 9, 2, all_kinds[of], COUNT(unequal), 3, 23);
      set_lengths(&p, unequal, 0);
      worker first = worked(&p, cuts[i]);
      for (int32_t behind = 1; behind < 7; behind += 2) {
        set_lengths(&p, unequal, behind);
        worker other = worked(&p, cuts[i]);
        CU_ASSERT(same_bits(&first, &other));
        worker_free(&other);
      }
      worker_free(&first);
      problem_free(&p);
    }
  }
}

/* A shard that takes no part behind its end has the gradient, the losses and the states of one that does. */
static void test_leaving_out_what_has_ended_changes_no_bit(void)
{
  const cut cuts[] = {{4, 4}, {8, 4}, {23, 23}};
  const size_t shards[] = {6, 3, 1};
  for (size_t i = 0; i < COUNT(cuts) * COUNT(shards); ++i) {
    for (size_t of = 0; of < KINDS; ++of) {
      const cut c = cuts[i / COUNT(shards)];
      problem p = problem_with(i % 2 * 6, 7, 9, 1 + of % 2, all_kinds[of], COUNT(unequal),
                               shards[i % COUNT(shards)], 23);
      set_lengths(&p, unequal, 0);
      worker w = worked(&p, c);
      p.padded = true;
      worker padded = worked(&p, c);
      CU_ASSERT(same_bits(&w, &padded));
      p.padded = false; /* again: what the first time left at the boundaries of chunks is no zero */
      network_reset(w.net);
      run_piece(&w, 0, 0, p.n);
      CU_ASSERT(same_bits(&w, &padded));
      worker_free(&padded);
      worker_free(&w);
      problem_free(&p);
    }
  }
}

/*
 * ReLU layers that token 0 holds at a small state, and any other token sends to infinity within a few steps: the
 * sequences have token 0 alone, other tokens stand behind their ends.
 */
static problem bomb_new(void)
{
  problem p = problem_new(5, 6, 2, KIND_RELU, COUNT(unequal), 3, 23);
  const unroll_real huge = sizeof(unroll_real) == 8 ? (unroll_real)1e200 : (unroll_real)1e30;
  const unroll_tensor *W_hh = unroll_params_find(p.params, "layer0", "W_hh"),
                      *W_xh = unroll_params_find(p.params, "layer0", "W_xh"),
                      *b_h = unroll_params_find(p.params, "layer0", "b_h");
  for (size_t j = 0; j < p.H; ++j) {
    p.params->values[unroll_tensor_index(b_h, j, 0)] = 0;
    for (size_t v = 0; v < p.V; ++v) {
      p.params->values[unroll_tensor_index(W_xh, j, v)] = v > 0 || j == 0 ? 1 : -1;
    }
    for (size_t k = 0; k < p.H;
         ++k) { /* unit 0, the only one that token 0 lets live, feeds nothing huge */
      p.params->values[unroll_tensor_index(W_hh, j, k)] = k == 0 ? (unroll_real)0.1 : huge;
    }
  }
  memset(p.x, 0, p.n * p.B * sizeof *p.x);
  return p;
}

static void test_what_overflows_behind_an_end_is_not_seen(void)
{
  const cut cuts[] = {{WHOLE, WHOLE}, {8, 4}};
  for (size_t i = 0; i < COUNT(cuts); ++i) {
    problem p = bomb_new();
    set_lengths(&p, unequal, 0);
    worker quiet = worked(&p, cuts[i]);
    CU_ASSERT(all_finite(&p, &quiet));
    set_lengths(&p, unequal, 1);
    worker loud = worked(&p, cuts[i]);
    CU_ASSERT(all_finite(&p, &loud));
    CU_ASSERT(same_bits(&quiet, &loud));
    worker_free(&loud);
    p.masked = false; /* without the mask the network does overflow */
    loud = worked(&p, cuts[i]);
    CU_ASSERT(!all_finite(&p, &loud));
    worker_free(&loud);
    worker_free(&quiet);
    problem_free(&p);
  }
}

/* -------------------------------------------------------------------- sparse */

/* More tokens in the vocabulary than in the longest piece: rows seen before, and not now, are zero again. */
static void test_touched_rows_alone_give_the_same_bits(void)
{
  const size_t pieces[][2] = {{0, 23}, {20, 3}, {3, 11}, {8, 4}, {1, 22}};
  const cut cuts[] = {{8, 4}, {WHOLE, WHOLE}};
  const size_t tables[] = {0, 6, TIED};
  for (size_t k = 0; k < COUNT(tables) * COUNT(cuts); ++k) {
    const cut c = cuts[k % COUNT(cuts)];
    problem p = problem_with(tables[k / COUNT(cuts)], 300, 9, 2, KIND_TANH, 4, 2, 23), dense = p;
    p.sparse = true;
    worker some = worker_new(&p, c, p.n, 0, 1), all = worker_new(&dense, c, p.n, 0, 1);
    for (size_t i = 0; i < COUNT(pieces); ++i) {
      run_piece(&some, pieces[i][0], 0, pieces[i][1]);
      run_piece(&all, pieces[i][0], 0, pieces[i][1]);
      CU_ASSERT(same_bits(&some, &all));
      check_is_telling(&p, &some);
    }
    worker_free(&some);
    worker_free(&all);
    problem_free(&p);
  }
}

/* ------------------------------------------------------------------- lengths */

static void test_segments_hold_whole_chunks_and_grow_as_the_square_root(void)
{
  const size_t longest[] = {257, 1000, 65536, 1000000, 100000000}, L = 2, B = 8, H = 128;
  const unroll_params p = {.shape = shape_of(64, H, L, KIND_TANH)};
  for (size_t i = 0; i < 2 * COUNT(longest); ++i) {
    const bool drops = i % 2 == 1;
    const size_t n = longest[i / 2], vectors = drops ? 4 : 2;
    size_t chunk = segments_chunk_steps(B, 64), T = segments_steps(n, chunk, &p, B, drops);
    double kept = (double)((n + T - 1) / T), root = sqrt((double)n);
    CU_ASSERT(T % chunk == 0 && T >= chunk && T < n + chunk);
    /* 64 MiB of states, as rows and as panels, and of both after dropout, are held without a thought. */
    double fit = 67108864.0 / (double)(vectors * L * B * H * sizeof(unroll_real));
    CU_ASSERT((double)T <= fmax(fit, root) + (double)chunk);
    CU_ASSERT(kept <= 1.0 + (double)n / fmax(fit, root / 2.0));
  }
  for (size_t B_all = 1; B_all < 1u << 20; B_all *= 4) { /* logits of a chunk on all ranks */
    size_t chunk = segments_chunk_steps(B_all, 10000);
    CU_ASSERT(chunk == 32 || (chunk * B_all * 10000 <= 1u << 24 && chunk <= 256));
    CU_ASSERT(chunk == 256 || 2 * chunk * B_all * 10000 > 1u << 24);
  }
}

/* -------------------------------------------------------------------- dropout */

/* The same with masks of both kinds: the same ones in all passes of a test, whoever draws them; with these, no ReLU is
 * so near its kink that a difference steps over it. */
static void with_dropout(void (*test)(void))
{
  held = (dropout){
      .p = 0.3, .p_embedding = 0.2, .p_words = 0.25, .per_step = true, .seed = 3, .update = 8};
  test();
  held.per_step = false;
  test();
  held = (dropout){0};
}

static void test_dropout_recomputation_and_threads_change_no_bit(void)
{
  with_dropout(test_recomputation_and_threads_change_no_bit);
}

static void test_dropout_leaving_out_changes_no_bit(void)
{
  with_dropout(test_leaving_out_what_has_ended_changes_no_bit);
}

static void test_dropout_ranks_compose_to_the_same_bits(void)
{
  with_dropout(test_ranks_compose_to_the_same_bits);
}

static void test_dropout_full_gradient_is_the_derivative(void)
{
  with_dropout(test_full_gradient_is_the_derivative);
}

static void test_dropout_full_equals_the_window(void)
{
  with_dropout(test_full_equals_the_window_that_holds_the_sequence);
}

static void test_dropout_stride_is_the_derivative_of_the_scored_losses(void)
{
  with_dropout(test_stride_is_the_derivative_of_the_scored_losses);
}

/* Without dropout in scoring, with it in the next window: what was dropped before leaves no trace. */
static void test_dropout_can_be_turned_off_and_on(void)
{
  problem p = problem_with(5, 7, 9, 2, KIND_TANH, 4, 2, 12);
  worker plain = worked(&p, (cut){WHOLE, WHOLE});
  p.how = (dropout){
      .p = 0.3, .p_embedding = 0.4, .p_words = 0.2, .per_step = true, .seed = 3, .update = 5};
  worker both = worked(&p, (cut){WHOLE, WHOLE}), dropped = worked(&p, (cut){WHOLE, WHOLE});
  CU_ASSERT(!same_bits(&plain, &both));
  for (int on = 0; on < 2; ++on) {
    both.net->dropout = on ? p.how : (dropout){0};
    network_reset(both.net);
    run_piece(&both, 0, 0, p.n);
    CU_ASSERT(same_bits(on ? &dropped : &plain, &both));
  }
  worker_free(&dropped);
  worker_free(&both);
  worker_free(&plain);
  problem_free(&p);
}

/* ------------------------------------------------------------------ penalties */

/* The same with penalties on the states of the top layer, before and after dropout of it. */
static void with_penalties(void (*test)(void))
{
  held_penalty = (penalty){.activation = 2.0, .change = 1.0};
  held = (dropout){.p = 0.3, .per_step = true, .seed = 3, .update = 8};
  test();
  held = (dropout){0};
  held_penalty = (penalty){0};
}

static void test_penalties_recomputation_and_threads_change_no_bit(void)
{
  with_penalties(test_recomputation_and_threads_change_no_bit);
}

static void test_penalties_ranks_compose_to_the_same_bits(void)
{
  with_penalties(test_ranks_compose_to_the_same_bits);
}

static void test_penalties_leaving_out_changes_no_bit(void)
{
  with_penalties(test_leaving_out_what_has_ended_changes_no_bit);
}

static void check_full_of_penalties(void)
{
  for (size_t k = 0; k < KINDS; ++k) {
    check_full(0, 5, 6, 1 + k % 2, all_kinds[k], 9, (cut){.T = 4, .chunk = 2});
  }
  check_full(TIED, 5, 9, 2, KIND_TANH, 13, (cut){.T = 4, .chunk = 4});
}

static void test_penalties_full_gradient_is_the_derivative(void)
{
  with_penalties(check_full_of_penalties);
}

/* Without dropout, whose masks are of the steps of a piece. */
static void test_penalties_randomized_over_all_cuts(void)
{
  held_penalty = (penalty){.activation = 2.0, .change = 1.0};
  test_randomized_over_all_cuts_is_the_full_gradient();
  held_penalty = (penalty){0};
}

static void test_penalties_stride_is_the_derivative_of_the_scored_losses(void)
{
  with_penalties(test_stride_is_the_derivative_of_the_scored_losses);
}

static void test_penalties_masked_gradient_is_the_sum_of_the_sequences(void)
{
  held_penalty = (penalty){.activation = 2.0, .change = 1.0};
  test_masked_gradient_is_the_sum_of_the_sequences();
  held_penalty = (penalty){0};
}

/* Skip connections in segments and lines of unequal lengths. */
static void test_skip_ranks_compose_to_the_same_bits(void)
{
  held_skip = true;
  test_ranks_compose_to_the_same_bits();
  held_skip = false;
}

static void test_skip_full_gradient_is_the_derivative(void)
{
  held_skip = true;
  check_full(0, 5, 6, 2, KIND_TANH, 9, (cut){.T = 4, .chunk = 2});
  with_penalties(check_full_of_penalties);
  held_skip = false;
}

static void test_skip_masked_gradient_is_the_sum_of_the_sequences(void)
{
  held_skip = true;
  test_penalties_masked_gradient_is_the_sum_of_the_sequences();
  held_skip = false;
}

static void test_real_is_the_type_of_this_build(void)
{
  CU_ASSERT_EQUAL(sizeof(unroll_real), expected_width);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"real", test_real_is_the_type_of_this_build},
      {"recomputation, threads: the same bits", test_recomputation_and_threads_change_no_bit},
      {"pieces before leave no trace", test_pieces_before_leave_no_trace},
      {"ranks: the same bits", test_ranks_compose_to_the_same_bits},
      {"carried state", test_carried_state_is_that_of_the_steps_alone},
      {"behind an end: the same bits", test_what_stands_behind_an_end_changes_no_bit},
      {"behind an end: left out", test_leaving_out_what_has_ended_changes_no_bit},
      {"behind an end: left out, dropout", test_dropout_leaving_out_changes_no_bit},
      {"behind an end: overflow", test_what_overflows_behind_an_end_is_not_seen},
      {"touched rows: the same bits", test_touched_rows_alone_give_the_same_bits},
      {"lengths of segments", test_segments_hold_whole_chunks_and_grow_as_the_square_root},
      {"dropout: recomputation, threads", test_dropout_recomputation_and_threads_change_no_bit},
      {"dropout: ranks", test_dropout_ranks_compose_to_the_same_bits},
      {"dropout: off and on", test_dropout_can_be_turned_off_and_on},
      {"penalties: recomputation, threads", test_penalties_recomputation_and_threads_change_no_bit},
      {"penalties: left out", test_penalties_leaving_out_changes_no_bit},
      {"penalties: ranks", test_penalties_ranks_compose_to_the_same_bits},
      {"skip: ranks", test_skip_ranks_compose_to_the_same_bits},
      /* but for rounding: in double */
      {"full: differences", test_full_gradient_is_the_derivative},
      {"full: one window", test_full_equals_the_window_that_holds_the_sequence},
      {"randomized: all cuts", test_randomized_over_all_cuts_is_the_full_gradient},
      {"stride: differences", test_stride_is_the_derivative_of_the_scored_losses},
      {"masked: sum of the sequences", test_masked_gradient_is_the_sum_of_the_sequences},
      {"dropout: differences", test_dropout_full_gradient_is_the_derivative},
      {"dropout: one window", test_dropout_full_equals_the_window},
      {"dropout: stride", test_dropout_stride_is_the_derivative_of_the_scored_losses},
      {"penalties: differences", test_penalties_full_gradient_is_the_derivative},
      {"penalties: randomized", test_penalties_randomized_over_all_cuts},
      {"penalties: stride", test_penalties_stride_is_the_derivative_of_the_scored_losses},
      {"penalties: masked", test_penalties_masked_gradient_is_the_sum_of_the_sequences},
      {"skip: differences", test_skip_full_gradient_is_the_derivative},
      {"skip: masked", test_skip_masked_gradient_is_the_sum_of_the_sequences},
  };
  const size_t exact = 15;
  const int is_double = argc == 2 && strcmp(argv[1], "double") == 0;
  expected_width = is_double ? 8 : 4;
  if (argc != 2 || (!is_double && strcmp(argv[1], "float") != 0)) { return EXIT_FAILURE; }
  return run_cases("bptt", is_double ? COUNT(cases) : exact, cases);
}
