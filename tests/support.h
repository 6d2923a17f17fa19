#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

/*
 * What every test program shares.
 *
 * run_cases registers each row with CUnit, runs the rows in a shuffled order
 * (seed in UNROLL_TEST_SEED, printed), and returns EXIT_FAILURE when a case
 * failed, when the registry could not be built, when nothing ran, or when the
 * library still holds memory at the end.
 */
#include <CUnit/CUnit.h>
#include <stddef.h>
#include <unroll/comm.h>
#include <unroll/status.h>

struct test_case {
  const char *name;
  void (*run)(void);
};

int run_cases(const char *suite, size_t n, const struct test_case *cases);

/*
 * The same under mpirun: MPI is started before and finalized after. Rank 0
 * alone prints. All ranks shuffle alike. Fatal assertions are not used between
 * collectives.
 */
int run_mpi_cases(int argc, char **argv, const char *suite, size_t n,
                  const struct test_case *cases);

/* The world, valid inside run_mpi_cases. */
extern unroll_comm *test_comm;
extern int test_rank, test_size;

/* Assert that `ok` holds on every rank: the verdict is reduced first, so all ranks continue together. */
#define CHECK_ALL(ok) CU_ASSERT(test_all(ok))
int test_all(int ok);

/* A status is OK; else its message is printed. */
#define CHECK_OK(call) CU_ASSERT(test_ok((call), #call, __FILE__, __LINE__))
int test_ok(unroll_status st, const char *what, const char *file, int line);

/* A call fails with this status and its message contains this text. */
#define CHECK_FAILS(call, status, part)                                                            \
  CU_ASSERT(test_fails((call), (status), (part), __FILE__, __LINE__))
int test_fails(unroll_status st, unroll_status expected, const char *part, const char *file,
               int line);

/* A new empty folder, its path in `out` (of 256 bytes); removed with all it holds at the end of the program. */
void test_folder(char out[256]);

/* Write bytes to a file; aborts the test program if that fails. */
void test_write_file(const char *path, const void *bytes, size_t n);

#endif
