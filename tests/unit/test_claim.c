#include "support.h"

#include "base/memory.h"
#include "runfile/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A folder in which others' files cannot be moved, where `no_rename`: this comes before the C library's. */
static int no_rename;

int rename(const char *from, const char *to)
{
  if (no_rename) {
    errno = EACCES;
    return -1;
  }
  return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

/* ---------------------------------------------------------------- helpers */

static char folder[256], path[300], file[300];

/* A new folder, and no batch system. */
static void fresh(void)
{
  static const char *const names[] = {"SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_DEPENDENCY",
                                      "PBS_JOBID", "LSB_JOBID"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) { (void)unsetenv(names[i]); }
  test_folder(folder);
  (void)snprintf(path, sizeof path, "%s/run.h5", folder);
  (void)snprintf(file, sizeof file, "%s/.run.claim", folder);
}

static int exists(const char *name)
{
  struct stat info;
  return lstat(name, &info) == 0;
}

static void put(const char *text)
{
  FILE *f = fopen(file, "w");
  if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) { abort(); }
}

/* The claim as it would be of this process, with one line another. */
static void put_with(const char *key, const char *value)
{
  char text[2048] = "", line[512];
  claim *c = NULL;
  (void)unlink(file);
  CHECK_OK(claim_take(path, &c));
  FILE *f = fopen(file, "r");
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    const size_t n = strlen(key);
    if (strncmp(line, key, n) == 0 && line[n] == ' ') {
      (void)snprintf(line, sizeof line, "%s %s\n", key, value);
    }
    (void)strcat(text, line);
  }
  if (f != NULL) { (void)fclose(f); }
  claim_free(&c);
  put(text);
}

static void check_free(void)
{
  claim *c = NULL;
  CHECK_OK(claim_take(path, &c));
  claim_free(&c);
  CU_ASSERT_FALSE(exists(file));
}

static void check_refused(const char *part)
{
  claim *c = NULL;
  CHECK_FAILS(claim_take(path, &c), UNROLL_ERR_INPUT, part);
  CU_ASSERT_PTR_NULL(c);
  CU_ASSERT(exists(file));
}

/* A process that holds the claim until it is killed. */
static pid_t hold(void)
{
  int ready[2];
  char byte = 0;
  if (pipe(ready) != 0) { abort(); }
  pid_t child = fork();
  if (child == 0) {
    claim *c = NULL;
    if (claim_take(path, &c) == UNROLL_OK && write(ready[1], "x", 1) == 1) { (void)pause(); }
    _exit(1);
  }
  (void)close(ready[1]);
  CU_ASSERT_EQUAL(read(ready[0], &byte, 1), 1);
  (void)close(ready[0]);
  return child;
}

/* ------------------------------------------------------------------ cases */

static void test_take_of_a_free_name_is_given_back(void)
{
  claim *c = NULL;
  fresh();
  CHECK_OK(claim_take(path, &c));
  CU_ASSERT(exists(file));
  CHECK_OK(claim_check(c));
  claim_free(&c);
  claim_free(&c);
  CU_ASSERT_FALSE(exists(file));
  CHECK_OK(claim_check(NULL));
}

static void test_take_from_the_living_is_refused(void)
{
  char process[32];
  fresh();
  pid_t child = hold();
  (void)snprintf(process, sizeof process, "process %ld", (long)child);
  check_refused(process);
  (void)kill(child, SIGKILL);
  (void)waitpid(child, NULL, 0);
  check_free();
}

/* Where the first process of a container collects nobody, the killed stay in the table. */
static void test_take_from_a_zombie_succeeds(void)
{
  fresh();
  pid_t child = hold();
  (void)kill(child, SIGKILL);
  check_free();
  (void)waitpid(child, NULL, 0);
}

static void test_take_from_an_earlier_process_of_the_same_number_succeeds(void)
{
  fresh();
  put_with("born", "1");
  check_free();
}

static void test_take_from_another_host_is_refused_with_the_way_out(void)
{
  fresh();
  put_with("host", "elsewhere");
  check_refused("host elsewhere");
  CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), ".run.claim"));
  put_with("space", "1"); /* of this host, but a container's: its numbers mean nothing here */
  check_refused(".run.claim");
}

static void test_take_in_the_same_job_of_slurm(void)
{
  fresh();
  (void)setenv("SLURM_JOB_ID", "77", 1);
  put_with("host", "elsewhere");
  check_refused("job Slurm:77"); /* two steps of one life */
  (void)setenv("SLURM_RESTART_COUNT", "1", 1);
  check_free();
  put_with("host", "elsewhere");
  (void)setenv("SLURM_RESTART_COUNT", "2", 1);
  check_free();
  (void)setenv("SLURM_JOB_ID", "7", 1);
  put_with("host", "elsewhere");
  (void)setenv("SLURM_JOB_ID", "77", 1);
  (void)setenv("SLURM_RESTART_COUNT", "3", 1);
  check_refused("job Slurm:7,");
}

static void test_take_after_a_job_that_was_waited_for(void)
{
  fresh();
  (void)setenv("SLURM_JOB_ID", "77", 1);
  put_with("host", "elsewhere");
  (void)setenv("SLURM_JOB_ID", "78", 1);
  (void)setenv("SLURM_JOB_DEPENDENCY", "afterany:7:777", 1);
  check_refused("job Slurm:77");
  (void)setenv("SLURM_JOB_DEPENDENCY", "after:77", 1);
  check_refused("job Slurm:77");
  (void)setenv("SLURM_JOB_DEPENDENCY", "afterany:7:77", 1);
  check_free();
}

static void test_take_in_the_same_job_of_others(void)
{
  static const char *const names[] = {"PBS_JOBID", "LSB_JOBID"};
  for (size_t i = 0; i < 2; ++i) {
    fresh();
    (void)setenv(names[i], "77.server", 1);
    put_with("host", "elsewhere");
    check_free();
    put_with("host", "elsewhere");
    (void)setenv(names[i], "78.server", 1);
    check_refused("77.server");
  }
}

static void test_take_from_one_that_died_before_it_wrote(void)
{
  fresh();
  put("");
  check_free();
}

static void test_take_leaves_what_is_no_claim(void)
{
  fresh();
  put("notes of mine\n");
  check_refused("no claim");
}

static void test_take_from_the_dead_who_cannot_be_removed_is_refused(void)
{
  fresh();
  put_with("born", "1");
  no_rename = 1;
  check_refused("cannot be removed: Permission denied");
  no_rename = 0;
  check_free();
}

static void test_take_where_nothing_can_be_is_refused(void)
{
  claim *c = NULL;
  fresh();
  (void)snprintf(path, sizeof path, "%s/none/run.h5", folder);
  CHECK_FAILS(claim_take(path, &c), UNROLL_ERR_INPUT, "No such file or directory");
  CU_ASSERT_PTR_NULL(c);
}

/* A run that was frozen with its node, and whose job goes on elsewhere. */
static void test_check_of_a_claim_that_was_taken_over(void)
{
  claim *c = NULL;
  char text[2048];
  fresh();
  put_with("host", "elsewhere");
  FILE *f = fopen(file, "r");
  size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
  text[n] = '\0';
  if (f != NULL) { (void)fclose(f); }
  (void)unlink(file);
  CHECK_OK(claim_take(path, &c));
  put(text);
  CHECK_FAILS(claim_check(c), UNROLL_ERR_IO, "host elsewhere");
  claim_free(&c);
  CU_ASSERT(exists(file)); /* it is the other's */
  (void)unlink(file);
  CHECK_OK(claim_take(path, &c));
  (void)unlink(file);
  CHECK_OK(claim_check(c)); /* a user has removed it */
  claim_free(&c);
}

/* Of many that find a dead one at once, one gets it. */
static void test_take_by_many_at_once_is_got_by_one(void)
{
  enum { MANY = 8, ROUNDS = 2 };
  for (int round = 0; round < ROUNDS; ++round) {
    int go[2], won = 0;
    pid_t child[MANY];
    fresh();
    put_with("born", "1");
    if (pipe(go) != 0) { abort(); }
    for (int i = 0; i < MANY; ++i) {
      child[i] = fork();
      if (child[i] == 0) {
        char byte;
        claim *c = NULL;
        (void)close(go[1]);
        (void)read(go[0], &byte, 1); /* the end of the pipe: all go */
        const bool mine = claim_take(path, &c) == UNROLL_OK;
        if (mine) { (void)sleep(3); } /* longer than the others wait */
        _exit(mine ? 0 : 1);
      }
    }
    (void)close(go[0]);
    (void)close(go[1]);
    for (int i = 0; i < MANY; ++i) {
      int status = 0;
      (void)waitpid(child[i], &status, 0);
      won += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    CU_ASSERT_EQUAL(won, 1);
  }
}

int main(void)
{
  static const struct test_case cases[] = {
      {"take: a free name", test_take_of_a_free_name_is_given_back},
      {"take: from the living", test_take_from_the_living_is_refused},
      {"take: from a zombie", test_take_from_a_zombie_succeeds},
      {"take: a number that came again",
       test_take_from_an_earlier_process_of_the_same_number_succeeds},
      {"take: from another host", test_take_from_another_host_is_refused_with_the_way_out},
      {"take: the same job of Slurm", test_take_in_the_same_job_of_slurm},
      {"take: a chain of jobs", test_take_after_a_job_that_was_waited_for},
      {"take: the same job of PBS, LSF", test_take_in_the_same_job_of_others},
      {"take: from one that died at once", test_take_from_one_that_died_before_it_wrote},
      {"take: what is no claim", test_take_leaves_what_is_no_claim},
      {"take: cannot be removed", test_take_from_the_dead_who_cannot_be_removed_is_refused},
      {"take: where nothing can be", test_take_where_nothing_can_be_is_refused},
      {"check: taken over", test_check_of_a_claim_that_was_taken_over},
      {"take: many at once", test_take_by_many_at_once_is_got_by_one},
  };
  return run_cases("claim", sizeof cases / sizeof cases[0], cases);
}
