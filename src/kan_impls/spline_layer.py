"""What layers of B-splines share, however they compute: parameters, grid, regularisation.

Published implementation: https://github.com/Blealtan/efficient-kan, whose parameters,
initialisation and grid update these are. Paper: arXiv 2404.19756.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from kan_impls.basis.bspline import BSplineBasis
from kan_impls.checks import check_input, check_interval, check_knots, check_size
from kan_impls.model import KAN
from kan_impls.published import Layout

# Fitting one input feature takes (samples x num_basis) float64 numbers a few times over;
# features are fitted together up to this many bytes of them.
FIT_BYTES = 64 * 2**20


def functions_per_input(config: Mapping[str, Any]) -> int:
    """The splines of an input, and SiLU; see `kan_impls.variant.Variant`."""
    return 1 + config.get("grid_size", 5) + config.get("spline_order", 3)


class SplineLayer(nn.Module, ABC):
    """A KAN layer of B-splines with a SiLU base branch; no bias.

    What a forward pass computes, and how the weights are laid out, is a subclass's matter;
    initialisation, grid update and regularisation see them as published, through views.

    Within `grid_range` the splines sum to 1. Outside the range the spline part decays
    (with the defaults the basis sums to 0.68 at x = 1.5) and is exactly 0 beyond the last
    extended knot, `spline_order` grid steps outside the range; the base branch remains.

    Args:
        in_features, out_features: sizes of the last dimension of input and output.
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

    Parameters, as published: `base_weight` and `spline_scaler` of shape `(out_features,
    in_features)`, `spline_weight` of shape `(out_features, in_features, grid_size +
    spline_order)`. Buffer: `grid` of shape `(in_features, grid_size + 2 * spline_order + 1)`.

    Shapes: `(..., in_features)` to `(..., out_features)`.

    Raises:
        ValueError: a size that is not positive, or a `grid_range` whose knots the dtype cannot
            hold or tell apart.
    """

    grid: Tensor

    # Between a parameter as it is stored and as it is published, by a view of it.
    layout: ClassVar[Layout]

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.basis = BSplineBasis(
            check_size("grid_size", grid_size), check_size("spline_order", spline_order)
        )
        self.scale_noise = scale_noise
        self.scale_base = scale_base
        self.scale_spline = scale_spline
        self.grid_eps = grid_eps
        self.grid_range = check_interval("grid_range", grid_range)

        edges, num_basis = (out_features, in_features), self.basis.num_basis
        self.base_weight = self._parameter(edges, device, dtype)
        self.spline_weight = self._parameter((*edges, num_basis), device, dtype)
        if enable_standalone_scale_spline:
            self.spline_scaler = self._parameter(edges, device, dtype)
        else:
            self.register_parameter("spline_scaler", None)
        check_knots(self.grid_range, grid_size, spline_order, self.base_weight.dtype)
        shape = (in_features, grid_size + 2 * spline_order + 1)
        self.register_buffer("grid", self.base_weight.new_empty(shape))
        self.reset_parameters()
        self.register_load_state_dict_post_hook(_after_load)

    def _parameter(self, published_shape: tuple[int, ...], device: Any, dtype: Any) -> nn.Parameter:
        like = torch.empty(published_shape, device="meta")
        shape = self.layout.from_published(like).shape
        return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Shape `(..., in_features)` to `(..., out_features)`."""

    @abstractmethod
    def grid_changed(self) -> None:
        """Derive anew what is derived from `grid`."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start anew: the knots of `grid_range`, Kaiming-uniform base and scaler, and the
        splines that fit uniform noise at the knots best."""
        # The grid is the same for every feature here, so one fit serves them all.
        knots = self.basis.uniform_knots(self.grid_range)
        self.grid.copy_(knots.to(self.grid))
        self.grid_changed()
        self._draw(self.base_weight, self.scale_base)
        grid_size, weight = self.basis.grid_size, self.spline_weight
        noise = torch.rand(
            grid_size + 1, self.in_features * self.out_features,
            device=weight.device, dtype=weight.dtype,
        )  # fmt: skip
        noise = (noise - 0.5) * (self.scale_noise / grid_size)
        coefficients = self.basis.interpolation_operator(knots).to(weight) @ noise
        if self.spline_scaler is None:
            coefficients *= self.scale_spline
        else:
            self._draw(self.spline_scaler, self.scale_spline)
        coefficients = coefficients.view(-1, self.in_features, self.out_features)
        self.layout.to_published(weight).copy_(coefficients.permute(2, 1, 0))

    def _draw(self, edges: Tensor, scale: float) -> None:
        # In the published layout, so that the same seed gives the same function in all.
        published = self.layout.to_published(edges)
        values = torch.empty_like(published, memory_format=torch.contiguous_format)
        published.copy_(nn.init.kaiming_uniform_(values, a=math.sqrt(5) * scale))

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
            ValueError: no sample, one that is not finite, or knots beyond the grid's dtype.
        """
        check_input(x, self.in_features, self.base_weight)
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
        weight = self.layout.to_published(self.spline_weight)
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
        quantile = torch.linspace(0, samples.shape[0] - 1, grid_size + 1, device=samples.device)
        adaptive = ordered[quantile.long()]
        step = (ordered[-1] - ordered[0] + 2 * margin) / grid_size
        index = torch.arange(-order, grid_size + order + 1, device=samples.device)[:, None]
        uniform = ordered[0] - margin + index[order : order + grid_size + 1] * step
        inner = self.grid_eps * uniform + (1 - self.grid_eps) * adaptive
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
        size = self.layout.to_published(self.spline_weight).abs().mean(-1)
        total = size.sum()
        # All splines zero: no size, and no spread either.
        share = size / torch.where(total > 0, total, 1)
        # 0 log 0 = 0; the clamp keeps the gradient of a spline that is zero finite.
        entropy = -(share * share.clamp_min(torch.finfo(size.dtype).tiny).log()).sum()
        return regularize_activation * total + regularize_entropy * entropy

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"grid_size={self.basis.grid_size}, spline_order={self.basis.spline_order}, "
            f"grid_range={self.grid_range}"
        )


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
