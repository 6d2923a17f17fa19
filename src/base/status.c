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

unroll_status unroll_fail(unroll_status st, const char *format, ...)
{
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return st;
}
