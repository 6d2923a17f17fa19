#ifndef UNROLL_EXPORT_H
#define UNROLL_EXPORT_H

/*
 * A trained model in the formats of other tools.
 *
 * Each function writes one file, whole or not at all, and replaces what has its name. What a run says of itself goes
 * along as texts by name, in `__metadata__` of safetensors and `metadata_props` of ONNX:
 *
 *   format, source   "pt"; program and version
 *   step             updates done
 *   config           all options, one JSON object, as in `unroll info --json`
 *   token, code      /vocab/token and /vocab/code of the run file, as JSON arrays
 *
 * Not collective: to be called on rank 0, which alone has the metrics. Main thread only.
 */
#include <stdbool.h>
#include <unroll/model.h>
#include <unroll/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Weights as safetensors, by the names and with the shapes of a torch module that has `rnn`, a torch.nn.RNN, LSTM or
 * GRU, and `out`, a torch.nn.Linear: its load_state_dict takes them. For a minGRU, which torch has not, they are
 * rnn.weight_ih_l{k} (2H, V or H) and rnn.bias_ih_l{k} (2H), blocks z n. An embedding is embedding.weight, of a
 * torch.nn.Embedding, and E is then in the place of V. A tied table is there twice, as a state_dict has it.
 *
 * @return UNROLL_OK, UNROLL_ERR_IO or UNROLL_ERR_MEMORY
 */
unroll_status unroll_export_safetensors(const unroll_model *model, const char *path);

/**
 * The model as an ONNX graph (opset 14) of RNN, LSTM or GRU nodes, or of a Scan for a minGRU, T and B being free:
 *
 *   tokens (T, B) int64, h (L, B, H), and c of an lstm  ->  logits (T, B, V), h_next, and c_next
 *
 * With T = 1, and what comes out as *_next put in as h and c, it runs token by token; zeros begin a text.
 *
 * @return UNROLL_OK, UNROLL_ERR_IO, UNROLL_ERR_MEMORY, or
 *         UNROLL_ERR_ARG: built without protobuf-c, or the model is larger than the 2 GiB of such a file
 */
unroll_status unroll_export_onnx(const unroll_model *model, const char *path);

/** Was this library built with protobuf-c, which unroll_export_onnx needs? */
bool unroll_export_has_onnx(void);

/**
 * The metrics as one table of comma-separated values: the rows of /metrics/train and /metrics/valid of the run file by
 * step, told apart by the column `kind`; a column that the kind does not have is empty.
 *
 * @return UNROLL_OK, UNROLL_ERR_IO or UNROLL_ERR_MEMORY
 */
unroll_status unroll_export_csv(const unroll_model *model, const char *path);

#ifdef __cplusplus
}
#endif
#endif
