#!/usr/bin/env python3
"""Fit the polynomial of src/kernels/isa/math.h: expm1(r) = r + r^2 q(r), |r| <= ln2 / 2.

Minimax in the relative error of expm1 by Lawson's iteration (reweighted least squares), then rounded to float.
Prints the coefficients as C macros and the largest relative error before and after rounding.
"""
import numpy as np
from math import factorial

DEGREE = 4
half = np.log(2.0) / 2 * 1.0001
r = half * np.cos(np.pi * (np.arange(4000) + 0.5) / 4000)
q = sum(r**k / float(factorial(k + 2)) for k in range(24))
expm1 = r + r * r * q
basis = np.vander(r, DEGREE + 1, increasing=True)
to_relative = r * r / expm1
weight = np.full_like(r, 1.0 / r.size)
for _ in range(4000):
    scale = np.sqrt(weight) * to_relative
    c, *_ = np.linalg.lstsq(basis * scale[:, None], q * scale, rcond=None)
    error = np.abs((basis @ c - q) * to_relative)
    weight *= error + 1e-14
    weight /= weight.sum()
rounded = c.astype(np.float32).astype(np.float64)
print(f"largest relative error {error.max():.2e}, rounded {np.abs((basis @ rounded - q) * to_relative).max():.2e}")
for k, value in enumerate(np.float32(c)):
    print(f"#define EXPM1_Q{k} {float(value).hex()}f")
