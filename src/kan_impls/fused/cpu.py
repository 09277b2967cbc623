"""The product form compiled for this CPU: which products take it, and its proof.

A library holds what the matrix products leave to do, see csrc/cpu.cpp, for one basis. The system's
C++ compiler makes it at the first product of that basis; it passes a known-answer test, and takes
float32 in the memory of the CPU. Where it cannot be had, torch's operators make the product form,
with the same results but for rounding: `obstacle` says why.

Where that is faster, a pass is the library's alone, see `Way`: few rows, and small layers, take no
matrix product, but a pass over the rows of weights whose functions are not zero; weights that take
a scale take it in the product; and few outputs take vectors of rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

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
    ceil_div,
    error_bound,
)
from kan_impls.fused.term import Term

VARIABLE = "KAN_IMPLS_CPU"

# Passes of a library: by rows of weights, with a matrix product of its own, and by vectors of rows.
Way = Literal["direct", "blocks", "few_outputs"]

# With more values than this that are not zero, for each input, a product is faster than the forward
# pass over the weights; the backward one is never faster.
FEW_VALUES = 80
# So many products of a layer take less time than the operators around them.
SMALL_WORK = 1 << 21
# Passes over the weights take vectors of outputs: fewer outputs than this take as long.
VECTOR = 16
# So many take about as long as to wake a thread; cpu.cpp has the same.
WORK_OF_THREAD = 1 << 15
# Passes in blocks: rows and outputs that are in registers at once (or fewer), as multiply.h has it;
# functions and outputs in a thread's caches, as blocks.h has it; and functions at most of an input.
TILE_ROWS, TILE_OUTPUTS = 12, 32
BLOCK_DEPTH, BLOCK_WIDTH = 256, 256
MOST_FUNCTIONS = 1024
# With more rows than this the library's product is as fast: a copy of the weights costs it little.
BLOCK_ROWS = 1024
# It takes weights without a scale where they are; with so many rows it is slower all the same.
UNSCALED_ROWS = (128, 512)
# And with more than these where outputs fill but a part of a tile.
ROWS_OF_PART = 128
# Beyond so many floats of grad_y the second-level cache does not hold what all inputs read.
COTANGENT_FLOATS = 1 << 18
# Vectors are of rows where there are no more outputs, and of so many rows, as few_outputs.h has it.
FEW_OUTPUTS, ROWS_AT_ONCE = 8, 512
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

    def way(self, operands: Operands, needs: Needs | None = None) -> Way | None:
        """How a pass is taken without the library's products where that is faster: the forward
        one, or the backward one that makes what `needs` says."""
        if operands.x.shape[0] == 0 or (needs is not None and any(needs.params)):
            return None
        if not all(tensor is None or tensor.is_contiguous() for tensor in operands.flat):
            return None
        threads = _threads(operands)
        # They share the inputs among them.
        if operands.weight.shape[2] <= FEW_OUTPUTS and threads <= operands.x.shape[1]:
            way: Way = "few_outputs"
        elif self._is_direct(operands, needs):
            way = "direct"
        elif _is_faster_in_blocks(operands, needs):
            way = "blocks"
        else:
            return None
        shared, own = _floats(way, operands, needs)
        fits = 4 * (shared + threads * own) <= cells.workspace_of(operands.x.device).most
        return way if fits else None

    def _is_direct(self, operands: Operands, needs: Needs | None) -> bool:
        rows, functions, outputs = operands.x.shape[0], *operands.weight.shape[::2]
        is_small = _work(operands) <= SMALL_WORK
        few = rows * self.basis.num_active <= FEW_VALUES and outputs >= VECTOR and needs is None
        return (few or is_small) and rows * (functions + 1) <= MOST_VALUES

    def forward(self, operands: Operands, way: Way) -> Tensor:
        """`product.forward`."""
        x, weight = operands.x, operands.weight
        y = weight.new_empty(x.shape[0], weight.shape[2])
        shared, own = _floats(way, operands)
        threads = _threads(operands)
        workspace = weight.new_empty(shared + threads * own)
        self._run(f"forward_{way}", operands, threads, (None, y, workspace))
        return y

    def backward(
        self, grad_y: Tensor, operands: Operands, needs: Needs, way: Way
    ) -> list[Tensor | None]:
        """The gradients, in their places; none of the basis's parameters."""
        shared, own = _floats(way, operands, needs)
        threads, grad_y = _threads(operands), grad_y.contiguous()
        workspace = grad_y.new_empty(shared + threads * own)
        grads = [
            torch.empty_like(value) if needed and value is not None else None
            for value, needed in zip(operands[:4], needs[:4], strict=True)
        ]
        self._run(f"backward_{way}", operands, threads, (grad_y, None, workspace), grads)
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


def _work(operands: Operands) -> int:
    """How many products a pass over the weights takes the time of."""
    functions, inputs, outputs = operands.weight.shape
    return operands.x.shape[0] * functions * inputs * max(outputs, VECTOR)


def _is_faster_in_blocks(operands: Operands, needs: Needs | None) -> bool:
    """Whether blocks are faster than torch's product, by measurement.

    Without a scale that takes the weights where they are, and writes their gradients there; for few
    outputs its operators are the longer part.
    """
    rows, functions, outputs = operands.x.shape[0], *operands.weight.shape[::2]
    if functions >= MOST_FUNCTIONS:
        return False
    if outputs < TILE_OUTPUTS:
        return rows <= ROWS_OF_PART
    if needs is None:
        fewest, most = UNSCALED_ROWS if operands.scale is None else (0, BLOCK_ROWS)
        return fewest < rows <= most
    shared, _ = _floats("blocks", operands, needs)
    return operands.scale is not None and shared <= COTANGENT_FLOATS


def _floats(way: Way, operands: Operands, needs: Needs | None = None) -> tuple[int, int]:
    """What a pass takes of memory, all threads together and each of them besides: what `floats` is
    in csrc, and in a forward pass a sum for each thread but one."""
    rows, outputs = operands.x.shape[0], operands.weight.shape[2]
    functions = operands.weight.shape[0] + (operands.base_weight is not None)
    shared = own = 0
    if way == "few_outputs":
        own = (2 * functions + outputs + 2) * ROWS_AT_ONCE
    elif way == "direct":
        own = 0 if needs is None else outputs
    elif needs is None:
        depth = max(1, BLOCK_DEPTH // functions) * functions
        own = depth * (BLOCK_WIDTH + rows + TILE_ROWS) + (functions + 1) * rows
    else:
        high, wide = (_rounded_up(size, TILE_OUTPUTS) for size in (rows, outputs))
        shared = wide * rows + (high * outputs if needs.x else 0)
        own = (_rounded_up(functions, TILE_ROWS) + 2 * functions + 1) * rows
        own += functions * (high + 1)
    own, sums = _rounded_up(own, TILE_OUTPUTS), rows * outputs if needs is None else 0
    return shared - sums, own + sums


def _threads(operands: Operands) -> int:
    """How many take part: to wake one takes as long as some work."""
    return max(1, min(torch.get_num_threads(), _work(operands) // WORK_OF_THREAD))


def _rounded_up(size: int, step: int) -> int:
    return ceil_div(size, step) * step


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
    """What the known-answer test of a library finds: every way, with few rows and with more,
    against the product form in float64."""
    basis = form.basis.definition
    functions = Functions(basis, has_base=True, has_scale=True)
    bound = error_bound(Element.FLOAT, Precision.ACCURATE)
    # Sums of at most some 2000 terms, which are as exact as the bound; longer ones round more.
    inputs = max(3, min(37, 2048 // functions.count))
    for rows, outputs in ((5, 45), (70, 290)):
        sizes = (rows, inputs, outputs)  # several vectors and blocks of outputs, and a rest
        layer = Layer(functions, *sizes, Element.FLOAT, Precision.ACCURATE, Device(0, 0))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            operands, grad_y = trial.values(layer)
            wide = Operands.of([None if t is None else t.double() for t in operands.flat])
            expected = _passes(terms_of(wide, basis), wide, grad_y.double())
            found = [_passes(form.terms(operands), operands, grad_y)]
            for way in get_args(Way) if rows <= 5 else ("blocks", "few_outputs"):
                found += _compiled_passes(form, way, operands, grad_y)
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
    form: Compiled, way: Way, operands: Operands, grad_y: Tensor
) -> list[list[Tensor]]:
    """The same by passes of the library: all gradients at once, and that of x apart."""
    y, found = form.forward(operands, way), []
    for asked in ([(True, True)], [(True, False), (False, True)]):
        grads: list[Tensor | None] = [None] * 4
        for of_x, of_weights in asked:
            params = [False] * len(operands.params)
            needs = Needs(of_x, of_weights, of_weights, of_weights, False, params)
            made = form.backward(grad_y, operands, needs, way)
            grads = [own if new is None else new for own, new in zip(grads, made, strict=False)]
        grads[3] = None if grads[3] is None else grads[3].unsqueeze(0)
        found.append([tensor for tensor in (y, *grads) if tensor is not None])
    return found
