"""Single checks, on tensors and tokenizers made for them."""

import shutil
import tracemalloc

from checkpoints_made import GOLDENS, write
import ml_dtypes
import numpy as np
import pytest

from xgenmm_jax import files
from xgenmm_jax.data.anyres import GRIDS_12, GRIDS_RELEASED, AnyRes
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.verifying import images, tensors, tokens

PHI3 = GOLDENS / "phi3_tokenizer"


def measured(tmp_path, arrays):
    return list(tensors.measure(write(tmp_path / "made", arrays)))


def test_figures_are_those_of_the_whole_tensor_whatever_the_slices(monkeypatch, tmp_path):
    random = np.random.default_rng(0)
    array = (3 + 2 * random.standard_normal((60, 70))).astype(np.float32)
    array[0, :7] = 0
    array[1, 1] = np.inf
    monkeypatch.setattr(tensors, "SLICE_BYTES", 1000)
    assert tensors.pieces(array.shape, 4) == 20
    [one] = measured(tmp_path, {"a.weight": array})
    finite = array[np.isfinite(array)].astype(np.float64)
    np.testing.assert_allclose((one.mean, one.std), (finite.mean(), finite.std()), rtol=1e-6)
    assert (one.low, one.high, one.bad, one.zeros) == (finite.min(), finite.max(), 1, 7 / finite.size)


def test_a_large_tensor_is_never_whole_in_memory(tmp_path):
    source = write(tmp_path / "large", {"a.weight": np.ones((4096, 8192), np.float32)})
    tracemalloc.start()
    try:
        list(tensors.measure(source))
        assert tracemalloc.get_traced_memory()[1] < 4096 * 8192 * 4
    finally:
        tracemalloc.stop()


def test_layer_out_of_its_neighbours(tmp_path):
    random = np.random.default_rng(0)
    layers = {f"m.layers.{n}.w.weight": random.standard_normal((16, 16), np.float32) for n in range(12)}
    biases = {f"m.layers.{n}.w.bias": random.standard_normal(16, np.float32) for n in range(12)}
    layers["m.layers.10.w.weight"] *= 100
    layers["m.layers.3.w.weight"] *= 8
    biases["m.layers.7.w.bias"][:] = 0
    section = tensors.check(measured(tmp_path, layers | biases))
    assert {fault.split(":")[0] for fault in section.faults} == {"m.layers.7.w.bias", "m.layers.10.w.weight"}
    assert [note.split(":")[0] for note in section.notes] == ["m.layers.3.w.weight"]


def test_biases_of_zeros_among_others(tmp_path):
    """One of two layers was passed over, and one outside of the layers."""
    random = np.random.default_rng(0)
    arrays = {f"m.layers.{n}.w.bias": random.standard_normal(16, np.float32) for n in range(2)}
    arrays |= {f"m.norm{n}.bias": random.standard_normal(16, np.float32) for n in range(2)}
    good = tensors.check(measured(tmp_path / "good", arrays))
    assert good.faults == good.notes == ()
    arrays["m.layers.1.w.bias"][:] = arrays["m.norm0.bias"][:] = 0
    section = tensors.check(measured(tmp_path / "zeroed", arrays))
    assert [fault.split(":")[0] for fault in section.faults] == ["m.layers.1.w.bias"]
    assert [note.split(":")[0] for note in section.notes] == ["m.norm0.bias"]
    assert "and at least half of all biases vary" in section.notes[0]


def test_weights_as_they_begin_are_right(tmp_path):
    """Norms of ones, biases of zeros, in every layer: a model before its training."""
    arrays = {f"m.layers.{n}.norm.weight": np.ones(16, np.float32) for n in range(4)}
    arrays |= {f"m.layers.{n}.norm.bias": np.zeros(16, np.float32) for n in range(4)}
    assert tensors.check(measured(tmp_path, arrays)).faults == ()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_of_uniform_and_normal_weights_are_taken_for_what_they_are(tmp_path, dtype):
    random = np.random.default_rng(0)
    arrays = {"a": random.standard_normal((64, 64)) / 30, "b": random.uniform(-0.1, 0.1, (64, 64))}
    assert tensors.check(measured(tmp_path, {name: a.astype(dtype) for name, a in arrays.items()})).faults == ()


def test_hole_in_a_file(tmp_path):
    array = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    array[:8] = 0
    [fault] = tensors.check(measured(tmp_path, {"a": array})).faults
    assert "12% are zeros" in fault


def test_views_are_those_that_the_package_keeps():
    stored = files.read_json(images.HASHES)
    config = AnyRes(grids=GRIDS_RELEASED, view_px=384)
    assert images.hashes(config) == stored["384/released"]
    assert images.check(config, {}, stored["384/released"]).faults == ()
    other = AnyRes(grids=GRIDS_12, view_px=384)
    assert images.check(other, {}, None).faults == ()
    assert "cut otherwise" in images.check(other, {}, stored["384/released"]).faults[0]


def test_pillow_that_resizes_otherwise(monkeypatch):
    monkeypatch.setattr(images.anyres, "crops", lambda image, config: np.zeros((1, 28, 28, 3), np.uint8))
    assert "this Pillow resizes otherwise" in images.check(AnyRes(view_px=28), {}, None).faults[0]


def test_phi3_tokenizer_and_its_files(tmp_path):
    folder = shutil.copytree(PHI3, tmp_path / "phi3")
    tokenizer, decoder = Tokenizer.load(folder / "tokenizer.model"), Phi3Config()
    ids = tokenizer.encode(tokens.PROMPT)
    assert tokens.check(tokenizer, decoder, folder, ids).faults == ()
    assert "in the reference" in tokens.check(tokenizer, decoder, folder, [1, 2]).faults[0]
    (folder / "added_tokens.json").write_text('{"<|user|>": 32001}')
    (folder / "tokenizer_config.json").unlink()
    [fault] = tokens.check(tokenizer, decoder, folder).faults
    assert "<|user|> is 32010" in fault and "says 32001" in fault
