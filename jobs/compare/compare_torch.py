"""Tokens per second of one training step in PyTorch: forward, cross entropy, backward, clip, SGD.

    compare_torch.py FORM PROCESSES THREADS VOCAB HIDDEN STEPS BATCH SECONDS

FORM is how the model is written; all three are the same model:

    onehot     one-hot vectors and torch.nn.RNN
    embedding  the input weights as torch.nn.Embedding, then torch.nn.RNN with an identity input
    loop       the same embedding, then a Python loop over the cell's product and tanh

With PROCESSES > 1 they share the batch by DistributedDataParallel over gloo, THREADS threads each. Prints the
median over blocks of steps, like `unroll bench`. compare.sh calls this; see there.
"""

import os
import statistics
import sys
import time

import torch
from torch import nn

WINDOWS = 16  # of synthetic text, used again and again
BLOCKS = 5
FORMS = ("onehot", "embedding", "loop")


class Onehot(nn.Module):
    def __init__(self, V, H):
        super().__init__()
        self.rnn = nn.RNN(V, H)
        self.V = V

    def forward(self, x, h):
        states, last = self.rnn(nn.functional.one_hot(x, self.V).float(), h.unsqueeze(0))
        return states, last[0]


class Embedding(nn.Module):
    def __init__(self, V, H):
        super().__init__()
        self.table = nn.Embedding(V, H)
        self.rnn = nn.RNN(H, H)
        with torch.no_grad():
            self.table.weight.uniform_(-(H**-0.5), H**-0.5)
            self.rnn.weight_ih_l0.copy_(torch.eye(H))
        self.rnn.weight_ih_l0.requires_grad_(False)

    def forward(self, x, h):
        states, last = self.rnn(self.table(x), h.unsqueeze(0))
        return states, last[0]


class Loop(nn.Module):
    def __init__(self, V, H):
        super().__init__()
        self.table = nn.Embedding(V, H)
        self.recurrent = nn.Linear(H, H)
        with torch.no_grad():
            self.table.weight.uniform_(-(H**-0.5), H**-0.5)

    def forward(self, x, h):
        states = []
        for a in self.table(x):
            h = torch.tanh(a + self.recurrent(h))
            states.append(h)
        return torch.stack(states), h


class Model(nn.Module):
    """Mean loss in nats per token of a window x, y (T, B) from the state h (B, H), and the last state."""

    def __init__(self, form, V, H):
        super().__init__()
        self.layer = {"onehot": Onehot, "embedding": Embedding, "loop": Loop}[form](V, H)
        self.output = nn.Linear(H, V)

    def forward(self, x, y, h):
        states, last = self.layer(x, h)
        scores = self.output(states.flatten(0, 1))
        return nn.functional.cross_entropy(scores, y.flatten()), last.detach()


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def measure(form, V, H, T, B, seconds, distributed):
    torch.manual_seed(1)
    torch.set_flush_denormal(True)
    model = Model(form, V, H)
    if distributed:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(trainable(model), lr=2e-3)
    text = torch.randint(V, (WINDOWS, T + 1, B))
    h = torch.zeros(B, H)

    def steps(n):
        nonlocal h
        before = time.perf_counter()
        for k in range(n):
            window = text[k % WINDOWS]
            loss, h = model(window[:-1], window[1:], h)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trainable(model), 1.0)
            optimizer.step()
        return time.perf_counter() - before

    def longest(elapsed):
        if distributed:  # all processes decide alike
            slowest = torch.tensor(elapsed)
            torch.distributed.all_reduce(slowest, torch.distributed.ReduceOp.MAX)
            elapsed = slowest.item()
        return elapsed

    steps(2)
    n = max(1, int(seconds / BLOCKS / longest(steps(2)) * 2))
    return T * B * n / statistics.median(longest(steps(n)) for _ in range(BLOCKS))


def worker(rank, processes, threads, address, form, V, H, T, B, seconds):
    torch.set_num_threads(threads)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    rate = measure(form, V, H, T, B // processes, seconds, True)
    if rank == 0:
        print(processes * rate)
    torch.distributed.destroy_process_group()


def main():
    form, (processes, threads, V, H, T, B) = sys.argv[1], map(int, sys.argv[2:8])
    seconds = float(sys.argv[8])
    if processes == 1:
        torch.set_num_threads(threads)
        print(measure(form, V, H, T, B, seconds, False))
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"/tmp/compare_torch.{os.getpid()}"
    arguments = (processes, threads, f"file://{meeting}", form, V, H, T, B, seconds)
    try:
        torch.multiprocessing.spawn(worker, arguments, nprocs=processes)
    finally:
        if os.path.exists(meeting):
            os.unlink(meeting)


if __name__ == "__main__":
    main()
