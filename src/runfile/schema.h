#ifndef RUNFILE_SCHEMA_H
#define RUNFILE_SCHEMA_H

/*
 * The tables of the run file: one row per attribute or column, so that write,
 * read and log cannot disagree. README.md beside this file is the same for
 * people; tests/story/open_with_tools.py holds a file against it.
 */
#include "runfile/runfile.h"

typedef enum schema_type {
  SCHEMA_COUNT, /* uint64_t */
  SCHEMA_REAL,  /* double */
  SCHEMA_FLAG,  /* int, 0 or 1 */
  SCHEMA_TEXT,  /* char *, owned; NULL is written as "" */
} schema_type;

typedef struct schema_field {
  const char *name;
  schema_type type;
  size_t offset;                 /* in the struct of the table */
  bool added;                    /* files of older versions lack it */
  const char *units, *long_name; /* of columns; attributes have none */
} schema_field;

typedef struct schema_table {
  const schema_field *fields;
  size_t n;
} schema_table;

extern const schema_table schema_train;      /* run_train_row: columns of /metrics/train */
extern const schema_table schema_valid;      /* run_valid_row: columns of /metrics/valid */
extern const schema_table schema_state;      /* run_state: attributes of /state */
extern const schema_table schema_provenance; /* run_provenance: attributes of /provenance */

/** The field of that name, which the table has. */
const schema_field *schema_find(const schema_table *table, const char *name);

/** A field's value in JSON, of the struct of its table. */
struct json_t *schema_pack(const schema_field *field, const void *of);

/** All options by their names; `bad` is set when there was no memory for one of them. */
struct json_t *schema_pack_config(const unroll_config *config, bool *bad);

/* Longest name of an option as an attribute. */
#define SCHEMA_NAME 64

/** Name of an option's attribute in /config: "min-count" becomes "min_count". */
void schema_option_name(const char *option, char out[SCHEMA_NAME]);

/* An array beside the weights: its group and the one whose scales it has, and what it is of a tensor ("velocity of the"). */
typedef struct schema_moment {
  const char *folder, *top, *of_tensor;
} schema_moment;

/** Number k of a run's, below run_moments(config). */
const schema_moment *schema_moment_at(const unroll_config *config, size_t k);

#endif
