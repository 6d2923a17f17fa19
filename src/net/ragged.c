#include "net/ragged.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

unroll_status ragged_init(size_t B, size_t shards, ragged *r)
{
  unroll_status st = UNROLL_OK;
  *r = (ragged){.B = B, .shards = shards};
  UNROLL_TRY(memory_new(B, sizeof *r->length, "lengths", &r->length));
  UNROLL_TRY(memory_new(shards, sizeof *r->place, "lengths", &r->place));
  UNROLL_TRY(memory_new(shards, sizeof *r->place_of, "lengths", &r->place_of));
  UNROLL_TRY(memory_new(B, sizeof *r->row, "lengths", &r->row));
  UNROLL_TRY(memory_new(B, sizeof *r->gathered, "lengths", &r->gathered));

cleanup:
  return st;
}

void ragged_destroy(ragged *r)
{
  memory_free(&r->gathered);
  memory_free(&r->row);
  memory_free(&r->place_of);
  memory_free(&r->place);
  memory_free(&r->length);
}

/* The longest first; equal ones in their own order. */
static int by_steps(const void *left, const void *right)
{
  const ragged_place *a = left, *b = right;
  if (a->steps != b->steps) { return a->steps > b->steps ? -1 : 1; }
  return a->shard < b->shard ? -1 : a->shard > b->shard;
}

uint64_t ragged_sort(ragged *r)
{
  const size_t in_shard = r->B / r->shards;
  for (size_t s = 0; s < r->shards; ++s) {
    r->place[s] = (ragged_place){.shard = (uint32_t)s};
    for (size_t b = s * in_shard; b < (s + 1) * in_shard; ++b) {
      if (r->length[b] > r->place[s].steps) { r->place[s].steps = r->length[b]; }
    }
  }
  qsort(r->place, r->shards, sizeof *r->place, by_steps);
  for (size_t i = 0; i < r->shards; ++i) {
    r->place_of[r->place[i].shard] = (uint32_t)i;
    for (size_t b = 0; b < in_shard; ++b) {
      r->row[i * in_shard + b] = (uint32_t)(r->place[i].shard * in_shard + b);
    }
  }
  return r->place[0].steps;
}

size_t ragged_active(const ragged *r, uint64_t step)
{
  size_t n = 0;
  while (n < r->shards && r->place[n].steps > step) { ++n; }
  return n;
}

void ragged_gather(const ragged *r, size_t T, size_t n, int32_t *x)
{
  for (size_t t = 0; t < T; ++t) {
    for (size_t i = 0; i < n; ++i) { r->gathered[i] = x[t * r->B + r->row[i]]; }
    memcpy(x + t * n, r->gathered, n * sizeof *x);
  }
}
