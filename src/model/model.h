#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

/* The members of unroll_model, for the files that load, score and sample. */
#include "runfile/runfile.h"
#include <unroll/model.h>

struct unroll_model {
  run *run; /* config, vocabulary and parameters */
  uint64_t averaged;
};

#endif
