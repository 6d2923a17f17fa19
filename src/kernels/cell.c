#include "kernels/cell.h"

static const cell cells[] = {
#define ENTRY(name, ...) [CELL_##name] = {CELL_##name, __VA_ARGS__},
    CELLS(ENTRY)};

const cell *cell_of(unroll_cell kind, unroll_activation activation)
{
  switch (kind) {
  case UNROLL_CELL_RNN:
    break;
  case UNROLL_CELL_LSTM:
    return &cells[CELL_lstm];
  case UNROLL_CELL_GRU:
    return &cells[CELL_gru];
  case UNROLL_CELL_MINGRU:
    return &cells[CELL_mingru];
  }
  return &cells[activation == UNROLL_ACTIVATION_RELU ? CELL_relu : CELL_tanh];
}
