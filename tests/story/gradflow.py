"""Gradient flow against NumPy, and its file against the documented schema.

    gradflow.py measure RUN TEXT JSON FLOW   all numbers again from the weights and the text
    gradflow.py schema FLOW                  the tables of src/runfile/README.md, in both directions
    gradflow.py construct RUN SCALE          make W_hh SCALE times a rotation of the units, ReLU in its linear region
    gradflow.py verdict JSON SCALE VERDICT   what is said of that model
    gradflow.py along RUN TEXT               the last row of a run's /diagnostics, measured on TEXT
    gradflow.py last RUN FLOW                is, bit for bit, what a file of `unroll gradflow` says of that run
"""

import json
import math
import os
import sys
from dataclasses import dataclass

import h5py
import numpy as np

import open_with_tools as tools

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "oracle"))
import cells


# -------------------------------------------------------------- an independent model


@dataclass
class Model:
    layers: list  # {name: tensor} of each
    output: dict
    cell: object  # of oracle/cells.py
    index: dict  # of characters

    def tokens(self, path):
        with open(path, encoding="utf-8") as f:
            return np.array([self.index.get(c, 0) for c in f.read()])


def read_model(path):
    with h5py.File(path, "r") as file:
        config = file["config"].attrs
        assert tools.text_attribute(file["config"], "level") == "char"
        index = {chr(c): i for i, c in enumerate(file["vocab/code"][:]) if c >= 0}
        layers = [{k: v[:].astype(float) for k, v in file[f"weights/layer{l}"].items()} for l in range(config["layers"])]
        output = {k: v[:].astype(float) for k, v in file["weights/output"].items()}
        cell = cells.cell_of(*(tools.text_attribute(file["config"], name) for name in ("cell", "activation")))
    return Model(layers, output, cell, index)


def states(model, tokens):
    """Of tokens (T, n): s[t][l], the state after t = 0..T steps from zero, vectors (H, n), and what the cells kept."""
    zero = np.zeros((model.output["W_qh"].shape[1], tokens.shape[1]))
    s, kept = [[[zero for _ in model.cell.state] for _ in model.layers]], []
    for now in tokens:
        below, after, gates = None, [], []
        for layer, before in zip(model.layers, s[-1]):
            u = layer["W_xh"][:, now] if below is None else layer["W_xh"] @ below
            state, saved = model.cell.forward(layer, u, before)
            after.append(state)
            gates.append(saved)
            below = state[0]
        s.append(after)
        kept.append(gates)
    return s, kept


def derivative(cell, state, kept):
    """What the state's own unit hands on: phi'(a), or the factor of a gated state past the product."""
    if isinstance(cell, cells.Rnn):
        return cell.slope(state[0])
    return 1 - kept[0] if isinstance(cell, cells.MinGru) else kept[1]  # f of an LSTM, z of a GRU


def norms(model, windows, K):
    """|dl_t/dh^l_{t-k}|, and by c, (S, L, K + 1, n), and the mean derivative (L), of windows (n, T + 1)."""
    layers, n = model.layers, len(windows)
    s, kept = states(model, windows[:, :-1].T)
    o = model.output["W_qh"] @ s[-1][-1][0] + model.output["b_q"][:, None]
    p = np.exp(o - o.max(axis=0))
    p /= p.sum(axis=0)
    p[windows[:, -1], np.arange(n)] -= 1
    result, slopes = np.zeros((len(model.cell.state), len(layers), K + 1, n)), np.zeros(len(layers))
    future = [[np.zeros_like(vector) for vector in state] for state in s[0]]  # by the state, from the step behind
    for k in range(K + 1):
        t = len(kept) - 1 - k
        above = model.output["W_qh"].T @ p if k == 0 else 0.0
        for l in reversed(range(len(layers))):
            d = [above + future[l][0], *future[l][1:]]
            result[:, l, k] = np.linalg.norm(d, axis=1)
            slopes[l] += derivative(model.cell, s[t + 1][l], kept[t][l]).mean() / (K + 1)
            da, _, future[l] = model.cell.backward(layers[l], s[t][l], s[t + 1][l], kept[t][l], d)
            above = layers[l]["W_xh"].T @ da
    return result, slopes


def jacobian(cell, layer, before, after, kept):
    """Of the whole state after a step by that before it, all of one sequence: backward of each unit, a row each."""
    size = len(cell.state) * len(after[0])
    wide = lambda vectors: [np.repeat(vector, size, axis=1) for vector in vectors or ()]
    _, _, d = cell.backward(layer, wide(before), wide(after), wide(kept), np.split(np.eye(size), len(cell.state)))
    return np.concatenate(d).T


def lyapunov(model, windows, K):
    """ln of the largest singular value of the product of the last K Jacobians, per step: an upper bound."""
    total = np.zeros(len(model.layers))
    for window in windows:
        s, kept = states(model, window[:-1, None])
        for l, layer in enumerate(model.layers):
            product, scale = np.eye(len(model.cell.state) * len(s[0][l][0])), 0.0
            for t in range(len(kept) - K, len(kept)):
                product = jacobian(model.cell, layer, s[t][l], s[t + 1][l], kept[t][l]) @ product
                size = np.linalg.norm(product)
                product, scale = product / size, scale + math.log(size)
            total[l] += (scale + math.log(np.linalg.norm(product, 2))) / K / len(windows)
    return total


# ------------------------------------------------------------------ comparison

SPECTRA = ("eigenvalue_re", "eigenvalue_im", "singular_value", "spectral_radius", "spectral_norm")


def close(what, a, b, tolerance):
    a, b = np.asarray(a, float), np.asarray(b, float)
    worst = np.max(np.abs(a - b) / np.maximum(np.abs(b), 1e-300))
    assert a.shape == b.shape and worst < tolerance, f"{what}: {worst} of the value"


def check_spectrum(layer, W):
    eigenvalues = np.array(layer["eigenvalue_re"]) + 1j * np.array(layer["eigenvalue_im"])
    modulus = np.abs(eigenvalues)
    assert np.all(np.diff(modulus) <= 0)
    expected = np.linalg.eigvals(W)
    # each is found once: the sets agree as pairs of nearest values, and in all symmetric functions of first order
    distance = np.abs(eigenvalues[:, None] - expected[None, :])
    assert sorted(distance.argmin(axis=1)) == list(range(len(W))) and distance.min(axis=1).max() < 1e-10
    close("sum of eigenvalues", eigenvalues.sum().real, np.trace(W), 1e-9)
    close("singular values", layer["singular_value"], np.linalg.svd(W, compute_uv=False), 1e-10)
    close("radius", layer["spectral_radius"], np.abs(expected).max(), 1e-11)
    close("norm", layer["spectral_norm"], np.linalg.norm(W, 2), 1e-11)


def check_spectra(said, model, l):
    """Of W_hh, or of each of its blocks by the letter of its gate."""
    W = model.layers[l].get("W_hh")
    letters = {cells.Lstm: "ifgo", cells.Gru: "rzn"}.get(type(model.cell))
    for name in SPECTRA:
        assert (name in said) == (W is not None), name
        assert letters is None or list(said[name]) == list(letters), name
    if letters is not None:
        for letter, block in zip(letters, np.split(W, len(letters))):
            check_spectrum({name: said[name][letter] for name in SPECTRA}, block)
    elif W is not None:
        check_spectrum(said, W)


def check_norms(said, x):
    """The curves of h, and of c, from their norms (S, K + 1, n), and what is said of the whole state."""
    assert ("norm_c_mean" in said) == (len(x) == 2)
    for prefix, one in zip(("norm_", "norm_c_"), x):
        close(prefix + "mean", said[prefix + "mean"], one.mean(axis=1), 1e-4)
        for name, q in (("q10", 0.1), ("q50", 0.5), ("q90", 0.9)):
            close(prefix + name, said[prefix + name], np.quantile(one, q, axis=1), 1e-4)
        with np.errstate(divide="ignore"):
            logs = np.log10(one).mean(axis=1)
        found = [-math.inf if value is None else value for value in said[prefix + "log10"]]
        assert np.allclose(found, logs, atol=1e-4), prefix + "log10"

    whole = np.sqrt((x**2).sum(axis=0))
    mean, logs, K = whole.mean(axis=1), np.log(whole).mean(axis=1), len(whole) - 1
    close("growth", said["growth"], math.exp((logs[K] - logs[K // 2]) / (K - K // 2)), 1e-4)
    for key, part in (("half_lag", 0.5), ("percent_lag", 0.01)):
        below = np.flatnonzero(mean <= part * mean[0])
        assert said[key] == (below[0] if len(below) else None), (key, said[key])
    left = mean[K] / mean[0]
    assert said["verdict"] == ("vanishing" if left < 0.01 else "exploding" if left > 100 else "stable")


def layer_of(group, l):
    """Layer l of the datasets of a file, as JSON says it."""
    letters = [letter.decode() for letter in group["block"][...]] if "block" in group else None
    said = {"layer": group["layer"][l]}
    for name in set(group) - {"layer", "lag", "block", "mode", "step"}:
        value = group[name][l]
        if name == "verdict":
            said[name] = value.decode()
        elif name in ("half_lag", "percent_lag"):
            said[name] = None if value == -1 else value
        elif name in SPECTRA and letters is not None:
            said[name] = {letter: one.tolist() for letter, one in zip(letters, value)}
        elif name.endswith("log10"):
            said[name] = [None if one == -math.inf else one for one in value]
        else:
            said[name] = value.tolist()
    return said


def measure(run, text, report, flow):
    model = read_model(run)
    tokens = model.tokens(text)
    with open(report, encoding="utf-8") as f:
        said = json.load(f)
    N, n, K, context = len(tokens), said["positions"], said["lags"], said["context"]
    assert said["tokens"] == N and said["unknown"] == np.sum(tokens == 0) > 0 and len(said["layers"]) == len(model.layers)

    T = context + K + 1
    starts = [(N - 1 - T) * i // (n - 1) for i in range(n)]
    windows = np.array([tokens[start : start + T + 1] for start in starts])
    x, slopes = norms(model, windows, K)
    exponents = lyapunov(model, windows, K)
    for l, layer in enumerate(said["layers"]):
        assert layer["layer"] == l
        check_norms(layer, x[:, l])
        check_spectra(layer, model, l)
        close("derivative", layer["derivative"], slopes[l], 1e-5)
        # the tangent has turned to the fastest direction, but for a little
        assert exponents[l] - 0.15 < layer["lyapunov"] <= exponents[l] + 1e-4, (layer["lyapunov"], exponents[l])
        if isinstance(model.cell, cells.Rnn):
            assert layer["lyapunov"] <= math.log(layer["spectral_norm"])

    with h5py.File(flow, "r") as file, h5py.File(run, "r") as source:
        group = file["diagnostics"]
        for key in ("positions", "lags", "context", "tokens", "unknown", "step"):
            assert group.attrs[key] == said[key], key
        for l, layer in enumerate(said["layers"]):
            assert layer == layer_of(group, l)
        assert group.attrs["step"] == source["state"].attrs["step"]


# --------------------------------------------------------------------------- schema


def schema(path):
    with open(tools.README, encoding="utf-8") as f:
        readme = f.read()
    table = [tools.Expected(*row) for row in tools.table_rows(readme, "### Datasets of gradient flow")]
    attributes = tools.table_rows(readme, "### Attributes of gradient flow")
    assert len(table) >= 19 and len(attributes) >= 12
    header = tools.run_tool(["ncdump", "-h", path])
    if header is not None:
        tools.check("phony_dim" not in header, "ncdump finds dimensions without a name")
        tools.check("norm_mean(layer, lag)" in header, "ncdump finds no norm_mean(layer, lag)")
    tools.run_tool(["ncdump", path])
    tools.run_tool(["h5dump", path])
    with h5py.File(path, "r") as file:
        found = {node.name for node in file["diagnostics"].values()}
        needed = {row.path for row in table if not row.optional}
        tools.check(needed <= found <= {row.path for row in table}, f"datasets {found ^ needed}")
        for row in [row for row in table if row.path in found]:
            tools.check_dataset(file[row.path], row, "float64")
        for group in ("/", "/diagnostics"):
            tools.check(tools.tracks_order(file[group]), f"{group} keeps no order")
        tools.check_attributes(file, attributes)
        tools.check_indices(file)
        tools.check_netcdf(path, file)
        tools.check(tools.text_attribute(file, "format") == "unroll-gradflow", "format")
        check_xarray(path, file)
    assert not tools.failures


# ------------------------------------------------------------------ along a training


def along(run, text):
    model = read_model(run)
    tokens = model.tokens(text)
    with h5py.File(run, "r") as file:
        B, S = (int(file["config"].attrs[name]) for name in ("batch", "shards"))
        n, K, context = (int(file["diagnostics"].attrs[name]) for name in ("positions", "lags", "context"))
        scales = ("layer", "lag", "mode", "block")
        group = {name: node[...] if name in scales else node[-1] for name, node in file["diagnostics"].items()}
        assert group["step"] == file["state"].attrs["step"]
    shard = (len(tokens) - 1) // B * B // S  # tokens predicted
    T = K + 1 + context
    assert n == 64 and T == min(129, shard) and K == min(64, T - 1), (n, K, context, shard)

    windows = []
    for i in range(n):
        start = (shard * S - T) * i // (n - 1)
        within = min(start % shard, shard - T)
        start = start // shard * shard + within
        windows.append(tokens[start : start + T + 1])
    x, slopes = norms(model, np.array(windows), K)
    for l in range(len(model.layers)):
        said = layer_of(group, l)
        check_norms(said, x[:, l])
        check_spectra(said, model, l)
        close("derivative", said["derivative"], slopes[l], 1e-5)


def last(run, flow):
    with h5py.File(run, "r") as a, h5py.File(flow, "r") as b:
        a, b = a["diagnostics"], b["diagnostics"]
        assert a["step"][-1] == b.attrs["step"] and set(a) == set(b) | {"step"}
        for name in ("positions", "lags", "context"):
            assert a.attrs[name] == b.attrs[name], name
        for name, node in b.items():
            x, y = a[name][...] if name in ("layer", "lag", "mode", "block") else a[name][-1], node[...]
            assert x.dtype == y.dtype and np.array_equal(x, y), name


def check_xarray(path, file):
    if not tools.importable("xarray") or not tools.importable("netCDF4"):
        return
    import xarray

    with xarray.open_dataset(path, group="diagnostics") as dataset:
        tools.check(dataset["norm_mean"].dims == ("layer", "lag"), "xarray: dimensions of norm_mean")
        tools.check(np.array_equal(dataset["norm_mean"].values, file["diagnostics/norm_mean"][...]), "xarray: norm_mean")


# --------------------------------------------------------------------- constructed


def construct(run, scale):
    """All inputs push all units alike, so that every state is positive; each unit feeds the next one."""
    with h5py.File(run, "r+") as file:
        assert tools.text_attribute(file["config"], "activation") == "relu"
        layer = file["weights/layer0"]
        H, V = layer["W_xh"].shape
        layer["W_hh"][...] = scale * np.roll(np.eye(H), 1, axis=0)
        layer["W_xh"][...] = 0.25 + 0.01 * np.arange(V)
        layer["b_h"][...] = 0.125
        file["weights/output/W_qh"][...] *= 2.0**-24  # grown states must not make the output certain


def verdict(report, scale, expected):
    with open(report, encoding="utf-8") as f:
        (layer,) = json.load(f)["layers"]
    K = len(layer["norm_mean"]) - 1
    assert layer["verdict"] == expected, layer["verdict"]
    close("growth", layer["growth"], scale, 1e-12)
    close("lyapunov", math.exp(layer["lyapunov"]), scale, 1e-12)
    close("radius", layer["spectral_radius"], scale, 1e-7)
    close("norm", layer["spectral_norm"], scale, 1e-12)
    close("norms", layer["norm_mean"], layer["norm_mean"][0] * scale ** np.arange(K + 1.0), 1e-12)
    assert layer["derivative"] == 1.0
    modulus = np.hypot(layer["eigenvalue_re"], layer["eigenvalue_im"])  # scale times the roots of unity
    close("eigenvalues", modulus, np.full(len(modulus), scale), 1e-12)
    assert (layer["half_lag"], layer["percent_lag"]) == ((1, 7) if scale == 0.5 else (None, None))


def main():
    what, words = sys.argv[1], sys.argv[2:]
    if what == "measure":
        measure(*words)
    elif what == "schema":
        schema(*words)
    elif what == "construct":
        construct(words[0], float(words[1]))
    elif what == "verdict":
        verdict(words[0], float(words[1]), words[2])
    elif what == "along":
        along(*words)
    elif what == "last":
        last(*words)
    else:
        sys.exit(__doc__)


main()
