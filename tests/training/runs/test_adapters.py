"""Runs that begin with an adapter in PEFT's layout."""

from dataclasses import replace
import functools
import json

import drawing_cases as cases
from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import numpy as np
import pytest
from random_parameters import random_parameters
import tiny_run

import xgenmm_jax
from xgenmm_jax.convert import peft
from xgenmm_jax.convert.parameter_store import ArrayReader
from xgenmm_jax.models import lora
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.models.qformer import QFormerConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training.averaging import WithAverage
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.objectives.flow_matching import FlowMatching
from xgenmm_jax.training.runs import run_folder
from xgenmm_jax.training.runs.adapters import BASE_FILE, begin_with, merge_into, write_base
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress
from xgenmm_jax.training.setup import boxed_params
from xgenmm_jax.training.sharding import MeshConfig, make_mesh
from xgenmm_jax.training.step import TrainState

TRAINED = LoRA(rank=3, alpha=6.0, targets=("decoder/layers", "connector/layers"), whole=("decoder/norm",))


def params_of(config):
    draw = functools.partial(boxed_params, config.objective, config.model, config.lora)
    return unboxed(jax.jit(draw)(jax.random.key(0)))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Config, tree with updates far from zero, and the folder of its adapter."""
    folder = tmp_path_factory.mktemp("adapter")
    config = replace(tiny_run.config(tiny_run.tokenizer(folder)), freeze=(), lora=TRAINED)
    random = np.random.default_rng(0)
    flat = {name: np.asarray(leaf) for name, leaf in flatten_dict(params_of(config), sep="/").items()}
    for name, leaf in flat.items():
        if name.endswith(lora.UP) or name == "decoder/norm/scale":
            flat[name] = random.standard_normal(leaf.shape, np.float32)
    tree = unflatten_dict(flat, sep="/")
    stored = ArrayReader(flatten_dict(lora.stored(tree, TRAINED), sep="/"))
    (folder / "peft").mkdir()
    peft.write(stored, config.model, TRAINED, "peft", folder / "peft")
    return config, tree, folder / "peft"


def test_updates_and_whole_modules_are_the_adapters(adapted):
    config, tree, folder = adapted
    jax.tree.map(np.testing.assert_array_equal, begin_with(params_of(config), config, folder), tree)


def test_ranks_above_the_adapters_begin_as_nothing(adapted):
    """Its A is drawn, as of any new update, so they train."""
    config, tree, folder = adapted
    wider = replace(config, lora=replace(TRAINED, rank=5, targets=(*TRAINED.targets, "vision/layers")))
    begun = begin_with(params_of(wider), wider, folder)
    down, up = begun["decoder"]["layers"]["down_proj"][lora.DOWN], begun["decoder"]["layers"]["down_proj"][lora.UP]
    assert np.abs(down[..., 3:]).max() > 0 and not np.any(up[:, 3:])
    merged, expected = (flatten_dict(lora.merged(one), sep="/") for one in (begun, tree))
    for name, leaf in merged.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_an_adapter_is_merged_into_parameters_without_updates(adapted):
    config, tree, folder = adapted
    merged = merge_into(params_of(replace(config, lora=None)), peft.read(folder, config.model))
    expected = lora.merged(tree)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), merged, expected)


def saved(config, params, optimizer, folder):
    """A run folder, as training leaves one."""
    run_folder.prepare(config, folder)
    with Checkpoints(folder, keep=1) as checkpoints:
        state = TrainState(jax.numpy.int32(1), params, optimizer, jax.numpy.ones((), bool))
        checkpoints.save(state, Progress())
    return folder


def test_an_adapter_is_merged_into_the_parameters_that_its_run_began_with(adapted, tmp_path):
    """Its base's moving average was taken instead of what `initialize.run` had read."""
    config, tree, folder = adapted
    base = replace(config, lora=None, average_decay=0.9)
    params = params_of(base)
    average = jax.tree.map(lambda leaf: leaf + 1, params)
    run = saved(base, params, WithAverage({"count": jax.numpy.zeros(())}, average), tmp_path / "run")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    jax.tree.map(np.testing.assert_array_equal, xgenmm_jax.load(run, mesh=mesh).params, average)
    loaded = xgenmm_jax.load(run, mesh=mesh, adapter=folder).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), loaded, lora.merged(tree))


def test_what_is_exact_stays_so_in_bfloat16(tmp_path):
    """With an adapter a Q-Former and the statistics of what is drawn were rounded, as they are not without one."""
    connector = QFormerConfig(width=96, inner=16, hidden=32, layers=2, heads=2, queries=16, out_width=128)
    model = replace(cases.model(), connector=connector)
    config = TrainConfig("drawing", model, cases.data(4, 2), FlowMatching(), 1, freeze=cases.FROZEN)
    updates = LoRA(rank=2, targets=("decoder/layers",))
    tree = random_parameters(functools.partial(boxed_params, config.objective, model, updates))
    run = saved(config, lora.without_updates(tree), {"count": jax.numpy.zeros(())}, tmp_path / "run")
    stored = {name: np.abs(leaf) for name, leaf in flatten_dict(lora.stored(tree, updates), sep="/").items()}
    (tmp_path / "peft").mkdir()
    peft.write(ArrayReader(stored), model, updates, "peft_phi3", tmp_path / "peft")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    loaded, plain = (
        flatten_dict(xgenmm_jax.load(run, mesh=mesh, dtype="bfloat16", adapter=adapter).params, sep="/")
        for adapter in (tmp_path / "peft", None)
    )
    assert {name: leaf.dtype for name, leaf in loaded.items()} == {name: leaf.dtype for name, leaf in plain.items()}
    for name, leaf in plain.items():
        if not name.startswith("decoder/layers/"):
            np.testing.assert_array_equal(loaded[name], leaf, err_msg=name)


@pytest.mark.parametrize(
    ("change", "is_whole"),
    [
        ({}, True),
        ({"adapter": "another"}, True),
        ({"fresh": ("connector/projection",)}, False),
        ({"connector": "another"}, False),
    ],
)
def test_a_base_is_told_where_it_gave_all_that_the_updates_change(adapted, tmp_path, change, is_whole):
    """A run with parameters of its own was said to be the base, which lacks them, and the check passed."""
    config, _, _ = adapted
    weights = {"sha256": "0" * 64, "of": "checksums"}
    begun = {"data": [], "initialize": dict.fromkeys({"run", *change} & {"run", "connector"}, weights)}
    (tmp_path / "started_with.json").write_text(json.dumps(begun))
    write_base(replace(config, initialize=Initialize(run="base", **change)), tmp_path, tmp_path)
    assert (tmp_path / BASE_FILE).is_file() == is_whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("decoder/layers",)}, "has an update of 'connector/layers/to_q', which lora.targets leaves out"),
        ({"rank": 2}, "lora.rank: got 2, and .* has 3 in .*; give --lora.rank 3, or more"),
        ({"whole": ()}, "saves 'decoder/norm/scale' whole, which this run does not train"),
    ],
)
def test_an_adapter_that_the_run_would_not_train_is_refused(adapted, change, message):
    config, _, folder = adapted
    config = replace(config, lora=replace(TRAINED, **change))
    with pytest.raises(ValueError, match=message):
        begin_with(params_of(config), config, folder)


def test_an_adapter_needs_updates(adapted):
    config, _, folder = adapted
    with pytest.raises(ValueError, match="initialize.adapter: the run has no low-rank updates"):
        replace(config, lora=None, initialize=Initialize(adapter=str(folder)))
