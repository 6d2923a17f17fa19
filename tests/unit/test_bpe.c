#include "support.h"

#include "base/memory.h"
#include "base/random.h"
#include "data/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pieces and their counts. */
struct pieces {
  words texts;
  uint64_t counts[512];
};

static void add(struct pieces *p, const char *text, size_t n, uint64_t count)
{
  size_t index = 0;
  if (words_add(&p->texts, text, n, &index) != UNROLL_OK || index >= 512) { abort(); }
  p->counts[index] += count;
}

static bool is_text(const words *w, size_t i, const char *text)
{
  size_t n = 0;
  const char *is = words_view(w, i, &n);
  return n == strlen(text) && memcmp(is, text, n) == 0;
}

/* Random pieces of an alphabet so small that runs and overlaps are frequent. */
static void fill(struct pieces *p, uint64_t seed, size_t n, uint64_t letters)
{
  for (size_t i = 0; i < n; ++i) {
    char text[12];
    const size_t length = 1 + random_below(seed, RANDOM_SYNTHETIC, i, 0, sizeof text);
    for (size_t k = 0; k < length; ++k) {
      text[k] = (char)('a' + random_below(seed, RANDOM_SYNTHETIC, i, k + 1, letters));
    }
    add(p, text, length, 1 + random_below(seed, RANDOM_SYNTHETIC, i, 99, 5));
  }
}

/* ------------------------------------------------------------------- learn */

/* The example of Sennrich et al. (2016), and who comes first among equals. */
static void test_learn_merges_the_most_frequent_pair(void)
{
  struct pieces p = {0};
  words texts = {0};
  uint64_t *counts = NULL;
  static const char *const expected[] = {"es", "est", "lo", "low", "ew", "new", "newest", "dest"};

  add(&p, "low", 3, 5);
  add(&p, "lower", 5, 2);
  add(&p, "newest", 6, 6);
  add(&p, "widest", 6, 3);
  CHECK_OK(bpe_learn(&p.texts, p.counts, 256 + 8, &texts, &counts));
  CU_ASSERT_EQUAL(texts.n, 256 + 8);
  for (size_t i = 0; i < 8 && texts.n == 256 + 8; ++i) {
    CU_ASSERT(is_text(&texts, 256 + i, expected[i]));
  }
  /* low, low e r, newest, w i dest */
  CU_ASSERT(counts[256 + 3] == 7 && counts[256 + 6] == 6 && counts[256 + 7] == 3);
  CU_ASSERT(counts['e'] == 2 && counts['r'] == 2 && counts['w'] == 3 && counts['i'] == 3 &&
            counts['l'] == 0);
  memory_free(&counts);
  words_free(&texts);

  CHECK_OK(bpe_learn(&p.texts, p.counts, 100000, &texts, &counts)); /* until no pair comes twice */
  CU_ASSERT(texts.n > 256 + 8 && texts.n < 256 + 20);
  memory_free(&counts);
  words_free(&texts);
  words_free(&p.texts);
}

/* The definition, all pairs counted anew for each merge. */
static void learn_naively(const struct pieces *p, size_t V, words *texts)
{
  static int32_t tokens[512][16];
  static size_t length[512];
  size_t index = 0, n = 0;

  for (int b = 0; b < 256; ++b) { CHECK_OK(words_add(texts, &(char){(char)b}, 1, &index)); }
  for (size_t w = 0; w < p->texts.n; ++w) {
    const char *text = words_view(&p->texts, w, &length[w]);
    for (size_t i = 0; i < length[w]; ++i) { tokens[w][i] = (unsigned char)text[i]; }
  }
  while (texts->n < V) {
    static uint64_t count[512][512];
    uint64_t most = 1;
    int32_t left = -1, right = -1;
    char text[64];
    memset(count, 0, sizeof count);
    for (size_t w = 0; w < p->texts.n; ++w) {
      for (size_t i = 0; i + 1 < length[w]; ++i) {
        count[tokens[w][i]][tokens[w][i + 1]] += p->counts[w];
      }
    }
    for (int32_t i = 0; i < 512; ++i) {
      for (int32_t j = 0; j < 512; ++j) {
        if (count[i][j] <= most) { continue; }
        most = count[i][j];
        left = i;
        right = j;
      }
    }
    if (left < 0) { break; }
    const char *one = words_view(texts, (size_t)left, &n);
    memcpy(text, one, n);
    size_t m = n;
    one = words_view(texts, (size_t)right, &n);
    memcpy(text + m, one, n);
    CHECK_OK(words_add(texts, text, m + n, &index));
    for (size_t w = 0; w < p->texts.n; ++w) {
      size_t to = 0;
      for (size_t i = 0; i < length[w]; ++i) {
        const bool both = i + 1 < length[w] && tokens[w][i] == left && tokens[w][i + 1] == right;
        tokens[w][to++] = both ? (int32_t)index : tokens[w][i];
        if (both) { ++i; }
      }
      length[w] = to;
    }
  }
}

static void test_learn_is_the_definition_in_any_order(void)
{
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    struct pieces p = {0}, turned = {0};
    words texts = {0}, again = {0}, naive = {0};
    uint64_t *counts = NULL, *same = NULL;
    size_t n = 0;
    const size_t V = 256 + 60;

    fill(&p, seed, 120, 1 + seed);
    for (size_t i = p.texts.n; i-- > 0;) {
      const char *text = words_view(&p.texts, i, &n);
      add(&turned, text, n, p.counts[i]);
    }
    CHECK_OK(bpe_learn(&p.texts, p.counts, V, &texts, &counts));
    CHECK_OK(bpe_learn(&turned.texts, turned.counts, V, &again, &same));
    learn_naively(&p, V, &naive);
    CU_ASSERT_EQUAL(texts.n, naive.n);
    CU_ASSERT_EQUAL(texts.n, again.n);
    for (size_t i = 0; i < texts.n && texts.n == naive.n && texts.n == again.n; ++i) {
      char text[64] = "";
      const char *one = words_view(&naive, i, &n);
      memcpy(text, one, n);
      if (i >= 256) { CU_ASSERT(is_text(&texts, i, text) && is_text(&again, i, text)); }
      CU_ASSERT_EQUAL(counts[i], same[i]);
    }

    /* The tokens are those of encoding, the counts those of the pieces encoded. */
    bpe *b = NULL;
    size_t bad = 0;
    CHECK_OK(bpe_new(&texts, &bad, &b));
    CU_ASSERT_PTR_NOT_NULL_FATAL(b);
    for (size_t w = 0; w < p.texts.n; ++w) {
      int32_t tokens[16];
      const char *text = words_view(&p.texts, w, &n);
      const size_t m = bpe_encode(b, text, n, tokens);
      for (size_t i = 0; i < m; ++i) { counts[tokens[i]] -= p.counts[w]; }
    }
    for (size_t i = 0; i < texts.n; ++i) { CU_ASSERT_EQUAL(counts[i], 0); }
    bpe_free(&b);
    bpe_free(&b);
    memory_free(&same);
    memory_free(&counts);
    words_free(&naive);
    words_free(&again);
    words_free(&texts);
    words_free(&turned.texts);
    words_free(&p.texts);
  }
}

/* --------------------------------------------------------- text -> tokens */

/* A vocabulary learned from words of two, three and four bytes of UTF-8. */
static unroll_vocab *learned(void)
{
  static const char *const of[] = {" thé", " théâtre", "thé",  " ☕☕", " ☕",
                                   "été",  " 𝄞𝄞",      " the", "  "};
  struct pieces p = {0};
  words texts = {0};
  uint64_t *counts = NULL;
  unroll_vocab *v = NULL;

  for (size_t i = 0; i < sizeof of / sizeof of[0]; ++i) { add(&p, of[i], strlen(of[i]), 9 - i); }
  CHECK_OK(bpe_learn(&p.texts, p.counts, 256 + 24, &texts, &counts));
  CHECK_OK(vocab_assemble((unroll_text_rules){.level = UNROLL_LEVEL_BPE}, &texts, &counts, &v));
  words_free(&p.texts);
  return v;
}

/* Random UTF-8 of the characters above and others, with white space of all kinds; every tenth byte is any. */
static size_t random_text(uint64_t seed, size_t most, char *out)
{
  static const char *const of[] = {" ", " ", "\n", "\t",  "t", "h", "é",
                                   "â", "☕", "𝄞",  "the", "x", "Ω"};
  size_t n = 0;
  for (size_t i = 0; n + 4 < most; ++i) {
    const char *one = of[random_below(seed, RANDOM_SYNTHETIC, i, 0, sizeof of / sizeof of[0])];
    const bool any = random_below(seed, RANDOM_SYNTHETIC, i, 1, 10) == 0;
    const char byte[2] = {(char)(1 + random_below(seed, RANDOM_SYNTHETIC, i, 2, 255)), '\0'};
    n += (size_t)sprintf(out + n, "%s", any ? byte : one);
  }
  return n;
}

static void test_encode_gives_back_every_text(void)
{
  unroll_vocab *v = learned();
  char text[600], back[600];

  for (uint64_t seed = 0; seed < 200; ++seed) {
    const size_t bytes = random_text(seed, sizeof text, text);
    int32_t *tokens = NULL;
    size_t n = 0, unknown = 0, at = 0, longer = 0;
    CHECK_OK(vocab_encode(v, text, bytes, &n, &tokens, &unknown));
    for (size_t i = 0; i < n; ++i) {
      size_t m = 0;
      const char *one = unroll_vocab_text_view(v, (size_t)tokens[i], &m);
      if (at + m <= sizeof back) { memcpy(back + at, one, m); }
      at += m;
      longer += m > 1;
      /* No token crosses a piece: white space within it is a space that leads. */
      for (size_t k = 1; k < m; ++k) { CU_ASSERT(strchr(" \t\n\v\f\r", one[k]) == NULL); }
      CU_ASSERT(m == 1 || strchr("\t\n\v\f\r", one[0]) == NULL);
    }
    CU_ASSERT(at == bytes && memcmp(text, back, bytes) == 0);
    CU_ASSERT(unknown == 0 && longer > 0 && n < bytes);
    memory_free(&tokens);
  }
  unroll_vocab_free(&v);
}

/* Wherever a text is cut, its ranges have the tokens of the text, and few at a time are as good as many. */
static void test_ranges_have_the_tokens_of_the_text(void)
{
  unroll_vocab *v = learned();
  char text[400];
  const char *name = "a string";

  for (uint64_t seed = 300; seed < 306; ++seed) {
    const size_t bytes = random_text(seed, sizeof text, text);
    uint64_t start[2] = {0, bytes};
    const corpus c = {.n_files = 1, .names = &name, .start = start, .string = text};
    int32_t *whole = NULL, parts[400];
    size_t n = 0, unknown = 0;
    scan *s = NULL;
    CHECK_OK(vocab_encode(v, text, bytes, &n, &whole, &unknown));
    CHECK_OK(scan_new(&c, unroll_vocab_rules(v), &s));
    for (uint64_t cut = 0; cut <= bytes; ++cut) {
      size_t m = 0, more = 0;
      CHECK_OK(scan_start(s, 0, bytes)); /* left early */
      CHECK_OK(vocab_scan(v, s, 1 + cut % 7, parts, &more));
      for (int side = 0; side < 2; ++side) {
        CHECK_OK(scan_start(s, side == 0 ? 0 : cut, side == 0 ? cut : bytes));
        do {
          CHECK_OK(vocab_scan(v, s, 3, parts + m, &more));
          m += more;
        } while (more > 0 && m + 3 <= 400);
      }
      CU_ASSERT(m == n && memcmp(parts, whole, n * sizeof *whole) == 0);
    }
    uint64_t begin = 0;
    CHECK_OK(scan_token_begin(s, bytes / 2, &begin)); /* of a piece */
    CU_ASSERT(begin <= bytes / 2 && (begin == 0 || strchr(" \t\n\v\f\r", text[begin]) != NULL ||
                                     strchr("\t\n\v\f\r", text[begin - 1]) != NULL));
    scan_free(&s);
    memory_free(&whole);
  }
  unroll_vocab_free(&v);
}

/* --------------------------------------------------------------- vocabulary */

static void test_vocabulary_survives_its_names_and_refuses_others(void)
{
  unroll_vocab *v = learned(), *again = NULL;
  const char *names[300];
  uint64_t counts[300] = {0};
  const size_t V = unroll_vocab_size(v);
  int32_t *one = NULL, *other = NULL;
  size_t n = 0, m = 0, unknown = 0;

  for (size_t i = 0; i < V; ++i) { names[i] = unroll_vocab_token_view(v, i); }
  CU_ASSERT_STRING_EQUAL(names[0xc3], "\\xc3");
  CU_ASSERT_EQUAL(unroll_vocab_code(v, 'x'), 'x');
  CU_ASSERT_EQUAL(unroll_vocab_code(v, 256), -1);
  CU_ASSERT(unroll_vocab_find(v, " thé") >= 256 && unroll_vocab_find(v, "no such") == -1);
  CHECK_OK(unroll_vocab_new(unroll_vocab_rules(v), V, names, counts, &again));
  CHECK_OK(vocab_encode(v, "du thé, été ☕", strlen("du thé, été ☕"), &n, &one, &unknown));
  CHECK_OK(vocab_encode(again, "du thé, été ☕", strlen("du thé, été ☕"), &m, &other, &unknown));
  CU_ASSERT(n == m && memcmp(one, other, n * sizeof *one) == 0);
  memory_free(&other);
  memory_free(&one);
  unroll_vocab_free(&again);

  names[V] = "wxyz"; /* four tokens, no merge */
  CHECK_FAILS(unroll_vocab_new(unroll_vocab_rules(v), V + 1, names, counts, &again),
              UNROLL_ERR_INPUT, "\"wxyz\" cannot be token 278 at subword level");
  names[V] = names[256];
  CHECK_FAILS(unroll_vocab_new(unroll_vocab_rules(v), V + 1, names, counts, &again),
              UNROLL_ERR_INPUT, "stands twice");
  names[7] = "7";
  CHECK_FAILS(unroll_vocab_new(unroll_vocab_rules(v), 256, names, counts, &again), UNROLL_ERR_INPUT,
              "\"7\" ");
  CHECK_FAILS(unroll_vocab_new(unroll_vocab_rules(v), 255, names, counts, &again), UNROLL_ERR_INPUT,
              "level bpe has 256 to");
  unroll_vocab_free(&v);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"learn: the most frequent pair", test_learn_merges_the_most_frequent_pair},
      {"learn: the definition, in any order", test_learn_is_the_definition_in_any_order},
      {"encode: every text", test_encode_gives_back_every_text},
      {"ranges: the tokens of the text", test_ranges_have_the_tokens_of_the_text},
      {"vocabulary: names", test_vocabulary_survives_its_names_and_refuses_others},
  };
  return run_cases("bpe", sizeof cases / sizeof cases[0], cases);
}
