#ifndef NET_LAGS_H
#define NET_LAGS_H

/*
 * How far the gradient of one loss reaches back: n windows of T steps, each from the zero state, and of
 * each the loss l_t of its last token alone, propagated back K steps through time and, in a stack of
 * layers, through the layers too:
 *
 *   G^l_k = dl_t/dh^l_{t-k}                         the total derivative, (H)
 *         = (W_hh^l)^T  A^l_{k-1}  +  (W_xh^{l+1})^T A^{l+1}_k,   A^l_k = phi'(a^l_{t-k}) * G^l_k
 *   G^top_0 = W_qh^T (softmax(o_t) - onehot(y_t))
 *
 * The state of a cell with memory is (h, c): dl_t/dc_{t-k} is the derivative with respect to the c that step t-k passes
 * to the next, with h_{t-k} fixed, so that it is zero at k = 0. A gated cell has a delta A for each block of its
 * products, and the bypass is added to G (cell.h, cell_functions.inc).
 *
 * Beside it, the growth of a tangent vector u <- J_s u of the whole state along the same steps, whose mean logarithm
 * per step is the largest Lyapunov exponent of layer l (Benettin, Galgani, Giorgilli and Strelcyn 1980);
 * J_s = diag(phi'(a^l_s)) W_hh^l for a plain cell.
 *
 * The states are those of the program's own kernels. All else is in double, and every vector carries an
 * exponent of its own: gradients that vanish fall below the smallest number in a few dozen steps. Scaling
 * is by powers of two and so changes no digit.
 *
 * The numbers of a window depend only on the window and its index: not on the other windows of the
 * call, the threads or the instruction set.
 */
#include <unroll/params.h>

/* What is measured of one window: (L) of these numbers, layer after layer. `states` is 2 for a cell with memory. */
#define LAGS_NORMS(K)   ((K) + 1) /* ln |dl_t/dh_{t-k}|, k = 0..K; -INFINITY where it is zero */
#define LAGS_TANGENT(K) ((K) + 1) /* index of: ln of the tangent's growth over the last K steps */
/* Index of: derivative of the state by its own value a step before, without the products of a gated cell, else phi'(a):
 * mean over units of the last K + 1 steps. */
#define LAGS_DERIVATIVE(K)        ((K) + 2)
#define LAGS_MEMORY(K)            ((K) + 3) /* index of: ln |dl_t/dc_{t-k}|, k = 0..K */
#define LAGS_RECORD(states, L, K) ((L) * ((states) * ((K) + 1) + 2)) /* doubles of one window */

/**
 * Measure windows.
 *
 * @param[in]  n       windows, >= 1
 * @param[in]  T, K    steps of a window and lags; 1 <= K < T
 * @param[in]  tokens  (n, T + 1) tokens of each window; the last one is only predicted
 * @param[in]  first   index of the first window: tangents start from a random vector of this number
 * @param[out] out     (n, LAGS_RECORD(params_states, L, K)); not finite where hidden states overflow
 *
 * @return UNROLL_OK or UNROLL_ERR_MEMORY
 *
 * Threads: opens regions. Collective: no
 */
unroll_status lags_measure(const unroll_params *params, size_t n, size_t T, size_t K,
                           const int32_t *tokens, uint64_t first, double *out);

#endif
