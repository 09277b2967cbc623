"""A layer in NumPy arrays, computed by the emulated CUDA kernels and by the float64 oracles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kan_impls.basis.base import Basis
from kan_impls.fused import kernels
from kan_impls.fused.kernels import Device, Element, Functions, Launch, Layer, Plan, Precision
from tests.cases import phi_ref_of
from tests.emulator.build import Emulator
from tests.reference import product_ref

Array = NDArray[np.float64]

GUARD = 4096  # bytes before and after every buffer that must stay as they are
GUARD_BYTE = 0xA5


@dataclass(frozen=True)
class Case:
    """Everything that decides a run."""

    rows: int
    inputs: int
    outputs: int
    basis: Basis
    base: bool = False
    scale: bool = False
    bias: bool = True
    sets: int = 1  # of inputs that share the parameters of the basis
    element: Element = Element.FLOAT
    precision: Precision = Precision.ACCURATE
    sms: int = 2
    shift: int = 0  # elements by which every tensor misses its alignment
    x_range: tuple[float, float] = (-3.0, 3.0)
    only: str = ""  # a pass; all of them if empty

    @property
    def functions(self) -> Functions:
        return Functions(self.basis, self.base, self.scale)

    @property
    def layer(self) -> Layer:
        device = Device(arch=90, sms=self.sms)
        sizes = (self.rows, self.inputs, self.outputs)
        return Layer(self.functions, *sizes, self.element, self.precision, device)

    def plans(self) -> list[Plan]:
        passes = [name for name in kernels.PASSES if self.only in (name, "")]
        sizes = {"param_grad": [self.params_size]}
        if not self.basis.trained:
            passes = [name for name in passes if name not in sizes]
        return [getattr(kernels, name)(self.layer, *sizes.get(name, [])) for name in passes]

    @property
    def params_size(self) -> int:
        return sum(self.basis.param_sizes)

    def kernels(self) -> list[str]:
        return [launch.kernel for plan in self.plans() for launch in plan.launches]

    def __str__(self) -> str:
        words = [f"{self.rows}x{self.inputs}x{self.outputs}", self.functions.name]
        words += [self.element.value, self.precision.value]
        words += [name for name in ("scale", "bias") if getattr(self, name)]
        words += [f"{self.sets} sets"] * (self.sets > 1)
        return " ".join([*words, f"shift {self.shift}"] if self.shift else words)


def params_of(case: Case) -> list[tuple[int, int]]:
    """Shapes of the basis's parameters."""
    return [(case.sets, size) for size in case.basis.param_sizes]


class Buffer:
    """Memory at a chosen alignment between guards; outputs start as NaN, of either type."""

    def __init__(self, shape: tuple[int, ...], element: Element, shift: int = 0) -> None:
        size = int(np.prod(shape)) * element.size
        raw = np.full(size + 2 * GUARD + 16 + shift * element.size, GUARD_BYTE, np.uint8)
        start = (-raw.ctypes.data - GUARD) % 16 + GUARD + shift * element.size
        self._raw, self._inside = raw, slice(start, start + size)
        self._element = element
        self._bits = raw[self._inside].view(np.uint32 if element.size == 4 else np.uint16)
        self._bits = self._bits.reshape(shape)
        self._bits[...] = 0x7FC00000 if element.size == 4 else 0x7FC0
        self.address = raw.ctypes.data + start

    def write(self, values: Array) -> Buffer:
        bits = values.astype(np.float32).view(np.uint32)
        if self._element is Element.BFLOAT16:
            bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        self._bits[...] = bits
        return self

    def read(self) -> Array:
        bits = self._bits.astype(np.uint32)
        if self._element is Element.BFLOAT16:
            bits <<= 16
        return bits.view(np.float32).astype(np.float64)

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """What it holds, to be changed in place."""
        return self._raw[self._inside]

    def guards_intact(self) -> bool:
        outside = [self._raw[: self._inside.start], self._raw[self._inside.stop :]]
        return all((part == GUARD_BYTE).all() for part in outside)


class LayerRun:
    """The tensors of a case and its launches. The same case has the same values."""

    def __init__(self, case: Case) -> None:
        self.case = case
        rows, inputs, outputs = case.rows, case.inputs, case.outputs
        rng = np.random.default_rng(rows + 1000 * inputs + outputs)
        spread = 1 / np.sqrt(inputs * case.basis.num_basis)
        self.tensors: dict[str, Buffer] = {}
        x = rng.uniform(*case.x_range, (rows, inputs))
        self._add("x", x.shape, x, Element.FLOAT, shift=0)
        functions = case.basis.num_basis
        self._add("weight", (functions, inputs, outputs), spread * self._normal(rng, functions))
        if case.base:
            self._add("base_weight", (inputs, outputs), spread * self._normal(rng))
        if case.scale:
            self._add("scale", (inputs, outputs), 1 + 0.3 * self._normal(rng))
        if case.bias:
            self._add("bias", (outputs,), rng.standard_normal(outputs))
        params = case.basis.tested_params([rng.standard_normal(s) for s in params_of(case)])
        for n, param in enumerate(params):
            self._add(f"params{n}", param.shape, param, Element.FLOAT, shift=0)
        self._add("grad_y", (rows, outputs), rng.standard_normal((rows, outputs)))
        self._add("y", (rows, outputs))
        for name in ("weight", "base_weight", "scale"):
            if name in self.tensors:
                self._add(f"grad_{name}", self.tensors[name].read().shape)
        self._add("grad_x", (rows, inputs), element=Element.FLOAT, shift=0)
        for plan in case.plans():
            for name in {"workspace", "grad_params"}.intersection(plan.tensors):
                shape = (plan.workspace_bytes // 4,)
                self._add(name, shape, element=Element.FLOAT)

    def _normal(self, rng: np.random.Generator, *leading: int) -> Array:
        return rng.standard_normal((*leading, self.case.inputs, self.case.outputs))

    def _add(self, name, shape, values=None, element=None, shift=None):
        element = element or self.case.element
        shift = self.case.shift if shift is None else shift
        buffer = Buffer(shape, element, shift)
        self.tensors[name] = buffer if values is None else buffer.write(values)

    def launches(self) -> Iterator[Launch]:
        addresses = {name: buffer.address for name, buffer in self.tensors.items()}
        for plan in self.case.plans():
            yield from plan.at(addresses, [self.case.sets] * len(self.case.basis.params))

    def results(self) -> dict[str, Array]:
        """By name, the gradients of the basis's parameters each input's own."""
        names = [name for plan in self.case.plans() for name in plan.tensors]
        found = {}
        for name in names:
            if name == "y" or (name.startswith("grad_") and name != "grad_y"):
                found[name] = self.tensors[name].read()
        if "grad_params" in found:
            own = found.pop("grad_params").reshape(-1, self.case.inputs, self.case.params_size)
            sizes = np.cumsum([size for _, size in params_of(self.case)])[:-1]
            parts = np.split(own.sum(0), sizes, axis=1)
            found |= {f"grad_params{n}": part for n, part in enumerate(parts)}
        return found


def run(case: Case, emulator: Emulator, seed: int = 0) -> dict[str, Array]:
    """y and all gradients. Raises AssertionError if anything around a tensor was written."""
    state = LayerRun(case)
    for launch in state.launches():
        emulator.run(launch, seed=seed)
    for name, buffer in state.tensors.items():
        assert buffer.guards_intact(), f"memory beside {name} was written"
    return state.results()


def reference(case: Case) -> dict[str, Array]:
    """The same by the oracles, from the values as the kernels read them."""
    values = {name: buffer.read() for name, buffer in LayerRun(case).tensors.items()}
    params = [values[f"params{n}"] for n in range(len(case.basis.params))]
    own = [param.repeat(case.inputs // case.sets, 0) for param in params]
    surrounding = {name: values.get(name) for name in ("scale", "base_weight", "bias")}
    phi = phi_ref_of(case.basis)(values["x"], *own)
    passes = product_ref(phi, values["x"], values["grad_y"], values["weight"], **surrounding)
    grads = {f"grad_{name}": grad for name, grad in passes.grads.items()}
    return {"y": passes.y, **grads, "grad_x": passes.grad_x}


def errors(case: Case, emulator: Emulator, seed: int = 0) -> dict[str, float]:
    """As `errors_of`, of what the emulator computes."""
    return errors_of(case, run(case, emulator, seed))


def errors_of(case: Case, actual: dict[str, Array]) -> dict[str, float]:
    """The relative error of every result, in the norm; infinite where a value is not a number, and
    0 where all are as they are to be, as where functions are 0 everywhere."""
    expected = reference(case)
    assert actual.keys() <= expected.keys()
    result = {}
    for name, value in actual.items():
        error = np.linalg.norm(value - expected[name])
        if error != 0:
            error = error / np.linalg.norm(expected[name])
        result[name] = float(error) if np.isfinite(error) else np.inf
    return result


def with_kinds(case: Case) -> list[Case]:
    """The case in every element type and precision."""
    kinds = [
        (Element.FLOAT, Precision.ACCURATE),
        (Element.FLOAT, Precision.TF32),
        (Element.BFLOAT16, Precision.TF32),
    ]
    return [replace(case, element=element, precision=precision) for element, precision in kinds]


def compiled(cases: Iterable[Case]) -> dict[str, Emulator]:
    """An emulator for every basis of the cases, compiled side by side."""
    names: dict[str, dict[str, None]] = {}
    for case in cases:
        names.setdefault(case.functions.name, {}).update(dict.fromkeys(case.kernels()))
    with ThreadPoolExecutor() as pool:
        built = pool.map(lambda kernels: Emulator(None, list(kernels)), names.values())
        return dict(zip(names, built, strict=True))
