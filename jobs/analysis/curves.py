#!/usr/bin/env python3
"""A sweep as one table of pandas, by xarray, which needs no code for the format; and a picture of the curves.

    curves.py RUN... [-o curves.png] [--csv curves.csv]

Printed are the runs, the best validation first, with the options that differ. Of the table, which --csv writes, each row is a
row of /metrics of one run: run, those options, kind (train or valid), step, loss and the other columns.

On Debian: apt-get install python3-xarray python3-netcdf4 python3-pandas python3-matplotlib (or python3-h5netcdf).
"""

import argparse

import matplotlib
import pandas as pd
import xarray as xr

matplotlib.use("Agg")  # to files only
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of the back end)

OF_A_CALL = {"out", "overwrite", "resume", "command_line"}


def attributes(path, group):
    with xr.open_dataset(path, group=group) as node:
        return {name: value.rstrip("\0") if isinstance(value, str) else value for name, value in node.attrs.items()}


def metrics(path, kind):
    with xr.open_dataset(path, group=f"metrics/{kind}", decode_times=False) as node:
        return node.to_dataframe().reset_index().assign(kind=kind)


def read_sweep(paths):
    """The table of all rows, and the names of the options that differ."""
    configs = [attributes(path, "config") for path in paths]
    names = [n for n in configs[0] if n not in OF_A_CALL and len({str(c.get(n)) for c in configs}) > 1]
    tables = []
    for path, config in zip(paths, configs):
        table = pd.concat([metrics(path, "train"), metrics(path, "valid")], ignore_index=True)
        options = pd.DataFrame([{"run": path, **{n: config.get(n) for n in names}}] * len(table))
        tables.append(pd.concat([options, table], axis=1))
    return pd.concat(tables, ignore_index=True), names


def draw(table, out):
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for k, (run, rows) in enumerate(table.groupby("run", sort=False)):
        for kind, style in (("train", "-"), ("valid", "o--")):
            part = rows[rows["kind"] == kind]
            label = run if kind == "train" else None
            axes.plot(part["step"], part["loss"], style, color=f"C{k % 10}", markersize=4, label=label)
    axes.set_xlabel("updates")
    axes.set_ylabel("loss [nats per token], validation dashed")
    axes.legend(fontsize="small")
    figure.savefig(out, dpi=120)
    print(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", help="run files")
    parser.add_argument("-o", "--out", default="curves.png", help="the picture (default: curves.png)")
    parser.add_argument("--csv", help="the table")
    arguments = parser.parse_args()

    table, names = read_sweep(arguments.run)
    valid = table[table["kind"] == "valid"]
    best = valid.loc[valid.groupby("run")["loss"].idxmin()].sort_values("loss")
    print(best[["run", "loss", "step"] + names].to_string(index=False, float_format=lambda x: f"{x:.6g}"))
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    draw(table, arguments.out)


if __name__ == "__main__":
    main()
