#!/usr/bin/env python3
"""Remember a symbol for n steps: who can learn it?

    jobs/experiments/recall.py UNROLL [-o recall.h5]

Each line of the text is a symbol, A or B, then n further characters, in every line the same and each another one,
then the same symbol again. Each character but the two symbols follows from the one before. The first symbol of a line
cannot be known; the second can, by whoever remembers. Shown is what the second costs, in bits: 0 is perfect memory, 1 is
none. It comes from the mean of ln p(right) - ln p(wrong) over new lines, each read from the zero state.

    full, orthogonal   each line is a sequence, the gradient flows through all of it; W_hh starts orthogonal, so that
                       the gradient neither vanishes nor explodes at first
    full, uniform      the same from small random weights, through which the gradient vanishes
    full, tanh         the same from an orthogonal start with tanh, whose derivative is below 1, instead of ReLU
    truncated          windows of --steps at random places, from the zero state: where n is longer than a window no
                       window ever holds both symbols, and nothing can be learnt
    carried            windows of --steps one after the other: the state remembers, the gradient does not reach back
    full, lstm         full again, with gates; of an LSTM with forget bias 5 each step keeps what it has, but 1%
    full, gru          the same with a GRU, each step of which keeps half of it at first

Gated cells take three times the epochs, smaller batches and a larger rate (--gated-...): with those of the others none
of them learns a lag of 10. Writes HDF5, and a picture of the same name that ends in .png. Ten minutes on two cores, or so.
"""

import argparse
import math
import os
import random
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from runs import Call, h5py, np, write_scale, write_table  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402

TESTS = 200  # lines to measure on
FIRST = 0x4E00  # of a long row of characters, none of them white space
LINES = ["--bptt", "full", "--sequences", "line"]
START = ["--init", "orthogonal", "--activation", "relu"]
LEARNERS = {
    "full, orthogonal": [*LINES, *START],
    "full, uniform": [*LINES, "--activation", "relu"],
    "full, tanh": [*LINES, "--init", "orthogonal"],
    "truncated": [*START, "--partition", "random"],
    "carried": START,
    "full, lstm": [*LINES, "--cell", "lstm", "--forget-bias", "5"],
    "full, gru": [*LINES, "--cell", "gru"],
}


def write_lines(path, symbols, n, wrong=False, end=""):
    other = {"A": "B", "B": "A"}
    with open(path, "w", encoding="utf-8") as f:
        for symbol in symbols:
            last = other[symbol] if wrong else symbol
            f.write(symbol + "".join(chr(FIRST + i) for i in range(n)) + last + "\n")
        f.write(end)


def forgotten(unroll, run, right, wrong):
    """Bits of the second symbol that are not known, on new lines, each read from the zero state."""
    loss = [Call(unroll, "eval", run, text, "--streams", TESTS, "--json").or_stop().json() for text in (right, wrong)]
    # A line with the wrong symbol costs ln p(right) - ln p(wrong) more.
    odds = (loss[1]["loss"] - loss[0]["loss"]) * loss[0]["tokens"] / TESTS
    return math.log2(1 + math.exp(-odds))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unroll")
    parser.add_argument("-o", "--out", default="recall.h5")
    parser.add_argument("--lags", type=int, nargs="+", default=[5, 10, 20, 40, 80, 160], help="n")
    parser.add_argument("--steps", type=int, default=16, help="window of truncated and carried")
    parser.add_argument("--lines", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--gated-epochs", type=int, default=120)
    parser.add_argument("--gated-lr", default="5e-3")
    parser.add_argument("--gated-batch", type=int, default=8)
    parser.add_argument("--learners", nargs="+", default=list(LEARNERS), choices=list(LEARNERS), metavar="NAME", help=", ".join(LEARNERS))
    a = parser.parse_args()
    updates = ["--batch", a.batch, "--epochs", a.epochs, "--lr", a.lr]
    gated = ["--batch", a.gated_batch, "--epochs", a.gated_epochs, "--lr", a.gated_lr]

    random.seed(1)
    share = np.full((len(a.learners), len(a.lags)), np.nan)
    print("bits of the symbol that are forgotten after n steps")
    print(f"{'n':<18}" + "".join(f"{n:7d}" for n in a.lags))
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(a.learners):
            options = LEARNERS[name]
            print(f"{name:<18}", end="", flush=True)
            for j, n in enumerate(a.lags):
                train, right, wrong = (os.path.join(folder, f"{kind}{n}.txt") for kind in ("train", "right", "wrong"))
                if not os.path.exists(train):
                    write_lines(train, random.choices("AB", k=a.lines), n)
                    symbols = random.choices("AB", k=TESTS)
                    # With one symbol more, as many streams as lines are one line long each.
                    write_lines(right, symbols, n, end="A")
                    write_lines(wrong, symbols, n, wrong=True, end="A")
                path = os.path.join(folder, "run.h5")
                window = [] if "--sequences" in options else ["--steps", a.steps]
                call = Call(
                    a.unroll, "train", train, "-o", path, "--overwrite", "--valid-fraction", 0, "--hidden", a.hidden,
                    *(gated if "--cell" in options else updates), *options, *window,
                )  # fmt: skip
                if call.status == 0:
                    share[i, j] = forgotten(a.unroll, path, right, wrong)
                print(f"{share[i, j]:7.3f}" if call.status == 0 else "stopped".rjust(8), end="", flush=True)
            print()

    with h5py.File(a.out, "w", track_order=True) as file:
        file.attrs["title"] = "remembering a symbol for n steps"
        file.attrs["history"] = " ".join(sys.argv)
        write_scale(file, "learner", a.learners, "1", "strategy and start")
        write_scale(file, "n", a.lags, "steps", "between the symbol and its return")
        write_table(file, "forgotten", ("learner", "n"), share, "bits", "of the symbol that are not known")
    for i, name in enumerate(a.learners):
        plt.plot(a.lags, share[i], "o-", label=name)
    plt.xscale("log", base=2)
    plt.xlabel("n [steps]")
    plt.ylabel("forgotten [bits]")
    plt.legend()
    plt.savefig(os.path.splitext(a.out)[0] + ".png", dpi=150)
    print(f"{a.out}, {os.path.splitext(a.out)[0]}.png")


if __name__ == "__main__":
    main()
