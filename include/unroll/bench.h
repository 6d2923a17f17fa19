#ifndef UNROLL_BENCH_H
#define UNROLL_BENCH_H

/*
 * How fast this machine trains: the whole training step, the same code as
 * unroll_train runs, on synthetic tokens.
 *
 * Work per token, in floating-point operations (the one-hot product costs none):
 *
 *   6 G H^2 + 6 H V, and 12 G H^2 for each further layer; G = 1, LSTM 4, GRU 3
 *   minGRU, which has no recurrent product: 6 H V, and 12 H^2 for each further layer
 */
#include <stdint.h>
#include <unroll/comm.h>
#include <unroll/config.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unroll_bench_result {
  uint64_t ranks, threads, shards; /* threads: most of a rank */
  uint64_t updates;                /* measured, in all blocks */
  double tokens_per_second;        /* of all ranks together, in the median block */
  double gflops;                   /* [1e9 operations per second] of all ranks together */
  double peak_gflops;              /* multiply-add peak of all threads of all ranks at once */
  double fraction_of_peak;         /* gflops / peak_gflops */

  /* [seconds per step] of the median block, mean over ranks; the phases add up to the step */
  double step_seconds;
  double forward_seconds;  /* hidden states of all layers */
  double output_seconds;   /* logits, losses, dL/do and dL/dh */
  double backward_seconds; /* without the exchange that it overlaps */
  double
      exchange_seconds; /* sending, receiving and adding, inside the other phases or between them */
  double wait_seconds;  /* blocked until messages and ranks of an exchange arrived */
  double norm_seconds;  /* of the gradient */
  double update_seconds; /* optimizer, and packing the new weights */
  double other_seconds;  /* reading the next window, and all that is in no other phase */

  /* What a step sums over the ranks: the gradient; of a large vocabulary's W_xh only the rows of the tokens of the
   * last step. 1 rank: bandwidth 0. */
  uint64_t exchange_bytes;
  double exchange_bandwidth; /* [bytes per second] exchange_bytes / time of an exchange alone */
  double
      exchange_hidden; /* [1] fraction of that time that is overlapped: not in exchange_seconds or wait_seconds */

  /* [bytes] largest resident set of a rank since the program started, with all that it shares with others */
  uint64_t peak_memory;
  double loss; /* [nats per token] of the last step: ln V, or less after many steps */
} unroll_bench_result;

/**
 * Measure one configuration.
 *
 * Steps are timed in blocks, and the multiply-add peak is measured before each block; the median of
 * both is reported, so that other load on the machine affects both alike.
 *
 * @param[in]  V        vocabulary, >= 1
 * @param[in]  config   hidden, steps, batch, layers, shards, cell, activation, optimizer, clip; the rest is not used
 * @param[in]  seconds  [seconds] to measure for, > 0; at least a few steps are run
 * @param[out] result   same on every rank
 *
 * @return the same on every rank: UNROLL_OK, UNROLL_ERR_ARG: sizes do not fit together or cannot be
 *         divided over the ranks, UNROLL_ERR_DIVERGED, UNROLL_ERR_MEMORY, UNROLL_ERR_MPI
 *
 * Collective: over comm
 * Threads:    main thread only; opens parallel regions
 */
unroll_status unroll_bench(unroll_comm *comm, uint64_t V, const unroll_config *config,
                           double seconds, unroll_bench_result *result);

/* The sum over all ranks of one array, by itself. */
typedef struct unroll_exchange_result {
  uint64_t bytes; /* of the array */
  double seconds; /* of the exchange: in one fixed order, the same bits for every number of ranks */
  double mpi_seconds; /* of MPI_Allreduce of the MPI library in use, in an order of its own */
  uint64_t
      sent; /* [bytes] that a rank sends to ranks that share no memory with it: maximum over ranks */
} unroll_exchange_result;

/**
 * Time the exchange of the gradient alone, and MPI_Allreduce: both in turns, medians of up to nine repetitions.
 *
 * @param[in]  bytes    of the array, >= sizeof(unroll_real)
 * @param[in]  seconds  [seconds] to measure for, > 0; each is run at least three times
 * @param[out] result   same on every rank
 *
 * @return the same on every rank: UNROLL_OK, UNROLL_ERR_MEMORY, UNROLL_ERR_MPI
 *
 * Collective: over comm
 * Threads:    main thread only; opens parallel regions
 */
unroll_status unroll_bench_exchange(unroll_comm *comm, uint64_t bytes, double seconds,
                                    unroll_exchange_result *result);

#ifdef __cplusplus
}
#endif
#endif
