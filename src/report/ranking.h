#ifndef REPORT_RANKING_H
#define REPORT_RANKING_H

/* Several runs side by side: which is better, and what differs between them. */
#include "base/sha256.h"
#include "runfile/runfile.h"

/* What is kept of a run file: weights and moments of many would not fit into memory. */
typedef struct ranking_entry {
  const char *path; /* borrowed */
  size_t place;     /* on the command line, from 0 */
  unroll_config config;
  uint64_t V, parameters, ranks, threads, step, best_step, tokens;
  bool finished;
  double seconds;
  double best_loss, best_bits; /* [nats per token], [bits per character]; INFINITY: none */
  double train_loss;           /* [nats per token] last row; INFINITY: none */
  char weights[SHA256_TEXT];   /* of the values of /weights */
  char texts[SHA256_TEXT];     /* of the hashes of the corpus files, in their order */
} ranking_entry;

/** What is kept of r, the run at `path`. */
unroll_status ranking_take(const char *path, size_t place, const run *r, ranking_entry *e);

/**
 * The better first: by bits per character, which levels have in common; behind those, without such a figure, by loss;
 * equal ones as they were given.
 */
void ranking_sort(size_t n, ranking_entry *entries);

/** Does option k of config_table, of the run rather than of a call, differ between the runs? */
bool ranking_differs(size_t k, size_t n, const ranking_entry *entries);

/** Were the losses of all measured on the same text, as far as can be told? */
bool ranking_same_texts(size_t n, const ranking_entry *entries);

/** [tokens per second] mean over the whole run; NAN where it has no time. */
double ranking_speed(const ranking_entry *e);

/** An object with the keys of `unroll compare --json`; *bad becomes true where there is no memory. */
struct json_t;
struct json_t *ranking_pack(size_t i, size_t n, const ranking_entry *entries, bool *bad);

#endif
