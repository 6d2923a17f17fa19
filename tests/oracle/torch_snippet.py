"""PyTorch with the weights of a run file, read by the snippet of jobs/guides/analyse.md, in double.

    torch_snippet.py self GUIDE                         random models of rnn_numpy.py: their loss and gradients, those
                                                        of the forms of jobs/compare too
    torch_snippet.py eval GUIDE CELL TEXT STREAMS LOSS  loss of a text cut into streams, against what `unroll eval` said

The snippet reads run.h5 of the current folder (`self` writes it); taken over from it are its `cell`, `rnn` and `out`.
"""

import contextlib
import importlib
import io
import os
import re
import sys

import h5py
import numpy as np
import torch

import rnn_numpy
from cells import cell_of
from rnn_numpy import check


def network(guide):
    """The cell's name, torch.nn.RNN, LSTM or GRU, and torch.nn.Linear with the weights of run.h5."""
    with open(guide, encoding="utf-8") as f:
        blocks = re.findall(r"^```python tested\n(.*?)^```", f.read(), re.MULTILINE | re.DOTALL)
    (snippet,) = (block for block in blocks if "import torch" in block)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(snippet, "the snippet of jobs/guides/analyse.md", "exec"), names)
    return names["cell"], names["rnn"].double(), names["out"].double()


def loss_of(rnn, out, x, y, state=None):
    """Sum of nats of x, y (T, B)."""
    V = out.out_features
    h, _ = rnn(torch.nn.functional.one_hot(torch.from_numpy(x), V).double(), state)
    return torch.nn.functional.cross_entropy(out(h).reshape(-1, V), torch.from_numpy(y).flatten(), reduction="sum")


def write_run(path, model, name, activation):
    """What the snippet needs of a run file, with the vocabulary of "the "."""
    with h5py.File(path, "w") as file:
        config = file.create_group("config").attrs
        config["layers"], config["activation"] = np.uint64(model.layers), np.bytes_(activation)
        if name != "rnn":
            config["cell"] = np.bytes_(name)
        tokens = "the " + "xyz"[: model.V - 4]
        file.create_dataset("vocab/token", data=list(tokens), dtype=h5py.string_dtype())
        file["vocab/code"] = np.array([ord(c) for c in tokens], np.int64)
        for (group, tensor), value in model.w.items():
            file[f"weights/{group}/{tensor}"] = value.astype(np.float32)


def write_form(model, rnn, out):
    """The weights of the network into a model of jobs/compare, in one bias where only the sum of two counts."""
    layers = model.layers
    weights = rnn.state_dict()
    with torch.no_grad():
        model.output.load_state_dict(out.state_dict())
        if hasattr(layers, "table"):
            layers.table.weight.copy_(weights["weight_ih_l0"].T)
        if hasattr(layers, "rnn"):
            mine = layers.rnn.state_dict()
            layers.rnn.load_state_dict({k: mine[k] if v.shape != mine[k].shape else v for k, v in weights.items()})
            return
        for l, recurrent in enumerate(layers.recurrent):
            W_xh, b_ih, b_hh = (weights[f"{name}_l{l}"] for name in ("weight_ih", "bias_ih", "bias_hh"))
            recurrent.weight.copy_(weights[f"weight_hh_l{l}"])
            if isinstance(rnn, torch.nn.GRU):  # what r multiplies is apart
                recurrent.bias.copy_(b_hh)
            else:
                recurrent.bias.copy_(b_ih + b_hh)
                b_ih = torch.zeros_like(b_ih)
            if l == 0:
                layers.table.weight.add_(b_ih)
            else:
                layers.above[l - 1].weight.copy_(W_xh)
                layers.above[l - 1].bias.copy_(b_ih)


def check_forms(forms, what, cell, rnn, out, x, y, state, loss):
    """Each form of jobs/compare has the loss of the network (backward was called) and its gradients."""
    for form in forms.FORMS:
        model = forms.Model(form, rnn.input_size, rnn.hidden_size, cell, rnn.num_layers).double()
        write_form(model, rnn, out)
        check(torch.equal(model.start(4), torch.zeros(*state.shape)), f"{what}, {form}: start")
        mean, last = model(torch.from_numpy(x), torch.from_numpy(y), state)
        (mean * x.size).backward()
        check(abs(mean.item() * x.size / loss.item() - 1.0) < 1e-12, f"{what}, {form}: loss {mean.item()}")
        _, theirs = rnn(torch.nn.functional.one_hot(torch.from_numpy(x), rnn.input_size).double(), unstacked(state))
        theirs = torch.stack(theirs) if isinstance(theirs, tuple) else theirs.unsqueeze(0)
        check((last - theirs).abs().max().item() < 1e-12, f"{what}, {form}: last state")
        pairs = [(model.output.weight, out.weight)]
        for l in range(rnn.num_layers):
            own = hasattr(model.layers, "rnn")
            mine = getattr(model.layers.rnn, f"weight_hh_l{l}") if own else model.layers.recurrent[l].weight
            pairs.append((mine, getattr(rnn, f"weight_hh_l{l}")))
        if hasattr(model.layers, "table"):
            pairs.append((model.layers.table.weight, rnn.weight_ih_l0))
        for mine, theirs in pairs:
            grad = theirs.grad.T if theirs is rnn.weight_ih_l0 else theirs.grad
            check((mine.grad - grad).abs().max().item() < 1e-12, f"{what}, {form}: gradient {tuple(theirs.shape)}")


def unstacked(state):
    """(1 or 2, L, B, H) as torch.nn.RNN, GRU or LSTM take it."""
    return state[0] if len(state) == 1 else tuple(state)


def check_self(guide):
    """Two writings of the equations, and the snippet between them; then those of jobs/compare."""
    sys.path.insert(0, os.path.join(os.path.dirname(guide), "..", "compare"))
    forms = importlib.import_module("compare_torch")
    rng = np.random.default_rng(3)
    for L in (1, 2, 3):
        for name, activation in [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh")]:
            what = f"{name}, {activation}, L {L}"
            model = rnn_numpy.random_model(rng, 6, 5, L, cell_of(name, activation))
            write_run("run.h5", model, name, activation)
            for key, value in model.w.items():
                model.w[key] = value.astype(np.float32).astype(float)
            cell, rnn, out = network(guide)
            check(cell == name, f"{what}: the snippet says {cell}")

            x, y = rng.integers(0, 6, (2, 9, 4))
            state = rng.uniform(-1.0, 1.0, model.zero_state(4).shape)
            theirs = torch.from_numpy(np.ascontiguousarray(state.transpose(1, 0, 3, 2)))  # (1 or 2, L, B, H)
            loss = loss_of(rnn, out, x, y, unstacked(theirs))
            loss.backward()
            nats, _ = model.loss(x, y, state)
            check(abs(loss.item() / nats - 1.0) < 1e-12, f"{what}: loss {nats}, PyTorch {loss.item()}")

            d, H = model.gradients(x, y, state), model.H
            pairs = {("output", "W_qh"): out.weight.grad, ("output", "b_q"): out.bias.grad}
            for l in range(L):
                for tensor, grad in (("W_xh", "weight_ih"), ("W_hh", "weight_hh"), ("b_h", "bias_ih")):
                    pairs[f"layer{l}", tensor] = getattr(rnn, f"{grad}_l{l}").grad
                if name == "gru":
                    pairs[f"layer{l}", "b_hn"] = getattr(rnn, f"bias_hh_l{l}").grad[2 * H :]
            check(set(pairs) == set(d), f"{what}: names of the tensors")
            for key, grad in pairs.items():
                check(np.abs(d[key] - grad.numpy()).max() < 1e-12, f"{what}: gradient {key}")
            if activation == "tanh":
                check_forms(forms, what, cell, rnn, out, x, y, theirs, loss)


def check_eval(guide, name, text, streams, said):
    cell, rnn, out = network(guide)
    check(cell == name and type(rnn).__name__ == name.upper(), f"the network is {cell}, {rnn}")
    x, y = rnn_numpy.windows(rnn_numpy.Run("run.h5").encode(text), streams)
    with torch.no_grad():
        loss = loss_of(rnn, out, x, y).item() / x.size
    check(abs(said / loss - 1.0) < 1e-6, f"loss {said}, PyTorch says {loss}")
    print(f"{rnn}: loss {said:.9f}, PyTorch {loss:.9f}, relative difference {said / loss - 1.0:.1e}")


def main():
    command, guide, *arguments = sys.argv[1:]
    if command == "self":
        check_self(guide)
    elif command == "eval":
        check_eval(guide, arguments[0], arguments[1], int(arguments[2]), float(arguments[3]))
    else:
        check(False, f"no command {command}")
    sys.exit(1 if rnn_numpy.failures else 0)


if __name__ == "__main__":
    main()
