#include "base/clock.h"
#include "cli/cli.h"
#include "cli/format.h"
#include "cli/say.h"
#include "comm/launcher.h"
#include "runfile/keep.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REFRESH_SECONDS  0.1        /* of the progress line: often enough to look alive */
#define PROGRESS_COLUMNS 80         /* a longer line would wrap, and could not be redrawn */
#define CLEAR_LINE       "\r\033[K" /* understood by every terminal in use (ECMA-48) */

/* [seconds] Where standard error is no terminal, which under mpirun it never is, a silence of a tenth of the time so far,
 * within these limits, is ended by a line. */
#define SILENCE_LEAST 5.0
#define SILENCE_MOST  600.0

void progress_start(progress *p, const struct placement *where, unroll_log_format format)
{
  *p = (progress){.where = where,
                  .terminal = isatty(STDERR_FILENO) == 1,
                  .full = format == UNROLL_LOG_FULL,
                  .drawn = -INFINITY};
}

/* ---------------------------------------------------------- progress line */

static void clear_line(progress *p)
{
  if (p->shown) {
    terminal_control(say_err, CLEAR_LINE);
    p->shown = false;
  }
}

/* At most so many columns: what is left out first is what changes least. */
static void format_line(const unroll_progress *now, int columns, size_t size, char *line)
{
  char left[32], rate[32], perplexity[32], parts[3][64];
  int dropped = 0;

  format_time(now->seconds_left, sizeof left, left);
  format_rate(now->tokens_per_second, sizeof rate, rate);
  format_perplexity(now->perplexity, sizeof perplexity, perplexity);
  (void)snprintf(parts[0], sizeof parts[0], " norm %.2g", now->grad_norm);
  (void)snprintf(parts[1], sizeof parts[1], " epoch %" PRIu64 "/%" PRIu64, now->epoch, now->epochs);
  (void)snprintf(parts[2], sizeof parts[2], " ppl %s", perplexity);
  while (snprintf(line, size, "%" PRIu64 "/%" PRIu64 "%s loss %.3f%s%s %s tok/s %s left", now->step,
                  now->steps, parts[1], now->loss, parts[2], parts[0], rate, left) > columns &&
         dropped < 3) {
    parts[dropped++][0] = '\0';
  }
}

static void draw_line(progress *p, const unroll_progress *now)
{
  char line[512];
  double time = clock_seconds();

  if (time - p->drawn < REFRESH_SECONDS) { return; }
  format_line(now, PROGRESS_COLUMNS, sizeof line, line);
  terminal_control(say_err, CLEAR_LINE);
  (void)fprintf(say_err, "%s", line);
  (void)fflush(say_err);
  p->drawn = time;
  p->shown = true;
}

#define STEP "step "

/* The same as a line of its own, where nothing was said for long. */
static void end_silence(progress *p, const unroll_progress *now)
{
  char line[512];
  const double most = fmin(SILENCE_MOST, fmax(SILENCE_LEAST, now->seconds / 10));

  if (clock_seconds() - p->told < most) { return; }
  format_line(now, PROGRESS_COLUMNS - (int)strlen(STEP), sizeof line, line);
  (void)fprintf(say_err, STEP "%s\n", line);
  p->told = clock_seconds();
}

/* ------------------------------------------------------------ log lines */

static void print_start(const unroll_progress *now)
{
  (void)fprintf(say_err, "text: %" PRIu64 " tokens for training, %" PRIu64 " for validation",
                now->train_tokens, now->valid_tokens);
  if (now->unknown_tokens > 0) {
    (void)fprintf(say_err, ", %" PRIu64 " of all unknown", now->unknown_tokens);
  }
  (void)fprintf(say_err, ", vocabulary of %" PRIu64 "\n", now->V);
  if (now->preset != NULL) { (void)fprintf(say_err, "preset %s\n", now->preset); }
  (void)fprintf(say_err, "model: %" PRIu64 " parameters\n", now->parameters);
  (void)fprintf(say_err,
                "run: %" PRIu64 " updates in %" PRIu64 " epoch%s of %" PRIu64 ", %" PRIu64
                " shard%s\n",
                now->steps, now->epochs, now->epochs == 1 ? "" : "s", now->windows, now->shards,
                now->shards == 1 ? "" : "s");
  if (now->resumed_step > 0) {
    (void)fprintf(say_err, "resumed after step %" PRIu64 "\n", now->resumed_step);
  }
  if (now->changed != NULL) { (void)fprintf(say_err, "changed: %s\n", now->changed); }
}

/* At most 80 columns, if need be with fewer digits: all are in the run file, its log, and the full line. */
static void print_report(const unroll_progress *now)
{
  char left[32], rate[32], perplexity[32], line[512];
  int digits = 4, n = 0;

  format_time(now->seconds_left, sizeof left, left);
  format_rate(now->tokens_per_second, sizeof rate, rate);
  format_perplexity(now->perplexity, sizeof perplexity, perplexity);
  do {
    n = snprintf(line, sizeof line,
                 "train step %" PRIu64 " epoch %" PRIu64
                 " loss %.*f ppl %s norm %.*g tok/s %s left %s",
                 now->step, now->epoch, digits, now->loss, perplexity, digits < 4 ? 1 : 2,
                 now->grad_norm, rate, left);
  } while (n > PROGRESS_COLUMNS && --digits > 0);
  (void)fprintf(say_out, "%s\n", line);
  (void)fflush(say_out);
}

/* The end of a line of a validation; there may be no figure. */
static void print_bits(const unroll_progress *now)
{
  if (!isnan(now->valid_bits_per_character)) {
    (void)fprintf(say_out, " bits_per_character %.4f", now->valid_bits_per_character);
  }
  (void)fprintf(say_out, "\n");
}

static void print_valid(const unroll_progress *now)
{
  char perplexity[32];
  format_perplexity(now->valid_perplexity, sizeof perplexity, perplexity);
  (void)fprintf(say_out, "valid step %" PRIu64 " epoch %" PRIu64 " loss %.4f ppl %s", now->step,
                now->epoch, now->valid_loss, perplexity);
  print_bits(now);
  (void)fflush(say_out);
}

static void print_full_report(const unroll_progress *now)
{
  (void)fprintf(say_out,
                "train step %" PRIu64 " epoch %" PRIu64 " loss %.4f perplexity %.6g grad_norm %.4g "
                "clip_scale %.4g learning_rate %.4g tokens %" PRIu64 " tokens_per_second %.0f "
                "seconds %.1f compute_seconds %.3g exchange_seconds %.3g wait_seconds %.3g\n",
                now->step, now->epoch, now->loss, now->perplexity, now->grad_norm, now->clip_scale,
                now->learning_rate, now->tokens, now->tokens_per_second, now->seconds,
                now->compute_seconds, now->exchange_seconds, now->wait_seconds);
  (void)fflush(say_out);
}

static void print_full_valid(const unroll_progress *now)
{
  (void)fprintf(say_out, "valid step %" PRIu64 " epoch %" PRIu64 " loss %.4f perplexity %.6g",
                now->step, now->epoch, now->valid_loss, now->valid_perplexity);
  print_bits(now);
  (void)fflush(say_out);
}

static void print_flow(const unroll_gradflow *f)
{
  for (size_t l = 0; l < f->L; ++l) {
    (void)fprintf(say_out,
                  "diagnose step %" PRIu64 " layer %zu half_lag %" PRId64 " percent_lag %" PRId64
                  " growth %.4g lyapunov %.4g",
                  f->step, l, f->half_lag[l], f->percent_lag[l], f->growth[l], f->lyapunov[l]);
    for (size_t k = 0; k < f->blocks; ++k) {
      if (f->blocks > 1) {
        (void)fprintf(say_out, " spectral_radius_%c %.4g", f->gates[k],
                      f->spectral_radius[l * f->blocks + k]);
      } else {
        (void)fprintf(say_out, " spectral_radius %.4g", f->spectral_radius[l]);
      }
    }
    (void)fprintf(say_out, " verdict %s\n", unroll_flow_text(f->verdict[l]));
  }
  (void)fflush(say_out);
}

void progress_tell(void *context, const unroll_progress *now)
{
  progress *p = context;

  if (p->where != NULL) {
    banner_show(p->where);
    p->where = NULL;
  }
  if (now->event == UNROLL_EVENT_STEP) {
    if (p->terminal) {
      draw_line(p, now);
    } else {
      end_silence(p, now);
    }
    return;
  }
  clear_line(p);
  p->told = clock_seconds();
  switch (now->event) {
  case UNROLL_EVENT_START:
    print_start(now);
    break;
  case UNROLL_EVENT_REPORT:
    (p->full ? print_full_report : print_report)(now);
    break;
  case UNROLL_EVENT_VALID:
    (p->full ? print_full_valid : print_valid)(now);
    break;
  case UNROLL_EVENT_DIAGNOSE:
    print_flow(now->flow);
    break;
  case UNROLL_EVENT_CHECKPOINT:
    (void)fprintf(say_err, "checkpoint of step %" PRIu64 ": %s\n", now->step, now->text);
    break;
  case UNROLL_EVENT_NOTE:
    (void)fprintf(say_err, "text: %s\n", now->text);
    break;
  case UNROLL_EVENT_WARNING:
    (void)fprintf(say_err, "unroll: warning: %s\n", now->text);
    break;
  case UNROLL_EVENT_END:
    (void)snprintf(p->end, sizeof p->end, "%s", now->text);
    (void)snprintf(p->weights_sha256, sizeof p->weights_sha256, "%s", now->weights_sha256);
    break;
  case UNROLL_EVENT_STEP:
    break;
  }
  p->step = now->step;
  p->best_step = now->best_step;
  p->best_loss = now->best_loss;
}

/* ------------------------------------------------------------------ stuck */

/* What helps when a host is lost: by default mpirun finds out after 300 + 9 * 20 seconds. */
#define ADVICE(when, again)                                                                        \
  when "end the job (scancel, Ctrl-C) and start it again" again                                    \
       ". mpirun finds a lost host within 10 s with --mca oob_tcp_keepalive_time 5 "               \
       "--mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 3"

/*
 * End this process and ask the launcher to end the others. Any launcher does when a process ends with status 1, but
 * mpirun (4.1.4) first waits for an answer from a lost host, for more than 14 minutes. The second of two SIGTERM within
 * five seconds makes it leave at once, and then its helpers on other hosts end their ranks and themselves. It forwards
 * what this process said only from its event loop, where signals come first: it is left the time to do so.
 */
static void end_job(void)
{
  const struct timespec second = {.tv_sec = 1};
  const bool by_mpirun = launcher_find().kind == LAUNCHER_OPENMPI;
  const pid_t mpirun = by_mpirun ? (pid_t)launcher_process() : 0;
  if (mpirun > 0) {
    (void)nanosleep(&second, NULL);
    (void)kill(mpirun, SIGTERM);
    (void)nanosleep(&second, NULL);
    (void)kill(mpirun, SIGTERM);
  }
  _exit(unroll_status_exit(UNROLL_ERR_MPI));
}

/* A line, the first time with advice. Called by the watchdog's thread. */
static void warn_of_wait(const char *line, const char *advice)
{
  static bool advised;

  (void)fprintf(say_err, "unroll: warning: %s%s%s\n", line, advised ? "" : ". ",
                advised ? "" : advice);
  advised = true;
}

void progress_stuck(void *context, const char *line, bool over)
{
  (void)context;

  if (isatty(STDERR_FILENO) == 1) { terminal_control(say_err, CLEAR_LINE); }
  if (over) {
    (void)fprintf(say_err,
                  "unroll: error: %s: --wait-limit is reached, the job ends; the last checkpoint "
                  "is safe, the same command with --resume goes on\n",
                  line);
    end_job();
  }
  warn_of_wait(line,
               ADVICE("If that host is lost: the last checkpoint is safe; ", " with --resume"));
}

void progress_waits(void *context, const char *line, bool over)
{
  (void)context;
  (void)over;
  warn_of_wait(line, ADVICE("Ranks with more to do than others may take so long. If a host is lost "
                            "or a process stopped: ",
                            ""));
}

/* ---------------------------------------------------------------- summary */

void progress_summary(const progress *p, const char *path)
{
  if (p->end[0] != '\0') { (void)fprintf(say_err, "ended: %s\n", p->end); }
  if (p->best_step > 0) {
    (void)fprintf(say_err, "best validation: step %" PRIu64 " loss %.4f perplexity %.6g\n",
                  p->best_step, p->best_loss, exp(p->best_loss));
  }
  char best[KEEP_NAME];
  keep_best_name(path, best);
  const bool is_last = p->best_step == 0 || p->best_step == p->step;
  if (p->weights_sha256[0] != '\0') {
    (void)fprintf(say_err, "weights: SHA-256 %s\n", p->weights_sha256);
  }
  (void)fprintf(say_err, "run file: %s\nnext: unroll info %s\n      unroll sample %s%s\n", path,
                path, is_last ? path : best, is_last ? "" : "    the best model");
}
