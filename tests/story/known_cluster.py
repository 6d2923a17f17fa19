"""A cluster whose times are known, in place of launcher and program for jobs/scaling.

    known_cluster.py bench --help                                    as the program
    known_cluster.py launch RANKS HOSTS THREADS hostname             as the launcher
    known_cluster.py launch RANKS HOSTS THREADS PROGRAM bench --json OPTIONS...

A step is passes of P0 + b P1 for b sequences a rank, norm and update by the bytes of the gradient, a sum inside each
host, and an exchange between hosts of which the share OVERLAP of what can be hidden is. The sizes that are asked for
must need no padding: hidden units and vocabulary multiples of 16, none of 256.
"""

import json
import sys

ALPHA, BETA = 30e-6, 2e-9  # [s] of a message, [s/byte]
LATENCY, COST = 4e-6, 0.25e-9  # of a sum inside a host: [s], [s/byte]
OVERLAP = 0.75
P0, P1 = 2e-3, 0.4e-3  # [s] of forward, output and backward: once, for each sequence
FORWARD, OUTPUT, BACKWARD = 0.25, 0.15, 0.6  # of the passes
NORM, UPDATE = 0.1e-9, 0.3e-9  # [s/byte]


def doublings(hosts):
    return (hosts - 1).bit_length()


def latency(hosts):
    """Out and back through levels of 16 hosts: four doublings each."""
    return 2 * -(-doublings(hosts) // 4) * ALPHA


def wire(n, hosts):
    """2 (h - 1) / h of the bytes go over the link, and as many come."""
    return 2 * n * (hosts - 1) / hosts * BETA


def memory(n, ranks, hosts, parts):
    return parts * LATENCY + n * COST if ranks > hosts else 0.0


def slices(n, hosts):
    """Of a matrix of n numbers: up to eight of at least 65536, or one."""
    return max(1, min(8, n // 65536)) if hosts > 1 else 1


def run(ranks, hosts, threads, V, H, T, B, shards):
    """One result of `unroll bench --json`."""
    assert H % 16 == 0 and V % 16 == 0 and H % 256 != 0 and V % 256 != 0, "sizes that need padding"
    assert shards % ranks == 0 and B % shards == 0, "a batch that the ranks cannot share"
    sparse = V > T * B
    rows = V * (1 - (1 - 1 / V) ** (T * B)) if sparse else V
    n = 4 * (V * H + V + rows * H + H * H + H)
    passes = P0 + P1 * B / ranks
    backward = BACKWARD * passes
    # operations: 2 V H for the gradient of the output, 2 H^2 to walk back, 2 H^2 for dW_hh
    unit = backward / (V + 2 * H)
    first, last = slices(V * H, hosts), slices(H * H, hosts)
    whole = hidden = small = 0.0
    if hosts > 1:
        leaves = [(unit * V * (k + 1) / first, 4 * V * H / first) for k in range(first)]
        leaves += [(unit * V, 4 * V), (unit * (V + H), 4 * rows * H)]
        leaves += [(unit * (V + H + H * (k + 1) / last), 4 * H * H / last) for k in range(last)]
        leaves += [(backward, 4 * H)]
        whole = wire(n, hosts) + latency(hosts)
        # the link is busy to the end from the part on that it had to wait for
        ends = [when + sum(wire(size, hosts) for _, size in leaves[i:]) for i, (when, _) in enumerate(leaves)]
        hidden = OVERLAP * (whole - (max(ends) + latency(hosts) - backward))
        small = doublings(hosts) * ALPHA * (2 if sparse else 1)
    visible = memory(n, ranks, hosts, first + last + 1) + whole - hidden + small
    phases = {
        "forward_seconds": FORWARD * passes, "output_seconds": OUTPUT * passes, "backward_seconds": backward,
        "exchange_seconds": visible / 4, "wait_seconds": visible * 3 / 4,
        "norm_seconds": NORM * n, "update_seconds": UPDATE * n, "other_seconds": 0.0,
    }  # fmt: skip
    step = sum(phases.values())
    alone = wire(n, hosts) + latency(hosts) + memory(n, ranks, hosts, 1)
    return {
        "ranks": ranks, "threads": threads, "step_seconds": step, **phases,
        "tokens_per_second": T * B / step, "peak_gflops": 100.0 * ranks, "exchange_bytes": round(n),
        "exchange_bandwidth": round(n) / alone if ranks > 1 else None,
    }  # fmt: skip


def exchange(ranks, hosts):
    sizes = [4 * 8**k for k in range(9)]
    seconds = [wire(n, hosts) + latency(hosts) + memory(n, ranks, hosts, 1) for n in sizes]
    return [{"bytes": n, "seconds": s, "mpi_seconds": 2 * s} for n, s in zip(sizes, seconds)]


def main():
    if sys.argv[1:] == ["bench", "--help"]:
        print("  --exchange")
        return
    ranks, hosts, threads = map(int, sys.argv[2:5])
    words = sys.argv[5:]
    if words == ["hostname"]:
        for rank in range(ranks):
            print(f"node{rank * hosts // ranks}")
        return
    options = words[3:]
    answer = {"version": "0", "revision": "none", "cpu": "known", "kernels": "known"}
    if options[0] == "--exchange":
        answer["exchange"] = exchange(ranks, hosts)
    else:
        given = {k[2:]: float(v) for k, v in zip(options[::2], options[1::2])}
        sizes = [int(given[k]) for k in ("vocab", "hidden", "steps", "batch", "shards")]
        answer["configurations"] = [run(ranks, hosts, threads, *sizes)]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
