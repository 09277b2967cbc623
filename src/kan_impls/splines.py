"""What layers of B-splines have besides: knots, their update and fit, regularisation.

Published implementation: https://github.com/Blealtan/efficient-kan, whose parameters,
initialisation and grid update these are. Paper: arXiv 2404.19756.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from kan_impls.basis.bspline import BSplineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.checks import check_input, check_knots, check_number
from kan_impls.layer import KANLayer
from kan_impls.model import KAN

# Fitting one input feature takes (samples x num_basis) float64 numbers a few times over;
# features are fitted together up to this many bytes of them.
FIT_BYTES = 64 * 2**20

# The local form takes the knots as equally spaced where they miss their places by at most so many
# roundings of the spacing; a spline misses its value by about as many, its slope by about twice. So
# it is as accurate as a sum of some hundred terms. Knots of a range with up to 42 intervals
# around zero are; those that lie far from zero for their spacing were rounded by more.
KNOT_ROUNDINGS = 32
# In float64 so many more for each knot: the local form takes positions in float64, too, and errs
# by about as much on exact knots.
ROUNDINGS_PER_KNOT = 4

# Beyond this order the local form cancels too much: its terms are up to 16 times the result in
# order 7, 120 times in order 12 and 3,300 times in order 20. The recurrence adds positive terms.
MAX_LOCAL_ORDER = 7


class SplineLayer(KANLayer):
    """A KAN layer of B-splines with a SiLU base branch; no bias.

    Within `grid_range` the splines sum to 1. Outside the range the spline part decays
    (with the defaults the basis sums to 0.68 at x = 1.5) and is exactly 0 beyond the last
    extended knot, `spline_order` grid steps outside the range; the base branch remains.

    In the fused form, while all inputs have the same equally spaced knots, as after initialisation,
    the splines are evaluated by their local form, up to order `MAX_LOCAL_ORDER`; after
    `update_grid`, or where the dtype rounds the knots visibly (`KNOT_ROUNDINGS`), by the recurrence
    on each input's own knots. Turned to a wider dtype, equally spaced knots are as equally spaced
    as that can tell.

    Options:
        grid_size: number of grid intervals over `grid_range`.
        spline_order: degree of the spline pieces, 1 or more.
        scale_noise: range of the uniform noise, divided by `grid_size`, that the
            splines are fitted to at initialisation.
        scale_base, scale_spline: scales of the base branch and of the splines at
            initialisation.
        enable_standalone_scale_spline: whether each edge has a trained scale
            `spline_scaler` of its spline.
        grid_eps: weight of the uniform grid in `update_grid`; the rest is the grid of
            equal sample counts.
        grid_range: the interval that the initial grid covers.

    Parameters, as efficient-kan has them: `base_weight` and `spline_scaler` of shape
    `(out_features, in_features)`, `spline_weight` of shape `(out_features, in_features, grid_size +
    spline_order)`. Buffer: `grid` of shape `(in_features, grid_size + 2 * spline_order + 1)`.

    Raises:
        ValueError: a size that is not positive, a `grid_eps` outside [0, 1], or a `grid_range`
            whose knots the dtype cannot hold or tell apart.
    """

    basis: BSplineBasis
    grid: Tensor

    _basis: UniformBSplineBasis | BSplineBasis
    # The grid that `_basis` describes: the tensor, how often it had been written to, and on
    # the CPU a copy.
    _seen: tuple[Tensor | None, float, Tensor | None] = (None, 0, None)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        blend = self.options["grid_eps"]
        if not 0 <= blend <= 1:
            raise ValueError(
                f"grid_eps is {blend}; expected a weight from 0 to 1, since others disorder the "
                "knots: pass, for example, 0.02"
            )
        self.register_load_state_dict_post_hook(_after_load)

    @torch.no_grad()
    def update_grid(self, x: Tensor, margin: float = 0.01) -> None:
        """Move the knots to where the samples are, and refit the splines to themselves.

        The new knots are a blend, by `grid_eps`, of uniform knots over the samples' range
        plus `margin` on either side, and of knots with equally many samples between them.
        The layer computes the same function at the samples, as closely as the new
        splines can (least squares). The published implementation refits the scaled
        splines but keeps the scale, and so applies it twice; this one does not.

        Args:
            x: samples, shape `(..., in_features)`; one or more, all finite.
            margin: added to the samples' range, in units of x.

        Raises:
            ValueError: no sample, one that is not finite, knots beyond the grid's dtype, or a
                margin below 0, which would disorder the knots.
        """
        if check_number("margin", margin) < 0:
            raise ValueError(f"margin is {margin}; expected 0 or more: pass, for example, 0.01")
        check_input(x, self.in_features, self.stored("weight"))
        samples = x.detach().reshape(-1, self.in_features).double()
        if not samples.shape[0] or not samples.isfinite().all():
            raise ValueError(
                f"update_grid got x of shape {tuple(x.shape)} with "
                f"{int((~samples.isfinite()).sum())} entries that are not finite; expected one "
                "or more samples of finite numbers: pass a batch of real inputs to the layer"
            )
        knots = self._adapted_knots(samples, margin).to(self.grid.dtype)
        if not knots.isfinite().all():
            raise ValueError(
                f"update_grid got samples of up to {samples.abs().max().item():.3g}, whose knots "
                f"are beyond {knots.dtype}; expected knots that it can hold: scale the inputs"
            )
        weight = self.coefficients
        per_feature = samples.shape[0] * self.basis.num_basis * samples.element_size()
        for features in torch.arange(self.in_features, device=x.device).split(
            max(1, FIT_BYTES // per_feature)
        ):
            phi = self.basis.value(samples[:, features], self.grid[features].double())
            fit = self.basis.fit_operator(samples[:, features], knots[features])
            refit = fit @ phi.transpose(0, 1)  # (features, num_basis, num_basis)
            old = weight[:, features].double()
            weight[:, features] = torch.einsum("ikl,oil->oik", refit, old).to(weight.dtype)
        self.grid.copy_(knots)
        self.grid_changed()

    def _adapted_knots(self, samples: Tensor, margin: float) -> Tensor:
        grid_size, order = self.basis.grid_size, self.basis.spline_order
        ordered = samples.sort(dim=0).values
        at = torch.linspace(
            0, samples.shape[0] - 1, grid_size + 1, dtype=torch.int64, device=samples.device
        )
        adaptive = ordered[at]
        step = (ordered[-1] - ordered[0] + 2 * margin) / grid_size
        index = torch.arange(-order, grid_size + order + 1, device=samples.device)[:, None]
        uniform = ordered[0] - margin + index[order : order + grid_size + 1] * step
        inner = self.options["grid_eps"] * uniform + (1 - self.options["grid_eps"]) * adaptive
        below = inner[:1] + index[:order] * step
        above = inner[-1:] + index[-order:] * step - grid_size * step
        return torch.cat((below, inner, above)).T

    def regularization_loss(
        self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0
    ) -> Tensor:
        """A penalty, shape `()`, on the size and the spread of the splines.

        With `l = mean_k |spline_weight|` of each edge: `regularize_activation` times the
        sum of l, plus `regularize_entropy` times the entropy of l over its sum. The paper
        (arXiv 2404.19756, section 2.5.1) takes the spline's values instead of its
        coefficients; efficient-kan does it so, because the values never exist at once.
        """
        size = self.coefficients.abs().mean(-1)
        total = size.sum()
        # All splines zero: no size, and no spread either.
        share = size / torch.where(total > 0, total, 1)
        # 0 log 0 = 0; the clamp keeps the gradient of a spline that is zero finite.
        entropy = -(share * share.clamp_min(torch.finfo(size.dtype).tiny).log()).sum()
        return regularize_activation * total + regularize_entropy * entropy

    @property
    def coefficients(self) -> Tensor:
        """Those of the splines, a view of shape `(out_features, in_features, num_basis)`."""
        return cast(Tensor, self.as_formula("weight"))

    def basis_of_grid(self) -> UniformBSplineBasis | BSplineBasis:
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
        if not self.is_fused:  # the recurrence takes any knots as they are
            return
        grid, version = self.grid, _version(self.grid)
        if grid.is_meta or type(grid) is not Tensor:  # no values to look at
            self._basis = getattr(self, "_basis", None) or self._fresh()
            self._seen = (grid, version, None)
            return
        knots = grid.detach().double().cpu()
        local = UniformBSplineBasis(
            self.basis.num_basis, self.basis.spline_order, knots[0, 0].item(), knots[0, -1].item()
        )
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
        low, high = self.options["grid_range"]
        return UniformBSplineBasis.over(low, high, self.basis.grid_size, self.basis.spline_order)

    def _knots_of(self, local: UniformBSplineBasis) -> Tensor:
        """The knots of the local form, float64, on the CPU."""
        index = torch.arange(self.grid.shape[1], dtype=torch.float64, device="cpu")
        return local.first_knot + index * local.step

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SplineLayer:
        """Convert the tensors as `.to()` and its like ask; knots that were equally spaced in the
        old dtype are so in a wider one, too, instead of keeping the old one's rounding."""
        if not self.is_fused:
            return super()._apply(fn, recurse)
        before, basis = self.grid.dtype, self.basis_of_grid()
        super()._apply(fn, recurse)
        is_wider = torch.finfo(self.grid.dtype).eps < torch.finfo(before).eps
        if is_wider and isinstance(basis, UniformBSplineBasis):
            with torch.no_grad():
                self.grid.copy_(self._knots_of(basis).to(self.grid))
        return self


def draw(layer: SplineLayer) -> None:
    """Start anew: the knots of `grid_range`, Kaiming-uniform base and scaler, and the splines that
    fit uniform noise at the knots best."""
    scale = layer.options["scale_spline"]
    _draw_edges(layer.as_published("base_weight"), layer.options["scale_base"])
    draw_splines(layer, 1.0 if layer.options["enable_standalone_scale_spline"] else scale)
    if layer.stored("scale") is not None:
        _draw_edges(layer.as_published("scale"), scale)


def draw_splines(layer: SplineLayer, factor: float = 1.0) -> None:
    """The knots of `grid_range`, and splines that fit uniform noise there best, times a factor."""
    basis, options, weight = layer.basis, layer.options, layer.coefficients
    grid_size, ends = basis.grid_size, options["grid_range"]
    check_knots(ends, grid_size, basis.spline_order, weight.dtype)
    # The grid is the same for every feature here, so one fit serves them all.
    knots = basis.uniform_knots(ends)
    layer.grid.copy_(knots.to(layer.grid))
    layer.grid_changed()
    edges = layer.in_features * layer.out_features
    noise = torch.rand(grid_size + 1, edges, device=weight.device, dtype=weight.dtype)
    noise = (noise - 0.5) * (options["scale_noise"] / grid_size)
    coefficients = factor * (basis.interpolation_operator(knots).to(weight) @ noise)
    weight.copy_(coefficients.view(-1, layer.in_features, layer.out_features).permute(2, 1, 0))


def _draw_edges(published: Tensor, scale: float) -> None:
    # In the published layout, so that the same seed gives the same function in all.
    values = torch.empty_like(published, memory_format=torch.contiguous_format)
    published.copy_(nn.init.kaiming_uniform_(values, a=math.sqrt(5) * scale))


def fused_basis(layer: SplineLayer) -> UniformBSplineBasis | BSplineBasis:
    """See `SplineLayer.basis_of_grid`."""
    return layer.basis_of_grid()


def _version(tensor: Tensor) -> float:
    """How often the tensor was written to; NaN, unequal to itself, where that is not counted."""
    return math.nan if tensor.is_inference() else tensor._version


def _after_load(layer: SplineLayer, incompatible_keys: object) -> None:
    layer.grid_changed()


class SplineKAN(KAN):
    """Layers of splines, with grid update and regularisation over all of them."""

    @torch.no_grad()
    def update_grid(self, x: Tensor, margin: float = 0.01) -> None:
        """Update the grid of each layer to what reaches it from samples x,
        shape `(..., widths[0])`."""
        for layer in self._layers():
            layer.update_grid(x, margin)
            x = layer(x)

    def regularization_loss(
        self, regularize_activation: float = 1.0, regularize_entropy: float = 1.0
    ) -> Tensor:
        """The sum of the layers' penalties, shape `()`."""
        losses = [
            layer.regularization_loss(regularize_activation, regularize_entropy)
            for layer in self._layers()
        ]
        return torch.stack(losses).sum()

    def _layers(self) -> list[SplineLayer]:
        return [cast(SplineLayer, layer) for layer in self.layers]
