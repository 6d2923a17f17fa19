"""An independent model in NumPy, in double, written from the equations of the model:

    h_t, c_t from x_t, h_{t-1}, c_{t-1} (cells.py)        o_t = W_qh h_t + b_q        l_t = -log softmax(o_t)[target]

x_t is one-hot; with an embedding it is the row of W_xe that the token has, of W_qh where the two
are one.

    rnn_numpy.py self                          the oracle's own gradients against central differences
    rnn_numpy.py eval RUN TEXT STREAMS LOSS    loss of a text cut into streams, against what `unroll eval` said
    rnn_numpy.py adapt RUN TEXT LOSS RATE DECAY STEPS CACHE THETA LAMBDA
                                               the same by dynamic evaluation, with a cache, or both
    rnn_numpy.py step BEFORE AFTER TEXT        the update between two run files of one run, one step apart
    rnn_numpy.py valid RUN TEXT                the last validation of a run, its text as lines or paragraphs
    rnn_numpy.py serve                         such commands from standard input, a line each

Column-vector form: a batch is a matrix whose columns are sequences. Behind the end of a sequence its target is -1 and
its state is zero. xi is the factor of the gradient from a step to the one before (randomized BPTT), whichever way it
takes. A state is (L, S, H, B): for each layer the S vectors that its cell hands on, h or h and c.

What is minimised is the sum of the losses, or with regularisation.py, out being the top layer's h after its mask,

    (1 - e) l_t + e mean_v(-log p_t[v]) + alpha mean(out_t^2) + beta mean((h_t - h_{t-1})^2)     of each token
"""

import sys
import traceback

import h5py
import numpy as np

from cells import cell_of
from regularisation import Regularisation, bits

failures = 0


def check(ok, what):
    global failures
    if not ok:
        failures += 1
        print("FAILED:", what)


# --------------------------------------------------------------------- model


class Model:
    """Parameters by (group, name), in double."""

    def __init__(self, weights, cell, tied=False, skip=False):
        self.w = weights
        self.skip = skip
        self.cell = cell
        self.how = Regularisation()
        self.layers = len({group for group, _ in weights if group.startswith("layer")})
        self.table = ("input", "W_xe") if ("input", "W_xe") in weights else None  # where tokens have their rows
        self.table = ("output", "W_qh") if tied else self.table
        self.V, self.H = weights["output", "W_qh"].shape

    def layer(self, l):
        """Its tensors, W_hh after its mask."""
        layer = {name: value for (group, name), value in self.w.items() if group == f"layer{l}"}
        if "W_hh" in layer:
            layer["W_hh"] = layer["W_hh"] * self.how.weights(l, layer["W_hh"].shape)
        return layer

    def read(self, tokens, t):
        """What the first layer reads of tokens (B), as columns."""
        if self.table is None:
            return np.eye(self.V)[tokens].T
        rows = self.w[self.table][tokens].T
        return rows * self.how.embeddings(tokens, t, rows.shape)

    def output(self, l, t, h):
        """What layer l passes upwards."""
        return h * self.how.outputs(l, t, h.shape)

    def zero_state(self, B):
        return np.zeros((self.layers, len(self.cell.state), self.H, B))

    def forward(self, x, y, state):
        """x, y (T, B) tokens, state (L, S, H, B). States s[l][t], t = 0..T, what their cells kept, and log p[t] (V, B)."""
        w, layers = self.w, [self.layer(l) for l in range(self.layers)]
        s = [[list(state[l])] for l in range(self.layers)]
        kept = [[] for _ in range(self.layers)]
        log_p = []
        for t in range(len(x)):
            below = self.read(x[t], t)
            for l, layer in enumerate(layers):
                after, gates = self.cell.forward(layer, layer["W_xh"] @ below, s[l][t])
                s[l].append([np.where(y[t] < 0, 0.0, vector) for vector in after])
                kept[l].append(gates)
                below = self.output(l, t, s[l][t + 1][0]) + (below if self.skip and l > 0 else 0.0)
            o = w["output", "W_qh"] @ below + w["output", "b_q"][:, None]
            top = o.max(axis=0)
            log_p.append(o - top - np.log(np.exp(o - top).sum(axis=0)))
        return s, kept, log_p

    def passed(self, s, l, t):
        """What layer l passes upwards at time step t: with skip connections the sum of all layers up to it."""
        return sum(self.output(k, t, s[k][t + 1][0]) for k in range(0 if self.skip else l, l + 1))

    def changes(self, s, y, scored):
        """h_t - h_{t-1} of the top layer, zero where there is no loss."""
        return [(s[-1][t + 1][0] - s[-1][t][0]) * ((y[t] >= 0) & (t >= scored)) for t in range(len(y))]

    def minimised(self, x, y, state, scored=0):
        """The sum whose gradient `gradients` is."""
        e, alpha, beta = self.how.smoothing, self.how.alpha, self.how.beta
        if (e, alpha, beta) == (0.0, 0.0, 0.0):
            return self.loss(x, y, state, scored)[0]
        s, _, log_p = self.forward(x, y, state)
        total = 0.0
        for t in range(scored, len(x)):
            out = self.passed(s, self.layers - 1, t)
            each = (1 - e) * log_p[t][y[t], np.arange(x.shape[1])] + e * log_p[t].mean(axis=0)
            total += (y[t] >= 0) @ (alpha * (out**2).mean(axis=0) - each)
        return total + beta * sum((change**2).sum() for change in self.changes(s, y, scored)) / self.H

    def loss(self, x, y, state, scored=0):
        """Sum of nats from step `scored` on, and the states after 0..T steps (T + 1, L, S, H, B)."""
        s, _, log_p = self.forward(x, y, state)
        columns = np.arange(x.shape[1])
        nats = -sum((y[t] >= 0) @ log_p[t][y[t], columns] for t in range(scored, len(x)))
        return nats, np.array(s).swapaxes(0, 1)

    def gradients(self, x, y, state, scored=0, xi=1.0):
        """Of what is minimised, the state at the beginning held constant."""
        w, layers, (T, B) = self.w, [self.layer(l) for l in range(self.layers)], x.shape
        s, kept, log_p = self.forward(x, y, state)
        d = {key: np.zeros_like(value) for key, value in w.items()}
        e, change = self.how.smoothing, self.changes(s, y, scored) + [0.0]
        future = [[np.zeros((self.H, B)) for _ in self.cell.state] for _ in layers]  # by the state, from the next step
        for t in reversed(range(T)):
            do = np.exp(log_p[t])
            do[y[t], np.arange(B)] -= 1.0 - e
            do = (do - e / self.V) * ((y[t] >= 0) & (t >= scored))
            out = self.passed(s, self.layers - 1, t)
            d["output", "W_qh"] += do @ out.T
            d["output", "b_q"] += do.sum(axis=1)
            above = w["output", "W_qh"].T @ do
            if t >= scored:
                above += 2 * self.how.alpha / self.H * out
            for l in reversed(range(self.layers)):
                g, layer = f"layer{l}", layers[l]
                ds = [xi * vector for vector in future[l]]
                ds[0] = self.output(l, t, above) + ds[0]
                if l == self.layers - 1:
                    ds[0] += 2 * self.how.beta / self.H * (change[t] - xi * change[t + 1])
                da, rest, future[l] = self.cell.backward(layer, s[l][t], s[l][t + 1], kept[l][t], ds)
                for name, value in rest.items():
                    d[g, name] += value * (self.how.weights(l, value.shape) if name == "W_hh" else 1.0)
                d[g, "b_h"] += da.sum(axis=1)
                d[g, "W_xh"] += da @ (self.passed(s, l - 1, t) if l > 0 else self.read(x[t], t)).T
                above = layer["W_xh"].T @ da + (above if self.skip and l > 0 else 0.0)
            if self.table is not None:
                above = above * self.how.embeddings(x[t], t, above.shape)
                for b in range(B):
                    d[self.table][x[t, b]] += above[:, b]
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
            self.train_tokens = int(file["provenance"].attrs["train_tokens"])
            self.tokens = {token: i for i, token in enumerate(file["vocab/token"].asstr()[...])}
            self.weights = tensors(file["weights"])
            self.moments = {m: tensors(file["optimizer"][m]) for m in ("velocity", "first", "second") if f"optimizer/{m}" in file}
            self.average = tensors(file["average"]) if "average" in file else {}
            cell = cell_of(self.config.get("cell", "rnn"), self.config["activation"])
            self.model = Model(self.weights, cell, self.config.get("tied", 0) == 1, self.config.get("skip", 0) == 1)
            self.carried = None
            if "state/h" in file:
                vectors = [file["state"][name][...].astype(float) for name in cell.state]  # (L, B, H)
                self.carried = np.stack(vectors, axis=1).swapaxes(2, 3)
            if len(file["metrics/valid/step"]) > 0:
                self.valid_step, self.valid_loss = (file["metrics/valid"][name][-1] for name in ("step", "loss"))
            self.metrics = {name: column[...] for name, column in file["metrics/train"].items()}

    def line_end(self):
        names = {"byte": None, "char": "\\x0a", "word": "<eos>"}
        return self.tokens.get(names[self.config["level"]], 10)

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


def sequences(tokens, line_end, kind):
    """Lines, each with its line end, or paragraphs, each with the empty lines behind it."""
    found, before = [], [line_end, line_end]
    for token in tokens:
        starts = before[1] == line_end if kind == "line" else before == [line_end] * 2 and token != line_end
        if starts or not found:
            found.append([])
        found[-1].append(token)
        before = [before[1], token]
    return found


def batch_of(found, B, k, line_end):
    """Sequence k of each of B rows of consecutive sequences, read after a line end: x and y (T, B)."""
    starts = [len(found) // B * b + len(found) % B * b // B for b in range(B + 1)]
    chosen = [found[starts[b] + k] if starts[b] + k < starts[b + 1] else [] for b in range(B)]
    T = max(len(one) for one in chosen)
    y = np.array([one + [-1] * (T - len(one)) for one in chosen]).T
    x = np.array([([line_end] + one + [line_end] * T)[:T] for one in chosen]).T
    return x, y


# -------------------------------------------------------------------- checks


def random_model(rng, V, H, L, cell, E=0):
    G = cell.blocks
    shapes = {("output", "W_qh"): (V, H), ("output", "b_q"): (V,)}
    if E > 0:
        shapes["input", "W_xe"] = (V, E)
    for l in range(L):
        layer = {"W_xh": (G * H, H if l > 0 else E or V), **cell.recurrent(H), "b_h": (G * H,)}
        shapes.update({(f"layer{l}", name): shape for name, shape in layer.items()})
    return Model({key: rng.uniform(-0.6, 0.6, shape) for key, shape in shapes.items()}, cell)


def check_differences(model, x, y, state, scored, what):
    d = model.gradients(x, y, state, scored)
    for key, value in model.w.items():
        for i in np.ndindex(value.shape):
            before = value[i]
            value[i] = before + 1e-6
            up = model.minimised(x, y, state, scored)
            value[i] = before - 1e-6
            down = model.minimised(x, y, state, scored)
            value[i] = before
            check(abs((up - down) / 2e-6 - d[key][i]) < 1e-6, f"own gradient {key} {i}, {what}")


def check_cuts(model, x, y, state, pi, what):
    """The mean over all cuts of the gradients of the pieces, with xi = 1 / pi inside them, is the full gradient."""
    T, full = len(x), model.gradients(x, y, state)
    mean = {key: np.zeros_like(value) for key, value in full.items()}
    states = model.loss(x, y, state)[1]
    for cuts in range(1 << (T - 1)):
        ends = [t for t in range(1, T) if cuts >> (t - 1) & 1] + [T]
        probability = (1.0 - pi) ** (len(ends) - 1) * pi ** (T - len(ends))
        for start, end in zip([0] + ends, ends):
            for key, value in model.gradients(x[start:end], y[start:end], states[start], 0, 1.0 / pi).items():
                mean[key] += probability * value
    for key, value in full.items():
        check(np.abs(mean[key] - value).max() < 1e-10, f"own gradient over all cuts, {key}, {what}")


def check_gates():
    """With its gates held open or shut by their biases a cell does what its equations say, which tells their order."""
    rng = np.random.default_rng(2)
    u, (h, c) = rng.uniform(-1.0, 1.0, (12, 3)), rng.uniform(-1.0, 1.0, (2, 3, 3))
    shut, half, one = np.full(3, -1e3), np.zeros(3), np.full(3, 1e3)

    def step(name, *biases, **others):
        """The state after, and the gradient of the sum of its last vector by the state before."""
        cell = cell_of(name, "tanh")
        w = {tensor: np.zeros(shape) for tensor, shape in cell.recurrent(3).items()}
        w.update(others, b_h=np.concatenate(biases))
        before, d = ([h, c], [np.zeros((3, 3)), np.ones((3, 3))]) if name == "lstm" else ([h], [np.ones((3, 3))])
        after, kept = cell.forward(w, u[: 3 * cell.blocks], before)
        return after, cell.backward(w, before, after, kept, d)[2]

    (_, kept), past = step("lstm", shut, one, half, half)
    check(np.array_equal(kept, c) and np.array_equal(past[1], np.ones_like(c)), "lstm: f = 1, i = 0 keeps c and its gradient")
    (written, new), past = step("lstm", one, shut, half, one)
    check(np.array_equal(new, np.tanh(u[6:9])), "lstm: f = 0, i = 1 makes c new")
    check(np.array_equal(written, np.tanh(new)) and not past[1].any(), "lstm: o = 1 writes c, f = 0 cuts it off")
    (kept,), past = step("gru", half, one, half)
    check(np.array_equal(kept, h) and np.array_equal(past[0], np.ones_like(h)), "gru: z = 1 keeps h and its gradient")
    (new,), past = step("gru", half, shut, half)
    check(np.array_equal(new, np.tanh(u[6:9])) and not past[0].any(), "gru: z = 0 makes h new")
    back = {"W_hh": np.concatenate([np.zeros((6, 3)), np.eye(3)]), "b_hn": np.full(3, 0.25)}  # W_hn h + b_hn = h + 0.25
    (new,), past = step("gru", shut, shut, half, **back)
    check(np.array_equal(new, np.tanh(u[6:9])) and not past[0].any(), "gru: r = 0 stops W_hn h + b_hn, but not b_n")
    (new,), _ = step("gru", one, shut, half, **back)
    check(np.allclose(new, np.tanh(u[6:9] + h + 0.25), rtol=1e-14), "gru: r = 1 lets it through")
    (kept,), past = step("mingru", shut, half)
    check(np.array_equal(kept, h) and np.array_equal(past[0], np.ones_like(h)), "mingru: z = 0 keeps h and its gradient")
    (new,), past = step("mingru", one, half)
    check(np.array_equal(new, u[3:6]) and not past[0].any(), "mingru: z = 1 makes h new")


def check_self():
    """The oracle is trusted only after its own gradients are."""
    rng = np.random.default_rng(1)
    check_gates()
    for L in (1, 2, 3):
        for name, activation in [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh"), ("gru", "tanh"), ("mingru", "tanh")]:
            if L == 3 and name != "lstm":  # a layer between others: one cell tells
                continue
            what = f"L {L}, {name}, {activation}"
            model = random_model(rng, 4, 3, L, cell_of(name, activation), 2 * (L - 1))
            x, y = rng.integers(0, 4, (2, 6, 3))
            state = rng.uniform(0.0, 1.0, model.zero_state(3).shape)
            check_differences(model, x, y, state, 0, what)
            check_differences(model, x, y, state, 4, what + ", the last two losses")
            check_cuts(model, x[:5], y[:5], state, 0.3, what)
            y[2:, 1], y[5:, 2] = -1, -1
            check_differences(model, x, y, state, 0, what + ", of unequal lengths")
            if L == 2:
                options = {"label_smoothing": 0.1, "penalty_activation": 2, "penalty_change": 1}
                model.how = Regularisation(options)
                check_cuts(model, x[:3], y[:3], state, 0.3, what + ", regularised")
                masks = dict.fromkeys(("dropout", "dropout_embedding", "dropout_words", "dropout_weights"), 0.3)
                model.how = Regularisation({**options, **masks})
                check_differences(model, x[1:5], y[1:5], state, 1, what + ", regularised")
                model.skip = True
                check_differences(model, x[1:4], y[1:4], state, 0, what + ", regularised, skip connections")


def check_eval(path, text, streams, said):
    run = Run(path)
    x, y = windows(run.encode(text), streams)
    nats, _ = run.model.loss(x, y, run.model.zero_state(streams))
    loss = nats / x.size
    check(abs(said / loss - 1.0) < 1e-5, f"{path}: loss {said}, the oracle says {loss}")
    print(f"loss {said:.9f}, oracle {loss:.9f}, relative difference {said / loss - 1.0:.1e}")


def check_adapted(path, text, said, rate, decay, steps, cache, theta, lam):
    """Krause et al. 2018, SGD with decay; Grave et al. 2017, the whole distribution for each token."""
    run = Run(path)
    model, trained = run.model, dict(run.model.w)
    x, y = windows(run.encode(text), 1)
    state, pairs, nats = model.zero_state(1), [], 0.0
    for first in range(0, len(x), steps):
        wx, wy = x[first : first + steps], y[first : first + steps]
        s, _, log_p = model.forward(wx, wy, state)
        for t in range(len(wx)):
            h, p = s[-1][t + 1][0][:, 0], np.exp(log_p[t][:, 0])
            if pairs:
                weight = np.array([theta * (h @ other) for other, _ in pairs])
                weight = np.exp(weight - weight.max())
                of_cache = np.zeros(model.V)
                np.add.at(of_cache, [token for _, token in pairs], weight / weight.sum())
                p = (1.0 - lam) * p + lam * of_cache
            assert abs(p.sum() - 1.0) < 1e-12
            nats -= np.log(p[wy[t, 0]])
            pairs = (pairs + [(h, wy[t, 0])])[-cache:] if cache > 0 else []
        if rate > 0.0:
            d = model.gradients(wx, wy, state)
            for key, w in model.w.items():
                model.w[key] = w + decay * (trained[key] - w) - rate * d[key] / len(wx)
        state = np.array(s).swapaxes(0, 1)[-1]
    loss = nats / x.size
    check(abs(said / loss - 1.0) < 1e-5, f"{path}: adapted loss {said}, the oracle says {loss}")
    print(f"adapted loss {said:.9f}, oracle {loss:.9f}, relative difference {said / loss - 1.0:.1e}")


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
    _, _, log_p = a.model.forward(X, Y, a.model.zero_state(n))
    losses = -sum(lp[Y[t], starts] for t, lp in enumerate(log_p)) / T
    return int(np.abs(losses - b.metrics["loss"][-1]).argmin())


class Piece:
    """What the update between two run files covers: x, y (T, B), losses from `scored` on, the state to begin with and
    after how many steps it is carried on, the weight of each loss."""

    def __init__(self, a, b, text):
        config, k = a.config, int(a.state["window"])
        T, B, strategy = int(config["steps"]), int(config["batch"]), config["bptt"]
        offset, self.rate = 0, 1.0
        tokens, line_end = a.encode(text), a.line_end()
        self.scored, self.xi, begin, scale = 0, 1.0, 0, None
        if config["sequences"] != "stream":
            x, y = batch_of(sequences(tokens.tolist(), line_end, config["sequences"]), B, k, line_end)
            T = self.advance = len(x)
        else:
            x, y = windows(tokens, B)
            if strategy == "full":
                T = self.advance = len(x)
            elif strategy == "randomized":  # how long the piece is, the count of tokens tells
                begin, scale, self.xi = int(a.state["position"]), 1.0 / (T * B), T / max(1.0, T - 1.0)
                T = self.advance = (int(b.state["tokens"]) - int(a.state["tokens"])) // B
            elif config.get("windows") == "random":  # here too
                begin, self.rate = int(a.state["position"]), 1 / T
                T = self.advance = (int(b.state["tokens"]) - int(a.state["tokens"])) // B
                self.rate *= T
            elif config["partition"] == "random":
                begin, self.advance = find_window(a, b, x, y), T
            else:
                stride, look_back = int(config["stride"]), T
                begin, after = (max(0, i * stride - look_back) for i in (k + 1, k + 2))
                T, self.advance = (k + 1) * stride - begin, after - begin
                self.scored = T - stride
            if config.get("offset") == "random":
                draw = int(bits(int(config["seed"]), 2, int(a.state["epoch"]), [0])[0])
                offset = draw * min(int(config["steps"]), len(x) - int(config["steps"]) + 1) >> 64
        self.x, self.y = x[offset + begin :][:T], y[offset + begin :][:T]
        carried = begin > 0 and config["partition"] == "sequential"
        self.state = a.carried if carried else np.zeros_like(a.carried)
        self.tokens = (self.y[self.scored :] >= 0).sum()
        self.scale = 1.0 / self.tokens if scale is None else scale


def check_step(before, after, text):
    a, b = Run(before), Run(after)
    config, model, p = a.config, a.model, Piece(a, b, text)
    eta, theta = config["lr"] * p.rate, config["clip"]
    model.how = Regularisation(config, int(a.state["updates"]) + 1)
    check(b.state["step"] == a.state["step"] + 1, "the run files are one step apart")
    check(b.state["tokens"] == a.state["tokens"] + p.tokens, "tokens with a loss")

    nats, states = model.loss(p.x, p.y, p.state, p.scored)
    gradients = model.gradients(p.x, p.y, p.state, p.scored, p.xi)
    loss, g = nats / p.tokens, {key: value * p.scale for key, value in gradients.items()}
    norm = np.sqrt(sum((value**2).sum() for value in g.values()))
    scale = theta / norm if 0 < theta < norm else 1.0

    row = {name: column[-1] for name, column in b.metrics.items()}
    check(abs(row["loss"] / loss - 1.0) < 1e-5, f"loss {row['loss']}, oracle {loss}")
    check(abs(row["grad_norm"] / norm - 1.0) < 1e-5, f"grad_norm {row['grad_norm']}, oracle {norm}")
    check(abs(row["clip_scale"] / scale - 1.0) < 1e-5, f"clip_scale {row['clip_scale']}, oracle {scale}")
    close("carried state", b.carried, states[p.advance], np.ones(1))

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
        new = (1 - eta * config["weight_decay"]) * w - eta * step
        close(f"weights {key}", b.weights[key], new, eta * step)
        if config["average"] != "off":
            n = int(b.state["averaged"])
            share = 1 / n if config["average"] == "asgd" else max(10 / (n + 9), 1 - config["average_decay"])
            average = a.average.get(key, np.zeros_like(w))
            close(f"average {key}", b.average[key], (1 - share) * average + share * new, eta * step)
    print(f"{after}: {len(p.x)} steps, loss {row['loss']:.6f}, norm {norm:.4f}, clip factor {scale:.4f}")


def check_valid(path, text):
    """Each line or paragraph by itself, from the zero state."""
    run = Run(path)
    tokens, line_end = run.encode(text).tolist(), run.line_end()
    nats = 0.0
    for one in sequences(tokens, line_end, run.config["sequences"]):
        x, y = batch_of([one], 1, 0, line_end)
        nats += run.model.loss(x, y, run.model.zero_state(1))[0]
    loss = nats / len(tokens)
    check(run.valid_step == run.state["step"], "the last validation is of the weights in the file")
    check(abs(run.valid_loss / loss - 1.0) < 1e-5, f"{path}: validation {run.valid_loss}, oracle {loss}")
    print(f"validation {run.valid_loss:.9f}, oracle {loss:.9f}")


def run(command, *arguments):
    """The status."""
    global failures
    failures = 0
    if command == "self":
        check_self()
    elif command == "eval":
        check_eval(arguments[0], arguments[1], int(arguments[2]), float(arguments[3]))
    elif command == "adapt":
        check_adapted(*arguments[:2], *map(float, arguments[2:5]), *map(int, arguments[5:7]), *map(float, arguments[7:]))
    elif command == "step":
        check_step(*arguments)
    elif command == "valid":
        check_valid(*arguments)
    else:
        check(False, f"no command {command}")
    return 1 if failures else 0


def serve():
    """Commands from standard input, each answered by what it prints and a line `status N`."""
    for line in sys.stdin:
        try:
            status = run(*line.split())
        except Exception:
            traceback.print_exc(file=sys.stdout)
            status = 1
        print(f"status {status}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        sys.exit(run(*sys.argv[1:]))
