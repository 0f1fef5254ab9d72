"""`xgenmm verify` finds what a download or a conversion breaks, in the tiny released checkpoint."""

import json
from pathlib import Path
import shutil

from checkpoints_made import GOLDENS, TINY28, tiny28, tiny28_settings, write
import ml_dtypes
import numpy as np
import pytest

from xgenmm_jax.cli.main import main
from xgenmm_jax.data.anyres import GRIDS_RELEASED
from xgenmm_jax.verifying import checking, tensors
from xgenmm_jax.verifying.checking import Options
from xgenmm_jax.verifying.outputs import REFERENCE_FILE, read_reference

LAYER = "vlm.lang_model.model.layers.{}."


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Of the good model, under all checks but the steps."""
    path = tmp_path_factory.mktemp("good") / "reference.npz"
    assert faults(TINY28, write_reference=path) == []
    return path


def faults(source: Path, **options) -> list[str]:
    sections = checking.check(source, Options(train_steps=0, **options))
    return [fault for section in sections for fault in section.faults]


def swapped() -> dict[str, np.ndarray]:
    """The decoder's two layers in each other's place."""
    arrays = tiny28()
    first, second = LAYER.format(0), LAYER.format(1)
    for name in [name for name in arrays if name.startswith(first)]:
        other = second + name.removeprefix(first)
        arrays[name], arrays[other] = arrays[other], arrays[name]
    return arrays


@pytest.mark.slow
def test_good_model_is_right_and_its_loss_falls(tmp_path, capsys, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(TINY28, tmp_path / "released")
    shutil.copy(reference, folder / REFERENCE_FILE)
    assert main(["verify", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "nothing is off; the page is released.verify.html" in said
    assert "5 training steps" in said and "vlm.lang_model.lm_head.weight" in said
    page = (tmp_path / "released.verify.html").read_text()
    assert "Nothing was found to be off" in page and "vlm.lang_model.lm_head.weight" in page and "http" not in page


def test_tensor_of_zeros(tmp_path, capsys):
    name = f"{LAYER.format(1)}mlp.down_proj.weight"
    folder = write(tmp_path / "zeros", tiny28() | {name: np.zeros_like(tiny28()[name])}, tiny28_settings())
    output = tmp_path / "page.html"
    assert main(["verify", str(folder), "--steps", "0", "--output", str(output)]) == 1
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("off: ")]
    assert name in line and "every number is 0" in line and "copy its file again" in line
    assert "every number is 0" in output.read_text()


def test_numbers_that_are_none(tmp_path):
    arrays = tiny28()
    name = f"{LAYER.format(0)}mlp.down_proj.weight"
    arrays[name][3, 4] = np.nan
    found = faults(write(tmp_path / "nan", arrays, tiny28_settings()))
    assert f"{name}: 1 numbers are NaN" in found[0] and any("logits/0" in fault for fault in found)


def test_swapped_layers_are_seen_with_a_reference_and_said_to_be_unseen_without(tmp_path, reference):
    folder = write(tmp_path / "swapped", swapped(), tiny28_settings())
    found = faults(folder, reference=reference)
    assert f"{LAYER.format(0)}" in found[0] and "has those of vlm.lang_model.model.layers.1." in found[0]
    assert any(fault.startswith("logits/0: differs by") for fault in found)
    assert not any(fault.startswith("vision_features") for fault in found)
    sections = checking.check(folder, Options(train_steps=0))
    assert not any(section.faults for section in sections)
    assert any("layers that were swapped" in note for section in sections for note in section.notes)


def test_tokenizer_of_another_model(tmp_path):
    folder = write(tmp_path / "other", tiny28(), tiny28_settings())
    shutil.copy(GOLDENS / "phi3_tokenizer/tokenizer.model", folder)
    [found] = faults(folder)
    assert "got 32,012 ids, the embedding has 300" in found and "--tokenizer" in found


@pytest.mark.parametrize("grids", [[[28, 28], [56, 28]], [[28, 56], [56, 30]], [[14, 14]]])
def test_wrong_grids(tmp_path, grids):
    settings = json.loads(tiny28_settings())
    settings["vision_encoder_config"]["anyres_grids"] = grids
    folder = write(tmp_path / "grids", tiny28(), json.dumps(settings))
    assert any("grid" in fault for fault in faults(folder))


def test_known_grids_of_another_model_need_the_reference(tmp_path, reference):
    """One view and five grids are both published; files that disagree are told at once."""
    folder = write(tmp_path / "base", tiny28(), tiny28_settings())
    assert faults(folder, base=True) == []
    assert any("2 of 3" in fault or "3 of 3" in fault for fault in faults(folder, base=True, reference=reference))
    reversed_grids = [[28 * columns, 28 * rows] for columns, rows in GRIDS_RELEASED[::-1]]
    (folder / "preprocessor_config.json").write_text(json.dumps({"grids": reversed_grids}))
    assert any("different grids" in fault for fault in faults(folder))


def test_bfloat16_that_is_read_as_float16_and_the_reverse(tmp_path):
    half = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tiny28().items()}
    as_float16 = {name: tensor.view(np.float16) for name, tensor in half.items()}
    as_bfloat16 = {name: tensor.astype(np.float16).view(ml_dtypes.bfloat16) for name, tensor in tiny28().items()}
    assert tensors.check(list(tensors.measure(write(tmp_path / "good", half)))).faults == ()
    [found] = tensors.check(list(tensors.measure(write(tmp_path / "reverse", as_bfloat16)))).faults
    assert "write them again as float16" in found
    found = faults(write(tmp_path / "misread", as_float16, tiny28_settings()))
    assert any("write them again as bfloat16" in fault for fault in found)


def test_what_does_not_open_is_a_fault_and_the_tensors_are_shown(tmp_path, reference):
    arrays = tiny28()
    del arrays["vlm.lang_model.lm_head.weight"]
    sections = checking.check(write(tmp_path / "short", arrays, tiny28_settings()), Options())
    assert sections[0].rows and "lm_head" in sections[-1].faults[0]
    with pytest.raises(ValueError, match="none of ours"):
        checking.check(TINY28, Options(reference=TINY28 / "anyres.npz"))
    with pytest.raises(ValueError, match="no file or folder"):
        checking.check(tmp_path / "nothing", Options())


def test_run_folder_of_a_conversion_gives_what_its_source_gives(tmp_path, reference):
    assert main(["convert", str(TINY28), str(tmp_path / "run")]) == 0
    sections = checking.check(tmp_path / "run", Options(train_steps=0, reference=reference))
    assert not any(section.faults for section in sections)
    assert any("another layout" in note for section in sections for note in section.notes)
    assert any(row[0].startswith("decoder/layers/") and row[0].endswith("[1]") for row in sections[0].rows)


def test_reference_holds_what_it_was_given(reference):
    stored = read_reference(reference)
    assert stored.arrays["logits/0"].shape == (8, 303) and stored.ids is None and len(stored.first) == len(tiny28())
