#ifndef CLI_FORMAT_H
#define CLI_FORMAT_H

/* Numbers as short as people read them, for lines that must fit a terminal. */
#include <stddef.h>

/** "123h", "2h05m", "3m12s", "41s" */
void format_time(double seconds, size_t size, char *out);

/** "987", "81.2k", "1.73M" */
void format_rate(double rate, size_t size, char *out);

/** "9.943", "1234", "99430", "1.2e+08" */
void format_perplexity(double perplexity, size_t size, char *out);

#endif
