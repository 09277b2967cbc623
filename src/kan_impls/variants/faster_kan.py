"""FasterKAN: reflectional switches of the normalised input; no base branch and no bias.

`y_o = sum_ig w_oig sech^2(LN(x)_i - c_g)`

Published implementation: https://github.com/AthanasiosDelis/faster-kan, whose parameter names,
shapes and initialisation are kept. Its backward pass multiplies the gradient of x by
`inv_denominator`, which its forward pass never uses. This one's is the derivative, and
`inv_denominator` is there for checkpoints alone.
"""

from __future__ import annotations

from torch import nn

from kan_impls.basis.radial import SwitchBasis, write_centres
from kan_impls.checks import check_interval
from kan_impls.layer import KANLayer, both_forms
from kan_impls.published import Stored
from kan_impls.variant import Spec


def switches(num_grids: int) -> SwitchBasis:
    """Those of width 1, whatever the centres."""
    return SwitchBasis(num_grids, 1.0)


def draw(layer: KANLayer) -> None:
    """Xavier-uniform weights.

    Raises:
        ValueError: the ends of the grid are no interval.
    """
    options = layer.options
    low, high = check_interval("(grid_min, grid_max)", (options["grid_min"], options["grid_max"]))
    layer.start("weight", nn.init.xavier_uniform_)
    layer.start("centres", lambda value: write_centres(value, low, high))
    layer.start("inv_denominator", lambda value: value.fill_(options["inv_denominator"]))


SPEC = Spec(
    formula="sum_ig w_oig sech^2(LN(x)_i - c_g)",
    paper="https://github.com/AthanasiosDelis/faster-kan",
    basis=switches,
    weight=Stored("spline_linear.weight", "o (i g)", fused="g i o"),
    params={"centres": Stored("rbf.grid", "g", fused="1 g", frozen=True)},
    kept={"inv_denominator": Stored("rbf.inv_denominator", "", fused="", frozen=True)},
    norm="use_layernorm",
    init=draw,
    options={
        "grid_min": -1.2,
        "grid_max": 1.2,
        "num_grids": 8,
        "inv_denominator": 0.5,
        "use_layernorm": True,
    },
    size="num_grids",
    reference_config={"num_grids": 10},
)

VARIANTS = both_forms("faster_kan", SPEC)
