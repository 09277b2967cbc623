"""The known-answer test of a kernel: some odd shapes, compared with the product form in float64.

All tensors of a test lie in one memory, with guard words around each. A test passes if every
output is within the documented error of its precision, and nothing beside the outputs was
written. Outputs start as NaN, which shows what was not written.

The shapes fill no tile, and give every pipeline more stages than it holds. One is aligned for
access by vectors and one is not, has no bias, and its inputs share parameters of the basis. The
forward pass runs with one sum over K and with several, the gradient of the weights also with more
rows than one of its sums takes, that of the basis's parameters with more than its blocks take at
once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kan_impls.fused import cuda_errors, jit, kernels, product
from kan_impls.fused.guarded_memory import GuardedMemory, Key
from kan_impls.fused.kernels import Element, Layer, Plan
from kan_impls.fused.operands import Operands, terms_of
from kan_impls.fused.problem import ceil_div, error_bound
from kan_impls.fused.term import Term

DTYPES = {Element.FLOAT: torch.float32, Element.BFLOAT16: torch.bfloat16}

# Tried in this order until one has the kernel, whose tile follows the rows: none fills a tile.
ROWS = range(351, 0, -10)

# An element may be off by so many times what all may be on average: roundings stay below 8.
_WORST = 16

# What says nothing of the kernel as it runs.
_OTHER_ERRORS = (
    jit.KernelUnavailable,
    jit.CompileError,
    torch.OutOfMemoryError,
    cuda_errors.TransientError,
)


class Crashed(Exception):  # noqa: N818  (it carries the error)
    """The device failed while the kernels ran, with this error of CUDA."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Outcome:
    """The largest relative error of all outputs, `inf` where one is not a number; and the fault
    in words, empty for a kernel that has passed."""

    error: float
    fault: str


@dataclass(frozen=True)
class _Trial:
    """One shape: what goes in, what is to come out, and one or more plans that make it."""

    plans: list[Plan]
    tensors: Mapping[str, Tensor]
    operands: Operands
    expected: Mapping[str, Tensor]


def run(which: str, plan: Plan, device: torch.device, **options: int) -> Outcome:
    """Run the kernel of a plan of `kernels.<which>(layer, **options)` on its trials.

    Raises:
        KernelUnavailable, CompileError: the kernel cannot be compiled, loaded or launched.
        Crashed: the device failed while it ran.
        RuntimeError: CUDA failed otherwise.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        found = plans_of(which, plan, **options)
        trials = [_trial(which, plans, number == 1) for number, plans in enumerate(found)]
        jit.warmup(kernels_of(which, plan), device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # what fails on other streams shows here
        memory = _memory(trials, device)
        try:
            _launch(which, trials, memory, device)
            memory.read_back()
        except _OTHER_ERRORS:
            raise
        except RuntimeError as error:  # launches are asynchronous: the fault of any before
            raise Crashed(error) from error
        return _judge(trials, memory, error_bound(plan.layer.element, plan.layer.precision))


def _launch(
    which: str, trials: Sequence[_Trial], memory: GuardedMemory, device: torch.device
) -> None:
    for i, trial in enumerate(trials):
        sets = [param.shape[0] for param in trial.operands.params]
        for j, part in enumerate(trial.plans):
            addresses = {
                name: memory.address((i, j if _is_output(name) else -1, name))
                for name in part.tensors
            }
            if "bias" in trial.tensors and which == "forward":
                addresses["bias"] = memory.address((i, -1, "bias"))
            for launch in part.at(addresses, sets):
                jit.launch(launch, device)


def plans_of(which: str, plan: Plan, **options: int) -> list[list[Plan]]:
    """The plans of each trial of a kernel; those of one trial compute the same.

    Raises:
        KernelUnavailable: no shape that is tried has the kernel.
    """
    planner, kernel = getattr(kernels, which), plan.launches[0].kernel

    def planned(layer: Layer, sms: int = 1, **more: int) -> Plan:
        layer = replace(layer, device=replace(layer.device, sms=sms))
        found: Plan = planner(layer, **options, **more)
        return found

    def has_kernel(layer: Layer) -> bool:
        return planned(layer).launches[0].kernel == kernel

    found = []
    for outputs in _outputs(which):
        size = replace(plan.layer, inputs=_inputs(plan.layer), outputs=outputs)
        shapes = [replace(size, rows=rows) for rows in (*ROWS, plan.layer.rows)]
        fitting = next(filter(has_kernel, shapes), None)
        if fitting is None:
            raise jit.KernelUnavailable(
                f"{kernel} has no known-answer test, because no shape of {ROWS[-1]} to {ROWS[0]} "
                f"rows takes it: add a number of rows that does to kan_impls.fused.trial.ROWS"
            )
        # With many multiprocessors, the sum over K is split for them.
        found.append([planned(fitting), *([planned(fitting, 1024)] if which == "forward" else ())])
    if which == "basis_slopes":
        found[1] = [kernels.basis_slopes(found[1][0].layer, is_shared=True)]
    if which == "weight_grad":
        rows = kernels.WEIGHT_GRAD_ROWS * kernels.WEIGHT_GRAD_TILES_PER_PART + 37
        found.append([planned(replace(found[0][0].layer, rows=rows, inputs=5))])
    if which == "param_grad":
        found.append([planned(found[0][0].layer, most_blocks=2)])
    return found


def kernels_of(which: str, plan: Plan) -> list[str]:
    """The kernels whose use the trials of a plan's kernel prove."""
    names = {launch.kernel: None for launch in plan.launches}
    if which == "forward":
        names[f"reduce<{plan.layer.element.value}>"] = None
    return [*names]


def _inputs(layer: Layer) -> int:
    """Odd, and so many that two sums over K have more stages each than the pipeline."""
    chunks = layer.functions.num_chunks(kernels.MAX_PAIRS)
    groups = ceil_div(2 * (kernels.FORWARD_STAGES + 1), chunks)
    return kernels.FORWARD_INPUTS * max(2, groups) - 3


def _outputs(which: str) -> tuple[int, int]:
    """One number that vectors divide, and one that they do not."""
    if which.startswith("basis_"):
        return 1, 1  # which these kernels do not know
    tile = {
        "forward": kernels.FORWARD_COLUMNS,
        "weight_grad": kernels.WEIGHT_GRAD_COLUMNS,
    }.get(which, kernels.INPUT_GRAD_OUTPUTS * (kernels.INPUT_GRAD_STAGES + 1))
    return tile + 8, tile + 3


def _trial(which: str, plans: list[Plan], is_bare: bool = False) -> _Trial:
    operands, grad_y = values(plans[0].layer, is_bare)
    wide = Operands.of([None if t is None else t.double() for t in operands.flat])
    basis = plans[0].layer.functions.basis
    terms = terms_of(wide, basis)  # type: ignore[arg-type]
    if which.startswith("basis_"):
        return _elementwise(which, plans, operands, terms[0])
    if which == "forward":
        expected = {"y": product.forward(wide.x, terms, wide.bias)}
    else:
        needs = [(True, wide.scale is not None, bool(basis.trained)), (True, False, False)]
        grad_x, (own, *base) = product.backward(
            grad_y.double(), wide.x, terms, which == "input_grad", needs[: len(terms)]
        )
        named = {"x": grad_x, "weight": own.weight, "scale": own.scale}
        named["base_weight"] = base[0].weight if base else None
        named["params"] = torch.cat(list(own.params), 1) if own.params else None
        expected = {f"grad_{name}": grad for name, grad in named.items() if grad is not None}
    return _Trial(plans, {**operands.named(), "grad_y": grad_y}, operands, expected)


def _elementwise(which: str, plans: list[Plan], operands: Operands, term: Term) -> _Trial:
    """Of a kernel that evaluates a basis, by its definition: x and all results are in columns."""
    x = operands.x.double().requires_grad_()
    with torch.enable_grad():
        values = term.basis.value(x, *term.params).permute(2, 1, 0)
    generator = torch.Generator().manual_seed(2)
    is_shared = which == "basis_slopes" and plans[0].splits == 1
    shape = (*values.shape[:2], 1 if is_shared else values.shape[2])
    grad = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    tensors = {**operands.named(), "x": operands.x.t().contiguous(), "grad_y": grad}
    if which == "basis_values":
        return _Trial(plans, tensors, operands, {"y": values.detach()})
    (grad_x,) = torch.autograd.grad(values, x, grad.double().expand_as(values))
    return _Trial(plans, tensors, operands, {"grad_x": grad_x.t() + 1})


def values(layer: Layer, is_bare: bool = False) -> tuple[Operands, Tensor]:
    """Operands and a cotangent, always the same ones; x spreads over the basis's domain.

    Args:
        is_bare: leave out the bias, and let neighbouring inputs share parameters of the basis.
    """
    functions, dtype = layer.functions, DTYPES[layer.element]
    generator = torch.Generator().manual_seed(1)
    rows, inputs, outputs = layer.rows, layer.inputs, layer.outputs

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    low, high = functions.basis.domain
    x = torch.rand(rows, inputs, generator=generator, dtype=torch.float64, device="cpu")
    count = functions.basis.num_basis
    spread = 1 / math.sqrt(inputs * count)
    weight = normal(count, inputs, outputs).mul_(spread)
    scale = normal(inputs, outputs).mul_(0.3).add_(1) if functions.has_scale else None
    base = normal(inputs, outputs).mul_(spread) if functions.has_base else None
    weights = [weight, scale, base, None if is_bare else normal(outputs)]
    sets = max(n for n in range(1, inputs) if inputs % n == 0) if is_bare else inputs
    basis = functions.basis
    params = basis.tested_params([normal(sets, size) for size in basis.param_sizes])
    narrow = [None if t is None else t.to(dtype) for t in weights]
    operands = Operands.of([(low + (high - low) * x).float(), *narrow, *params])
    return operands, normal(rows, outputs).to(dtype)


def _is_output(name: str) -> bool:
    return name in ("y", "workspace") or (name.startswith("grad_") and name != "grad_y")


def _memory(trials: list[_Trial], device: torch.device) -> GuardedMemory:
    """The tensors of all trials: what is read, and for each plan what it writes, as NaN.

    The keys are (trial, plan, name), the plan -1 for what all of a trial read.
    """
    read, written = dict[Key, Tensor](), dict[Key, Tensor]()
    for i, trial in enumerate(trials):
        read |= {(i, -1, name): tensor for name, tensor in trial.tensors.items()}
        for j, plan in enumerate(trial.plans):
            for name in filter(_is_output, plan.tensors):
                # What the slopes make is added to what is there.
                start = 1 if plan.launches[0].kernel.startswith("basis_slopes") else torch.nan
                written[i, j, name] = _output(name, plan, trial).fill_(start)
    return GuardedMemory({**read, **written}, written, device)


def _output(name: str, plan: Plan, trial: _Trial) -> Tensor:
    if name == "y":
        return torch.empty(trial.expected["y"].shape, dtype=trial.tensors["grad_y"].dtype)
    if name in ("workspace", "grad_params"):
        return torch.empty(plan.workspace_bytes // 4, dtype=torch.float32, device="cpu")
    return torch.empty_like(trial.tensors[name.removeprefix("grad_")])


def _judge(trials: list[_Trial], memory: GuardedMemory, bound: float) -> Outcome:
    errors: dict[str, float] = {}
    for i, trial in enumerate(trials):
        for j, plan in enumerate(trial.plans):
            for name in set(plan.tensors) & set(trial.expected):
                actual, wanted = memory.read((i, j, name)), trial.expected[name]
                if name == "grad_params":
                    actual = actual.view(-1, *wanted.shape).sum(0)
                errors[name] = max(errors.get(name, 0.0), error_of(actual, wanted))
    faults = [
        f"{name} is off by {error:.1e}" for name, error in sorted(errors.items()) if error > bound
    ]
    if memory.overwritten():
        faults.insert(0, "memory beside the outputs was written")
    return Outcome(max(errors.values()), "; ".join(faults))


def error_of(actual: Tensor, expected: Tensor) -> float:
    """Relative error in the norm, or of the worst element where that is more than `_WORST` times
    larger; `inf` where a value is not a number, or where all are to be 0 and one is not. What
    float32 cannot hold counts as 0."""
    difference, norm = (actual - expected).abs(), float(expected.norm())
    least = torch.finfo(torch.float32).tiny * math.sqrt(expected.numel())
    if norm <= least:
        return 0.0 if float(difference.norm()) <= least else math.inf
    worst = float(difference.max()) * math.sqrt(expected.numel()) / _WORST
    error = max(float(difference.norm()), worst) / norm
    return error if math.isfinite(error) else math.inf
