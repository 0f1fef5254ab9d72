"""Where the resampler looked, laid over the picture."""

from flax import linen as nn
import jax
import numpy as np
import PIL.Image
import pytest

from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Picture
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer, train_tokenizer
from xgenmm_jax.models import blip3
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.nano.report import attention
from xgenmm_jax.nano.report.photographs import photographs


def test_a_lit_cell_of_the_view_lies_where_the_squashed_picture_has_it():
    """A 4 x 2 view of a wide picture: cell (0, 3) is its top right eighth."""
    heat = np.zeros((2, 4), np.float32)
    heat[0, 3] = 1
    lit = attention.canvas_to_picture(heat, (100, 20), (80, 16), squashed=True)
    assert lit.shape == (16, 80)
    assert lit[3, 75] > 0.9 and lit[12, 10] < 0.01


def test_a_lit_cell_of_the_canvas_lies_where_the_centered_picture_has_it():
    """A 64 x 32 picture on a 16 x 16 canvas covers rows 4 to 12: canvas row 4 is its top row, row 0 is padding."""
    heat = np.zeros((16, 16), np.float32)
    heat[4, 0] = 1
    lit = attention.canvas_to_picture(heat, (64, 32), (64, 32), squashed=False)
    assert lit.shape == (32, 64)
    assert np.unravel_index(lit.argmax(), lit.shape)[0] < 4 and np.unravel_index(lit.argmax(), lit.shape)[1] < 4
    padding = np.zeros((16, 16), np.float32)
    padding[0] = 1
    assert attention.canvas_to_picture(padding, (64, 32), (64, 32), squashed=False).max() < 0.01


def test_crops_and_strips_stand_at_their_cells():
    """Two columns of 2 x 2 patches: crop 1 is the right half, strip 1 the lower row."""
    weights = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    crops = attention.on_canvas(weights, (2, 1), 2, strips=False)
    assert crops.sum(0).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    strips = attention.on_canvas(weights, (2, 1), 2, strips=True)
    assert strips.sum(0).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    train_tokenizer(["a red circle and the blue square"] * 9, path, pieces=400)
    tokenizer = Tokenizer.load(path)
    config = blip3.VLMConfig(
        vision=ViTConfig(image_size_px=16, patch_px=8, width=16, hidden=32, layers=1, heads=2),
        connector=ResamplerConfig(width=16, layers=2, heads=2, head_width=8, hidden=32, queries=3, out_width=16),
        decoder=Phi3Config(
            vocab_size=tokenizer.vocab_size, num_text_tokens=tokenizer.num_text_tokens, width=16, hidden=32, layers=1,
            heads=2, kv_heads=1,
        ),
    )  # fmt: skip
    return config, nn.unbox(jax.jit(blip3.initialize, static_argnums=0)(config, jax.random.key(0))), tokenizer


def test_look_gives_a_distribution_for_each_query_and_none_on_padding(model):
    """A wide picture fills the middle of a 2 x 2 grid: its padded rows get no attention."""
    config, params, tokenizer = model
    image = PIL.Image.effect_noise((32, 16), 90).convert("RGB")
    picture = Picture(image.size, lambda: image)
    prompt = Prompt((*tokenizer.encode("<image>the circle"),), (picture,))
    cut = AnyRes(grids=((2, 2),), view_px=16, view_cells=2)
    seen = attention.look(config, params, tokenizer, cut, prompt, "red")
    assert seen.base.shape == (3, 2, 2) and seen.crops.shape == (12, 4, 4)
    assert (seen.base.sum((1, 2)) <= 1.0001).all() and (seen.base > 0).all()
    assert (seen.crops[:, [0, 3]] == 0).all() and (seen.crops[:, 1:3].sum((1, 2)) > 0).all()
    assert seen.weight.shape == (15,) and np.isclose(seen.weight.sum(), 1) and (seen.weight >= 0).all()


def test_look_wants_one_picture(model):
    config, params, tokenizer = model
    with pytest.raises(ValueError, match="0 pictures"):
        attention.look(config, params, tokenizer, AnyRes(), Prompt((1,), ()), "red")


def test_the_photographs_are_in_the_wheels():
    found = photographs()
    assert {photograph.name for photograph in found} >= {"chelsea", "coffee", "page", "china", "flower"}
    assert found[0].picture.load().mode == "RGB"
