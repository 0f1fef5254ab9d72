"""The model against the official PyTorch code, every intermediate output that the goldens hold."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny28

from xgenmm_jax.models.blip3 import VLM, splice
from xgenmm_jax.models.kv_cache import empty_cache
from xgenmm_jax.models.phi3 import Phi3
from xgenmm_jax.models.token_sampling import TokenSampling, group_strips
from xgenmm_jax.ops.masks import WindowConvention

TOLERANCE = {"rtol": 0, "atol": 2e-5}
PAD = 299


def forward(model: VLM, pixels, batch):
    """Features, vision tokens and logits from pixels that are normalised already."""
    rows, crops = pixels.shape[:2]
    features = model.vision(pixels.reshape(rows * crops, *pixels.shape[2:]))
    features = features.reshape(rows, crops, *features.shape[1:])
    tokens = model.connect(features, batch)
    embeddings = splice(model.decoder.embed(batch.token_ids), tokens, batch.slot)
    hidden = model.decoder.hidden(embeddings, batch.segment_ids, batch.positions)
    return features, tokens, model.logits(hidden)


def run(batch, pixels, config=tiny28.CONFIG):
    apply = jax.jit(lambda params, pixels, batch: VLM(config).apply({"params": params}, pixels, batch, method=forward))
    return jax.tree.map(np.asarray, apply(tiny28.parameters(), pixels, batch))


def kept(ids):
    return [int(token) for token in ids if token != PAD]


def images_of(golden, counts):
    """The images of a golden, in order, with their grids."""
    crops = np.split(golden["pixel_values"], np.cumsum(counts)[:-1])
    images = []
    for pixels, size in zip(crops, golden["image_sizes_wh"], strict=True):
        columns, rows = tiny28.best_grid(size) if len(pixels) > 1 else (0, 0)
        assert columns * rows + 1 == len(pixels)
        images.append((pixels, size, columns, rows))
    return images


def per_crop(tokens, batch, queries=8):
    """Vision tokens of the crops that exist, in the order of rows and crops."""
    by_crop = tokens.reshape(*batch.crop_image.shape, queries, -1)
    return by_crop[batch.crop_image >= 0]


def anyres_batch(name, left=False):
    golden = tiny28.golden(name)
    images = images_of(golden, golden["patch_counts"])
    per_row = golden.get("images_per_sample", np.ones(len(golden["input_ids"]), int))
    ends = np.cumsum(per_row)
    image_rows = [images[end - count : end] for end, count in zip(ends, per_row, strict=True)]
    token_rows = [kept(ids) for ids in golden["input_ids"]]
    batch, pixels = tiny28.make_batch(token_rows, image_rows, golden["logits"].shape[1], left=left)
    return golden, batch, pixels


def test_base_resolution():
    """Two images in one row, one in the other; features, tokens and logits."""
    golden = tiny28.golden("base_res")
    token_rows = [kept(ids) for ids in golden["input_ids"]]
    size = (28, 28)
    image_rows = [
        [(golden["pixel_values"][row, i], size, 0, 0) for i in range(ids.count(tiny28.IMAGE_ID))]
        for row, ids in enumerate(token_rows)
    ]
    batch, pixels = tiny28.make_batch(token_rows, image_rows, golden["logits"].shape[1])
    features, tokens, logits = run(batch, pixels, replace(tiny28.CONFIG, token_sampling=TokenSampling.FIXED_RESOLUTION))

    present = batch.crop_image >= 0
    np.testing.assert_allclose(features[present], golden["vision_features"][:, :, 0][present], **TOLERANCE)
    np.testing.assert_allclose(per_crop(tokens, batch), golden["vision_tokens"][present], **TOLERANCE)
    text = golden["mm_attention_mask"] == 1
    np.testing.assert_array_equal(text, batch.segment_ids > 0)
    np.testing.assert_allclose(logits[text], golden["logits"][text], **TOLERANCE)


@pytest.mark.parametrize("name", ["anyres", "anyres_single", "anyres_masked"])
def test_strips(name):
    """Wide, tall and square images, strips that are wholly padding, a text-only row with an image that it ignores."""
    golden, batch, pixels = anyres_batch(name)
    features, tokens, logits = run(batch, pixels)

    present = batch.crop_image >= 0
    grouped, mask = jax.tree.map(np.asarray, jax.jit(group_strips, static_argnums=2)(features, batch, 2))
    np.testing.assert_array_equal(mask[present], golden["vision_attn_mask"] == 1)
    np.testing.assert_allclose(grouped[present], golden["vision_features_grouped"], **TOLERANCE)
    np.testing.assert_allclose(per_crop(tokens, batch), golden["vision_tokens"][:, 0], **TOLERANCE)
    text = batch.segment_ids > 0
    if "mm_attention_mask" in golden:
        np.testing.assert_array_equal(text, golden["mm_attention_mask"] == 1)
    np.testing.assert_allclose(logits[text], golden["logits"][text], **TOLERANCE)


def test_crops_are_not_strips():
    """The paper's token sampling gives other tokens wherever the grid has more than one column."""
    _, batch, pixels = anyres_batch("anyres")
    _, strips, _ = run(batch, pixels)
    _, crops, _ = run(batch, pixels, replace(tiny28.CONFIG, token_sampling=TokenSampling.CROPS))
    strips, crops = (x.reshape(2, 8, 8, 64) for x in (strips, crops))
    # row 0: a 3 x 1 image (crops 0..3), then a 1 x 3 one (crops 4..7)
    np.testing.assert_allclose(strips[0, 0], crops[0, 0], **TOLERANCE)
    assert np.abs(strips[0, 1:4] - crops[0, 1:4]).max() > 0.1
    np.testing.assert_allclose(strips[0, 4:], crops[0, 4:], **TOLERANCE)


def test_fixed_sampling():
    """All crops of an image in one group; the order inside it does not matter."""
    golden = tiny28.golden("anyres_fixed_sampling")
    images = images_of(golden, golden["patch_counts"])
    token_rows = [kept(ids) for ids in golden["input_ids"]]
    batch, pixels = tiny28.make_batch(
        token_rows, [[image] for image in images], golden["logits"].shape[1], per_image=True
    )
    _, tokens, logits = run(batch, pixels, replace(tiny28.CONFIG, token_sampling=TokenSampling.FIXED_SAMPLING))
    np.testing.assert_allclose(tokens, golden["vision_tokens"][:, 0], **TOLERANCE)
    text = batch.segment_ids > 0
    np.testing.assert_allclose(logits[text], golden["logits"][text], **TOLERANCE)


def text_logits(golden, config):
    ids = golden["input_ids"].astype(np.int32)
    valid = golden["attention_mask"].astype(np.int32)
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    params = {"params": tiny28.parameters()["decoder"]}
    return np.asarray(jax.jit(Phi3(config).apply)(params, ids, valid, positions))


def test_text_only():
    golden = tiny28.golden("text_only")
    text = golden["attention_mask"]
    np.testing.assert_allclose(text_logits(golden, tiny28.CONFIG.decoder)[text], golden["logits"][text], **TOLERANCE)


@pytest.mark.parametrize(
    "version, window",
    [("4.41.1", WindowConvention.W_PLUS_1), ("4.44.2", WindowConvention.NONE), ("4.46.3", WindowConvention.W)],
)
def test_sliding_window(version, window):
    """The three readings of `sliding_window: 8` by three versions of transformers."""
    golden = tiny28.golden(f"sliding_window8_tf{version}")
    config = replace(tiny28.CONFIG.decoder, window=window, window_size=8)
    text = golden["attention_mask"]
    np.testing.assert_allclose(text_logits(golden, config)[text], golden["logits"][text], **TOLERANCE)


def test_gradients_of_the_official_loss():
    """Loss and the gradients of twelve parameters, through splicing, resampler and decoder."""
    golden, batch, pixels = anyres_batch("anyres")
    labels = golden["mm_labels"][:, 1:]
    target = np.where(labels == -100, 0, labels)[..., None]

    def loss(params, pixels, batch):
        _, _, logits = VLM(tiny28.CONFIG).apply({"params": params}, pixels, batch, method=forward)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits[:, :-1]), target, axis=-1)[..., 0]
        return jnp.where(labels == -100, 0, losses).sum() / (labels != -100).sum()

    value, grads = jax.jit(jax.value_and_grad(loss))(tiny28.parameters(), pixels, batch)
    np.testing.assert_allclose(value, golden["loss"], **TOLERANCE)
    connector, decoder = grads["connector"], grads["decoder"]
    key_value = connector["layers"]["to_kv"]["kernel"][0]  # [E, 2, N, H]
    qkv = decoder["layers"]["qkv_proj"]["kernel"][0]  # [D, K, 3, H]
    ours = {
        "vision_tokenizer.latents": connector["latents"],
        "vision_tokenizer.projection.weight": connector["projection"]["kernel"].T,
        "vision_tokenizer.projection.bias": connector["projection"]["bias"],
        "vision_tokenizer.layers.0.0.to_kv.weight": key_value.transpose(1, 2, 3, 0).reshape(3072, 32),
        "vision_tokenizer.layers.5.1.1.weight": connector["layers"]["ff1"]["kernel"][5].T,
        "lang_model.model.embed_tokens.weight": decoder["embedding"],
        "lang_model.model.embed_tokens.additional_embedding.weight": decoder["additional_embedding"],
        "lang_model.lm_head.bias": decoder["head_bias"],
        "lang_model.lm_head.additional_fc.weight": decoder["additional_head_kernel"].T,
        "lang_model.lm_head.additional_fc.bias": decoder["additional_head_bias"],
        "lang_model.model.layers.0.self_attn.qkv_proj.weight": qkv.transpose(2, 1, 3, 0).reshape(192, 64),
        "lang_model.model.norm.weight": decoder["norm"]["scale"],
    }
    theirs = {name.removeprefix("grad:"): value for name, value in golden.items() if name.startswith("grad:")}
    assert sorted(ours) == sorted(theirs)
    for name, gradient in theirs.items():
        np.testing.assert_allclose(ours[name], gradient, **TOLERANCE, err_msg=name)


def test_greedy_decoding_with_the_cache():
    """The official left-padded greedy sequence, token by token from our cache.

    Row 1 of the golden ends in pads inside its prompt, as a right-padding collator leaves them, and the official code
    predicts from the last pad; our rows end with their last token, so that row is left out here.
    """
    golden = tiny28.golden("anyres_generate")
    _, batch, pixels = anyres_batch("anyres", left=True)
    rows, prompt = batch.token_ids.shape
    new_tokens = golden["sequences"].shape[1]

    def generate(model, pixels, batch):
        features = model.vision(pixels.reshape(-1, *pixels.shape[2:]))
        tokens = model.connect(features.reshape(*pixels.shape[:2], *features.shape[1:]), batch)
        embeddings = splice(model.decoder.embed(batch.token_ids), tokens, batch.slot)
        cache = empty_cache(tiny28.CONFIG.decoder, rows, prompt + new_tokens, "float32")
        hidden, cache = model.decoder.extend(embeddings, batch.segment_ids, batch.positions, cache, 0)
        return model.logits(hidden[:, -1]), cache

    def step(model, token, positions, cache, start):
        ones = jnp.ones((rows, 1), jnp.int32)
        embeddings = model.decoder.embed(token[:, None])
        hidden, cache = model.decoder.extend(embeddings, ones, positions[:, None], cache, start)
        return model.logits(hidden[:, 0]), cache

    params = {"params": tiny28.parameters()}
    prefill = jax.jit(lambda *arguments: VLM(tiny28.CONFIG).apply(params, *arguments, method=generate))
    decode = jax.jit(lambda *arguments: VLM(tiny28.CONFIG).apply(params, *arguments, method=step))
    logits, cache = prefill(pixels, batch)
    sequence = []
    for number in range(new_tokens):
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        sequence.append(token)
        np.testing.assert_allclose(logits[0], golden["scores"][0, number], **TOLERANCE)
        positions = batch.positions[:, -1] + 1 + number
        logits, cache = decode(token, positions, cache, np.int32(prompt + number))
    np.testing.assert_array_equal(jnp.stack(sequence, axis=1)[0], golden["sequences"][0])
