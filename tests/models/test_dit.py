"""The diffusion transformer against the official one at two tiny sizes, its own equalities, and its published size."""

from dataclasses import replace

import blip3o_goldens as goldens
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import random_parameters

from xgenmm_jax.convert.rules import their_shapes
from xgenmm_jax.models import dit as dit_module
from xgenmm_jax.models import sizes
from xgenmm_jax.models.dit import DiT, DiTConfig
from xgenmm_jax.models.flops import dit_flops
from xgenmm_jax.models.rotary import grid_angles, rotate_pairs
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.sharding import RULES

CASES = {"dit": goldens.dit, "extra": goldens.extra}
"""On a grid of 5 x 7; and of patches of 2 with grouped queries."""


@pytest.fixture(autouse=True)
def whole_products():
    with jax.default_matmul_precision("highest"):
        yield


def inputs(case):
    arrays = goldens.outputs()
    return tuple(
        jnp.asarray(array)
        for array in (goldens.channels_last(f"{case}/x"), arrays[f"{case}/timestep"], arrays[f"{case}/z"])
    )


def close(ours, theirs, bound):
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=bound)


@pytest.mark.parametrize("case", CASES)
def test_the_velocity_and_what_leads_to_it_are_the_official_ones(case, monkeypatch):
    """Our angles of time and torch's differ by 6e-5 rad at most, the last digit of 930; with its table nothing does."""
    config, params = CASES[case]()
    x, time, z = inputs(case)
    features = dit_module.time_features(time)

    @jax.jit
    def run(params, features):
        monkeypatch.setattr(dit_module, "time_features", lambda time: features)
        return DiT(config).apply({"params": params}, x, time, z, capture_intermediates=True, mutable=["intermediates"])

    arrays = goldens.outputs()
    of_torch = {name.split("/at/")[1]: array for name, array in arrays.items() if name.startswith(f"{case}/at/")}
    of_torch_features = of_torch.pop("time_proj")
    close(features, of_torch_features, 1e-4)
    for table, bound in ((features, 1e-4), (jnp.asarray(of_torch_features), 2e-5)):
        out, captured = run(params, table)
        close(out, goldens.channels_last(f"{case}/out"), bound)
        inner = captured["intermediates"]
        layers = inner["layers"]
        ours = {
            "patch_embedder": inner["patch_embedding"]["__call__"][0],
            "caption_projection": inner["context_fc2"]["__call__"][0],
            "temb": inner["condition"][0],
            "layers.0.attn1": layers["self_attention"][0][0],
            "layers.0.attn2": layers["cross_attention"][0][0],
            "layers.0.feed_forward": layers["down"]["__call__"][0][0],
            **{f"layers.{number}": layers["__call__"][0][0][number] for number in range(config.layers)},
            "norm_out": inner["out"]["__call__"][0],
        }
        assert ours.keys() == of_torch.keys()
        for name, theirs in of_torch.items():
            value = np.asarray(ours[name]).reshape(theirs.shape)
            np.testing.assert_allclose(value, theirs, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("case", [pytest.param("dit", marks=pytest.mark.slow), "extra"])
def test_gradients_are_the_official_ones(case):
    """Of features, context and all parameters. The norm of cross-attention's keys has a bias whose gradient is 0."""
    config, params = CASES[case]()
    x, time, z = inputs(case)
    weight = jnp.asarray(goldens.channels_last(f"{case}/weight"))

    def loss(params, x, z):
        return jnp.mean(DiT(config).apply({"params": params}, x, time, z) * weight)

    of_params, of_x, of_z = jax.jit(jax.grad(loss, (0, 1, 2)))(params, x, z)
    close(of_x, goldens.channels_last(f"{case}/grad_x"), 2e-7)
    close(of_z, goldens.outputs()[f"{case}/grad_z"], 2e-7)
    back = goldens.in_their_names(of_params, config)
    norms = goldens.numbers()[f"{case}_grad_norms"]
    assert back.keys() == norms.keys()
    for name, norm in norms.items():
        assert abs(np.linalg.norm(back[name]) - norm) / (norm + 1e-3) < 2e-5, name
        if "attn2.norm_k.bias" in name:
            assert np.linalg.norm(back[name]) < 1e-7
    stored = {name.split("/grad/")[1]: value for name, value in goldens.outputs().items() if f"{case}/grad/" in name}
    assert len(stored) == 3
    for name, value in stored.items():
        close(back[name], value, 2e-7)


def test_a_context_mask_weighs_the_mean_and_hides_keys():
    config, params = goldens.extra()
    mask = jnp.asarray(goldens.outputs()["extra/masked/mask"] > 0)
    apply = jax.jit(DiT(config).apply)
    x, time, z = inputs("extra")
    close(apply({"params": params}, x, time, z, mask), goldens.channels_last("extra/masked/out"), 1e-4)
    # What is hidden does not matter; a sample without a context is finite.
    hidden = jnp.where(mask[..., None], z, 7.0)
    close(apply({"params": params}, x, time, hidden, mask), apply({"params": params}, x, time, z, mask), 1e-6)
    assert np.isfinite(apply({"params": params}, x, time, z, jnp.zeros_like(mask))).all()


def test_pairs_of_neighbours_turn_by_row_and_by_column():
    cos, sin = grid_angles(2, 3, 8)
    assert cos.shape == (1, 6, 1, 4)
    x = jnp.broadcast_to(jnp.asarray([1.0, 0, 1, 0, 1, 0, 1, 0]), (1, 6, 1, 8))
    turned = np.asarray(rotate_pairs(x, cos, sin)).reshape(2, 3, 4, 2)
    # Cell (1, 2): 1 and 2 rad, then a hundredth of them.
    angle = np.arctan2(turned[1, 2, :, 1], turned[1, 2, :, 0])
    np.testing.assert_allclose(angle, [1, 2, 0.01, 0.02], rtol=1e-5)
    np.testing.assert_array_equal(turned[0, 0], np.tile([1.0, 0.0], (4, 1)))


def shapes(config):
    arrays = jnp.zeros((1, 8, 8, config.channels)), jnp.zeros(1), jnp.zeros((1, 64, config.context_width))
    return jax.eval_shape(DiT(config).init, jax.random.key(0), *arrays)["params"]


@pytest.mark.parametrize(
    ("config", "parameters", "title"),
    [
        (sizes.BLIP3O_4B, 1_362_257_824, "dit of 4B (Qwen2.5-VL-3B, 2048)"),
        (sizes.BLIP3O_8B, 1_365_010_336, "dit of 8B (Qwen2.5-VL-7B, 3584)"),
    ],
    ids=["4b", "8b"],
)
def test_published_sizes_have_the_official_tensors(config, parameters, title):
    boxed = shapes(config)
    flat = goldens.flat(unboxed(boxed))
    assert sum(leaf.size for leaf in flat.values()) == parameters
    theirs = their_shapes(
        goldens.blip3o.dit_rules(config, "model.dit.model."), {name: leaf.shape for name, leaf in flat.items()}
    )
    assert theirs == goldens.full_size(title, config.layers)
    for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)):
        assert len(leaf.names) == leaf.value.ndim
        assert {name for name in leaf.names if name is not None} <= set(RULES)


def test_the_compiler_counts_as_many_flops():
    """Elementwise work is the difference."""
    config = DiTConfig(channels=64, width=256, layers=2, heads=4, kv_heads=2, patch=2, context_width=96, multiple_of=64)
    arrays = [(1, 16, 8, 64), (1,), (1, 48, 96)]
    x, time, context = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arrays)
    params = unboxed(jax.eval_shape(DiT(config).init, jax.random.key(0), x, time, context))
    counted = jax.jit(DiT(config).apply).lower(params, x, time, context).compile().cost_analysis()["flops"]
    expected = dit_flops(config, 16, 8, 48)
    assert expected < counted < 1.05 * expected


@pytest.mark.slow
def test_parameters_begin_as_torch_begins_linear_maps_and_gates_at_zero():
    config = DiTConfig(channels=6, width=32, layers=2, heads=4, kv_heads=2, patch=2, context_width=10, multiple_of=8)
    arrays = jnp.zeros((1, 4, 4, 6)), jnp.zeros(1), jnp.zeros((1, 3, 10))
    params = unboxed(jax.jit(DiT(config).init)(jax.random.key(0), *arrays)["params"])
    flat = goldens.flat(params)
    fan_in = {"patch_embedding": 24, "context_fc1": 10, "time_fc1": 256, "down": config.hidden}
    for name, leaf in flat.items():
        *_, module, kind = name.split("/")
        if kind in ("kernel", "bias") and not module.endswith("_norm"):
            bound = fan_in.get(module, 32) ** -0.5
            assert 0.75 * bound < np.abs(leaf).max() <= bound, name
        else:
            assert (np.asarray(leaf) == (1 if kind == "scale" else 0)).all(), name


@pytest.mark.slow
def test_bfloat16_stays_near_and_gives_float32():
    config, params = goldens.dit()
    x, time, z = inputs("dit")
    rounded = jax.jit(DiT(config, "bfloat16").apply)({"params": params}, x, time, z)
    assert rounded.dtype == jnp.float32
    error = np.asarray(rounded) - goldens.channels_last("dit/out")
    assert 1e-4 < np.sqrt(np.mean(error**2)) < 0.02 * np.std(goldens.channels_last("dit/out"))


@pytest.mark.slow
def test_remat_and_a_sample_alone_give_the_same():
    config, params = goldens.extra()
    x, time, z = inputs("extra")
    whole = jax.jit(DiT(config).apply)({"params": params}, x, time, z)
    remat = DiT(replace(config, remat="full"))
    close(jax.jit(remat.apply)({"params": params}, x[1:], time[1:], z[1:]), whole[1:], 2e-5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"heads": 5}, "width 1792 for 5 heads"),
        ({"width": 24, "heads": 4, "kv_heads": 4}, "multiple of 4"),
        ({"kv_heads": 3}, "3 kv_heads, which do not divide 28 heads"),
        ({"layers": 0}, "dit.layers: got 0"),
    ],
)
def test_sizes_that_fit_no_model_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        DiTConfig(**fields)


def test_inputs_of_another_size_are_refused():
    config = DiTConfig(channels=6, width=32, layers=1, heads=2, kv_heads=1, patch=2, context_width=10, multiple_of=8)
    model, time = DiT(config), jnp.zeros(1)
    params = random_parameters(model.init, jnp.zeros((1, 4, 4, 6)), time, jnp.zeros((1, 3, 10)))
    with pytest.raises(ValueError, match="4 x 5 cells for patches of 2"):
        model.apply(params, jnp.zeros((1, 4, 5, 6)), time, jnp.zeros((1, 3, 10)))
    with pytest.raises(ValueError, match="7 channels and a context of width 10, the config has 6 and 10"):
        model.apply(params, jnp.zeros((1, 4, 4, 7)), time, jnp.zeros((1, 3, 10)))
