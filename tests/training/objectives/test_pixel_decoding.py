"""Features to pixels, autoencoders, and latents that are drawn."""

import dataclasses

import drawing_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.batch import DrawingBatch
from xgenmm_jax.data.rows import loader
from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.images.drawer import Drawer
from xgenmm_jax.generation.images.sampling import Sampling
from xgenmm_jax.models import drawing_features
from xgenmm_jax.models.autoencoder import AutoencoderConfig, PixelDecoderConfig
from xgenmm_jax.models.blip3o import Blip3oConfig, FlowPixels, LatentTarget
from xgenmm_jax.models.dit import DiTConfig
from xgenmm_jax.nano.starting_weights import TOKENIZER
from xgenmm_jax.training.objectives.flow_matching import FlowMatching
from xgenmm_jax.training.objectives.pixel_decoding import Autoencoding, FlowPixelDecoding, PixelDecoding, pixel_errors
from xgenmm_jax.training.optimizer import merge, split, trainable_mask

CODER = AutoencoderConfig(image_size_px=64, patch_px=16, channels=8, width=16, hidden=16, layers=1, heads=1)
DIT = DiTConfig(channels=8, width=16, layers=1, heads=2, kv_heads=1, patch=2, context_width=128, multiple_of=16)


def model(**drawing) -> Blip3oConfig:
    one = cases.model()
    return dataclasses.replace(one, drawing=dataclasses.replace(one.drawing, **drawing))


def latents() -> Blip3oConfig:
    """Design c of the study: latents in patches of 2."""
    return model(head=DIT, target=LatentTarget(CODER), pixels=None)


def flow_pixels() -> Blip3oConfig:
    dit = dataclasses.replace(DIT, context_width=96)
    return model(pixels=FlowPixels(dit, CODER))


@pytest.fixture(scope="module")
def rows() -> DrawingBatch:
    batches = loader.batches(cases.data(4, 1), seed=3)
    try:
        return jax.tree.map(jnp.asarray, next(batches).batch)
    finally:
        batches.close()


@pytest.mark.parametrize(
    ("make", "objective", "trained"),
    [
        (cases.model, PixelDecoding(), "pixels"),
        pytest.param(latents, Autoencoding(), "target/autoencoder", marks=pytest.mark.slow),
        pytest.param(latents, FlowMatching(), "drawing", marks=pytest.mark.slow),
        pytest.param(flow_pixels, Autoencoding(part="pixels"), "pixels/autoencoder", marks=pytest.mark.slow),
        pytest.param(flow_pixels, FlowPixelDecoding(), "pixels/dit", marks=pytest.mark.slow),
    ],
)
def test_a_stage_trains_its_part_alone(make, objective, trained, rows):
    one = make()
    params = cases.params(one)
    objective.check(one, cases.data(4, 1))
    every = {"vision", "connector", "decoder", *params} - {trained.split("/")[0]}
    beside = [f"{trained.split('/')[0]}/{name}" for name in params[trained.split("/")[0]] if "/" in trained]
    freeze = (*every, *(name for name in beside if name != trained))
    learned, frozen = split(params, trainable_mask(params, freeze))

    def loss(learned):
        total, _ = objective.loss(one, merge(learned, frozen), None, rows, jax.random.key(0), freeze)
        return total.total / total.weight

    value, grads = jax.jit(jax.value_and_grad(loss))(learned)
    norm = sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(grads))
    assert np.isfinite(value) and value > 0 and norm > 0


@pytest.mark.parametrize("part", ["target", "pixels"])
def test_an_autoencoder_that_is_trained_on_forgets_its_statistics(part):
    """Those of latents as they were before stayed, and the next stage measured nothing."""
    learned = {name: jnp.ones(8) for name in ("mean", "std")} | {"autoencoder": {}}
    params = {"target": learned, "pixels": learned, "drawing": {}}
    prepared = Autoencoding(part=part).prepare(latents(), params, iter(()))
    assert not prepared[part]["mean"].any() and not prepared[part]["std"].any()
    other = {"target": "pixels", "pixels": "target"}[part]
    assert prepared[other] is learned and prepared[part]["autoencoder"] == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Autoencoding(noise=-0.1), lambda: Autoencoding(size_weight=float("nan")),
        lambda: FlowPixelDecoding(drop=1.0), lambda: FlowPixelDecoding(drop=-0.1),
        lambda: PixelDecoding(noise=(0.3, 0.1)), lambda: PixelDecoding(noise=(0.0, float("inf"))),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="objective.*: got"):
        make()


def test_latents_are_drawn_to_pixels():
    one = latents()
    drawer = Drawer(one, cases.params(one), Tokenizer.load(TOKENIZER), cases.PROMPT, ChatStyle(system=None), 96)
    (drawing,) = drawer.draw(["a red star"], 2, 0, Sampling(steps=2))
    assert drawing.features.shape == (2, 4, 4, 8) and drawing.images.shape == (2, 64, 64, 3)


@pytest.mark.slow
def test_pixels_are_drawn_by_a_second_flow():
    one = flow_pixels()
    drawer = Drawer(one, cases.params(one), Tokenizer.load(TOKENIZER), cases.PROMPT, ChatStyle(system=None), 96)
    (drawing,) = drawer.draw(["a red star"], 1, 0, Sampling(steps=2))
    assert drawing.features.shape == (1, 2, 2, 96) and drawing.images.shape == (1, 64, 64, 3)


def test_bytes_and_scaled_pixels_are_inverse():
    levels = np.arange(256, dtype=np.uint8)
    scaled = jnp.asarray(levels / 127.5 - 1, jnp.float32)
    assert (np.asarray(drawing_features.as_bytes(scaled)) == levels).all()
    assert drawing_features.as_bytes(jnp.array([-3.0, 3.0])).tolist() == [0, 255]


def test_an_error_is_its_size_and_its_square():
    assert float(pixel_errors(jnp.full((1, 2, 2, 3), 0.5), jnp.zeros((1, 2, 2, 3)))[0]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixels": PixelDecoderConfig(96, 4, 64, 16, 16, 16, 1, 1)}, "a decoder of 4 x 4 cells"),
        ({"target": LatentTarget(CODER), "head": DIT}, "latents' own autoencoder"),
        ({"head": dataclasses.replace(DIT, patch=1)}, "8 channels and a context of width 128"),
        ({"pixels": FlowPixels(DIT, CODER)}, "got context_width 128"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        model(**change)


def test_an_objective_wants_its_part():
    for objective in (FlowPixelDecoding(), Autoencoding(), Autoencoding(part="pixels")):
        with pytest.raises(ValueError, match=r"model\.drawing\.(pixels|target)"):
            objective.check(cases.model(), cases.data(4, 1))
