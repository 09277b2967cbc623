"""A basis whose fast form is the library of csrc/cpu.cpp: one parallel region for a cell."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from kan_impls.basis.base import Basis, Scratch
from kan_impls.fused import host_compiler
from kan_impls.fused.problem import MAX_PARAMS, pack_plain, two_floats

_POINTS = struct.Struct("=10q")  # struct Points of points.h


class CompiledBasis(Basis):
    """The basis of a library, or SiLU by that library.

    Args:
        definition: the basis.
        library: compiled for it.
        entry: what evaluates a cell.

    Attributes:
        num_active: how many functions of the library's basis differ from zero at most.
    """

    def __init__(self, definition: Basis, library: ctypes.CDLL, entry: str) -> None:
        self.definition, self.library = definition, library
        self.text, self.num_basis = definition.text, definition.num_basis
        self.packed_constants = two_floats(definition.constants)
        self.num_active = library.active_functions()
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
        # The parameters' gradients take what the basis prepares.
        return self.definition.elements_held(with_slopes) if self.definition.trained else 0

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
        grad_x: Tensor,
    ) -> None:
        """`evaluate` and `add_input_grad` at once."""
        step = int(grad_phi.shape[2] == grad_x.shape[1])
        gradient = (grad_phi.data_ptr(), grad_phi.stride(0), step, grad_x.data_ptr())
        self._call(prepared[0], params, values, gradient)

    def add_param_grads(
        self,
        grads: Sequence[Tensor],
        prepared: Sequence[Tensor],
        params: Sequence[Tensor],
        values: Tensor,
        grad_phi: Tensor,
    ) -> None:
        own = self.definition.prepare(prepared[0])
        self.definition.add_param_grads(grads, own, params, values, grad_phi)

    def _call(
        self,
        x: Tensor,
        params: Sequence[Tensor],
        values: Tensor,
        gradient: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        inputs, rows = x.shape
        points = _POINTS.pack(x.data_ptr(), 0, 0, values.data_ptr(), 0, values.stride(0), *gradient)
        params = [param.contiguous() for param in params]
        addresses = addresses_of([None] * 5, params)
        threads = torch.get_num_threads()
        self._evaluate(self.problem(addresses, params, rows, inputs, 0, threads), points)

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
) -> list[int]:
    """The addresses of a struct Problem, 0 for None.

    Args:
        operands: those before the parameters.
        params: of the basis.
        made: grad_y, y and workspace.
        grads: of x, weight, scale and base_weight.
    """
    several = [*params, *[None] * (MAX_PARAMS - len(params))]
    tensors = (*operands, *several, *made, *grads, None)
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
