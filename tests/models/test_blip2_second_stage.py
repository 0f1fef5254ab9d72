"""The Q-Former as a connector: BLIP-2's second stage is next-token prediction, with transformers' numbers."""

from dataclasses import replace

import blip2_goldens as goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.batch import Batch
from xgenmm_jax.convert.formats import blip2
from xgenmm_jax.data.anyres import AnyRes
from xgenmm_jax.data.records import Crops
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Tokenizer
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.models import flops, probes
from xgenmm_jax.models.blip3 import VLM, VLMConfig, initialize
from xgenmm_jax.models.flops import Workload
from xgenmm_jax.models.qformer import QFormer
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives.next_token import NextToken

CONNECTOR = replace(goldens.CONNECTOR, out_width=24, feature_epsilon=1e-6)
CONFIG = VLMConfig(goldens.VISION, CONNECTOR, goldens.DECODER, TokenSampling.FIXED_RESOLUTION)
RULES = blip2.parts_rules(blip2.Blip2Parts(goldens.VISION, CONNECTOR))
FREEZE = ("vision", "decoder")
IMAGE_ID, BOS, EOS = 65, 1, 2


@pytest.fixture(scope="module")
def params() -> dict:
    return {**goldens.tree_of(RULES, goldens.PHI3), "decoder": goldens.decoder()}


def batch() -> Batch:
    """The golden's rows; its pixels are floats that are normalised already."""
    golden = goldens.golden("phi3/stage2")
    rows, length = golden["input_ids"].shape
    empty = Batch.empty(rows, length, 1, 1, 28, pixel_dtype=np.float32)
    mask = golden["attention_mask"] > 0
    slot = np.full((rows, length), -1, np.int32)
    slot[:, : goldens.QUERIES] = np.arange(goldens.QUERIES)
    return jax.tree.map(
        jnp.asarray,
        empty._replace(
            token_ids=golden["input_ids"].astype(np.int32),
            segment_ids=mask.astype(np.int32),
            positions=np.where(mask, np.arange(length), 0).astype(np.int32),
            loss_mask=golden["labels"] >= 0,
            slot=slot,
            pixels=goldens.pixels()[:, None],
            crop_image=np.zeros((rows, 1), np.int32),
            crop_segment=np.ones((rows, 1), np.int32),
            image_size_px=np.full((rows, 1, 2), 28, np.int32),
        ),
    )


def test_tokens_logits_and_loss_are_the_official_ones(params):
    golden = goldens.golden("phi3/stage2")
    mask = golden["attention_mask"] > 0

    def outputs(model: VLM, batch: Batch):
        tokens = model.encode_images(batch)
        return model.connector.normalize(model.features(batch)[:, 0]), tokens, model.logits(model.hidden(batch))

    with jax.default_matmul_precision("highest"):
        apply = jax.jit(lambda params, batch: VLM(CONFIG).apply({"params": params}, batch, method=outputs))
        embeds, tokens, logits = apply(params, batch())
    np.testing.assert_allclose(embeds, golden["image_embeds"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(tokens, golden["vision_tokens"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(np.asarray(logits)[mask], golden["logits"][mask], rtol=0, atol=2e-5)
    log_probs = np.asarray(jax.nn.log_softmax(logits[:, :-1]))
    labels = golden["labels"][:, 1:]
    chosen = np.take_along_axis(log_probs, np.maximum(labels, 0)[..., None], -1)[..., 0]
    assert abs(-chosen[labels >= 0].mean() - golden["loss"]) < 1e-6 * golden["loss"]


@pytest.mark.slow
def test_gradients_of_next_token_prediction_are_the_official_ones(params):
    def loss(connector):
        whole = {**params, "connector": connector}
        total, _ = NextToken().loss(CONFIG, whole, None, batch(), jax.random.key(0), FREEZE)
        return total.total / total.weight

    with jax.default_matmul_precision("highest"):
        value, grads = jax.jit(jax.value_and_grad(loss))(params["connector"])
    golden, expected = goldens.golden("phi3/stage2"), goldens.norms("phi3/gradient_norms.json")
    assert abs(float(value) - golden["loss"]) < 1e-6 * golden["loss"]
    tensors = goldens.in_their_names(RULES, {"connector": grads})
    assert set(expected) == set(tensors)
    for name, norm in expected.items():
        assert abs(np.linalg.norm(tensors[name]) - norm) <= 1e-4 * max(norm, 1e-2), name
    for name in golden:
        if name.startswith("grad:"):
            np.testing.assert_allclose(tensors[name.removeprefix("grad:")], golden[name], rtol=0, atol=2e-5)


class Ids(Tokenizer):
    """The golden's special ids: it was made from random ids, without any text."""

    def __init__(self):
        self.pad_id, self.image_id, self.end_of_chunk_id, self.eos_id = 0, IMAGE_ID, EOS, EOS


@pytest.mark.slow
@pytest.mark.parametrize(("name", "beams"), [("greedy", 1), ("beams3", 3)])
def test_generated_ids_are_the_official_ones(params, name, beams):
    """Vision tokens stand before the language model's bos; the end token is suppressed."""
    views = AnyRes(grids=(), view_px=28, view_cells=4)
    generator = Generator(CONFIG, params, Ids(), views, stop_ids=())
    pixels = np.asarray(goldens.pixels())
    prompts = [Prompt((IMAGE_ID, BOS), (Crops(one[None], (28, 28)),)) for one in pixels]
    got = generator.generate_ids(prompts, Decoding(max_new_tokens=6, num_beams=beams))
    expected = goldens.golden("phi3/stage2")[name]
    assert got == expected[:, goldens.QUERIES + 1 :].tolist()


def test_the_compiler_counts_as_many_flops():
    """Of the connector; elementwise work is the difference."""
    config = replace(CONNECTOR, width=64, inner=64, hidden=256, queries=16, out_width=128)
    features = jax.ShapeDtypeStruct((2, 65, 64), jnp.float32)
    variables = unboxed(jax.eval_shape(QFormer(config).init, jax.random.key(0), features))
    counted = jax.jit(QFormer(config).apply).lower(variables, features).compile().cost_analysis()["flops"]
    expected = flops.qformer_flops(config, 2, 65)
    assert expected < counted < 1.25 * expected


def test_a_step_costs_what_it_trains():
    work = Workload(tokens=10, pairs=55, supervised=5, crops=4, images=4)
    once = flops.forward_flops(CONFIG, work)
    step = flops.model_flops(CONFIG, work, FREEZE, reference=False)
    assert step.vision == once.vision and step.decoder == 2 * once.decoder
    assert step.connector == 3 * once.connector  # a norm trains between the frozen features and the maps


@pytest.mark.slow
def test_probes_name_its_parts():
    names = probes.names(CONFIG)
    assert {"qformer", "qformer/attention", "qformer/layers", "qformer/layers/layer0/cross"} <= set(names)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_q_former_is_float32_whatever_the_dtype(params, dtype):
    """In bfloat16 its maps were rounded, and answers were others than those of transformers."""
    config, rows = replace(CONFIG, dtype=dtype), batch()
    shape = (*rows.crop_image.shape, goldens.VISION.features, goldens.VISION.width)
    features = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    tokens = VLM(config).apply({"params": params}, features, rows, method="connect")
    exact = QFormer(CONNECTOR).apply({"params": params["connector"]}, features[:, 0])
    assert tokens.dtype == dtype
    np.testing.assert_array_equal(tokens, exact.astype(dtype))


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="strips with a Q-Former, which reads one crop"):
        replace(CONFIG, token_sampling=TokenSampling.STRIPS)
    with pytest.raises(ValueError, match="only a Q-Former reads it"):
        replace(CONFIG, connector=ResamplerConfig(width=20, out_width=24))
    with pytest.raises(ValueError, match="connector.out_width: got 0, the decoder takes 24"):
        replace(CONFIG, connector=goldens.CONNECTOR)
    with pytest.raises(ValueError, match="a bare tower with class_token False"):
        ViTConfig(bare=True)
    with pytest.raises(ValueError, match="heads and 12 layers for cross_every 13"):
        replace(CONNECTOR, layers=12, cross_every=13)


def test_a_tower_without_class_token_is_read_too():
    """Nano's and SigLIP's."""
    vision = ViTConfig(image_size_px=28, patch_px=7, width=20, hidden=87, layers=2, heads=4)
    boxed = jax.eval_shape(lambda key: initialize(replace(CONFIG, vision=vision), key), jax.random.key(0))
    assert unboxed(boxed)["connector"]["projection"]["kernel"].shape == (24, 24)
