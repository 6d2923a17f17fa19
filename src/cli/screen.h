#ifndef CLI_SCREEN_H
#define CLI_SCREEN_H

/*
 * The whole terminal as a page that is drawn again and again: the alternate screen of xterm, which every terminal in use
 * has, so that what stood there before comes back; keys come at once and are not shown. ECMA-48 and DEC sequences
 * alone: a page of a few hundred characters a second needs no more.
 */
#include "cli/canvas.h"

/** Is there a terminal to draw on: standard output is one that obeys, of this process alone? Before MPI starts. */
bool screen_is_possible(void);

/** Columns and lines of it now; 80 and 24 where that is not known. */
void screen_size(size_t *width, size_t *height);

/** Take the terminal over, and give it back as it was. Both are legal again at any time. */
void screen_begin(void);
void screen_end(void);

/** Draw a page of the size of the screen: the lines that differ from what stands there; false: the terminal is gone. */
bool screen_draw(const canvas *page);

/**
 * Wait until a key comes, the size changes, a signal comes or the time is over.
 *
 * @return the key; 0: none; ^Z has stopped this process and ^L has the whole page drawn again, both are none
 */
int screen_wait(double seconds);

#endif
