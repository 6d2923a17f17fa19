"""PyTorch with the weights of a run file, read by the snippet of the README, in double.

    torch_readme.py self README                         random models of rnn_numpy.py: their loss and gradients
    torch_readme.py eval README CELL TEXT STREAMS LOSS  loss of a text cut into streams, against what `unroll eval` said

The snippet reads run.h5 of the current folder (`self` writes it); taken over from it are its `cell`, `rnn` and `out`.
"""

import contextlib
import io
import re
import sys

import h5py
import numpy as np
import torch

import rnn_numpy
from cells import cell_of
from rnn_numpy import check


def network(readme):
    """The cell's name, torch.nn.RNN, LSTM or GRU, and torch.nn.Linear with the weights of run.h5."""
    with open(readme, encoding="utf-8") as f:
        blocks = re.findall(r"^```python tested\n(.*?)^```", f.read(), re.MULTILINE | re.DOTALL)
    (snippet,) = (block for block in blocks if "import torch" in block)
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(snippet, "the snippet of the README", "exec"), names)
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


def check_self(readme):
    """Two writings of the equations, and the snippet between them."""
    rng = np.random.default_rng(3)
    for L in (1, 2, 3):
        for name, activation in [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh")]:
            what = f"{name}, {activation}, L {L}"
            model = rnn_numpy.random_model(rng, 6, 5, L, cell_of(name, activation))
            write_run("run.h5", model, name, activation)
            for key, value in model.w.items():
                model.w[key] = value.astype(np.float32).astype(float)
            cell, rnn, out = network(readme)
            check(cell == name, f"{what}: the snippet says {cell}")

            x, y = rng.integers(0, 6, (2, 9, 4))
            state = rng.uniform(-1.0, 1.0, model.zero_state(4).shape)
            theirs = [torch.from_numpy(np.ascontiguousarray(state[:, s].swapaxes(1, 2))) for s in range(state.shape[1])]
            loss = loss_of(rnn, out, x, y, theirs[0] if len(theirs) == 1 else tuple(theirs))
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


def check_eval(readme, name, text, streams, said):
    cell, rnn, out = network(readme)
    check(cell == name and type(rnn).__name__ == name.upper(), f"the network is {cell}, {rnn}")
    x, y = rnn_numpy.windows(rnn_numpy.Run("run.h5").encode(text), streams)
    with torch.no_grad():
        loss = loss_of(rnn, out, x, y).item() / x.size
    check(abs(said / loss - 1.0) < 1e-6, f"loss {said}, PyTorch says {loss}")
    print(f"{rnn}: loss {said:.9f}, PyTorch {loss:.9f}, relative difference {said / loss - 1.0:.1e}")


def main():
    command, readme, *arguments = sys.argv[1:]
    if command == "self":
        check_self(readme)
    elif command == "eval":
        check_eval(readme, arguments[0], arguments[1], int(arguments[2]), float(arguments[3]))
    else:
        check(False, f"no command {command}")
    sys.exit(1 if rnn_numpy.failures else 0)


if __name__ == "__main__":
    main()
