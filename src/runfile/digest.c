#include "runfile/digest.h"

#include "base/check.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAGIC  "\nunroll-digest "
#define BUFFER ((size_t)1 << 20) /* bytes read at a time */

static void tail_of(const char text[SHA256_TEXT], uint64_t bytes, char line[DIGEST_TAIL + 1])
{
  (void)snprintf(line, DIGEST_TAIL + 1, MAGIC "sha256 %s of %020" PRIu64 " bytes\n", text, bytes);
}

unroll_status digest_put(const void *bytes, size_t n, char tail[DIGEST_TAIL])
{
  unroll_status st = UNROLL_OK;
  char text[SHA256_TEXT];
  char line[DIGEST_TAIL + 1];
  sha256 *s = NULL;

  UNROLL_TRY(sha256_new(&s));
  sha256_add(s, bytes, n);
  UNROLL_TRY(sha256_end(s, text));
  tail_of(text, n, line);
  memcpy(tail, line, DIGEST_TAIL);

cleanup:
  sha256_free(&s);
  return st;
}

/* Is the beginning of the line among these bytes? */
static bool has_magic(const char *bytes, size_t n)
{
  const size_t m = sizeof MAGIC - 1;
  for (size_t i = 0; i + m <= n; ++i) {
    if (memcmp(bytes + i, MAGIC, m) == 0) { return true; }
  }
  return false;
}

/* n bytes from `at`; fewer where the file ends. */
static unroll_status read_at(const char *path, int fd, void *to, size_t n, uint64_t at, size_t *got)
{
  for (*got = 0; *got < n;) {
    ssize_t k = pread(fd, (char *)to + *got, n - *got, (off_t)(at + *got));
    if (k == 0) { break; }
    if (k < 0 && errno != EINTR) {
      return unroll_fail(UNROLL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    }
    *got += k > 0 ? (size_t)k : 0;
  }
  return UNROLL_OK;
}

unroll_status digest_check(const char *path, int fd, uint64_t bytes, digest *found,
                           char text[SHA256_TEXT])
{
  unroll_status st = UNROLL_OK;
  char end[2 * DIGEST_TAIL]; /* a line that something follows is still a line */
  char line[DIGEST_TAIL + 1];
  char *buffer = NULL;
  sha256 *s = NULL;
  size_t got = 0;

  *found = DIGEST_NONE;
  text[0] = '\0';
  const size_t n = bytes < sizeof end ? (size_t)bytes : sizeof end;
  UNROLL_TRY(read_at(path, fd, end, n, bytes - n, &got));
  if (!has_magic(end, got)) { goto cleanup; }
  *found = DIGEST_WRONG;
  if (got < DIGEST_TAIL) { goto cleanup; }

  UNROLL_TRY(memory_new(BUFFER, 1, "a part of a file", &buffer));
  UNROLL_TRY(sha256_new(&s));
  const uint64_t length = bytes - DIGEST_TAIL;
  for (uint64_t at = 0; at < length; at += got) {
    const uint64_t rest = length - at;
    UNROLL_TRY(read_at(path, fd, buffer, rest < BUFFER ? (size_t)rest : BUFFER, at, &got));
    if (got == 0) { goto cleanup; } /* it shrinks while it is read */
    sha256_add(s, buffer, got);
  }
  UNROLL_TRY(sha256_end(s, text));
  tail_of(text, length, line);
  if (memcmp(line, end + n - DIGEST_TAIL, DIGEST_TAIL) == 0) { *found = DIGEST_RIGHT; }

cleanup:
  sha256_free(&s);
  memory_free(&buffer);
  return st;
}
