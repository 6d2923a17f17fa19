"""The hash of a run: what training made of options, seed and text.

    hash.py RUN...

SHA-256 and the name of each file, as sha256sum prints them, over all datasets of /weights and /metrics but times, in the order of their paths: of
each the path, the type and the shape as NumPy writes them, a line each, then the bytes.
"""

import hashlib
import sys

import h5py

GROUPS = ("weights", "metrics")
NEEDED = ("weights/layer0/W_xh", "weights/output/W_qh", "metrics/train/loss", "metrics/valid/loss")


def datasets(path):
    """Path -> array, without times."""
    found = {}
    with h5py.File(path, "r") as file:
        for group in GROUPS:

            def visit(name, node):
                if isinstance(node, h5py.Dataset) and "second" not in name:
                    found[f"{group}/{name}"] = node[...]

            file[group].visititems(visit)
    for name in NEEDED:
        if name not in found or found[name].size == 0:
            sys.exit(f"{path}: no {name}: nothing to vouch for")
    return found


def main():
    for path in sys.argv[1:]:
        sha256 = hashlib.sha256()
        for name, array in sorted(datasets(path).items()):
            sha256.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
            sha256.update(array.tobytes())
        print(f"{sha256.hexdigest()}  {path}")


if __name__ == "__main__":
    main()
