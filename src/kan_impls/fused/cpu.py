"""The product form compiled for this CPU: which products take it, and its proof.

A library holds what the matrix products leave to do, see csrc/cpu.cpp, for one basis. The system's
C++ compiler makes it at the first product of that basis; it passes a known-answer test, and takes
float32 in the memory of the CPU. Where it cannot be had, torch's operators make the product form,
with the same results but for rounding: `obstacle` says why.

Few rows, and small layers, take no matrix product: a pass over the weights reads the rows of
those functions that are not zero, which are half of those of a spline layer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from kan_impls.basis.base import Basis
from kan_impls.basis.silu import SiluBasis
from kan_impls.fused import cells, host_compiler, product, trial
from kan_impls.fused.compiled import CompiledBasis, addresses_of
from kan_impls.fused.host_compiler import HostCompileError
from kan_impls.fused.operands import Needs, Operands, terms_of
from kan_impls.fused.problem import (
    Device,
    Element,
    Functions,
    Layer,
    Precision,
    error_bound,
)
from kan_impls.fused.term import Term

VARIABLE = "KAN_IMPLS_CPU"

# With more values than this that are not zero, for each input, a product is faster than the forward
# pass over the weights; the backward one is never faster.
FEW_VALUES = 40
# So many products of a layer take less time than the operators around them.
SMALL_WORK = 1 << 21
# Passes over the weights take vectors of outputs: fewer outputs than this take as long.
VECTOR = 16
# So many take about as long as to wake a thread; cpu.cpp has the same.
WORK_OF_THREAD = 1 << 15
# Passes in blocks: rows and outputs that are in registers at once (or fewer), functions and outputs
# in a thread's caches, as blocks.h has it, and functions at most of an input.
TILE_ROWS, TILE_OUTPUTS = 12, 32
BLOCK_DEPTH, BLOCK_WIDTH = 256, 256
MOST_FUNCTIONS = 1024
# With more rows than this the library's product is as fast: a copy of the weights costs it little.
BLOCK_ROWS = 1024
# It takes weights without a scale where they are; with so many rows it is slower all the same.
UNSCALED_ROWS = (128, 512)
# And with more than these where there are few outputs.
FEW_OUTPUTS_ROWS = 128
# Beyond so many floats of grad_y the second-level cache does not hold what all inputs read.
COTANGENT_FLOATS = 1 << 18
# A part of a pass, `Tile` of cpu.cpp, holds so many values, of one input or more.
MOST_VALUES = 8192

_lock = threading.RLock()


@dataclass(frozen=True)
class Compiled:
    """What a library gives: the basis, SiLU, and passes without a matrix product."""

    basis: CompiledBasis
    silu: CompiledBasis

    def terms(self, operands: Operands) -> list[Term]:
        """`terms_of` with these."""
        own, *base = terms_of(operands, self.basis)
        return [own, *(replace(term, basis=self.silu) for term in base)]

    def is_direct(self, operands: Operands, needs: Needs | None = None) -> bool:
        """Whether the passes without a matrix product take these operands, and are faster."""
        rows, functions = operands.x.shape[0], operands.weight.shape[0]
        few = rows * self.basis.num_active <= FEW_VALUES and operands.weight.shape[2] >= VECTOR
        if not (few and needs is None) and _work(operands) > SMALL_WORK:
            return False
        if not 0 < rows * (functions + 1) <= MOST_VALUES:
            return False
        if needs is not None and any(needs.params):
            return False
        return _are_contiguous(operands)

    def forward(self, operands: Operands) -> Tensor:
        """`product.forward` of operands that `is_direct`."""
        x, weight = operands.x, operands.weight
        y = weight.new_empty(x.shape[0], weight.shape[2])
        threads = _threads(operands, y.numel(), -y.numel())
        workspace = weight.new_empty((threads - 1) * y.numel()) if threads > 1 else None
        self._run("forward", operands, threads, (None, y, workspace))
        return y

    def is_blocked(self, operands: Operands, needs: Needs | None = None) -> bool:
        """Whether the passes in blocks take these operands, and are faster.

        Without a scale the library takes the weights where they are, and writes their gradients
        there; for few outputs its operators are the longer part.
        """
        rows, functions, outputs = operands.x.shape[0], *operands.weight.shape[::2]
        if functions >= MOST_FUNCTIONS or (needs is not None and any(needs.params)):
            return False
        if needs is None:
            floats = _forward_floats(operands)
            fewest, most = UNSCALED_ROWS if operands.scale is None else (0, BLOCK_ROWS)
            is_faster = fewest < rows <= most
        else:
            shared, own = _backward_floats(operands, needs)
            floats = shared + own
            is_faster = operands.scale is not None and 0 < shared <= COTANGENT_FLOATS
        if outputs < TILE_OUTPUTS:
            is_faster = 0 < rows <= FEW_OUTPUTS_ROWS
        fits = 4 * floats <= cells.workspace_of(operands.x.device).most
        return is_faster and fits and _are_contiguous(operands)

    def forward_in_blocks(self, operands: Operands) -> Tensor:
        """`product.forward` of operands that `is_blocked`, without a scaled copy of all weights."""
        x, weight = operands.x, operands.weight
        y, own = weight.new_empty(x.shape[0], weight.shape[2]), _forward_floats(operands)
        threads = _threads(operands, y.numel() + own, -y.numel())
        workspace = weight.new_empty((threads - 1) * y.numel() + threads * own)
        self._run("forward_in_blocks", operands, threads, (None, y, workspace))
        return y

    def backward_in_blocks(
        self, grad_y: Tensor, operands: Operands, needs: Needs
    ) -> list[Tensor | None]:
        """`backward` of operands that `is_blocked`, without the gradient of scaled weights."""
        shared, own = _backward_floats(operands, needs)
        threads = _threads(operands, own, shared)
        floats = shared + threads * own
        return self._backward("backward_in_blocks", grad_y, operands, needs, threads, floats)

    def backward(self, grad_y: Tensor, operands: Operands, needs: Needs) -> list[Tensor | None]:
        """The gradients of operands that `is_direct`, in their places; none of parameters."""
        threads = _threads(operands, grad_y.shape[1], 0)
        floats = threads * grad_y.shape[1]
        return self._backward("backward", grad_y, operands, needs, threads, floats)

    def _backward(
        self,
        which: str,
        grad_y: Tensor,
        operands: Operands,
        needs: Needs,
        threads: int,
        floats: int,
    ) -> list[Tensor | None]:
        grad_y = grad_y.contiguous()
        grads = [
            torch.empty_like(value) if needed and value is not None else None
            for value, needed in zip(operands[:4], needs[:4], strict=True)
        ]
        self._run(which, operands, threads, (grad_y, None, grad_y.new_empty(floats)), grads)
        bias = grad_y.sum(0) if needs.bias else None
        return [*grads, bias, *[None] * len(operands.params)]

    def _run(
        self,
        which: str,
        operands: Operands,
        threads: int,
        made: tuple[Tensor | None, ...],
        grads: Sequence[Tensor | None] = (None,) * 4,
    ) -> None:
        params = operands.params
        addresses = addresses_of(operands[:5], params, made, grads)
        sizes = (*operands.x.shape, operands.weight.shape[2], threads)
        getattr(self.basis.library, which)(self.basis.problem(addresses, params, *sizes))


def _are_contiguous(operands: Operands) -> bool:
    return all(tensor is None or tensor.is_contiguous() for tensor in operands.flat)


def _work(operands: Operands) -> int:
    """How many products a pass over the weights takes the time of."""
    functions, inputs, outputs = operands.weight.shape
    return operands.x.shape[0] * functions * inputs * max(outputs, VECTOR)


def _threads(operands: Operands, own: int, shared: int) -> int:
    """How many take part: to wake one takes as long as some work, and they take so many floats,
    each of them and all together."""
    enough = _work(operands) // WORK_OF_THREAD
    fitting = (cells.workspace_of(operands.x.device).most // 4 - shared) // own
    return max(1, min(torch.get_num_threads(), operands.x.shape[1], enough, fitting))


def _forward_floats(operands: Operands) -> int:
    """What a thread takes of memory: `ForwardBlocks::floats` of blocks.h."""
    rows, functions = operands.x.shape[0], _functions(operands)
    depth = max(1, BLOCK_DEPTH // functions) * functions
    return depth * (BLOCK_WIDTH + rows + TILE_ROWS) + (functions + 1) * rows


def _backward_floats(operands: Operands, needs: Needs) -> tuple[int, int]:
    """What all threads take, and one: `Cotangent::floats` and `BackwardBlocks::floats`."""
    rows, functions, outputs = operands.x.shape[0], _functions(operands), operands.weight.shape[2]
    high, wide = (_rounded_up(size, TILE_OUTPUTS) for size in (rows, outputs))
    own = (_rounded_up(functions, TILE_ROWS) + 2 * functions + 1) * rows + functions * high
    return wide * rows + (high * outputs if needs.x else 0), own


def _functions(operands: Operands) -> int:
    return operands.weight.shape[0] + (operands.base_weight is not None)


def _rounded_up(size: int, step: int) -> int:
    return -(-size // step) * step


def compiled(operands: Operands, basis: Basis) -> Compiled | None:
    """What is compiled for these operands, or None."""
    for tensor in operands.flat:
        # Neither a subclass nor a fake tensor has the memory that it seems to have.
        if tensor is not None and not (
            tensor.dtype == torch.float32
            and tensor.is_cpu
            and type(tensor) in (Tensor, nn.Parameter)
        ):
            return None
    found = _compiled(basis)
    return None if isinstance(found, str) else found


def obstacle(basis: Basis) -> str | None:
    """Why nothing is compiled for this basis; None where it is."""
    found = _compiled(basis)
    return found if isinstance(found, str) else None


@lru_cache(maxsize=1024)
def _compiled(basis: Basis) -> Compiled | str:
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE} is 0"
    if basis.obstacle is not None:
        return basis.obstacle
    with _lock:
        try:
            own = CompiledBasis.load(basis)
        except HostCompileError as error:
            return str(error)
        found = Compiled(own, CompiledBasis(SiluBasis(), own.library, "evaluate_silu"))
        return _fault(found) or found


def _fault(form: Compiled) -> str | None:
    """What the known-answer test of a library finds: both ways, with few rows and with more,
    against the product form in float64."""
    basis = form.basis.definition
    functions = Functions(basis, has_base=True, has_scale=True)
    bound = error_bound(Element.FLOAT, Precision.ACCURATE)
    # Sums of at most some 2000 terms, which are as exact as the bound; longer ones round more.
    inputs = max(3, min(37, 2048 // functions.count))
    for rows in (5, 70):
        sizes = (rows, inputs, 45)  # several vectors of outputs, and a rest
        layer = Layer(functions, *sizes, Element.FLOAT, Precision.ACCURATE, Device(0, 0))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            operands, grad_y = trial.values(layer)
            wide = Operands.of([None if t is None else t.double() for t in operands.flat])
            expected = _passes(terms_of(wide, basis), wide, grad_y.double())
            found = [_passes(form.terms(operands), operands, grad_y)]
            ways = [(form.forward_in_blocks, form.backward_in_blocks)]
            if rows <= 5:
                ways.append((form.forward, form.backward))
            found += [_compiled_passes(*way, operands, grad_y) for way in ways]
        for results in found:
            error = max(map(trial.error_of, results, expected))
            if not error <= bound:
                return (
                    f"{basis.cuda} compiled by {host_compiler.find()} failed its known-answer "
                    f"test: it is off by {error:.1e}, and {bound:.1e} is allowed; set {VARIABLE}=0 "
                    "or another compiler in CXX, and please report it"
                )
    return None


def _passes(terms: list[Term], operands: Operands, grad_y: Tensor) -> list[Tensor]:
    """y, and the gradients of x, weight, scale and base_weight."""
    needs = [(True, True, False), (True, False, False)]
    y = product.forward(operands.x, terms, operands.bias)
    grad_x, (own, base) = product.backward(grad_y, operands.x, terms, True, needs)
    found = (y, grad_x, own.weight, own.scale, base.weight)
    return [tensor for tensor in found if tensor is not None]


def _compiled_passes(
    forward: Callable[[Operands], Tensor],
    backward: Callable[[Tensor, Operands, Needs], list[Tensor | None]],
    operands: Operands,
    grad_y: Tensor,
) -> list[Tensor]:
    """The same by passes of the library."""
    needs = Needs(True, True, True, True, False, [False] * len(operands.params))
    grad_x, weight, scale, base, *_ = backward(grad_y, operands, needs)
    found = (forward(operands), grad_x, weight, scale, base)
    return [
        tensor.view(1, *tensor.shape) if tensor is base else tensor
        for tensor in found
        if tensor is not None
    ]
