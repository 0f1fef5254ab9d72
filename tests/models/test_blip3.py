from dataclasses import replace

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.batch import Batch
from xgenmm_jax.models.blip3 import VLM, VLMConfig, initialize, prompt_tokens, smallest_batch, splice
from xgenmm_jax.models.kv_cache import empty_cache
from xgenmm_jax.models.mlp_connector import MLPConnectorConfig
from xgenmm_jax.models.phi3 import Phi3Config
from xgenmm_jax.models.resampler import ResamplerConfig
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.models.vit import ViTConfig

CONFIG = VLMConfig(
    vision=ViTConfig(image_size_px=12, patch_px=4, width=8, hidden=16, layers=1, heads=2),
    connector=ResamplerConfig(width=8, layers=1, heads=2, head_width=4, hidden=16, queries=2, out_width=16),
    decoder=Phi3Config(vocab_size=24, num_text_tokens=20, width=16, hidden=24, layers=2, heads=2, kv_heads=1),
)
IMAGE_ID = 20


def sample(segment, group, number_of_groups, text, answer, queries):
    """The text columns of one sample: its image's tokens, a question, an answer. group: the image's first one."""
    vision = number_of_groups * queries
    length = vision + len(text) + len(answer)
    return {
        "token_ids": [IMAGE_ID] * vision + text + answer,
        "segment_ids": [segment] * length,
        "positions": list(range(length)),
        "loss_mask": [False] * (vision + len(text)) + [True] * len(answer),
        "slot": [group * queries + i for i in range(vision)] + [-1] * (len(text) + len(answer)),
    }


def batch_of(samples, grids, valids, pixels, length):
    """One row. samples: columns as `sample` gives them; grids and valids: one an image; pixels of all crops."""
    crop_image, crop_segment = [], []
    for number, (columns, lines) in enumerate(grids):
        crop_image += [number] * (1 + columns * lines)
        crop_segment += [number + 1] * (1 + columns * lines)
    columns = {name: sum((s[name] for s in samples), []) for name in samples[0]}
    spare = length - len(columns["slot"])
    fill = {"slot": -1, "loss_mask": False}
    text = {name: values + [fill.get(name, 0)] * spare for name, values in columns.items()}
    dtypes = {"loss_mask": bool}
    text = {name: np.asarray([values], dtypes.get(name, np.int32)) for name, values in text.items()}
    return Batch(
        **text,
        pixels=pixels[None],
        crop_image=np.asarray([crop_image], np.int32),
        crop_segment=np.asarray([crop_segment], np.int32),
        image_grid=np.asarray([grids], np.int32),
        image_size_px=np.full((1, len(grids), 2), 12, np.int32),
        image_valid=np.asarray([valids], np.int32),
    )


def two_samples(config=CONFIG):
    """A packed row (an image with a 2 x 1 grid, one with its global view alone), and each sample in its own row."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    valids = [(1, 2, 0, 6), (0, 0, 0, 0)]
    groups = 1 if config.token_sampling is TokenSampling.FIXED_SAMPLING else 3
    queries = config.tokens_per_group
    first = sample(1, 0, groups, [3, 4, 5], [8, 9], queries)
    second = sample(2, groups, 1, [6, 7], [10], queries)
    second_alone = sample(1, 0, 1, [6, 7], [10], queries)
    lengths = [len(columns["slot"]) for columns in (first, second)]
    packed = batch_of([first, second], [(2, 1), (0, 0)], valids, pixels, sum(lengths) + 4)
    alone = [
        batch_of([first], [(2, 1)], valids[:1], pixels[:3], lengths[0]),
        batch_of([second_alone], [(0, 0)], valids[1:], pixels[3:], lengths[1]),
    ]
    return packed, alone


def parameters(config):
    return random_parameters(lambda key: initialize(config, key))


def logits_of(config, params, batch):
    return np.asarray(jax.jit(VLM(config).apply)({"params": params}, batch))


AWARE = replace(CONFIG, connector=replace(CONFIG.connector, instruction_tokens=4))
VARIANTS = {
    "crops": CONFIG,
    "strips": replace(CONFIG, token_sampling=TokenSampling.STRIPS),
    "fixed_sampling": replace(CONFIG, token_sampling=TokenSampling.FIXED_SAMPLING),
    "instruction_aware": AWARE,
    "mlp": replace(CONFIG, connector=MLPConnectorConfig(width=8, out_width=16)),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_packed_samples_are_separate_samples(config):
    """Images, question and answer of two samples in one row: no token of one moves a logit of the other."""
    params = parameters(config)
    packed, alone = two_samples(config)
    together = logits_of(config, params, packed)[0]
    start = 0
    for batch in alone:
        length = batch.token_ids.shape[1]
        np.testing.assert_allclose(
            together[start : start + length], logits_of(config, params, batch)[0], rtol=0, atol=1e-5
        )
        start += length


def test_the_answer_does_not_reach_the_image():
    """The instruction is the prompt alone: other targets leave the vision tokens as they are."""
    params = {"params": parameters(AWARE)}
    packed, _ = two_samples()
    other = packed._replace(token_ids=np.where(packed.loss_mask, 11, packed.token_ids))
    question = packed._replace(token_ids=np.where(packed.token_ids == 4, 11, packed.token_ids))
    encode = jax.jit(lambda batch: VLM(AWARE).apply(params, batch, method="encode_images"))
    np.testing.assert_array_equal(encode(other), encode(packed))
    assert np.abs(encode(question) - encode(packed)).max() > 1e-3


def test_prompt_tokens_of_segments():
    packed, _ = two_samples()
    index, mask = prompt_tokens(jax.tree.map(jnp.asarray, packed), jnp.asarray([[1, 2, 0]], jnp.int32), 2)
    assert mask[0].tolist() == [[True, True], [True, True], [False, False]]
    assert packed.token_ids[0][np.asarray(index[0, :2])].tolist() == [[3, 4], [6, 7]]


def test_frozen_tower_gets_no_gradient():
    params = parameters(CONFIG)
    batch, _ = two_samples()

    def gradients(vlm):
        loss = lambda p: jnp.square(vlm.apply({"params": p}, batch_)).mean()  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    batch_ = jax.tree.map(jnp.asarray, batch)
    frozen = gradients(VLM(CONFIG))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen["vision"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(frozen["connector"]))
    trained = gradients(VLM(CONFIG, trains_vision=True))["vision"]
    del trained["head"]
    assert all(np.any(leaf) for leaf in jax.tree.leaves(trained))


def test_batches_without_crops_are_text():
    params = parameters(CONFIG)
    packed, _ = two_samples()
    none = packed._replace(
        token_ids=np.where(packed.token_ids == IMAGE_ID, 1, packed.token_ids),
        slot=np.full_like(packed.slot, -1),
        pixels=packed.pixels[:, :0],
        crop_image=packed.crop_image[:, :0],
        crop_segment=packed.crop_segment[:, :0],
    )
    some = none._replace(pixels=packed.pixels, crop_image=packed.crop_image, crop_segment=packed.crop_segment)
    np.testing.assert_array_equal(logits_of(CONFIG, params, none), logits_of(CONFIG, params, some))


def test_prefill_and_decode_are_the_whole_row():
    """A left-padded prompt with its image, then the answer's tokens one by one."""
    params = {"params": parameters(CONFIG)}
    _, (batch, _) = two_samples()
    expected = jax.jit(VLM(CONFIG).apply)(params, batch)[0]
    prompt, pad, length = 9, 2, 11
    left = batch._replace(
        **{
            name: np.pad(getattr(batch, name)[:, :prompt], ((0, 0), (pad, 0)), constant_values=value)
            for name, value in [
                ("token_ids", 0),
                ("segment_ids", 0),
                ("positions", 0),
                ("slot", -1),
                ("loss_mask", False),
            ]
        }
    )
    cache = empty_cache(CONFIG.decoder, 1, 16, "float32")

    def prefill(model, batch, cache):
        hidden, cache = model.decoder.extend(model.embed(batch), batch.segment_ids, batch.positions, cache, 0)
        return model.logits(hidden[:, -1]), cache

    def decode_one(model, ids, segment_ids, positions, cache, start):
        hidden, cache = model.decoder.extend(model.decoder.embed(ids), segment_ids, positions, cache, start)
        return model.logits(hidden[:, 0]), cache

    logits, cache = jax.jit(lambda *arguments: VLM(CONFIG).apply(params, *arguments, method=prefill))(left, cache)
    np.testing.assert_allclose(logits[0], expected[prompt - 1], rtol=0, atol=1e-5)
    decode = jax.jit(lambda *arguments: VLM(CONFIG).apply(params, *arguments, method=decode_one))
    for t in range(prompt, length):
        one = [np.asarray(x, np.int32) for x in (batch.token_ids[:, t : t + 1], [[1]], [[t]])]
        logits, cache = decode(*one, cache, np.int32(pad + t))
        np.testing.assert_allclose(logits[0], expected[t], rtol=0, atol=1e-5)


def test_mlp_connector_pools_each_crop():
    """A 3 x 3 grid gives 2 x 2 tokens a crop."""
    config = replace(CONFIG, connector=MLPConnectorConfig(width=8, out_width=16))
    assert config.tokens_per_group == 4
    params = nn.unbox(jax.jit(lambda key: initialize(config, key))(jax.random.key(1)))
    row = jnp.ones((1, 5), jnp.int32)
    batch = smallest_batch(config)._replace(slot=jnp.cumsum(row, axis=1, dtype=jnp.int32) - 2, segment_ids=row)
    logits = logits_of(config, params, batch)
    assert logits.shape == (1, 5, 23) and np.isfinite(logits).all()


def test_tokens_are_laid_into_their_slots():
    text = jnp.arange(4.0).reshape(1, 4, 1)
    image = jnp.asarray([10.0, 11.0]).reshape(1, 2, 1)
    slot = jnp.asarray([[-1, 0, 1, -1]], jnp.int32)
    assert splice(text, image, slot).reshape(-1).tolist() == [0, 10, 11, 3]


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters_and_logits():
    config = replace(CONFIG, dtype="bfloat16")
    params = parameters(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    packed, _ = two_samples()
    hidden = jax.jit(lambda p, b: VLM(config).apply({"params": p}, b, method="hidden"))(params, packed)
    assert hidden.dtype == jnp.bfloat16
    logits = logits_of(config, params, packed)
    assert logits.dtype == np.float32
    exact = logits_of(CONFIG, params, packed)
    assert np.abs(logits - exact).mean() < 0.02 * np.abs(exact).mean() + 0.02


@pytest.mark.parametrize(
    "change, message",
    [
        ({"connector": replace(CONFIG.connector, width=9)}, "connector.width: got 9, the tower gives 8"),
        ({"connector": replace(CONFIG.connector, out_width=9)}, "connector.out_width: got 9, the decoder takes 16"),
        (
            {"connector": MLPConnectorConfig(8, 16), "token_sampling": TokenSampling.STRIPS},
            "got strips with the MLP connector",
        ),
        ({"decoder": replace(CONFIG.decoder, kv_heads=3)}, "2 heads and 3 key-value heads"),
        ({"vision": replace(CONFIG.vision, heads=3)}, "width 8 and 3 heads"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
