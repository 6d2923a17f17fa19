#ifndef RUNFILE_ESCAPE_H
#define RUNFILE_ESCAPE_H

/*
 * Names of files, and what else a user may type, are bytes; texts of a run file are UTF-8, or other readers fail. A byte
 * that is no part of a character of UTF-8 is stored as \xff, its number in hexadecimal, and a backslash before what would
 * read like that as \x5c. All other text is stored as it is.
 */
#include <unroll/status.h>

/** To be freed with memory_free. */
unroll_status escape_new(const char *text, char **escaped);

/** The inverse, in place. What was not escaped is left alone. */
void escape_undo(char *text);

#endif
