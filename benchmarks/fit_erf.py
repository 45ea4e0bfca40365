# SPDX-License-Identifier: Apache-2.0
"""Fit the quotient of ``ascend310_infer/src/erf.cc`` and print its coefficients and largest error.

    python -m benchmarks.fit_erf

erf(x) = x P(x^2) / Q(x^2) with Q(0) = 1. P and Q minimise the largest error on [0, 4]: with the previous round's Q
as divisor the problem is linear least squares, with weights increased where the error is large (Lawson).
"""
from __future__ import annotations

import numpy as np
from scipy.special import erf

LIMIT = 4.0          # erf is 1 to float32 beyond
DEGREE = 5           # of P and of Q, in x^2
POINTS = 6000
ROUNDS = 300
DAMPING = 0.7        # of the weights' growth; 1 swings


def fit() -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients of P and of Q, lowest first, and the greatest error in exact arithmetic."""
    x = LIMIT * (0.5 - 0.5 * np.cos(np.pi * np.arange(1, POINTS) / POINTS))
    powers = (x * x)[:, None] ** np.arange(DEGREE + 1)                      # [POINTS, DEGREE + 1]
    wanted = erf(x)
    system = np.concatenate([powers * x[:, None], -powers[:, 1:] * wanted[:, None]], axis=1)
    weights, divisor = np.ones_like(x), np.ones_like(x)
    best = np.empty(0), np.empty(0), np.inf
    for _ in range(ROUNDS):
        scale = (np.sqrt(weights) / divisor)[:, None]
        columns = np.abs(system * scale).max(0)
        solution = np.linalg.lstsq(system * scale / columns, wanted * scale[:, 0], rcond=None)[0] / columns
        p, q = solution[:DEGREE + 1], np.concatenate([[1.0], solution[DEGREE + 1:]])
        divisor = powers @ q
        errors = np.abs(x * (powers @ p) / divisor - wanted)
        if errors.max() < best[2]:
            best = p, q, float(errors.max())
        weights *= (errors / errors.max() + 1e-3) ** DAMPING
        weights /= weights.mean()
    return best


def main() -> None:
    p, q, error = fit()
    for name, coefficients in (("P", p), ("Q", q)):
        print(f"{name}: " + ", ".join(f"{value:.8e}" for value in coefficients))
    print(f"erf(x) is off by {error:.1e} at most")


if __name__ == "__main__":
    main()
