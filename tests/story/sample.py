"""What `unroll sample` draws, against the distribution of the model in NumPy; and how it talks on a terminal.

    sample.py SOURCE UNROLL RUN
"""

import os
import pty
import re
import shutil
import subprocess
import sys
from collections import Counter

import h5py
import numpy as np

source, unroll, path = sys.argv[1:]
sys.path.insert(0, os.path.join(source, "jobs", "analysis"))
from load_numpy import Model  # noqa: E402

PRIME, DRAWS = "the ", 2000


def sample(run, *options):
    """The samples, each with its prime and without the line end behind it."""
    out = subprocess.run([unroll, "sample", run, *map(str, options)], stdout=subprocess.PIPE, check=True).stdout
    return [text[:-1] for text in re.split(r"--- sample \d+ of \d+\n", out.decode())[1:]]


def distribution(run, temperature):
    """Token -> probability of the first token behind the prime; <unk> is never drawn."""
    model = Model(run)
    state = model.start()
    for token in model.encode(PRIME):
        logits, state = model.step(token, state)
    logits = np.asarray(logits, float)[1:] / temperature
    p = np.exp(logits - logits.max())
    return {model.text(v + 1).decode(): value for v, value in enumerate(p / p.sum())}


def likeliest(p, k, top_p):
    """What is left of p, as probabilities: by definition, the k likeliest, of these the fewest that have top_p."""
    order = sorted(p, key=lambda token: -p[token])[:k]  # a stable sort: ties by index
    total, sum_, left = sum(p[token] for token in order), 0.0, []
    for token in order:
        left.append(token)
        sum_ += p[token]
        if sum_ >= top_p * total:
            break
    return {token: p[token] / sum_ for token in left}


def check_draws(run, expected, *options):
    drawn = Counter(text[len(PRIME) :] for text in sample(run, "--prime", PRIME, "--length", 1, "--count", DRAWS, *options))
    assert set(drawn) <= set(expected), (options, sorted(drawn), expected)
    for token, p in expected.items():
        error = abs(drawn[token] - DRAWS * p) / (DRAWS * p * (1 - p) + 1) ** 0.5
        assert error < 5, (options, token, drawn[token], DRAWS * p)


cases = 0
for temperature in (1.0, 1.7):
    p = distribution(path, temperature)
    sums = np.cumsum(sorted(p.values(), reverse=True))
    for n in (0, 1, 3, 7):  # between two sums: rounding decides nothing
        top_p = (sums[n] + (sums[n - 1] if n > 0 else 0)) / 2
        expected = likeliest(p, len(p), top_p)
        assert len(expected) == n + 1
        check_draws(path, expected, "--temperature", temperature, "--top-p", top_p)
        cases += 1
    for k, top_p in ((1, 1.0), (5, 1.0), (5, 0.61), (5, 0.05), (1000, 0.5)):
        check_draws(path, likeliest(p, k, top_p), "--temperature", temperature, "--top-k", k, "--top-p", top_p)
        cases += 1
    check_draws(path, p, "--temperature", temperature, "--top-p", 1)

# Where all are equally likely the first tokens of the vocabulary are left.
shutil.copy(path, "flat.h5")
with h5py.File("flat.h5", "r+") as run:
    for name in ("W_qh", "b_q"):
        run["weights/output"][name][...] = 0
flat = distribution("flat.h5", 1.0)
expected = likeliest(flat, len(flat), 5.5 / len(flat))
assert list(expected) == list(flat)[:6]
check_draws("flat.h5", expected, "--top-p", 5.5 / len(flat))
check_draws("flat.h5", likeliest(flat, 4, 0.7), "--top-k", 4, "--top-p", 0.7)
assert sample(path, "--length", 30, "--count", 2, "--top-p", 1) == sample(path, "--length", 30, "--count", 2)
print(cases, "ways to draw")


# ------------------------------------------------------------- on a terminal
class Terminal:
    def __init__(self, *command):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)

    def read(self, end=b"> "):
        """What is printed, up to `end` or, where that is None, up to the end."""
        said = b""
        while end is None or not said.endswith(end):
            try:
                more = os.read(self.fd, 1)
            except OSError:  # the other side is closed
                more = b""
            if not more:
                assert end is None, said
                break
            said += more
        return said.replace(b"\r\n", b"\n").decode(errors="replace")

    def type(self, text):
        os.write(self.fd, text.encode() if isinstance(text, str) else text)
        return self.read()


first, second, third = sample(path, "--prime", "the ", "--length", 20, "--count", 3)
terminal = Terminal(unroll, "sample", path, "--length", "20")
asks = terminal.read()
assert "Ctrl-D ends" in asks, asks
for typed, expected in (("the \n", first), ("\n", second), ("the \n", third)):
    said = terminal.type(typed)
    assert said == f"{typed}{expected}\n> ", (said, typed, expected)
said = terminal.type(b"\xff\n")
assert "unroll: " in said and said.count("\n") == 2, said
other = sample(path, "--prime", "a river ", "--length", 20, "--count", 5)[4]
said = terminal.type("a river \n")
assert said == f"a river \n{other}\n> ", (said, other)
os.write(terminal.fd, b"\x04")
rest = terminal.read(None)
assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0, rest

# With a prime, or with several samples to draw, nobody is asked.
for options in (("--prime", "the "), ("--count", "2")):
    terminal = Terminal(unroll, "sample", path, "--length", "20", *options)
    assert "Ctrl-D" not in terminal.read(None)
    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0
print("a talk on a terminal")
