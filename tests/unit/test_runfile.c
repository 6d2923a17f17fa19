#include "support.h"

#include "base/options.h"
#include "example_run.h"
#include "runfile/digest.h"
#include "runfile/own.h"
#include "runfile/schema.h"

#include <dirent.h>
#include <fcntl.h>
#include <hdf5.h>
#include <jansson.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const example small = {UNROLL_LEVEL_CHAR, 11, 5, 2, 3, UNROLL_OPTIMIZER_ADAM, 4};

/* ---------------------------------------------------------------- helpers */

/* Path of a new file in a new folder. */
static void new_path(char path[300])
{
  char folder[256];
  test_folder(folder);
  (void)snprintf(path, 300, "%s/run.h5", folder);
}

/* The whole file; *n bytes, to be freed. */
static unsigned char *slurp(const char *path, size_t *n)
{
  struct stat info;
  FILE *f = fopen(path, "rb");
  if (f == NULL || fstat(fileno(f), &info) != 0) {
    perror(path);
    abort();
  }
  *n = (size_t)info.st_size;
  unsigned char *bytes = malloc(*n + 1);
  if (fread(bytes, 1, *n, f) != *n) { abort(); }
  (void)fclose(f);
  return bytes;
}

/* Entries of the folder that a path is in. */
static int entries_beside(const char *path)
{
  char folder[300];
  int n = 0;
  (void)snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = '\0';
  DIR *d = opendir(folder);
  if (d == NULL) { abort(); }
  for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) { n += e->d_name[0] != '.'; }
  (void)closedir(d);
  return n;
}

/* HDF5 objects of any kind that somebody forgot. */
static long left_open(void)
{
  return (long)H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL);
}

static int one_line_with(const char *part)
{
  int ok = strchr(unroll_message(), '\n') == NULL && strstr(unroll_message(), part) != NULL;
  if (!ok) { fprintf(stderr, "message \"%s\", expected \"%s\"\n", unroll_message(), part); }
  return ok;
}

/* Reading fails as bad input, with the path and this text in one line, and nothing leaks. */
static void check_refused(const char *path, const char *part)
{
  run *r = NULL;
  int64_t alive = memory_live_blocks();
  CHECK_FAILS(runfile_read(path, &r), UNROLL_ERR_INPUT, part);
  CU_ASSERT(one_line_with(path));
  CU_ASSERT_PTR_NULL(r);
  CU_ASSERT_EQUAL(memory_live_blocks(), alive);
  CU_ASSERT_EQUAL(left_open(), 0);
}

static int same_bytes(const void *a, const void *b, size_t n)
{
  return n == 0 || memcmp(a, b, n) == 0;
}

static int same_text(const char *a, const char *b)
{
  return strcmp(a == NULL ? "" : a, b == NULL ? "" : b) == 0;
}

static int same_config(const unroll_config *a, const unroll_config *b)
{
  int same = 1;
  for (size_t i = 0; i < config_table.n_rows; ++i) {
    same &= options_equal(&config_table.rows[i], a, b);
  }
  return same;
}

static int same_vocab(const unroll_vocab *a, const unroll_vocab *b)
{
  unroll_text_rules x = unroll_vocab_rules(a);
  unroll_text_rules y = unroll_vocab_rules(b);
  int same = unroll_vocab_size(a) == unroll_vocab_size(b) && x.level == y.level &&
             x.lowercase == y.lowercase && x.letters == y.letters;
  for (size_t v = 0; same && v < unroll_vocab_size(a); ++v) {
    same = same_text(unroll_vocab_token_view(a, v), unroll_vocab_token_view(b, v)) &&
           unroll_vocab_code(a, v) == unroll_vocab_code(b, v) &&
           unroll_vocab_count(a, v) == unroll_vocab_count(b, v);
  }
  return same;
}

static int same_provenance(const run_provenance *a, const run_provenance *b)
{
  int same = same_text(a->command_line, b->command_line) && same_text(a->started, b->started) &&
             same_text(a->written, b->written) && same_text(a->hosts, b->hosts) &&
             same_text(a->cpu, b->cpu) && same_text(a->code_path, b->code_path) &&
             same_text(a->slurm_job, b->slurm_job) && same_text(a->init_file, b->init_file) &&
             same_text(a->init_sha256, b->init_sha256) && a->ranks == b->ranks &&
             a->threads == b->threads && a->train_tokens == b->train_tokens &&
             a->valid_tokens == b->valid_tokens && a->train_characters == b->train_characters &&
             a->valid_characters == b->valid_characters && a->unknown_tokens == b->unknown_tokens &&
             a->valid_unknown_tokens == b->valid_unknown_tokens && a->n_files == b->n_files;
  same = same && a->n_changed == b->n_changed;
  for (size_t i = 0; same && i < a->n_changed; ++i) {
    same = same_text(a->changed[i], b->changed[i]);
  }
  for (size_t i = 0; same && i < a->n_files; ++i) {
    same = same_text(a->file_name[i], b->file_name[i]) && a->file_bytes[i] == b->file_bytes[i] &&
           same_text(a->file_sha256[i], b->file_sha256[i]);
  }
  return same;
}

static int same_weights(const run *a, const run *b)
{
  size_t n = a->params->n;
  int same = n == b->params->n && a->params->shape.L == b->params->shape.L &&
             a->n_moments == b->n_moments &&
             same_bytes(a->params->values, b->params->values, n * sizeof(unroll_real));
  for (size_t k = 0; same && k < a->n_moments; ++k) {
    same = same_bytes(a->moments[k], b->moments[k], n * sizeof(unroll_real));
  }
  return same;
}

/* Every field, named in a table or not: the structs begin as zeros, so their padding is equal. */
static int same_state(const run_state *a, const run_state *b)
{
  run_state x;
  run_state y;
  memcpy(&x, a, sizeof x);
  memcpy(&y, b, sizeof y);
  x.hidden = y.hidden = NULL;
  return same_bytes(&x, &y, sizeof x) &&
         same_bytes(a->hidden, b->hidden, a->n_hidden * sizeof(unroll_real));
}

static int same_metrics(const run *a, const run *b)
{
  return a->n_train == b->n_train && a->n_valid == b->n_valid &&
         same_bytes(a->train, b->train, a->n_train * sizeof *a->train) &&
         same_bytes(a->valid, b->valid, a->n_valid * sizeof *a->valid);
}

static int same_flows(const run_flows *a, const run_flows *b)
{
  int same = a->n == b->n && run_flows_fit(a, &b->rows) && run_flows_fit(b, &a->rows) &&
             same_bytes(a->step, b->step, a->n * sizeof *a->step);
  for (size_t i = 0; same && i < a->n; ++i) {
    const unroll_gradflow x = run_flow_view(a, i), y = run_flow_view(b, i);
    const size_t L = x.L, K = (size_t)x.lags, H = x.H;
    const struct {
      const double *x, *y;
      size_t n;
    } arrays[] = {
        {x.norm_mean, y.norm_mean, K + 1},
        {x.norm_q10, y.norm_q10, K + 1},
        {x.norm_q50, y.norm_q50, K + 1},
        {x.norm_q90, y.norm_q90, K + 1},
        {x.norm_log10, y.norm_log10, K + 1},
        {x.eigenvalue_re, y.eigenvalue_re, H},
        {x.eigenvalue_im, y.eigenvalue_im, H},
        {x.singular_value, y.singular_value, H},
        {x.spectral_radius, y.spectral_radius, 1},
        {x.spectral_norm, y.spectral_norm, 1},
        {x.lyapunov, y.lyapunov, 1},
        {x.derivative, y.derivative, 1},
        {x.growth, y.growth, 1},
    };
    for (size_t k = 0; k < sizeof arrays / sizeof arrays[0]; ++k) {
      same &= same_bytes(arrays[k].x, arrays[k].y, L * arrays[k].n * sizeof(double));
    }
    same &= same_bytes(x.half_lag, y.half_lag, L * sizeof *x.half_lag) &&
            same_bytes(x.percent_lag, y.percent_lag, L * sizeof *x.percent_lag) &&
            same_bytes(x.verdict, y.verdict, L * sizeof *x.verdict) && x.step == y.step;
  }
  return same;
}

/* Write, read, and compare each part with what was written. */
static void check_round_trip(run *r)
{
  char path[300];
  run *back = NULL;
  new_path(path);
  CHECK_OK(runfile_write(path, r));
  CHECK_OK(runfile_read(path, &back));
  if (back != NULL) {
    CU_ASSERT(same_config(&r->config, &back->config));
    CU_ASSERT(same_vocab(r->vocab, back->vocab));
    CU_ASSERT(same_weights(r, back));
    CU_ASSERT(same_state(&r->state, &back->state));
    CU_ASSERT(same_metrics(r, back));
    CU_ASSERT(same_flows(&r->flows, &back->flows));
    CU_ASSERT(same_provenance(&r->provenance, &back->provenance));
  }
  CU_ASSERT_EQUAL(entries_beside(path), 1);
  CU_ASSERT_EQUAL(left_open(), 0);
  run_free(&back);
}

/* ------------------------------------------------------------- round trip */

/* An average of so many updates; zeros before the first. */
static void add_average(run *r, uint64_t averaged)
{
  r->config.average = UNROLL_AVERAGE_NT_ASGD;
  r->n_moments = run_moments(&r->config);
  r->state.averaged = averaged;
  r->state.averages = 1;
  unroll_real **average = &r->moments[r->n_moments - 1];
  memory_free(average);
  CHECK_OK(memory_new(r->params->n, sizeof **average, "test", average));
  if (averaged > 0) { example_fill(r->params, 700, *average); }
}

static void test_write_read_of_every_kind_returns_the_same(void)
{
  static const example kinds[] = {
      {UNROLL_LEVEL_CHAR, 11, 5, 1, 3, UNROLL_OPTIMIZER_SGD, 4},
      {UNROLL_LEVEL_CHAR, 1, 1, 1, 1, UNROLL_OPTIMIZER_MOMENTUM, 1},
      {UNROLL_LEVEL_BYTE, 256, 16, 2, 4, UNROLL_OPTIMIZER_ADAM, 2},
      {UNROLL_LEVEL_WORD, 700, 33, 3, 2, UNROLL_OPTIMIZER_MOMENTUM, 200},
  };
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i) {
    run *r = example_run(kinds[i]);
    check_round_trip(r);
    add_average(r, 0); /* before it has begun the file has none */
    check_round_trip(r);
    add_average(r, 77);
    check_round_trip(r);
    run_free(&r);
  }
}

/* Before the first report there are no rows; a random partition carries no state. */
static void test_write_read_of_empty_parts_returns_the_same(void)
{
  example e = small;
  e.rows = 0;
  run *r = example_run(e);
  r->state.n_hidden = 0;
  for (size_t i = 0; i < r->provenance.n_files; ++i) {
    memory_free(&r->provenance.file_name[i]);
    memory_free(&r->provenance.file_sha256[i]);
  }
  r->provenance.n_files = 0;
  for (size_t i = 0; i < r->provenance.n_changed; ++i) { memory_free(&r->provenance.changed[i]); }
  r->provenance.n_changed = 0;
  memory_free(&r->provenance.command_line);
  check_round_trip(r);
  run_free(&r);
}

static void test_write_read_of_values_not_finite_returns_the_same(void)
{
  run *r = example_run(small);
  const unroll_tensor *t = unroll_params_find(r->params, "layer1", "W_hh");
  r->params->values[unroll_tensor_index(t, 1, 2)] = (unroll_real)NAN;
  r->params->values[unroll_tensor_index(t, 2, 1)] = (unroll_real)-INFINITY;
  check_round_trip(r);
  run_free(&r);
}

/* More than the 64 KiB of an ordinary attribute: a shell may expand * to very many files. */
static void test_write_read_of_a_long_command_line_returns_the_same(void)
{
  run *r = example_run(small);
  memory_free(&r->provenance.command_line);
  CHECK_OK(memory_new(200001, 1, "test", &r->provenance.command_line));
  memset(r->provenance.command_line, 'x', 200000);
  check_round_trip(r);
  run_free(&r);
}

/* A block of rows is smaller than the tensor, in both layouts, and a chunk smaller than the table of spectra. */
static void test_write_read_of_large_tensors_returns_the_same(void)
{
  run *r = example_run((example){UNROLL_LEVEL_WORD, 9001, 130, 1, 2, UNROLL_OPTIMIZER_SGD, 1});
  for (uint64_t step = 11; step < 600; ++step) { example_flow(r, step); }
  check_round_trip(r);
  run_free(&r);
}

/* Without this program's reader: shapes as in the equations, row-major, no padding. */
static void test_write_stores_the_shapes_of_the_equations(void)
{
  char path[300];
  double W[5 * 11];
  hsize_t n[2] = {0};
  int wrong = 0;
  run *r = example_run(small);
  const unroll_tensor *t = unroll_params_find(r->params, "layer0", "W_xh");
  new_path(path);
  CHECK_OK(runfile_write(path, r));

  hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  hid_t dataset = H5Dopen2(file, "/weights/layer0/W_xh", H5P_DEFAULT);
  hid_t space = H5Dget_space(dataset);
  CU_ASSERT_EQUAL(H5Sget_simple_extent_dims(space, n, NULL), 2);
  CU_ASSERT(n[0] == 5 && n[1] == 11);
  CU_ASSERT(H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, W) >= 0);
  for (size_t j = 0; j < 5; ++j) {
    for (size_t v = 0; v < 11; ++v) {
      wrong |= W[j * 11 + v] != (double)r->params->values[unroll_tensor_index(t, j, v)];
    }
  }
  CU_ASSERT_FALSE(wrong);
  (void)H5Sclose(space);
  (void)H5Dclose(dataset);
  (void)H5Fclose(file);
  run_free(&r);
}

static void test_write_twice_gives_the_same_bytes(void)
{
  char path[300];
  size_t n[2] = {0};
  run *r = example_run(small);
  new_path(path);
  CHECK_OK(runfile_write(path, r));
  unsigned char *one = slurp(path, &n[0]);
  (void)sleep(1); /* HDF5 would note the second in which it created an object */
  CHECK_OK(runfile_write(path, r));
  unsigned char *two = slurp(path, &n[1]);
  CU_ASSERT(n[0] == n[1] && memcmp(one, two, n[0]) == 0);
  CU_ASSERT_EQUAL(entries_beside(path), 1);
  free(one);
  free(two);
  run_free(&r);
}

static void test_add_grows_the_tables(void)
{
  run *r = NULL;
  int wrong = 0;
  CHECK_OK(run_new(&r));
  CU_ASSERT(isinf(r->state.best_loss) && r->state.lr_factor == 1.0);
  for (size_t i = 0; i < 1000; ++i) {
    CHECK_OK(run_add_train(r, &(run_train_row){.step = i, .skipped = 2 * i}));
    CHECK_OK(run_add_valid(r, &(run_valid_row){.step = i, .loss = (double)i}));
  }
  CU_ASSERT(r->n_train == 1000 && r->n_valid == 1000);
  for (size_t i = 0; i < 1000; ++i) {
    wrong |= r->train[i].step != i || r->train[i].skipped != 2 * i || r->valid[i].loss != (double)i;
  }
  CU_ASSERT_FALSE(wrong);
  run_free(&r);
  run_free(&r);
  run_free(NULL);
}

/* Rows are copied, in order, whatever the growth of the table between them. */
static void test_add_flow_keeps_what_was_added(void)
{
  int wrong = 0;
  run *r = example_run((example){UNROLL_LEVEL_CHAR, 11, 5, 2, 3, UNROLL_OPTIMIZER_SGD, 0});
  for (uint64_t step = 1; step <= 100; ++step) { example_flow(r, step); }
  CU_ASSERT_EQUAL(r->flows.n, 100);
  for (size_t i = 0; i < r->flows.n; ++i) {
    const unroll_gradflow row = run_flow_view(&r->flows, i);
    const double first = (double)(i + 1) + 1.0 / 3.0; /* as example_flow counts */
    wrong |= row.step != i + 1 || row.half_lag[1] != (int64_t)i + 2 || row.norm_mean[0] != first ||
             row.lags != 7 || row.context != 7 ||
             row.verdict[1] != (unroll_flow)((1 + (i + 1) / 10) % 3);
  }
  CU_ASSERT_FALSE(wrong);
  unroll_gradflow other = r->flows.rows;
  CU_ASSERT(run_flows_fit(&r->flows, &other));
  other.context += 1;
  CU_ASSERT_FALSE(run_flows_fit(&r->flows, &other));
  other.context -= 1;
  other.lags += 1;
  CU_ASSERT_FALSE(run_flows_fit(&r->flows, &other));
  CU_ASSERT(run_flows_fit(&(run_flows){0}, &other));
  run_free(&r);
}

/* ------------------------------------------------------------ failed write */

/* A limit on file sizes fails like a full disk, in the middle of a write. */
static void test_write_to_full_disk_keeps_the_old_file(void)
{
  char path[300];
  size_t n = 0;
  size_t now = 0;
  struct rlimit old;
  run *r = example_run(small);
  new_path(path);
  CHECK_OK(runfile_write(path, r));
  unsigned char *before = slurp(path, &n);

  (void)signal(SIGXFSZ, SIG_IGN);
  (void)getrlimit(RLIMIT_FSIZE, &old);
  const size_t limits[] = {0, 1, 4096, n / 2, n - 1};
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; ++i) {
    struct rlimit few = {limits[i], old.rlim_max};
    (void)setrlimit(RLIMIT_FSIZE, &few);
    unroll_status st = runfile_write(path, r);
    (void)setrlimit(RLIMIT_FSIZE, &old);
    CHECK_FAILS(st, UNROLL_ERR_IO, "File too large");
    CU_ASSERT(one_line_with(path));
    unsigned char *after = slurp(path, &now);
    CU_ASSERT(now == n && memcmp(before, after, n) == 0);
    free(after);
    CU_ASSERT_EQUAL(entries_beside(path), 1);
    CU_ASSERT_EQUAL(left_open(), 0);
  }
  CHECK_OK(runfile_write(path, r));
  free(before);
  run_free(&r);
}

/* A reader that holds the old file, or a lock on it, keeps it and does not disturb. */
static void test_write_over_a_locked_file_replaces_it(void)
{
  char path[300];
  struct stat info;
  run *r = example_run(small);
  run *back = NULL;
  new_path(path);
  test_write_file(path, "old", 3);
  int fd = open(path, O_RDWR);
  CU_ASSERT_EQUAL(flock(fd, LOCK_EX), 0);
  CHECK_OK(runfile_write(path, r));
  CHECK_OK(runfile_read(path, &back));
  CU_ASSERT(fstat(fd, &info) == 0 && info.st_size == 3);
  (void)close(fd);
  run_free(&back);
  run_free(&r);
}

/* The old file may be as large as memory: it is not read. */
static void test_write_over_a_large_file_does_not_read_it(void)
{
  char path[300];
  run *r = example_run(small);
  uint64_t before = memory_peak_rss();
  new_path(path);
  test_write_file(path, "", 0);
  CU_ASSERT_EQUAL(truncate(path, (off_t)1 << 30), 0);
  CHECK_OK(runfile_write(path, r));
  CU_ASSERT(memory_peak_rss() - before < (uint64_t)1 << 29);
  run_free(&r);
}

/* The temporary name can be guessed: what somebody has put there is neither followed nor replaced. */
static void test_write_with_a_link_in_its_way_takes_another_name(void)
{
  char path[300], name[400], victim[400];
  new_path(path);
  run *r = example_run(small);
  (void)snprintf(name, sizeof name, "%s.%ld.tmp", path, (long)getpid());
  (void)snprintf(victim, sizeof victim, "%s.victim", path);
  FILE *f = fopen(victim, "w");
  if (f == NULL || fputs("precious", f) < 0 || fclose(f) != 0) { abort(); }
  CU_ASSERT_EQUAL(symlink(victim, name), 0);
  CHECK_OK(runfile_write(path, r));
  size_t n = 0;
  unsigned char *bytes = slurp(victim, &n);
  CU_ASSERT(n == 8 && memcmp(bytes, "precious", 8) == 0);
  free(bytes);
  CU_ASSERT_EQUAL(entries_beside(path), 3);
  run_free(&r);
}

static void test_write_where_it_cannot_names_the_reason(void)
{
  char path[300];
  char inside[400];
  run *r = example_run(small);
  new_path(path);
  (void)snprintf(inside, sizeof inside, "%s/run.h5", path);
  CHECK_FAILS(runfile_write(inside, r), UNROLL_ERR_IO, "No such file or directory");
  CU_ASSERT(one_line_with(path));
  (void)mkdir(path, 0777);
  CHECK_FAILS(runfile_write(path, r), UNROLL_ERR_IO, "Is a directory");
  CU_ASSERT(one_line_with(path));
  CU_ASSERT_EQUAL(entries_beside(path), 1);
  run_free(&r);
}

/* ------------------------------------------------------------ refused files */

/* A file to be spoiled. */
static void write_small(char path[300])
{
  run *r = example_run(small);
  new_path(path);
  CHECK_OK(runfile_write(path, r));
  run_free(&r);
}

static void test_read_of_no_run_file_says_what_it_is(void)
{
  char path[300];
  new_path(path);
  check_refused(path, "No such file or directory");
  test_write_file(path, "", 0);
  check_refused(path, "is not an HDF5 file");
  test_write_file(path, "some text, long enough to be read\n", 34);
  check_refused(path, "is not an HDF5 file");
  (void)unlink(path);
  (void)mkdir(path, 0777);
  check_refused(path, "Is a directory");
}

static void test_read_of_foreign_hdf5_says_so(void)
{
  char path[300];
  new_path(path);
  hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  (void)H5Fclose(file);
  check_refused(path, "not a run file of unroll");

  /* everything but the name of the format */
  write_small(path);
  file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  hid_t a = H5Aopen(file, "format", H5P_DEFAULT);
  hid_t type = H5Aget_type(a);
  CU_ASSERT(H5Awrite(a, type, "unroll-ram") >= 0);
  (void)H5Tclose(type);
  (void)H5Aclose(a);
  (void)H5Fclose(file);
  check_refused(path, "not a run file of unroll");
}

static void test_read_of_truncated_file_is_refused_at_every_length(void)
{
  char path[300];
  size_t n = 0;
  run *r = example_run(small);
  new_path(path);
  CHECK_OK(runfile_write(path, r));
  unsigned char *bytes = slurp(path, &n);
  const size_t whole = n - DIGEST_TAIL; /* of HDF5 */
  for (size_t length = 0; length < whole; length += length < 1024 ? 7 : 997) {
    test_write_file(path, bytes, length);
    check_refused(path, length < 8 ? "is not an HDF5 file" : "truncated");
  }
  test_write_file(path, bytes, whole - 1);
  check_refused(path, "truncated");
  for (size_t length = whole; length < n; length += 7) { /* nothing is lost but the digest */
    run *read = NULL;
    test_write_file(path, bytes, length);
    if (length >= whole + strlen("\nunroll-digest ")) {
      check_refused(path, "truncated");
    } else { /* as tools leave a file that they have opened for writing */
      CHECK_OK(runfile_read(path, &read));
    }
    run_free(&read);
  }
  test_write_file(path, bytes, n - 1);
  check_refused(path, "truncated");
  free(bytes);
  run_free(&r);
}

/* Replace a scalar attribute by an integer, or remove it. */
static void spoil_attribute(const char *path, const char *object, const char *name,
                            const int64_t *value)
{
  hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  (void)H5Adelete_by_name(file, object, name, H5P_DEFAULT);
  if (value != NULL) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate_by_name(file, object, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT,
                                H5P_DEFAULT);
    (void)H5Awrite(a, H5T_NATIVE_INT64, value);
    (void)H5Aclose(a);
    (void)H5Sclose(space);
  }
  (void)H5Fclose(file);
}

/* Replace a dataset by one of another length or rank, or remove it. */
static void spoil_dataset(const char *path, const char *object, int rank, const hsize_t *n,
                          hid_t type)
{
  hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  (void)H5Ldelete(file, object, H5P_DEFAULT);
  if (n != NULL) {
    hid_t space = H5Screate_simple(rank, n, NULL);
    hid_t d = H5Dcreate2(file, object, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    (void)H5Dclose(d);
    (void)H5Sclose(space);
  }
  (void)H5Fclose(file);
}

static void test_read_of_newer_version_says_so(void)
{
  char path[300];
  write_small(path);
  spoil_attribute(path, "/", "format_version", &(int64_t){RUNFILE_VERSION + 1});
  check_refused(path, "newer unroll");
  spoil_attribute(path, "/", "format_version", NULL);
  check_refused(path, "format_version");
  spoil_attribute(path, "/", "format", &(int64_t){1});
  check_refused(path, "not a run file of unroll");
}

static void test_read_of_parts_that_do_not_fit_names_the_part(void)
{
  static const struct {
    const char *object;
    int rank;
    hsize_t n[3];
    const char *part;
  } parts[] = {
      {"/weights/layer0/W_xh", 2, {5, 12}, "/weights/layer0/W_xh"},
      {"/weights/layer0/W_hh", 2, {5, 4}, "/weights/layer0/W_hh"},
      {"/weights/layer1/b_h", 2, {5, 1}, "/weights/layer1/b_h"},
      {"/weights/output/b_q", 1, {10}, "/weights/output/b_q"},
      {"/weights/output/W_qh", 2, {11, 6}, "/weights/output/W_qh"},
      {"/optimizer/second/layer1/W_xh", 2, {4, 5}, "/optimizer/second/layer1/W_xh"},
      {"/vocab/count", 1, {12}, "/vocab/count"},
      {"/metrics/train/loss", 1, {3}, "/metrics/train/loss"},
      {"/state/h", 3, {2, 4, 5}, "/state/h"},
      {"/provenance/bytes", 1, {3}, "/provenance/bytes"},
      {"/diagnostics/norm_mean", 3, {2, 2, 7}, "/diagnostics/norm_mean"},
      {"/diagnostics/singular_value", 3, {2, 5, 2}, "/diagnostics/singular_value"},
      {"/diagnostics/growth", 2, {1, 2}, "/diagnostics/growth"},
  };
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) {
    char path[300];
    bool whole =
        strstr(parts[i].object, "count") != NULL || strstr(parts[i].object, "bytes") != NULL;
    write_small(path);
    spoil_dataset(path, parts[i].object, parts[i].rank, parts[i].n,
                  whole ? H5T_STD_I64LE : H5T_IEEE_F32LE);
    check_refused(path, parts[i].part);
  }
}

static void test_read_of_missing_or_wrong_parts_names_the_part(void)
{
  static const char *const datasets[] = {
      "/vocab/token",      "/vocab/count",           "/weights/output/b_q", "/weights/layer1",
      "/optimizer",        "/metrics/train/seconds", "/metrics/valid/step", "/provenance/sha256",
      "/diagnostics/step", "/diagnostics/norm_q50",  "/diagnostics/verdict"};
  static const char *const attributes[][2] = {{"/state", "step"},
                                              {"/state", "best_loss"},
                                              {"/provenance", "hosts"},
                                              {"/diagnostics", "lags"},
                                              {"/config", "command_line"}};
  char path[300];
  for (size_t i = 0; i < sizeof datasets / sizeof datasets[0]; ++i) {
    write_small(path);
    spoil_dataset(path, datasets[i], 0, NULL, H5T_IEEE_F32LE);
    check_refused(path, datasets[i]);
  }
  for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; ++i) {
    write_small(path);
    spoil_attribute(path, attributes[i][0], attributes[i][1], NULL);
    check_refused(path, attributes[i][1]);
  }
  write_small(path); /* numbers where strings belong */
  spoil_dataset(path, "/vocab/token", 1, (hsize_t[]){11}, H5T_IEEE_F32LE);
  check_refused(path, "/vocab/token");
}

static void test_read_of_flow_out_of_range_names_the_part(void)
{
  char path[300];
  write_small(path);
  spoil_attribute(path, "/diagnostics", "lags", &(int64_t){8});
  check_refused(path, "/diagnostics/norm_mean");
  spoil_attribute(path, "/diagnostics", "lags", &(int64_t){INT64_MAX});
  check_refused(path, "lags of /diagnostics");
  write_small(path);
  spoil_dataset(path, "/diagnostics/verdict", 2, (hsize_t[]){2, 2}, H5T_IEEE_F32LE);
  check_refused(path, "/diagnostics/verdict");

  hid_t text = H5Tcopy(H5T_C_S1); /* empty texts where verdicts belong */
  (void)H5Tset_size(text, H5T_VARIABLE);
  spoil_dataset(path, "/diagnostics/verdict", 2, (hsize_t[]){2, 2}, text);
  (void)H5Tclose(text);
  check_refused(path, "legal is vanishing, stable or exploding");
}

static void test_read_of_options_out_of_range_names_the_option(void)
{
  char path[300];
  write_small(path);
  spoil_attribute(path, "/config", "hidden", &(int64_t){0});
  check_refused(path, "hidden");
  spoil_attribute(path, "/config", "hidden", &(int64_t){6});
  check_refused(path, "W_qh");
  spoil_attribute(path, "/config", "hidden", &(int64_t){5});
  spoil_attribute(path, "/config", "level", &(int64_t){1});
  check_refused(path, "level");

  write_small(path); /* of V = 11 and H = 5, without an embedding */
  spoil_attribute(path, "/config", "embedding", &(int64_t){11});
  check_refused(path, "/weights/input/W_xe");
  spoil_attribute(path, "/config", "tied", &(int64_t){1});
  check_refused(path, "/config has tied, and embedding 11; legal is that of hidden, 5");
}

static void test_read_without_an_option_takes_its_default(void)
{
  char path[300];
  run *r = NULL;
  unroll_config fresh;
  unroll_config_init(&fresh);
  write_small(path);
  spoil_attribute(path, "/config", "lr", NULL);
  spoil_attribute(path, "/config", "checkpoint_every", NULL);
  CHECK_OK(runfile_read(path, &r));
  CU_ASSERT_EQUAL(r->config.lr, fresh.lr);
  CU_ASSERT_EQUAL(r->config.checkpoint_every.count, fresh.checkpoint_every.count);
  CU_ASSERT_EQUAL(r->config.seed, UINT64_MAX);
  run_free(&r);
}

static void test_read_of_a_locked_file_names_the_remedy(void)
{
  char path[300];
  write_small(path);
  int fd = open(path, O_RDWR);
  CU_ASSERT_EQUAL(flock(fd, LOCK_EX), 0);
  check_refused(path, "HDF5_USE_FILE_LOCKING=FALSE");
  (void)close(fd);
}

static herr_t own_printing(hid_t stack, void *context)
{
  (void)stack;
  (void)context;
  return 0;
}

static void test_failures_leave_the_printing_of_hdf5_as_it_was(void)
{
  char path[300];
  H5E_auto2_t before = NULL;
  H5E_auto2_t after = NULL;
  void *context = NULL;
  new_path(path);
  (void)H5Eget_auto2(H5E_DEFAULT, &before, &context);
  (void)H5Eset_auto2(H5E_DEFAULT, own_printing, path);
  check_refused(path, "");
  (void)H5Eget_auto2(H5E_DEFAULT, &after, &context);
  CU_ASSERT(after == own_printing && context == path);
  (void)H5Eset_auto2(H5E_DEFAULT, before, NULL);
}

/* ------------------------------------------------------------ check_output */

static void test_check_output_of_a_free_name_leaves_nothing(void)
{
  char path[300];
  new_path(path);
  CU_ASSERT_FALSE(runfile_exists(path));
  CHECK_OK(runfile_check_output(path, 0));
  CHECK_OK(runfile_check_output(path, 1));
  CU_ASSERT_EQUAL(entries_beside(path), 0);
}

static void test_check_output_of_an_existing_file_names_both_options(void)
{
  char path[300];
  new_path(path);
  test_write_file(path, "x", 1);
  CU_ASSERT(runfile_exists(path));
  CHECK_FAILS(runfile_check_output(path, 0), UNROLL_ERR_INPUT, "--resume");
  CU_ASSERT(one_line_with("--overwrite"));
  CU_ASSERT(one_line_with(path));
  CHECK_OK(runfile_check_output(path, 1));
  CU_ASSERT_EQUAL(entries_beside(path), 1);
}

static void test_check_output_where_no_file_can_be_is_refused(void)
{
  char path[300];
  char inside[400];
  new_path(path);
  (void)snprintf(inside, sizeof inside, "%s/run.h5", path);
  CHECK_FAILS(runfile_check_output(inside, 1), UNROLL_ERR_INPUT, "No such file or directory");
  test_write_file(path, "x", 1);
  CHECK_FAILS(runfile_check_output(inside, 1), UNROLL_ERR_INPUT, "Not a directory");
  (void)unlink(path);
  (void)mkdir(path, 0777);
  CHECK_FAILS(runfile_check_output(path, 1), UNROLL_ERR_INPUT, "folder");
  (void)rmdir(path);
  (void)mkfifo(path, 0666);
  CHECK_FAILS(runfile_check_output(path, 1), UNROLL_ERR_INPUT, "regular");
  CU_ASSERT(runfile_exists(path)); /* whoever reads it will say what it is */
  (void)unlink(path);
  CU_ASSERT_FALSE(runfile_exists(path));
  CHECK_FAILS(runfile_check_output("", 1), UNROLL_ERR_INPUT, "name");
}

/* -------------------------------------------------------------------- log */

/* Lines of the log beside a path, each checked to be one object of this kind; -1: something is not. */
static int count_lines(const char *path, const char *kind, uint64_t *last_step)
{
  char name[400];
  char line[4096];
  int n = 0;
  (void)snprintf(name, sizeof name, "%.*s.jsonl", (int)strlen(path) - 3, path);
  FILE *f = fopen(name, "r");
  if (f == NULL) { return -1; }
  while (n >= 0 && fgets(line, sizeof line, f) != NULL) {
    json_t *row = json_loads(line, 0, NULL);
    const char *found = json_string_value(json_object_get(row, "kind"));
    if (row == NULL || found == NULL || strchr(line, '\n') == NULL) {
      n = -1;
    } else if (strcmp(found, kind) == 0) {
      n += 1;
      *last_step = (uint64_t)json_integer_value(json_object_get(row, "step"));
    }
    json_decref(row);
  }
  (void)fclose(f);
  return n;
}

static void test_runlog_of_a_new_run_begins_empty_and_grows(void)
{
  char path[300];
  uint64_t step = 0;
  run *r = example_run(small);
  run *fresh = NULL;
  CHECK_OK(run_new(&fresh));
  new_path(path);
  CHECK_OK(runlog_start(path, 40, fresh));
  CU_ASSERT_EQUAL(count_lines(path, "train", &step), 0);
  CHECK_OK(runlog_train(path, 40, &r->train[0]));
  CHECK_OK(runlog_train(path, 40, &r->train[1])); /* its loss is NaN, which JSON does not have */
  CHECK_OK(runlog_valid(path, &r->valid[0]));
  CU_ASSERT_EQUAL(count_lines(path, "train", &step), 2);
  CU_ASSERT_EQUAL(step, 20);
  CU_ASSERT_EQUAL(count_lines(path, "valid", &step), 1);
  CHECK_OK(runlog_start(path, 40, fresh));
  CU_ASSERT_EQUAL(count_lines(path, "train", &step), 0);
  run_free(&fresh);
  run_free(&r);
}

static void test_runlog_row_has_every_column_to_the_last_bit(void)
{
  char path[300];
  size_t n = 0;
  run *r = example_run(small);
  new_path(path);
  CHECK_OK(runlog_train(path, 40, &r->train[0]));
  memcpy(strrchr(path, '.'), ".jsonl", sizeof ".jsonl");
  unsigned char *text = slurp(path, &n);
  json_t *row = json_loadb((char *)text, n, 0, NULL);
  CU_ASSERT_EQUAL(json_object_size(row), schema_train.n + 2);
  CU_ASSERT_EQUAL(json_integer_value(json_object_get(row, "steps")), 40);
  for (size_t k = 0; k < schema_train.n; ++k) {
    const schema_field *f = &schema_train.fields[k];
    const void *at = (const char *)&r->train[0] + f->offset;
    json_t *value = json_object_get(row, f->name);
    if (f->type == SCHEMA_REAL) {
      CU_ASSERT(json_is_real(value) && json_real_value(value) == *(const double *)at);
    } else {
      CU_ASSERT(json_is_integer(value) &&
                (uint64_t)json_integer_value(value) == *(const uint64_t *)at);
    }
  }
  json_decref(row);
  free(text);
  run_free(&r);
}

static void test_runlog_of_flow_has_the_numbers_of_each_layer(void)
{
  char path[300];
  size_t n = 0;
  run *r = example_run(small); /* layers 0 and 1 */
  const unroll_gradflow flow = run_flow_view(&r->flows, 1);
  new_path(path);
  CHECK_OK(runlog_flow(path, &flow));
  memcpy(strrchr(path, '.'), ".jsonl", sizeof ".jsonl");
  unsigned char *text = slurp(path, &n);
  json_t *row = json_loadb((char *)text, n, 0, NULL);
  CU_ASSERT_EQUAL(json_object_size(row), 10);
  CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(row, "kind")), "diagnose");
  CU_ASSERT_EQUAL(json_integer_value(json_object_get(row, "step")), 40);
  for (size_t l = 0; l < 2; ++l) {
    CU_ASSERT_EQUAL(json_real_value(json_array_get(json_object_get(row, "growth"), l)),
                    flow.growth[l]);
    CU_ASSERT_EQUAL(json_real_value(json_array_get(json_object_get(row, "spectral_radius"), l)),
                    flow.spectral_radius[l]);
    CU_ASSERT_EQUAL(json_integer_value(json_array_get(json_object_get(row, "half_lag"), l)),
                    40 + (json_int_t)l);
    CU_ASSERT(json_is_null(json_array_get(json_object_get(row, "percent_lag"), l)));
    CU_ASSERT_STRING_EQUAL(json_string_value(json_array_get(json_object_get(row, "verdict"), l)),
                           unroll_flow_text(flow.verdict[l]));
  }
  json_decref(row);
  free(text);
  run_free(&r);
}

static void test_runlog_start_on_resume_cuts_back_to_the_checkpoint(void)
{
  char path[300];
  uint64_t step = 0;
  run *r = example_run(small); /* train rows at 10, 20, 30, 40; valid at 20, 40; flow at 10, 40 */
  new_path(path);
  CHECK_OK(runlog_start(path, 40, r));
  CU_ASSERT_EQUAL(count_lines(path, "diagnose", &step), 2);
  CU_ASSERT_EQUAL(step, 40);
  CU_ASSERT_EQUAL(count_lines(path, "train", &step), 4);
  CU_ASSERT_EQUAL(count_lines(path, "valid", &step), 2);
  CHECK_OK(runlog_train(path, 40, &(run_train_row){.step = 50})); /* after the checkpoint */
  CHECK_OK(runlog_start(path, 40, r));
  CU_ASSERT_EQUAL(count_lines(path, "train", &step), 4);
  CU_ASSERT_EQUAL(step, 40);
  r->state.step = 25;
  CHECK_OK(runlog_start(path, 40, r));
  CU_ASSERT_EQUAL(count_lines(path, "train", &step), 2);
  CU_ASSERT_EQUAL(count_lines(path, "valid", &step), 1);
  CU_ASSERT_EQUAL(step, 20);
  CU_ASSERT_EQUAL(count_lines(path, "diagnose", &step), 1);
  CU_ASSERT_EQUAL(step, 10);
  run_free(&r);
}

static void test_runlog_where_it_cannot_be_names_path_and_reason(void)
{
  CHECK_FAILS(runlog_train("/nowhere/run.h5", 40, &(run_train_row){0}), UNROLL_ERR_IO,
              "No such file");
  CU_ASSERT(one_line_with("/nowhere/run.jsonl"));
}

/* ------------------------------------------------------------- files of a run */

static void test_own_is_of_all_files_of_a_run_and_no_others(void)
{
  static const char *const own[] = {"run.h5",           "run.best.h5", "run.1.h5",
                                    "run.12.h5",        "run.jsonl",   "run.h5.471.tmp",
                                    "run.h5.471.1.tmp", "./run.h5",    "run.best.h5.3.tmp"};
  static const char *const other[] = {
      "run",           "run.txt",          "run.h5x",      "run.x.h5",
      "run..h5",       "run2.h5",          "arun.h5",      "run.12a.h5",
      "run.besth5",    "run.h5.tmp",       "run.h5..tmp",  "run.jsonl.txt",
      "run.best.1.h5", "none_such/run.h5", "run.h5.x.tmp", ""};
  for (size_t i = 0; i < sizeof own / sizeof own[0]; ++i) { CU_ASSERT(own_is("run.h5", own[i])); }
  for (size_t i = 0; i < sizeof other / sizeof other[0]; ++i) {
    CU_ASSERT(!own_is("run.h5", other[i]));
  }
  CU_ASSERT(own_is("run", "run") && own_is("run", "run.best") && own_is("run", "run.3") &&
            own_is("run", "run.jsonl") && own_is("run", "run.5.tmp"));
  CU_ASSERT(!own_is("run", "run.h5") && !own_is("run", "runs"));
  CU_ASSERT(own_is("/tmp/run.h5", "/tmp/../tmp/run.jsonl") && !own_is("/tmp/run.h5", "/run.h5"));
}

int main(void)
{
  static const struct test_case cases[] = {
      {"write, read: every kind of run", test_write_read_of_every_kind_returns_the_same},
      {"write, read: empty parts", test_write_read_of_empty_parts_returns_the_same},
      {"write, read: values that are not finite",
       test_write_read_of_values_not_finite_returns_the_same},
      {"write, read: long command line", test_write_read_of_a_long_command_line_returns_the_same},
      {"write, read: large tensors", test_write_read_of_large_tensors_returns_the_same},
      {"write: shapes of the equations", test_write_stores_the_shapes_of_the_equations},
      {"write: twice gives the same bytes", test_write_twice_gives_the_same_bytes},
      {"add: tables grow", test_add_grows_the_tables},
      {"add: gradient flow", test_add_flow_keeps_what_was_added},
      {"write: a link in its way", test_write_with_a_link_in_its_way_takes_another_name},
      {"write: a full disk keeps the old file", test_write_to_full_disk_keeps_the_old_file},
      {"write: over a locked file", test_write_over_a_locked_file_replaces_it},
      {"write: over a large file", test_write_over_a_large_file_does_not_read_it},
      {"write: where it cannot", test_write_where_it_cannot_names_the_reason},
      {"read: no run file", test_read_of_no_run_file_says_what_it_is},
      {"read: foreign HDF5", test_read_of_foreign_hdf5_says_so},
      {"read: truncated", test_read_of_truncated_file_is_refused_at_every_length},
      {"read: newer version", test_read_of_newer_version_says_so},
      {"read: parts that do not fit", test_read_of_parts_that_do_not_fit_names_the_part},
      {"read: missing or wrong parts", test_read_of_missing_or_wrong_parts_names_the_part},
      {"read: options out of range", test_read_of_options_out_of_range_names_the_option},
      {"read: gradient flow out of range", test_read_of_flow_out_of_range_names_the_part},
      {"read: option of a younger program", test_read_without_an_option_takes_its_default},
      {"read: locked", test_read_of_a_locked_file_names_the_remedy},
      {"read: HDF5's printing is restored", test_failures_leave_the_printing_of_hdf5_as_it_was},
      {"check_output: free name", test_check_output_of_a_free_name_leaves_nothing},
      {"check_output: existing file", test_check_output_of_an_existing_file_names_both_options},
      {"check_output: impossible places", test_check_output_where_no_file_can_be_is_refused},
      {"runlog: new run", test_runlog_of_a_new_run_begins_empty_and_grows},
      {"runlog: columns and bits", test_runlog_row_has_every_column_to_the_last_bit},
      {"runlog: gradient flow", test_runlog_of_flow_has_the_numbers_of_each_layer},
      {"runlog: resume", test_runlog_start_on_resume_cuts_back_to_the_checkpoint},
      {"runlog: impossible place", test_runlog_where_it_cannot_be_names_path_and_reason},
      {"files of a run: all and no others", test_own_is_of_all_files_of_a_run_and_no_others},
  };
  (void)unsetenv("HDF5_USE_FILE_LOCKING"); /* one case needs locks */
  return run_cases("runfile", sizeof cases / sizeof cases[0], cases);
}
