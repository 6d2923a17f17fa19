#ifndef TESTS_NAIVE_TEXT_H
#define TESTS_NAIVE_TEXT_H

/*
 * The oracle of the scanner: the whole text at once, one obvious pass for each
 * rule, no ranges, no buffers. Valid UTF-8 only.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/vocab.h>

#define NAIVE_FILE_END UINT32_MAX

/* Tokens as strings: token i is pool[at[i]] .. pool[at[i + 1] - 1]. */
struct naive {
  size_t n, max, used, room;
  size_t *at;
  char *pool;
  uint64_t characters;
};

static inline void *naive_grow(void *p, size_t bytes)
{
  void *q = realloc(p, bytes);
  if (q == NULL) { abort(); }
  return q;
}

static inline void naive_add(struct naive *t, const char *text, size_t n)
{
  if (t->n + 2 > t->max) {
    t->max = 2 * t->max + 1024;
    t->at = naive_grow(t->at, t->max * sizeof *t->at);
    t->at[0] = 0;
  }
  if (t->used + n > t->room) {
    t->room = 2 * (t->room + n) + 4096;
    t->pool = naive_grow(t->pool, t->room);
  }
  if (n > 0) { memcpy(t->pool + t->used, text, n); }
  t->used += n;
  t->at[++t->n] = t->used;
}

static inline void naive_free(struct naive *t)
{
  free(t->at);
  free(t->pool);
  memset(t, 0, sizeof *t);
}

static inline size_t naive_encode(uint32_t u, char *out)
{
  if (u < 0x80) {
    out[0] = (char)u;
    return 1;
  }
  if (u < 0x800) {
    out[0] = (char)(0xc0 + u / 64);
    out[1] = (char)(0x80 + u % 64);
    return 2;
  }
  if (u < 0x10000) {
    out[0] = (char)(0xe0 + u / 4096);
    out[1] = (char)(0x80 + u / 64 % 64);
    out[2] = (char)(0x80 + u % 64);
    return 3;
  }
  out[0] = (char)(0xf0 + u / 262144);
  out[1] = (char)(0x80 + u / 4096 % 64);
  out[2] = (char)(0x80 + u / 64 % 64);
  out[3] = (char)(0x80 + u % 64);
  return 4;
}

static inline int naive_is_letter(uint32_t u)
{
  return (u >= 'a' && u <= 'z') || (u >= 'A' && u <= 'Z');
}

/* Of the capital letters that the tests have beyond ASCII. */
static inline uint32_t naive_lower(uint32_t u)
{
  static const uint32_t pairs[][2] = {
      {0xc4, 0xe4}, {0xc9, 0xe9}, {0x23a, 0x2c65}, {0x41f, 0x43f}, {0x212a, 'k'}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i) {
    if (u == pairs[i][0]) { return pairs[i][1]; }
  }
  return u;
}

static inline int naive_separates(uint32_t u, unroll_text_rules rules)
{
  if (rules.letters) { return !naive_is_letter(u); }
  return u == NAIVE_FILE_END || (u != 0 && u < 128 && strchr(" \t\r\v\f\n", (int)u) != NULL);
}

/* Code points (at level byte: bytes) of all files, each followed by NAIVE_FILE_END. */
static inline size_t naive_codes(unroll_level level, size_t n_files, const char *const *text,
                                 const size_t *size, uint32_t **out)
{
  size_t total = n_files;
  size_t n = 0;
  for (size_t f = 0; f < n_files; ++f) { total += size[f]; }
  uint32_t *u = naive_grow(NULL, total * sizeof *u);
  for (size_t f = 0; f < n_files; ++f) {
    for (size_t i = 0; i < size[f]; ++i) {
      unsigned char b = (unsigned char)text[f][i];
      if (level == UNROLL_LEVEL_BYTE || b < 0x80) {
        u[n++] = b;
      } else if (b >= 0xc0) {
        u[n++] = b >= 0xf0 ? b - 0xf0u : b >= 0xe0 ? b - 0xe0u : b - 0xc0u;
      } else {
        u[n - 1] = 64 * u[n - 1] + (b - 0x80u);
      }
    }
    u[n++] = NAIVE_FILE_END;
  }
  *out = u;
  return n;
}

static inline struct naive naive_tokens(unroll_text_rules rules, size_t n_files,
                                        const char *const *text, const size_t *size)
{
  struct naive t = {0};
  struct naive word = {0};
  uint32_t *u = NULL;
  char out[4];
  const int byte = rules.level == UNROLL_LEVEL_BYTE;
  size_t n = naive_codes(rules.level, n_files, text, size, &u);

  uint32_t before = 'a';
  for (size_t i = 0; i < n; ++i) { /* characters */
    if (u[i] == NAIVE_FILE_END) { continue; }
    if (rules.letters) {
      t.characters += naive_is_letter(u[i]) || naive_is_letter(before);
    } else {
      t.characters += !byte || (u[i] & 0xc0) != 0x80;
    }
    before = u[i];
  }

  naive_add(&t, "", 0); /* allocates; taken back at once */
  t.n = 0;
  naive_add(&word, "", 0);
  word.n = 0;
  before = 'a';
  for (size_t i = 0; i < n; ++i) {
    uint32_t code = u[i];
    if ((rules.lowercase || rules.letters) && code < 128 && naive_is_letter(code)) { code |= 0x20; }
    if (rules.lowercase && !rules.letters && !byte && code != NAIVE_FILE_END && code >= 128) {
      code = naive_lower(code);
    }
    if (rules.level != UNROLL_LEVEL_WORD) {
      if (code == NAIVE_FILE_END) { continue; }
      if (rules.letters && !naive_is_letter(code)) {
        if (naive_is_letter(before)) { naive_add(&t, " ", 1); }
      } else if (byte) {
        naive_add(&t, &(char){(char)code}, 1);
      } else {
        naive_add(&t, out, naive_encode(code, out));
      }
      before = code;
    } else if (naive_separates(code, rules)) {
      if (word.used > 0) { naive_add(&t, word.pool, word.used); }
      word.used = 0;
      word.n = 0;
      if (code == '\n') { naive_add(&t, "\n", 1); }
    } else {
      naive_add(&word, out, naive_encode(code, out));
    }
  }
  naive_free(&word);
  free(u);
  return t;
}

/* ---------------------------------------------------- the vocabulary of it */

struct naive_word {
  const char *text;
  size_t n;
  size_t count;
};

static inline int naive_by_text(const void *left, const void *right)
{
  const struct naive_word *a = left;
  const struct naive_word *b = right;
  int order = memcmp(a->text, b->text, a->n < b->n ? a->n : b->n);
  if (order != 0) { return order; }
  if (a->n != b->n) { return a->n < b->n ? -1 : 1; }
  return 0;
}

static inline int naive_by_count(const void *left, const void *right)
{
  const struct naive_word *a = left;
  const struct naive_word *b = right;
  if (a->count != b->count) { return a->count > b->count ? -1 : 1; }
  return naive_by_text(left, right);
}

/* The same of words, where a line end stands at the place of "<eos>", before a word that is written so. */
static inline int naive_words_by_count(const void *left, const void *right)
{
  struct naive_word a = *(const struct naive_word *)left, b = *(const struct naive_word *)right;
  const int a_ends = a.text[0] == '\n', b_ends = b.text[0] == '\n';
  if (a.count != b.count) { return a.count > b.count ? -1 : 1; }
  if (a_ends) { a = (struct naive_word){.text = "<eos>", .n = 5}; }
  if (b_ends) { b = (struct naive_word){.text = "<eos>", .n = 5}; }
  const int order = naive_by_text(&a, &b);
  return order != 0 ? order : b_ends - a_ends;
}

/* Distinct tokens by count, then bytes; n of them. To be freed; borrows the pool. */
static inline struct naive_word *naive_words(unroll_level level, const struct naive *t, size_t *n)
{
  struct naive_word *w = naive_grow(NULL, (t->n + 1) * sizeof *w);
  size_t m = 0;
  for (size_t i = 0; i < t->n; ++i) {
    w[i] =
        (struct naive_word){.text = t->pool + t->at[i], .n = t->at[i + 1] - t->at[i], .count = 1};
  }
  qsort(w, t->n, sizeof *w, naive_by_text);
  for (size_t i = 0; i < t->n; ++i) {
    if (m > 0 && naive_by_text(&w[m - 1], &w[i]) == 0) {
      w[m - 1].count += 1;
    } else {
      w[m++] = w[i];
    }
  }
  qsort(w, m, sizeof *w, level == UNROLL_LEVEL_WORD ? naive_words_by_count : naive_by_count);
  *n = m;
  return w;
}

#endif
