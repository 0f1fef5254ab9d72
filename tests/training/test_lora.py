"""Low-rank updates: what they compute, which leaves train, and that they are a subspace of whole fine-tuning."""

from dataclasses import replace
import functools
import itertools

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.data.rows.order import State
from xgenmm_jax.models import lora
from xgenmm_jax.models.blip3 import VLM
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.nano.sources import Synthetic
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.objectives.dpo import DPO
from xgenmm_jax.training.optimizer import reference_of, split, trainable_mask
from xgenmm_jax.training.runs.starting import new_state
from xgenmm_jax.training.setup import assemble, boxed_params
from xgenmm_jax.training.sharding import MeshConfig, make_mesh, put_rows, row_sharding
from xgenmm_jax.training.step import gradient, shardings_of

EVERYWHERE = LoRA(rank=3, alpha=6.0, targets=("decoder/layers", "connector", "vision/layers"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return replace(tiny_run.config(path), freeze=(), lora=EVERYWHERE)


@pytest.fixture(scope="module")
def rows(config):
    batches = config.objective.batches(config.model, config.data, 0, State(), 0, 1)
    rows = next(itertools.islice(batches, 1, None))[0]
    batches.close()
    return rows


def initial(config):
    draw = functools.partial(boxed_params, config.objective, config.model, config.lora)
    return unboxed(jax.jit(draw)(jax.random.key(0)))


def random_updates(config):
    """Parameters whose updates are far from zero."""
    flat = flatten_dict(initial(config), sep="/")
    for number, name in enumerate(sorted(flat)):
        if name.endswith(lora.UP):
            flat[name] = 0.2 * jax.random.normal(jax.random.key(number), flat[name].shape)
    return unflatten_dict(flat, sep="/")


def logits(config, params, rows):
    return jax.jit(lambda params, rows: VLM(config.model).apply({"params": params}, rows))(params, rows)


def test_updates_begin_as_nothing_and_change_no_other_parameter(config, rows):
    params, plain = initial(config), initial(replace(config, lora=None))
    assert jax.tree.all(jax.tree.map(np.array_equal, lora.without_updates(params), plain))
    np.testing.assert_array_equal(logits(config, params, rows), logits(config, plain, rows))


def test_merged_logits_are_those_of_the_updates(config, rows):
    params = random_updates(config)
    merged = lora.merged(params)
    assert not lora.updates_of(merged)
    changed = np.abs(logits(config, params, rows) - logits(config, lora.without_updates(params), rows)).max()
    assert changed > 0.1  # the updates do something
    np.testing.assert_allclose(logits(config, merged, rows), logits(config, params, rows), rtol=0, atol=1e-5)


def gradients(config, params, rows, freeze=()):
    trained, frozen = split(params, trainable_mask(params, freeze, config.lora))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    compute = jax.jit(lambda trained, rows: gradient(config, trained, frozen, None, rows, jax.random.key(0), mesh)[0])
    return {name: leaf for name, leaf in flatten_dict(compute(trained, rows), sep="/").items() if leaf is not None}


def test_gradients_are_those_of_the_whole_kernels_in_the_subspace(config, rows):
    """dA = scale dW B^T and dB = scale A^T dW, with dW the gradient of whole fine-tuning at W + scale A B."""
    params = random_updates(config)
    flat = flatten_dict(params, sep="/")
    of_updates = gradients(config, params, rows)
    whole = gradients(replace(config, lora=None), lora.merged(params), rows)
    downs = [name for name in of_updates if name.endswith(lora.DOWN)]
    assert len(downs) * 2 == len(of_updates) and len(downs) == 14
    for name in downs:
        beside = name.removesuffix(lora.DOWN)
        down, up, scale = (np.asarray(flat[beside + kind], np.float64) for kind in (lora.DOWN, lora.UP, lora.SCALE))
        lead = down.shape[:1] if scale.ndim else ()
        rank = down.shape[-1]
        down, up = down.reshape(*lead, -1, rank), up.reshape(*lead, rank, -1)
        kernel = np.asarray(whole[beside + lora.KERNEL], np.float64).reshape(*lead, down.shape[-2], up.shape[-1])
        scale = scale.reshape(*lead, 1, 1)
        for leaf, expected in (
            (of_updates[name].reshape(down.shape), scale * kernel @ up.swapaxes(-1, -2)),
            (of_updates[beside + lora.UP].reshape(up.shape), scale * down.swapaxes(-1, -2) @ kernel),
        ):
            np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_updates_alone_have_optimizer_state(config):
    program = assemble(replace(config, lora=replace(EVERYWHERE, whole=("connector/latents",))), make_mesh(config.mesh))
    trained = {name for name, trains in flatten_dict(program.trainable, sep="/").items() if trains}
    assert {name.rsplit("/", 1)[-1] for name in trained} == {*lora.UPDATES, "latents"}
    sizes = [leaf.size for leaf in jax.tree.leaves(split(program.abstract.params, program.trainable)[0])]
    moments = [leaf.size for leaf in jax.tree.leaves(program.abstract.opt_state) if leaf.ndim]
    assert sorted(moments) == sorted(sizes * 2)


@pytest.mark.slow
def test_a_step_changes_updates_alone_on_any_mesh(config, rows):
    results = []
    for mesh_config, devices in ((MeshConfig(), 1), (MeshConfig(fsdp=4, tensor=2), 8)):
        mesh = make_mesh(mesh_config, jax.devices()[:devices])
        of_mesh = replace(config, mesh=mesh_config)
        program = assemble(of_mesh, mesh)
        with jax.set_mesh(mesh):
            params = random_updates(of_mesh)
            before = jax.device_get(params)
            state = new_state(program, jax.device_put(params, shardings_of(program.abstract.params)))
            state, metrics = program.step(state, None, put_rows(rows, row_sharding(mesh)), np.float32(1e-2))
        after = flatten_dict(jax.device_get(state.params), sep="/")
        for name, leaf in flatten_dict(before, sep="/").items():
            is_same = np.array_equal(leaf, after[name])
            assert is_same != (name.rsplit("/", 1)[-1] in lora.UPDATES), name
        results.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4)


def test_dropout_draws_in_training_and_not_without_a_stream(config, rows):
    config = replace(config, lora=replace(EVERYWHERE, dropout=0.5))
    params = random_updates(config)
    np.testing.assert_allclose(
        logits(config, params, rows), logits(config, lora.merged(params), rows), rtol=0, atol=1e-5
    )
    loss = jax.jit(lambda rows, key: config.objective.loss(config.model, params, None, rows, key, ())[0].total)
    first, again, other = (float(loss(rows, jax.random.key(seed))) for seed in (1, 1, 2))
    assert first == again != other


def test_the_reference_of_preference_tuning_is_the_base(config, tmp_path):
    """Its log-probabilities are those without updates, and no second copy of any parameter is kept."""
    mixture = ((Synthetic("preference", 400), 1.0),)
    data = replace(config.data, mixture=mixture)
    config = replace(config, objective=DPO(beta=0.3), data=data)
    assert not config.keeps_reference
    batches = config.objective.batches(config.model, config.data, 0, State(), 0, 1)
    rows = next(batches)[0]
    batches.close()
    params = random_updates(config)
    plain = replace(config, lora=None)
    merged = lora.merged(params)
    base = lora.without_updates(params)
    key = jax.random.key(0)
    got = jax.jit(lambda p, rows: config.objective.loss(config.model, p, None, rows, key, ()))(params, rows)
    wanted = jax.jit(lambda p, r, rows: plain.objective.loss(plain.model, p, r, rows, key, ()))(merged, base, rows)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_what_trains_whole_beside_updates_is_kept_as_reference(config):
    config = replace(config, objective=DPO(), lora=replace(EVERYWHERE, whole=("connector/latents",)))
    assert config.keeps_reference
    program = assemble(config, make_mesh(config.mesh))
    kept = flatten_dict(reference_of(program.abstract.params, program.trainable), sep="/")
    assert [name for name, leaf in kept.items() if leaf is not None] == ["connector/latents"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("decoder/layers/qkv",)}, "decoder/layers/qkv_proj"),
        ({"targets": ("decoder/embedding",)}, "names no linear map"),
        ({"rank": 40}, "at most 32"),
        ({"whole": ("conector",)}, "lora.whole: 'conector' names no parameter"),
    ],
)
def test_a_target_that_is_none_or_too_large_a_rank_is_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        assemble(replace(config, lora=replace(EVERYWHERE, **change)), make_mesh(config.mesh))


def test_updates_of_a_frozen_part_are_refused(config):
    with pytest.raises(ValueError, match=r"is an update of lora.targets and frozen"):
        assemble(replace(config, freeze=("vision",)), make_mesh(config.mesh))


@pytest.mark.parametrize(
    ("whole", "freeze", "message"),
    [
        ("decoder/layers", (), "'decoder/layers' holds 'decoder/layers/down_proj', which lora.targets updates"),
        ("vision/position_embedding", ("vision",), "freezes all of 'vision/position_embedding', which lora.whole"),
    ],
)
def test_what_is_to_train_whole_and_cannot_is_refused(config, whole, freeze, message):
    """A frozen part that --lora.whole named stayed as it was without a word; a map of both had two updates."""
    config = replace(config, freeze=freeze, lora=LoRA(rank=2, whole=(whole,)))
    with pytest.raises(ValueError, match=message):
        assemble(config, make_mesh(config.mesh))


@pytest.mark.parametrize("change", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": ()}])
def test_settings_without_sense_are_refused(change):
    with pytest.raises(ValueError, match="lora."):
        LoRA(**change)
