#include "support.h"

#include "base/memory.h"
#include "data/corpus.h"
#include "naive_text.h"
#include <math.h>
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static const unroll_text_rules byte_rules = {UNROLL_LEVEL_BYTE, false, false};
static const unroll_text_rules char_rules = {UNROLL_LEVEL_CHAR, false, false};
static const unroll_text_rules word_rules = {UNROLL_LEVEL_WORD, false, false};

/* ------------------------------------------------------------------ helpers */

/* One folder for all ranks; rank 0 makes it. */
static const char *shared_folder(void)
{
  static char folder[256];
  if (folder[0] == '\0') {
    if (test_rank == 0) { test_folder(folder); }
    MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
  }
  return folder;
}

/* A file in it, seen by all ranks. The names live to the end of the program. */
static const char *shared_file(const char *name, const void *bytes, size_t n)
{
  static char paths[64][400];
  static size_t used;
  char *path = paths[used++ % 64];
  (void)snprintf(path, sizeof paths[0], "%s/%s", shared_folder(), name);
  if (test_rank == 0) { test_write_file(path, bytes, n); }
  MPI_Barrier(MPI_COMM_WORLD);
  return path;
}

static const char *shared_text(const char *name, const char *text)
{
  return shared_file(name, text, strlen(text));
}

static corpus *opened(size_t n, const char *const *paths)
{
  corpus *c = NULL;
  CHECK_ALL(test_ok(corpus_open(test_comm, n, paths, &c), "corpus_open", __FILE__, __LINE__));
  return c;
}

static corpus_part whole(const corpus *c)
{
  return (corpus_part){.begin = 0, .end = corpus_bytes(c)};
}

/* ------------------------------------------------- against the whole-text oracle */

#define N_TEXTS 3

static char *text[N_TEXTS];
static size_t size[N_TEXTS];
static const char *path[N_TEXTS];

static void append(size_t f, const char *piece)
{
  memcpy(text[f] + size[f], piece, strlen(piece));
  size[f] += strlen(piece);
}

/*
 * Three files of 2.2 MB with a hard case on every block border that lies in them:
 *   1  a character of three bytes, its first in the last byte of a block, inside a word
 *   2  a run of 3000 spaces, digits and umlauts in the middle
 * The borders of files fall elsewhere; the second file has 5 bytes, so that blocks hold pieces of three.
 */
static void write_texts(void)
{
  static const char *const pieces[] = {"the ",
                                       "of ",
                                       "Time ",
                                       "\n",
                                       ". ",
                                       "caf\xc3\xa9 ",
                                       "\xd0\x9f\xd1\x80 ",
                                       "x1 ",
                                       "\t",
                                       "Quizzical",
                                       "-",
                                       "\r\n",
                                       "\xf0\x9f\x98\x80",
                                       "a",
                                       "<unk> ",
                                       "re",
                                       "ad ",
                                       "\xc3\x84pfel "};
  uint64_t state = 7;
  uint64_t before = 0; /* bytes in earlier files */
  const size_t length[N_TEXTS] = {1300000, 5, 900000};

  for (size_t f = 0; f < N_TEXTS; ++f) {
    text[f] = naive_grow(NULL, length[f] + 8192);
    size[f] = 0;
    if (f == 1) { append(f, "mid\n."); }
    while (size[f] < length[f]) {
      uint64_t left = CORPUS_BLOCK - (before + size[f]) % CORPUS_BLOCK;
      state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
      if (left > 40) {
        append(f, pieces[(state >> 33) % (sizeof pieces / sizeof pieces[0])]);
      } else if ((before + size[f]) / CORPUS_BLOCK == 0) {
        while ((before + size[f]) % CORPUS_BLOCK != CORPUS_BLOCK - 1) { append(f, "w"); }
        append(f, "\xe8\xaa\x9e"
                  "w end");
      } else {
        for (int i = 0; i < 1000; ++i) { append(f, i % 2 ? " 7 " : " \xc3\xbc"); }
      }
    }
    before += size[f];
  }
  path[0] = shared_file("big0", text[0], size[0]);
  path[1] = shared_file("big1", text[1], size[1]);
  path[2] = shared_file("big2", text[2], size[2]);
}

static void free_texts(void)
{
  for (size_t f = 0; f < N_TEXTS; ++f) {
    free(text[f]);
    text[f] = NULL;
  }
}

/* What the oracle expects: the vocabulary as strings, the tokens as indices. Made on rank 0. */
struct expected {
  uint64_t V, n, characters, unknown;
  struct naive names;
  uint64_t *counts; /* (V) */
  int32_t *tokens;  /* (n) */
};

/* Copy strings of rank 0 to the others. */
static void share_strings(struct naive *t)
{
  uint64_t sizes[2] = {t->n, t->used};
  MPI_Bcast(sizes, 2, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  if (test_rank != 0) {
    t->n = sizes[0];
    t->used = sizes[1];
    t->at = naive_grow(NULL, (t->n + 1) * sizeof *t->at);
    t->pool = naive_grow(NULL, t->used);
  }
  MPI_Bcast(t->at, (int)(t->n + 1), MPI_UINT64_T, 0, MPI_COMM_WORLD);
  MPI_Bcast(t->pool, (int)t->used, MPI_CHAR, 0, MPI_COMM_WORLD);
}

static void expect(unroll_text_rules rules, struct expected *e)
{
  struct naive t = {0};
  struct naive_word *w = NULL;
  size_t n_words = 0;
  const int byte = rules.level == UNROLL_LEVEL_BYTE;
  memset(e, 0, sizeof *e);

  if (test_rank == 0) {
    t = naive_tokens(rules, N_TEXTS, (const char *const *)text, size);
    w = naive_words(&t, &n_words);
    e->n = t.n;
    e->characters = t.characters;
    e->V = 1;
    for (size_t i = 0; i < n_words; ++i) {
      e->V += w[i].n != 5 || memcmp(w[i].text, "<unk>", 5) != 0;
    }
    if (byte) { e->V = 256; }
  }
  MPI_Bcast(e, 3, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  e->counts = naive_grow(NULL, e->V * sizeof *e->counts);
  e->tokens = naive_grow(NULL, (e->n + 1) * sizeof *e->tokens);
  memset(e->counts, 0, e->V * sizeof *e->counts);
  if (test_rank == 0) {
    size_t v = 1;
    if (!byte) { naive_add(&e->names, "<unk>", 5); }
    for (size_t b = 0; byte && b < 256; ++b) { naive_add(&e->names, &(char){(char)b}, 1); }
    for (size_t i = 0; i < n_words; ++i) {
      int unk = w[i].n == 5 && memcmp(w[i].text, "<unk>", 5) == 0;
      size_t at = byte ? (unsigned char)w[i].text[0] : unk ? 0 : v;
      if (!byte && !unk) { naive_add(&e->names, w[i].text, w[i].n); }
      e->counts[at] = w[i].count;
      v += !unk;
      w[i].count = at;
    }
    qsort(w, n_words, sizeof *w, naive_by_text);
    for (size_t i = 0; i < t.n; ++i) {
      struct naive_word key = {.text = t.pool + t.at[i], .n = t.at[i + 1] - t.at[i]};
      struct naive_word *hit = bsearch(&key, w, n_words, sizeof *w, naive_by_text);
      e->tokens[i] = hit == NULL ? -1 : (int32_t)hit->count;
      e->unknown += !byte && e->tokens[i] == 0;
    }
  }
  MPI_Bcast(&e->unknown, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  share_strings(&e->names);
  MPI_Bcast(e->counts, (int)e->V, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  MPI_Bcast(e->tokens, (int)e->n, MPI_INT32_T, 0, MPI_COMM_WORLD);
  naive_free(&t);
  free(w);
}

static void expected_free(struct expected *e)
{
  naive_free(&e->names);
  free(e->counts);
  free(e->tokens);
}

static int same_vocabulary(const unroll_vocab *v, const struct expected *e)
{
  if (unroll_vocab_size(v) != e->V) { return 0; }
  for (size_t i = 0; i < e->V; ++i) {
    size_t n = 0;
    const char *got = unroll_vocab_text_view(v, i, &n);
    const char *name = e->names.pool + e->names.at[i];
    size_t name_n = e->names.at[i + 1] - e->names.at[i];
    if (unroll_vocab_count(v, i) != e->counts[i]) { return 0; }
    if (name_n == 5 && (memcmp(name, "<unk>", 5) == 0 ||
                        memcmp(name, "<eos>", 5) == 0)) { /* stand for other texts */
      got = unroll_vocab_token_view(v, i);
      n = strlen(got);
    }
    if (n != name_n || memcmp(got, name, n) != 0) { return 0; }
  }
  return 1;
}

static int same_tokens(const corpus *c, const unroll_vocab *v, const corpus_part *part,
                       const struct expected *e, uint64_t first, uint64_t n)
{
  const size_t least = corpus_token_width(unroll_vocab_size(v));
  int same = 1;
  for (size_t width = least; width <= 4; width *= 2) {
    unsigned char *tokens = naive_grow(NULL, (size_t)n * width + 8);
    memset(tokens, 0xee, (size_t)n * width + 8);
    same &= test_ok(corpus_read(c, v, part, first, n, width, tokens), "corpus_read", __FILE__,
                    __LINE__);
    for (uint64_t i = 0; same && i < n; ++i) {
      int64_t token = width == 1   ? tokens[i]
                      : width == 2 ? ((uint16_t *)(void *)tokens)[i]
                                   : ((int32_t *)(void *)tokens)[i];
      same = token == e->tokens[first + i];
    }
    for (size_t i = 0; i < 8; ++i) { same &= tokens[n * width + i] == 0xee; } /* nothing beyond */
    free(tokens);
  }
  return same;
}

static int same_counts(const corpus_part *a, const corpus_part *b)
{
  int same = a->tokens == b->tokens && a->characters == b->characters && a->unknown == b->unknown &&
             a->n_blocks == b->n_blocks;
  for (size_t k = 0; same && k <= a->n_blocks; ++k) {
    same = a->first_token[k] == b->first_token[k];
  }
  return same;
}

static void test_corpus_any_number_of_ranks_gives_the_tokens_of_the_whole(void)
{
  static const unroll_text_rules all[] = {
      {UNROLL_LEVEL_BYTE, false, false}, {UNROLL_LEVEL_BYTE, true, true},
      {UNROLL_LEVEL_CHAR, true, false},  {UNROLL_LEVEL_CHAR, false, true},
      {UNROLL_LEVEL_WORD, true, false},  {UNROLL_LEVEL_WORD, false, true}};
  write_texts();
  corpus *c = opened(N_TEXTS, path);

  const int threads = omp_get_max_threads();
  for (size_t r = 0; r < sizeof all / sizeof all[0]; ++r) {
    struct expected e;
    corpus_part part = whole(c);
    unroll_vocab *v = NULL;
    omp_set_num_threads(r % 2 == 0 ? 1 : 3); /* a block each */
    expect(all[r], &e);
    CHECK_ALL(test_ok(vocab_build(test_comm, c, &part, all[r], 1, 0, &v), "vocab_build", __FILE__,
                      __LINE__));
    CHECK_ALL(same_vocabulary(v, &e));
    CHECK_ALL(part.tokens == e.n && part.characters == e.characters && part.unknown == e.unknown);
    CHECK_ALL(part.n_blocks == 3 && part.first_token[0] == 0 && part.first_token[3] == e.n);

    corpus_part again = whole(c);
    CHECK_ALL(test_ok(corpus_count(test_comm, c, v, &again), "corpus_count", __FILE__, __LINE__));
    CHECK_ALL(same_counts(&again, &part));
    corpus_part_free(&again);

    CHECK_ALL(same_tokens(c, v, &part, &e, 0, e.n));
    for (size_t k = 1; k < 3; ++k) { /* around each block border */
      uint64_t border = part.first_token[k];
      CHECK_ALL(same_tokens(c, v, &part, &e, border - 5, 10));
      CHECK_ALL(same_tokens(c, v, &part, &e, border, 1));
      CHECK_ALL(same_tokens(c, v, &part, &e, border - 1, 1));
    }
    CHECK_ALL(same_tokens(c, v, &part, &e, e.n / (uint64_t)(test_rank + 2), e.n / 4));
    CHECK_ALL(same_tokens(c, v, &part, &e, e.n, 0));
    corpus_part_free(&part);
    corpus_part_free(&part);
    unroll_vocab_free(&v);
    expected_free(&e);
  }
  omp_set_num_threads(threads);
  corpus_free(&c);
  free_texts();
}

/* ------------------------------------------------------------------- files */

static void test_corpus_open_lists_folders_by_name_without_hidden_files(void)
{
  char folder[300];
  char sub[340];
  char deep[400];
  (void)snprintf(folder, sizeof folder, "%s/tree", shared_folder());
  (void)snprintf(sub, sizeof sub, "%s/b", folder);
  (void)snprintf(deep, sizeof deep, "%s/", folder);
  if (test_rank == 0) { CU_ASSERT(mkdir(folder, 0700) == 0 && mkdir(sub, 0700) == 0); }
  (void)shared_text("tree/c.txt", "ccc");
  (void)shared_text("tree/b/x", "");
  (void)shared_text("tree/b.txt", "b");
  (void)shared_text("tree/.hidden", "hhhh");
  (void)shared_text("tree/a", "aa");
  const char *first = shared_text("zz", "zzzzz");

  corpus *c = opened(2, (const char *const[]){first, deep});
  static const char *const names[] = {"zz", "tree/a", "tree/b.txt", "tree/b/x", "tree/c.txt"};
  static const uint64_t bytes[] = {5, 2, 1, 0, 3};
  CHECK_ALL(corpus_files(c) == 5 && corpus_bytes(c) == 11);
  for (size_t i = 0; i < 5; ++i) {
    char name[400];
    (void)snprintf(name, sizeof name, "%s/%s", shared_folder(), names[i]);
    CHECK_ALL(strcmp(corpus_file_name(c, i), name) == 0 && corpus_file_bytes(c, i) == bytes[i]);
  }
  corpus_free(&c);
  corpus_free(&c);

  if (test_rank == 0) { /* a link that leads back must not be followed for ever */
    (void)snprintf(deep, sizeof deep, "%s/loop", sub);
    CU_ASSERT_EQUAL(symlink(folder, deep), 0);
  }
  const char *const paths[] = {folder};
  CHECK_ALL(test_fails(corpus_open(test_comm, 1, paths, &c), UNROLL_ERR_INPUT, "tree/b/loop",
                       __FILE__, __LINE__));
}

static void open_fails(const char *name, const char *part)
{
  corpus *c = NULL;
  char full[400];
  const char *const paths[] = {full};
  bool absolute = name[0] == '/';
  (void)snprintf(full, sizeof full, "%s%s%s", absolute ? "" : shared_folder(), absolute ? "" : "/",
                 name);
  CHECK_ALL(
      test_fails(corpus_open(test_comm, 1, paths, &c), UNROLL_ERR_INPUT, part, __FILE__, __LINE__));
  CHECK_ALL(c == NULL);
}

static void test_corpus_open_of_what_is_no_text_fails_alike_on_every_rank(void)
{
  corpus *c = NULL;
  char folder[300];
  (void)snprintf(folder, sizeof folder, "%s/void", shared_folder());
  if (test_rank == 0) { CU_ASSERT_EQUAL(mkdir(folder, 0700), 0); }
  (void)shared_text("empty", "");
  open_fails("missing", "missing: No such file or directory");
  open_fails("void", "void: no text: the folder has no file");
  open_fails("empty", "empty: no text");
  open_fails("/dev/null", "/dev/null: neither a file nor a folder");
  CHECK_ALL(test_fails(corpus_open(test_comm, 0, NULL, &c), UNROLL_ERR_INPUT, "no text", __FILE__,
                       __LINE__));
}

static void test_corpus_hash_is_sha256(void)
{
  /* The published test vectors of FIPS 180: of "abc", of nothing, and of a million times "a". */
  char *million = naive_grow(NULL, 1000000);
  memset(million, 'a', 1000000);
  const char *const paths[] = {shared_text("abc", "abc"), shared_text("nothing", ""),
                               shared_file("million", million, 1000000)};
  corpus *c = opened(3, paths);
  char hashes[3][CORPUS_HASH_SIZE];
  CHECK_ALL(test_ok(corpus_hash(test_comm, c, hashes), "corpus_hash", __FILE__, __LINE__));
  CHECK_ALL(strcmp(hashes[0], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") ==
            0);
  CHECK_ALL(strcmp(hashes[1], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") ==
            0);
  CHECK_ALL(strcmp(hashes[2], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") ==
            0);
  corpus_free(&c);
  free(million);
}

/* -------------------------------------------------------------- vocabulary */

static void has_tokens(const unroll_vocab *v, size_t V, const char *const *names,
                       const uint64_t *counts)
{
  int same = unroll_vocab_size(v) == V;
  for (size_t i = 0; same && i < V; ++i) {
    same = strcmp(unroll_vocab_token_view(v, i), names[i]) == 0 &&
           unroll_vocab_count(v, i) == counts[i];
  }
  CHECK_ALL(same);
}

static void test_vocab_build_drops_the_rare_but_never_the_line_end(void)
{
  /* a 4, b 3, c 3, d 2, <eos> 1, e 1, <unk> 1 */
  const char *const paths[] = {shared_text("rare", "a b c d a\nb c a <unk> b c a d e")};
  corpus *c = opened(1, paths);
  corpus_part part = whole(c);
  const struct {
    uint64_t min_count, max_vocab;
    size_t V;
    const char *names[7];
    uint64_t counts[7];
  } cases[] = {
      {1, 0, 7, {"<unk>", "a", "b", "c", "d", "<eos>", "e"}, {1, 4, 3, 3, 2, 1, 1}},
      {3, 0, 5, {"<unk>", "a", "b", "c", "<eos>"}, {4, 4, 3, 3, 1}},
      {1, 4, 4, {"<unk>", "a", "b", "<eos>"}, {7, 4, 3, 1}},
      {1, 1, 2, {"<unk>", "<eos>"}, {14, 1}},
      {4, 6, 3, {"<unk>", "a", "<eos>"}, {10, 4, 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    unroll_vocab *v = NULL;
    CHECK_ALL(test_ok(
        vocab_build(test_comm, c, &part, word_rules, cases[i].min_count, cases[i].max_vocab, &v),
        "vocab_build", __FILE__, __LINE__));
    has_tokens(v, cases[i].V, cases[i].names, cases[i].counts);
    CHECK_ALL(part.tokens == 15 && part.unknown == cases[i].counts[0]);
    CHECK_ALL(test_ok(corpus_count(test_comm, c, v, &part), "corpus_count", __FILE__, __LINE__));
    CHECK_ALL(part.tokens == 15 && part.unknown == cases[i].counts[0]);
    unroll_vocab_free(&v);
  }
  corpus_part_free(&part);
  corpus_free(&c);
}

static void test_vocab_build_of_white_space_fails_alike_on_every_rank(void)
{
  corpus *c = opened(1, (const char *const[]){shared_text("white", "  \t ")});
  corpus_part part = whole(c);
  unroll_vocab *v = NULL;
  unroll_status st = vocab_build(test_comm, c, &part, word_rules, 1, 0, &v);
  CHECK_ALL(test_fails(st, UNROLL_ERR_INPUT, "white: the text has no word", __FILE__, __LINE__));
  CHECK_ALL(v == NULL);
  corpus_free(&c);
}

/* Whichever rank finds one first, the fault reported is the first of the text. */
static void test_vocab_build_of_many_faults_reports_the_first(void)
{
  const size_t n = 3 * CORPUS_BLOCK;
  char *bytes = naive_grow(NULL, n);
  memset(bytes, 'a', n);
  for (size_t at = 0; at < n; at += 100) { bytes[at] = ' '; }
  bytes[CORPUS_BLOCK + 777777] = '\xff'; /* deep in its block */
  bytes[2 * CORPUS_BLOCK + 555] =
      '\xff'; /* soon in its block, but not in the word that begins before it */
  const char *const paths[] = {shared_file("faults", bytes, n)};
  corpus *c = opened(1, paths);
  const int threads = omp_get_max_threads();

  for (int k = 1; k <= 3; ++k) {
    corpus_part part = whole(c);
    unroll_vocab *v = NULL;
    omp_set_num_threads(k);
    unroll_status st = vocab_build(test_comm, c, &part, word_rules, 1, 0, &v);
    CHECK_ALL(
        test_fails(st, UNROLL_ERR_INPUT, "malformed UTF-8 at byte 1826353 ", __FILE__, __LINE__));
    CHECK_ALL(v == NULL);
    corpus_part_free(&part);
  }
  omp_set_num_threads(threads);
  corpus_free(&c);
  free(bytes);
}

static void test_vocab_build_malformed_text_of_one_rank_is_reported_by_all(void)
{
  const size_t n = 3 * (size_t)CORPUS_BLOCK;
  char *bytes = naive_grow(NULL, n);
  memset(bytes, 'a', n);
  bytes[5] = '\0';
  bytes[n - 10] = (char)0x80; /* in the last block, and so with the last rank */
  corpus *c = opened(1, (const char *const[]){shared_file("bad", bytes, n)});
  corpus_part part = whole(c);
  unroll_vocab *v = NULL;
  unroll_status st = vocab_build(test_comm, c, &part, char_rules, 1, 0, &v);
  CHECK_ALL(
      test_fails(st, UNROLL_ERR_INPUT, "bad: malformed UTF-8 at byte 3145718", __FILE__, __LINE__));

  CHECK_ALL(
      test_ok(vocab_build(test_comm, c, &part, byte_rules, 1, 0, &v), "bytes", __FILE__, __LINE__));
  CHECK_ALL(unroll_vocab_size(v) == 256 && unroll_vocab_count(v, 0x80) == 1 &&
            unroll_vocab_count(v, 0) == 1 && unroll_vocab_count(v, 'a') == n - 2);
  CHECK_ALL(test_ok(corpus_count(test_comm, c, v, &part), "count", __FILE__, __LINE__));
  CHECK_ALL(part.tokens == n && part.unknown == 0); /* byte 0 is no <unk> */
  corpus_part_free(&part);
  unroll_vocab_free(&v);
  corpus_free(&c);
  free(bytes);
}

/* ------------------------------------------------------------------- parts */

static void test_corpus_split_keeps_every_token_once(void)
{
  static const char mixed[] =
      "One  two,\nthree caf\xc3\xa9   \n\n four 5678 five\xe8\xaa\x9e six\n";
  static const unroll_text_rules all[] = {
      {UNROLL_LEVEL_BYTE, false, false}, {UNROLL_LEVEL_BYTE, false, true},
      {UNROLL_LEVEL_CHAR, false, false}, {UNROLL_LEVEL_CHAR, false, true},
      {UNROLL_LEVEL_WORD, false, false}, {UNROLL_LEVEL_WORD, false, true}};
  corpus *c = opened(1, (const char *const[]){shared_text("split", mixed)});
  for (size_t r = 0; r < sizeof all / sizeof all[0]; ++r) {
    corpus_part full = whole(c);
    unroll_vocab *v = NULL;
    int32_t expected[sizeof mixed];
    int32_t got[sizeof mixed];
    CHECK_ALL(vocab_build(test_comm, c, &full, all[r], 1, 0, &v) == UNROLL_OK);
    CHECK_ALL(corpus_count(test_comm, c, v, &full) == UNROLL_OK);
    CHECK_ALL(corpus_read(c, v, &full, 0, full.tokens, 4, expected) == UNROLL_OK);
    for (double fraction = 0.02; fraction < 0.9; fraction += 0.03) {
      corpus_part train = {0};
      corpus_part valid = {0};
      CHECK_ALL(
          test_ok(corpus_split(c, all[r], fraction, &train, &valid), "split", __FILE__, __LINE__));
      CHECK_ALL(train.begin == 0 && train.end == valid.begin && valid.end == corpus_bytes(c));
      CHECK_ALL((double)valid.begin <= (1.0 - fraction) * (double)corpus_bytes(c));
      CHECK_ALL(corpus_count(test_comm, c, v, &train) == UNROLL_OK &&
                corpus_count(test_comm, c, v, &valid) == UNROLL_OK);
      CHECK_ALL(train.tokens > 0 && valid.tokens > 0 && train.tokens + valid.tokens == full.tokens);
      CHECK_ALL(train.characters + valid.characters == full.characters);
      CHECK_ALL(corpus_read(c, v, &train, 0, train.tokens, 4, got) == UNROLL_OK);
      CHECK_ALL(corpus_read(c, v, &valid, 0, valid.tokens, 4, got + train.tokens) == UNROLL_OK);
      CHECK_ALL(memcmp(got, expected, full.tokens * sizeof *got) == 0);
      corpus_part_free(&train);
      corpus_part_free(&valid);
    }
    corpus_part_free(&full);
    unroll_vocab_free(&v);
  }
  corpus_free(&c);
}

static void test_corpus_split_without_room_for_both_parts_fails(void)
{
  corpus *c = opened(1, (const char *const[]){shared_text("short", "word")});
  corpus_part train = {0};
  corpus_part valid = {0};
  CHECK_ALL(
      test_ok(corpus_split(c, word_rules, 0.0, &train, &valid), "no split", __FILE__, __LINE__));
  CHECK_ALL(train.begin == 0 && train.end == 4 && valid.begin == 4 && valid.end == 4);
  CHECK_ALL(test_fails(corpus_split(c, word_rules, 0.1, &train, &valid), UNROLL_ERR_INPUT,
                       "too short", __FILE__, __LINE__));
  CHECK_ALL(test_fails(corpus_split(c, char_rules, 0.99, &train, &valid), UNROLL_ERR_INPUT,
                       "too short", __FILE__, __LINE__));
  CHECK_ALL(test_fails(corpus_split(c, char_rules, 1.0, &train, &valid), UNROLL_ERR_ARG, "below 1",
                       __FILE__, __LINE__));
  CHECK_ALL(test_fails(corpus_split(c, char_rules, (double)NAN, &train, &valid), UNROLL_ERR_ARG,
                       "below 1", __FILE__, __LINE__));
  CHECK_ALL(train.end == 4); /* untouched by failures */
  corpus_free(&c);
}

static void test_corpus_read_of_a_text_that_changed_fails(void)
{
  const char *const paths[] = {shared_text("change", "one two three four")};
  corpus *c = opened(1, paths);
  corpus_part part = whole(c);
  unroll_vocab *v = NULL;
  uint8_t tokens[8];
  CHECK_ALL(vocab_build(test_comm, c, &part, word_rules, 1, 0, &v) == UNROLL_OK);
  CHECK_ALL(corpus_count(test_comm, c, v, &part) == UNROLL_OK && part.tokens == 4);
  MPI_Barrier(MPI_COMM_WORLD);
  (void)shared_text("change", "one two threeXfour");
  CHECK_ALL(test_fails(corpus_read(c, v, &part, 0, 4, 1, tokens), UNROLL_ERR_INPUT, "changed",
                       __FILE__, __LINE__));
  (void)shared_text("change", "1 2 3 4 5 6 7 8 9 ");
  CHECK_ALL(test_fails(corpus_read(c, v, &part, 0, 4, 1, tokens), UNROLL_ERR_INPUT, "changed",
                       __FILE__, __LINE__));
  (void)shared_text("change", "one");
  CHECK_ALL(test_fails(corpus_read(c, v, &part, 0, 4, 1, tokens), UNROLL_ERR_INPUT,
                       "18 bytes became 3", __FILE__, __LINE__));
  unroll_vocab_free(&v);
  corpus_part_free(&part);
  corpus_free(&c);
}

static void test_corpus_token_width_is_the_least_that_holds_the_vocabulary(void)
{
  CU_ASSERT(corpus_token_width(1) == 1 && corpus_token_width(256) == 1 &&
            corpus_token_width(257) == 2);
  CU_ASSERT(corpus_token_width(65536) == 2 && corpus_token_width(65537) == 4);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"any P: tokens of the whole", test_corpus_any_number_of_ranks_gives_the_tokens_of_the_whole},
      {"open: folders by name, hidden files left out",
       test_corpus_open_lists_folders_by_name_without_hidden_files},
      {"open: no text fails alike", test_corpus_open_of_what_is_no_text_fails_alike_on_every_rank},
      {"hash: SHA-256", test_corpus_hash_is_sha256},
      {"vocabulary: the rare dropped, the line end kept",
       test_vocab_build_drops_the_rare_but_never_the_line_end},
      {"vocabulary: white space fails alike",
       test_vocab_build_of_white_space_fails_alike_on_every_rank},
      {"vocabulary: malformed text reported by all",
       test_vocab_build_malformed_text_of_one_rank_is_reported_by_all},
      {"vocabulary: many faults, the first is reported",
       test_vocab_build_of_many_faults_reports_the_first},
      {"split: every token once", test_corpus_split_keeps_every_token_once},
      {"split: no room for both parts fails", test_corpus_split_without_room_for_both_parts_fails},
      {"read: changed text fails", test_corpus_read_of_a_text_that_changed_fails},
      {"token width: the least", test_corpus_token_width_is_the_least_that_holds_the_vocabulary},
  };
  return run_mpi_cases(argc, argv, "corpus", sizeof cases / sizeof cases[0], cases);
}
