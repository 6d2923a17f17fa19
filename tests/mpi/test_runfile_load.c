#include "support.h"

#include "base/options.h"
#include "example_run.h"
#include "runfile/schema.h"

#include <mpi.h>
#include <unistd.h>

/* The same new path on every rank. */
static void shared_path(char path[300])
{
  char folder[256] = "";
  if (test_rank == 0) { test_folder(folder); }
  MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
  (void)snprintf(path, 300, "%s/run.h5", folder);
}

static void write_on_first(const char *path, example e)
{
  int ok = 1;
  if (test_rank == 0) {
    run *r = example_run(e);
    ok = test_ok(runfile_write(path, r), "runfile_write", __FILE__, __LINE__);
    run_free(&r);
  }
  CHECK_ALL(ok);
}

static int same_bytes(const void *a, const void *b, size_t n)
{
  return n == 0 || memcmp(a, b, n) == 0;
}

/* On rank 0 the values are those of the file, on the others zeros. */
static int same_values(const unroll_real *loaded, const unroll_real *own, size_t n)
{
  int zero = 1;
  for (size_t i = 0; i < n; ++i) { zero &= loaded[i] == 0; }
  return test_rank == 0 ? same_bytes(loaded, own, n * sizeof *own) : zero;
}

static int same_model(const run *a, const run *b)
{
  size_t n = a->params->n;
  int same = n == b->params->n && a->params->shape.V == b->params->shape.V &&
             a->n_moments == b->n_moments && same_values(a->params->values, b->params->values, n);
  for (size_t k = 0; same && k < a->n_moments; ++k) {
    same = same_values(a->moments[k], b->moments[k], n);
  }
  for (size_t i = 0; same && i < config_table.n_rows; ++i) {
    same = options_equal(&config_table.rows[i], &a->config, &b->config);
  }
  return same;
}

static int same_vocab(const unroll_vocab *a, const unroll_vocab *b)
{
  size_t V = unroll_vocab_size(a);
  int same =
      V == unroll_vocab_size(b) && unroll_vocab_rules(a).level == unroll_vocab_rules(b).level;
  for (size_t v = 0; same && v < V; ++v) {
    same = strcmp(unroll_vocab_token_view(a, v), unroll_vocab_token_view(b, v)) == 0 &&
           unroll_vocab_code(a, v) == unroll_vocab_code(b, v) &&
           unroll_vocab_count(a, v) == unroll_vocab_count(b, v);
  }
  return same;
}

static int same_state(const run_state *a, const run_state *b)
{
  int same = a->n_hidden == b->n_hidden &&
             (test_rank > 0 ? a->hidden == NULL
                            : same_bytes(a->hidden, b->hidden, a->n_hidden * sizeof(unroll_real)));
  for (size_t i = 0; same && i < schema_state.n; ++i) {
    size_t at = schema_state.fields[i].offset;
    size_t size = schema_state.fields[i].type == SCHEMA_FLAG ? sizeof(int) : 8;
    same = memcmp((const char *)a + at, (const char *)b + at, size) == 0;
  }
  return same;
}

/* What a rank is sent is what it would have read itself; what is large stays on rank 0, metrics and provenance, too. */
static void check_loaded_equals_read(example e)
{
  char path[300];
  run *loaded = NULL;
  run *own = NULL;
  shared_path(path);
  write_on_first(path, e);
  CHECK_ALL(test_ok(runfile_load(test_comm, path, &loaded), "runfile_load", __FILE__, __LINE__));
  CHECK_ALL(test_ok(runfile_read(path, &own), "runfile_read", __FILE__, __LINE__));

  int whole = loaded != NULL && own != NULL;
  CHECK_ALL(whole && same_model(loaded, own));
  CHECK_ALL(whole && same_vocab(loaded->vocab, own->vocab));
  CHECK_ALL(whole && same_state(&loaded->state, &own->state));
  CHECK_ALL(whole && (test_rank == 0) == (loaded->n_train > 0));
  CHECK_ALL(whole && (test_rank == 0) == (loaded->provenance.n_files > 0));
  run_free(&own);
  run_free(&loaded);
}

static void test_load_of_every_kind_equals_reading(void)
{
  check_loaded_equals_read((example){UNROLL_LEVEL_CHAR, 11, 5, 2, 3, UNROLL_OPTIMIZER_ADAM, 4});
  check_loaded_equals_read((example){UNROLL_LEVEL_BYTE, 256, 17, 1, 2, UNROLL_OPTIMIZER_SGD, 1});
  check_loaded_equals_read(
      (example){UNROLL_LEVEL_WORD, 300, 16, 1, 2, UNROLL_OPTIMIZER_MOMENTUM, 2});
}

static void test_load_of_a_missing_file_fails_alike_on_every_rank(void)
{
  char path[300];
  run *r = NULL;
  shared_path(path);
  unroll_status st = runfile_load(test_comm, path, &r);
  CHECK_ALL(test_fails(st, UNROLL_ERR_INPUT, path, __FILE__, __LINE__));
  CHECK_ALL(r == NULL);
}

static void test_load_of_a_truncated_file_fails_alike_on_every_rank(void)
{
  char path[300];
  run *r = NULL;
  shared_path(path);
  write_on_first(path, (example){UNROLL_LEVEL_CHAR, 11, 5, 2, 3, UNROLL_OPTIMIZER_ADAM, 4});
  if (test_rank == 0 && truncate(path, 20000) != 0) { abort(); }
  unroll_status st = runfile_load(test_comm, path, &r);
  CHECK_ALL(test_fails(st, UNROLL_ERR_INPUT, "truncated", __FILE__, __LINE__));
  CHECK_ALL(r == NULL);
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"load: every kind equals reading", test_load_of_every_kind_equals_reading},
      {"load: missing file", test_load_of_a_missing_file_fails_alike_on_every_rank},
      {"load: truncated file", test_load_of_a_truncated_file_fails_alike_on_every_rank},
  };
  return run_mpi_cases(argc, argv, "runfile_load", sizeof cases / sizeof cases[0], cases);
}
