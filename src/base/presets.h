#ifndef BASE_PRESETS_H
#define BASE_PRESETS_H

/*
 * Presets: names for sets of options of a training, to begin with.
 *
 * A preset is rows of one table and nothing else. Its values stand above the
 * defaults and below all that is given: preset < file of --config < command line.
 * They do not count as given, so that on resume those of the run file are taken,
 * also where a later version of the table has others.
 */
#include <stddef.h>
#include <unroll/config.h>

/** Set the options of config->preset that are not given. */
void presets_apply(unroll_config *config);

/** Its name and its options with the values that they have now: "char: cell lstm, hidden 512". */
void presets_describe(const unroll_config *config, size_t size, char *out);

#endif
