"""Attention of the resampler for an answer, and the weight of each query in it."""

from flax import linen as nn
import jax
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.models import blip3
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.probing.answer_attention import answer_attention


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    train_tokenizer(["a red circle and the blue square"] * 9, path, pieces=400)
    tokenizer = Tokenizer.load(path)
    config = blip3.VLMConfig(
        vision=ViTConfig(image_size_px=16, patch_px=8, width=16, hidden=32, layers=1, heads=2),
        connector=ResamplerConfig(width=16, layers=2, heads=2, head_width=8, hidden=32, queries=3, out_width=16),
        decoder=Phi3Config(
            vocab_size=tokenizer.vocab_size, num_text_tokens=tokenizer.num_text_tokens,
            width=16, hidden=32, layers=1, heads=2,
            kv_heads=1,
        ),
    )  # fmt: skip
    return config, nn.unbox(jax.jit(blip3.initialize, static_argnums=0)(config, jax.random.key(0))), tokenizer


def test_attention_is_a_distribution_for_each_query_and_none_on_padding(model):
    """A wide image fills the middle of a 2 x 2 grid: its padded rows get no attention."""
    config, params, tokenizer = model
    pixels = PIL.Image.effect_noise((32, 16), 90).convert("RGB")
    image = LazyImage(pixels.size, lambda: pixels)
    prompt = Prompt((*tokenizer.encode("<image>the circle"),), (image,))
    cut = AnyRes(grids=((2, 2),), view_px=16, view_cells=2)
    seen = answer_attention(config, params, tokenizer, cut, prompt, "red")
    assert seen.base.shape == (3, 2, 2) and seen.crops.shape == (12, 4, 4)
    assert (seen.base.sum((1, 2)) <= 1.0001).all() and (seen.base > 0).all()
    assert (seen.crops[:, [0, 3]] == 0).all() and (seen.crops[:, 1:3].sum((1, 2)) > 0).all()
    assert seen.weight.shape == (15,) and np.isclose(seen.weight.sum(), 1) and (seen.weight >= 0).all()


def test_a_prompt_without_an_image_is_refused(model):
    config, params, tokenizer = model
    with pytest.raises(ValueError, match="0 images"):
        answer_attention(config, params, tokenizer, AnyRes(), Prompt((1,), ()), "red")
