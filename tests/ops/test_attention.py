import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.ops.attention import attend, attention_weights
from xgenmm_jax.ops.masks import AttentionMask, SlidingWindow, WindowConvention, causal_mask


def reference(query, key, value, mask):
    """Softmax attention in float64, one head after the other."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    group = query.shape[2] // key.shape[2]
    out = np.zeros(query.shape)
    for row in range(query.shape[0]):
        for head in range(query.shape[2]):
            scores = query[row, :, head] @ key[row, :, head // group].T / np.sqrt(query.shape[3])
            scores = np.where(mask[row], scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[row, :, head] = weights / weights.sum(-1, keepdims=True) @ value[row, :, head // group]
    return out


def inputs(length, heads, kv_heads):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, length, heads, 8), (2, length, kv_heads, 8), (2, length, kv_heads, 8)]
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def row(segments):
    """(segment ids, positions) of two equal rows."""
    segments = np.repeat(np.asarray(segments, np.int32)[None], 2, axis=0)
    positions = np.zeros_like(segments)
    for t in range(1, segments.shape[1]):
        positions[:, t] = np.where(segments[:, t] == segments[:, t - 1], positions[:, t - 1] + 1, 0)
    return jnp.asarray(segments), jnp.asarray(positions)


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize("length", [40, 300])
def test_attention_is_softmax_of_scores(length, heads, kv_heads):
    """Grouped queries, packed segments, and at 300 positions three causal chunks of which the last is short."""
    query, key, value = inputs(length, heads, kv_heads)
    third = length // 3
    segments, positions = row([1] * third + [2] * (length - third))
    window = SlidingWindow.of(WindowConvention.W, 20)
    mask = causal_mask(segments, positions, segments, positions, window.left)
    expected = reference(query, key, value, np.asarray(mask))
    for order in (None, window):
        got = jax.jit(attend, static_argnames="window")(query, key, value, AttentionMask(mask), window=order)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_rows_without_keys_are_finite_and_have_finite_gradients():
    query, key, value = inputs(5, 2, 2)
    mask = jnp.zeros((2, 1, 5), bool)

    def total(query):
        return attend(query, key, value, AttentionMask(mask)).sum()

    assert np.isfinite(total(query))
    assert np.isfinite(jax.grad(total)(query)).all()


def test_weights_are_those_that_attend_uses():
    query, key, value = inputs(7, 3, 3)
    mask = jnp.arange(7)[None, None] < jnp.asarray([3, 7])[:, None, None]
    weights = attention_weights(query, key, mask)
    np.testing.assert_allclose(
        jnp.einsum("BNTS,BSNH->BTNH", weights, value), attend(query, key, value, AttentionMask(mask)), rtol=0, atol=1e-6
    )


def test_windows_count_inside_a_segment():
    """Window 2 in a row of two segments and padding: w + 1, w, and all keys."""
    segments, positions = row([1, 1, 1, 1, 2, 2, 0])
    masks = {
        convention: np.asarray(
            causal_mask(segments, positions, segments, positions, SlidingWindow.of(convention, 2).left)
        )[0]
        for convention in WindowConvention
    }
    assert masks[WindowConvention.W_PLUS_1].sum(-1).tolist() == [1, 2, 3, 3, 1, 2, 0]
    assert masks[WindowConvention.W].sum(-1).tolist() == [1, 2, 2, 2, 1, 2, 0]
    assert masks[WindowConvention.NONE].sum(-1).tolist() == [1, 2, 3, 4, 1, 2, 0]
    assert not masks[WindowConvention.NONE][4:, :4].any()
