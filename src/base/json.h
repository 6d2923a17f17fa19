#ifndef BASE_JSON_H
#define BASE_JSON_H

/*
 * JSON values for numbers and texts that JSON cannot represent; and objects built without a check of each call: `bad`
 * is set when there was no memory for one of them.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/** A real; null where it is not finite: JSON has neither NaN nor infinity. */
json_t *json_number(double x);

/** A count; JSON's whole numbers are signed: a larger one, at most a seed, is a string. */
json_t *json_count(uint64_t n);

/** A text, "" for NULL; null where its bytes are no UTF-8. */
json_t *json_text(const char *text);

/** Add a new value under a key or at the end of an array, and take over its reference. */
void json_put(json_t *object, const char *key, json_t *value, bool *bad);
void json_append(json_t *array, json_t *value, bool *bad);

#endif
