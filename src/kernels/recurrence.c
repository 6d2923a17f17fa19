#include "kernels/recurrence.h"

#include "kernels/dispatch.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

size_t weights_packed_size(size_t n, size_t k)
{
  return kernels_pad(n) * kernels_pad(k) + kernels()->nr * kernels_pad(k);
}

size_t panel_count(size_t n)
{
  return (kernels_pad(n) + kernels()->nr - 1) / kernels()->nr;
}

size_t panel_width(size_t n, size_t panel)
{
  const kernel_table *k = kernels();
  size_t left = kernels_pad(n) - panel * k->nr;
  return left < k->nr ? left : k->nr;
}

/* weights_pack, with the panels of W at every `stride_panels`-th panel of the result. */
static void pack(size_t rows, size_t cols, const unroll_real *W, size_t ld, int transposed,
                 size_t stride_panels, unroll_real *panels)
{
  const kernel_table *k = kernels();
  size_t n = transposed ? rows : cols, summed = transposed ? cols : rows;
  size_t count = panel_count(n), stride = stride_panels * k->nr * kernels_pad(summed);

#pragma omp parallel for default(none) schedule(static)                                            \
    shared(k, n, summed, count, stride, rows, W, ld, transposed, panels)
  for (size_t p = 0; p < count; ++p) {
    size_t first = p * k->nr, width = panel_width(n, p);
    unroll_real *panel = panels + p * stride;
    if (transposed) {
      const unroll_real *row[64];                    /* nr is at most 32 */
      size_t left = first < rows ? rows - first : 0; /* a narrow panel can be padding alone */
      size_t valid = left < width ? left : width;
      for (size_t i = 0; i < valid; ++i) { row[i] = W + (first + i) * ld; }
      k->gather_panel(summed, valid, row, panel, width);
    } else {
      for (size_t i = 0; i < summed; ++i) {
        memcpy(panel + i * width, W + i * ld + first, width * sizeof *W);
      }
    }
  }
}

void weights_pack(size_t rows, size_t cols, const unroll_real *W, size_t ld, int transposed,
                  unroll_real *panels)
{
  pack(rows, cols, W, ld, transposed, 1, panels);
}

void recurrent_pack(size_t blocks, size_t H, const unroll_real *W, size_t ld, unroll_real *panels)
{
  for (size_t k = 0; k < blocks; ++k) {
    pack(H, H, W + k * kernels_pad(H) * ld, ld, 1, blocks,
         panels + k * kernels()->nr * kernels_pad(H));
  }
}

void weights_scale(size_t n, double factor, unroll_real *panels)
{
  const unroll_real by = (unroll_real)factor;
#pragma omp parallel for default(none) schedule(static) shared(n, by, panels)
  for (size_t i = 0; i < n; ++i) { panels[i] *= by; }
}

/* ------------------------------------------------------------ plain product */

/*
 * K is cut, so that rows of A stay in the cache while all panels pass over them, in blocks of many rows: each panel is
 * read again for each block. LONG_K, for the chains are stored and loaded again at each cut.
 */
#define LONG_K 512

/* Multiply-adds that take one thread as long as starting and ending a region: no region for fewer. */
#define REGION_WORK 100000

/* The threads as a two-dimensional grid over the result. */
typedef struct grid {
  size_t row_blocks, column_blocks;
} grid;

/* The grid with the least work of a thread; then the squarest blocks, which read least of both operands. */
static grid choose_grid(size_t rows, size_t panels, size_t threads)
{
  const size_t nr = kernels()->nr;
  grid best = {.row_blocks = threads, .column_blocks = 1};
  size_t least_work = SIZE_MAX, least_reads = SIZE_MAX;
  for (size_t column_blocks = 1; column_blocks <= threads; ++column_blocks) {
    if (threads % column_blocks != 0) { continue; }
    size_t m = ceil_div(rows, threads / column_blocks), n = ceil_div(panels, column_blocks) * nr;
    if (m * n < least_work || (m * n == least_work && m + n < least_reads)) {
      best = (grid){.row_blocks = threads / column_blocks, .column_blocks = column_blocks};
      least_work = m * n;
      least_reads = m + n;
    }
  }
  return best;
}

/* Block `i` of a grid, by one thread, in nearly equal slices of rows. */
static void linear_block(const rows_product *whole, grid g, size_t i)
{
  const size_t row = i / g.column_blocks, column = i % g.column_blocks, panels = whole->last;
  size_t m = whole->M * row / g.row_blocks, end = whole->M * (row + 1) / g.row_blocks;
  rows_product p = *whole;
  p.block_K = LONG_K;
  const size_t fit = kernels_blocks()->block / (p.K < LONG_K ? p.K : LONG_K);
  const size_t most = fit < kernels()->mr ? kernels()->mr : fit;
  p.first = panels * column / g.column_blocks;
  p.last = panels * (column + 1) / g.column_blocks;
  for (; m < end; m += p.M) {
    p.M = ceil_div(end - m, ceil_div(end - m, most));
    p.A = whole->A + m * p.lda;
    p.C = whole->C + m * p.ldc;
    kernels()->rows(&p);
  }
}

void linear(size_t M, size_t K, size_t N, const unroll_real *A, size_t lda,
            const unroll_real *panels, unroll_real *C, size_t ldc)
{
  const rows_product whole = {.M = M,
                              .K = K,
                              .N = N,
                              .A = A,
                              .lda = lda,
                              .panels = panels,
                              .first = 0,
                              .last = panel_count(N),
                              .C = C,
                              .ldc = ldc};
  if (M * N * K < REGION_WORK) {
    linear_block(&whole, (grid){1, 1}, 0);
    return;
  }
#pragma omp parallel default(none) shared(whole)
  {
    grid g = choose_grid(whole.M, whole.last, (size_t)omp_get_num_threads());
    linear_block(&whole, g, (size_t)omp_get_thread_num());
  }
}

/* ---------------------------------------------------------------- the split */

/*
 * Either each thread has some rows (sequences), and there is no barrier between
 * time steps; or some columns (hidden units) of all rows, with a barrier
 * after every step: then it reads only these columns of W_hh, which fit its second-level
 * cache. By columns where a thread's rows would not fill a register tile, or where
 * the whole of W_hh is too large for that cache.
 */
typedef struct thread_range {
  size_t row, rows;   /* of this thread */
  size_t first, last; /* panels of this thread */
  int lockstep;       /* split by columns: a barrier after every step */
} thread_range;

static thread_range thread_range_of(const recurrence *r, size_t thread, size_t threads)
{
  const kernel_table *k = kernels();
  const size_t B = r->B, H = r->H, panels = panel_count(H);
  const int fits = r->cell->recurrent * H * H <= kernels_blocks()->whole;
  int by_columns = threads > 1 && panels >= threads && (B < threads * k->mr || !fits);
  thread_range s = {.row = 0, .rows = B, .first = 0, .last = panels, .lockstep = by_columns};
  if (by_columns) {
    s.first = panels * thread / threads;
    s.last = panels * (thread + 1) / threads;
  } else {
    s.row = (B * thread + threads - 1) /
            threads; /* rounded up: the main thread, which polls, has rows */
    s.rows = (B * (thread + 1) + threads - 1) / threads - s.row;
  }
  return s;
}

size_t state_panels_stride(size_t T, size_t B)
{
  return kernels()->nr * (T + 1) * B;
}

size_t state_panels_size(size_t T, size_t B, size_t H)
{
  return panel_count(H) * state_panels_stride(T, B);
}

/* Row of a slot of sequence b in state panels of so many steps, `in_shard` sequences in each shard. */
static inline size_t panel_row_of(size_t panel_T, size_t in_shard, size_t slot, size_t b)
{
  return (b / in_shard * (panel_T + 1) + slot) * in_shard + b % in_shard;
}

/* This thread's rows and columns of slot 0, which no time step computes, into the state panels. */
static void copy_slot_0(const recurrence *r, const thread_range *s)
{
  for (size_t p = s->first; p < s->last; ++p) {
    size_t width = panel_width(r->H, p), column = p * kernels()->nr;
    unroll_real *panel = r->state_panels + p * state_panels_stride(r->panel_T, r->B);
    for (size_t b = s->row; b < s->row + s->rows; ++b) {
      memcpy(panel + r->panel_row[b] * width, r->h + b * r->ld + column, width * sizeof *panel);
    }
  }
}

void recurrence_forward(const recurrence *r)
{
  const kernel_table *k = kernels();
  size_t in_shard = r->state_panels != NULL ? r->B / r->shards : 0;
  for (size_t b = 0; b < r->B && r->state_panels != NULL; ++b) {
    r->panel_row[b] = (uint32_t)panel_row_of(r->panel_T, in_shard, 0, b);
  }

#pragma omp parallel default(none) shared(k, r, in_shard)
  {
    const thread_range s =
        thread_range_of(r, (size_t)omp_get_thread_num(), (size_t)omp_get_num_threads());
    cell_step p = {.M = s.rows,
                   .H = r->H,
                   .first = s.first,
                   .last = s.last,
                   .ld = r->ld,
                   .panels = r->forward,
                   .ld_input = r->ld_input,
                   .bias = r->bias,
                   .hidden_bias = r->hidden_bias,
                   .ld_gates = r->ld_deltas};
    if (r->state_panels != NULL) {
      copy_slot_0(r, &s);
      p.copy_panel = state_panels_stride(r->panel_T, r->B);
      p.copy_row = r->panel_row + s.row;
    }
    for (size_t t = 0; t < r->T && (s.rows > 0 || s.lockstep); ++t) {
      const size_t row = t * r->B + s.row;
      p.h_before = r->h + row * r->ld;
      p.h = r->h + (row + r->B) * r->ld;
      if (r->cell->memory) {
        p.c_before = r->c + row * r->ld;
        p.c = r->c + (row + r->B) * r->ld;
      }
      p.gates = r->deltas != NULL ? r->deltas + row * r->ld_deltas : NULL;
      p.index = r->index != NULL ? r->index + row : NULL;
      p.input = r->index != NULL ? r->input : r->input + row * r->ld_input;
      p.copy = r->state_panels;
      p.copy_first = (t + 1) * in_shard;
      k->forward[r->cell->id](&p);
      if (s.lockstep) {
#pragma omp barrier
      }
    }
  }
}

void state_panels_copy(const state_rows *r)
{
  const size_t stride = state_panels_stride(r->panel_T, r->B), nr = kernels()->nr;
  const size_t in_shard = r->B / r->shards, panels = panel_count(r->H);

#pragma omp parallel for collapse(2) schedule(static) default(none)                                \
    shared(r, stride, nr, in_shard, panels)
  for (size_t t = 0; t < r->T; ++t) {
    for (size_t b = 0; b < r->B; ++b) {
      const unroll_real *row = r->h + (t * r->B + b) * r->ld;
      const size_t at = panel_row_of(r->panel_T, in_shard, r->slot + t, b);
      for (size_t p = 0; p < panels; ++p) {
        const size_t width = panel_width(r->H, p);
        memcpy(r->state_panels + p * stride + at * width, row + p * nr, width * sizeof *row);
      }
    }
  }
}

void recurrence_zero_state(const recurrence *r, size_t slot, size_t b)
{
  const size_t in_shard = r->B / r->shards;
  const size_t at = (slot * r->B + b) * r->ld, bytes = kernels_pad(r->H) * sizeof *r->h;
  memset(r->h + at, 0, bytes);
  if (r->cell->memory) { memset(r->c + at, 0, bytes); }
  for (size_t p = 0; p < panel_count(r->H) && r->state_panels != NULL; ++p) {
    size_t width = panel_width(r->H, p), row = r->panel_row[b] + slot * in_shard;
    memset(r->state_panels + p * state_panels_stride(r->panel_T, r->B) + row * width, 0,
           width * sizeof *r->state_panels);
  }
}

void recurrence_backward(const recurrence *r, kernel_poll poll)
{
  const kernel_table *k = kernels();
  const cell *c = r->cell;
  const size_t flow = r->B * r->ld * sizeof *r->dh; /* [bytes] of dc and bypass */
  if (r->after == NULL && c->memory) { memset(r->dc, 0, flow); }
  if (r->after == NULL && c->bypass) { memset(r->bypass, 0, flow); }

#pragma omp parallel default(none) shared(k, r, c, poll)
  {
    const thread_range s =
        thread_range_of(r, (size_t)omp_get_thread_num(), (size_t)omp_get_num_threads());
    const size_t first = s.row * r->ld;
    cell_back p = {.M = s.rows,
                   .H = r->H,
                   .first = s.first,
                   .last = s.last,
                   .panels = r->backward,
                   .ld = r->ld,
                   .ld_deltas = r->ld_deltas,
                   .dc = c->memory ? r->dc + first : NULL,
                   .bypass = c->bypass ? r->bypass + first : NULL,
                   .xi = (unroll_real)r->xi};
    for (size_t t = r->T; t-- > 0 && (s.rows > 0 || s.lockstep);) {
      const size_t row = t * r->B + s.row, at = row * r->ld, next = at + r->B * r->ld;
      const unroll_real *after = r->after != NULL ? r->after + s.row * r->ld_deltas : NULL;
      p.deltas = r->deltas + row * r->ld_deltas;
      if (t + 1 < r->T) { after = p.deltas + r->B * r->ld_deltas; }
      p.K = after != NULL && c->recurrent > 0 ? blocks_size(c->recurrent, r->H) : 0;
      p.after = p.K > 0 ? after + c->first_recurrent * kernels_pad(r->H) : p.deltas;
      p.dh = r->dh + at;
      p.h_before = r->h + at;
      p.h = r->h + next;
      if (c->memory) {
        p.c_before = r->c + at;
        p.c = r->c + next;
      }
      k->backward[c->id](&p);
      if (s.lockstep) {
#pragma omp barrier
      }
      if (poll.call != NULL && omp_get_thread_num() == 0) { poll.call(poll.context); }
    }
  }
}
