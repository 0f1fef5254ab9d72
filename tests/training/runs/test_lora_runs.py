"""Runs with low-rank updates: what their checkpoints hold, how they go on, and how they are read."""

from dataclasses import replace
import json
import shutil

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import numpy as np
import pytest
import tiny_run

from xgenmm_jax.api.loading import load
from xgenmm_jax.convert.parameter_store import ParameterReader
from xgenmm_jax.models import lora
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.training.config import CheckpointConfig, Initialize
from xgenmm_jax.training.loop import train
from xgenmm_jax.training.metrics import read_metrics
from xgenmm_jax.training.runs import checkpoints
from xgenmm_jax.training.runs.checkpoints import Checkpoints, Progress, newest
from xgenmm_jax.training.runs.initialize import initialize_params
from xgenmm_jax.training.runs.reading import open_parameters, restore_run
from xgenmm_jax.training.runs.run_folder import prepare
from xgenmm_jax.training.runs.started_with import base_of
from xgenmm_jax.training.runs.starting import new_state
from xgenmm_jax.training.setup import assemble
from xgenmm_jax.training.sharding import MeshConfig, make_mesh

ONE = jax.devices()[:1]
UPDATES = LoRA(rank=3, alpha=6.0, targets=("decoder/layers", "connector"), whole=("connector/latents",))


def begun(config, folder, change=lambda name, leaf: leaf):
    """A run folder before its first step; `change` makes other parameters of those."""
    program = assemble(config, make_mesh(config.mesh, ONE))
    params = initialize_params(config.initialize, program.init, config.seed, program.abstract.params, config.model)
    flat = flatten_dict(params, sep="/")
    params = unflatten_dict({name: change(name, leaf) for name, leaf in flat.items()}, sep="/")
    prepare(config, folder)
    with Checkpoints(folder, keep=1, lora=config.lora) as saved:
        saved.save(new_state(program, params), Progress())
    return params


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tiny_run.tokenizer(tmp_path_factory.mktemp("tokenizer"))
    policy = CheckpointConfig(every_steps=2, every_seconds=0.0, keep=9)
    return replace(tiny_run.config(path, steps=4), mesh=MeshConfig(), freeze=(), checkpoint=policy)


@pytest.fixture(scope="module")
def ran(plain, tmp_path_factory):
    """Config, folder and result of a run with updates of a base in the folder beside it."""
    folder = tmp_path_factory.mktemp("runs")
    begun(plain, folder / "base")
    config = replace(plain, lora=UPDATES, seed=5, initialize=Initialize(run=str(folder / "base")))
    return config, folder / "run", train(config, folder / "run", ONE)


@pytest.fixture
def copied(ran, tmp_path):
    """Both folders again, the run killed behind its step 2."""
    config, folder, result = ran
    for name in ("base", "run"):
        shutil.copytree(folder.parent / name, tmp_path / name)
    shutil.rmtree(tmp_path / "run/checkpoints/4")
    settings = (tmp_path / "run/config.json").read_text()
    (tmp_path / "run/config.json").write_text(settings.replace(str(folder.parent), str(tmp_path)))
    return replace(config, initialize=Initialize(run=str(tmp_path / "base"))), tmp_path / "run", result


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_checkpoint_holds_updates_and_what_trains_whole(ran):
    _, folder, result = ran
    names = checkpoints.param_shapes(newest(folder) / "params")
    kinds = {name.rsplit("/", 1)[-1] for name in names}
    assert kinds == {lora.DOWN, lora.UP, lora.SCALE, "latents"}
    assert len(names) == 1 + 3 * len([name for name in names if name.endswith(lora.DOWN)])
    saved = sum(file.stat().st_size for file in (newest(folder) / "params").rglob("*") if file.is_file())
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(result.params))
    assert saved < whole / 2


def test_a_run_that_was_killed_goes_on_as_the_unbroken_one(copied):
    config, folder, unbroken = copied
    resumed = train(config, folder, ONE)
    assert_same(resumed.params, unbroken.params)
    losses = [row["loss"] for row in read_metrics(folder)]
    assert losses == [row["loss"] for row in read_metrics(unbroken.folder)]
    # And once more behind its end, from the base and the last checkpoint.
    assert_same(train(config, folder, ONE).params, unbroken.params)


@pytest.mark.slow
def test_it_goes_on_over_another_mesh(copied):
    config, folder, unbroken = copied
    resumed = train(replace(config, mesh=MeshConfig(fsdp=4, tensor=2)), folder)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), resumed.params, unbroken.params)


def test_another_base_is_refused_and_nothing_written(copied, plain):
    config, folder, _ = copied
    shutil.rmtree(folder.parent / "base")
    begun(plain, folder.parent / "base", lambda name, leaf: leaf * (1.5 if name == "decoder/embedding" else 1))
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    wanted = r"initialize.run: '.*base': sha256 .* before, .* now: not what the run .* low-rank updates change"
    for reads in (lambda: train(config, folder, ONE), lambda: load(folder), lambda: open_parameters(folder)):
        with pytest.raises(ValueError, match=wanted):
            reads()
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    shutil.rmtree(folder.parent / "base")
    with pytest.raises(ValueError, match="gone: not what the run"):
        load(folder)


def test_a_base_that_has_trained_on_is_read_as_it_was(copied):
    config, folder, unbroken = copied
    base = folder.parent / "base"
    shutil.copytree(base / "checkpoints/0", base / "checkpoints/7")
    (base / "checkpoints/7/params/_METADATA").write_text("other")
    (base / "checkpoints/7/files.json").unlink()
    assert base_of(config, folder).run == str(base / "checkpoints/0")
    read, original = open_parameters(folder), open_parameters(unbroken.folder.parent / "base")
    np.testing.assert_array_equal(read.read("vision/post_norm/scale"), original.read("vision/post_norm/scale"))


def test_a_run_is_read_with_its_updates_merged(ran, tmp_path):
    """On any mesh, by slices, moved together with its base, and as what another run begins with."""
    config, folder, result = ran
    merged = flatten_dict(jax.device_get(lora.merged(result.params)), sep="/")
    base = flatten_dict(lora.without_updates(result.params), sep="/")
    assert any(np.abs(merged[name] - base[name]).max() > 1e-4 for name in merged)
    for name in ("base", "run"):
        shutil.copytree(folder.parent / name, tmp_path / "moved" / name)
    settings = json.loads((tmp_path / "moved/run/config.json").read_text())
    settings["initialize"]["run"] = "gone/base"
    (tmp_path / "moved/run/config.json").write_text(json.dumps(settings))
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    for run in (folder, tmp_path / "moved/run", newest(folder)):
        program = assemble(replace(config, lora=None), mesh)
        read = flatten_dict(restore_run(run, program.abstract.params), sep="/")
        assert read.keys() == merged.keys()
        for name, leaf in read.items():
            np.testing.assert_allclose(leaf, merged[name], rtol=0, atol=1e-6, err_msg=name)
            assert leaf.sharding == flatten_dict(program.abstract.params, sep="/")[name].sharding
    reader = open_parameters(folder)
    assert reader.shapes == {name: leaf.shape for name, leaf in merged.items()}
    for name in reader.paths:
        whole = np.stack([reader.read(name, layer) for layer in range(2)]) if "decoder/layers/" in name else None
        np.testing.assert_allclose(reader.read(name), merged[name], rtol=0, atol=1e-6, err_msg=name)
        assert whole is None or np.array_equal(whole, reader.read(name))
    part = restore_run(folder, {"connector": program.abstract.params["connector"]})["connector"]
    np.testing.assert_array_equal(part["latents"], merged["connector/latents"])


def test_a_run_of_a_run_with_updates_begins_with_them_merged(ran, tmp_path):
    config, folder, result = ran
    config = replace(config, initialize=Initialize(run=str(folder)), lora=LoRA(rank=2, targets=("decoder/layers",)))
    begun(config, tmp_path / "second")
    merged = flatten_dict(lora.merged(result.params), sep="/")
    reader = open_parameters(tmp_path / "second")
    for name in reader.paths:
        np.testing.assert_allclose(reader.read(name), merged[name], rtol=0, atol=1e-6, err_msg=name)
    own = ParameterReader(newest(tmp_path / "second") / "params")
    assert lora.UP in {name.rsplit("/", 1)[-1] for name in own.paths}


def test_a_base_of_several_places_is_read_whole_for_slices(ran, tmp_path):
    config, folder, _ = ran
    base = str(folder.parent / "base")
    config = replace(config, initialize=Initialize(run=base, connector=base))
    params = begun(config, tmp_path / "run", lambda name, leaf: leaf + 0.1 if name.endswith(lora.UP) else leaf)
    merged = flatten_dict(lora.merged(params), sep="/")
    reader = open_parameters(tmp_path / "run")
    for name in reader.paths:
        np.testing.assert_allclose(reader.read(name), merged[name], rtol=0, atol=1e-6, err_msg=name)


def test_updates_without_their_run_are_refused(ran, tmp_path):
    _, folder, _ = ran
    shutil.copytree(newest(folder), tmp_path / "alone")
    with pytest.raises(ValueError, match="holds low-rank updates alone, and no run folder around it"):
        open_parameters(tmp_path / "alone")
