#include "net/head.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dispatch.h"
#include "kernels/output.h"

#include <omp.h>
#include <string.h>

unroll_status head_init(const unroll_params *params, const network_size *size, head *o)
{
  unroll_status st = UNROLL_OK;
  const size_t V = params->shape.V, tokens = size->chunk * size->B;
  const size_t threads = (size_t)omp_get_max_threads();

  *o = (head){.params = params, .size = *size};
  UNROLL_TRY(memory_new(tokens, sizeof *o->y_panel, "target tokens", &o->y_panel));
  UNROLL_TRY(memory_new(tokens, sizeof *o->nll, "losses", &o->nll));
  UNROLL_TRY(memory_new(output_panels(size->chunk, size->B, size->shards) * V * kernels()->nr,
                        sizeof *o->O, "logits", &o->O));
  UNROLL_TRY(memory_new(threads * output_scratch(params->shape.H), sizeof *o->scratch,
                        "output scratch", &o->scratch));

cleanup:
  return st;
}

void head_destroy(head *o)
{
  memory_free(&o->scratch);
  memory_free(&o->O);
  memory_free(&o->nll);
  memory_free(&o->y_panel);
}

void head_forward(head *o, network_span span, const layer *top, const int32_t *y, double scale,
                  unroll_real *dh)
{
  const size_t B = o->size.B, slot = B * top->ld, skipped = span.scored - span.begin;
  const unroll_params *params = o->params;
  const unroll_tensor *W_qh = params_output(params, PARAMS_W_QH),
                      *b_q = params_output(params, PARAMS_B_Q);
  const output_layer out = {.T = span.end - span.scored,
                            .B = B,
                            .V = params->shape.V,
                            .H = params->shape.H,
                            .shards = o->size.shards,
                            .W = params->values + W_qh->offset,
                            .ld_W = W_qh->ld,
                            .bias = params->values + b_q->offset,
                            .h = top->output + (span.scored + 1) * slot,
                            .ld = top->ld,
                            .y = y + span.scored * B,
                            .scale = (unroll_real)scale,
                            .smoothing = o->smoothing,
                            .only_loss = dh == NULL,
                            .O = o->O,
                            .dh = dh != NULL ? dh + skipped * slot : NULL,
                            .nll = o->nll,
                            .scratch = o->scratch,
                            .y_panel = o->y_panel};
  if (dh != NULL) { memset(dh, 0, skipped * slot * sizeof *dh); }
  output_layer_run(&out);
}

unroll_status head_backward(const head *o, network_span span, const layer *top,
                            const gradient_sink *sink)
{
  /* dW_qh = sum_t dO_t h_t^T, db_q = sum_t dO_t */
  const sink_product p = {.W = params_output(o->params, PARAMS_W_QH),
                          .b = params_output(o->params, PARAMS_B_Q),
                          .source = GRADIENT_PANELS,
                          .dZ = o->O,
                          .T = span.end - span.scored,
                          .state_panels = top->output_panels,
                          .slot = span.scored + 1};
  return sink_add_product(sink, &p);
}
