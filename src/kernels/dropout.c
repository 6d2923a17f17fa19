#include "kernels/dropout.h"

#include "base/random.h"

#include <assert.h>
#include <string.h>

/* Bits of a random word for each unit. */
#define BITS  16
#define UNITS (64 / BITS)

/*
 * A row: the words are SplitMix64's from the row's own seed on. A fresh counter for each word would cost four times
 * the multiplications, and drawing is what dropout costs.
 */
static void drop_row(uint64_t seed, uint64_t cut, unroll_real scale, size_t n,
                     const unroll_real *from, unroll_real *to)
{
  const uint64_t low = (UINT64_C(1) << BITS) - 1;
  for (size_t k = 0; k < n; k += UNITS) {
    seed += RANDOM_GOLDEN;
    const uint64_t word = random_mix(seed);
    for (size_t i = 0; i < UNITS; ++i) {
      const bool dropped = (word >> (BITS * i) & low) < cut;
      to[k + i] = dropped ? 0 : from[k + i] * scale;
    }
  }
}

#define VALUES (UINT64_C(1) << BITS)

/* A unit is dropped whose bits are below this. */
static uint64_t cut_of(double p)
{
  assert(p >= 0.0 && p < 0.999);
  return (uint64_t)(p * (double)VALUES + 0.5);
}

/* Factor of the others. */
static unroll_real scale_of(uint64_t cut)
{
  return (unroll_real)((double)VALUES / (double)(VALUES - cut));
}

void dropout_run(const dropout_rows *r)
{
  const dropout *how = r->how;
  const uint64_t cut = cut_of(r->p);
  const unroll_real scale = scale_of(cut);
  const size_t padded = kernels_pad(r->n); /* zeros stay zero */
  assert(r->ld >= padded);

#pragma omp parallel for collapse(2) schedule(static) default(none)                                \
    shared(r, how, cut, scale, padded)
  for (size_t t = 0; t < r->T; ++t) {
    for (size_t b = 0; b < r->B; ++b) {
      const uint64_t i = how->update << 8 | r->layer;
      const uint64_t sequence = how->first + (how->row != NULL ? how->row[b] : b);
      const uint64_t j = sequence << 40 | (how->per_step ? how->step + t : 0);
      const size_t at = (t * r->B + b) * r->ld;
      drop_row(random_bits(how->seed, RANDOM_DROPOUT, i, j), cut, scale, padded, r->from + at,
               r->to + at);
    }
  }
}

void dropout_words(const dropout *how, size_t n, const int32_t *x, size_t ld, unroll_real *rows)
{
  const uint64_t cut = cut_of(how->p_words);
  const unroll_real scale = scale_of(cut);

#pragma omp parallel for schedule(static) default(none) shared(how, n, x, ld, rows, cut, scale)
  for (size_t i = 0; i < n; ++i) {
    const uint64_t word = random_bits(how->seed, RANDOM_WORD, how->update, (uint64_t)x[i]);
    unroll_real *row = rows + i * ld;
    if ((word & (VALUES - 1)) < cut) {
      memset(row, 0, ld * sizeof *row);
    } else {
      for (size_t k = 0; k < ld; ++k) { row[k] *= scale; }
    }
  }
}

void dropout_weights(const dropout_matrix *m)
{
  const uint64_t cut = cut_of(m->how->p_weights);
  const unroll_real scale = scale_of(cut);
  const size_t block = blocks_size(m->blocks, m->H) / m->blocks, padded = kernels_pad(m->H);
  assert(m->ld >= padded && m->end <= m->blocks * block);

#pragma omp parallel for schedule(static) default(none) shared(m, cut, scale, block, padded)
  for (size_t i = m->begin; i < m->end; ++i) {
    const uint64_t row = i / block * m->H + i % block; /* without padding */
    if (i % block >= m->H) { continue; }
    drop_row(random_bits(m->how->seed, RANDOM_WEIGHT, m->how->update << 8 | m->layer, row), cut,
             scale, padded, m->from + i * m->ld, m->to + i * m->ld);
  }
}
