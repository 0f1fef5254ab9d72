"""A run of random parameters, as training leaves it."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.packing import RowConfig
from xgenmm_jax.data.text import tokenizer
from xgenmm_jax.models import blip3
from xgenmm_jax.models.blip3 import VLMConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.runs import run_folder
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.step import TrainState


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder as training leaves it."""
    folder = tmp_path_factory.mktemp("runs")
    words = tokenizer.train_tokenizer(["What color is the star?"] * 3, folder / "words.model", 400)
    model = VLMConfig(
        vision=ViTConfig(image_size_px=64, patch_px=8, width=16, hidden=32, layers=1, heads=2),
        connector=ResamplerConfig(width=16, layers=1, heads=2, head_width=8, hidden=32, queries=2, out_width=32),
        decoder=Phi3Config(
            vocab_size=words.vocab_size, num_text_tokens=words.num_text_tokens, width=32, hidden=32, layers=1, heads=2,
            kv_heads=1,
        ),
    )  # fmt: skip
    data = DataConfig(
        mixture=((Synthetic("questions"), 1.0),),
        tokenizer=str(folder / "words.model"),
        row=RowConfig(length=192, crops=4, images=4, vision_tokens=2),
        anyres=AnyRes(grids=(), view_px=64, view_cells=8),
        batch_rows=8,
    )
    config = TrainConfig("toy", model, data, NextToken(), steps=1)
    shapes = nn.unbox(jax.eval_shape(functools.partial(blip3.initialize, model), jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), leaf.dtype), shapes)
    run_folder.prepare(config, folder / "toy")
    with Checkpoints(folder / "toy", keep=1) as checkpoints:
        checkpoints.save(TrainState(jnp.int32(1), params, {"count": jnp.zeros(())}, jnp.ones((), bool)), Progress())
    return folder / "toy"
