#ifndef TRAIN_PIECE_H
#define TRAIN_PIECE_H

/*
 * A piece: the steps of the text that one update covers, by the strategy of back-propagation through time (design.md
 * section 2); the same for all sequences and ranks. Only this file reads and advances the position of a run in its text
 * (run_state: epoch, window, position).
 *
 *   truncated   windows of --steps at a distance of --stride; the first ones of a stream are shorter. With --windows
 *               random from one end to the next, of max(5, floor(m + 5 z)) steps, m = --steps, or half of it with
 *               probability 1/20, z the sum of 12 uniform numbers less 6 instead of a normal one, whose bits would
 *               be those of a mathematical library; the last is as long as what is left. Its rate is multiplied
 *               by length / --steps
 *   full        the whole stream
 *   randomized  from one cut to the next: a cut lies before step t of an epoch when
 *               RANDOM_CUT(epoch, t) >= pi = 1 - 1 / steps
 *
 * With --offset random an epoch of windows begins at a step below --steps of all streams, and leaves as many out at the
 * end that they have so many steps whatever the draw.
 *
 * So where a text is one batch of whole streams. Where it has more batches (windows in random order, lines,
 * paragraphs), each batch is a piece.
 *
 * Sources: Tallec and Ollivier 2017, "Unbiasing truncated backpropagation through time", section 3; lengths: Merity, Keskar
 * and Socher 2018, "Regularizing and optimizing LSTM language models", section 5
 */
#include "data/text_source.h"
#include "runfile/runfile.h"

typedef struct piece {
  uint64_t epoch, batch; /* of the text */
  uint64_t start;        /* step of the batch */
  size_t steps;
  size_t
      scored; /* losses count from this step on: earlier steps were scored in an earlier window */
  size_t advance;  /* the state after this many steps is carried to the next piece */
  bool from_zero;  /* begins with the zero state instead of the carried one */
  bool ends_epoch; /* the last of its epoch */
  double tokens;   /* with a loss, of all ranks */
  double scale;    /* weight of the loss of each token in the gradient */
  double rate;     /* factor of the learning rate */
} piece;

/* The pieces of a run in numbers: the same on every rank. */
typedef struct piece_count {
  uint64_t updates;   /* of the whole run */
  uint64_t last;      /* update at which the run ends: --max-steps, or all of them */
  uint64_t per_epoch; /* of an epoch, of the first where they differ */
  size_t longest;     /* [steps] */
} piece_count;

/** Count the pieces of a run. */
piece_count piece_totals(const unroll_config *config, const text_source *text);

/** The piece of the next update. Collective over comm where the text is ragged. */
unroll_status piece_next(unroll_comm *comm, const unroll_config *config, const text_source *text,
                         const run_state *state, piece *out);

/** Advance the position behind a piece that is done. */
void piece_advance(const piece *p, run_state *state);

/** xi: factor on the gradient across an uncut step boundary, so that the mean over all cuts is the full gradient. */
double piece_xi(const unroll_config *config);

#endif
