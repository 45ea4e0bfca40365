# SPDX-License-Identifier: Apache-2.0
"""Fit the functions that C++ code of this project computes; print their coefficients, lowest first, and errors.

    python -m benchmarks.fit_functions

erf(x) = x P(x^2) / Q(x^2) with Q(0) = 1 on [0, 4], for ``ascend310_infer/src/erf.cc``. P and Q minimise the largest
error: with the previous round's Q as divisor the problem is linear least squares, with weights increased where the
error is large (Lawson).

The polynomials for ``src/cpu`` minimise the largest error in the same way: Phi(x) - 1/2 = x R(t) on [-4.5, 4.5] with
t = 2 (x / 4.5)^2 - 1, which float32 can add up, and R such that this is 1/2 at the end; the relative error of 2^x on
[0, 1].
"""
from __future__ import annotations

import numpy as np
from scipy.special import erf, ndtr

LIMIT = 4.0             # erf is 1 to float32 beyond
DEGREE = 5              # of P and of Q, in x^2
NORMAL_LIMIT = 4.5      # Phi is 1 to bfloat16 beyond
NORMAL_DEGREE = 9       # of R
POWER_DEGREE = 4
POINTS = 6000
ROUNDS = 300
DAMPING = 0.7           # of the weights' growth; 1 swings


def points(limit: float) -> np.ndarray:
    """Where the error is looked at, dense at both ends of [0, limit]."""
    return limit * (0.5 - 0.5 * np.cos(np.pi * np.arange(1, POINTS) / POINTS))


def solve(system: np.ndarray, wanted: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Least squares, each equation times its scale [points]."""
    scaled = system * scale[:, None]
    columns = np.abs(scaled).max(0)
    return np.linalg.lstsq(scaled / columns, wanted * scale, rcond=None)[0] / columns


def raised(weights: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The next round's weights."""
    weights = weights * (errors / errors.max() + 1e-3) ** DAMPING
    return weights / weights.mean()


def fit_erf() -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients of P and of Q, lowest first, and the greatest error in exact arithmetic."""
    x = points(LIMIT)
    powers = (x * x)[:, None] ** np.arange(DEGREE + 1)                      # [POINTS, DEGREE + 1]
    wanted = erf(x)
    system = np.concatenate([powers * x[:, None], -powers[:, 1:] * wanted[:, None]], axis=1)
    weights, divisor = np.ones_like(x), np.ones_like(x)
    best = np.empty(0), np.empty(0), np.inf
    for _ in range(ROUNDS):
        solution = solve(system, wanted, np.sqrt(weights) / divisor)
        p, q = solution[:DEGREE + 1], np.concatenate([[1.0], solution[DEGREE + 1:]])
        divisor = powers @ q
        errors = np.abs(x * (powers @ p) / divisor - wanted)
        if errors.max() < best[2]:
            best = p, q, float(errors.max())
        weights = raised(weights, errors)
    return best


def fit_linear(system: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """What solves ``system`` with the least greatest error, and that error."""
    weights = np.ones_like(wanted)
    best = np.empty(0), np.inf
    for _ in range(ROUNDS):
        solution = solve(system, wanted, np.sqrt(weights))
        errors = np.abs(system @ solution - wanted)
        if errors.max() < best[1]:
            best = solution, float(errors.max())
        weights = raised(weights, errors)
    return best


def fit_normal() -> tuple[np.ndarray, float]:
    """Coefficients of R, lowest first, and the greatest error in exact arithmetic."""
    x = points(NORMAL_LIMIT)
    t = 2.0 * (x / NORMAL_LIMIT) ** 2 - 1.0
    terms = x[:, None] * t[:, None] ** np.arange(NORMAL_DEGREE + 1)
    end = 0.5 / NORMAL_LIMIT                                                # the sum of all coefficients
    solution, error = fit_linear(terms[:, :-1] - terms[:, -1:], ndtr(x) - 0.5 - end * terms[:, -1])
    return np.append(solution, end - solution.sum()), error


def fit_power() -> tuple[np.ndarray, float]:
    """Coefficients for 2^x, lowest first, and the greatest relative error in exact arithmetic."""
    x = points(1.0)
    return fit_linear(x[:, None] ** np.arange(POWER_DEGREE + 1) / 2.0 ** x[:, None], np.ones_like(x))


def main() -> None:
    p, q, error = fit_erf()
    r, normal_error = fit_normal()
    power, power_error = fit_power()
    for name, coefficients in (("P", p), ("Q", q), ("R", r), ("2^x", power)):
        print(f"{name}: " + ", ".join(f"{value:.8e}" for value in coefficients))
    print(f"erf(x) is off by {error:.1e} at most, Phi(x) by {normal_error:.1e}, 2^x by {power_error:.1e} of it")


if __name__ == "__main__":
    main()
