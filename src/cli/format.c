#include "cli/format.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void format_time(double seconds, size_t size, char *out)
{
  uint64_t s = seconds > 0 && seconds < 1e9 ? (uint64_t)seconds : 0;
  if (s >= 100 * 3600) {
    (void)snprintf(out, size, "%" PRIu64 "h", s / 3600);
  } else if (s >= 3600) {
    (void)snprintf(out, size, "%" PRIu64 "h%02um", s / 3600, (unsigned)(s % 3600 / 60));
  } else if (s >= 60) {
    (void)snprintf(out, size, "%" PRIu64 "m%02us", s / 60, (unsigned)(s % 60));
  } else {
    (void)snprintf(out, size, "%" PRIu64 "s", s);
  }
}

void format_rate(double rate, size_t size, char *out)
{
  const char *unit = rate < 999.5 ? "" : rate < 999.5e3 ? "k" : "M";
  const double scale = rate < 999.5 ? 1.0 : rate < 999.5e3 ? 1e-3 : 1e-6;
  (void)snprintf(out, size, "%.3g%s", rate * scale, unit);
}

void format_perplexity(double perplexity, size_t size, char *out)
{
  const bool whole = perplexity >= 1000 && perplexity < 999999.5;
  (void)snprintf(out, size, whole ? "%.0f" : "%.4g", perplexity);
}
