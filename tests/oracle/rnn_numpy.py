"""An independent model in NumPy, in double, written from the equations of the model:

    h_t = phi(W_xh x_t + W_hh h_{t-1} + b_h)        o_t = W_qh h_t + b_q        l_t = -log softmax(o_t)[target]

    rnn_numpy.py self                          the oracle's own gradients against central differences
    rnn_numpy.py eval RUN TEXT STREAMS LOSS    loss of a text cut into streams, against what `unroll eval` said
    rnn_numpy.py step BEFORE AFTER TEXT        the update between two run files of one run, one step apart

Column-vector form: a batch is a matrix whose columns are sequences.
"""

import sys

import h5py
import numpy as np

failures = 0


def check(ok, what):
    global failures
    if not ok:
        failures += 1
        print("FAILED:", what)


# --------------------------------------------------------------------- model


class Model:
    """Parameters by (group, name), in double."""

    def __init__(self, weights, relu):
        self.w = weights
        self.relu = relu
        self.layers = sum(1 for group, name in weights if name == "W_hh")
        self.V, self.H = weights["output", "W_qh"].shape

    def phi(self, a):
        return np.maximum(a, 0.0) if self.relu else np.tanh(a)

    def slope(self, h):
        """phi'(a) from h = phi(a)."""
        return (h > 0.0).astype(float) if self.relu else 1.0 - h * h

    def forward(self, x, h0):
        """x (T, B) tokens, h0 (L, H, B). States h[l][t], t = 0..T, and log p[t] (V, B)."""
        w = self.w
        h = [[h0[l]] for l in range(self.layers)]
        log_p = []
        for t in range(len(x)):
            below = np.zeros((self.V, x.shape[1]))
            below[x[t], np.arange(x.shape[1])] = 1.0  # one-hot columns
            for l in range(self.layers):
                g = f"layer{l}"
                a = w[g, "W_xh"] @ below + w[g, "W_hh"] @ h[l][t] + w[g, "b_h"][:, None]
                h[l].append(self.phi(a))
                below = h[l][t + 1]
            o = w["output", "W_qh"] @ below + w["output", "b_q"][:, None]
            top = o.max(axis=0)
            log_p.append(o - top - np.log(np.exp(o - top).sum(axis=0)))
        return h, log_p

    def loss(self, x, y, h0):
        """Sum of nats over the window, and the state behind it."""
        h, log_p = self.forward(x, h0)
        columns = np.arange(x.shape[1])
        return -sum(lp[y[t], columns].sum() for t, lp in enumerate(log_p)), np.array([s[-1] for s in h])

    def gradients(self, x, y, h0):
        """Of the sum of nats over the window, the state h0 held constant."""
        w, (T, B) = self.w, x.shape
        h, log_p = self.forward(x, h0)
        d = {key: np.zeros_like(value) for key, value in w.items()}
        future = [np.zeros((self.H, B)) for _ in range(self.layers)]  # W_hh^T dL/da_{t+1}
        for t in reversed(range(T)):
            do = np.exp(log_p[t])
            do[y[t], np.arange(B)] -= 1.0
            d["output", "W_qh"] += do @ h[-1][t + 1].T
            d["output", "b_q"] += do.sum(axis=1)
            above = w["output", "W_qh"].T @ do
            for l in reversed(range(self.layers)):
                g = f"layer{l}"
                da = (above + future[l]) * self.slope(h[l][t + 1])
                future[l] = w[g, "W_hh"].T @ da
                d[g, "W_hh"] += da @ h[l][t].T
                d[g, "b_h"] += da.sum(axis=1)
                if l > 0:
                    d[g, "W_xh"] += da @ h[l - 1][t + 1].T
                    above = w[g, "W_xh"].T @ da
                else:
                    for b in range(B):
                        d[g, "W_xh"][:, x[t, b]] += da[:, b]
        return d


# ------------------------------------------------------------------ run file


def tensors(group):
    """All datasets two levels down, by (group, name), in double; scales left out."""
    return {
        (g, name): group[g][name][...].astype(float)
        for g in group
        if isinstance(group[g], h5py.Group)
        for name in group[g]
    }


class Run:
    def __init__(self, path):
        with h5py.File(path, "r") as file:
            self.config = {k: v.decode() if isinstance(v, bytes) else v for k, v in file["config"].attrs.items()}
            self.state = dict(file["state"].attrs)
            self.tokens = {token: i for i, token in enumerate(file["vocab/token"].asstr()[...])}
            self.weights = tensors(file["weights"])
            self.moments = {m: tensors(file["optimizer"][m]) for m in ("velocity", "first", "second") if f"optimizer/{m}" in file}
            self.h = file["state/h"][...].astype(float).transpose(0, 2, 1) if "state/h" in file else None
            self.metrics = {name: column[...] for name, column in file["metrics/train"].items()}
        self.model = Model(self.weights, self.config["activation"] == "relu")

    def encode(self, path):
        """Tokens of a text."""
        if self.config["level"] == "byte":
            return np.fromfile(path, np.uint8).astype(int)
        with open(path, encoding="utf-8", newline="") as f:
            text = f.read()
        if self.config["level"] == "word":
            lines = text.split("\n")
            pieces = [piece for line in lines[:-1] for piece in line.split() + ["<eos>"]] + lines[-1].split()
        else:
            pieces = ["\\x%02x" % ord(c) if ord(c) < 32 else c for c in text]
        return np.array([self.tokens.get(piece, 0) for piece in pieces])


def windows(tokens, B):
    """B contiguous streams of equal length: inputs and targets (length, B)."""
    length = (len(tokens) - 1) // B
    x = np.stack([tokens[b * length : (b + 1) * length] for b in range(B)], axis=1)
    y = np.stack([tokens[b * length + 1 : (b + 1) * length + 1] for b in range(B)], axis=1)
    return x, y


# -------------------------------------------------------------------- checks


def random_model(rng, V, H, L, relu):
    shapes = {("output", "W_qh"): (V, H), ("output", "b_q"): (V,)}
    for l in range(L):
        shapes[f"layer{l}", "W_xh"] = (H, V if l == 0 else H)
        shapes[f"layer{l}", "W_hh"] = (H, H)
        shapes[f"layer{l}", "b_h"] = (H,)
    return Model({key: rng.uniform(-0.6, 0.6, shape) for key, shape in shapes.items()}, relu)


def check_self():
    """The oracle is trusted only after its own gradients are."""
    rng = np.random.default_rng(1)
    for L in (1, 2, 3):
        for relu in (False, True):
            model = random_model(rng, 5, 4, L, relu)
            x, y = rng.integers(0, 5, (2, 6, 3))
            h0 = rng.uniform(0.0, 1.0, (L, 4, 3))
            d = model.gradients(x, y, h0)
            for key, value in model.w.items():
                for i in np.ndindex(value.shape):
                    before = value[i]
                    value[i] = before + 1e-6
                    up = model.loss(x, y, h0)[0]
                    value[i] = before - 1e-6
                    down = model.loss(x, y, h0)[0]
                    value[i] = before
                    check(abs((up - down) / 2e-6 - d[key][i]) < 1e-6, f"own gradient {key} {i}, L {L}, relu {relu}")


def check_eval(path, text, streams, said):
    run = Run(path)
    x, y = windows(run.encode(text), streams)
    nats, _ = run.model.loss(x, y, np.zeros((run.model.layers, run.model.H, streams)))
    loss = nats / x.size
    check(abs(said / loss - 1.0) < 1e-5, f"{path}: loss {said}, the oracle says {loss}")
    print(f"loss {said:.9f}, oracle {loss:.9f}, relative difference {said / loss - 1.0:.1e}")


def close(name, got, expected, change):
    """Within a hundred-thousandth of the largest change of the tensor, and the rounding of float."""
    bound = 2e-5 * np.abs(change).max() + 2.0**-23 * np.abs(expected)
    error = np.abs(got - expected)
    check(got.shape == expected.shape and np.all(error <= bound), f"{name}: off by {error.max():.3g}")


def find_window(a, b, x, y):
    """Where the window of a random partition began, in one stream: the loss tells, of all windows from a zero state."""
    T, n = int(a.config["steps"]), len(x) - int(a.config["steps"])
    starts = np.arange(n)
    X, Y = (np.stack([z[starts + t, 0] for t in range(T)]) for z in (x, y))
    _, log_p = a.model.forward(X, np.zeros((a.model.layers, a.model.H, n)))
    losses = -sum(lp[Y[t], starts] for t, lp in enumerate(log_p)) / T
    return int(np.abs(losses - b.metrics["loss"][-1]).argmin())


def check_step(before, after, text):
    a, b = Run(before), Run(after)
    config, model = a.config, a.model
    T, B, eta, theta = int(config["steps"]), int(config["batch"]), config["lr"], config["clip"]
    check(b.state["step"] == a.state["step"] + 1, "the run files are one step apart")

    x, y = windows(a.encode(text), B)
    begin = int(a.state["window"]) * T if config["partition"] == "sequential" else find_window(a, b, x, y)
    x, y = x[begin : begin + T], y[begin : begin + T]
    carried = begin > 0 and config["partition"] == "sequential"
    h0 = a.h if carried else np.zeros_like(a.h)
    nats, h = model.loss(x, y, h0)
    g = {key: value / (T * B) for key, value in model.gradients(x, y, h0).items()}
    norm = np.sqrt(sum((value**2).sum() for value in g.values()))
    scale = theta / norm if 0 < theta < norm else 1.0

    row = {name: column[-1] for name, column in b.metrics.items()}
    check(abs(row["loss"] / (nats / (T * B)) - 1.0) < 1e-5, f"loss {row['loss']}, oracle {nats / (T * B)}")
    check(abs(row["grad_norm"] / norm - 1.0) < 1e-5, f"grad_norm {row['grad_norm']}, oracle {norm}")
    check(abs(row["clip_scale"] / scale - 1.0) < 1e-5, f"clip_scale {row['clip_scale']}, oracle {scale}")
    close("carried state", b.h, h, np.ones(1))

    check(set(b.weights) == set(g), "names of the tensors")
    t = int(a.state["updates"]) + 1
    for key, w in a.weights.items():
        step = scale * g[key]
        check(np.abs(step).max() > 0.0, f"{key} moves")
        if config["optimizer"] == "momentum":
            step = config["momentum"] * a.moments["velocity"][key] + step
            close(f"velocity {key}", b.moments["velocity"][key], step, step)
        elif config["optimizer"] == "adam":
            b1, b2 = config["beta1"], config["beta2"]
            m = b1 * a.moments["first"][key] + (1 - b1) * step
            v = b2 * a.moments["second"][key] + (1 - b2) * step**2
            close(f"first moment {key}", b.moments["first"][key], m, m)
            close(f"second moment {key}", b.moments["second"][key], v, v)
            step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + config["epsilon"])
        close(f"weights {key}", b.weights[key], w - eta * step, eta * step)
    print(f"{after}: loss {row['loss']:.6f}, norm {norm:.4f}, clip factor {scale:.4f}")


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "self":
        check_self()
    elif command == "eval":
        check_eval(arguments[0], arguments[1], int(arguments[2]), float(arguments[3]))
    elif command == "step":
        check_step(*arguments)
    else:
        check(False, f"no command {command}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
