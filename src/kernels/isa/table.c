/* The table of one instruction set's kernels; see kernels.h. */
#include "kernels/isa/table.h"
#include "kernels/isa/tile.h"

#define KERNEL_TEXT2(isa) #isa
#define KERNEL_TEXT(isa)  KERNEL_TEXT2(isa)

#define CELL_FORWARD(name, ...)  [CELL_##name] = ISA(forward_##name),
#define CELL_BACKWARD(name, ...) [CELL_##name] = ISA(backward_##name),

const kernel_table ISA(kernel_table) = {
    .name = KERNEL_TEXT(KERNEL_ISA),
    .lanes = LANES,
    .nr = PANEL,
    .mr = TILE_ROWS,
    .pack = PACK,
    .node = TILE_NODE,
    .rows = ISA(rows),
    .forward = {CELLS(CELL_FORWARD)},
    .backward = {CELLS(CELL_BACKWARD)},
    .panels = ISA(panels),
    .gradient = ISA(gradient),
    .gradient_pack = ISA(gradient_pack),
    .softmax = ISA(softmax),
    .gather_panel = ISA(gather_panel),
    .scatter_panel = ISA(scatter_panel),
    .sum_rows = ISA(sum_rows),
    .sum_squares = ISA(sum_squares),
    .add = ISA(add),
    .sgd = ISA(sgd),
    .momentum = ISA(momentum),
    .adam = ISA(adam),
    .average = ISA(average),
    .peak = ISA(peak),
    .exp = ISA(exp),
    .tanh = ISA(tanh),
    .sigmoid = ISA(sigmoid),
};
