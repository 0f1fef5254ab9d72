"""The loss of packed rows is that of their samples."""

import dataclasses

import jax
import numpy as np
import pytest
from random_parameters import random_parameters
import tiny_run

from xgenmm_jax.data import packing, pipeline, sources
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.packing import RowConfig
from xgenmm_jax.data.tokenizer import Tokenizer
from xgenmm_jax.training.dpo import DPO
from xgenmm_jax.training.next_token import NextToken
from xgenmm_jax.training.word_pictures import WordPictures


def test_packed_rows_have_the_loss_of_their_samples_in_rows_of_their_own(tmp_path):
    """Sum and count: a token that a row's neighbour supplies, hides or counts twice moves one of them."""
    path = tiny_run.tokenizer(tmp_path)
    config = tiny_run.config(path)
    data = dataclasses.replace(
        config.data,
        mixture=tuple((sources.Synthetic(family, 40), 1.0) for family in ("caption", "interleaved", "text_chat")),
        row=RowConfig(length=320, crops=9, images=4, vision_tokens=4, too_long="drop"),
        anyres=AnyRes(grids=((2, 1), (1, 2)), view_px=32, view_cells=4),
        window=12,
    )
    config = dataclasses.replace(config, data=data)
    tokenizer = Tokenizer.load(path)
    rows = pipeline.plan(data, pipeline.open_sources(data), tokenizer, seed=0, window=0).rows
    samples = [[sample] for row in rows for sample in row]
    assert len(rows) < len(samples)
    rows += [[]] * (len(samples) - len(rows))  # both of one shape, compiled once
    objective = config.objective()
    params = random_parameters(objective.init)
    loss = jax.jit(lambda batch: objective.loss(params, None, batch, jax.random.key(0))[0])
    packed, alone = (loss(packing.build_rows(some, data.row, data.anyres, tokenizer)) for some in (rows, samples))
    assert packed.weight == alone.weight == sum(int(s.loss_mask.sum()) for (s,) in samples)
    np.testing.assert_allclose(packed.total, alone.total, rtol=1e-5)


@pytest.mark.parametrize("loss", [NextToken, WordPictures, DPO])
def test_chunks_of_nothing_are_refused(loss):
    with pytest.raises(ValueError, match="loss.chunk: got 0, wanted at least 1"):
        loss(chunk=0)
    with pytest.raises(ValueError, match="loss.noise: got -1.0"):
        WordPictures(noise=-1.0)
