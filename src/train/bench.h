#ifndef TRAIN_BENCH_H
#define TRAIN_BENCH_H

#include <unroll/bench.h>

/**
 * unroll_bench, of the ranks of comm; or of one of `ranks` ranks by itself, with its sequences of the batch, the whole
 * update and no exchange: then only step_seconds and the phases are meaningful. config->stride is respected.
 *
 * @param[in] ranks  those of comm, or any where comm is of one rank
 *
 * Collective: over comm
 */
unroll_status bench_ranks(unroll_comm *comm, size_t ranks, uint64_t V, const unroll_config *config,
                          double seconds, unroll_bench_result *result);

#endif
