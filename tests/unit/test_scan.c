#include "support.h"

#include "data/scan.h"
#include "naive_text.h"
#include <stdio.h>

/* ------------------------------------------------------------------ helpers */

/* Every way to read text. */
static const unroll_text_rules all_rules[] = {
    {UNROLL_LEVEL_BYTE, false, false}, {UNROLL_LEVEL_BYTE, true, false},
    {UNROLL_LEVEL_BYTE, true, true},   {UNROLL_LEVEL_CHAR, false, false},
    {UNROLL_LEVEL_CHAR, true, false},  {UNROLL_LEVEL_CHAR, false, true},
    {UNROLL_LEVEL_WORD, false, false}, {UNROLL_LEVEL_WORD, true, false},
    {UNROLL_LEVEL_WORD, false, true},
};
#define N_RULES (sizeof all_rules / sizeof all_rules[0])

#define MAX_FILES 8

/* A text in files of a test folder. */
struct text {
  size_t n_files;
  const char *text[MAX_FILES];
  size_t size[MAX_FILES];
  char path[MAX_FILES][300];
  const char *name[MAX_FILES];
  uint64_t start[MAX_FILES + 1];
  corpus c;
};

static void text_files(struct text *t)
{
  static char folder[256];
  if (folder[0] == '\0') { test_folder(folder); }
  for (size_t i = 0; i < t->n_files; ++i) {
    (void)snprintf(t->path[i], sizeof t->path[i], "%s/%zu", folder, i);
    test_write_file(t->path[i], t->text[i], t->size[i]);
    t->name[i] = t->path[i];
    t->start[i + 1] = t->start[i] + t->size[i];
  }
  t->c = (corpus){.n_files = t->n_files, .names = t->name, .start = t->start};
}

/* The same for a string, which no file holds. */
static void text_string(struct text *t, const char *string, size_t n)
{
  static const char *name[] = {"the string"};
  memset(t, 0, sizeof *t);
  t->n_files = 1;
  t->text[0] = string;
  t->size[0] = n;
  t->start[1] = n;
  t->c = (corpus){.n_files = 1, .names = name, .start = t->start, .string = string};
}

/* Append the tokens that begin in [begin, end). */
static unroll_status collect(scan *s, unroll_text_rules rules, uint64_t begin, uint64_t end,
                             size_t batch, struct naive *t)
{
  int32_t codes[64];
  char out[4];
  const char *word = NULL;
  size_t n = 0;
  unroll_status st = scan_start(s, begin, end);
  while (st == UNROLL_OK) {
    if (rules.level == UNROLL_LEVEL_WORD) {
      st = scan_word(s, &word, &n);
      if (st == UNROLL_OK && n > 0) { naive_add(t, word, n); }
    } else {
      st = scan_codes(s, batch, codes, &n);
      for (size_t i = 0; st == UNROLL_OK && i < n; ++i) {
        bool byte = rules.level == UNROLL_LEVEL_BYTE;
        out[0] = (char)codes[i];
        naive_add(t, out, byte ? 1 : naive_encode((uint32_t)codes[i], out));
      }
    }
    if (n == 0) { break; }
  }
  if (st == UNROLL_OK) { t->characters += scan_counted(s).characters; }
  return st;
}

static int same_tokens(const struct naive *a, const struct naive *b)
{
  return a->n == b->n && a->characters == b->characters && a->used == b->used &&
         (a->n == 0 || (memcmp(a->at, b->at, (a->n + 1) * sizeof *a->at) == 0 &&
                        memcmp(a->pool, b->pool, a->used) == 0));
}

/* Read the text in ranges of `step` bytes after a first of `cut`: is it what the oracle reads? */
static int reads_right(const struct text *t, unroll_text_rules rules, uint64_t cut, uint64_t step)
{
  struct naive got = {0};
  struct naive expected = naive_tokens(rules, t->n_files, t->text, t->size);
  const uint64_t bytes = t->start[t->n_files];
  scan *s = NULL;
  unroll_status st = scan_new(&t->c, rules, &s);

  if (st == UNROLL_OK) { st = collect(s, rules, 0, cut, 7, &got); }
  for (uint64_t at = cut; st == UNROLL_OK && at < bytes; at += step) {
    st = collect(s, rules, at, at + step < bytes ? at + step : bytes, 64, &got);
  }
  int same = st == UNROLL_OK && same_tokens(&got, &expected);
  if (!same) {
    fprintf(stderr, "level %d lowercase %d letters %d cut %llu step %llu: %s\n", (int)rules.level,
            rules.lowercase, rules.letters, (unsigned long long)cut, (unsigned long long)step,
            st != UNROLL_OK ? unroll_message() : "other tokens");
  }
  scan_free(&s);
  naive_free(&got);
  naive_free(&expected);
  return same;
}

/* Text that has every kind of border close to every other. */
#define MIXED                                                                                      \
  "  \n\nThe Time-Machine, by  H. G. Wells [1898]\r\n\tcaf\xc3\xa9 \xc3\x89T\xc3\x89 "             \
  "\xe8\xaa\x9e\xe8\xaa\x9e \xf0\x9f\x98\x80x \xc8\xba\xe2\x84\xaa <unk> <eos>\v\f123 abc"

static uint64_t draw(uint64_t *state)
{
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *state >> 33;
}

/* About n bytes of random text in UTF-8. */
static char *random_text(uint64_t seed, size_t n, size_t *size)
{
  static const char *const pieces[] = {"a",
                                       "b",
                                       "Qu",
                                       "the",
                                       " ",
                                       " ",
                                       "\n",
                                       "  \t",
                                       "12",
                                       ".",
                                       "\xc3\x89",
                                       "\xe8\xaa\x9e",
                                       "word",
                                       "--",
                                       "\r\n",
                                       "Z",
                                       "\v",
                                       "longerword",
                                       "\xf0\x9f\x98\x80"};
  char *text = naive_grow(NULL, n + 16);
  size_t m = 0;
  while (m < n) {
    const char *piece = pieces[draw(&seed) % (sizeof pieces / sizeof pieces[0])];
    memcpy(text + m, piece, strlen(piece));
    m += strlen(piece);
  }
  *size = m;
  return text;
}

/* ------------------------------------------------------------------ tokens */

static void test_scan_any_cut_gives_the_tokens_of_the_whole(void)
{
  struct text t;
  text_string(&t, MIXED, sizeof MIXED - 1);
  for (size_t r = 0; r < N_RULES; ++r) {
    for (uint64_t cut = 0; cut <= sizeof MIXED - 1; ++cut) {
      CU_ASSERT(reads_right(&t, all_rules[r], cut, 1000));
    }
    for (uint64_t step = 1; step < 12; ++step) {
      CU_ASSERT(reads_right(&t, all_rules[r], 0, step));
    }
  }
}

static void test_scan_files_are_one_text_but_separate_words(void)
{
  struct text t = {
      .n_files = 8,
      .text = {"", "one tw", "", "o three", " \xc3\xa9", "\xe8\xaa\x9e\n", "--", "12x"},
      .size = {0, 6, 0, 7, 3, 4, 2, 3}};
  text_files(&t);
  for (size_t r = 0; r < N_RULES; ++r) {
    for (uint64_t cut = 0; cut <= t.start[8]; ++cut) {
      CU_ASSERT(reads_right(&t, all_rules[r], cut, 1000));
    }
    CU_ASSERT(reads_right(&t, all_rules[r], 0, 1));
  }

  /* The same where byte order marks are passed over and files joined by line ends that are in none of them. */
  static const char *const bytes[] = {"\xef\xbb\xbfone tw", "o three\n", "",
                                      "\xef\xbb\xbf",       "\xc3\xa9",  "end"};
  static const char *const read[] = {"one tw\n", "o three\n", "", "", "\xc3\xa9\n", "end"};
  corpus_edges edges[6] = {{3, 1}, {0, 0}, {0, 0}, {3, 0}, {0, 1}, {0, 0}};
  struct text joined = {.n_files = 6};
  for (size_t i = 0; i < 6; ++i) {
    joined.text[i] = bytes[i];
    joined.size[i] = strlen(bytes[i]);
  }
  text_files(&joined);
  joined.c.edges = edges;
  for (size_t i = 0; i < 6; ++i) {
    joined.text[i] = read[i];
    joined.size[i] = strlen(read[i]);
    joined.start[i + 1] = joined.start[i] + joined.size[i];
  }
  for (size_t r = 0; r < N_RULES; ++r) {
    for (uint64_t cut = 0; cut <= joined.start[6]; ++cut) {
      CU_ASSERT(reads_right(&joined, all_rules[r], cut, 1000));
    }
    CU_ASSERT(reads_right(&joined, all_rules[r], 0, 1));
  }
  text_files(&t);

  /* Said outright once, so that oracle and scanner cannot be wrong alike. */
  static const char *const words[] = {"one",          "tw", "o",  "three", "\xc3\xa9",
                                      "\xe8\xaa\x9e", "\n", "--", "12x"};
  struct naive got = {0};
  scan *s = NULL;
  CHECK_OK(scan_new(&t.c, all_rules[6], &s));
  CHECK_OK(collect(s, all_rules[6], 0, t.start[8], 64, &got));
  CU_ASSERT_EQUAL(got.n, 9);
  for (size_t i = 0; i < 9 && i < got.n; ++i) {
    CU_ASSERT_EQUAL(got.at[i + 1] - got.at[i], strlen(words[i]));
    CU_ASSERT_EQUAL(memcmp(got.pool + got.at[i], words[i], strlen(words[i])), 0);
  }
  CU_ASSERT_EQUAL(got.characters, 6 + 7 + 2 + 2 + 2 + 3);
  naive_free(&got);
  scan_free(&s);
}

static void test_scan_letters_makes_every_run_one_space(void)
{
  static const char text[] = "\n1Ab, \xc3\xa9 C!";
  const unroll_text_rules rules = {UNROLL_LEVEL_CHAR, false, true};
  struct text t;
  struct naive got = {0};
  scan *s = NULL;
  text_string(&t, text, sizeof text - 1);
  CHECK_OK(scan_new(&t.c, rules, &s));
  CHECK_OK(collect(s, rules, 0, sizeof text - 1, 64, &got));
  CU_ASSERT_EQUAL(got.used, 6);
  CU_ASSERT_EQUAL(memcmp(got.pool, " ab c ", 6), 0);
  CU_ASSERT_EQUAL(got.characters, 6);
  naive_free(&got);
  scan_free(&s);
}

/* Said outright, too. */
static void test_scan_lowercase_goes_beyond_ascii(void)
{
  static const char text[] = "\xc3\x84Q \xce\xa3\xc4\xb0 \xe1\x82\xa0\xf0\x90\x90\x80\xc3\x9f";
  static const char lowered[] = "\xc3\xa4q \xcf\x83i \xe2\xb4\x80\xf0\x90\x90\xa8\xc3\x9f";
  for (unroll_level level = UNROLL_LEVEL_CHAR; level <= UNROLL_LEVEL_WORD; ++level) {
    const unroll_text_rules rules = {level, true, false};
    struct text t;
    struct naive got = {0};
    scan *s = NULL;
    text_string(&t, text, sizeof text - 1);
    CHECK_OK(scan_new(&t.c, rules, &s));
    CHECK_OK(collect(s, rules, 0, sizeof text - 1, 64, &got));
    const bool words = level == UNROLL_LEVEL_WORD; /* the tokens hold no space */
    CU_ASSERT_EQUAL(got.n, words ? 3 : 9);
    CU_ASSERT_EQUAL(got.used, sizeof lowered - (words ? 3 : 1));
    size_t m = 0;
    for (size_t i = 0; i < sizeof lowered - 1 && m < got.used; ++i) {
      if (words && lowered[i] == ' ') { continue; }
      CU_ASSERT_EQUAL(got.pool[m++], lowered[i]);
    }
    CU_ASSERT_EQUAL(got.characters, 9);
    naive_free(&got);
    scan_free(&s);
  }
}

static void test_scan_text_longer_than_a_buffer_is_read_alike(void)
{
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    struct text t = {.n_files = 2};
    char *a = random_text(seed, 300000 + 17 * seed, &t.size[0]);
    char *b = random_text(100 + seed, 270000, &t.size[1]);
    t.text[0] = a;
    t.text[1] = b;
    text_files(&t);
    for (size_t r = 0; r < N_RULES; ++r) {
      CU_ASSERT(reads_right(&t, all_rules[r], 0, 10000000));
      CU_ASSERT(reads_right(&t, all_rules[r], 262144 + seed, 65537));
    }
    free(a);
    free(b);
  }
}

static void test_scan_characters_across_the_end_of_a_buffer_stay_whole(void)
{
  static const char *const characters[] = {"\xc3\xa9", "\xe8\xaa\x9e", "\xf0\x9f\x98\x80"};
  for (size_t k = 0; k < 3; ++k) {
    for (size_t shift = 0; shift < 4;
         ++shift) { /* wherever the buffer ends: each cut of a character */
      const size_t n = strlen(characters[k]);
      const size_t count = 600000 / n;
      char *text = naive_grow(NULL, shift + count * n);
      struct text t = {.n_files = 1};
      memset(text, 'a', shift);
      for (size_t i = 0; i < count; ++i) { memcpy(text + shift + i * n, characters[k], n); }
      t.text[0] = text;
      t.size[0] = shift + count * n;
      text_files(&t);
      for (size_t r = 3; r < 6; ++r) { CU_ASSERT(reads_right(&t, all_rules[r], 0, 10000000)); }
      free(text);
    }
  }
}

static void test_scan_longest_word_passes_and_a_longer_one_fails(void)
{
  const unroll_text_rules rules = {UNROLL_LEVEL_WORD, false, false};
  const size_t n = SCAN_WORD + 1;
  char *text = naive_grow(NULL, n + 4);
  struct text t = {.n_files = 1};
  struct naive got = {0};
  scan *s = NULL;

  memset(text, 'x', n + 4);
  memcpy(text, "ab ", 3);
  t.text[0] = text;
  t.size[0] = 3 + n;
  text_files(&t);
  CHECK_OK(scan_new(&t.c, rules, &s));
  CHECK_FAILS(collect(s, rules, 0, 3 + n, 64, &got), UNROLL_ERR_INPUT,
              "at byte 3 is longer than 65536 bytes");
  scan_free(&s);
  text[3 + SCAN_WORD] = ' ';
  text_files(&t);
  CU_ASSERT(reads_right(&t, rules, 0, 10000000));
  CU_ASSERT(reads_right(&t, rules, 5, 1000));
  naive_free(&got);
  free(text);
}

/* --------------------------------------------------------------- malformed */

static void test_scan_malformed_belongs_to_the_range_of_its_first_byte(void)
{
  static const struct {
    const char *bytes;
    size_t at; /* of the first byte of the malformed sequence */
  } cases[] = {
      {"abc\x80 def ghi", 3},           /* continuation without a first byte */
      {"abc\xc3", 3},                   /* cut off by the end of the file */
      {"abc\xc3-def", 3},               /* continuation missing */
      {"abc\xe8\xaa def", 3},           /* second continuation missing */
      {"ab\xc0\xafxyz", 2},             /* overlong */
      {"ab\xe0\x80\xafxyz", 2},         /* overlong */
      {"ab\xf0\x80\x80\xafxyz", 2},     /* overlong */
      {"ab\xed\xa0\x80xyz", 2},         /* surrogate */
      {"ab\xf4\x90\x80\x80xyz", 2},     /* above U+10FFFF */
      {"ab\xf8 xyz", 2},                /* no first byte */
      {"ab\xc3\xa9\xe8\xaa\x9e\xff", 7} /* behind good ones */
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    const size_t n = strlen(cases[i].bytes);
    struct text t = {.n_files = 2, .text = {"good\n", cases[i].bytes}, .size = {5, n}};
    char where[40];
    (void)snprintf(where, sizeof where, "/1: malformed UTF-8 at byte %zu", cases[i].at);
    text_files(&t);
    for (size_t r = 0; r < N_RULES; ++r) {
      struct naive got = {0};
      scan *s = NULL;
      CHECK_OK(scan_new(&t.c, all_rules[r], &s));
      bool runs = all_rules[r].level == UNROLL_LEVEL_WORD &&
                  !all_rules[r].letters; /* reads to a word's end */
      for (size_t begin = 0; begin < n && !runs; ++begin) {
        unroll_status st = collect(s, all_rules[r], 5 + begin, 5 + begin + 1, 64, &got);
        if (begin == cases[i].at && all_rules[r].level != UNROLL_LEVEL_BYTE) {
          CHECK_FAILS(st, UNROLL_ERR_INPUT, where);
        } else {
          CU_ASSERT_EQUAL(st, UNROLL_OK);
        }
      }
      unroll_status whole = collect(s, all_rules[r], 0, 5 + n, 64, &got);
      if (all_rules[r].level == UNROLL_LEVEL_BYTE) {
        CHECK_OK(whole);
      } else {
        CHECK_FAILS(whole, UNROLL_ERR_INPUT, where);
        CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), "a model of --level byte reads anything"));
      }
      scan_free(&s);
      naive_free(&got);
    }
  }
}

static void test_scan_sequence_across_two_files_is_malformed(void)
{
  struct text t = {.n_files = 2, .text = {"ab\xc3", "\xa9 cd"}, .size = {3, 4}};
  struct naive got = {0};
  scan *s = NULL;
  text_files(&t);
  CHECK_OK(scan_new(&t.c, all_rules[3], &s));
  CHECK_FAILS(collect(s, all_rules[3], 0, 7, 64, &got), UNROLL_ERR_INPUT,
              "/0: malformed UTF-8 at byte 2");
  scan_free(&s);
  naive_free(&got);
}

static void test_scan_malformed_string_is_a_bad_argument(void)
{
  struct text t;
  struct naive got = {0};
  scan *s = NULL;
  text_string(&t, "a\xff", 2);
  CHECK_OK(scan_new(&t.c, all_rules[3], &s));
  CHECK_FAILS(collect(s, all_rules[3], 0, 2, 64, &got), UNROLL_ERR_ARG,
              "the string: malformed UTF-8 at byte 1 (0xff)");
  scan_free(&s);
  naive_free(&got);
}

static void test_scan_file_that_changed_is_noticed(void)
{
  struct text t = {.n_files = 1, .text = {"some text"}, .size = {9}};
  struct naive got = {0};
  scan *s = NULL;
  text_files(&t);
  test_write_file(t.path[0], "short", 5);
  CHECK_OK(scan_new(&t.c, all_rules[0], &s));
  CHECK_FAILS(collect(s, all_rules[0], 0, 9, 64, &got), UNROLL_ERR_INPUT, "9 bytes became 5");
  scan_free(&s);
  CU_ASSERT_EQUAL(remove(t.path[0]), 0);
  CHECK_OK(scan_new(&t.c, all_rules[0], &s));
  CHECK_FAILS(collect(s, all_rules[0], 0, 9, 64, &got), UNROLL_ERR_INPUT, "cannot be opened");
  scan_free(&s);
  scan_free(&s);
  naive_free(&got);
}

/* ------------------------------------------------------------- token begins */

static void test_scan_token_begin_is_the_last_place_where_a_range_has_a_token(void)
{
  struct text t = {.n_files = 3, .text = {MIXED, "x y", "  z"}, .size = {sizeof MIXED - 1, 3, 3}};
  text_files(&t);
  for (size_t r = 0; r < N_RULES; ++r) {
    uint64_t expected = 0;
    scan *s = NULL;
    scan *other = NULL;
    CHECK_OK(scan_new(&t.c, all_rules[r], &s));
    CHECK_OK(scan_new(&t.c, all_rules[r], &other));
    for (uint64_t p = 0; p < t.start[3]; ++p) {
      struct naive one = {0};
      uint64_t begin = 0;
      CHECK_OK(collect(other, all_rules[r], p, p + 1, 64, &one));
      CU_ASSERT(one.n <= 1);
      if (one.n == 1) { expected = p; }
      CHECK_OK(scan_token_begin(s, p, &begin));
      CU_ASSERT_EQUAL(begin, expected);
      naive_free(&one);
    }
    scan_free(&other);
    scan_free(&s);
  }
}

static void test_scan_token_begin_goes_back_farther_than_a_buffer(void)
{
  const size_t n = 600000;
  char *text = naive_grow(NULL, n);
  struct text t = {.n_files = 1};
  uint64_t begin = 0;
  memset(text, ' ', n);
  text[99] = 'a';
  t.text[0] = text;
  t.size[0] = n;
  text_files(&t);
  for (size_t r = 0; r < N_RULES; ++r) {
    scan *s = NULL;
    bool word = all_rules[r].level == UNROLL_LEVEL_WORD;
    CHECK_OK(scan_new(&t.c, all_rules[r], &s));
    CHECK_OK(scan_token_begin(s, n - 1, &begin));
    CU_ASSERT_EQUAL(begin, word ? 99 : all_rules[r].letters ? 100 : n - 1);
    CHECK_OK(scan_token_begin(s, 98, &begin));
    CU_ASSERT_EQUAL(begin, word || all_rules[r].letters ? 0 : 98);
    scan_free(&s);
  }
  free(text);
}

/* -------------------------------------------------------------------- UTF-8 */

static void test_scan_utf8_decode_is_the_inverse_of_encode(void)
{
  int wrong = 0;
  for (int32_t code = 0; code < SCAN_CODES; ++code) {
    char a[4] = {0};
    char b[4] = {0};
    int32_t back = -1;
    size_t n = scan_utf8_encode(code, a);
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    wrong += n != naive_encode((uint32_t)code, b) || memcmp(a, b, 4) != 0;
    wrong += scan_utf8_decode(a, n, &back) != (surrogate ? 0 : n);
    wrong += !surrogate && back != code;
    wrong += n > 1 && scan_utf8_decode(a, n - 1, &back) != 0;
  }
  CU_ASSERT_EQUAL(wrong, 0);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"any cut: tokens of the whole", test_scan_any_cut_gives_the_tokens_of_the_whole},
      {"files: one text, separate words", test_scan_files_are_one_text_but_separate_words},
      {"--letters: a run is one space", test_scan_letters_makes_every_run_one_space},
      {"--lowercase: beyond ASCII", test_scan_lowercase_goes_beyond_ascii},
      {"longer than a buffer: the same", test_scan_text_longer_than_a_buffer_is_read_alike},
      {"characters across a buffer's end: whole",
       test_scan_characters_across_the_end_of_a_buffer_stay_whole},
      {"longest word passes, a longer one fails",
       test_scan_longest_word_passes_and_a_longer_one_fails},
      {"malformed: in the range of its first byte",
       test_scan_malformed_belongs_to_the_range_of_its_first_byte},
      {"sequence across two files: malformed", test_scan_sequence_across_two_files_is_malformed},
      {"malformed string: bad argument", test_scan_malformed_string_is_a_bad_argument},
      {"changed file: noticed", test_scan_file_that_changed_is_noticed},
      {"token begin: last place with a token",
       test_scan_token_begin_is_the_last_place_where_a_range_has_a_token},
      {"token begin: farther back than a buffer",
       test_scan_token_begin_goes_back_farther_than_a_buffer},
      {"UTF-8: decode inverts encode", test_scan_utf8_decode_is_the_inverse_of_encode},
  };
  return run_cases("scan", sizeof cases / sizeof cases[0], cases);
}
