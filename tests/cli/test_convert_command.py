"""The command from a released folder to a run and back."""

from pathlib import Path

import pytest

from xgenmm_jax.cli.main import main

GOLDENS = Path(__file__).parents[1] / "goldens"


def test_there_and_back(tmp_path, capsys):
    run, out = str(tmp_path / "run"), str(tmp_path / "out")
    assert main(["convert", str(GOLDENS / "xgenmm_tiny28"), run]) == 0
    said = capsys.readouterr().out
    assert "xGen-MM v1.5, 1,400,931 parameters, F32" in said and "no tokenizer.model" in said
    assert main(["convert", run, out, "--to", "xgenmm"]) == 0
    assert sorted(path.name for path in Path(out).iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    card = Path(out, "README.md").read_text()
    assert card.startswith("---\n") and "# imported/xgenmm_tiny28" in card and "Imported weights, as they were" in card
    capsys.readouterr()
    assert main(["convert", run, out, "--to", "phi3"]) == 1
    assert "exists; give a new folder" in capsys.readouterr().err


def test_tower_with_its_heads_given(tmp_path, capsys):
    source = str(GOLDENS / "open_clip_vit/open_clip_model.safetensors")
    assert main(["convert", source, str(tmp_path / "run")]) == 1
    assert "--vision-heads" in capsys.readouterr().err
    assert main(["convert", source, str(tmp_path / "run"), "--vision-heads", "4"]) == 0
    assert "CLIP tower (open_clip)" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["xgenmm", "siglip", "phi3"])
def test_export_of_no_run(tmp_path, capsys, layout):
    assert main(["convert", str(tmp_path), str(tmp_path / "out"), "--to", layout]) == 1
    assert "has no config.json" in capsys.readouterr().err
