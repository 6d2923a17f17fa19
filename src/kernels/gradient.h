#ifndef KERNELS_GRADIENT_H
#define KERNELS_GRADIENT_H

/*
 * Weight gradients: sums over all tokens of this rank, as the balanced tree
 * over its shards (shard_tree.h), so that the additions are the same whoever
 * computes a shard.
 *
 *   dW = sum_n dZ_n h_n^T,  db = sum_n dZ_n      n: shard by shard, within one by (t, b)
 *
 * Or `per_shard`: the sum of each shard is added to what the shard has already, and shards_combine runs the
 * tree at the end. So a piece of text too long for one window is summed chunk by chunk.
 */
#include "kernels/recurrence.h"

/* Where dZ lies. */
typedef enum gradient_source {
  GRADIENT_ROWS,   /* time-major (T, B, ld): a recurrent layer's dA */
  GRADIENT_PANELS, /* token panels (output.h): the output layer's dO */
} gradient_source;

typedef struct weight_gradient {
  size_t T, B, shards; /* of this rank */
  size_t group;        /* shard_tree_group of all shards */
  size_t M, N;         /* shape of dW */
  gradient_source source;
  const unroll_real *dZ; /* of M columns */
  size_t ld_dZ;          /* GRADIENT_ROWS; KERNELS_PAD readable elements must follow the last row */
  const unroll_real *h;  /* state panels (recurrence.h) of N columns */
  size_t panel_T;        /* their T */
  size_t slot;           /* h of the first step: h_n is the state of slot + t */
  unroll_real *dW;       /* (M, N), ld_dW */
  size_t ld_dW;
  unroll_real *db; /* (M) or NULL */
  size_t
      per_shard; /* elements from the dW and db of one shard to those of the next; 0: the tree is run */
  unroll_real *scratch; /* gradient_scratch(...) elements, 64-byte aligned */
  kernel_poll poll;
} weight_gradient;

/**
 * Elements of scratch that any weight_gradient needs: what threads pack, and what of the shard tree waits.
 *
 * @param[in]  shard_tokens  tokens of a shard, at most
 */
size_t gradient_scratch(size_t shard_tokens, size_t threads);

/** Rows [begin, end) of dW and db; the bits do not depend on the cut. Opens a region. */
void weight_gradient_rows(const weight_gradient *p, size_t begin, size_t end);

/*
 * The gradient of a table whose rows were gathered by token: dW[v] = sum over the tokens n with x_n = v
 * of dZ_n, the same tree. Rows of tokens that do not occur are left alone: the caller keeps them zero.
 */
typedef struct token_gradient {
  size_t T, B, shards, group;
  size_t V, H;
  const int32_t *x;      /* (T, B); NULL: all are token 0, and dW is the sum of all dZ */
  const unroll_real *dZ; /* (T, B, ld) */
  size_t ld;
  unroll_real *dW; /* (V, H), ld_dW */
  size_t ld_dW;
  size_t per_shard; /* as above */
  uint32_t *start;  /* (V * shards + 1) */
  uint32_t *list;   /* (T * B) */
} token_gradient;

/** Opens a region. */
void token_gradient_run(const token_gradient *p);

/**
 * out (n) = the tree over shards of their own sums x (shards, per_shard); destroys x. n is a multiple of
 * KERNELS_PAD. Opens a region.
 *
 * @param[in]  place  (shards) where in x each shard lies; NULL: in order
 */
void shards_combine(size_t shards, size_t group, const uint32_t *place, size_t n, size_t per_shard,
                    unroll_real *x, unroll_real *out);

/** sums[s] += the nll of shard s, tokens ascending; nll (shards * tokens_in_shard), ordered as above. */
void loss_by_shard(size_t tokens_in_shard, size_t shards, const double *nll, double *sums);

#endif
