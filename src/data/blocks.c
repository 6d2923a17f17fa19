#include "data/blocks.h"

#include "base/check.h"
#include "base/memory.h"
#include "comm/comm.h"

#include <omp.h>
#include <stdio.h>

size_t corpus_blocks(const corpus_part *part)
{
  return (size_t)((part->end - part->begin + CORPUS_BLOCK - 1) / CORPUS_BLOCK);
}

uint64_t corpus_block_begin(const corpus_part *part, size_t k)
{
  uint64_t begin = part->begin + (uint64_t)k * CORPUS_BLOCK;
  return begin < part->end ? begin : part->end;
}

void corpus_share(const unroll_comm *comm, const corpus_part *part, size_t *first, size_t *last)
{
  const size_t n = corpus_blocks(part);
  const size_t P = (size_t)unroll_comm_size(comm);
  const size_t r = (size_t)unroll_comm_rank(comm);
  *first = n * r / P;
  *last = n * (r + 1) / P;
}

/* --------------------------------------------------------------------- scan */

/* The first block that failed; a message belongs to its thread, so the line is kept here. */
typedef struct failure {
  unroll_status status;
  size_t block;
  char line[4096]; /* as long as unroll_message() can be */
} failure;

size_t scan_threads(size_t blocks)
{
  const size_t most = (size_t)omp_get_max_threads();
  return blocks < 1 ? 1 : blocks < most ? blocks : most;
}

unroll_status scan_blocks(const corpus *c, unroll_text_rules rules, const corpus_part *part,
                          size_t first, size_t last, scan_work *work, void *context)
{
  failure f = {.status = UNROLL_OK};

#pragma omp parallel num_threads((int)scan_threads(last - first)) default(none)                    \
    shared(c, rules, part, first, last, work, context, f)
  {
    const size_t thread = (size_t)omp_get_thread_num(), threads = (size_t)omp_get_num_threads();
    const size_t end = first + (last - first) * (thread + 1) / threads;
    size_t k = first + (last - first) * thread / threads;
    scan *s = NULL;
    unroll_status st = scan_new(c, rules, &s);

    while (st == UNROLL_OK && k < end) {
      st = scan_start(s, corpus_block_begin(part, k), corpus_block_begin(part, k + 1));
      if (st == UNROLL_OK) { st = work(context, thread, k, s); }
      if (st == UNROLL_OK) { ++k; }
    }
    if (st != UNROLL_OK) {
#pragma omp critical
      if (f.status == UNROLL_OK || k < f.block) {
        f.status = st;
        f.block = k;
        (void)snprintf(f.line, sizeof f.line, "%s", unroll_message());
      }
    }
    scan_free(&s);
  }
  return f.status == UNROLL_OK ? UNROLL_OK : unroll_fail(f.status, "%s", f.line);
}

/* ------------------------------------------------------------------- counts */

unroll_status block_counts_new(const corpus_part *part, block_counts *counts)
{
  unroll_status st = UNROLL_OK;
  const size_t n = corpus_blocks(part);

  /* Block k is counted in element k + 1, so that the running sum over the array ends as wanted. */
  UNROLL_TRY(memory_new(n + 1, sizeof *counts->table, "the tokens of each block", &counts->table));
  counts->tokens = counts->table + 1;

cleanup:
  return st;
}

void block_counts_free(block_counts *counts)
{
  memory_free(&counts->table);
}

void block_counts_add(block_counts *counts, const scan *s, uint64_t unknown)
{
  const scan_counts text = scan_counted(s);
#pragma omp atomic
  counts->text.characters += text.characters;
#pragma omp atomic
  counts->text.unk_words += text.unk_words;
#pragma omp atomic
  counts->text.eos_words += text.eos_words;
#pragma omp atomic
  counts->unknown += unknown;
}

unroll_status block_counts_sum(unroll_comm *comm, block_counts *counts, corpus_part *part)
{
  unroll_status st = UNROLL_OK;
  const size_t n = corpus_blocks(part);
  uint64_t totals[] = {counts->text.characters, counts->text.unk_words, counts->text.eos_words,
                       counts->unknown};
  uint64_t *first_token = counts->table;

  UNROLL_TRY(comm_sum_u64(comm, first_token, n + 1));
  UNROLL_TRY(comm_sum_u64(comm, totals, sizeof totals / sizeof totals[0]));
  for (size_t k = 0; k < n; ++k) { first_token[k + 1] += first_token[k]; }

  corpus_part_free(part);
  part->tokens = first_token[n];
  part->characters = totals[0];
  part->unk_words = totals[1];
  part->eos_words = totals[2];
  part->unknown = totals[3];
  part->n_blocks = n;
  part->first_token = first_token;
  counts->table = NULL;

cleanup:
  return st;
}
