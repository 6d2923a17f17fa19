#include "support.h"

#include "base/random.h"
#include "data/streams.h"
#include "kernels/dispatch.h"
#include "net/score.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB 37
#define UNITS 21

static unroll_params *params_of(size_t L, double factor)
{
  unroll_params *p = NULL;
  if (kernels_start() != UNROLL_OK ||
      unroll_params_new(&(unroll_shape){.V = VOCAB, .H = UNITS, .L = L}, &p) != UNROLL_OK ||
      unroll_params_start(p, &(unroll_start){.seed = 23}) != UNROLL_OK) {
    fprintf(stderr, "%s\n", unroll_message());
    abort();
  }
  for (size_t i = 0; i < p->n; ++i) { p->values[i] *= (unroll_real)factor; }
  return p;
}

static network *network_of(const unroll_params *p, size_t T, size_t B, size_t shards)
{
  network *net = NULL;
  const network_size size = {.T = T, .chunk = T, .B = B, .shards = shards, .group = 1};
  if (network_new(p, &size, &net) != UNROLL_OK) {
    fprintf(stderr, "%s\n", unroll_message());
    abort();
  }
  network_pack(net);
  network_reset(net);
  return net;
}

/* Random tokens in B streams of equal length. */
static text_source streams_of(size_t B, uint64_t length)
{
  text_source s = {.cut = {.B = B, .count = B}, .width = 1};
  uint8_t *tokens = malloc(B * length + 1);
  if (tokens == NULL) { abort(); }
  for (size_t i = 0; i <= B * length; ++i) {
    tokens[i] = (uint8_t)random_below(9, RANDOM_SYNTHETIC, 0, i, VOCAB);
  }
  s.tokens = tokens;
  streams_cut(&s, length);
  return s;
}

/* What the listener was called with, stream by stream, and the sums of score_text. */
struct collected {
  size_t B, length;
  uint64_t steps;
  double *nll; /* (B, length) */
  int32_t *y;  /* (B, length) */
  double *sums;
};

/* Of one shard a sequence: nll is (B, T), y (T, B). */
static void collect(void *context, size_t T, const int32_t *y, const double *nll)
{
  struct collected *h = context;
  for (size_t b = 0; b < h->B; ++b) {
    for (size_t t = 0; t < T; ++t) {
      h->nll[b * h->length + h->steps + t] = nll[b * T + t];
      h->y[b * h->length + h->steps + t] = y[t * h->B + b];
    }
  }
  h->steps += T;
}

static struct collected score(const unroll_params *p, const text_source *s, size_t T)
{
  struct collected h = {.B = s->cut.count, .length = (size_t)s->length};
  network *net = network_of(p, T, s->cut.count, s->cut.count);
  h.nll = calloc(h.B * h.length, sizeof *h.nll);
  h.y = calloc(h.B * h.length, sizeof *h.y);
  h.sums = calloc(h.B, sizeof *h.sums);
  if (h.nll == NULL || h.y == NULL || h.sums == NULL) { abort(); }
  score_text(net, s, (score_listener){.call = collect, .context = &h}, h.sums);
  network_free(&net);
  return h;
}

static void collected_free(struct collected *h)
{
  free(h->nll);
  free(h->y);
  free(h->sums);
}

/* -------------------------------------------------------------- known values */

static void test_uniform_model_has_perplexity_V(void)
{
  for (size_t L = 1; L <= 2; ++L) {
    unroll_params *p = params_of(L, 0.0);
    text_source s = streams_of(3, 40);
    struct collected h = score(p, &s, 16);
    for (size_t b = 0; b < 3; ++b) {
      CU_ASSERT_DOUBLE_EQUAL(exp(h.sums[b] / 40), VOCAB, 1e-12 * VOCAB);
    }
    collected_free(&h);
    free(s.tokens);
    unroll_params_free(&p);
  }
}

static void test_started_model_is_close_to_ln_V(void)
{
  for (size_t L = 1; L <= 3; ++L) {
    unroll_params *p = params_of(L, 1.0);
    text_source s = streams_of(4, 500);
    struct collected h = score(p, &s, 64);
    double loss = (h.sums[0] + h.sums[1] + h.sums[2] + h.sums[3]) / 2000;
    CU_ASSERT_DOUBLE_EQUAL(loss, log(VOCAB), 0.05);
    collected_free(&h);
    free(s.tokens);
    unroll_params_free(&p);
  }
}

/* Logits that grow without bound still give -log of a probability: 0 or the distance, never NaN. */
static void test_extreme_logits_stay_finite(void)
{
  unroll_params *p = params_of(1, 0.0);
  const unroll_tensor *b_q = unroll_params_find(p, "output", "b_q");
  text_source s = streams_of(1, 50);
  p->values[unroll_tensor_index(b_q, 5, 0)] = 1e6f;
  struct collected h = score(p, &s, 50);
  for (size_t t = 0; t < 50; ++t) {
    CU_ASSERT_DOUBLE_EQUAL(h.nll[t], h.y[t] == 5 ? 0.0 : 1e6, 1e-6);
  }
  collected_free(&h);
  free(s.tokens);
  unroll_params_free(&p);
}

/* ---------------------------------------------------------------- identities */

static void test_forward_over_T_equals_T_forwards_of_one_step(void)
{
  enum { T = 9, B = 6, SHARDS = 3 };
  for (size_t L = 1; L <= 3; ++L) {
    unroll_params *p = params_of(L, 2.0);
    network *whole = network_of(p, T, B, SHARDS), *one = network_of(p, 1, B, SHARDS);
    int same = 1;
    for (size_t i = 0; i < T * B; ++i) {
      whole->x[i] = (int32_t)random_below(9, RANDOM_SYNTHETIC, 1, i, VOCAB);
      whole->y[i] = (int32_t)random_below(9, RANDOM_SYNTHETIC, 2, i, VOCAB);
    }
    network_forward(whole, T);
    network_output(whole, (network_span){0, 0, T}, 0.0, true);
    for (size_t t = 0; t < T; ++t) {
      memcpy(one->x, whole->x + t * B, B * sizeof *one->x);
      memcpy(one->y, whole->y + t * B, B * sizeof *one->y);
      network_forward(one, 1);
      network_output(one, (network_span){0, 0, 1}, 0.0, true);
      for (size_t b = 0; b < B; ++b) {
        size_t in_shard = B / SHARDS, shard = b / in_shard;
        size_t at = shard * T * in_shard + t * in_shard + b % in_shard;
        same &= whole->head.nll[at] == one->head.nll[b];
        for (size_t l = 0; l < L; ++l) {
          same &= memcmp(whole->layers[l].h + ((t + 1) * B + b) * whole->layers[l].ld,
                         one->layers[l].h + (B + b) * one->layers[l].ld,
                         UNITS * sizeof(unroll_real)) == 0;
        }
      }
      network_carry(one, 1);
    }
    CU_ASSERT(same);
    network_free(&one);
    network_free(&whole);
    unroll_params_free(&p);
  }
}

static void test_score_in_windows_equals_score_of_the_whole(void)
{
  enum { B = 3, LENGTH = 101 };
  static const size_t windows[] = {1, 7, 64, 100};
  for (size_t L = 1; L <= 2; ++L) {
    unroll_params *p = params_of(L, 2.0);
    text_source s = streams_of(B, LENGTH);
    struct collected whole = score(p, &s, LENGTH);
    CU_ASSERT_EQUAL(whole.steps, LENGTH);
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; ++i) {
      struct collected h = score(p, &s, windows[i]);
      CU_ASSERT_EQUAL(h.steps, LENGTH);
      CU_ASSERT(memcmp(h.nll, whole.nll, B * LENGTH * sizeof *h.nll) == 0);
      CU_ASSERT(memcmp(h.sums, whole.sums, B * sizeof *h.sums) == 0);
      collected_free(&h);
    }
    collected_free(&whole);
    free(s.tokens);
    unroll_params_free(&p);
  }
}

static void test_score_hears_every_target_and_sums_what_it_tells(void)
{
  enum { B = 4, LENGTH = 50 };
  unroll_params *p = params_of(1, 1.0);
  text_source s = streams_of(B, LENGTH);
  struct collected h = score(p, &s, 16);
  const uint8_t *tokens = s.tokens;
  int same = 1;
  for (size_t b = 0; b < B; ++b) {
    double sum = 0.0;
    for (size_t t = 0; t < LENGTH; ++t) {
      same &= h.y[b * LENGTH + t] == tokens[b * LENGTH + t + 1];
      sum += h.nll[b * LENGTH + t];
    }
    CU_ASSERT_DOUBLE_EQUAL(h.sums[b] / sum, 1.0, 1e-12);
  }
  CU_ASSERT(same);
  collected_free(&h);
  free(s.tokens);
  unroll_params_free(&p);
}

/* A stream is scored alike alone and in company, by any number of threads. */
static void test_score_of_a_stream_does_not_depend_on_the_others(void)
{
  enum { B = 5, LENGTH = 60 };
  unroll_params *p = params_of(2, 2.0);
  text_source s = streams_of(B, LENGTH);
  struct collected together = score(p, &s, 32);
  int before = omp_get_max_threads();

  for (size_t b = 0; b < B; ++b) {
    text_source one = s;
    omp_set_num_threads(1 + (int)b);
    one.tokens = (uint8_t *)s.tokens + b * LENGTH;
    one.cut.B = one.cut.count = 1;
    struct collected h = score(p, &one, 32);
    CU_ASSERT(memcmp(h.nll, together.nll + b * LENGTH, LENGTH * sizeof *h.nll) == 0);
    CU_ASSERT_EQUAL(h.sums[0], together.sums[b]);
    collected_free(&h);
  }
  omp_set_num_threads(before);
  collected_free(&together);
  free(s.tokens);
  unroll_params_free(&p);
}

/* The identities above would hold of a model that forgets, too. */
static void test_score_depends_on_what_came_before(void)
{
  unroll_params *p = params_of(1, 3.0);
  text_source s = streams_of(1, 40), later = s;
  later.tokens = (uint8_t *)s.tokens + 20;
  streams_cut(&later, 20);
  struct collected whole = score(p, &s, 20), half = score(p, &later, 20);
  CU_ASSERT_EQUAL(half.y[0], whole.y[20]);
  CU_ASSERT(fabs(half.nll[0] - whole.nll[20]) > 1e-3);
  collected_free(&half);
  collected_free(&whole);
  free(s.tokens);
  unroll_params_free(&p);
}

/* Windows in random order have no past: together they lose what each loses alone, from the zero state. */
static void test_score_begins_each_batch_with_the_zero_state(void)
{
  enum { T = 10 };
  unroll_params *p = params_of(1, 3.0);
  text_source s = streams_of(1, 45), windows = s;
  double together = 0.0, alone = 0.0;
  windows.cut.partition = UNROLL_PARTITION_RANDOM;
  windows.cut.window = T;
  streams_cut(&windows, s.length);
  CU_ASSERT_EQUAL(windows.batches, 3);
  for (uint64_t k = 0; k < windows.batches; ++k) {
    text_source one = s;
    one.tokens = (uint8_t *)s.tokens + text_source_stretch(&windows, 0, k, 0).start;
    streams_cut(&one, T);
    struct collected h = score(p, &one, T);
    alone += h.sums[0];
    collected_free(&h);
  }
  network *net = network_of(p, T, 1, 1);
  score_text(net, &windows, (score_listener){0}, &together);
  CU_ASSERT_DOUBLE_EQUAL(together / alone, 1.0, 1e-12);
  network_free(&net);
  free(s.tokens);
  unroll_params_free(&p);
}

/* The state put aside and put back is the same state. */
static void test_state_out_and_in_again_changes_nothing(void)
{
  enum { T = 4, B = 3, L = 2 };
  unroll_params *p = params_of(L, 2.0);
  network *net = network_of(p, T, B, 1), *other = network_of(p, T, B, 1);
  unroll_real state[L * B * UNITS], again[L * B * UNITS];
  for (size_t i = 0; i < T * B; ++i) {
    net->x[i] = (int32_t)i;
    other->x[i] = (int32_t)i;
  }
  network_forward(net, T);
  network_carry(net, T);
  network_get_state(net, state);
  network_set_state(other, state);
  network_get_state(other, again);
  CU_ASSERT(memcmp(state, again, sizeof state) == 0);
  network_forward(net, T);
  network_forward(other, T);
  for (size_t l = 0; l < L; ++l) {
    int same = 1;
    for (size_t row = 0; row < (T + 1) * B; ++row) {
      size_t at = row * net->layers[0].ld;
      same &=
          memcmp(net->layers[l].h + at, other->layers[l].h + at, UNITS * sizeof(unroll_real)) == 0;
    }
    CU_ASSERT(same);
  }
  network_reset(net);
  network_get_state(net, again);
  memset(state, 0, sizeof state);
  CU_ASSERT(memcmp(state, again, sizeof state) == 0);
  network_free(&other);
  network_free(&net);
  unroll_params_free(&p);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"uniform model: perplexity VOCAB", test_uniform_model_has_perplexity_V},
      {"started model: about ln VOCAB", test_started_model_is_close_to_ln_V},
      {"extreme logits", test_extreme_logits_stay_finite},
      {"T steps are T times one step", test_forward_over_T_equals_T_forwards_of_one_step},
      {"windows are the whole", test_score_in_windows_equals_score_of_the_whole},
      {"listener", test_score_hears_every_target_and_sums_what_it_tells},
      {"streams are independent", test_score_of_a_stream_does_not_depend_on_the_others},
      {"the past matters", test_score_depends_on_what_came_before},
      {"batches from the zero state", test_score_begins_each_batch_with_the_zero_state},
      {"state out and in", test_state_out_and_in_again_changes_nothing},
  };
  return run_cases("score", sizeof cases / sizeof cases[0], cases);
}
