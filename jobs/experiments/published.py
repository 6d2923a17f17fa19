#!/usr/bin/env python3
"""Published results, once more: each from its options, against the value and the bits that are on record.

    jobs/experiments/published.py UNROLL DATA [NAME...]

A result is a file of options in jobs/experiments/published, as `unroll train --config` takes it. Comments that begin
with #: say what else belongs to it:

    #: text FILE            below the folder DATA
    #: train loss X         nats per token, of the last interval before the end; or
    #: valid loss X         of the best validation
    #: weights SHA256       of the last update, the same on every CPU with fused multiply-adds

Run files go to the present folder. What was interrupted goes on, what is finished is only shown. Prints a table (Markdown);
a loss that is off by more than 1e-3 where the bits may differ, by more than 5e-5 else, or other weights, end with
status 1. `--launch 'mpirun -n 4'` starts ranks, `--max-steps N` tries the first updates only and compares nothing.
"""

import argparse
import glob
import json
import math
import os
import resource
import shlex
import subprocess
import sys

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published")
COLUMNS = ["result", "parameters", "updates", "train loss", "valid loss", "perplexity", "seconds", "weights"]


def facts_of(path):
    """The lines `#: key... value` of a file of options."""
    with open(path, encoding="utf-8") as f:
        lines = [line[2:].split() for line in f if line.startswith("#:")]
    return {" ".join(words[:-1]): words[-1] for words in lines}


def train(options, path, text, out):
    command = [*shlex.split(options.launch), options.unroll, "train", "--config", path, text, "-o", out, "--resume"]
    if options.max_steps:
        command += ["--max-steps", str(options.max_steps)]
    status = subprocess.call(command, stdout=subprocess.DEVNULL)
    if status != 0:
        sys.exit(f"published.py: {out}: unroll train ended with status {status}; the same command goes on")


def row_of(options, name, out):
    said = subprocess.run([options.unroll, "info", "--json", out], capture_output=True, text=True, check=True).stdout
    run = json.loads(said)
    found = {
        "train loss": run["train"] and run["train"]["loss"],
        "valid loss": run["state"]["best_loss"] if run["valid"] else None,
        "weights": run["model"]["weights_sha256"],
    }
    number = lambda x, digits: "-" if x is None else f"{x:.{digits}f}"  # noqa: E731
    row = [
        name, f"{run['model']['parameters']:,}", f"{run['state']['step']:,}", number(found["train loss"], 4),
        number(found["valid loss"], 4), number(found["valid loss"] and math.exp(found["valid loss"]), 2),
        f"{run['state']['seconds']:.0f}", found["weights"][:12],
    ]
    return row, found, run["provenance"]["code_path"] != "portable"


def compare(name, facts, found, fma):
    """What is not as recorded, a line each."""
    near = 5e-5 if fma else 1e-3
    for what in ("train loss", "valid loss"):
        if what in facts and not (found[what] is not None and abs(found[what] - float(facts[what])) <= near):
            yield f"{name}: {what} is {found[what]}, on record {facts[what]}"
    if fma and "weights" in facts and found["weights"] != facts["weights"]:
        yield f"{name}: weights have SHA-256 {found['weights']}, on record {facts['weights']}"


def main():
    known = sorted(os.path.splitext(os.path.basename(path))[0] for path in glob.glob(os.path.join(HERE, "*.conf")))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unroll", help="the program")
    parser.add_argument("data", help="the folder of the texts")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of: " + ", ".join(known))
    parser.add_argument("--launch", default="", help="words before the program")
    parser.add_argument("--max-steps", type=int, default=0)
    options = parser.parse_intermixed_args()
    options.unroll = os.path.abspath(options.unroll)
    for name in options.names:
        if name not in known:
            parser.error(f"{name}: is no result; legal are {', '.join(known)}")

    rows, wrong = [], []
    for name in options.names or known:
        path = os.path.join(HERE, name + ".conf")
        facts, out = facts_of(path), name + ".h5"
        train(options, path, os.path.join(options.data, facts["text"]), out)
        row, found, fma = row_of(options, name, out)
        rows.append(row)
        if not options.max_steps:
            wrong += compare(name, facts, found, fma)
    print("| " + " | ".join(COLUMNS) + " |\n| " + " | ".join("---" for _ in COLUMNS) + " |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"\nmost memory of a process: {memory:.0f} MB", file=sys.stderr)
    for line in wrong:
        print(f"published.py: {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
