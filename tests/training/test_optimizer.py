"""Schedules, decay and what is frozen."""

from dataclasses import replace
import io

from flax import linen as nn
from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console

from xgenmm_jax.training.optimizer import (
    OptimizerConfig,
    learning_rate,
    make_optimizer,
    merge,
    split,
    trainable_mask,
)
from xgenmm_jax.training.part_rates import PartRate, PartRates, part_rows, table

PARAMS = {"vision": {"kernel": 0.0, "bias": 0.0}, "vision_head": {"kernel": 0.0}, "decoder": {"norm": {"scale": 0.0}}}


def test_rate_rises_to_its_peak_and_falls_to_its_end():
    config = OptimizerConfig(peak_lr=2.0, warmup_steps=4, final_fraction=0.1)
    rate = [float(learning_rate(config, 12)(step)) for step in range(13)]
    np.testing.assert_allclose(rate[:5], [0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(rate[8], 1.1, rtol=1e-6)
    np.testing.assert_allclose(rate[12], 0.2, rtol=1e-6)
    linear = learning_rate(OptimizerConfig(peak_lr=2.0, warmup_steps=4, schedule="linear"), 12)
    np.testing.assert_allclose([float(linear(step)) for step in (4, 8, 12)], [2.0, 1.0, 0.0], atol=1e-6)
    constant = learning_rate(OptimizerConfig(peak_lr=2.0, warmup_steps=4, schedule="constant"), 12)
    assert float(constant(11)) == 2.0


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="got 100 for a run of 50 steps.*--optimizer.warmup-steps.*--steps"):
        learning_rate(OptimizerConfig(), 50)


@pytest.mark.parametrize(
    "name, refused, taken",
    [
        ("peak_lr", [-1.0, float("nan"), float("inf")], 0.0),
        ("warmup_steps", [-5], 0),
        ("weight_decay", [-0.1], 0.0),
        ("clip_norm", [-1.0, float("nan")], 0.0),
        ("final_fraction", [-0.1, 1.5], 1.0),
        ("betas", [(2.0, 3.0), (0.9, 1.0), (-0.1, 0.9)], (0.0, 0.0)),
        ("epsilon", [0.0, -1e-8], 1e-30),
    ],
)
def test_what_cannot_train_is_refused(name, refused, taken):
    """A rate of -1 climbed to a loss of three millions and ended as a run that went well."""
    for value in refused:
        with pytest.raises(ValueError, match=f"optimizer.{name}: got .*, wanted"):
            OptimizerConfig(**{name: value})
    OptimizerConfig(**{name: taken})


def test_freeze_takes_whole_names():
    mask = trainable_mask(PARAMS, ("vision",))
    assert mask["vision"] == {"kernel": False, "bias": False}
    assert mask["vision_head"] == {"kernel": True} and mask["decoder"] == {"norm": {"scale": True}}
    assert not trainable_mask(PARAMS, ("decoder/norm",))["decoder"]["norm"]["scale"]
    with pytest.raises(ValueError, match="leaves nothing to train"):
        trainable_mask(PARAMS, ("vision", "vision_head", "decoder"))


def test_decay_can_spare_biases_and_norms():
    params = {"kernel": jnp.ones(3), "head_bias": jnp.ones(3), "embedding": jnp.ones(3), "scale": jnp.ones(3)}
    for decay_vectors in (True, False):
        config = OptimizerConfig(peak_lr=0.1, warmup_steps=0, weight_decay=0.5, decay_vectors=decay_vectors)
        optimizer = make_optimizer(config, {})
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
        moved = {name for name, update in updates.items() if float(update[0])}
        assert moved == (set(params) if decay_vectors else {"kernel", "embedding"})


def test_statistics_of_what_is_drawn_are_out_of_reach_of_decay():
    """Where nothing froze them each step shrank them, and features were learned and drawn in another scale."""
    statistics = {"mean": jnp.ones(3), "std": jnp.ones(3)}
    params = {
        "drawing": {"dit": {"mean": jnp.ones(3)}},
        "target": {**statistics, "autoencoder": {"std": jnp.ones(3)}},
        "pixels": {**statistics, "kernel": jnp.ones(3)},
    }
    trained, frozen = split(params, trainable_mask(params, ()))
    optimizer = make_optimizer(OptimizerConfig(peak_lr=0.1, warmup_steps=0, weight_decay=0.5), {})
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, trained), optimizer.init(trained), trained)
    stepped = flatten_dict(merge(optax.apply_updates(trained, updates), frozen), sep="/")
    still = {name for name, leaf in stepped.items() if float(leaf[0]) == 1}
    assert still == {"target/mean", "target/std", "pixels/mean", "pixels/std"}


def parts_tree():
    rng = np.random.default_rng(0)
    shapes = {"vision": {"kernel": (3, 2)}, "connector": {"kernel": (2, 2), "bias": (2,)}, "decoder": {"scale": (4,)}}
    draw = lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    return jax.tree.map(draw, shapes, is_leaf=lambda leaf: type(leaf) is tuple)


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_parts_have_rates_and_decays_of_their_own(decay_vectors):
    """Each part moves as if a run of its own rate and decay trained it; clipping is over all."""
    params, grads = parts_tree(), jax.tree.map(jnp.sin, parts_tree())
    parts = PartRates(
        vision=PartRate(peak_lr=0.5),
        connector=PartRate(weight_decay=0.3),
        further=(("connector/bias", PartRate(peak_lr=0.0)),),
    )
    config = OptimizerConfig(peak_lr=0.1, weight_decay=0.2, clip_norm=0.0, decay_vectors=decay_vectors, parts=parts)
    alone = {
        "vision/kernel": OptimizerConfig(peak_lr=0.5, weight_decay=0.2),
        "connector/kernel": OptimizerConfig(peak_lr=0.1, weight_decay=0.3),
        "connector/bias": OptimizerConfig(peak_lr=0.0, weight_decay=0.2),
        "decoder/scale": OptimizerConfig(peak_lr=0.1, weight_decay=0.2),
    }

    def moved(config, rate):
        optimizer = make_optimizer(config, params)
        state, now = optimizer.init(params), params
        for _ in range(3):
            directions, state = optimizer.update(grads, state, now)
            now = jax.tree.map(lambda p, d: p + rate * d, now, directions)
        return flatten_dict(now, sep="/")

    got = moved(config, 0.1)
    for name, own in alone.items():
        wanted = moved(replace(own, clip_norm=0.0, decay_vectors=decay_vectors), own.peak_lr)[name]
        np.testing.assert_allclose(got[name], wanted, rtol=1e-6, err_msg=name)


def test_muon_with_rates_of_parts_passes_over_what_is_frozen():
    """BLIP-2's first stage at nano, Muon with a rate of the temperature's own, ended at its first step."""
    params = parts_tree()
    params["vision"] = {"kernel": None, "bias": None}
    kernel = nn.LogicallyPartitioned(params["connector"]["kernel"], ("vision_embed", "embed"))
    boxed = {**parts_tree(), "connector": {**params["connector"], "kernel": kernel}}
    parts = PartRates(connector=PartRate(peak_lr=0.2))
    config = OptimizerConfig(algorithm="muon", peak_lr=0.1, weight_decay=0.3, clip_norm=0.0, decay_vectors=False)
    whole, by_part = (make_optimizer(replace(config, parts=rates), boxed) for rates in (PartRates(), parts))
    grads = jax.tree.map(jnp.sin, params)
    wanted, _ = whole.update(grads, whole.init(params), params)
    got, _ = by_part.update(grads, by_part.init(params), params)
    assert got["vision"] == {"kernel": None, "bias": None}
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(got["connector"][name], 2 * wanted["connector"][name], rtol=1e-6)
    np.testing.assert_allclose(got["decoder"]["scale"], wanted["decoder"]["scale"], rtol=1e-6)


def test_rates_of_parts_that_are_none_are_refused():
    parts = PartRates(further=(("conector", PartRate(peak_lr=1.0)),))
    with pytest.raises(ValueError, match="'conector' names no parameter; the parts are connector, decoder, vision"):
        make_optimizer(OptimizerConfig(parts=parts), parts_tree())
    with pytest.raises(ValueError, match="optimizer.parts: got peak_lr -1"):
        PartRate(peak_lr=-1.0)
    with pytest.raises(ValueError, match="optimizer.peak_lr: got 0"):
        OptimizerConfig(peak_lr=0.0, parts=PartRates(vision=PartRate(peak_lr=1.0)))


def test_the_table_of_parts_counts_each_parameter_once():
    parts = PartRates(connector=PartRate(peak_lr=0.5), further=(("connector/bias", PartRate(weight_decay=0.0)),))
    params = parts_tree()
    rows = part_rows(params, trainable_mask(params, ("vision",)), parts, 0.1, 0.2)
    assert [tuple(row) for row in rows] == [
        ("connector/bias", 2, 2, 0.1, 0.0),
        ("connector", 4, 4, 0.5, 0.2),
        ("decoder", 4, 4, 0.1, 0.2),
        ("vision", 6, 0, 0.1, 0.2),
    ]
    console = rich.console.Console(width=80, file=io.StringIO())
    console.print(table(rows))
    assert "frozen" in console.file.getvalue()
