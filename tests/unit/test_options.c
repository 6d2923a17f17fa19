#include "support.h"

#include "base/memory.h"
#include "base/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <unroll/config.h>

/* A table with every type, and names that are prefixes of each other. */
struct settings {
  bool loud;
  uint64_t size;
  uint64_t size_limit;
  double rate;
  int color;
  char file[UNROLL_CONFIG_TEXT];
  unroll_every often;
  unroll_every updates;
};

static const option rows[] = {
    {.name = "loud",
     .type = OPTION_FLAG,
     .offset = offsetof(struct settings, loud),
     .default_text = "no",
     .heading = "One",
     .help = "speak up"},
    {.name = "size",
     .letter = 's',
     .type = OPTION_COUNT,
     .offset = offsetof(struct settings, size),
     .default_text = "64",
     .unit = "tokens",
     .low = 1,
     .high = 1e6,
     .heading = "One",
     .help = "how large",
     .may_change = true},
    {.name = "size-limit",
     .type = OPTION_COUNT,
     .offset = offsetof(struct settings, size_limit),
     .default_text = "0",
     .low = 0,
     .high = 0x1p64,
     .heading = "One",
     .help = "how large at most"},
    {.name = "rate",
     .type = OPTION_REAL,
     .offset = offsetof(struct settings, rate),
     .default_text = "2e-3",
     .low = 0,
     .high = 0.5,
     .above_low = true,
     .heading = "Two",
     .help = "how fast",
     .others = "speed|learning-rate"},
    {.name = "color",
     .type = OPTION_CHOICE,
     .offset = offsetof(struct settings, color),
     .default_text = "green",
     .choices = "red|green|greenish",
     .heading = "Two",
     .help = "which one"},
    {.name = "file",
     .letter = 'f',
     .type = OPTION_TEXT,
     .offset = offsetof(struct settings, file),
     .default_text = "a.txt",
     .unit = "file",
     .heading = "Two",
     .help = "where"},
    {.name = "often",
     .type = OPTION_EVERY,
     .offset = offsetof(struct settings, often),
     .default_text = "10m",
     .heading = "Two",
     .help = "how often"},
    {.name = "updates",
     .type = OPTION_EVERY,
     .offset = offsetof(struct settings, updates),
     .default_text = "0",
     .unit = "updates",
     .heading = "Two",
     .help = "how many between"},
};
enum { LOUD, SIZE, SIZE_LIMIT, RATE, COLOR, FILE_NAME, OFTEN, UPDATES, N_ROWS };
static const option_table table = {rows, N_ROWS};
static const options_usage usage = {.command = "try",
                                    .operands = "WORD...",
                                    .purpose = "Try it.\n\nReally.",
                                    .notes = "That is all.",
                                    .min_operands = 1,
                                    .max_operands = 3};

/* What `parse` reads by. */
static const option_table *parse_table = &table;
static const options_usage *parse_usage = &usage;

static struct settings settings;
static bool given[UNROLL_OPTIONS_MAX];
static size_t n_operands;
static const char **operands;
static bool help;

static unroll_status set(const char *name, const char *value)
{
  return options_set(&table, name, value, &settings, NULL);
}

/* What was given, as bits. */
static uint64_t bits_of(const bool *marks)
{
  uint64_t bits = 0;
  for (size_t k = 0; k < 64; ++k) { bits |= (uint64_t)marks[k] << k; }
  return bits;
}

/* Parse words given as one string, separated by single spaces. */
static unroll_status parse(const char *line)
{
  static char copy[1024];
  char *argv[32] = {NULL};
  int argc = 0;

  (void)snprintf(copy, sizeof copy, "%s", line);
  for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " ")) {
    argv[argc++] = word;
  }
  memory_free(&operands);
  memset(&settings, 0, sizeof settings);
  memset(given, 0, sizeof given);
  help = false;
  return options_parse(parse_table, parse_usage, argc, argv, &settings, given, &n_operands,
                       &operands, &help);
}

static void release(void)
{
  memory_free(&operands);
}

/* ---------------------------------------------------------------- defaults */

static void test_defaults_are_what_the_rows_say(void)
{
  options_defaults(&table, &settings);
  for (size_t k = 0; k < N_ROWS; ++k) {
    struct settings again = {0};
    char text[64];
    options_format(&rows[k], &settings, sizeof text, text);
    options_defaults(&table, &again);
    CHECK_OK(options_set(&table, rows[k].name, text, &again, NULL));
    CU_ASSERT(options_equal(&rows[k], &settings, &again));
  }
  CU_ASSERT_EQUAL(settings.size, 64);
  CU_ASSERT_EQUAL(settings.rate, 2e-3);
  CU_ASSERT_EQUAL(settings.color, 1);
  CU_ASSERT_EQUAL(settings.often.count, 600);
  CU_ASSERT_EQUAL(settings.often.unit, UNROLL_EVERY_SECONDS);
}

/* ------------------------------------------------------------------ values */

static void test_set_count_reads_scales_and_exponents(void)
{
  static const struct {
    const char *text;
    uint64_t value;
  } cases[] = {
      {"0", 0},
      {"64", 64},
      {"064", 64},
      {"+5", 5},
      {"64k", 64000},
      {"2M", 2000000},
      {"3G", 3000000000},
      {"1e6", 1000000},
      {"1.5k", 1500},
      {".5k", 500},
      {"25e1", 250},
      {"-0", 0},
      {"9007199254740993", 9007199254740993}, /* 2^53 + 1 is no double */
      {"18446744073709551615", UINT64_MAX},
      {"18446744073709551k", UINT64_C(18446744073709551000)},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    settings.size_limit = 7;
    CHECK_OK(set("size-limit", cases[i].text));
    CU_ASSERT_EQUAL(settings.size_limit, cases[i].value);
  }
}

static void test_set_count_malformed_is_refused_and_leaves_the_value(void)
{
  static const char *const cases[] = {"",  "x", "6 4", " 64",  "64x", "64K", "30m", "1.5",
                                      "k", "-", "--5", "0x10", "1e",  "nan", "inf", "1e-3"};
  settings.size = 7;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    CHECK_FAILS(set("size", cases[i]), UNROLL_ERR_ARG, "not a whole number");
  }
  CU_ASSERT_EQUAL(settings.size, 7);
}

static void test_set_count_out_of_range_names_the_range(void)
{
  settings.size = 7;
  CHECK_FAILS(set("size", "0"), UNROLL_ERR_ARG, "--size 0 is out of range: legal is 1 to 1000000");
  CHECK_FAILS(set("size", "1000001"), UNROLL_ERR_ARG, "legal is 1 to 1000000");
  CHECK_FAILS(set("size", "-5"), UNROLL_ERR_ARG, "legal is 1 to 1000000");
  CHECK_FAILS(set("size-limit", "18446744073709551616"), UNROLL_ERR_ARG, "below 2^64");
  CHECK_FAILS(set("size-limit", "18446744073709552k"), UNROLL_ERR_ARG, "below 2^64");
  CHECK_FAILS(set("size-limit", "1e30"), UNROLL_ERR_ARG, "out of range");
  CU_ASSERT_EQUAL(settings.size, 7);
  CHECK_OK(set("size", "1"));
  CHECK_OK(set("size", "1000000"));
}

static void test_set_real_reads_numbers_and_keeps_the_range(void)
{
  CHECK_OK(set("rate", "1e-3"));
  CU_ASSERT_EQUAL(settings.rate, 1e-3);
  CHECK_OK(set("rate", "0.5"));
  CHECK_OK(set("rate", "1e-300"));
  settings.rate = 0.25;
  CHECK_FAILS(set("rate", "0"), UNROLL_ERR_ARG, "legal is above 0, at most 0.5");
  CHECK_FAILS(set("rate", "0.51"), UNROLL_ERR_ARG, "legal is above 0, at most 0.5");
  CHECK_FAILS(set("rate", "-1"), UNROLL_ERR_ARG, "out of range");
  CHECK_FAILS(set("rate", "inf"), UNROLL_ERR_ARG, "out of range");
  CHECK_FAILS(set("rate", "nan"), UNROLL_ERR_ARG, "not a number");
  CHECK_FAILS(set("rate", ""), UNROLL_ERR_ARG, "not a number");
  CHECK_FAILS(set("rate", " 0.1"), UNROLL_ERR_ARG, "not a number");
  CHECK_FAILS(set("rate", "0.1x"), UNROLL_ERR_ARG, "not a number");
  CU_ASSERT_EQUAL(settings.rate, 0.25);
}

static void test_set_choice_takes_whole_names_only(void)
{
  CHECK_OK(set("color", "greenish"));
  CU_ASSERT_EQUAL(settings.color, 2);
  CHECK_OK(set("color", "green"));
  CU_ASSERT_EQUAL(settings.color, 1);
  CHECK_OK(set("color", "red"));
  CU_ASSERT_EQUAL(settings.color, 0);
  CHECK_FAILS(set("color", "gree"), UNROLL_ERR_ARG, "red|green|greenish");
  CHECK_FAILS(set("color", "red|green"), UNROLL_ERR_ARG, "red|green|greenish");
  CHECK_FAILS(set("color", ""), UNROLL_ERR_ARG, "red|green|greenish");
  CU_ASSERT_EQUAL(settings.color, 0);
}

static void test_set_flag_takes_yes_and_no(void)
{
  CHECK_OK(set("loud", "yes"));
  CU_ASSERT(settings.loud);
  CHECK_FAILS(set("loud", "maybe"), UNROLL_ERR_ARG, "neither yes nor no");
  CU_ASSERT(settings.loud);
  CHECK_OK(set("loud", "no"));
  CU_ASSERT(!settings.loud);
}

static void test_set_text_too_long_is_refused(void)
{
  char text[UNROLL_CONFIG_TEXT + 1];
  memset(text, 'x', sizeof text);
  text[UNROLL_CONFIG_TEXT] = '\0';
  CHECK_OK(set("file", "short"));
  CHECK_FAILS(set("file", text), UNROLL_ERR_ARG, "4096 bytes; at most 4095");
  CU_ASSERT_STRING_EQUAL(settings.file, "short");
  text[UNROLL_CONFIG_TEXT - 1] = '\0';
  CHECK_OK(set("file", text));
  CU_ASSERT_STRING_EQUAL(settings.file, text);
}

static void test_set_every_distinguishes_steps_and_times(void)
{
  static const struct {
    const char *text;
    unroll_every value;
  } cases[] = {
      {"0", {0, UNROLL_EVERY_STEPS}},       {"500", {500, UNROLL_EVERY_STEPS}},
      {"2k", {2000, UNROLL_EVERY_STEPS}},   {"2M", {2000000, UNROLL_EVERY_STEPS}},
      {"90s", {90, UNROLL_EVERY_SECONDS}},  {"30m", {1800, UNROLL_EVERY_SECONDS}},
      {"2h", {7200, UNROLL_EVERY_SECONDS}}, {"0s", {0, UNROLL_EVERY_SECONDS}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    CHECK_OK(set("often", cases[i].text));
    CU_ASSERT_EQUAL(settings.often.count, cases[i].value.count);
    CU_ASSERT_EQUAL(settings.often.unit, cases[i].value.unit);
  }
  CHECK_FAILS(set("often", "5x"), UNROLL_ERR_ARG, "neither a number of updates");
  CHECK_FAILS(set("often", "-5"), UNROLL_ERR_ARG, "neither a number of updates");
  CHECK_FAILS(set("often", "18446744073709551615h"), UNROLL_ERR_ARG, "neither a number");
  CHECK_OK(set("updates", "500"));
  CHECK_FAILS(set("updates", "30m"), UNROLL_ERR_ARG, "not a number of updates");
}

static void test_set_unknown_name_suggests_the_nearest(void)
{
  CHECK_FAILS(set("sise", "1"), UNROLL_ERR_ARG, "no option --sise; the nearest is --size");
  CHECK_FAILS(set("olor", "1"), UNROLL_ERR_ARG, "the nearest is --color");
  CHECK_FAILS(set("size-", "1"), UNROLL_ERR_ARG, "the nearest is --size");
  CHECK_FAILS(set("Rate", "1"), UNROLL_ERR_ARG, "the nearest is --rate");
}

static void test_set_name_of_other_programs_gives_the_one_here_or_none(void)
{
  CHECK_FAILS(set("speed", "1"), UNROLL_ERR_ARG, "no option --speed; here it is --rate");
  CHECK_FAILS(set("learning-rate", "1"), UNROLL_ERR_ARG, "here it is --rate");
  CHECK_FAILS(set("learning_rate", "1"), UNROLL_ERR_ARG,
              "no option --learning_rate; here it is --rate");
  CHECK_FAILS(set("size_limit", "1"), UNROLL_ERR_ARG, "here it is --size-limit");
  CHECK_FAILS(set("learning-rates", "1"), UNROLL_ERR_ARG,
              "no option --learning-rates; the nearest is --rate");
  CHECK_FAILS(set("learning-rat", "1"), UNROLL_ERR_ARG, "the nearest is --rate");
  CHECK_FAILS(set("learn", "1"), UNROLL_ERR_ARG, "the nearest is --rate");
  CHECK_FAILS(set("earning", "1"), UNROLL_ERR_ARG, "no option --earning; --help lists");
  CHECK_FAILS(set("gpu", "1"), UNROLL_ERR_ARG, "no option --gpu; --help lists");
  CHECK_FAILS(set("", "1"), UNROLL_ERR_ARG, "--help lists");
  CHECK_FAILS(set("", "1"), UNROLL_ERR_ARG, "no option --;");
}

static void test_set_marks_what_was_given(void)
{
  bool marks[UNROLL_OPTIONS_MAX] = {true};
  CHECK_OK(options_set(&table, "rate", "0.1", &settings, marks));
  CU_ASSERT_EQUAL(bits_of(marks), 1 | 1 << RATE);
  CHECK_FAILS(options_set(&table, "size", "x", &settings, marks), UNROLL_ERR_ARG, "--size");
  CU_ASSERT_EQUAL(bits_of(marks), 1 | 1 << RATE);
}

/* -------------------------------------------------------------- formatting */

static void test_format_reads_back_to_the_same_bits(void)
{
  static const double reals[] = {0.1, 1e-3, 1.0 / 3, 0.5, 0x1p-1074, 0.1 + 0.2 - 0.1, 1e-8};
  static const unroll_every times[] = {{0, UNROLL_EVERY_STEPS},      {0, UNROLL_EVERY_SECONDS},
                                       {7, UNROLL_EVERY_STEPS},      {59, UNROLL_EVERY_SECONDS},
                                       {60, UNROLL_EVERY_SECONDS},   {3600, UNROLL_EVERY_SECONDS},
                                       {5400, UNROLL_EVERY_SECONDS}, {3601, UNROLL_EVERY_SECONDS}};
  char text[64];

  for (size_t i = 0; i < sizeof reals / sizeof reals[0]; ++i) {
    settings.rate = reals[i];
    options_format(&rows[RATE], &settings, sizeof text, text);
    settings.rate = 0;
    CHECK_OK(set("rate", text));
    CU_ASSERT_EQUAL(settings.rate, reals[i]);
  }
  for (size_t i = 0; i < sizeof times / sizeof times[0]; ++i) {
    settings.often = times[i];
    options_format(&rows[OFTEN], &settings, sizeof text, text);
    CHECK_OK(set("often", text));
    CU_ASSERT_EQUAL(settings.often.count, times[i].count);
    CU_ASSERT_EQUAL(settings.often.unit, times[i].unit);
  }
  settings.rate = 0.1;
  options_format(&rows[RATE], &settings, sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "0.1"); /* the shortest, not 0.10000000000000001 */
}

static void test_format_of_an_illegal_choice_is_refused_when_read(void)
{
  char text[64];
  settings.color = 3;
  options_format(&rows[COLOR], &settings, sizeof text, text);
  CHECK_FAILS(set("color", text), UNROLL_ERR_ARG, "not one of");
  settings.color = -1;
  options_format(&rows[COLOR], &settings, sizeof text, text);
  CHECK_FAILS(set("color", text), UNROLL_ERR_ARG, "not one of");
}

static void test_equal_and_copy_see_one_option_each(void)
{
  static const char *const other[N_ROWS] = {"yes", "65", "1", "0.1", "red", "b.txt", "11m", "5"};
  struct settings a, b;
  options_defaults(&table, &a);

  for (size_t k = 0; k < N_ROWS; ++k) {
    options_defaults(&table, &b);
    CHECK_OK(options_set(&table, rows[k].name, other[k], &b, NULL));
    for (size_t j = 0; j < N_ROWS; ++j) {
      CU_ASSERT_EQUAL(options_equal(&rows[j], &a, &b), j != k);
    }
    options_copy(&rows[k], &a, &b);
    CU_ASSERT(options_equal(&rows[k], &a, &b));
  }
}

/* ----------------------------------------------------------------- parsing */

static void test_parse_takes_options_in_any_place(void)
{
  static const char *const lines[] = {
      "a b --loud --size 2k --rate=0.25 -f x.txt", "--loud a --size=2k b --rate 0.25 -fx.txt",
      "-s 2k --rate 0.25 --file x.txt --loud a b", "-s2k --rate 0.25 --file=x.txt --loud -- a b"};
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; ++i) {
    CHECK_OK(parse(lines[i]));
    CU_ASSERT(settings.loud);
    CU_ASSERT_EQUAL(settings.size, 2000);
    CU_ASSERT_EQUAL(settings.rate, 0.25);
    CU_ASSERT_STRING_EQUAL(settings.file, "x.txt");
    CU_ASSERT_EQUAL(settings.color, 1); /* a default */
    CU_ASSERT_EQUAL(bits_of(given), 1 << LOUD | 1 << SIZE | 1 << RATE | 1 << FILE_NAME);
    CU_ASSERT_EQUAL(n_operands, 2);
    CU_ASSERT_STRING_EQUAL(operands[0], "a");
    CU_ASSERT_STRING_EQUAL(operands[1], "b");
    CU_ASSERT(!help);
  }
  release();
}

static void test_parse_double_dash_ends_the_options(void)
{
  CHECK_OK(parse("a -- --loud --nope"));
  CU_ASSERT_EQUAL(n_operands, 3);
  CU_ASSERT_STRING_EQUAL(operands[1], "--loud");
  CU_ASSERT_STRING_EQUAL(operands[2], "--nope");
  CU_ASSERT(!settings.loud);
  CHECK_OK(parse("-")); /* one dash is an operand, and ends nothing */
  CU_ASSERT_EQUAL(n_operands, 1);
  CHECK_OK(parse("- --loud a"));
  CU_ASSERT_EQUAL(n_operands, 2);
  CU_ASSERT(settings.loud);
  CHECK_FAILS(parse("a --nope -- b"), UNROLL_ERR_ARG, "no option --nope");
  release();
}

static void test_parse_value_may_look_like_an_option(void)
{
  CHECK_OK(parse("--file --loud a"));
  CU_ASSERT_STRING_EQUAL(settings.file, "--loud");
  CU_ASSERT(!settings.loud);
  CHECK_FAILS(parse("--size -5 a"), UNROLL_ERR_ARG, "--size -5 is out of range");
  release();
}

static void test_parse_abbreviations_are_refused(void)
{
  CHECK_FAILS(parse("a --lou"), UNROLL_ERR_ARG, "no option --lou; the nearest is --loud");
  CHECK_FAILS(parse("a --siz 5"), UNROLL_ERR_ARG, "no option --siz; the nearest is --size");
  CHECK_FAILS(parse("a --size-l 5"), UNROLL_ERR_ARG, "the nearest is --size-limit");
  CHECK_FAILS(parse("a --rat=0.1"), UNROLL_ERR_ARG, "no option --rat; the nearest is --rate");
  CHECK_FAILS(parse("a --hel"), UNROLL_ERR_ARG, "no option --hel; the nearest is --help");
  CHECK_OK(parse("a --size 5")); /* though --size-limit begins with it */
  CU_ASSERT_EQUAL(settings.size, 5);
  CU_ASSERT_EQUAL(settings.size_limit, 0);
  release();
}

static void test_parse_unknown_option_is_named(void)
{
  CHECK_FAILS(parse("a --laud b"), UNROLL_ERR_ARG, "no option --laud; the nearest is --loud");
  CHECK_FAILS(parse("--ratte=1 a"), UNROLL_ERR_ARG, "no option --ratte; the nearest is --rate");
  CHECK_FAILS(parse("a b --loud c --fille x"), UNROLL_ERR_ARG, "no option --fille;");
  CHECK_FAILS(parse("a -x"), UNROLL_ERR_ARG, "no option -x");
  CHECK_FAILS(parse("a --l"), UNROLL_ERR_ARG, "no option --l; the nearest is --loud");
  CHECK_FAILS(parse("a --s 5"), UNROLL_ERR_ARG, "no option --s;"); /* begins several names */
  CHECK_FAILS(parse("a -s5 -xs5"), UNROLL_ERR_ARG, "no option -x");
  CHECK_FAILS(parse("a -?"), UNROLL_ERR_ARG, "no option -?");
  release();
}

static void test_parse_option_given_twice_is_refused(void)
{
  CHECK_FAILS(parse("a --size 5 --size 5"), UNROLL_ERR_ARG, "--size is given twice");
  CHECK_FAILS(parse("a -s 5 --size 5"), UNROLL_ERR_ARG, "--size is given twice");
  CHECK_FAILS(parse("a --loud b --loud"), UNROLL_ERR_ARG, "--loud is given twice");
  release();
}

static void test_parse_value_missing_or_unwanted_is_refused(void)
{
  CHECK_FAILS(parse("a --size"), UNROLL_ERR_ARG, "--size needs a value");
  CHECK_FAILS(parse("a -s"), UNROLL_ERR_ARG, "-s needs a value");
  CHECK_FAILS(parse("a --loud=yes"), UNROLL_ERR_ARG, "--loud takes no value");
  CHECK_FAILS(parse("a --help=yes"), UNROLL_ERR_ARG, "--help takes no value");
  CHECK_FAILS(parse("a --size="), UNROLL_ERR_ARG, "--size \"\" is not a whole number");
  release();
}

static void test_parse_counts_the_operands(void)
{
  CHECK_FAILS(parse("--loud"), UNROLL_ERR_ARG, "too few arguments: unroll try [OPTION]... WORD...");
  CHECK_FAILS(parse(""), UNROLL_ERR_ARG, "too few arguments");
  CHECK_OK(parse("a b c"));
  CHECK_FAILS(parse("a b c dd"), UNROLL_ERR_ARG, "\"dd\" is one argument too many");
  release();
}

static void test_parse_failure_leaves_the_outputs(void)
{
  CHECK_OK(parse("a b --loud"));
  const uint64_t bits = bits_of(given);
  const char **words = operands;
  char *argv[] = {(char[]){"--size"}, (char[]){"0"}, NULL};
  CHECK_FAILS(
      options_parse(&table, &usage, 2, argv, &settings, given, &n_operands, &operands, &help),
      UNROLL_ERR_ARG, "out of range");
  CU_ASSERT_EQUAL(bits_of(given), bits);
  CU_ASSERT_EQUAL(n_operands, 2);
  CU_ASSERT_PTR_EQUAL(operands, words);
  release();
}

/* -------------------------------------------------------------------- help */

/* Standard output of a parse, in `text`. */
static void capture(const char *line, size_t size, char *text)
{
  char folder[256], path[300];
  test_folder(folder);
  (void)snprintf(path, sizeof path, "%s/out", folder);
  (void)fflush(stdout);
  int saved = dup(STDOUT_FILENO);
  FILE *out = fopen(path, "w+");
  if (saved < 0 || out == NULL || dup2(fileno(out), STDOUT_FILENO) < 0) { abort(); }
  CHECK_OK(parse(line));
  (void)fflush(stdout);
  if (dup2(saved, STDOUT_FILENO) < 0) { abort(); }
  (void)close(saved);
  rewind(out);
  text[fread(text, 1, size - 1, out)] = '\0';
  (void)fclose(out);
}

static void test_parse_help_prints_every_option_and_default(void)
{
  static char text[8192], first[8192];

  capture("--loud --help --nope", sizeof first, first); /* what follows is not looked at */
  CU_ASSERT(help);
  capture("-h", sizeof text, text);
  CU_ASSERT(help);
  CU_ASSERT_STRING_EQUAL(text, first);

  CU_ASSERT_PTR_NOT_NULL(strstr(text, "Usage: unroll try [OPTION]... WORD...\n\nTry it.\n"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nThat is all.\n"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nOne:\n"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nTwo:\n"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "-s, --size N "));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "--color red|green|greenish"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "-f, --file FILE"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "--often N[s|m|h]"));
  CU_ASSERT_PTR_NOT_NULL(strstr(text, "--updates N "));
  for (size_t k = 0; k < N_ROWS; ++k) { CU_ASSERT_PTR_NOT_NULL(strstr(text, rows[k].help)); }
  release();
}

static void test_describe_has_default_unit_range_and_resume(void)
{
  char text[256];
  options_describe(&rows[SIZE], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text,
                         "how large (default 64, in tokens; 1 to 1000000; may change on resume)");
  options_describe(&rows[SIZE_LIMIT], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "how large at most (default 0; 0 or more)");
  options_describe(&rows[RATE], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "how fast (default 2e-3; above 0, at most 0.5)");
  options_describe(&rows[LOUD], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "speak up");
  options_describe(&rows[FILE_NAME], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "where (default a.txt)");
}

/* ------------------------------------------------------------------- needs */

/* Each form of a need; "loud" is a flag, "size" a count, "file" a text, "color" a choice. */
static const option needy[] = {
    {.name = "color",
     .type = OPTION_CHOICE,
     .offset = offsetof(struct settings, color),
     .default_text = "green",
     .choices = "red|green|greenish",
     .help = "which one",
     .needs = "red|greenish: --file"},
    {.name = "rate",
     .type = OPTION_REAL,
     .offset = offsetof(struct settings, rate),
     .default_text = "0",
     .high = 1,
     .help = "how fast",
     .needs = "--color red|green or --size 7"},
    {.name = "size",
     .type = OPTION_COUNT,
     .offset = offsetof(struct settings, size),
     .default_text = "0",
     .high = 9,
     .help = "how large",
     .needs = "on: --loud or --file"},
    {.name = "loud",
     .type = OPTION_FLAG,
     .offset = offsetof(struct settings, loud),
     .default_text = "no",
     .help = "speak up",
     .needs = "--color green"},
    {.name = "file",
     .type = OPTION_TEXT,
     .offset = offsetof(struct settings, file),
     .default_text = "",
     .help = "where"},
};
static const option_table needy_table = {needy, sizeof needy / sizeof needy[0]};

/* The options of a line, read and checked. */
static unroll_status checked(const char *line)
{
  static const options_usage any = {.command = "try", .operands = "", .max_operands = 0};
  parse_table = &needy_table;
  parse_usage = &any;
  unroll_status st = parse(line);
  parse_table = &table;
  parse_usage = &usage;
  return st != UNROLL_OK ? st : options_check_needs(&needy_table, &settings, given);
}

static void test_needs_of_a_given_option_hold_for_its_default_too(void)
{
  CHECK_OK(checked(""));
  CHECK_OK(checked("--rate 0"));
  CHECK_OK(checked("--rate 0.5 --color red --file x"));
  CHECK_OK(checked("--rate 0.5 --color greenish --file x --size 7"));
  CHECK_OK(checked("--color greenish --file x")); /* --rate has its default, but was not given */
  CHECK_FAILS(
      checked("--rate 0 --color greenish --file x"), UNROLL_ERR_ARG,
      "--rate needs --color red or green or --size 7; here --color is greenish, --size is 0");
  CHECK_FAILS(checked("--loud --color red --file x"), UNROLL_ERR_ARG,
              "--loud needs --color green; here --color is red");
  release();
}

static void test_needs_of_values_are_theirs_alone(void)
{
  CHECK_OK(checked("--color green"));
  CHECK_OK(checked("--color red --file x"));
  CHECK_FAILS(checked("--color red"), UNROLL_ERR_ARG, "--color red needs --file");
  CHECK_FAILS(checked("--file= --color greenish"), UNROLL_ERR_ARG, "--color greenish needs --file");
  CHECK_OK(checked("--size 0"));
  CHECK_OK(checked("--size 1 --loud"));
  CHECK_OK(checked("--size 1 --file no_file"));
  CHECK_FAILS(checked("--size 1"), UNROLL_ERR_ARG, "--size needs --loud or --file");

  CHECK_OK(checked("")); /* set by a program, and not given */
  settings.color = 2;
  CHECK_FAILS(options_check_needs(&needy_table, &settings, 0), UNROLL_ERR_ARG, "--color greenish");
  release();
}

static void test_needs_are_described(void)
{
  char text[256];
  options_describe(&needy[0], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "which one (default green; red or greenish needs --file)");
  options_describe(&needy[1], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text,
                         "how fast (default 0; 0 to 1; needs --color red or green or --size 7)");
  options_describe(&needy[2], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "how large (default 0; 0 to 9; needs --loud or --file)");
  options_describe(&needy[3], sizeof text, text);
  CU_ASSERT_STRING_EQUAL(text, "speak up (needs --color green)");
}

int main(void)
{
  static const struct test_case cases[] = {
      {"defaults: as in the rows", test_defaults_are_what_the_rows_say},
      {"count: scales and exponents", test_set_count_reads_scales_and_exponents},
      {"count: malformed", test_set_count_malformed_is_refused_and_leaves_the_value},
      {"count: out of range", test_set_count_out_of_range_names_the_range},
      {"real: numbers and range", test_set_real_reads_numbers_and_keeps_the_range},
      {"choice: whole names", test_set_choice_takes_whole_names_only},
      {"flag: yes and no", test_set_flag_takes_yes_and_no},
      {"text: too long", test_set_text_too_long_is_refused},
      {"every: steps and times", test_set_every_distinguishes_steps_and_times},
      {"unknown name: nearest", test_set_unknown_name_suggests_the_nearest},
      {"unknown name: of others", test_set_name_of_other_programs_gives_the_one_here_or_none},
      {"set: marks given", test_set_marks_what_was_given},
      {"format: reads back", test_format_reads_back_to_the_same_bits},
      {"format: illegal choice", test_format_of_an_illegal_choice_is_refused_when_read},
      {"equal, copy: one option", test_equal_and_copy_see_one_option_each},
      {"parse: any place", test_parse_takes_options_in_any_place},
      {"parse: double dash", test_parse_double_dash_ends_the_options},
      {"parse: value like an option", test_parse_value_may_look_like_an_option},
      {"parse: abbreviations", test_parse_abbreviations_are_refused},
      {"parse: unknown", test_parse_unknown_option_is_named},
      {"parse: twice", test_parse_option_given_twice_is_refused},
      {"parse: value missing or unwanted", test_parse_value_missing_or_unwanted_is_refused},
      {"parse: operands", test_parse_counts_the_operands},
      {"parse: failure leaves outputs", test_parse_failure_leaves_the_outputs},
      {"help: every option", test_parse_help_prints_every_option_and_default},
      {"describe: default, unit, range", test_describe_has_default_unit_range_and_resume},
      {"needs: of what is given", test_needs_of_a_given_option_hold_for_its_default_too},
      {"needs: of values", test_needs_of_values_are_theirs_alone},
      {"needs: described", test_needs_are_described},
  };
  return run_cases("options", sizeof cases / sizeof cases[0], cases);
}
