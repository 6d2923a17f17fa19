"""What jobs/scaling wrote.

    scaling.py schema FILE   the tables of src/runfile/README.md, in both directions, and other tools
    scaling.py sense FILE    what must hold on any cluster
    scaling.py fit           the fit of jobs/scaling_model.py, on messages that are not exact
    scaling.py constants     its constants and configurations are those of the program
    scaling.py known FILE    the model is that of known_cluster.py, on layouts that were never run, too
"""

import math
import os
import re
import sys

import h5py
import numpy as np

import known_cluster as known
import open_with_tools as tools

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(SOURCE, "jobs"))
import scaling_model as model

check = tools.check


# -------------------------------------------------------------------- schema


def schema(path):
    with open(tools.README, encoding="utf-8") as f:
        readme = f.read()
    table = [tools.Expected(*row) for row in tools.table_rows(readme, "### Datasets of scaling")]
    attributes = tools.table_rows(readme, "### Attributes of scaling")
    check(len(table) >= 50 and len(attributes) >= 20, "the tables of the README are found")
    header = tools.run_tool(["ncdump", "-h", path])
    if header is not None:
        check("phony_dim" not in header, "ncdump finds dimensions without a name")
        check("step_seconds_all(point, repetition)" in header, "ncdump finds no step_seconds_all(point, repetition)")
    tools.run_tool(["ncdump", path])
    tools.run_tool(["h5dump", path])
    with h5py.File(path, "r") as file:
        found, groups = [], [file["/"]]
        file.visititems(lambda _, node: (groups if isinstance(node, h5py.Group) else found).append(node))
        for node in found:
            row = tools.find_expected(table, node.name)
            check(row is not None, f"{node.name} is not documented")
            if row is not None:
                tools.check_dataset(node, row, "float64")
        for row in table:
            check(row.optional or row.path in file, f"{row.path} is missing")
        for group in groups:
            check(tools.tracks_order(group), f"{group.name} keeps no order")
        tools.check_attributes(file, attributes)
        tools.check_indices(file)
        tools.check_netcdf(path, file)
        check(tools.text_attribute(file, "format") == "unroll-scaling", "format")
        check(file.attrs["format_version"] == 1, "format_version")


# --------------------------------------------------------------------- sense


def sense(path):
    with h5py.File(path, "r") as file:
        measured = {name: node[:] for name, node in file["measured"].items() if isinstance(node, h5py.Dataset)}
        configurations = {name: node[:] for name, node in file["configurations"].items()}
        predicted = {name: node[:] for name, node in file["predicted"].items()}
        messages = {name: node[:] for name, node in file["measured/exchange"].items()}
    check_measured(measured, configurations)
    check_predicted(predicted, messages)


def check_measured(m, configurations):
    series = m["series"].astype(str)
    row_of = {name: i for i, name in enumerate(configurations["configuration"])}
    rows = np.array([row_of[name] for name in m["configuration"]])
    own, tokens = configurations["batch"][rows], configurations["steps"][rows] * m["batch"]
    check(set(series) == {"strong", "weak", "compute"}, "three series")
    check(np.all(m["batch"][series == "strong"] == own[series == "strong"]), "strong: the batch stays")
    weak = series == "weak"
    check(np.all(m["batch"][weak] == (own * m["ranks"])[weak]), "weak: the batch grows with the ranks")
    check(np.all(m["hosts"][series == "compute"] == 1), "compute: one host")
    check(np.all(m["hosts"] <= m["ranks"]), "no host without a rank")
    check(np.allclose(m["step_seconds"], np.median(m["step_seconds_all"], axis=1)), "an odd number of turns: the median of them")
    phases = "forward output backward exchange wait norm update other".split()
    check(np.allclose(sum(m[f"{k}_seconds"] for k in phases), m["step_seconds"]), "phases add up to the step")
    # speed is of the slowest rank, the step is a mean over the ranks
    check(np.all(m["tokens_per_second"] <= tokens / m["step_seconds"] * (1 + 1e-9)), "speed fits the step")
    first = weak & (m["ranks"] == m["ranks"].min())
    check(np.allclose(m["efficiency"][first], 1), "the smallest weak run has efficiency 1")


def check_predicted(p, messages):
    """p: arrays over (threads, configuration, series, network, ranks)."""
    series, ranks = list(p["series"].astype(str)), p["ranks"]
    check(ranks[0] == 1 and ranks[-1] == 4096 and 16 in ranks, "predicted to 4096 ranks")
    step, compute, exchange, visible = (p[f"{k}_seconds"] for k in ("step", "compute", "exchange", "visible"))
    legal = ~np.isnan(step)
    check(np.all(legal[:, :, series.index("weak")]), "weak series are legal for all ranks")
    check(np.all(legal[:, :, series.index("strong, large batch")]), "a batch of 4096 is legal for all ranks")
    check(np.all(step[legal] > 0), "steps take time")
    check(np.allclose((compute + visible)[legal], step[legal]), "compute and visible exchange are the step")
    batch = np.broadcast_to(p["batch"][None, :, :, None, :], step.shape)
    check(np.all((batch % ranks == 0)[legal]), "batches are shared evenly")

    weak = p["efficiency"][:, :, series.index("weak")]
    many = ranks >= 16
    # On the slowest network. Where adding takes longer than receiving even there, which a disturbed run may well say, a level of
    # more hosts adds with less memory traffic: then with full levels alone.
    slowest = np.argmax(p["beta"])
    for t, per_host in enumerate(p["ranks_per_host"]):
        mine = messages["threads"] == p["threads"][t]
        fitted = model.Exchange(list(zip(*(messages[name][mine] for name in ("bytes", "ranks", "hosts", "seconds")))))
        first = 1 if fitted.adding(per_host, 2) <= p["beta"][slowest] else per_host * model.RADIX
        longer = exchange[t, :, series.index("weak"), slowest][:, ranks >= first]
        check(longer.shape[-1] >= 5 and np.all(np.diff(longer, axis=-1) >= 0), f"weak: more ranks, no shorter exchange: {longer}")
    check(np.all(np.diff(weak[:, :, slowest][..., many], axis=-1) <= 0), "weak: efficiency does not rise with the ranks")
    strong = step[:, :, series.index("strong, large batch")]
    fewer = compute[:, :, series.index("strong, large batch")]
    check(np.all(np.diff(fewer, axis=-1) <= 0), "strong: more ranks, no more to compute for each")
    check(np.all(fewer <= strong), "strong: no step is shorter than its computing")
    order = np.lexsort((p["beta"], p["alpha"]))
    for a in order:
        for b in order:
            if p["alpha"][a] <= p["alpha"][b] and p["beta"][a] <= p["beta"][b] and legal_network(p, a) and legal_network(p, b):
                faster, slower = step[:, :, :, a], step[:, :, :, b]
                both = ~np.isnan(faster)
                check(np.all((faster <= slower * (1 + 1e-12))[both]), f"network {a} is not slower than {b}")


def legal_network(p, i):
    """Where beta was measured, it has the adding in it, and cannot be compared with the others."""
    return p["network"].astype(str)[i] != "as measured"


# --------------------------------------------------------------------- known


def known_answers(path):
    with h5py.File(path, "r") as file:
        m = file["model"]
        for name, value in [
            ("alpha", known.ALPHA),
            ("beta", known.BETA),
            ("overlap", known.OVERLAP),
        ]:
            check(np.allclose(m[name][:], value, rtol=1e-6, atol=0), f"{name} is {m[name][:]}, expected {value}")
        check(np.abs(m["check/error"][:]).max() < 1e-6, "the model is exact on the points")
        check(np.abs(m["exchange/error"][:]).max() < 1e-6, "and on the messages")
        several = file["measured/hosts"][:] > 1
        check(np.all(m["check/left_out"][:][several] == 1), "points on several hosts are predicted from the others")
        check_never_run(file)


def check_never_run(file):
    """Predictions for the network as measured, against the cluster itself."""
    p, c = file["predicted"], file["configurations"]
    at_network = list(p["network"].asstr()[:]).index("as measured")
    most, compared = file["measured/ranks"][:].max(), 0
    for at in np.ndindex(p["step_seconds"].shape):
        t, k, s, network, r = at
        value, ranks, batch = p["step_seconds"][at], int(p["ranks"][r]), int(p["batch"][k, s, r])
        if network != at_network or math.isnan(value) or ranks <= most:
            continue
        hosts = ranks // int(p["ranks_per_host"][t])
        sizes = [int(c[name][k]) for name in ("vocab", "hidden", "steps")]
        expected = known.run(ranks, hosts, int(p["threads"][t]), *sizes, batch, ranks)["step_seconds"]
        check(abs(value / expected - 1) < 1e-6, f"{ranks} ranks, {at}: {value}, expected {expected}")
        compared += 1
    check(compared >= 20, f"only {compared} predictions beyond what was run")


# ----------------------------------------------------------------------- fit


def fit():
    sizes = [4 * 4**k for k in range(14)]
    time = lambda n, ranks, hosts: known.wire(n, hosts) + known.latency(hosts) * (hosts > 1) + known.memory(n, ranks, hosts, 1)
    random = np.random.default_rng(1)
    noisy = [(n, 2 * h, h, time(n, 2 * h, h) * random.uniform(0.95, 1.05)) for h in (1, 2, 4) for n in sizes]
    found = model.Exchange(noisy)
    for name, value in [("alpha", known.ALPHA), ("beta", known.BETA)]:
        check(abs(getattr(found, name) / value - 1) < 0.1, f"5% of noise: {name} is {getattr(found, name)}, not {value}")
    for n in (1000, 1e6, 1e9):
        check(abs(found.inside(n, 4, 2) / known.memory(n, 4, 2, 1) - 1) < 0.15, f"5% of noise: {n} bytes inside a host")
    check(found.knows(8, 4) and not found.knows(8, 2), "two ranks of a host were measured, four were not")

    # cheaper by the byte the smaller it is: a line through these has a negative latency
    bent = [(n, 2, 2, 1e-9 * n**1.2) for n in sizes]
    found = model.Exchange(bent)
    check(found.alpha >= 0 and found.beta > 0, f"no time is negative: {found.alpha}, {found.beta}")
    check(found.knows(4, 4) and not found.knows(4, 2), "nothing inside a host was measured")
    check(not model.Exchange([]).knows(2, 2), "nothing was measured")

    # More bytes took less time inside a host. No prediction may believe it.
    found = model.Exchange([(4, 2, 1, 3e-6), (64, 2, 1, 9e-6), (1024, 2, 1, 5e-6), (4096, 2, 1, 7e-6)])
    times = [found.inside(n, 2, 1) for n in (1, 4, 32, 64, 500, 1024, 4096, 1e5)]
    check(all(a <= b for a, b in zip(times, times[1:])), f"more bytes never take less time: {times}")

    # More sequences took less time, twice: seen of word650 with 16 and 20. No prediction may believe it.
    c = model.Configuration("falling", 10000, 650, 35, 20)
    measured = [(1, 0.040, 0.020), (4, 0.095, 0.050), (16, 0.313, 0.160), (20, 0.287, 0.150)]
    falling = model.Compute(c, 1, [(b, passes, backward, 0.01) for b, passes, backward in measured])
    previous = (0, 0)
    for b in (0.25, 1, 2, 4, 10, 16, 18, 20, 21, 64, 256, 4096):
        now = falling.at(b)
        for k in range(2):
            check(now[k] >= previous[k], f"falling times: {b} sequences take {now}, fewer took {previous}")
            check(b <= 20 or now[k] > previous[k], f"falling times: {b} sequences take {now}, no more than fewer")
            check(b <= 20 or 0.5 <= now[k] / falling.at(20)[k] / (b / 20) <= 1.01, f"falling times: {b} sequences take {now}")
        previous = now


# ----------------------------------------------------------------- constants


def constants():
    """What the model says of the exchange is what the program does."""
    for file, pattern, value in [
        ("src/comm/exchange.c", r"define RADIX_MAX (\d+)", model.RADIX),
        ("src/train/step.c", r"define SLICE \(\(size_t\)1 << (\d+)\)", int(math.log2(model.SLICE))),
        ("src/net/sink.h", r"define SLICES_MAX (\d+)", model.SLICES),
    ]:
        with open(os.path.join(SOURCE, file), encoding="utf-8") as f:
            found = re.findall(pattern, f.read())
        check(len(found) == 1 and found[0] == str(value), f"{file}: {found}, the model has {value}")

    # the plain networks of `unroll bench`
    with open(os.path.join(SOURCE, "src/cli/bench.c"), encoding="utf-8") as f:
        found = re.findall(r'\{"(\w+)", (\d+), (\d+), (\d+), (\d+), 1, UNROLL_CELL_RNN\}', f.read())
    check([tuple(map(str, c)) for c in model.NAMED] == found, f"src/cli/bench.c has the configurations {found}")


# ---------------------------------------------------------------------- main


def main():
    what, *path = sys.argv[1:]
    {"schema": schema, "sense": sense, "fit": fit, "constants": constants, "known": known_answers}[what](*path)
    print("failures:", len(tools.failures))
    sys.exit(1 if tools.failures else 0)


main()
