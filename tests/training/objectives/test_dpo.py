"""DPO on packed pairs against the definition on separate sequences."""

import dataclasses

from bound_objective import Bound
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import tiny_run

from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.rows.build import build_rows
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.optimizer import split, trainable_mask


def lazy_image(value: int) -> LazyImage:
    image = PIL.Image.fromarray(np.random.default_rng(value).integers(0, 255, (32, 32, 3), np.uint8))
    return LazyImage((32, 32), lambda: image)


def mask(prompt: int, answer: int) -> np.ndarray:
    return np.arange(prompt + answer) >= prompt


def pair(tokenizer: Tokenizer, seed: int, prompt: int, chosen: int, rejected: int) -> Sample:
    rng = np.random.default_rng(seed)
    question = np.concatenate([[tokenizer.image_id], rng.integers(300, 390, prompt - 1)])
    answers = [np.concatenate([question, rng.integers(300, 390, n)]).astype(np.int32) for n in (chosen, rejected)]
    images, masks = (lazy_image(seed),), (mask(prompt, chosen), mask(prompt, rejected))
    return Sample(f"pair{seed}", answers[0], masks[0], images, answers[1], masks[1])


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    tokenizer = Tokenizer.load(path)
    model, data = tiny_run.model(path), tiny_run.data(path)
    pairs = [pair(tokenizer, 1, 6, 3, 7), pair(tokenizer, 2, 4, 5, 2), pair(tokenizer, 3, 9, 4, 4)]
    objective = Bound(DPO(beta=0.3, chosen_weight=0.5, chunk=8), model, data)
    params, other = (unboxed(jax.jit(objective.init)(jax.random.key(seed))) for seed in (0, 1))
    other = {**other, "vision": params["vision"]}
    return model, data, tokenizer, pairs, params, other


def answer_log_prob(model, data, tokenizer, params, sample: Sample) -> float:
    """Of one answer, in a row of its own, from the whole softmax."""
    batch = jax.device_put(build_rows([[sample]], data.row, data.anyres, tokenizer))
    logits = jax.jit(VLM(model).apply)({"params": params}, batch)
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    chosen = jnp.take_along_axis(log_probs, batch.token_ids[:, 1:, None], axis=-1)[..., 0]
    return float(jnp.sum(jnp.where(batch.loss_mask[:, 1:], chosen, 0.0)))


def test_packed_pairs_equal_separate_sequences(case):
    model, data, tokenizer, pairs, params, other = case
    losses, better = [], []
    for sample in pairs:
        chosen = dataclasses.replace(sample, rejected_ids=None, rejected_mask=None)
        rejected = dataclasses.replace(chosen, token_ids=sample.rejected_ids, loss_mask=sample.rejected_mask)
        scores = [
            answer_log_prob(model, data, tokenizer, tree, one) for tree in (params, other) for one in (chosen, rejected)
        ]
        margin = 0.3 * ((scores[0] - scores[2]) - (scores[1] - scores[3]))
        losses.append(np.log1p(np.exp(-margin)) - 0.5 * scores[0] / sample.loss_mask.sum())
        better.append(margin > 0)

    rows = build_rows([pairs[:2], pairs[2:]], data.row, data.anyres, tokenizer)
    objective = Bound(DPO(beta=0.3, chosen_weight=0.5, chunk=8), model, data)
    reference, _ = split(other, trainable_mask(other, ("vision",)))
    total, metrics = jax.jit(objective.loss)(params, reference, rows, jax.random.key(0))
    assert float(total.weight) == 3
    np.testing.assert_allclose(float(total.total), sum(losses), rtol=1e-5)
    assert float(metrics["preferred"].total) == sum(better)


def test_at_the_start_the_loss_is_log_two(case):
    model, data, tokenizer, pairs, params, _ = case
    rows = build_rows([pairs[:2], pairs[2:]], data.row, data.anyres, tokenizer)
    reference, _ = split(params, trainable_mask(params, ("vision",)))
    total, _ = jax.jit(Bound(DPO(), model, data).loss)(params, reference, rows, jax.random.key(0))
    np.testing.assert_allclose(float(total.total) / 3, np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    "name, refused, taken",
    [("beta", [-1.0, 0.0, float("nan")], 1e-3), ("chosen_weight", [-1.0, float("nan")], 0.0), ("chunk", [0], 1)],
)
def test_what_prefers_nothing_or_the_rejected_is_refused(name, refused, taken):
    for value in refused:
        with pytest.raises(ValueError, match=f"objective.{name}: got .*, wanted"):
            DPO(**{name: value})
    DPO(**{name: taken})


@pytest.mark.parametrize("bad", [(0,), (1,), (2,), (0, 2)])
def test_a_pair_that_is_left_out_adds_nothing(case, bad):
    """Both of its segments are empty; the others keep their numbers, by which chosen and rejected are told."""
    model, data, tokenizer, pairs, params, other = case

    def load():
        raise ValueError("image: it is damaged")

    broken = (LazyImage((32, 32), load),)
    damaged = [dataclasses.replace(one, images=broken) if n in bad else one for n, one in enumerate(pairs)]
    loss = Bound(DPO(beta=0.3, chosen_weight=0.5, chunk=8), model, data).loss
    rest = [[one for n, one in enumerate(pairs) if n not in bad and n // 2 == row] for row in range(2)]
    skipped = []
    batches = (
        build_rows([damaged[:2], damaged[2:]], data.row, data.anyres, tokenizer, skipped),
        build_rows(rest, data.row, data.anyres, tokenizer),
    )
    got, want = (jax.jit(loss)(params, other, batch, jax.random.key(0)) for batch in batches)
    assert len(skipped) == len(bad) and got[0].weight == want[0].weight == 3 - len(bad)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)
