#include "data/vocab.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/random.h"
#include "data/bpe.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What `<unk>` stands for at level char: the replacement character U+FFFD. */
#define REPLACEMENT "\xef\xbf\xbd"

struct unroll_vocab {
  unroll_text_rules rules;
  words texts;      /* what the tokens stand for; `<unk>` as this name */
  uint64_t *counts; /* (V) */
  char *names;      /* every name with its final zero */
  size_t *name;     /* (V) [bytes] where in names */
  int32_t *index;   /* (n_codes) levels byte and char: of a code; `<unk>` where there is none */
  size_t n_codes;   /* one more than the highest code of a token */
  bpe *merges;      /* level bpe */
};

/* Are its tokens made of bytes, so that none is unknown? */
static bool has_all_bytes(unroll_level level)
{
  return level == UNROLL_LEVEL_BYTE || level == UNROLL_LEVEL_BPE;
}

/* ------------------------------------------------------------ set of words */

uint64_t words_hash(const char *text, size_t n)
{
  uint64_t hash = n;
  uint64_t eight = 0;
  for (; n >= 8; n -= 8, text += 8) {
    memcpy(&eight, text, 8);
    hash = random_mix(hash ^ eight);
  }
  eight = 0;
  memcpy(&eight, text, n);
  return random_mix(hash ^ eight);
}

const char *words_view(const words *w, size_t i, size_t *n)
{
  assert(i < w->n);
  *n = (size_t)(w->start[i + 1] - w->start[i]);
  return w->pool + w->start[i];
}

static uint64_t slot_value(uint64_t hash, size_t index)
{
  return (hash & ~(uint64_t)UINT32_MAX) | (index + 1);
}

/* The slot that holds a string, or the free one where it belongs. */
static size_t find_slot(const words *w, uint64_t hash, const char *text, size_t n)
{
  size_t k = (size_t)hash & (w->n_slots - 1);
  for (; w->slot[k] != 0; k = (k + 1) & (w->n_slots - 1)) {
    if ((w->slot[k] ^ hash) >> 32 != 0) { continue; }
    size_t other_n = 0;
    const char *other = words_view(w, (size_t)(w->slot[k] & UINT32_MAX) - 1, &other_n);
    if (other_n == n && memcmp(other, text, n) == 0) { break; }
  }
  return k;
}

int64_t words_find(const words *w, const char *text, size_t n)
{
  if (w->n == 0) { return -1; }
  return (int64_t)(w->slot[find_slot(w, words_hash(text, n), text, n)] & UINT32_MAX) - 1;
}

/* Room for one more string of n bytes. */
static unroll_status make_room(words *w, size_t n)
{
  unroll_status st = UNROLL_OK;
  uint64_t *slot = NULL;

  if (w->n == INT32_MAX) {
    st = unroll_fail(UNROLL_ERR_INPUT, "the text has more than %d different words", INT32_MAX);
    goto cleanup;
  }
  if (w->n == w->max_n || w->start == NULL) {
    size_t max_n = w->max_n == 0 ? 512 : 2 * w->max_n;
    UNROLL_TRY(
        memory_resize(w->n + 1, max_n + 1, sizeof *w->start, "the words of the text", &w->start));
    w->max_n = max_n;
  }
  if (w->start[w->n] + n > w->max_pool) {
    size_t max_pool = 2 * (w->max_pool + n) + 4096;
    UNROLL_TRY(memory_resize(w->max_pool, max_pool, 1, "the words of the text", &w->pool));
    w->max_pool = max_pool;
  }
  if (2 * (w->n + 1) > w->n_slots) {
    size_t n_slots = w->n_slots == 0 ? 1024 : 2 * w->n_slots;
    UNROLL_TRY(memory_new(n_slots, sizeof *slot, "the words of the text", &slot));
    for (size_t i = 0; i < w->n; ++i) {
      size_t other_n = 0;
      const char *other = words_view(w, i, &other_n);
      uint64_t hash = words_hash(other, other_n);
      size_t k = (size_t)hash & (n_slots - 1);
      while (slot[k] != 0) { k = (k + 1) & (n_slots - 1); }
      slot[k] = slot_value(hash, i);
    }
    memory_free(&w->slot);
    w->slot = slot;
    w->n_slots = n_slots;
    slot = NULL;
  }

cleanup:
  memory_free(&slot);
  return st;
}

unroll_status words_add(words *w, const char *text, size_t n, size_t *index)
{
  unroll_status st = UNROLL_OK;
  uint64_t hash = words_hash(text, n);

  if (w->n_slots > 0) {
    size_t k = find_slot(w, hash, text, n);
    if (w->slot[k] != 0) {
      *index = (size_t)(w->slot[k] & UINT32_MAX) - 1;
      goto cleanup;
    }
  }
  UNROLL_TRY(make_room(w, n));
  w->slot[find_slot(w, hash, text, n)] = slot_value(hash, w->n);
  memcpy(w->pool + w->start[w->n], text, n);
  w->start[w->n + 1] = w->start[w->n] + n;
  *index = w->n;
  w->n += 1;

cleanup:
  return st;
}

void words_free(words *w)
{
  memory_free(&w->slot);
  memory_free(&w->pool);
  memory_free(&w->start);
  memset(w, 0, sizeof *w);
}

/* ------------------------------------------------------------------- names
 *
 * A name is the token's text, but with "\xNN" for control bytes, at level byte
 * also for bytes above 127, at level bpe where the text is no UTF-8, and for a backslash that would read as such an
 * escape: so a name is one line of UTF-8 and gives back exactly one text.
 * At level word the line end has the name "<eos>", and a word of that name
 * is "\x3ceos>".
 */

/* Value of the lower-case hexadecimal digits of an escape at p, or -1. Stops at the final zero. */
static int escaped_byte(const char *p)
{
  static const char digits[] = "0123456789abcdef";
  if (p[0] != '\\' || p[1] != 'x' || p[2] == '\0' || p[3] == '\0') { return -1; }
  const char *high = strchr(digits, p[2]);
  const char *low = strchr(digits, p[3]);
  return high == NULL || low == NULL ? -1 : (int)(16 * (high - digits) + (low - digits));
}

static bool is_text(const char *text, size_t n, const char *other)
{
  return n == strlen(other) && memcmp(text, other, n) == 0;
}

/* [bytes] Room for the name of any text of n, with its final zero. */
static size_t room_of_name(size_t n)
{
  return 4 * n + sizeof SCAN_EOS;
}

static bool is_utf8(const char *text, size_t n)
{
  int32_t code = 0;
  for (size_t i = 0; i < n;) {
    const size_t length = scan_utf8_decode(text + i, n - i, &code);
    if (length == 0) { return false; }
    i += length;
  }
  return true;
}

/* Write the name of a text and its final zero. Returns its length. */
static size_t write_name(unroll_level level, const char *text, size_t n, char *out)
{
  const bool word = level == UNROLL_LEVEL_WORD, reserved = word && is_text(text, n, SCAN_EOS);
  const bool escaped =
      level == UNROLL_LEVEL_BYTE || (level == UNROLL_LEVEL_BPE && !is_utf8(text, n));
  size_t m = 0;

  if (word && is_text(text, n, SCAN_LINE_END)) { return strlen(strcpy(out, SCAN_EOS)); }
  for (size_t i = 0; i < n; ++i) {
    unsigned char b = (unsigned char)text[i];
    char next[5] = {0};
    memcpy(next, text + i, n - i < 4 ? n - i : 4);
    bool high = b > 126 && (b == 127 || escaped);
    if (b < ' ' || high || escaped_byte(next) >= 0 || (reserved && i == 0)) {
      m += (size_t)snprintf(out + m, 5, "\\x%02x", b);
    } else {
      out[m++] = text[i];
    }
  }
  out[m] = '\0';
  return m;
}

/* The text of a name, never longer than it. Returns its length. */
static size_t read_name(unroll_level level, const char *name, char *out)
{
  size_t m = 0;
  if (level == UNROLL_LEVEL_WORD && strcmp(name, SCAN_EOS) == 0) { name = SCAN_LINE_END; }
  while (*name != '\0') {
    int byte = escaped_byte(name);
    out[m++] = byte >= 0 ? (char)byte : *name;
    name += byte >= 0 ? 4 : 1;
  }
  return m;
}

static unroll_status name_tokens(unroll_vocab *vocab)
{
  unroll_status st = UNROLL_OK;
  const words *w = &vocab->texts;
  size_t at = 0;
  size_t n = 0;
  size_t longest = 0;
  size_t bytes = 0;
  char *name = NULL;

  for (size_t i = 0; i < w->n; ++i) {
    (void)words_view(w, i, &n);
    longest = n > longest ? n : longest;
  }
  UNROLL_TRY(memory_new(room_of_name(longest), 1, "the longest name", &name));
  for (size_t i = 0; i < w->n; ++i) {
    const char *text = words_view(w, i, &n);
    bytes += write_name(vocab->rules.level, text, n, name) + 1;
  }
  UNROLL_TRY(memory_new(bytes, 1, "the names of the tokens", &vocab->names));
  UNROLL_TRY(memory_new(w->n, sizeof *vocab->name, "the names of the tokens", &vocab->name));
  for (size_t i = 0; i < w->n; ++i) {
    const char *text = words_view(w, i, &n);
    size_t length = write_name(vocab->rules.level, text, n, name) + 1;
    memcpy(vocab->names + at, name, length);
    vocab->name[i] = at;
    at += length;
  }

cleanup:
  memory_free(&name);
  return st;
}

/* ------------------------------------------------------------ create, free */

static int32_t code_of(unroll_level level, const char *text, size_t n)
{
  int32_t code = (unsigned char)text[0];
  if (level == UNROLL_LEVEL_CHAR) { (void)scan_utf8_decode(text, n, &code); }
  return code;
}

/* The table from codes to indices. */
static unroll_status index_codes(unroll_vocab *vocab)
{
  unroll_status st = UNROLL_OK;
  const unroll_level level = vocab->rules.level;
  const size_t first = level == UNROLL_LEVEL_BYTE ? 0 : 1; /* `<unk>` has no code */
  size_t n = 0;

  for (size_t i = first; i < vocab->texts.n; ++i) {
    const char *text = words_view(&vocab->texts, i, &n);
    size_t code = (size_t)code_of(level, text, n);
    vocab->n_codes = code >= vocab->n_codes ? code + 1 : vocab->n_codes;
  }
  UNROLL_TRY(
      memory_new(vocab->n_codes, sizeof *vocab->index, "the index of code points", &vocab->index));
  for (size_t i = first; i < vocab->texts.n; ++i) {
    const char *text = words_view(&vocab->texts, i, &n);
    vocab->index[code_of(level, text, n)] = (int32_t)i;
  }

cleanup:
  return st;
}

unroll_status vocab_assemble(unroll_text_rules rules, words *texts, uint64_t **counts,
                             unroll_vocab **out)
{
  unroll_status st = UNROLL_OK;
  unroll_vocab *vocab = NULL;
  size_t bad = 0;
  assert(rules.level != UNROLL_LEVEL_BYTE || texts->n == 256);

  UNROLL_TRY(memory_new(1, sizeof *vocab, "the vocabulary", &vocab));
  vocab->rules = rules;
  vocab->texts = *texts; /* lent until nothing can fail any more */
  vocab->counts = *counts;
  st = name_tokens(vocab);
  if (st == UNROLL_OK && rules.level == UNROLL_LEVEL_BPE) {
    st = bpe_new(texts, &bad, &vocab->merges);
    if (st == UNROLL_OK && bad < texts->n) {
      st = unroll_fail(UNROLL_ERR_INPUT, "vocabulary: \"%s\" cannot be token %zu at %s level",
                       unroll_vocab_token_view(vocab, bad), bad, unroll_level_text(rules.level));
    }
  } else if (st == UNROLL_OK && rules.level != UNROLL_LEVEL_WORD) {
    st = index_codes(vocab);
  }
  if (st != UNROLL_OK) {
    memset(&vocab->texts, 0, sizeof vocab->texts);
    vocab->counts = NULL;
    goto cleanup;
  }
  memset(texts, 0, sizeof *texts);
  *counts = NULL;
  *out = vocab;
  vocab = NULL;

cleanup:
  unroll_vocab_free(&vocab);
  return st;
}

/* Is this text a token of the level, beside `<unk>` and, at level word, the line end? */
static bool is_token(unroll_text_rules rules, const char *text, size_t n)
{
  int32_t code = 0;
  if (n == 0 || rules.level == UNROLL_LEVEL_BPE) { return n > 0; } /* vocab_assemble looks */
  if (rules.level == UNROLL_LEVEL_CHAR) { return scan_utf8_decode(text, n, &code) == n; }
  for (size_t i = 0; i < n;) {
    size_t length = scan_utf8_decode(text + i, n - i, &code);
    if (length == 0 || !scan_is_word_byte(rules, (unsigned char)text[i])) { return false; }
    i += length;
  }
  return true;
}

/* The texts of the tokens from their names. */
static unroll_status read_texts(unroll_text_rules rules, size_t V, const char *const *tokens,
                                words *texts)
{
  unroll_status st = UNROLL_OK;
  char *text = NULL;
  size_t longest = 0;

  for (size_t i = 0; i < V; ++i) {
    size_t n = strlen(tokens[i]);
    longest = n > longest ? n : longest;
  }
  UNROLL_TRY(memory_new(longest + 1, 1, "the longest token", &text));
  for (size_t i = 0; i < V; ++i) {
    size_t index = 0;
    size_t n = read_name(rules.level, tokens[i], text);
    bool unk = strcmp(tokens[i], SCAN_UNK) == 0;
    bool eos = rules.level == UNROLL_LEVEL_WORD && strcmp(tokens[i], SCAN_EOS) == 0;
    bool legal = rules.level == UNROLL_LEVEL_BYTE  ? n == 1 && (unsigned char)text[0] == i
                 : rules.level == UNROLL_LEVEL_BPE ? is_token(rules, text, n)
                 : i == 0                          ? unk
                                                   : unk || eos || is_token(rules, text, n);
    if (!legal) {
      st = unroll_fail(UNROLL_ERR_INPUT, "vocabulary: \"%s\" cannot be token %zu at %s level",
                       tokens[i], i, unroll_level_text(rules.level));
      goto cleanup;
    }
    UNROLL_TRY(words_add(texts, text, n, &index));
    if (index != i) {
      st = unroll_fail(UNROLL_ERR_INPUT, "vocabulary: \"%s\" stands twice, as token %zu and %zu",
                       tokens[i], index, i);
      goto cleanup;
    }
  }

cleanup:
  memory_free(&text);
  return st;
}

unroll_status unroll_vocab_new(unroll_text_rules rules, size_t V, const char *const *tokens,
                               const uint64_t *counts, unroll_vocab **out)
{
  unroll_status st = UNROLL_OK;
  words texts = {0};
  uint64_t *copy = NULL;
  const bool byte = rules.level == UNROLL_LEVEL_BYTE;
  assert(byte || tokens != NULL);

  const size_t least = rules.level == UNROLL_LEVEL_BPE ? BPE_BYTES : 1;
  if (byte ? V != 256 : V < least || V > INT32_MAX) {
    st = unroll_fail(UNROLL_ERR_INPUT, "vocabulary: %zu tokens; %s", V,
                     byte         ? "level byte has 256"
                     : least == 1 ? "there must be 1 to 2147483647"
                                  : "level bpe has 256 to 2147483647");
    goto cleanup;
  }
  if (tokens != NULL) {
    UNROLL_TRY(read_texts(rules, V, tokens, &texts));
  } else {
    for (int b = 0; b < 256; ++b) {
      size_t index = 0;
      UNROLL_TRY(words_add(&texts, &(char){(char)b}, 1, &index));
    }
  }
  UNROLL_TRY(memory_new(V, sizeof *copy, "the counts of the vocabulary", &copy));
  memcpy(copy, counts, V * sizeof *copy);
  UNROLL_TRY(vocab_assemble(rules, &texts, &copy, out));

cleanup:
  memory_free(&copy);
  words_free(&texts);
  return st;
}

void unroll_vocab_free(unroll_vocab **vocab)
{
  if (*vocab == NULL) { return; }
  bpe_free(&(*vocab)->merges);
  memory_free(&(*vocab)->index);
  memory_free(&(*vocab)->name);
  memory_free(&(*vocab)->names);
  memory_free(&(*vocab)->counts);
  words_free(&(*vocab)->texts);
  memory_free(vocab);
}

/* --------------------------------------------------------------- accessors */

size_t unroll_vocab_size(const unroll_vocab *vocab)
{
  return vocab->texts.n;
}

unroll_text_rules unroll_vocab_rules(const unroll_vocab *vocab)
{
  return vocab->rules;
}

const char *unroll_vocab_token_view(const unroll_vocab *vocab, size_t index)
{
  assert(index < vocab->texts.n);
  return vocab->names + vocab->name[index];
}

const char *unroll_vocab_text_view(const unroll_vocab *vocab, size_t index, size_t *n)
{
  const unroll_level level = vocab->rules.level;
  const char *text = words_view(&vocab->texts, index, n);

  if (level == UNROLL_LEVEL_CHAR && index == 0) {
    text = REPLACEMENT;
    *n = strlen(REPLACEMENT);
  }
  return text;
}

int64_t unroll_vocab_code(const unroll_vocab *vocab, size_t index)
{
  const unroll_level level = vocab->rules.level;
  size_t n = 0;
  const char *text = words_view(&vocab->texts, index, &n);
  if (level == UNROLL_LEVEL_WORD || (level == UNROLL_LEVEL_CHAR && index == 0)) { return -1; }
  if (level == UNROLL_LEVEL_BPE && n > 1) { return -1; }
  return code_of(level, text, n);
}

uint64_t unroll_vocab_count(const unroll_vocab *vocab, size_t index)
{
  assert(index < vocab->texts.n);
  return vocab->counts[index];
}

int64_t unroll_vocab_find(const unroll_vocab *vocab, const char *token)
{
  const size_t V = vocab->texts.n;
  const bool eos = vocab->rules.level == UNROLL_LEVEL_WORD && strcmp(token, SCAN_EOS) == 0;
  const char *text = eos ? SCAN_LINE_END : token;
  int64_t index = words_find(&vocab->texts, text, strlen(text));

  if (index >= 0 && strcmp(unroll_vocab_token_view(vocab, (size_t)index), token) == 0) {
    return index;
  }
  if (strstr(token, "\\x") != NULL) { /* only with an escape is the name not the text itself */
    for (size_t i = 0; i < V; ++i) {
      if (strcmp(unroll_vocab_token_view(vocab, i), token) == 0) { return (int64_t)i; }
    }
  }
  return has_all_bytes(vocab->rules.level) ? -1 : 0;
}

int32_t vocab_line_end(const unroll_vocab *vocab)
{
  return (int32_t)words_find(&vocab->texts, SCAN_LINE_END, strlen(SCAN_LINE_END));
}

size_t vocab_white(const unroll_vocab *vocab, int32_t white[VOCAB_WHITE])
{
  static const char kinds[VOCAB_WHITE + 1] = " \t\v\f\r";
  size_t n = 0;
  for (size_t i = 0; i < VOCAB_WHITE; ++i) {
    const int64_t index = words_find(&vocab->texts, &kinds[i], 1);
    if (index >= 0) { white[n++] = (int32_t)index; }
  }
  return n;
}

/* ---------------------------------------------------------- text -> indices */

unroll_status vocab_scan(const unroll_vocab *vocab, scan *s, size_t max, int32_t *tokens, size_t *n)
{
  unroll_status st = UNROLL_OK;

  if (vocab->rules.level == UNROLL_LEVEL_BPE) { return bpe_scan(vocab->merges, s, max, tokens, n); }
  if (vocab->rules.level != UNROLL_LEVEL_WORD) {
    UNROLL_TRY(scan_codes(s, max, tokens, n));
    for (size_t i = 0; i < *n; ++i) {
      size_t code = (size_t)tokens[i];
      tokens[i] = code < vocab->n_codes ? vocab->index[code] : 0;
    }
    goto cleanup;
  }

  size_t m = 0;
  while (m < max) {
    const char *word = NULL;
    size_t word_n = 0;
    UNROLL_TRY(scan_word(s, &word, &word_n));
    if (word_n == 0) { break; }
    int64_t index = words_find(&vocab->texts, word, word_n);
    tokens[m++] = index < 0 ? 0 : (int32_t)index;
  }
  *n = m;

cleanup:
  return st;
}

size_t vocab_unknown(const unroll_vocab *vocab, size_t n, const int32_t *tokens)
{
  size_t unknown = 0;
  if (has_all_bytes(vocab->rules.level)) { return 0; }
  for (size_t i = 0; i < n; ++i) { unknown += tokens[i] == 0; }
  return unknown;
}

/* Add the name of an unseen token to a list, unless it is there, or there is no room. */
static void list_name(const unroll_vocab *vocab, const char *text, size_t n, size_t size, char *out)
{
  char name[512];
  size_t end = strlen(out);
  if (room_of_name(n) > sizeof name) { return; }
  const size_t m = write_name(vocab->rules.level, text, n, name);
  for (const char *at = out; (at = strstr(at, name)) != NULL; ++at) {
    const bool begins = at == out || at[-1] == ' ', ends = at[m] == ' ' || at[m] == '\0';
    if (begins && ends) { return; }
  }
  if (end + 1 + m + 1 > size) { return; }
  (void)snprintf(out + end, size - end, "%s%s", end > 0 ? " " : "", name);
}

unroll_status vocab_unseen(const unroll_vocab *vocab, const char *text, size_t bytes, size_t size,
                           char *out)
{
  unroll_status st = UNROLL_OK;
  const char *name = "the text given";
  uint64_t start[2] = {0, bytes};
  const corpus c = {.n_files = 1, .names = &name, .start = start, .string = text};
  const unroll_level level = vocab->rules.level;
  scan *s = NULL;
  size_t n = 0;

  out[0] = '\0';
  if (has_all_bytes(level)) { goto cleanup; }
  UNROLL_TRY(scan_new(&c, vocab->rules, &s));
  UNROLL_TRY(scan_start(s, 0, bytes));
  do {
    const char *word = NULL;
    char character[4];
    int32_t code = 0;
    if (level == UNROLL_LEVEL_WORD) {
      UNROLL_TRY(scan_word(s, &word, &n));
    } else {
      UNROLL_TRY(scan_codes(s, 1, &code, &n));
      word = character;
      if (n > 0) { n = scan_utf8_encode(code, character); }
    }
    if (n > 0 && words_find(&vocab->texts, word, n) <= 0) { list_name(vocab, word, n, size, out); }
  } while (n > 0);

cleanup:
  scan_free(&s);
  return st;
}

unroll_status vocab_encode(const unroll_vocab *vocab, const char *text, size_t bytes, size_t *n,
                           int32_t **tokens, size_t *unknown)
{
  unroll_status st = UNROLL_OK;
  const char *name = "the text given";
  uint64_t start[2] = {0, bytes};
  const corpus c = {.n_files = 1, .names = &name, .start = start, .string = text};
  scan *s = NULL;
  int32_t *found = NULL;
  size_t m = 0;
  size_t more = 0;

  UNROLL_TRY(memory_new(bytes + 1, sizeof *found, "the tokens of a text", &found));
  UNROLL_TRY(scan_new(&c, vocab->rules, &s));
  UNROLL_TRY(scan_start(s, 0, bytes));
  do {
    UNROLL_TRY(vocab_scan(vocab, s, bytes + 1 - m, found + m, &more));
    m += more;
  } while (more > 0);
  *n = m;
  *unknown = vocab_unknown(vocab, m, found);
  *tokens = found;
  found = NULL;

cleanup:
  scan_free(&s);
  memory_free(&found);
  return st;
}
