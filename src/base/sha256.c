#include "base/sha256.h"

#include "base/check.h"
#include "base/memory.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define BYTES  32
#define BUFFER ((size_t)1 << 20) /* bytes of a file read at a time */

struct sha256 {
  EVP_MD_CTX *context;
  bool begun, good;
};

unroll_status sha256_new(sha256 **out)
{
  unroll_status st = UNROLL_OK;
  sha256 *s = NULL;

  UNROLL_TRY(memory_new(1, sizeof *s, "a SHA-256", &s));
  s->context = EVP_MD_CTX_new(); /* NULL makes all that follows fail */
  *out = s;

cleanup:
  return st;
}

/* Begin, where nothing has begun. */
static void begin(sha256 *s)
{
  if (s->begun) { return; }
  s->good = s->context != NULL && EVP_DigestInit_ex(s->context, EVP_sha256(), NULL) == 1;
  s->begun = true;
}

void sha256_add(sha256 *s, const void *bytes, size_t n)
{
  begin(s);
  s->good = s->good && EVP_DigestUpdate(s->context, bytes, n) == 1;
}

unroll_status sha256_end(sha256 *s, char text[SHA256_TEXT])
{
  unsigned char digest[EVP_MAX_MD_SIZE];

  begin(s);
  s->begun = false;
  if (!s->good || EVP_DigestFinal_ex(s->context, digest, NULL) != 1) {
    return unroll_fail(UNROLL_ERR_IO, "SHA-256 is not available from OpenSSL");
  }
  for (size_t k = 0; k < BYTES; ++k) { (void)snprintf(text + 2 * k, 3, "%02x", digest[k]); }
  return UNROLL_OK;
}

void sha256_free(sha256 **s)
{
  if (*s != NULL) { EVP_MD_CTX_free((*s)->context); }
  memory_free(s);
}

unroll_status sha256_file(const char *path, char text[SHA256_TEXT])
{
  unroll_status st = UNROLL_OK;
  unsigned char *buffer = NULL;
  sha256 *s = NULL;
  size_t n = 0;
  FILE *f = fopen(path, "rb");

  if (f == NULL) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot be opened: %s", path, strerror(errno));
    goto cleanup;
  }
  UNROLL_TRY(memory_new(BUFFER, 1, "a part of a file", &buffer));
  UNROLL_TRY(sha256_new(&s));
  while ((n = fread(buffer, 1, BUFFER, f)) > 0) { sha256_add(s, buffer, n); }
  if (ferror(f) != 0) {
    st = unroll_fail(UNROLL_ERR_INPUT, "%s: cannot be read: %s", path, strerror(errno));
    goto cleanup;
  }
  UNROLL_TRY(sha256_end(s, text));

cleanup:
  if (f != NULL) { (void)fclose(f); }
  sha256_free(&s);
  memory_free(&buffer);
  return st;
}
