#!/usr/bin/env python3
"""A run file as a model of PyTorch, of every cell.

    from load_torch import load

    model = load("run.h5")
    x = torch.tensor(model.encode("the "))[:, None]    # (T, B), time first
    logits, state = model(x)                           # (T, B, V); state to go on from

    load_torch.py RUN TEXT                             the loss of a text, as `unroll eval` has it

The modules have the names of `unroll export --safetensors`: rnn (RNN, LSTM or GRU of torch.nn; minGRU, which it lacks, is
below), out and, with --embedding, embedding. Of PyTorch's two biases the second, bias_hh, is 0 and is not trained, but in a GRU for what r multiplies.
"""

import argparse
import re

import h5py
import torch


class MinGRU(torch.nn.Module):
    """Called as torch.nn.GRU is, with its names; no weights of the hidden state.

    z = logistic(W_z x + b_z), n = W_n x + b_n, h' = (1 - z) h + z n
    """

    def __init__(self, n_in, hidden, layers):
        super().__init__()
        self.hidden, self.layers = hidden, layers
        for k in range(layers):
            weight = torch.empty(2 * hidden, hidden if k else n_in)
            setattr(self, f"weight_ih_l{k}", torch.nn.Parameter(weight))
            setattr(self, f"bias_ih_l{k}", torch.nn.Parameter(torch.empty(2 * hidden)))

    def forward(self, x, state=None):
        last = []
        for k in range(self.layers):
            z, n = (x @ getattr(self, f"weight_ih_l{k}").T + getattr(self, f"bias_ih_l{k}")).chunk(2, -1)
            z = torch.sigmoid(z)
            h = x.new_zeros(x.shape[1], self.hidden) if state is None else state[k]
            out = []
            for t in range(len(x)):
                h = (1 - z[t]) * h + z[t] * n[t]
                out.append(h)
            x = torch.stack(out)
            last.append(h)
        return x, torch.stack(last)


class Model(torch.nn.Module):
    """Tokens (T, B) and the state, None for zero, to logits (T, B, V) and the state after: h (L, B, H), of an lstm (h, c)."""

    def __init__(self, config, token, code, hidden):
        super().__init__()
        self.config, self.token = config, token
        if config.get("skip", 0):
            raise SystemExit("torch.nn.RNN has no skip connections, and this model has: load_numpy.py can read it")
        names = [chr(c) if c >= 0 else "\n" if name == "<eos>" else name for name, c in zip(token, code)]
        self.index = {name: v for v, name in enumerate(names)}
        cell, layers, V = config["cell"], int(config["layers"]), len(token)
        n_in = int(config.get("embedding", 0)) or V
        self.embedding = torch.nn.Embedding(V, n_in) if config.get("embedding", 0) > 0 else None
        if cell == "mingru":
            self.rnn = MinGRU(n_in, hidden, layers)
        elif cell == "rnn":
            self.rnn = torch.nn.RNN(n_in, hidden, layers, nonlinearity=config["activation"])
        else:
            self.rnn = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](n_in, hidden, layers)
        self.out = torch.nn.Linear(hidden, V)
        if config.get("tied", 0):
            self.embedding.weight = self.out.weight

    def forward(self, tokens, state=None):
        if self.embedding is None:
            x = torch.nn.functional.one_hot(tokens, self.out.out_features).to(self.out.weight.dtype)
        else:
            x = self.embedding(tokens)
        h, state = self.rnn(x, state)
        return self.out(h), state

    def encode(self, text):
        """Tokens of a text; 0, at levels char and word, is <unk>. Small letters are the caller's affair (--lowercase)."""
        if self.config["level"] == "byte":
            return list(text.encode())
        if self.config["level"] == "bpe":
            from load_numpy import Subwords  # beside this file

            return Subwords(self.token).encode(text)
        units = re.findall(r"\n|[^ \t\n\v\f\r]+", text) if self.config["level"] == "word" else text
        return [self.index.get(unit, 0) for unit in units]


def parameters(model):
    """What is trained, by the path of its dataset below /weights, and below the groups of /optimizer."""
    found = {"output/W_qh": model.out.weight, "output/b_q": model.out.bias}
    if model.embedding is not None and model.embedding.weight is not model.out.weight:
        found["input/W_xe"] = model.embedding.weight
    ours = {"weight_ih": "W_xh", "weight_hh": "W_hh", "bias_ih": "b_h"}
    if model.config["cell"] == "gru":
        ours["bias_hh"] = "b_hn"
    for name, parameter in model.rnn.named_parameters():
        kind, k = name.rsplit("_l", 1)
        if kind in ours:
            found[f"layer{k}/{ours[kind]}"] = parameter
    return found


def fill(parameter, values):
    """A dataset into a parameter: the whole of it, or its last block where there is no more: b_hn."""
    parameter.zero_()
    parameter[-len(values) :] = torch.from_numpy(values)


def load(path, last=False):
    """The average of the weights where there is one, or the `last` ones, which training goes on from."""
    with h5py.File(path, "r") as run:
        config = {name: v.decode() if isinstance(v, bytes) else v for name, v in run["config"].attrs.items()}
        hidden = run["weights/output/W_qh"].shape[1]
        model = Model(config, list(run["vocab/token"].asstr()[:]), run["vocab/code"][:].tolist(), hidden)
        with torch.no_grad():
            for name, parameter in parameters(model).items():
                fill(parameter, run["average" if "average" in run and not last else "weights"][name][:])
    for name, parameter in model.rnn.named_parameters():
        if name.startswith("bias_hh"):  # and so it stays in training
            if config["cell"] == "gru":
                only_n = torch.arange(3 * hidden) >= 2 * hidden
                parameter.register_hook(lambda gradient, only_n=only_n: gradient * only_n)
            else:
                torch.nn.init.zeros_(parameter).requires_grad_(False)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run file")
    parser.add_argument("text", help="a text file")
    arguments = parser.parse_args()

    model = load(arguments.run)
    with open(arguments.text, encoding="utf-8", newline="") as f:
        tokens = torch.tensor(model.encode(f.read()))
    with torch.no_grad():
        logits, _ = model(tokens[:-1, None])
        loss = torch.nn.functional.cross_entropy(logits[:, 0], tokens[1:]).item()
    print(f"{len(tokens) - 1} tokens, loss {loss:.6f} nats per token")


if __name__ == "__main__":
    main()
