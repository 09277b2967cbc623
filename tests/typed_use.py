"""Public functions as a user calls them, for `mypy --strict`: `make lint` checks the types."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import kan_impls
from kan_impls.contract import check_layer
from perfgate.judge.parse import parse_run
from perfgate.judge.record import Run
from perfgate.store.baseline import read_run


def layers() -> None:
    assert_type(kan_impls.list_variants(), list[str])
    layer = kan_impls.create_layer("fused_fourier_kan", 64, 32, grid_size=8)
    assert_type(layer, nn.Module)
    model = kan_impls.create_model("efficient_kan", [64, 32, 1], [{"grid_size": 8}, {}])
    assert_type(model, nn.Module)
    convolution = kan_impls.KANConv2d("fused_efficient_kan", 3, 16, kernel_size=(3, 5), padding=1)
    images: Tensor = convolution(torch.rand(1, 3, 8, 8))
    kan_impls.KANConv2d(nn.Linear, 3, images.shape[1], 3)
    assert_type(kan_impls.upstream.export(layer), dict[str, Tensor])
    kan_impls.upstream.load(layer, layer.state_dict())
    check_layer(layer, in_features=64, out_features=32)
    assert_type(kan_impls.get_variant("mlp"), kan_impls.Variant)


def runs(path: Path) -> None:
    assert_type(read_run(path), Run)
    assert_type(parse_run({}), Run)
