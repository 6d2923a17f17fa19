"""Hold a run file against its documented schema, and open it with other tools.

    open_with_tools.py RUN [README]

README is src/runfile/README.md: its tables of datasets and attributes are the
expectation, in both directions. Exit status 77 (skipped) only without h5py;
ncdump, h5dump, netCDF4, xarray and h5wasm are used where they are installed.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

try:
    import h5py
    import numpy as np
except ImportError:
    print("skipped: no h5py")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
README = os.path.join(HERE, "..", "..", "src", "runfile", "README.md")
HDF5_OWN = {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST"}

failures = []


def check(ok, what):
    if not ok:
        failures.append(what)
        print("FAILED:", what)


def table_rows(text, heading):
    """Cells of the table that follows a heading of the README."""
    section = text.split(heading + "\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def type_of(h5type):
    """The word of the README for an HDF5 type, or its class."""
    dtype = h5type.dtype
    if h5py.check_string_dtype(dtype) is not None:
        return "text"
    return dtype.name if dtype.byteorder in "<=|" else "big-endian " + dtype.name


def text_attribute(node, name):
    value = node.attrs.get(name, "")
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


# ------------------------------------------------------------------ datasets


class Expected:
    """One row of the table of datasets; {k} and {m} stand for what the file has."""

    def __init__(self, path, kind, dims, units, meaning):
        self.pattern = re.compile(
            re.escape(path).replace(r"\{k\}", r"\d+").replace(r"\{m\}", "(velocity|first|second)") + r"\Z"
        )
        self.path, self.kind, self.units = path, kind, units
        self.dims = [dim.strip() for dim in dims.split(",")]
        self.optional = "if any" in meaning

    def matches(self, path):
        return self.pattern.match(path) is not None


def find_expected(table, path):
    """The row of a path: a literal one before a pattern (layer0 before layer{k})."""
    rows = [row for row in table if row.path == path] or [row for row in table if row.matches(path)]
    return rows[0] if rows else None


def check_dataset(node, row, real):
    path = node.name
    kind = real if row.kind == "real" else row.kind
    check(type_of(node) == kind, f"{path} is {type_of(node)}, expected {kind}")
    if kind == "text":
        info = h5py.check_string_dtype(node.dtype)
        check(info.encoding == "utf-8" and info.length is None, f"{path} is not variable-length UTF-8")
    check(text_attribute(node, "units") == row.units, f"units of {path}")
    check(text_attribute(node, "long_name") != "", f"long_name of {path}")
    dims = [dim.strip("[]") for dim in row.dims if dim != "[block]" or "block" in node.parent]
    check(len(node.shape) == len(dims), f"{path} has {len(node.shape)} dimensions, expected {dims}")
    for i, name in enumerate(dims):
        unlimited = name.endswith("*")
        check((node.maxshape[i] is None) == unlimited, f"{path}: unlimited dimension {i}")
        check_scale(node, i, name.rstrip("*").split("/"))
    own = {"units", "long_name"} | ({"sha256"} if kind == "text" else set())
    check(set(node.attrs) - HDF5_OWN == own, f"attributes of {path}: {list(node.attrs)}")
    check_checksum(node, kind)
    check(tracks_order(node), f"{path} keeps no order of attributes")


def check_checksum(node, kind):
    """Strings have their SHA-256, numbers HDF5's checksum, where there are any."""
    if kind == "text":
        strings = b"".join(string + b"\0" for string in node[...].ravel())
        check(text_attribute(node, "sha256") == hashlib.sha256(strings).hexdigest(), f"sha256 of {node.name}")
    elif node.size > 0:
        check(node.fletcher32, f"{node.name} has no checksum")


def check_scale(node, i, names):
    """Dimension i is described by one scale of such a name and its length, in the group or above it."""
    other = {"gate": is_gated, "embedding": has_embedding}.get(names[-1])
    name = names[-1] if other is not None and other(node.file) else names[0]
    if node.name.endswith("/" + name) and node.attrs.get("CLASS") == b"DIMENSION_SCALE":
        check(text_attribute(node, "NAME") == name, f"name of scale {node.name}")
        return
    scales = list(node.dims[i].values())
    if len(scales) != 1:
        check(False, f"{node.name}: dimension {i} has {len(scales)} scales")
        return
    scale = scales[0]
    folder = scale.parent.name.rstrip("/") + "/"
    check(scale.name.endswith("/" + name), f"{node.name}: dimension {i} is {scale.name}, expected {name}")
    check(node.name.startswith(folder), f"{node.name}: scale {scale.name} lies neither beside nor above")
    check(scale.shape == (node.shape[i],), f"{node.name}: scale {scale.name} has shape {scale.shape}")


def is_gated(file):
    """Has this run a cell with gates? Files that are no runs have none."""
    return "config" in file and "cell" in file["config"].attrs and text_attribute(file["config"], "cell") != "rnn"


def has_embedding(file):
    return "config" in file and file["config"].attrs.get("embedding", 0) > 0


def tracks_order(node):
    plist = node.id.get_create_plist()
    flags = plist.get_attr_creation_order()
    if isinstance(node, h5py.Group):
        flags &= plist.get_link_creation_order()
    return flags == h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED


def check_indices(file):
    """Scales that only count are 0, 1, 2, ..."""

    def visit(name, node):
        if isinstance(node, h5py.Dataset) and node.dtype == np.int32:
            check(np.array_equal(node[...], np.arange(len(node))), f"/{name} does not count from 0")

    file.visititems(visit)


def check_datasets(file, table):
    real = file["weights/output/b_q"].dtype.name
    check(real in ("float32", "float64"), f"weights are {real}")
    seen = set()
    groups = []

    def visit(_, node):
        if isinstance(node, h5py.Group):
            groups.append(node)
            return
        row = find_expected(table, node.name)
        if row is None:
            check(False, f"{node.name} is not documented")
            return
        seen.add(row.path)
        check_dataset(node, row, real)

    file.visititems(visit)
    for row in table:
        check(row.optional or row.path in seen, f"{row.path} is missing")
    for group in groups:
        check(tracks_order(group), f"{group.name} keeps no order of links and attributes")


# ---------------------------------------------------------------- attributes


def attribute_type(node, name):
    attribute = h5py.h5a.open(node.id, name.encode())
    check(attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR, f"{node.name}@{name} is not a scalar")
    if isinstance(attribute.get_type(), h5py.h5t.TypeStringID):
        string = attribute.get_type()
        fixed = not string.is_variable_str() and string.get_cset() == h5py.h5t.CSET_UTF8
        check(fixed, f"{node.name}@{name} is not fixed-length UTF-8")
        text_attribute(node, name)  # decodes
        return "text"
    return type_of(attribute)


def check_attributes(file, table):
    documented = {}
    for group, name, kind, _, _ in table:
        documented.setdefault(group, {})[name] = kind

    def visit(node):
        if not isinstance(node, h5py.Group):
            return
        names = documented.get(node.name, {})
        for name in node.attrs:
            kind = attribute_type(node, name)
            if name in names:
                check(kind == names[name], f"{node.name}@{name} is {kind}, expected {names[name]}")
            elif node.name == "/config":
                check(kind in ("text", "uint64", "float64", "int32"), f"/config@{name} is {kind}")
                check("-" not in name, f"/config@{name}")
            else:
                check(False, f"{node.name}@{name} is not documented")
        for name in names:
            check(name in node.attrs, f"{node.name}@{name} is missing")

    visit(file)
    file.visititems(lambda _, node: visit(node))


# --------------------------------------------------------------------- sense


def check_sense(file):
    """The parts belong together."""
    config = file["config"].attrs
    check(text_attribute(file, "format") == "unroll-run", "format")
    check(file.attrs["format_version"] == (3 if has_embedding(file) else 1 + is_gated(file)), "format_version")
    V, H = file["weights/output/W_qh"].shape
    check(config["hidden"] == H, "config hidden")
    check(file["vocab/token"].shape == (V,), "length of the vocabulary")
    gates = {"rnn": 1, "lstm": 4, "gru": 3, "mingru": 2}[text_attribute(file["config"], "cell")]
    E = int(config["embedding"])
    check(file["weights/layer0/W_xh"].shape == (gates * H, E or V), "shape of W_xh")
    own = E > 0 and not config["tied"]
    check(not own or file["weights/input/W_xe"].shape == (V, E), "shape of W_xe")
    check(("input" in file["weights"]) == own, "an embedding where there is one, and only there")
    layers = [name for name in file["weights"] if name.startswith("layer")]
    check(config["layers"] == len(layers), "config layers")
    tokens = file["vocab/token"].asstr()[...]
    check(len(set(tokens)) == V, "tokens are all different")
    expected = {"sgd": [], "momentum": ["velocity"], "adam": ["first", "second"]}
    moments = [m for m in ("velocity", "first", "second") if f"optimizer/{m}" in file]
    check(moments == expected[text_attribute(file["config"], "optimizer")], f"moments {moments}")
    averaged = int(file["state"].attrs["averaged"])
    check(("average" in file) == (averaged > 0), "an average where it has begun, and only there")
    every = int(text_attribute(file["config"], "diagnose_every"))
    asked = bool(0 < every <= file["state"].attrs["step"])
    check(("diagnostics" in file) == asked, "gradient flow where it was asked for, and only there")
    for group in ["metrics/train", "metrics/valid"] + ["diagnostics"] * asked:
        step = file[group]["step"][...]
        check(np.all(np.diff(step) > 0), f"{group}/step rises")
    if asked:
        check(np.all(file["diagnostics/step"][...] % every == 0), "gradient flow at multiples of --diagnose-every")
    for group in ("metrics/train", "metrics/valid"):
        with np.errstate(all="ignore"):
            loss, perplexity = file[group]["loss"][...], file[group]["perplexity"][...]
            finite = np.isfinite(loss) & np.isfinite(perplexity)
            check(np.allclose(np.exp(loss[finite]), perplexity[finite], rtol=1e-12), f"{group}/perplexity")


def check_long_names(file):
    """Each says by itself what the dataset is."""
    moments = {
        "velocity": "velocity of the ",
        "first": "decaying mean of the gradients of the ",
        "second": "decaying mean of the squared gradients of the ",
    }
    folders = {f"optimizer/{m}": what for m, what in moments.items()} | {"average": "average over updates of the "}
    for folder, what in folders.items():
        if folder not in file:
            continue

        def visit(name, node):
            if isinstance(node, h5py.Dataset) and "/" in name:
                expected = what + text_attribute(file["weights"][name], "long_name")
                check(text_attribute(node, "long_name") == expected, f"long_name of {node.name}")

        file[folder].visititems(visit)

    def visit_group(_, group):
        if isinstance(group, h5py.Group):
            names = [text_attribute(node, "long_name") for node in group.values() if isinstance(node, h5py.Dataset)]
            check(len(set(names)) == len(names), f"long_name of two datasets of {group.name}")
            check(not any("the same" in name for name in names), f"{group.name}: a long_name says 'the same'")

    file.visititems(visit_group)


def check_default(file):
    """What viewers that know NeXus show first: they follow `default` from the root to a group of class NXdata."""
    node, passed = file["/"], []
    while "default" in node.attrs and len(passed) < 9:
        node = node[text_attribute(node, "default")]
        passed.append(text_attribute(node, "NX_class"))
    check(node.name == "/metrics/train" and passed == ["NXentry", "NXdata"], f"default leads to {node.name} by {passed}")
    for group in (node, file["metrics/valid"]):
        check(text_attribute(group, "NX_class") == "NXdata", f"class of {group.name}")
        signal, axis = (group.get(text_attribute(group, name) or "none") for name in ("signal", "axes"))
        if signal is None or axis is None:
            check(False, f"{group.name}: no signal or no axis")
            continue
        check(signal == group["loss"] and axis == group["step"], f"{group.name}: {signal.name} over {axis.name}")
        check(signal.shape == axis.shape and signal.ndim == 1, f"{group.name}: a curve")
        check(signal.dims[0].values() == [axis], f"{group.name}: HDF5's own scale is that axis")


# --------------------------------------------------------------- other tools


def run_tool(arguments):
    if shutil.which(arguments[0]) is None:
        print("not installed:", arguments[0])
        return None
    done = subprocess.run(arguments, capture_output=True)
    check(done.returncode == 0 and not done.stderr, f"{arguments[0]}: {done.stderr.decode(errors='replace')[:300]}")
    return done.stdout.decode("utf-8", errors="replace")


def dims_of_W_xh(file):
    return "gate" if is_gated(file) else "hidden", "embedding" if has_embedding(file) else "vocab"


def check_command_line_tools(path):
    header = run_tool(["ncdump", "-h", path])
    if header is not None:
        check("phony_dim" not in header, "ncdump finds dimensions without a name")
        with h5py.File(path, "r") as file:
            dims = ", ".join(dims_of_W_xh(file))
        check(f"W_xh({dims})" in header, f"ncdump finds no W_xh({dims})")
        check("step = UNLIMITED" in header, "ncdump finds no unlimited step")
    run_tool(["ncdump", path])
    dump = run_tool(["h5dump", "-H", path])
    if dump is not None:
        for kind in ("H5T_ENUM", "H5T_OPAQUE", "H5T_BITFIELD"):
            check(kind not in dump, f"h5dump finds {kind}")
    run_tool(["h5dump", path])


def check_netcdf(path, file):
    try:
        import netCDF4
    except ImportError:
        print("not installed: netCDF4")
        return

    def visit(group, h5group):
        for name, variable in group.variables.items():
            variable.set_auto_mask(False)
            check(same(variable[...], h5group[name]), f"netCDF4 reads other values of {h5group[name].name}")
        datasets = {n for n, node in h5group.items() if isinstance(node, h5py.Dataset)}
        check(set(group.variables) == datasets, f"netCDF4 finds other variables in {h5group.name}")
        for name, child in group.groups.items():
            visit(child, h5group[name])

    def same(values, node):
        if node.dtype == object:
            return np.array_equal(values, node.asstr()[...])
        return np.array_equal(values, node[...], equal_nan=node.dtype.kind == "f")

    with netCDF4.Dataset(path) as dataset:
        visit(dataset, file)
        check(set(dataset.groups) == set(file), "netCDF4 finds other groups")


def check_xarray(path, file):
    try:
        import xarray
    except ImportError:
        print("not installed: xarray")
        return
    engines = [e for e, m in (("netcdf4", "netCDF4"), ("h5netcdf", "h5netcdf")) if importable(m)]
    for engine in engines:
        groups = ["weights/layer0", "weights/output", "vocab", "metrics/train", "metrics/valid"]
        for group in groups + [group for group in ("diagnostics",) if group in file]:
            with xarray.open_dataset(path, group=group, engine=engine, decode_cf=False) as dataset:
                for name in file[group]:
                    check(name in dataset.variables, f"xarray ({engine}) finds no {group}/{name}")
                    check(dataset[name].shape == file[group][name].shape, f"xarray ({engine}): shape of {name}")
        with xarray.open_dataset(path, group="weights/layer0", engine=engine) as dataset:
            check(dataset["W_xh"].dims == dims_of_W_xh(file), f"xarray ({engine}): dimensions of W_xh")
            same = np.array_equal(dataset["W_xh"].values, file["weights/layer0/W_xh"][...], equal_nan=True)
            check(same, f"xarray ({engine}): values of W_xh")


def check_node(path, file):
    """h5wasm, as browsers have it."""
    names = ["weights/layer0/W_xh", "weights/output/b_q", "vocab/token", "metrics/train/step", "metrics/train/loss"]
    script = os.path.join(HERE, "open_in_node.mjs")
    done = subprocess.run(["node", script, path] + names, capture_output=True, text=True) if shutil.which("node") else None
    if done is None or done.returncode == 77:
        print("not installed: node, or its h5wasm (npm install h5wasm; NODE_PATH names the folder node_modules)")
        return
    check(done.returncode == 0, f"h5wasm: {done.stderr[-300:]}")
    answer = json.loads(done.stdout or '{"shown": null, "datasets": {}}')
    expected = {"path": "/metrics/train", "class": "NXdata", "signal": "loss", "axes": "step"}
    check(answer["shown"] == expected, f"h5wasm is led to {answer['shown']}")
    check(list(answer["datasets"]) == names, f"h5wasm reads {list(answer['datasets'])}")
    for name, got in answer["datasets"].items():
        node = file[name]
        values = node.asstr()[...] if node.dtype == object else node[...]
        check(tuple(got["shape"]) == node.shape, f"h5wasm: shape of {name}")
        check(got["values"] == values.flatten().tolist(), f"h5wasm: values of {name}")


def importable(module):
    try:
        __import__(module)
    except ImportError:
        print("not installed:", module)
        return False
    return True


def main():
    path = sys.argv[1]
    with open(sys.argv[2] if len(sys.argv) > 2 else README, encoding="utf-8") as f:
        readme = f.read()
    datasets = [Expected(*row) for row in table_rows(readme, "### Datasets")]
    attributes = table_rows(readme, "### Attributes")
    check(len(datasets) > 40 and len(attributes) > 40, "the tables of the README are found")

    check_command_line_tools(path)
    with h5py.File(path, "r") as file:
        check(tracks_order(file["/"]), "the root keeps no order of links and attributes")
        check_datasets(file, datasets)
        check_attributes(file, attributes)
        check_indices(file)
        check_sense(file)
        check_default(file)
        check_long_names(file)
        check_netcdf(path, file)
        check_xarray(path, file)
        check_node(path, file)
    print("failures:", len(failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
