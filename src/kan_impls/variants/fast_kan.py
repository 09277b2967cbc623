"""FastKAN: Gaussians of the normalised input, and SiLU of the input as it is.

`y_o = b_o + sum_i u_oi SiLU(x_i) + sum_ig w_oig exp(-((LN(x)_i - c_g) / h)^2)`, h the distance of
two centres.

Paper: arXiv 2405.06721. Published implementation: https://github.com/ZiyaoLi/fast-kan, whose
parameter names, shapes and initialisation are kept.
"""

from __future__ import annotations

from torch import nn

from kan_impls.basis.radial import GaussianBasis, write_centres
from kan_impls.checks import check_deviation
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def draw(layer: KANLayer) -> None:
    """Normal weights, published as truncated at 2, and the base branch of an `nn.Linear`."""
    option = "spline_weight_init_scale"
    deviation = check_deviation(option, layer.options[option])
    layer.start("weight", lambda value: nn.init.normal_(value, std=deviation).clamp_(-2, 2))
    layer.start_uniform(layer.in_features**-0.5, "base_weight", "bias")
    ends = layer.options["grid_min"], layer.options["grid_max"]
    layer.start("centres", lambda value: write_centres(value, *ends))


SPEC = Spec(
    formula="b + SiLU(x) U^T + sum_ig w_oig exp(-((LN(x)_i - c_g) / h)^2)",
    paper="arXiv 2405.06721",
    basis=GaussianBasis.over,
    weight=Stored("spline_linear.weight", "o (i g)", fused="g i o"),
    base=Stored("base_linear.weight", "o i", fused="i o", option="use_base_update"),
    bias=Stored("base_linear.bias", "o", fused="o", option="use_base_update"),
    params={"centres": Stored("rbf.grid", "g", fused="1 g", frozen=True)},
    norm="use_layernorm",
    init=draw,
    options={
        "grid_min": -2.0,
        "grid_max": 2.0,
        "num_grids": 8,
        "use_base_update": True,
        "use_layernorm": True,
        "spline_weight_init_scale": 0.1,
    },
    size="num_grids",
    reference_config={"num_grids": 9},
)

VARIANTS = both_forms("fast_kan", SPEC)
