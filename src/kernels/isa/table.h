#ifndef KERNELS_ISA_TABLE_H
#define KERNELS_ISA_TABLE_H

/* The kernels of one instruction set under their own symbol names: declared here for the files of
 * this folder, which define them. */
#include "kernels/isa/vector.h"

void ISA(rows)(const rows_product *p);
#define CELL_FUNCTIONS(name, ...)                                                                  \
  void ISA(forward_##name)(const cell_step *p);                                                    \
  void ISA(backward_##name)(const cell_back *p);
CELLS(CELL_FUNCTIONS)
#undef CELL_FUNCTIONS
void ISA(panels)(const panels_product *p);
void ISA(gradient)(const gradient_block *p);
void ISA(gradient_pack)(const gradient_block *p);
void ISA(softmax)(const softmax_panel *p);
void ISA(gather_panel)(size_t n, size_t count, const unroll_real *const *rows, unroll_real *panel,
                       size_t ld);
void ISA(scatter_panel)(size_t n, size_t count, const unroll_real *panel, size_t ld,
                        unroll_real *const *rows);
void ISA(sum_rows)(size_t n, size_t shards, size_t group, const uint32_t *start,
                   const uint32_t *list, const unroll_real *X, size_t ldx, unroll_real *out);
double ISA(sum_squares)(size_t n, const unroll_real *x);
void ISA(add)(size_t n, const unroll_real *y, unroll_real *x);
void ISA(sgd)(size_t n, double scale, double eta, double keep, const unroll_real *g,
              unroll_real *w);
void ISA(momentum)(size_t n, double scale, double eta, double keep, double mu, const unroll_real *g,
                   unroll_real *v, unroll_real *w);
void ISA(adam)(size_t n, double scale, const adam_step *how, const unroll_real *g, unroll_real *m,
               unroll_real *v, unroll_real *w);
void ISA(average)(size_t n, double share, const unroll_real *w, unroll_real *a);
double ISA(peak)(size_t rounds, unroll_real *out);
void ISA(exp)(size_t n, const unroll_real *x, unroll_real *y);
void ISA(tanh)(size_t n, const unroll_real *x, unroll_real *y);
void ISA(sigmoid)(size_t n, const unroll_real *x, unroll_real *y);
extern const kernel_table ISA(kernel_table);

#endif
