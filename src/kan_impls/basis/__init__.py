"""Univariate function bases: one file per basis, with its values, derivatives and paper."""

from kan_impls.basis import (
    bspline,
    chebyshev,
    fourier,
    gram,
    hyperbolic,
    jacobi,
    radial,
    recurrence,
    silu,
    sine,
    uniform_bspline,
)

__all__ = [
    "bspline",
    "chebyshev",
    "fourier",
    "gram",
    "hyperbolic",
    "jacobi",
    "radial",
    "recurrence",
    "silu",
    "sine",
    "uniform_bspline",
]
