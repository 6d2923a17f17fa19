#include "base/clock.h"

#include <time.h>

double clock_seconds(void)
{
  struct timespec now = {0};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void clock_iso(char out[CLOCK_ISO_SIZE])
{
  time_t now = time(NULL);
  struct tm utc = {0};
  (void)gmtime_r(&now, &utc);
  (void)strftime(out, CLOCK_ISO_SIZE, "%Y-%m-%dT%H:%M:%SZ", &utc);
}
