"""RBF-KAN: Gaussians of the input, and SiLU of it.

`y_o = b_o + sum_i u_oi SiLU(x_i) + sum_ig w_igo exp(-((x_i - c_g) / h)^2)`, h the distance of two
centres: FastKAN without a LayerNorm.

Published implementation: https://github.com/Sid2690/RBF-KAN, whose parameter names, shapes and
initialisation are kept.
"""

from __future__ import annotations

from torch import nn

from kan_impls.basis.radial import GaussianBasis, write_centres
from kan_impls.checks import check_deviation
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def draw(layer: KANLayer) -> None:
    """Normal weights, and the base branch of an `nn.Linear`."""
    option = "spline_weight_init_scale"
    deviation = check_deviation(option, layer.options[option])
    layer.start("weight", lambda value: nn.init.normal_(value, std=deviation))
    layer.start_uniform(layer.in_features**-0.5, "base_weight", "bias")
    ends = layer.options["grid_min"], layer.options["grid_max"]
    layer.start("centres", lambda value: write_centres(value, *ends))


SPEC = Spec(
    formula="b + SiLU(x) U^T + sum_ig w_igo exp(-((x_i - c_g) / h)^2)",
    paper="https://github.com/Sid2690/RBF-KAN",
    basis=GaussianBasis.over,
    weight=Stored("rbf_linear.spline_weight", "(i g) o", fused="g i o"),
    base=Stored("base_linear.weight", "o i", fused="i o", option="use_base_update"),
    bias=Stored("base_linear.bias", "o", fused="o", option="use_base_update"),
    params={"centres": Stored("rbf_linear.grid", "g", fused="1 g", frozen=True)},
    init=draw,
    options={
        "grid_min": -2.0,
        "grid_max": 2.0,
        "num_grids": 8,
        "use_base_update": True,
        "spline_weight_init_scale": 0.1,
    },
    size="num_grids",
    reference_config={"num_grids": 9},
)

VARIANTS = both_forms("rbf_kan", SPEC)
