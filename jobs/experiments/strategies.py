#!/usr/bin/env python3
"""Truncated, full and randomized back-propagation through time on one text, with the same number of tokens.

    jobs/experiments/strategies.py UNROLL TEXT [-o strategies.h5]

UNROLL is the program. Two questions:

    training   loss on the last tenth of the text, seconds and peak memory of each strategy, with and without
               clipping, tanh and ReLU; `full` takes each paragraph as a sequence
    gradient   at the weights of one trained model: how far is the gradient of a strategy, summed over the whole text,
               from the full one (bias), and how far is that of one update from their mean (noise), both relative
               to the norm of the full gradient, for several --steps; randomized: over several passes, whose mean
               would come to the full gradient, and the standard error of that mean

Writes HDF5, and a picture of the same name that ends in .png. Some minutes on two cores.

The gradients come from unroll itself: with --optimizer momentum --momentum 0 the velocity in the run file is the
gradient of the last update, and with --lr 1e-30 the weights stay what they are; those of the trained model are
written into a run file of each strategy, which is then resumed.
"""

import argparse
import glob
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from runs import Call, h5py, matplotlib, np, write_scale, write_table  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402

STRATEGIES = ("truncated", "randomized", "full")
ACTIVATIONS = ("tanh", "relu")
CLIPS = (1.0, 0.0)
LENGTHS = (4, 8, 16, 32)  # --steps of the gradient's question
KEPT = 250  # checkpoints at a time
TENSORS = ("layer0/W_xh", "layer0/W_hh", "layer0/b_h", "output/W_qh", "output/b_q")


def options_of(strategy, steps):
    if strategy == "full":
        return ["--bptt", "full", "--sequences", "paragraph", "--partition", "random"]
    return ["--bptt", strategy, "--steps", steps]


# ------------------------------------------------------------------- training


def train_all(a, folder, texts, file):
    shape = (len(STRATEGIES), len(ACTIVATIONS), len(CLIPS))
    results = {name: np.full(shape, np.nan) for name in ("loss", "seconds", "peak_memory", "tokens", "updates", "status")}
    print("strategy    activation  clip  updates    tokens  seconds    MiB  loss on the last tenth")
    for i, strategy in enumerate(STRATEGIES):
        for j, activation in enumerate(ACTIVATIONS):
            for k, clip in enumerate(CLIPS):
                path = os.path.join(folder, f"{strategy}-{activation}-{clip:g}.h5")
                call = Call(
                    a.unroll, "train", texts[0], "-o", path, "--overwrite", "--valid-fraction", 0, "--hidden", a.hidden,
                    "--batch", a.batch, "--epochs", a.epochs, "--activation", activation, "--clip", clip,
                    "--init", "orthogonal", *options_of(strategy, a.steps),
                )  # fmt: skip
                at = (i, j, k)
                results["seconds"][at], results["peak_memory"][at] = call.seconds, call.peak_memory
                results["status"][at] = call.status
                if call.status == 0:
                    with h5py.File(path) as run:
                        results["tokens"][at] = run["state"].attrs["tokens"]
                        results["updates"][at] = run["state"].attrs["updates"]
                    results["loss"][at] = Call(a.unroll, "eval", path, texts[1], "--json").or_stop().json()["loss"]
                print(
                    f"{strategy:<11} {activation:<11} {clip:<4g} {results['updates'][at]:8.0f} {results['tokens'][at]:9.0f}"
                    f" {call.seconds:8.1f} {call.peak_memory / 2**20:6.0f}  "
                    + (f"{results['loss'][at]:.4f}" if call.status == 0 else f"stopped: {call.error}"),
                    flush=True,
                )
    group = file.create_group("training")
    scales = ("strategy", "activation", "clip")
    write_scale(group, "strategy", STRATEGIES, "1", "strategy of back-propagation through time")
    write_scale(group, "activation", ACTIVATIONS, "1", "nonlinearity")
    write_scale(group, "clip", CLIPS, "1", "clipping threshold, 0: off")
    write_table(group, "loss", scales, results["loss"], "nats per token", "loss on the last tenth of the text")
    write_table(group, "seconds", scales, results["seconds"], "s", "of the whole training run")
    write_table(group, "peak_memory", scales, results["peak_memory"], "bytes", "of the training run")
    write_table(group, "tokens", scales, results["tokens"], "tokens", "trained on")
    write_table(group, "updates", scales, results["updates"], "1", "updates applied")
    write_table(group, "status", scales, results["status"], "1", "exit status of the training run, 0: it trained")
    return results


# ------------------------------------------------------------------- gradient


def gradient_in(path):
    with h5py.File(path) as run:
        return np.concatenate([run[f"optimizer/velocity/{name}"][:].ravel() for name in TENSORS]).astype(np.float64)


def gradients(a, folder, text, trained, strategy):
    """(epoch, gradient) of one update after the other at the trained weights, from the second epoch on."""
    path = os.path.join(folder, "gradient.h5")
    words = [
        "train", text, "-o", path, "--valid-fraction", 0, "--hidden", a.hidden, "--batch", a.gradient_batch, "--clip", 0,
        "--optimizer", "momentum", "--momentum", 0, "--lr", 1e-30, "--schedule", "constant", "--epochs", 1000, *strategy,
    ]  # fmt: skip
    Call(a.unroll, *words, "--overwrite", "--max-steps", 1).or_stop()
    with h5py.File(path, "r+") as run, h5py.File(trained) as model:
        for name in TENSORS:
            run[f"weights/{name}"][...] = model[f"weights/{name}"][:]
    done = 1
    while True:
        Call(a.unroll, *words, "--resume", "--max-steps", done + KEPT, "--checkpoint-every", 1, "--keep", KEPT).or_stop()
        found = {}
        for name in [path, *glob.glob(os.path.join(folder, "gradient.[0-9]*.h5"))]:
            with h5py.File(name) as run:
                state = run["state"].attrs
                epoch = int(state["epoch"]) - (state["window"] == 0)  # the last one of an epoch still belongs to it
                found[int(state["step"])] = (epoch, gradient_in(name))
            if name != path:
                os.remove(name)
        for step in range(done + 1, done + KEPT + 1):
            if found[step][0] > 0:
                yield found[step]
        done += KEPT


def passes_of(a, folder, text, trained, strategy, passes):
    """Sum of the gradients of each of some epochs (passes, parameters), their number, and their mean squared norm."""
    sums, count, square = np.zeros((passes, 0)), 0, 0.0
    for epoch, g in gradients(a, folder, text, trained, strategy):
        if epoch > passes:
            return sums, count, square / count
        if count == 0:
            sums = np.zeros((passes, len(g)))
        sums[epoch - 1] += g
        count += 1
        square += g @ g


def measure_gradients(a, folder, text, trained, file):
    full = passes_of(a, folder, text, trained, ["--bptt", "full"], 1)[0][0]
    size = np.linalg.norm(full)
    with h5py.File(trained) as run:
        length = (int(run["provenance"].attrs["train_tokens"]) - 1) // a.gradient_batch
    shape = (2, len(LENGTHS))
    results = {name: np.full(shape, np.nan) for name in ("bias", "bias_error", "noise")}
    print("\nstrategy    steps   bias     +-  noise of an update")
    for i, strategy in enumerate(STRATEGIES[:2]):
        for j, steps in enumerate(LENGTHS):
            passes = a.passes if strategy == "randomized" else 1
            sums, count, square = passes_of(
                a, folder, text, trained, ["--bptt", strategy, "--steps", steps], passes
            )
            # A pass has length / steps updates, in the mean; so their sum comes to that many times the full gradient.
            each = sums * steps / length
            mean = each.mean(axis=0)
            at = (i, j)
            results["bias"][at] = np.linalg.norm(mean - full) / size
            if passes > 1:
                results["bias_error"][at] = np.sqrt(((each - mean) ** 2).sum() / (passes - 1) / passes) / size
            average = sums.sum(axis=0) / count
            results["noise"][at] = np.sqrt(square - average @ average) / size
            error = f"{results['bias_error'][at]:6.3f}" if passes > 1 else "      "
            print(f"{strategy:<11} {steps:5d} {results['bias'][at]:6.3f} {error} {results['noise'][at]:19.2f}", flush=True)
    group = file.create_group("gradient")
    scales = ("strategy", "steps")
    write_scale(group, "strategy", STRATEGIES[:2], "1", "strategy of back-propagation through time")
    write_scale(group, "steps", LENGTHS, "tokens", "window, or mean length of a piece")
    write_table(group, "bias", scales, results["bias"], "1", "distance of the mean gradient from the full one, by its norm")
    write_table(group, "bias_error", scales, results["bias_error"], "1", "standard error of that mean, randomized: a bias of about this is none")
    write_table(group, "noise", scales, results["noise"], "1", "distance of one update's gradient from the mean, by the full norm")
    group.attrs["full_norm"] = size
    group.attrs["passes"] = a.passes
    return results


# ----------------------------------------------------------------------- main


def draw(path, training, gradient):
    figure, (losses, bias, noise) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    width = 0.8 / (len(ACTIVATIONS) * len(CLIPS))
    for j, activation in enumerate(ACTIVATIONS):
        for k, clip in enumerate(CLIPS):
            place = np.arange(len(STRATEGIES)) + (j * len(CLIPS) + k) * width
            losses.bar(place, training["loss"][:, j, k], width, label=f"{activation}, " + (f"clip {clip:g}" if clip else "no clipping"))
    losses.set_xticks(np.arange(len(STRATEGIES)) + 1.5 * width, STRATEGIES)
    low = np.nanmin(training["loss"])
    losses.set_ylim(bottom=0.9 * low)
    losses.set_ylabel("loss [nats per token], none where it was stopped")
    losses.legend(fontsize="small")
    for i, strategy in enumerate(STRATEGIES[:2]):
        bias.plot(LENGTHS, gradient["bias"][i], "o-", label=strategy)
        noise.plot(LENGTHS, gradient["noise"][i], "o-", label=strategy)
    bias.plot(LENGTHS, gradient["bias_error"][1], ":", color="gray", label="standard error, randomized")
    for axes, name in ((bias, "bias of the gradient"), (noise, "noise of one update")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("steps [tokens]")
        axes.set_ylabel(f"{name} / full norm")
        axes.legend()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unroll")
    parser.add_argument("text")
    parser.add_argument("-o", "--out", default="strategies.h5")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="of training")
    parser.add_argument("--steps", type=int, default=32, help="of training, truncated and randomized")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--gradient-batch", type=int, default=16)
    parser.add_argument("--gradient-text", type=int, default=64000, help="bytes of text of the gradient's question")
    parser.add_argument("--passes", type=int, default=4, help="epochs of randomized gradients")
    a = parser.parse_args()

    with open(a.text, "rb") as f:
        text = f.read()
    cut = text.rindex(b"\n", 0, len(text) * 9 // 10) + 1
    with tempfile.TemporaryDirectory() as folder, h5py.File(a.out, "w", track_order=True) as file:
        names = [os.path.join(folder, name) for name in ("train.txt", "valid.txt", "part.txt")]
        for name, part in zip(names, (text[:cut], text[cut:], text[: text.rindex(b"\n", 0, a.gradient_text) + 1])):
            with open(name, "wb") as f:
                f.write(part)
        file.attrs["title"] = "three strategies of back-propagation through time"
        file.attrs["history"] = " ".join(sys.argv)
        training = train_all(a, folder, names[:2], file)
        trained = os.path.join(folder, "model.h5")  # of the text whose gradients are taken: the same vocabulary
        Call(
            a.unroll, "train", names[2], "-o", trained, "--valid-fraction", 0, "--hidden", a.hidden, "--batch", a.gradient_batch,
            "--epochs", 3, "--lr", 1e-3, "--init", "orthogonal",
        ).or_stop()  # fmt: skip
        gradient = measure_gradients(a, folder, names[2], trained, file)
    draw(os.path.splitext(a.out)[0] + ".png", training, gradient)
    print(f"\n{a.out}, {os.path.splitext(a.out)[0]}.png")


if __name__ == "__main__":
    main()
