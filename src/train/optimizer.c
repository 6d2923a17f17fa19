#include "train/optimizer.h"

#include "kernels/update.h"

#include <math.h>

double clip_scale(double theta, double norm)
{
  return theta > 0.0 && norm > theta ? theta / norm : 1.0;
}

void optimizer_update(const unroll_config *config, size_t begin, size_t end, double scale,
                      double eta, uint64_t t, const unroll_real *g, unroll_real *const *moments,
                      unroll_real *w)
{
  const size_t n = end - begin;
  const double keep = 1.0 - eta * config->weight_decay;
  g += begin;
  w += begin;
  switch (config->optimizer) {
  case UNROLL_OPTIMIZER_SGD:
    update_sgd(n, scale, eta, keep, g, w);
    break;
  case UNROLL_OPTIMIZER_MOMENTUM:
    update_momentum(n, scale, eta, keep, config->momentum, g, moments[0] + begin, w);
    break;
  case UNROLL_OPTIMIZER_ADAM: {
    const adam_step step = {.beta1 = config->beta1,
                            .beta2 = config->beta2,
                            .epsilon = config->epsilon,
                            .rate = eta / (1.0 - pow(config->beta1, (double)t)),
                            .correction = 1.0 / (1.0 - pow(config->beta2, (double)t)),
                            .keep = keep};
    update_adam(n, scale, &step, g, moments[0] + begin, moments[1] + begin, w);
    break;
  }
  }
}
