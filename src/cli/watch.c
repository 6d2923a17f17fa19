/* Runs while they go: their logs, followed on a terminal. */
#include "base/check.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/screen.h"
#include "comm/signals.h"
#include "runfile/follow.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct watch_settings {
  bool once;
};

static const option rows[] = {
    {.name = "once",
     .type = OPTION_FLAG,
     .offset = offsetof(struct watch_settings, once),
     .default_text = "no",
     .heading = "Output",
     .help = "print how things stand and end, as where standard output is no terminal"},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* [seconds] A log that has not grown for so long, or for ten reports if that is longer, is silent. */
#define SILENT_AFTER     60.0
#define SILENT_REPORTS   10.0
#define LOOK_EVERY       1.0 /* [seconds] */
#define LEAST_COLUMNS    40  /* of a panel, beside others */
#define LEAST_LINES      8
#define LEAST_TO_DRAW    20 /* columns of a panel alone */
#define SNAPSHOT_LINES   48 /* of panels; of more runs there is a table */
#define SNAPSHOT_PANEL   20
#define LABEL_COLUMNS    8  /* of the axis of losses */
#define LOGARITHMIC_FROM 20 /* the largest loss so many times the least */
/* The part of the losses below the upper edge, as a few first ones are far above, and above the lower one. */
#define MOST_IS          0.98
#define TOO_HIGH         10   /* times the median: of a run that diverged, drawn at the edge */
#define POINTS_FOR_SCALE 1000 /* of a curve */

typedef struct watched {
  const char *name; /* as it was given */
  follow log;
} watched;

/* ------------------------------------------------------------------- words */

static bool is_silent(const follow *f)
{
  const follow_curve *c = &f->train;
  if (f->state != FOLLOW_GOING) { return false; }
  const double interval = c->n > 0 ? c->at[c->n - 1].seconds / (double)c->n : 0.0;
  return follow_silence(f) > fmax(SILENT_AFTER, SILENT_REPORTS * interval);
}

static void say_state(const follow *f, size_t size, char *out)
{
  const bool empty = f->train.n + f->valid.n == 0;
  char time[32];

  format_time(follow_silence(f), sizeof time, time);
  if (f->error == ENOENT) {
    (void)snprintf(out, size, "%s", empty ? "no log yet" : "its log is gone");
  } else if (f->error != 0) {
    (void)snprintf(out, size, "%s", strerror(f->error));
  } else if (f->state != FOLLOW_GOING) {
    (void)snprintf(out, size, "%s", f->state == FOLLOW_FINISHED ? "finished" : "stopped");
  } else if (is_silent(f)) {
    (void)snprintf(out, size, "%s for %s", empty ? "no report" : "silent", time);
  } else {
    (void)snprintf(out, size, "%s", empty ? "no report yet" : "running");
  }
}

/* "" where nothing is known, as in all below. */
static void say_left(const follow *f, size_t size, char *out)
{
  const double left = follow_left(f);
  out[0] = '\0';
  if (f->error != 0 || f->state != FOLLOW_GOING || is_silent(f) || isnan(left)) { return; }
  format_time(fmax(0.0, left - follow_silence(f)), size, out);
}

static void say_rate(const follow *f, size_t size, char *out)
{
  out[0] = '\0';
  if (f->train.n > 0 && isfinite(f->tokens_per_second)) {
    format_rate(f->tokens_per_second, size, out);
  }
}

static void say_step(const follow *f, size_t size, char *out)
{
  const follow_curve *c = &f->train;
  out[0] = '\0';
  if (c->n > 0) {
    (void)snprintf(out, size, "%" PRIu64 "/%" PRIu64, c->at[c->n - 1].step, f->steps);
  }
}

static void say_loss(double loss, size_t size, char *out)
{
  (void)snprintf(out, size, isfinite(loss) ? loss < 1e4 ? "%.4f" : "%.3g" : "not finite", loss);
}

static void say_last(const follow_curve *c, size_t size, char *out)
{
  out[0] = '\0';
  if (c->n > 0) { say_loss(c->at[c->n - 1].loss, size, out); }
}

static void say_best(const follow_curve *c, size_t size, char *out)
{
  double best = INFINITY;
  for (size_t i = 0; i < c->n; ++i) { best = fmin(best, c->at[i].loss); }
  out[0] = '\0';
  if (isfinite(best)) { say_loss(best, size, out); }
}

/* ------------------------------------------------------------------- panels */

static int compare_reals(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* One scale for all runs, so that their curves can be compared. */
static unroll_status find_scale(size_t n, const watched *runs, canvas_scale *scale)
{
  unroll_status st = UNROLL_OK;
  double *losses = NULL;
  size_t count = 0;

  *scale = (canvas_scale){.first = INFINITY};
  UNROLL_TRY(memory_new(2 * n * POINTS_FOR_SCALE, sizeof *losses, "a scale", &losses));
  for (size_t k = 0; k < 2 * n; ++k) {
    const follow *f = &runs[k / 2].log;
    const follow_curve *c = k % 2 == 0 ? &f->train : &f->valid;
    const size_t points = c->n < POINTS_FOR_SCALE ? c->n : POINTS_FOR_SCALE;
    for (size_t i = 0; i < points; ++i) {
      const double loss = c->at[(i + 1) * c->n / points - 1].loss;
      if (isfinite(loss)) { losses[count++] = loss; }
    }
    if (c->n > 0) {
      scale->first = fmin(scale->first, (double)c->at[0].step);
      scale->last = fmax(scale->last, (double)c->at[c->n - 1].step);
    }
  }
  if (count > 0) {
    qsort(losses, count, sizeof *losses, compare_reals);
    const double most = TOO_HIGH * losses[count / 2];
    while (count > 1 && losses[count - 1] > most) { --count; }
    scale->low = losses[(size_t)((1.0 - MOST_IS) * (double)(count - 1))];
    scale->high = losses[(size_t)ceil(MOST_IS * (double)(count - 1))];
    scale->logarithmic = scale->low > 0.0 && scale->high > LOGARITHMIC_FROM * scale->low;
  }

cleanup:
  memory_free(&losses);
  return st;
}

/* The last step of rows [begin, end) and the mean of their finite losses; NAN without any. */
static void mean_of(const follow_curve *c, size_t begin, size_t end, double out[2])
{
  double sum = 0.0;
  size_t n = 0;
  for (size_t i = begin; i < end; ++i) {
    if (isfinite(c->at[i].loss)) {
      sum += c->at[i].loss;
      n += 1;
    }
  }
  out[0] = (double)c->at[end - 1].step;
  out[1] = n == 0 ? (double)NAN : sum / (double)n;
}

/* Of more rows than there are dots across the box each dot is the mean of some. */
static void draw_curve(canvas *page, canvas_box box, const canvas_scale *scale,
                       const follow_curve *c)
{
  const size_t most = 2 * box.width, n = c->n < most ? c->n : most;
  double from[2] = {NAN, NAN}, to[2];
  for (size_t k = 0; k < n; ++k) {
    mean_of(c, k * c->n / n, (k + 1) * c->n / n, to);
    if (isfinite(to[1])) { canvas_line(page, box, scale, isfinite(from[1]) ? from : to, to); }
    memcpy(from, to, sizeof from);
  }
}

/* Curves, with the limits of both axes beside them. */
static void draw_chart(canvas *page, canvas_box box, const canvas_scale *scale, const follow *f)
{
  const canvas_box inner = {box.x + LABEL_COLUMNS, box.y, box.width - LABEL_COLUMNS,
                            box.height - 1};
  char text[64];

  for (size_t y = 0; y < inner.height; ++y) { canvas_text(page, inner.x - 1, box.y + y, 1, "│"); }
  (void)snprintf(text, sizeof text, scale->high < 1e4 ? "%.3g" : "%.1e", scale->high);
  canvas_text_right(page, box.x, box.y, LABEL_COLUMNS - 1, text);
  (void)snprintf(text, sizeof text, scale->low < 1e4 ? "%.3g" : "%.1e", scale->low);
  canvas_text_right(page, box.x, box.y + inner.height - 1, LABEL_COLUMNS - 1, text);
  if (scale->logarithmic) {
    canvas_text_right(page, box.x, box.y + inner.height / 2, LABEL_COLUMNS - 1, "log");
  }
  (void)snprintf(text, sizeof text, "step %.0f", scale->first);
  canvas_text(page, inner.x, box.y + inner.height, inner.width, text);
  (void)snprintf(text, sizeof text, "%.0f", scale->last);
  canvas_text_right(page, inner.x, box.y + inner.height, inner.width, text);
  draw_curve(page, inner, scale, &f->train);
  for (size_t i = 0; i < f->valid.n; ++i) {
    const double at[2] = {(double)f->valid.at[i].step, f->valid.at[i].loss};
    if (isfinite(at[1])) { canvas_mark(page, inner, scale, at, 'o'); }
  }
}

static void draw_panel(canvas *page, canvas_box box, const canvas_scale *scale, const watched *w)
{
  const follow *f = &w->log;
  char text[8][64], line[512];

  say_state(f, sizeof text[0], text[0]);
  say_step(f, sizeof text[0], text[1]);
  say_rate(f, sizeof text[0], text[2]);
  say_left(f, sizeof text[0], text[3]);
  say_last(&f->train, sizeof text[0], text[4]);
  say_last(&f->valid, sizeof text[0], text[5]);
  say_best(&f->valid, sizeof text[0], text[6]);
  const size_t n = canvas_length(text[0]), room = box.width > n + 1 ? box.width - n - 1 : 0;
  canvas_text_right(page, box.x, box.y,
                    canvas_length(w->name) < room ? canvas_length(w->name) : room, w->name);
  canvas_text_right(page, box.x, box.y, box.width, text[0]);
  if (f->train.n + f->valid.n == 0) { return; }
  (void)snprintf(line, sizeof line, "step %s%s%s%s%s%s", text[1], text[2][0] ? "  " : "", text[2],
                 text[2][0] ? " tok/s" : "", text[3][0] ? "  left " : "", text[3]);
  canvas_text(page, box.x, box.y + 1, box.width, line);
  (void)snprintf(line, sizeof line, "loss %s%s%s%s%s", text[4], text[5][0] ? " o valid " : "",
                 text[5], text[6][0] ? " best " : "", text[6]);
  canvas_text(page, box.x, box.y + 2, box.width, line);
  draw_chart(page, (canvas_box){box.x, box.y + 3, box.width, box.height - 3}, scale, f);
}

/* -------------------------------------------------------------------- table */

enum { STATE, STEP, LOSS, VALID, BEST, RATE, LEFT, COLUMNS };
static const char *const headings[COLUMNS] = {"", "step", "loss", "valid", "best", "tok/s", "left"};

static void say_column(size_t k, const follow *f, size_t size, char *out)
{
  switch (k) {
  case STATE:
    say_state(f, size, out);
    break;
  case STEP:
    say_step(f, size, out);
    break;
  case LOSS:
    say_last(&f->train, size, out);
    break;
  case VALID:
    say_last(&f->valid, size, out);
    break;
  case BEST:
    say_best(&f->valid, size, out);
    break;
  case RATE:
    say_rate(f, size, out);
    break;
  default:
    say_left(f, size, out);
  }
}

/* A line for each run; of the columns as many as leave room for the name. */
static void draw_table(canvas *page, size_t n, const watched *runs)
{
  const size_t room = n + 1 <= page->height ? n : page->height > 2 ? page->height - 2 : 0;
  size_t end = 0, name = 8;
  char text[64];

  for (size_t i = 0; i < n; ++i) {
    const size_t length = canvas_length(runs[i].name);
    name = length > name && length < page->width / 2 ? length : name;
  }
  canvas_text(page, 0, 0, name, "run");
  for (size_t i = 0; i < room; ++i) {
    const size_t length = canvas_length(runs[i].name);
    canvas_text_right(page, 0, i + 1, length < name ? length : name, runs[i].name);
  }
  end = name;
  for (size_t k = 0; k < COLUMNS; ++k) {
    size_t width = strlen(headings[k]);
    for (size_t i = 0; i < room; ++i) {
      say_column(k, &runs[i].log, sizeof text, text);
      width = canvas_length(text) > width ? canvas_length(text) : width;
    }
    if (end + 2 + width > page->width) { break; }
    canvas_text_right(page, end + 2, 0, width, headings[k]);
    for (size_t i = 0; i < room; ++i) {
      say_column(k, &runs[i].log, sizeof text, text);
      (k == STATE ? canvas_text : canvas_text_right)(page, end + 2, i + 1, width, text);
    }
    end += 2 + width;
  }
  if (room < n) {
    (void)snprintf(text, sizeof text, "and %zu more", n - room);
    canvas_text(page, 0, page->height - 1, page->width, text);
  }
}

/* --------------------------------------------------------------------- page */

/* How many panels lie beside each other, and how many lines each has; 0: they do not fit. */
static size_t arrange(size_t n, size_t width, size_t height, size_t *lines)
{
  const size_t most = width / LEAST_COLUMNS, fit = most == 0 ? 1 : most < n ? most : n;
  const size_t down = (n + fit - 1) / fit, across = (n + down - 1) / down;
  *lines = height / down;
  return *lines < LEAST_LINES || width < LEAST_TO_DRAW ? 0 : across;
}

static unroll_status draw_page(canvas *page, size_t n, const watched *runs)
{
  unroll_status st = UNROLL_OK;
  canvas_scale scale;
  size_t lines = 0;
  const size_t across = arrange(n, page->width, page->height, &lines);

  if (across == 0) {
    draw_table(page, n, runs);
    goto cleanup;
  }
  UNROLL_TRY(find_scale(n, runs, &scale));
  const size_t gap = across > 1 ? 2 : 0, width = (page->width + gap) / across;
  for (size_t i = 0; i < n; ++i) {
    const canvas_box box = {i % across * width, i / across * lines, width - gap,
                            lines - (n > across)};
    draw_panel(page, box, &scale, &runs[i]);
  }

cleanup:
  return st;
}

static unroll_status print_page(size_t n, const watched *runs)
{
  unroll_status st = UNROLL_OK;
  size_t width = 0, lines = 0, height = 0;
  canvas page = {0};

  screen_size(&width, &height);
  height = n + 1;
  if (arrange(n, width, SNAPSHOT_LINES, &lines) > 0) {
    height = SNAPSHOT_LINES / lines * (lines < SNAPSHOT_PANEL ? lines : SNAPSHOT_PANEL);
  }
  UNROLL_TRY(canvas_new(width, height, &page));
  UNROLL_TRY(draw_page(&page, n, runs));
  while (height > 0 && canvas_is_blank(&page, height - 1)) { --height; }
  for (size_t y = 0; y < height; ++y) {
    canvas_print(&page, y, stdout);
    (void)printf("\n");
  }

cleanup:
  canvas_free(&page);
  return st;
}

/* ------------------------------------------------------------------ command */

static unroll_status look(size_t n, watched *runs)
{
  unroll_status st = UNROLL_OK;
  for (size_t i = 0; i < n; ++i) { UNROLL_TRY(follow_look(&runs[i].log)); }

cleanup:
  return st;
}

static bool is_end(int key)
{
  return key == 'q' || key == 'Q' || key == ('C' & 0x1f) || key == ('\\' & 0x1f);
}

/* The terminal is given back as it was, whatever happens; a signal is one more way to end. */
static unroll_status follow_all(size_t n, watched *runs)
{
  unroll_status st = UNROLL_OK;
  bool goes_on = true;
  canvas page = {0};

  signals_install();
  screen_begin();
  while (goes_on && signals_pending() == 0) {
    size_t width = 0, height = 0;
    UNROLL_TRY(look(n, runs));
    screen_size(&width, &height);
    UNROLL_TRY(canvas_new(width, height, &page));
    UNROLL_TRY(draw_page(&page, n, runs));
    goes_on = screen_draw(&page) && !is_end(screen_wait(LOOK_EVERY));
    canvas_free(&page);
  }

cleanup:
  canvas_free(&page);
  screen_end();
  signals_restore();
  return st;
}

/* The log of what was named: a run file, its best model, or the log itself. */
static void name_log(const char *run, char log[KEEP_NAME])
{
  static const char ending[] = ".jsonl";
  const size_t n = strlen(run), m = sizeof ending - 1;
  char of[KEEP_NAME];

  if (n > m && strcmp(run + n - m, ending) == 0) {
    (void)snprintf(log, KEEP_NAME, "%s", run);
  } else {
    keep_log_name(keep_is_best_name(run, of) ? of : run, log);
  }
}

/* MPI, once started, looks as if mpirun had started this process. */
static unroll_status prepare_watch(void *settings, bool *given)
{
  struct watch_settings *s = settings;
  (void)given;
  s->once = s->once || !screen_is_possible();
  return UNROLL_OK;
}

static unroll_status run_watch(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct watch_settings *s = call->settings;
  watched *runs = NULL;
  size_t n = 0;

  if (unroll_comm_rank(call->comm) != 0) { return UNROLL_OK; }
  UNROLL_TRY(memory_new(call->n_operands, sizeof *runs, "the runs to watch", &runs));
  for (size_t i = 0; i < call->n_operands; ++i) {
    char log[KEEP_NAME];
    size_t k = 0;
    name_log(call->operands[i], log);
    while (k < n && strcmp(runs[k].log.name, log) != 0) { ++k; }
    if (k < n) { continue; } /* *.h5 has the best model too */
    runs[n].name = call->operands[i];
    follow_start(&runs[n++].log, log);
  }
  UNROLL_TRY(look(n, runs));
  if (!s->once) { UNROLL_TRY(follow_all(n, runs)); }
  UNROLL_TRY(print_page(n, runs));

cleanup:
  for (size_t i = 0; runs != NULL && i < n; ++i) { follow_free(&runs[i].log); }
  memory_free(&runs);
  return st;
}

const cli_command cli_watch = {
    .usage = {.command = "watch",
              .operands = "RUN...",
              .min_operands = 1,
              .max_operands = SIZE_MAX,
              .purpose =
                  "Follow runs on a terminal while they go.\n"
                  "\n"
                  "Their logs, run.jsonl beside run.h5, are read every second, wherever the jobs\n"
                  "run that write them: a file system that both see is enough, NFS too. Loss of\n"
                  "training as a curve, validations as o, rate, time left; several runs on the\n"
                  "same scales, beside each other, and in a table where they are many.",
              .notes =
                  "A run may be named before there is anything of it, and after it has ended. One\n"
                  "whose log has not grown for a minute, or ten reports if that is longer, is\n"
                  "silent: it waits, or was killed or stopped by a signal. What --resume cuts\n"
                  "back goes from the curve.\n"
                  "\n"
                  "q or Ctrl-C ends, Ctrl-Z stops, Ctrl-L draws anew. The page is UTF-8, for a\n"
                  "terminal of any size. At the end, and at once with --once, it is printed.\n"
                  "\n"
                  "Examples:\n"
                  "  unroll watch run.h5\n"
                  "  unroll watch sweep/*.jsonl\n"
                  "  ssh cluster unroll watch --once run.h5"},
    .table = &table,
    .settings_size = sizeof(struct watch_settings),
    .prepare = prepare_watch,
    .run = run_watch,
    .of_one = true,
};
