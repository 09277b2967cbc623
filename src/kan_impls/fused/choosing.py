"""The forms that a pass may take on a GPU, and the fastest of them on its shape.

A choice is one of a pass, of the gradients that are needed, of a basis, dtypes and sizes, the
rows rounded up to a power of two: the first batch of such a bucket is measured. The product
form is always a candidate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from kan_impls.basis.base import Basis
from kan_impls.fused import cells, cuda, formula, kernels, proof, tuning, workspace
from kan_impls.fused.compiler import CompileError, KernelUnavailable
from kan_impls.fused.evaluated import EvaluatedBasis
from kan_impls.fused.forms import Form, Formula, Kernels, Product
from kan_impls.fused.operands import Needs, Operands, terms_of
from kan_impls.fused.term import Term
from kan_impls.fused.transforms import is_fake


class Candidates(NamedTuple):
    """What there is to choose from.

    Args:
        suggested: what is taken where nothing is measured.
        has_kernels: whether the fused kernels are candidates.
        has_evaluated: whether kernels may evaluate the basis for the product form.
    """

    suggested: Form
    has_kernels: bool
    has_evaluated: bool


# The forms that this process has chosen, by all that decides them.
known: dict[tuple[Any, ...], Form] = {}
_lock = threading.RLock()


def is_open(operands: Operands) -> bool:
    """Whether measurements may decide on a product now: they copy and wait, which a capture and a
    trace do not stand, and what they decide need not be the same in the next process."""
    return (
        is_measured(operands.x.device)
        and operands.x.shape[0] > 0
        and not is_fake(operands.flat)
        and not torch.are_deterministic_algorithms_enabled()
        and not torch.cuda.is_current_stream_capturing()
        and not torch.compiler.is_compiling()
    )


def is_measured(device: torch.device) -> bool:
    """Whether forms are chosen by measurement on a device."""
    return device.type == "cuda"


def chosen(
    which: str,
    operands: Operands,
    basis: Basis,
    needs: Needs | None,
    find: Callable[[], Candidates],
    run: Callable[[Form], object],
    give_up: Callable[[Exception], None],
) -> Form:
    """The form to take.

    Args:
        which: the pass, `forward` or `backward`.
        needs: of a backward pass.
        find: what there is to choose from; it is asked when a shape is first met.
        run: computes the pass in a form.
        give_up: as of `tuning.choose`.
    """
    key = _key(which, operands, basis, needs)
    if key in known:
        return known[key]
    with _lock:  # one measurement at a time
        if key not in known:
            device, candidates = operands.x.device, find()
            named = {str(form): form for form in _forms(operands, basis, needs, candidates)}
            subject = _subject(which, operands, basis, needs)
            found = tuning.choose(
                subject, device, list(named), lambda name: run(named[name]), give_up
            )
            known[key] = candidates.suggested if found is None else named[found]
            if known[key] != candidates.suggested:
                _load(run, candidates.suggested, give_up)
        return known[key]


def _load(
    run: Callable[[Form], object], suggested: Form, give_up: Callable[[Exception], None]
) -> None:
    """Prove and load what a capture takes, where nothing can be measured or tested."""
    if isinstance(suggested, Product) and not suggested.is_evaluated:
        return
    try:
        run(suggested)
    except (KernelUnavailable, CompileError) as error:
        give_up(error)
    except torch.OutOfMemoryError:  # a capture will say so
        pass


def bucket(rows: int) -> int:
    """The power of two up to which a number of rows shares its choice."""
    return 1 << (rows - 1).bit_length()


def _key(which: str, operands: Operands, basis: Basis, needs: Needs | None) -> tuple[Any, ...]:
    """All that decides the choice, at little cost for each call."""
    x, weight = operands.x, operands.weight
    return (
        *(which, basis, bucket(x.shape[0]), x.shape[1], weight.shape[2], weight.device),
        *(None if t is None else t.dtype for t in operands.flat),
        *(needs if needs is None else needs.flat, torch.backends.cuda.matmul.fp32_precision),
    )


def _subject(which: str, operands: Operands, basis: Basis, needs: Needs | None) -> str:
    """The same in words, by which it is stored."""
    x, weight = operands.x, operands.weight
    name = cuda.functions_of(operands, basis).name if basis.obstacle is None else basis.text
    dtypes = ["" if t is None else str(t.dtype).removeprefix("torch.") for t in operands.flat]
    words = [
        f"{which} of {name}, {basis.text}{proof.version_of(type(basis))}",
        shape_in_words(x.shape[0], x.shape[1], weight.shape[2]),
        ", ".join(f"{own} {name}" for name, own in zip(operands.names, dtypes, strict=True) if own),
        f"float32 products {torch.backends.cuda.matmul.fp32_precision}",
    ]
    if needs is not None:
        pairs = zip(operands.names, needs.flat, strict=True)
        words.append("gradients of " + " ".join(name for name, needed in pairs if needed))
    return "; ".join(words)


def shape_in_words(rows: int, inputs: int, outputs: int) -> str:
    """The part of a subject that names the bucket and the sizes."""
    return f"up to {bucket(rows)} rows of {inputs} inputs, {outputs} outputs"


def _forms(
    operands: Operands, basis: Basis, needs: Needs | None, candidates: Candidates
) -> list[Form]:
    """In the order that decides between equals: the kind that is suggested first."""
    fused = _kernels(operands, basis, needs) if candidates.has_kernels else []
    ways = (True, False) if candidates.has_evaluated else (False,)
    products = [form for way in ways for form in _products(operands, basis, needs, way)]
    is_fused = isinstance(candidates.suggested, Kernels)
    found = [*fused, *products] if is_fused else [*products, *fused]
    if formula.estimated_bytes(operands, basis) <= cells.workspace_of(operands.x.device).most:
        found.append(Formula())
    return found


def _kernels(operands: Operands, basis: Basis, needs: Needs | None) -> list[Form]:
    """Every tile and split plan; the suggested one first."""
    layer = cuda.layer_of(operands, cuda.functions_of(operands, basis))
    if needs is None:
        return [Kernels(tiling) for tiling in kernels.forward_tilings(layer)]
    if not needs.x and not any(needs.params):
        return [Kernels()]
    return [Kernels(tiling) for tiling in kernels.backward_tilings(layer)]


def _products(
    operands: Operands, basis: Basis, needs: Needs | None, is_evaluated: bool
) -> list[Form]:
    """The product form with several workspaces, as far as they cut differently."""
    wanted = cells.Pass(y=True)
    if needs is not None:
        values = needs.x or any(needs.params)
        wanted = cells.Pass(grad_values=values, grad_weights=needs.weight or needs.scale)
    found: dict[tuple[cells.Cells, ...], Form] = {}
    for size in workspaces(operands.x.device):
        form = Product(size, is_evaluated)
        terms = terms_in(form, operands, basis)
        found.setdefault(tuple(cells.cells_of(operands.x, terms, wanted, size)), form)
    return list(found.values())


def terms_in(form: Product, operands: Operands, basis: Basis) -> list[Term]:
    """The sums of a product, with bases that kernels evaluate if the form says so."""
    terms = terms_of(operands, basis)
    if form.is_evaluated:
        return [replace(term, basis=EvaluatedBasis(term.basis)) for term in terms]
    return terms


def workspaces(device: torch.device) -> list[workspace.Workspace]:
    """Those that are measured on a device, the suggested one first."""
    index = torch.cuda.current_device() if device.index is None else device.index
    return workspace.candidates(index)
