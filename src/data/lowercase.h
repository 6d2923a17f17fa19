#ifndef DATA_LOWERCASE_H
#define DATA_LOWERCASE_H

/*
 * Code point -> code point of its lower case, by a table of our own: the C library's depends on its
 * version, and on which locales the machine has.
 *
 * The mapping is Unicode's simple one, of one code point to one: U+0130, I with a dot, becomes i
 * alone, and capital sigma the same letter at the end of a word as within.
 */
#include <stdint.h>

#define LOWERCASE_UNICODE "15.0.0" /* version of Unicode that the table is made of */

/** Lower case of a code point; the code point itself where it has none. */
int32_t lowercase_of(int32_t code);

#endif
