"""A basis whose fast form is the library of csrc/cpu.cpp: one parallel region for a cell."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch
from kan_impls.fused import host_compiler
from kan_impls.fused.problem import MAX_PARAMS, ceil_div, pack_plain, two_floats

_CELL = struct.Struct("=12q")  # struct Cell of cell.h
# Rows of which each part of the parameters' gradients is the sum, as cell.h has it; and points
# that contribute side by side, as points.h has it.
PART_ROWS, POINTS_WITH_PARAMS = 512, 64


class CompiledBasis(Basis):
    """The basis of a library, or SiLU by that library.

    Args:
        definition: the basis.
        library: compiled for it.
        entry: what evaluates a cell.

    Attributes:
        num_active: how many functions of the library's basis differ from zero at most.
        vector: floats of a vector of this CPU.
    """

    def __init__(self, definition: Basis, library: ctypes.CDLL, entry: str) -> None:
        self.definition, self.library = definition, library
        self.text, self.num_basis = definition.text, definition.num_basis
        self.spans_param_grads = definition.spans_param_grads
        self.packed_constants = two_floats(definition.constants)
        self.num_active = library.active_functions()
        self.vector = library.vector_size()
        self._evaluate = getattr(library, entry)

    @classmethod
    def load(cls, definition: Basis) -> CompiledBasis:
        """Raises HostCompileError where that cannot be had."""
        library = host_compiler.load(definition.cuda, definition.num_basis)
        return cls(definition, library, "evaluate_basis")

    @property
    def cuda(self) -> str:
        return self.definition.cuda

    def elements_held(self, with_slopes: bool) -> int:
        return 0  # the parameters' gradients take little beside those of the weights

    def value(self, x: Tensor, *params: Tensor) -> Tensor:
        return self.definition.value(x, *params)

    def evaluate(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        scratch: Scratch,
        with_slopes: bool = False,
    ) -> None:
        """`Basis.evaluate` without slopes: `evaluate_and_add` needs none in memory."""
        self._call(prepared[0], params, values)

    def add_input_grad(
        self, grad_x: Tensor, values: Tensor, slopes: Tensor | None, grad_phi: Tensor
    ) -> None:
        raise NotImplementedError("a compiled basis has evaluate_and_add")

    def evaluate_and_add(
        self,
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
        grad_x: Tensor | None,
        grads: Sequence[Tensor] = (),
    ) -> None:
        """`evaluate`, `add_input_grad` if there is a gradient of x, and `add_param_grads` if there
        are some, at once. The values may take the place of their gradients; these have the same
        stride from input to input, unless there is one for all rows of an input."""
        x = prepared[0]
        step = int(grad_phi.shape[2] == x.shape[1])
        to = (0, 0, 0) if grad_x is None else (grad_x.data_ptr(), *grad_x.stride())
        gradient = (grad_phi.data_ptr(), grad_phi.stride(0), step, *to)
        if not grads:
            return self._call(x, params, values, gradient)
        sizes = self.definition.param_sizes
        parts = x.new_empty(ceil_div(x.shape[1], PART_ROWS), x.shape[0], sum(sizes))
        self._call(x, params, values, gradient, parts)
        for grad, own in zip(grads, parts.sum(0).split(sizes, 1), strict=True):
            grad.add_(own)

    def param_grads_of_weights(
        self, products: Tensor, params: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        return self.definition.param_grads_of_weights(products, params)

    def _call(
        self,
        x: Tensor,
        params: Sequence[Tensor],
        values: Tensor,
        gradient: tuple[int, ...] = (0,) * 6,
        parts: Tensor | None = None,
    ) -> None:
        (inputs, rows), threads = x.shape, torch.get_num_threads()
        cell = _CELL.pack(
            x.data_ptr(), *x.stride(), values.data_ptr(), *values.stride()[:2], *gradient
        )
        params = [param.contiguous() for param in params]
        workspace = None
        if parts is not None:
            workspace = x.new_empty(threads * parts.shape[2] * POINTS_WITH_PARAMS)
        addresses = addresses_of([None] * 5, params, (None, None, workspace), grad_params=parts)
        self._evaluate(self.problem(addresses, params, rows, inputs, 0, threads), cell)

    def write_grads(
        self,
        total: Tensor,
        weight: Tensor,
        scale: Tensor,
        grad_weight: Tensor | None,
        grad_scale: Tensor | None,
    ) -> None:
        """`Term.write_grads` in one pass, of tensors whose outputs lie side by side."""
        addresses = addresses_of((total, weight, scale, grad_weight, grad_scale), (), (), ())
        sizes = (*weight.shape, weight.stride(0), torch.get_num_threads())
        self.library.write_grads(*map(ctypes.c_longlong, (*addresses[:5], *sizes)))

    def multiply_functions(self, weight: Tensor, grad: Tensor, out: Tensor) -> None:
        """`Term.multiply_functions` of tensors whose outputs lie side by side."""
        _, inputs, outputs = weight.shape
        sizes = (inputs, outputs, weight.stride(0), grad.stride(0), torch.get_num_threads())
        addresses = (tensor.data_ptr() for tensor in (weight, grad, out))
        self.library.multiply_functions(*map(ctypes.c_longlong, (*addresses, *sizes)))

    def problem(self, addresses: Sequence[int], params: Sequence[Tensor], *sizes: int) -> bytes:
        """A struct Problem.

        Args:
            addresses: of the tensors, by `addresses_of`.
            params: of the basis, contiguous.
            sizes: rows, inputs, outputs, and how many threads may take part.
        """
        sets = [param.shape[0] for param in params]
        return pack_plain(addresses, (*sizes, 0, 0), sets, self.packed_constants)


def addresses_of(
    operands: Sequence[Tensor | None],
    params: Sequence[Tensor],
    made: Sequence[Tensor | None] = (None,) * 3,
    grads: Sequence[Tensor | None] = (None,) * 4,
    grad_params: Tensor | None = None,
) -> list[int]:
    """The addresses of a struct Problem, 0 for None.

    Args:
        operands: those before the parameters.
        params: of the basis.
        made: grad_y, y and workspace.
        grads: of x, weight, scale and base_weight.
        grad_params: in parts.
    """
    several = [*params, *[None] * (MAX_PARAMS - len(params))]
    tensors = (*operands, *several, *made, *grads, grad_params)
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
