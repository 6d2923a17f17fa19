/*
 * A cable that takes its time: two TAP interfaces in two network namespaces, and every frame that goes into one
 * comes out of the other DELAY microseconds later, in order. For kernels without the netem queue.
 *
 *   delay INTERFACE NAMESPACE PEER DELAY    INTERFACE here, PEER in the namespace of that file
 *
 * Says `ready` when both are there; both go when it ends.
 */
#define _GNU_SOURCE /* setns */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define FRAME 2048 /* [bytes] the longest: 1500 and headers */
#define FRAMES                                                                                     \
  8192 /* on their way at most, each way: 12 ms of 1 Gbit/s hold 1000; more are lost, as in a switch */

typedef struct frame {
  int64_t due; /* [ns] */
  size_t n;
  char bytes[FRAME];
} frame;

/* One direction: frames read from `from`, to be written to `to`. */
typedef struct line {
  int from, to;
  size_t first, count;
  frame *frames; /* (FRAMES), a ring */
} line;

static int64_t now_ns(void)
{
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void give_up(const char *what)
{
  perror(what);
  exit(EXIT_FAILURE);
}

static int open_tap(const char *name)
{
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  (void)snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
  if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0) { give_up(name); }
  return fd;
}

static void take_in(line *l, int64_t delay)
{
  char lost[FRAME];
  for (;;) {
    bool room = l->count < FRAMES;
    frame *f = &l->frames[(l->first + l->count) % FRAMES];
    ssize_t n = read(l->from, room ? f->bytes : lost, FRAME);
    if (n <= 0) { return; }
    if (!room) { continue; }
    f->n = (size_t)n;
    f->due = now_ns() + delay;
    l->count += 1;
  }
}

/* Nanoseconds until the next frame is due, after those that are: less than 0 if there is none. */
static int64_t let_out(line *l)
{
  while (l->count > 0) {
    const frame *f = &l->frames[l->first];
    int64_t left = f->due - now_ns();
    if (left > 0) { return left; }
    if (write(l->to, f->bytes, f->n) < 0 && errno != EIO && errno != EAGAIN) { give_up("write"); }
    l->first = (l->first + 1) % FRAMES;
    l->count -= 1;
  }
  return -1;
}

static void carry(line lines[2], int64_t delay)
{
  struct pollfd poll[2] = {{.fd = lines[0].from, .events = POLLIN},
                           {.fd = lines[1].from, .events = POLLIN}};
  for (;;) {
    int64_t a = let_out(&lines[0]), b = let_out(&lines[1]);
    int64_t left = a < 0 || (b >= 0 && b < a) ? b : a;
    const struct timespec until = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    if (ppoll(poll, 2, left < 0 ? NULL : &until, NULL) < 0 && errno != EINTR) { give_up("ppoll"); }
    take_in(&lines[0], delay);
    take_in(&lines[1], delay);
  }
}

int main(int argc, char **argv)
{
  if (argc != 5) {
    (void)fprintf(stderr, "usage: delay INTERFACE NAMESPACE PEER MICROSECONDS\n");
    return 2;
  }
  const int64_t delay = strtoll(argv[4], NULL, 10) * 1000;
  const int here = open_tap(argv[1]);
  const int space = open(argv[2], O_RDONLY);
  if (space < 0 || setns(space, CLONE_NEWNET) != 0) { give_up(argv[2]); }
  const int there = open_tap(argv[3]);
  line lines[2] = {{.from = here, .to = there}, {.from = there, .to = here}};
  for (int k = 0; k < 2; ++k) {
    lines[k].frames = calloc(FRAMES, sizeof(frame));
    if (lines[k].frames == NULL) { give_up("frames"); }
  }

  /* Ranks that spin must not keep it waiting for a time slice. */
  const struct sched_param urgent = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &urgent) != 0) { perror("delay: not exact"); }
  (void)prctl(PR_SET_TIMERSLACK, 1000UL);
  (void)puts("ready");
  (void)fflush(stdout);
  carry(lines, delay);
}
