#ifndef UNROLL_MODEL_H
#define UNROLL_MODEL_H

/*
 * A trained model: load it from a run file, score text with it, sample text from it.
 *
 * Opaque: weights, vocabulary and the workspace of the kernels belong together.
 * Main thread only; opens parallel regions.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/params.h>
#include <unroll/status.h>
#include <unroll/vocab.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_model unroll_model;

/* Which weights of a run file: their average over updates, where it has one (--average), or those of the last update. */
typedef enum unroll_weights { UNROLL_WEIGHTS_AVERAGE, UNROLL_WEIGHTS_LAST } unroll_weights;

/**
 * Load the model of a run file; with the average of its weights, where there is one.
 *
 * @return UNROLL_OK, or UNROLL_ERR_INPUT: missing, truncated, foreign or from a newer version
 *
 * Collective: over comm; rank 0 reads
 */
unroll_status unroll_model_load(unroll_comm *comm, const char *path, unroll_model **out);
unroll_status unroll_model_load_weights(unroll_comm *comm, const char *path, unroll_weights which,
                                        unroll_model **out);
void unroll_model_free(unroll_model **model);

const unroll_vocab *unroll_model_vocab_view(const unroll_model *model);
const unroll_params *unroll_model_params_view(const unroll_model *model);

/** Updates that its weights are the average of; 0: they are those of the last one. */
uint64_t unroll_model_averaged(const unroll_model *model);

/* The loss of a text under a model. */
typedef struct unroll_score {
  uint64_t tokens;           /* scored */
  uint64_t characters;       /* of the scored text, after --lowercase and --letters */
  uint64_t unknown;          /* scored tokens that are not in the vocabulary */
  double loss;               /* [nats per token] */
  double perplexity;         /* exp(loss) */
  double bits_per_character; /* with unknown > 0 too low: <unk> costs only its own probability */
  double tokens_per_second;
} unroll_score;

/* Loss of one line of the text, given all text before it. */
typedef struct unroll_line_score {
  uint64_t line;   /* from 1 */
  uint64_t tokens; /* scored, the line end included; 0: an empty first line */
  double nats;     /* sum over them */
} unroll_line_score;

/**
 * Score tokens 2..N of the text of these files, each given all before it, from the zero state.
 *
 * With streams > 1 the text is cut into that many parts, each starting from the zero state, which are scored at the
 * same time: faster, with a slightly higher loss. The streams are divided over the ranks.
 *
 * The text of a model trained with --sequences line or paragraph is scored in the same sequences, all of their
 * tokens, each sequence from the zero state; streams is then only the number of sequences scored at a time.
 *
 * @param[in]  streams  >= 1
 * @param[out] score    same on every rank
 * @param[in]  on_line  called on rank 0 for each line, in order; NULL: no lines. Only with streams 1
 *
 * @return UNROLL_OK, UNROLL_ERR_ARG or UNROLL_ERR_INPUT: text unusable or shorter than 2 tokens a stream
 *
 * Collective: over comm
 */
unroll_status unroll_model_evaluate(unroll_model *model, unroll_comm *comm, size_t n_texts,
                                    const char *const *texts, size_t streams,
                                    void (*on_line)(void *context, const unroll_line_score *line),
                                    void *context, unroll_score *score);

/* How a model adapts to a text while it scores it; src/model/adapt.h has the equations. */
typedef struct unroll_adaptation {
  double rate;  /* learning rate of dynamic evaluation; 0: the weights stay */
  double decay; /* share of the way back to the trained weights before each of its steps, 0 to 1 */
  uint64_t steps; /* [tokens] between them, >= 1 */
  uint64_t cache; /* [tokens] that the cache remembers; 0: none */
  double theta;   /* how much the cache prefers like states, >= 0 */
  double lambda;  /* share of the cache in the probability of a token, 0 to below 1 */
} unroll_adaptation;

/**
 * The same by a model that adapts: not the loss of the model, which unroll_model_evaluate says, and the model is left as
 * it is. The text is one stream, scored by rank 0 alone.
 *
 * @return as unroll_model_evaluate
 *
 * Collective: over comm
 */
unroll_status unroll_model_evaluate_adapting(unroll_model *model, unroll_comm *comm, size_t n_texts,
                                             const char *const *texts, const unroll_adaptation *how,
                                             unroll_score *score);

typedef struct unroll_sampling {
  const char *prime;  /* text fed first; "" starts from a line end, or from a space */
  uint64_t length;    /* tokens to draw */
  double temperature; /* > 0: softmax(o / temperature); 0: always the most likely token */
  uint64_t top_k;     /* draw from the k most likely tokens only; 0: from all */
  double
      top_p; /* of these, from the smallest set of most likely ones with top_p of their probability or more, at this
                   temperature; of equally likely ones those of lower index; 0 or 1: from all */
  uint64_t seed;
  uint64_t sample;             /* number of the sample: samples of one seed differ by it */
  bool (*stop)(void *context); /* called after each token: true ends the text there; NULL: never */
} unroll_sampling;

/**
 * Draw text. `<unk>` is never drawn. The text does not depend on ranks or threads.
 *
 * @param[in] on_text  called with the text of each token (bytes, not zero-terminated), which continues the prime: a
 *                     space precedes a word, unless the prime ends with white space
 * @param[in] context  of on_text and of how->stop
 *
 * @return UNROLL_OK, or UNROLL_ERR_ARG: prime is malformed at the model's level, temperature < 0 or NaN,
 *         top_p not within 0 to 1
 *
 * Collective: no
 */
unroll_status unroll_model_sample(unroll_model *model, const unroll_sampling *how,
                                  void (*on_text)(void *context, const char *text, size_t n),
                                  void *context);

#ifdef __cplusplus
}
#endif
#endif
