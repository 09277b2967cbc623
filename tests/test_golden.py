"""The golden vectors: numbers that the published implementations computed in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import kan_impls
from tests.cases import ROWS
from tests.helpers import assert_close, relative_error, run
from tests.reference import Passes, kan_ref

FOLDER = Path(__file__).parent / "data" / "golden"
# What the vectors' README.md asks for.
BOUND = 1e-10

MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
# Those of wav_kan are in two modes: see test_wav_kan.py.
ENTRIES = [entry for entry in MANIFEST if entry["variant"] != "wav_kan"]
PAIRS = [
    pytest.param(name, entry, id=f"{name}-{entry['file']}")
    for entry in ENTRIES
    for name, row in ROWS.items()
    if row.golden == entry["variant"]
]


def read(entry):
    """The arrays of a file: x, grad_y, the parameters and buffers, and what must come out."""
    with np.load(FOLDER / entry["file"]) as arrays:
        arrays = dict(arrays)
    inside = {
        folder: {key[len(folder) :]: v for key, v in arrays.items() if key.startswith(folder)}
        for folder in ("param/", "buffer/", "grad/")
    }
    expected = Passes(arrays["y"], arrays.get("grad_x"), inside["grad/"])
    return arrays["x"], arrays["grad_y"], inside["param/"] | inside["buffer/"], expected


def assert_published(actual, expected):
    """Where a published backward pass is wrong the vectors have no gradients; nor have they those
    of parameters that start frozen."""
    if expected.grad_x is None:
        expected = actual._replace(y=expected.y)
    grads = {key: grad for key, grad in actual.grads.items() if key in expected.grads}
    assert_close(actual._replace(grads=grads), expected, BOUND)


def build(name, entry, device):
    config = dict(entry["config"])
    create = kan_impls.create_model if "layers" in config else kan_impls.create_layer
    return create(name, **config, device=device, dtype=torch.float64)


@pytest.mark.parametrize(("name", "entry"), PAIRS)
def test_output_and_gradients_are_the_published_ones(name, entry, device):
    x, grad_y, state, expected = read(entry)
    module = build(name, entry, device)
    kan_impls.upstream.load(module, {key: torch.from_numpy(v) for key, v in state.items()})
    actual = run(module, torch.from_numpy(x).to(device), torch.from_numpy(grad_y).to(device))
    assert_published(actual, expected)


@pytest.mark.parametrize(
    ("name", "entry"), [pair for pair in PAIRS if "updated_grid" not in pair.values[1]["file"]]
)
def test_the_initial_grid_is_the_published_one(name, entry, device):
    _, _, state, _ = read(entry)
    initial = kan_impls.upstream.export(build(name, entry, device))
    for key in (key for key in state if key.endswith(("grid", "phase"))):
        # The published implementation computes its knots in float32.
        assert relative_error(initial[key].cpu().numpy(), state[key]) <= 1e-7
    assert {key: value.shape for key, value in initial.items()} == {
        key: value.shape for key, value in state.items()
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_the_oracles_agree_too(entry):
    x, grad_y, state, expected = read(entry)
    reference = ROWS[entry["variant"]].layer_ref
    if "layers" in entry["config"]:
        reference = kan_ref(reference, entry["config"]["layers"])
    assert_published(reference(x, state, grad_y), expected)


def test_every_file_is_compared():
    assert {entry["file"] for entry in MANIFEST} == {path.name for path in FOLDER.glob("*.npz")}
    assert {entry["file"] for entry in ENTRIES} == {pair.values[1]["file"] for pair in PAIRS}
