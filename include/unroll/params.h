#ifndef UNROLL_PARAMS_H
#define UNROLL_PARAMS_H

/*
 * Parameters of a model: one flat array and one table of named views.
 *
 *   V vocabulary, H hidden units, L layers, E elements of an embedding, if any; G blocks of rows, one for each gate.
 *
 *   | group     | name | shape in the file and the equations | in memory             | rnn | lstm | gru | mingru |
 *   | output    | W_qh | (V, H)                              | (V, H)                |     |      |     |        |
 *   | output    | b_q  | (V)                                 | (V)                   |     |      |     |        |
 *   | layer{k}  | W_hh | (G H, H)                            | (G H, H)              | G 1 | 4    | 3   | -      |
 *   | layer{k}  | b_h  | (G H)                               | (G H)                 | 1   | 4    | 3   | 2      |
 *   | layer{k}  | b_hn | (H)                                 | (H)                   | -   | -    | 1   | -      |
 *   | layer{k}  | W_xh | (G H, H)                            | (G H, H)              | 1   | 4    | 3   | 2      |
 *   | layer0    | W_xh | (G H, V)                            | (V, G H): gathered    | 1   | 4    | 3   | 2      |
 *   | layer0    | W_xh | with E: (G H, E)                    | (G H, E)              | 1   | 4    | 3   | 2      |
 *   | input     | W_xe | with E: (V, E); tied: it is W_qh    | (V, E): gathered      |     |      |     |        |
 *
 * Blocks in the file: lstm i f g o, gru r z n, mingru z n (design.md section 1). In memory each block but a single one
 * is padded to whole vectors, and those of W_xh and b_h of a gru are in the order n r z.
 *
 * Rows in memory are `ld` elements apart, a multiple of 16, and the padding is
 * zero in parameters, gradients and moments alike, so that norm, update,
 * exchange and kernels run over whole vectors. Gradient and optimizer moments
 * have the same layout in arrays of their own.
 *
 * The order in memory is the order in which gradients become complete:
 * output first, then the layers from the top to the bottom, so that the
 * exchange of a complete tensor can start early. The input table, W_xe or else layer0 W_xh, is
 * last: of its gradient only the rows of tokens in the batch are not zero. Where the table is W_qh, a gradient has room
 * for its gradient as the input table behind all others: the two are added after the sum over the ranks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unroll/config.h>
#include <unroll/real.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The shape of a model: sizes, cell and activation. */
typedef struct unroll_shape {
  size_t V, H, L;
  size_t E;  /* size of the embedding of a token below the first layer; 0: none */
  bool tied; /* the embeddings are the rows of W_qh: E is H */
  bool skip; /* layers above the first pass upwards h_t + what they read */
  unroll_cell cell;
  unroll_activation activation; /* of cell rnn */
} unroll_shape;

typedef struct unroll_tensor {
  char group[16];        /* "layer0", "output", "input" */
  char name[8];          /* "W_xh" */
  const char *long_name; /* "input-hidden weights" */
  const char *row_dim;   /* name of the first dimension: "hidden", "vocab" */
  const char *col_dim;   /* of the second; NULL for a vector */
  size_t rows, cols;     /* shape in the file; a vector has cols 1 */
  size_t blocks;         /* of the rows */
  size_t block;          /* stride of the blocks in memory, in rows */
  size_t turn;           /* rotation: block k of the file is block (k + turn) % blocks in memory */
  bool transposed;       /* memory holds cols rows of `blocks` * `block` elements */
  size_t ld;             /* leading dimension: stride of the rows in memory, in elements */
  size_t offset;         /* first element in the flat array */
} unroll_tensor;

typedef struct unroll_params {
  unroll_shape shape;
  size_t n_tensors;
  unroll_tensor *tensors; /* (n_tensors) in memory order */
  size_t n;               /* elements of the flat array, padding included */
  size_t n_gradient;      /* of a gradient before the sum over the ranks: n, and a tied table's */
  size_t n_output;        /* the first n_output belong to group "output" */
  size_t n_real;          /* parameters without padding */
  unroll_real *values;    /* (n) */
} unroll_params;

/** Lay out a model, all values zero. The caller owns *out. */
unroll_status unroll_params_new(const unroll_shape *shape, unroll_params **out);
void unroll_params_free(unroll_params **params);

/** The tensor of that group and name, for example ("layer0", "W_hh"), or NULL. */
const unroll_tensor *unroll_params_find(const unroll_params *params, const char *group,
                                        const char *name);

/** Index in the flat array of element (row, col) of the file's shape. */
static inline size_t unroll_tensor_index(const unroll_tensor *t, size_t row, size_t col)
{
  if (t->blocks > 1) {
    const size_t H = t->rows / t->blocks;
    row = (row / H + t->turn) % t->blocks * t->block + row % H;
  }
  if (t->col_dim == NULL) { return t->offset + row; }
  return t->offset + (t->transposed ? col * t->ld + row : row * t->ld + col);
}

/* Initialization of the values. */
typedef struct unroll_start {
  unroll_init init;
  double scale;       /* of W_hh with init orthogonal and identity */
  double forget_bias; /* of an lstm */
  uint64_t seed;
} unroll_start;

/**
 * Initial values, a function of the seed and the index alone.
 *
 *   uniform     every parameter uniform in +-1/sqrt(H), as torch.nn.RNN, LSTM, GRU and Linear
 *   orthogonal  the same, except that each block of W_hh = scale * Q, Q from the QR decomposition of a Gaussian matrix
 *   identity    the same, except that W_hh = scale * I and b_h = 0 (Le, Jaitly and Hinton 2015)
 *
 * The forget block of b_h of an lstm is forget_bias in each of them. W_xe, or W_qh where it is that, is uniform in +-0.1,
 * as in the word language model of PyTorch's examples and in AWD-LSTM.
 *
 * Threads: opens regions
 */
unroll_status unroll_params_start(unroll_params *params, const unroll_start *start);

#ifdef __cplusplus
}
#endif
#endif
