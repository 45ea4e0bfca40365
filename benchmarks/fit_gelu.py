# SPDX-License-Identifier: Apache-2.0
"""Fit the polynomial of GELU in ``src/cpu/kernels.cc`` and print its coefficients and errors.

    python -m benchmarks.fit_gelu [--degree 6]

log(Phi(x) / Phi(-x)) = x P(x^2) for an even function P. The polynomial P minimises the largest error of
x sigmoid(x P(x^2)) against x Phi(x): weighted least squares in Chebyshev polynomials of x^2, with weights increased
where the error is large until it is level (Lawson's algorithm).
"""
from __future__ import annotations

import argparse

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import log_ndtr, ndtr

LIMIT = 5.5         # fitted for 0 < x <= this; beyond, the sigmoid is 0 or 1 to float32
POINTS = 4000
ROUNDS = 400


def fit(degree: int) -> tuple[np.ndarray, float]:
    """Coefficients of 1, x^2, x^4, ..., and the greatest error of x Phi(x) in exact arithmetic."""
    x = np.cos(np.pi * (np.arange(POINTS) + 0.5) / (2 * POINTS)) * LIMIT
    wanted = (log_ndtr(x) - log_ndtr(-x)) / x
    effect = x * x * ndtr(x) * ndtr(-x)         # of an error in P on x Phi(x), to first order
    basis = np.polynomial.chebyshev.chebvander(2.0 * (x / LIMIT) ** 2 - 1.0, degree)
    weights = np.ones_like(x)
    for _ in range(ROUNDS):
        scale = effect * np.sqrt(weights)
        solution = np.linalg.lstsq(basis * scale[:, None], wanted * scale, rcond=None)[0]
        errors = np.abs(basis @ solution - wanted) * effect
        weights *= errors / errors.max() + 1e-3
        weights = np.maximum(weights / weights.max(), 1e-10)
    return Chebyshev(solution, domain=[0.0, LIMIT ** 2]).convert(kind=Polynomial).coef, float(errors.max())


def float32_errors(coefficients: np.ndarray) -> tuple[float, float]:
    """Greatest error of Phi and of x Phi(x) when all is computed in float32, over [-40, 40]."""
    x = np.linspace(-40.0, 40.0, 2_000_001, dtype=np.float32)
    square, value = x * x, np.zeros_like(x)
    for coefficient in coefficients[::-1].astype(np.float32):
        value = value * square + coefficient
    with np.errstate(over="ignore"):
        probability = np.float32(1.0) / (np.float32(1.0) + np.exp(-value * x))
    exact = ndtr(x.astype(np.float64))
    return float(np.abs(probability - exact).max()), float(np.abs(x * probability - x * exact).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--degree", type=int, default=6, help="of P")
    coefficients, error = fit(parser.parse_args().degree)
    print(", ".join(f"{value:.8e}" for value in coefficients))
    probability, product = float32_errors(coefficients)
    print(f"x Phi(x) is off by {error:.1e} at most; computed in float32 by {product:.1e}, Phi(x) by {probability:.1e}")


if __name__ == "__main__":
    main()
