#include "train/average.h"

#include <math.h>

/* The first 1 / (1 - decay) updates of a decaying mean: it is over about a tenth of those so far. TensorFlow's
 * ExponentialMovingAverage has the same constant. */
#define EARLY 10.0

double average_share(const unroll_config *config, const run_state *state)
{
  const double n = (double)state->averaged, mean = 1.0 / (n + 1.0);

  switch (config->average) {
  case UNROLL_AVERAGE_OFF:
    break;
  case UNROLL_AVERAGE_ASGD:
    return state->epoch >= config->average_from ? mean : 0.0;
  case UNROLL_AVERAGE_EMA:
    return state->epoch >= config->average_from
               ? fmax(EARLY / (n + EARLY), 1.0 - config->average_decay)
               : 0.0;
  case UNROLL_AVERAGE_NT_ASGD:
    return state->averages ? mean : 0.0;
  }
  return 0.0;
}

bool average_is_triggered(uint64_t patience, size_t n, const run_valid_row *rows)
{
  double lowest = INFINITY;

  for (size_t i = 0; i + patience + 1 < n; ++i) {
    if (rows[i].step > 0) { lowest = fmin(lowest, rows[i].loss); }
  }
  return n > 0 && rows[n - 1].loss > lowest;
}
