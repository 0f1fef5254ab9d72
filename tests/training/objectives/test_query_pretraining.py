"""BLIP-2's first stage against LAVIS' own losses, gradients and step of AdamW at a tiny size."""

from dataclasses import replace

import blip2_goldens as goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.convert.formats import blip2 as names
from xgenmm_jax.models import blip2
from xgenmm_jax.training.objectives import query_losses
from xgenmm_jax.training.objectives.caption_rows import CaptionBatch, CaptionData
from xgenmm_jax.training.objectives.query_losses import Contrast, Negatives
from xgenmm_jax.training.objectives.query_pretraining import QueryPretraining
from xgenmm_jax.training.optimizer import OptimizerConfig, make_optimizer

OFFICIAL = QueryPretraining(finds_same=False)
FREEZE = ("vision",)
RULES = names.stage1_rules(goldens.CONFIG, "lavis")


def rows(image_ids=range(4)) -> CaptionBatch:
    """The golden's; its pixels are floats that are normalised already."""
    ids, valid = goldens.text()
    return CaptionBatch(
        goldens.pixels(), ids, valid, jnp.asarray(list(image_ids), jnp.uint32), jnp.zeros(len(ids), bool)
    )


def drawn(prefix: str = "") -> Negatives:
    """The negatives that the official code drew."""
    one = goldens.golden("lavis/stage1")
    pair = (one[f"{prefix}negative_{name}"].reshape(-1) for name in ("image_of_text", "text_of_image"))
    return Negatives(*(jnp.asarray(index, jnp.int32) for index in pair))


def means(losses) -> dict:
    return {
        "itc": jnp.mean(losses.contrast),
        "itm": jnp.sum(losses.matching * losses.matching_weight) / jnp.sum(losses.matching_weight),
        "lm": jnp.sum(losses.caption) / jnp.sum(losses.caption_weight),
    }


@jax.jit
def forward(batch: CaptionBatch, negatives: Negatives):
    """One program for all tests: no two images or texts of the golden are equal, so nothing is told to be the same."""
    objective = QueryPretraining()
    return objective.losses(goldens.CONFIG, goldens.stage1(), batch, FREEZE, lambda *_: negatives)


def gradient(objective: QueryPretraining) -> dict:
    trained = {part: leaves for part, leaves in goldens.stage1().items() if part != "vision"}
    negatives = drawn()

    def total(trained):
        params = {"vision": goldens.stage1()["vision"], **trained}
        return sum(means(objective.losses(goldens.CONFIG, params, rows(), FREEZE, lambda *_: negatives)).values())

    with jax.default_matmul_precision("highest"):
        return jax.jit(jax.grad(total))(trained)


@pytest.fixture(scope="module")
def official() -> dict:
    return gradient(OFFICIAL)


def check_losses(got: dict, prefix: str = "") -> None:
    one = goldens.golden("lavis/stage1")
    for name, value in got.items():
        # Two processes have a mean each, of as many pairs.
        assert abs(float(value) - one[f"{prefix}loss_{name}"].mean()) < 1e-6 * max(1, abs(float(value))), name


def in_their_names(tree: dict) -> dict:
    """Tied tensors stand twice in their file; torch names the first."""
    tensors = goldens.in_their_names(RULES, tree)
    return {name: x for name, x in tensors.items() if not name.startswith("Qformer.cls.predictions.decoder")}


def check_norms(grads: dict, kind: str) -> None:
    tensors, expected = in_their_names(grads), goldens.norms("lavis/stage1_gradient_norms.json")[kind]
    assert set(expected) <= set(tensors), set(expected) - set(tensors)
    for name, norm in expected.items():
        assert abs(np.linalg.norm(tensors[name]) - norm) <= 1e-4 * max(norm, 1e-2), name


def test_losses_are_the_official_ones():
    check_losses(means(forward(rows(), drawn())))


def test_texts_of_one_image_are_no_negatives_of_each_other():
    """The branch of the official fine-tuning."""
    one = goldens.golden("lavis/stage1")
    batch = rows(one["image_id:ids"])
    losses = forward(batch, drawn("image_id:"))
    check_losses(means(losses), "image_id:")
    same = query_losses.same_pairs(batch.image_ids, batch.token_ids, batch.valid[:, 0])
    got = jax.nn.softmax(query_losses.negative_logits(losses.logits.to_image, same.T, batch.valid[:, 0]), axis=1)
    np.testing.assert_allclose(got, one["image_id:probability_image_of_text"], rtol=0, atol=2e-6)


def test_two_processes_have_the_same_contrast_and_matching():
    got = means(forward(rows(), drawn("two_ranks:")))
    check_losses({name: got[name] for name in ("itc", "itm")}, "two_ranks:")


def test_negatives_are_drawn_with_the_official_probabilities():
    logits = forward(rows(), drawn()).logits
    same, is_pair = jnp.eye(4, dtype=bool), jnp.ones(4, bool)
    one = goldens.golden("lavis/stage1")
    for name, part in (("image_of_text", logits.to_image), ("text_of_image", logits.to_text)):
        got = jax.nn.softmax(query_losses.negative_logits(part, same, is_pair), axis=1)
        np.testing.assert_allclose(got, one[f"probability_{name}"], rtol=0, atol=2e-6)
    draw = jax.jit(jax.vmap(lambda key: query_losses.draw_negatives(key, logits, same, is_pair)))
    of_text, of_image = draw(jax.random.split(jax.random.key(3), 4000))
    for index, name in ((of_text, "image_of_text"), (of_image, "text_of_image")):
        shares = np.stack([np.mean(np.asarray(index) == other, axis=0) for other in range(4)], axis=1)
        np.testing.assert_allclose(shares, one[f"probability_{name}"], rtol=0, atol=0.03)


def test_a_row_that_could_not_be_read_changes_nothing():
    """Contrast, matching and captions of the others are those of a batch without it."""
    batch, negatives = rows(), Negatives(jnp.asarray([1, 2, 0, 0]), jnp.asarray([2, 0, 1, 0]))
    empty = batch._replace(
        pixels=batch.pixels.at[3].set(0), token_ids=batch.token_ids.at[3].set(0), valid=batch.valid.at[3].set(False)
    )
    got, whole = forward(empty, negatives), forward(batch, negatives)
    first = jnp.eye(3, dtype=bool), jnp.ones(3, bool)
    of_three = query_losses.contrast_losses(Contrast(*(one[:3, :3] for one in whole.logits)), *first)
    np.testing.assert_allclose(got.contrast, np.append(of_three, 0), rtol=0, atol=1e-6)
    counted = np.asarray(got.matching_weight)
    np.testing.assert_array_equal(counted, np.tile([True, True, True, False], 3))
    np.testing.assert_allclose(got.matching[counted], whole.matching[counted], rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.caption[:3], whole.caption[:3], rtol=0, atol=1e-5)
    assert got.caption_weight[3].sum() == 0
    is_pair = jnp.asarray([True, True, True, False])
    draws = query_losses.draw_negatives(jax.random.key(0), got.logits, jnp.eye(4, dtype=bool), is_pair)
    assert 3 not in np.asarray(draws.image_of_text)[:3]


def test_rows_without_any_negative_are_not_asked():
    same = jnp.ones((2, 2), bool)
    assert not query_losses.has_negative(same, jnp.ones(2, bool)).any()
    logits = Contrast(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    losses = query_losses.contrast_losses(logits, same, jnp.ones(2, bool))
    np.testing.assert_allclose(losses, np.log(2), rtol=1e-6)


def test_what_cannot_be_trained_is_refused():
    data = CaptionData((), "none", 28, batch_rows=2, tokens=9)
    with pytest.raises(ValueError, match="micro-batches of 1 pair, which has no negative; make them at least 2"):
        OFFICIAL.check_micro_batch(1)
    with pytest.raises(ValueError, match="neither temperature nor language head.*cannot go on"):
        OFFICIAL.check(replace(goldens.CONFIG, language_head=False), data)
    one = jax.tree.map(lambda leaf: leaf[:1], rows())
    with pytest.raises(ValueError, match="no negative"):
        OFFICIAL.loss(goldens.CONFIG, goldens.stage1(), None, one, jax.random.key(0), FREEZE)


@pytest.mark.parametrize("wrong", [{"batch_rows": 0}, {"tokens": 2}, {"threads": 0}, {"ahead": -1}])
def test_numbers_of_data_out_of_range_are_refused(wrong):
    """A row of two tokens has an opening and an end, and one of one token had both all the same."""
    with pytest.raises(ValueError, match=rf"data\.{next(iter(wrong))}: got"):
        CaptionData((), "none", **{"image_size_px": 28, "batch_rows": 2, "tokens": 9, **wrong})


@pytest.mark.slow
def test_dropout_follows_from_the_key_and_lets_every_part_learn():
    config = replace(goldens.CONFIG, connector=replace(goldens.CONFIG.connector, dropout=0.1))
    negatives = drawn()

    def total(params, key):
        return sum(means(OFFICIAL.losses(config, params, rows(), FREEZE, lambda *_: negatives, key)).values())

    value = jax.jit(jax.value_and_grad(total))
    (one, grads), (other, _), (again, _) = (value(goldens.stage1(), jax.random.key(n)) for n in (0, 1, 0))
    assert float(one) == float(again) != float(other)
    moved = {part: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(of)) for part, of in grads.items()}
    assert all(moved[part] > 0 for part in ("connector", "text", "heads")) and np.isfinite(list(moved.values())).all()


@pytest.mark.slow
def test_gradients_are_the_official_ones(official):
    tensors = in_their_names(official)
    check_norms(official, "grad")
    for key, expected in goldens.golden("lavis/stage1").items():
        if key.startswith("grad:"):
            np.testing.assert_allclose(tensors[key.removeprefix("grad:")], expected, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_gradients_without_the_cut_are_those_of_the_uncut_code():
    check_norms(gradient(replace(OFFICIAL, cuts_gradients=False)), "grad_uncut")


@pytest.mark.slow
def test_a_step_of_adamw_is_the_official_one(official):
    """Decayed as there: all but biases and norms, the queries and the temperature too."""
    config = OptimizerConfig(betas=(0.9, 0.98), epsilon=1e-8, weight_decay=0.05, decay_vectors=False, clip_norm=0.0)
    trained = {part: leaves for part, leaves in goldens.stage1().items() if part != "vision"}
    boxed = jax.eval_shape(lambda key: blip2.initialize(goldens.CONFIG, key), jax.random.key(0))
    optimizer = make_optimizer(config, {part: boxed[part] for part in trained})
    directions, _ = optimizer.update(official, optimizer.init(trained), trained)
    step = jax.tree.map(lambda direction: 1e-2 * direction, directions)
    tensors = in_their_names(jax.tree.map(lambda a, b: a + b, trained, step))
    for key, expected in goldens.golden("lavis/stage1").items():
        if key.startswith("adamw:"):
            np.testing.assert_allclose(tensors[key.removeprefix("adamw:")], expected, rtol=0, atol=2e-5, err_msg=key)
    moved = in_their_names(step)
    for name, norm in goldens.norms("lavis/stage1_gradient_norms.json")["adamw_update"].items():
        if not name.endswith("key.bias"):  # whose gradient is rounding alone
            assert abs(np.linalg.norm(moved[name]) - norm) < 1e-3 * norm, name
