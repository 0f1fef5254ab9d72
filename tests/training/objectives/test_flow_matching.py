"""Captions to draw: rows, random draws, losses and gradients, packed as separate."""

import dataclasses

import drawing_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.rows.config import Asking
from xgenmm_jax.data.rows.order import State
from xgenmm_jax.data.source import Mapped
from xgenmm_jax.data.text.chat import LLAMA3_STYLE, ChatStyle
from xgenmm_jax.data.to_draw import DrawingPrompt
from xgenmm_jax.models import drawing_features
from xgenmm_jax.models.blip3o import Blip3oConfig, LinearHead
from xgenmm_jax.training.objectives import drawing_rows, flow_matching
from xgenmm_jax.training.objectives.feature_regression import FeatureRegression
from xgenmm_jax.training.objectives.flow_matching import FlowMatching, draw, noised
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.objectives.packed_rows import PackedRows
from xgenmm_jax.training.optimizer import merge, split, trainable_mask


@pytest.fixture(scope="module")
def model() -> Blip3oConfig:
    return cases.model()


@pytest.fixture(scope="module")
def params(model) -> dict:
    return cases.params(model)


def window(segments: int, batch_rows: int) -> DrawingBatch:
    """The first eight samples, one window of the stream."""
    batches = loader.batches(cases.data(segments, batch_rows), seed=3)
    try:
        return next(batches).batch
    finally:
        batches.close()


def loss_and_gradient(model, params, rows: DrawingBatch, objective=FlowMatching()):  # noqa: B008
    trained, frozen = split(params, trainable_mask(params, cases.FROZEN))

    def loss(trained):
        total, _ = objective.loss(
            model, merge(trained, frozen), None, jax.tree.map(jnp.asarray, rows), jax.random.key(9), cases.FROZEN
        )
        return total.total / total.weight

    return jax.jit(jax.value_and_grad(loss))(trained)


def test_a_row_has_its_queries_targets_and_seeds_where_they_belong():
    rows = window(segments=8, batch_rows=1)
    targets = rows.target_segment[0]
    assert (targets == np.arange(1, len(targets) + 1)).all() and len(targets) == 8
    for number, segment in enumerate(targets):
        is_of = rows.batch.segment_ids[0] == segment
        assert rows.query[0][is_of][-1 - cases.QUERIES :].tolist() == list(range(1 + cases.QUERIES))
        assert (rows.query[0][is_of][: -1 - cases.QUERIES] == -1).all()
        assert rows.target_pixels[0, number].std(axis=(0, 1)).max() == 0, "a picture has one color"
    assert not rows.batch.loss_mask.any()
    assert len({tuple(seed) for seed in rows.target_seed[0].tolist()}) == 8


def test_packed_rows_have_the_loss_and_the_gradient_of_separate_ones(model, params):
    packed, separate = window(8, 1), window(1, 8)
    order = {tuple(seed) for seed in packed.target_seed[0].tolist()}
    assert order == {tuple(seed) for seed in separate.target_seed[:, 0].tolist()}, "the same draws wherever packed"
    with jax.default_matmul_precision("highest"):
        loss, grads = loss_and_gradient(model, params, packed)
        expected_loss, expected = loss_and_gradient(model, params, separate)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    np.testing.assert_allclose(
        grads["drawing"]["queries"], expected["drawing"]["queries"], rtol=0, atol=2e-7
    )
    np.testing.assert_allclose(
        optax_norm(grads), optax_norm(expected), rtol=1e-5
    )


def optax_norm(tree) -> float:
    return float(jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree))))


def test_another_draw_of_a_record_has_other_noise():
    seeds = set()
    batches = loader.batches(cases.data(8, 1), seed=3)
    try:
        for _ in range(2):
            seeds |= {tuple(seed) for seed in next(batches).batch.target_seed[0].tolist()}
    finally:
        batches.close()
    assert len(seeds) == 16, "eight records, two epochs"


def test_several_draws_a_condition_are_their_mean(model, params, monkeypatch):
    """With draws = 2 the loss of an image is the mean over the draws of its keys 0 and 1."""
    rows = jax.tree.map(jnp.asarray, window(8, 1))

    def losses(draws: int) -> np.ndarray:
        return np.asarray(FlowMatching(draws=draws).items(model, params, None, rows, cases.FROZEN).values["loss"])

    with jax.default_matmul_precision("highest"):
        both, first = losses(2), losses(1)
        keys = drawing_rows.target_keys(rows, 2)
        monkeypatch.setattr(flow_matching, "target_keys", lambda *_: keys[1::2])
        second = losses(1)
    assert both.shape == (1, 8) and not np.allclose(first, second)
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-5)


def test_noise_and_features_are_mixed_by_sigma():
    features, noise = jnp.ones((3, 1, 1, 2)), jnp.full((3, 1, 1, 2), 5.0)
    x, time, velocity = noised(features, noise, jnp.array([0.0, 0.5, 0.9999]))
    np.testing.assert_allclose(time, [1000.0, 500.0, 1.0])
    np.testing.assert_allclose(x[:, 0, 0, 0], [5.0, 3.0, 1.004], rtol=1e-6)
    np.testing.assert_allclose(velocity, 4.0)


def test_a_dropped_condition_is_dropped_as_often_as_said():
    keys = jax.random.split(jax.random.key(0), 4000)
    dropped = draw(jnp.zeros((4000, 1, 1, 1)), keys, 0.1).is_dropped
    assert 0.08 < float(jnp.mean(dropped)) < 0.12


def test_statistics_are_those_of_the_images(model, params):
    rows = jax.tree.map(jnp.asarray, window(8, 1))
    unknown = {**params, "target": jax.tree.map(jnp.zeros_like, params["target"])}
    known = FlowMatching().prepare(model, unknown, iter([rows] * 1000))
    raw = drawing_features.raw_features(model, params, rows.target_pixels.reshape(-1, 64, 64, 3))
    np.testing.assert_allclose(known["target"]["mean"], jnp.mean(raw, axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(known["target"]["std"], jnp.std(raw, axis=(0, 1, 2)), rtol=1e-3, atol=1e-4)
    again = FlowMatching().prepare(model, known, iter([]))
    assert again is known, "measured once"


def test_a_linear_head_regresses_the_features(model):
    linear = dataclasses.replace(model, drawing=dataclasses.replace(model.drawing, head=LinearHead()))
    loss, grads = loss_and_gradient(linear, cases.params(linear), window(8, 1), FeatureRegression())
    assert np.isfinite(loss) and optax_norm(grads["drawing"]["queries"]) > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_px": 32}, "data.target_px: got 32"),
        ({"mixture": ((Mapped(cases.Pictures(), DrawingPrompt(7, "draw {caption}")), 1.0),)}, "asks with 7 queries"),
        ({"anyres": AnyRes(grids=(), view_px=32, view_cells=8)}, r"data\.anyres\.view_px: got 32"),
        ({"asked": Asking(AnyRes(view_px=384, view_cells=27))}, r"data\.asked\.anyres\.view_px: got 384"),
        ({"asked": Asking(AnyRes(view_px=64, view_cells=9))}, r"data\.asked\.anyres\.view_cells: got 9"),
    ],
)
def test_data_of_another_model_are_refused(model, change, words):
    """Views to be asked in were those of another tower, and nothing was said before the trained model was asked."""
    with pytest.raises(ValueError, match=words):
        FlowMatching().check(model, dataclasses.replace(cases.data(8, 1), **change))


@pytest.mark.parametrize(
    ("style", "words"),
    [
        (LLAMA3_STYLE, r"holds no special string of the tokenizer.*\(data\.asked\.chat\)"),
        (ChatStyle(footer="<|user|>\n"), r"data\.asked\.chat\.footer: got '<\|user\|>"),
    ],
)
def test_words_of_another_tokenizer_to_be_asked_in_are_refused(model, style, words):
    data = cases.data(8, 1)
    data = dataclasses.replace(data, asked=Asking(data.anyres, style))
    with pytest.raises(ValueError, match=words):
        next(FlowMatching().batches(model, data, 0, State(), 0, 1))


def test_captions_to_draw_without_an_objective_that_draws_are_refused(model):
    """The first step ended in an AttributeError."""
    with pytest.raises(ValueError, match="data.target_px: got 64, and NextToken learns from no captions to draw"):
        NextToken().check(model, cases.data(8, 1))


def test_the_row_with_a_sample_to_understand_is_named(model, monkeypatch):
    """The first row of the batch was, whichever had it."""
    rows = window(4, 2)
    loss_mask = np.zeros_like(rows.batch.loss_mask)
    loss_mask[1, 3] = True
    rows = rows._replace(batch=rows.batch._replace(loss_mask=loss_mask))
    opened = ((rows, ["picture 1 + picture 2", "picture 3 + chat"], State()) for _ in range(1))
    monkeypatch.setattr(PackedRows, "batches", lambda *_: opened)
    with pytest.raises(ValueError, match=r"\(in the row of picture 3 \+ chat\), and FlowMatching reads"):
        next(FlowMatching().batches(model, cases.data(4, 2), 0, State(), 0, 1))


def test_a_text_to_draw_without_target_px_is_refused():
    batches = loader.batches(dataclasses.replace(cases.data(8, 1), target_px=0), seed=0)
    with pytest.raises(ValueError, match="data.target_px is 0"):
        next(batches)
