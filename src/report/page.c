#include "report/page.h"

#include "base/check.h"
#include "base/memory.h"
#include "runfile/save.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Made by embed.cmake: what stands before and behind the data. */
extern const unsigned char page_before[], page_behind[];
extern const unsigned long page_before_bytes, page_behind_bytes;

#define DIGITS 7 /* of a number: more than a figure shows */

/* How every such page begins, whatever its version. */
static const char mark[] = "<!doctype html>\n<!-- unroll report";

bool page_is_one(const char *path)
{
  char found[sizeof mark] = "";
  FILE *f = fopen(path, "r");
  if (f == NULL) { return false; }
  const size_t n = fread(found, 1, sizeof mark - 1, f);
  const bool ours = ferror(f) == 0 && memcmp(found, mark, n) == 0;
  (void)fclose(f);
  return ours;
}

/*
 * Data in a <script> ends at the next end tag, and a comment in it may hide that: without a `<` there is neither. In
 * JSON one stands in texts alone, where it may be written otherwise.
 */
static char *append_safe(char *out, const char *text)
{
  static const char other[] = "\\u003c";
  for (; *text != '\0'; ++text) {
    if (*text == '<') {
      memcpy(out, other, sizeof other - 1);
      out += sizeof other - 1;
    } else {
      *out++ = *text;
    }
  }
  return out;
}

static size_t count(const char *text, char c)
{
  size_t n = 0;
  for (; *text != '\0'; ++text) { n += *text == c; }
  return n;
}

unroll_status page_write(const char *path, const json_t *data, size_t *bytes)
{
  unroll_status st = UNROLL_OK;
  char *text = json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS)), *page = NULL;

  if (text == NULL) {
    st = unroll_fail(UNROLL_ERR_MEMORY, "%s: no memory for the page", path);
    goto cleanup;
  }
  const size_t room = page_before_bytes + strlen(text) + 5 * count(text, '<') + page_behind_bytes;
  UNROLL_TRY(memory_new(room, 1, "the page", &page));
  memcpy(page, page_before, page_before_bytes);
  char *end = append_safe(page + page_before_bytes, text);
  memcpy(end, page_behind, page_behind_bytes);
  end += page_behind_bytes;
  UNROLL_TRY(save_bytes(path, page, (size_t)(end - page)));
  *bytes = (size_t)(end - page);

cleanup:
  memory_free(&page);
  free(text);
  return st;
}
