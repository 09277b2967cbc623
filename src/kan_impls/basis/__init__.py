"""Univariate function bases: one file per basis, with its values, derivatives and paper."""

from kan_impls.basis import bspline, fourier, frequencies, silu, uniform_bspline

__all__ = ["bspline", "fourier", "frequencies", "silu", "uniform_bspline"]
