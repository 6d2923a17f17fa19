#!/usr/bin/env python3
"""A run file in NumPy, of every cell: text to tokens, the forward pass, sampling. To read, and to copy into a program.

    load_numpy.py RUN [--prime TEXT] [--length 200] [--temperature 0]
"""

import argparse
import re
import sys

import h5py
import numpy as np


def logistic(a):
    return 1.0 / (1.0 + np.exp(-a))


class Subwords:
    """Level bpe: the texts of the tokens in their order are the merges too; see src/data/bpe.h."""

    def __init__(self, names):
        self.text = [re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), name.encode()) for name in names]
        self.merge = {}
        for v in range(256, len(self.text)):
            self.merge[tuple(self.encode_piece(self.text[v]))] = v

    def encode_piece(self, piece):
        tokens = list(piece)
        while True:
            least = min((self.merge.get(pair, len(self.text)) for pair in zip(tokens, tokens[1:])), default=len(self.text))
            if least == len(self.text):
                return tokens
            merged, i = [], 0
            while i < len(tokens):
                pair = self.merge.get(tuple(tokens[i : i + 2])) == least
                merged.append(least if pair else tokens[i])
                i += 2 if pair else 1
            tokens = merged

    def encode(self, text):
        pieces = re.findall(rb" ?[^ \t\n\v\f\r]+|[ \t\n\v\f\r]", text.encode())
        return [token for piece in pieces for token in self.encode_piece(piece)]


class Model:
    def __init__(self, path):
        with h5py.File(path, "r") as run:
            self.config = {k: v.decode() if isinstance(v, bytes) else v for k, v in run["config"].attrs.items()}
            self.token, self.code = run["vocab/token"].asstr()[:], run["vocab/code"][:]
            weights = run["average"] if "average" in run else run["weights"]
            read = lambda group: {name: tensor[:] for name, tensor in weights[group].items()}
            self.layers = [read(f"layer{k}") for k in range(self.config["layers"])]
            self.output = read("output")
            self.table = weights["input/W_xe"][:] if "input" in weights else None
            if self.config.get("tied", 0):
                self.table = self.output["W_qh"]
        self.cell, self.level = self.config["cell"], self.config["level"]
        self.subwords = Subwords(self.token) if self.level == "bpe" else None
        words = {"\n" if name == "<eos>" else name: v for v, name in enumerate(self.token)}
        self.index = words if self.level == "word" else {int(code): v for v, code in enumerate(self.code)}

    def encode(self, text):
        """Tokens of a text; 0 is <unk>."""
        if self.level == "bpe":
            return self.subwords.encode(text)
        units = text.encode() if self.level == "byte" else map(ord, text)
        if self.level == "word":
            units = re.findall(r"\n|[^ \t\n\v\f\r]+", text)
        return [self.index.get(unit, 0) for unit in units]

    def text(self, v):
        """The bytes of a token."""
        if self.level == "bpe":
            return self.subwords.text[v]
        if self.level == "word":
            return b"\n" if self.token[v] == "<eos>" else b" " + self.token[v].encode()
        return bytes([self.code[v]]) if self.level == "byte" else chr(self.code[v]).encode()

    def start(self):
        """The zero state: for each layer h and, of an lstm, c."""
        H = self.output["W_qh"].shape[1]
        return [(np.zeros(H, np.float32), np.zeros(H, np.float32)) for _ in self.layers]

    def step(self, token, state):
        """One token: logits (V) of the next one, and the new state."""
        new, read = [], None
        for w, (h, c) in zip(self.layers, state):
            if new or self.table is not None:
                a = w["b_h"] + w["W_xh"] @ (read if new else self.table[token])
            else:
                a = w["b_h"] + w["W_xh"][:, token]  # one-hot
            if self.cell == "rnn":
                a = a + w["W_hh"] @ h
                h = np.maximum(a, 0) if self.config["activation"] == "relu" else np.tanh(a)
            elif self.cell == "lstm":
                i, f, g, o = np.split(a + w["W_hh"] @ h, 4)
                c = logistic(f) * c + logistic(i) * np.tanh(g)
                h = logistic(o) * np.tanh(c)
            elif self.cell == "gru":
                (r, z, n), (r_h, z_h, n_h) = np.split(a, 3), np.split(w["W_hh"] @ h, 3)
                r, z = logistic(r + r_h), logistic(z + z_h)
                h = (1 - z) * np.tanh(n + r * (n_h + w["b_hn"])) + z * h
            else:  # mingru
                z, n = np.split(a, 2)
                h = (1 - logistic(z)) * h + logistic(z) * n
            read = h + read if new and self.config.get("skip", 0) else h  # by the layer above
            new.append((h, c))
        return self.output["W_qh"] @ read + self.output["b_q"], new

    def sample(self, prime, length, temperature):
        """The bytes of `length` tokens behind the prime; temperature 0: the likeliest ones. <unk> is never drawn."""
        state, text, first = self.start(), b"", 0 if self.level in ("byte", "bpe") else 1
        begin = "\n" if self.config["sequences"] != "stream" else ""  # lines and paragraphs were read behind a line end
        for token in self.encode(begin + (prime or (" " if self.config["letters"] else "\n"))):
            logits, state = self.step(token, state)
        for _ in range(length):
            o = logits[first:].astype(float)
            if temperature == 0:
                token = first + o.argmax()
            else:
                p = np.exp((o - o.max()) / temperature)
                token = first + np.random.choice(len(p), p=p / p.sum())
            text += self.text(token)
            logits, state = self.step(token, state)
        return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run file")
    parser.add_argument("--prime", default="", help="text to go on from")
    parser.add_argument("--length", type=int, default=200, help="[tokens] text to draw")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token")
    a = parser.parse_args()
    text = Model(a.run).sample(a.prime, a.length, a.temperature)
    sys.stdout.buffer.write(a.prime.encode() + text + b"\n")


if __name__ == "__main__":
    main()
