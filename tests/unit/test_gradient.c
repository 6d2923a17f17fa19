#include "kernel_support.h"

#include "kernels/gradient.h"
#include "kernels/output.h"
#include "kernels/shard_tree.h"

/*
 * A window's dZ (T * B, M) and states h ((T + 1) * B, N), one row for each (t, b). The kernels see
 * some of its sequences: all of them, or those of one rank.
 */
typedef struct window {
  size_t T, B, shards, group, M, N;
  matrix dZ, h;
  int32_t *x; /* (T * B) tokens below V */
  size_t V;
} window;

static window window_new(size_t T, size_t B, size_t shards, size_t M, size_t N, size_t V)
{
  window w = {.T = T, .B = B, .shards = shards, .M = M, .N = N, .V = V};
  w.group = shard_tree_group(shards);
  w.dZ = matrix_new(T * B, M);
  w.h = matrix_new((T + 1) * B, N);
  w.x = test_alloc(T * B, sizeof *w.x);
  matrix_fill(&w.dZ);
  matrix_fill(&w.h);
  for (size_t i = 0; i < T * B; ++i) { w.x[i] = (int32_t)next_below(V); }
  return w;
}

static void window_free(window *w)
{
  matrix_free(&w->dZ);
  matrix_free(&w->h);
  free(w->x);
}

/* The sequences of rank r of P. */
typedef struct part {
  size_t first, B, shards;
} part;

static part part_of(const window *w, size_t r, size_t P)
{
  return (part){.first = w->B / P * r, .B = w->B / P, .shards = w->shards / P};
}

/* Row in dZ of token number n (ascending) of shard s of a part; h_n lies there or a slot on. */
static size_t token_row(const window *w, const part *p, size_t s, size_t n)
{
  size_t width = p->B / p->shards;
  return n / width * w->B + p->first + s * width + n % width;
}

/* ------------------------------------------------------------ as kernels see it */

/* (T, B, ld) of a part. */
static matrix rows_of_part(const window *w, const part *p)
{
  matrix rows = matrix_new(w->T * p->B, w->M);
  for (size_t t = 0; t < w->T; ++t) {
    for (size_t b = 0; b < p->B; ++b) {
      memcpy(at(&rows, t * p->B + b, 0), at(&w->dZ, t * w->B + p->first + b, 0),
             rows.width * sizeof *rows.x);
    }
  }
  return rows;
}

/* Token panels (output.h): tokens in the lanes, zeros behind the last one in its vector. */
static matrix panels_of_part(const window *w, const part *p)
{
  size_t nr = kernels()->nr, lanes = kernels()->lanes, tokens = w->T * p->B / p->shards;
  size_t panels = output_panels(w->T, p->B, p->shards), per_shard = panels / p->shards;
  matrix O = flat_new(panels * w->M * nr);
  for (size_t s = 0; s < p->shards; ++s) {
    for (size_t n = 0; n < (tokens + lanes - 1) / lanes * lanes; ++n) {
      unroll_real *column = O.x + (s * per_shard + n / nr) * w->M * nr + n % nr;
      const unroll_real *dZ = n < tokens ? at(&w->dZ, token_row(w, p, s, n), 0) : NULL;
      for (size_t i = 0; i < w->M; ++i) { column[i * nr] = dZ != NULL ? dZ[i] : 0; }
    }
  }
  return O;
}

/* State panels (recurrence.h) of a longer window: slots behind T stay poisoned. */
static matrix states_of_part(const window *w, const part *p, size_t panel_T)
{
  matrix panels = flat_new(state_panels_size(panel_T, p->B, w->N));
  size_t in_shard = p->B / p->shards;
  for (size_t q = 0; q < panel_count(w->N); ++q) {
    size_t width = panel_width(w->N, q);
    unroll_real *panel = panels.x + q * state_panels_stride(panel_T, p->B);
    for (size_t b = 0; b < p->B; ++b) {
      for (size_t t = 0; t <= w->T; ++t) {
        size_t row = (b / in_shard * (panel_T + 1) + t) * in_shard + b % in_shard;
        memcpy(panel + row * width, at(&w->h, t * w->B + p->first + b, q * kernels()->nr),
               width * sizeof *panel);
      }
    }
  }
  return panels;
}

/* What the kernels read of a part; laid out once for many runs. */
typedef struct operands {
  const window *w;
  part p;
  gradient_source source;
  int after;
  size_t panel_T; /* once as long as the window, once longer */
  matrix dZ, h;
} operands;

static operands operands_of(const window *w, const part *p, gradient_source source, int after)
{
  operands o = {.w = w, .p = *p, .source = source, .after = after, .panel_T = w->T + (size_t)after};
  o.dZ = source == GRADIENT_ROWS ? rows_of_part(w, p) : panels_of_part(w, p);
  o.h = states_of_part(w, p, o.panel_T);
  return o;
}

static void operands_free(operands *o)
{
  matrix_free(&o->dZ);
  matrix_free(&o->h);
}

/* Megabytes for each thread: filling it costs more than most runs, so runs share it. */
static matrix scratch_of(const window *w)
{
  return flat_new(gradient_scratch(w->T * w->B / w->shards, (size_t)omp_get_max_threads()));
}

/* dW (M, N) and db (1, M), so many rows at a time; 0: all. */
static void run_operands(const operands *o, size_t rows_at_a_time, const matrix *scratch,
                         const matrix *dW, const matrix *db)
{
  const window *w = o->w;
  matrix_poison(dW); /* or a row that is left out would keep the right value of the run before */
  if (db != NULL) { matrix_poison(db); }
  const weight_gradient call = {.T = w->T,
                                .B = o->p.B,
                                .shards = o->p.shards,
                                .group = w->group,
                                .M = w->M,
                                .N = w->N,
                                .source = o->source,
                                .dZ = o->dZ.x,
                                .ld_dZ = o->dZ.ld,
                                .h = o->h.x,
                                .panel_T = o->panel_T,
                                .slot = (size_t)o->after,
                                .dW = dW->x,
                                .ld_dW = dW->ld,
                                .db = db != NULL ? db->x : NULL,
                                .scratch = scratch->x};
  if (rows_at_a_time == 0) { weight_gradient_rows(&call, 0, call.M); }
  for (size_t i = 0; rows_at_a_time > 0 && i < w->M; i += rows_at_a_time) {
    weight_gradient_rows(&call, i, w->M - i < rows_at_a_time ? w->M : i + rows_at_a_time);
  }
  CU_ASSERT(matrix_is_clean(scratch));
}

/* dW and db of a part. */
static void run_part(const window *w, const part *p, gradient_source source, int after,
                     const matrix *dW, const matrix *db)
{
  operands o = operands_of(w, p, source, after);
  matrix scratch = scratch_of(w);
  run_operands(&o, 0, &scratch, dW, db);
  operands_free(&o);
  matrix_free(&scratch);
}

/* ------------------------------------------------------------------- oracles */

/* The sum over the tokens of all shards of f(dZ, h): in the contract's order, and in double. */
typedef struct expected {
  unroll_real bits;
  dot sum;
} expected;

static int expected_is(const expected *e, unroll_real x)
{
  return same_bits(x, e->bits) && fabs((double)x - e->sum.sum) <= dot_bound(&e->sum);
}

static expected weight_at(const window *w, size_t i, size_t j, int after)
{
  const part all = part_of(w, 0, 1);
  expected e = {.sum = dot_start(0)};
  unroll_real *shard = test_alloc(w->shards, sizeof *shard);
  for (size_t s = 0; s < w->shards; ++s) {
    dot d = dot_start(0);
    for (size_t n = 0; n < w->T * w->B / w->shards; ++n) {
      size_t row = token_row(w, &all, s, n);
      dot_add(&d, *at(&w->dZ, row, i), *at(&w->h, row + (after ? w->B : 0), j));
      dot_add(&e.sum, *at(&w->dZ, row, i), *at(&w->h, row + (after ? w->B : 0), j));
    }
    shard[s] = d.chain;
  }
  e.bits = tree_of(w->shards, w->group, shard);
  free(shard);
  return e;
}

/* Rows are added in sequence; panels in 16 lanes, token n in lane n % 16, the lanes as a tree. */
static unroll_real bias_of_shard(const window *w, size_t i, gradient_source source, size_t s,
                                 dot *sum)
{
  const part all = part_of(w, 0, 1);
  unroll_real lane[KERNELS_PAD] = {0};
  for (size_t n = 0; n < w->T * w->B / w->shards; ++n) {
    unroll_real x = *at(&w->dZ, token_row(w, &all, s, n), i);
    lane[source == GRADIENT_PANELS ? n % KERNELS_PAD : 0] += x;
    if (sum != NULL) { dot_add(sum, 1, x); }
  }
  for (size_t half = KERNELS_PAD / 2; half > 0 && source == GRADIENT_PANELS; half /= 2) {
    for (size_t l = 0; l < half; ++l) { lane[l] += lane[l + half]; }
  }
  return lane[0];
}

static expected bias_at(const window *w, size_t i, gradient_source source)
{
  expected e = {.sum = dot_start(0)};
  unroll_real *shard = test_alloc(w->shards, sizeof *shard);
  for (size_t s = 0; s < w->shards; ++s) { shard[s] = bias_of_shard(w, i, source, s, &e.sum); }
  e.bits = tree_of(w->shards, w->group, shard);
  free(shard);
  return e;
}

/* ------------------------------------------------------------- weight gradient */

static int weights_are(const window *w, gradient_source source, int after, const matrix *dW,
                       const matrix *db)
{
  int ok = matrix_is_clean(dW) && matrix_is_clean(db);
  for (size_t i = 0; i < w->M; ++i) {
    expected b = bias_at(w, i, source);
    ok &= expected_is(&b, *at(db, 0, i));
    for (size_t j = 0; j < w->N; ++j) {
      expected e = weight_at(w, i, j, after);
      ok &= expected_is(&e, *at(dW, i, j));
    }
  }
  return ok;
}

static void check_weights(window *w, gradient_source source, int after)
{
  const part all = part_of(w, 0, 1);
  const size_t at_a_time[] = {0, kernels()->mr, 5};
  operands o = operands_of(w, &all, source, after);
  matrix dW = matrix_new(w->M, w->N), db = flat_new(w->M);
  matrix first = matrix_new(w->M, w->N), first_b = flat_new(w->M);
  for (size_t t = 0; t < COUNT(thread_counts); ++t) {
    omp_set_num_threads(thread_counts[t]);
    matrix scratch = scratch_of(w);
    for (size_t run = 0; run < COUNT(at_a_time); ++run) {
      const size_t k = (t + run) % COUNT(at_a_time); /* the first one finds scratch poisoned */
      run_operands(&o, at_a_time[k], &scratch, &dW, &db);
      if (t == 0 && run == 0) {
        CHECK_AT(weights_are(w, source, after, &dW, &db),
                 "T %zu B %zu shards %zu M %zu N %zu source %d after %d", w->T, w->B, w->shards,
                 w->M, w->N, (int)source, after);
        matrix_copy(&dW, &first);
        matrix_copy(&db, &first_b);
      }
      CHECK_AT(matrix_equal(&dW, &first) && matrix_equal(&db, &first_b),
               "T %zu B %zu shards %zu M %zu N %zu source %d threads %d rows %zu", w->T, w->B,
               w->shards, w->M, w->N, (int)source, thread_counts[t], at_a_time[k]);
    }
    matrix_free(&scratch);
  }
  matrix_free(&dW);
  matrix_free(&db);
  matrix_free(&first);
  matrix_free(&first_b);
  operands_free(&o);
}

static void test_weights_are_the_tree_of_chains_for_any_threads(void)
{
  const size_t tokens[][3] = {{1, 1, 1},  {5, 3, 1},   {5, 3, 3},  {1, 16, 2}, {5, 16, 4},
                              {5, 16, 1}, {5, 16, 16}, {5, 12, 6}, {1, 12, 6}, {3, 16, 8}};
  const size_t shapes[][2] = {{1, 1}, {7, 33}, {33, 7}, {2, 129}, {97, 65}};
  for (size_t i = 0; i < COUNT(tokens); ++i) {
    for (size_t j = 0; j < COUNT(shapes); ++j) {
      window w =
          window_new(tokens[i][0], tokens[i][1], tokens[i][2], shapes[j][0], shapes[j][1], 2);
      for (int how = 0; how < 4; ++how) {
        check_weights(&w, (how & 1) != 0 ? GRADIENT_PANELS : GRADIENT_ROWS, how >> 1);
      }
      window_free(&w);
    }
  }
}

/* So many rows that the kernels go through them block by block, each thread through its own. */
static void test_weights_of_a_large_vocabulary_are_the_same(void)
{
  window w = window_new(20, 32, 4, 600, 33, 2);
  check_weights(&w, GRADIENT_PANELS, 1);
  check_weights(&w, GRADIENT_ROWS, 0);
  window_free(&w);
}

/* Groups of nine shards that no cache takes at once, and three of them that it does. */
static void test_weights_of_large_groups_are_the_same(void)
{
  window w = window_new(120, 18, 18, 7, 129, 2);
  check_weights(&w, GRADIENT_PANELS, 0);
  check_weights(&w, GRADIENT_ROWS, 1);
  window_free(&w);
}

static void test_weights_without_bias_are_the_same(void)
{
  window w = window_new(5, 8, 4, 33, 33, 2);
  const part all = part_of(&w, 0, 1);
  matrix with = matrix_new(33, 33), without = matrix_new(33, 33), db = flat_new(33);
  for (size_t t = 0; t < COUNT(thread_counts); ++t) {
    omp_set_num_threads(thread_counts[t]);
    run_part(&w, &all, GRADIENT_ROWS, 0, &with, &db);
    run_part(&w, &all, GRADIENT_ROWS, 0, &without, NULL);
    CU_ASSERT(matrix_equal(&with, &without));
  }
  matrix_free(&with);
  matrix_free(&without);
  matrix_free(&db);
  window_free(&w);
}

/* NaN of one token shows in its row of dW and db, and nowhere else. */
static void test_weights_show_nan_of_any_token(void)
{
  window w = window_new(5, 8, 4, 33, 33, 2);
  const part all = part_of(&w, 0, 1);
  matrix dW = matrix_new(33, 33), db = flat_new(33);
  for (size_t n = 0; n < w.dZ.rows; n += 3) {
    unroll_real keep = *at(&w.dZ, n, 20);
    for (int source = 0; source < 2; ++source) {
      *at(&w.dZ, n, 20) = NAN;
      run_part(&w, &all, source ? GRADIENT_PANELS : GRADIENT_ROWS, 0, &dW, &db);
      for (size_t i = 0; i < 33; ++i) {
        CU_ASSERT(!!isnan(*at(&db, 0, i)) == (i == 20));
        for (size_t j = 0; j < 33; ++j) { CU_ASSERT(!!isnan(*at(&dW, i, j)) == (i == 20)); }
      }
    }
    *at(&w.dZ, n, 20) = keep;
  }
  matrix_free(&dW);
  matrix_free(&db);
  window_free(&w);
}

/* -------------------------------------------------------------- token gradient */

static void run_tokens(const window *w, const part *p, const matrix *dW)
{
  matrix dZ = rows_of_part(w, p);
  int32_t *x = test_alloc(w->T * p->B, sizeof *x);
  uint32_t *start = test_alloc(w->V * p->shards + 1, sizeof *start);
  uint32_t *list = test_alloc(w->T * p->B, sizeof *list);
  for (size_t t = 0; t < w->T; ++t) {
    memcpy(x + t * p->B, w->x + t * w->B + p->first, p->B * sizeof *x);
  }
  const token_gradient call = {.T = w->T,
                               .B = p->B,
                               .shards = p->shards,
                               .group = w->group,
                               .V = w->V,
                               .H = w->M,
                               .x = x,
                               .dZ = dZ.x,
                               .ld = dZ.ld,
                               .dW = dW->x,
                               .ld_dW = dW->ld,
                               .start = start,
                               .list = list};
  token_gradient_run(&call);
  free(x);
  free(start);
  free(list);
  matrix_free(&dZ);
}

/* Row v of dW at column i; *seen counts the tokens v. */
static expected token_at(const window *w, size_t v, size_t i, size_t *seen)
{
  const part all = part_of(w, 0, 1);
  expected e = {.sum = dot_start(0)};
  unroll_real *shard = test_alloc(w->shards, sizeof *shard);
  *seen = 0;
  for (size_t s = 0; s < w->shards; ++s) {
    shard[s] = 0;
    for (size_t n = 0; n < w->T * w->B / w->shards; ++n) {
      size_t row = token_row(w, &all, s, n);
      if ((size_t)w->x[row] != v) { continue; }
      shard[s] += *at(&w->dZ, row, i);
      dot_add(&e.sum, 1, *at(&w->dZ, row, i));
      *seen += 1;
    }
  }
  e.bits = tree_of(w->shards, w->group, shard);
  free(shard);
  return e;
}

static void test_tokens_are_the_tree_of_their_rows_for_any_threads(void)
{
  const size_t tokens[][3] = {{1, 1, 1}, {5, 3, 3}, {5, 16, 4}, {5, 12, 6}, {5, 16, 16}};
  const size_t shapes[][2] = {{1, 1}, {2, 7}, {97, 33}, {2, 129}, {97, 300}}; /* V, H */
  for (size_t k = 0; k < COUNT(tokens); ++k) {
    for (size_t j = 0; j < COUNT(shapes); ++j) {
      window w =
          window_new(tokens[k][0], tokens[k][1], tokens[k][2], shapes[j][1], 1, shapes[j][0]);
      const part all = part_of(&w, 0, 1);
      for (size_t t = 0; t < COUNT(thread_counts); ++t) {
        matrix dW = matrix_new(w.V, w.M);
        int ok = 1;
        omp_set_num_threads(thread_counts[t]);
        for (size_t v = 0; v < w.V; ++v) { /* padding of rows that are left alone is zero */
          for (size_t i = w.M; i < dW.width; ++i) { *at(&dW, v, i) = 0; }
        }
        run_tokens(&w, &all, &dW);
        for (size_t v = 0; v < w.V; ++v) {
          for (size_t i = 0; i < w.M; ++i) {
            size_t seen;
            expected e = token_at(&w, v, i, &seen);
            unroll_real x = *at(&dW, v, i);
            ok &= seen > 0 ? expected_is(&e, x) : same_bits(x, poison());
          }
        }
        CHECK_AT(ok && matrix_is_clean(&dW), "T %zu B %zu shards %zu V %zu H %zu threads %d", w.T,
                 w.B, w.shards, w.V, w.M, thread_counts[t]);
        matrix_free(&dW);
      }
      window_free(&w);
    }
  }
}

/* -------------------------------------------------------------- shards apart */

/* Steps [begin, end) of a window as a window of their own, which borrows. */
static window steps_of(const window *w, size_t begin, size_t end)
{
  window chunk = *w;
  chunk.T = end - begin;
  chunk.dZ.x = at(&w->dZ, begin * w->B, 0);
  chunk.dZ.rows = chunk.T * w->B;
  chunk.x = w->x + begin * w->B;
  return chunk;
}

/* Gradients of one shard, and shards_combine's result: all weights, biases and the table in a row, padded. */
typedef struct apart {
  size_t W, b, X, n; /* where each begins; elements in all */
  matrix shards;     /* a row for each, with a gap behind */
  matrix sum;
} apart;

static apart apart_new(const window *w, size_t shards)
{
  apart a = {.b = w->M * kernels_pad(w->N)};
  a.X = a.b + kernels_pad(w->M);
  a.n = a.X + w->V * kernels_pad(w->M);
  a.shards = matrix_shaped(shards, a.n, a.n, a.n + KERNELS_PAD);
  a.sum = flat_new(a.n);
  matrix_zero(&a.shards);
  return a;
}

static void apart_free(apart *a)
{
  matrix_free(&a->shards);
  matrix_free(&a->sum);
}

/* Add steps [begin, end) of a part to its shards. The states are those of the whole window, from a slot on. */
static void add_chunk(const window *w, const part *p, size_t begin, size_t end,
                      gradient_source source, int after, const matrix *scratch, const apart *a)
{
  const window chunk = steps_of(w, begin, end);
  matrix dZ = source == GRADIENT_ROWS ? rows_of_part(&chunk, p) : panels_of_part(&chunk, p);
  matrix rows = rows_of_part(&chunk, p), h = states_of_part(w, p, w->T + 1);
  int32_t *x = test_alloc(chunk.T * p->B, sizeof *x);
  for (size_t t = 0; t < chunk.T; ++t) {
    memcpy(x + t * p->B, chunk.x + t * w->B + p->first, p->B * sizeof *x);
  }
  const weight_gradient weights = {.T = chunk.T,
                                   .B = p->B,
                                   .shards = p->shards,
                                   .group = w->group,
                                   .M = w->M,
                                   .N = w->N,
                                   .source = source,
                                   .dZ = dZ.x,
                                   .ld_dZ = dZ.ld,
                                   .h = h.x,
                                   .panel_T = w->T + 1,
                                   .slot = begin + (size_t)after,
                                   .dW = a->shards.x,
                                   .ld_dW = kernels_pad(w->N),
                                   .db = a->shards.x + a->b,
                                   .per_shard = a->shards.ld,
                                   .scratch = scratch->x};
  const token_gradient table = {.T = chunk.T,
                                .B = p->B,
                                .shards = p->shards,
                                .group = w->group,
                                .V = w->V,
                                .H = w->M,
                                .x = x,
                                .dZ = rows.x,
                                .ld = rows.ld,
                                .dW = a->shards.x + a->X,
                                .ld_dW = kernels_pad(w->M),
                                .per_shard = a->shards.ld};
  weight_gradient_rows(&weights, 0, weights.M);
  token_gradient_run(&table);
  CU_ASSERT(matrix_is_clean(scratch));
  matrix_free(&dZ);
  matrix_free(&rows);
  matrix_free(&h);
  free(x);
}

/* A part in chunks of so many steps, from the last to the first, then the tree. To be freed. */
static apart run_apart(const window *w, const part *p, size_t chunk, gradient_source source,
                       int after)
{
  apart a = apart_new(w, p->shards);
  matrix scratch = scratch_of(w);
  for (size_t k = (w->T + chunk - 1) / chunk; k-- > 0;) {
    size_t end = (k + 1) * chunk < w->T ? (k + 1) * chunk : w->T;
    add_chunk(w, p, k * chunk, end, source, after, &scratch, &a);
  }
  matrix_free(&scratch);
  CU_ASSERT(matrix_is_clean(&a.shards));
  shards_combine(p->shards, w->group, NULL, a.n, a.shards.ld, a.shards.x, a.sum.x);
  CU_ASSERT(matrix_is_clean(&a.sum));
  return a;
}

/* One chunk: nothing is added to anything, so the tree has the bits that it has inside the kernels. */
static int apart_is_the_tree(const window *w, gradient_source source, int after)
{
  const part all = part_of(w, 0, 1);
  matrix dW = matrix_new(w->M, w->N), db = flat_new(w->M), dX = matrix_new(w->V, w->M);
  apart a = run_apart(w, &all, w->T, source, after);
  int ok = 1;
  matrix_zero(&dX);
  run_part(w, &all, source, after, &dW, &db);
  run_tokens(w, &all, &dX);
  for (size_t i = 0; i < w->M; ++i) {
    ok &= same_bits(a.sum.x[a.b + i], *at(&db, 0, i));
    for (size_t j = 0; j < w->N; ++j) {
      ok &= same_bits(a.sum.x[i * kernels_pad(w->N) + j], *at(&dW, i, j));
    }
    for (size_t v = 0; v < w->V; ++v) {
      ok &= same_bits(a.sum.x[a.X + v * kernels_pad(w->M) + i], *at(&dX, v, i));
    }
  }
  matrix_free(&dW);
  matrix_free(&db);
  matrix_free(&dX);
  apart_free(&a);
  return ok;
}

/* Element (i, j) of dW and i of db: of each shard the chunks' sums, each begun at 0, from the last to the first. */
static int apart_is_the_sum(const window *w, const apart *a, size_t chunk, gradient_source source,
                            int after)
{
  const part one = {.B = w->B, .shards = w->shards};
  unroll_real *shard = test_alloc(w->shards, sizeof *shard);
  int ok = 1;
  for (size_t i = 0; i < w->M; ++i) {
    for (size_t j = 0; j < w->N; ++j) {
      dot all = dot_start(0);
      for (size_t s = 0; s < w->shards; ++s) {
        shard[s] = 0;
        for (size_t k = (w->T + chunk - 1) / chunk; k-- > 0;) {
          const window c = steps_of(w, k * chunk, (k + 1) * chunk < w->T ? (k + 1) * chunk : w->T);
          dot d = dot_start(0);
          for (size_t n = 0; n < c.T * c.B / c.shards; ++n) {
            size_t row = token_row(&c, &one, s, n), slot = k * chunk + (size_t)after;
            dot_add(&d, *at(&c.dZ, row, i), *at(&w->h, row + slot * w->B, j));
            dot_add(&all, *at(&c.dZ, row, i), *at(&w->h, row + slot * w->B, j));
          }
          shard[s] += d.chain;
        }
      }
      const expected e = {tree_of(w->shards, w->group, shard), all};
      ok &= expected_is(&e, a->sum.x[i * kernels_pad(w->N) + j]);
    }
    for (size_t s = 0; s < w->shards; ++s) { /* biases: bias_at of a window of one shard */
      shard[s] = 0;
      for (size_t k = (w->T + chunk - 1) / chunk; k-- > 0;) {
        window c = steps_of(w, k * chunk, (k + 1) * chunk < w->T ? (k + 1) * chunk : w->T);
        shard[s] += bias_of_shard(&c, i, source, s, NULL);
      }
    }
    ok &= same_bits(a->sum.x[a->b + i], tree_of(w->shards, w->group, shard));
    for (size_t v = 0; v < w->V; ++v) { /* the table: token by token within a chunk */
      for (size_t s = 0; s < w->shards; ++s) {
        shard[s] = 0;
        for (size_t k = (w->T + chunk - 1) / chunk; k-- > 0;) {
          const window c = steps_of(w, k * chunk, (k + 1) * chunk < w->T ? (k + 1) * chunk : w->T);
          for (size_t n = 0; n < c.T * c.B / c.shards; ++n) {
            size_t row = token_row(&c, &one, s, n);
            if ((size_t)c.x[row] == v) { shard[s] += *at(&c.dZ, row, i); }
          }
        }
      }
      ok &= same_bits(a->sum.x[a->X + v * kernels_pad(w->M) + i],
                      tree_of(w->shards, w->group, shard));
    }
  }
  free(shard);
  return ok;
}

static const size_t apart_tokens[][3] = {{1, 1, 1},  {5, 3, 3},   {5, 16, 4},
                                         {7, 12, 6}, {7, 16, 16}, {9, 6, 2}}; /* T, B, shards */
static const size_t apart_shapes[][2] = {{1, 1}, {7, 33}, {97, 65}};

static void test_apart_of_one_chunk_is_the_tree(void)
{
  for (size_t i = 0; i < COUNT(apart_tokens); ++i) {
    for (size_t j = 0; j < COUNT(apart_shapes); ++j) {
      const size_t *n = apart_tokens[i];
      window w = window_new(n[0], n[1], n[2], apart_shapes[j][0], apart_shapes[j][1], 7);
      for (size_t t = 0; t < COUNT(thread_counts); ++t) {
        omp_set_num_threads(thread_counts[t]);
        for (int how = 0; how < 4; ++how) {
          CHECK_AT(apart_is_the_tree(&w, how & 1 ? GRADIENT_PANELS : GRADIENT_ROWS, how >> 1),
                   "T %zu B %zu shards %zu M %zu N %zu how %d threads %d", n[0], n[1], n[2], w.M,
                   w.N, how, thread_counts[t]);
        }
      }
      window_free(&w);
    }
  }
}

static void test_apart_is_the_tree_over_sums_of_chunks_for_any_threads(void)
{
  for (size_t i = 0; i < COUNT(apart_tokens); ++i) {
    const size_t *n = apart_tokens[i];
    window w = window_new(n[0], n[1], n[2], 9, 35, 5);
    const part all = part_of(&w, 0, 1);
    for (size_t chunk = 1; chunk <= 4; ++chunk) {
      for (int how = 0; how < 4; ++how) {
        const gradient_source source = how & 1 ? GRADIENT_PANELS : GRADIENT_ROWS;
        for (size_t t = 0; t < COUNT(thread_counts); ++t) {
          omp_set_num_threads(thread_counts[t]);
          apart a = run_apart(&w, &all, chunk, source, how >> 1);
          CHECK_AT(apart_is_the_sum(&w, &a, chunk, source, how >> 1),
                   "T %zu B %zu shards %zu chunk %zu how %d threads %d", n[0], n[1], n[2], chunk,
                   how, thread_counts[t]);
          apart_free(&a);
        }
      }
    }
    window_free(&w);
  }
}

/* More elements than a thread takes through the tree at a time, and a rest. */
static void test_combine_is_the_tree_of_every_element(void)
{
  const size_t shards[] = {1, 2, 3, 12, 16};
  for (size_t i = 0; i < COUNT(shards); ++i) {
    const size_t n = 9000 / KERNELS_PAD * KERNELS_PAD, group = shard_tree_group(shards[i]);
    for (size_t t = 0; t < COUNT(thread_counts); ++t) {
      matrix x = matrix_shaped(shards[i], n, n, n + KERNELS_PAD), out = flat_new(n);
      matrix keep = matrix_shaped(shards[i], n, n, n + KERNELS_PAD);
      matrix_fill(&x);
      matrix_copy(&x, &keep);
      omp_set_num_threads(thread_counts[t]);
      shards_combine(shards[i], group, NULL, n, x.ld, x.x, out.x);
      int ok = matrix_is_clean(&x) && matrix_is_clean(&out);
      for (size_t e = 0; e < n; ++e) {
        unroll_real of[16] = {0};
        for (size_t s = 0; s < shards[i]; ++s) { of[s] = *at(&keep, s, e); }
        ok &= same_bits(out.x[e], tree_of(shards[i], group, of));
      }
      CHECK_AT(ok, "shards %zu threads %d", shards[i], thread_counts[t]);
      matrix_free(&x);
      matrix_free(&keep);
      matrix_free(&out);
    }
  }
}

/* ---------------------------------------------------------------- shard tree */

static void test_group_is_the_odd_part(void)
{
  const size_t S[] = {1, 2, 3, 4, 6, 12, 16, 40}, odd[] = {1, 1, 3, 1, 3, 3, 1, 5};
  for (size_t i = 0; i < COUNT(S); ++i) { CU_ASSERT_EQUAL(shard_tree_group(S[i]), odd[i]); }
}

/* 1 + 2^-53 rounds to 1, 1 + 2^-52 is exact: so the order of additions can be read off the sum. */
static void test_tree_sum_adds_as_drawn(void)
{
  const double tiny = 0x1p-53;
  double four[] = {1, tiny, tiny, tiny};           /* (1 + tiny) + (tiny + tiny) */
  double six[] = {tiny, tiny, 1, 1, tiny, tiny};   /* groups of three, in sequence */
  double three[] = {tiny, tiny, 1}, one[] = {0.1}; /* (tiny + tiny) + 1 */
  CU_ASSERT(shard_tree_sum(4, 1, four) == 1 + 2 * tiny);
  CU_ASSERT(shard_tree_sum(6, 3, six) == (2 * tiny + 1) + 1);
  CU_ASSERT(shard_tree_sum(3, 3, three) == 1 + 2 * tiny);
  CU_ASSERT(shard_tree_sum(1, 1, one) == 0.1);
}

static void test_loss_by_shard_continues_its_sums(void)
{
  const double nll[] = {1, 2, 3, 10, 20, 30};
  double sums[] = {0.5, 0.25, -7};
  loss_by_shard(3, 2, nll, sums);
  CU_ASSERT(sums[0] == 6.5 && sums[1] == 60.25 && sums[2] == -7);
}

/* dW of rank r of P is added to its neighbours' as the upper levels of the tree. */
static void add_ranks(size_t P, matrix *dW)
{
  for (size_t step = 1; step < P; step *= 2) {
    for (size_t r = 0; r < P; r += 2 * step) {
      for (size_t i = 0; i < dW->rows; ++i) {
        kernels()->add(dW->width, at(&dW[r + step], i, 0), at(&dW[r], i, 0));
      }
    }
  }
}

static void check_ranks(const window *w, size_t P)
{
  enum { MOST = 4 };
  const part all = part_of(w, 0, 1);
  matrix dW[MOST], db[MOST], dX[MOST], whole_W = matrix_new(w->M, w->N);
  matrix whole_b = matrix_shaped(1, w->M, kernels_pad(w->M), kernels_pad(w->M));
  matrix whole_X = matrix_new(w->V, w->M);
  for (int source = 0; source < 2; ++source) {
    gradient_source from = source ? GRADIENT_PANELS : GRADIENT_ROWS;
    matrix_zero(&whole_b);
    matrix_zero(&whole_X);
    run_part(w, &all, from, 1, &whole_W, &whole_b);
    run_tokens(w, &all, &whole_X);
    for (size_t r = 0; r < P; ++r) {
      const part mine = part_of(w, r, P);
      dW[r] = matrix_new(w->M, w->N);
      db[r] = matrix_shaped(1, w->M, kernels_pad(w->M), kernels_pad(w->M));
      dX[r] = matrix_new(w->V, w->M);
      matrix_zero(&db[r]);
      matrix_zero(&dX[r]);
      run_part(w, &mine, from, 1, &dW[r], &db[r]);
      run_tokens(w, &mine, &dX[r]);
    }
    add_ranks(P, dW);
    add_ranks(P, db);
    add_ranks(P, dX);
    CHECK_AT(matrix_equal(&dW[0], &whole_W) && matrix_equal(&db[0], &whole_b) &&
                 matrix_equal(&dX[0], &whole_X),
             "shards %zu of %zu sequences on %zu ranks, source %d", w->shards, w->B, P, source);
    for (size_t r = 0; r < P; ++r) {
      matrix_free(&dW[r]);
      matrix_free(&db[r]);
      matrix_free(&dX[r]);
    }
  }
  matrix_free(&whole_W);
  matrix_free(&whole_b);
  matrix_free(&whole_X);
}

static void test_ranks_compose_to_the_same_gradient(void)
{
  const size_t cases[][2] = {{4, 4},   {16, 4},  {16, 8},
                             {16, 16}, {12, 12}, {24, 12}}; /* B, shards */
  for (size_t i = 0; i < COUNT(cases); ++i) {
    for (size_t t = 0; t < COUNT(thread_counts); ++t) {
      window w = window_new(5, cases[i][0], cases[i][1], 33, 49, 7);
      omp_set_num_threads(thread_counts[t]);
      check_ranks(&w, 2);
      check_ranks(&w, 4);
      window_free(&w);
    }
  }
}

/* ----------------------------------------------------------------------- paths */

static uint64_t gradient_fingerprint(void)
{
  window w = window_new(5, 12, 6, 45, 77, 11);
  const part all = part_of(&w, 0, 1);
  matrix dW = matrix_new(w.M, w.N), db = flat_new(w.M), dX = matrix_new(w.V, w.M);
  uint64_t hash = FINGERPRINT_START;
  for (int source = 0; source < 2; ++source) {
    run_part(&w, &all, source ? GRADIENT_PANELS : GRADIENT_ROWS, 0, &dW, &db);
    hash = matrix_fingerprint(matrix_fingerprint(hash, &dW), &db);
  }
  matrix_zero(&dX);
  run_tokens(&w, &all, &dX);
  hash = matrix_fingerprint(hash, &dX);
  matrix_free(&dW);
  matrix_free(&db);
  matrix_free(&dX);
  apart a = run_apart(&w, &all, 2, GRADIENT_PANELS, 1);
  hash = matrix_fingerprint(hash, &a.sum);
  apart_free(&a);
  window_free(&w);
  return hash;
}

static void test_gradients_of_avx2_and_avx512_are_equal(void)
{
  CU_ASSERT(paths_agree(gradient_fingerprint));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"weights: tree of chains, any threads", test_weights_are_the_tree_of_chains_for_any_threads},
      {"weights: large vocabulary", test_weights_of_a_large_vocabulary_are_the_same},
      {"weights: large groups", test_weights_of_large_groups_are_the_same},
      {"weights: without bias", test_weights_without_bias_are_the_same},
      {"weights: NaN is visible", test_weights_show_nan_of_any_token},
      {"tokens: tree of rows, any threads", test_tokens_are_the_tree_of_their_rows_for_any_threads},
      {"apart: one chunk", test_apart_of_one_chunk_is_the_tree},
      {"apart: sums of chunks", test_apart_is_the_tree_over_sums_of_chunks_for_any_threads},
      {"apart: combined", test_combine_is_the_tree_of_every_element},
      {"tree: group", test_group_is_the_odd_part},
      {"tree: order", test_tree_sum_adds_as_drawn},
      {"loss: by shard", test_loss_by_shard_continues_its_sums},
      {"ranks compose", test_ranks_compose_to_the_same_gradient},
      {"avx2 equals avx512", test_gradients_of_avx2_and_avx512_are_equal},
  };
  return run_kernel_cases("gradient", COUNT(cases), cases);
}
