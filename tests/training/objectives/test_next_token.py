"""The loss of packed rows is that of their samples."""

import dataclasses
import functools
import itertools

from bound_objective import Bound
import jax
import numpy as np
import pytest
from random_parameters import random_parameters
import tiny_run
from window_samples import window_samples

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import LazyImage, Sample
from xgenmm_jax.data.rows import build
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.nano.symbolic_images import SymbolicImages
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.objectives.next_token import NextToken


def test_packed_rows_have_the_loss_of_their_samples_in_rows_of_their_own(tmp_path):
    """Sum and count: a token that a row's neighbour supplies, hides or counts twice moves one of them."""
    path = tiny_run.tokenizer(tmp_path)
    config = tiny_run.config(path)
    data = dataclasses.replace(
        config.data,
        mixture=tuple((Synthetic(family, 40), 1.0) for family in ("caption", "interleaved", "text_chat")),
        row=RowConfig(length=320, crops=9, images=4, vision_tokens=4, too_long="drop"),
        anyres=AnyRes(grids=((2, 1), (1, 2)), view_px=32, view_cells=4),
        window=12,
    )
    config = dataclasses.replace(config, data=data)
    tokenizer = Tokenizer.load(path)
    rows = window_samples(data, seed=0, number=0)
    samples = [[sample] for row in rows for sample in row]
    assert len(rows) < len(samples)
    rows += [[]] * (len(samples) - len(rows))  # both of one shape, compiled once
    objective = Bound.of(config)
    params = random_parameters(objective.init)
    loss = jax.jit(lambda batch: objective.loss(params, None, batch, jax.random.key(0))[0])
    packed, alone = (loss(build.build_rows(some, data.row, data.anyres, tokenizer)) for some in (rows, samples))
    assert packed.weight == alone.weight == sum(int(s.loss_mask.sum()) for (s,) in samples)
    np.testing.assert_allclose(packed.total, alone.total, rtol=1e-5)


def without(rows: list[list[Sample]], gone: set[int]) -> list[list[Sample]]:
    """The rows, with images that cannot be decoded in the samples of these numbers."""

    def load():
        raise ValueError("image: it is damaged")

    numbers = itertools.count()

    def one(sample: Sample) -> Sample:
        if next(numbers) not in gone or not sample.images:
            return sample
        return dataclasses.replace(sample, images=tuple(LazyImage(p.size_px, load) for p in sample.images))

    return [[one(sample) for sample in row] for row in rows]


@pytest.mark.parametrize("token_sampling", [TokenSampling.CROPS, TokenSampling.STRIPS, TokenSampling.FIXED_SAMPLING])
def test_a_sample_that_is_left_out_of_its_row_adds_nothing_and_moves_nothing(tmp_path, token_sampling):
    """Loss, weight and gradients are those of the other samples; a row of nothing is no NaN."""
    path = tiny_run.tokenizer(tmp_path)
    config = tiny_run.config(path)
    per = "image" if token_sampling is TokenSampling.FIXED_SAMPLING else "crop"
    data = dataclasses.replace(
        config.data,
        mixture=tuple((Synthetic(family, 40), 1.0) for family in ("caption", "interleaved")),
        row=RowConfig(length=320, crops=9, images=4, vision_tokens=4, vision_tokens_per=per, too_long="drop"),
        anyres=AnyRes(grids=((2, 1), (1, 2)), view_px=32, view_cells=4),
        window=8,
    )
    model = dataclasses.replace(config.model, token_sampling=token_sampling, max_image_crops=3)
    config = dataclasses.replace(config, data=data, model=model)
    tokenizer = Tokenizer.load(path)
    rows = window_samples(data, seed=0, number=0)
    count = sum(map(len, rows))
    objective = Bound.of(config)
    params = random_parameters(objective.init)

    def total(params, batch):
        loss = objective.loss(params, None, batch, jax.random.key(0))[0]
        return loss.total, loss.weight

    loss_and_gradient = jax.jit(jax.value_and_grad(total, has_aux=True))
    for gone in ({0}, {1, count - 1}, set(range(len(rows[0]))), set(range(count))):
        skipped = []
        batch = build.build_rows(without(rows, gone), data.row, data.anyres, tokenizer, skipped)
        assert len(skipped) == len(gone)
        numbers = itertools.count()
        rest = [[sample for sample in row if next(numbers) not in gone] for row in rows]
        alone = build.build_rows(rest, data.row, data.anyres, tokenizer)
        (got, weight), gradient = loss_and_gradient(params, batch)
        (want, wanted_weight), wanted_gradient = loss_and_gradient(params, alone)
        assert weight == wanted_weight and objective.objective.count(batch) == objective.objective.count(alone)
        np.testing.assert_allclose(got, want, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), gradient, wanted_gradient)
        assert len(gone) < count or (got == 0 and weight == 0)


@pytest.mark.parametrize("loss", [NextToken, functools.partial(SymbolicImages, tokenizer="t.model"), DPO])
def test_chunks_of_nothing_are_refused(loss):
    with pytest.raises(ValueError, match="objective.chunk: got 0, wanted at least 1"):
        loss(chunk=0)
    with pytest.raises(ValueError, match="objective.noise: got -1.0"):
        SymbolicImages(tokenizer="t.model", noise=-1.0)


@pytest.mark.parametrize("loss", [NextToken(), DPO()])
@pytest.mark.parametrize(("grids", "crops"), [(((2, 2),), 5), (((1, 2), (4, 3)), 13), (((1, 7),), 8)])
def test_crops_that_fixed_sampling_would_lose_are_told_before_a_step(tmp_path, loss, grids, crops):
    """Crops beyond max_image_crops fell away without a word, and an image's lower right was never read."""
    config = fixed_sampling_config(tmp_path, grids, crops)
    config = dataclasses.replace(config, objective=loss)
    sentence = rf"max_image_crops: got 4, .* up to {crops} crops.* lose {crops - 4}; raise it to {crops} or leave"
    with pytest.raises(ValueError, match=sentence):
        Bound.of(dataclasses.replace(config, model=dataclasses.replace(config.model, max_image_crops=4)))
    Bound.of(dataclasses.replace(config, model=dataclasses.replace(config.model, max_image_crops=crops)))
    with pytest.raises(ValueError, match="max_image_crops: got 4"):
        train(dataclasses.replace(config, model=dataclasses.replace(config.model, max_image_crops=4)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("token_sampling", [TokenSampling.CROPS, TokenSampling.STRIPS, TokenSampling.FIXED_SAMPLING])
def test_rows_lay_out_the_vision_tokens_that_the_model_makes(tmp_path, token_sampling):
    """Rows of one image's tokens beside a model that gives each crop its own read the first crops alone."""
    config = fixed_sampling_config(tmp_path, ((1, 2),), 3)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, token_sampling=token_sampling))
    right, wrong = ("image", "crop") if token_sampling is TokenSampling.FIXED_SAMPLING else ("crop", "image")
    for per in (right, wrong):
        row = dataclasses.replace(config.data.row, vision_tokens_per=per)
        changed = dataclasses.replace(config, data=dataclasses.replace(config.data, row=row))
        if per == right:
            Bound.of(changed)
            continue
        sentence = rf"vision_tokens_per: got '{wrong}', .*'{token_sampling.value}'.*make it '{right}'"
        with pytest.raises(ValueError, match=sentence):
            Bound.of(changed)


def fixed_sampling_config(tmp_path, grids, crops):
    config = tiny_run.config(tiny_run.tokenizer(tmp_path))
    row = RowConfig(length=64, crops=crops, images=1, vision_tokens=4, vision_tokens_per="image")
    data = dataclasses.replace(config.data, row=row, anyres=AnyRes(grids=grids, view_px=32, view_cells=4))
    model = dataclasses.replace(config.model, token_sampling=TokenSampling.FIXED_SAMPLING, max_image_crops=crops)
    return dataclasses.replace(config, data=data, model=model)
