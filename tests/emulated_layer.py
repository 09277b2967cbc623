"""A layer in NumPy arrays, computed by the emulated CUDA kernels and by the float64 oracles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kan_impls.fused import kernels
from kan_impls.fused.kernels import Basis, Device, Element, Layer, Precision
from tests.emulator.build import Emulator
from tests.reference import efficient_kan_ref, fourier_kan_ref

Array = NDArray[np.float64]

GUARD = 4096  # bytes before and after every buffer that must stay as they are
GUARD_BYTE = 0xA5


@dataclass(frozen=True)
class Case:
    """Everything that decides a run. `grid` is None for Fourier, else (size, order)."""

    rows: int
    inputs: int
    outputs: int
    harmonics: int = 0
    grid: tuple[int, int] | None = None
    element: Element = Element.FLOAT
    precision: Precision = Precision.ACCURATE
    scale: bool = False
    bias: bool = True
    sms: int = 2
    shift: int = 0  # elements by which every tensor misses its alignment
    grid_range: tuple[float, float] = (-1.0, 1.0)
    x_range: tuple[float, float] = (-3.0, 3.0)
    passes: tuple[str, ...] = ("forward", "weight_grad", "input_grad")

    @property
    def basis(self) -> Basis:
        if self.grid is None:
            return kernels.fourier(self.harmonics)
        return kernels.bspline(*self.grid, *self.grid_range)

    @property
    def layer(self) -> Layer:
        device = Device(arch=90, sms=self.sms)
        sizes = (self.rows, self.inputs, self.outputs)
        return Layer(self.basis, *sizes, self.element, self.precision, device)

    def kernels(self) -> list[str]:
        return [launch.kernel for launch in _Run(self).launches()]

    def __str__(self) -> str:
        kind = f"{self.rows}x{self.inputs}x{self.outputs} {self.layer.basis.name}"
        words = [kind, self.element.value, self.precision.value]
        words += [name for name in ("scale", "bias") if getattr(self, name)]
        return " ".join([*words, f"shift {self.shift}"] if self.shift else words)


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

    def guards_intact(self) -> bool:
        outside = [self._raw[: self._inside.start], self._raw[self._inside.stop :]]
        return all((part == GUARD_BYTE).all() for part in outside)


PARAMETERS = ("weight", "base", "scale")
RESULTS = {
    "forward": ("y",),
    "weight_grad": ("grad_weight", "grad_base", "grad_scale"),
    "input_grad": ("grad_x",),
}


class _Run:
    """The tensors of a case and its launches. The same case has the same values."""

    def __init__(self, case: Case) -> None:
        self.case, basis = case, case.basis
        rows, inputs, outputs = case.rows, case.inputs, case.outputs
        rng = np.random.default_rng(rows + 1000 * inputs + outputs)
        splines = basis.num_functions - basis.has_base
        spread = 1 / np.sqrt(inputs * splines)
        self.tensors: dict[str, Buffer] = {}
        x = rng.uniform(*case.x_range, (rows, inputs))
        self._add("x", x.shape, x, Element.FLOAT, shift=0)
        self._add("weight", (splines, inputs, outputs), spread * self._normal(rng, splines))
        if basis.has_base:
            self._add("base", (inputs, outputs), spread * self._normal(rng))
        if case.scale:
            self._add("scale", (inputs, outputs), 1 + 0.3 * self._normal(rng))
        if case.bias:
            self._add("bias", (outputs,), rng.standard_normal(outputs))
        self._add("grad_y", (rows, outputs), rng.standard_normal((rows, outputs)))
        self._add("y", (rows, outputs))
        for name in ("weight", "base", "scale"):
            if name in self.tensors:
                self._add(f"grad_{name}", self.tensors[name].read().shape)
        self._add("grad_x", (rows, inputs), element=Element.FLOAT, shift=0)
        workspace = kernels.workspace_bytes(case.layer)
        if workspace:
            self._add("workspace", (workspace // 4,), element=Element.FLOAT)

    def _normal(self, rng: np.random.Generator, *leading: int) -> Array:
        return rng.standard_normal((*leading, self.case.inputs, self.case.outputs))

    def _add(self, name, shape, values=None, element=None, shift=None):
        element = element or self.case.element
        shift = self.case.shift if shift is None else shift
        buffer = Buffer(shape, element, shift)
        self.tensors[name] = buffer if values is None else buffer.write(values)

    def launches(self) -> Iterator[kernels.Launch]:
        layer = self.case.layer

        def addresses(*names: str) -> dict[str, int]:
            return {name: self.tensors[name].address for name in names if name in self.tensors}

        arguments = {
            "forward": addresses("x", *PARAMETERS, "bias", "y", "workspace"),
            "weight_grad": addresses("x", *PARAMETERS, "grad_y", *RESULTS["weight_grad"]),
            "input_grad": addresses("x", *PARAMETERS, "grad_y", "grad_x"),
        }
        for name in self.case.passes:
            yield from getattr(kernels, name)(layer, **arguments[name])

    def results(self) -> dict[str, Array]:
        names = [name for done in self.case.passes for name in RESULTS[done]]
        return {name: self.tensors[name].read() for name in names if name in self.tensors}


def run(case: Case, emulator: Emulator, seed: int = 0) -> dict[str, Array]:
    """y and all gradients. Raises AssertionError if anything around a tensor was written."""
    state = _Run(case)
    for launch in state.launches():
        emulator.run(launch, seed=seed)
    for name, buffer in state.tensors.items():
        assert buffer.guards_intact(), f"memory beside {name} was written"
    return state.results()


def reference(case: Case) -> dict[str, Array]:
    """The same by the oracles, from the values as the kernels read them."""
    values = {name: buffer.read() for name, buffer in _Run(case).tensors.items()}
    x, grad_y, weight = values["x"], values["grad_y"], values["weight"]
    if case.grid is None:
        # (function, in, out), cos and sin in turn <-> (cos or sin, out, in, harmonic)
        shape = (case.harmonics, 2, case.inputs, case.outputs)
        coeffs = weight.reshape(shape).transpose(1, 3, 2, 0)
        passes = fourier_kan_ref(x, {"fouriercoeffs": coeffs}, grad_y)
        grad = passes.grads["fouriercoeffs"].transpose(3, 0, 2, 1).reshape(weight.shape)
        grads = {"grad_weight": grad}
    else:
        size, order = case.grid
        low, high = case.grid_range
        knots = low + np.arange(-order, size + order + 1) * ((high - low) / size)
        parameters = {
            "base_weight": values["base"].T,
            "spline_weight": weight.transpose(2, 1, 0),
            "grid": np.tile(knots, (case.inputs, 1)),
        }
        if case.scale:
            parameters["spline_scaler"] = values["scale"].T
        passes = efficient_kan_ref(x, parameters, grad_y)
        grads = {
            "grad_weight": passes.grads["spline_weight"].transpose(2, 1, 0),
            "grad_base": passes.grads["base_weight"].T,
        }
        if case.scale:
            grads["grad_scale"] = passes.grads["spline_scaler"].T
    y = passes.y + (values["bias"] if case.bias else 0)
    return {"y": y, **grads, "grad_x": passes.grad_x}


def errors(case: Case, emulator: Emulator, seed: int = 0) -> dict[str, float]:
    """The relative error of every result, in the norm; infinite where a value is not a number."""
    expected = reference(case)
    actual = run(case, emulator, seed)
    assert actual.keys() <= expected.keys()
    result = {}
    for name, value in actual.items():
        error = np.linalg.norm(value - expected[name]) / np.linalg.norm(expected[name])
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
        names.setdefault(case.basis.name, {}).update(dict.fromkeys(case.kernels()))
    with ThreadPoolExecutor() as pool:
        built = pool.map(lambda kernels: Emulator(None, list(kernels)), names.values())
        return dict(zip(names, built, strict=True))
