#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

/*
 * Options as a table: one row per option has its name, type, offset, default,
 * unit, range, help and the options that it depends on. Parsing (by
 * getopt_long), --help, the checks, the man page and the
 * /config group of the run file all use the rows.
 *
 * `needs` names settings without which an option has no effect:
 *
 *   "--optimizer momentum"               needed wherever the option is given, even with its default value
 *   "--schedule step|plateau"            one of these values
 *   "--out"                              set: neither no, nor 0, nor empty
 *   "--valid or --valid-fraction"        one of several
 *   "line|paragraph: --bptt full"        these values alone need it, given or set by a program
 *   "on: --dry-run"                      every value except no, 0 and the empty one needs it, given or set by a program
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/status.h>

typedef enum option_type {
  OPTION_FLAG,   /* bool: --name; in text "yes" or "no" */
  OPTION_COUNT,  /* uint64_t: "64", "64k" (1000s), "2M", "1e6" */
  OPTION_REAL,   /* double: "0.5", "1e-3" */
  OPTION_CHOICE, /* int-sized enum: index into the names of `choices`, separated by '|' */
  OPTION_TEXT,   /* char[UNROLL_CONFIG_TEXT] */
  OPTION_EVERY,  /* unroll_every: "500" steps, "90s", "30m", "2h", "0" never */
} option_type;

/* The tag differs from the type because getopt.h defines `struct option`. */
typedef struct option_row {
  const char *name; /* long name without dashes */
  int letter;       /* short name, or 0 */
  option_type type;
  size_t offset;            /* of the field in the settings struct */
  const char *default_text; /* default as text, read by the same parser; NULL: see `derived` */
  const char *
      derived; /* COUNT: where the default comes from, "from the size of the text"; until it is known the
                          field is 0, which cannot be typed */
  const char *unit;    /* "steps", "epochs", "nats"...; NULL where the number is pure; TEXT: "file";
                           EVERY: NULL, or "updates": times are not legal */
  double low, high;    /* legal range, inclusive; for COUNT, REAL */
  bool above_low;      /* REAL: low itself is not legal */
  const char *choices; /* CHOICE: "byte|char|word" */
  const char *heading; /* group in --help: "Data", "Model", ...; equal for neighbours */
  const char *help;    /* one sentence, without the default: that is printed from `default_text` */
  const char *needs;   /* see above; NULL: nothing */
  const char *
      others; /* what other programs call it, "learning-rate|eta": not taken, but understood; or NULL */
  bool may_change;  /* may differ when a run is resumed, as the result does not depend on it */
  bool with_change; /* may differ from there on when a run is resumed with --change */
  bool of_model;    /* of the weights and their vocabulary: --init-from takes it from its file */
} option;

typedef struct option_table {
  const option *rows;
  size_t n_rows;
} option_table;

/** Fill in every default, 0 where it is derived. An illegal default is a mistake in the table: asserted. */
void options_defaults(const option_table *table, void *settings);

/** Set one option k from text; see unroll_config_set. given[k], if not NULL, is set. */
unroll_status options_set(const option_table *table, const char *name, const char *value,
                          void *settings, bool *given);

/** Has the option a default that is derived, and neither that nor another value yet? */
bool options_is_open(const option *row, const void *settings);

/** Text of the current value, as options_set would read it back to the same bits. */
void options_format(const option *row, const void *settings, size_t size, char *out);

/** Are the two settings' values of this option the same? */
bool options_equal(const option *row, const void *a, const void *b);

/** Copy the value of this option from one settings struct to another. */
void options_copy(const option *row, const void *from, void *to);

/**
 * Check `needs` of every option; see the head of this file.
 *
 * @param[in] given  [k]: option k was given
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: one line names the option, what it needs and what there is
 */
unroll_status options_check_needs(const option_table *table, const void *settings,
                                  const bool *given);

/** The option as help and man page show it: "-o, --out FILE". */
void options_spell(const option *row, size_t size, char *out);

/** What it does, with default, unit, range and needs: "how far (default 64, in steps; 1 to 9; needs --go)". */
void options_describe(const option *row, size_t size, char *out);

/* The command line of one subcommand. */
typedef struct options_usage {
  const char *command;  /* "train" */
  const char *operands; /* "TEXT..." */
  const char *purpose;  /* paragraphs above the options; its first line is the summary */
  const char *notes;    /* paragraphs below the options, or NULL; indented lines are examples */
  size_t min_operands, max_operands;
} options_usage;

/**
 * Parse a command line: options in any place, "--" ends them, abbreviations are refused.
 *
 * @param[in]  argc, argv   from the word after the subcommand
 * @param[out] settings     defaults filled in, then what was given
 * @param[out] given        [k] is set when option k was given, the others are not; may be NULL
 * @param[out] operands     the words that are no options, borrowed from argv; to be freed
 * @param[out] help         true: --help was given and printed to stdout; nothing else is to be done
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: unknown option (the nearest is suggested), option given twice,
 *         value missing or illegal, too few or too many operands
 */
unroll_status options_parse(const option_table *table, const options_usage *usage, int argc,
                            char **argv, void *settings, bool *given, size_t *n_operands,
                            const char ***operands, bool *help);

/** The table behind unroll_config. */
extern const option_table config_table;

/** Shards of a batch unless told otherwise: 16, or the largest power of two below that divides it. */
uint64_t config_shards(uint64_t batch);

/**
 * Fill in what is left to the size of the text, --batch and --epochs; where --batch is given, --epochs as for a large
 * one. To be followed by unroll_config_resolve.
 *
 * @param[in] tokens  of the training text
 */
struct unroll_config;
void config_fit(struct unroll_config *config, uint64_t tokens);

/** Was the option of this field, its offset in unroll_config, given? */
bool config_is_given(const struct unroll_config *config, size_t offset);

/** Is this option of config_table about a call of the program rather than about the run? out, config, resume, change,
 * overwrite, dry-run, ranks and log-format are. */
bool config_is_of_call(const option *row);

/**
 * Copy from `file` every option that is not set in config->given, except those of this call. To be
 * followed by unroll_config_resolve.
 *
 * @param[in] file  as resolved, which is what a run file holds
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: an option that shapes the result was given and differs from
 *         the file's value, and is not one that config->change allows; the message names the option and both values
 */
unroll_status config_resume(struct unroll_config *config, const struct unroll_config *file);

/**
 * Copy from `file`, the run that config->init_from names, every option of the model. To be followed by
 * unroll_config_resolve.
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: one of them was given and differs; the message names it and both values
 */
unroll_status config_init_from(struct unroll_config *config, const struct unroll_config *file);

#endif
