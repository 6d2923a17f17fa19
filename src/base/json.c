#include "base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

json_t *json_number(double x)
{
  return isfinite(x) ? json_real(x) : json_null();
}

json_t *json_count(uint64_t n)
{
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRIu64, n);
  return n <= INT64_MAX ? json_integer((json_int_t)n) : json_string(text);
}

json_t *json_text(const char *text)
{
  json_t *value = json_string(text == NULL ? "" : text);
  return value == NULL ? json_null() : value;
}

void json_put(json_t *object, const char *key, json_t *value, bool *bad)
{
  *bad |= json_object_set_new(object, key, value) != 0;
}

void json_append(json_t *array, json_t *value, bool *bad)
{
  *bad |= json_array_append_new(array, value) != 0;
}
