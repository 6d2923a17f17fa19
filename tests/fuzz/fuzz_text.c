/*
 * Text of one or two files, read by all rules: five bytes that choose them, then the text.
 *
 * Held against naive_text.h, against itself when it is read in other ranges, and against its vocabulary written to a run
 * file and read again.
 */
#include "base/memory.h"
#include "data/corpus.h"
#include "data/sequences.h"
#include "data/streams.h"
#include "data/text_source.h"
#include "fuzz.h"
#include "naive_text.h"
#include "support.h"

#include <mpi.h>

static unroll_comm *comm;
static char path[2][300];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
  char folder[256];
  int threads = 0;
  MUST(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &threads) == MPI_SUCCESS);
  MUST(unroll_comm_new(MPI_COMM_WORLD, &comm) == UNROLL_OK);
  test_folder(folder);
  for (int i = 0; i < 2; ++i) { (void)snprintf(path[i], sizeof path[i], "%s/%d", folder, i); }
  return 0;
}

/* ---------------------------------------------------------------- scanner */

/* Append the tokens that begin in [begin, end). */
static unroll_status collect(scan *s, unroll_level level, uint64_t begin, uint64_t end,
                             struct naive *t)
{
  size_t n = 1;
  unroll_status st = scan_start(s, begin, end);
  while (st == UNROLL_OK && n > 0) {
    const char *word = NULL;
    int32_t codes[16];
    char out[4];
    if (level == UNROLL_LEVEL_WORD || level == UNROLL_LEVEL_BPE) {
      st = level == UNROLL_LEVEL_WORD ? scan_word(s, &word, &n) : scan_piece(s, &word, &n);
      if (st == UNROLL_OK && n > 0) { naive_add(t, word, n); }
      continue;
    }
    st = scan_codes(s, 16, codes, &n);
    for (size_t i = 0; st == UNROLL_OK && i < n; ++i) {
      out[0] = (char)codes[i];
      naive_add(t, out, level == UNROLL_LEVEL_BYTE ? 1 : naive_encode((uint32_t)codes[i], out));
    }
  }
  if (st == UNROLL_OK) { t->characters += scan_counted(s).characters; }
  return st;
}

static void must_be_same(const struct naive *a, const struct naive *b)
{
  MUST(a->n == b->n && a->characters == b->characters && a->used == b->used);
  MUST(a->n == 0 || memcmp(a->at, b->at, (a->n + 1) * sizeof *a->at) == 0);
  MUST(a->used == 0 || memcmp(a->pool, b->pool, a->used) == 0);
}

/* The pieces of a string at level bpe: words with the space before them, and other white space byte by byte. */
static struct naive naive_pieces(const char *text, size_t size)
{
  struct naive t = {0};
  for (size_t i = 0; i < size; ++i) { t.characters += ((unsigned char)text[i] & 0xc0) != 0x80; }
  for (size_t i = 0, begin = 0; i < size; begin = i) {
#define WHITE(at) (memchr(" \t\r\v\f\n", text[at], 6) != NULL)
    i += text[i] == ' ' && i + 1 < size && !WHITE(i + 1);
    if (WHITE(i)) {
      i += 1;
    } else {
      while (i < size && !WHITE(i)) { ++i; }
    }
#undef WHITE
    naive_add(&t, text + begin, i - begin);
  }
  return t;
}

/* The string in one range, and in many. */
static void scan_string(unroll_text_rules rules, const char *text, size_t size, size_t step)
{
  static const char *name[] = {"the string"};
  uint64_t start[2] = {0, size};
  const corpus c = {.n_files = 1, .names = name, .start = start, .string = text};
  struct naive whole = {0}, pieces = {0};
  scan *s = NULL;

  MUST(scan_new(&c, rules, &s) == UNROLL_OK);
  unroll_status st = collect(s, rules.level, 0, size, &whole), parts = UNROLL_OK;
  for (uint64_t at = 0; parts == UNROLL_OK && at < size; at += step) {
    parts = collect(s, rules.level, at, at + step < size ? at + step : size, &pieces);
  }
  MUST(st == parts);
  if (st == UNROLL_OK) {
    must_be_same(&whole, &pieces);
    if (!rules.lowercase) { /* the oracle knows few letters */
      struct naive expected = rules.level == UNROLL_LEVEL_BPE
                                  ? naive_pieces(text, size)
                                  : naive_tokens(rules, 1, &text, &size);
      must_be_same(&whole, &expected);
      naive_free(&expected);
    }
  } else {
    MUST(st == UNROLL_ERR_ARG && rules.level != UNROLL_LEVEL_BYTE);
    must_be_told();
  }
  scan_free(&s);
  naive_free(&whole);
  naive_free(&pieces);
}

/* ----------------------------------------------------------------- corpus */

/* The vocabulary of a run file is the one that was written. */
static void must_come_back(const unroll_vocab *vocab)
{
  const size_t V = unroll_vocab_size(vocab);
  const char **names = calloc(V, sizeof *names);
  uint64_t *counts = calloc(V, sizeof *counts);
  unroll_vocab *again = NULL;
  for (size_t v = 0; v < V; ++v) {
    names[v] = unroll_vocab_token_view(vocab, v);
    counts[v] = unroll_vocab_count(vocab, v);
  }
  MUST(unroll_vocab_new(unroll_vocab_rules(vocab), V, names, counts, &again) == UNROLL_OK);
  for (size_t v = 0; v < V; ++v) {
    size_t n = 0, m = 0;
    const char *a = unroll_vocab_text_view(vocab, v, &n);
    const char *b = unroll_vocab_text_view(again, v, &m);
    MUST(n == m && memcmp(a, b, n) == 0);
    MUST(unroll_vocab_find(again, names[v]) == (int64_t)v);
  }
  unroll_vocab_free(&again);
  free(counts);
  free(names);
}

/* All batches of an epoch: each token is one of the vocabulary. */
static void walk(const corpus *c, const unroll_vocab *vocab, const corpus_part *part, unsigned how)
{
  const unroll_sequences kinds[] = {UNROLL_SEQUENCES_STREAM, UNROLL_SEQUENCES_LINE,
                                    UNROLL_SEQUENCES_PARAGRAPH};
  const size_t B = 1 + how / 3 % 4;
  const int32_t V = (int32_t)unroll_vocab_size(vocab);
  text_cut cut = {.kind = kinds[how % 3], .B = B, .count = B, .ranks = 1, .what = "training"};
  text_source *text = NULL;
  cut.partition = how / 12 % 2 ? UNROLL_PARTITION_RANDOM : UNROLL_PARTITION_SEQUENTIAL;
  cut.window = 1 + how / 24;

  unroll_status st = text_source_new(comm, c, vocab, part, &cut, &text);
  if (st != UNROLL_OK) {
    MUST(st == UNROLL_ERR_INPUT);
    must_be_told();
    return;
  }
  for (uint64_t k = 0; k < text->batches && k < 16; ++k) {
    const text_extent e = text_source_extent(text, 1, k);
    int32_t *x = calloc((e.steps + 1) * B, sizeof *x), *y = calloc((e.steps + 1) * B, sizeof *y);
    text_source_fill(text, 1, k, 0, e.steps, x, y);
    for (uint64_t i = 0; i < e.steps * B; ++i) {
      MUST(x[i] >= 0 && x[i] < V && y[i] >= -1 && y[i] < V);
    }
    free(x);
    free(y);
  }
  text_source_free(&text);
}

/* The tokens of a part, read at once and in two. */
static void read_part(const corpus *c, const unroll_vocab *vocab, const corpus_part *part,
                      struct naive *text)
{
  const size_t width = corpus_token_width(unroll_vocab_size(vocab));
  const uint64_t half = part->tokens / 2;
  char *all = calloc(part->tokens + 1, width), *two = calloc(part->tokens + 1, width);
  MUST(corpus_read(c, vocab, part, 0, part->tokens, width, all) == UNROLL_OK);
  MUST(corpus_read(c, vocab, part, half, part->tokens - half, width, two + half * width) ==
       UNROLL_OK);
  MUST(corpus_read(c, vocab, part, 0, half, width, two) == UNROLL_OK);
  MUST(memcmp(all, two, part->tokens * width) == 0);
  for (uint64_t i = 0; i < part->tokens; ++i) {
    size_t n = 0;
    const char *piece = unroll_vocab_text_view(vocab, (size_t)corpus_stored(all, width, i), &n);
    naive_add(text, piece, n);
  }
  free(two);
  free(all);
}

static unroll_status read_files(unroll_text_rules rules, input *in, const char *text, size_t size)
{
  const char *names[2] = {path[0], path[1]};
  const size_t cut = size * (take_byte(in) % 128) / 64;
  const unsigned how = take_byte(in), share = take_byte(in);
  const size_t n_files = cut < size ? 2 : 1, first = n_files == 2 ? cut : size;
  const bool learned = rules.level == UNROLL_LEVEL_BPE;
  const uint64_t least = 1 + how % 2, most = learned ? 256 + how % 32 : how / 2 % 4 == 0 ? 3 : 0;
  corpus *c = NULL;
  corpus_part train = {0}, valid = {0};
  unroll_vocab *vocab = NULL;
  struct naive got = {0};

  test_write_file(path[0], text, first);
  test_write_file(path[1], text + first, size - first);
  unroll_status st = corpus_open(comm, rules.level, n_files, names, NULL, &c);
  if (st == UNROLL_OK) { st = corpus_split(c, rules, share / 300.0, &train, &valid); }
  if (st == UNROLL_OK) { st = vocab_build(comm, c, &train, rules, least, most, &vocab); }
  if (st == UNROLL_OK) { st = corpus_count(comm, c, vocab, &valid); }
  if (st == UNROLL_OK) {
    must_come_back(vocab);
    read_part(c, vocab, &train, &got);
    if (rules.level == UNROLL_LEVEL_BYTE && !rules.lowercase && !rules.letters) {
      MUST(got.used == train.end && (got.used == 0 || memcmp(got.pool, text, got.used) == 0));
    }
    if (learned && !rules.lowercase && n_files == 1) {
      const size_t mark = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
      MUST(got.used == train.end &&
           (got.used == 0 || memcmp(got.pool, text + mark, got.used) == 0));
    }
    read_part(c, vocab, &valid, &got);
    walk(c, vocab, &train, how);
  }
  naive_free(&got);
  unroll_vocab_free(&vocab);
  corpus_part_free(&train);
  corpus_part_free(&valid);
  corpus_free(&c);
  return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  input in = {data, size};
  const unsigned how = take_byte(&in), step = 1 + take_byte(&in);
  const unroll_level level = (unroll_level)(how % 4);
  const unroll_text_rules rules = {level, how / 4 % 2 == 1,
                                   how / 8 % 2 == 1 && level != UNROLL_LEVEL_BPE};
  const int64_t alive = memory_live_blocks();
  const size_t head = 3 < in.left ? 3 : in.left; /* for read_files */
  char *text = malloc(in.left - head + 1);

  memcpy(text, in.at + head, in.left - head);
  text[in.left - head] = '\0'; /* strings end so */
  scan_string(rules, text, in.left - head, step);
  const unroll_status st = read_files(rules, &in, text, in.left - head);
  if (st != UNROLL_OK) {
    MUST(st == UNROLL_ERR_INPUT);
    must_be_told();
  }
  MUST(memory_live_blocks() == alive);
  free(text);
  return 0;
}
