"""How long a training step takes on many hosts: what jobs/scaling fits, and predicts from.

P ranks, r of them on each of h hosts, b sequences a rank. A step is

    step = passes(b) + apply(n) + inside(n) + visible

    passes    forward, output, backward: as measured on one host full of ranks, linear between measured b
    apply     norm and update, as measured there, by the bytes n of the gradient
    inside    the ranks of a host add up their gradients in shared memory: host_latency + n * host_cost
    visible   what is left of the exchange between the hosts at the end of the backward pass

The exchange of n bytes between h hosts (src/comm/exchange.c) sends and receives n (h - 1) / h bytes out and as many
back, the ranks of a host sharing its link, in levels of up to 16 hosts:

    between(n) = 2 levels(h) alpha + n (h - 1) / h (beta + max(beta, add))

alpha [s] is the latency of a message, beta [s/byte] the time of a byte on the link, add [s/byte] that of adding a byte
that has come, which runs beside receiving. Parts of the gradient leave as the backward pass completes them, and
follow each other without a gap; `overlap` is the share of what could be hidden behind it that is hidden.

All of it leaves out that ranks differ in speed, that links are shared with others, and that switches are.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

REAL = 4  # [bytes] of a parameter
RADIX = 16  # hosts of a level of the exchange: RADIX_MAX of src/comm/exchange.c
SLICE, SLICES = 1 << 16, 8  # [reals] of a part of a matrix that leaves by itself, at least; parts, at most: src/train/step.c


class Configuration(NamedTuple):
    """What is trained: vocabulary, hidden units, window, sequences of the batch."""

    name: str
    V: int
    H: int
    T: int
    B: int


# Those of `unroll bench` (src/cli/bench.c).
NAMED = [
    Configuration("d2l", 28, 32, 32, 1024),
    Configuration("char128", 65, 128, 50, 50),
    Configuration("char512", 65, 512, 64, 64),
    Configuration("char1024", 256, 1024, 64, 64),
    Configuration("word200", 10000, 200, 35, 20),
    Configuration("word650", 10000, 650, 35, 20),
]


class Network(NamedTuple):
    name: str
    alpha: float  # [s]
    beta: float  # [s/byte]
    source: str


# TCP segments of 1448 bytes take 1538 on the wire: 20 IP, 32 TCP with time stamps, 14 + 4 Ethernet, 20 preamble and gap.
FRAMING = 1538 / 1448
TCP = (
    "line rate less framing of 1500-byte frames (1448 of 1538 bytes); 15 us: Open MPI's TCP between two nodes, "
    "nw-grid.ac.uk/LivMPI, taken for every rate since it is the kernel's"
)
AZURE = "one-way latency and bandwidth that Microsoft gives for virtual machines of the "
NETWORKS = [
    Network("1 Gbit/s Ethernet", 15e-6, 8 / 1e9 * FRAMING, TCP),
    Network("10 Gbit/s Ethernet", 15e-6, 8 / 10e9 * FRAMING, TCP),
    Network("25 Gbit/s Ethernet", 15e-6, 8 / 25e9 * FRAMING, TCP),
    Network("100 Gbit/s Ethernet", 15e-6, 8 / 100e9 * FRAMING, TCP),
    Network("InfiniBand HDR", 1.2e-6, 8 / 192e9, AZURE + "HBv3 series: 1.2 us, 192 Gbit/s"),
    Network("InfiniBand NDR", 2e-6, 8 / 400e9, AZURE + "HBv4 series: less than 2 us, 400 Gbit/s"),
]


# ------------------------------------------------------------------ the gradient


def stride(n):
    """Elements from one row of n to the next, as kernels_ld of src/kernels/kernels.h."""
    padded = (n + 15) // 16 * 16
    return padded + 16 if padded % 256 == 0 else padded


def is_sparse(c, batch):
    """Do only rows of the input table travel? As network_is_sparse of src/model/network.h."""
    return c.V > c.T * batch


def rows_touched(c, batch):
    """Different tokens in a window of uniformly drawn ones, as those of `unroll bench`: the expected number."""
    return c.V * -math.expm1(c.T * batch * math.log1p(-1 / c.V)) if c.V > 1 else 1.0


def slices(n, hosts):
    """Shares of a matrix of n reals after which a part of it leaves."""
    count = min(SLICES, max(1, n // SLICE)) if hosts > 1 else 1
    return [(k + 1) / count for k in range(count)]


def parts(c, batch, hosts):
    """[(bytes, share of the backward pass that is still to come)] in the order in which parts of the gradient leave.

    As network_backward of src/model/backward.c; the shares are those of the operations: 2 H V for dW_qh, 2 H^2 for the
    walk back, 2 H^2 for dW_hh.
    """
    total = c.V + 2 * c.H
    output, recurrent = c.V * stride(c.H), c.H * stride(c.H)
    rows = rows_touched(c, batch) if is_sparse(c, batch) else c.V
    out, hidden = slices(output, hosts), slices(recurrent, hosts)
    leave = [(output / len(out), (c.V * (1 - done) + 2 * c.H) / total) for done in out]
    leave += [(stride(c.V), 2 * c.H / total), (rows * stride(c.H), c.H / total)]
    leave += [(recurrent / len(hidden), c.H * (1 - done) / total) for done in hidden]
    leave += [(stride(c.H), 0.0)]
    return [(REAL * n, share) for n, share in leave]


def gradient_bytes(c, batch):
    return sum(n for n, _ in parts(c, batch, 1))


def meetings(c, hosts):
    """How often the ranks of a host meet to add up: for each slice of the two products, and for the input table."""
    return len(slices(c.V * stride(c.H), hosts)) + len(slices(c.H * stride(c.H), hosts)) + 1


# ------------------------------------------------------------------ the exchange


class Exchange(NamedTuple):
    """What a fit finds; NaN where nothing that was measured tells."""

    alpha: float
    beta: float
    host_latency: float
    host_cost: float


def levels(hosts):
    """Of the exchange; hosts is a power of two."""
    return math.ceil(math.log2(hosts) / math.log2(RADIX))


def terms(n, ranks, hosts):
    """Of the time of one exchange, by the fields of Exchange."""
    shared = float(ranks > hosts)
    return [2 * levels(hosts), 2 * n * (hosts - 1) / hosts, shared, shared * n]


def measured_terms(messages):
    """Fields of Exchange that take part in the messages, and the matrix of all their terms over their times."""
    rows = np.array([terms(*m[:3]) for m in messages], float).reshape(-1, 4)
    relative = rows / np.array([[m[3]] for m in messages], float).reshape(-1, 1)
    return [k for k in range(4) if np.any(rows[:, k] > 0)], relative


def tells_apart(messages):
    """Is the fit the only one? Not so for example from two and four hosts alone: a latency inside goes with each between."""
    known, relative = measured_terms(messages)
    columns = relative[:, known]
    return bool(known) and np.linalg.matrix_rank(columns / np.linalg.norm(columns, axis=0)) == len(known)


def fit_exchange(messages):
    """Exchange with the least sum of squared relative errors and no field below zero.

    messages: [(bytes, ranks, hosts, seconds)]. Four fields at most, so every choice of those that are not zero is
    solved, and the best one without a negative is taken: exact, and short.
    """
    known, relative = measured_terms(messages)
    best, least = {}, math.inf
    for count in range(len(known) + 1):
        for chosen in map(list, itertools.combinations(known, count)):
            columns = relative[:, chosen]
            scale = np.linalg.norm(columns, axis=0)
            x = np.linalg.lstsq(columns / scale, np.ones(len(columns)), rcond=None)[0] / scale
            error = np.sum((columns @ x - 1) ** 2)
            if np.all(x >= 0) and error < least:
                best, least = dict(zip(chosen, x)), error
    return Exchange(*(best.get(k, 0.0) if k in known else math.nan for k in range(4)))


def between(network, add, n, hosts):
    """[s] of n bytes between hosts."""
    if hosts == 1:
        return 0.0
    return 2 * levels(hosts) * network.alpha + n * (hosts - 1) / hosts * (network.beta + max(network.beta, add))


def inside(exchange, n, ranks, hosts, times=1):
    """[s] of n bytes inside each host, in so many parts."""
    return times * exchange.host_latency + n * exchange.host_cost if ranks > hosts else 0.0


def adding(exchange, ranks_per_host, hosts):
    """[s/byte] of adding what has come, by what moves in memory, where a sum inside a host was measured.

    Inside a host r bytes are read and one is written for each; where g - 1 bytes come, one of each other member of a
    level of g, g are read and one is written.
    """
    if ranks_per_host == 1 or hosts == 1:
        return 0.0
    g = min(hosts, RADIX)
    return (g + 1) / (g - 1) / (ranks_per_host + 1) * exchange.host_cost


def all_and_best(c, batch, network, add, backward, hosts):
    """[s] The exchange between hosts if nothing hides it, and what is left of it if all is hidden that can be."""
    if hosts == 1:
        return 0.0, 0.0
    latency, end = between(network, add, 0, hosts), 0.0
    for n, share in parts(c, batch, hosts):
        end = max(end, backward * (1 - share)) + between(network, add, n, hosts) - latency
    return between(network, add, gradient_bytes(c, batch), hosts), end + latency - backward


def small_sums(network, c, batch, hosts):
    """[s] The sum of the losses, and the union of the tokens seen: a message for each power of two."""
    return math.log2(hosts) * network.alpha * (2 if is_sparse(c, batch) else 1) if hosts > 1 else 0.0


# ---------------------------------------------------------------------- the step


class Compute:
    """Phases of one host full of ranks by the sequences of a rank."""

    def __init__(self, c, ranks, measured):
        """measured: [(b, passes, backward, apply)] in seconds, `backward` being part of `passes`."""
        measured = sorted(measured)
        self.b = np.array([m[0] for m in measured], float)
        self.passes = np.array([m[1] for m in measured], float)
        self.backward = np.array([m[2] for m in measured], float)
        bytes_then = np.array([gradient_bytes(c, m[0] * ranks) for m in measured])
        self.apply = float(np.median([m[3] for m in measured] / bytes_then))  # [s/byte]

    def at(self, b):
        """passes and backward [s]: a line through the two nearest measured points."""
        if len(self.b) == 1:
            return self.passes[0] * b / self.b[0], self.backward[0] * b / self.b[0]
        i = int(np.clip(np.searchsorted(self.b, b) - 1, 0, len(self.b) - 2))
        x = (b - self.b[i]) / (self.b[i + 1] - self.b[i])
        return tuple(y[i] + x * (y[i + 1] - y[i]) for y in (self.passes, self.backward))


class Step(NamedTuple):
    step: float
    compute: float
    exchange: float  # inside and between, whether hidden or not
    visible: float  # inside, and what is not hidden of between


def predict(c, compute, exchange, network, add, overlap, batch, ranks, hosts):
    """Step [s] of a global batch; network is what lies between the hosts, add 0 where its beta was measured with adding."""
    passes, backward = compute.at(batch / ranks)
    n = gradient_bytes(c, batch)
    whole, best = all_and_best(c, batch, network, add, backward, hosts)
    local = inside(exchange, n, ranks, hosts, meetings(c, hosts))
    visible = local + whole - overlap * (whole - best) + small_sums(network, c, batch, hosts)
    work = passes + compute.apply * n
    return Step(work + visible, work, local + whole, visible)


def fit_overlap(cases):
    """The share of what could be hidden that is, between 0 and 1; NaN without a case where something could be.

    cases: [(step, whole, best, seen)] in seconds: the measured step, all_and_best of the model, and what was seen of the
    exchange between the hosts.
    """
    above = sum((whole - best) * (whole - seen) / step**2 for step, whole, best, seen in cases)
    below = sum((whole - best) ** 2 / step**2 for step, whole, best, _ in cases)
    return min(1.0, max(0.0, above / below)) if below > 0 else math.nan
