#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

/* Time: a monotonic stopwatch for durations, the calendar for provenance. */

/** [seconds] since an arbitrary fixed moment; never goes back. */
double clock_seconds(void);

/* Characters of "2026-01-31T12:34:56Z" and the final zero. */
#define CLOCK_ISO_SIZE 21

/** Current time in ISO 8601, UTC, into a buffer of CLOCK_ISO_SIZE. */
void clock_iso(char out[CLOCK_ISO_SIZE]);

#endif
