#include "data/corpus.h"

#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "data/blocks.h"
#include "data/look.h"
#include "data/vocab.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Tokens read at a time: they stay in L1. */
#define BATCH 4096

/* Bytes hashed at a time. */
#define HASH_BUFFER ((size_t)1 << 18)

/* ------------------------------------------------------- listing the files */

typedef struct file {
  char *name;     /* owned */
  uint64_t bytes; /* of text: without what look.mark passes over */
  look look;
} file;

typedef struct listing {
  size_t n, max;
  file *files;
  unroll_level level;
  const corpus_own *own; /* NULL: none */
} listing;

static void listing_free(listing *l)
{
  for (size_t i = 0; i < l->n; ++i) { memory_free(&l->files[i].name); }
  memory_free(&l->files);
}

static unroll_status fail_file(const char *path)
{
  if (strcmp(path, "-") == 0) {
    return unroll_fail(UNROLL_ERR_INPUT, "-: standard input is no text: text is read more than "
                                         "once, so it must be a file; ./- is a file of that name");
  }
  return unroll_fail(UNROLL_ERR_INPUT, "%s: %s", path, strerror(errno));
}

static unroll_status list_file(listing *l, const char *path, uint64_t bytes)
{
  unroll_status st = UNROLL_OK;
  char *name = NULL;

  look seen = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) { return fail_file(path); }
  if (l->level != UNROLL_LEVEL_BYTE) { st = look_at(fd, path, bytes, &seen); }
  (void)close(fd);
  UNROLL_TRY(st);
  UNROLL_TRY(memory_string(path, &name));
  if (l->n == l->max) {
    size_t max = l->max == 0 ? 16 : 2 * l->max;
    UNROLL_TRY(memory_resize(l->max, max, sizeof *l->files, "the list of files", &l->files));
    l->max = max;
  }
  l->files[l->n++] = (file){.name = name, .bytes = bytes - seen.mark, .look = seen};
  name = NULL;

cleanup:
  memory_free(&name);
  return st;
}

static unroll_status list_path(listing *l, const char *path);

static unroll_status list_folder(listing *l, const char *path)
{
  unroll_status st = UNROLL_OK;
  char *child = NULL;
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') { --n; }

  DIR *folder = opendir(path);
  if (folder == NULL) { return fail_file(path); }
  for (;;) {
    errno = 0;
    const struct dirent *entry = readdir(folder);
    if (entry == NULL) { break; }
    if (entry->d_name[0] == '.') { continue; }
    size_t size = n + 1 + strlen(entry->d_name) + 1;
    UNROLL_TRY(memory_new(size, 1, "the name of a file", &child));
    (void)snprintf(child, size, "%.*s%s%s", (int)n, path, path[n - 1] == '/' ? "" : "/",
                   entry->d_name);
    if (l->own == NULL || !l->own->is(l->own->run, child)) { UNROLL_TRY(list_path(l, child)); }
    memory_free(&child);
  }
  if (errno != 0) { st = fail_file(path); }

cleanup:
  memory_free(&child);
  (void)closedir(folder);
  return st;
}

/* Add a file, or all files of a folder in no order. A link that leads back to a folder above it ends
 * in an error of the system: too many levels of links. */
static unroll_status list_path(listing *l, const char *path)
{
  struct stat info = {0};

  if (stat(path, &info) != 0) { return fail_file(path); }
  if (S_ISREG(info.st_mode)) { return list_file(l, path, (uint64_t)info.st_size); }
  if (!S_ISDIR(info.st_mode)) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: neither a file nor a folder: text is read more than once, so it cannot "
                       "come from a pipe",
                       path);
  }
  return list_folder(l, path);
}

static int compare_files(const void *left, const void *right)
{
  const file *a = left;
  const file *b = right;
  return strcmp(a->name, b->name);
}

static unroll_status list_all(listing *l, size_t n_paths, const char *const *paths)
{
  unroll_status st = UNROLL_OK;
  uint64_t bytes = 0;

  for (size_t i = 0; i < n_paths; ++i) {
    size_t first = l->n;
    UNROLL_TRY(list_path(l, paths[i]));
    if (l->n > first) { qsort(l->files + first, l->n - first, sizeof *l->files, compare_files); }
  }
  for (size_t i = 0; i < l->n; ++i) { bytes += l->files[i].bytes; }
  if (n_paths == 0) {
    st = unroll_fail(UNROLL_ERR_INPUT, "no text: at least one file or folder is needed");
  } else if (bytes == 0) {
    st = unroll_fail(
        UNROLL_ERR_INPUT, "%s: no text: %s", paths[0],
        l->n == 0 ? "the folder has no file; hidden ones and those of the run itself are left out"
                  : "there is no byte in it");
  }

cleanup:
  return st;
}

/* ------------------------------------------------------------ open and free */

/* Room for n files with n_names bytes of names. */
static unroll_status corpus_new(size_t n, size_t n_names, corpus **out)
{
  unroll_status st = UNROLL_OK;
  corpus *c = NULL;

  UNROLL_TRY(memory_new(1, sizeof *c, "the corpus", &c));
  UNROLL_TRY(memory_new(n, sizeof *c->names, "the list of files", &c->names));
  UNROLL_TRY(memory_new(n_names, 1, "the names of the files", &c->name_pool));
  UNROLL_TRY(memory_new(n + 1, sizeof *c->start, "the sizes of the files", &c->start));
  UNROLL_TRY(memory_new(n, sizeof *c->edges, "the edges of the files", &c->edges));
  c->n_files = n;
  *out = c;
  c = NULL;

cleanup:
  corpus_free(&c);
  return st;
}

/* What the text has at the borders of the files, and what is worth knowing of them. Rank 0. */
static void set_edges(const listing *l, corpus *c)
{
  corpus_notes *notes = &c->notes;
  uint64_t behind = 0; /* bytes in later files */

  for (size_t i = l->n; i > 0; --i) {
    const file *f = &l->files[i - 1];
    c->edges[i - 1] =
        (corpus_edges){.mark = (uint8_t)f->look.mark, .joined = f->look.open_end && behind > 0};
    behind += f->bytes;
    if (f->look.mark > 0) { notes->first_mark = i - 1; }
    if (f->look.returns) { notes->first_return = i - 1; }
    notes->marks += f->look.mark > 0;
    notes->returns += f->look.returns;
  }
  for (size_t i = 0; i < l->n; ++i) {
    c->start[i + 1] = c->start[i] + l->files[i].bytes + c->edges[i].joined;
  }
}

static unroll_status check_copies(unroll_comm *comm, const corpus *c);

unroll_status corpus_open(unroll_comm *comm, unroll_level level, size_t n_paths,
                          const char *const *paths, const corpus_own *own, corpus **out)
{
  unroll_status st = UNROLL_OK;
  const bool root = unroll_comm_rank(comm) == 0;
  listing l = {.level = level, .own = own};
  corpus *c = NULL;
  uint64_t sizes[2] = {0}; /* files, bytes of their names */

  if (root) { st = list_all(&l, n_paths, paths); }
  UNROLL_TRY(comm_agree(comm, st));
  sizes[0] = l.n;
  for (size_t i = 0; i < l.n; ++i) { sizes[1] += strlen(l.files[i].name) + 1; }
  UNROLL_TRY(comm_broadcast(comm, sizes, sizeof sizes, 0));

  UNROLL_TRY(comm_agree(comm, corpus_new((size_t)sizes[0], (size_t)sizes[1], &c)));
  char *name = c->name_pool;
  for (size_t i = 0; i < l.n; ++i) {
    size_t n = strlen(l.files[i].name) + 1;
    memcpy(name, l.files[i].name, n);
    name += n;
  }
  if (root) { set_edges(&l, c); }
  UNROLL_TRY(comm_broadcast(comm, c->start, (c->n_files + 1) * sizeof *c->start, 0));
  UNROLL_TRY(comm_broadcast(comm, c->edges, c->n_files * sizeof *c->edges, 0));
  UNROLL_TRY(comm_broadcast(comm, c->name_pool, (size_t)sizes[1], 0));
  name = c->name_pool;
  for (size_t i = 0; i < c->n_files; ++i) {
    c->names[i] = name;
    name += strlen(name) + 1;
  }
  UNROLL_TRY(check_copies(comm, c));
  *out = c;
  c = NULL;

cleanup:
  corpus_free(&c);
  listing_free(&l);
  return st;
}

void corpus_free(corpus **c)
{
  if (*c == NULL) { return; }
  memory_free(&(*c)->edges);
  memory_free(&(*c)->start);
  memory_free(&(*c)->name_pool);
  memory_free(&(*c)->names);
  memory_free(c);
}

size_t corpus_files(const corpus *c)
{
  return c->n_files;
}

const char *corpus_file_name(const corpus *c, size_t i)
{
  assert(i < c->n_files);
  return c->names[i];
}

uint64_t corpus_file_bytes(const corpus *c, size_t i)
{
  assert(i < c->n_files);
  return c->start[i + 1] - c->start[i] + c->edges[i].mark - c->edges[i].joined;
}

corpus_notes corpus_noted(const corpus *c)
{
  return c->notes;
}

uint64_t corpus_bytes(const corpus *c)
{
  return c->start[c->n_files];
}

/* --------------------------------------------------------------------- hash */

#define DIGEST 32 /* bytes of a SHA-256 */

static unroll_status hash_file(const char *name, EVP_MD_CTX *context, unsigned char *buffer,
                               unsigned char digest[DIGEST])
{
  unroll_status st = UNROLL_OK;
  bool good = EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
  int fd = open(name, O_RDONLY | O_CLOEXEC);

  if (fd < 0) {
    return unroll_fail(UNROLL_ERR_INPUT, "%s: cannot be opened: %s", name, strerror(errno));
  }
  for (;;) {
    ssize_t n = read(fd, buffer, HASH_BUFFER);
    if (n == 0) { break; }
    if (n < 0 && errno == EINTR) { continue; }
    if (n < 0) {
      st = unroll_fail(UNROLL_ERR_IO, "%s: cannot be read: %s", name, strerror(errno));
      goto cleanup;
    }
    good = good && EVP_DigestUpdate(context, buffer, (size_t)n) == 1;
  }
  good = good && EVP_DigestFinal_ex(context, digest, NULL) == 1;
  if (!good) { st = unroll_fail(UNROLL_ERR_IO, "%s: SHA-256 is not available from OpenSSL", name); }

cleanup:
  (void)close(fd);
  return st;
}

/* Hash the files that are wanted, != 0; the other digests stay as they are. */
static unroll_status hash_files(const corpus *c, const uint64_t *wanted,
                                uint64_t (*digests)[DIGEST / 8])
{
  unroll_status st = UNROLL_OK;
  unsigned char *buffer = NULL;
  EVP_MD_CTX *context = EVP_MD_CTX_new();

  if (context == NULL) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "no memory for the state of SHA-256");
    goto cleanup;
  }
  UNROLL_TRY(memory_new(HASH_BUFFER, 1, "the buffer of SHA-256", &buffer));
  for (size_t i = 0; i < c->n_files; ++i) {
    if (wanted[i] == 0) { continue; }
    UNROLL_TRY(hash_file(c->names[i], context, buffer, (unsigned char *)digests[i]));
  }

cleanup:
  memory_free(&buffer);
  EVP_MD_CTX_free(context);
  return st;
}

unroll_status corpus_hash(unroll_comm *comm, const corpus *c, char (*hashes)[CORPUS_HASH_SIZE])
{
  unroll_status st = UNROLL_OK;
  const size_t P = (size_t)unroll_comm_size(comm), rank = (size_t)unroll_comm_rank(comm);
  uint64_t(*digests)[DIGEST / 8] = NULL; /* words, to be summed */
  uint64_t *wanted = NULL;

  st = memory_new(c->n_files, sizeof *digests, "the hashes of the files", &digests);
  if (st == UNROLL_OK) { st = memory_new(c->n_files, sizeof *wanted, "the files", &wanted); }
  for (size_t i = rank; i < c->n_files && st == UNROLL_OK; i += P) { wanted[i] = 1; }
  if (st == UNROLL_OK) { st = hash_files(c, wanted, digests); }
  UNROLL_TRY(comm_agree(comm, st));
  /* One rank alone has a digest, the others zeros: the sum is that digest, in any byte order. */
  UNROLL_TRY(comm_sum_u64(comm, digests[0], c->n_files * (DIGEST / 8)));
  for (size_t i = 0; i < c->n_files; ++i) {
    const unsigned char *digest = (const unsigned char *)digests[i];
    for (size_t k = 0; k < DIGEST; ++k) { (void)snprintf(hashes[i] + 2 * k, 3, "%02x", digest[k]); }
  }

cleanup:
  memory_free(&wanted);
  memory_free(&digests);
  return st;
}

/* What tells whether two ranks see one file, on any host that sees the same file system. */
typedef struct identity {
  uint64_t found, inode, bytes, modified[2], changed[2];
} identity;

static identity identify(const char *name)
{
  struct stat info = {0};
  if (stat(name, &info) != 0) { return (identity){0}; }
  return (identity){.found = 1,
                    .inode = (uint64_t)info.st_ino,
                    .bytes = (uint64_t)info.st_size,
                    .modified = {(uint64_t)info.st_mtim.tv_sec, (uint64_t)info.st_mtim.tv_nsec},
                    .changed = {(uint64_t)info.st_ctim.tv_sec, (uint64_t)info.st_ctim.tv_nsec}};
}

/* Hold the files that are others than those of rank 0 against the hashes of those. */
static unroll_status compare_copies(const corpus *c, const uint64_t *others,
                                    const uint64_t (*digests)[DIGEST / 8],
                                    uint64_t (*mine)[DIGEST / 8])
{
  unroll_status st = UNROLL_OK;
  char host[256] = "";

  UNROLL_TRY(hash_files(c, others, mine));
  for (size_t i = 0; i < c->n_files; ++i) {
    if (others[i] == 0 || memcmp(mine[i], digests[i], DIGEST) == 0) { continue; }
    if (gethostname(host, sizeof host - 1) != 0) { (void)snprintf(host, sizeof host, "?"); }
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: a rank on %s reads another content than rank 0; all ranks need the same "
                     "text under this name",
                     c->names[i], host);
    goto cleanup;
  }

cleanup:
  return st;
}

/*
 * Ranks may have copies of the text on disks of their own, and each reads its own part of it: they must be alike. A
 * file that is the very one of rank 0 needs no look into it. Collective.
 */
static unroll_status check_copies(unroll_comm *comm, const corpus *c)
{
  unroll_status st = UNROLL_OK;
  const size_t n = c->n_files;
  const bool root = unroll_comm_rank(comm) == 0;
  identity *first = NULL;
  uint64_t *others = NULL, *anywhere = NULL; /* (n) is it another file than that of rank 0? */
  uint64_t(*digests)[DIGEST / 8] = NULL, (*mine)[DIGEST / 8] = NULL;
  bool any = false;

  st = memory_new(n, sizeof *first, "what tells files apart", &first);
  if (st == UNROLL_OK) { st = memory_new(n, sizeof *others, "the files", &others); }
  if (st == UNROLL_OK) { st = memory_new(n, sizeof *anywhere, "the files", &anywhere); }
  UNROLL_TRY(comm_agree(comm, st));
  for (size_t i = 0; i < n && root; ++i) { first[i] = identify(c->names[i]); }
  UNROLL_TRY(comm_broadcast(comm, first, n * sizeof *first, 0));
  for (size_t i = 0; i < n; ++i) {
    const identity own = identify(c->names[i]);
    others[i] = anywhere[i] = memcmp(&own, &first[i], sizeof own) != 0;
  }
  UNROLL_TRY(comm_or_u64(comm, anywhere, n));
  for (size_t i = 0; i < n; ++i) { any |= anywhere[i] != 0; }
  if (!any) { goto cleanup; }

  st = memory_new(n, sizeof *digests, "the hashes of the files", &digests);
  if (st == UNROLL_OK) { st = memory_new(n, sizeof *mine, "the hashes of the files", &mine); }
  if (st == UNROLL_OK && root) { st = hash_files(c, anywhere, digests); }
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(comm_broadcast(comm, digests, n * sizeof *digests, 0));
  UNROLL_TRY(
      comm_agree(comm, compare_copies(c, others, (const uint64_t(*)[DIGEST / 8]) digests, mine)));

cleanup:
  memory_free(&mine);
  memory_free(&digests);
  memory_free(&anywhere);
  memory_free(&others);
  memory_free(&first);
  return st;
}

/* -------------------------------------------------------------------- parts */

unroll_status corpus_split(const corpus *c, unroll_text_rules rules, double fraction,
                           corpus_part *train, corpus_part *valid)
{
  unroll_status st = UNROLL_OK;
  const uint64_t bytes = corpus_bytes(c);
  uint64_t border = bytes;
  scan *s = NULL;

  if (!(fraction >= 0.0 && fraction < 1.0)) {
    st = unroll_fail(UNROLL_ERR_ARG,
                     "a validation fraction of %g: it must be at least 0 and below 1", fraction);
    goto cleanup;
  }
  if (fraction > 0.0) {
    border = (uint64_t)((1.0 - fraction) * (double)bytes);
    border = border < bytes ? border : bytes - 1;
    UNROLL_TRY(scan_new(c, rules, &s));
    UNROLL_TRY(scan_token_begin(s, border, &border));
    if (border == 0 && rules.level == UNROLL_LEVEL_WORD && bytes > CORPUS_LONG_WORD) {
      st = unroll_fail(UNROLL_ERR_INPUT,
                       "the text is one word of %" PRIu64
                       " bytes: there is no white space between words; --level char reads any text",
                       bytes);
      goto cleanup;
    }
    if (border == 0) {
      st = unroll_fail(UNROLL_ERR_INPUT,
                       "a text of %" PRIu64 " bytes is too short to keep the last %g of it for "
                       "validation: no token is left for training",
                       bytes, fraction);
      goto cleanup;
    }
  }
  *train = (corpus_part){.begin = 0, .end = border};
  *valid = (corpus_part){.begin = border, .end = bytes};

cleanup:
  scan_free(&s);
  return st;
}

void corpus_part_free(corpus_part *part)
{
  memory_free(&part->first_token);
}

/* ---------------------------------------------------------- count and read */

/* What the threads that count need to know. */
typedef struct counting {
  const unroll_vocab *vocab;
  block_counts *counts;
} counting;

static unroll_status count_block(void *context, size_t thread, size_t k, scan *s)
{
  unroll_status st = UNROLL_OK;
  const counting *c = context;
  int32_t tokens[BATCH];
  uint64_t unknown = 0;
  size_t n = 0;
  (void)thread;

  do {
    UNROLL_TRY(vocab_scan(c->vocab, s, BATCH, tokens, &n));
    c->counts->tokens[k] += n;
    unknown += vocab_unknown(c->vocab, n, tokens);
  } while (n > 0);
  block_counts_add(c->counts, s, unknown);

cleanup:
  return st;
}

unroll_status corpus_count(unroll_comm *comm, const corpus *c, const unroll_vocab *vocab,
                           corpus_part *part)
{
  unroll_status st = UNROLL_OK;
  block_counts counts = {0};
  counting context = {vocab, &counts};
  size_t first = 0;
  size_t last = 0;

  corpus_share(comm, part, &first, &last);
  st = block_counts_new(part, &counts);
  if (st == UNROLL_OK) {
    st = scan_blocks(c, unroll_vocab_rules(vocab), part, first, last, count_block, &context);
  }
  UNROLL_TRY(comm_agree(comm, st));
  UNROLL_TRY(block_counts_sum(comm, &counts, part));

cleanup:
  block_counts_free(&counts);
  return st;
}

size_t corpus_token_width(size_t V)
{
  return V <= 256 ? 1 : V <= 65536 ? 2 : 4;
}

void corpus_store(const int32_t *tokens, size_t n, size_t width, void *out, uint64_t at)
{
  if (width == 1) {
    uint8_t *to = (uint8_t *)out + at;
    for (size_t i = 0; i < n; ++i) { to[i] = (uint8_t)tokens[i]; }
  } else if (width == 2) {
    uint16_t *to = (uint16_t *)out + at;
    for (size_t i = 0; i < n; ++i) { to[i] = (uint16_t)tokens[i]; }
  } else {
    memcpy((int32_t *)out + at, tokens, n * sizeof *tokens);
  }
}

/* The block in which token `first` begins: the last one that has no more tokens before it. */
static size_t find_block(const corpus_part *part, uint64_t first)
{
  size_t low = 0;
  size_t high = part->n_blocks;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (part->first_token[middle] <= first) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

/* Tokens [first, end) that are wanted, and where they go. */
typedef struct reading {
  const corpus *c;
  const unroll_vocab *vocab;
  const corpus_part *part;
  uint64_t first, end;
  size_t width;
  void *tokens;
} reading;

static unroll_status read_block(void *context, size_t thread, size_t k, scan *s)
{
  unroll_status st = UNROLL_OK;
  const reading *r = context;
  const uint64_t first = r->first, end = r->end;
  uint64_t number = r->part->first_token[k]; /* of batch[0] */
  int32_t batch[BATCH];
  size_t m = 0;
  (void)thread;

  while (number < end) {
    UNROLL_TRY(vocab_scan(r->vocab, s, BATCH, batch, &m));
    if (m == 0) { break; }
    uint64_t from = number < first ? first - number : 0; /* the part of the batch that is wanted */
    uint64_t to = end - number < m ? end - number : m;
    if (from < to) {
      corpus_store(batch + from, (size_t)(to - from), r->width, r->tokens, number + from - first);
    }
    number += m;
  }
  /* Only a block read to its end can be compared; one that is left early has given its due. */
  const uint64_t next = r->part->first_token[k + 1];
  bool changed = number < end ? number != next : number > next;
  if (changed) {
    st = unroll_fail(UNROLL_ERR_INPUT,
                     "%s: the text changed while it was used: bytes %" PRIu64 " to %" PRIu64
                     " of it have other tokens than before",
                     r->c->names[0], corpus_block_begin(r->part, k),
                     corpus_block_begin(r->part, k + 1));
  }

cleanup:
  return st;
}

unroll_status corpus_read(const corpus *c, const unroll_vocab *vocab, const corpus_part *part,
                          uint64_t first, uint64_t n, size_t width, void *tokens)
{
  reading r = {c, vocab, part, first, first + n, width, tokens};
  assert(part->first_token != NULL && r.end <= part->tokens);
  assert(width >= corpus_token_width(unroll_vocab_size(vocab)));

  if (n == 0) { return UNROLL_OK; }
  return scan_blocks(c, unroll_vocab_rules(vocab), part, find_block(part, first),
                     find_block(part, r.end - 1) + 1, read_block, &r);
}
