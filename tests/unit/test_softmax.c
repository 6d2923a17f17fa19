#include "kernel_support.h"

#include "kernels/output.h"

/* Elements of a column summed in float before they are added in double, by the contract. */
#define SUM_BLOCK 64

/*
 * Roundings of a softmax, in units of ROUNDOFF: the sum of a block of 64, exp
 * (2.2), the shrinking factor and the product; o - top rounds once too, which is
 * an error of |o - top| roundings in exp(o - top).
 */
#define SOFTMAX_ROUNDINGS 72

/* One column by the definition in double, and in the contract's order. */
typedef struct column {
  double nll, spread; /* spread: mean of |o - top| under softmax */
  double *p;          /* (V) softmax */
  double bits_nll;
  unroll_real *bits; /* (V) dL/do */
} column;

static column column_of(size_t V, const unroll_real *o, size_t y, unroll_real scale)
{
  column c = {.p = test_alloc(V, sizeof *c.p), .bits = test_alloc(V, sizeof *c.bits)};
  double sum = 0, total = 0;
  unroll_real top = o[0];
  for (size_t v = 1; v < V; ++v) { top = o[v] > top ? o[v] : top; }

  for (size_t v = 0; v < V; ++v) { sum += exp((double)o[v] - (double)top); }
  c.nll = log(sum) + (double)top - (double)o[y];
  for (size_t v = 0; v < V; ++v) {
    c.p[v] = exp((double)o[v] - (double)top) / sum;
    c.spread += c.p[v] * ((double)top - (double)o[v]);
  }

  for (size_t begin = 0; begin < V; begin += SUM_BLOCK) {
    unroll_real block = 0;
    for (size_t v = begin; v < V && v < begin + SUM_BLOCK; ++v) {
      c.bits[v] = path_exp(o[v] - top);
      block += c.bits[v];
    }
    total += (double)block;
  }
  c.bits_nll = log(total) - ((double)o[y] - (double)top);
  for (size_t v = 0; v < V; ++v) { c.bits[v] *= (unroll_real)((double)scale / total); }
  c.bits[y] -= scale;
  return c;
}

static void column_free(column *c)
{
  free(c->p);
  free(c->bits);
}

static int nll_is(const column *c, double nll)
{
  return nll == c->bits_nll &&
         fabs(nll - c->nll) <= 1.01 * ROUNDOFF * (SOFTMAX_ROUNDINGS + c->spread) + 1e-12 * c->nll;
}

static int gradient_is(const column *c, size_t V, const unroll_real *o, size_t y, double scale,
                       size_t stride, const unroll_real *d)
{
  unroll_real top = o[0];
  int ok = 1;
  for (size_t v = 1; v < V; ++v) { top = o[v] > top ? o[v] : top; }
  for (size_t v = 0; v < V; ++v) {
    double exact = scale * (c->p[v] - (v == y));
    double roundings = SOFTMAX_ROUNDINGS + c->spread + ((double)top - (double)o[v]);
    double bound = 1.01 * ROUNDOFF * scale * (c->p[v] * roundings + (v == y)) + (double)FLT_MIN;
    ok &= same_bits(d[v * stride], c->bits[v]) && fabs((double)d[v * stride] - exact) <= bound;
  }
  return ok;
}

/* ---------------------------------------------------------------- one panel */

/* Logits of one panel, one row per token, and as the kernel takes them. */
typedef struct panel {
  size_t V, tokens;
  matrix logits, O;
  int32_t y[32];
  double nll[32 + 1];
} panel;

static panel panel_new(size_t V, size_t tokens, unroll_real size)
{
  size_t nr = kernels()->nr;
  panel p = {.V = V, .tokens = tokens, .logits = matrix_new(nr, V), .O = flat_new(V * nr)};
  matrix_fill(&p.logits);
  for (size_t n = 0; n < nr; ++n) {
    for (size_t v = 0; v < V; ++v) {
      *at(&p.logits, n, v) *= size;
      p.O.x[v * nr + n] = *at(&p.logits, n, v);
    }
    p.y[n] = n < tokens ? (int32_t)next_below(V) : -1; /* a target that must not be used */
  }
  for (size_t n = 0; n < COUNT(p.nll); ++n) { p.nll[n] = -7; }
  return p;
}

static void panel_run(panel *p, unroll_real scale, int only_loss)
{
  const softmax_panel call = {.V = p->V,
                              .tokens = p->tokens,
                              .y = p->y,
                              .scale = scale,
                              .O = p->O.x,
                              .only_loss = only_loss,
                              .nll = p->nll};
  kernels()->softmax(&call);
}

static void panel_free(panel *p)
{
  matrix_free(&p->logits);
  matrix_free(&p->O);
}

static void check_panel(size_t V, size_t tokens, unroll_real size)
{
  const unroll_real scale = 0.37f;
  size_t nr = kernels()->nr, lanes = kernels()->lanes;
  panel p = panel_new(V, tokens, size);
  int ok = 1;
  panel_run(&p, scale, 0);
  for (size_t n = 0; n < nr; ++n) {
    const unroll_real *o = at(&p.logits, n, 0);
    size_t used = (tokens + lanes - 1) / lanes * lanes;
    if (n < tokens) {
      column c = column_of(V, o, (size_t)p.y[n], scale);
      ok &= nll_is(&c, p.nll[n]);
      ok &= gradient_is(&c, V, o, (size_t)p.y[n], (double)scale, nr, p.O.x + n);
      column_free(&c);
    }
    for (size_t v = 0; v < V && n >= tokens; ++v) {
      ok &= n < used ? p.O.x[v * nr + n] == 0 : same_bits(p.O.x[v * nr + n], o[v]);
    }
  }
  for (size_t n = tokens; n < COUNT(p.nll); ++n) { ok &= p.nll[n] == -7; }
  CHECK_AT(ok && matrix_is_clean(&p.O), "V %zu tokens %zu size %g", V, tokens, (double)size);
  panel_free(&p);
}

static void test_softmax_is_its_definition_in_the_contract_order(void)
{
  const size_t lanes = kernels()->lanes, tokens[] = {1, lanes - 1, lanes, lanes + 1, 2 * lanes};
  const size_t sizes[] = {1, 2, 3, 5, 63, 64, 65, 97, 129, 300};
  const unroll_real logits[] = {1, 10, 1e4f};
  for (size_t i = 0; i < COUNT(sizes); ++i) {
    for (size_t j = 0; j < COUNT(tokens); ++j) {
      for (size_t k = 0; k < COUNT(logits); ++k) { check_panel(sizes[i], tokens[j], logits[k]); }
    }
  }
}

static void test_softmax_gradient_columns_sum_to_zero(void)
{
  const size_t V = 1000, nr = kernels()->nr;
  panel p = panel_new(V, nr, 5);
  panel_run(&p, 1, 0);
  for (size_t n = 0; n < nr; ++n) {
    double sum = 0;
    for (size_t v = 0; v < V; ++v) { sum += (double)p.O.x[v * nr + n]; }
    CU_ASSERT(fabs(sum) <= SOFTMAX_ROUNDINGS * ROUNDOFF);
  }
  panel_free(&p);
}

/* exp(0) is exactly 1, so that the loss is exactly the logarithm of V. */
static void test_softmax_of_equal_logits_is_log_v(void)
{
  const size_t sizes[] = {1, 2, 65, 97, 1000};
  for (size_t i = 0; i < COUNT(sizes); ++i) {
    panel p = panel_new(sizes[i], kernels()->nr, 0);
    for (size_t k = 0; k < p.V * kernels()->nr; ++k) { p.O.x[k] = 1e4f; }
    panel_run(&p, 1, 1);
    for (size_t n = 0; n < p.tokens; ++n) { CU_ASSERT(p.nll[n] == log((double)p.V)); }
    panel_free(&p);
  }
}

static void test_softmax_of_a_sure_target_costs_nothing(void)
{
  const size_t V = 97, nr = kernels()->nr;
  panel p = panel_new(V, nr, 1);
  for (size_t n = 0; n < nr; ++n) { p.O.x[(size_t)p.y[n] * nr + n] = 1e4f; }
  panel_run(&p, 1, 0);
  for (size_t n = 0; n < nr; ++n) {
    CU_ASSERT(p.nll[n] == 0);
    for (size_t v = 0; v < V; ++v) { CU_ASSERT(fabsf(p.O.x[v * nr + n]) <= 2 * FLT_MIN); }
  }
  panel_free(&p);
}

static void test_softmax_with_only_loss_gives_the_same_loss(void)
{
  panel p = panel_new(97, kernels()->lanes + 1, 3);
  double nll[COUNT(p.nll)];
  panel_run(&p, 1, 1);
  memcpy(nll, p.nll, sizeof nll);
  for (size_t n = 0; n < kernels()->nr; ++n) {
    for (size_t v = 0; v < p.V; ++v) { p.O.x[v * kernels()->nr + n] = *at(&p.logits, n, v); }
  }
  panel_run(&p, 1, 0);
  CU_ASSERT(memcmp(nll, p.nll, sizeof nll) == 0);
  panel_free(&p);
}

/* NaN or infinity anywhere in a token's logits shows in its loss and gradient, and in no other. */
static void test_softmax_shows_nan_in_its_token_alone(void)
{
  const unroll_real bad[] = {NAN, INFINITY};
  const size_t V = 97, nr = kernels()->nr, places[] = {0, 1, 50, V - 1};
  for (size_t i = 0; i < COUNT(bad); ++i) {
    for (size_t j = 0; j < COUNT(places); ++j) {
      size_t lane = next_below(nr);
      panel p = panel_new(V, nr, 3);
      p.O.x[places[j] * nr + lane] = bad[i];
      panel_run(&p, 1, 0);
      for (size_t n = 0; n < nr; ++n) {
        CU_ASSERT(!!isnan(p.nll[n]) == (n == lane));
        CU_ASSERT(!!isnan(p.O.x[(size_t)p.y[n] * nr + n]) == (n == lane));
      }
      panel_free(&p);
    }
  }
}

/* Tokens of a panel without a target lose nothing and send nothing back; the others have the bits they had. */
static void test_softmax_without_target_is_nothing(void)
{
  const size_t nr = kernels()->nr, sizes[] = {1, 2, 65, 300}, tokens[] = {1, 3, nr - 1, nr};
  for (size_t i = 0; i < COUNT(sizes); ++i) {
    for (size_t j = 0; j < COUNT(tokens); ++j) {
      for (int only_loss = 0; only_loss < 2; ++only_loss) {
        panel with = panel_new(sizes[i], tokens[j], 5), without = with;
        without.O = flat_new(with.V * nr);
        matrix_copy(&with.O, &without.O);
        for (size_t n = 0; n < tokens[j]; n += 2) { without.y[n] = n % 4 == 0 ? -1 : INT32_MIN; }
        panel_run(&with, 0.37f, only_loss);
        panel_run(&without, 0.37f, only_loss);
        int ok = matrix_is_clean(&without.O);
        for (size_t n = 0; n < tokens[j]; ++n) {
          ok &= without.nll[n] == (n % 2 == 0 ? 0 : with.nll[n]);
          for (size_t v = 0; v < with.V && !only_loss; ++v) {
            unroll_real x = without.O.x[v * nr + n];
            ok &= n % 2 == 0 ? x == 0 : same_bits(x, with.O.x[v * nr + n]);
          }
        }
        CHECK_AT(ok, "V %zu tokens %zu only loss %d", sizes[i], tokens[j], only_loss);
        matrix_free(&without.O);
        panel_free(&with);
      }
    }
  }
}

/* ------------------------------------------------------------ the whole layer */

typedef struct layer_sizes {
  size_t T, B, shards, V, H;
} layer_sizes;

typedef struct layer {
  layer_sizes n;
  matrix W, bias, h;
  int32_t *y;
  /* results; O (panels, V, nr), dh (T * B, H) */
  matrix O, dh, scratch;
  double *nll;
  int32_t *y_panel;
} layer;

static layer layer_new(layer_sizes n)
{
  layer l = {.n = n, .W = matrix_new(n.V, n.H), .h = matrix_new(n.T * n.B, n.H)};
  size_t tokens = n.T * n.B;
  l.bias = matrix_shaped(1, n.V, kernels_pad(n.V), kernels_pad(n.V));
  l.O = flat_new(output_panels(n.T, n.B, n.shards) * n.V * kernels()->nr);
  l.dh = matrix_new(tokens, n.H);
  l.scratch = flat_new((size_t)omp_get_max_threads() * output_scratch(n.H));
  l.y = test_alloc(tokens, sizeof *l.y);
  l.nll = test_alloc(tokens, sizeof *l.nll);
  l.y_panel = test_alloc(tokens, sizeof *l.y_panel);
  matrix_fill(&l.W);
  matrix_fill(&l.bias);
  matrix_fill(&l.h);
  matrix_zero(&l.scratch);
  for (size_t i = 0; i < tokens; ++i) { l.y[i] = (int32_t)next_below(n.V); }
  return l;
}

static void layer_free(layer *l)
{
  matrix_free(&l->W);
  matrix_free(&l->bias);
  matrix_free(&l->h);
  matrix_free(&l->O);
  matrix_free(&l->dh);
  matrix_free(&l->scratch);
  free(l->y);
  free(l->nll);
  free(l->y_panel);
}

static void layer_run_smoothed(layer *l, unroll_real scale, double smoothing, int only_loss)
{
  const output_layer call = {.T = l->n.T,
                             .B = l->n.B,
                             .V = l->n.V,
                             .H = l->n.H,
                             .shards = l->n.shards,
                             .W = l->W.x,
                             .ld_W = l->W.ld,
                             .bias = l->bias.x,
                             .h = l->h.x,
                             .ld = l->h.ld,
                             .y = l->y,
                             .scale = scale,
                             .smoothing = smoothing,
                             .only_loss = only_loss,
                             .O = l->O.x,
                             .dh = l->dh.x,
                             .nll = l->nll,
                             .scratch = l->scratch.x,
                             .y_panel = l->y_panel};
  /* Or a token that is left out would keep the right values of the run before. */
  matrix_poison(&l->O);
  matrix_poison(&l->dh);
  memset(l->nll, -1, l->h.rows * sizeof *l->nll); /* NaN */
  output_layer_run(&call);
}

static void layer_run(layer *l, unroll_real scale, int only_loss)
{
  layer_run_smoothed(l, scale, 0, only_loss);
}

/* Token number i in the order of the layer: shard by shard, within one by (t, b). */
static size_t row_of(const layer_sizes *n, size_t i, size_t *shard, size_t *in_shard)
{
  size_t width = n->B / n->shards;
  *shard = i / (n->T * width);
  *in_shard = i % (n->T * width);
  return *in_shard / width * n->B + *shard * width + *in_shard % width;
}

/* All that the layer computes for one token, from its row of h. */
static int token_is(const layer *l, size_t i, unroll_real scale)
{
  size_t shard, in_shard, row = row_of(&l->n, i, &shard, &in_shard), nr = kernels()->nr;
  size_t per_shard = output_panels(l->n.T, l->n.B, l->n.shards) / l->n.shards;
  const unroll_real *dO =
      l->O.x + (shard * per_shard + in_shard / nr) * l->n.V * nr + in_shard % nr;
  size_t y = (size_t)l->y[row];
  unroll_real *o = test_alloc(l->n.V, sizeof *o);
  double error = 0; /* of a logit */
  int ok = l->y_panel[i] == l->y[row];

  for (size_t v = 0; v < l->n.V; ++v) {
    dot d = dot_start(*at(&l->bias, 0, v));
    for (size_t j = 0; j < l->n.H; ++j) { dot_add(&d, *at(&l->W, v, j), *at(&l->h, row, j)); }
    o[v] = d.chain;
    error = fmax(error, fabs((double)o[v] - d.sum) / dot_bound(&d));
  }
  column c = column_of(l->n.V, o, y, scale);
  ok &= error <= 1 && nll_is(&c, l->nll[i]);
  ok &= gradient_is(&c, l->n.V, o, y, (double)scale, nr, dO);
  for (size_t j = 0; j < l->n.H; ++j) {
    dot d = dot_start(0);
    for (size_t v = 0; v < l->n.V; ++v) { dot_add(&d, *at(&l->W, v, j), dO[v * nr]); }
    ok &= dot_is(&d, *at(&l->dh, row, j));
  }
  column_free(&c);
  free(o);
  return ok;
}

static const layer_sizes layers[] = {{1, 1, 1, 2, 1},    {1, 3, 1, 97, 7},    {5, 3, 3, 97, 33},
                                     {5, 16, 4, 2, 129}, {5, 16, 1, 97, 33},  {5, 16, 16, 97, 7},
                                     {1, 12, 6, 97, 33}, {33, 16, 2, 97, 33}, {5, 3, 1, 1100, 40}};

static void test_layer_is_its_equations_for_any_threads(void)
{
  const unroll_real scale = 0.125f;
  for (size_t i = 0; i < COUNT(layers); ++i) {
    omp_set_num_threads(5);
    layer l = layer_new(layers[i]);
    matrix O = flat_new(l.O.size - (size_t)2 * GUARD), dh = matrix_new(l.dh.rows, l.dh.cols);
    for (size_t t = 0; t < COUNT(thread_counts); ++t) {
      omp_set_num_threads(thread_counts[t]);
      layer_run(&l, scale, 0);
      if (t == 0) {
        int ok = 1;
        for (size_t n = 0; n < l.h.rows; ++n) { ok &= token_is(&l, n, scale); }
        CHECK_AT(ok && matrix_is_clean(&l.O) && matrix_is_clean(&l.dh), "layer %zu", i);
        matrix_copy(&l.O, &O);
        matrix_copy(&l.dh, &dh);
      }
      CHECK_AT(matrix_equal(&O, &l.O) && matrix_equal(&dh, &l.dh) && matrix_is_clean(&l.scratch),
               "layer %zu threads %d", i, thread_counts[t]);
    }
    matrix_free(&O);
    matrix_free(&dh);
    layer_free(&l);
  }
}

static void test_layer_with_only_loss_leaves_dh_alone(void)
{
  for (size_t i = 0; i < COUNT(layers); ++i) {
    omp_set_num_threads(2);
    layer l = layer_new(layers[i]);
    size_t bytes = l.h.rows * sizeof *l.nll;
    double *nll = test_alloc(l.h.rows, sizeof *nll);
    layer_run(&l, 1, 1);
    for (size_t k = 0; k < l.dh.size; ++k) { CU_ASSERT(same_bits(l.dh.block[k], poison())); }
    memcpy(nll, l.nll, bytes);
    layer_run(&l, 1, 0);
    CU_ASSERT(memcmp(nll, l.nll, bytes) == 0);
    free(nll);
    layer_free(&l);
  }
}

/* d/do of (1 - eps) nll + eps mean_v -log p_v: that of nll and scale eps ([v = y] - 1 / V); losses stay those of nll. */
static void test_layer_with_smoothed_labels_has_the_gradient_of_their_loss(void)
{
  const double scale = 0.125, eps = 0.1;
  for (size_t i = 0; i < COUNT(layers); ++i) {
    omp_set_num_threads(5);
    layer l = layer_new(layers[i]);
    const size_t V = l.n.V, nr = kernels()->nr, tokens = l.h.rows;
    const size_t per_shard = output_panels(l.n.T, l.n.B, l.n.shards) / l.n.shards;
    matrix O = flat_new(l.O.size - (size_t)2 * GUARD);
    double *nll = test_alloc(tokens, sizeof *nll);
    int ok = 1;
    l.y[0] = -1;
    layer_run(&l, (unroll_real)scale, 0);
    matrix_copy(&l.O, &O);
    memcpy(nll, l.nll, tokens * sizeof *nll);
    layer_run_smoothed(&l, (unroll_real)scale, eps, 0);
    ok &= memcmp(nll, l.nll, tokens * sizeof *nll) == 0;
    for (size_t k = 0; k < tokens; ++k) {
      size_t shard, in_shard, row = row_of(&l.n, k, &shard, &in_shard);
      size_t first = (shard * per_shard + in_shard / nr) * V * nr + in_shard % nr;
      double sum = 0;
      for (size_t v = 0; v < V; ++v) {
        double change =
            l.y[row] < 0 ? 0 : scale * eps * ((v == (size_t)l.y[row]) - 1.0 / (double)V);
        double smoothed = (double)l.O.x[first + v * nr];
        ok &= fabs(smoothed - (double)O.x[first + v * nr] - change) <= 4 * ROUNDOFF * scale;
        sum += smoothed;
      }
      ok &= fabs(sum) <= 4 * (double)V * ROUNDOFF * scale;
      for (size_t j = 0; j < l.n.H; ++j) {
        dot d = dot_start(0);
        for (size_t v = 0; v < V; ++v) { dot_add(&d, *at(&l.W, v, j), l.O.x[first + v * nr]); }
        ok &= dot_is(&d, *at(&l.dh, row, j));
      }
    }
    CHECK_AT(ok && matrix_is_clean(&l.O) && matrix_is_clean(&l.dh), "layer %zu", i);
    free(nll);
    matrix_free(&O);
    layer_free(&l);
  }
}

/* So it is in the whole layer: no loss, and no gradient to the state. */
static void test_layer_without_target_is_nothing(void)
{
  for (size_t i = 0; i < COUNT(layers); ++i) {
    omp_set_num_threads(2);
    layer l = layer_new(layers[i]);
    matrix dh = matrix_new(l.dh.rows, l.dh.cols);
    double *nll = test_alloc(l.h.rows, sizeof *nll);
    int ok = 1;
    layer_run(&l, 1, 0);
    matrix_copy(&l.dh, &dh);
    memcpy(nll, l.nll, l.h.rows * sizeof *nll);
    for (size_t n = 0; n < l.h.rows; n += 3) { l.y[n] = -1; }
    layer_run(&l, 1, 0);
    for (size_t k = 0; k < l.h.rows; ++k) {
      size_t shard, in_shard, row = row_of(&l.n, k, &shard, &in_shard);
      ok &= l.nll[k] == (row % 3 == 0 ? 0 : nll[k]);
      for (size_t j = 0; j < l.n.H; ++j) {
        ok &= row % 3 == 0 ? *at(&l.dh, row, j) == 0
                           : same_bits(*at(&l.dh, row, j), *at(&dh, row, j));
      }
    }
    CHECK_AT(ok && matrix_is_clean(&l.O) && matrix_is_clean(&l.dh), "layer %zu", i);
    free(nll);
    matrix_free(&dh);
    layer_free(&l);
  }
}

static uint64_t layer_fingerprint(void)
{
  layer l = layer_new((layer_sizes){5, 6, 2, 97, 33});
  layer_run(&l, 0.5f, 0);
  uint64_t hash = matrix_fingerprint(FINGERPRINT_START, &l.dh);
  hash = fingerprint_add(hash, l.nll, l.h.rows * sizeof *l.nll);
  layer_free(&l);
  return hash;
}

static void test_layer_of_avx2_and_avx512_is_equal(void)
{
  CU_ASSERT(paths_agree(layer_fingerprint));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"softmax: definition and order", test_softmax_is_its_definition_in_the_contract_order},
      {"softmax: columns sum to zero", test_softmax_gradient_columns_sum_to_zero},
      {"softmax: equal logits", test_softmax_of_equal_logits_is_log_v},
      {"softmax: a sure target", test_softmax_of_a_sure_target_costs_nothing},
      {"softmax: only loss", test_softmax_with_only_loss_gives_the_same_loss},
      {"softmax: NaN and infinity", test_softmax_shows_nan_in_its_token_alone},
      {"softmax: no target", test_softmax_without_target_is_nothing},
      {"layer: no target", test_layer_without_target_is_nothing},
      {"layer: equations, any threads", test_layer_is_its_equations_for_any_threads},
      {"layer: only loss", test_layer_with_only_loss_leaves_dh_alone},
      {"layer: smoothed labels", test_layer_with_smoothed_labels_has_the_gradient_of_their_loss},
      {"avx2 equals avx512", test_layer_of_avx2_and_avx512_is_equal},
  };
  return run_kernel_cases("softmax", COUNT(cases), cases);
}
