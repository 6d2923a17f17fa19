#include <unroll/config.h>

#include "base/check.h"
#include "base/options.h"
#include "base/presets.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Shards of a run unless told otherwise: up to 16 ranks, and short partial sums. */
#define MOST_SHARDS 16

/* Batch and epochs unless told otherwise, and of how many tokens the text must be for that; see config_fit. */
#define BATCH         64
#define BATCH_TOKENS  (1 << 21)
#define EPOCHS        10
#define EPOCHS_TOKENS (1 << 17)
#define MOST_EPOCHS   40

#define NO_LIMIT      0x1p64 /* of counts */
#define AT(field)     .offset = offsetof(unroll_config, field)
#define COUNT(field)  .type = OPTION_COUNT, AT(field)
#define REAL(field)   .type = OPTION_REAL, AT(field)
#define FLAG(field)   .type = OPTION_FLAG, AT(field), .default_text = "no"
#define CHOICE(field) .type = OPTION_CHOICE, AT(field)
#define TEXT(field)   .type = OPTION_TEXT, AT(field)
#define EVERY(field)  .type = OPTION_EVERY, AT(field)

_Static_assert(sizeof(unroll_level) == sizeof(int), "a choice is stored in an int");

/* ------------------------------------------------------------------ table */

static const option rows[] = {
    {.name = "preset",
     CHOICE(preset),
     .default_text = "off",
     .heading = "Preset",
     .choices = "off|char|word|quick",
     .others = "recipe",
     .help = "options to begin with, for characters, for words, or for a first model "
             "within minutes: what they are is told at the start; those of --config and of the "
             "command line win"},

    {.name = "level",
     CHOICE(level),
     .default_text = "char",
     .heading = "Data",
     .choices = "byte|char|word|bpe",
     .of_model = true,
     .help =
         "a token is a byte, a Unicode character of UTF-8, a word between white space, or a "
         "subword that byte pair encoding (Sennrich et al. 2016) learns from the training text"},
    {.name = "lowercase",
     FLAG(lowercase),
     .heading = "Data",
     .of_model = true,
     .others = "lower|uncased",
     .help = "turn capital letters into small ones first"},
    {.name = "letters",
     FLAG(letters),
     .heading = "Data",
     .of_model = true,
     .help = "keep the letters a to z only, in lower case; all else, line ends too, becomes one "
             "space",
     .needs = "on: --sequences stream"},
    {.name = "min-count",
     COUNT(min_count),
     .default_text = "1",
     .low = 1,
     .high = NO_LIMIT,
     .heading = "Data",
     .of_model = true,
     .others = "min-freq|min-frequency",
     .help = "rarer tokens of the training text become <unk>",
     .needs = "--level char|word"},
    {.name = "max-vocab",
     COUNT(max_vocab),
     .default_text = "0",
     .unit = "tokens",
     .low = 0,
     .high = NO_LIMIT,
     .heading = "Data",
     .of_model = true,
     .others = "max-vocab-size|vocab",
     .help = "keep only the most frequent tokens; 0: no limit",
     .needs = "--level char|word"},
    {.name = "vocab-size",
     COUNT(vocab_size),
     .default_text = "4096",
     .unit = "tokens",
     .low = 257,
     .high = 1e6,
     .heading = "Data",
     .of_model = true,
     .others = "bpe-size|bpe-vocab|num-merges|bpe-codes",
     .help =
         "256 bytes and as many subwords as this leaves, fewer where the text has no more pairs "
         "that come twice",
     .needs = "--level bpe"},
    {.name = "valid",
     TEXT(valid),
     .default_text = "",
     .unit = "file",
     .heading = "Data",
     .others = "val|validation|valid-data|val-data|dev",
     .help = "validate on the text of this file or folder instead of a part of TEXT; on resume its "
             "content counts, not its name",
     .may_change = true},
    {.name = "valid-fraction",
     REAL(valid_fraction),
     .default_text = "0.05",
     .low = 0,
     .high = 0.9,
     .heading = "Data",
     .others = "val-frac|val-fraction|validation-split|val-split",
     .help = "validate on this last part of TEXT, which is not trained on; 0: no validation"},
    {.name = "partition",
     CHOICE(partition),
     .default_text = "sequential",
     .heading = "Data",
     .choices = "sequential|random",
     .help = "windows follow each other and carry the hidden state, or start at random places "
             "from a zero state; lines and paragraphs: in their order, or in a random one",
     .needs = "random: --bptt truncated or --sequences line|paragraph"},
    {.name = "sequences",
     CHOICE(sequences),
     .default_text = "stream",
     .heading = "Data",
     .choices = "stream|line|paragraph",
     .help = "what a sequence is: a part of the whole text, or each line or paragraph one of its "
             "own that starts from the zero state",
     .needs = "line|paragraph: --bptt full"},

    {.name = "hidden",
     COUNT(hidden),
     .default_text = "256",
     .unit = "units",
     .low = 1,
     .high = 65536,
     .heading = "Model",
     .of_model = true,
     .others = "hidden-size|hidden-dim|rnn-size|num-hidden|nhid|units|n-embd",
     .help = "size of each hidden layer"},
    {.name = "layers",
     COUNT(layers),
     .default_text = "1",
     .low = 1,
     .high = 64,
     .heading = "Model",
     .of_model = true,
     .others = "num-layers|n-layers|n-layer|nlayers",
     .help = "hidden layers, one above the other"},
    {.name = "embedding",
     COUNT(embedding),
     .default_text = "0",
     .unit = "units",
     .low = 0,
     .high = 65536,
     .heading = "Model",
     .of_model = true,
     .others = "emsize|emb-size|embed-size|embedding-size|embed-dim|embedding-dim|ninp",
     .help = "size of a vector learned for each token, which the first layer reads as those above "
             "it read the layer below; 0: the token itself, one-hot"},
    {.name = "tied",
     FLAG(tied),
     .heading = "Model",
     .of_model = true,
     .others = "tie|tie-weights|tied-weights|tie-embeddings|weight-tying",
     .help = "the embedding of a token is its row of the output weights, one table for both (Press "
             "and Wolf 2017, Inan et al. 2017): --embedding is then as large as --hidden",
     .needs = "on: --embedding"},
    {.name = "skip",
     FLAG(skip),
     .heading = "Model",
     .of_model = true,
     .others = "residual|residuals|skip-connections|residual-connections",
     .help =
         "each layer above the first passes upwards the sum of its state and of what it read from "
         "the layer below, residual connections as in Wu et al. 2016; for --layers 2 or more"},
    {.name = "cell",
     CHOICE(cell),
     .default_text = "rnn",
     .heading = "Model",
     .choices = "rnn|lstm|gru|mingru",
     .of_model = true,
     .others = "model|rnn|rnn-type|cell-type",
     .help =
         "what computes the hidden state: the plain network, or one with gates; lstm and gru as in "
         "PyTorch, mingru (Feng et al. 2024) has gates of the input alone"},
    {.name = "activation",
     CHOICE(activation),
     .default_text = "tanh",
     .heading = "Model",
     .choices = "tanh|relu",
     .of_model = true,
     .others = "nonlinearity",
     .help = "nonlinearity of the hidden units",
     .needs = "--cell rnn"},
    {.name = "init",
     CHOICE(init),
     .default_text = "uniform",
     .heading = "Model",
     .choices = "uniform|orthogonal|identity",
     .of_model = true,
     .others = "initializer|weight-init",
     .help = "start of the recurrent weights W_hh; all others start uniform",
     .needs = "orthogonal|identity: --cell rnn|lstm|gru"},
    {.name = "init-scale",
     REAL(init_scale),
     .default_text = "1",
     .low = 0,
     .high = 1000,
     .above_low = true,
     .heading = "Model",
     .of_model = true,
     .help = "factor of W_hh",
     .needs = "--init orthogonal|identity"},
    {.name = "forget-bias",
     REAL(forget_bias),
     .default_text = "1",
     .low = 0,
     .high = 100,
     .heading = "Model",
     .of_model = true,
     .help = "start of the bias of the forget gates",
     .needs = "--cell lstm"},
    {.name = "init-from",
     TEXT(init_from),
     .default_text = "",
     .unit = "run",
     .heading = "Model",
     .others = "pretrained|init-checkpoint|load|load-checkpoint|warm-start|finetune|fine-tune",
     .help = "start from the weights of this run file instead of random ones; its vocabulary and "
             "all that makes the model come with them"},

    {.name = "bptt",
     CHOICE(bptt),
     .default_text = "truncated",
     .choices = "truncated|full|randomized",
     .heading = "Back-propagation through time",
     .help = "how far gradients flow back: truncated through a window of --steps, full through "
             "whole sequences, randomized through pieces of random length, cut with probability "
             "1 / --steps between any two steps and weighted so that the mean is the full "
             "gradient"},
    {.name = "steps",
     COUNT(steps),
     .default_text = "64",
     .unit = "tokens",
     .low = 1,
     .high = 1e6,
     .heading = "Back-propagation through time",
     .others = "seq-length|seq-len|sequence-length|block-size|bptt-steps|window|num-steps",
     .help = "length of a window; mean length of a piece with --bptt randomized",
     .needs = "--bptt truncated|randomized"},
    {.name = "stride",
     COUNT(stride),
     .default_text = "0",
     .unit = "tokens",
     .low = 0,
     .high = 1e6,
     .heading = "Back-propagation through time",
     .help = "new tokens of each window: the losses of so many reach back through --steps; 0: as "
             "many as --steps",
     .needs = "--bptt truncated"},
    {.name = "windows",
     CHOICE(windows),
     .default_text = "fixed",
     .choices = "fixed|random",
     .heading = "Back-propagation through time",
     .others = "window-lengths|variable-bptt|random-bptt|variable-length-bptt",
     .help =
         "each window is as long as --steps, or has a length drawn from a normal distribution "
         "around it, in one of 20 around half of it, with a deviation of 5 tokens and at least 5, "
         "and the learning rate of its update is multiplied by length / --steps (AWD-LSTM: Merity "
         "et al. 2018)",
     .needs = "random: --bptt truncated"},
    {.name = "offset",
     CHOICE(offset),
     .default_text = "zero",
     .choices = "zero|random",
     .heading = "Back-propagation through time",
     .others = "random-offset|epoch-offset|start-offset",
     .help =
         "tokens that each stream leaves out at the beginning of an epoch: none, or a number below "
         "--steps drawn for each epoch, so that windows begin elsewhere (Dive into Deep Learning "
         "9.3)",
     .needs = "random: --bptt truncated"},

    {.name = "dropout",
     REAL(dropout),
     .default_text = "0",
     .low = 0,
     .high = 0.95,
     .heading = "Regularisation",
     .others = "drop|dropout-rate|dropout-prob|p-dropout",
     .help =
         "in training, set each output of a layer, on its way to the layer above or to the output "
         "layer, to zero with this probability, and divide the others by what is left of 1 "
         "(Zaremba et al. 2014); 0: off"},
    {.name = "dropout-embedding",
     REAL(dropout_embedding),
     .default_text = "0",
     .low = 0,
     .high = 0.95,
     .heading = "Regularisation",
     .others = "dropouti|input-dropout|embedding-dropout|emb-dropout",
     .help = "the same of each element of an embedding, on its way to the first layer; 0: off",
     .needs = "on: --embedding"},
    {.name = "dropout-words",
     REAL(dropout_words),
     .default_text = "0",
     .low = 0,
     .high = 0.95,
     .heading = "Regularisation",
     .others = "dropoute|word-dropout|token-dropout",
     .help =
         "set the whole embedding of each token of the vocabulary to zero with this probability, "
         "wherever it stands in a window (Gal and Ghahramani 2016); 0: off",
     .needs = "on: --embedding"},
    {.name = "dropout-weights",
     REAL(dropout_weights),
     .default_text = "0",
     .low = 0,
     .high = 0.95,
     .heading = "Regularisation",
     .others = "wdrop|weight-dropout|weight-drop|dropconnect",
     .help =
         "set each weight of W_hh to zero with this probability, for all steps of an update, and "
         "divide the others by what is left of 1 (DropConnect of the recurrence: Merity et al. "
         "2018); 0: off",
     .needs = "on: --cell rnn|lstm|gru"},
    {.name = "dropout-kind",
     CHOICE(dropout_kind),
     .default_text = "step",
     .choices = "step|window",
     .heading = "Regularisation",
     .others = "variational-dropout|variational|locked-dropout",
     .help = "draw anew for each step, or the same for all steps of a window (variational: Gal and "
             "Ghahramani 2016)",
     .needs = "--dropout or --dropout-embedding"},
    {.name = "penalty-activation",
     REAL(penalty_activation),
     .default_text = "0",
     .low = 0,
     .high = INFINITY,
     .heading = "Regularisation",
     .others = "ar|alpha|activation-regularization|activity-regularizer",
     .help =
         "add this times the mean square of the outputs of the top layer, after dropout, to the "
         "loss that is minimised, not to that of reports (AR: Merity, McCann and Socher 2017); 0: "
         "off"},
    {.name = "penalty-change",
     REAL(penalty_change),
     .default_text = "0",
     .low = 0,
     .high = INFINITY,
     .heading = "Regularisation",
     .others = "tar|beta|temporal-activation-regularization|slowness",
     .help = "the same of the differences of its states from one step to the next, before dropout "
             "(TAR: Merity, McCann and Socher 2017); 0: off"},

    {.name = "average",
     CHOICE(average),
     .default_text = "off",
     .choices = "off|asgd|ema|nt-asgd",
     .heading = "Regularisation",
     .others = "averaging|weight-averaging|swa|polyak",
     .help =
         "keep the average of the weights over updates, which validation, the best model, eval and "
         "sample take: asgd their mean (Polyak and Juditsky 1992), ema a decaying mean, nt-asgd "
         "the mean from where the validation loss no longer falls (Merity et al. 2018)",
     .needs = "nt-asgd: --valid or --valid-fraction"},
    {.name = "average-from",
     COUNT(average_from),
     .default_text = "0",
     .unit = "epochs",
     .low = 0,
     .high = 1e6,
     .heading = "Regularisation",
     .others = "average-start|swa-start|asgd-from",
     .help = "epochs before the average begins, so that it is of the last ones",
     .needs = "--average asgd|ema"},
    {.name = "average-decay",
     REAL(average_decay),
     .default_text = "0.999",
     .low = 0,
     .high = 0.9999999,
     .heading = "Regularisation",
     .others = "ema-decay|ema",
     .help = "share of the old average behind each update; n / (n + 10) for the first n, where "
             "that is less",
     .needs = "--average ema"},
    {.name = "average-patience",
     COUNT(average_patience),
     .default_text = "5",
     .unit = "validations",
     .low = 1,
     .high = 1e6,
     .heading = "Regularisation",
     .others = "nonmono|non-monotone-interval",
     .help = "the average begins behind a loss above the lowest of those so many or more "
             "validations before",
     .needs = "--average nt-asgd"},

    {.name = "batch",
     COUNT(batch),
     .derived = "from the size of the text",
     .unit = "sequences",
     .low = 1,
     .high = 1e6,
     .heading = "Optimization",
     .others = "batch-size|mini-batch|minibatch-size|global-batch-size",
     .help = "size of the batch over all ranks together"},
    {.name = "epochs",
     COUNT(epochs),
     .derived = "from the size of the text, or 10 where --batch is given",
     .low = 1,
     .high = 1e6,
     .heading = "Optimization",
     .with_change = true,
     .others = "max-epochs|num-epochs|n-epochs|max-epoch|num-train-epochs",
     .help = "passes over the training text"},
    {.name = "max-steps",
     COUNT(max_steps),
     .default_text = "0",
     .unit = "updates",
     .low = 0,
     .high = NO_LIMIT,
     .may_change = true,
     .heading = "Optimization",
     .others = "max-iters|max-iter|iterations|max-updates|max-update",
     .help = "stop earlier, after so many updates, without changing the schedule; 0: never"},
    {.name = "optimizer",
     CHOICE(optimizer),
     .default_text = "adam",
     .choices = "sgd|momentum|adam",
     .heading = "Optimization",
     .others = "optim|opt|solver",
     .help = "rule of the update"},
    {.name = "lr",
     REAL(lr),
     .default_text = "2e-3",
     .low = 0,
     .high = INFINITY,
     .above_low = true,
     .heading = "Optimization",
     .with_change = true,
     .others = "learning-rate|eta|rate|base-lr|initial-lr",
     .help = "learning rate at its highest"},
    {.name = "momentum",
     REAL(momentum),
     .default_text = "0.9",
     .low = 0,
     .high = 0.999999,
     .heading = "Optimization",
     .help = "share of the old velocity",
     .needs = "--optimizer momentum"},
    {.name = "beta1",
     REAL(beta1),
     .default_text = "0.9",
     .low = 0,
     .high = 0.999999,
     .heading = "Optimization",
     .others = "adam-beta1",
     .help = "decay of Adam's mean of gradients",
     .needs = "--optimizer adam"},
    {.name = "beta2",
     REAL(beta2),
     .default_text = "0.999",
     .low = 0,
     .high = 0.999999,
     .heading = "Optimization",
     .others = "adam-beta2",
     .help = "decay of Adam's mean of squared gradients",
     .needs = "--optimizer adam"},
    {.name = "epsilon",
     REAL(epsilon),
     .default_text = "1e-8",
     .low = 0,
     .high = 1,
     .above_low = true,
     .heading = "Optimization",
     .others = "eps|adam-eps|adam-epsilon",
     .help = "added to Adam's divisor",
     .needs = "--optimizer adam"},
    {.name = "weight-decay",
     REAL(weight_decay),
     .default_text = "0",
     .low = 0,
     .high = INFINITY,
     .heading = "Optimization",
     .with_change = true,
     .others = "wd|l2|l2-reg|wdecay",
     .help =
         "each update first multiplies all parameters by 1 - learning rate * this: decoupled from "
         "the gradient, AdamW (Loshchilov and Hutter 2019)"},
    {.name = "schedule",
     CHOICE(schedule),
     .default_text = "cosine",
     .choices = "constant|step|cosine|plateau",
     .heading = "Optimization",
     .with_change = true,
     .others = "lr-schedule|scheduler|lr-scheduler|lr-scheduler-type",
     .help = "course of the learning rate: step decays every --decay-every, cosine falls to "
             "--lr-min at the end of the last epoch, plateau decays when validation no longer "
             "improves",
     .needs = "plateau: --valid or --valid-fraction"},
    {.name = "lr-decay",
     REAL(lr_decay),
     .default_text = "0.5",
     .low = 0,
     .high = 1,
     .above_low = true,
     .heading = "Optimization",
     .with_change = true,
     .others = "learning-rate-decay|gamma|decay-rate",
     .help = "factor of one decay",
     .needs = "--schedule step|plateau"},
    {.name = "decay-every",
     COUNT(decay_every),
     .default_text = "1",
     .unit = "epochs",
     .low = 1,
     .high = 1e6,
     .heading = "Optimization",
     .with_change = true,
     .others = "lr-decay-every|lr-step-size",
     .help = "time between decays",
     .needs = "--schedule step"},
    {.name = "decay-from",
     COUNT(decay_from),
     .default_text = "0",
     .unit = "epochs",
     .low = 0,
     .high = 1e6,
     .heading = "Optimization",
     .with_change = true,
     .others = "lr-decay-start|decay-after|max-epoch-before-decay",
     .help =
         "epochs at the full rate before the first decay, as Zaremba et al. (2014) have 4, 6 or "
         "14; 0: as many as --decay-every",
     .needs = "--schedule step"},
    {.name = "lr-min",
     REAL(lr_min),
     .default_text = "0",
     .low = 0,
     .high = INFINITY,
     .heading = "Optimization",
     .with_change = true,
     .others = "min-lr|eta-min|end-lr",
     .help = "learning rate at the end",
     .needs = "--schedule cosine"},
    {.name = "patience",
     COUNT(patience),
     .default_text = "2",
     .unit = "validations",
     .low = 1,
     .high = 1e6,
     .heading = "Optimization",
     .with_change = true,
     .help = "validations without a new best before a decay",
     .needs = "--schedule plateau"},
    {.name = "warmup",
     COUNT(warmup),
     .default_text = "0",
     .unit = "updates",
     .low = 0,
     .high = NO_LIMIT,
     .heading = "Optimization",
     .with_change = true,
     .others = "warmup-steps|warmup-iters|warmup-updates|num-warmup-steps|one-cycle|onecycle",
     .help =
         "raise the learning rate linearly over the first updates; with --schedule cosine this is "
         "the one cycle of Smith (2018)"},
    {.name = "early-stop",
     COUNT(early_stop),
     .default_text = "0",
     .unit = "validations",
     .low = 0,
     .high = 1e6,
     .heading = "Optimization",
     .with_change = true,
     .others = "early-stopping|early-stopping-patience",
     .help = "stop after so many validations without a new best; 0: never",
     .needs = "on: --valid or --valid-fraction"},
    {.name = "label-smoothing",
     REAL(label_smoothing),
     .default_text = "0",
     .low = 0,
     .high = 0.999999,
     .heading = "Optimization",
     .others = "smoothing|label-smooth",
     .help =
         "train on a target of which this share is spread evenly over the vocabulary (Szegedy et "
         "al. 2016); losses in all reports are those of the plain target"},
    {.name = "clip",
     REAL(clip),
     .default_text = "1",
     .low = 0,
     .high = INFINITY,
     .heading = "Optimization",
     .with_change = true,
     .others = "grad-clip|gradient-clip|clip-norm|clip-grad|clip-grad-norm|max-grad-norm",
     .help = "largest norm of the gradient over all parameters and ranks, longer ones are scaled "
             "down to it; 0: off"},
    {.name = "max-skips",
     COUNT(max_skips),
     .default_text = "10",
     .unit = "updates",
     .low = 1,
     .high = 1e6,
     .heading = "Optimization",
     .with_change = true,
     .help = "give up after so many updates in a row whose loss or gradient is not finite"},
    {.name = "seed",
     COUNT(seed),
     .default_text = "1",
     .low = 0,
     .high = NO_LIMIT,
     .heading = "Optimization",
     .others = "random-seed|manual-seed",
     .help = "of all random numbers"},

    {.name = "out",
     .letter = 'o',
     TEXT(out),
     .default_text = "run.h5",
     .unit = "file",
     .heading = "Output",
     .may_change = true,
     .others = "output|output-file|output-dir|out-dir|save|checkpoint|model-dir",
     .help = "the run file, HDF5"},
    {.name = "config",
     TEXT(config_file),
     .default_text = "",
     .unit = "file",
     .heading = "Output",
     .may_change = true,
     .others = "config-file|settings|options-file|params",
     .help = "read options from this file: lines of `key = value`, or a run file, whose options "
             "are taken; options on the command line win"},
    {.name = "checkpoint-every",
     EVERY(checkpoint_every),
     .default_text = "10m",
     .heading = "Output",
     .may_change = true,
     .others = "save-every|save-steps|save-interval|checkpoint-interval",
     .help = "write the run file so often, in updates or time, and at the end; 0: only at the end"},
    {.name = "keep",
     COUNT(keep),
     .default_text = "0",
     .unit = "files",
     .low = 0,
     .high = 1e6,
     .heading = "Output",
     .may_change = true,
     .others = "max-to-keep|save-total-limit",
     .help = "older checkpoints to keep"},
    {.name = "resume",
     FLAG(resume),
     .heading = "Output",
     .may_change = true,
     .others = "continue|restart|restore|resume-from-checkpoint",
     .help = "go on from the run file where there is one, else start; options left out are read "
             "from it"},
    {.name = "change",
     FLAG(change),
     .heading = "Output",
     .may_change = true,
     .help =
         "options marked so in this help, and no others, may have other values than before from "
         "here on: to train longer, or with a lower rate; the run file has it on record",
     .needs = "--resume"},
    {.name = "overwrite",
     FLAG(overwrite),
     .heading = "Output",
     .may_change = true,
     .others = "force",
     .help = "replace an existing run file and what lies beside it: log, best model, older ones"},
    {.name = "valid-every",
     EVERY(valid_every),
     .default_text = "0",
     .unit = "updates",
     .heading = "Output",
     .others = "eval-every|eval-interval|eval-steps|val-interval|eval-val-every",
     .help = "validate so often; 0: at the end of every epoch",
     .needs = "--valid or --valid-fraction"},
    {.name = "log-every",
     COUNT(log_every),
     .default_text = "100",
     .unit = "updates",
     .low = 1,
     .high = 1e9,
     .heading = "Output",
     .may_change = true,
     .others = "log-interval|logging-steps|print-every|print-interval",
     .help = "length of a report interval"},
    {.name = "log-format",
     CHOICE(log_format),
     .default_text = "short",
     .choices = "short|full",
     .heading = "Output",
     .may_change = true,
     .help = "lines of a report: as wide as a terminal, or with every number of the run file"},
    {.name = "diagnose-every",
     EVERY(diagnose_every),
     .default_text = "0",
     .unit = "updates",
     .heading = "Output",
     .may_change = true,
     .help = "measure so often how gradients flow back through time; 0: never",
     .needs = "on: --sequences stream"},

    {.name = "shards",
     COUNT(shards),
     .default_text = "0",
     .low = 0,
     .high = 1e6,
     .heading = "Parallel",
     .help = "equal parts of the batch that the ranks share out; they fix the order of "
             "summation, so that the result does not depend on the ranks; 0: 16, or the largest "
             "power of two below it that divides --batch"},
    {.name = "wait-limit",
     EVERY(wait_limit),
     .default_text = "15m",
     .heading = "Parallel",
     .may_change = true,
     .help = "a time: when a rank has waited so long for another one within a step, the job ends "
             "with status 1; at the "
             "start, for a validation or a checkpoint 12 times as long; 0: never"},
    {.name = "dry-run",
     FLAG(dry_run),
     .heading = "Parallel",
     .may_change = true,
     .help = "only say what the run would take, or why it would be refused: nothing is trained or "
             "written"},
    {.name = "ranks",
     COUNT(ranks),
     .default_text = "0",
     .low = 0,
     .high = 1e6,
     .heading = "Parallel",
     .may_change = true,
     .others = "np|nprocs|num-ranks|world-size",
     .help = "of the run that --dry-run speaks of; 0: as many as are started now",
     .needs = "on: --dry-run"},
};

_Static_assert(sizeof rows / sizeof rows[0] <= UNROLL_OPTIONS_MAX, "unroll_config.given has all");

const option_table config_table = {rows, sizeof rows / sizeof rows[0]};

void unroll_config_init(unroll_config *config)
{
  memset(config, 0, sizeof *config);
  options_defaults(&config_table, config);
}

unroll_status unroll_config_set(unroll_config *config, const char *name, const char *value)
{
  unroll_status st = options_set(&config_table, name, value, config, config->given);
  if (st == UNROLL_OK && strcmp(name, "preset") == 0) { presets_apply(config); }
  return st;
}

/* ---------------------------------------------------------------- resolve */

bool config_is_given(const unroll_config *config, size_t offset)
{
  for (size_t k = 0; k < config_table.n_rows; ++k) {
    if (rows[k].offset == offset) { return config->given[k]; }
  }
  return false;
}

/* A program may have set fields directly: read each value as if it had been typed. */
static unroll_status check_ranges(const unroll_config *config)
{
  unroll_status st = UNROLL_OK;
  unroll_config scratch;
  char text[UNROLL_CONFIG_TEXT];

  for (size_t k = 0; k < config_table.n_rows; ++k) {
    if (options_is_open(&rows[k], config)) { continue; }
    options_format(&rows[k], config, sizeof text, text);
    UNROLL_TRY(options_set(&config_table, rows[k].name, text, &scratch, NULL));
  }

cleanup:
  return st;
}

static unroll_status check_stride(const unroll_config *config)
{
  if (config->bptt != UNROLL_BPTT_TRUNCATED) { return UNROLL_OK; }
  if (config->stride > config->steps) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--stride %" PRIu64 " is longer than a window; legal is at most --steps, "
                       "here %" PRIu64,
                       config->stride, config->steps);
  }
  if (config->partition == UNROLL_PARTITION_RANDOM && config->stride != 0 &&
      config->stride != config->steps) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--stride needs windows that follow each other; legal is --partition "
                       "sequential");
  }
  return UNROLL_OK;
}

/* Windows whose places or lengths are drawn anew. */
static unroll_status check_windows(const unroll_config *config)
{
  const bool lengths = config->windows == UNROLL_WINDOWS_RANDOM;
  if (!lengths && config->offset != UNROLL_OFFSET_RANDOM) { return UNROLL_OK; }
  if (config->partition == UNROLL_PARTITION_RANDOM) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--%s random needs windows that follow each other; legal is --partition "
                       "sequential",
                       lengths ? "windows" : "offset");
  }
  if (lengths && config->stride != 0 && config->stride != config->steps) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--windows random and --stride are both given; legal is one");
  }
  if (lengths && config->steps < 10) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--steps %" PRIu64 " is too short for --windows random, whose lengths are "
                       "5 at least; legal is 10 or more",
                       config->steps);
  }
  return UNROLL_OK;
}

/* Pairs of options that exclude each other. */
static unroll_status check_pairs(const unroll_config *config)
{
  if (config->valid[0] != '\0' && config->valid_fraction > 0 &&
      config_is_given(config, offsetof(unroll_config, valid_fraction))) {
    return unroll_fail(UNROLL_ERR_ARG, "--valid and --valid-fraction are both given; legal is one");
  }
  if (config->letters && config->lowercase &&
      config_is_given(config, offsetof(unroll_config, lowercase))) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--lowercase has no effect with --letters, whose letters are "
                       "small ones; legal is one");
  }
  if (config->letters && config->level == UNROLL_LEVEL_BPE) {
    return unroll_fail(UNROLL_ERR_ARG, "--letters leaves no text for --level bpe, whose tokens are "
                                       "bytes; legal is --lowercase, or another level");
  }
  if (config->init == UNROLL_INIT_IDENTITY && config->cell != UNROLL_CELL_RNN) {
    return unroll_fail(UNROLL_ERR_ARG, "--init identity is of --cell rnn; legal is uniform or "
                                       "orthogonal");
  }
  if (config->tied && config->embedding != config->hidden) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--tied makes one table of embeddings and output weights; legal is "
                       "--embedding %" PRIu64 ", as --hidden, here %" PRIu64,
                       config->hidden, config->embedding);
  }
  if (config->skip && config->layers < 2) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--skip is of layers above the first; legal is --layers 2 or more");
  }
  if (config->skip && config->diagnose_every.count > 0) {
    return unroll_fail(
        UNROLL_ERR_ARG,
        "--diagnose-every measures no gradient that --skip leads past a layer; legal "
        "is one of them");
  }
  if (config->resume && config->overwrite) {
    return unroll_fail(UNROLL_ERR_ARG, "--resume and --overwrite are both given; legal is one");
  }
  return UNROLL_OK;
}

static unroll_status check_values(const unroll_config *config)
{
  if (config->out[0] == '\0') { return unroll_fail(UNROLL_ERR_ARG, "--out needs a file name"); }
  if (config->wait_limit.count > 0 && config->wait_limit.unit != UNROLL_EVERY_SECONDS) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--wait-limit %" PRIu64
                       " is no time; legal are times (90s, 15m, 2h) and 0, never",
                       config->wait_limit.count);
  }
  if (config->lr * config->weight_decay >= 1.0) {
    return unroll_fail(UNROLL_ERR_ARG,
                       "--weight-decay %g times --lr %g leaves nothing of a weight; legal is less "
                       "than 1 / --lr, here %g",
                       config->weight_decay, config->lr, 1.0 / config->lr);
  }
  if (config->schedule == UNROLL_SCHEDULE_COSINE && config->lr_min > config->lr) {
    return unroll_fail(UNROLL_ERR_ARG, "--lr-min %g is above --lr %g; legal is at most --lr",
                       config->lr_min, config->lr);
  }
  return UNROLL_OK;
}

uint64_t config_shards(uint64_t batch)
{
  uint64_t shards = MOST_SHARDS;
  while (batch % shards != 0) { shards /= 2; }
  return shards;
}

static unroll_status resolve_shards(unroll_config *config)
{
  if (config->batch == 0) { return UNROLL_OK; } /* not known yet */
  if (config->shards == 0) { config->shards = config_shards(config->batch); }
  if (config->batch % config->shards != 0) {
    uint64_t legal = config->shards < config->batch ? config->shards : config->batch;
    while (config->batch % legal != 0) { legal -= 1; }
    return unroll_fail(UNROLL_ERR_ARG,
                       "--shards %" PRIu64 " does not divide --batch %" PRIu64
                       "; the largest below "
                       "that does is %" PRIu64,
                       config->shards, config->batch, legal);
  }
  return UNROLL_OK;
}

unroll_status unroll_config_resolve(unroll_config *config)
{
  unroll_status st = UNROLL_OK;
  unroll_config resolved = *config;

  UNROLL_TRY(check_ranges(config));
  UNROLL_TRY(options_check_needs(&config_table, config, config->given));
  UNROLL_TRY(check_pairs(config));
  UNROLL_TRY(check_stride(config));
  UNROLL_TRY(check_windows(config));
  UNROLL_TRY(check_values(config));
  UNROLL_TRY(resolve_shards(&resolved));
  if (resolved.batch != 0) { config_fit(&resolved, UINT64_MAX); }
  if (resolved.bptt == UNROLL_BPTT_TRUNCATED && resolved.stride == 0) {
    resolved.stride = config->steps;
  }
  if (config->valid[0] != '\0') { resolved.valid_fraction = 0; } /* TEXT is not cut then */
  *config = resolved;

cleanup:
  return st;
}

/* ------------------------------------------------------- the size of the text */

/*
 * A run needs updates, thousands of them: with each halving of the text below BATCH_TOKENS the batch is halved, which
 * costs no time, down to where it leaves fewer shards, so that fewer ranks could share it. With each halving below
 * EPOCHS_TOKENS the epochs are doubled, up to where the text is learnt by heart. Validation loss and seconds of one
 * thread, with 256 units on the first bytes of tinyshakespeare, by batch and epochs:
 *
 *      50 kB   64, 10: 2.83,  6 s   16, 10: 2.18,  6 s   16, 20: 2.02, 12 s   16, 40: 1.97, 22 s
 *     180 kB   64, 10: 2.32, 19 s   32, 10: 2.20, 19 s   16, 10: 2.10, 19 s   16, 20: 2.03, 41 s
 *    1000 kB   64,  4: 2.02, 48 s   32,  4: 1.88, 50 s   16,  4: 1.78, 51 s
 */
void config_fit(unroll_config *config, uint64_t tokens)
{
  uint64_t batch = BATCH, epochs = EPOCHS;

  if (config->batch != 0) { tokens = UINT64_MAX; }
  for (uint64_t n = BATCH_TOKENS; tokens < n && batch > MOST_SHARDS; n /= 2) { batch /= 2; }
  for (uint64_t n = EPOCHS_TOKENS; tokens < n && epochs < MOST_EPOCHS; n /= 2) { epochs *= 2; }
  if (config->batch == 0) { /* a multiple of --shards, where that is given */
    const uint64_t S = config->shards == 0 ? 1 : config->shards;
    config->batch = (batch + S - 1) / S * S;
  }
  if (config->epochs == 0) { config->epochs = epochs; }
}

/* ----------------------------------------------------------------- resume */

bool config_is_of_call(const option *row)
{
  return row->offset == offsetof(unroll_config, out) ||
         row->offset == offsetof(unroll_config, config_file) ||
         row->offset == offsetof(unroll_config, resume) ||
         row->offset == offsetof(unroll_config, change) ||
         row->offset == offsetof(unroll_config, overwrite) ||
         row->offset == offsetof(unroll_config, dry_run) ||
         row->offset == offsetof(unroll_config, log_format) ||
         row->offset == offsetof(unroll_config, ranks);
}

unroll_status config_resume(unroll_config *config, const unroll_config *file)
{
  unroll_status st = UNROLL_OK;
  unroll_config merged = *config;
  unroll_config resolved;

  for (size_t k = 0; k < config_table.n_rows; ++k) {
    bool given = config->given[k];
    if (!given && !config_is_of_call(&rows[k])) { options_copy(&rows[k], file, &merged); }
  }
  /* The file holds resolved values: `--shards 0` is the same as what it became. */
  resolved = merged;
  if (unroll_config_resolve(&resolved) != UNROLL_OK) { resolved = merged; }

  for (size_t k = 0; k < config_table.n_rows; ++k) {
    bool given = config->given[k];
    bool may_change = rows[k].may_change || (rows[k].with_change && config->change);
    if (given && !may_change && !options_equal(&rows[k], &resolved, file)) {
      char mine[UNROLL_CONFIG_TEXT];
      char its[UNROLL_CONFIG_TEXT];
      options_format(&rows[k], config, sizeof mine, mine);
      options_format(&rows[k], file, sizeof its, its);
      st = unroll_fail(UNROLL_ERR_ARG,
                       "--%s %s: the run to resume has %s, and this option shapes the result; "
                       "leave it out, %sor start a new run with another --out",
                       rows[k].name, mine[0] == '\0' ? "\"\"" : mine, its[0] == '\0' ? "none" : its,
                       rows[k].with_change ? "change it from here on with --change, " : "");
      goto cleanup;
    }
  }
  *config = merged;

cleanup:
  return st;
}

/* ------------------------------------------------------------- given weights */

unroll_status config_init_from(unroll_config *config, const unroll_config *file)
{
  unroll_status st = UNROLL_OK;
  unroll_config merged = *config;

  for (size_t k = 0; k < config_table.n_rows; ++k) {
    const option *row = &rows[k];
    const bool given = config->given[k];
    if (!row->of_model) { continue; }
    if (given && !options_equal(row, config, file)) {
      char mine[UNROLL_CONFIG_TEXT];
      char its[UNROLL_CONFIG_TEXT];
      options_format(row, config, sizeof mine, mine);
      options_format(row, file, sizeof its, its);
      st = unroll_fail(UNROLL_ERR_ARG,
                       "--%s %s: the model of --init-from %s has %s, and comes as it is; "
                       "leave it out",
                       row->name, mine, config->init_from, its);
      goto cleanup;
    }
    options_copy(row, file, &merged);
  }
  *config = merged;

cleanup:
  return st;
}
