"""Tokens per second of one training step in PyTorch: forward, cross entropy, backward, clip, SGD.

    compare_torch.py FORM[,FORM]... PROCESSES THREADS CELL VOCAB HIDDEN STEPS BATCH LAYERS SECONDS

CELL is rnn, lstm or gru; FORM is how the model is written; all are the same model:

    onehot     one-hot vectors and torch.nn.RNN, LSTM or GRU
    embedding  the input weights as torch.nn.Embedding, then the same with an identity as its input weights
    loop       the same embedding, then a Python loop over the cell's product and functions; in the layers above, the
               input's product is one over all steps
    script     that loop, compiled by TorchScript

With PROCESSES > 1 they share the batch by DistributedDataParallel over gloo, THREADS threads each. Prints `FORM
RATE`, the median over blocks of steps, like `unroll bench`, as soon as a form is measured. compare.sh calls this;
see there.
"""

import os
import statistics
import sys
import tempfile
import time
from typing import List, Tuple

import torch
from torch import Tensor, nn

WINDOWS = 16  # of synthetic text, used again and again
BLOCKS = 5
FORMS = ("onehot", "embedding", "loop", "script")
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


# A layer over time: a (T, B, gates * H) of the input, the state before (1 or 2, B, H), recurrent weights and bias ->
# all h (T, B, H), and the state after. Annotated for TorchScript.


def walk_rnn(a: Tensor, state: Tensor, W: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
    h = state[0]
    states: List[Tensor] = []
    for x in (a + b).unbind(0):
        h = torch.tanh(torch.addmm(x, h, W.t()))
        states.append(h)
    return torch.stack(states), h.unsqueeze(0)


def walk_lstm(a: Tensor, state: Tensor, W: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
    h, c = state[0], state[1]
    states: List[Tensor] = []
    for x in (a + b).unbind(0):
        i, f, g, o = torch.addmm(x, h, W.t()).chunk(4, 1)
        c = torch.addcmul(torch.sigmoid(i) * torch.tanh(g), torch.sigmoid(f), c)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states), torch.stack([h, c])


def walk_gru(a: Tensor, state: Tensor, W: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:
    h = state[0]
    H = h.size(1)
    states: List[Tensor] = []
    for x in a.unbind(0):
        q = torch.addmm(b, h, W.t())
        r, z = torch.sigmoid(x[:, : 2 * H] + q[:, : 2 * H]).chunk(2, 1)
        n = torch.tanh(torch.addcmul(x[:, 2 * H :], r, q[:, 2 * H :]))
        h = torch.lerp(n, h, z)
        states.append(h)
    return torch.stack(states), h.unsqueeze(0)


WALKS = {"rnn": walk_rnn, "lstm": walk_lstm, "gru": walk_gru}


def input_table(cell, V, H):
    """The input weights (V, gates * H) of the first layer, as torch.nn.RNN would start them."""
    table = nn.Embedding(V, GATES[cell] * H)
    with torch.no_grad():
        table.weight.uniform_(-(H**-0.5), H**-0.5)
    return table


class Module(nn.Module):
    """PyTorch's own layers."""

    def __init__(self, cell, inputs, H, L):
        super().__init__()
        self.rnn = MODULES[cell](inputs, H, L)
        self.has_memory = cell == "lstm"

    def walk(self, x, state):
        states, last = self.rnn(x, tuple(state) if self.has_memory else state[0])
        return states, torch.stack(last) if self.has_memory else last.unsqueeze(0)


class Onehot(Module):
    def __init__(self, cell, V, H, L):
        super().__init__(cell, V, H, L)
        self.V = V

    def forward(self, x, state):
        return self.walk(nn.functional.one_hot(x, self.V).to(state.dtype), state)


class Embedding(Module):
    def __init__(self, cell, V, H, L):
        super().__init__(cell, GATES[cell] * H, H, L)
        self.table = input_table(cell, V, H)
        with torch.no_grad():
            self.rnn.weight_ih_l0.copy_(torch.eye(GATES[cell] * H))
        self.rnn.weight_ih_l0.requires_grad_(False)

    def forward(self, x, state):
        return self.walk(self.table(x), state)


class Loop(nn.Module):
    def __init__(self, cell, V, H, L):
        super().__init__()
        self.table = input_table(cell, V, H)
        self.above = nn.ModuleList(nn.Linear(H, GATES[cell] * H) for _ in range(L - 1))
        self.recurrent = nn.ModuleList(nn.Linear(H, GATES[cell] * H) for _ in range(L))
        self.walk = WALKS[cell]

    def forward(self, x, state):
        last = []
        a = self.table(x)
        for l, recurrent in enumerate(self.recurrent):
            states, after = self.walk(a, state[:, l], recurrent.weight, recurrent.bias)
            last.append(after)
            if l < len(self.above):
                a = self.above[l](states)
        return states, torch.stack(last, dim=1)


class Script(Loop):
    def __init__(self, cell, V, H, L):
        super().__init__(cell, V, H, L)
        self.walk = torch.jit.script(self.walk)


class Model(nn.Module):
    """Mean loss in nats per token of a window x, y (T, B) from a state (1 or 2, L, B, H), and the last state."""

    def __init__(self, form, V, H, cell="rnn", L=1):
        super().__init__()
        self.layers = {"onehot": Onehot, "embedding": Embedding, "loop": Loop, "script": Script}[form](cell, V, H, L)
        self.output = nn.Linear(H, V)
        self.state_shape = (2 if cell == "lstm" else 1, L, H)

    def start(self, B):
        """The zero state of B sequences."""
        n, L, H = self.state_shape
        return torch.zeros(n, L, B, H)

    def forward(self, x, y, state):
        states, last = self.layers(x, state)
        scores = self.output(states.flatten(0, 1))
        return nn.functional.cross_entropy(scores, y.flatten()), last.detach()


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def measure(form, cell, V, H, T, B, L, seconds, distributed):
    torch.manual_seed(1)
    torch.set_flush_denormal(True)
    model = Model(form, V, H, cell, L)
    state = model.start(B)
    if distributed:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(trainable(model), lr=2e-3)
    text = torch.randint(V, (WINDOWS, T + 1, B))

    def steps(n):
        nonlocal state
        before = time.perf_counter()
        for k in range(n):
            window = text[k % WINDOWS]
            loss, state = model(window[:-1], window[1:], state)
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


def worker(rank, processes, threads, address, forms, cell, V, H, T, B, L, seconds):
    torch.set_num_threads(threads)
    if processes > 1:
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    for form in forms:
        rate = processes * measure(form, cell, V, H, T, B // processes, L, seconds, processes > 1)
        if rank == 0:
            print(form, rate, flush=True)
    if processes > 1:
        torch.distributed.destroy_process_group()


def main():
    forms, (processes, threads), cell = sys.argv[1].split(","), map(int, sys.argv[2:4]), sys.argv[4]
    sizes, seconds = [int(word) for word in sys.argv[5:10]], float(sys.argv[10])
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, threads, f"file://{folder}/meeting", forms, cell, *sizes, seconds)
        if processes == 1:
            worker(0, *arguments)
        else:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            torch.multiprocessing.spawn(worker, arguments, nprocs=processes)


if __name__ == "__main__":
    main()
