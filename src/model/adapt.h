#ifndef MODEL_ADAPT_H
#define MODEL_ADAPT_H

/*
 * Scoring by a model that adapts to the text while it reads it: other figures than those of the model itself.
 *
 * Dynamic evaluation (Krause, Kahembwe, Murray and Renals 2018, their SGD with decay): behind each window the weights
 * take a step of gradient descent on its losses, which are scored before,
 *
 *   w <- w + decay * (w_0 - w) - rate * d(mean loss of the window)/dw             w_0: as trained
 *
 * The continuous cache (Grave, Joulin and Usunier 2017): of the last N pairs of state h_i and token y_i behind it,
 *
 *   p_cache(v | h_t)  =  sum over i with y_i = v of exp(theta h_t.h_i)  /  sum over all i of exp(theta h_t.h_i)
 *   p(v)              =  (1 - lambda) p_model(v) + lambda p_cache(v)
 *
 * h is that of the top layer. Both sum to 1 over v, so p does; before the first pair p is p_model. The pairs of a
 * window are there for its own later tokens.
 */
#include "data/text_source.h"
#include "net/params.h"
#include <unroll/model.h>

/**
 * Score the one row of the text; the weights are copied.
 *
 * @param[out] nats  summed over all tokens
 *
 * Collective: no. Threads: opens regions; the bits do not depend on them
 */
unroll_status adapt_score(const unroll_params *params, const text_source *text,
                          const unroll_adaptation *how, double *nats);

#endif
