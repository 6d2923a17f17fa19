"""Train a character model in PyTorch as `unroll train` does, and print when which quality was reached.

    quality_torch.py TEXT FORM PROCESSES THREADS HIDDEN STEPS BATCH EPOCHS

The first 90% of the text are cut into BATCH streams, windows follow each other with the state carried; Adam 2e-3
with cosine decay, gradients clipped to norm 1. With PROCESSES > 1 each takes its share of the streams, THREADS
threads each, and DistributedDataParallel over gloo averages the gradients before they are clipped. After each
epoch the first process scores the last 10%, cut into BATCH streams from the zero state. Prints lines `valid epoch
E loss NATS seconds S`, seconds from the reading of the text on. time_to_quality.sh calls this.
"""

import math
import os
import sys
import tempfile
import time

import torch
from torch import nn

from compare_torch import FORMS, Model, trainable

SCORE_STEPS = 256


def streams(tokens, B):
    """(length + 1, B): inputs and targets of stream b are column b."""
    length = (len(tokens) - 1) // B
    return torch.stack([tokens[b * length : b * length + length + 1] for b in range(B)], dim=1)


def score(model, text):
    state, nats = model.start(text.shape[1]), 0.0
    with torch.no_grad():
        for k in range(0, len(text) - 1, SCORE_STEPS):
            x = text[k : k + SCORE_STEPS + 1]
            loss, state = model(x[:-1], x[1:], state)
            nats += loss.item() * (x.numel() - x.shape[1])
    return nats / (text.numel() - text.shape[1])


def train(rank, processes, threads, meeting, path, form, H, T, B, epochs):
    begin = time.perf_counter()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)

    with open(path, encoding="utf-8") as f:
        text = f.read()
    names = sorted(set(text))
    index = {name: i for i, name in enumerate(names)}
    tokens = torch.tensor([index[c] for c in text])
    cut = len(tokens) - len(tokens) // 10
    mine = slice(rank * B // processes, (rank + 1) * B // processes)
    text, valid = streams(tokens[:cut], B)[:, mine], streams(tokens[cut:], B)

    model = Model(form, len(names), H)
    shared = model
    if processes > 1:
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
        shared = nn.parallel.DistributedDataParallel(model)
    parameters = trainable(model)
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    windows = (len(text) - 1) // T
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / (windows * epochs))))
    )
    for epoch in range(1, epochs + 1):
        state = model.start(text.shape[1])
        for k in range(windows):
            x = text[k * T : k * T + T + 1]
            loss, state = shared(x[:-1], x[1:], state)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
        if rank == 0:
            loss = score(model, valid)
            print(f"valid epoch {epoch} loss {loss:.4f} seconds {time.perf_counter() - begin:.1f}", flush=True)
    if processes > 1:
        torch.distributed.destroy_process_group()


def main():
    path, form = sys.argv[1:3]
    processes, threads, H, T, B, epochs = map(int, sys.argv[3:])
    assert form in FORMS and B % processes == 0
    with tempfile.TemporaryDirectory() as folder:
        arguments = (processes, threads, f"file://{folder}/meeting", path, form, H, T, B, epochs)
        if processes == 1:
            train(0, *arguments)
        else:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            torch.multiprocessing.spawn(train, arguments, nprocs=processes)


if __name__ == "__main__":
    main()
