#include "support.h"

#include "base/memory.h"
#include <CUnit/Basic.h>
#include <ftw.h>
#include <inttypes.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unroll_comm *test_comm;
int test_rank, test_size = 1;

static char folders[96][256];
static size_t n_folders;

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
  (void)info;
  (void)kind;
  (void)where;
  return remove(path);
}

static void remove_folders(void)
{
  for (size_t i = 0; i < n_folders; ++i) {
    (void)nftw(folders[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  }
  n_folders = 0;
}

void test_folder(char out[256])
{
  const char *base = getenv("TMPDIR");
  (void)snprintf(out, 256, "%s/unroll-test-XXXXXX", base != NULL ? base : "/tmp");
  if (n_folders == sizeof folders / sizeof folders[0] || mkdtemp(out) == NULL) {
    perror("test folder");
    abort();
  }
  (void)snprintf(folders[n_folders++], 256, "%s", out);
}

void test_write_file(const char *path, const void *bytes, size_t n)
{
  FILE *f = fopen(path, "wb");
  if (f == NULL || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
    perror(path);
    abort();
  }
}

int test_all(int ok)
{
  int all = ok;
  if (test_comm != NULL) { MPI_Allreduce(&ok, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD); }
  return all;
}

int test_ok(unroll_status st, const char *what, const char *file, int line)
{
  if (st != UNROLL_OK) {
    fprintf(stderr, "%s:%d: %s: %s: %s\n", file, line, what, unroll_status_text(st),
            unroll_message());
  }
  return st == UNROLL_OK;
}

int test_fails(unroll_status st, unroll_status expected, const char *part, const char *file,
               int line)
{
  int ok = st == expected && strstr(unroll_message(), part) != NULL;
  if (!ok) {
    fprintf(stderr, "%s:%d: got \"%s\" (%s), expected \"%s\" with \"%s\"\n", file, line,
            unroll_message(), unroll_status_text(st), unroll_status_text(expected), part);
  }
  return ok;
}

/* The seed of the order: from the environment, else of the process, and always printed. */
static uint64_t order_seed(void)
{
  const char *text = getenv("UNROLL_TEST_SEED");
  return text != NULL ? strtoull(text, NULL, 10) : (uint64_t)getpid();
}

static int run_shuffled(const char *suite, size_t n, const struct test_case *cases, uint64_t seed)
{
  size_t order[256];
  if (n > sizeof order / sizeof order[0] || CU_initialize_registry() != CUE_SUCCESS) { return 1; }
  CU_pSuite s = CU_add_suite(suite, NULL, NULL);
  if (s == NULL) { return 1; }

  for (size_t i = 0; i < n; ++i) { order[i] = i; }
  for (size_t i = n; i > 1; --i) {
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    size_t j = (size_t)((seed >> 33) % i);
    size_t swap = order[i - 1];
    order[i - 1] = order[j];
    order[j] = swap;
  }
  for (size_t i = 0; i < n; ++i) {
    if (CU_add_test(s, cases[order[i]].name, cases[order[i]].run) == NULL) { return 1; }
  }

  CU_basic_set_mode(test_rank == 0 ? CU_BRM_VERBOSE : CU_BRM_SILENT);
  CU_ErrorCode code = CU_basic_run_tests();
  int failed = code != CUE_SUCCESS || CU_get_number_of_tests_run() != n ||
               CU_get_number_of_tests_failed() != 0 || CU_get_number_of_failures() != 0;
  if (n == 0) { failed = 1; }
  CU_cleanup_registry();
  return failed;
}

static int memory_is_left(void)
{
  if (memory_live_blocks() == 0) { return 0; }
  fprintf(stderr, "rank %d: %" PRId64 " blocks of the library were not freed\n", test_rank,
          memory_live_blocks());
  return 1;
}

int run_cases(const char *suite, size_t n, const struct test_case *cases)
{
  uint64_t seed = order_seed();
  printf("order: UNROLL_TEST_SEED=%" PRIu64 "\n", seed);
  int failed = run_shuffled(suite, n, cases, seed);
  failed |= memory_is_left();
  remove_folders();
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int run_mpi_cases(int argc, char **argv, const char *suite, size_t n, const struct test_case *cases)
{
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &test_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &test_size);
  uint64_t seed = order_seed();
  MPI_Bcast(&seed, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  if (test_rank == 0) { printf("order: UNROLL_TEST_SEED=%" PRIu64 "\n", seed); }

  int failed =
      provided < MPI_THREAD_FUNNELED || unroll_comm_new(MPI_COMM_WORLD, &test_comm) != UNROLL_OK;
  if (!failed) { failed = run_shuffled(suite, n, cases, seed); }
  unroll_comm_free(&test_comm);
  failed |= memory_is_left();

  int any = failed;
  MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  remove_folders();
  MPI_Finalize();
  return any ? EXIT_FAILURE : EXIT_SUCCESS;
}
