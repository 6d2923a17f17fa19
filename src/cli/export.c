#include "base/check.h"
#include "cli/cli.h"
#include "comm/comm.h"
#include "runfile/runfile.h"

#include <string.h>
#include <unroll/export.h>

struct export_settings {
  unroll_weights weights;
  char safetensors[UNROLL_CONFIG_TEXT], onnx[UNROLL_CONFIG_TEXT], csv[UNROLL_CONFIG_TEXT];
  bool overwrite;
};

#define AT(field) .offset = offsetof(struct export_settings, field)
#define FILE_ROW(field, text)                                                                      \
  {                                                                                                \
    .name = #field, .type = OPTION_TEXT, AT(field), .default_text = "", .unit = "file",            \
    .heading = "Output", .help = text                                                              \
  }

static const option rows[] = {
    {CLI_WEIGHTS, .offset = offsetof(struct export_settings, weights)},
    FILE_ROW(safetensors, "weights, by the names of a torch.nn.RNN, LSTM or GRU and a Linear"),
    FILE_ROW(onnx,
             "the model as a graph that takes tokens and a state and gives logits and a state"),
    FILE_ROW(csv, "metrics: a row for each report and each validation"),
    {.name = "overwrite",
     .type = OPTION_FLAG,
     AT(overwrite),
     .default_text = "no",
     .heading = "Output",
     .help = "replace existing files",
     .needs = "--safetensors or --onnx or --csv"},
};

static const option_table table = {rows, sizeof rows / sizeof rows[0]};

/* A format: its name, its file, what writes it. */
typedef struct format {
  const char *name, *path;
  unroll_status (*write)(const unroll_model *model, const char *path);
} format;

#define N_FORMATS 3

static void list_formats(const struct export_settings *s, format out[N_FORMATS])
{
  out[0] = (format){"safetensors", s->safetensors, unroll_export_safetensors};
  out[1] = (format){"onnx", s->onnx, unroll_export_onnx};
  out[2] = (format){"csv", s->csv, unroll_export_csv};
}

/* What can be said before anything is written: whole or not at all goes for all files together. */
static unroll_status check_output(const char *run_file, const struct export_settings *s,
                                  const format formats[N_FORMATS])
{
  bool any = false;

  if (s->onnx[0] != '\0' && !unroll_export_has_onnx()) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--onnx %s: this unroll was built without protobuf-c, which "
                       "writes ONNX files; legal are --safetensors and --csv",
                       s->onnx);
  }
  for (size_t i = 0; i < N_FORMATS; ++i) {
    const format *f = &formats[i];
    if (f->path[0] == '\0') { continue; }
    any = true;
    if (runfile_is_same(f->path, run_file)) {
      return unroll_fail(UNROLL_ERR_ARG, "--%s %s is the run file itself; legal is another name",
                         f->name, f->path);
    }
    for (size_t k = 0; k < i; ++k) {
      if (strcmp(f->path, formats[k].path) == 0 || runfile_is_same(f->path, formats[k].path)) {
        return unroll_fail(UNROLL_ERR_ARG, "--%s and --%s are both %s; legal are two names",
                           formats[k].name, f->name, f->path);
      }
    }
    if (!s->overwrite && runfile_exists(f->path)) {
      return unroll_fail(UNROLL_ERR_INPUT, "--%s %s: exists already; --overwrite replaces it",
                         f->name, f->path);
    }
    unroll_status st = runfile_check_output(f->path, true);
    if (st != UNROLL_OK) { return st; }
  }
  return any ? UNROLL_OK
             : unroll_fail(UNROLL_ERR_ARG,
                           "%s: nothing to write; legal are --safetensors FILE, "
                           "--onnx FILE and --csv FILE",
                           run_file);
}

static unroll_status run_export(const cli_call *call)
{
  unroll_status st = UNROLL_OK;
  const struct export_settings *s = call->settings;
  const bool root = unroll_comm_rank(call->comm) == 0;
  unroll_model *model = NULL;
  format formats[N_FORMATS];

  list_formats(s, formats);
  UNROLL_TRY(unroll_model_load_weights(call->comm, call->operands[0], s->weights, &model));
  if (!root) { goto cleanup; } /* main.c makes all ranks agree on the outcome */
  UNROLL_TRY(check_output(call->operands[0], s, formats));
  cli_say_weights(model);
  for (size_t i = 0; i < N_FORMATS; ++i) {
    if (formats[i].path[0] != '\0') { UNROLL_TRY(formats[i].write(model, formats[i].path)); }
  }

cleanup:
  unroll_model_free(&model);
  return st;
}

const cli_command cli_export = {
    .usage =
        {.command = "export",
         .operands = "RUN",
         .min_operands = 1,
         .max_operands = 1,
         .purpose = "Write a model and its curves for other tools.\n"
                    "\n"
                    "At least one of the files below; several at once are as good.",
         .notes =
             "Safetensors: rnn.weight_ih_l0 and so on, out.weight and out.bias, of a torch\n"
             "module with a torch.nn.RNN, LSTM or GRU `rnn` and a torch.nn.Linear `out`. Torch\n"
             "has no minGRU: of one there are weight_ih and bias_ih, blocks z n. With\n"
             "--embedding there is embedding.weight, of a torch.nn.Embedding, too.\n"
             "\n"
             "ONNX: tokens (T, B), h (layers, B, H) and c of an lstm to logits (T, B, V),\n"
             "h_next and c_next, which are h and c of the next call; zeros begin a text.\n"
             "\n"
             "Both have the options, the step and the vocabulary as texts: `__metadata__`,\n"
             "`metadata_props`. CSV: the columns of /metrics/train and /metrics/valid by step,\n"
             "and `kind`, train or valid; empty where the other kind has the column.\n"
             "\n"
             "Examples:\n"
             "  unroll export run.h5 --safetensors run.safetensors --csv run.csv\n"
             "  unroll export run.best.h5 --onnx run.onnx"},
    .table = &table,
    .settings_size = sizeof(struct export_settings),
    .run = run_export,
    .of_one = true,
};
