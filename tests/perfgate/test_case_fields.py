"""Backend, precision and mode of a case: what is built, set and described."""

import contextlib

import pytest
import torch

from kan_impls import get_variant
from perfgate.measure.cuda_timing import GraphTimer
from perfgate.measure.timing import Timed
from perfgate.network import precision as precise
from perfgate.network.case import Case
from perfgate.network.floor import measure_floor
from perfgate.network.precision import PrecisePass, products_in
from perfgate.network.reference import like_kind_reference
from perfgate.network.workload import estimate_bytes, pass_of

CPU = torch.device("cpu")
CUDA = torch.backends.cuda.matmul


def case(variant="fused_fourier_kan", **fields):
    return Case("odd", get_variant(variant), 7, (5, 6, 3), **fields)


def test_the_usual_way_is_described_as_it_always_was():
    assert case().describe() == {
        "case": "odd",
        "implementation": "fused_fourier_kan",
        "batch": 7,
        "widths": [5, 6, 3],
        "config": {},
    }
    assert case().label == "fused_fourier_kan"
    assert not isinstance(pass_of(case(), "forward", CPU), PrecisePass)


def test_another_way_is_a_part_of_what_was_measured():
    other = case(backend="product", precision="tf32", mode="graph")
    ways = {"backend": "product", "precision": "tf32", "mode": "graph"}
    assert other.describe() == {**case().describe(), **ways}
    assert other.label == "fused_fourier_kan product tf32 graph"
    assert case(precision="accurate").describe() != case().describe()


def test_the_backend_reaches_the_layers():
    workload = pass_of(case(backend="product", config={"grid_size": 2}), "forward", CPU)
    layers = [layer for layer in workload.model.modules() if hasattr(layer, "backend")]
    assert [layer.backend for layer in layers] == ["product", "product"]
    with pytest.raises(ValueError, match="backend is 'sideways'"):
        pass_of(case(backend="sideways"), "forward", CPU)


@pytest.fixture
def seen(monkeypatch):
    """Precisions of float32 products, and whether autocast is on, at each product."""
    seen, multiply = [], torch.nn.functional.linear

    def linear(*arguments):
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return multiply(*arguments)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    return seen


@pytest.mark.parametrize(
    ("precision", "setting"),
    [
        (None, ("medium", False)),
        ("accurate", ("highest", False)),
        ("tf32", ("high", False)),
        ("bf16", ("highest", True)),
    ],
)
def test_a_precision_is_set_for_the_pass_alone(seen, precision, setting):
    torch.set_float32_matmul_precision("medium")
    try:
        workload = pass_of(case("mlp", precision=precision), "backward", CPU)
        workload.prepare()
        assert seen == [setting, setting]
        gradients = []
        handle = next(workload.model.parameters()).register_hook(
            lambda grad: gradients.append(torch.get_float32_matmul_precision())
        )
        workload.run()
        handle.remove()
        assert gradients == [setting[0]]
        assert torch.get_float32_matmul_precision() == "medium"
        assert workload.peak_bytes()["forward_peak_bytes"] > 0
        assert set(seen) == {setting}
    finally:
        torch.set_float32_matmul_precision("highest")


def test_products_in_bfloat16_are_rounded():
    exact, rounded = (
        pass_of(case("mlp", precision=precision), "forward", CPU).forward()
        for precision in ("accurate", "bf16")
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, atol=2e-2, rtol=2e-2)  # 8 bits, two layers


def test_what_the_newer_interface_was_set_to_comes_back():
    before = CUDA.fp32_precision
    CUDA.fp32_precision = "tf32"  # of which torch's older interface cannot tell
    try:
        with products_in("accurate"):
            assert CUDA.fp32_precision == "ieee"
        assert CUDA.fp32_precision == "tf32"
        with contextlib.suppress(ZeroDivisionError), products_in("accurate"):
            raise ZeroDivisionError
        assert CUDA.fp32_precision == "tf32"
    finally:
        CUDA.fp32_precision = before


def test_reference_and_floor_have_the_precision_of_the_case():
    reference = like_kind_reference(case(precision="bf16"), "forward", CPU)
    assert {product.dtype for product in reference.run()} == {torch.bfloat16}
    products = tuple(case().products("forward"))
    exact, half = (measure_floor(CPU, products, 1024, p) for p in (None, "bf16"))
    assert exact is not half


def test_the_floor_is_timed_as_the_case_is():
    class Halves:
        def time(self, work):
            work.run()
            return 0.5

    workload = pass_of(case(), "forward", CPU, timer=Halves())
    facts = workload.facts(1e9)
    assert (facts["floor_product_ns"], facts["floor_copy_ns"]) == (5e8, 5e8)
    assert facts["floor_fraction"] == 0.5


@pytest.mark.parametrize("pass_name", ["forward", "backward", "training_step"])
def test_the_forms_that_ran_are_facts(pass_name):
    ran = {"forward", "backward"} if pass_name == "training_step" else {pass_name}
    found = pass_of(case(), pass_name, CPU).facts(1e9)["forms"]
    assert found.keys() == ran
    # Where there is a compiler, it is compiled.
    assert set(found.values()) in ({"product"}, {"compiled product"})
    alone = case("mlp")
    assert "forms" not in pass_of(alone, pass_name, CPU).facts(1e9)


def test_a_compiled_case_compiles_its_model(monkeypatch):
    compiled = []

    def compile_model(model, dynamic):
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_model)
    workload = pass_of(case(mode="compiled"), "training_step", CPU)
    assert compiled == [workload.model]
    estimate_bytes(case(mode="compiled"))  # which knows no compiled model
    assert len(compiled) == 1


def test_a_backend_that_knows_no_cpu_has_an_estimate():
    assert estimate_bytes(case(backend="fused")) == estimate_bytes(case())


def test_a_graph_needs_a_gpu():
    with pytest.raises(ValueError, match="mode is 'graph' and the device cpu; expected a CUDA"):
        pass_of(case(mode="graph"), "forward", CPU)
    assert estimate_bytes(case(mode="graph")) == estimate_bytes(case())


@pytest.mark.parametrize(("mode", "beside"), [("graph", None), ("eager", case(mode="graph"))])
def test_a_graph_within_the_timers_graph_is_refused_in_one_line(mode, beside):
    with pytest.raises(ValueError, match=r"mode 'graph' and the timer 'graph'; expected one of"):
        pass_of(case(mode=mode), "forward", CPU, beside, timer=GraphTimer(CPU))
    workload = pass_of(case(), "forward", CPU, case(), timer=GraphTimer(CPU))
    assert workload.group.endswith("forward")


def test_a_graph_is_captured_once_and_replayed(monkeypatch):
    calls = []

    def captured(work, device):
        calls.append("capture")
        work.prepare()
        work.run()
        work.release()
        return Timed(lambda: calls.append("run"), lambda: calls.append("prepare"))

    monkeypatch.setattr(precise, "captured", captured)
    x = torch.rand(2, 3)
    monkeypatch.setattr(precise.GraphPass, "__post_init__", PrecisePass.__post_init__)
    workload = precise.GraphPass(torch.nn.Linear(3, 1), x, "backward", precision="tf32")
    for _ in range(2):
        workload.prepare()
        workload.run()
        workload.release()
    assert calls == ["capture", "prepare", "run", "prepare", "run"]


def test_what_stands_beside_is_called_by_its_way():
    workload = pass_of(case(), "forward", CPU, beside=case(backend="product"))
    assert set(workload.companions()) == {"reference", "fused_fourier_kan product"}
