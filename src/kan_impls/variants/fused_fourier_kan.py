"""FourierKAN without materialising: the function of `fourier_kan` in bounded memory.

`y_o = bias_o + sum_k sum_i phi_k(x_i) W_kio`, phi = cos(x), sin(x), cos(2x), ..., sin(Gx)
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from kan_impls.basis.fourier import FourierBasis, initial_coefficients
from kan_impls.checks import check_input, check_size
from kan_impls.fused.dispatch import Backend, check_backend
from kan_impls.fused.op import basis_product
from kan_impls.fused.operands import Operands
from kan_impls.model import KAN
from kan_impls.published import UNCHANGED, Layout
from kan_impls.variant import Variant


def _weight(coefficients: Tensor) -> Tensor:
    """`(2, out_features, in_features, grid_size)` to the layout of `weight`."""
    return coefficients.permute(3, 0, 2, 1).flatten(0, 1)


def _coefficients(weight: Tensor) -> Tensor:
    """The layout of `weight` to `(2, out_features, in_features, grid_size)`."""
    return weight.unflatten(0, (-1, 2)).permute(1, 3, 2, 0)


class FusedFourierKANLayer(nn.Module):
    """A KAN layer of Fourier series, 2 pi-periodic in every input.

    It saves only its input for the backward pass and evaluates the basis again there;
    the product form takes a workspace of at most `kan_impls.fused.product.WORKSPACE_BYTES`,
    whatever the batch, the CUDA kernels one of at most `kan_impls.fused.kernels.WORKSPACE_BYTES`.

    Args:
        in_features, out_features: sizes of the last dimension of input and output.
        grid_size: number of harmonics G.
        bias: whether to add a trained bias.
        smooth_initialization: divide the initial coefficients of harmonic k by k**2
            instead of sqrt(G).
        backend: how the product is taken, see `kan_impls.fused.dispatch`.

    Parameters: `weight` of shape `(2 * grid_size, in_features, out_features)`, one linear map
    for each of cos(x), sin(x), cos(2x), and so on; `bias` of shape `(out_features,)`.
    `kan_impls.upstream` reads and writes the published layouts. With the same seed the
    layer starts as the same function as `fourier_kan`.

    Shapes: `(..., in_features)` to `(..., out_features)`.

    Raises:
        ValueError: a size that is not positive.
    """

    published: ClassVar = {
        "fouriercoeffs": (
            "weight",
            {
                "out_in": Layout(_coefficients, _weight),
                # Published fused layers store inputs before outputs, and a bias without a row.
                "in_out": Layout(
                    lambda weight: _coefficients(weight).transpose(1, 2),
                    lambda coefficients: _weight(coefficients.transpose(1, 2)),
                ),
            },
        ),
        "bias": (
            "bias",
            {
                "out_in": Layout(lambda bias: bias.unsqueeze(0), lambda bias: bias.squeeze(0)),
                "in_out": UNCHANGED,
            },
        ),
    }

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        bias: bool = True,
        smooth_initialization: bool = False,
        backend: Backend = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.grid_size = check_size("grid_size", grid_size)
        self.smooth_initialization = smooth_initialization
        self.backend = check_backend(backend)
        # Function by function, then input by input: a block of functions is one contiguous
        # matrix, in the forward product as in both of the backward, and outputs lie side
        # by side for a kernel's coalesced reads.
        shape = (2 * grid_size, in_features, out_features)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.basis = FourierBasis(grid_size)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the coefficients anew and set the bias to 0."""
        coefficients = initial_coefficients(
            self.in_features,
            self.out_features,
            self.grid_size,
            self.smooth_initialization,
            self.weight.device,
            self.weight.dtype,
        )
        self.weight.copy_(_weight(coefficients))
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.in_features, self.weight)
        return basis_product(Operands(x, self.weight, bias=self.bias), self.basis, self.backend)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"grid_size={self.grid_size}"
        )


VARIANT = Variant(
    name="fused_fourier_kan",
    formula="b + sum_ik (a_oik cos(k x_i) + b_oik sin(k x_i))",
    paper="https://github.com/GistNoesis/FourierKAN",
    layer=FusedFourierKANLayer,
    model=partial(KAN, FusedFourierKANLayer),
    functions_per_input=lambda config: 2 * config.get("grid_size", 5),
    reference_config={"grid_size": 5},
)
