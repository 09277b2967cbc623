"""The product form compiled for this CPU: which products take it, and its proof.

A library holds what the matrix products leave to do, see csrc/cpu.cpp, for one basis. The system's
C++ compiler makes it at the first product of that basis; it passes a known-answer test, and takes
float32 in the memory of the CPU. Where it cannot be had, torch's operators make the product form,
with the same results but for rounding: `obstacle` says why.

Where that is faster, a pass is the library's alone, see `kan_impls.fused.ways`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import get_args

import torch
from torch import Tensor, nn

from kan_impls.basis.base import Basis
from kan_impls.basis.silu import SiluBasis
from kan_impls.fused import cells, host_compiler, product, trial, ways, workspace
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
from kan_impls.fused.ways import Direction, Plan, Sizes, Way, plan_of

VARIABLE = "KAN_IMPLS_CPU"

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

    def plan(self, operands: Operands, needs: Needs | None = None) -> Plan | None:
        """How a pass is taken without torch's products where that is faster: the forward one, or
        the backward one that makes what `needs` says."""
        x = operands.x
        if x.shape[0] == 0:
            return None
        if needs is not None and (any(needs.params) or not any(needs[:4])):
            return None
        if not all(tensor is None or tensor.is_contiguous() for tensor in operands.flat):
            return None
        sizes, threads = self.sizes(operands), torch.get_num_threads()
        most_bytes, cache_bytes = cells.WORKSPACE_BYTES, workspace.last_cache_bytes()
        return ways.plan(sizes, _direction(needs), threads, most_bytes, cache_bytes)

    def sizes(self, operands: Operands) -> Sizes:
        """What decides the way."""
        rows, (functions, inputs, outputs) = operands.x.shape[0], operands.weight.shape
        has_scale, has_base = operands.scale is not None, operands.base_weight is not None
        num_active, vector = self.basis.num_active, self.basis.vector
        return Sizes(rows, functions, inputs, outputs, num_active, has_scale, has_base, vector)

    def forward(self, operands: Operands, plan: Plan) -> Tensor:
        """`product.forward`."""
        y = operands.weight.new_empty(operands.x.shape[0], operands.weight.shape[2])
        self._run("forward", plan, operands, None, y)
        return y

    def backward(
        self, grad_y: Tensor, operands: Operands, needs: Needs, plan: Plan
    ) -> list[Tensor | None]:
        """The gradients, in their places; none of the basis's parameters."""
        grads = [
            torch.empty_like(value) if needed and value is not None else None
            for value, needed in zip(operands[:4], needs[:4], strict=True)
        ]
        self._run("backward", plan, operands, grad_y.contiguous(), None, grads)
        bias = grad_y.sum(0) if needs.bias else None
        return [*grads, bias, *[None] * len(operands.params)]

    def _run(
        self,
        which: str,
        plan: Plan,
        operands: Operands,
        grad_y: Tensor | None,
        y: Tensor | None,
        grads: Sequence[Tensor | None] = (None,) * 4,
    ) -> None:
        params, memory = operands.params, operands.weight.new_empty(plan.floats)
        addresses = addresses_of(operands[:5], params, (grad_y, y, memory), grads)
        sizes = (*operands.x.shape, operands.weight.shape[2], plan.threads)
        run = getattr(self.basis.library, f"{which}_{plan.way}")
        run(self.basis.problem(addresses, params, *sizes))


def _direction(needs: Needs | None) -> Direction:
    if needs is None:
        return "forward"
    return "backward with x" if needs.x else "backward"


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
    are_trained = bool(basis.trained)
    bound = error_bound(Element.FLOAT, Precision.ACCURATE)
    # Sums of at most some 2000 terms, which are as exact as the bound; longer ones round more.
    inputs = max(3, min(37, 2048 // functions.count))
    for rows, outputs in ((5, 45), (130, 290)):
        sizes = (rows, inputs, outputs)  # several vectors and blocks, and a rest
        layer = Layer(functions, *sizes, Element.FLOAT, Precision.ACCURATE, Device(0, 0))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            operands, grad_y = trial.values(layer)
            wide = Operands.of([None if t is None else t.double() for t in operands.flat])
            expected = _passes(terms_of(wide, basis), wide, grad_y.double(), are_trained)
            found = [_passes(form.terms(operands), operands, grad_y, are_trained)]
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


def _passes(
    terms: list[Term], operands: Operands, grad_y: Tensor, are_trained: bool
) -> list[Tensor]:
    """y, and the gradients of x, weight, scale and base_weight; of parameters that are trained
    with that of x, and without it, as a first layer has it, and from the weights' gradients."""
    needs = [(True, True, are_trained), (True, False, False)]
    y = product.forward(operands.x, terms, operands.bias)
    grad_x, (own, base) = product.backward(grad_y, operands.x, terms, True, needs)
    found = [y, grad_x, own.weight, own.scale, base.weight, *own.params]
    if are_trained:
        _, (first, _) = product.backward(grad_y, operands.x, terms, False, needs)
        found += first.params
    if terms[0].basis.spans_param_grads:
        plain = replace(terms[0], scale=None)
        _, (own,) = product.backward(grad_y, operands.x, [plain], False, [(True, False, True)])
        found += own.params
    return [tensor for tensor in found if tensor is not None]


def _compiled_passes(
    form: Compiled, way: Way, operands: Operands, grad_y: Tensor
) -> list[list[Tensor]]:
    """The same by passes of the library, but for parameters: all gradients at once, and that of x
    apart."""
    sizes, threads = form.sizes(operands), torch.get_num_threads()
    y, found = form.forward(operands, plan_of(way, sizes, "forward", threads)), []
    for asked in ([(True, True)], [(True, False), (False, True)]):
        grads: list[Tensor | None] = [None] * 4
        for of_x, of_weights in asked:
            params = [False] * len(operands.params)
            needs = Needs(of_x, of_weights, of_weights, of_weights, False, params)
            plan = plan_of(way, sizes, _direction(needs), threads)
            made = form.backward(grad_y, operands, needs, plan)
            grads = [own if new is None else new for own, new in zip(grads, made, strict=False)]
        grads[3] = None if grads[3] is None else grads[3].unsqueeze(0)
        found.append([tensor for tensor in (y, *grads) if tensor is not None])
    return found
