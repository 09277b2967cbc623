"""Wav-KAN: every wavelet, both modes of its BatchNorm, and the memory of the bounded form."""

import json

import numpy as np
import pytest
import torch

import kan_impls
from kan_impls import wavelets
from perfgate.measure.memory import measure_peaks
from tests.helpers import (
    FLOAT64,
    assert_close,
    random_like,
    randomize,
    relative_error,
    run,
    run_ref,
)
from tests.reference import wav_kan_ref
from tests.test_golden import BOUND, FOLDER, read

FORMS = ("wav_kan", "fused_wav_kan")
each_form = pytest.mark.parametrize("name", FORMS)
each_wavelet = pytest.mark.parametrize("wavelet", wavelets.WAVELETS)

ENTRIES = [
    entry
    for entry in json.loads((FOLDER / "manifest.json").read_text())
    if entry["variant"] == "wav_kan"
]


def build(name, wavelet, device, is_training=False, dtype=torch.float64, sizes=(7, 5)):
    layer = kan_impls.create_layer(name, *sizes, wavelet_type=wavelet, device=device, dtype=dtype)
    return randomize(layer).train(is_training)


@each_form
@each_wavelet
@pytest.mark.parametrize("is_training", [False, True], ids=["eval", "train"])
def test_output_and_gradients_are_those_of_the_oracle(name, wavelet, is_training, device):
    layer = build(name, wavelet, device, is_training)
    x, grad_y = random_like(layer, 9, 7), random_like(layer, 9, 5)
    expected = run_ref(wav_kan_ref(wavelet, is_training), layer, x, grad_y)
    assert_close(run(layer, x, grad_y), expected, FLOAT64)


@each_form
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["file"])
def test_golden_vectors(name, entry, device):
    x, grad_y, state, expected = read(entry)
    layer = build(name, entry["config"]["wavelet_type"], device, entry["config"]["training"])
    kan_impls.upstream.load(layer, {key: torch.as_tensor(v) for key, v in state.items()})
    actual = run(layer, *(torch.from_numpy(value).to(device) for value in (x, grad_y)))
    assert_close(actual, expected, BOUND)


def test_a_training_step_moves_the_running_statistics_as_published(device):
    (entry,) = (entry for entry in ENTRIES if entry["config"]["training"])
    x, _, state, _ = read(entry)
    after = {key: value for key, value in state.items() if key.startswith("bn.running")}
    for name in FORMS:
        layer = build(name, entry["config"]["wavelet_type"], device, is_training=True)
        fresh = {"bn.running_mean": np.zeros(5), "bn.running_var": np.ones(5)}
        fresh["bn.num_batches_tracked"] = np.array(0)
        loaded = {key: torch.as_tensor(value) for key, value in {**state, **fresh}.items()}
        kan_impls.upstream.load(layer, loaded)
        layer(torch.from_numpy(x).to(device))
        found = kan_impls.upstream.export(layer)
        for key, value in after.items():
            assert relative_error(found[key].cpu().numpy(), value) <= BOUND
        assert found["bn.num_batches_tracked"] == 1


@each_wavelet
@pytest.mark.parametrize("elements", [1, 7, 20, 70])  # a row of one output; some rows; some outputs
def test_chunks(wavelet, elements, device, monkeypatch):
    monkeypatch.setattr(wavelets, "CHUNK_BYTES", 8 * elements)
    layer = build("fused_wav_kan", wavelet, device)
    x, grad_y = random_like(layer, 9, 7), random_like(layer, 9, 5)
    expected = run_ref(wav_kan_ref(wavelet), layer, x, grad_y)
    assert_close(run(layer, x, grad_y), expected, FLOAT64)


def test_the_workspace_does_not_grow_with_the_batch(device):
    layer = build("fused_wav_kan", "morlet", device, dtype=torch.float32, sizes=(64, 32))
    weights = sum(parameter.nbytes for parameter in layer.parameters())
    for batch in (400, 1600):
        x, grad_y = random_like(layer, batch, 64).requires_grad_(), random_like(layer, batch, 32)
        layer.zero_grad()
        peaks = measure_peaks(device, lambda x=x: layer(x), lambda y, g=grad_y: y.backward(g))
        # Four tensors of a chunk, and what BatchNorm and rows make: some outputs and inputs.
        room = 4 * wavelets.CHUNK_BYTES + 4 * grad_y.nbytes + 3 * x.nbytes + weights
        assert peaks.forward_peak_bytes <= room
        assert peaks.backward_peak_bytes <= room


def test_an_unknown_wavelet_is_refused():
    with pytest.raises(
        ValueError, match="wavelet_type is 'haar'; expected one of mexican_hat, morlet, dog: ch"
    ):
        kan_impls.create_layer("wav_kan", 3, 2, wavelet_type="haar")
