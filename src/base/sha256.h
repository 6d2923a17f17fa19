#ifndef BASE_SHA256_H
#define BASE_SHA256_H

/* SHA-256 of bytes that come in pieces, or of a file, as hexadecimal text. */
#include <stddef.h>
#include <unroll/status.h>

#define SHA256_TEXT 65 /* characters, with the zero */

typedef struct sha256 sha256;

unroll_status sha256_new(sha256 **out);

/** Take another piece in. A failure is said by sha256_end. */
void sha256_add(sha256 *s, const void *bytes, size_t n);

/** The text of all pieces so far; the next piece is the first again. */
unroll_status sha256_end(sha256 *s, char text[SHA256_TEXT]);

void sha256_free(sha256 **s);

/** That of a whole file, as `sha256sum` has it. UNROLL_ERR_INPUT: it cannot be read. */
unroll_status sha256_file(const char *path, char text[SHA256_TEXT]);

#endif
