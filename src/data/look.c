#include "data/look.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* What begins so is no text, and what makes it text. A question mark is any byte. */
static const struct {
  const char *bytes;
  size_t n;
  const char *what, *advice;
} foreign[] = {
    {"\x1f\x8b", 2, "compressed by gzip", "gzip -dc makes it text"},
    {"\x28\xb5\x2f\xfd", 4, "compressed by zstd", "zstd -dc makes it text"},
    {"\xfd"
     "7zXZ\0",
     6, "compressed by xz", "xz -dc makes it text"},
    {"BZh?1AY&SY", 10, "compressed by bzip2", "bzip2 -dc makes it text"},
    {"PK\x03\x04", 4, "a zip archive", "unzip -p writes what is in it"},
    {"%PDF-", 5, "a PDF document", "pdftotext makes it text"},
    {"\x89HDF\r\n\x1a\n", 8, "an HDF5 file", "leave it out"},
    {"\xff\xfe\0\0", 4, "UTF-32", "iconv -f UTF-32 -t UTF-8 makes it UTF-8"},
    {"\0\0\xfe\xff", 4, "UTF-32", "iconv -f UTF-32 -t UTF-8 makes it UTF-8"},
    {"\xff\xfe", 2, "UTF-16", "iconv -f UTF-16 -t UTF-8 makes it UTF-8"},
    {"\xfe\xff", 2, "UTF-16", "iconv -f UTF-16 -t UTF-8 makes it UTF-8"},
};

#define MARK "\xef\xbb\xbf" /* U+FEFF, which says no more than that this is UTF-8 */

static bool begins_with(const char *bytes, size_t n, const char *sign, size_t n_sign)
{
  size_t i = 0;
  while (i < n_sign && i < n && (bytes[i] == sign[i] || sign[i] == '?')) { ++i; }
  return i == n_sign;
}

/* [bytes] Looked at: enough for a line end in any text that has some. */
#define BEGINNING ((size_t)1 << 16)

/* UTF-16 without a mark: of western text every other byte is zero, always on the same side. 0: it is not. */
static int find_zeros(const char *bytes, size_t n)
{
  size_t zeros[2] = {0};
  for (size_t i = 0; i < n; ++i) { zeros[i % 2] += bytes[i] == '\0'; }
  if (n < 16) { return 0; }
  return zeros[1] == 0 && 4 * zeros[0] > n ? 1 : zeros[0] == 0 && 4 * zeros[1] > n ? 2 : 0;
}

/* n bytes from `at` on, or less at the end of the file; below 0: errno tells. */
static ssize_t read_at(int fd, char *bytes, size_t n, off_t at)
{
  ssize_t got = 0;
  do {
    got = pread(fd, bytes, n, at);
  } while (got < 0 && errno == EINTR);
  return got;
}

unroll_status look_at(int fd, const char *path, uint64_t bytes, look *out)
{
  static const char *const wide[] = {NULL, "UTF-16BE", "UTF-16LE"};
  char beginning[BEGINNING];
  char last = '\0';
  const ssize_t got = read_at(fd, beginning, sizeof beginning, 0);
  const size_t n = got > 0 ? (size_t)got : 0;

  *out = (look){0};
  if (got < 0 || (bytes > 0 && read_at(fd, &last, 1, (off_t)(bytes - 1)) < 0)) {
    return unroll_fail(UNROLL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
  }
  for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; ++i) {
    if (!begins_with(beginning, n, foreign[i].bytes, foreign[i].n)) { continue; }
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: is %s, not UTF-8: %s; a model of --level byte reads anything", path,
                       foreign[i].what, foreign[i].advice);
  }
  const char *encoding = wide[find_zeros(beginning, n)];
  if (encoding != NULL) {
    return unroll_fail(UNROLL_ERR_INPUT,
                       "%s: is %s, not UTF-8: iconv -f %s -t UTF-8 makes it UTF-8; a model of "
                       "--level byte reads anything",
                       path, encoding, encoding);
  }
  if (begins_with(beginning, n, MARK, strlen(MARK))) { out->mark = strlen(MARK); }
  out->returns = memchr(beginning, '\r', n) != NULL && memchr(beginning, '\n', n) == NULL;
  out->open_end = bytes > out->mark && last != '\n';
  return UNROLL_OK;
}
