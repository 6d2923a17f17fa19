"""How long a training step takes on many hosts: what jobs/scaling fits, and predicts from.

P ranks, r of them on each of h hosts, b sequences a rank. A step is

    step = passes(b) + apply(n) + inside(n) + visible

    passes    forward, output, backward: as measured on one host full of ranks, linear between measured b
    apply     norm and update, as measured there, by the bytes n of the gradient
    inside    the ranks of a host add up their gradients in shared memory: as measured on one host, linear between
              measured sizes
    visible   what is left of the exchange between the hosts at the end of the backward pass

The exchange of n bytes between h hosts (src/comm/exchange.c) sends and receives n (h - 1) / h bytes out and as many
back, the ranks of a host sharing its link, in levels of up to 16 hosts:

    between(n) = 2 levels(h) alpha + n (h - 1) / h (beta + max(beta, add))

alpha [s] is the latency of a message, beta [s/byte] the time of a byte on the link, add [s/byte] that of adding a received
byte, which overlaps receiving. Slices of the gradient are sent as the backward pass completes them, one after the other
without a gap; `overlap` is the fraction of the exchange that could overlap the backward pass and does.

The model neglects differences in speed between ranks, other traffic on the links, and switches.
"""

import math
from typing import NamedTuple

import numpy as np

REAL = 4  # [bytes] of a parameter
RADIX = 16  # hosts of a level of the exchange: RADIX_MAX of src/comm/exchange.c
SLICE, SLICES = 1 << 16, 8  # [reals] least of a slice of a matrix that is exchanged by itself: src/train/step.c; most slices: src/net/sink.h


class Configuration(NamedTuple):
    """What is trained: vocabulary, hidden units, window, sequences of the batch."""

    name: str
    V: int
    H: int
    T: int
    B: int


# The plain networks of `unroll bench` (src/cli/bench.c).
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
    "line rate less framing of 1500-byte frames (1448 of 1538 bytes); 15 us: Open MPI over TCP at 1 Gbit/s without "
    "a switch, nw-grid.ac.uk/LivMPI, taken for every rate since it is the kernel's"
)
AZURE = "one-way latency and bandwidth that Microsoft gives for virtual machines of the "
NETWORKS = [
    Network("1 Gbit/s Ethernet", 15e-6, 8 / 1e9 * FRAMING, TCP),
    Network("10 Gbit/s Ethernet", 15e-6, 8 / 10e9 * FRAMING, TCP),
    Network("25 Gbit/s Ethernet", 15e-6, 8 / 25e9 * FRAMING, TCP),
    Network("100 Gbit/s Ethernet", 15e-6, 8 / 100e9 * FRAMING, TCP),
    Network("InfiniBand HDR", 1.2e-6, 8 / 192e9, AZURE + "HBv3 series: 1.2 us, 192 Gbit/s (written GB/s)"),
    Network("InfiniBand NDR", 2e-6, 8 / 400e9, AZURE + "HBv4 series: less than 2 us, 400 Gbit/s"),
]


# ------------------------------------------------------------------ the gradient


def leading_dimension(n):
    """Elements from one row of n to the next, as kernels_ld of src/kernels/kernels.h."""
    padded = (n + 15) // 16 * 16
    return padded + 16 if padded % 256 == 0 else padded


def is_sparse(c, batch):
    """Are only touched rows of the input table exchanged? As embedding_is_sparse of src/net/embedding.c."""
    return c.V > c.T * batch


def rows_touched(c, batch):
    """Different tokens in a window of uniformly drawn ones, as those of `unroll bench`: the expected number."""
    return c.V * -math.expm1(c.T * batch * math.log1p(-1 / c.V)) if c.V > 1 else 1.0


def matrix_slices(n, bias, hosts):
    """[(reals, share of the product that is done)] of a matrix of n reals; its bias is sent with the last."""
    count = min(SLICES, max(1, n // SLICE)) if hosts > 1 else 1
    return [(n / count + bias * (k + 1 == count), (k + 1) / count) for k in range(count)]


def gradient_slices(c, batch, hosts):
    """[(bytes, share of the backward pass that is still to come)] of the slices, in the order in which they are sent.

    As network_backward of src/net/network.c; the shares are those of the operations: 2 H V for dW_qh, 2 H^2 for the
    recurrence, 2 H^2 for dW_hh.
    """
    total = c.V + 2 * c.H
    output, recurrent = c.V * leading_dimension(c.H), c.H * leading_dimension(c.H)
    rows = rows_touched(c, batch) if is_sparse(c, batch) else c.V
    sent = [(n, (c.V * (1 - done) + 2 * c.H) / total) for n, done in matrix_slices(output, leading_dimension(c.V), hosts)]
    sent += [(rows * leading_dimension(c.H), c.H / total)]
    sent += [(n, c.H * (1 - done) / total) for n, done in matrix_slices(recurrent, leading_dimension(c.H), hosts)]
    return [(REAL * n, share) for n, share in sent]


def gradient_bytes(c, batch):
    return sum(n for n, _ in gradient_slices(c, batch, 1))


# ------------------------------------------------------------------ the exchange


class Exchange:
    """Fitted to messages [(bytes, ranks, hosts, seconds)] of exchanges alone."""

    def __init__(self, messages):
        self.tables = {}  # of ranks of a host: sizes and times on one host
        for n, ranks, hosts, seconds in sorted(messages):
            if hosts == 1:
                sizes, times = self.tables.setdefault(ranks, ([], []))
                sizes.append(n)
                times.append(seconds)
        self.tables = {ranks: (sizes, monotone(times)) for ranks, (sizes, times) in self.tables.items()}
        between_hosts = [m for m in messages if m[2] > 1 and (m[1] == m[2] or m[1] // m[2] in self.tables)]
        self.alpha, self.beta = self.fit(between_hosts)

    def knows(self, ranks, hosts):
        """Was measured what such a layout needs?"""
        return (hosts == 1 or not math.isnan(self.beta)) and (ranks == hosts or ranks // hosts in self.tables)

    def inside(self, n, ranks, hosts):
        """[s] of n bytes inside each host."""
        if ranks == hosts:
            return 0.0
        sizes, times = self.tables[ranks // hosts]
        return max(0.0, interpolate(n, sizes, times))

    def fit(self, messages):
        """alpha and beta with the least sum of squared relative errors, neither below zero; NaN without a message.

        There are so few choices of which are zero that each is solved, and the best without a negative is taken.
        """
        best, least = (math.nan, math.nan), math.inf
        rows = np.array([[2 * levels(h), 2 * n * (h - 1) / h] for n, _, h, _ in messages]).reshape(-1, 2)
        seconds = np.array([s for _, _, _, s in messages])
        aim = seconds - [self.inside(n, ranks, h) for n, ranks, h, _ in messages]
        for chosen in ([0], [1], [0, 1]) if messages else ():
            columns = rows[:, chosen] / seconds[:, None]
            scale = np.linalg.norm(columns, axis=0)
            x = np.zeros(2)
            x[chosen] = np.linalg.lstsq(columns / scale, aim / seconds, rcond=None)[0] / scale
            error = np.sum(((rows @ x - aim) / seconds) ** 2)
            if np.all(x >= 0) and error < least:
                best, least = (float(x[0]), float(x[1])), error
        return best

    def adding(self, ranks_per_host, hosts):
        """[s/byte] of adding what has come, by what moves in memory, where a sum inside a host was measured.

        Inside a host r bytes are read and one is written for each; where g - 1 bytes come, one of each other member of a
        level of g, g are read and one is written.
        """
        sizes, times = self.tables.get(ranks_per_host, ([], []))
        if len(sizes) < 2 or hosts == 1:
            return 0.0
        cost = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])  # of the longest: they do not fit into caches
        g = min(hosts, RADIX)
        return max(0.0, (g + 1) / (g - 1) / (ranks_per_host + 1) * cost)


def monotone(seconds):
    """Of work that grows: whatever was seen to take longer than what is more was disturbed, and takes at most as long."""
    return np.minimum.accumulate(np.array(seconds[::-1], float))[::-1]


def interpolate(x, xs, ys):
    """Through the two nearest of the points, xs rising; through zero where there is but one.

    Beyond the last point through the first and the last: the noise of two near points would decide, of a rank's sequences
    far beyond what was measured even whether they take more time or less. And at least half of what the last point takes
    for each: more than a factor of two is not to be won by larger work.
    """
    if len(xs) == 1:
        return ys[0] * x / xs[0]
    if x > xs[-1]:
        slope = max((ys[-1] - ys[0]) / (xs[-1] - xs[0]), ys[-1] / xs[-1] / 2)
        return ys[-1] + (x - xs[-1]) * slope
    i = int(np.clip(np.searchsorted(xs, x) - 1, 0, len(xs) - 2))
    return ys[i] + (x - xs[i]) / (xs[i + 1] - xs[i]) * (ys[i + 1] - ys[i])


def levels(hosts):
    """Of the exchange; hosts is a power of two."""
    return math.ceil(math.log2(hosts) / math.log2(RADIX))


def between(network, add, n, hosts):
    """[s] of n bytes between hosts."""
    if hosts == 1:
        return 0.0
    return 2 * levels(hosts) * network.alpha + n * (hosts - 1) / hosts * (network.beta + max(network.beta, add))


def all_inside(c, batch, exchange, ranks, hosts):
    """[s] The slices of the gradient, added up inside each host."""
    return sum(exchange.inside(n, ranks, hosts) for n, _ in gradient_slices(c, batch, hosts))


def all_and_best(c, batch, network, add, backward, hosts):
    """[s] The exchange between hosts if nothing hides it, and what is left of it if all is hidden that can be."""
    if hosts == 1:
        return 0.0, 0.0
    latency, end = between(network, add, 0, hosts), 0.0
    for n, share in gradient_slices(c, batch, hosts):
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
        self.passes = monotone([m[1] for m in measured])
        self.backward = monotone([m[2] for m in measured])
        bytes_then = np.array([gradient_bytes(c, m[0] * ranks) for m in measured])
        self.apply = float(np.median([m[3] for m in measured] / bytes_then))  # [s/byte]

    def at(self, b):
        """passes and backward [s]."""
        return interpolate(b, self.b, self.passes), interpolate(b, self.b, self.backward)


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
    local = all_inside(c, batch, exchange, ranks, hosts)
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
