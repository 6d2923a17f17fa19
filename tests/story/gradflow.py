"""Gradient flow against NumPy, and its file against the documented schema.

    gradflow.py measure RUN TEXT JSON FLOW   all numbers again from the weights and the text
    gradflow.py schema FLOW                  the tables of src/runfile/README.md, in both directions
    gradflow.py gates RUN JSON FLOW          spectra of the blocks of W_hh of a gated cell; norms in JSON and file alike
    gradflow.py construct RUN SCALE          make W_hh SCALE times a rotation of the units, ReLU in its linear region
    gradflow.py verdict JSON SCALE VERDICT   what is said of that model
    gradflow.py along RUN TEXT               the last row of a run's /diagnostics, measured on TEXT
    gradflow.py last RUN FLOW                is, bit for bit, what a file of `unroll gradflow` says of that run
"""

import json
import math
import sys

import h5py
import numpy as np

import open_with_tools as tools


# -------------------------------------------------------------- an independent model


def read_model(path):
    with h5py.File(path, "r") as file:
        config = file["config"].attrs
        assert tools.text_attribute(file["config"], "level") == "char"
        index = {chr(c): i for i, c in enumerate(file["vocab/code"][:]) if c >= 0}
        layers = [{k: v[:].astype(float) for k, v in file[f"weights/layer{l}"].items()} for l in range(config["layers"])]
        output = {k: v[:].astype(float) for k, v in file["weights/output"].items()}
        relu = tools.text_attribute(file["config"], "activation") == "relu"
    return layers, output, relu, index


def states(layers, relu, tokens):
    """h[t][l] from the zero state."""
    h, before = [], [np.zeros(len(layer["b_h"])) for layer in layers]
    for token in tokens:
        now, x = [], None
        for layer, last in zip(layers, before):
            below = layer["W_xh"][:, token] if x is None else layer["W_xh"] @ x
            a = below + layer["W_hh"] @ last + layer["b_h"]
            x = np.maximum(a, 0) if relu else np.tanh(a)
            now.append(x)
        h.append(now)
        before = now
    return h


def norms(layers, output, relu, tokens, K):
    """|dl_t/dh^l_{t-k}| (L, K + 1), and the mean of phi'(a) (L): from the full vector of all layers' states."""
    h = states(layers, relu, tokens[:-1])
    L, H = len(layers), len(layers[0]["b_h"])
    o = output["W_qh"] @ h[-1][-1] + output["b_q"]
    p = np.exp(o - o.max())
    p /= p.sum()
    p[tokens[-1]] -= 1
    from_loss = output["W_qh"].T @ p
    result, slopes = np.zeros((L, K + 1)), np.zeros(L)
    from_future = np.zeros((L, H))
    for k in range(K + 1):
        above = from_loss if k == 0 else np.zeros(H)
        for l in reversed(range(L)):
            state = h[-1 - k][l]
            slope = (state > 0) * 1.0 if relu else 1 - state**2
            dh = from_future[l] + above
            result[l, k] = np.linalg.norm(dh)
            slopes[l] += slope.mean() / (K + 1)
            above = layers[l]["W_xh"].T @ (dh * slope)
            from_future[l] = layers[l]["W_hh"].T @ (dh * slope)
    return result, slopes


def lyapunov(layers, relu, windows, K):
    """ln of the largest singular value of the product of the last K Jacobians, per step: an upper bound."""
    total = np.zeros(len(layers))
    for tokens in windows:
        h = states(layers, relu, tokens[:-1])
        for l, layer in enumerate(layers):
            product, scale = np.eye(len(layer["b_h"])), 0.0
            for now in h[-K:]:
                slope = (now[l] > 0) * 1.0 if relu else 1 - now[l] ** 2
                product = slope[:, None] * (layer["W_hh"] @ product)
                size = np.linalg.norm(product)
                product, scale = product / size, scale + math.log(size)
            total[l] += (scale + math.log(np.linalg.norm(product, 2))) / K / len(windows)
    return total


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


def measure(run, text, report, flow):
    layers, output, relu, index = read_model(run)
    with open(text, encoding="utf-8") as f:
        tokens = [index.get(c, 0) for c in f.read()]
    with open(report, encoding="utf-8") as f:
        said = json.load(f)
    N, n, K, context = len(tokens), said["positions"], said["lags"], said["context"]
    assert said["tokens"] == N and said["unknown"] == tokens.count(0) > 0 and len(said["layers"]) == len(layers)

    T = context + K + 1
    starts = [(N - 1 - T) * i // (n - 1) for i in range(n)]
    windows = [tokens[start : start + T + 1] for start in starts]
    both = [norms(layers, output, relu, window, K) for window in windows]
    all_norms = np.array([norm for norm, _ in both])
    slopes = np.mean([slope for _, slope in both], axis=0)
    exponents = lyapunov(layers, relu, windows, K)

    for l, layer in enumerate(said["layers"]):
        x = all_norms[:, l, :]
        assert layer["layer"] == l
        close("mean", layer["norm_mean"], x.mean(axis=0), 1e-4)
        for name, q in (("norm_q10", 0.1), ("norm_q50", 0.5), ("norm_q90", 0.9)):
            close(name, layer[name], np.quantile(x, q, axis=0), 1e-4)
        assert np.allclose(layer["norm_log10"], np.log10(x).mean(axis=0), atol=1e-4)
        close("derivative", layer["derivative"], slopes[l], 1e-5)
        check_spectrum(layer, layers[l]["W_hh"])
        # the tangent has turned to the fastest direction, but for a little
        assert exponents[l] - 0.15 < layer["lyapunov"] <= exponents[l] + 1e-4, (layer["lyapunov"], exponents[l])
        assert layer["lyapunov"] <= math.log(layer["spectral_norm"])
        mean = x.mean(axis=0)
        for key, part in (("half_lag", 0.5), ("percent_lag", 0.01)):
            below = np.flatnonzero(mean <= part * mean[0])
            assert layer[key] == (below[0] if len(below) else None), (key, layer[key])
        left = mean[K] / mean[0]
        assert layer["verdict"] == ("vanishing" if left < 0.01 else "exploding" if left > 100 else "stable")

    with h5py.File(flow, "r") as file:
        group = file["diagnostics"]
        for key in ("positions", "lags", "context", "tokens", "unknown", "step"):
            assert group.attrs[key] == said[key], key
        for l, layer in enumerate(said["layers"]):
            for key, value in layer.items():
                if key == "verdict":
                    value = value.encode()
                stored = group[key][l]
                assert np.array_equal(stored, -1 if value is None else value), key
        with h5py.File(run, "r") as source:
            assert group.attrs["step"] == source["state"].attrs["step"]


def gates(run, report, flow):
    """Spectra of each block of W_hh, by its letter, in JSON and file."""
    with open(report, encoding="utf-8") as f:
        said = json.load(f)["layers"]
    with h5py.File(run, "r") as file, h5py.File(flow, "r") as written:
        cell, group = tools.text_attribute(file["config"], "cell"), written["diagnostics"]
        letters = {"lstm": "ifgo", "gru": "rzn", "mingru": ""}[cell]
        spectra = ("eigenvalue_re", "eigenvalue_im", "singular_value", "spectral_radius", "spectral_norm")
        assert ("block" in group) == bool(letters) and ("norm_c_mean" in group) == (cell == "lstm")
        for l, layer in enumerate(said):
            for name in spectra:
                assert (name in layer) == (name in group) == bool(letters), name
            for k, letter in enumerate(letters):
                assert group["block"].asstr()[k] == letter
                H = file["weights/output/W_qh"].shape[1]
                W = file[f"weights/layer{l}/W_hh"][k * H : (k + 1) * H].astype(float)
                check_spectrum({name: layer[name][letter] for name in spectra}, W)
                for name in spectra:
                    assert np.array_equal(group[name][l, k], layer[name][letter]), name
            for name in [name for name in layer if name.startswith("norm_")]:
                x = [-math.inf if value is None else value for value in layer[name]]
                assert np.array_equal(group[name][l], x), name


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
    layers, output, relu, index = read_model(run)
    with open(text, encoding="utf-8") as f:
        tokens = [index.get(c, 0) for c in f.read()]
    with h5py.File(run, "r") as file:
        B, S = (int(file["config"].attrs[name]) for name in ("batch", "shards"))
        n, K, context = (int(file["diagnostics"].attrs[name]) for name in ("positions", "lags", "context"))
        group = {name: node[-1] for name, node in file["diagnostics"].items() if name not in ("layer", "lag", "mode")}
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
    both = [norms(layers, output, relu, window, K) for window in windows]
    all_norms = np.array([norm for norm, _ in both])
    for l, layer in enumerate(layers):
        x = all_norms[:, l, :]
        close("mean", group["norm_mean"][l], x.mean(axis=0), 1e-4)
        for name, q in (("norm_q10", 0.1), ("norm_q50", 0.5), ("norm_q90", 0.9)):
            close(name, group[name][l], np.quantile(x, q, axis=0), 1e-4)
        close("derivative", group["derivative"][l], np.mean([slope[l] for _, slope in both]), 1e-5)
        check_spectrum({name: column[l] for name, column in group.items() if name != "step"}, layer["W_hh"])
        left = x.mean(axis=0)[K] / x.mean(axis=0)[0]
        assert group["verdict"][l] == (b"vanishing" if left < 0.01 else b"exploding" if left > 100 else b"stable")


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
    elif what == "gates":
        gates(*words)
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
