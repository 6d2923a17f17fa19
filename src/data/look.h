#ifndef DATA_LOOK_H
#define DATA_LOOK_H

/*
 * The first and the last bytes of a file that should be text in UTF-8: what is plainly something else is refused with
 * what to do, and what is no part of the text is found.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/status.h>

typedef struct look {
  size_t mark;   /* [bytes] of the byte order mark of UTF-8 at the beginning; 0: there is none */
  bool returns;  /* lines end in CR alone, as far as one sees */
  bool open_end; /* the last line has no end */
} look;

/**
 * Look at an open file of so many bytes.
 *
 * @return UNROLL_OK, UNROLL_ERR_IO, or UNROLL_ERR_INPUT: compressed, an archive, PDF, HDF5, UTF-16 or UTF-32
 */
unroll_status look_at(int fd, const char *path, uint64_t bytes, look *out);

#endif
