"""BLIP-2's two stages as runs: the first learns from captions, the second begins with its queries."""

import contextlib
import dataclasses
import io
import json

import jax
import numpy as np
import PIL.Image
import pytest
from retrieval_files import put_set
import tiny_run

from xgenmm_jax.cli import evaluate
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.random_crops import RandomCrops
from xgenmm_jax.data.records import Caption, LazyImage
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.source import Mapped, records_of
from xgenmm_jax.data.text.caption_tokens import OWN_IDS
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip2 import Blip2Config
from xgenmm_jax.models.qformer import QFormerConfig, QFormerText
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import CheckpointConfig, Initialize, TrainConfig
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.objectives.caption_rows import CaptionData
from xgenmm_jax.training.objectives.query_pretraining import QueryPretraining
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import RULES, MeshConfig, make_mesh

CONNECTOR = QFormerConfig(width=32, inner=32, hidden=64, layers=2, heads=4, queries=4)


@pytest.fixture(scope="module")
def stage1(tmp_path_factory) -> TrainConfig:
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    text = QFormerText(len(Tokenizer.load(path)) + OWN_IDS, 16)
    return TrainConfig(
        name="blip2",
        model=Blip2Config(tiny_run.model(path).vision, CONNECTOR, text, projection=16),
        data=CaptionData(((Synthetic("caption", 200), 1.0),), str(path), 32, batch_rows=16, tokens=16),
        objective=QueryPretraining(),
        steps=12,
        optimizer=OptimizerConfig(peak_lr=5e-3, warmup_steps=2, decay_vectors=False, weight_decay=0.05),
        log_every=1,
        checkpoint=CheckpointConfig(every_seconds=0.0),
    )


def test_rows_open_with_a_row_of_the_table_and_tell_what_was_cut(stage1):
    data = dataclasses.replace(stage1.data, tokens=8)
    with contextlib.closing(stage1.objective.batches(stage1.model, data, 0, State(), 0, 1)) as batches:
        rows = next(batches)[0]
    tokenizer = Tokenizer.load(stage1.data.tokenizer)
    assert (rows.token_ids[:, 0] == len(tokenizer)).all() and stage1.model.decoding_id == len(tokenizer) + 1
    assert rows.is_cut.any() and (rows.token_ids[rows.is_cut, -1] == tokenizer.eos_id).all()
    same = rows.image_ids[:, None] == rows.image_ids[None]
    np.testing.assert_array_equal(same, (rows.pixels[:, None] == rows.pixels[None]).all((2, 3, 4)))
    small = dataclasses.replace(stage1.model, text=QFormerText(99, 16))
    with pytest.raises(ValueError, match=r"got 99 for a tokenizer of .* \[CLS\] and \[DEC\]"):
        stage1.objective.batches(small, data, 0, State(), 0, 1)


class TwoImages:
    """Captions of two images in turn, one of pixels and one of a file."""

    def open(self):
        pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), np.uint8)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels[0]).save(buffer, "PNG")
        of_file = lambda: image_from_bytes(buffer.getvalue(), "image", official=True)  # noqa: E731
        of_pixels = lambda: LazyImage((90, 60), lambda: PIL.Image.fromarray(pixels[1]))  # noqa: E731
        words = ("red", "blue", "circle", "square", "center", "the", "and", "a")
        captions = [Caption(str(n), (of_file, of_pixels)[n % 2](), word) for n, word in enumerate(words)]
        return records_of(captions, "two")

    def files(self):
        return []


def test_captions_of_one_image_are_told_in_its_random_crops_too(stage1):
    """Crops of one image were two images, and each a negative of the other's caption."""
    data = dataclasses.replace(stage1.data, mixture=((Mapped(TwoImages(), RandomCrops()), 1.0),), batch_rows=8)
    with contextlib.closing(stage1.objective.batches(stage1.model, data, 0, State(), 0, 1)) as batches:
        rows, ids, _ = next(batches)
    is_odd = np.array([int(one) % 2 for one in ids])
    np.testing.assert_array_equal(rows.image_ids[:, None] == rows.image_ids[None], is_odd[:, None] == is_odd[None])
    assert len({one.tobytes() for one in rows.pixels}) == 8


def test_every_parameter_has_a_place_on_a_mesh(stage1):
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    program = assemble(dataclasses.replace(stage1, optimizer=OptimizerConfig(algorithm="muon")), mesh)
    kernels = program.abstract.params["connector"]["layers"]["layer0"]
    spec = kernels["cross"]["key_value"]["kernel"].sharding.spec
    assert [axis for axis in spec if axis] == ["fsdp", "tensor"]
    assert {"embed", "vision_embed"} <= set(RULES)
    assert not any(jax.tree.leaves(program.trainable["vision"]))
    assert all(jax.tree.leaves({part: program.trainable[part] for part in ("connector", "text", "heads")}))


def test_micro_batches_of_one_pair_are_refused_before_anything_is_written(stage1, tmp_path):
    with pytest.raises(ValueError, match="micro-batches of 1 pair, which has no negative"):
        train(dataclasses.replace(stage1, accumulation=16), tmp_path / "run", devices=jax.devices()[:1])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["run", "vision"])
@pytest.mark.parametrize("name", ["blip2_pretrained.pth", "."])
def test_a_pickle_to_start_from_is_told_as_one(stage1, tmp_path, field, name):
    """It was called no safetensors file that should be copied again, or a folder without a checkpoint."""
    (tmp_path / "blip2_pretrained.pth").write_bytes(b"\x80\x02}")
    config = dataclasses.replace(stage1, initialize=Initialize(**{field: str(tmp_path / name)}))
    with pytest.raises(ValueError, match="is a pickle.*weights_only=True.*safetensors"):
        train(config, tmp_path / "run", devices=jax.devices()[:1])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_second_stage_begins_with_the_queries_of_the_first(stage1, tmp_path):
    first = train(stage1, tmp_path / "stage1", devices=jax.devices()[:1])
    rows = read_metrics(tmp_path / "stage1")
    assert rows[-1]["caption"] < rows[0]["caption"] - 0.5 and rows[-1]["loss"] < rows[0]["loss"]
    assert {"matching", "contrast", "retrieval", "matched", "captions_cut", "mfu"} & set(rows[0])
    # The first stage retrieves, from files of the published form.
    put_set(tmp_path)
    assert evaluate.main([str(tmp_path / "stage1"), "--tasks", "retrieval", "--data", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "stage1" / "evaluation" / "retrieval.json").read_text())["flickr30k_retrieval"]
    assert (told["images"], told["texts"]) == (3, 6) and 0 <= told["matched"]["r_mean"] <= 100
    assert evaluate.main([str(tmp_path / "stage1"), "--tasks", "drawn_retrieval"]) == 0
    told = json.loads((tmp_path / "stage1" / "evaluation" / "retrieval.json").read_text())["drawn_retrieval"]
    assert told["images"] == told["texts"] == 200
    tiny = tiny_run.config(stage1.data.tokenizer, steps=1)
    model = dataclasses.replace(tiny.model, connector=dataclasses.replace(CONNECTOR, out_width=32))
    start = Initialize(
        vision=str(tmp_path / "stage1"), connector=str(tmp_path / "stage1"), fresh=("connector/projection",)
    )
    still = dataclasses.replace(tiny.optimizer, peak_lr=0.0, warmup_steps=0)
    config = dataclasses.replace(
        tiny, model=model, initialize=start, freeze=("vision", "decoder"), optimizer=still, mesh=MeshConfig()
    )
    second = train(config, tmp_path / "stage2", devices=jax.devices()[:1])
    connector = dict(second.params["connector"])
    assert connector.pop("projection")["kernel"].shape == (32, 32)
    jax.tree.map(np.testing.assert_array_equal, connector, first.params["connector"])
    with pytest.raises(ValueError, match="connector/projection"):
        train(dataclasses.replace(config, initialize=dataclasses.replace(start, fresh=())), tmp_path / "other")
