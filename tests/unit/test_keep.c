#include "support.h"

#include "runfile/keep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file system without hard links, where `no_links`: this link() comes before that of the C library. */
static int no_links;

int link(const char *from, const char *to)
{
  if (no_links) {
    errno = EPERM;
    return -1;
  }
  return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* ---------------------------------------------------------------- helpers */

static char folder[256];

static const char *in_folder(const char *name)
{
  static char path[4][600];
  static int turn;
  turn = (turn + 1) % 4;
  (void)snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
  return path[turn];
}

static void put(const char *name, const char *text)
{
  FILE *f = fopen(in_folder(name), "w");
  if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) { abort(); }
}

/* Has the file this text? */
static int has(const char *name, const char *text)
{
  char found[64] = "";
  FILE *f = fopen(in_folder(name), "r");
  if (f == NULL) { return 0; }
  size_t n = fread(found, 1, sizeof found - 1, f);
  (void)fclose(f);
  return n == strlen(text) && strcmp(found, text) == 0;
}

static int entries(void)
{
  int n = 0;
  DIR *d = opendir(folder);
  if (d == NULL) { abort(); }
  for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) { n += e->d_name[0] != '.'; }
  (void)closedir(d);
  return n;
}

/* As training does it: the next checkpoint takes the name after the one before was kept. */
static void checkpoint(const char *text, size_t keep)
{
  CHECK_OK(keep_older(in_folder("run.h5"), keep));
  put("next", text);
  CU_ASSERT_EQUAL(rename(in_folder("next"), in_folder("run.h5")), 0);
}

/* ------------------------------------------------------------------ cases */

static void check_rotation(void)
{
  test_folder(folder);
  checkpoint("a", 2);
  CU_ASSERT_EQUAL(entries(), 1);
  checkpoint("b", 2);
  CU_ASSERT(has("run.h5", "b") && has("run.1.h5", "a"));
  CU_ASSERT_EQUAL(entries(), 2);
  checkpoint("c", 2);
  checkpoint("d", 2);
  CU_ASSERT(has("run.h5", "d") && has("run.1.h5", "c") && has("run.2.h5", "b"));
  CU_ASSERT_EQUAL(entries(), 3);
  checkpoint("e", 1);
  CU_ASSERT(has("run.h5", "e") && has("run.1.h5", "d") && has("run.2.h5", "b"));
  checkpoint("f", 0);
  CU_ASSERT(has("run.h5", "f") && has("run.1.h5", "d"));
}

static void test_older_moves_each_on_and_drops_the_last(void)
{
  no_links = 0;
  check_rotation();
}

static void test_older_without_hard_links_copies(void)
{
  no_links = 1;
  check_rotation();
  no_links = 0;
}

static void test_older_of_a_large_file_without_links_is_whole(void)
{
  const size_t n = 3000001;
  struct stat info = {0};

  test_folder(folder);
  FILE *f = fopen(in_folder("run.h5"), "w");
  if (f == NULL) { abort(); }
  for (size_t i = 0; i < n; ++i) { (void)putc((int)(i * i % 251), f); }
  (void)fclose(f);
  no_links = 1;
  CHECK_OK(keep_older(in_folder("run.h5"), 1));
  no_links = 0;
  CU_ASSERT_EQUAL(stat(in_folder("run.1.h5"), &info), 0);
  CU_ASSERT_EQUAL((size_t)info.st_size, n);
  CU_ASSERT_EQUAL(info.st_nlink, 1);
  f = fopen(in_folder("run.1.h5"), "r");
  size_t same = 0;
  while (f != NULL && same < n && getc(f) == (int)(same * same % 251)) { same += 1; }
  CU_ASSERT_EQUAL(same, n);
  if (f != NULL) { (void)fclose(f); }
}

static void test_older_with_gaps_leaves_what_is_behind(void)
{
  test_folder(folder);
  put("run.h5", "z");
  put("run.1.h5", "y");
  put("run.3.h5", "w");
  CHECK_OK(keep_older(in_folder("run.h5"), 5));
  CU_ASSERT(has("run.h5", "z") && has("run.1.h5", "z") && has("run.2.h5", "y") &&
            has("run.3.h5", "w"));
  CU_ASSERT_EQUAL(entries(), 4);
}

/* As it is after a death between keeping the old checkpoint and the new one's taking its place. */
static void test_older_that_is_kept_already_leaves_nothing_temporary(void)
{
  test_folder(folder);
  put("run.h5", "a");
  CHECK_OK(keep_older(in_folder("run.h5"), 1));
  checkpoint("b", 1);
  CU_ASSERT(has("run.h5", "b") && has("run.1.h5", "a"));
  CU_ASSERT_EQUAL(entries(), 2);
}

static void test_names_of_all_files(void)
{
  static const char *const of_h5[] = {"a/run.h5", "a/run.jsonl", "a/run.best.h5", "a/run.1.h5",
                                      "a/run.2.h5"};
  static const char *const of_other[] = {"model", "model.jsonl", "model.best", "model.1"};
  char name[KEEP_NAME];
  size_t i = 0;

  for (; keep_name("a/run.h5", 2, i, name); ++i) { CU_ASSERT_STRING_EQUAL(name, of_h5[i]); }
  CU_ASSERT_EQUAL(i, 5);
  for (i = 0; keep_name("model", 1, i, name); ++i) { CU_ASSERT_STRING_EQUAL(name, of_other[i]); }
  CU_ASSERT_EQUAL(i, 4);
}

int main(void)
{
  static const struct test_case cases[] = {
      {"older: each moves on, the last goes", test_older_moves_each_on_and_drops_the_last},
      {"older: no hard links", test_older_without_hard_links_copies},
      {"older: no hard links, a large file", test_older_of_a_large_file_without_links_is_whole},
      {"older: kept already", test_older_that_is_kept_already_leaves_nothing_temporary},
      {"older: a gap", test_older_with_gaps_leaves_what_is_behind},
      {"names: of all files of a run", test_names_of_all_files},
  };
  return run_cases("keep", sizeof cases / sizeof cases[0], cases);
}
