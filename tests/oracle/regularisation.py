"""What training alone does to a model, from the options of a run: masks, penalties on the states, smoothed labels. Written from
"Going on elsewhere" of src/runfile/README.md.

A mask is a matrix (units, B) of zeros and of 1 / (1 - p), or the number 1 where there is none.
"""

import functools

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
DROPOUT, WORD, WEIGHT = 8, 9, 10  # purposes
EMBEDDING = 255  # as a layer


def mix(z):
    """SplitMix64's, of arrays of uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bits(seed, purpose, i, j):
    """64 bits for each element of j."""
    z = np.zeros_like(np.asarray(j, np.uint64))
    for word in (seed, purpose, i, j):
        z = mix((z ^ np.asarray(word, np.uint64)) + np.uint64(GOLDEN))
    return z


class Share:
    """A probability, as a multiple of 2^-16."""

    def __init__(self, p):
        self.cut = int(p * 65536 + 0.5)

    def of_bits(self, sixteen):
        return np.where(sixteen < self.cut, 0.0, 65536.0 / (65536.0 - self.cut))

    def of_rows(self, first, n):
        """Rows of n elements, each from its own 64 bits `first` (rows)."""
        counter = np.arange(1, (n + 3) // 4 + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        words = mix(first[:, None] + counter)
        sixteen = words[:, :, None] >> np.array([0, 16, 32, 48], np.uint64) & np.uint64(0xFFFF)
        return self.of_bits(sixteen.reshape(len(first), -1)[:, :n])


@functools.lru_cache(10000)
def mask_of_units(p, seed, update, layer, t, shape):
    rows = (np.arange(shape[1], dtype=np.uint64) << np.uint64(40)) + np.uint64(t)
    return Share(p).of_rows(bits(seed, DROPOUT, update * 256 + layer, rows), shape[0]).T


@functools.lru_cache(100)
def mask_of_weights(p, seed, update, layer, shape):
    rows = np.arange(shape[0], dtype=np.uint64)
    return Share(p).of_rows(bits(seed, WEIGHT, update * 256 + layer, rows), shape[1])


class Regularisation:
    """Of an update, numbered from 1; sequences and time steps are those of the window. Without options there is none."""

    def __init__(self, options=(), update=1):
        option = dict(options)
        self.update, self.seed = update, int(option.get("seed", 1))
        self.p = {name: float(option.get(name, 0)) for name in ("dropout", "dropout_embedding", "dropout_words", "dropout_weights")}
        self.per_step = option.get("dropout_kind", "step") == "step"
        self.smoothing = float(option.get("label_smoothing", 0))
        self.alpha, self.beta = (float(option.get(name, 0)) for name in ("penalty_activation", "penalty_change"))

    def units(self, name, layer, t, shape):
        """Of what goes up at time step t, shape (units, B)."""
        if self.p[name] == 0.0:
            return 1.0
        return mask_of_units(self.p[name], self.seed, self.update, layer, t if self.per_step else 0, shape)

    def outputs(self, layer, t, shape):
        return self.units("dropout", layer, t, shape)

    def embeddings(self, tokens, t, shape):
        words = 1.0
        if self.p["dropout_words"] > 0.0:
            sixteen = bits(self.seed, WORD, self.update, tokens.astype(np.uint64)) & np.uint64(0xFFFF)
            words = Share(self.p["dropout_words"]).of_bits(sixteen)[None, :]
        return words * self.units("dropout_embedding", EMBEDDING, t, shape)

    def weights(self, layer, shape):
        """Of W_hh."""
        if self.p["dropout_weights"] == 0.0:
            return 1.0
        return mask_of_weights(self.p["dropout_weights"], self.seed, self.update, layer, shape)
