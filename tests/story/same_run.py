"""Hold run files against each other: everything that the contract promises, bit for bit.

    same_run.py RUN OTHER...

Compared are all datasets under /weights, /optimizer, /state and /metrics and the attributes of /state, except
times; and that the log beside each file has exactly the rows of its metrics.
"""

import json
import os
import sys

import h5py
import numpy as np

GROUPS = ("weights", "optimizer", "state", "metrics")


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
                    value = node[...]
                    found[f"{group}/{name}"] = (str(value.dtype), value.shape, value.tobytes())

            file[group].visititems(visit)
        for name, value in file["state"].attrs.items():
            if not is_time(name):
                found[f"state@{name}"] = np.asarray(value).tobytes()
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
    return problems


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
