"""What `unroll export` wrote of run.h5, in other tools than unroll.

    export.py safetensors FILE TEXT LOSS      NumPy: the tensors by the format's own description are those of the run
                                              file; PyTorch, where there is one: load_state_dict takes them; both have
                                              the loss that `unroll eval` said
    export.py onnx FILE TEXT SAMPLED          onnx.checker; step by step the logits of the oracle within 1e-5, and the
                                              text that `unroll sample --temperature 0` said, by NumPy and by onnxruntime;
                                              ends with 77 where there is no python3-onnx
    export.py csv FILE                        the table is /metrics of the run file
"""

import csv
import json
import os
import shutil
import struct
import subprocess
import sys

import h5py
import numpy as np

import rnn_numpy
from cells import cell_of
from rnn_numpy import check


def read_safetensors(path):
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header, values = json.loads(f.read(n)), f.read()
    metadata = header.pop("__metadata__")
    kinds = {"F32": np.float32, "F64": np.float64}
    tensors, end = {}, 0
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        check(begin == end, f"{name} begins at {begin}, the one before ends at {end}")
        tensors[name] = np.frombuffer(values[begin:stop], kinds[entry["dtype"]]).reshape(entry["shape"])
        end = stop
    check(end == len(values), f"{len(values)} bytes of values, {end} in the header")
    check(all(isinstance(text, str) for text in metadata.values()), "metadata are texts")
    return tensors, metadata


def model_of(tensors, config):
    """The oracle's model with weights by torch's names."""
    names = {"weight_ih": "W_xh", "weight_hh": "W_hh", "bias_ih": "b_h"}
    w = {("output", "W_qh"): tensors["out.weight"], ("output", "b_q"): tensors["out.bias"]}
    if config["tied"]:
        check(np.array_equal(tensors["embedding.weight"], tensors["out.weight"]), "the tied table is twice there")
    elif "embedding.weight" in tensors:
        w["input", "W_xe"] = tensors["embedding.weight"]
    H = tensors["out.weight"].shape[1]
    for name, value in tensors.items():
        if name.startswith("rnn."):
            kind, l = name[4:].rsplit("_l", 1)
            if kind in names:
                w[f"layer{l}", names[kind]] = value
            elif config["cell"] == "gru":
                w[f"layer{l}", "b_hn"] = value[2 * H :]
                check(not value[: 2 * H].any(), f"{name}: blocks r and z are in bias_ih")
            else:
                check(not value.any(), f"{name} is zero")
    w = {key: value.astype(float) for key, value in w.items()}
    return rnn_numpy.Model(w, cell_of(config["cell"], config["activation"]), config["tied"])


def check_torch(tensors, config, x, y, said):
    try:
        import torch
    except ImportError:
        print("without PyTorch: load_state_dict was not tried")
        return
    if config["cell"] == "mingru":
        return

    class Net(torch.nn.Module):
        def __init__(self, V, H):
            super().__init__()
            options = {"nonlinearity": config["activation"]} if config["cell"] == "rnn" else {}
            E = config["embedding"]
            if E > 0:
                self.embedding = torch.nn.Embedding(V, E)
            self.rnn = getattr(torch.nn, config["cell"].upper())(E or V, H, config["layers"], **options)
            self.out = torch.nn.Linear(H, V)

        def read(self, x):
            return self.embedding(x) if config["embedding"] > 0 else torch.nn.functional.one_hot(x, self.out.out_features).float()

    net = Net(*tensors["out.weight"].shape)
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
    with torch.no_grad():
        h, _ = net.rnn(net.read(torch.from_numpy(x)))
        logits = net.out(h).reshape(-1, net.out.out_features)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).flatten()).item()
    check(abs(loss - said) < 1e-5, f"loss {said}, PyTorch says {loss}")


def check_safetensors(path, text, said):
    tensors, metadata = read_safetensors(path)
    config = json.loads(metadata["config"])
    run = rnn_numpy.Run("run.h5")
    with h5py.File("run.h5") as file:
        check(json.loads(metadata["step"]) == file["state"].attrs["step"], "step")
        check(json.loads(metadata["token"]) == list(file["vocab/token"].asstr()[:]), "vocabulary")
        check(json.loads(metadata["code"]) == file["vocab/code"][:].tolist(), "codes")
    model = model_of(tensors, config)
    check(set(model.w) == set(run.weights), f"tensors {sorted(model.w)}")
    for key, value in run.weights.items():
        check(np.array_equal(model.w[key], value), f"{key} differs")
    x, y = rnn_numpy.windows(run.encode(text), 1)
    nats, _ = model.loss(x, y, model.zero_state(1))
    check(abs(nats / x.size - said) < 1e-5, f"loss {said}, NumPy says {nats / x.size}")
    check_torch(tensors, config, x, y, said)


def check_csv(path):
    with open(path, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    steps = [(int(row["step"]), row["kind"]) for row in rows]
    check(steps == sorted(steps), "rows are by step")
    with h5py.File("run.h5") as file:
        for kind in ("train", "valid"):
            own = [row for row in rows if row["kind"] == kind]
            columns = file["metrics"][kind]
            check(len(own) == len(columns["step"]) > 0, f"{len(own)} rows of {kind}")
            for name, column in columns.items():
                if name == "step" or column.ndim == 1:
                    check([float(row[name]) for row in own] == column[:].tolist(), f"{kind}/{name}")
            for name in set(rows[0]) - set(columns) - {"kind"}:
                check(not any(row[name] for row in own), f"{name} is not of {kind}")


def numpy_steps(graph, request, layers, hidden):
    """What export_onnx.js answers, by the operators written in NumPy."""
    import onnx_numpy

    names = [i.name for i in graph.input][1:]

    def step(token, state):
        logits, *state = onnx_numpy.run(graph, {"tokens": np.array([[token]]), **dict(zip(names, state))})
        return logits[0, 0], state

    zeros = [np.zeros((layers, 1, hidden), np.float32)] * len(names)
    logits, greedy, state = [], [], zeros
    for token in request["tokens"]:
        o, state = step(token, state)
        logits.append(o)
    state = zeros
    for token in request["prime"]:
        o, state = step(token, state)
    while len(greedy) < request["length"]:
        greedy.append(request["first"] + int(o[request["first"] :].argmax()))
        o, state = step(greedy[-1], state)
    return {"logits": logits, "greedy": greedy}


def node_steps(path, request, layers, hidden):
    """The same by onnxruntime, or None where npm has not installed it."""
    script = os.path.join(os.path.dirname(__file__), "export_onnx.js")
    if shutil.which("node") is None or subprocess.run(["node", "-e", "require('onnxruntime-node')"], capture_output=True).returncode:
        print("without onnxruntime-node (npm, NODE_PATH): the operators were NumPy's alone")
        return None
    words = ["node", script, path, str(layers), str(hidden)]
    done = subprocess.run(words, input=json.dumps(request), capture_output=True, text=True)
    check(done.returncode == 0, done.stderr)
    return json.loads(done.stdout or '{"logits": [], "greedy": []}')


def check_onnx(path, text, sampled):
    try:
        import onnx
    except ImportError:
        print("skipped: no python3-onnx")
        sys.exit(77)

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    run = rnn_numpy.Run("run.h5")
    token = sorted(run.tokens, key=run.tokens.get)
    check(json.loads({p.key: p.value for p in model.metadata_props}["token"]) == token, "vocabulary")

    oracle, tokens = run.model, run.encode(text)[:200].tolist()
    _, _, log_p = oracle.forward(np.array(tokens)[:, None], np.zeros((len(tokens), 1), int), oracle.zero_state(1))
    with open(sampled, encoding="utf-8", newline="") as f:
        expected = f.read()
    shape = oracle.layers, oracle.H
    request = {"tokens": tokens, "prime": [run.line_end()], "length": len(expected), "first": 1}
    for name, answer in (
        ("NumPy", numpy_steps(model.graph, request, *shape)),
        ("onnxruntime", node_steps(path, request, *shape)),
    ):
        if answer is None:
            continue
        o = np.array(answer["logits"], float)
        o -= np.log(np.exp(o).sum(axis=1))[:, None]
        far = np.abs(o - np.array(log_p)[:, :, 0]).max()
        check(far < 1e-5, f"{name}: a logit differs by {far}")
        said = "".join({"\\x0a": "\n"}.get(token[v], token[v]) for v in answer["greedy"])
        check(said == expected, f"{name} samples {said!r}, unroll {expected!r}")
    # All steps at once, of several sequences: the dimensions are free.
    import onnx_numpy

    zeros = [np.zeros((shape[0], 3, shape[1]), np.float32)] * (len(model.graph.input) - 1)
    inputs = dict(zip([i.name for i in model.graph.input], [np.array([tokens] * 3).T, *zeros]))
    o = onnx_numpy.run(model.graph, inputs)[0].astype(float)
    o -= np.log(np.exp(o).sum(axis=2))[:, :, None]
    check(np.abs(o - np.array(log_p)[:, :, 0][:, None]).max() < 1e-5, "all steps at once")


def main():
    command, *arguments = sys.argv[1:]
    if command == "safetensors":
        check_safetensors(arguments[0], arguments[1], float(arguments[2]))
    elif command == "csv":
        check_csv(arguments[0])
    elif command == "onnx":
        check_onnx(*arguments)
    else:
        check(False, f"no command {command}")
    sys.exit(1 if rnn_numpy.failures else 0)


if __name__ == "__main__":
    main()
