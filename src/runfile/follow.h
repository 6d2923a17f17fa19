#ifndef RUNFILE_FOLLOW_H
#define RUNFILE_FOLLOW_H

/*
 * The log of a run while another process writes it, maybe on another host: what has been appended since the last look.
 *
 * Each look opens the file again, which on NFS is when a client asks the server for its size, and reads whole lines
 * from where the last one ended. A line that is not complete yet is left for the next look. A file that no longer has
 * the bytes read last was replaced or cut back, by --overwrite or --resume, and is read from its beginning.
 */
#include "runfile/keep.h"
#include <stdint.h>
#include <unroll/status.h>

typedef struct follow_point {
  uint64_t step;
  double loss;    /* [nats per token] NAN where the log has null */
  double seconds; /* of training so far; 0 of a validation */
} follow_point;

/* By rising step. */
typedef struct follow_curve {
  size_t n, max;
  follow_point *at; /* (n) */
} follow_curve;

typedef enum follow_state {
  FOLLOW_GOING,    /* as far as the log knows: a run that was killed cannot say so */
  FOLLOW_STOPPED,  /* it ended as it was told to, before its last epoch: --max-steps */
  FOLLOW_FINISHED, /* all epochs are done, or --early-stop ended it */
} follow_state;

#define FOLLOW_TAIL 256

/* Open: to be read by whoever shows it, written by follow.c alone. */
typedef struct follow {
  char name[KEEP_NAME];
  int error; /* errno of the last look: ENOENT where there is no log yet; 0: it was read */
  follow_state state;
  follow_curve train, valid;
  uint64_t steps;           /* updates of the whole run; 0: not known, there is no report yet */
  double tokens_per_second; /* of the last report */
  double grown;             /* [clock_seconds] when the last line came */
  int64_t read;             /* [bytes] whole lines read */
  size_t n_tail;
  char tail[FOLLOW_TAIL]; /* (n_tail) the last of them */
} follow;

/** Begin with a log of that name, which need not be there yet. Reads nothing. */
void follow_start(follow *f, const char *name);
void follow_free(follow *f);

/** Take in what has come. A file that cannot be read is no failure: see `error`; what was read before stays. */
unroll_status follow_look(follow *f);

/** [seconds] Of training, from the last report to the end, at the rate of the last reports; NAN: not known. */
double follow_left(const follow *f);

/** [seconds] since the last line came; by the clock of the file's host where that was before the first look. */
double follow_silence(const follow *f);

#endif
