"""Wavelets of every edge's own translation and scale, `sum_i w_oi psi((x_i - t_oi) / s_oi)`.

The wavelets differ from output to output, and so this is no product of a basis with weights. All
values together have the shape (rows, out, in). The bounded form computes some of them at a time,
and again in the backward pass.

Paper: Wav-KAN, arXiv 2405.12832.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from kan_impls.fused.transforms import is_batched, needs_formula

# Beyond it every wavelet is 0 in float64, too. The powers of a farther z would overflow.
LIMIT = 40.0

# Bytes of values that are computed at once; four such tensors are held, 16 MiB.
CHUNK_BYTES = 2**22


class Wavelet(ABC):
    """A wavelet psi: `value` is its definition, `write` the fast form."""

    @staticmethod
    @abstractmethod
    def value(z: Tensor) -> Tensor:
        """psi(z), by formulas that autograd can differentiate."""

    @staticmethod
    @abstractmethod
    def write(z: Tensor, envelope: Tensor, values: Tensor, slopes: Tensor | None) -> None:
        """Write psi(z), and its derivative where there are `slopes`; all of one shape.

        Args:
            envelope: `exp(-z^2 / 2)`.
        """


class MexicanHat(Wavelet):
    """`2 (z^2 - 1) exp(-z^2 / 2) / (sqrt(3) pi^(1/4))`."""

    NORM: ClassVar[float] = 2 / (math.sqrt(3) * math.pi**0.25)

    @staticmethod
    def value(z: Tensor) -> Tensor:
        return MexicanHat.NORM * (z.square() - 1) * envelope_of(z)

    @staticmethod
    def write(z: Tensor, envelope: Tensor, values: Tensor, slopes: Tensor | None) -> None:
        torch.mul(z, z, out=values).sub_(1).mul_(envelope).mul_(MexicanHat.NORM)
        if slopes is not None:  # z (2 norm envelope - psi)
            torch.mul(envelope, 2 * MexicanHat.NORM, out=slopes).sub_(values).mul_(z)


class Morlet(Wavelet):
    """`cos(5 z) exp(-z^2 / 2)`."""

    FREQUENCY: ClassVar[float] = 5.0

    @staticmethod
    def value(z: Tensor) -> Tensor:
        return (Morlet.FREQUENCY * z).cos() * envelope_of(z)

    @staticmethod
    def write(z: Tensor, envelope: Tensor, values: Tensor, slopes: Tensor | None) -> None:
        torch.mul(z, Morlet.FREQUENCY, out=values)
        if slopes is not None:
            torch.sin(values, out=slopes).mul_(envelope).mul_(-Morlet.FREQUENCY)
        values.cos_().mul_(envelope)
        if slopes is not None:  # -5 sin(5 z) envelope - z psi
            slopes.addcmul_(z, values, value=-1)


class DerivativeOfGaussian(Wavelet):
    """`-z exp(-z^2 / 2)`."""

    @staticmethod
    def value(z: Tensor) -> Tensor:
        return -z * envelope_of(z)

    @staticmethod
    def write(z: Tensor, envelope: Tensor, values: Tensor, slopes: Tensor | None) -> None:
        torch.mul(z, envelope, out=values).neg_()
        if slopes is not None:  # -z psi - envelope
            torch.mul(z, values, out=slopes).add_(envelope).neg_()


WAVELETS: dict[str, type[Wavelet]] = {
    "mexican_hat": MexicanHat,
    "morlet": Morlet,
    "dog": DerivativeOfGaussian,
}


def envelope_of(z: Tensor) -> Tensor:
    """`exp(-z^2 / 2)`."""
    return (z.square() * -0.5).exp()


def materialised(
    x: Tensor, translation: Tensor, scale: Tensor, weight: Tensor, *, name: str
) -> Tensor:
    """The definition, with a tensor of shape `(..., out_features, in_features)`.

    Args:
        x: shape `(..., in_features)`.
        translation, scale, weight: shape `(out_features, in_features)`.
        name: one of `WAVELETS`.

    Returns:
        Shape `(..., out_features)`.
    """
    # 16 bits would cost the wavelet most of its digits.
    wide = torch.promote_types(x.dtype, torch.float32)
    z = (x.to(wide).unsqueeze(-2) - translation.to(wide)) / scale.to(wide)
    psi = WAVELETS[name].value(z.clamp(-LIMIT, LIMIT))
    return (psi * weight.to(wide)).sum(-1).to(weight.dtype)


def bounded(x: Tensor, translation: Tensor, scale: Tensor, weight: Tensor, *, name: str) -> Tensor:
    """`materialised` in chunks, of which nothing is kept for the backward pass."""
    tensors = (x, translation, scale, weight)
    is_compiling = torch.compiler.is_compiling()
    if needs_formula(tensors, is_compiling):
        return materialised(*tensors, name=name)
    rows = x.reshape(-1, x.shape[-1])
    if is_compiling:
        y = _forward_op(rows, *tensors[1:], name)
    else:
        y = _Bounded.apply(name, rows, *tensors[1:])
    return y.view(*x.shape[:-1], y.shape[-1])


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.name = name
        return _forward(*tensors, name=name)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or is_batched(grad_y):
            again = torch.is_grad_enabled()
            wanted = [tensor for tensor, needed in zip(tensors, needs, strict=True) if needed]
            with torch.enable_grad():
                y = materialised(*tensors, name=ctx.name)
            found = iter(torch.autograd.grad(y, wanted, grad_y, create_graph=again))
        else:
            found = iter(_backward(grad_y, *tensors, name=ctx.name, needs=needs))
        return (None, *(next(found) if needed else None for needed in needs))


def _chunks(rows: int, inputs: int, outputs: int, itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows and of outputs: those of all outputs for some rows, then the next rows."""
    elements = CHUNK_BYTES // itemsize
    rows_at_once = max(1, min(rows, elements // inputs))
    outputs_at_once = max(1, min(outputs, elements // (rows_at_once * inputs)))
    for row in range(0, rows, rows_at_once):
        for output in range(0, outputs, outputs_at_once):
            yield (
                slice(row, min(row + rows_at_once, rows)),
                slice(output, min(output + outputs_at_once, outputs)),
            )


class _Values:
    """The wavelets of a chunk, shape `(outputs, rows, inputs)`, in memory that is taken once."""

    def __init__(self, x: Tensor, translation: Tensor, scale: Tensor, name: str, slopes: bool):
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.x, self.translation, self.scale = x, translation, scale
        self.wavelet = WAVELETS[name]
        self.count = 4 if slopes else 3
        self.memory: Tensor | None = None
        self.shape: tuple[int, ...] = ()
        self.views: list[Tensor] = []

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        rows, inputs = self.x.shape
        return _chunks(rows, inputs, self.scale.shape[0], self.dtype.itemsize)

    def at(self, rows: slice, outputs: slice) -> list[Tensor]:
        """z, its envelope, which may be overwritten, the values, and the slopes, if wanted."""
        shape = (outputs.stop - outputs.start, rows.stop - rows.start, self.x.shape[1])
        if self.memory is None:  # of the first chunk, which is the largest
            self.memory = self.x.new_empty((self.count, math.prod(shape)), dtype=self.dtype)
        if shape != self.shape:
            self.shape = shape
            self.views = [own[: math.prod(shape)].view(shape) for own in self.memory]
        z, envelope, values, *slopes = self.views
        translation, scale = (
            own[outputs].to(self.dtype).unsqueeze(1) for own in (self.translation, self.scale)
        )
        torch.sub(self.x[rows].to(self.dtype), translation, out=z)
        z.mul_(scale.reciprocal()).clamp_(-LIMIT, LIMIT)
        torch.mul(z, z, out=envelope).mul_(-0.5).exp_()
        self.wavelet.write(z, envelope, values, slopes[0] if slopes else None)
        return [z, envelope, values, *slopes]


def _forward(x: Tensor, translation: Tensor, scale: Tensor, weight: Tensor, *, name: str) -> Tensor:
    y = weight.new_empty((x.shape[0], weight.shape[0]))
    chunks = _Values(x, translation, scale, name, slopes=False)
    for rows, outputs in chunks.chunks():
        psi = chunks.at(rows, outputs)[2]
        y[rows, outputs] = (psi @ weight[outputs].to(psi.dtype).unsqueeze(-1)).squeeze(-1).t()
    return y


def _backward(
    grad_y: Tensor,
    x: Tensor,
    translation: Tensor,
    scale: Tensor,
    weight: Tensor,
    *,
    name: str,
    needs: Sequence[bool],
) -> list[Tensor]:
    """The gradients that are needed, of x, translation, scale and weight."""
    chunks = _Values(x, translation, scale, name, slopes=True)
    wide = chunks.dtype
    grad_x = torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format)
    needs_x, *needs_edges = needs
    grads = [
        torch.zeros_like(weight, dtype=wide, memory_format=torch.contiguous_format)
        for needed in needs_edges
        if needed
    ]
    for rows, outputs in chunks.chunks():
        z, spare, psi, slopes = chunks.at(rows, outputs)
        cotangent = grad_y[rows, outputs].t().to(wide).unsqueeze(1)  # (outputs, 1, rows)
        factor = weight[outputs].to(wide) / scale[outputs].to(wide)
        own = iter(grads)
        if needs_edges[0]:
            next(own)[outputs].addcmul_(factor, (cotangent @ slopes).squeeze(1), value=-1)
        if needs_edges[1]:
            torch.mul(slopes, z, out=spare)
            next(own)[outputs].addcmul_(factor, (cotangent @ spare).squeeze(1), value=-1)
        if needs_edges[2]:
            next(own)[outputs].add_((cotangent @ psi).squeeze(1))
        if needs_x:
            slopes.mul_(cotangent.mT).mul_(factor.unsqueeze(1))
            grad_x[rows] += slopes.sum(0)
    found = [grad_x.to(x.dtype)] if needs_x else []
    return found + [grad.to(weight.dtype) for grad in grads]


# What torch.compile sees, see `kan_impls.fused.op`.
_SCHEMA = "Tensor x, Tensor translation, Tensor scale, Tensor weight, str name"


@torch.library.custom_op("kan_impls::wavelet_sum", mutates_args=(), schema=f"({_SCHEMA}) -> Tensor")
def _forward_op(*arguments: Any) -> Tensor:
    *tensors, name = arguments
    return _forward(*tensors, name=name)


@_forward_op.register_fake
def _(*arguments: Any) -> Tensor:
    x, _, _, weight, _ = arguments
    return weight.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op(
    "kan_impls::wavelet_sum_backward",
    mutates_args=(),
    schema=f"(Tensor grad_y, {_SCHEMA}, bool[] needs) -> Tensor[]",
)
def _backward_op(*arguments: Any) -> list[Tensor]:
    *tensors, name, needs = arguments
    return _backward(*tensors, name=name, needs=needs)


@_backward_op.register_fake
def _(*arguments: Any) -> list[Tensor]:
    _, *tensors, _, needs = arguments
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor, needed in zip(tensors, needs, strict=True)
        if needed
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.name = inputs
    ctx.save_for_backward(*tensors)


def _compiled_backward(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
    needs = ctx.needs_input_grad[:4]
    found = iter(_backward_op(grad_y, *ctx.saved_tensors, ctx.name, needs))
    return (*(next(found) if needed else None for needed in needs), None)


_forward_op.register_autograd(_compiled_backward, setup_context=_setup_context)
