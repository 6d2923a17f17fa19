/*
 * Everything that is not a matrix product: transposition, sums of gathered
 * rows, the norm, and the optimizers' updates with clipping fused in. All are
 * bound by memory traffic; each element is read and written once.
 */
#include "kernels/isa/math.h"
#include "kernels/isa/table.h"
#include "kernels/shard_tree.h"

/* ------------------------------------------------------------- transposition */

/* A square of LANES x LANES: log2(LANES) rounds exchange the off-diagonal halves of ever smaller squares. */
INLINE void transpose_square(vec r[LANES])
{
  _Pragma("GCC unroll 4") for (size_t half = LANES / 2; half > 0; half /= 2)
  {
    const real_int lanes = (real_int)LANES, step = (real_int)half;
    const vec_int i_lane = vec_index(), upper = (i_lane & step) != 0;
    const vec_int low = i_lane + (upper & (lanes - step));
    const vec_int high = i_lane + step + (upper & (lanes - step));
    _Pragma("GCC unroll 16") for (size_t i = 0; i < LANES; ++i)
    {
      if ((i & half) == 0) {
        vec x = r[i], y = r[i + half];
        r[i] = vec_shuffle(x, y, low);
        r[i + half] = vec_shuffle(x, y, high);
      }
    }
  }
}

void ISA(gather_panel)(size_t n, size_t count, const unroll_real *const *rows, unroll_real *panel,
                       size_t ld)
{
  for (size_t first = 0; first < ld; first += LANES) {
    for (size_t j = 0; j < kernels_pad(n); j += LANES) {
      vec r[LANES];
      for (size_t i = 0; i < LANES; ++i) {
        r[i] = first + i < count ? vec_load(rows[first + i] + j) : (vec){0};
      }
      transpose_square(r);
      for (size_t i = 0; i < LANES; ++i) { vec_store(panel + (j + i) * ld + first, r[i]); }
    }
  }
}

void ISA(scatter_panel)(size_t n, size_t count, const unroll_real *panel, size_t ld,
                        unroll_real *const *rows)
{
  for (size_t first = 0; first < count; first += LANES) {
    for (size_t j = 0; j < kernels_pad(n); j += LANES) {
      vec r[LANES];
      for (size_t i = 0; i < LANES; ++i) { r[i] = vec_load(panel + (j + i) * ld + first); }
      transpose_square(r);
      for (size_t i = 0; i < LANES && first + i < count; ++i) {
        vec_store(rows[first + i] + j, r[i]);
      }
    }
  }
}

/* ------------------------------------------------------ sums of gathered rows */

/* Columns summed at once: enough accumulators to hide the latency of the add. */
#define GATHER_VECS 4

INLINE void sum_rows_block(const size_t vecs, size_t shards, size_t group, const uint32_t *start,
                           const uint32_t *list, const unroll_real *X, size_t ldx, unroll_real *out)
{
  vec stack[SHARD_TREE_LEVELS][GATHER_VECS];
  vec now[GATHER_VECS] = {{0}}, next[GATHER_VECS];
  size_t units = shards / group;

  for (size_t unit = 0; unit < units; ++unit) {
    for (size_t i = 0; i < group; ++i) {
      size_t shard = unit * group + i;
      for (size_t v = 0; v < vecs; ++v) { next[v] = (vec){0}; }
      for (uint32_t k = start[shard]; k < start[shard + 1]; ++k) {
        const unroll_real *row = X + (size_t)list[k] * ldx;
        for (size_t v = 0; v < vecs; ++v) { next[v] += vec_load(row + v * LANES); }
      }
      for (size_t v = 0; v < vecs; ++v) { now[v] = i == 0 ? next[v] : now[v] + next[v]; }
    }
    size_t level = 0;
    for (; (unit >> level) & 1; ++level) {
      for (size_t v = 0; v < vecs; ++v) { now[v] = stack[level][v] + now[v]; }
    }
    for (size_t v = 0; v < vecs; ++v) { stack[level][v] = now[v]; }
  }
  for (size_t v = 0; v < vecs; ++v) { vec_store(out + v * LANES, now[v]); }
}

void ISA(sum_rows)(size_t n, size_t shards, size_t group, const uint32_t *start,
                   const uint32_t *list, const unroll_real *X, size_t ldx, unroll_real *out)
{
  size_t j = 0;
  for (; j + GATHER_VECS * LANES <= n; j += GATHER_VECS * LANES) {
    sum_rows_block(GATHER_VECS, shards, group, start, list, X + j, ldx, out + j);
  }
  for (; j < n; j += LANES) { sum_rows_block(1, shards, group, start, list, X + j, ldx, out + j); }
}

/* ---------------------------------------------------------------------- norm */

/* Half a vector of reals widened to double, so that a lane holds its square exactly. */
typedef unroll_real half_vec __attribute__((vector_size(VEC_BYTES / 2 * sizeof(unroll_real) / 4)));
typedef double wide_vec
    __attribute__((vector_size(sizeof(half_vec) / sizeof(unroll_real) * sizeof(double))));

#define HALF_LANES (sizeof(half_vec) / sizeof(unroll_real))

double ISA(sum_squares)(size_t n, const unroll_real *x)
{
  wide_vec lanes[KERNELS_PAD / HALF_LANES];
  double sum[KERNELS_PAD];
  for (size_t v = 0; v < KERNELS_PAD / HALF_LANES; ++v) { lanes[v] = (wide_vec){0}; }
  for (size_t i = 0; i < n; i += KERNELS_PAD) {
    for (size_t v = 0; v < KERNELS_PAD / HALF_LANES; ++v) {
      half_vec part;
      memcpy(&part, x + i + v * HALF_LANES, sizeof part);
      wide_vec w = __builtin_convertvector(part, wide_vec);
      lanes[v] += w * w;
    }
  }
  memcpy(sum, lanes, sizeof sum);
  for (size_t half = KERNELS_PAD / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) { sum[i] += sum[i + half]; }
  }
  return sum[0];
}

/* ------------------------------------------------------------------- updates */

/* keep * w is rounded before the update is added, and exact where keep is 1. */

void ISA(add)(size_t n, const unroll_real *y, unroll_real *x)
{
  for (size_t i = 0; i < n; i += LANES) { vec_store(x + i, vec_load(x + i) + vec_load(y + i)); }
}

void ISA(sgd)(size_t n, double scale, double eta, double keep, const unroll_real *g, unroll_real *w)
{
  const vec s = vec_splat((unroll_real)scale), minus_eta = vec_splat((unroll_real)-eta);
  const vec k = vec_splat((unroll_real)keep);
  for (size_t i = 0; i < n; i += LANES) {
    vec_store(w + i, vec_fma(minus_eta, s * vec_load(g + i), k * vec_load(w + i)));
  }
}

void ISA(momentum)(size_t n, double scale, double eta, double keep, double mu, const unroll_real *g,
                   unroll_real *v, unroll_real *w)
{
  const vec s = vec_splat((unroll_real)scale), minus_eta = vec_splat((unroll_real)-eta);
  const vec k = vec_splat((unroll_real)keep);
  const vec m = vec_splat((unroll_real)mu);
  for (size_t i = 0; i < n; i += LANES) {
    vec velocity = vec_fma(m, vec_load(v + i), s * vec_load(g + i));
    vec_store(v + i, velocity);
    vec_store(w + i, vec_fma(minus_eta, velocity, k * vec_load(w + i)));
  }
}

void ISA(adam)(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
               unroll_real *v, unroll_real *w)
{
  const vec s = vec_splat((unroll_real)scale);
  const vec b1 = vec_splat((unroll_real)how->beta1), c1 = vec_splat((unroll_real)(1 - how->beta1));
  const vec b2 = vec_splat((unroll_real)how->beta2), c2 = vec_splat((unroll_real)(1 - how->beta2));
  const vec minus_rate = vec_splat((unroll_real)-how->rate);
  const vec correction = vec_splat((unroll_real)how->correction);
  const vec epsilon = vec_splat((unroll_real)how->epsilon), k = vec_splat((unroll_real)how->keep);
  for (size_t i = 0; i < n; i += LANES) {
    vec gi = s * vec_load(g + i);
    vec mi = vec_fma(b1, vec_load(m + i), c1 * gi);
    vec vi = vec_fma(b2, vec_load(v + i), c2 * (gi * gi));
    vec_store(m + i, mi);
    vec_store(v + i, vi);
    vec_store(w + i,
              vec_fma(minus_rate, mi / (vec_sqrt(vi * correction) + epsilon), k * vec_load(w + i)));
  }
}

void ISA(average)(size_t n, double share, const unroll_real *w, unroll_real *a)
{
  const vec s = vec_splat((unroll_real)share);
  for (size_t i = 0; i < n; i += LANES) {
    const vec ai = vec_load(a + i);
    vec_store(a + i, vec_fma(s, vec_load(w + i) - ai, ai));
  }
}

/* ---------------------------------------------------------- vector functions */

void ISA(exp)(size_t n, const unroll_real *x, unroll_real *y)
{
  for (size_t i = 0; i < n; i += LANES) { vec_store(y + i, vec_exp(vec_load(x + i))); }
}

void ISA(tanh)(size_t n, const unroll_real *x, unroll_real *y)
{
  for (size_t i = 0; i < n; i += LANES) { vec_store(y + i, vec_tanh(vec_load(x + i))); }
}

void ISA(sigmoid)(size_t n, const unroll_real *x, unroll_real *y)
{
  for (size_t i = 0; i < n; i += LANES) { vec_store(y + i, vec_sigmoid(vec_load(x + i))); }
}
