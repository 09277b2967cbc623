"""Whether a kernel has shown on this device that it computes what it should.

Before a kernel is used on a device, it passes its known-answer test, see `trial`. The verdict is
kept on disk for this GPU model, driver, compiler and source, so that a test runs once for each of
them. A kernel that fails is refused there: `backend="auto"` takes the product form and says so
once, and `backend="fused"` raises. Another source, driver or compiler is tested anew.

No test runs while a CUDA graph is captured or torch.compile traces, because it copies and waits:
there only kernels run that this process has proved or found proved before.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources

import torch

from kan_impls.fused import compiler, decisions, jit, requirements, trial
from kan_impls.fused.compiler import CompileError, KernelUnavailable
from kan_impls.fused.kernels import Plan
from kan_impls.fused.problem import error_bound

_KIND = "proofs"


class KernelRefused(KernelUnavailable):
    """A kernel has failed its known-answer test on this device; the message has the figures."""


@dataclass(frozen=True)
class Verdict:
    """What the test of a kernel has shown.

    Args:
        error: the largest relative error of its outputs; None where one was not a number.
        bound: what it may be.
        fault: what is wrong, empty if the kernel has passed.
    """

    error: float | None
    bound: float
    fault: str

    @classmethod
    def of(cls, decision: Mapping[str, object] | None) -> Verdict | None:
        """The verdict that was stored; None where something else was."""
        if decision is None or decision.keys() != {"error", "bound", "fault"}:
            return None
        error, bound, fault = (decision[name] for name in ("error", "bound", "fault"))
        if not isinstance(bound, float) or not isinstance(fault, str):
            return None
        if error is not None and not isinstance(error, float):
            return None
        is_within = error is not None and error <= bound
        return cls(error, bound, fault) if fault or is_within else None

    def __str__(self) -> str:
        error = "no number" if self.error is None else f"error {self.error:.1e}"
        figures = f"{error}, bound {self.bound:.1e}"
        return f"REFUSED, {self.fault} ({figures})" if self.fault else f"proven, {figures}"


_Subject = tuple[str, str, torch.device]  # kernel, basis with its options, device


@dataclass
class Known:
    """What this process knows: the kernels that it may launch, why not others, and what it has
    told the user."""

    proven: set[_Subject] = field(default_factory=set)
    unusable: dict[_Subject, Exception] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)


known = Known()
_lock = threading.RLock()


def require(which: str, plan: Plan, device: torch.device, **options: int) -> None:
    """Return if the kernels of a plan of `kernels.<which>(layer, **options)` are proven.

    Raises:
        KernelRefused: the kernel has failed its test.
        KernelUnavailable: it cannot be compiled, loaded or launched here, or it cannot be tested
            now; CompileError likewise.
        torch.OutOfMemoryError, RuntimeError: CUDA failed; that decides nothing.
    """
    subject = (plan.launches[0].kernel, plan.layer.functions.basis.text, device)
    if subject in known.proven:
        return
    with _lock:  # one test at a time
        if subject in known.unusable:
            raise _anew(known.unusable[subject])
        if subject in known.proven:
            return
        _check_now(subject[0])
        try:
            _prove(which, plan, device, options)
        except (KernelUnavailable, CompileError) as error:
            known.unusable[subject] = _anew(error)
            raise
        known.proven.add(subject)


def _anew(error: Exception) -> Exception:
    """The same error without a traceback, which would keep the tensors of its frames alive."""
    return type(error)(*error.args)


def _check_now(kernel: str) -> None:
    """Whether a test may run: it copies and waits, which would break a capture."""
    if torch.cuda.is_current_stream_capturing() or torch.compiler.is_compiling():
        raise KernelUnavailable(
            f"{kernel} is not proven on this device yet, and its known-answer test would break "
            f"the CUDA graph that is being captured: run the layer once before the capture, "
            f"forward and backward"
        )


def _prove(which: str, plan: Plan, device: torch.device, options: Mapping[str, int]) -> None:
    environment, subject = environment_of(device), _subject_of(plan)
    bound = error_bound(plan.layer.element, plan.layer.precision)
    verdict = Verdict.of(decisions.read(_KIND, environment, subject))
    if verdict is None or verdict.bound != bound:
        verdict = _tested(which, plan, device, options, bound, environment)
        decisions.write(_KIND, environment, subject, asdict(verdict))
    elif not verdict.fault:  # a kernel that is proven is loaded, as a capture needs it
        jit.warmup(trial.kernels_of(which, plan), device)
    if verdict.fault:
        raise KernelRefused(_refusal(plan, environment, verdict))


def _tested(
    which: str,
    plan: Plan,
    device: torch.device,
    options: Mapping[str, int],
    bound: float,
    environment: Mapping[str, str],
) -> Verdict:
    try:
        outcome = trial.run(which, plan, device, **options)
    except trial.Crashed as crash:
        # The device is lost to this process. Without a verdict, the next one would lose it again.
        first_line = str(crash).partition("\n")[0]
        verdict = Verdict(None, bound, f"its test ended with: {first_line}")
        decisions.write(_KIND, environment, _subject_of(plan), asdict(verdict))
        raise crash.error from None
    error = outcome.error if math.isfinite(outcome.error) else None
    return Verdict(error, bound, outcome.fault)


def _subject_of(plan: Plan) -> str:
    """A kernel and the basis with its options, which the kernel's name does not hold."""
    basis = plan.layer.functions.basis
    return f"{plan.launches[0].kernel} of {basis.text}{version_of(type(basis))}"


@lru_cache(maxsize=256)
def version_of(basis: type) -> str:
    """Of the source of a basis that `source_digest` does not hold, as a variant's own."""
    if basis.__module__.startswith("kan_impls.basis."):
        return ""
    try:
        source = inspect.getsource(inspect.getmodule(basis) or basis)
    except (OSError, TypeError):  # defined where there is no file
        return ""
    return f" as of {hashlib.sha256(source.encode()).hexdigest()[:12]}"


def _refusal(plan: Plan, environment: Mapping[str, str], verdict: Verdict) -> str:
    return (
        f"{_subject_of(plan)} failed its known-answer test on {environment['gpu']}: "
        f"{verdict.fault}, and a relative error of {verdict.bound:.1e} is allowed; it stays "
        f"refused until its source, the driver or NVRTC changes. Please report it: an issue of "
        f"kan-impls with this line and the output of 'python -m kan_impls.fused doctor'"
    )


def environment_of(device: torch.device) -> dict[str, str]:
    """Where a verdict holds; without a compiler or its driver, that no kernel does."""
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "gpu": f"{torch.cuda.get_device_name(device)}, sm_{major}{minor}",
        "driver": _or_none(requirements.driver_release),
        "nvrtc": _or_none(compiler.nvrtc_build),
        "source": source_digest(),
    }


def _or_none(version: Callable[[], str]) -> str:
    try:
        return version()
    except (KernelUnavailable, CompileError, ImportError, RuntimeError):
        return "none"


def source_digest() -> str:
    """Of the kernels, of what plans and launches them, and of the definitions of the bases."""
    texts = [*compiler.sources().items(), *_python_sources()]
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _python_sources() -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"{package}/{file.name}", file.read_text("utf-8"))
        for package in ("kan_impls.fused", "kan_impls.basis")
        for file in sorted(resources.files(package).iterdir(), key=lambda file: file.name)
        if file.name.endswith(".py")
    )


def verdicts(device: torch.device) -> Iterator[tuple[str, Verdict]]:
    """What is stored of this device's kernels: kernel with its basis, and verdict."""
    for subject, decision in decisions.stored(_KIND, environment_of(device)):
        verdict = Verdict.of(decision)
        if verdict is not None:
            yield subject, verdict
