"""efficient-kan: B-splines and a SiLU branch as two matrix products; no bias.

`y_o = sum_i SiLU(x_i) base_weight_oi + sum_ik B_k(x_i) (spline_weight * spline_scaler)_oik`

Paper: arXiv 2404.19756. Published implementation: https://github.com/Blealtan/efficient-kan,
whose parameter names, shapes and initialisation are kept.
"""

from __future__ import annotations

from kan_impls.basis.bspline import BSplineBasis
from kan_impls.layer import both_forms
from kan_impls.published import Stored
from kan_impls.splines import SplineKAN, SplineLayer, draw, fused_basis
from kan_impls.variant import Spec

SPEC = Spec(
    formula="SiLU(x) Wb^T + sum_ik B_k(x_i) (w * s)_oik",
    paper="arXiv 2404.19756",
    basis=BSplineBasis,
    weight=Stored("spline_weight", "o i k", fused="k i o"),
    base=Stored("base_weight", "o i", fused="i o"),
    scale=Stored("spline_scaler", "o i", fused="i o", option="enable_standalone_scale_spline"),
    params={"knots": Stored("grid", "i n", fused="i n")},
    init=draw,
    fused_basis=fused_basis,
    options={
        "grid_size": 5,
        "spline_order": 3,
        "scale_noise": 0.1,
        "scale_base": 1.0,
        "scale_spline": 1.0,
        "enable_standalone_scale_spline": True,
        "grid_eps": 0.02,
        "grid_range": (-1, 1),
    },
    size="grid_size",
    layer=SplineLayer,
    model=SplineKAN,
    reference_config={"grid_size": 5, "spline_order": 3},
)

VARIANTS = both_forms("efficient_kan", SPEC)
