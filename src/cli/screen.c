#include "cli/screen.h"

#include "base/clock.h"
#include "base/memory.h"
#include "cli/cli.h"
#include "comm/launcher.h"
#include "comm/signals.h"

#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* Alternate screen, no cursor, no wrapping: whatever a terminal makes wider than we think stays on its line. */
#define BEGIN "\033[?1049h\033[?25l\033[?7l"
#define END   "\033[?7h\033[?25h\033[?1049l"
#define CLEAR "\033[2J"

#define LOOK_AGAIN                                                                                 \
  0.1 /* [seconds] for a signal and a new size: another thread may have got the signal */

#define KEY_STOP   ('Z' & 0x1f)
#define KEY_REDRAW ('L' & 0x1f)

static struct termios before;
static bool has_keys; /* standard input is a terminal, and `before` what it was */
static canvas shown;  /* what stands there; no cells: not known */

bool screen_is_possible(void)
{
  const char *term = getenv("TERM");
  return launcher_find().kind == LAUNCHER_NONE && isatty(STDOUT_FILENO) == 1 && term != NULL &&
         term[0] != '\0' && strcmp(term, "dumb") != 0;
}

void screen_size(size_t *width, size_t *height)
{
  struct winsize size = {0};
  const bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 &&
                     size.ws_row > 0; /* of a serial line nobody knows */
  *width = known ? size.ws_col : 80;
  *height = known ? size.ws_row : 24;
}

void screen_begin(void)
{
  has_keys = tcgetattr(STDIN_FILENO, &before) == 0;
  if (has_keys) {
    struct termios raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
  }
  terminal_control(stdout, BEGIN);
  canvas_free(&shown);
}

void screen_end(void)
{
  terminal_control(stdout, END);
  if (has_keys) { (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &before); }
  has_keys = false;
  canvas_free(&shown);
}

bool screen_draw(const canvas *page)
{
  const size_t n = page->width * page->height;
  const size_t bytes = page->width * sizeof *page->cell;
  const bool known =
      shown.cell != NULL && shown.width == page->width && shown.height == page->height;

  if (!known) {
    terminal_control(stdout, CLEAR);
    canvas_free(&shown);
    if (canvas_new(page->width, page->height, &shown) != UNROLL_OK) { return false; }
  }
  for (size_t y = 0; y < page->height; ++y) {
    const size_t at = y * page->width;
    char go[32];
    if (known && memcmp(shown.cell + at, page->cell + at, bytes) == 0) { continue; }
    /* Cleared first: behind a full line the cursor stands on its last character. */
    (void)snprintf(go, sizeof go, "\033[%zu;1H\033[K", y + 1);
    terminal_control(stdout, go);
    canvas_print(page, y, stdout);
    (void)fflush(stdout);
  }
  memcpy(shown.cell, page->cell, n * sizeof *page->cell);
  return ferror(stdout) == 0;
}

/* The next key, if there is one. A terminal that is gone is as good as the key that ends. */
static int read_key(double seconds)
{
  struct pollfd in = {.fd = has_keys ? STDIN_FILENO : -1, .events = POLLIN};
  unsigned char key = 0;
  if (poll(&in, 1, (int)(1000 * seconds)) != 1) { return 0; }
  return read(STDIN_FILENO, &key, 1) == 1 ? key : 'q';
}

int screen_wait(double seconds)
{
  const double until = clock_seconds() + seconds;
  size_t was[2], is[2];

  screen_size(&was[0], &was[1]);
  for (double left = seconds; left > 0; left = until - clock_seconds()) {
    const int key = read_key(fmin(left, LOOK_AGAIN));
    if (key == KEY_STOP) {
      screen_end();
      (void)raise(SIGTSTP);
      screen_begin();
      return 0;
    }
    if (key == KEY_REDRAW) { canvas_free(&shown); }
    screen_size(&is[0], &is[1]);
    if (key != 0 || signals_pending() != 0 || is[0] != was[0] || is[1] != was[1]) {
      return key == KEY_REDRAW ? 0 : key;
    }
  }
  return 0;
}
