#include "support.h"

#include "base/memory.h"
#include "data/vocab.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const unroll_text_rules byte_rules = {UNROLL_LEVEL_BYTE, false, false};
static const unroll_text_rules char_rules = {UNROLL_LEVEL_CHAR, false, false};
static const unroll_text_rules word_rules = {UNROLL_LEVEL_WORD, false, false};

static const uint64_t counts[256] = {3, 100, 90, 80, 70, 60, 50, 40};

/* ------------------------------------------------------------ set of words */

static void test_words_add_numbers_in_order_and_finds_again(void)
{
  words w = {0};
  char text[64];
  size_t index = 0;
  int wrong = 0;
  const size_t N = 20000;

  CU_ASSERT_EQUAL(words_find(&w, "", 0), -1);
  for (size_t pass = 0; pass < 2; ++pass) {
    for (size_t i = 0; i < N; ++i) { /* lengths 1 to 40, so that every tail of the hash occurs */
      int n = snprintf(text, sizeof text, "%zu%.*s", i, (int)(i % 36),
                       "abcdefghijklmnopqrstuvwxyzabcdefghij");
      wrong += words_add(&w, text, (size_t)n, &index) != UNROLL_OK || index != i;
      wrong += words_find(&w, text, (size_t)n) != (int64_t)i;
      wrong += words_find(&w, "no such word", 12) != -1;
    }
    CU_ASSERT_EQUAL(w.n, N);
  }
  CHECK_OK(words_add(&w, "a\0b", 3, &index));
  CHECK_OK(words_add(&w, "a\0c", 3, &index));
  CHECK_OK(words_add(&w, "", 0, &index));
  CU_ASSERT_EQUAL(index, N + 2);
  CU_ASSERT_EQUAL(wrong, 0);
  words_free(&w);
  words_free(&w);
}

/* ------------------------------------------------------------------- names */

/* The names of a vocabulary make the same vocabulary again. */
static int survives_its_names(const unroll_vocab *v)
{
  const size_t V = unroll_vocab_size(v);
  const char **names = malloc(V * sizeof *names);
  uint64_t *copy = malloc(V * sizeof *copy);
  unroll_vocab *again = NULL;
  int same = names != NULL && copy != NULL;

  for (size_t i = 0; same && i < V; ++i) {
    names[i] = unroll_vocab_token_view(v, i);
    copy[i] = unroll_vocab_count(v, i);
  }
  same = same && test_ok(unroll_vocab_new(unroll_vocab_rules(v), V, names, copy, &again), "again",
                         __FILE__, __LINE__);
  for (size_t i = 0; same && i < V; ++i) {
    size_t n = 0;
    size_t m = 0;
    const char *a = unroll_vocab_text_view(v, i, &n);
    const char *b = unroll_vocab_text_view(again, i, &m);
    same = n == m && memcmp(a, b, n) == 0 &&
           strcmp(names[i], unroll_vocab_token_view(again, i)) == 0 &&
           unroll_vocab_find(again, names[i]) == (int64_t)i &&
           unroll_vocab_code(v, i) == unroll_vocab_code(again, i) &&
           unroll_vocab_count(again, i) == copy[i];
  }
  unroll_vocab_free(&again);
  free(names);
  free(copy);
  return same;
}

static void test_vocab_byte_is_the_identity(void)
{
  unroll_vocab *v = NULL;
  CHECK_OK(unroll_vocab_new(byte_rules, 256, NULL, counts, &v));
  CU_ASSERT_EQUAL(unroll_vocab_size(v), 256);
  for (size_t i = 0; i < 256; ++i) {
    size_t n = 0;
    const char *text = unroll_vocab_text_view(v, i, &n);
    char name[8];
    CU_ASSERT(n == 1 && (unsigned char)text[0] == i);
    CU_ASSERT_EQUAL(unroll_vocab_code(v, i), (int64_t)i);
    CU_ASSERT_EQUAL(unroll_vocab_count(v, i), counts[i]);
    (void)snprintf(name, sizeof name, i < 32 || i > 126 ? "\\x%02x" : "%c", (unsigned)i);
    CU_ASSERT_STRING_EQUAL(unroll_vocab_token_view(v, i), name);
    CU_ASSERT_EQUAL(unroll_vocab_find(v, name), (int64_t)i);
  }
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "\\x41"), -1);
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "ab"), -1);
  CU_ASSERT_EQUAL(unroll_vocab_find(v, ""), -1);
  CU_ASSERT(survives_its_names(v));
  unroll_vocab_free(&v);
  unroll_vocab_free(&v);
}

static void test_vocab_char_has_names_texts_and_codes(void)
{
  static const char *const tokens[] = {"<unk>", "e",     "\xc3\xa9",         "\\x0a",
                                       "\\",    "\\x00", "\xf0\x9f\x98\x80", "\xef\xbf\xbd"};
  static const char *const texts[] = {"\xef\xbf\xbd", "e", "\xc3\xa9",         "\n",
                                      "\\",           "",  "\xf0\x9f\x98\x80", "\xef\xbf\xbd"};
  static const int64_t codes[] = {-1, 'e', 0xe9, '\n', '\\', 0, 0x1f600, 0xfffd};
  unroll_vocab *v = NULL;

  CHECK_OK(unroll_vocab_new(char_rules, 8, tokens, counts, &v));
  for (size_t i = 0; i < 8; ++i) {
    size_t n = 0;
    const char *text = unroll_vocab_text_view(v, i, &n);
    CU_ASSERT_EQUAL(n, i == 5 ? 1 : strlen(texts[i]));
    CU_ASSERT_EQUAL(memcmp(text, texts[i], n), 0);
    CU_ASSERT_STRING_EQUAL(unroll_vocab_token_view(v, i), tokens[i]);
    CU_ASSERT_EQUAL(unroll_vocab_code(v, i), codes[i]);
    CU_ASSERT_EQUAL(unroll_vocab_count(v, i), counts[i]);
    CU_ASSERT_EQUAL(unroll_vocab_find(v, tokens[i]), (int64_t)i);
  }
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "z"), 0);
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "\\x0b"), 0);
  CU_ASSERT(survives_its_names(v));
  unroll_vocab_free(&v);
}

static void test_vocab_word_names_are_lines_that_give_the_words_back(void)
{
  /* Words with control bytes, and words that look like the names of such. */
  static const char *const names[] = {"<unk>",   "<eos>", "the",      "caf\xc3\xa9", "\\alpha",
                                      "a\\x01b", "\\xzz", "\\x5cx01", "\\x5c\\x01",  "\\x00",
                                      "\\x7f",   "x\\",   "\\x3ceos>"};
  static const char *const texts[] = {"<unk>",  "\n",    "the",   "caf\xc3\xa9", "\\alpha",
                                      "a\001b", "\\xzz", "\\x01", "\\\001",      "",
                                      "\177",   "x\\",   "<eos>"};
  const size_t V = sizeof names / sizeof names[0];
  unroll_vocab *v = NULL;

  CHECK_OK(unroll_vocab_new(word_rules, V, names, counts, &v));
  for (size_t i = 0; i < V; ++i) {
    size_t n = 0;
    const char *text = unroll_vocab_text_view(v, i, &n);
    CU_ASSERT_EQUAL(n, i == 9 ? 1 : strlen(texts[i]));
    CU_ASSERT_EQUAL(memcmp(text, texts[i], n), 0);
    CU_ASSERT_EQUAL(unroll_vocab_code(v, i), -1);
    if (i != 8) { CU_ASSERT_STRING_EQUAL(unroll_vocab_token_view(v, i), names[i]); }
  }
  CU_ASSERT_STRING_EQUAL(unroll_vocab_token_view(v, 8),
                         "\\\\x01"); /* needs no escape before an escape */
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "the"), 2);
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "them"), 0);
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "<eos>"), 1);
  CU_ASSERT_EQUAL(unroll_vocab_find(v, "\\x3ceos>"), 12);
  CU_ASSERT_EQUAL(vocab_line_end(v), 1);
  CU_ASSERT(survives_its_names(v));
  unroll_vocab_free(&v);
}

/* ---------------------------------------------------------------- refusals */

static void refuses(unroll_text_rules rules, size_t V, const char *const *tokens, const char *part)
{
  unroll_vocab *v = NULL;
  CHECK_FAILS(unroll_vocab_new(rules, V, tokens, counts, &v), UNROLL_ERR_INPUT, part);
  CU_ASSERT_PTR_NULL(v);
}

static void test_vocab_new_of_what_is_no_vocabulary_is_refused(void)
{
  const unroll_text_rules letters = {UNROLL_LEVEL_WORD, false, true};
  refuses(byte_rules, 255, NULL, "level byte has 256");
  refuses(char_rules, 0, (const char *const[]){"<unk>"}, "0 tokens");
  refuses(char_rules, 2, (const char *const[]){"a", "b"}, "\"a\" cannot be token 0");
  refuses(char_rules, 3, (const char *const[]){"<unk>", "a", "bc"},
          "\"bc\" cannot be token 2 at character level");
  refuses(char_rules, 2, (const char *const[]){"<unk>", ""}, "cannot be token 1");
  refuses(char_rules, 2, (const char *const[]){"<unk>", "\xc3"}, "cannot be token 1");
  refuses(char_rules, 3, (const char *const[]){"<unk>", "a", "a"},
          "\"a\" stands twice, as token 1 and 2");
  refuses(char_rules, 3, (const char *const[]){"<unk>", "a", "\\x61"}, "stands twice");
  refuses(word_rules, 3, (const char *const[]){"<unk>", "a", "<unk>"}, "stands twice");
  refuses(word_rules, 2, (const char *const[]){"<unk>", "a b"}, "cannot be token 1 at word level");
  refuses(word_rules, 2, (const char *const[]){"<unk>", "a\\x0a"},
          "cannot be token 1 at word level");
  refuses(word_rules, 2, (const char *const[]){"<unk>", "a\xff"},
          "cannot be token 1 at word level");
  refuses(letters, 3, (const char *const[]){"<unk>", "<eos>", "it's"}, "cannot be token 2");
}

/* ------------------------------------------------------------------ encode */

static void encodes(const unroll_vocab *v, const char *text, size_t n, const int32_t *expected,
                    size_t n_unknown)
{
  int32_t *tokens = NULL;
  size_t m = 0;
  size_t unknown = 0;
  CHECK_OK(vocab_encode(v, text, strlen(text), &m, &tokens, &unknown));
  CU_ASSERT_EQUAL(m, n);
  CU_ASSERT(m == n && memcmp(tokens, expected, n * sizeof *tokens) == 0);
  CU_ASSERT_EQUAL(unknown, n_unknown);
  memory_free(&tokens);
}

static void test_vocab_encode_reads_a_string_by_the_rules(void)
{
  const unroll_text_rules letters = {UNROLL_LEVEL_CHAR, false, true};
  const unroll_text_rules lower = {UNROLL_LEVEL_WORD, true, false};
  unroll_vocab *v = NULL;

  CHECK_OK(unroll_vocab_new(byte_rules, 256, NULL, counts, &v));
  encodes(v, "A\xff", 2, (const int32_t[]){65, 255}, 0);
  encodes(v, "", 0, (const int32_t[]){0}, 0);
  unroll_vocab_free(&v);

  CHECK_OK(
      unroll_vocab_new(char_rules, 3, (const char *const[]){"<unk>", "a", "\xc3\xa9"}, counts, &v));
  encodes(v,
          "\xc3\xa9"
          "aAa\xf0\x9f\x98\x80",
          5, (const int32_t[]){2, 1, 0, 1, 0}, 2);
  unroll_vocab_free(&v);

  CHECK_OK(unroll_vocab_new(letters, 3, (const char *const[]){"<unk>", " ", "a"}, counts, &v));
  encodes(v, "aA, 1 ab", 5, (const int32_t[]){2, 2, 1, 2, 0}, 1);
  unroll_vocab_free(&v);

  CHECK_OK(unroll_vocab_new(
      lower, 4, (const char *const[]){"<unk>", "the", "<eos>", "\xc3\xa9t\xc3\xa9"}, counts, &v));
  encodes(v, "The  \xc3\x89t\xc3\xa9\nthen <UNK> the", 6, (const int32_t[]){1, 3, 2, 0, 0, 1}, 2);
  unroll_vocab_free(&v);
}

static void test_vocab_encode_of_malformed_text_is_a_bad_argument(void)
{
  unroll_vocab *v = NULL;
  int32_t *tokens = NULL;
  size_t n = 0;
  size_t unknown = 0;
  CHECK_OK(unroll_vocab_new(char_rules, 2, (const char *const[]){"<unk>", "a"}, counts, &v));
  CHECK_FAILS(vocab_encode(v, "aa\xff", 3, &n, &tokens, &unknown), UNROLL_ERR_ARG,
              "malformed UTF-8 at byte 2");
  CU_ASSERT_PTR_NULL(tokens);
  unroll_vocab_free(&v);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"words: numbered in order, found again", test_words_add_numbers_in_order_and_finds_again},
      {"byte: identity", test_vocab_byte_is_the_identity},
      {"char: names, texts, codes", test_vocab_char_has_names_texts_and_codes},
      {"word: names give the words back", test_vocab_word_names_are_lines_that_give_the_words_back},
      {"no vocabulary: refused", test_vocab_new_of_what_is_no_vocabulary_is_refused},
      {"encode: by the rules", test_vocab_encode_reads_a_string_by_the_rules},
      {"encode malformed: bad argument", test_vocab_encode_of_malformed_text_is_a_bad_argument},
  };
  return run_cases("vocab", sizeof cases / sizeof cases[0], cases);
}
