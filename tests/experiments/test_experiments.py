"""Every experiment file: each of its runs builds abstractly at full size, and says what the paper says."""

import dataclasses
import functools
import json
import math
import os
from pathlib import Path
import subprocess
import sys

from experiment_runs import EXPERIMENTS, FILES, ROOT, runs
from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from xgenmm_jax.cli.experiment_files import import_experiment, load_experiment
from xgenmm_jax.cli.options import parse_overrides
from xgenmm_jax.data.records import Conversation, Preference
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training import config as config_module
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.optimizer import learning_rate, trainable_mask
from xgenmm_jax.training.runs.initialize import initialize_params

HEAD = ("Command:", "Hardware:", "Hours:", "Paper:", "Expected")


SHAPES = {}


def shapes(config: TrainConfig):
    """Parameters of a run, abstractly; few models serve all runs."""
    key = (type(config.objective), config.model, "vision" in config.freeze)
    if key not in SHAPES:
        SHAPES[key] = unboxed(jax.eval_shape(functools.partial(config.objective.init, config.model), jax.random.key(0)))
    return SHAPES[key]


def count(config: TrainConfig) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(config)))


@pytest.mark.parametrize("file", FILES)
def test_every_run_builds_abstractly(file):
    """An arm whose parts do not fit each other would be found out on a pod."""
    assert "config" in runs(file)
    for name, config in runs(file).items():
        params = shapes(config)
        assert any(jax.tree.leaves(trainable_mask(params, config.freeze))), name
        assert learning_rate(config.optimizer, config.steps)(config.steps - 1) >= 0, name
        data = config.data
        assert all(weight > 0 for _, weight in data.mixture), name
        if isinstance(data, DataConfig):
            assert data.row.vision_tokens == config.model.tokens_per_group, name
            assert data.anyres.view_px == config.model.vision.image_size_px, name
            assert data.anyres.view_cells == config.model.vision.grid, name
            if data.row.vision_tokens_per == "image":
                assert data.anyres.max_crops <= config.model.max_image_crops, name
        fresh = config.initialize.fresh
        assert not fresh or any(jax.tree.leaves(trainable_mask(params, fresh))), name


@pytest.mark.parametrize("file", FILES)
def test_configs_survive_json(file):
    """A run folder whose config cannot be read back cannot be continued or evaluated."""
    for config in runs(file).values():
        text = json.dumps(config_module.to_json(config))
        assert config_module.from_json(json.loads(text), TrainConfig) == config


@pytest.mark.parametrize("file", FILES)
def test_command_line_overrides_a_field_and_keeps_the_rest(file):
    config = runs(file)["config"]
    changed = parse_overrides(TrainConfig, config, ["--optimizer.peak-lr", "3e-4", "--steps", "7000"], "train")
    optimizer = dataclasses.replace(config.optimizer, peak_lr=3e-4)
    assert changed == dataclasses.replace(config, optimizer=optimizer, steps=7000)


def test_stages_say_how_their_models_are_asked():
    """Pre-trained models go on with text, tuned ones answer a turn; drawn mixtures hold mostly such records."""
    for size in ("", "nano/", "micro/"):
        for stage in ("stage1", "stage2", "sft_single", "sft_multi", "dpo"):
            configs = {stage: runs("micro.py")[stage]} if size == "micro/" else runs(f"{size}{stage}.py")
            for name, config in configs.items():
                is_tuned = not stage.startswith("stage")
                assert (config.prompt == "chat") == is_tuned, (size, stage, name)
                if size:
                    opened = [(source.open(), weight) for source, weight in config.data.mixture]
                    first = [(records.record(0, np.random.default_rng(0)), weight) for records, weight in opened]
                    turns = sum(weight for record, weight in first if isinstance(record, Conversation | Preference))
                    assert (turns >= 0.5 * sum(weight for _, weight in first)) == is_tuned, (size, stage)


@pytest.mark.parametrize("file", ["finetune.py", *(file for file in FILES if "starting_weights" not in file)])
def test_heads_say_what_a_reader_needs(file):
    head = import_experiment(EXPERIMENTS / file).__doc__
    assert [word for word in HEAD if f"\n{word}" not in head] == []
    assert f"experiments/{file}" in head and head.split("\n")[0].endswith("?")


def test_the_papers_runs_end_when_they_hang():
    """The watchdog was off in every experiment, so that a pod that hung was paid for until somebody looked."""
    seconds = {config.name: config.watchdog_seconds for file in FILES for config in runs(file).values()}
    for name, watchdog_seconds in seconds.items():
        assert watchdog_seconds == (1800 if name.startswith(("4b/", "14b/", "blip2/")) else 0), name
    assert sum(name.startswith("14b/") for name in seconds) == 9


def test_a_run_that_hangs_each_time_is_given_up():
    """resume.sh forgave all failures to a run that lasted a while; one that hung at its start lasted that long."""
    told = subprocess.run(
        ["bash", "-c", 'source "$0"; echo "$TPU_STEADY_S"', ROOT / "launch" / "config.sh"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(told.stdout) >= 2 * runs("stage1.py")["config"].watchdog_seconds


def test_names_of_runs_differ():
    """Two runs of one name would continue each other's folder."""
    owner = {}
    for file in FILES:
        for name, config in runs(file).items():
            assert owner.setdefault(config.name, config) == config, f"{file}:{name} takes the folder of another run"


def test_initial_runs_exist():
    """Each stage starts where another one ends."""
    names = {f"runs/{config.name}" for file in FILES for config in runs(file).values()}
    for file in FILES:
        for name, config in runs(file).items():
            start = config.initialize.run
            if start and start.startswith(("runs/demo/", "runs/weights/", "runs/draw")):
                start = f"runs/nano/{Path(start).name}"
            is_released = start is not None and start.startswith("weights/")
            assert start is None or is_released or start in names, f"{file}:{name} starts at {start}"


def test_full_sizes_have_the_published_parameters():
    for stage in ("stage1", "stage2", "sft_single", "sft_multi", "dpo"):
        assert count(runs(f"{stage}.py")["config"]) == 4_359_257_219
        assert count(runs(f"{stage}.py")["config_14b"]) == 14_500_789_379


def test_budgets_are_those_published():
    stage1, single = runs("stage1.py")["config"], runs("sft_single.py")["config"]
    row = stage1.data.row
    assert 90e9 < stage1.steps * stage1.data.batch_rows * row.length * 0.95 < 110e9
    assert single.data.batch_rows * single.data.row.segments == 64 and 2.5e6 < 64 * single.steps < 3.5e6
    assert single.optimizer == dataclasses.replace(
        single.optimizer, peak_lr=2e-5, warmup_steps=2000, schedule="cosine", betas=(0.9, 0.999), weight_decay=0.0
    )
    assert runs("dpo.py")["config"].steps == 62_600 // 64
    assert max(max(grid) for grid in single.data.anyres.grids) * single.data.anyres.view_px == 1536
    assert single.data.anyres.max_crops == 13


def test_files_load_from_any_folder(tmp_path):
    """A fresh process, standing elsewhere, with the package alone on its path."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "xgenmm_jax").symlink_to(ROOT / "xgenmm_jax")
    code = (
        "import sys; from pathlib import Path; from xgenmm_jax.cli.experiment_files import load_experiment\n"
        "for path in sys.argv[1:]: print(load_experiment(Path(path)).name)"
    )
    relative = [os.path.relpath(EXPERIMENTS / file, tmp_path) for file in FILES]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", code, *relative]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [runs(file)["config"].name for file in FILES]


def test_a_colon_picks_a_run():
    path = EXPERIMENTS / "ablations" / "connector.py"
    assert load_experiment(Path(f"{path}:mlp")) == runs("ablations/connector.py")["mlp"]
    with pytest.raises(ValueError, match=r"no function mpl\(\); did you mean mlp"):
        load_experiment(Path(f"{path}:mpl"))
    with pytest.raises(ValueError, match="did you mean connector.py"):
        load_experiment(Path(f"{path.with_name('conector.py')}:mlp"))


def test_arms_take_the_stages_of_another_size():
    """`--at nano`: what an arm changes is written once, and its base is that size's stage."""
    arm = Path(f"{EXPERIMENTS / 'ablations' / 'connector.py'}:mlp_sft")
    nano, micro = load_experiment(arm, "nano"), load_experiment(arm, "micro")
    assert nano.name == "nano/ablations/connector/mlp_sft" and micro.name == "micro/ablations/connector/mlp_sft"
    assert nano.initialize.run == "runs/nano/ablations/connector/mlp"
    assert nano.data.mixture == runs("nano/sft_single.py")["config"].data.mixture
    assert micro.model.vision == runs("micro.py")["config"].model.vision
    with pytest.raises(ValueError, match=r"--at: dfn\(\) takes no stage .* leave --at away"):
        load_experiment(EXPERIMENTS / "ablations" / "vision_backbone.py:dfn", "nano")
    with pytest.raises(ValueError, match="--at: got 'huge', which has no stage1; wanted one of nano, micro"):
        load_experiment(EXPERIMENTS / "ablations" / "data_scale.py", "huge")
    # The sizes that are offered have every stage that the arm takes.
    with pytest.raises(ValueError, match="--at: got 'micro', which has no blip2.stage1; wanted nano\\."):
        load_experiment(EXPERIMENTS / "ablations" / "blip2.py:queries", "micro")


def test_instruction_aware_adds_what_it_calls_fresh():
    """Stage 1 has no projection of the instruction: all else must be as the run left it."""
    arms = runs("ablations/instruction_aware.py")
    for prefix in ("", "nano_"):
        without = flatten_dict(shapes(arms[f"{prefix}without"]), sep="/")
        aware = flatten_dict(shapes(arms[f"{prefix}with_instruction"]), sep="/")
        fresh = arms[f"{prefix}with_instruction"].initialize.fresh
        assert {name.rsplit("/", 1)[0] for name in aware.keys() - without.keys()} == set(fresh)
        assert all(aware[name].shape == leaf.shape for name, leaf in without.items())


def test_fresh_parameters_are_random_and_the_rest_restored(tmp_path):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", {"connector": {"old": jnp.full(3, 0.5)}})

    def init(key):
        return {"connector": {"old": jnp.zeros(3), "new": {"kernel": jax.random.normal(key, (3,))}}}

    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(init, jax.random.key(0)),
    )

    def start(*fresh: str):
        return initialize_params(Initialize(run=str(tmp_path), fresh=fresh), init, 0, abstract)

    params = start("connector/new")["connector"]
    assert (params["old"] == 0.5).all() and jnp.std(params["new"]["kernel"]) > 0
    with pytest.raises(ValueError, match="connector/new/kernel is missing"):
        start()
    with pytest.raises(ValueError, match="'connector/ne' names no parameter"):
        start("connector/ne")


def test_a_run_may_lack_what_comes_from_elsewhere(tmp_path):
    """EVA's tower is a run of its own, beside the understanding model of another."""
    for run, params in (("tower", {"target": jnp.full(3, 0.5)}), ("model", {"decoder": jnp.full(2, 0.25)})):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / run / "params", params)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = {"target": (3,), "decoder": (2,)}
    abstract = {name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding) for name, shape in shapes.items()}
    start = Initialize(run=str(tmp_path / "tower"), decoder=str(tmp_path / "model"))
    params = initialize_params(start, lambda key: {}, 0, abstract)
    assert (params["target"] == 0.5).all() and (params["decoder"] == 0.25).all()


def test_a_bare_pytest_finds_the_experiments(pytestconfig):
    """`pytest -m parity` of the README found no module experiments: only `python -m pytest` adds the folder."""
    assert pytestconfig.rootpath in pytestconfig.getini("pythonpath")
