/*
 * Training through the public interface, on small texts: the contract of design.md section 5, resume,
 * clipping, schedules, what happens to numbers that are not finite, and that scoring agrees.
 *
 * A run of P ranks takes the first P ranks of the world into a communicator of its own, so that one
 * program compares all P up to its own number of ranks.
 */
#include "support.h"

#include "base/memory.h"
#include "runfile/keep.h"
#include "runfile/runfile.h"
#include "runfile/schema.h"

#include <math.h>
#include <mpi.h>
#include <omp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unroll/model.h>
#include <unroll/train.h>

/* ------------------------------------------------------------------ helpers */

static char folder[256];

/* The same folder on every rank; made once. */
static void use_folder(void)
{
  if (folder[0] != '\0') { return; }
  if (test_rank == 0) { test_folder(folder); }
  MPI_Bcast(folder, sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
}

static const char *in_folder(const char *name)
{
  static char paths[8][400];
  static size_t next;
  char *path = paths[next++ % 8];
  use_folder();
  (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

/* A text of n words of some 300, frequent ones first in a list, in lines of ten. */
static void write_text(const char *path, size_t n)
{
  static const char *const words[] = {"the", "of",  "and", "to",  "na\xc3\xafve", "in", "that",
                                      "is",  "was", "he",  "for", "it",           "as", "Penguin"};
  char *text = calloc(n + 1, 12);
  size_t used = 0;
  uint64_t x = 88172645463325252u;
  if (text == NULL) { abort(); }
  for (size_t i = 0; i < n; ++i) {
    x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    double u = (double)(x >> 11) * 0x1p-53;
    size_t k = (size_t)(u * u * u * 300);
    char rare[8];
    (void)snprintf(rare, sizeof rare, "w%zu", k);
    used +=
        (size_t)sprintf(text + used, "%s%c", k < sizeof words / sizeof words[0] ? words[k] : rare,
                        i % 10 == 9 ? '\n' : ' ');
  }
  test_write_file(path, text, used);
  free(text);
}

/* The file of that text, written once. */
static const char *text_of(size_t n)
{
  static struct {
    size_t n;
    char path[400];
  } texts[4];
  size_t i = 0;
  while (texts[i].n != 0 && texts[i].n != n) { ++i; }
  if (texts[i].n == 0) {
    char name[32];
    (void)snprintf(name, sizeof name, "%zu-words.txt", n);
    (void)snprintf(texts[i].path, sizeof texts[i].path, "%s", in_folder(name));
    texts[i].n = n;
    if (test_rank == 0) { write_text(texts[i].path, n); }
    MPI_Barrier(MPI_COMM_WORLD);
  }
  return texts[i].path;
}

/*
 * Lines of words that differ more and more: 0 to 700 bytes long, some empty, so that there are paragraphs; a few are
 * longer than a chunk (net/segments.h). All distinct words together are more than a piece of 4 rows may have.
 */
static const char *lines_text(void)
{
  static char path[400];
  if (path[0] != '\0') { return path; }
  (void)snprintf(path, sizeof path, "%s", in_folder("lines.txt"));
  if (test_rank == 0) {
    char *text = calloc(300, 800);
    size_t used = 0, word = 0;
    if (text == NULL) { abort(); }
    for (size_t line = 0; line < 240; ++line) {
      size_t end = used + (line % 7 == 3 ? 0 : line % 11 == 5 ? 690 : line * 37 % 120);
      for (; used < end; ++word) {
        used += (size_t)sprintf(text + used, "%zu ", word * 7919 % 3001);
      }
      text[used++] = '\n';
    }
    test_write_file(path, text, used);
    free(text);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  return path;
}

/* Some 4000 words, nearly all of them distinct, in lines of ten. */
static const char *words_text(void)
{
  static char path[400];
  if (path[0] != '\0') { return path; }
  (void)snprintf(path, sizeof path, "%s", in_folder("words.txt"));
  if (test_rank == 0) {
    char *text = calloc(4000, 8);
    size_t used = 0;
    if (text == NULL) { abort(); }
    for (size_t i = 0; i < 4000; ++i) {
      used += (size_t)sprintf(text + used, "%zu%c", i * 7919 % 3701, i % 10 == 9 ? '\n' : ' ');
    }
    test_write_file(path, text, used);
    free(text);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  return path;
}

/* Options by name and value, up to NULL, over those that make a run small. */
static unroll_config config_of(const char *out, ...)
{
  static const char *const small[][2] = {
      {"hidden", "19"},     {"steps", "6"},     {"batch", "16"},       {"epochs", "2"},
      {"max-steps", "24"},  {"log-every", "5"}, {"valid-every", "10"}, {"checkpoint-every", "0"},
      {"overwrite", "yes"},
  };
  unroll_config config;
  va_list list;
  const char *name = NULL;

  unroll_config_init(&config);
  for (size_t i = 0; i < sizeof small / sizeof small[0]; ++i) {
    CHECK_OK(unroll_config_set(&config, small[i][0], small[i][1]));
  }
  CHECK_OK(unroll_config_set(&config, "out", in_folder(out)));
  va_start(list, out);
  while ((name = va_arg(list, const char *)) != NULL) {
    CHECK_OK(unroll_config_set(&config, name, va_arg(list, const char *)));
  }
  va_end(list);
  memset(config.given, 0,
         sizeof config.given); /* nothing was typed: with --resume all may come from the file */
  return config;
}

/* Train on the first P ranks with so many threads. The same status on every rank of the world. */
static unroll_status train_on(int P, int threads, const unroll_config *config, const char *text,
                              const unroll_observer *observer)
{
  MPI_Comm some = MPI_COMM_NULL;
  int verdict[2] = {0, 0}, before = omp_get_max_threads(); /* status, whether all ranks had it */

  MPI_Comm_split(MPI_COMM_WORLD, test_rank < P ? 0 : MPI_UNDEFINED, test_rank, &some);
  if (test_rank < P) {
    unroll_comm *comm = NULL;
    int low = 0, high = 0;
    omp_set_num_threads(threads);
    unroll_status st = unroll_comm_new(some, &comm);
    if (st == UNROLL_OK) { st = unroll_train(comm, config, 1, &text, "test", observer); }
    omp_set_num_threads(before);
    unroll_comm_free(&comm);
    MPI_Allreduce(&(int){(int)st}, &low, 1, MPI_INT, MPI_MIN, some);
    MPI_Allreduce(&(int){(int)st}, &high, 1, MPI_INT, MPI_MAX, some);
    verdict[0] = (int)st;
    verdict[1] = low == high;
    MPI_Comm_free(&some);
  }
  MPI_Bcast(verdict, 2, MPI_INT, 0, MPI_COMM_WORLD);
  CU_ASSERT(verdict[1]);
  return (unroll_status)verdict[0];
}

static int trained(int P, int threads, const unroll_config *config, const char *text)
{
  unroll_status st = train_on(P, threads, config, text, NULL);
  if (st != UNROLL_OK && test_rank == 0) { fprintf(stderr, "%s\n", unroll_message()); }
  return st == UNROLL_OK;
}

/* On rank 0 the run of a file of the folder, elsewhere NULL; to be freed with run_free. */
static run *read_run(const char *name)
{
  run *r = NULL;
  if (test_rank == 0) { CHECK_OK(runfile_read(in_folder(name), &r)); }
  return r;
}

static int same_bytes(const char *what, const void *a, const void *b, size_t n)
{
  if (memcmp(a, b, n) == 0) { return 1; }
  fprintf(stderr, "different %s\n", what);
  return 0;
}

static int same_row(const run_train_row *a, const run_train_row *b)
{
  return a->step == b->step && a->tokens == b->tokens && a->skipped == b->skipped &&
         memcmp(&a->loss, &b->loss, sizeof a->loss) == 0 &&
         memcmp(&a->perplexity, &b->perplexity, sizeof a->loss) == 0 &&
         memcmp(&a->grad_norm, &b->grad_norm, sizeof a->loss) == 0 &&
         memcmp(&a->clip_scale, &b->clip_scale, sizeof a->loss) == 0 &&
         memcmp(&a->learning_rate, &b->learning_rate, sizeof a->loss) == 0;
}

/* All bits but those of times. On ranks other than 0: true. */
static int same_runs(const char *first, const char *second)
{
  if (test_rank != 0) { return 1; }
  run *a = read_run(first), *b = read_run(second);
  int same = a != NULL && b != NULL && a->params->n == b->params->n &&
             a->n_moments == b->n_moments && a->n_train == b->n_train && a->n_valid == b->n_valid &&
             a->state.n_hidden == b->state.n_hidden;
  if (!same) {
    fprintf(stderr, "different sizes\n");
  } else {
    size_t bytes = a->params->n * sizeof *a->params->values;
    same &= same_bytes("weights", a->params->values, b->params->values, bytes);
    for (size_t k = 0; k < a->n_moments; ++k) {
      same &= same_bytes("moments", a->moments[k], b->moments[k], bytes);
    }
    same &= same_bytes("hidden states", a->state.hidden, b->state.hidden,
                       a->state.n_hidden * sizeof *a->state.hidden);
    same &= same_bytes("validations", a->valid, b->valid, a->n_valid * sizeof *a->valid);
    for (size_t i = 0; i < a->n_train; ++i) { same &= same_row(&a->train[i], &b->train[i]); }
    for (size_t k = 0; k < schema_state.n; ++k) {
      const schema_field *f = &schema_state.fields[k];
      size_t size = f->type == SCHEMA_FLAG ? sizeof(int) : sizeof(double);
      if (strstr(f->name, "seconds") != NULL) { continue; }
      same &=
          same_bytes(f->name, (char *)&a->state + f->offset, (char *)&b->state + f->offset, size);
    }
  }
  run_free(&a);
  run_free(&b);
  return same;
}

/* The largest power of two of ranks to be had here. */
static int most_ranks(void)
{
  int P = 1;
  while (2 * P <= test_size) { P *= 2; }
  return P;
}

/* ----------------------------------------------------------------- contract */

/* Trained once on one rank and one thread, then on every P that can share the shards with other threads: the same
 * bits. */
static void check_contract(const unroll_config *plain, const char *text)
{
  unroll_config config = *plain;
  (void)snprintf(config.out, sizeof config.out, "%s", in_folder("one.h5"));
  CHECK_ALL(trained(1, 1, &config, text));
  (void)snprintf(config.out, sizeof config.out, "%s", in_folder("many.h5"));
  unroll_config resolved = config;
  CHECK_OK(unroll_config_resolve(&resolved));
  for (int P = 1, threads = 3; P <= most_ranks() && resolved.shards % (uint64_t)P == 0;
       P *= 2, threads = threads == 3 ? 2 : 3) {
    CHECK_ALL(trained(P, threads, &config, text));
    CHECK_ALL(same_runs("one.h5", "many.h5"));
  }
}

static void test_contract_sequential_characters(void)
{
  unroll_config config = config_of("x.h5", "optimizer", "adam", "init", "orthogonal", NULL);
  check_contract(&config, text_of(1200));
}

static void test_contract_random_words_two_layers(void)
{
  unroll_config config = config_of("x.h5", "partition", "random", "level", "word", "layers", "2",
                                   "optimizer", "momentum", "lr", "0.1", NULL);
  check_contract(&config, text_of(2400));
}

static void test_contract_relu_sgd_bytes(void)
{
  unroll_config config = config_of("x.h5", "activation", "relu", "level", "byte", "optimizer",
                                   "sgd", "lr", "0.5", "layers", "2", "clip", "0.25", NULL);
  check_contract(&config, text_of(1200));
}

/* More hidden units than a tile, an odd shard of several sequences, a gradient of several norm blocks. */
static void test_contract_odd_sizes(void)
{
  unroll_config config = config_of("x.h5", "hidden", "67", "batch", "24", "shards", "24", "steps",
                                   "11", "max-steps", "8", NULL);
  check_contract(&config, text_of(1200));
  (void)unroll_config_set(&config, "batch", "40");
  (void)unroll_config_set(&config, "shards", "8");
  check_contract(&config, text_of(1200));
}

/* Masks of both kinds, in windows and in segments. */
static void test_contract_dropout(void)
{
  unroll_config config =
      config_of("x.h5", "layers", "2", "dropout", "0.3", "average", "ema", "average-decay", "0.7",
                "max-steps", "12", "penalty-activation", "2", "penalty-change", "1", NULL);
  check_contract(&config, text_of(1200));
  config = config_of("x.h5", "cell", "lstm", "bptt", "full", "dropout", "0.2", "dropout-kind",
                     "window", "dropout-weights", "0.4", "max-steps", "2", NULL);
  config.steps = 64; /* the default: not for full BPTT */
  check_contract(&config, text_of(2400));
}

/* A weight of W_hh that is dropped in an update has no gradient: in the first one about p of them do not move. */
static void test_dropped_weights_do_not_move(void)
{
  unroll_config config = config_of("x.h5", "optimizer", "sgd", "max-steps", "1", "valid-fraction",
                                   "0", "dropout-weights", "0.4", "cell", "gru", NULL);
  unroll_params *start = NULL;
  double still = 0.0, all = 0.0;
  CHECK_ALL(trained(most_ranks(), 2, &config, text_of(1200)));
  run *r = read_run("x.h5");
  if (r == NULL) { return; }
  CHECK_OK(unroll_params_new(&r->params->shape, &start));
  CHECK_OK(unroll_params_start(start, &(unroll_start){.seed = 1, .forget_bias = 1.0}));
  const unroll_tensor *W = unroll_params_find(start, "layer0", "W_hh");
  for (size_t i = 0; i < W->rows * W->cols; ++i) {
    const size_t at = unroll_tensor_index(W, i / W->cols, i % W->cols);
    all += 1;
    still += start->values[at] == r->params->values[at];
  }
  CU_ASSERT(fabs(still - 0.4 * all) < 5 * sqrt(0.4 * 0.6 * all));
  unroll_params_free(&start);
  run_free(&r);
}

/* ---------------------------------------------------------------- strategies */

/* Most tokens of an update, from a report for each; without a file, on ranks other than 0, none. */
static uint64_t most_tokens(const char *name)
{
  run *r = read_run(name);
  uint64_t most = 0, before = 0;
  for (size_t i = 0; r != NULL && i < r->n_train; ++i) {
    CU_ASSERT_EQUAL(r->train[i].step, i + 1);
    most = r->train[i].tokens - before > most ? r->train[i].tokens - before : most;
    before = r->train[i].tokens;
  }
  run_free(&r);
  return most;
}

/* Had some piece of so many rows more than the 256 steps of a chunk, so that states were recomputed? */
static int had_long_pieces(const char *name, uint64_t rows)
{
  return test_rank != 0 || most_tokens(name) > 256 * rows;
}

static void test_contract_full_streams(void)
{
  unroll_config config = config_of("x.h5", "bptt", "full", "layers", "2", "max-steps", "3",
                                   "epochs", "3", "log-every", "1", NULL);
  config.steps = 64; /* the default: not for full BPTT */
  check_contract(&config, text_of(2400));
  CHECK_ALL(had_long_pieces("one.h5", 16));
  (void)unroll_config_set(&config, "batch", "24");
  (void)unroll_config_set(&config, "shards", "12"); /* a group of three below the tree */
  check_contract(&config, text_of(2400));
  (void)unroll_config_set(&config, "shards", "4"); /* six sequences in each shard */
  check_contract(&config, text_of(2400));
}

/*
 * States of more than twice 64 MiB on one rank (4 sequences of 34,000 steps, h of 130 units twice), so that it recomputes
 * them in three segments, two ranks in two, and more in one.
 */
static void test_contract_full_in_segments(void)
{
  unroll_config config = config_of("x.h5", "bptt", "full", "batch", "4", "hidden", "130",
                                   "valid-fraction", "0", "max-steps", "1", "log-every", "1", NULL);
  check_contract(&config, text_of(36000));
  CU_ASSERT(test_rank != 0 || most_tokens("one.h5") > 34000 * 4);
}

static void test_contract_full_lines_and_paragraphs(void)
{
  unroll_config config =
      config_of("x.h5", "bptt", "full", "sequences", "paragraph", "partition", "random", "batch",
                "4", "valid-fraction", "0.2", "log-every", "1", "epochs", "3", NULL);
  check_contract(&config, lines_text());
  config = config_of("x.h5", "bptt", "full", "sequences", "line", "batch", "12", "shards", "12",
                     "valid-fraction", "0.2", "activation", "relu", "layers", "2", NULL);
  check_contract(&config, lines_text());
}

static void test_contract_randomized(void)
{
  unroll_config config = config_of("x.h5", "bptt", "randomized", "steps", "150", "log-every", "1",
                                   "layers", "2", "epochs", "4", NULL);
  check_contract(&config, text_of(2400));
  CHECK_ALL(had_long_pieces("one.h5", 16));
  (void)unroll_config_set(&config, "batch", "24");
  (void)unroll_config_set(&config, "shards", "12");
  (void)unroll_config_set(&config, "steps", "9");
  check_contract(&config, text_of(2400));
}

static void test_contract_stride(void)
{
  unroll_config config =
      config_of("x.h5", "steps", "12", "stride", "5", "layers", "2", "optimizer", "adam", NULL);
  check_contract(&config, text_of(1200));
  (void)unroll_config_set(&config, "stride", "1");
  check_contract(&config, text_of(1200));
}

/* More words than a piece has tokens: only touched rows of the input table travel, of long pieces too. */
static void test_contract_of_touched_rows(void)
{
  unroll_config config =
      config_of("x.h5", "bptt", "randomized", "level", "word", "steps", "150", "batch", "4",
                "log-every", "1", "valid-every", "0", "optimizer", "adam", "seed", "3", NULL);
  check_contract(&config, words_text());
  CHECK_ALL(had_long_pieces("one.h5", 4));
  run *r = read_run("one.h5");
  CU_ASSERT(r == NULL || r->params->shape.V > most_tokens("one.h5"));
  run_free(&r);
  config =
      config_of("x.h5", "bptt", "full", "sequences", "line", "level", "word", "partition", "random",
                "batch", "24", "shards", "12", "valid-fraction", "0.2", "optimizer", "sgd", NULL);
  check_contract(&config, words_text());
}

/* A table of embeddings below the layers: dense, then of touched rows alone, in windows and in long pieces. */
static void test_contract_of_embeddings(void)
{
  unroll_config config =
      config_of("x.h5", "embedding", "35", "layers", "2", "cell", "lstm", "dropout-embedding",
                "0.3", "dropout-words", "0.2", "dropout-weights", "0.5", NULL);
  check_contract(&config, text_of(1200));
  config = config_of("x.h5", "embedding", "8", "level", "word", "batch", "24", "shards", "12",
                     "optimizer", "sgd", "lr", "0.5", "clip", "0.25", "average", "asgd", NULL);
  check_contract(&config, words_text());
  config = config_of("x.h5", "embedding", "8", "bptt", "randomized", "level", "word", "steps",
                     "150", "batch", "4", "log-every", "1", "valid-every", "0", "dropout-embedding",
                     "0.3", "dropout-kind", "window", "dropout-words", "0.2", NULL);
  check_contract(&config, words_text());
  CHECK_ALL(had_long_pieces("one.h5", 4));
}

/* One table of embeddings and output weights: its two gradients are summed over the ranks each by itself. */
static void test_contract_of_a_tied_table(void)
{
  unroll_config config =
      config_of("x.h5", "embedding", "19", "tied", "yes", "layers", "2", "cell", "lstm", NULL);
  check_contract(&config, text_of(1200));
  config = config_of("x.h5", "embedding", "19", "tied", "yes", "level", "word", "batch", "24",
                     "shards", "12", "optimizer", "sgd", "lr", "0.5", "clip", "0.25", NULL);
  check_contract(&config, words_text());
  config =
      config_of("x.h5", "embedding", "19", "tied", "yes", "bptt", "randomized", "level", "word",
                "steps", "150", "batch", "4", "log-every", "1", "valid-every", "0", NULL);
  check_contract(&config, words_text());
  CHECK_ALL(had_long_pieces("one.h5", 4));
}

/* An epoch of lines or paragraphs trains on every token of the text once. */
static void test_epoch_of_sequences_has_all_tokens(void)
{
  static const char *const kinds[] = {"line", "paragraph"};
  for (int i = 0; i < 2; ++i) {
    unroll_config config =
        config_of("one.h5", "bptt", "full", "sequences", kinds[i], "partition", "random", "batch",
                  "4", "max-steps", "0", "valid-fraction", "0.2", NULL);
    CHECK_ALL(trained(most_ranks() < 4 ? most_ranks() : 4, 1, &config, lines_text()));
    run *r = read_run("one.h5");
    CU_ASSERT(r == NULL || (r->state.epoch == 2 && r->provenance.train_tokens > 1000 &&
                            r->state.tokens == 2 * r->provenance.train_tokens));
    run_free(&r);
  }
}

/* Three ranks keep no tree of a power of two, but repeat themselves and are close to one rank. */
static void test_contract_three_ranks_repeat_themselves(void)
{
  unroll_config config = config_of("a.h5", "batch", "48", "shards", "12", "steps", "4", NULL);
  if (test_size < 3) { return; }
  CHECK_ALL(trained(3, 1, &config, text_of(1200)));
  (void)unroll_config_set(&config, "out", in_folder("b.h5"));
  CHECK_ALL(trained(3, 2, &config, text_of(1200)));
  CHECK_ALL(same_runs("a.h5", "b.h5"));

  CHECK_ALL(trained(1, 1, &config, text_of(1200)));
  run *three = read_run("a.h5"), *one = read_run("b.h5");
  if (three != NULL && one != NULL) {
    const run_train_row *x = &three->train[three->n_train - 1], *y = &one->train[one->n_train - 1];
    CU_ASSERT_DOUBLE_EQUAL(x->loss, y->loss, 1e-4);
    CU_ASSERT_DOUBLE_EQUAL(x->grad_norm, y->grad_norm, 1e-3);
  }
  run_free(&one);
  run_free(&three);
}

static void test_ranks_that_cannot_share_the_shards_are_refused(void)
{
  unroll_config config = config_of("none.h5", "shards", "16", NULL);
  if (test_size < 3) { return; }
  CHECK_ALL(train_on(3, 1, &config, text_of(1200), NULL) == UNROLL_ERR_ARG);
  if (test_rank == 0) {
    CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), "1, 2, 4, 8, 16"));
    CU_ASSERT_FALSE(runfile_exists(in_folder("none.h5")));
  }
}

/* ------------------------------------------------------------------- resume */

/* A run cut at each of these steps equals the one that never stopped; the other life has another P. */
static void check_resume_of(const char *text, const char *max_steps, int n, const int *cuts,
                            const unroll_config *plain)
{
  unroll_config whole = *plain;
  (void)unroll_config_set(&whole, "out", in_folder("whole.h5"));
  (void)unroll_config_set(&whole, "max-steps", max_steps);
  CHECK_ALL(trained(1, 1, &whole, text));

  for (int i = 0; i < n; ++i) {
    char cut[16];
    unroll_config part = *plain;
    (void)snprintf(cut, sizeof cut, "%d", cuts[i]);
    (void)unroll_config_set(&part, "out", in_folder("part.h5"));
    (void)unroll_config_set(&part, "max-steps", cut);
    CHECK_ALL(trained(i % 2 == 0 ? most_ranks() : 1, 1, &part, text));
    part.overwrite = false;
    part.resume = true;
    memset(part.given, 0, sizeof part.given);
    (void)unroll_config_set(&part, "max-steps", max_steps);
    CHECK_ALL(trained(i % 2 == 0 ? 1 : most_ranks(), 2, &part, text));
    CHECK_ALL(same_runs("whole.h5", "part.h5"));
  }
}

static void check_resume(const char *max_steps, int n, const int *cuts, const unroll_config *plain)
{
  check_resume_of(text_of(1200), max_steps, n, cuts, plain);
}

/* Cuts inside a report interval, at its end, at a validation, at the end and beginning of an epoch. */
static void test_resume_equals_not_stopping(void)
{
  static const int cuts[] = {1, 5, 7, 20, 56, 57, 58};
  unroll_config config =
      config_of("x.h5", "schedule", "cosine", "warmup", "3", "epochs", "2", "layers", "2", NULL);
  check_resume("0", sizeof cuts / sizeof cuts[0], cuts, &config);
}

static void test_resume_of_dropout(void)
{
  static const int cuts[] = {13, 20};
  unroll_config config =
      config_of("x.h5", "layers", "2", "dropout", "0.3", "average", "ema", "dropout-weights", "0.2",
                "penalty-activation", "2", "penalty-change", "1", "windows", "random", "offset",
                "random", "steps", "10", "epochs", "5", NULL);
  check_resume("27", 2, cuts, &config);
}

static void test_resume_of_a_random_partition(void)
{
  static const int cuts[] = {13, 57};
  unroll_config config =
      config_of("x.h5", "partition", "random", "optimizer", "momentum", "lr", "0.05", NULL);
  check_resume("70", 2, cuts, &config);
}

/* The table and its moments come back, of a run on characters and of one on touched rows. */
static void test_resume_with_embeddings(void)
{
  static const int cuts[] = {7, 20};
  unroll_config config = config_of("x.h5", "embedding", "9", "cell", "gru", "dropout-embedding",
                                   "0.3", "dropout-words", "0.2", NULL);
  check_resume("30", 2, cuts, &config);
  config = config_of("x.h5", "embedding", "9", "level", "word", "steps", "3", "optimizer",
                     "momentum", "lr", "0.1", NULL);
  check_resume_of(words_text(), "30", 2, cuts, &config);
  config = config_of("x.h5", "embedding", "19", "tied", "yes", "level", "word", "steps", "3", NULL);
  check_resume_of(words_text(), "30", 1, cuts, &config);
}

/* Pieces of random lengths, longer than a chunk too: where the next one begins is part of the state. */
static void test_resume_of_randomized_pieces(void)
{
  static const int cuts[] = {1, 3, 8, 10};
  unroll_config config = config_of("x.h5", "bptt", "randomized", "steps", "100", "epochs", "4",
                                   "layers", "2", "log-every", "3", NULL);
  check_resume_of(text_of(2400), "0", 4, cuts, &config);
  static const int many[] = {5, 17, 29, 53};
  config = config_of("x.h5", "bptt", "randomized", "steps", "10", NULL);
  check_resume("61", 4, many, &config);
}

static void test_resume_of_full_sequences(void)
{
  static const int streams[] = {1, 2}, lines[] = {1, 7, 12, 13};
  unroll_config config = config_of("x.h5", "bptt", "full", "epochs", "4", NULL);
  check_resume_of(text_of(2400), "0", 2, streams, &config);
  config = config_of("x.h5", "bptt", "full", "sequences", "line", "partition", "random", "batch",
                     "8", "epochs", "3", "valid-fraction", "0.2", NULL);
  check_resume_of(lines_text(), "0", 4, lines, &config);
}

static void test_resume_of_a_stride(void)
{
  static const int cuts[] = {1, 2, 3,
                             50}; /* windows that begin the text, are cut off there, or neither */
  unroll_config config = config_of("x.h5", "steps", "12", "stride", "5", "epochs", "1", NULL);
  check_resume("60", 4, cuts, &config);
}

/* Best value, patience, the factor of the schedule and whether the average has begun are part of the state. */
static void test_resume_of_a_plateau(void)
{
  static const int cuts[] = {4, 9, 14, 30};
  unroll_config config = config_of("x.h5", "schedule", "plateau", "patience", "2", "valid-every",
                                   "2", "optimizer", "sgd", "lr", "2", "clip", "0", "early-stop",
                                   "30", "average", "nt-asgd", "average-patience", "1", NULL);
  check_resume("40", 4, cuts, &config);
  run *r = read_run("whole.h5");
  CU_ASSERT(r == NULL || (r->state.averaged > 12 && r->state.averaged < 36));
  run_free(&r);
}

/* Updates skipped before, at and after the cut; their learning rates are in the report all the same. */
static void test_resume_of_a_diverging_run(void)
{
  static const int cuts[] = {1, 4, 8};
  unroll_config config = config_of("x.h5", "activation", "relu", "optimizer", "sgd", "lr", "1e30",
                                   "clip", "0", "max-skips", "1000", "log-every", "3", NULL);
  check_resume("12", sizeof cuts / sizeof cuts[0], cuts, &config);
  run *r = read_run("whole.h5");
  CU_ASSERT(r == NULL || (r->state.skipped_in_row > 8 && r->train[3].learning_rate > 0.0));
  run_free(&r);
}

static void test_resume_without_a_file_starts(void)
{
  unroll_config config = config_of("fresh.h5", NULL);
  const char *text = text_of(1200);
  CHECK_ALL(trained(1, 1, &config, text));
  config.overwrite = false;
  config.resume = true;
  (void)unroll_config_set(&config, "out", in_folder("resumed.h5"));
  if (test_rank == 0) { (void)remove(config.out); }
  CHECK_ALL(trained(most_ranks(), 1, &config, text));
  CHECK_ALL(same_runs("fresh.h5", "resumed.h5"));
}

/* ------------------------------------------------------------- what is told */

/* Everything a test wants to know of one run; on rank 0. */
struct witness {
  size_t starts, steps, reports, flows, ends;
  int in_order;        /* START first, END last, steps one by one */
  int64_t least, most; /* memory_total_blocks() over the steps from the third on */
  char end[64];
};

static void watch(void *context, const unroll_progress *p)
{
  struct witness *w = context;
  w->in_order &= w->ends == 0 && (p->event == UNROLL_EVENT_START) == (w->starts == 0);
  w->starts += p->event == UNROLL_EVENT_START;
  w->reports += p->event == UNROLL_EVENT_REPORT;
  w->in_order &= (p->flow != NULL) == (p->event == UNROLL_EVENT_DIAGNOSE);
  w->flows += p->flow != NULL && p->flow->step == p->step;
  if (p->event == UNROLL_EVENT_STEP) {
    w->steps += 1;
    w->in_order &= p->step == w->steps + p->resumed_step;
    if (w->steps == 3) { w->least = memory_total_blocks(); }
    w->most = memory_total_blocks();
  }
  if (p->event == UNROLL_EVENT_END) {
    w->ends += 1;
    (void)snprintf(w->end, sizeof w->end, "%s", p->text);
  }
}

static void test_steps_allocate_nothing(void)
{
  struct witness w = {.in_order = 1};
  const unroll_observer observer = {.context = &w, .tell = watch};
  unroll_config config = config_of("x.h5", "layers", "2", "max-steps", "13", "log-every", "1000",
                                   "valid-fraction", "0", NULL);
  const char *text = text_of(1200);
  CHECK_ALL(train_on(most_ranks(), 2, &config, text, &observer) == UNROLL_OK);
  if (test_rank == 0) {
    CU_ASSERT_EQUAL(w.steps, 13);
    CU_ASSERT(w.least > 0);
    CU_ASSERT_EQUAL(w.most - w.least, 0);
  }
}

/* Nor do the steps of the other strategies, whatever the lengths of their pieces. */
static void test_steps_of_all_strategies_allocate_nothing(void)
{
  unroll_config configs[] = {
      config_of("x.h5", "bptt", "full", "epochs", "6", NULL),
      config_of("x.h5", "bptt", "full", "sequences", "line", "batch", "8", NULL),
      config_of("x.h5", "bptt", "randomized", "steps", "100", "epochs", "4", NULL),
      config_of("x.h5", "steps", "12", "stride", "5", NULL),
  };
  for (size_t i = 0; i < sizeof configs / sizeof configs[0]; ++i) {
    struct witness w = {.in_order = 1};
    const unroll_observer observer = {.context = &w, .tell = watch};
    configs[i].valid_fraction = 0;
    configs[i].log_every = 1000;
    CHECK_ALL(train_on(most_ranks(), 2, &configs[i], i == 1 ? lines_text() : text_of(2400),
                       &observer) == UNROLL_OK);
    if (test_rank == 0) {
      CU_ASSERT(w.in_order && w.steps > 4 && w.least > 0);
      CU_ASSERT_EQUAL(w.most - w.least, 0);
    }
  }
}

static void test_observer_is_called_in_order(void)
{
  struct witness w = {.in_order = 1};
  const unroll_observer observer = {.context = &w, .tell = watch};
  unroll_config config = config_of("x.h5", "diagnose-every", "10", NULL);
  const char *text = text_of(1200);
  CHECK_ALL(train_on(most_ranks(), 1, &config, text, &observer) == UNROLL_OK);
  if (test_rank == 0) {
    CU_ASSERT(w.in_order && w.starts == 1 && w.ends == 1);
    CU_ASSERT(w.steps == 24 && w.reports == 4 && w.flows == 2);
  }
}

/* ----------------------------------------------------------------- clipping */

static double distance(const run *a, const run *b)
{
  double sum = 0.0;
  for (size_t i = 0; i < a->params->n; ++i) {
    double d = (double)a->params->values[i] - (double)b->params->values[i];
    sum += d * d;
  }
  return sqrt(sum);
}

/* One step of gradient descent moves the weights by eta min(norm, theta), and the metrics say so. */
static void test_clip_bounds_the_step_and_is_recorded(void)
{
  static const char *const thetas[] = {"0.01", "0.2", "1e6", "0"};
  const char *text = text_of(1200);
  for (size_t i = 0; i < sizeof thetas / sizeof thetas[0]; ++i) {
    unroll_config config =
        config_of("1.h5", "optimizer", "sgd", "lr", "0.5", "schedule", "constant", "clip",
                  thetas[i], "max-steps", "1", "log-every", "1", NULL);
    CHECK_ALL(trained(most_ranks(), 1, &config, text));
    (void)unroll_config_set(&config, "out", in_folder("2.h5"));
    (void)unroll_config_set(&config, "max-steps", "2");
    CHECK_ALL(trained(1, 1, &config, text));
    run *one = read_run("1.h5"), *two = read_run("2.h5");
    if (one != NULL && two != NULL) {
      const run_train_row *row = &two->train[1];
      double theta = strtod(thetas[i], NULL), norm = row->grad_norm;
      double scale = theta > 0.0 && norm > theta ? theta / norm : 1.0;
      CU_ASSERT(norm > 0.2 && norm < 1e6);
      CU_ASSERT_DOUBLE_EQUAL(row->clip_scale, scale, 1e-15);
      CU_ASSERT_DOUBLE_EQUAL(distance(one, two) / (0.5 * scale * norm), 1.0, 1e-4);
      CU_ASSERT_EQUAL(row->learning_rate, 0.5);
    }
    run_free(&two);
    run_free(&one);
  }
}

/* ---------------------------------------------------------------- schedules */

/* The learning rates of a run, one a row, against a rule. */
static void check_rates(const unroll_config *config, double (*rule)(const run *, size_t))
{
  CHECK_ALL(trained(1, 1, config, text_of(1200)));
  run *r = read_run("x.h5");
  for (size_t i = 0; r != NULL && i < r->n_train; ++i) {
    CU_ASSERT_EQUAL(r->train[i].step, i + 1);
    CU_ASSERT_DOUBLE_EQUAL(r->train[i].learning_rate, rule(r, i), 1e-15);
  }
  CU_ASSERT(r == NULL || (r->n_train > 30 && r->state.finished));
  run_free(&r);
}

static double cosine_with_warmup(const run *r, size_t i)
{
  double n = (double)r->n_train;
  return i < 4 ? 1e-3 * (double)(i + 1) / 4.0
               : 1e-4 + 9e-4 * (1.0 + cos(acos(-1.0) * ((double)i - 4.0) / (n - 4.0))) / 2.0;
}

static double step_each_epoch(const run *r, size_t i)
{
  return 1e-3 * pow(0.1, (double)(i / (r->n_train / 3)));
}

static void test_schedule_of_a_run_follows_its_formula(void)
{
  unroll_config config = config_of("x.h5", "max-steps", "0", "log-every", "1", "lr", "1e-3",
                                   "schedule", "cosine", "lr-min", "1e-4", "warmup", "4", NULL);
  check_rates(&config, cosine_with_warmup);
  config = config_of("x.h5", "max-steps", "0", "log-every", "1", "lr", "1e-3", "schedule", "step",
                     "lr-decay", "0.1", "epochs", "3", NULL);
  check_rates(&config, step_each_epoch);
}

/* With a rate so small that no weight moves, no validation is better than the first. */
static void test_plateau_and_early_stop_of_a_run(void)
{
  struct witness w = {.in_order = 1};
  const unroll_observer observer = {.context = &w, .tell = watch};
  unroll_config config = config_of("x.h5", "optimizer", "sgd", "lr", "1e-30", "schedule", "plateau",
                                   "patience", "2", "lr-decay", "0.5", "early-stop", "5",
                                   "valid-every", "3", "log-every", "1", "max-steps", "0", NULL);
  CHECK_ALL(train_on(1, 1, &config, text_of(1200), &observer) == UNROLL_OK);
  run *r = read_run("x.h5");
  if (r != NULL) {
    CU_ASSERT_EQUAL(r->n_valid, 6); /* the first, and five no better */
    CU_ASSERT_EQUAL(r->state.step, 18);
    CU_ASSERT_EQUAL(r->state.best_step, 3);
    CU_ASSERT_EQUAL(r->state.finished, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(w.end, "validation"));
    for (size_t i = 0; i < r->n_train; ++i) { /* decays after validations 3 and 5 */
      double factor = i < 9 ? 1.0 : i < 15 ? 0.5 : 0.25;
      CU_ASSERT_DOUBLE_EQUAL(r->train[i].learning_rate / (1e-30 * factor), 1.0, 1e-12);
    }
  }
  run_free(&r);

  /* Finished for good: resumed, it trains no more and gives the same reason. */
  struct witness again = {.in_order = 1};
  const unroll_observer second = {.context = &again, .tell = watch};
  config.overwrite = false;
  config.resume = true;
  CHECK_ALL(train_on(1, 1, &config, text_of(1200), &second) == UNROLL_OK);
  if (test_rank == 0) {
    CU_ASSERT_EQUAL(again.steps, 0);
    CU_ASSERT_STRING_EQUAL(again.end, w.end);
  }
}

/* Validating does not touch the training, whose state is put aside meanwhile. */
static void test_validation_leaves_the_training_alone(void)
{
  const char *text = text_of(1200), *other = text_of(203);
  unroll_config config = config_of("often.h5", "valid", other, "valid-every", "3", NULL);
  CHECK_ALL(trained(most_ranks(), 1, &config, text));
  config = config_of("never.h5", "valid-fraction", "0", NULL);
  CHECK_ALL(trained(1, 1, &config, text));
  run *often = read_run("often.h5"), *never = read_run("never.h5");
  if (often != NULL && never != NULL) {
    CU_ASSERT(often->n_valid == 8 && never->n_valid == 0);
    CU_ASSERT(same_bytes("weights", often->params->values, never->params->values,
                         often->params->n * sizeof *often->params->values));
    CU_ASSERT(same_bytes("hidden states", often->state.hidden, never->state.hidden,
                         often->state.n_hidden * sizeof *often->state.hidden));
    for (size_t i = 0; i < never->n_train; ++i) {
      CU_ASSERT(same_row(&often->train[i], &never->train[i]));
    }
  }
  run_free(&never);
  run_free(&often);
}

/* The best model is kept apart: its file has the loss that the run calls its best. */
static void test_best_model_is_kept_apart(void)
{
  unroll_config config = config_of("x.h5", "optimizer", "sgd", "lr", "4", "clip", "0",
                                   "valid-every", "4", "max-steps", "40", "epochs", "9", NULL);
  char best[KEEP_NAME];
  const char *text = text_of(1200);
  CHECK_ALL(trained(most_ranks(), 1, &config, text));
  run *r = read_run("x.h5"), *b = NULL;
  if (r != NULL) {
    keep_best_name(in_folder("x.h5"), best);
    CHECK_OK(runfile_read(best, &b));
  }
  if (b != NULL) {
    double least = INFINITY;
    for (size_t i = 0; i < r->n_valid; ++i) { least = fmin(least, r->valid[i].loss); }
    CU_ASSERT_EQUAL(b->state.best_loss, least);
    CU_ASSERT_EQUAL(b->state.step, r->state.best_step);
    CU_ASSERT_EQUAL(b->valid[b->n_valid - 1].loss, least);
  }
  run_free(&b);
  run_free(&r);
}

/* From the first step on no file may become longer than a few bytes: a full disk, in the middle of each write. */
static void fill_disk(void *context, const unroll_progress *p)
{
  size_t *warnings = context;
  const struct rlimit few = {.rlim_cur = 100, .rlim_max = RLIM_INFINITY};
  if (p->event == UNROLL_EVENT_START) { (void)setrlimit(RLIMIT_FSIZE, &few); }
  *warnings += p->event == UNROLL_EVENT_WARNING;
}

static uint64_t step_of(const char *name)
{
  run *r = read_run(name);
  uint64_t step = r != NULL ? r->state.step : 0;
  run_free(&r);
  return step;
}

static void test_failed_checkpoints_leave_all_older_ones(void)
{
  const struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
  unroll_config config = config_of("full.h5", "keep", "2", "checkpoint-every", "1", "max-steps",
                                   "3", "log-every", "1000", NULL);
  size_t warnings = 0;
  const unroll_observer observer = {.context = &warnings, .tell = fill_disk};
  void (*before)(int) = signal(SIGXFSZ, SIG_IGN);

  CHECK_ALL(trained(1, 1, &config, text_of(1200)));
  config.overwrite = false;
  config.resume = true;
  (void)unroll_config_set(&config, "max-steps", "6");
  CHECK_ALL(train_on(1, 1, &config, text_of(1200), &observer) == UNROLL_ERR_IO);
  if (test_rank == 0) {
    (void)setrlimit(RLIMIT_FSIZE, &all);
    CU_ASSERT_EQUAL(warnings, 3);
    CU_ASSERT_EQUAL(step_of("full.h5"), 3);
    CU_ASSERT_EQUAL(step_of("full.1.h5"), 2);
    CU_ASSERT_EQUAL(step_of("full.2.h5"), 1);
    CU_ASSERT_FALSE(runfile_exists(in_folder("full.3.h5")));
  }
  (void)unroll_config_set(&config, "max-steps", "4");
  CHECK_ALL(trained(1, 1, &config, text_of(1200)));
  if (test_rank == 0) {
    CU_ASSERT_EQUAL(step_of("full.h5"), 4);
    CU_ASSERT_EQUAL(step_of("full.1.h5"), 3);
    CU_ASSERT_EQUAL(step_of("full.2.h5"), 2);
  }
  (void)signal(SIGXFSZ, before);
}

/* --------------------------------------------------------------- not finite */

/* ReLU without clipping at an absurd rate: weights overflow, updates are skipped, the run gives up. */
static void test_diverging_run_skips_counts_and_stops(void)
{
  struct witness w = {.in_order = 1};
  const unroll_observer observer = {.context = &w, .tell = watch};
  unroll_config config =
      config_of("diverged.h5", "activation", "relu", "optimizer", "sgd", "lr", "1e30", "clip", "0",
                "max-skips", "5", "checkpoint-every", "1", "log-every", "1", NULL);
  CHECK_ALL(train_on(most_ranks(), 1, &config, text_of(1200), &observer) == UNROLL_ERR_DIVERGED);
  if (test_rank != 0) { return; }

  char step[40];
  (void)snprintf(step, sizeof step, "step %zu:", w.steps + 1);
  CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), step));
  CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), "5 updates in a row"));
  CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), config.out));
  CU_ASSERT_PTR_NULL(strstr(unroll_message(), "good")); /* the step from it was the first bad one */

  run *r = read_run("diverged.h5");
  if (r != NULL) {
    int finite = 1;
    for (size_t i = 0; i < r->params->n; ++i) { finite &= isfinite(r->params->values[i]); }
    CU_ASSERT(finite);
    CU_ASSERT(r->state.step >= 1 && r->state.step < w.steps);
  }
  run_free(&r);
}

/* Where no checkpoint was written yet, the message does not speak of one. */
static void test_diverging_run_without_a_checkpoint_says_so(void)
{
  unroll_config config = config_of("nothing.h5", "activation", "relu", "optimizer", "sgd", "lr",
                                   "1e30", "clip", "0", "max-skips", "3", NULL);
  CHECK_ALL(train_on(1, 1, &config, text_of(1200), NULL) == UNROLL_ERR_DIVERGED);
  if (test_rank == 0) {
    CU_ASSERT_FALSE(runfile_exists(in_folder("nothing.h5")));
    CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), "no checkpoint"));
  }
}

/* ------------------------------------------------------------------ scoring */

static unroll_score score_on(int P, const char *name, const char *text, size_t streams,
                             void (*tell)(void *, const unroll_line_score *), void *context)
{
  unroll_score score = {0};
  MPI_Comm some = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, test_rank < P ? 0 : MPI_UNDEFINED, test_rank, &some);
  if (test_rank < P) {
    unroll_comm *comm = NULL;
    unroll_model *model = NULL;
    CHECK_OK(unroll_comm_new(some, &comm));
    CHECK_OK(unroll_model_load(comm, in_folder(name), &model));
    CHECK_OK(unroll_model_evaluate(model, comm, 1, &text, streams, tell, context, &score));
    unroll_model_free(&model);
    unroll_comm_free(&comm);
    MPI_Comm_free(&some);
  }
  MPI_Bcast(&score, sizeof score, MPI_BYTE, 0, MPI_COMM_WORLD);
  return score;
}

struct lines {
  uint64_t lines, tokens;
  double nats;
  int in_order;
};

static void add_line(void *context, const unroll_line_score *line)
{
  struct lines *l = context;
  l->lines += 1;
  l->in_order &= line->line == l->lines;
  l->tokens += line->tokens;
  l->nats += line->nats;
}

static void check_scores(const char *level)
{
  const char *text = text_of(1200), *other = text_of(203);
  unroll_config config =
      config_of("scored.h5", "level", level, "valid", other, "valid-every", "24", "steps", "5",
                "layers", "2", "average", "asgd", "dropout-weights", "0.3", NULL);
  CHECK_ALL(trained(1, 1, &config, text));

  unroll_score one = score_on(1, "scored.h5", other, 1, NULL, NULL);
  unroll_score cut = score_on(1, "scored.h5", other, 16, NULL, NULL);
  for (int P = 2; P <= test_size; ++P) { /* any number of ranks */
    unroll_score many = score_on(P, "scored.h5", other, 16, NULL, NULL);
    CU_ASSERT_EQUAL(many.loss, cut.loss);
    CU_ASSERT_EQUAL(many.tokens, cut.tokens);
    CU_ASSERT_EQUAL(score_on(P, "scored.h5", other, 1, NULL, NULL).loss, one.loss);
  }
  CU_ASSERT_EQUAL(cut.tokens, one.tokens / 16 * 16);
  CU_ASSERT(cut.loss != one.loss && fabs(cut.loss - one.loss) < 0.5);
  CU_ASSERT_DOUBLE_EQUAL(one.perplexity, exp(one.loss), 1e-12 * one.perplexity);

  /* The validation of the run is the same text, under the average too, in as many streams as the batch has sequences. */
  run *r = read_run("scored.h5");
  if (r != NULL) {
    CU_ASSERT_EQUAL(r->valid[r->n_valid - 1].step, 24);
    CU_ASSERT_DOUBLE_EQUAL(r->valid[r->n_valid - 1].loss / cut.loss, 1.0, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(r->valid[r->n_valid - 1].bits_per_character / cut.bits_per_character,
                           1.0, 1e-12);
  }
  run_free(&r);

  /* 203 words in lines of ten: 20 full lines and a rest without an end. */
  struct lines lines = {.in_order = 1};
  unroll_score whole = score_on(test_size, "scored.h5", other, 1, add_line, &lines);
  CU_ASSERT_EQUAL(whole.loss, one.loss);
  if (test_rank == 0) {
    CU_ASSERT_EQUAL(lines.lines, 21);
    CU_ASSERT(lines.in_order);
    CU_ASSERT_EQUAL(lines.tokens, whole.tokens);
    CU_ASSERT_DOUBLE_EQUAL(lines.nats / (whole.loss * (double)whole.tokens), 1.0, 1e-12);
  }
}

/* On request the weights of the last update, which are not their average. */
static void test_scores_of_average_and_last_weights_differ(void)
{
  unroll_model *model = NULL;
  const char *other = text_of(203);
  unroll_config config = config_of("scored.h5", "valid", other, "valid-every", "24", NULL);
  run *plain = NULL;
  for (int average = 0; average < 2; ++average) {
    config.average = average ? UNROLL_AVERAGE_ASGD : UNROLL_AVERAGE_OFF;
    CHECK_ALL(trained(most_ranks(), 1, &config, text_of(1200)));
    run *r = read_run("scored.h5");
    if (r != NULL && average) { /* training itself does not know of it */
      CU_ASSERT(same_bytes("weights", r->params->values, plain->params->values,
                           r->params->n * sizeof(unroll_real)));
      CU_ASSERT_EQUAL(r->state.averaged, 24);
      CU_ASSERT_NOT_EQUAL(r->valid[0].loss, plain->valid[0].loss);
    }
    run_free(&plain);
    plain = r;
  }
  for (int last = 0; last < 2; ++last) {
    CHECK_OK(unroll_model_load_weights(test_comm, in_folder("scored.h5"),
                                       last ? UNROLL_WEIGHTS_LAST : UNROLL_WEIGHTS_AVERAGE,
                                       &model));
    CHECK_ALL(unroll_model_averaged(model) == (last ? 0 : 24));
    if (plain != NULL) {
      CU_ASSERT(same_bytes("weights", unroll_model_params_view(model)->values,
                           last ? plain->params->values : plain->moments[plain->n_moments - 1],
                           plain->params->n * sizeof(unroll_real)));
    }
    unroll_model_free(&model);
  }
  run_free(&plain);
}

static void test_scores_agree_at_every_level(void)
{
  check_scores("char");
  check_scores("word");
  check_scores("byte");
}

int main(int argc, char **argv)
{
  static const struct test_case cases[] = {
      {"contract: sequential, characters, Adam", test_contract_sequential_characters},
      {"contract: random, words, two layers, momentum", test_contract_random_words_two_layers},
      {"contract: ReLU, bytes, gradient descent", test_contract_relu_sgd_bytes},
      {"contract: odd sizes", test_contract_odd_sizes},
      {"contract: dropout", test_contract_dropout},
      {"contract: full, streams", test_contract_full_streams},
      {"contract: full, segments", test_contract_full_in_segments},
      {"contract: full, lines and paragraphs", test_contract_full_lines_and_paragraphs},
      {"contract: randomized", test_contract_randomized},
      {"contract: stride", test_contract_stride},
      {"contract: touched rows", test_contract_of_touched_rows},
      {"contract: embeddings", test_contract_of_embeddings},
      {"contract: a tied table", test_contract_of_a_tied_table},
      {"an epoch of sequences", test_epoch_of_sequences_has_all_tokens},
      {"contract: three ranks", test_contract_three_ranks_repeat_themselves},
      {"shards that cannot be shared", test_ranks_that_cannot_share_the_shards_are_refused},
      {"resume equals not stopping", test_resume_equals_not_stopping},
      {"dropped weights do not move", test_dropped_weights_do_not_move},
      {"resume: dropout", test_resume_of_dropout},
      {"resume: random partition", test_resume_of_a_random_partition},
      {"resume: randomized", test_resume_of_randomized_pieces},
      {"resume: embeddings", test_resume_with_embeddings},
      {"resume: full", test_resume_of_full_sequences},
      {"resume: stride", test_resume_of_a_stride},
      {"resume: plateau", test_resume_of_a_plateau},
      {"resume: diverging", test_resume_of_a_diverging_run},
      {"resume without a file starts", test_resume_without_a_file_starts},
      {"steps allocate nothing", test_steps_allocate_nothing},
      {"steps of all strategies allocate nothing", test_steps_of_all_strategies_allocate_nothing},
      {"observer", test_observer_is_called_in_order},
      {"clipping", test_clip_bounds_the_step_and_is_recorded},
      {"schedules", test_schedule_of_a_run_follows_its_formula},
      {"plateau and early stop", test_plateau_and_early_stop_of_a_run},
      {"validation is no training", test_validation_leaves_the_training_alone},
      {"the best model", test_best_model_is_kept_apart},
      {"keep: failed checkpoints", test_failed_checkpoints_leave_all_older_ones},
      {"diverging", test_diverging_run_skips_counts_and_stops},
      {"diverging without a checkpoint", test_diverging_run_without_a_checkpoint_says_so},
      {"scores agree", test_scores_agree_at_every_level},
      {"scores: average and last weights", test_scores_of_average_and_last_weights_differ},
  };
  return run_mpi_cases(argc, argv, "train", sizeof cases / sizeof cases[0], cases);
}
