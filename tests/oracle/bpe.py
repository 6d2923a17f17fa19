"""Byte pair encoding once more, from its definition and without haste: does a run file have the tokens, and a text the
number of them, that it should?

    bpe.py RUN TEXT V      TEXT is what the run was trained on, all of it; V what --vocab-size was
"""

import re
import sys
from collections import Counter

import h5py

PIECE = rb" ?[^ \t\n\v\f\r]+|[ \t\n\v\f\r]"


def merged(tokens, pair, new):
    out, i = [], 0
    while i < len(tokens):
        both = tuple(tokens[i : i + 2]) == pair
        out.append(new if both else tokens[i])
        i += 2 if both else 1
    return out


def learn(pieces, V):
    texts = [bytes([b]) for b in range(256)]
    words = {piece: list(piece) for piece in pieces}
    while len(texts) < V:
        pairs = Counter()
        for piece, count in pieces.items():
            for pair in zip(words[piece], words[piece][1:]):
                pairs[pair] += count
        found = [(-n, pair) for pair, n in pairs.items() if n > 1]
        if not found:
            break
        pair = min(found)[1]
        texts.append(texts[pair[0]] + texts[pair[1]])
        words = {piece: merged(tokens, pair, len(texts) - 1) for piece, tokens in words.items()}
    return texts, words


run, text, V = h5py.File(sys.argv[1], "r"), open(sys.argv[2], "rb").read(), int(sys.argv[3])
pieces = Counter(re.findall(PIECE, text))
texts, words = learn(pieces, V)
names = run["vocab/token"].asstr()[...]
got = [re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), name.encode()) for name in names]
assert got == texts, [pair for pair in zip(got, texts) if pair[0] != pair[1]][:3]
counts = Counter(token for piece, n in pieces.items() for token in words[piece] * n)
assert run["vocab/count"][...].tolist() == [counts[v] for v in range(len(texts))]
assert run["provenance"].attrs["train_tokens"] == sum(counts.values())
assert run["provenance"].attrs["train_characters"] == len(text.decode())
print(len(texts), "tokens, the last of them", texts[-3:])
