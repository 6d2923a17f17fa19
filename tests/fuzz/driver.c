/*
 * A target without a fuzzer, with any compiler: all files of a folder, then so many mutants of them, the same ones each
 * time.
 *
 *   fuzz_X FOLDER COUNT
 *
 * When it aborts, the input at hand goes into the file `last-input` of the working folder.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#define MOST       1024 /* seeds */
#define MAX_LENGTH 4096 /* [bytes] as libFuzzer's */

typedef struct seed {
  uint8_t bytes[MAX_LENGTH];
  size_t n;
} seed;

static seed seeds[MOST];
static size_t n_seeds;
static uint64_t state = 1;

static uint64_t draw(uint64_t n)
{
  state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (state >> 33) % n;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
  return strcmp((*a)->d_name, (*b)->d_name); /* alphasort goes by the locale */
}

static void read_seeds(const char *folder)
{
  struct dirent **entries = NULL;
  const int n = scandir(folder, &entries, NULL, by_name);
  for (int i = 0; i < n; ++i) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
    FILE *f = entries[i]->d_name[0] == '.' || n_seeds == MOST ? NULL : fopen(path, "rb");
    if (f != NULL) {
      seeds[n_seeds].n = fread(seeds[n_seeds].bytes, 1, MAX_LENGTH, f);
      n_seeds += 1;
      (void)fclose(f);
    }
    free(entries[i]);
  }
  free(entries);
}

/* Some bytes more, less or others, or the end of another seed. */
static void mutate(seed *s)
{
  static const uint8_t strange[] = {0, 1, 0x7f, 0x80, 0xff, '-', '=', '\n', ' ', 0xc2, 0xed, 0xf4};
  const size_t at = draw(s->n + 1);
  const size_t n = 1 + draw(8);

  switch (draw(5)) {
  case 0:
    if (at < s->n) { s->bytes[at] ^= (uint8_t)(1U << draw(8)); }
    break;
  case 1:
    if (at < s->n) { s->bytes[at] = strange[draw(sizeof strange)]; }
    break;
  case 2: /* insert */
    if (s->n + n > MAX_LENGTH) { break; }
    memmove(s->bytes + at + n, s->bytes + at, s->n - at);
    for (size_t i = 0; i < n; ++i) { s->bytes[at + i] = (uint8_t)draw(256); }
    s->n += n;
    break;
  case 3: /* remove */
    if (at + n > s->n) { break; }
    memmove(s->bytes + at, s->bytes + at + n, s->n - at - n);
    s->n -= n;
    break;
  default: {
    const seed *other = &seeds[draw(n_seeds)];
    const size_t from = draw(other->n + 1);
    const size_t rest = other->n - from < MAX_LENGTH - at ? other->n - from : MAX_LENGTH - at;
    memcpy(s->bytes + at, other->bytes + from, rest);
    s->n = at + rest;
  }
  }
}

static const seed *at_hand;

static void keep_last(int number)
{
  const int fd = open("last-input", O_WRONLY | O_CREAT | O_TRUNC, 0666);
  (void)signal(number, SIG_DFL);
  if (fd >= 0 && write(fd, at_hand->bytes, at_hand->n) >= 0) { (void)close(fd); }
  (void)raise(number);
}

/* The bytes in a block that ends with them, so that a sanitizer sees a read behind the end. */
static void try(const seed *s)
{
  at_hand = s;
  uint8_t *copy = malloc(s->n == 0 ? 1 : s->n);
  memcpy(copy, s->bytes, s->n);
  (void)LLVMFuzzerTestOneInput(copy, s->n);
  free(copy);
}

int main(int argc, char **argv)
{
  static seed mutant;
  if (argc != 3) { return 2; }
  const unsigned long count = strtoul(argv[2], NULL, 10);
  read_seeds(argv[1]);
  (void)LLVMFuzzerInitialize(&argc, &argv);
  (void)signal(SIGABRT, keep_last);
  (void)signal(SIGSEGV, keep_last);
  for (size_t i = 0; i < n_seeds; ++i) { try(&seeds[i]); }
  for (unsigned long k = 0; n_seeds > 0 && k < count; ++k) {
    mutant = seeds[draw(n_seeds)];
    for (uint64_t n = 1 + draw(6); n > 0; --n) { mutate(&mutant); }
    try(&mutant);
  }
  printf("%zu seeds, %lu mutants\n", n_seeds, count);
  return n_seeds > 0 ? 0 : 1;
}
