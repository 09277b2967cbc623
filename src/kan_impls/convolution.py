"""A convolution whose kernel is a KAN layer: every patch of an image goes through the same layer.

Paper: Convolutional Kolmogorov-Arnold Networks, arXiv 2407.01092.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from kan_impls.checks import check_size
from kan_impls.registry import create_layer

Pair = int | tuple[int, int]


class KANConv2d(nn.Module):
    """`torch.nn.Conv2d` with a KAN layer in place of the affine map of a patch.

    The numbers of a patch are the inputs of the layer, channel by channel, each row by row, as
    those of `torch.nn.Conv2d` are. Padding adds zeros, at which a basis function need not be zero.
    The patches of all positions are one tensor, kernel height times width as large as the image,
    which a fused layer keeps for the backward pass, as its input.

    Args:
        layer: the name of an implementation, or what makes a layer, called as
            `layer(in_features, out_features, **config)`.
        in_channels, out_channels: of the images.
        kernel_size, stride, padding, dilation: as of `torch.nn.Conv2d`, one number or a pair (of
            rows, of columns).
        config: options of the layer, such as `grid_size`, `device` and `dtype`.

    Shapes: `(batch, in_channels, height, width)`, or the same without batch, to
        `(batch, out_channels, new height, new width)`, with the sizes of `torch.nn.Conv2d`.

    Raises:
        ValueError: a size that is not positive, or a layer that does not exist; called with
            another number of channels, or with an image smaller than the kernel.
        TypeError: an option that the layer does not have.
    """

    def __init__(
        self,
        layer: str | Callable[..., nn.Module],
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        **config: Any,
    ) -> None:
        super().__init__()
        self.in_channels = check_size("in_channels", in_channels)
        self.out_channels = check_size("out_channels", out_channels)
        self.kernel_size = _sizes("kernel_size", kernel_size)
        self.stride = _sizes("stride", stride)
        self.dilation = _sizes("dilation", dilation)
        self.padding = _sizes("padding", padding, least=0)
        inputs = self.in_channels * self.kernel_size[0] * self.kernel_size[1]
        if isinstance(layer, str):
            self.layer = create_layer(layer, inputs, self.out_channels, **config)
        else:
            self.layer = layer(inputs, self.out_channels, **config)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self._checked_size(x)
        patches = F.unfold(
            x,
            self.kernel_size,
            dilation=self.dilation,
            padding=self.padding,
            stride=self.stride,
        )
        y: Tensor = self.layer(patches.transpose(-1, -2))
        return y.transpose(-1, -2).unflatten(-1, (height, width))

    def extra_repr(self) -> str:
        return (
            f"in_channels={self.in_channels}, out_channels={self.out_channels}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}"
        )

    def _checked_size(self, x: Tensor) -> tuple[int, int]:
        """Height and width of the output."""
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"the images have the shape {tuple(x.shape)}; expected (batch, {self.in_channels}, "
                f"height, width) or ({self.in_channels}, height, width)"
            )
        sizes = []
        for size, kernel, stride, padding, dilation in zip(
            x.shape[-2:], self.kernel_size, self.stride, self.padding, self.dilation, strict=True
        ):
            left = size + 2 * padding - dilation * (kernel - 1) - 1
            if left < 0:
                raise ValueError(
                    f"the images are of {tuple(x.shape[-2:])} pixels; expected at least as many as "
                    f"the kernel covers: make kernel_size {self.kernel_size} or dilation "
                    f"{self.dilation} smaller, or padding {self.padding} larger"
                )
            sizes.append(left // stride + 1)
        return sizes[0], sizes[1]


def _sizes(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """Rows and columns."""
    pair = _pair(value)
    if len(pair) != 2:
        raise ValueError(f"{name} is {value!r}; expected a number or a pair of numbers")
    for each in pair:
        if not (least == 0 and type(each) is int and each == 0):
            check_size(name, each)
    return pair[0], pair[1]
