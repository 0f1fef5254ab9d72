"""Losses against their direct formulas."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np
import pytest

from xgenmm_jax.training.objectives import losses
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, row_sharding, spec


def random_rows(rows: int = 3, length: int = 21, width: int = 5, vocab: int = 11):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(rows, length, width)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(width, vocab)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, vocab, (rows, length)), jnp.int32)
    mask = rng.random((rows, length)) < np.array([0.7, 0.0, 0.2])[:, None]
    mask[:, 0] = False
    return hidden, kernel, ids, jnp.asarray(mask)


def direct(hidden, kernel, ids, mask):
    log_probs = jax.nn.log_softmax(hidden[:, :-1] @ kernel)
    chosen = jnp.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(jnp.where(mask[:, 1:], chosen, 0.0), ((0, 0), (1, 0)))


@pytest.mark.parametrize("chunk", [1, 4, 8, 64])
def test_chunked_log_probs_equal_the_whole_softmax(chunk):
    """Chunks that are skipped, padded or half full once dropped tokens in other codebases."""
    hidden, kernel, ids, mask = random_rows()
    got = losses.token_log_probs(lambda x: x @ kernel, hidden, ids, mask, chunk)
    np.testing.assert_allclose(got, direct(hidden, kernel, ids, mask), rtol=1e-5, atol=1e-6)


def test_chunked_gradients_equal_the_whole_softmax():
    hidden, kernel, ids, mask = random_rows()
    chunked = jax.grad(lambda h, k: losses.token_log_probs(lambda x: x @ k, h, ids, mask, 4).sum(), argnums=(0, 1))(
        hidden, kernel
    )
    whole = jax.grad(lambda h, k: direct(h, k, ids, mask).sum(), argnums=(0, 1))(hidden, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), chunked, whole)


def test_pair_sums_are_the_segments_of_each_pair():
    values = jnp.asarray([[1.0, 2, 3, 4, 5, 6, 7]])
    segments = jnp.asarray([[1, 1, 2, 3, 4, 4, 0]], jnp.int32)
    chosen, rejected = losses.pair_sums(values, segments)
    np.testing.assert_array_equal(chosen[0], [3, 4, 0, 0])
    np.testing.assert_array_equal(rejected[0], [3, 11, 0, 0])


def test_preference_loss_at_equal_policies_is_log_two():
    margin = jnp.asarray([3.0, -2.0])
    np.testing.assert_allclose(losses.preference_loss(margin, margin, 0.1), np.log(2) * np.ones(2), rtol=1e-6)
    got = losses.preference_loss(margin, jnp.asarray([1.0, 1.0]), 0.5)
    np.testing.assert_allclose(got, np.log1p(np.exp(-0.5 * np.array([2.0, -3.0]))), rtol=1e-6)


def test_contrastive_losses_equal_their_formulas():
    rng = np.random.default_rng(1)
    image, text = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    scale, bias = np.float32(3.0), np.float32(-1.5)
    nothing = jnp.zeros((5, 5), bool)
    logits = scale * image.astype(np.float64) @ text.T + bias
    sign = 2 * np.eye(5) - 1
    sigmoid = np.log1p(np.exp(-sign * logits)).sum()
    arguments = (jnp.asarray(image), jnp.asarray(text), jnp.asarray(scale), jnp.asarray(bias), nothing)
    np.testing.assert_allclose(losses.sigmoid_contrast(*arguments), sigmoid, rtol=1e-5)
    over_texts = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    over_images = np.log(np.exp(logits).sum(0)) - np.diag(logits)
    np.testing.assert_allclose(losses.softmax_contrast(*arguments), (over_texts + over_images).sum() / 2, rtol=1e-5)


@pytest.mark.parametrize("empty", [[0], [2, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("contrast", [losses.sigmoid_contrast, losses.softmax_contrast])
def test_places_without_image_and_text_add_nothing_to_a_contrast(contrast, empty):
    """The loss and the gradients are those of the pairs that are there."""
    rng = np.random.default_rng(1)
    image, text = (jnp.asarray(rng.normal(size=(5, 4)), jnp.float32) for _ in range(2))
    there = np.array([n for n in range(5) if n not in empty], int)
    is_pair = np.isin(np.arange(5), there)
    ignored = jnp.asarray(~(is_pair[:, None] & is_pair[None]))

    def loss(image, text, ignored):
        return contrast(image, text, jnp.float32(3.0), jnp.float32(-1.5), ignored)

    got, gradients = jax.value_and_grad(loss, (0, 1))(image, text, ignored)
    if not len(there):
        assert got == 0 and not any(np.asarray(leaf).any() for leaf in gradients)
        return
    nothing = jnp.zeros((len(there), len(there)), bool)
    want, expected_gradients = jax.value_and_grad(loss, (0, 1))(image[there], text[there], nothing)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one[there], other, rtol=1e-4, atol=1e-6)
        assert not np.asarray(one)[empty].any()


def test_same_captions_are_found_and_order_counts():
    ids = jnp.asarray([[1, 2, 0], [2, 1, 0], [1, 2, 0], [1, 2, 3]], jnp.int32)
    same = np.zeros((4, 4), bool)
    same[0, 2] = same[2, 0] = True
    np.testing.assert_array_equal(losses.same_captions(ids), same)


def bfloat16_rows(rows: int = 4, length: int = 24, width: int = 64, vocab: int = 512):
    rng = np.random.default_rng(2)
    hidden = jnp.asarray(rng.normal(size=(rows, length, width)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(width, vocab)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, vocab, (rows, length)), jnp.int32)
    mask = rng.random((rows, length)) < 0.6
    return hidden, kernel, ids, jnp.asarray(mask)


def bfloat16_logits(kernel):
    """As the decoder's head: the product of bfloat16 numbers, summed in float32."""
    return lambda x: jnp.einsum("...D,DV->...V", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


def test_log_probs_of_bfloat16_states_are_accumulated_in_float32():
    """A peer's chunked loss sums in bfloat16: 9.250 for 9.312."""
    hidden, kernel, ids, mask = bfloat16_rows()
    got = losses.token_log_probs(bfloat16_logits(kernel), hidden, ids, mask, 8)
    rounded = [np.asarray(x.astype(jnp.bfloat16), np.float64) for x in (hidden, kernel)]
    logits = rounded[0] @ rounded[1]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs[:, :-1], np.asarray(ids)[:, 1:, None], 2)[..., 0]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got[:, 1:], np.where(mask[:, 1:], chosen, 0), rtol=1e-5, atol=1e-4)


def test_gradients_of_the_head_are_accumulated_over_chunks_in_float32():
    """In bfloat16 a sum of equal parts stops growing at 256 of them."""
    hidden = jnp.broadcast_to(jnp.asarray([1.0, -0.5], jnp.bfloat16)[None, None], (1, 1025, 2))
    kernel, ids, mask = jnp.zeros((2, 4)), jnp.zeros((1, 1025), jnp.int32), jnp.ones((1, 1025), bool)
    grad = jax.grad(lambda k: losses.token_log_probs(bfloat16_logits(k), hidden, ids, mask, 1).sum())(kernel)
    np.testing.assert_allclose(grad, 1024 * np.outer([1, -0.5], [0.75, -0.25, -0.25, -0.25]), rtol=1e-5)


@pytest.mark.parametrize("mesh", [MeshConfig(tensor=8), MeshConfig(replica=2, fsdp=2, tensor=2)])
def test_log_probs_with_the_vocabulary_cut_equal_one_device(mesh):
    hidden, kernel, ids, mask = bfloat16_rows()

    def total(hidden, kernel, ids, mask):
        log_probs = losses.token_log_probs(bfloat16_logits(kernel), hidden, ids, mask, 8)
        return log_probs.sum(), log_probs

    run = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)
    alone = jax.jit(run)(hidden, kernel, ids, mask)
    mesh = make_mesh(mesh)
    rows, head = row_sharding(mesh), NamedSharding(mesh, spec(mesh, ("embed", "vocab"), kernel.shape))
    with jax.set_mesh(mesh):
        cut = jax.jit(run, in_shardings=(rows, head, rows, rows))(hidden, kernel, ids, mask)
    (alone_loss, (alone_hidden, alone_kernel)), (loss, (d_hidden, d_kernel)) = alone, cut
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5), alone_loss, loss)
    # Gradients are rounded to bfloat16 before they leave a device or a chunk: 8 bits.
    for a, b in ((alone_hidden, d_hidden), (alone_kernel, d_kernel)):
        np.testing.assert_allclose(np.asarray(b, np.float32), np.asarray(a, np.float32), rtol=1e-2, atol=2e-2)


def test_no_logits_of_a_whole_row_are_ever_made():
    """Forward and backward, by the shapes of the lowered program: 24 positions, 512 ids, 8 positions a chunk."""
    hidden, kernel, ids, mask = bfloat16_rows()
    run = jax.grad(lambda h, k: losses.token_log_probs(bfloat16_logits(k), h, ids, mask, 8).sum(), argnums=(0, 1))
    text = jax.jit(run).lower(hidden, kernel).as_text()
    assert "4x8x512" in text
    assert "4x24x512" not in text and "3x4x8x512" not in text
