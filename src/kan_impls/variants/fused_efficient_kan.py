"""efficient-kan without materialising: the function of `efficient_kan` in bounded memory.

`y_o = sum_i SiLU(x_i) Wb_io + sum_k sum_i B_k(x_i) s_io w_kio`
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from kan_impls.basis.bspline import BSplineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.checks import check_input
from kan_impls.fused.dispatch import Backend, check_backend
from kan_impls.fused.op import basis_product
from kan_impls.fused.operands import Operands
from kan_impls.published import Layout
from kan_impls.spline_layer import SplineKAN, SplineLayer, functions_per_input
from kan_impls.variant import Variant


def _reversed(parameter: Tensor) -> Tensor:
    return parameter.permute(*reversed(range(parameter.ndim)))


REVERSED = Layout(_reversed, _reversed)

# The local form takes the knots as equally spaced where they miss their places by at most so many
# roundings of the spacing; a spline misses its value by about as many, its slope by about twice. So
# it is as accurate as a sum of some hundred terms. Knots of a range with up to some fifty intervals
# around zero are; those that lie far from zero for their spacing were rounded by more.
KNOT_ROUNDINGS = 32
# In float64 so many more for each knot: the local form takes positions in float64, too, and errs
# by about as much on exact knots.
ROUNDINGS_PER_KNOT = 4

# Beyond this order the local form cancels too much: its terms are up to 16 times the result in
# order 7, 120 times in order 12 and 3,300 times in order 20. The recurrence adds positive terms.
MAX_LOCAL_ORDER = 7


class FusedEfficientKANLayer(SplineLayer):
    """A KAN layer of B-splines with a SiLU base branch, its basis never in memory.

    It saves only its input for the backward pass and evaluates the splines again there;
    the scales multiply the weights block by block. While all inputs have the same equally
    spaced knots, as after initialisation, the splines are evaluated by their local form, up to
    order `MAX_LOCAL_ORDER`; after `update_grid`, or where the dtype rounds the knots visibly
    (`KNOT_ROUNDINGS`), by the recurrence on each input's own knots. Turned to a wider dtype,
    equally spaced knots are as equally spaced as that can tell.

    Arguments and behaviour outside the grid: see `SplineLayer`, and for `backend`
    `kan_impls.fused.dispatch`. Parameters: `base_weight` and
    `spline_scaler` of shape `(in_features, out_features)`, `spline_weight` of shape
    `(grid_size + spline_order, in_features, out_features)`: function by function, outputs side
    by side. `kan_impls.upstream` reads and writes the published layout. With the same seed the
    layer starts as the same function as `efficient_kan`.
    """

    _basis: UniformBSplineBasis | BSplineBasis
    # The grid that `_basis` describes: the tensor, how often it had been written to, and on
    # the CPU a copy.
    _seen: tuple[Tensor | None, float, Tensor | None] = (None, 0, None)

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

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.base_weight)
        basis = self._basis_of_grid()
        params = (self.grid,) if basis.params else ()
        operands = Operands(
            x, self.spline_weight, self.spline_scaler, self.base_weight, params=params
        )
        return basis_product(operands, basis, self.backend)

    def _basis_of_grid(self) -> UniformBSplineBasis | BSplineBasis:
        """The local form if it describes the knots; looked at again when they have changed."""
        if torch._C._are_functorch_transforms_active():
            return self.basis
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
        if grid.is_meta or type(grid) is not Tensor:  # no values to look at
            self._basis = getattr(self, "_basis", None) or self._fresh()
            self._seen = (grid, version, None)
            return
        knots = grid.detach().double().cpu()
        local = self._local(knots[0, 0].item(), knots[0, -1].item())
        self._basis = local if self._describes(local, knots) else self.basis
        # Comparing values costs microseconds on the CPU; elsewhere it would wait for the device.
        self._seen = (grid, version, grid.detach().clone() if grid.device.type == "cpu" else None)

    def _describes(self, local: UniformBSplineBasis, knots: Tensor) -> bool:
        """Whether the splines on the knots are, up to rounding, those of the local form."""
        # Of 16 bits no more than of float32: their knots are where they are, not equally spaced.
        unit = torch.finfo(torch.promote_types(self.grid.dtype, torch.float32)).eps / 2
        allowed = KNOT_ROUNDINGS
        if self.grid.dtype == torch.float64:
            allowed += ROUNDINGS_PER_KNOT * knots.shape[1]
        missed = (knots - self._knots_of(local)).abs().max().item()
        return self.basis.spline_order <= MAX_LOCAL_ORDER and missed <= allowed * unit * local.step

    def _fresh(self) -> UniformBSplineBasis | BSplineBasis:
        """What describes the knots of a new layer where its dtype hardly rounds them."""
        if self.basis.spline_order > MAX_LOCAL_ORDER:
            return self.basis
        return UniformBSplineBasis.over(
            *self.grid_range, self.basis.grid_size, self.basis.spline_order
        )

    def _local(self, first: float, last: float) -> UniformBSplineBasis:
        order, num_basis = self.basis.spline_order, self.basis.num_basis
        return UniformBSplineBasis(num_basis, order, first, (last - first) / (num_basis + order))

    def _knots_of(self, local: UniformBSplineBasis) -> Tensor:
        """The knots of the local form, float64, on the CPU."""
        index = torch.arange(self.grid.shape[1], dtype=torch.float64, device="cpu")
        return local.first_knot + index * local.step

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> FusedEfficientKANLayer:
        """Convert the tensors as `.to()` and its like ask; knots that were equally spaced in the
        old dtype are so in a wider one, too, instead of keeping the old one's rounding."""
        before, basis = self.grid.dtype, self._basis_of_grid()
        super()._apply(fn, recurse)
        is_wider = torch.finfo(self.grid.dtype).eps < torch.finfo(before).eps
        if is_wider and isinstance(basis, UniformBSplineBasis):
            with torch.no_grad():
                self.grid.copy_(self._knots_of(basis).to(self.grid))
        return self


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
