#!/usr/bin/env python3
"""Go on with a run in PyTorch, from its checkpoint, as `unroll train --resume` would.

    continue_torch.py RUN TEXT [--updates 50]      a line of JSON for each update: step, loss, grad_norm, learning_rate

TEXT is the file it was trained on. For runs with --bptt truncated on streams, the default, of every cell; what is done here
is described in src/runfile/README.md under "Going on elsewhere".
"""

import argparse
import json
import math
import sys

import h5py
import torch

from load_torch import fill, load, parameters


def text_of(path, config):
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    if config["letters"]:
        sys.exit("--letters is left to the reader")
    return text.lower() if config["lowercase"] else text


def streams(tokens, B):
    """Inputs and targets (n, B) of B contiguous streams."""
    n = (len(tokens) - 1) // B
    return tokens[: n * B].reshape(B, n).T, tokens[1 : n * B + 1].reshape(B, n).T


def learning_rate(config, state, step, updates, epoch):
    lr, warmup = config["lr"], int(config["warmup"])
    if step < warmup:
        return lr * (step + 1) / warmup
    if config["schedule"] == "step":
        every = int(config["decay_every"])
        first = int(config.get("decay_from", 0)) or every
        return lr * config["lr_decay"] ** max(0, (epoch - first) // every + 1)
    if config["schedule"] == "cosine":
        done = (step - warmup) / (updates - warmup)
        return config["lr_min"] + (lr - config["lr_min"]) * (1 + math.cos(math.pi * done)) / 2
    return lr * state["lr_factor"]  # plateau; 1 for a constant rate


def make_optimizer(model, run):
    """With the moments of the run."""
    config, of = model.config, parameters(model)
    name = config["optimizer"]
    if name == "adam":
        betas = config["beta1"], config["beta2"]
        decay = config.get("weight_decay", 0.0)  # runs of older versions have none
        optimizer = torch.optim.AdamW(of.values(), lr=1.0, betas=betas, eps=config["epsilon"], weight_decay=decay)
        moments = {"exp_avg": "first", "exp_avg_sq": "second"}
    else:
        optimizer = torch.optim.SGD(of.values(), lr=1.0, momentum=config["momentum"] if name == "momentum" else 0.0)
        moments = {"momentum_buffer": "velocity"} if name == "momentum" else {}
    for path, parameter in of.items():
        state = optimizer.state[parameter]
        for theirs, ours in moments.items():
            state[theirs] = torch.empty_like(parameter, requires_grad=False)
            fill(state[theirs], run[f"optimizer/{ours}/{path}"][:])
        if name == "adam":
            state["step"] = torch.tensor(float(run["state"].attrs["updates"]))
    return optimizer


def decay(model, rate):
    """Decoupled weight decay as in AdamW, which does it by itself, for the other optimizers."""
    if model.config["optimizer"] != "adam":
        with torch.no_grad():
            for parameter in parameters(model).values():
                parameter.mul_(1 - rate * model.config.get("weight_decay", 0.0))


def carried_state(model, run):
    """h, or of an lstm (h, c), each (L, B, H); None for the zero state."""
    h, *c = (torch.from_numpy(run["state"][name][:]) for name in ("h", "c") if name in run["state"])
    return (h, c[0]) if c else h


def detach(state):
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run file")
    parser.add_argument("text", help="the text file that it was trained on")
    parser.add_argument("--updates", type=int, default=50, help="how many to do")
    arguments = parser.parse_args()

    model = load(arguments.run, last=True)
    config = model.config
    if (config["bptt"], config["partition"], config["sequences"]) != ("truncated", "sequential", "stream"):
        sys.exit("for runs with --bptt truncated --partition sequential --sequences stream")
    if config.get("windows", "fixed") != "fixed" or config.get("offset", "zero") != "zero":
        sys.exit("for runs with --windows fixed --offset zero")
    left_out = [name for name, value in config.items() if name.startswith(("dropout", "penalty")) and name != "dropout_kind" and value]
    if left_out:
        sys.exit(f"masks and penalties of unroll are not made here: {', '.join(left_out)} is on")
    T, D, B = int(config["steps"]), int(config["stride"]), int(config["batch"])
    with h5py.File(arguments.run, "r") as run:
        counters = dict(run["state"].attrs)
        tokens = model.encode(text_of(arguments.text, config))[: int(run["provenance"].attrs["train_tokens"])]
        optimizer = make_optimizer(model, run)
        state = carried_state(model, run)

    x, y = streams(torch.tensor(tokens), B)
    windows = len(x) // D
    updates = int(config["epochs"]) * windows
    step, epoch, k = (int(counters[name]) for name in ("step", "epoch", "window"))
    begin = lambda k: max(0, (k + 1) * D - T)
    for step in range(step, min(step + arguments.updates, updates)):
        first, end = begin(k), (k + 1) * D
        following = begin(k + 1) - first  # time steps until the next window begins
        optimizer.zero_grad()
        if first == 0:
            state = None
        head, carried = model(x[first : first + following], state)
        tail = model(x[first + following : end], carried)[0] if first + following < end else head[:0]
        logits = torch.cat([head, tail])[-D:]
        scored, targets = logits.reshape(D * B, -1), y[end - D : end].reshape(-1)
        loss = torch.nn.functional.cross_entropy(scored, targets)
        smoothing = config.get("label_smoothing", 0.0)  # of the gradient, the loss is reported without
        torch.nn.functional.cross_entropy(scored, targets, label_smoothing=smoothing).backward()
        rate = learning_rate(config, counters, step, updates, epoch)
        norm = torch.nn.utils.clip_grad_norm_(parameters(model).values(), config["clip"] or math.inf)
        optimizer.param_groups[0]["lr"] = rate
        decay(model, rate)
        optimizer.step()
        state = detach(carried)
        row = {"step": step + 1, "loss": loss.item(), "grad_norm": norm.item(), "learning_rate": rate}
        print(json.dumps(row), flush=True)
        k, epoch = (k + 1, epoch) if k + 1 < windows else (0, epoch + 1)


if __name__ == "__main__":
    main()
