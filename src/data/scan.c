#include "data/scan.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/bpe.h"
#include "data/lowercase.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes: large enough to make system calls cheap and to hold the longest word, small enough for L2. */
#define BUFFER ((size_t)1 << 18)

/* Bytes read past the end of a range at once, for a token that crosses it. */
#define LOOKAHEAD ((size_t)1 << 12)

/* A lowered code point may need more bytes (U+023A: two, its lower case three), never twice as many. */
#define LOWERED_WORD (2 * SCAN_WORD)

enum kind { KIND_WORD, KIND_SEPARATOR, KIND_LINE_END };

struct scan {
  const corpus *c;
  unroll_text_rules rules;
  unsigned char map[256];  /* byte -> byte after --lowercase and --letters */
  unsigned char kind[256]; /* enum kind */

  uint64_t end;         /* tokens of the range begin before */
  scan_counts counts;   /* of the range, so far */
  unsigned char before; /* --letters: byte before the next one that is counted */
  bool gap;             /* --letters: the last byte was no letter, so its run has been told */

  size_t open_file; /* the file behind fd */
  int fd;
  size_t file;           /* the file in the buffer: it never holds bytes of two */
  uint64_t base;         /* position of buffer[0] in the text */
  size_t at, filled;     /* next byte; bytes in the buffer */
  unsigned char *buffer; /* (BUFFER) */
  char *word;            /* (LOWERED_WORD) */
  bpe_memory *memory;    /* level bpe; NULL: nothing yet */
};

/* ------------------------------------------------------------------ bytes */

static uint64_t least(uint64_t a, uint64_t b)
{
  return a < b ? a : b;
}

static bool is_letter(unsigned char b)
{
  return (unsigned char)((b | 0x20) - 'a') < 26;
}

static bool is_continuation(unsigned char b)
{
  return (b & 0xc0) == 0x80;
}

/* Length that a first byte promises; 0: no sequence begins with it. */
static size_t promised_length(unsigned char b)
{
  return b < 0x80 ? 1 : b < 0xc0 ? 0 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : b < 0xf8 ? 4 : 0;
}

size_t scan_utf8_decode(const char *b, size_t n, int32_t *code)
{
  static const int32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000}; /* below: an overlong form */
  const unsigned char first = (unsigned char)b[0];
  size_t length = promised_length(first);

  if (length <= 1) {
    *code = first;
    return length;
  }
  if (length > n) { return 0; }
  int32_t x = first & (0xff >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if (!is_continuation((unsigned char)b[i])) { return 0; }
    x = (int32_t)((uint32_t)x << 6) | (b[i] & 0x3f);
  }
  bool surrogate = x >= 0xd800 && x <= 0xdfff;
  if (x < lowest[length] || x >= SCAN_CODES || surrogate) { return 0; }
  *code = x;
  return length;
}

size_t scan_utf8_encode(int32_t code, char out[4])
{
  assert(code >= 0 && code < SCAN_CODES);
  if (code < 0x80) {
    out[0] = (char)code;
    return 1;
  }
  size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; --i) {
    out[i] = (char)(0x80 | (code & 0x3f));
    code >>= 6;
  }
  out[0] = (char)((0xf00 >> length) | code);
  return length;
}

/* Bytes before the first one above 127. */
static size_t ascii_prefix(const unsigned char *b, size_t n)
{
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t eight = 0;
    memcpy(&eight, b + i, 8);
    if ((eight & UINT64_C(0x8080808080808080)) != 0) { break; }
  }
  while (i < n && b[i] < 0x80) { ++i; }
  return i;
}

bool scan_is_word_byte(unroll_text_rules rules, unsigned char byte)
{
  if (rules.letters) { return is_letter(byte); }
  return byte != ' ' && (byte < '\t' || byte > '\r'); /* \t \n \v \f \r are neighbours */
}

/* -------------------------------------------------------- reading the text */

/* An unusable string is the fault of an argument, an unusable file that of the input. */
static unroll_status unusable(const scan *s)
{
  return s->c->string != NULL ? UNROLL_ERR_ARG : UNROLL_ERR_INPUT;
}

static corpus_edges edges_of(const scan *s, size_t file)
{
  return s->c->edges != NULL ? s->c->edges[file] : (corpus_edges){0};
}

/* Offset in the current file of a position in the text. */
static uint64_t offset_of(const scan *s, uint64_t position)
{
  return position - s->c->start[s->file] + edges_of(s, s->file).mark;
}

static unroll_status fail_malformed(const scan *s, uint64_t position, unsigned char byte)
{
  return unroll_fail(unusable(s),
                     "%s: malformed UTF-8 at byte %" PRIu64
                     " (0x%02x); a model of --level byte reads anything",
                     s->c->names[s->file], offset_of(s, position), byte);
}

/* Make `file` the open one. */
static unroll_status open_file(scan *s, size_t file)
{
  struct stat info = {0};
  const char *name = s->c->names[file];

  if (s->fd >= 0 && s->open_file == file) { return UNROLL_OK; }
  if (s->fd >= 0) { (void)close(s->fd); } /* only read from: nothing can be lost */
  s->fd = open(name, O_RDONLY | O_CLOEXEC);
  if (s->fd < 0 || fstat(s->fd, &info) != 0) {
    return unroll_fail(UNROLL_ERR_INPUT, "%s: cannot be opened: %s", name, strerror(errno));
  }
  s->open_file = file;
  const corpus_edges e = edges_of(s, file);
  const uint64_t bytes = s->c->start[file + 1] - s->c->start[file] + e.mark - e.joined;
  if ((uint64_t)info.st_size != bytes) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: changed while it was used: %" PRIu64 " bytes became %" PRIu64, name,
                       bytes, (uint64_t)info.st_size);
  }
  return UNROLL_OK;
}

/* n bytes from `position` of the text on, all of the current file. */
static unroll_status read_bytes(scan *s, uint64_t position, size_t n, unsigned char *out)
{
  unroll_status st = UNROLL_OK;

  if (s->c->string != NULL) {
    memcpy(out, s->c->string + position, n);
    return UNROLL_OK;
  }
  st = open_file(s, s->file);
  if (edges_of(s, s->file).joined && position + n == s->c->start[s->file + 1]) {
    n -= 1;
    out[n] = '\n';
  }
  while (st == UNROLL_OK && n > 0) {
    ssize_t got = pread(s->fd, out, n, (off_t)offset_of(s, position));
    if (got > 0) {
      out += got;
      position += (uint64_t)got;
      n -= (size_t)got;
    } else if (got == 0) {
      st = unroll_fail(UNROLL_ERR_INPUT, "%s: became shorter while it was read",
                       s->c->names[s->file]);
    } else if (errno != EINTR) {
      st = unroll_fail(UNROLL_ERR_IO, "%s: cannot be read: %s", s->c->names[s->file],
                       strerror(errno));
    }
  }
  return st;
}

/* Make the file that holds `position` the current one: the last that begins there or before, so
 * that empty files are passed over. */
static void enter_file(scan *s, uint64_t position)
{
  const uint64_t *start = s->c->start;
  assert(position < start[s->c->n_files]);
  if (position >= start[s->file] && position < start[s->file + 1]) { return; }
  size_t low = 0;
  size_t high = s->c->n_files;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (start[middle] <= position) {
      low = middle;
    } else {
      high = middle;
    }
  }
  s->file = low;
}

static uint64_t file_end(const scan *s)
{
  return s->c->start[s->file + 1];
}

/* Position of the next byte. */
static uint64_t position_of(const scan *s)
{
  return s->base + s->at;
}

static void count_characters(scan *s, const unsigned char *b, size_t n)
{
  uint64_t total = 0;
  if (n == 0) { return; }
  if (s->rules.letters) { /* every letter, and the first of a run of others */
    total = is_letter(b[0]) || is_letter(s->before);
    for (size_t i = 1; i < n; ++i) { total += (int)is_letter(b[i]) | (int)is_letter(b[i - 1]); }
  } else {
    for (size_t i = 0; i < n; ++i) { total += !is_continuation(b[i]); }
  }
  s->before = b[n - 1];
  s->counts.characters += total;
}

/* Move the unused bytes to the front and read more behind them: of the same file while bytes of it
 * are unused, else of the file that follows. There must be such bytes. */
static unroll_status refill(scan *s)
{
  size_t unused = s->filled - s->at;
  uint64_t position = s->base + s->filled;

  memmove(s->buffer, s->buffer + s->at, unused);
  s->base += s->at;
  s->at = 0;
  s->filled = unused;
  enter_file(s, position);

  uint64_t in_range = position < s->end ? s->end - position : 0;
  size_t n = (size_t)least(BUFFER - unused, least(file_end(s) - position, in_range + LOOKAHEAD));
  assert(n > 0);
  unroll_status st = read_bytes(s, position, n, s->buffer + unused);
  if (st == UNROLL_OK) {
    count_characters(s, s->buffer + unused, (size_t)least(n, in_range));
    s->filled += n;
  }
  return st;
}

/* ----------------------------------------------------- beginning of a range */

/* Pass over what belongs to a code point that begins before the range. Its promise decides: if it is
 * broken, the range before reports it. */
static unroll_status skip_code_point(scan *s)
{
  unroll_status st = UNROLL_OK;
  unsigned char back[3];
  uint64_t position = position_of(s);
  size_t n = (size_t)least(3, position - s->c->start[s->file]);

  UNROLL_TRY(read_bytes(s, position - n, n, back));
  for (size_t k = 1; k <= n; ++k) {
    if (is_continuation(back[n - k])) { continue; }
    for (size_t left = promised_length(back[n - k]); left > k; --left) {
      if (s->at < s->filled && is_continuation(s->buffer[s->at])) { ++s->at; }
    }
    break;
  }

cleanup:
  return st;
}

/* Does what stands before a byte of a word belong to the same token? */
static bool is_joined(const scan *s, unsigned char before)
{
  return s->kind[before] == KIND_WORD || (before == ' ' && s->rules.level == UNROLL_LEVEL_BPE);
}

/* Pass over what belongs to a word that begins before the range. */
static unroll_status skip_word(scan *s)
{
  unroll_status st = UNROLL_OK;
  unsigned char back = 0;

  if (position_of(s) == s->c->start[s->file]) { goto cleanup; }
  UNROLL_TRY(read_bytes(s, position_of(s) - 1, 1, &back));
  if (!is_joined(s, back)) { goto cleanup; }
  while (position_of(s) < least(s->end, file_end(s))) {
    if (s->at == s->filled) { UNROLL_TRY(refill(s)); }
    if (s->kind[s->buffer[s->at]] != KIND_WORD) { break; }
    ++s->at;
  }

cleanup:
  return st;
}

unroll_status scan_start(scan *s, uint64_t begin, uint64_t end)
{
  unroll_status st = UNROLL_OK;
  assert(begin <= end && end <= s->c->start[s->c->n_files]);

  s->base = begin;
  s->end = end;
  s->at = 0;
  s->filled = 0;
  s->counts = (scan_counts){0};
  s->before = 'a'; /* so that a run at the very beginning of the text counts */
  s->gap = false;
  bpe_memory_restart(s->memory);
  if (begin == end) { goto cleanup; }

  if (s->rules.letters && begin > 0) {
    enter_file(s, begin - 1);
    UNROLL_TRY(read_bytes(s, begin - 1, 1, &s->before));
    s->gap = !is_letter(s->before);
  }
  UNROLL_TRY(refill(s));
  const bool is_decoded =
      s->rules.level == UNROLL_LEVEL_CHAR || s->rules.level == UNROLL_LEVEL_WORD;
  if (is_decoded) { UNROLL_TRY(skip_code_point(s)); }
  if (s->rules.level == UNROLL_LEVEL_WORD || s->rules.level == UNROLL_LEVEL_BPE) {
    UNROLL_TRY(skip_word(s));
  }

cleanup:
  return st;
}

/* ------------------------------------------------------------------ tokens */

static int32_t lower(const scan *s, int32_t code)
{
  if (code < 0x80) { return s->map[code]; }
  return s->rules.lowercase && !s->rules.letters ? lowercase_of(code) : code;
}

/* Bytes to their codes. */
static size_t translate(const scan *s, const unsigned char *b, size_t n, int32_t *codes)
{
  for (size_t i = 0; i < n; ++i) { codes[i] = s->map[b[i]]; }
  return n;
}

/* The same for --letters, where the map makes every other byte a space: of a run only the first is
 * kept. Without a branch, because runs begin and end every few bytes. */
static size_t squeeze(scan *s, const unsigned char *b, size_t n, int32_t *codes)
{
  size_t m = 0;
  bool gap = s->gap;
  for (size_t i = 0; i < n; ++i) {
    bool space = s->map[b[i]] == ' ';
    codes[m] = s->map[b[i]];
    m += !(space & gap);
    gap = space;
  }
  s->gap = gap;
  return m;
}

/* Take one code point above 127. */
static unroll_status take_code_point(scan *s, int32_t *code)
{
  unroll_status st = UNROLL_OK;

  if (s->filled - s->at < 4 && s->base + s->filled < file_end(s)) { UNROLL_TRY(refill(s)); }
  const char *b = (const char *)s->buffer + s->at;
  size_t length = scan_utf8_decode(b, s->filled - s->at, code);
  if (length == 0) {
    st = fail_malformed(s, position_of(s), s->buffer[s->at]);
    goto cleanup;
  }
  s->at += length;

cleanup:
  return st;
}

unroll_status scan_codes(scan *s, size_t max, int32_t *codes, size_t *n)
{
  unroll_status st = UNROLL_OK;
  size_t m = 0;
  assert(max >= 1 && s->rules.level != UNROLL_LEVEL_WORD);

  while (m < max && position_of(s) < s->end) {
    if (s->at == s->filled) { UNROLL_TRY(refill(s)); }
    const unsigned char *b = s->buffer + s->at;
    size_t run = (size_t)least(least(s->filled - s->at, s->end - position_of(s)), max - m);
    if (s->rules.level == UNROLL_LEVEL_CHAR) { run = ascii_prefix(b, run); }
    if (run > 0) {
      m += s->rules.letters ? squeeze(s, b, run, codes + m) : translate(s, b, run, codes + m);
      s->at += run;
      continue;
    }

    int32_t code = 0;
    UNROLL_TRY(take_code_point(s, &code));
    if (!s->rules.letters) {
      codes[m++] = lower(s, code);
    } else if (!s->gap) {
      codes[m++] = ' ';
      s->gap = true;
    }
  }
  *n = m;

cleanup:
  return st;
}

static bool is_word(const char *word, size_t n, const char *name)
{
  return n == strlen(name) && memcmp(word, name, n) == 0;
}

/* Check a word of the buffer and bring it into the form of the rules. */
static unroll_status finish_word(scan *s, size_t n, const char **word, size_t *word_n)
{
  const char *b = (const char *)s->buffer + s->at;
  const bool lowered = s->rules.lowercase || s->rules.letters;
  size_t i = ascii_prefix(s->buffer + s->at, n);
  size_t m = i;

  if (lowered) {
    for (size_t k = 0; k < i; ++k) { s->word[k] = (char)s->map[(unsigned char)b[k]]; }
  }
  while (i < n) {
    int32_t code = 0;
    size_t length = scan_utf8_decode(b + i, n - i, &code);
    if (length == 0) { return fail_malformed(s, position_of(s) + i, (unsigned char)b[i]); }
    if (lowered) { m += scan_utf8_encode(lower(s, code), s->word + m); }
    i += length;
  }
  *word = lowered ? s->word : b;
  *word_n = lowered ? m : n;
  s->at += n;
  s->counts.unk_words += is_word(*word, *word_n, SCAN_UNK);
  s->counts.eos_words += is_word(*word, *word_n, SCAN_EOS);
  return UNROLL_OK;
}

/* Lengthen *m bytes from s->at, which stays, by the bytes of a word behind them. */
static unroll_status find_word_end(scan *s, size_t *m)
{
  unroll_status st = UNROLL_OK;

  for (;;) {
    while (s->at + *m < s->filled && s->kind[s->buffer[s->at + *m]] == KIND_WORD) { ++*m; }
    if (*m > SCAN_WORD) {
      st = unroll_fail(
          unusable(s),
          "%s: the word at byte %" PRIu64
          " is longer than %zu bytes; models of --level char and --level byte know no words",
          s->c->names[s->file], offset_of(s, position_of(s)), SCAN_WORD);
      goto cleanup;
    }
    if (s->at + *m < s->filled || s->base + s->filled == file_end(s)) { break; }
    UNROLL_TRY(refill(s));
  }

cleanup:
  return st;
}

unroll_status scan_word(scan *s, const char **word, size_t *n)
{
  unroll_status st = UNROLL_OK;
  size_t m = 0;
  assert(s->rules.level == UNROLL_LEVEL_WORD);

  for (;;) { /* pass over separators */
    if (position_of(s) >= s->end) {
      *n = 0;
      goto cleanup;
    }
    if (s->at == s->filled) { UNROLL_TRY(refill(s)); }
    unsigned char byte = s->buffer[s->at];
    if (s->kind[byte] == KIND_LINE_END) {
      ++s->at;
      *word = SCAN_LINE_END;
      *n = strlen(SCAN_LINE_END);
      goto cleanup;
    }
    if (s->kind[byte] == KIND_WORD) { break; }
    if (byte < 0x80) {
      ++s->at;
    } else { /* --letters: no part of a word, but it must be text */
      int32_t code = 0;
      UNROLL_TRY(take_code_point(s, &code));
    }
  }

  UNROLL_TRY(find_word_end(s, &m));
  UNROLL_TRY(finish_word(s, m, word, n));

cleanup:
  return st;
}

unroll_status scan_piece(scan *s, const char **piece, size_t *n)
{
  unroll_status st = UNROLL_OK;
  size_t m = 0;
  assert(s->rules.level == UNROLL_LEVEL_BPE);

  if (position_of(s) >= s->end) { goto cleanup; }
  if (s->at == s->filled) { UNROLL_TRY(refill(s)); }
  if (s->buffer[s->at] == ' ') {
    m = 1;
    if (s->at + m == s->filled && s->base + s->filled < file_end(s)) { UNROLL_TRY(refill(s)); }
  }
  UNROLL_TRY(find_word_end(s, &m));
  if (m == 0) { m = 1; } /* white space */
  const unsigned char *b = s->buffer + s->at;
  *piece = (const char *)b;
  if (s->rules.lowercase) {
    for (size_t i = 0; i < m; ++i) { s->word[i] = (char)s->map[b[i]]; }
    *piece = s->word;
  }
  s->at += m;

cleanup:
  *n = m;
  return st;
}

bpe_memory **scan_memory(scan *s)
{
  return &s->memory;
}

scan_counts scan_counted(const scan *s)
{
  return s->counts;
}

/* ---------------------------------------------------- looking for a token */

/* The byte at a position, by way of a buffer that holds what stands before it, for walking back. */
static unroll_status byte_at(scan *s, uint64_t position, unsigned char *byte)
{
  unroll_status st = UNROLL_OK;

  if (position < s->base || position >= s->base + s->filled) {
    enter_file(s, position);
    size_t n = (size_t)least(BUFFER, position - s->c->start[s->file] + 1);
    s->filled = 0;
    UNROLL_TRY(read_bytes(s, position + 1 - n, n, s->buffer));
    s->base = position + 1 - n;
    s->filled = n;
  }
  *byte = s->buffer[position - s->base];

cleanup:
  return st;
}

/* Does a token begin at this position? */
static unroll_status is_token_begin(scan *s, uint64_t position, bool *yes)
{
  unroll_status st = UNROLL_OK;
  unsigned char byte = 0;
  unsigned char back = 0;

  UNROLL_TRY(byte_at(s, position, &byte));
  const bool first = position == s->c->start[s->file]; /* of its file */
  if (position > 0) { UNROLL_TRY(byte_at(s, position - 1, &back)); }
  if (s->rules.level == UNROLL_LEVEL_BPE) {
    *yes = first || s->kind[byte] != KIND_WORD || !is_joined(s, back);
  } else if (s->rules.level == UNROLL_LEVEL_WORD) {
    bool inside = !first && s->kind[back] == KIND_WORD;
    *yes = s->kind[byte] == KIND_LINE_END || (s->kind[byte] == KIND_WORD && !inside);
  } else if (s->rules.letters) {
    *yes = position == 0 || is_letter(byte) || is_letter(back);
  } else {
    *yes = s->rules.level == UNROLL_LEVEL_BYTE || first || !is_continuation(byte);
  }

cleanup:
  return st;
}

unroll_status scan_token_begin(scan *s, uint64_t position, uint64_t *begin)
{
  unroll_status st = UNROLL_OK;
  bool yes = false;

  s->base = 0;
  s->at = 0;
  s->filled = 0;
  s->end = 0;
  UNROLL_TRY(is_token_begin(s, position, &yes));
  while (!yes && position > 0) {
    --position;
    UNROLL_TRY(is_token_begin(s, position, &yes));
  }
  *begin = position;

cleanup:
  return st;
}

/* ----------------------------------------------------------- create, free */

unroll_status scan_new(const corpus *c, unroll_text_rules rules, scan **out)
{
  unroll_status st = UNROLL_OK;
  scan *s = NULL;

  UNROLL_TRY(memory_new(1, sizeof *s, "a scanner", &s));
  s->fd = -1;
  s->c = c;
  s->rules = rules;
  for (int b = 0; b < 256; ++b) {
    bool upper = b >= 'A' && b <= 'Z' && (rules.lowercase || rules.letters);
    bool other = rules.letters && !is_letter((unsigned char)b);
    bool inside = scan_is_word_byte(rules, (unsigned char)b);
    s->map[b] = (unsigned char)(other ? ' ' : upper ? b + ('a' - 'A') : b);
    s->kind[b] = b == '\n' ? KIND_LINE_END : inside ? KIND_WORD : KIND_SEPARATOR;
  }
  UNROLL_TRY(memory_new(BUFFER, 1, "the buffer of a scanner", &s->buffer));
  if (rules.level == UNROLL_LEVEL_WORD || rules.level == UNROLL_LEVEL_BPE) {
    UNROLL_TRY(memory_new(LOWERED_WORD, 1, "the longest word", &s->word));
  }
  *out = s;
  s = NULL;

cleanup:
  scan_free(&s);
  return st;
}

void scan_free(scan **s)
{
  if (*s == NULL) { return; }
  if ((*s)->fd >= 0) { (void)close((*s)->fd); }
  bpe_memory_free(&(*s)->memory);
  memory_free(&(*s)->word);
  memory_free(&(*s)->buffer);
  memory_free(s);
}
