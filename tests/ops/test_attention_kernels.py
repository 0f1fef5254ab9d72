"""Kernels of TPU and GPU, and XLA's blockwise attention, against dense masks; the implementation of a platform."""

import functools

from gpu_mesh import abstract_mesh
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.ops import attention_blockwise, attention_choice, attention_splash, attention_xla
from xgenmm_jax.ops.attention import attend, attention_weights
from xgenmm_jax.ops.attention_choice import implementation_for
from xgenmm_jax.ops.attention_triton import block_ranges
from xgenmm_jax.ops.masks import (
    AttentionMask,
    SlidingWindow,
    WindowConvention,
    causal_mask,
    dense_mask,
    key_padding_mask,
    packed_causal_mask,
)
from xgenmm_jax.ops.triton_kernels import Order
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh

KERNELS = ("splash", "flash")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks a row at lengths that an interpreter manages."""
    monkeypatch.setattr(attention_splash, "LARGEST_BLOCK", 128)


def packed(*lengths, rows=1, padding=0):
    """(segment ids, positions) of equal rows whose segments have these lengths."""
    segments = np.concatenate([np.full(n, i + 1) for i, n in enumerate(lengths)] + [np.zeros(padding, int)])
    positions = np.concatenate([np.arange(n) for n in lengths] + [np.zeros(padding, int)])
    return [jnp.asarray(np.tile(x, (rows, 1)), jnp.int32) for x in (segments, positions)]


def random_heads(rows, length, keys, heads, kv_heads, width, dtype=jnp.float32):
    """Query, key, value and a gradient of the result."""
    shapes = [(rows, length, heads, width), *[(rows, keys, kv_heads, width)] * 2, (rows, length, heads, width)]
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def value_and_gradients(query, key, value, grad, mask, window, implementation, is_read):
    """Results that are read, and gradients of their product with `grad`."""

    @jax.jit
    def run(query, key, value):
        def total(*heads):
            context = attend(*heads, mask, window, implementation)
            context = jnp.where(is_read[:, :, None, None], context, 0)
            return jnp.sum(context * grad), context

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(query, key, value)

    (_, context), gradients = run(query, key, value)
    return context, *gradients


def assert_equal_to_xla(heads, make_mask, window, implementation, is_read):
    expected, got = (
        value_and_gradients(*heads, make_mask(name), window, name, is_read) for name in ("xla", implementation)
    )
    for name, a, b in zip(("context", "d_query", "d_key", "d_value"), expected, got, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5, err_msg=f"{implementation} {name}")


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize(
    "convention",
    [
        WindowConvention.W_PLUS_1,
        *(pytest.param(w, marks=pytest.mark.slow) for w in (WindowConvention.W, WindowConvention.NONE)),
    ],
)
def test_kernels_equal_xla_on_packed_rows(implementation, convention, monkeypatch):
    """Segments, padding, grouped queries, head width 96, a window that crosses blocks, blocks that are seen whole; both
    of splash's backwards."""
    monkeypatch.setattr(attention_splash, "MOST_FUSED_BLOCKS", 1 if convention is WindowConvention.W else 4)
    segments, positions = packed(70, 390, 60, padding=20)
    window = SlidingWindow.of(convention, 250)
    heads = random_heads(1, 540, 540, 4, 2, 96)
    assert_equal_to_xla(
        heads,
        lambda name: packed_causal_mask(segments, positions, window, name),
        window,
        implementation,
        segments > 0,
    )


@pytest.mark.parametrize("implementation", KERNELS)
def test_kernels_equal_xla_where_keys_are_hidden(implementation):
    """As in the resampler: fewer queries than keys, some of which are padded cells; the tower's head width 72."""
    is_seen = jnp.asarray(np.arange(200)[None] % 7 > 1)
    heads = random_heads(1, 130, 200, 2, 2, 72)
    assert_equal_to_xla(
        heads, lambda name: key_padding_mask(is_seen, 130, name), None, implementation, jnp.ones((1, 130), bool)
    )


@pytest.mark.parametrize("implementation", KERNELS)
def test_rows_of_padding_alone_are_finite_with_finite_gradients(implementation):
    segments, positions = packed(padding=128)
    heads = random_heads(1, 128, 128, 1, 1, 16)
    mask = packed_causal_mask(segments, positions, SlidingWindow(), implementation)
    for array in value_and_gradients(*heads, mask, SlidingWindow(), implementation, jnp.ones((1, 128), bool)):
        assert np.isfinite(array).all()


@pytest.mark.parametrize("implementation", ["splash", pytest.param("flash", marks=pytest.mark.slow)])
def test_kernels_on_a_mesh_equal_one_device(implementation):
    """Rows over replica and fsdp, heads over tensor; key-value heads that tensor does not divide stay whole."""
    segments, positions = packed(60, 68, rows=4)
    for heads, kv_heads in ((4, 2), (3, 1)):
        arrays = random_heads(4, 128, 128, heads, kv_heads, 16)
        run = functools.partial(
            value_and_gradients,
            *arrays,
            packed_causal_mask(segments, positions, SlidingWindow(), implementation),
            SlidingWindow(),
            implementation,
            segments > 0,
        )
        alone = run()
        with jax.set_mesh(make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))), axis_rules():
            cut = run()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), alone, cut)


@pytest.mark.parametrize("order", [Order(None, None), Order(None, 0), Order(-40, 0), Order(0, 40), Order(-130, 0)])
def test_block_ranges_hold_every_seen_pair_and_skip_other_segments(order):
    rng = np.random.default_rng(0)
    for _ in range(5):
        cuts = np.sort(rng.integers(0, 512, 6))
        segments = np.searchsorted(cuts, np.arange(512), side="right") + 1
        segments[cuts[-1] :] = 0
        segments = np.asarray(segments, np.int32)
        offset = np.arange(512)[None] - np.arange(512)[:, None]
        seen = (segments[:, None] == segments[None]) & (segments > 0)[None]
        seen &= (order.least is None or offset >= order.least) & (order.most is None or offset <= order.most)
        ranges = block_ranges(jnp.asarray(segments)[None], jnp.asarray(segments)[None], 64, 32, order)[0]
        blocks, whole = (reduce(seen.reshape(8, 64, 16, 32), axis=(1, 3)) for reduce in (np.any, np.all))
        for i, (low, first_whole, behind, high) in enumerate(ranges):
            number = np.arange(16)
            assert not blocks[i][(number < low) | (number >= high)].any()
            # Without a mask goes what is seen whole, all of it and nothing else.
            np.testing.assert_array_equal(whole[i], (number >= first_whole) & (number < behind))
            assert low <= first_whole <= behind <= high
            # In packed rows nothing is read in vain.
            if blocks[i].any():
                assert blocks[i][low] and blocks[i][high - 1]
            else:
                assert low == high == 0


H100 = abstract_mesh("gpu", "NVIDIA H100 80GB HBM3")


def test_the_platform_of_the_mesh_chooses_and_a_name_overrides():
    """Compiling for a TPU on a CPU machine once chose by the process's default backend."""
    assert implementation_for("auto", 4096, 4096) == "xla"
    with jax.sharding.use_abstract_mesh(abstract_mesh("tpu", "TPU v5 lite")):
        assert implementation_for("auto", 4096, 4096) == "splash"
        assert implementation_for("auto", 1, 4096) == "xla"
        assert implementation_for("xla", 4096, 4096) == "xla"
    with jax.sharding.use_abstract_mesh(H100):
        assert implementation_for("auto", 729, 729) == "flash"
    with pytest.raises(ValueError, match="got 'cudnn', wanted auto, xla, splash or flash"):
        implementation_for("cudnn", 4096, 4096)


def test_probes_see_the_weights_of_a_kernel():
    """Attention maps are XLA's; made from segments, they must show what the kernel weighed with."""
    segments, positions = packed(50, 70, padding=8)
    window = SlidingWindow(20)
    query, key, value, _ = random_heads(1, 128, 128, 2, 2, 16)
    mask = packed_causal_mask(segments, positions, window, "splash")
    dense = causal_mask(segments, positions, segments, positions, window.left)
    np.testing.assert_array_equal(dense_mask(mask, window), dense)
    context = jnp.einsum("BNTS,BSNH->BTNH", attention_weights(query, key, dense), value)
    got = jax.jit(attend, static_argnames=("window", "implementation"))(query, key, value, mask, window, "splash")
    np.testing.assert_allclose(got[:, :120], context[:, :120], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_flash_lowers_to_triton_for_a_gpu_that_is_not_there(dtype):
    """All three kernels, at the shapes of the 4B decoder and of the 14B's groups; no score leaves them."""
    segments = jax.ShapeDtypeStruct((1, 1000), jnp.int32)
    query = jax.ShapeDtypeStruct((1, 1000, 8, 96), dtype)
    key = jax.ShapeDtypeStruct((1, 1000, 2, 96), dtype)

    def total(query, key, value, segments):
        mask = packed_causal_mask(segments, segments, SlidingWindow(300), "auto")
        return attend(query, key, value, mask, SlidingWindow(300), "auto").astype(jnp.float32).sum()

    with jax.sharding.use_abstract_mesh(H100):
        traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(query, key, key, segments)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    for kernel in ("flash_forward", "flash_query_gradient", "flash_key_value_gradient"):
        assert kernel in text
    assert "1000x1000" not in text and "1024x1024" not in text


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype, atol", [(jnp.float32, 2e-5), (jnp.bfloat16, 3e-2)])
@pytest.mark.parametrize("heads, kv_heads, width", [(4, 4, 96), (8, 2, 128), (2, 2, 72)])
def test_flash_on_a_gpu_equals_xla(dtype, atol, heads, kv_heads, width):
    """The one check that interpreter and lowering cannot make; run it first where there is a GPU."""
    segments, positions = packed(700, 90, 1100, padding=158, rows=2)
    window = SlidingWindow(512)
    arrays = random_heads(2, 2048, 2048, heads, kv_heads, width, dtype)
    # XLA's own products of float32 are TF32 by default.
    with jax.default_matmul_precision("highest"):
        expected, got = (
            value_and_gradients(
                *arrays, packed_causal_mask(segments, positions, window, name), window, name, segments > 0
            )
            for name in ("xla", "flash")
        )
    for a, b in zip(expected, got, strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(b, a, rtol=0, atol=atol * max(1.0, np.abs(a).max()))


@pytest.mark.parametrize("left", [300, 90, None])
@pytest.mark.parametrize("lengths", [(70, 20, 130, 30, 190), (500,), (3, 509), (256, 256)])
def test_blockwise_attention_equals_a_dense_mask(monkeypatch, lengths, left):
    """Blocks that need one, two or all blocks of keys, two rows that need different ones; values and gradients."""
    monkeypatch.setattr(attention_blockwise, "BLOCK", 64)
    rows = packed(*lengths, padding=512 - sum(lengths)), packed(440, 72)
    segments, positions = (jnp.concatenate(pair) for pair in zip(*rows, strict=True))
    dense = causal_mask(segments, positions, segments, positions, left)
    *heads, grad = random_heads(2, 512, 512, 4, 2, 16)

    def run(attention):
        def total(*heads):
            context = jnp.where((segments > 0)[:, :, None, None], attention(*heads), 0)
            return jnp.sum(context * grad), context

        (_, context), gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(*heads)
        return context, *gradients

    whole = functools.partial(attention_xla.dense_attention, mask=dense)
    by_blocks = functools.partial(
        attention_blockwise.blockwise_attention, segment_ids=segments, positions=positions, left=left
    )
    for got, expected in zip(run(by_blocks), run(whole), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_long_rows_have_no_mask_of_all_pairs(monkeypatch):
    """XLA gets segments and positions; probes are shown the same as a short row's."""
    monkeypatch.setattr(attention_choice, "LONG_ROW", 512)
    monkeypatch.setattr(attention_blockwise, "BLOCK", 64)
    segments, positions = packed(300, 150, padding=62)
    window = SlidingWindow(200)
    dense = causal_mask(segments, positions, segments, positions, window.left)
    mask = packed_causal_mask(segments, positions, window, "xla")
    assert mask.dense is None
    np.testing.assert_array_equal(dense_mask(mask, window), dense)
    query, key, value, _ = random_heads(1, 512, 512, 2, 1, 16)
    got = jax.jit(attend, static_argnames=("window", "implementation"))(query, key, value, mask, window, "xla")
    expected = attend(query, key, value, AttentionMask(dense=dense), window, "xla")
    np.testing.assert_allclose(got[:, :450], expected[:, :450], rtol=0, atol=1e-5)
