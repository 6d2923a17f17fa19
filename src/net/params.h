#ifndef NET_PARAMS_H
#define NET_PARAMS_H

/* Tensors of a model by place instead of by name: the table's order is that of unroll/params.h. */
#include <unroll/params.h>

enum { PARAMS_W_QH, PARAMS_B_Q, PARAMS_OUTPUTS };
enum { PARAMS_W_HH, PARAMS_B_H, PARAMS_W_XH, PARAMS_PER_LAYER };

/** W_qh or b_q. */
static inline const unroll_tensor *params_output(const unroll_params *p, int which)
{
  return &p->tensors[which];
}

/** W_hh, b_h or W_xh of layer l; the top layer comes first. */
static inline const unroll_tensor *params_tensor(const unroll_params *p, size_t l, int which)
{
  return &p->tensors[PARAMS_OUTPUTS + (p->L - 1 - l) * PARAMS_PER_LAYER + (size_t)which];
}

/** End of layer l in the flat array: what lies before belongs to it, to layers above and to the output. */
static inline size_t params_layer_end(const unroll_params *p, size_t l)
{
  return l == 0 ? p->n : params_tensor(p, l - 1, PARAMS_W_HH)->offset;
}

/**
 * unroll_params_start for elements [begin, end) of the flat array alone, which are zero before: parts that make up
 * [0, params->n) make up the whole. An orthogonal W_hh comes as a whole with its first element, wherever it ends.
 *
 * Threads: opens regions
 */
unroll_status params_start_part(unroll_params *params, unroll_init init, double scale,
                                uint64_t seed, size_t begin, size_t end);

#endif
