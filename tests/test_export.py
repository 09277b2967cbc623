"""Networks that leave PyTorch's eager mode for good: torch.export, ONNX, torch.fx, quantisation,
safetensors."""

import io

import pytest
import torch

import kan_impls
from tests.cases import ROWS
from tests.helpers import relative_error, to_numpy

each_fused = pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("fused_")])


def network(name, device):
    torch.manual_seed(0)
    return kan_impls.create_model(name, [8, 6, 2], device=device).eval()


@each_fused
def test_an_exported_program_runs_without_this_package(name, device):
    model = network(name, device)
    program = torch.export.export(model, (torch.rand(5, 8, device=device),))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert targets
    assert not [target for target in targets if not target.startswith(("aten.", "<built-in"))]


def test_an_exported_program_is_stored_and_read(device):
    model, x = network("fused_efficient_kan", device), torch.rand(5, 8, device=device)
    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (x,)), file)
    file.seek(0)
    read = torch.export.load(file).module()
    # By the formula, whose sums are in another order.
    assert relative_error(to_numpy(read(x)), to_numpy(model(x))) < 1e-5


@pytest.mark.parametrize("name", ["fused_fourier_kan", "fused_efficient_kan", "fused_rational_kan"])
def test_onnx_computes_the_same_at_any_batch(name, tmp_path):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    model = network(name, torch.device("cpu"))
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        (torch.rand(5, 8),),
        path,
        dynamo=True,
        input_names=["x"],
        dynamic_shapes=({0: torch.export.Dim("rows")},),
        verbose=False,
    )
    more = torch.rand(7, 8) * 2 - 1
    (y,) = ReferenceEvaluator(str(path)).run(None, {"x": more.numpy()})
    assert relative_error(y, to_numpy(model(more))) < 1e-5


def test_fx_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match=r"has no shape to check; expected .*torch.export.export"):
        torch.fx.symbolic_trace(network("fourier_kan", "cpu"))


def test_fx_takes_a_layer_as_a_whole(device):
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return name.startswith("layers.")

    model, x = network("fused_fourier_kan", device), torch.rand(5, 8, device=device)
    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    assert torch.equal(traced(x), model(x))


@pytest.mark.parametrize("name", ROWS)
def test_dynamic_quantisation_changes_the_linear_layers_alone(name):
    model, x = network(name, "cpu"), torch.rand(5, 8)
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    # Weights and inputs of 8 bits, in every layer.
    assert relative_error(to_numpy(quantised(x)), to_numpy(model(x))) < 0.1


@pytest.mark.parametrize("name", ROWS)
def test_safetensors_can_store_a_state(name, device):
    # Which refuses tensors that share memory, and those that are not contiguous.
    state = network(name, device).state_dict()
    assert all(value.is_contiguous() for value in state.values())
    places = [value.untyped_storage().data_ptr() for value in state.values() if value.numel()]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("name", ROWS)
def test_autocast_gives_every_output_in_16_bits(name, device):
    layer = kan_impls.create_layer(name, 6, 3, device=device).eval()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert layer(torch.rand(4, 6, device=device)).dtype == torch.bfloat16
