#include <unroll/status.h>

#include <stdarg.h>
#include <stdio.h>

/* Long enough for two paths and a sentence; a longer line is cut, never lost. Each thread has its own. */
static _Thread_local char message[4096];

const char *unroll_status_text(unroll_status st)
{
  switch (st) {
#define UNROLL_STATUS_CASE(name, value, text, exit_status)                                         \
  case name:                                                                                       \
    return text;
    UNROLL_STATUS_LIST(UNROLL_STATUS_CASE)
#undef UNROLL_STATUS_CASE
  }
  return "unknown status";
}

int unroll_status_exit(unroll_status st)
{
  switch (st) {
#define UNROLL_STATUS_CASE(name, value, text, exit_status)                                         \
  case name:                                                                                       \
    return exit_status;
    UNROLL_STATUS_LIST(UNROLL_STATUS_CASE)
#undef UNROLL_STATUS_CASE
  }
  return 1;
}

const char *unroll_message(void)
{
  return message;
}

/* Names come from anywhere: of control characters (ASCII, and U+0080 to U+009F in UTF-8) a question mark is left, so that
 * the line stays one and no terminal obeys it. */
static void make_harmless(char *line)
{
  for (unsigned char *c = (unsigned char *)line; *c != '\0'; ++c) {
    if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f) { c[0] = c[1] = '?'; }
    if (*c < ' ' || *c == 0x7f) { *c = '?'; }
  }
}

unroll_status unroll_fail(unroll_status st, const char *format, ...)
{
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  make_harmless(message);
  return st;
}
