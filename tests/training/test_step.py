"""The step of the real model: micro-batches, what is cut and what has state, Muon. More devices: test_equality.py."""

import dataclasses
import itertools

from bound_objective import Bound
import jax
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.optimizer import OptimizerConfig, make_optimizer, merge, split, trainable_mask
from xgenmm_jax.training.sharding import MeshConfig, axis_rules, make_mesh, put_rows, row_sharding
from xgenmm_jax.training.step import abstract_state, gradient, init_state, shardings_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Objective, what trains, parameters, and one batch of eight rows."""
    config = tiny_run.config(tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer")))
    objective = Bound.of(config)
    params = unboxed(jax.jit(objective.init)(jax.random.key(0)))
    batches = objective.batches(0, State(), 0, 1)
    rows = next(itertools.islice(batches, 1, None))[0]
    batches.close()
    return config, objective, trainable_mask(params, config.freeze), jax.device_get(params), rows


def optimizer_of(config, objective):
    return make_optimizer(config, jax.eval_shape(objective.init, jax.random.key(0)))


def gradient_of(run, accumulation):
    config, _, trainable, params, rows = run
    config = dataclasses.replace(config, accumulation=accumulation)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    @jax.jit
    def compute(params, rows):
        with axis_rules():
            trained, frozen = split(params, trainable)
            return gradient(config, trained, frozen, None, rows, jax.random.key(0), mesh)

    with jax.set_mesh(mesh):
        return jax.device_get(compute(params, put_rows(rows, row_sharding(mesh))))


def test_accumulated_equals_one_batch(run):
    """Micro-batches hold different numbers of supervised tokens: an average of averages is another loss."""
    _, _, _, _, rows = run
    supervised = rows.loss_mask.reshape(2, 4, -1).sum(axis=(1, 2))
    assert supervised[0] != supervised[1]
    got, want = gradient_of(run, accumulation=2), gradient_of(run, accumulation=1)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest), got[0], want[0])


def test_dropout_by_rows_is_the_same_in_any_micro_batch(run):
    """The key held the micro-batch's number, so a crop dropped something else under another accumulation."""
    config, _, _, _, rows = run
    connector = QFormerConfig(
        width=32, inner=32, hidden=64, layers=1, heads=4, queries=4, out_width=32, cross_every=1, dropout=0.3
    )
    decoder = dataclasses.replace(config.model.decoder, layers=1)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, connector=connector, decoder=decoder))
    objective = Bound.of(config)
    params = unboxed(jax.jit(objective.init)(jax.random.key(0)))
    run = config, objective, trainable_mask(params, (*config.freeze, "decoder")), params, rows
    got, want = gradient_of(run, accumulation=2), gradient_of(run, accumulation=1)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * largest), got[0], want[0])


def test_parameters_are_cut_and_frozen_ones_have_no_optimizer_state(run):
    config, objective, trainable, params, _ = run
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    optimizer = optimizer_of(config.optimizer, objective)
    abstract = abstract_state(jax.eval_shape(objective.init, jax.random.key(0)), trainable, optimizer, mesh)
    assert tuple(abstract.params["decoder"]["embedding"].sharding.spec) == ("tensor", "fsdp")
    moments = [leaf for leaf in jax.tree.leaves(abstract.opt_state) if leaf.shape]
    trained, frozen = split(params, trainable)
    assert len(moments) == 2 * len(jax.tree.leaves(trained))
    assert set(trained) == set(frozen) == {"vision", "connector", "decoder"}
    assert not jax.tree.leaves(trained["vision"]) and not jax.tree.leaves(frozen["decoder"])
    cut = {leaf.sharding.spec for leaf in moments}
    assert any("tensor" in spec for spec in cut)
    jax.tree.map(np.testing.assert_array_equal, merge(trained, frozen), params)
    state = jax.eval_shape(lambda p: init_state(p, trainable, optimizer), params)
    assert jax.tree.map(lambda leaf: leaf.shape, state) == jax.tree.map(lambda leaf: leaf.shape, abstract)


def test_muon_turns_linear_maps_layer_by_layer(run):
    """Its update of every kernel is a rotation at AdamW's usual size, whatever the gradient's; sharded as on one."""
    _, objective, trainable, params, _ = run
    config = OptimizerConfig(algorithm="muon", peak_lr=1.0, warmup_steps=0, clip_norm=0.0)
    optimizer = optimizer_of(config, objective)
    trained, _ = split(params, trainable)
    random = np.random.default_rng(1)
    grads = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape, np.float32), trained)
    single = jax.jit(optimizer.update)(grads, optimizer.init(trained), trained)[0]

    layers = single["decoder"]["layers"]
    for kernel, rows in ((layers["qkv_proj"]["kernel"], 32), (layers["down_proj"]["kernel"], 64)):
        for layer in np.asarray(kernel):
            sizes = np.linalg.svd(layer.reshape(rows, -1), compute_uv=False)
            assert sizes.min() > 0.5 * sizes.max() > 0
            assert 0.1 < layer.std() < 0.3
    # o_proj's inputs are heads times their width.
    sizes = np.linalg.svd(np.asarray(layers["o_proj"]["kernel"])[0].reshape(32, 32), compute_uv=False)
    assert np.median(sizes) > 0.5 * sizes.max()

    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    abstract = abstract_state(jax.eval_shape(objective.init, jax.random.key(0)), trainable, optimizer, mesh)
    with jax.set_mesh(mesh):
        shardings, _ = split(shardings_of(abstract.params), trainable)
        placed = jax.device_put((grads, trained), (shardings, shardings))
        start = jax.jit(optimizer.init, out_shardings=shardings_of(abstract.opt_state))
        sharded = jax.jit(optimizer.update)(placed[0], start(placed[1]), placed[1])[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), sharded, single)
