"""Hold run files against each other: everything that the contract promises, bit for bit.

    same_run.py RUN OTHER...

Compared are all datasets under /weights, /optimizer, /average, /state, /metrics and /diagnostics and the attributes of /state
and /diagnostics, except times; and that the log beside each file has exactly the rows of its metrics and diagnostics.
"""

import json
import os
import sys

import h5py
import numpy as np

GROUPS = ("weights", "optimizer", "average", "state", "metrics", "diagnostics")


def is_time(name):
    return "second" in name.rsplit("/", 1)[-1]


def content(path):
    """Name -> bytes of all that must be the same."""
    found = {}
    with h5py.File(path, "r") as file:
        for group in GROUPS:
            if group not in file:
                continue

            def visit(name, node):
                if isinstance(node, h5py.Dataset) and not is_time(name):
                    value = node.asstr()[...].astype("U") if node.dtype == object else node[...]
                    found[f"{group}/{name}"] = (str(value.dtype), value.shape, value.tobytes())

            file[group].visititems(visit)
        for group in ("state", "diagnostics"):
            for name, value in file[group].attrs.items() if group in file else ():
                if not is_time(name):
                    found[f"{group}@{name}"] = np.asarray(value).tobytes()
    return found


def check_log(path):
    """The log beside a run file has the rows of its metrics, in order, with their values."""
    problems = []
    with open(os.path.splitext(path)[0] + ".jsonl", encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    with h5py.File(path, "r") as file:
        for kind in ("train", "valid"):
            columns = {name: column[...] for name, column in file["metrics"][kind].items()}
            rows = [line for line in lines if line["kind"] == kind]
            if [row["step"] for row in rows] != columns["step"].tolist():
                problems.append(f"{path}: the log has other {kind} steps: {[row['step'] for row in rows]}")
                continue
            for name, column in columns.items():
                values = [row[name] if row[name] is not None else float("nan") for row in rows]
                if not np.array_equal(np.where(np.isfinite(column), column, np.nan), values, equal_nan=True):
                    problems.append(f"{path}: the log has another {kind} {name}")
        problems += check_flow(path, [line for line in lines if line["kind"] == "diagnose"], file.get("diagnostics", {}))
    return problems


def check_flow(path, lines, group):
    """The same of the gradient flow: its numbers of each layer."""
    columns = {name: node.asstr()[...] if node.dtype == object else node[...] for name, node in group.items()}
    letters = columns.get("block", ())
    columns = {
        name: column
        for name, column in columns.items()
        if name == "step" or column.shape[1:] == group["layer"].shape or name in ("spectral_radius", "spectral_norm")
    }
    rows = []
    for i in range(len(columns.get("step", ()))):
        row = {name: column[i].tolist() for name, column in columns.items()}
        for name in ("half_lag", "percent_lag"):
            row[name] = [None if lag < 0 else lag for lag in row[name]]
        for name in ("spectral_radius", "spectral_norm") if len(letters) > 0 else ():
            row[name] = [dict(zip(letters, blocks)) for blocks in row[name]]
        rows.append(row)
    for line in lines:
        line.pop("kind")
    return [] if rows == lines else [f"{path}: the log has other rows of gradient flow: {lines} and not {rows}"]


def main():
    first = content(sys.argv[1])
    problems = check_log(sys.argv[1])
    needed = ("weights/output/W_qh", "state/h", "metrics/train/loss", "state@step")
    problems += [f"{sys.argv[1]}: no {name}" for name in needed if name not in first]
    for path in sys.argv[2:]:
        other = content(path)
        names = sorted(set(first) | set(other))
        different = [name for name in names if first.get(name) != other.get(name)]
        problems += [f"{sys.argv[1]} and {path} differ in {name}" for name in different]
        problems += check_log(path)
    print("\n".join(problems[:20]), end="\n" if problems else "")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
