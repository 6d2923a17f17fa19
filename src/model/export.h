#ifndef MODEL_EXPORT_H
#define MODEL_EXPORT_H

/* What the formats of unroll/export.h share. */
#include <unroll/export.h>

/* Both formats keep values as they lie in the memory of a little-endian machine. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values would have to be swapped");

/** What a run says of itself: a JSON object of texts, to be freed with json_decref. */
struct json_t;
unroll_status export_metadata(const unroll_model *model, struct json_t **out);

#endif
