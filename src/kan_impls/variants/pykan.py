"""The layer of the KAN paper: B-splines and SiLU, each edge scaled and masked; no bias.

`y_o = sum_i mask_io (scale_base_io SiLU(x_i) + scale_sp_io sum_k coef_iok B_k(x_i))`

Paper: arXiv 2404.19756. Published implementation: `KANLayer` of https://github.com/KindXiaoming/pykan
0.2.8, whose parameter names, shapes and initialisation are kept. What its networks have besides, a
symbolic branch and scales of nodes, is not here.
"""

from __future__ import annotations

import math

from torch import nn

from kan_impls.basis.bspline import BSplineBasis
from kan_impls.layer import both_forms
from kan_impls.published import Stored
from kan_impls.splines import SplineKAN, SplineLayer, draw_splines, fused_basis
from kan_impls.variant import Spec


def draw(layer: SplineLayer) -> None:
    """Splines that fit uniform noise, a uniform base, scales of one over the root of the inputs,
    and a mask that hides nothing."""
    draw_splines(layer)
    deviation = 1 / math.sqrt(layer.in_features)
    layer.start("mask", nn.init.ones_)
    width = abs(layer.options["scale_base"]) * deviation
    mean = layer.options["scale_base_mean"] * deviation
    layer.start("base_weight", lambda value: nn.init.uniform_(value, mean - width, mean + width))
    layer.start("scale", lambda value: value.fill_(layer.options["scale_spline"] * deviation))


SPEC = Spec(
    formula="sum_i mask_io (b_io SiLU(x_i) + s_io sum_k B_k(x_i) w_iok)",
    paper="arXiv 2404.19756",
    basis=BSplineBasis,
    weight=Stored("coef", "i o k", fused="k i o"),
    base=Stored("scale_base", "i o", fused="i o"),
    scale=Stored("scale_sp", "i o", fused="i o"),
    mask=Stored("mask", "i o", fused="i o", frozen=True),
    params={"knots": Stored("grid", "i n", fused="i n")},
    init=draw,
    fused_basis=fused_basis,
    options={
        "grid_size": 5,
        "spline_order": 3,
        "scale_noise": 0.5,
        "scale_base": 1.0,
        "scale_base_mean": 0.0,
        "scale_spline": 1.0,
        "grid_eps": 0.02,
        "grid_range": (-1, 1),
    },
    size="grid_size",
    layer=SplineLayer,
    model=SplineKAN,
    reference_config={"grid_size": 5, "spline_order": 3},
)

VARIANTS = both_forms("pykan", SPEC)
