"""The device: its choice, and the key of its baselines."""

import pytest
import torch

from kan_impls.bench.measure.environment import describe_environment, resolve_device


def test_the_key_holds_what_figures_depend_on(monkeypatch):
    environment = describe_environment(torch.device("cpu"))
    key = environment["device_key"]
    torch_version = ".".join(torch.__version__.split(".")[:2])
    assert key.startswith("cpu_")
    assert f"_torch{torch_version}_threads{torch.get_num_threads()}_highest" in key
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert describe_environment(torch.device("cpu"))["device_key"] == key.replace("highest", "high")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert "threads77" in describe_environment(torch.device("cpu"))["device_key"]


def test_the_key_of_a_gpu_holds_its_model_and_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200 / 141GB")
    monkeypatch.setattr(torch.version, "cuda", "13.0.1")
    key = describe_environment(torch.device("cuda"))["device_key"]
    assert key.startswith("cuda_nvidia-h200-141gb_torch")
    assert "_cuda13.0_" in key


def test_the_default_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device(None) == torch.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:x"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
        resolve_device(name)


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds 0 CUDA devices here; expected one that exists"):
        resolve_device("cuda")
