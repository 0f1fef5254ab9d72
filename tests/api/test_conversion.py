"""Imported folders serve as runs: loaded whole, part by part, and without a run folder straight onto a mesh."""

from dataclasses import replace
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from released_parameters import read_tree

from xgenmm_jax import api
from xgenmm_jax.api.conversion import export_checkpoint, import_run, load_params, run_config
from xgenmm_jax.convert import trees
from xgenmm_jax.convert.importing import open_source
from xgenmm_jax.convert.tensor_shapes import Overrides
from xgenmm_jax.data.anyres import GRIDS_RELEASED
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.nano.captioner import CaptionerConfig
from xgenmm_jax.nano.text_tower import TextTowerConfig
from xgenmm_jax.nano.tower_pretraining import TowerConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import load_config, save_config
from xgenmm_jax.training.runs import checkpoints
from xgenmm_jax.training.runs.run_folder import CONFIG_FILE
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, param_shardings

GOLDENS = Path(__file__).parents[1] / "goldens"
TINY28 = GOLDENS / "xgenmm_tiny28"


def abstract_of(config, mesh=None):
    boxed = trees.abstract(config)
    shardings = param_shardings(mesh or make_mesh(MeshConfig()), boxed)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        unboxed(boxed),
        shardings,
    )


def test_released_settings_are_the_run_folders(tmp_path):
    with open_source(TINY28) as source:
        import_run(source, tmp_path / "run")
        expected = read_tree(source)
    config = load_config(tmp_path / "run")
    assert isinstance(config.model, VLMConfig) and config.model.token_sampling.value == "strips"
    assert config.data.anyres.grids == ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    assert (config.data.anyres.view_px, config.data.anyres.view_cells) == (28, 2)
    assert config.model.decoder.window.value == "w_plus_1" and config.data.chat.system.startswith("A chat between")
    restored = checkpoints.restore_params(tmp_path / "run", abstract_of(config.model))
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


@pytest.mark.parametrize("grids", ["28x56", [28, 56], [[28, 57]], [[14, 28]], [["28", "56"]], [[28, 56, 84]]])
def test_grids_that_are_no_multiples_of_a_view_are_refused(tmp_path, grids):
    """28 x 57 was taken for 1 x 2 views, and a text for an error of unpacking."""
    settings = json.loads((TINY28 / "config.json").read_text())
    settings["vision_encoder_config"]["anyres_grids"] = grids
    (tmp_path / "model.safetensors").symlink_to(TINY28 / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with open_source(tmp_path) as source:
        with pytest.raises(ValueError, match="has the grid .*, wanted .width, height. in multiples of views of 28 px"):
            run_config(source, None, "")
        assert run_config(source, True, "").data.anyres.grids == ()


@pytest.mark.parametrize(
    ("processor", "base", "grids"),
    [
        (None, None, GRIDS_RELEASED),
        (None, True, ()),
        ({"grids": None}, None, ()),
        ({"grids": None}, False, GRIDS_RELEASED),
        ({"grids": [[28, 56], [84, 28]]}, None, ((1, 2), (3, 1))),
        ({}, None, GRIDS_RELEASED),
    ],
)
def test_base_model_sees_one_view(tmp_path, processor, base, grids):
    """Its tensors and config.json are those of the instruct models: what its processor lacks tells."""
    folder = tmp_path / "released"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(TINY28 / "model.safetensors")
    settings = json.loads((TINY28 / "config.json").read_text())
    # The golden writes out what is a default of the official code, and not in its config.json.
    del settings["vision_encoder_config"]["anyres_grids"]
    (folder / "config.json").write_text(json.dumps(settings))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    with open_source(folder) as source:
        import_run(source, tmp_path / "run", base=base)
    assert load_config(tmp_path / "run").data.anyres.grids == grids
    # What we write of it is read as the same again.
    export_checkpoint(tmp_path / "run", tmp_path / "out", "xgenmm")
    with open_source(tmp_path / "out") as source:
        assert run_config(source, None, "").data.anyres.grids == grids


def test_a_tower_alone_serves_as_part_and_answers_no_question(tmp_path):
    with open_source(GOLDENS / "big_vision_scanned/siglip.npz") as source:
        import_run(source, tmp_path / "tower")
        expected, config = read_tree(source), source.config
    restored = checkpoints.restore_params(tmp_path / "tower", abstract_of(config))
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    with pytest.raises(ValueError, match="holds a ViT alone, which answers no questions"):
        api.load(tmp_path / "tower")


def test_a_tower_is_exported_without_what_trained_beside_it(tmp_path):
    """A run of its pre-training, whose model has a text tower and a captioner too."""
    with open_source(GOLDENS / "big_vision_scanned/siglip.npz") as source:
        import_run(source, tmp_path / "run")
        expected, vision = read_tree(source), source.config
    sizes = (8, 16, 1, 2, 11, 6)
    text = TextTowerConfig(*sizes, out_width=vision.width)
    run = replace(load_config(tmp_path / "run"), model=TowerConfig(vision, text, CaptionerConfig(*sizes)))
    save_config(run, tmp_path / "run" / CONFIG_FILE)
    export_checkpoint(tmp_path / "run", tmp_path / "out", "siglip")
    with open_source(tmp_path / "out") as source:
        jax.tree.map(np.testing.assert_array_equal, read_tree(source)["vision"], expected["vision"])
    save_config(replace(run, model=text), tmp_path / "run" / CONFIG_FILE)
    with pytest.raises(ValueError, match="holds a TextTowerConfig; give a run of a model, tower or decoder"):
        export_checkpoint(tmp_path / "run", tmp_path / "text", "siglip")


def test_tokenizer_of_another_model_is_refused(tmp_path):
    """The golden has 300 ids, Phi-3 has 32012."""
    phi3 = GOLDENS / "phi3_tokenizer/tokenizer.model"
    with open_source(TINY28) as source:
        with pytest.raises(ValueError, match="has 32012 ids, the checkpoint's embedding 300"):
            import_run(source, tmp_path / "run", tokenizer=phi3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_released_folder_onto_a_mesh(dtype):
    """Layer by layer onto two by two devices: as the table of shardings says, and the same numbers."""
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), jax.devices()[:4])
    config, params = load_params(TINY28, dtype, mesh)
    with open_source(TINY28) as source:
        assert config == source.config
        expected = read_tree(source, np.dtype(jax.numpy.dtype(dtype)))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    jax.tree.map(lambda leaf, like: leaf.sharding == like.sharding or pytest.fail(), params, abstract_of(config, mesh))
    assert len(params["decoder"]["layers"]["qkv_proj"]["kernel"].addressable_shards[0].data.devices()) == 1


def test_a_part_does_not_load_as_a_model():
    with pytest.raises(ValueError, match="is CLIP tower .open_clip., a part of a model"):
        load_params(GOLDENS / "open_clip_vit", overrides=Overrides(vision_heads=4))
