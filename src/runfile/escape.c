#include "runfile/escape.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/scan.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* [bytes] of an escaped byte. */
#define LENGTH 4

/* The byte that `text` begins with in its escaped form, one above ASCII or a backslash; -1: it is none. */
static int read_escaped(const char *text)
{
  static const char digits[] = "0123456789abcdef";
  if (text[0] != '\\' || text[1] != 'x' || text[2] == '\0' || text[3] == '\0') { return -1; }
  const char *high = strchr(digits, text[2]), *low = strchr(digits, text[3]);
  if (high == NULL || low == NULL) { return -1; }
  const int byte = (int)(16 * (high - digits) + (low - digits));
  return byte >= 0x80 || byte == '\\' ? byte : -1;
}

unroll_status escape_new(const char *text, char **escaped)
{
  unroll_status st = UNROLL_OK;
  const size_t n = strlen(text);
  char *out = NULL;
  size_t m = 0;

  UNROLL_TRY(memory_new(LENGTH * n + 1, 1, "a text of the run file", &out));
  for (size_t i = 0; i < n;) {
    int32_t code = 0;
    const size_t length = scan_utf8_decode(text + i, n - i, &code);
    if (length == 0 || read_escaped(text + i) >= 0) {
      m += (size_t)snprintf(out + m, LENGTH + 1, "\\x%02x", (unsigned)(unsigned char)text[i]);
      i += 1;
    } else {
      memcpy(out + m, text + i, length);
      m += length;
      i += length;
    }
  }
  out[m] = '\0';
  *escaped = out;

cleanup:
  return st;
}

void escape_undo(char *text)
{
  char *out = text;
  while (*text != '\0') {
    const int byte = read_escaped(text);
    *out++ = byte >= 0 ? (char)byte : *text;
    text += byte >= 0 ? LENGTH : 1;
  }
  *out = '\0';
}
