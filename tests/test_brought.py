"""Implementations that somebody brings, and that what is wrong with one is nobody else's matter."""

import pickle
import sys
from importlib.metadata import EntryPoint

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import kan_impls
from kan_impls import registry
from kan_impls.brought import BroughtError, variant_at, variant_of

LAYERS = '''
import torch
from torch import nn
from kan_impls import Variant

class Mine(nn.Module):
    """Three functions on an edge.

    And more.
    """

    def __init__(self, in_features, out_features, degree=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(degree, in_features, out_features))

    def forward(self, x):
        return sum(x**k @ weight for k, weight in enumerate(self.weight, start=1))

def placed(in_features, out_features, device, dtype):
    return nn.Linear(in_features, out_features, device=device, dtype=dtype)

def raises(in_features, out_features):
    raise RuntimeError("out of luck")

def returns_a_number(in_features, out_features):
    return 3

def one_too_wide(in_features, out_features):
    return nn.Linear(in_features, out_features + 1)

number = 3
whole = Variant("other_name", "W x", "none", nn.Linear, one_too_wide, lambda config: 1)
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of layers; what it puts into the process goes with the test."""
    path = tmp_path / "layers_of_somebody.py"
    path.write_text(LAYERS)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(registry, "_brought", [])
    registry._table.cache_clear()
    yield path
    sys.modules.pop(path.stem, None)
    registry._table.cache_clear()


def test_a_class_becomes_a_variant(file):
    mine = variant_at(f"{file}:Mine")
    assert (mine.name, mine.formula) == ("Mine", "Three functions on an edge.")
    assert (mine.size, list(mine.option_names())) == ("degree", ["degree", "device", "dtype"])
    assert mine.functions_per_input({}) == 3
    assert mine.functions_per_input({"degree": 5}) == 5
    layer = mine.layer(4, 2, degree=2, dtype=torch.float64)
    assert layer(torch.rand(3, 4, dtype=torch.float64)).shape == (3, 2)
    assert mine.model([4, 5, 1], device="meta").layers[1].weight.device.type == "meta"
    assert type(pickle.loads(pickle.dumps(layer))) is type(layer)


def test_a_factory_is_given_device_and_dtype_where_it_has_them(file):
    layer = variant_at(f"{file}:placed").layer(4, 2, device="meta", dtype=torch.bfloat16)
    assert (layer.weight.device.type, layer.weight.dtype) == ("meta", torch.bfloat16)


def test_it_is_built_of_tensors_without_values(file):
    with FakeTensorMode():
        layer = variant_at(f"{file}:Mine").layer(4, 2, device="cpu")
        assert layer(torch.rand(3, 4)).shape == (3, 2)


def test_a_package_is_named_by_its_dots():
    assert variant_at("torch.nn:Linear").functions_per_input({}) == 1
    assert variant_at("torch:nn.Linear").name == "Linear"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("Mine", "names no factory; expected path/file.py:factory"),
        ("{file}:", "names no factory"),
        ("{file}:Yours", "has no 'Yours'; expected a class"),
        ("{file}:number", "'number' is a int; expected a Variant or a function"),
        ("missing.py:Mine", "missing.py does not exist"),
        ("torch.no_such:Mine", "module 'torch.no_such' is not found"),
    ],
)
def test_what_names_nothing_is_refused_with_the_reason(file, reference, message):
    with pytest.raises(BroughtError, match=message):
        registry.bring([reference.format(file=file)])


def test_it_is_in_the_table_of_this_process(file):
    assert registry.bring([f"{file}:Mine", "mlp", f"{file}:whole"]) == ["Mine", "mlp", "other_name"]
    assert registry.brought() == kan_impls.list_variants()[-2:] == ["Mine", "other_name"]
    assert kan_impls.create_model("Mine", [3, 2], degree=1)(torch.zeros(5, 3)).shape == (5, 2)
    with pytest.raises(BroughtError, match="'Mine' is registered twice"):
        registry.bring([f"{file}:Mine"])


def test_a_fault_of_a_factory_shows_when_it_builds_and_not_before(file):
    registry.bring([f"{file}:{name}" for name in ("raises", "returns_a_number", "one_too_wide")])
    assert {"mlp", "raises", "one_too_wide"} <= set(kan_impls.list_variants())
    with pytest.raises(RuntimeError, match="out of luck"):
        kan_impls.create_layer("raises", 3, 2)
    with pytest.raises(TypeError, match="returned a int; expected a torch"):
        kan_impls.create_layer("returns_a_number", 3, 2)
    wide = kan_impls.create_model("one_too_wide", [3, 2])
    with pytest.raises(
        ValueError, match=r"returned \(5, 3\) for x of .*expected a tensor \(5, 2\)"
    ):
        wide(torch.zeros(5, 3))


def test_a_network_of_a_whole_variant_is_checked_too(file):
    registry.bring([f"{file}:whole"])
    with pytest.raises(TypeError, match=r"one_too_wide\(\) missing"):
        kan_impls.create_model("other_name", [3, 2])


def test_a_file_that_raises_spoils_nothing_but_itself(file):
    file.write_text("import no_such_package")
    assert registry.bring([f"{file}:Mine"]) == ["Mine"]
    with pytest.raises(
        RuntimeError, match=r"Mine cannot be loaded \(ModuleNotFoundError: No module"
    ):
        kan_impls.create_layer("Mine", 3, 2)


def test_an_entry_point_that_cannot_be_loaded_spoils_nothing_but_itself():
    broken = variant_of(EntryPoint("theirs", "no_such_package:Layer", registry.ENTRY_POINT_GROUP))
    assert broken.name == "theirs"
    with pytest.raises(RuntimeError, match="theirs cannot be loaded"):
        broken.model([3, 2], device="cpu")
