"""Univariate function bases: one file per basis, with its values, derivatives and paper."""
