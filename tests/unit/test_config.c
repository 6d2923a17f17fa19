#include "support.h"

#include "base/options.h"
#include "base/presets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unroll/config.h>

static unroll_config with(const char *name, const char *value)
{
  unroll_config config;
  unroll_config_init(&config);
  CHECK_OK(unroll_config_set(&config, name, value));
  return config;
}

static bool is_power_of_two(uint64_t n)
{
  return n != 0 && (n & (n - 1)) == 0;
}

static size_t number_given(const unroll_config *config)
{
  size_t n = 0;
  for (size_t k = 0; k < UNROLL_OPTIONS_MAX; ++k) { n += config->given[k]; }
  return n;
}

/* ------------------------------------------------------------------- table */

static void test_table_rows_are_complete_and_distinct(void)
{
  const option_table *t = &config_table;
  CU_ASSERT(t->n_rows <= UNROLL_OPTIONS_MAX);
  for (size_t k = 0; k < t->n_rows; ++k) {
    const option *row = &t->rows[k];
    CU_ASSERT(row->help != NULL && row->help[strlen(row->help) - 1] != '.');
    CU_ASSERT(row->heading != NULL && (row->default_text != NULL) != (row->derived != NULL));
    CU_ASSERT_EQUAL(row->type == OPTION_CHOICE, row->choices != NULL);
    if (row->type == OPTION_COUNT || row->type == OPTION_REAL) { CU_ASSERT(row->low < row->high); }
    for (size_t j = 0; j < k; ++j) {
      CU_ASSERT_STRING_NOT_EQUAL(row->name, t->rows[j].name);
      CU_ASSERT_NOT_EQUAL(row->offset, t->rows[j].offset);
    }
    for (size_t j = k + 2; k + 1 < t->n_rows && j < t->n_rows;
         ++j) { /* headings do not come back */
      if (strcmp(t->rows[k + 1].heading, row->heading) != 0) {
        CU_ASSERT_STRING_NOT_EQUAL(t->rows[j].heading, row->heading);
      }
    }
  }
}

/* A name of other programs is no option here, and means one of them. */
static void test_table_names_of_others_are_distinct(void)
{
  char seen[4096] = "|";
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    (void)strcat(strcat(seen, config_table.rows[k].name), "|");
  }
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const char *at = config_table.rows[k].others;
    while (at != NULL && *at != '\0') {
      char name[64];
      (void)snprintf(name, sizeof name, "|%.*s|", (int)strcspn(at, "|"), at);
      CU_ASSERT_PTR_NULL(strstr(seen, name));
      (void)strcat(seen, name + 1);
      at += strcspn(at, "|");
      at += *at == '|';
    }
  }
}

static void test_table_covers_every_field(void)
{
  /* Two structs of different bytes, made equal row by row, must agree but for `given`. */
  static unroll_config a, b;
  const option_table *t = &config_table;
  size_t covered = 0;

  memset(&a, 0, sizeof a);
  memset(&b, 0xff, sizeof b);
  for (size_t k = 0; k < t->n_rows; ++k) { options_copy(&t->rows[k], &a, &b); }
  for (size_t i = 0; i < sizeof b; ++i) { covered += ((const unsigned char *)&b)[i] == 0; }
  /* what is left: `given`, and the padding of at most seven bytes after small fields */
  CU_ASSERT(sizeof b - covered >= sizeof b.given);
  CU_ASSERT(sizeof b - covered < sizeof b.given + 40);
  for (size_t i = 0; i < sizeof b.given; ++i) {
    CU_ASSERT_EQUAL(((const unsigned char *)b.given)[i], 0xff);
  }
}

static void test_choices_stand_in_the_order_of_the_enums(void)
{
  CU_ASSERT_EQUAL(with("level", "word").level, UNROLL_LEVEL_WORD);
  CU_ASSERT_EQUAL(with("level", "byte").level, UNROLL_LEVEL_BYTE);
  CU_ASSERT_EQUAL(with("partition", "random").partition, UNROLL_PARTITION_RANDOM);
  CU_ASSERT_EQUAL(with("activation", "relu").activation, UNROLL_ACTIVATION_RELU);
  CU_ASSERT_EQUAL(with("init", "orthogonal").init, UNROLL_INIT_ORTHOGONAL);
  CU_ASSERT_EQUAL(with("init", "identity").init, UNROLL_INIT_IDENTITY);
  CU_ASSERT_EQUAL(with("bptt", "full").bptt, UNROLL_BPTT_FULL);
  CU_ASSERT_EQUAL(with("bptt", "randomized").bptt, UNROLL_BPTT_RANDOMIZED);
  CU_ASSERT_EQUAL(with("optimizer", "sgd").optimizer, UNROLL_OPTIMIZER_SGD);
  CU_ASSERT_EQUAL(with("optimizer", "momentum").optimizer, UNROLL_OPTIMIZER_MOMENTUM);
  CU_ASSERT_EQUAL(with("schedule", "constant").schedule, UNROLL_SCHEDULE_CONSTANT);
  CU_ASSERT_EQUAL(with("schedule", "step").schedule, UNROLL_SCHEDULE_STEP);
  CU_ASSERT_EQUAL(with("schedule", "plateau").schedule, UNROLL_SCHEDULE_PLATEAU);
}

static void test_init_gives_a_run_that_resolves(void)
{
  unroll_config config;
  unroll_config_init(&config);
  CU_ASSERT_EQUAL(number_given(&config), 0);
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.level, UNROLL_LEVEL_CHAR);
  CU_ASSERT_EQUAL(config.optimizer, UNROLL_OPTIMIZER_ADAM);
  CU_ASSERT_EQUAL(config.schedule, UNROLL_SCHEDULE_COSINE);
  CU_ASSERT_EQUAL(config.lr, 2e-3);
  CU_ASSERT_EQUAL(config.stride, config.steps);
  CU_ASSERT(config.batch == 0 && config.epochs == 0 && config.shards == 0); /* not known yet */
  CU_ASSERT_STRING_EQUAL(config.out, "run.h5");
}

static void test_set_marks_given_and_fails_without_a_trace(void)
{
  static unroll_config config, before;
  unroll_config_init(&config);
  CHECK_OK(unroll_config_set(&config, "hidden", "512"));
  CU_ASSERT_EQUAL(config.hidden, 512);
  CU_ASSERT_EQUAL(number_given(&config), 1);
  before = config;
  CHECK_FAILS(unroll_config_set(&config, "hidden", "70000"), UNROLL_ERR_ARG, "1 to 65536");
  CHECK_FAILS(unroll_config_set(&config, "hiden", "70"), UNROLL_ERR_ARG, "--hidden");
  CU_ASSERT_EQUAL(memcmp(&config, &before, sizeof config), 0);
}

/* ----------------------------------------------------------------- resolve */

static void test_resolve_shards_default_is_the_largest_power_of_two(void)
{
  for (uint64_t batch = 1; batch <= 200; ++batch) {
    unroll_config config;
    unroll_config_init(&config);
    config.batch = batch;
    CHECK_OK(unroll_config_resolve(&config));
    CU_ASSERT(is_power_of_two(config.shards) && config.shards <= 16);
    CU_ASSERT_EQUAL(batch % config.shards, 0);
    CU_ASSERT(config.shards == 16 || batch % (2 * config.shards) != 0);
  }
}

/* ------------------------------------------------------- the size of the text */

/* The defaults of a text of so many tokens. */
static unroll_config fitted(unroll_config config, uint64_t tokens)
{
  config_fit(&config, tokens);
  CHECK_OK(unroll_config_resolve(&config));
  return config;
}

static void test_fit_follows_the_size_of_the_text(void)
{
  static const struct {
    uint64_t tokens, batch, epochs;
  } rows[] = {
      {0, 16, 40},       {40000, 16, 40},   {65535, 16, 40},      {65536, 16, 20},
      {131071, 16, 20},  {131072, 16, 10},  {1048575, 16, 10},    {1048576, 32, 10},
      {2097151, 32, 10}, {2097152, 64, 10}, {UINT64_MAX, 64, 10},
  };
  static unroll_config config, other;
  unroll_config_init(&config);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
    other = fitted(config, rows[i].tokens);
    CU_ASSERT_EQUAL(other.batch, rows[i].batch);
    CU_ASSERT_EQUAL(other.epochs, rows[i].epochs);
    CU_ASSERT_EQUAL(other.shards, 16);
  }
}

static void test_fit_leaves_what_was_chosen(void)
{
  static unroll_config config;
  config = fitted(with("epochs", "3"), 40000);
  CU_ASSERT(config.batch == 16 && config.epochs == 3);
  config = fitted(with("batch", "64"), 40000); /* as ever */
  CU_ASSERT(config.batch == 64 && config.epochs == 10);
  config = with("batch", "5");
  CHECK_OK(unroll_config_resolve(&config)); /* needs no text */
  CU_ASSERT(config.epochs == 10 && config.shards == 1);
  config = fitted(with("shards", "12"), 40000);
  CU_ASSERT(config.batch == 24 && config.shards == 12);
  config = fitted(with("shards", "32"), 3000000);
  CU_ASSERT(config.batch == 64 && config.shards == 32);
  unroll_config_init(&config);
  CHECK_FAILS(unroll_config_set(&config, "batch", "0"), UNROLL_ERR_ARG, "--batch 0");
  CHECK_FAILS(unroll_config_set(&config, "epochs", "0"), UNROLL_ERR_ARG, "--epochs 0");
}

static void test_resolve_twice_changes_nothing(void)
{
  static unroll_config once, twice;
  once = with("batch", "24");
  CHECK_OK(unroll_config_resolve(&once));
  twice = once;
  CHECK_OK(unroll_config_resolve(&twice));
  CU_ASSERT_EQUAL(memcmp(&once, &twice, sizeof once), 0);
}

/* Set these options, expect the refusal, and nothing changed. */
static void refuse(const char *part, const char *const (*options)[2], size_t n)
{
  static unroll_config config, before;
  unroll_config_init(&config);
  for (size_t i = 0; i < n; ++i) {
    CHECK_OK(unroll_config_set(&config, options[i][0], options[i][1]));
  }
  before = config;
  CHECK_FAILS(unroll_config_resolve(&config), UNROLL_ERR_ARG, part);
  CU_ASSERT_EQUAL(memcmp(&config, &before, sizeof config), 0);
}

static void test_resolve_refuses_what_does_not_fit_together(void)
{
#define REFUSE(part, ...)                                                                          \
  do {                                                                                             \
    static const char *const options[][2] = {__VA_ARGS__};                                         \
    refuse(part, options, sizeof options / sizeof options[0]);                                     \
  } while (0)
  REFUSE("--shards 7 does not divide --batch 60; the largest below that does is 6", {"batch", "60"},
         {"shards", "7"});
  REFUSE("the largest below that does is 60", {"batch", "60"}, {"shards", "61"});
  REFUSE("--stride 65 is longer than a window; legal is at most --steps, here 64",
         {"stride", "65"});
  REFUSE("legal is --partition sequential", {"stride", "8"}, {"partition", "random"});
  REFUSE("--lowercase has no effect with --letters", {"letters", "yes"}, {"lowercase", "yes"});
  REFUSE("--valid and --valid-fraction", {"valid", "x"}, {"valid-fraction", "0.1"});
  REFUSE("--lr-min 0.1 is above --lr 0.01", {"lr", "0.01"}, {"lr-min", "0.1"});
  REFUSE("legal is less than 1 / --lr, here 2", {"lr", "0.5"}, {"weight-decay", "2"});
  REFUSE("--resume and --overwrite", {"resume", "yes"}, {"overwrite", "yes"});
  REFUSE("--tied makes one table of embeddings and output weights; legal is --embedding 33, as "
         "--hidden, here 32",
         {"tied", "yes"}, {"embedding", "32"}, {"hidden", "33"});
  REFUSE("--tied needs --embedding", {"tied", "yes"});
  REFUSE("--skip is of layers above the first; legal is --layers 2 or more", {"skip", "yes"});
  REFUSE("--out needs a file name", {"out", ""});
#undef REFUSE
}

/* Every `needs` names options of the table and legal values of theirs. */
static void test_needs_can_be_read(void)
{
  static unroll_config scratch;
  const option_table *t = &config_table;
  size_t read = 0;

  unroll_config_init(&scratch);
  for (size_t k = 0; k < t->n_rows; ++k) {
    char copy[256];
    const char *name = t->rows[k].name; /* of the option whose values come */
    if (t->rows[k].needs == NULL) { continue; }
    (void)snprintf(copy, sizeof copy, "%s", t->rows[k].needs);
    for (char *word = strtok(copy, " |:"); word != NULL; word = strtok(NULL, " |:")) {
      if (strcmp(word, "or") == 0 || strcmp(word, "on") == 0) { continue; }
      if (strncmp(word, "--", 2) == 0) {
        name = word + 2;
        CU_ASSERT_STRING_NOT_EQUAL(name, t->rows[k].name);
        CU_ASSERT(strstr(unroll_config_set(&scratch, name, "") == UNROLL_OK ? "" : unroll_message(),
                         "no option") == NULL);
      } else {
        CHECK_OK(unroll_config_set(&scratch, name, word));
      }
      ++read;
    }
  }
  CU_ASSERT(read > 20);
}

static void test_resolve_refuses_what_would_have_no_effect(void)
{
#define REFUSE(part, ...)                                                                          \
  do {                                                                                             \
    static const char *const options[][2] = {__VA_ARGS__};                                         \
    refuse(part, options, sizeof options / sizeof options[0]);                                     \
  } while (0)
  REFUSE("--min-count needs --level char or word; here --level is byte", {"level", "byte"},
         {"min-count", "3"});
  REFUSE("--max-vocab needs --level char or word", {"level", "byte"}, {"max-vocab", "9"});
  REFUSE("--letters needs --sequences stream; here --sequences is line", {"sequences", "line"},
         {"bptt", "full"}, {"letters", "yes"});
  REFUSE("--partition random needs --bptt truncated or --sequences line or paragraph; here --bptt "
         "is full, --sequences is stream",
         {"bptt", "full"}, {"partition", "random"});
  REFUSE("--partition random needs --bptt truncated", {"bptt", "randomized"},
         {"partition", "random"});
  REFUSE("--sequences line needs --bptt full; here --bptt is truncated", {"sequences", "line"});
  REFUSE("--sequences paragraph needs --bptt full; here --bptt is randomized",
         {"sequences", "paragraph"}, {"bptt", "randomized"});
  REFUSE("--init-scale needs --init orthogonal or identity", {"init-scale", "1"});
  REFUSE("--steps needs --bptt truncated or randomized; here --bptt is full", {"bptt", "full"},
         {"steps", "64"});
  REFUSE("--stride needs --bptt truncated; here --bptt is full", {"bptt", "full"}, {"stride", "8"});
  REFUSE("--stride needs --bptt truncated; here --bptt is randomized", {"bptt", "randomized"},
         {"stride", "0"});
  REFUSE("--momentum needs --optimizer momentum; here --optimizer is adam", {"momentum", "0.9"});
  REFUSE("--beta1 needs --optimizer adam; here --optimizer is sgd", {"optimizer", "sgd"},
         {"beta1", "0.8"});
  REFUSE("--beta2 needs --optimizer adam", {"optimizer", "momentum"}, {"beta2", "0.8"});
  REFUSE("--epsilon needs --optimizer adam", {"optimizer", "sgd"}, {"epsilon", "1e-4"});
  REFUSE("--schedule plateau needs --valid or --valid-fraction; here --valid-fraction is 0",
         {"valid-fraction", "0"}, {"schedule", "plateau"});
  REFUSE("--lr-decay needs --schedule step or plateau; here --schedule is cosine",
         {"lr-decay", "0.1"});
  REFUSE("--decay-every needs --schedule step", {"schedule", "plateau"}, {"decay-every", "2"});
  REFUSE("--lr-min needs --schedule cosine", {"schedule", "constant"}, {"lr-min", "0"});
  REFUSE("--patience needs --schedule plateau", {"schedule", "step"}, {"patience", "3"});
  REFUSE("--early-stop needs --valid or --valid-fraction", {"valid-fraction", "0"},
         {"early-stop", "3"});
  REFUSE("--valid-every needs --valid or --valid-fraction", {"valid-fraction", "0"},
         {"valid-every", "20"});
  REFUSE("--diagnose-every needs --sequences stream; here --sequences is line", {"bptt", "full"},
         {"sequences", "line"}, {"diagnose-every", "5"});
  REFUSE("--ranks needs --dry-run", {"ranks", "4"});
#undef REFUSE
}

/* What a program sets in the struct is not given, but a value that cannot be is refused all the same. */
static void test_resolve_checks_needs_of_values_set_directly(void)
{
  unroll_config config;
  unroll_config_init(&config);
  config.momentum = 0.5; /* not used, and harmless */
  CHECK_OK(unroll_config_resolve(&config));
  config.sequences = UNROLL_SEQUENCES_LINE;
  CHECK_FAILS(unroll_config_resolve(&config), UNROLL_ERR_ARG, "--sequences line needs --bptt full");
  config.bptt = UNROLL_BPTT_FULL;
  CHECK_OK(unroll_config_resolve(&config));
  config.diagnose_every.count = 5;
  CHECK_FAILS(unroll_config_resolve(&config), UNROLL_ERR_ARG, "--diagnose-every needs");
}

static void test_resolve_takes_what_fits(void)
{
  unroll_config config = with("shards", "60");
  config.batch = 60;
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.shards, 60);
  config = with("stride", "64");
  CHECK_OK(unroll_config_resolve(&config));
  config = with("valid", "x");
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.valid_fraction, 0.0); /* the text is not cut as well */
}

/* Only windows have a stride. */
static void test_resolve_stride_of_each_strategy(void)
{
  unroll_config config = with("steps", "40");
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.stride, 40);
  config = with("stride", "8");
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.stride, 8);
  config = with("bptt", "randomized");
  CHECK_OK(unroll_config_set(&config, "steps", "40"));
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT(config.stride == 0 && config.steps == 40);
  config = with("bptt", "full");
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.stride, 0);
  static const char *const kinds[] = {"stream", "line", "paragraph"};
  for (size_t i = 0; i < 3; ++i) {
    config = with("bptt", "full");
    CHECK_OK(unroll_config_set(&config, "sequences", kinds[i]));
    CHECK_OK(unroll_config_set(&config, "partition", i == 0 ? "sequential" : "random"));
    CHECK_OK(unroll_config_resolve(&config));
    CU_ASSERT_EQUAL(config.sequences, (unroll_sequences)i);
  }
}

static void test_resolve_checks_fields_set_directly(void)
{
  unroll_config config;
#define DIRECTLY(field, value, part)                                                               \
  do {                                                                                             \
    unroll_config_init(&config);                                                                   \
    config.field = (value);                                                                        \
    CHECK_FAILS(unroll_config_resolve(&config), UNROLL_ERR_ARG, part);                             \
  } while (0)
  DIRECTLY(hidden, 0, "--hidden 0");
  DIRECTLY(steps, 2000000, "1 to 1000000");
  DIRECTLY(batch, 2000000, "--batch 2000000");
  DIRECTLY(momentum, 1.0, "--momentum 1");
  DIRECTLY(lr, 0.0, "above 0");
  DIRECTLY(clip, -1.0, "--clip -1");
  DIRECTLY(clip, (double)NAN, "--clip");
  DIRECTLY(clip, (double)INFINITY, "--clip");
  DIRECTLY(schedule, (unroll_schedule)9, "constant|step|cosine|plateau");
  DIRECTLY(valid_every, ((unroll_every){60, UNROLL_EVERY_SECONDS}), "--valid-every");
#undef DIRECTLY
}

/* ------------------------------------------------------------------ resume */

/* Another legal value of the option than the default, as text. */
static void another_value(const option *row, size_t size, char *out)
{
  unroll_config config;
  unroll_config_init(&config);
  const char *field = (const char *)&config + row->offset;
  const char *bar = NULL;

  switch (row->type) {
  case OPTION_FLAG:
    (void)snprintf(out, size, "yes");
    break;
  case OPTION_COUNT:
    (void)snprintf(out, size, "%llu", (unsigned long long)*(const uint64_t *)field + 1);
    break;
  case OPTION_REAL:
    (void)snprintf(out, size, "%.17g", *(const double *)field / 2 + 1e-9);
    break;
  case OPTION_TEXT:
    (void)snprintf(out, size, "other");
    break;
  case OPTION_EVERY:
    (void)snprintf(out, size, "77");
    break;
  case OPTION_CHOICE:
    bar = strchr(row->choices, '|');
    if (*(const int *)field == 0) {
      (void)snprintf(out, size, "%.*s", (int)strcspn(bar + 1, "|"), bar + 1);
    } else {
      (void)snprintf(out, size, "%.*s", (int)(bar - row->choices), row->choices);
    }
    break;
  }
}

static void test_resume_every_option_follows_the_rule(void)
{
  static unroll_config file, config;
  const option_table *t = &config_table;

  for (size_t k = 0; k < t->n_rows; ++k) {
    const option *row = &t->rows[k];
    char text[64];
    unroll_config_init(&file);
    file = fitted(file, 1000000);
    another_value(row, sizeof text, text);

    /* given, and another value than the file's */
    config = with(row->name, text);
    unroll_status st = config_resume(&config, &file);
    CU_ASSERT_EQUAL(st == UNROLL_OK, row->may_change);
    if (st != UNROLL_OK) {
      CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), row->name));
      char its[64];
      options_format(row, &file, sizeof its, its);
      CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), its));
      CU_ASSERT_EQUAL(strstr(unroll_message(), "--change") != NULL, row->with_change);
    }
    config = with(row->name, text);
    config.change = true;
    st = config_resume(&config, &file);
    CU_ASSERT_EQUAL(st == UNROLL_OK, row->may_change || row->with_change);
    if (st == UNROLL_OK) { CU_ASSERT(!options_equal(row, &config, &file)); }

    /* given, and the file's value */
    options_format(row, &file, sizeof text, text);
    config = with(row->name, text);
    CHECK_OK(config_resume(&config, &file));

    /* not given: the file's value, but for what is of this call */
    another_value(row, sizeof text, text);
    CHECK_OK(unroll_config_set(&file, row->name, text));
    unroll_config_init(&config);
    CHECK_OK(config_resume(&config, &file));
    bool of_call = strcmp(row->name, "out") == 0 || strcmp(row->name, "resume") == 0 ||
                   strcmp(row->name, "overwrite") == 0 || strcmp(row->name, "change") == 0 ||
                   strcmp(row->name, "log-format") == 0 || strcmp(row->name, "config") == 0 ||
                   strcmp(row->name, "dry-run") == 0 || strcmp(row->name, "ranks") == 0;
    CU_ASSERT_EQUAL(options_equal(row, &config, &file), !of_call);
  }
}

static void test_resume_failure_names_both_values_and_changes_nothing(void)
{
  static unroll_config file, config, before;
  unroll_config_init(&file);
  CHECK_OK(unroll_config_resolve(&file));
  config = with("hidden", "128");
  before = config;
  CHECK_FAILS(config_resume(&config, &file), UNROLL_ERR_ARG,
              "--hidden 128: the run to resume has 256");
  CU_ASSERT_EQUAL(memcmp(&config, &before, sizeof config), 0);
}

/* The words of a call that was legal are legal on resume: there what they need may be in the file alone. */
static void test_resume_finds_what_is_needed_in_the_file(void)
{
  static unroll_config file, config;
  file = with("optimizer", "momentum");
  CHECK_OK(unroll_config_set(&file, "momentum", "0.8"));
  CHECK_OK(unroll_config_set(&file, "valid", "text"));
  CHECK_OK(unroll_config_set(&file, "early-stop", "3"));
  CHECK_OK(unroll_config_resolve(&file));
  config = with("momentum", "0.8");
  CHECK_OK(unroll_config_set(&config, "valid", "text"));
  CHECK_OK(unroll_config_set(&config, "early-stop", "3"));
  CHECK_OK(config_resume(&config, &file));
  CHECK_OK(unroll_config_resolve(&config));

  config = with("beta1", "0.9");
  CHECK_OK(config_resume(&config, &file));
  CHECK_FAILS(unroll_config_resolve(&config), UNROLL_ERR_ARG,
              "--beta1 needs --optimizer adam; here --optimizer is momentum");
}

static void test_resume_zero_means_what_it_became(void)
{
  static unroll_config file, config;
  file = with("batch", "24");
  CHECK_OK(unroll_config_resolve(&file));
  config = with("shards", "0"); /* a requeued job gives the same words again */
  CHECK_OK(unroll_config_set(&config, "stride", "0"));
  CHECK_OK(config_resume(&config, &file));
  CHECK_OK(unroll_config_resolve(&config));
  CU_ASSERT_EQUAL(config.shards, 8);
  CU_ASSERT_EQUAL(config.batch, 24);
  CU_ASSERT_EQUAL(config.stride, 64);
}

/* --------------------------------------------------------- given weights */

static void test_init_from_takes_the_model_and_nothing_else(void)
{
  static unroll_config file, config, taken;
  const option_table *t = &config_table;
  size_t of_model = 0;

  for (size_t k = 0; k < t->n_rows; ++k) {
    const option *row = &t->rows[k];
    char text[64];
    unroll_config_init(&file);
    another_value(row, sizeof text, text);
    CHECK_OK(unroll_config_set(&file, row->name, text));

    unroll_config_init(&config); /* not given */
    taken = config;
    CHECK_OK(config_init_from(&taken, &file));
    CU_ASSERT_EQUAL(options_equal(row, &taken, row->of_model ? &file : &config), true);

    config = with(row->name, text); /* given, the same */
    CHECK_OK(config_init_from(&config, &file));

    options_format(row, &taken, sizeof text, text); /* given, another value */
    if (options_is_open(row, &taken)) { (void)snprintf(text, sizeof text, "7"); }
    unroll_config_init(&file);
    config = with(row->name, text);
    CU_ASSERT_EQUAL(config_init_from(&config, &file) == UNROLL_OK, !row->of_model);
    if (row->of_model) {
      of_model += 1;
      CU_ASSERT_PTR_NOT_NULL(strstr(unroll_message(), row->name));
      CU_ASSERT(options_equal(row, &config, &taken)); /* nothing has changed */
    }
  }
  CU_ASSERT_EQUAL(of_model, 16);
}

/* ---------------------------------------------------------------- presets */

/* A preset is options: legal ones, that fit together, and none of them given. */
static void test_presets_resolve(void)
{
  static const char *const names[] = {"off", "char", "word", "quick"};
  for (size_t i = 0; i < 4; ++i) {
    static unroll_config config, plain;
    char text[512];
    size_t differ = 0;
    config = with("preset", names[i]);
    CHECK_OK(unroll_config_resolve(&config));
    CU_ASSERT_EQUAL(number_given(&config), 1);
    plain = with("preset", "off");
    CHECK_OK(unroll_config_resolve(&plain));
    presets_describe(&config, sizeof text, text);
    CU_ASSERT(strncmp(text, names[i], strlen(names[i])) == 0);
    for (size_t k = 0; k < config_table.n_rows; ++k) {
      const option *row = &config_table.rows[k];
      differ += !options_equal(row, &config, &plain);
      if (row->offset != offsetof(unroll_config, preset) && !options_equal(row, &config, &plain) &&
          row->offset != offsetof(unroll_config, stride)) {
        CU_ASSERT_PTR_NOT_NULL(strstr(text, row->name));
      }
    }
    CU_ASSERT((differ > 0) == (i > 0));
  }
}

/* What is given wins, before and behind it; what is not given comes from a run that goes on. */
static void test_preset_stands_below_what_is_given(void)
{
  static unroll_config config, file;
  file = with("preset", "char");
  CU_ASSERT_EQUAL(file.cell, UNROLL_CELL_GRU);

  config = with("hidden", "24");
  CHECK_OK(unroll_config_set(&config, "preset", "char"));
  CHECK_OK(unroll_config_set(&config, "cell", "lstm"));
  CU_ASSERT(config.hidden == 24 && config.cell == UNROLL_CELL_LSTM &&
            config.dropout == file.dropout && config.dropout > 0);

  file.dropout = 0.125; /* as if the table had been another one then */
  config = with("preset", "char");
  CHECK_OK(config_resume(&config, &file));
  CU_ASSERT_EQUAL(config.dropout, 0.125);
  config = with("preset", "quick");
  CHECK_FAILS(config_resume(&config, &file), UNROLL_ERR_ARG,
              "--preset quick: the run to resume has char");
}

int main(void)
{
  static const struct test_case cases[] = {
      {"table: complete and distinct", test_table_rows_are_complete_and_distinct},
      {"table: names of others", test_table_names_of_others_are_distinct},
      {"table: every field", test_table_covers_every_field},
      {"table: choices as the enums", test_choices_stand_in_the_order_of_the_enums},
      {"init: resolves", test_init_gives_a_run_that_resolves},
      {"set: given, and no trace of failure", test_set_marks_given_and_fails_without_a_trace},
      {"resolve: default shards", test_resolve_shards_default_is_the_largest_power_of_two},
      {"fit: the size of the text", test_fit_follows_the_size_of_the_text},
      {"fit: what was chosen", test_fit_leaves_what_was_chosen},
      {"resolve: twice", test_resolve_twice_changes_nothing},
      {"resolve: refuses", test_resolve_refuses_what_does_not_fit_together},
      {"resolve: needs can be read", test_needs_can_be_read},
      {"resolve: refuses what has no effect", test_resolve_refuses_what_would_have_no_effect},
      {"resolve: needs of fields set directly", test_resolve_checks_needs_of_values_set_directly},
      {"resolve: takes", test_resolve_takes_what_fits},
      {"resolve: stride", test_resolve_stride_of_each_strategy},
      {"resolve: fields set directly", test_resolve_checks_fields_set_directly},
      {"resume: every option", test_resume_every_option_follows_the_rule},
      {"resume: failure", test_resume_failure_names_both_values_and_changes_nothing},
      {"resume: needs", test_resume_finds_what_is_needed_in_the_file},
      {"resume: zero is automatic", test_resume_zero_means_what_it_became},
      {"init from: the model, nothing else", test_init_from_takes_the_model_and_nothing_else},
      {"presets: resolve", test_presets_resolve},
      {"presets: below what is given", test_preset_stands_below_what_is_given},
  };
  return run_cases("config", sizeof cases / sizeof cases[0], cases);
}
