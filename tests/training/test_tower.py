"""The vision tower's own training, and its way into a VLM."""

import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.data import sources
from xgenmm_jax.data.order import State
from xgenmm_jax.data.tokenizer import Tokenizer
from xgenmm_jax.models.captioner import CaptionerConfig
from xgenmm_jax.models.partitioning import unboxed
from xgenmm_jax.models.text_tower import TextTowerConfig
from xgenmm_jax.training.config import CheckpointConfig, Initialize, TrainConfig
from xgenmm_jax.training.initialize import initialize_params, save_weights, weights_metadata
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.optimizer import OptimizerConfig, make_optimizer, trainable_mask
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.training.step import abstract_state
from xgenmm_jax.training.tower import CaptionData, ContrastCaption, TowerBatch, TowerConfig, caption_batches


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    vision, rows = tiny_run.model(path).vision, Tokenizer.load(path).vocab_rows + 64
    sizes = {"width": 32, "hidden": 64, "layers": 1, "heads": 4, "vocab_rows": rows, "max_positions": 24}
    return TrainConfig(
        name="tower",
        model=TowerConfig(vision, TextTowerConfig(**sizes, out_width=vision.width), CaptionerConfig(**sizes)),
        data=CaptionData(((sources.Synthetic("caption", 200), 1.0),), str(path), 32, batch_rows=16, tokens=24),
        loss=ContrastCaption(),
        steps=8,
        optimizer=OptimizerConfig(peak_lr=5e-3, warmup_steps=2),
        freeze=(),
        log_every=1,
        checkpoint=CheckpointConfig(every_seconds=0.0),
    )


@pytest.mark.slow
def test_trains_and_its_weights_start_a_vlm(config, tmp_path):
    result = train(config, tmp_path / "tower", devices=jax.devices()[:1])
    rows = read_metrics(tmp_path / "tower")
    assert rows[-1]["caption"] < rows[0]["caption"] - 0.5 and rows[-1]["contrast"] < rows[0]["contrast"]
    assert {"retrieval", "tokens_per_second"} <= set(rows[0])

    file = tmp_path / "vision.safetensors"
    save_weights(file, "vision", result.params["vision"], {"seed": "0"})
    assert weights_metadata(file) == {"seed": "0"}
    vlm_config = dataclasses.replace(tiny_run.config(Path(config.data.tokenizer)), mesh=MeshConfig(fsdp=4, tensor=2))
    objective = vlm_config.objective()
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    trainable = trainable_mask(unboxed(boxed), vlm_config.freeze)
    mesh = make_mesh(vlm_config.mesh)
    abstract = abstract_state(objective, trainable, make_optimizer(vlm_config.optimizer, boxed), mesh).params
    for source in (file, tmp_path / "tower"):
        with jax.set_mesh(mesh):
            params = initialize_params(Initialize(vision=str(source)), objective, 0, abstract)
        jax.tree.map(np.testing.assert_array_equal, params["vision"], result.params["vision"])
        # Drawn without the tower, they are what they are beside it, on one device as on eight.
        drawn = {part: params[part] for part in ("connector", "decoder")}
        whole = {part: unboxed(jax.jit(objective.init)(jax.random.key(0)))[part] for part in drawn}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), drawn, whole)

    with pytest.raises(ValueError, match="decoder/embedding is missing.*vision/.* is spare"):
        initialize_params(Initialize(decoder=str(file)), objective, 0, abstract)
    with pytest.raises(ValueError, match="no 'nowhere.safetensors' here"):
        initialize_params(Initialize(vision="nowhere.safetensors"), objective, 0, abstract)


@pytest.mark.slow
def test_softmax_contrast_is_one_field_away(config):
    loss = dataclasses.replace(config.loss, contrast="softmax", caption_weight=0.0)
    objective = loss.objective(config.model, config.data)
    params = unboxed(jax.jit(objective.init)(jax.random.key(0)))
    batches = objective.batches(0, State(), 0, 1)
    rows = next(batches)[0]
    batches.close()
    total, _ = jax.jit(objective.loss)(params, None, rows, jax.random.key(0))
    assert 0.5 * np.log(16) < float(total.total) / 16 < 3 * np.log(16)


def test_batches_resume_and_split_over_hosts(config):
    def take(count, state=(0, 0), host=0, hosts=1):
        batches = caption_batches(config.data, config.model, 3, State(*state), host, hosts)
        taken = list(itertools.islice(batches, count))
        batches.close()
        return taken

    whole = take(3)
    again = take(1, whole[1][2])
    assert again[0][1] == whole[2][1]
    for one, other in zip(again[0][0], whole[2][0], strict=True):
        np.testing.assert_array_equal(one, other)
    halves = [take(1, host=host, hosts=2)[0] for host in (0, 1)]
    assert halves[0][1] + halves[1][1] == whole[0][1]
    joined = TowerBatch(*(np.concatenate(leaves) for leaves in zip(halves[0][0], halves[1][0], strict=True)))
    np.testing.assert_array_equal(joined.pixels, whole[0][0].pixels)
    assert halves[0][2] == whole[0][2]
