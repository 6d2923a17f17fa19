"""Texts whose entropy is known, from a fixed generator.

    sources.py markov SEED SYMBOLS FILE   second-order chain over eight letters
    sources.py reber SEED STRINGS FILE    strings of the embedded Reber grammar, one a line

Prints what the source itself loses on the text it wrote, in nats per token: entropy rate of the source, loss on
this very text, and the standard error of that loss. No model can expect less than the entropy; on one text it can
be below only by as much as the text is luckier than the source, so the second number is the bar.
"""

import math
import sys

LETTERS = "abcdefgh"
BLOCKS = 64  # for the standard error: neighbouring tokens are not independent, long blocks nearly are


class Generator:
    """Knuth's MMIX generator; the high bits are good."""

    def __init__(self, seed):
        self.x = seed

    def uniform(self):
        self.x = (self.x * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.x >> 11) * 2.0**-53


# -------------------------------------------------------------------- Markov


def chain():
    """p[a][b][c] = P(c | a, b): the same for every seed of a text."""
    g = Generator(2024)
    p = []
    for _ in LETTERS:
        p.append([])
        for _ in LETTERS:
            weights = [g.uniform() ** 4 + 0.003 for _ in LETTERS]
            p[-1].append([w / sum(weights) for w in weights])
    return p


def entropy_rate(p):
    """Of the stationary chain of pairs, by powers of its transition."""
    n = range(len(LETTERS))
    pi = [[1.0 / len(LETTERS) ** 2 for _ in n] for _ in n]
    for _ in range(500):
        pi = [[sum(pi[a][b] * p[a][b][c] for a in n) for c in n] for b in n]
    return -sum(pi[a][b] * q * math.log(q) for a in n for b in n for q in p[a][b])


def markov(seed, symbols):
    p, g = chain(), Generator(seed)
    text, losses, a, b = [], [], 0, 0
    for _ in range(symbols):
        row, u, c = p[a][b], g.uniform(), 0
        while c < len(row) - 1 and u >= row[c]:
            u -= row[c]
            c += 1
        text.append(LETTERS[c])
        losses.append(-math.log(row[c]))
        a, b = b, c
    return "".join(text), entropy_rate(p), losses


# --------------------------------------------------------------------- Reber

# Reber (1967): node -> the two ways on, each a letter and the next node; node 5 is the end.
REBER = [(("T", 1), ("P", 2)), (("S", 1), ("X", 3)), (("T", 2), ("V", 4)), (("X", 2), ("S", 5)), (("P", 3), ("V", 5))]


def expected_choices():
    """Of one walk, by solving m = 1 + (m_left + m_right) / 2 by iteration."""
    m = [0.0] * 6
    for _ in range(2000):
        m = [1.0 + sum(m[to] for _, to in ways) / 2.0 for ways in REBER] + [0.0]
    return m[0]


def reber(seed, strings):
    """B T B...E T E or B P B...E P E: the last letter but one repeats the second across the inner string."""
    g = Generator(seed)
    text, losses = [], []

    def say(letter, choices):
        text.append(letter)
        losses.append(choices * math.log(2.0))

    for _ in range(strings):
        outer = "TP"[g.uniform() < 0.5]
        say("B", 0)
        say(outer, 1)
        say("B", 0)
        node = 0
        while node != 5:
            letter, node = REBER[node][g.uniform() < 0.5]
            say(letter, 1)
        for letter in ("E", outer, "E", "\n"):
            say(letter, 0)
    choices = 1.0 + expected_choices()  # each walk of n choices says n letters; B, B, E, outer, E, newline cost none
    return "".join(text), choices * math.log(2.0) / (choices + 6.0), losses


def main():
    kind, seed, n, path = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    text, entropy, losses = (markov if kind == "markov" else reber)(seed, n)
    with open(path, "w", encoding="ascii", newline="") as f:
        f.write(text)
    mean = sum(losses) / len(losses)
    size = len(losses) // BLOCKS
    blocks = [sum(losses[k * size : (k + 1) * size]) / size for k in range(BLOCKS)]
    centre = sum(blocks) / BLOCKS
    error = math.sqrt(sum((x - centre) ** 2 for x in blocks) / (BLOCKS - 1) / BLOCKS)
    print(f"{entropy:.6f} {mean:.6f} {error:.6f}")


if __name__ == "__main__":
    main()
