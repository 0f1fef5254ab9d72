"""The released layout through the public interface: every intermediate output of the official PyTorch code.

Goldens: `tests/goldens/xgenmm_tiny28` (torch 2.13, transformers 4.41.1, float32 on CPU).
"""

import dataclasses
from dataclasses import replace
import json

from bound_objective import Bound
import jax
from jax import numpy as jnp
import numpy as np
import pytest
import tiny28

import xgenmm_jax
from xgenmm_jax.api.lmm import LMM, Output
from xgenmm_jax.convert.formats import xgenmm
from xgenmm_jax.models.token_sampling import TokenSampling
from xgenmm_jax.ops.masks import WindowConvention
from xgenmm_jax.training import optimizer, step
from xgenmm_jax.training.objectives.next_token import NextToken
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

CLOSE = {"rtol": 0, "atol": 2e-5}
FLOAT32_RELATIVE = 1e-4
PAD = 299


@pytest.fixture(scope="module")
def lmm() -> LMM:
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return xgenmm_jax.load(tiny28.FOLDER, mesh=mesh)


def variant(lmm: LMM, **changes) -> LMM:
    """The same parameters under another config."""
    model = replace(lmm.config, **changes)
    return LMM(lmm.folder, replace(lmm.run, model=model), lmm.params, lmm.processor, lmm.mesh)


def images_of(golden) -> list[list[xgenmm_jax.Crops]]:
    """Per row, a golden's images as the user gives them."""
    if golden["pixel_values"].ndim == 6:
        pixels = golden["pixel_values"].transpose(0, 1, 2, 4, 5, 3)
        return [[xgenmm_jax.Crops(one, (28, 28)) for one in row] for row in pixels]
    pixels = np.split(golden["pixel_values"].transpose(0, 2, 3, 1), np.cumsum(golden["patch_counts"])[:-1])
    sizes = (tuple(map(int, size)) for size in golden["image_sizes_wh"])
    crops = [xgenmm_jax.Crops(one, size) for one, size in zip(pixels, sizes, strict=True)]
    counts = golden.get("images_per_sample", np.ones(len(golden["input_ids"]), int))
    ends = np.cumsum(counts)
    return [crops[end - count : end] for end, count in zip(ends, counts, strict=True)]


def compare(lmm: LMM, golden) -> Output:
    """Logits where something is read, and the loss."""
    images = images_of(golden) if "pixel_values" in golden else None
    out = lmm.forward(golden["input_ids"], images, labels=golden["labels"])
    mask = golden.get("mm_attention_mask", golden.get("attention_mask"))
    if mask is not None and mask.shape == out.attend_mask.shape:
        np.testing.assert_array_equal(out.attend_mask, mask == 1)
    assert out.logits.shape == golden["logits"].shape
    np.testing.assert_allclose(out.logits[out.attend_mask], golden["logits"][out.attend_mask], **CLOSE)
    np.testing.assert_allclose(out.loss, golden["loss"], rtol=0, atol=2e-6)
    if "vision_tokens" in golden:
        tokens = golden["vision_tokens"].reshape(out.vision_tokens.shape)
        np.testing.assert_allclose(out.vision_tokens, tokens, **CLOSE)
    return out


@pytest.mark.parametrize("name", ["anyres", "anyres_single", "anyres_masked"])
def test_any_resolution(lmm, name):
    """Strips; a text-only row with an image that it ignores; strips that are wholly padding."""
    golden = tiny28.golden(name)
    out = compare(lmm, golden)
    if name == "anyres":
        np.testing.assert_allclose(out.vision_features, golden["vision_features_raw"], **CLOSE)


def test_base_resolution(lmm):
    golden = tiny28.golden("base_res")
    out = compare(variant(lmm, token_sampling=TokenSampling.FIXED_RESOLUTION), golden)
    np.testing.assert_allclose(out.vision_features, golden["vision_features"].reshape(-1, 4, 32), **CLOSE)


def test_fixed_sampling(lmm):
    compare(variant(lmm, token_sampling=TokenSampling.FIXED_SAMPLING), tiny28.golden("anyres_fixed_sampling"))


def test_text_only(lmm):
    compare(lmm, tiny28.golden("text_only"))


@pytest.mark.parametrize(
    "version, window",
    [("4.41.1", WindowConvention.W_PLUS_1), ("4.44.2", WindowConvention.NONE), ("4.46.3", WindowConvention.W)],
)
def test_sliding_window(lmm, version, window):
    decoder = replace(lmm.config.decoder, window=window, window_size=8)
    compare(variant(lmm, decoder=decoder), tiny28.golden(f"sliding_window8_tf{version}"))


def test_probed_intermediates_are_the_official_ones(lmm):
    golden = tiny28.golden("anyres")
    probe = ("embeddings", "vision", "resampler", "decoder/layers", "resampler/attention")
    out = lmm.forward(golden["input_ids"], images_of(golden), probe=probe)
    text = out.attend_mask
    np.testing.assert_allclose(out.probed["embeddings"][text], golden["inputs_embeds"][text], **CLOSE)
    np.testing.assert_array_equal(out.probed["vision"], out.vision_features)
    np.testing.assert_array_equal(out.probed["resampler"], out.vision_tokens)
    assert out.probed["decoder/layers"].shape == (2, 2, 80, 64)
    attention = out.probed["resampler/attention"]
    assert attention.shape == (6, 13, 16, 8, 4 + 8)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=0, atol=1e-5)
    masked = golden["vision_attn_mask"] == 0
    assert not attention.transpose(1, 4, 0, 2, 3)[:, :4][masked].any()


def official_names(lmm: LMM, tree) -> dict[str, np.ndarray]:
    """A tree of our form, gradients for instance, by the released names."""
    flat = {optimizer.path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    gradients = {}
    for rule in xgenmm.trained_rules(lmm.config, ""):
        for layer in rule.slices():
            leaf = flat[rule.ours] if layer is None else flat[rule.ours][layer]
            pieces = rule.pieces(layer)
            gradients |= {
                piece.name: np.asarray(part)
                for piece, part in zip(pieces, rule.transform.back(leaf, len(pieces)), strict=True)
            }
    return gradients


def test_gradients(lmm):
    """Twelve gradients and the norm of every one, relative to the largest entry and to the norm."""
    golden = tiny28.golden("anyres")
    batch = lmm.batch(golden["input_ids"], images_of(golden), golden["labels"])
    objective = Bound(NextToken(), lmm.config, lmm.run.data)

    def loss(params, batch):
        total, _ = objective.loss(params, None, batch, jax.random.key(0))
        return total.total / total.weight

    value, gradient = jax.jit(jax.value_and_grad(loss))(lmm.params, batch)
    np.testing.assert_allclose(value, golden["loss"], rtol=0, atol=2e-6)
    ours = official_names(lmm, gradient)
    theirs = {name.removeprefix("grad:"): array for name, array in golden.items() if name.startswith("grad:")}
    assert len(theirs) == 12
    for name, array in theirs.items():
        error = np.abs(ours[name] - array).max()
        assert error <= FLOAT32_RELATIVE * np.abs(array).max(), (name, error)
    norms = json.loads((tiny28.FOLDER / "anyres_grad_norms.json").read_text())
    assert norms.keys() == ours.keys()
    got = {name: float(np.linalg.norm(ours[name])) for name in norms}
    np.testing.assert_allclose(list(got.values()), list(norms.values()), rtol=FLOAT32_RELATIVE, atol=0)


def test_four_training_steps(lmm):
    """The official loop: AdamW with decay on everything, clipping, a warm-up whose first rate is 0, cosine."""
    golden, inputs = tiny28.golden("train_steps"), tiny28.golden("anyres")
    config = OptimizerConfig(
        algorithm="adamw", peak_lr=1e-3, schedule="cosine", warmup_steps=2, warmup_from_zero=True, weight_decay=0.1
    )
    run = dataclasses.replace(lmm.run, objective=NextToken())
    objective = Bound.of(run)
    boxed = jax.eval_shape(objective.init, jax.random.key(0))
    trainable = optimizer.trainable_mask(lmm.params, ("vision",))
    adamw = optimizer.make_optimizer(config, boxed)
    state = step.init_state(jax.tree.map(jnp.copy, lmm.params), trainable, adamw)
    abstract = step.abstract_state(boxed, trainable, adamw, lmm.mesh)
    rates = optimizer.learning_rates(config, 10)
    batch = lmm.batch(inputs["input_ids"], images_of(inputs), inputs["labels"])
    history = []
    with jax.set_mesh(lmm.mesh):
        state = jax.device_put(state, step.shardings_of(abstract))
        advance = step.make_step(run, trainable, adamw, lmm.mesh, abstract)
        for rate in rates[:4]:
            state, metrics = advance(state, None, batch, rate)
            history.append(jax.device_get(metrics))
    assert len(jax.tree.leaves(state.params)) - len(jax.tree.leaves(state.params["vision"])) > 0
    for name, key in (("losses", "loss"), ("lrs", "learning_rate")):
        np.testing.assert_allclose([one[key] for one in history], golden[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose([one["grad_norm"] for one in history], golden["grad_norms"], rtol=1e-5, atol=1e-5)
    ours = official_names(lmm, state.params)
    theirs = {name.removeprefix("param:"): array for name, array in golden.items() if name.startswith("param:")}
    assert len(theirs) == 5
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, rtol=0, atol=1e-5, err_msg=name)


def test_generated_sequences(lmm):
    """Greedy and beams, two rows of unequal images; and the scores, from the finished sequence read at once."""
    golden, inputs = tiny28.golden("anyres_generate"), tiny28.golden("anyres")
    asked = {"images": images_of(inputs), "stop_ids": (290,)}
    greedy = lmm.generate_ids(inputs["input_ids"], max_new_tokens=12, **asked)
    assert greedy == golden["sequences"].tolist()
    beams = xgenmm_jax.Decoding(8, num_beams=3)
    assert lmm.generate_ids(inputs["input_ids"], decoding=beams, **asked) == golden["beam3"].tolist()
    # The second row's prompt ends in pads: its first score belongs to one of them (tests/generation has it).
    out = lmm.forward([[*inputs["input_ids"][0], *greedy[0]]], images_of(inputs)[:1])
    scores = out.logits[0, -13:-1]
    np.testing.assert_allclose(scores, golden["scores"][0], rtol=0, atol=1e-4)


def test_bfloat16_forward(lmm):
    """The largest error stays within 2e-2 of the largest logit, and what is likeliest where the margin is above."""
    half = xgenmm_jax.load(tiny28.FOLDER, dtype="bfloat16", mesh=lmm.mesh)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("bfloat16")}
    for name in ("anyres", "anyres_masked"):
        golden = tiny28.golden(name)
        out = half.forward(golden["input_ids"], images_of(golden))
        expected, got = golden["logits"][out.attend_mask], out.logits[out.attend_mask]
        allowed = 2e-2 * np.abs(expected).max()
        assert np.abs(got - expected).max() < allowed, name
        best = np.sort(expected, axis=-1)
        sure = best[:, -1] - best[:, -2] > allowed
        assert sure.any() and (got.argmax(-1) == expected.argmax(-1))[sure].all()
