"""Pre-training of the vision tower, and its way into a VLM."""

import contextlib
import dataclasses
import io
import itertools
from pathlib import Path

from bound_objective import Bound
import jax
import numpy as np
import PIL.Image
import pytest
from random_parameters import random_parameters
from safetensors import safe_open
import tiny_run

from xgenmm_jax.data.errors import BAD_IMAGE, UNREADABLE, SourceError
from xgenmm_jax.data.readers.records import RecordFiles, write_records
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.text import caption_tokens
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.nano.captioner import CaptionerConfig
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.nano.text_tower import TextTowerConfig
from xgenmm_jax.nano.tower_pretraining import ContrastCaption, TowerConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.config import CheckpointConfig, Initialize, TrainConfig
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives.caption_rows import CaptionBatch, CaptionData, caption_batches
from xgenmm_jax.training.optimizer import OptimizerConfig, make_optimizer, trainable_mask
from xgenmm_jax.training.runs.initialize import initialize_params, save_weights
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.training.step import abstract_state


def words_of(data: CaptionData) -> caption_tokens.CaptionTokens:
    return caption_tokens.plain(Tokenizer.load(data.tokenizer))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    vision, rows = tiny_run.model(path).vision, Tokenizer.load(path).vocab_size + 64
    sizes = {"width": 32, "hidden": 64, "layers": 1, "heads": 4, "vocab_size": rows, "max_positions": 24}
    return TrainConfig(
        name="tower",
        model=TowerConfig(vision, TextTowerConfig(**sizes, out_width=vision.width), CaptionerConfig(**sizes)),
        data=CaptionData(((Synthetic("caption", 200), 1.0),), str(path), 32, batch_rows=16, tokens=24),
        objective=ContrastCaption(),
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
    save_weights(file, {"vision": result.params["vision"]}, {"seed": "0"})
    with safe_open(file, "numpy") as opened:
        assert opened.metadata() == {"seed": "0"}
    vlm_config = dataclasses.replace(tiny_run.config(Path(config.data.tokenizer)), mesh=MeshConfig(fsdp=4, tensor=2))
    objective = Bound.of(vlm_config)
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    trainable = trainable_mask(unboxed(boxed), vlm_config.freeze)
    mesh = make_mesh(vlm_config.mesh)
    abstract = abstract_state(boxed, trainable, make_optimizer(vlm_config.optimizer, boxed), mesh).params
    for source in (file, tmp_path / "tower"):
        with jax.set_mesh(mesh):
            params = initialize_params(Initialize(vision=str(source)), objective.init, 0, abstract)
        jax.tree.map(np.testing.assert_array_equal, params["vision"], result.params["vision"])
        # Drawn without the tower, they are what they are beside it, on one device as on eight.
        drawn = {part: params[part] for part in ("connector", "decoder")}
        whole = {part: unboxed(jax.jit(objective.init)(jax.random.key(0)))[part] for part in drawn}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), drawn, whole)

    with pytest.raises(ValueError, match="decoder/embedding is missing.*vision/.* is spare"):
        initialize_params(Initialize(decoder=str(file)), objective.init, 0, abstract)
    with pytest.raises(ValueError, match="initialize.vision: no file or folder 'nowhere.safetensors'"):
        initialize_params(Initialize(vision="nowhere.safetensors"), objective.init, 0, abstract)


@pytest.mark.slow
def test_softmax_contrast_is_one_field_away(config):
    loss = dataclasses.replace(config.objective, contrast="softmax", caption_weight=0.0)
    objective = Bound(loss, config.model, config.data, ())
    params = unboxed(jax.jit(objective.init)(jax.random.key(0)))
    batches = objective.batches(0, State(), 0, 1)
    rows = next(batches)[0]
    batches.close()
    total, _ = jax.jit(objective.loss)(params, None, rows, jax.random.key(0))
    assert 0.5 * np.log(16) < float(total.total) / 16 < 3 * np.log(16)


def test_batches_resume_and_split_over_hosts(config):
    def take(count, state=(0, 0), host=0, hosts=1):
        batches = caption_batches(config.data, words_of(config.data), 3, State(*state), host, hosts)
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
    joined = CaptionBatch(*(np.concatenate(leaves) for leaves in zip(halves[0][0], halves[1][0], strict=True)))
    np.testing.assert_array_equal(joined.pixels, whole[0][0].pixels)
    assert halves[0][2] == whole[0][2]


def captions(folder, bad: set[int], count: int = 40) -> RecordFiles:
    """Captioned noise in a file; of these numbers the image is cut, and record 5 is damaged where 5 is among them."""
    noise = np.random.default_rng(0).integers(0, 255, (count, 40, 48, 3), np.uint8)

    def record(n: int):
        file = io.BytesIO()
        PIL.Image.fromarray(noise[n]).save(file, "PNG")
        blob = file.getvalue()[: 900 if n in bad else None]
        return Caption(f"c{n}", LazyImage((48, 40), lambda: None), f"the red circle {n}"), [blob]

    path = folder / f"{'-'.join(map(str, sorted(bad)))}.array_record"
    write_records(path, map(record, range(count)))
    if 5 in bad:
        data = bytearray(path.read_bytes())
        data[data.index(b'"c5"')] = 0
        path.write_bytes(data)
    return RecordFiles(str(path))


def caption_data(config, source) -> CaptionData:
    return dataclasses.replace(config.data, mixture=((source, 1.0),))


def test_captions_that_cannot_be_read_leave_their_place_empty(config, tmp_path, caplog):
    """An image that is cut ended the tower's run; what is left out must not change what the others are."""

    def take(data, count, state=(0, 0), host=0, hosts=1):
        with contextlib.closing(caption_batches(data, words_of(data), 3, State(*state), host, hosts)) as batches:
            return list(itertools.islice(batches, count))

    bad = {5, 11, 30, 31}
    damaged, whole = (take(caption_data(config, captions(tmp_path, some)), 4) for some in (bad, set()))
    for (rows, ids, state), (expected, expected_ids, expected_state) in zip(damaged, whole, strict=True):
        is_gone = np.array([id_ in {f"c{n}" for n in bad} for id_ in expected_ids])
        assert ids == ["" if gone else id_ for gone, id_ in zip(is_gone, expected_ids, strict=True)]
        assert state == expected_state and len(ids.skipped) == is_gone.sum() and expected_ids.skipped == ()
        np.testing.assert_array_equal(rows.pixels[~is_gone], expected.pixels[~is_gone])
        np.testing.assert_array_equal(rows.token_ids[~is_gone], expected.token_ids[~is_gone])
        assert not rows.valid[is_gone].any() and not rows.pixels[is_gone].any() and rows.valid[~is_gone, 0].all()
    skipped = [(skip.record, skip.reason) for _, ids, _ in damaged for skip in ids.skipped]
    reasons = dict(skipped)
    assert reasons.pop("c11") == reasons.pop("c30") == reasons.pop("c31") == BAD_IMAGE
    assert list(reasons.values()) == [UNREADABLE] and "record 5 of" in list(reasons)[0]
    assert len(skipped) > 4 and caplog.text.count("left out c11 of") == 1
    data = caption_data(config, captions(tmp_path, bad))
    halves = [take(data, 4, host=host, hosts=2) for host in (0, 1)]
    for (_, ids, _), (_, one, _), (_, other, _) in zip(damaged, *halves, strict=True):
        assert ids == one + other and sorted(ids.skipped) == sorted(one.skipped + other.skipped)
    assert [one[1].skipped for one in take(data, 2, damaged[1][2])] == [one[1].skipped for one in damaged[2:]]


def test_a_tower_without_a_caption_that_can_be_read_ends(config, tmp_path):
    data = caption_data(config, captions(tmp_path, set(range(40))))
    with contextlib.closing(caption_batches(data, words_of(data), 3, State())) as batches:
        with pytest.raises(SourceError, match="not one of 40 samples can be used: .*unreadable image"):
            list(itertools.islice(batches, 9))


@pytest.mark.parametrize("contrast", ["sigmoid", "softmax"])
def test_an_empty_place_adds_nothing_to_the_towers_loss(config, contrast):
    loss = dataclasses.replace(config.objective, contrast=contrast, parallel=0.0)
    objective = Bound(loss, config.model, config.data, ())
    params = random_parameters(objective.init)
    with contextlib.closing(objective.batches(0, State(), 0, 1)) as batches:
        rows = next(batches)[0]
    gone = np.isin(np.arange(16), [0, 7, 15])
    pad = Tokenizer.load(config.data.tokenizer).pad_id
    empty = rows._replace(
        pixels=np.where(gone[:, None, None, None], 0, rows.pixels).astype(np.uint8),
        token_ids=np.where(gone[:, None], pad, rows.token_ids).astype(np.int32),
        valid=rows.valid & ~gone[:, None],
    )
    rest = CaptionBatch(*(leaf[~gone] for leaf in rows))

    def total(params, rows):
        loss, metrics = objective.loss(params, None, rows, jax.random.key(0))
        return loss.total, (loss, metrics)

    gradient = jax.jit(jax.grad(total, has_aux=True))
    (got, of_empty), (want, of_rest) = (gradient(params, batch) for batch in (empty, rest))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), of_empty, of_rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), got, want)
    assert of_empty[0].weight == 13 and config.objective.count(empty).samples == 13
    nothing = empty._replace(
        pixels=empty.pixels * 0, token_ids=np.full_like(empty.token_ids, pad), valid=np.zeros_like(empty.valid)
    )
    got, (summed, _) = gradient(params, nothing)
    assert summed.total == 0 == summed.weight
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))
