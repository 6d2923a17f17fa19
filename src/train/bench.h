#ifndef TRAIN_BENCH_H
#define TRAIN_BENCH_H

#include <unroll/bench.h>

/**
 * unroll_bench, of the ranks of comm, or of one rank of `ranks` by itself: it has its share of the batch, all of the
 * update, and adds up nothing but its own. Of that, step_seconds and the phases tell; and --stride counts.
 *
 * @param[in] ranks  those of comm, or any where comm is of one rank
 *
 * Collective: over comm
 */
unroll_status bench_ranks(unroll_comm *comm, size_t ranks, uint64_t V, const unroll_config *config,
                          double seconds, unroll_bench_result *result);

#endif
