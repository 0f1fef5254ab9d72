"""Drawing and understanding in the same rows: one loss of both."""

import contextlib
import dataclasses

import drawing_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.source import Mapped, records_of
from xgenmm_jax.models import blip3o
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives import flow_matching
from xgenmm_jax.training.objectives.base import Sum
from xgenmm_jax.training.objectives.drawing_rows import drawn_items
from xgenmm_jax.training.objectives.flow_matching import FlowMatching
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.objectives.pixel_decoding import PixelDecoding
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh, put_rows, row_sharding
from xgenmm_jax.training.step import gradient

JOINT = FlowMatching(text_weight=0.5)


@pytest.fixture(scope="module")
def rows() -> DrawingBatch:
    """Captions to draw beside captions of images to understand."""
    base = cases.data(segments=4, batch_rows=4)
    data = dataclasses.replace(
        base,
        mixture=((Mapped(cases.Pictures(), cases.PROMPT), 1.0), (cases.Pictures(), 1.0)),
        row=dataclasses.replace(base.row, crops=4, images=4),
    )
    batches = loader.batches(data, seed=3)
    try:
        return jax.tree.map(jnp.asarray, next(batches).batch)
    finally:
        batches.close()


@dataclasses.dataclass(frozen=True)
class Chat:
    """One conversation without an image."""

    def open(self):
        turns = (Turn("user", "what is red?"), Turn("assistant", "a star"))
        return records_of([Conversation("chat", (), turns)], "chat")

    def files(self):
        return []


@pytest.mark.parametrize("source", [Chat(), cases.Pictures()])
def test_samples_that_no_loss_reads_are_refused(source):
    """Of those without an image nothing was said, and nothing of them was learned."""
    base = cases.data(segments=4, batch_rows=2)
    data = dataclasses.replace(base, mixture=(*base.mixture, (source, 1.0)))
    for objective in (FlowMatching(), PixelDecoding()):
        opened = objective.batches(cases.model(), data, 3, State(), 0, 1)
        with contextlib.closing(opened), pytest.raises(ValueError, match=f"{type(objective).__name__} reads captions"):
            for _ in range(8):
                next(opened)


@pytest.mark.slow  # compiles two programs
def test_the_loss_is_the_mean_over_images_and_that_over_tokens(rows):
    model = cases.model()
    params = cases.params(model)

    @jax.jit
    def joint(rows):
        total, parts = JOINT.loss(model, params, None, rows, jax.random.key(0), ())
        return total.total / jnp.maximum(total.weight, 1), total.weight, parts

    @jax.jit
    def text(batch):
        total, _ = NextToken().loss(model, params, None, batch, jax.random.key(0), ())
        return total.total / total.weight

    images = int(np.sum(rows.target_segment > 0))
    assert images and rows.batch.loss_mask.any() and (rows.batch.slot >= 0).any()
    loss, weight, parts = joint(rows)
    expected = text(rows.batch)
    np.testing.assert_allclose(parts["text"].total / parts["text"].weight, expected, rtol=1e-4)
    np.testing.assert_allclose(loss, parts["flow"].total / images + 0.5 * expected, rtol=1e-4)
    assert weight == images
    # What a batch without an image to draw has of text was thrown away.
    loss, weight, _ = joint(rows._replace(target_segment=jnp.zeros_like(rows.target_segment)))
    np.testing.assert_allclose(loss, 0.5 * expected, rtol=1e-4)
    assert weight == 0


def test_micro_batches_give_the_mean_over_all_images_and_over_all_tokens(rows, monkeypatch):
    """One without an image counted as one of a single image: with accumulation the loss was another."""

    def items(objective, model, params, rows, hidden, draws):
        return drawn_items(rows, params["w"] * rows.target_seed[..., 0].astype(jnp.float32) / 2.0**32)

    def text(model, params, rows, hidden, chunk):
        ids = jnp.where(rows.batch.loss_mask, rows.batch.token_ids, 0)
        return Sum(params["w"] * jnp.sum(ids) / 1000, jnp.sum(rows.batch.loss_mask).astype(jnp.float32))

    monkeypatch.setattr(blip3o, "states", lambda *_, **__: jnp.zeros((1, 1, 1)))
    monkeypatch.setattr(FlowMatching, "_items", items)
    monkeypatch.setattr(flow_matching, "text_loss", text)
    # Rows 1 and 3 are the second of two micro-batches.
    rows = rows._replace(target_segment=rows.target_segment.at[1::2].set(0))
    is_target, is_text = np.asarray(rows.target_segment > 0), np.asarray(rows.batch.loss_mask)
    assert is_target[::2].any() and is_text[1::2].any()
    seeds, ids = np.asarray(rows.target_seed)[..., 0] / 2**32, np.asarray(rows.batch.token_ids) / 1000
    expected = seeds[is_target].mean() + 0.5 * ids[is_text].mean()
    for accumulation in (1, 2, 4):
        np.testing.assert_allclose(accumulated(rows, accumulation), (expected, expected), rtol=1e-5)
    # Of a batch without an image text is learned.
    rows = rows._replace(target_segment=jnp.zeros_like(rows.target_segment))
    expected = 0.5 * ids[is_text].mean()
    np.testing.assert_allclose(accumulated(rows, 2), (expected, expected), rtol=1e-5)


def accumulated(rows: DrawingBatch, accumulation: int) -> tuple[float, float]:
    """The joint loss, and its gradient with respect to a factor of all of it."""
    data = cases.data(segments=4, batch_rows=4)
    config = TrainConfig("joint", cases.model(), data, JOINT, steps=1, accumulation=accumulation)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh), axis_rules():
        step = jax.jit(lambda w, rows: gradient(config, {"w": w}, {"w": None}, None, rows, jax.random.key(0), mesh))
        grads, loss, _ = step(jnp.float32(1), put_rows(jax.device_get(rows), row_sharding(mesh)))
    return float(loss), float(grads["w"])
