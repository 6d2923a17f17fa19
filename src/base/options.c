#include "base/options.h"

#include "base/check.h"
#include "base/memory.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unroll/config.h>

#define WHOLE_LIMIT      0x1p53 /* doubles below it hold every whole number */
#define COUNT_LIMIT      0x1p64 /* a `high` of this or more is no limit of a count */
#define LINE_COLUMNS     79     /* of --help */
#define HELP_COLUMN      30     /* where the explanation of an option begins */
#define DESCRIPTION_SIZE 1024

/* ---------------------------------------------------------------- numbers */

typedef enum reading { READ_OK, READ_MALFORMED, READ_TOO_LARGE_OR_SMALL } reading;

/* Read "64", "1e6" or "1.5", then k, M or G. Digits alone are exact up to 2^64 - 1: seeds need that. */
static reading read_scaled(const char *text, uint64_t *out, const char **rest)
{
  static const struct {
    char letter;
    uint64_t factor;
  } scales[] = {{'k', 1000}, {'M', 1000000}, {'G', 1000000000}};
  const char *digits = text[0] == '-' || text[0] == '+' ? text + 1 : text;
  size_t n = strspn(digits, "0123456789");
  bool whole = n > 0 && strchr(".eE", digits[n]) == NULL;
  uint64_t factor = 1;
  uint64_t value = 0;
  double real = 0.0;
  char *end = NULL;

  if (digits[n] == '\0') { whole = n > 0; }
  if (!isdigit((unsigned char)digits[0]) && digits[0] != '.') { return READ_MALFORMED; }
  errno = 0;
  if (whole) {
    value = strtoull(digits, &end, 10);
    if (errno == ERANGE) { return READ_TOO_LARGE_OR_SMALL; }
  } else {
    real = strtod(digits, &end);
    if (end == digits) { return READ_MALFORMED; }
  }
  for (size_t i = 0; i < sizeof scales / sizeof scales[0]; ++i) {
    if (*end == scales[i].letter) {
      factor = scales[i].factor;
      end += 1;
      break;
    }
  }
  if (whole) {
    if (value > UINT64_MAX / factor) { return READ_TOO_LARGE_OR_SMALL; }
    value *= factor;
  } else {
    real *= (double)factor;
    if (real >= WHOLE_LIMIT) { return READ_TOO_LARGE_OR_SMALL; }
    if (real != floor(real)) { return READ_MALFORMED; }
    value = (uint64_t)real;
  }
  if (text[0] == '-' && value != 0) { return READ_TOO_LARGE_OR_SMALL; }
  *out = value;
  *rest = end;
  return READ_OK;
}

/* Has the range no upper limit but that of the type? */
static bool is_open(const option *row)
{
  return row->type == OPTION_COUNT ? row->high >= COUNT_LIMIT : isinf(row->high);
}

/* "1 to 65536", "above 0", "0 or more" */
static void describe_range(const option *row, size_t size, char *out)
{
  const char *above = row->above_low ? "above " : "";

  if (is_open(row)) {
    (void)snprintf(out, size, "%s%.10g%s", above, row->low, row->above_low ? "" : " or more");
  } else {
    (void)snprintf(out, size, "%s%.10g%s%.10g", above, row->low,
                   row->above_low ? ", at most " : " to ", row->high);
  }
}

static unroll_status fail_range(const option *row, const char *text)
{
  const char *limit = "";
  char range[64];

  describe_range(row, sizeof range, range);
  if (is_open(row)) { limit = row->type == OPTION_COUNT ? ", below 2^64" : ", finite"; }
  return unroll_fail(UNROLL_ERR_ARG, "--%s %s is out of range: legal is %s%s", row->name, text,
                     range, limit);
}

/* --------------------------------------------------------- text to values */

static unroll_status set_flag(const option *row, const char *text, bool *value)
{
  bool yes = strcmp(text, "yes") == 0;
  if (!yes && strcmp(text, "no") != 0) {
    return unroll_fail(UNROLL_ERR_ARG, "--%s %s is neither yes nor no", row->name, text);
  }
  *value = yes;
  return UNROLL_OK;
}

static unroll_status set_count(const option *row, const char *text, uint64_t *value)
{
  const char *rest = "";
  uint64_t count = 0;
  reading r = read_scaled(text, &count, &rest);

  if (r == READ_MALFORMED || *rest != '\0') {
    char range[64];
    describe_range(row, sizeof range, range);
    return unroll_fail(UNROLL_ERR_ARG,
                       "--%s \"%s\" is not a whole number such as 64, 64k or 2M; legal is %s",
                       row->name, text, range);
  }
  if (r != READ_OK || (double)count < row->low || (double)count > row->high) {
    return fail_range(row, text);
  }
  *value = count;
  return UNROLL_OK;
}

static unroll_status set_real(const option *row, const char *text, double *value)
{
  char *end = NULL;
  double real = strtod(text, &end);

  if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || isnan(real)) {
    char range[64];
    describe_range(row, sizeof range, range);
    return unroll_fail(UNROLL_ERR_ARG,
                       "--%s \"%s\" is not a number such as 0.5 or 1e-3; legal is %s", row->name,
                       text, range);
  }
  if (isinf(real) || real < row->low || real > row->high || (row->above_low && real <= row->low)) {
    return fail_range(row, text);
  }
  *value = real;
  return UNROLL_OK;
}

/* Name number `index` of "a|b|c", its length in *n; NULL past the end. */
static const char *choice_name(const char *choices, int index, size_t *n)
{
  for (; index > 0; --index) {
    choices = strchr(choices, '|');
    if (choices == NULL) { return NULL; }
    choices += 1;
  }
  *n = strcspn(choices, "|");
  return choices;
}

static unroll_status set_choice(const option *row, const char *text, int *value)
{
  size_t n = 0;
  const char *name = choice_name(row->choices, 0, &n);

  for (int index = 0; name != NULL; ++index, name = choice_name(row->choices, index, &n)) {
    if (strlen(text) == n && strncmp(text, name, n) == 0) {
      *value = index;
      return UNROLL_OK;
    }
  }
  return unroll_fail(UNROLL_ERR_ARG, "--%s \"%s\" is not one of %s", row->name, text, row->choices);
}

static unroll_status set_text(const option *row, const char *text, char *value)
{
  size_t n = strlen(text);
  if (n >= UNROLL_CONFIG_TEXT) {
    return unroll_fail(UNROLL_ERR_ARG, "--%s has %zu bytes; at most %d are legal", row->name, n,
                       UNROLL_CONFIG_TEXT - 1);
  }
  memcpy(value, text, n + 1);
  return UNROLL_OK;
}

static unroll_status set_every(const option *row, const char *text, unroll_every *value)
{
  static const struct {
    const char *suffix;
    unroll_every_unit unit;
    uint64_t factor;
  } units[] = {{"", UNROLL_EVERY_STEPS, 1},
               {"s", UNROLL_EVERY_SECONDS, 1},
               {"m", UNROLL_EVERY_SECONDS, 60},
               {"h", UNROLL_EVERY_SECONDS, 3600}};
  const char *rest = "";
  uint64_t count = 0;
  reading r = read_scaled(text, &count, &rest);

  if (row->unit != NULL && (r != READ_OK || *rest != '\0')) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--%s \"%s\" is not a number of %s (500, 2k); a time is not "
                       "legal, because the result would depend on the speed of the machine",
                       row->name, text, row->unit);
  }
  for (size_t i = 0; r == READ_OK && i < sizeof units / sizeof units[0]; ++i) {
    if (strcmp(rest, units[i].suffix) == 0 && count <= UINT64_MAX / units[i].factor) {
      *value = (unroll_every){count * units[i].factor, units[i].unit};
      return UNROLL_OK;
    }
  }
  return unroll_fail(UNROLL_ERR_ARG,
                     "--%s \"%s\" is neither a number of updates (500, 2k; 0 is never) nor a time "
                     "(90s, 30m, 2h)",
                     row->name, text);
}

static unroll_status set_row(const option *row, const char *text, void *settings)
{
  void *value = (char *)settings + row->offset;
  switch (row->type) {
  case OPTION_FLAG:
    return set_flag(row, text, value);
  case OPTION_COUNT:
    return set_count(row, text, value);
  case OPTION_REAL:
    return set_real(row, text, value);
  case OPTION_CHOICE:
    return set_choice(row, text, value);
  case OPTION_TEXT:
    return set_text(row, text, value);
  case OPTION_EVERY:
    return set_every(row, text, value);
  }
  return unroll_fail(UNROLL_ERR_ARG, "--%s has no type", row->name);
}

void options_defaults(const option_table *table, void *settings)
{
  for (size_t k = 0; k < table->n_rows; ++k) {
    const option *row = &table->rows[k];
    if (row->default_text == NULL) {
      assert(row->type == OPTION_COUNT && row->derived != NULL);
      *(uint64_t *)((char *)settings + row->offset) = 0;
      continue;
    }
    unroll_status st = set_row(row, row->default_text, settings);
    assert(st == UNROLL_OK);
    (void)st;
  }
}

bool options_is_open(const option *row, const void *settings)
{
  return row->default_text == NULL &&
         *(const uint64_t *)((const char *)settings + row->offset) == 0;
}

/* --------------------------------------------------------- values to text */

/* The shortest decimal number that reads back to the same bits. */
static void format_real(double value, size_t size, char *out)
{
  for (int digits = 1; digits <= 17; ++digits) {
    (void)snprintf(out, size, "%.*g", digits, value);
    if (strtod(out, NULL) == value) { return; }
  }
}

static void format_every(unroll_every value, size_t size, char *out)
{
  uint64_t count = value.count;
  const char *suffix = "";
  if (value.unit == UNROLL_EVERY_SECONDS) {
    suffix = "s";
    if (count != 0 && count % 3600 == 0) {
      suffix = "h";
      count /= 3600;
    } else if (count != 0 && count % 60 == 0) {
      suffix = "m";
      count /= 60;
    }
  }
  (void)snprintf(out, size, "%" PRIu64 "%s", count, suffix);
}

static void format_choice(const option *row, int index, size_t size, char *out)
{
  size_t n = 0;
  const char *name = index < 0 ? NULL : choice_name(row->choices, index, &n);
  if (name == NULL) {
    (void)snprintf(out, size, "%d", index); /* not legal, and options_set will say so */
  } else {
    (void)snprintf(out, size, "%.*s", (int)n, name);
  }
}

void options_format(const option *row, const void *settings, size_t size, char *out)
{
  const void *value = (const char *)settings + row->offset;
  switch (row->type) {
  case OPTION_FLAG:
    (void)snprintf(out, size, "%s", *(const bool *)value ? "yes" : "no");
    break;
  case OPTION_COUNT:
    (void)snprintf(out, size, "%" PRIu64, *(const uint64_t *)value);
    break;
  case OPTION_REAL:
    format_real(*(const double *)value, size, out);
    break;
  case OPTION_CHOICE:
    format_choice(row, *(const int *)value, size, out);
    break;
  case OPTION_TEXT:
    (void)snprintf(out, size, "%s", (const char *)value);
    break;
  case OPTION_EVERY:
    format_every(*(const unroll_every *)value, size, out);
    break;
  }
}

bool options_equal(const option *row, const void *a, const void *b)
{
  const void *x = (const char *)a + row->offset;
  const void *y = (const char *)b + row->offset;
  switch (row->type) {
  case OPTION_FLAG:
    return *(const bool *)x == *(const bool *)y;
  case OPTION_COUNT:
    return *(const uint64_t *)x == *(const uint64_t *)y;
  case OPTION_REAL:
    return *(const double *)x == *(const double *)y;
  case OPTION_CHOICE:
    return *(const int *)x == *(const int *)y;
  case OPTION_TEXT:
    return strcmp(x, y) == 0;
  case OPTION_EVERY:
    break;
  }
  const unroll_every *s = x;
  const unroll_every *t = y;
  return s->count == t->count && (s->count == 0 || s->unit == t->unit);
}

void options_copy(const option *row, const void *from, void *to)
{
  static const size_t sizes[] = {
      [OPTION_FLAG] = sizeof(bool),       [OPTION_COUNT] = sizeof(uint64_t),
      [OPTION_REAL] = sizeof(double),     [OPTION_CHOICE] = sizeof(int),
      [OPTION_TEXT] = UNROLL_CONFIG_TEXT, [OPTION_EVERY] = sizeof(unroll_every),
  };
  memcpy((char *)to + row->offset, (const char *)from + row->offset, sizes[row->type]);
}

/* ------------------------------------------------------------------ needs */

static const option *find_name(const option_table *table, const char *name, size_t n)
{
  for (size_t k = 0; k < table->n_rows; ++k) {
    const char *candidate = table->rows[k].name;
    if (strlen(candidate) == n && strncmp(candidate, name, n) == 0) { return &table->rows[k]; }
  }
  return NULL;
}

/* The values of "line|paragraph: --bptt full" that have the need, or NULL, and where it begins. */
static const char *split_needs(const char *needs, const char **conditions)
{
  bool of_values = strncmp(needs, "--", 2) != 0;
  *conditions = of_values ? strchr(needs, ' ') + 1 : needs;
  return of_values ? needs : NULL;
}

/* Is the text one of "a|b|c", which ends at a colon, a blank or zero? "on:": is it neither no, 0 nor empty? */
static bool is_among(const char *text, const char *values)
{
  size_t n = strlen(text);
  if (strncmp(values, "on:", 3) == 0) {
    return n > 0 && strcmp(text, "no") != 0 && strcmp(text, "0") != 0;
  }
  for (;;) {
    size_t length = strcspn(values, "|: ");
    if (length == n && strncmp(values, text, n) == 0) { return true; }
    if (values[length] != '|') { return false; }
    values += length + 1;
  }
}

/* One of several "--name" or "--name a|b"; `values` is "on:" for the former. Returns the one after it, or NULL. */
static const char *next_condition(const option_table *table, const char *text, const option **row,
                                  const char **values)
{
  size_t n = strcspn(text + 2, " ");
  *row = find_name(table, text + 2, n);
  assert(*row != NULL);
  text += 2 + n;
  *values = *text == '\0' || strncmp(text, " or ", 4) == 0 ? "on:" : text + 1;
  text = strstr(text, " or ");
  return text == NULL ? NULL : text + 4;
}

/* Copy up to `end`, with " or " for every bar. Returns the end of the copy. */
static char *copy_values(const char *from, const char *end, char *to)
{
  for (; from < end; ++from) {
    if (*from == '|') {
      memcpy(to, " or ", 4);
      to += 4;
    } else {
      *to++ = *from;
    }
  }
  *to = '\0';
  return to;
}

/* "needs --schedule step or plateau", "line or paragraph needs --bptt full" */
static void describe_needs(const option *row, size_t size, char *out)
{
  const char *conditions = NULL;
  const char *values = split_needs(row->needs, &conditions);

  assert(4 * strlen(row->needs) + sizeof "needs " <= size);
  (void)size;
  if (values != NULL && strncmp(values, "on:", 3) != 0) {
    out = copy_values(values, strchr(values, ':'), out);
    *out++ = ' ';
  }
  out += sprintf(out, "needs ");
  (void)copy_values(conditions, conditions + strlen(conditions), out);
}

/* Is one of the conditions met? `here` is set to the actual values: "; here --bptt is full". */
static bool is_met(const option_table *table, const char *conditions, const void *settings,
                   size_t size, char *here)
{
  size_t n = 0;
  here[0] = '\0';
  while (conditions != NULL) {
    const option *row = NULL;
    const char *values = NULL;
    char text[UNROLL_CONFIG_TEXT];
    conditions = next_condition(table, conditions, &row, &values);
    options_format(row, settings, sizeof text, text);
    if (is_among(text, values)) { return true; }
    if (row->type != OPTION_FLAG && text[0] != '\0') {
      n += (size_t)snprintf(here + n, size - n, "%s--%s is %s", n == 0 ? "; here " : ", ",
                            row->name, text);
      assert(n < size);
    }
  }
  return false;
}

unroll_status options_check_needs(const option_table *table, const void *settings,
                                  const bool *given)
{
  for (size_t k = 0; k < table->n_rows; ++k) {
    const option *row = &table->rows[k];
    const char *conditions = NULL;
    char own[UNROLL_CONFIG_TEXT];
    char needs[256];
    char here[256];
    if (row->needs == NULL) { continue; }

    const char *values = split_needs(row->needs, &conditions);
    options_format(row, settings, sizeof own, own);
    bool applies = values == NULL ? given[k] : is_among(own, values);
    if (!applies || is_met(table, conditions, settings, sizeof here, here)) { continue; }

    describe_needs(row, sizeof needs, needs);
    bool named = row->type == OPTION_CHOICE && values != NULL;
    return unroll_fail(UNROLL_ERR_ARG, "--%s %s%s%s%s", row->name, named ? own : "",
                       named ? " " : "", strstr(needs, "needs "), here);
  }
  return UNROLL_OK;
}

/* ------------------------------------------------------------------- help */

void options_spell(const option *row, size_t size, char *out)
{
  char value[128] = "";
  char letter[8] = "";

  switch (row->type) {
  case OPTION_FLAG:
    break;
  case OPTION_COUNT:
    (void)snprintf(value, sizeof value, " N");
    break;
  case OPTION_REAL:
    (void)snprintf(value, sizeof value, " X");
    break;
  case OPTION_CHOICE:
    (void)snprintf(value, sizeof value, " %s", row->choices);
    break;
  case OPTION_EVERY:
    (void)snprintf(value, sizeof value, " N%s", row->unit == NULL ? "[s|m|h]" : "");
    break;
  case OPTION_TEXT:
    (void)snprintf(value, sizeof value, " %s", row->unit);
    for (char *c = value; *c != '\0'; ++c) { *c = (char)toupper((unsigned char)*c); }
    break;
  }
  if (row->letter != 0) { (void)snprintf(letter, sizeof letter, "-%c, ", row->letter); }
  (void)snprintf(out, size, "%s--%s%s", letter, row->name, value);
}

/* Append to a note in parentheses: "default 64; 1 to 9". */
static void add_note(size_t size, char *notes, const char *format, ...)
{
  size_t n = strlen(notes);
  va_list list;

  n += (size_t)snprintf(notes + n, size - n, "%s", n == 0 ? "" : "; ");
  assert(n < size);
  va_start(list, format);
  (void)vsnprintf(notes + n, size - n, format, list);
  va_end(list);
}

void options_describe(const option *row, size_t size, char *out)
{
  char notes[512] = "";
  char text[256];

  if (row->type != OPTION_FLAG) {
    bool unit = row->type != OPTION_TEXT && row->unit != NULL;
    const char *value = row->default_text == NULL      ? row->derived
                        : row->default_text[0] == '\0' ? "none"
                                                       : row->default_text;
    add_note(sizeof notes, notes, "default%s %s%s%s", row->default_text == NULL ? ":" : "", value,
             unit ? ", in " : "", unit ? row->unit : "");
  }
  if (row->type == OPTION_COUNT || row->type == OPTION_REAL) {
    describe_range(row, sizeof text, text);
    add_note(sizeof notes, notes, "%s", text);
  }
  if (row->needs != NULL) {
    describe_needs(row, sizeof text, text);
    add_note(sizeof notes, notes, "%s", text);
  }
  if (row->may_change) { add_note(sizeof notes, notes, "may change on resume"); }
  if (row->with_change) { add_note(sizeof notes, notes, "may change on resume with --change"); }
  if (notes[0] == '\0') {
    (void)snprintf(out, size, "%s", row->help);
  } else {
    (void)snprintf(out, size, "%s (%s)", row->help, notes);
  }
}

/* Print words, breaking lines before LINE_COLUMNS; `column` is where the first line stands. */
static void print_wrapped(const char *text, size_t column)
{
  bool first = true;
  while (*text != '\0') {
    size_t n = strcspn(text, " ");
    if (column + 1 + n > LINE_COLUMNS || (first && column > HELP_COLUMN - 2)) {
      (void)printf("\n%*s", HELP_COLUMN, "");
      column = HELP_COLUMN;
    } else if (first) {
      (void)printf("%*s", HELP_COLUMN - (int)column, "");
      column = HELP_COLUMN;
    } else {
      (void)printf(" ");
      column += 1;
    }
    (void)printf("%.*s", (int)n, text);
    column += n;
    text += n + strspn(text + n, " ");
    first = false;
  }
  (void)printf("\n");
}

static void print_option(const option *row)
{
  char spelling[192];
  char description[DESCRIPTION_SIZE];

  options_spell(row, sizeof spelling, spelling);
  options_describe(row, sizeof description, description);
  int column = printf("  %s%s", row->letter == 0 ? "    " : "", spelling);
  print_wrapped(description, column < 0 ? 0 : (size_t)column);
}

static void print_help(const option_table *table, const options_usage *usage)
{
  static const option help = {
      .name = "help", .letter = 'h', .type = OPTION_FLAG, .help = "print this text and exit"};
  const char *heading = "";

  (void)printf("Usage: unroll %s [OPTION]... %s\n\n%s\n", usage->command, usage->operands,
               usage->purpose);
  for (size_t k = 0; k < table->n_rows; ++k) {
    const option *row = &table->rows[k];
    if (strcmp(row->heading, heading) != 0) {
      heading = row->heading;
      (void)printf("\n%s:\n", heading);
    }
    print_option(row);
  }
  (void)printf("\nOther:\n");
  print_option(&help);
  if (usage->notes != NULL) { (void)printf("\n%s\n", usage->notes); }
}

/* ---------------------------------------------------------------- look-up */

/* Levenshtein distance; names are short, longer ones are cut. */
static size_t edit_distance(const char *a, const char *b)
{
  size_t row[64];
  size_t n = strlen(b);
  const size_t most = sizeof row / sizeof row[0] - 1;
  n = n < most ? n : most;

  for (size_t j = 0; j <= n; ++j) { row[j] = j; }
  for (size_t i = 0; a[i] != '\0'; ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < n; ++j) {
      size_t best = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      if (row[j] + 1 < best) { best = row[j] + 1; }
      if (row[j + 1] + 1 < best) { best = row[j + 1] + 1; }
      row[j + 1] = best;
    }
  }
  return row[n];
}

/* The option that other programs call so, with '-' or '_' between words, or NULL. */
static const char *known_elsewhere(const option_table *table, const char *word)
{
  char plain[64];
  (void)snprintf(plain, sizeof plain, "%s", word);
  for (char *c = plain; *c != '\0'; ++c) { *c = *c == '_' ? '-' : *c; }
  for (size_t k = 0; k < table->n_rows; ++k) {
    const option *row = &table->rows[k];
    if (strcmp(row->name, plain) == 0 || (row->others != NULL && is_among(plain, row->others))) {
      return row->name;
    }
  }
  return NULL;
}

/* Changes that make the word the name, of n characters: one, however much is missing, where it begins the name. */
static size_t distance_to(const char *word, const char *name, size_t n)
{
  char whole[64];
  (void)snprintf(whole, sizeof whole, "%.*s", (int)n, name);
  const bool begins = word[0] != '\0' && strncmp(word, whole, strlen(word)) == 0;
  return begins ? 1 : edit_distance(word, whole);
}

/* The option of a word that was mistyped or abbreviated, NULL where none is near. What other programs call it is near
 * too; of equally near names our own comes first. */
static const char *nearest_name(const option_table *table, const char *word)
{
  const char *nearest = NULL;
  size_t least = 2 + strlen(word) / 4; /* the first distance that is too far */

  for (size_t k = 0; k <= table->n_rows; ++k) {
    const char *name = k < table->n_rows ? table->rows[k].name : "help";
    const size_t distance = distance_to(word, name, strlen(name));
    if (distance < least) {
      least = distance;
      nearest = name;
    }
  }
  for (size_t k = 0; k < table->n_rows; ++k) {
    const char *other = table->rows[k].others;
    while (other != NULL && *other != '\0') {
      const size_t n = strcspn(other, "|"), distance = distance_to(word, other, n);
      if (distance < least) {
        least = distance;
        nearest = table->rows[k].name;
      }
      other += n + (other[n] == '|');
    }
  }
  return nearest;
}

static unroll_status fail_unknown(const option_table *table, const char *name, size_t n)
{
  char word[64];
  (void)snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : (int)sizeof word - 1, name);
  const char *here = known_elsewhere(table, word);
  const char *nearest = here != NULL ? NULL : nearest_name(table, word);

  if (here != NULL) {
    return unroll_fail(UNROLL_ERR_ARG, "there is no option --%s; here it is --%s", word, here);
  }
  if (nearest != NULL) {
    return unroll_fail(UNROLL_ERR_ARG, "there is no option --%s; the nearest is --%s", word,
                       nearest);
  }
  return unroll_fail(UNROLL_ERR_ARG, "there is no option --%s; --help lists the options", word);
}

unroll_status options_set(const option_table *table, const char *name, const char *value,
                          void *settings, bool *given)
{
  const option *row = find_name(table, name, strlen(name));
  if (row == NULL) { return fail_unknown(table, name, strlen(name)); }

  unroll_status st = set_row(row, value, settings);
  if (st == UNROLL_OK && given != NULL) { given[row - table->rows] = true; }
  return st;
}

/* ---------------------------------------------------------------- parsing */

/* What getopt_long returns: of a long option this much and its row; else the letter, or one of these. */
#define KEY_ROW     256
#define KEY_HELP    'h'
#define KEY_OPERAND 1
#define KEY_MISSING ':' /* a value */
#define KEY_UNKNOWN '?' /* also an abbreviation of several names, and a value where none is taken */

struct parse {
  const option_table *table;
  void *settings;
  bool given[UNROLL_OPTIONS_MAX];
  size_t n_operands;
  const char **operands;
  bool help;
};

static const option *find_key(const option_table *table, int key)
{
  if (key >= KEY_ROW) { return &table->rows[key - KEY_ROW]; }
  for (size_t k = 0; k < table->n_rows; ++k) {
    if (key != 0 && table->rows[k].letter == key) { return &table->rows[k]; }
  }
  return NULL;
}

/* The error for a word that getopt_long refused; `letter`: the illegal one of several short options. */
static unroll_status fail_word(const option_table *table, const char *word, int letter)
{
  if (strncmp(word, "--", 2) != 0) {
    if (letter == KEY_HELP || find_key(table, letter) == NULL) {
      return unroll_fail(UNROLL_ERR_ARG, "there is no option -%c; --help lists the options",
                         letter);
    }
    return unroll_fail(UNROLL_ERR_ARG, "-%c needs a value", letter);
  }

  size_t n = strcspn(word + 2, "=");
  const option *row = find_name(table, word + 2, n);
  if (strncmp(word, "--help=", 7) == 0) {
    return unroll_fail(UNROLL_ERR_ARG, "--help takes no value");
  }
  if (row == NULL) { return fail_unknown(table, word + 2, n); }
  return unroll_fail(UNROLL_ERR_ARG, "--%s %s", row->name,
                     row->type == OPTION_FLAG ? "takes no value" : "needs a value");
}

/* The option of a key, which getopt_long read from this word. */
static unroll_status take_option(struct parse *p, const char *word, int key, const char *value)
{
  const option *row = find_key(p->table, key);
  const char *name = row == NULL ? "help" : row->name;

  /* getopt_long takes abbreviations: compare the whole name with the word as it was written. */
  if (strncmp(word, "--", 2) == 0 && strcspn(word + 2, "=") != strlen(name)) {
    return fail_unknown(p->table, word + 2, strcspn(word + 2, "="));
  }
  if (row == NULL) {
    p->help = true;
    return UNROLL_OK;
  }
  bool *given = &p->given[row - p->table->rows];
  if (*given) {
    return unroll_fail(UNROLL_ERR_ARG, "--%s is given twice; give it once", row->name);
  }
  *given = true;
  return set_row(row, value == NULL ? "yes" : value, p->settings);
}

/* The arguments of getopt_long: each long name, each letter, and help. */
static void list_options(const option_table *table, struct option *names, char *letters)
{
  *letters++ = '-'; /* operands as they come, as KEY_OPERAND */
  *letters++ = ':'; /* return KEY_MISSING where a value is missing, and print nothing */
  for (size_t k = 0; k < table->n_rows; ++k) {
    const option *row = &table->rows[k];
    int value = row->type == OPTION_FLAG ? no_argument : required_argument;
    names[k] = (struct option){.name = row->name, .has_arg = value, .val = KEY_ROW + (int)k};
    if (row->letter != 0) {
      *letters++ = (char)row->letter;
      if (value == required_argument) { *letters++ = ':'; }
    }
  }
  names[table->n_rows] = (struct option){.name = "help", .val = KEY_HELP};
  *letters++ = KEY_HELP;
}

/* Read the words behind the first up to the end, a mistake, or help: what follows that is not looked at. */
static unroll_status take_words(struct parse *p, int argc, char **words, const struct option *names,
                                const char *letters)
{
  unroll_status st = UNROLL_OK;

  optind = 0; /* begin anew, with glibc and musl */
  opterr = 0;
  while (st == UNROLL_OK && !p->help) {
    const char *word = words[optind == 0 ? 1 : optind];
    int key = getopt_long(argc, words, letters, names, NULL);
    if (key == -1 && word != NULL && strcmp(word, "-") == 0) { /* where musl stops */
      p->operands[p->n_operands++] = words[optind++];
    } else if (key == -1) {
      break;
    } else if (key == KEY_OPERAND) {
      p->operands[p->n_operands++] = optarg;
    } else if (key == KEY_MISSING || key == KEY_UNKNOWN) {
      st = fail_word(p->table, word, optopt);
    } else {
      st = take_option(p, word, key, optarg);
    }
  }
  for (; st == UNROLL_OK && !p->help && optind < argc; ++optind) { /* behind "--" */
    p->operands[p->n_operands++] = words[optind];
  }
  return st;
}

unroll_status options_parse(const option_table *table, const options_usage *usage, int argc,
                            char **argv, void *settings, bool *given, size_t *n_operands,
                            const char ***operands, bool *help)
{
  unroll_status st = UNROLL_OK;
  struct option *names = NULL;
  char *letters = NULL;
  char program[] = "unroll"; /* getopt_long skips the first word */
  char **words = NULL;
  struct parse p = {.table = table, .settings = settings};

  assert(table->n_rows <= UNROLL_OPTIONS_MAX);
  UNROLL_TRY(memory_new(table->n_rows + 2, sizeof *names, "the options", &names));
  UNROLL_TRY(memory_new(2 * table->n_rows + 4, 1, "the letters of options", &letters));
  UNROLL_TRY(memory_new((size_t)argc + 2, sizeof *words, "the command line", &words));
  UNROLL_TRY(memory_new((size_t)argc, sizeof *p.operands, "the operands", &p.operands));
  list_options(table, names, letters);
  words[0] = program;
  memcpy(words + 1, argv, (size_t)argc * sizeof *words);
  options_defaults(table, settings);

  UNROLL_TRY(take_words(&p, argc + 1, words, names, letters));
  if (p.help) {
    print_help(table, usage);
  } else if (p.n_operands < usage->min_operands) {
    st = unroll_fail(UNROLL_ERR_ARG, "too few arguments: unroll %s [OPTION]... %s", usage->command,
                     usage->operands);
  } else if (p.n_operands > usage->max_operands) {
    st = unroll_fail(UNROLL_ERR_ARG, "\"%s\" is one argument too many: unroll %s [OPTION]... %s",
                     p.operands[usage->max_operands], usage->command, usage->operands);
  }
  if (st != UNROLL_OK) { goto cleanup; }

  *help = p.help;
  *n_operands = p.n_operands;
  *operands = p.operands;
  p.operands = NULL;
  if (given != NULL) { memcpy(given, p.given, sizeof p.given); }

cleanup:
  memory_free(&p.operands);
  memory_free(&words);
  memory_free(&letters);
  memory_free(&names);
  return st;
}
