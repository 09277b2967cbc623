"""The fused CUDA kernels, compiled for the CPU: the same source, the same launches."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from kan_impls.basis import chebyshev
from kan_impls.basis.base import Basis
from kan_impls.basis.chebyshev import ChebyshevBasis
from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.jacobi import JacobiBasis
from kan_impls.basis.sine import SineBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.fused import kernels, problem
from kan_impls.fused.kernels import Device, Element, Functions, Launch, Layer, Precision
from tests import emulated_layer
from tests.cases import phi_ref_of, phi_refs
from tests.emulated_layer import Buffer, Case, compiled, errors, with_kinds
from tests.emulator import build
from tests.emulator.build import EmulationError, Emulator
from tests.reference import (
    bspline_derivative_ref,
    bspline_ref,
    sigmoid_ref,
)

pytestmark = pytest.mark.skipif(
    build.find_compiler() is None, reason="g++ is not installed: CUDA kernels cannot be emulated"
)

ACCURATE, TF32 = Precision.ACCURATE, Precision.TF32
BFLOAT16 = Element.BFLOAT16

# Relative errors in the norm, as documented; a float32 sum of 10,000 terms is good for 7e-7.
# bfloat16 results have 8 bits, and less error than that of a whole layer.
LIMITS = {precision: problem.error_bound(Element.FLOAT, precision) for precision in Precision}
BFLOAT16_LIMIT = 3e-3


def splines(size: int, order: int, low: float = -1, high: float = 1) -> UniformBSplineBasis:
    return UniformBSplineBasis.over(low, high, size, order)


# Every basis, alone and with all that may surround it; parameters for all inputs, and of groups.
WRAPPED = [
    Case(20, 6, 36, basis, base=base, scale=scale, sets=sets)
    for basis in phi_refs()
    for base in (False, True)
    for scale in (False, True)
    for sets in ((1, 3, 6) if basis.params else (1,))
]

# Shapes: one and several blocks of rows, inputs and columns, none of them full; more pipeline
# stages than the pipeline holds; one and several splits of K.
SHORT_FOURIER = Case(20, 7, 36, FourierBasis(3))
SHORT_TRAINED = Case(20, 7, 36, SineBasis(3), sets=7)
SHORT_SPLINE = Case(20, 7, 40, splines(3, 2, -1.5, 2.0), base=True, scale=True)
CASES = [
    *with_kinds(SHORT_FOURIER),
    *with_kinds(replace(SHORT_FOURIER, shift=1)),
    Case(1, 1, 1, FourierBasis(3)),
    Case(113, 3, 11, FourierBasis(3), precision=TF32),
    Case(100, 2, 5, FourierBasis(3)),
    Case(250, 2, 5, FourierBasis(3), bias=False),
    Case(20, 45, 130, FourierBasis(3), sms=12),  # splits, and 5 stages of outputs
    Case(20, 45, 130, FourierBasis(3)),  # one split of 12 stages
    Case(20, 45, 136, FourierBasis(3), sms=12, element=BFLOAT16, precision=TF32),
    Case(70, 3, 40, FourierBasis(17)),  # 3 chunks, the last one short
    Case(1100, 1, 5, FourierBasis(17), only="weight_grad"),  # the sum of each in two parts
    Case(113, 1, 11, FourierBasis(17), precision=TF32, shift=1),
    Case(20, 2, 36, FourierBasis(17), element=BFLOAT16, precision=TF32),
    *with_kinds(SHORT_SPLINE),
    *with_kinds(replace(SHORT_SPLINE, scale=False, shift=1)),
    Case(113, 9, 36, splines(3, 2), base=True, scale=True, bias=False),
    Case(1, 1, 1, splines(5, 3), base=True, bias=False),
    Case(20, 16, 36, splines(5, 3), base=True, scale=True, sms=12),
    Case(
        20, 3, 100, splines(14, 3), base=True, scale=True
    ),  # 18 functions: 2 chunks, an even number
    Case(20, 3, 36, splines(14, 3), base=True, scale=True, element=BFLOAT16, precision=TF32),
    Case(70, 3, 11, splines(3, 1), base=True, scale=True, precision=TF32),
    Case(250, 2, 5, SineBasis(3), base=True),  # rows in turns
    Case(70, 3, 40, SineBasis(17), sets=3),
    *with_kinds(SHORT_TRAINED),
]

# Sums of 10,000 terms: y, the gradients of the weights, the gradient of x.
LONG_Y = Case(2, 1700, 66, FourierBasis(3), bias=False, sms=1, only="forward")
LONG_WEIGHT_GRAD = Case(10_000, 1, 8, FourierBasis(3), only="weight_grad")
LONG_INPUT_GRAD = Case(4, 1, 10_000, FourierBasis(3), only="input_grad")
LONG_SPLINE_WEIGHT_GRAD = Case(
    10_000, 1, 8, splines(3, 1), base=True, scale=True, only="weight_grad"
)

MANY_INPUTS = Case(20, 57, 5, FourierBasis(3), only="input_grad")

# Where faults are planted.
FAULT_CASE = Case(100, 45, 130, FourierBasis(3))
FORWARD_FAULT_CASE = replace(FAULT_CASE, rows=20, only="forward")


@pytest.fixture(scope="module")
def emulators(request):
    """Of what the tests that were chosen run."""
    chosen = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = [call.params["case"] for call in chosen if call and "case" in call.params]
    wanted = [case for case in [*CASES, *WRAPPED] if case in chosen]
    long = [LONG_Y, LONG_WEIGHT_GRAD, LONG_INPUT_GRAD, LONG_SPLINE_WEIGHT_GRAD]
    long = [replace(case, precision=precision) for case in long for precision in LIMITS]
    return compiled([*wanted, *long, MANY_INPUTS, FAULT_CASE, FORWARD_FAULT_CASE])


def limit_of(case: Case, result: str) -> float:
    is_bfloat16 = case.element is BFLOAT16 and result != "grad_x"
    return BFLOAT16_LIMIT if is_bfloat16 else LIMITS[case.precision]


def check(case: Case, emulator: Emulator, seed: int = 0) -> None:
    for result, error in errors(case, emulator, seed).items():
        assert error <= limit_of(case, result), f"{result} of {case} is off by {error:.1e}"


@pytest.mark.parametrize("case", [*CASES, *WRAPPED], ids=str)
def test_results_are_those_of_the_definitions(emulators, case):
    check(case, emulators[case.functions.name])


@pytest.mark.parametrize("case", [CASES[0], SHORT_SPLINE, SHORT_TRAINED], ids=str)
def test_results_do_not_depend_on_the_order_of_threads(emulators, case):
    emulator = emulators[case.functions.name]
    first, *others = (emulated_layer.run(case, emulator, seed) for seed in range(4))
    for other in others:
        for name, value in first.items():
            np.testing.assert_array_equal(other[name], value)


def test_inputs_beyond_one_axis_of_the_grid(emulators, monkeypatch):
    monkeypatch.setattr(kernels, "MAX_GRID", (2**31 - 1, 3, 65535))
    case = MANY_INPUTS
    (launch,) = emulated_layer.LayerRun(case).launches()
    assert launch.grid == (1, 3, 3)  # of 8 blocks: the last one is idle
    check(case, emulators[case.functions.name])


@pytest.mark.parametrize("precision", LIMITS, ids=lambda precision: precision.value)
@pytest.mark.parametrize(
    "case",
    [LONG_Y, LONG_WEIGHT_GRAD, LONG_INPUT_GRAD, LONG_SPLINE_WEIGHT_GRAD],
    ids=["y", "weight_grad", "input_grad", "spline weight_grad"],
)
def test_sums_of_10_000_terms_stay_accurate(emulators, case, precision):
    case = replace(case, precision=precision)
    check(case, emulators[case.functions.name])


# Values of the bases, one thread per x.
EVALUATE = r"""
#include "bases.cuh"

// workspace, grad_x: (rows, functions), values and slopes.
template <class Basis>
__global__ void evaluate(Problem problem) {
  long long row = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= problem.rows) return;
  for (int chunk = 0; chunk < Chunks<Basis>::COUNT; chunk++) {
    int first = Chunks<Basis>::first_pair(chunk);
    Basis phi;
    phi.start(problem.x[row], 0, first, problem);
    for (int h = first; h < first + Chunks<Basis>::SIZE && Chunks<Basis>::inside(h); h++) {
      long long at = row * Basis::NUM_FUNCTIONS + 2 * h;
      problem.workspace[at] = phi.even();
      problem.grad_x[at] = phi.even_slope();
      if (2 * h + 1 < Basis::NUM_FUNCTIONS) {
        problem.workspace[at + 1] = phi.odd();
        problem.grad_x[at + 1] = phi.odd_slope();
      }
      phi.next();
    }
  }
}

// x: one float, overwritten by the address of the last row of the weights.
template <class Basis>
__global__ void last_row(Problem problem) {
  const char* row = (const char*)function_row<Basis>(
      problem, (const float*)problem.weight, (const float*)problem.base_weight,
      Basis::NUM_FUNCTIONS - 1, problem.inputs - 1);
  *(long long*)problem.y = row - (const char*)problem.weight;
}
"""
SPLINES = [(5, 1), (5, 2), (5, 3), (300, 3)]
POLYNOMIALS = [
    *(ChebyshevBasis(degree) for degree in (4, 9, chebyshev.MAX_KERNEL_DEGREE)),
    *(JacobiBasis(degree, 1.0, -0.5) for degree in (4, JacobiBasis.max_kernel_degree)),
    JacobiBasis(JacobiBasis.max_kernel_degree, 0.0, 0.0),
]


@pytest.fixture(scope="module")
def evaluator():
    names = ["Fourier<5>", "Fourier<300>", "Silu", "WithSilu<Fourier<5>>"]
    names += [f"WithSilu<BSpline<{g}, {k}>>" for g, k in SPLINES]
    names += [basis.cuda for basis in POLYNOMIALS]
    return Emulator(EVALUATE, [*(f"evaluate<{name}>" for name in names), "last_row<Fourier<300>>"])


def evaluate(evaluator: Emulator, basis: Basis, x: np.ndarray, base: bool = False):
    """Values and slopes at x (float32), each of shape (x, functions); those of SiLU last."""
    functions = Functions(basis, base)
    layer = Layer(functions, len(x), 1, 1, Element.FLOAT, ACCURATE, Device(90, 1))
    shape = (len(x), functions.count)
    values, slopes = Buffer(shape, Element.FLOAT), Buffer(shape, Element.FLOAT)
    x_buffer = Buffer(x.shape, Element.FLOAT).write(x.astype(np.float64))
    addresses = {"x": x_buffer.address, "workspace": values.address, "grad_x": slopes.address}
    arguments = problem.pack(layer, addresses)
    name = f"evaluate<{functions.name}>"
    evaluator.run(Launch(name, (-(-len(x) // 64), 1, 1), 64, 0, arguments))
    assert values.guards_intact()
    return values.read(), slopes.read()


def relative(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("harmonics", [5, 300])
@pytest.mark.parametrize("largest", [3.2, 1e2, 1e4, 1e5])
def test_harmonics_are_accurate_for_large_angles(evaluator, harmonics, largest):
    rng = np.random.default_rng(0)
    x = rng.uniform(-largest, largest, 200).astype(np.float32)
    values, slopes = evaluate(evaluator, FourierBasis(harmonics), x)
    k = np.arange(1, harmonics + 1)
    angle = x.astype(np.float64)[:, None] * k
    cos, sin = np.cos(angle), np.sin(angle)
    assert relative(values, np.stack([cos, sin], -1).reshape(values.shape)) <= 1e-6
    assert relative(slopes, np.stack([-k * sin, k * cos], -1).reshape(values.shape)) <= 1e-6
    # The worst function as well: an error of one harmonic would drown in the norm of 300.
    assert np.abs(values[:, 0::2] - cos).max() <= 2e-6


def test_harmonics_of_no_number_are_not_numbers(evaluator):
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    values, slopes = evaluate(evaluator, FourierBasis(300), x)
    assert np.isnan(values).all()
    assert np.isnan(slopes).all()


@pytest.mark.parametrize("basis", POLYNOMIALS, ids=lambda basis: basis.cuda)
@pytest.mark.parametrize("largest", [1e-3, 1, 5, 40])
def test_polynomials_are_accurate_anywhere(evaluator, basis, largest):
    rng = np.random.default_rng(0)
    x = np.append(rng.uniform(-largest, largest, 200), [0, 1e-30, -1e-30]).astype(np.float32)
    values, slopes = evaluate(evaluator, basis, x)
    expected = phi_ref_of(basis)(x.astype(np.float64)[:, None])
    assert relative(values, expected.values[:, 0]) <= 1e-6
    assert relative(slopes, expected.slopes[:, 0]) <= 1e-6


@pytest.mark.parametrize("basis", POLYNOMIALS, ids=lambda basis: basis.cuda)
def test_polynomials_at_infinity_and_of_no_number(evaluator, basis):
    x = np.array([np.inf, -np.inf, 1e30, np.nan], np.float32)
    values, slopes = evaluate(evaluator, basis, x)
    expected = phi_ref_of(basis)(x[:3].astype(np.float64)[:, None])
    np.testing.assert_allclose(values[:3], expected.values[:, 0], rtol=1e-5)
    assert not slopes[:3].any()
    assert np.isnan(values[3, 1:]).all()


@pytest.mark.parametrize(("size", "order"), SPLINES)
@pytest.mark.parametrize("low_high", [(-1.0, 1.0), (0.1, 0.7), (20.0, 21.0)])
def test_splines_are_accurate_on_any_grid(evaluator, size, order, low_high):
    low, high = low_high
    step = (high - low) / size
    rng = np.random.default_rng(0)
    margin = (order + 1) * step
    x = rng.uniform(low - margin, high + margin, 40).astype(np.float32)
    values, slopes = evaluate(evaluator, splines(size, order, low, high), x, base=True)
    knots = low + np.arange(-order, size + order + 1) * step
    exact = x.astype(np.float64)
    near = {i: np.abs(knots[i] + margin / 2 - exact) < 2 * margin for i in range(size + order)}

    def expected(spline):
        result = np.zeros((len(x), size + order))
        for i, rows in near.items():
            for b in np.flatnonzero(rows):
                result[b, i] = spline(i, order, knots, exact[b])
        return result

    assert relative(values[:, :-1], expected(bspline_ref)) <= 5e-7
    assert relative(slopes[:, :-1], expected(bspline_derivative_ref)) <= 5e-7
    gate = 1 / (1 + np.exp(-exact))
    assert relative(values[:, -1], exact * gate) <= 5e-7
    assert relative(slopes[:, -1], gate * (1 + exact * (1 - gate))) <= 5e-7


@pytest.mark.parametrize("magnitude", [1e-30, 1e-3, 1, 17, 80, 1e3, 3.4e7, 1.7e9, 1e30])
def test_the_base_branch_is_accurate_at_any_magnitude(evaluator, magnitude):
    positive = (magnitude * np.linspace(1, 2, 20)).astype(np.float32)
    for x in (positive, -positive):
        values, slopes = evaluate(evaluator, splines(5, 3), x, base=True)
        exact = x.astype(np.float64)
        gate, rest = sigmoid_ref(exact), sigmoid_ref(-exact)
        # 1 - gate in float32 lacks half a rounding of 1, which x multiplies: up to 17, where the
        # gate is 1. Absolute below 1e-30, where gate has no more digits.
        np.testing.assert_allclose(values[:, -1], exact * gate, rtol=1e-6, atol=1e-30)
        expected = gate * (1 + exact * rest)
        np.testing.assert_allclose(slopes[:, -1], expected, rtol=3e-6, atol=1e-30)


@pytest.mark.parametrize(("size", "order"), SPLINES[:3])
def test_splines_end_at_the_last_knot(evaluator, size, order):
    """The intervals are half-open: a knot belongs to the interval on its right."""
    basis = splines(size, order, 0, size)  # knots at the integers
    first, last = -order, size + order
    first, last, far = np.array([first, last, 1e30], np.float32)
    below = np.nextafter(np.array([first, last]), -far)
    x = np.array([first, below[0], last, below[1], far, -far])
    values, slopes = evaluate(evaluator, basis, x, base=True)
    outside = [1, 2, 4, 5]
    assert (values[outside, :-1] == 0).all()
    assert (slopes[outside, :-1] == 0).all()
    if order == 1:  # a corner
        assert slopes[0, 0] == 1
        assert slopes[3, -2] == -1


def test_splines_of_no_number(evaluator):
    x = np.array([np.nan, np.inf, -np.inf, -200], np.float32)
    values, _ = evaluate(evaluator, splines(5, 3), x, base=True)
    assert np.isnan(values[[0, 2], -1]).all()
    assert values[1, -1] == np.inf
    assert values[3, -1] == 0
    assert (values[:, :-1] == 0).all()


def test_weights_of_more_than_2_31_elements_are_addressed(evaluator):
    inputs, outputs = 2**21 + 1, 2**30 + 3
    layer = Layer(
        Functions(FourierBasis(300)), 1, inputs, outputs, Element.FLOAT, ACCURATE, Device(90, 1)
    )
    offset = np.zeros(1, np.int64)
    addresses = {"x": 1, "weight": 64, "y": offset.ctypes.data}
    arguments = problem.pack(layer, addresses)
    evaluator.run(Launch("last_row<Fourier<300>>", (1, 1, 1), 1, 0, arguments))
    assert offset[0] == (599 * inputs + inputs - 1) * outputs * 4


# Faults: each edit plants one, which the named case must then show.


def edited(pattern: str, replacement: str):
    return lambda text: re.sub(pattern, replacement, text, flags=re.DOTALL)


def is_caught(case: Case, emulator: Emulator) -> str:
    """What shows the fault; an empty string if nothing does."""
    try:
        for seed in range(2):
            found = errors(case, emulator, seed)
            wrong = [name for name, error in found.items() if error > limit_of(case, name)]
            if wrong:
                return f"wrong {' '.join(wrong)}"
    except (EmulationError, AssertionError) as error:
        return str(error)
    return ""


FAULTS = {
    "no barrier": (
        FAULT_CASE,
        edited(r"__syncthreads\(\);", ""),
        "wrong y grad_weight grad_x",
    ),
    "a wait too few": (
        FAULT_CASE,
        edited("copy_wait<Tile::STAGES - 2>", "copy_wait<Tile::STAGES - 1>"),
        "copies pending",
    ),
    "a row too many": (
        FORWARD_FAULT_CASE,
        edited(r"row >= problem.rows\) continue", "row > problem.rows) continue"),
        "memory beside y",
    ),
    "a column too many": (
        FORWARD_FAULT_CASE,
        edited(r"column \+ c < columns\) row", "column + c <= columns) row"),
        "wrong y|memory beside y",
    ),
    "an input too many": (
        FORWARD_FAULT_CASE,
        edited(r"input >= problem.inputs\) return", "input > problem.inputs) return"),
        "wrong y",
    ),
    "a stage more than the plan": (
        FORWARD_FAULT_CASE,
        edited("STAGES = 4", "STAGES = 5"),
        "of shared memory of",
    ),
    "the sum stays in the tensor core": (
        LONG_WEIGHT_GRAD,
        edited(
            r"float step\[4\] = [^;]*;(.*?)KAN_UNROLL for \(int n = 0; n < 4; n\+\+\) total[^;]*;",
            r"float (&step)[4] = total;\1",
        ),
        "wrong grad_weight",
    ),
}


@pytest.fixture(scope="module")
def faulty():
    def compile_fault(fault):
        case, edit, _ = fault
        return Emulator(None, case.kernels(), edit=edit)

    with ThreadPoolExecutor() as pool:
        return dict(zip(FAULTS, pool.map(compile_fault, FAULTS.values()), strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(faulty, name):
    case, _, shown = FAULTS[name]
    assert re.search(shown, is_caught(case, faulty[name]))


@pytest.mark.parametrize("case", [FAULT_CASE, FORWARD_FAULT_CASE, LONG_WEIGHT_GRAD], ids=str)
def test_without_a_fault_nothing_is_caught(emulators, case):
    assert is_caught(case, emulators[case.functions.name]) == ""


def test_too_little_shared_memory_is_caught(emulators):
    case = FAULT_CASE
    launches = [*emulated_layer.LayerRun(case).launches()]
    assert len(launches) == 3
    for launch in launches:
        less = launch.shared_bytes - 48  # the last row without the bytes that only space it
        with pytest.raises(EmulationError, match="of shared memory of"):
            emulators[case.functions.name].run(replace(launch, shared_bytes=less))


# Launch plans


def layer_of(rows=100, inputs=1000, outputs=1000, functions=None, sms=132, **kind) -> Layer:
    kind = {"element": Element.FLOAT, "precision": ACCURATE, **kind}
    functions = functions or Functions(FourierBasis(5))
    return Layer(functions, rows, inputs, outputs, device=Device(90, sms), **kind)


def test_the_reference_layer_fills_the_gpu_once():
    plan = kernels.forward(layer_of())
    assert plan.workspace_bytes == 16 * 100 * 1000 * 4
    product, reduction = plan.launches
    assert product.kernel == "forward<Fourier<5>, float, ACCURATE, 7, 1>"
    assert product.grid == (1, 16, 16)
    assert reduction.grid == (391, 1, 1)


@pytest.mark.parametrize("rows", [1, 100, 1000, 10**6])
@pytest.mark.parametrize("outputs", [1, 1000, 10**5])
def test_the_workspace_is_bounded(rows, outputs):
    layer = layer_of(rows, 1000, outputs)
    for plan in (kernels.forward(layer), kernels.param_grad(layer, 10)):
        assert plan.workspace_bytes <= kernels.WORKSPACE_BYTES


def plans_of(layer: Layer) -> list[kernels.Plan]:
    plans = [kernels.forward(layer), kernels.weight_grad(layer), kernels.input_grad(layer)]
    return [*plans, kernels.param_grad(layer, 5)] if layer.functions.basis.trained else plans


@pytest.mark.parametrize("element", Element)
def test_every_block_fits_every_gpu(element):
    sizes = (*range(1, 20), 300)
    functions = [Functions(basis(size)) for size in sizes for basis in (FourierBasis, SineBasis)]
    functions += [Functions(splines(size, k), True, True) for size in sizes for k in (1, 2, 3)]
    for each in functions:
        for rows in (1, 64, 112, 256, 1000):
            layer = layer_of(rows, functions=each, element=element, precision=TF32)
            launches = [launch for plan in plans_of(layer) for launch in plan.launches]
            assert max(launch.shared_bytes for launch in launches) <= 99 * 1024


def test_a_layer_launches_only_kernels_that_are_listed():
    listed = set(kernels.kernels_of_all())
    for functions in kernels.standard_functions():
        for rows in (1, 17, 64, 100, 113, 225, 1000):
            plans = plans_of(layer_of(rows, functions=functions))
            assert {launch.kernel for plan in plans for launch in plan.launches} <= listed


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="rows is 0"):
        layer_of(0)
    with pytest.raises(ValueError, match="expected TF32"):
        layer_of(element=BFLOAT16)
    there = dict.fromkeys(("x", "weight", "y"), 64)
    with pytest.raises(ValueError, match="workspace has the address 0"):
        [*kernels.forward(layer_of()).at(there)]
    there["workspace"] = 64
    with pytest.raises(ValueError, match="weight has the address 0"):
        [*kernels.forward(layer_of()).at({**there, "weight": 0})]
    spline = layer_of(functions=Functions(splines(5, 3), True, True))
    with pytest.raises(ValueError, match="base_weight has the address 0"):
        [*kernels.forward(spline).at({**there, "scale": 64})]
    with pytest.raises(ValueError, match=r"addresses of .'base'.; expected some of"):
        [*kernels.forward(layer_of()).at({**there, "base": 64})]
    with pytest.raises(ValueError, match="split the batch or the layer"):
        kernels.forward(layer_of(1, 1, 2**31 - 1))


def struct_fields(name: str, file: str) -> list[str]:
    """Names of the fields of a C++ struct, in order."""
    text = re.sub(r"//.*", "", (build.CSRC / file).read_text())
    body = re.search(rf"struct {name} {{(.*?)}};", text, re.DOTALL)[1]
    declared = re.findall(r"[\w\s*]+?[\s*](\w+)(?:\[\w+\])?\s*(?:;|,)", body)
    return declared


def test_the_struct_of_the_kernels_is_packed_in_its_order():
    fields = struct_fields("Problem", "problem.cuh")
    assert fields == [*problem.ADDRESSES, *problem.NUMBERS, "inputs_per_set", "constants"]


def test_vectors_are_told_by_the_addresses():
    def is_vectorized(layer, **addresses):
        found = dict(
            zip(
                problem.NUMBERS[1:],
                np.frombuffer(problem.pack(layer, addresses)[128:148], np.int32),
                strict=True,
            )
        )
        return bool(found["vectorized"])

    assert is_vectorized(layer_of(), weight=64, x=4)
    assert not is_vectorized(layer_of(), weight=68)
    assert not is_vectorized(layer_of(outputs=1001), weight=64)


# Sanitizers: every shape for memory and undefined behaviour, a small one for races.


def check_under(sanitizer: str, indices: list[int]) -> None:
    """Check some of CASES, in a process that has the sanitizer."""
    cases = [CASES[index] for index in indices]
    names = dict.fromkeys(name for case in cases for name in case.kernels())
    emulator = Emulator(None, list(names), sanitizer)
    for case in cases:
        check(case, emulator)


# Odd rows of bfloat16 are stored by plain instructions, whose races are named by their lines.
RACE_CASE = replace(FORWARD_FAULT_CASE, element=BFLOAT16, precision=TF32)


def race() -> None:
    """In a process that has the sanitizer."""
    no_barrier = edited(r"__syncthreads\(\);", "")
    emulator = Emulator(None, RACE_CASE.kernels(), "thread", no_barrier)
    emulated_layer.run(RACE_CASE, emulator)


@pytest.mark.sanitizer
@pytest.mark.parametrize("basis", dict.fromkeys(case.functions.name for case in CASES))
def test_memory_and_behaviour_are_defined(basis):
    indices = [index for index, case in enumerate(CASES) if case.functions.name == basis]
    arguments = ("address,undefined", indices)
    done = build.run_in_subprocess(check_under, *arguments, sanitize="address,undefined")
    assert done.returncode == 0, done.stdout


@pytest.mark.sanitizer
@pytest.mark.parametrize("case", [CASES[0], SHORT_SPLINE, SHORT_TRAINED], ids=str)
def test_threads_do_not_race(case):
    arguments = ("thread", [CASES.index(case)])
    done = build.run_in_subprocess(check_under, *arguments, sanitize="thread")
    assert done.returncode == 0, done.stdout


@pytest.mark.sanitizer
def test_a_removed_barrier_is_a_race():
    done = build.run_in_subprocess(race, sanitize="thread")
    assert done.returncode != 0
    assert "data race" in done.stdout
    assert "copy_element" in done.stdout
