"""The arithmetic of a case against PyTorch's own counter, and the passes of a workload."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kan_impls import get_variant
from perfgate.network.case import PASSES, Case, Product
from perfgate.network.workload import pass_of, target_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("pass_name", PASSES)
@pytest.mark.parametrize("name", ["mlp", "efficient_kan"])
def test_flops_are_those_that_pytorch_counts(name, pass_name):
    # The counter knows neither the in-place products of the fused layer nor the products
    # and sums of the direct one; the arithmetic is the same for all.
    case = Case("odd", get_variant(name), 7, (5, 6, 3))
    workload = pass_of(case, pass_name, CPU)
    workload.prepare()
    with FlopCounterMode(display=False) as counter:
        workload.run()
    assert case.flops(pass_name) == counter.get_total_flops()


@pytest.mark.parametrize("name", ["fourier_kan", "fused_fourier_kan"])
def test_flops_of_a_fourier_layer(name):
    case = Case("odd", get_variant(name), 7, (5, 6), {"grid_size": 4})
    assert case.flops("forward") == case.flops("backward") == 2 * 7 * 5 * 6 * (2 * 4)
    assert case.flops("backward_with_input_grad") == 2 * case.flops("forward")


def test_products_of_a_backward_pass():
    case = Case("odd", get_variant("mlp"), 7, (5, 6, 3))
    weights_1, weights_2, input_2 = Product(5, 7, 6), Product(6, 7, 3), Product(7, 3, 6)
    assert case.products("backward") == [weights_1, weights_2, input_2]
    assert case.products("backward_with_input_grad") == [
        weights_1,
        Product(7, 6, 5),
        weights_2,
        input_2,
    ]


def test_compulsory_bytes_are_weights_inputs_and_outputs():
    case = Case("odd", get_variant("mlp"), 7, (5, 6))
    assert case.compulsory_bytes("forward") == 4 * (5 * 6 + 7 * (5 + 6))
    assert case.compulsory_bytes("training_step") == 4 * (2 * 5 * 6 + 2 * 7 * (5 + 6))


@pytest.mark.parametrize("pass_name", PASSES)
def test_a_pass_leaves_the_gradients_it_should(pass_name):
    workload = pass_of(Case("odd", get_variant("mlp"), 7, (5, 6, 3)), pass_name, CPU)
    workload.prepare()
    workload.run()
    has_grads = pass_name != "forward"
    assert all((p.grad is not None) == has_grads for p in workload.model.parameters())
    assert (workload.x.grad is not None) == (pass_name == "backward_with_input_grad")
    workload.prepare()
    assert all(p.grad is None for p in workload.model.parameters())
    assert workload.x.grad is None


def test_the_target_is_the_papers():
    x = torch.tensor([[0.5, 0.25, 0.1]], dtype=torch.float64)
    expected = torch.tensor([[torch.e]], dtype=torch.float64) * torch.tensor(0.0625).double().exp()
    torch.testing.assert_close(target_of(x), expected)


def test_runs_of_a_case_start_from_the_same_numbers():
    case = Case("odd", get_variant("mlp"), 7, (5, 6, 3))
    first, second = pass_of(case, "forward", CPU), pass_of(case, "backward", CPU)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.model(first.x), second.model(second.x))
