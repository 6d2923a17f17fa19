#include "cli/canvas.h"

#include "base/check.h"
#include "base/memory.h"
#include "data/scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BRAILLE 0x2800
#define ACROSS  2 /* dots of a character */
#define DOWN    4

unroll_status canvas_new(size_t width, size_t height, canvas *c)
{
  unroll_status st = UNROLL_OK;

  *c = (canvas){.width = width, .height = height};
  UNROLL_TRY(memory_new(width * height, sizeof *c->cell, "a page", &c->cell));
  for (size_t i = 0; i < width * height; ++i) { c->cell[i] = ' '; }

cleanup:
  return st;
}

void canvas_free(canvas *c)
{
  memory_free(&c->cell);
}

/* -------------------------------------------------------------------- text */

/* The next character of a text, which does not end here; what is none, or a control character, is a question mark. */
static int32_t next(const char **text)
{
  int32_t code = 0;
  const size_t n = scan_utf8_decode(*text, strlen(*text), &code);
  *text += n == 0 ? 1 : n;
  return n == 0 || code < ' ' || (code >= 0x7f && code < 0xa0) ? '?' : code;
}

size_t canvas_length(const char *text)
{
  size_t n = 0;
  for (; *text != '\0'; ++n) { (void)next(&text); }
  return n;
}

void canvas_text(canvas *c, size_t x, size_t y, size_t width, const char *text)
{
  if (y >= c->height) { return; }
  for (size_t i = 0; i < width && x + i < c->width && *text != '\0'; ++i) {
    c->cell[y * c->width + x + i] = next(&text);
  }
}

void canvas_text_right(canvas *c, size_t x, size_t y, size_t width, const char *text)
{
  const size_t n = canvas_length(text);
  for (size_t i = width; i < n; ++i) { (void)next(&text); }
  canvas_text(c, n < width ? x + width - n : x, y, width, text);
}

static size_t used_columns(const canvas *c, size_t y)
{
  const int32_t *cell = c->cell + y * c->width;
  size_t n = c->width;
  while (n > 0 && cell[n - 1] == ' ') { --n; }
  return n;
}

bool canvas_is_blank(const canvas *c, size_t y)
{
  return used_columns(c, y) == 0;
}

void canvas_print(const canvas *c, size_t y, FILE *to)
{
  const int32_t *cell = c->cell + y * c->width;
  const size_t n = used_columns(c, y);
  for (size_t x = 0; x < n; ++x) {
    char bytes[4];
    (void)fwrite(bytes, 1, scan_utf8_encode(cell[x], bytes), to);
  }
}

/* ----------------------------------------------------------------- drawing */

/* 0 at `low`, 1 at `high`, between them beyond. */
static double place(double value, double low, double high)
{
  return high > low ? fmin(1.0, fmax(0.0, (value - low) / (high - low))) : 0.5;
}

/* Column and row of a point among n = (across, down) places of a box, from its upper left corner. */
static void find(const canvas_scale *s, const double at[2], const size_t n[2], long out[2])
{
  const bool l = s->logarithmic;
  const double x = place(at[0], s->first, s->last);
  const double y = l ? place(log(at[1]), log(s->low), log(s->high)) : place(at[1], s->low, s->high);
  out[0] = lround(x * (double)(n[0] - 1));
  out[1] = lround((1.0 - y) * (double)(n[1] - 1));
}

static void dot(canvas *c, canvas_box box, long x, long y)
{
  static const unsigned char bit[DOWN][ACROSS] = {
      {0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
  const size_t column = box.x + (size_t)x / ACROSS, row = box.y + (size_t)y / DOWN;
  if (column >= c->width || row >= c->height) { return; }
  int32_t *cell = &c->cell[row * c->width + column];
  if (*cell < BRAILLE || *cell > BRAILLE + 0xff) { *cell = BRAILLE; }
  *cell |= bit[y % DOWN][x % ACROSS];
}

/* Bresenham 1965, "Algorithm for computer control of a digital plotter", for all octants. */
void canvas_line(canvas *c, canvas_box box, const canvas_scale *scale, const double from[2],
                 const double to[2])
{
  const size_t n[2] = {box.width * ACROSS, box.height * DOWN};
  long a[2], b[2];

  if (box.width == 0 || box.height == 0) { return; }
  find(scale, from, n, a);
  find(scale, to, n, b);
  const long width = labs(b[0] - a[0]), height = -labs(b[1] - a[1]);
  const long right = a[0] < b[0] ? 1 : -1, down = a[1] < b[1] ? 1 : -1;
  long error = width + height;
  while (true) {
    dot(c, box, a[0], a[1]);
    if (a[0] == b[0] && a[1] == b[1]) { return; }
    const long twice = 2 * error;
    if (twice >= height) {
      error += height;
      a[0] += right;
    }
    if (twice <= width) {
      error += width;
      a[1] += down;
    }
  }
}

void canvas_mark(canvas *c, canvas_box box, const canvas_scale *scale, const double at[2],
                 char mark)
{
  const size_t n[2] = {box.width, box.height};
  const char text[2] = {mark, '\0'};
  long place_at[2];

  if (box.width == 0 || box.height == 0) { return; }
  find(scale, at, n, place_at);
  canvas_text(c, box.x + (size_t)place_at[0], box.y + (size_t)place_at[1], 1, text);
}
