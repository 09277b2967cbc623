"""The table of implementations, and adding to it by an entry point."""

import dataclasses
import sys

import pytest
import torch

import kan_impls
from kan_impls import registry

MODULE = """
from torch import nn
from kan_impls import Variant

VARIANT = Variant(
    name={name!r}, formula="W x", paper="none",
    layer=lambda in_features, out_features, device=None: nn.Linear(in_features, out_features),
    model=lambda widths, **config: nn.Linear(widths[0], widths[-1]),
    functions_per_input=lambda config: 1,
)
"""


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Make an installed distribution whose entry point is a variant of the given name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name):
        (tmp_path / "other_kans.py").write_text(MODULE.format(name=name))
        info = tmp_path / "other_kans-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-kans\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[{registry.ENTRY_POINT_GROUP}]\nmine = other_kans:VARIANT\n"
        )
        registry._table.cache_clear()

    yield make
    sys.modules.pop("other_kans", None)
    registry._table.cache_clear()


def test_lists_the_four_implementations_in_order():
    assert kan_impls.list_variants()[:4] == [
        "mlp",
        "efficient_kan",
        "fourier_kan",
        "fused_fourier_kan",
    ]


def test_the_list_is_a_copy():
    kan_impls.list_variants().clear()
    assert kan_impls.list_variants()


@pytest.mark.parametrize("name", kan_impls.list_variants())
def test_variants_describe_themselves(name):
    variant = kan_impls.get_variant(name)
    assert variant.name == name
    assert variant.formula
    assert variant.paper
    assert variant.functions_per_input(variant.reference_config) >= 1


def test_an_entry_point_adds_a_variant(install):
    install("my_kan")
    assert kan_impls.list_variants()[-1] == "my_kan"
    assert kan_impls.create_layer("my_kan", 3, 2)(torch.zeros(4, 3)).shape == (4, 2)
    assert kan_impls.create_model("my_kan", [3, 5, 1])(torch.zeros(4, 3)).shape == (4, 1)
    with pytest.raises(TypeError, match="my_kan got the option 'grid_size'; expected some of dev"):
        kan_impls.create_layer("my_kan", 3, 2, grid_size=5)


def test_an_entry_point_must_not_take_a_name_that_exists(install):
    install("fourier_kan")
    with pytest.raises(ValueError, match=r"'fourier_kan' is registered twice; expected"):
        kan_impls.list_variants()


def test_two_variants_of_one_name_are_refused_and_others_are_not():
    first = kan_impls.get_variant("mlp")
    other = dataclasses.replace(first, name="other")
    assert list(registry.table_of([first, other])) == ["mlp", "other"]
    with pytest.raises(ValueError, match=r"'mlp' is registered twice; .* from mlp, other: rename"):
        registry.table_of([first, other, first])


def test_a_layer_may_have_options_of_its_own():
    model = kan_impls.create_model(
        "fused_fourier_kan", [3, 4, 2], [{"grid_size": 8}, {}], grid_size=2, bias=False
    )
    assert [layer.options["grid_size"] for layer in model.layers] == [8, 2]
    assert [layer.options["bias"] for layer in model.layers] == [False, False]
    model = kan_impls.create_model("sine_kan", [3, 4, 2], [{}, {"is_first": True}])
    assert all(layer.options["is_first"] for layer in model.layers)


@pytest.mark.parametrize(
    ("name", "per_layer", "error", "said"),
    [
        ("fourier_kan", [{}], ValueError, "options of 1 layers; expected 2, one for each pair"),
        ("fourier_kan", [{}, {"degree": 2}], TypeError, "'degree'; expected some of"),
        ("mlp", [{}, {}], TypeError, "takes no options per layer; expected none"),
    ],
)
def test_options_of_layers_that_do_not_fit(name, per_layer, error, said):
    with pytest.raises(error, match=said):
        kan_impls.create_model(name, [3, 4, 2], per_layer)
