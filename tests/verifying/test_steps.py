"""The training steps of `xgenmm verify`: of models that draw, and of a Q-Former with dropout."""

from dataclasses import replace
import functools

import drawing_cases as cases
import jax
import pytest
from random_parameters import random_parameters

from xgenmm_jax.api.lmm import LMM
from xgenmm_jax.api.processor import Processor
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.verifying import checking, images, steps
from xgenmm_jax.verifying.checking import Options


@pytest.mark.slow
def test_a_run_that_draws_is_verified(tmp_path):
    """Its steps ended in an error: they were taken on what draws, too."""
    sections = checking.check(cases.saved(tmp_path / "run"), Options(train_steps=2))
    # Parameters that are drawn have biases of zeros.
    faults = [fault for section in sections for fault in section.faults if "every number is 0" not in fault]
    assert not faults and sections[-1].title == "2 training steps"
    assert any(row[0] == "drawing/queries" for row in sections[0].rows)


def test_dropout_is_no_part_of_the_steps(tmp_path):
    """A loss with it may rise on one batch, which was told as a damaged connector."""
    drawing = cases.model()
    connector = QFormerConfig(
        width=96, inner=16, hidden=32, layers=1, heads=2, queries=16, out_width=128, cross_every=1, dropout=0.9
    )
    config = VLMConfig(drawing.vision, connector, drawing.decoder)
    data = replace(cases.data(segments=4, batch_rows=2), target_px=0)
    run = TrainConfig("dropout", config, data, NextToken(), steps=1)
    params = random_parameters(functools.partial(blip3.initialize, config))
    processor = Processor(Tokenizer.load(data.tokenizer), data.anyres, data.chat)
    model = LMM(tmp_path, run, params, processor, make_mesh(MeshConfig(), jax.devices()[:1]))
    expected = model.forward(steps.rows_of(model), [[image] for image in images.images()]).loss
    shown = dict(steps.check(model, 1).rows)
    assert float(shown["losses"]) == pytest.approx(expected, abs=1e-4)
