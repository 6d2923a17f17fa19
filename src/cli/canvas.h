#ifndef CLI_CANVAS_H
#define CLI_CANVAS_H

/*
 * A page of characters, each as wide as one column, to write and draw on before it is printed. What does not fit is
 * cut off. Curves are drawn with braille patterns, U+2800 and up: two by four dots in a character.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unroll/status.h>

typedef struct canvas {
  size_t width, height;
  int32_t *cell; /* (height, width) code points */
} canvas;

/* A part of it. */
typedef struct canvas_box {
  size_t x, y, width, height;
} canvas_box;

/* Which values of a curve are where; equal limits are legal. */
typedef struct canvas_scale {
  double low, high; /* of y; above and below, values are drawn at the edge */
  bool logarithmic;
  double first, last; /* of x */
} canvas_scale;

/** All blank. */
unroll_status canvas_new(size_t width, size_t height, canvas *c);
void canvas_free(canvas *c);

/** Text of UTF-8 on a line, at most `width` characters of it. A control character becomes a question mark. */
void canvas_text(canvas *c, size_t x, size_t y, size_t width, const char *text);

/** The same to the right end of those `width` columns; of a text that is too long the end is left. */
void canvas_text_right(canvas *c, size_t x, size_t y, size_t width, const char *text);

/** A line between two points, or a dot where they are one. */
void canvas_line(canvas *c, canvas_box box, const canvas_scale *scale, const double from[2],
                 const double to[2]);

/** A character at a point. */
void canvas_mark(canvas *c, canvas_box box, const canvas_scale *scale, const double at[2],
                 char mark);

/** Characters of a text of UTF-8. */
size_t canvas_length(const char *text);

bool canvas_is_blank(const canvas *c, size_t y);

/** Line y, without the blanks at its end. */
void canvas_print(const canvas *c, size_t y, FILE *to);

#endif
