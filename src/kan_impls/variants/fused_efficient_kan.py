"""efficient-kan without materialising: the function of `efficient_kan` in bounded memory.

`y_o = sum_i SiLU(x_i) Wb_io + sum_k sum_i B_k(x_i) s_io w_kio`
"""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from kan_impls.checks import check_input
from kan_impls.fused.dispatch import Backend, check_backend
from kan_impls.fused.op import basis_product
from kan_impls.fused.operands import BasisSpec, Operands
from kan_impls.published import Layout
from kan_impls.spline_layer import SplineKAN, SplineLayer, functions_per_input
from kan_impls.variant import Variant


def _reversed(parameter: Tensor) -> Tensor:
    return parameter.permute(*reversed(range(parameter.ndim)))


REVERSED = Layout(_reversed, _reversed)

# Equally spaced knots, computed and stored in their dtype, miss their places by so many roundings.
KNOT_ROUNDINGS = 4


class FusedEfficientKANLayer(SplineLayer):
    """A KAN layer of B-splines with a SiLU base branch, its basis never in memory.

    It saves only its input for the backward pass and evaluates the splines again there;
    the scales multiply the weights block by block. While all inputs have the same equally
    spaced knots, as after initialisation, the splines are evaluated by their local form;
    after `update_grid`, by the recurrence on each input's own knots.

    Arguments and behaviour outside the grid: see `SplineLayer`, and for `backend`
    `kan_impls.fused.dispatch`. Parameters: `base_weight` and
    `spline_scaler` of shape `(in_features, out_features)`, `spline_weight` of shape
    `(grid_size + spline_order, in_features, out_features)`: function by function, outputs side
    by side. `kan_impls.upstream` reads and writes the published layout. With the same seed the
    layer starts as the same function as `efficient_kan`.
    """

    layout: ClassVar[Layout] = REVERSED

    published: ClassVar = {
        "base_weight": ("base_weight", {"out_in": REVERSED}),
        "spline_weight": ("spline_weight", {"out_in": REVERSED}),
        "spline_scaler": ("spline_scaler", {"out_in": REVERSED}),
    }

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        scale_noise: float = 0.1,
        scale_base: float = 1.0,
        scale_spline: float = 1.0,
        enable_standalone_scale_spline: bool = True,
        grid_eps: float = 0.02,
        grid_range: tuple[float, float] = (-1, 1),
        backend: Backend = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            grid_size,
            spline_order,
            scale_noise,
            scale_base,
            scale_spline,
            enable_standalone_scale_spline,
            grid_eps,
            grid_range,
            device,
            dtype,
        )
        self.backend = check_backend(backend)
        low, high = self.grid_range
        beyond = spline_order * (high - low) / grid_size
        self._basis = self._uniform(low - beyond, high + beyond)
        # The grid that `_basis` describes: the tensor, how often it had been written to, and on
        # the CPU a copy.
        self._seen: tuple[Tensor | None, float, Tensor | None] = (None, 0, None)
        self.grid_changed()

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.base_weight)
        basis = self._basis_of_grid()
        knots = self.grid if basis.kind == "bspline" else None
        operands = Operands(
            x, self.spline_weight, self.spline_scaler, self.base_weight, knots=knots
        )
        return basis_product(operands, basis, self.backend)

    def _basis_of_grid(self) -> BasisSpec:
        """The local form if it describes the knots; looked at again when they have changed."""
        if torch._C._are_functorch_transforms_active():
            return self._any_knots()
        if torch.compiler.is_compiling():
            return self._basis
        seen, version, copy = self._seen
        if (
            seen is not self.grid
            or version != _version(self.grid)
            or (copy is not None and not torch.equal(copy, self.grid))
        ):
            self.grid_changed()
        return self._basis

    def grid_changed(self) -> None:
        """Choose how to evaluate the splines from the knots, waiting for the device once.

        An eager layer calls it when `grid` was replaced or written to. To be called by hand where
        that cannot be seen: after writing to the grid of a compiled layer, and on CUDA after
        writing through `.data` or by a collective of torch.distributed.
        """
        grid, version = self.grid, _version(self.grid)
        if grid.is_meta or type(grid) is not Tensor:
            self._seen = (grid, version, None)  # no values to look at
            return
        knots = self.grid.detach().double().cpu()
        uniform = self._uniform(knots[0, 0].item(), knots[0, -1].item())
        _, first, step = uniform.options
        expected = first + torch.arange(knots.shape[1], dtype=torch.float64) * step
        # Of 16 bits no more than of float32: their knots are where they are, not equally spaced.
        unit = torch.finfo(torch.promote_types(self.grid.dtype, torch.float32)).eps / 2
        roundings = KNOT_ROUNDINGS * unit * expected.abs().max()
        is_uniform = step > 0 and bool(((knots - expected).abs() <= roundings).all())
        self._basis = uniform if is_uniform else self._any_knots()
        # Comparing values costs microseconds on the CPU; elsewhere it would wait for the device.
        self._seen = (grid, version, grid.detach().clone() if grid.device.type == "cpu" else None)

    def _uniform(self, first: float, last: float) -> BasisSpec:
        order = self.basis.spline_order
        return BasisSpec(
            "uniform_bspline", (order, first, (last - first) / (self.basis.num_basis + order))
        )

    def _any_knots(self) -> BasisSpec:
        return BasisSpec("bspline", (self.basis.spline_order,))


def _version(tensor: Tensor) -> float:
    """How often the tensor was written to; NaN, unequal to itself, where that is not counted."""
    return math.nan if tensor.is_inference() else tensor._version


VARIANT = Variant(
    name="fused_efficient_kan",
    formula="SiLU(x) Wb^T + sum_ik B_k(x_i) (w * s)_oik",
    paper="arXiv 2404.19756",
    layer=FusedEfficientKANLayer,
    model=partial(SplineKAN, FusedEfficientKANLayer),
    functions_per_input=functions_per_input,
    reference_config={"grid_size": 5, "spline_order": 3},
)
