#include "model/model.h"

#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "kernels/dispatch.h"

unroll_status unroll_model_load(unroll_comm *comm, const char *path, unroll_model **out)
{
  return unroll_model_load_weights(comm, path, UNROLL_WEIGHTS_AVERAGE, out);
}

unroll_status unroll_model_load_weights(unroll_comm *comm, const char *path, unroll_weights which,
                                        unroll_model **out)
{
  unroll_status st = UNROLL_OK;
  unroll_model *model = NULL;

  UNROLL_TRY(memory_new(1, sizeof *model, "model", &model));
  UNROLL_TRY(comm_agree(comm, kernels_start()));
  UNROLL_TRY(runfile_load(comm, path, &model->run));
  if (which == UNROLL_WEIGHTS_AVERAGE && model->run->state.averaged > 0) {
    run_swap_average(model->run);
    model->averaged = model->run->state.averaged;
  }
  UNROLL_TRY(comm_broadcast(comm, model->run->params->values,
                            model->run->params->n * sizeof(unroll_real), 0));
  *out = model;
  model = NULL;

cleanup:
  unroll_model_free(&model);
  return st;
}

void unroll_model_free(unroll_model **model)
{
  if (model == NULL || *model == NULL) { return; }
  run_free(&(*model)->run);
  memory_free(model);
}

const unroll_vocab *unroll_model_vocab_view(const unroll_model *model)
{
  return model->run->vocab;
}

uint64_t unroll_model_averaged(const unroll_model *model)
{
  return model->averaged;
}

const unroll_params *unroll_model_params_view(const unroll_model *model)
{
  return model->run->params;
}
