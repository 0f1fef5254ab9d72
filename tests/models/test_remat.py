"""Rematerialisation policies: what they keep, that they change no number, and that every block marks every name."""

from dataclasses import replace
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xgenmm_jax.models.phi3 import Phi3, Phi3Config
from xgenmm_jax.models.remat import OFFLOADED_NAMES, SAVED_NAMES, Remat, remat_policy
from xgenmm_jax.models.resampler import Resampler, ResamplerConfig
from xgenmm_jax.models.vit import ViT, ViTConfig
from xgenmm_jax.nano.captioner import Captioner, CaptionerConfig
from xgenmm_jax.nano.text_tower import TextTower, TextTowerConfig
from xgenmm_jax.ops.matmul import MATMUL
from xgenmm_jax.ops.partitioning import unboxed

CONFIG = Phi3Config(
    vocab_size=32,
    num_text_tokens=29,
    num_extra_tokens=3,
    width=16,
    hidden=24,
    layers=2,
    heads=4,
    kv_heads=2,
    window_size=5,
)
IDS = jnp.asarray(np.random.default_rng(0).integers(0, 29, (2, 8)), jnp.int32)
ONES = jnp.ones_like(IDS)
POSITIONS = jnp.tile(jnp.arange(8, dtype=jnp.int32)[None], (2, 1))
POLICIES = [name for name in get_args(Remat) if name != "none"]


@pytest.fixture(scope="module")
def params():
    return unboxed(jax.jit(Phi3(CONFIG).init)(jax.random.key(0), IDS, ONES, POSITIONS))


def loss_of(config):
    return lambda params: jnp.square(Phi3(config).apply(params, IDS, ONES, POSITIONS)).mean()


@pytest.fixture(scope="module")
def plain(params):
    return jax.jit(jax.value_and_grad(loss_of(CONFIG)))(params)


USUAL = ("minimal_with_context", "save_qkv_proj", "full", "qkv_offloaded")


@pytest.mark.parametrize(
    "remat", [pytest.param(name, marks=[pytest.mark.slow] * (name not in USUAL)) for name in POLICIES]
)
def test_policies_change_neither_loss_nor_gradient(params, plain, remat):
    got = jax.jit(jax.value_and_grad(loss_of(replace(CONFIG, remat=remat))))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=0, atol=1e-6), plain, got)


def kept_bytes(params, remat):
    """Bytes between forward and backward pass, wherever they lie; by tracing alone."""
    residuals = jax.eval_shape(lambda params: jax.vjp(loss_of(replace(CONFIG, remat=remat)), params)[1], params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))


def test_the_ladder_goes_from_most_memory_to_least(params):
    kept = {name: kept_bytes(params, name) for name in get_args(Remat)}
    ladder = ["full", "save_qkv_proj", "save_dot_except_mlp", "save_dot_with_context_except_mlp"]
    assert all(kept[a] < kept[b] for a, b in zip(ladder, ladder[1:], strict=False)), kept
    assert kept["full"] < kept["save_out_proj"] < kept["save_dot_except_mlp"] < kept["minimal"], kept
    assert kept["minimal"] < kept["minimal_with_context"] < kept["none"], kept


@pytest.mark.parametrize("remat", [*OFFLOADED_NAMES, "minimal", "full"])
def test_only_offloading_policies_send_arrays_to_the_host(params, remat):
    text = str(jax.make_jaxpr(jax.grad(loss_of(replace(CONFIG, remat=remat))))(params))
    assert ("<host>" in text) == (remat in OFFLOADED_NAMES)


def test_every_policy_is_described_and_unknown_names_list_the_known():
    assert set(get_args(Remat)) == {"none", "full", "minimal", "minimal_with_context", *SAVED_NAMES, *OFFLOADED_NAMES}
    with pytest.raises(ValueError, match="got 'everything', wanted one of none, minimal_with_context, .*offloaded"):
        remat_policy("everything")


def decoder():
    return Phi3(CONFIG), (IDS, ONES, POSITIONS), {}


def tower():
    config = ViTConfig(image_size_px=16, patch_px=8, width=16, hidden=24, layers=1, heads=2)
    return ViT(config), (jnp.zeros((1, 16, 16, 3)),), {"method": "features_and_pooled"}


def resampler():
    config = ResamplerConfig(width=16, layers=1, heads=2, head_width=8, hidden=24, queries=3, out_width=8)
    return Resampler(config), (jnp.zeros((1, 4, 16)), jnp.ones((1, 4), bool)), {}


def captioner():
    config = CaptionerConfig(width=16, hidden=24, layers=1, heads=2, vocab_size=32, max_positions=8)
    return Captioner(config), (jnp.zeros((2, 4, 16)), IDS, jnp.zeros(2, bool)), {}


def text_tower():
    config = TextTowerConfig(width=16, hidden=24, layers=1, heads=2, vocab_size=32, max_positions=8, out_width=8)
    return TextTower(config), (IDS, ONES > 0), {}


@pytest.mark.parametrize("make", [decoder, tower, resampler, captioner, text_tower])
def test_every_block_marks_every_name(make):
    """A name that a block lacks is kept of nothing there, silently."""
    model, inputs, options = make()
    jaxpr = jax.make_jaxpr(lambda key: model.init(key, *inputs, **options))(jax.random.key(0))
    saved = {name for names in (*SAVED_NAMES.values(), *OFFLOADED_NAMES.values()) for name in names}
    assert set(re.findall(r"name\[name=(\w+)\]", str(jaxpr))) == saved | {MATMUL}
