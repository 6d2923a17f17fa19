"""A graph of ONNX in NumPy: the operators that `unroll export --onnx` uses, from https://onnx.ai/onnx/operators."""

import numpy as np
from onnx import numpy_helper

from cells import logistic


def recurrent(op, x, W, R, b, h, c, activations):
    """One direction. Blocks: RNN h; GRU z r h; LSTM i o f c. The second half of b belongs to R."""
    H = R.shape[2]
    W, R, b_x, b_h = W[0], R[0], b[0, : W.shape[1]], b[0, W.shape[1] :]
    h, out = h[0], []
    c = None if c is None else c[0]
    for x_t in x:
        u = np.split(x_t @ W.T + b_x, len(W) // H, axis=1)
        v = np.split(h @ R.T + b_h, len(W) // H, axis=1)
        if op == "RNN":
            h = np.maximum(u[0] + v[0], 0) if activations == [b"Relu"] else np.tanh(u[0] + v[0])
        elif op == "GRU":
            z, r = logistic(u[0] + v[0]), logistic(u[1] + v[1])
            h = (1 - z) * np.tanh(u[2] + r * v[2]) + z * h
        else:
            i, o, f = (logistic(u[k] + v[k]) for k in range(3))
            c = f * c + i * np.tanh(u[3] + v[3])
            h = o * np.tanh(c)
        out.append(h)
    return [np.array(out)[:, None], h[None]] + ([] if c is None else [c[None]])


def scan(body, n, state, *inputs):
    assert n == len(inputs) == 2
    out = []
    for rows in zip(*inputs):
        state, y = run(body, dict(zip([i.name for i in body.input], (state, *rows))))
        out.append(y)
    return [state, np.array(out)]


def compute(node, x):
    a = {a.name: a.g if a.type == 5 else list(a.strings) if a.type == 8 else a.i for a in node.attribute}
    op = node.op_type
    if op == "OneHot":
        return [np.where(x[0][..., None] == np.arange(x[1].item()), x[2][1], x[2][0])]
    if op == "Gather":
        return [np.take(x[0], x[1], axis=a["axis"])]
    if op == "Concat":
        return [np.concatenate(x, axis=a["axis"])]
    if op == "Split":
        return np.split(x[0], len(node.output), axis=a["axis"])
    if op == "Squeeze":
        return [np.squeeze(x[0], tuple(x[1]))]
    if op == "Unsqueeze":
        return [np.expand_dims(x[0], tuple(x[1]))]
    if op in ("RNN", "GRU", "LSTM"):
        assert a["hidden_size"] == x[2].shape[2] and x[4] is None and (op != "GRU" or a["linear_before_reset"] == 1)
        return recurrent(op, *x[:4], x[5], x[6] if op == "LSTM" else None, a.get("activations"))
    if op == "Scan":
        return scan(a["body"], a["num_scan_inputs"], *x)
    if op == "Transpose":
        return [x[0].T]
    plain = {"MatMul": np.matmul, "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Sigmoid": logistic, "Identity": np.copy}
    return [plain[op](*x)]


def run(graph, values):
    """The outputs, in order."""
    values = {**{t.name: numpy_helper.to_array(t) for t in graph.initializer}, **values}
    for node in graph.node:
        outputs = compute(node, [values[name] if name else None for name in node.input])
        values.update(zip(node.output, outputs))
    return [values[o.name] for o in graph.output]
