"""The cells of the model, forward and backward, from their equations; s is the logistic function, * is by element:

    rnn     h_t = phi(W_xh x_t + W_hh h_{t-1} + b_h)
    lstm    i, f, o = s(...), g = tanh(...) of the four blocks of W_xh x_t + W_hh h_{t-1} + b_h, in the order i f g o
            c_t = f * c_{t-1} + i * g,   h_t = o * tanh(c_t)
    gru     r, z = s(W_x x_t + W_h h_{t-1} + b),   n = tanh(W_xn x_t + b_n + r * (W_hn h_{t-1} + b_hn)), in the order r z n
            h_t = (1 - z) * n + z * h_{t-1}
    mingru  z = s(W_z x_t + b_z),   n = W_n x_t + b_n, in the order z n
            h_t = (1 - z) * h_{t-1} + z * n

A cell has
    blocks      G: W_xh has G H rows, b_h G H entries
    recurrent   {name: shape} of its other tensors, for H units
    state       names of the vectors that it hands to the next step, h first
    forward(w, u, before)                    the state after the step, and what backward needs of it
    backward(w, before, after, kept, d)      d (list) by the state after -> da (G H, B) by u, {name: gradient} of
                                             `recurrent`, and the gradients by the state before
w is {name: tensor} of the layer, u (G H, B) is W_xh x, a state is a list of matrices (H, B). As b_h is added to u, its
gradient is the sum of da over the columns.
"""

import numpy as np


def logistic(a):
    return 0.5 + 0.5 * np.tanh(0.5 * a)


def column(vector):
    return vector[:, None]


class Rnn:
    blocks = 1
    state = ("h",)

    def __init__(self, relu):
        self.relu = relu

    def recurrent(self, H):
        return {"W_hh": (H, H)}

    def phi(self, a):
        return np.maximum(a, 0.0) if self.relu else np.tanh(a)

    def slope(self, h):
        """phi'(a) from h = phi(a)."""
        return (h > 0.0).astype(float) if self.relu else 1.0 - h * h

    def forward(self, w, u, before):
        (h,) = before
        return [self.phi(u + w["W_hh"] @ h + column(w["b_h"]))], None

    def backward(self, w, before, after, kept, d):
        da = d[0] * self.slope(after[0])
        return da, {"W_hh": da @ before[0].T}, [w["W_hh"].T @ da]


class Lstm:
    blocks = 4
    state = ("h", "c")

    def recurrent(self, H):
        return {"W_hh": (4 * H, H)}

    def forward(self, w, u, before):
        h, c = before
        i, f, g, o = np.split(u + w["W_hh"] @ h + column(w["b_h"]), 4)
        i, f, g, o = logistic(i), logistic(f), np.tanh(g), logistic(o)
        c = f * c + i * g
        return [o * np.tanh(c), c], (i, f, g, o)

    def backward(self, w, before, after, kept, d):
        (h, c), (i, f, g, o) = before, kept
        dh, dc = d
        squashed = np.tanh(after[1])
        dc = dc + dh * o * (1.0 - squashed**2)
        by_gate = [dc * g * i * (1.0 - i), dc * c * f * (1.0 - f), dc * i * (1.0 - g**2), dh * squashed * o * (1.0 - o)]
        da = np.concatenate(by_gate)
        return da, {"W_hh": da @ h.T}, [w["W_hh"].T @ da, dc * f]


class Gru:
    blocks = 3
    state = ("h",)

    def recurrent(self, H):
        return {"W_hh": (3 * H, H), "b_hn": (H,)}

    def forward(self, w, u, before):
        (h,) = before
        r_in, z_in, n_in = np.split(u + column(w["b_h"]), 3)
        r_back, z_back, n_back = np.split(w["W_hh"] @ h, 3)
        n_back = n_back + column(w["b_hn"])
        r, z = logistic(r_in + r_back), logistic(z_in + z_back)
        n = np.tanh(n_in + r * n_back)
        return [(1.0 - z) * n + z * h], (r, z, n, n_back)

    def backward(self, w, before, after, kept, d):
        (h,), (r, z, n, n_back), (dh,) = before, kept, d
        dn = dh * (1.0 - z) * (1.0 - n**2)
        dr = dn * n_back * r * (1.0 - r)
        dz = dh * (h - n) * z * (1.0 - z)
        back = np.concatenate([dr, dz, dn * r])  # by W_hh h, as da is by W_xh x
        rest = {"W_hh": back @ h.T, "b_hn": (dn * r).sum(axis=1)}
        return np.concatenate([dr, dz, dn]), rest, [w["W_hh"].T @ back + dh * z]


class MinGru:
    blocks = 2
    state = ("h",)

    def recurrent(self, H):
        return {}

    def forward(self, w, u, before):
        (h,) = before
        z, n = np.split(u + column(w["b_h"]), 2)
        z = logistic(z)
        return [(1.0 - z) * h + z * n], (z, n)

    def backward(self, w, before, after, kept, d):
        (h,), (z, n), (dh,) = before, kept, d
        return np.concatenate([dh * (n - h) * z * (1.0 - z), dh * z]), {}, [dh * (1.0 - z)]


def cell_of(name, activation):
    """By the words of a run file."""
    return {"rnn": lambda: Rnn(activation == "relu"), "lstm": Lstm, "gru": Gru, "mingru": MinGru}[name]()
