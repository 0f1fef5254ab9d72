"""Every experiment file: each of its runs builds abstractly at full size, and says what the paper says."""

import contextlib
import dataclasses
import functools
import json
import math
import os
from pathlib import Path
import subprocess
import sys

from flax.traverse_util import flatten_dict
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import xgenmm_jax
from xgenmm_jax.cli.experiment_files import import_experiment, load_experiment, run_names
from xgenmm_jax.cli.options import parse_overrides
from xgenmm_jax.data.records import Conversation, Preference
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.ops.partitioning import unboxed
from xgenmm_jax.training import config as config_module
from xgenmm_jax.training.config import Initialize, TrainConfig
from xgenmm_jax.training.optimizer import learning_rate, trainable_mask
from xgenmm_jax.training.runs.initialize import initialize_params

ROOT = Path(xgenmm_jax.__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
FILES = sorted(
    path.relative_to(EXPERIMENTS).as_posix()
    for path in EXPERIMENTS.rglob("*.py")
    # What starts from a run that is there has tests of its own: tests/cli/test_finetune.py.
    if path.name not in ("mixtures.py", "recipes.py", "finetune.py", "__init__.py")
)
HEAD = ("Command:", "Hardware:", "Hours:", "Paper:", "Expected")


@functools.cache
def runs(file: str) -> dict[str, TrainConfig]:
    """Every run of a file, by the name of its function; what `--at nano` makes of it as "nano_" and the name."""
    module = import_experiment(EXPERIMENTS / file)
    configs = {name: getattr(module, name)() for name in run_names(module)}
    for name in list(configs):
        with contextlib.suppress(ValueError):  # takes no stage, as those of vision_backbone
            configs[f"nano_{name}"] = load_experiment(Path(f"{EXPERIMENTS / file}:{name}"), at="nano")
    return configs


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
            if start and start.startswith(("runs/demo/", "runs/weights/", "runs/draw_")):
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


QUERIES = {"model.connector", "data.row.vision_tokens"}
LATENTS = {
    "model.drawing.head.channels", "model.drawing.head.patch", "model.drawing.target", "model.drawing.pixels",
}  # fmt: skip
CONNECTORS = ("resampler", "queries_half", "queries_as_mlp", "queries_double", "mlp")
STAGES = ("before", "single", "multi", "nano_before", "nano_single", "nano_multi")
ARMS = {
    "data_scale": [
        ("percent_2 percent_10 percent_20 percent_40 percent_60 percent_100", {"steps"}),
        ("config percent_100", {"checkpoint"}),
        (" ".join(f"nano_percent_{percent}" for percent in (2, 10, 20, 40, 60, 100)), {"steps"}),
        ("nano_config nano_percent_100", {"checkpoint", "optimizer"}),
    ],
    "vision_backbone": [
        ("config siglip dfn", {"model.vision", "model.connector", "data.anyres.view_px", "initialize.vision"}),
        ("tower_sigmoid tower_softmax", {"objective.contrast"}),
        ("sigmoid softmax", {"initialize.vision"}),
    ],
    "stage2_resolution": [
        ("config stage2_fewer stage2_all", {"data.anyres.grids"}),
        ("sft_none sft_fewer sft_all", {"initialize.run"}),
        ("nano_stage2_fewer nano_stage2_all", {"data.anyres.grids"}),
        ("nano_sft_none nano_sft_fewer nano_sft_all", {"initialize.run"}),
    ],
    "connector": [(" ".join(f"{size}{arm}" for arm in CONNECTORS), QUERIES) for size in ("", "nano_")]
    + [
        (
            " ".join(f"{size}{arm}_sft" for arm in CONNECTORS),
            {*QUERIES, "initialize.run"},
        )
        for size in ("", "nano_")
    ]
    + [("config resampler", set())],
    "token_sampling": [
        (
            f"{prefix}crops {prefix}strips {prefix}fixed_sampling {prefix}fixed_resolution",
            {"model.token_sampling", "data.row.vision_tokens_per", "data.anyres.grids", "data.anyres.global_view"},
        )
        for prefix in ("", "nano_")
    ]
    + [("config crops", set())],
    "instruction_aware": [
        ("config without with_instruction", {"model.connector", "initialize.fresh"}),
        ("nano_without nano_with_instruction", {"model.connector", "initialize.fresh"}),
    ],
    "ocr_filler": [("config removed kept", {"data.mixture"}), ("nano_removed nano_kept", {"data.mixture"})],
    "blip3o_objective": [
        ("config flow regression", {"model.drawing.head", "objective"}),
        ("nano_flow nano_regression", {"model.drawing.head", "objective"}),
    ],
    "blip3o_target": [
        (f"{prefix}features {prefix}latents", LATENTS | {"initialize.run", "freeze"}) for prefix in ("", "nano_")
    ]
    + [
        (f"{prefix}autoencoder {prefix}latents", {"objective", "initialize.run", "initialize.fresh", "freeze"})
        for prefix in ("", "nano_")
    ]
    + [("config features", set())],
    "blip3o_strategy": [
        (f"{prefix}sequential {prefix}joint", {"data.mixture", "data.batch_rows", "objective.text_weight", "freeze"})
        for prefix in ("", "nano_")
    ]
    + [("config sequential", set())],
    "multi_image": [("config multi multi_alone", {"data.mixture"}), ("nano_multi nano_multi_alone", {"data.mixture"})],
}
"""The arms of each question, and the fields in which they may differ beside the name."""


def differences(a, b, path: str = "") -> set[str]:
    """Dotted names of the fields that differ; the first two levels below data, model and initialize."""
    if type(a) is type(b) and dataclasses.is_dataclass(a) and path not in ("model.connector", "model.vision"):
        fields = [f.name for f in dataclasses.fields(a)]
        return set().union(*(differences(getattr(a, f), getattr(b, f), f"{path}.{f}".lstrip(".")) for f in fields))
    return set() if a == b else {path}


@pytest.mark.parametrize("question", ARMS)
def test_arms_differ_in_one_thing(question):
    """Whatever else differed would be the answer to the question as well."""
    arms = runs(f"ablations/{question}.py")
    asked = set()
    for names, allowed in ARMS[question]:
        first, *others = names.split()
        asked |= {first, *others}
        differing = set().union(*(differences(arms[first], arms[other]) for other in others))
        differing = {"checkpoint" if field.startswith("checkpoint") else field for field in differing}
        differing = {"optimizer" if field.startswith("optimizer") else field for field in differing}
        assert differing - {"name"} == allowed, names
    assert set(arms) - asked <= {"nano_config", *(STAGES if question == "multi_image" else ())}


def test_every_question_of_the_paper_has_a_file():
    assert {f"ablations/{question}.py" for question in ARMS} == {f for f in FILES if f.startswith("ablations/")}


def test_ocr_filler_changes_captions_and_nothing_else():
    arms = runs("ablations/ocr_filler.py")
    without_filler, with_filler = (dict(arms[name].data.mixture) for name in ("nano_removed", "nano_kept"))
    assert sorted(without_filler.values()) == sorted(with_filler.values())
    assert [source.filler for source in without_filler] == [False] * len(without_filler)
    assert [source.family for source in with_filler if source.filler] == ["ocr"]


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
