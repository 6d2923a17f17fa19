"""The updates after a checkpoint, done by others from what src/runfile/README.md says under "Going on elsewhere".

    replay.py numpy CHECKPOINT TEXT UPDATES        do them in NumPy, a line of JSON each, as continue_torch.py prints them
    replay.py compare ROWS RUN UPDATES             such lines against the metrics of the run that went on by itself
"""

import json
import math
import sys

import h5py
import numpy as np

import rnn_numpy
from rnn_numpy import Run, check


def replay(path, text, updates):
    run = Run(path)
    config, state, model = run.config, run.state, run.model
    T, D, B, N = int(config["steps"]), int(config["stride"]), int(config["batch"]), run.train_tokens
    tokens = run.encode(text)[:N]
    n = (N - 1) // B
    windows = n // D
    total = int(config["epochs"]) * windows
    step, epoch, k, t = (int(state[name]) for name in ("step", "epoch", "window", "updates"))
    carried = run.carried
    for step in range(step, step + updates):
        first, end, following = (max(0, (k + 1) * D - T), (k + 1) * D, max(0, (k + 2) * D - T))
        x, y = (
            np.array([[tokens[b * n + i + ahead] for b in range(B)] for i in range(first, end)]) for ahead in (0, 1)
        )
        if first == 0:
            carried = model.zero_state(B)
        scored = end - D - first
        nats, states = model.loss(x, y, carried, scored)
        g = {key: value / (B * D) for key, value in model.gradients(x, y, carried, scored).items()}
        norm = math.sqrt(sum((value**2).sum() for value in g.values()))
        factor = min(1.0, config["clip"] / norm) if config["clip"] > 0 else 1.0

        W = int(config["warmup"])
        if step < W:
            eta = config["lr"] * (step + 1) / W
        elif config["schedule"] == "cosine":
            eta = config["lr_min"] + (config["lr"] - config["lr_min"]) * (1 + math.cos(math.pi * (step - W) / (total - W))) / 2
        else:
            eta = config["lr"]
        t += 1
        for key, w in model.w.items():
            change = factor * g[key]
            if config["optimizer"] == "momentum":
                change = run.moments["velocity"][key] = config["momentum"] * run.moments["velocity"][key] + change
            elif config["optimizer"] == "adam":
                b1, b2 = config["beta1"], config["beta2"]
                m = run.moments["first"][key] = b1 * run.moments["first"][key] + (1 - b1) * change
                v = run.moments["second"][key] = b2 * run.moments["second"][key] + (1 - b2) * change**2
                change = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + config["epsilon"])
            w *= 1 - eta * config["weight_decay"]
            w -= eta * change
        print(json.dumps({"step": step + 1, "loss": nats / (B * D), "grad_norm": norm, "learning_rate": eta}))
        carried = states[following - first]
        k, epoch = (k + 1, epoch) if k + 1 < windows else (0, epoch + 1)


def compare(rows, path, updates):
    with open(rows, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    check(len(rows) == updates, f"{len(rows)} updates, expected {updates}")
    with h5py.File(path) as file:
        train = {name: column[-len(rows) :] for name, column in file["metrics/train"].items()}
    most = []
    for name, bound in (("step", 0.0), ("learning_rate", 1e-12), ("loss", 1e-4), ("grad_norm", 1e-3)):
        theirs = np.array([row[name] for row in rows])
        off = np.abs(theirs - train[name]) / np.maximum(np.abs(train[name]), 1e-300)
        most.append(f"{name} {off.max():.0e}")
        check(np.all(off <= bound), f"{name} off by {off.max()} at step {train['step'][off.argmax()]}")
    clipped = (train["clip_scale"] < 1).mean()
    print(f"{updates} updates, loss {train['loss'][0]:.4f} to {train['loss'][-1]:.4f}, {clipped:.0%} clipped; off by {', '.join(most)}")


def main():
    command, first, second, updates = sys.argv[1:]
    if command == "numpy":
        replay(first, second, int(updates))
    else:
        compare(first, second, int(updates))
    sys.exit(1 if rnn_numpy.failures else 0)


if __name__ == "__main__":
    main()
