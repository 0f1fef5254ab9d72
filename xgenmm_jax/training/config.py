"""The whole of a run as frozen data, and its JSON form in the run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import functools
import json
import types
from typing import Annotated, Any, Literal

import tyro

from xgenmm_jax import files, hub
from xgenmm_jax.convert.tensor_files import refuse_pickles
from xgenmm_jax.data.source import Source
from xgenmm_jax.evaluation.tasks.suite import Suite
from xgenmm_jax.models.lora import LoRA
from xgenmm_jax.paths import Path, user_path
from xgenmm_jax.training.config_json import brief, from_json, to_json
from xgenmm_jax.training.objectives.base import Objective
from xgenmm_jax.training.optimizer import OptimizerConfig
from xgenmm_jax.training.profiling import ProfileConfig
from xgenmm_jax.training.sharding import MeshConfig

FORMAT_VERSION = 2
"""Of config.json, which says it as "version". It grows when classes or fields that are written there are renamed."""
READ_BY = {1: "d833a01"}
"""Earlier format to the last commit that reads it. Format 1 had no "version"."""

ROWS_VERSION = 3
"""Of the order and the packing of rows, which config.json says as "rows". It grows when a run would go on with other
rows than it began with."""
ROWS_BY = {1: "9950b99", 2: "9dde55d"}
"""Earlier rows to the last commit that goes on with them. Rows 1 had no "rows"."""


@dataclass(frozen=True)
class Initialize:
    """Where parameters come from; what nothing names is random.

    Paths may begin with `~`, the home folder; all but `run` may be "hf://org/model@revision", a model of the hub.
    run: a run folder (its newest checkpoint) or one checkpoint, for every parameter.
    vision, connector, decoder, pixels: a safetensors file or a run folder for one part, taken after `run`. `pixels`,
    what makes pixels of features, brings the scale of these features with it; `connector`, in BLIP-2's first stage, its
    text and heads.
    adapter: a folder in PEFT's layout, whose updates those of `lora` begin with; they stand beside all of the above.
    fresh: path prefixes that stay random because `run` lacks them, or the one of the part: "connector/projection".
    connector_start: changes how a random connector begins: (parameters of all parts, model, seed) -> the connector's.
    A function of the package, which the run folder keeps by its name.
    """

    run: str | None = None
    vision: str | None = None
    connector: str | None = None
    decoder: str | None = None
    pixels: str | None = None
    adapter: str | None = None
    fresh: tuple[str, ...] = ()
    connector_start: Annotated[Callable[[Any, Any, int], Any] | None, tyro.conf.Suppress] = None

    def __post_init__(self):
        read = functools.partial(user_path, is_opened=False)
        for name in ("run", "vision", "connector", "decoder", "pixels", "adapter"):
            value = getattr(self, name)
            path = None if value is None else hub.path_or_name(value, f"initialize.{name}", read, is_kept=True)
            if name == "run" and isinstance(path, hub.HubName):
                raise ValueError(
                    f"initialize.run: '{value}' is a model of the hub, and no run folder; make one of it, xgenmm "
                    f"convert {value} FOLDER, and give --initialize.run FOLDER."
                )
            if str(value).startswith("~"):
                object.__setattr__(self, name, str(path))
        if self.connector_start is not None and (self.run or self.connector):
            raise ValueError("initialize.connector_start: the connector comes from a run or a file; leave it None.")


@dataclass(frozen=True)
class CheckpointConfig:
    """When to save beside the end of the run and SIGTERM.

    every_steps: 0 switches it off. every_seconds: 0 switches it off; with several hosts it is asked for at logged
    steps, where they agree. keep: newest checkpoints that stay: 2, as the newest may be damaged. keep_every:
    checkpoints at multiples of so many steps stay for good; 0: none.
    """

    every_steps: int = 0
    every_seconds: float = 120.0
    keep: int = 2
    keep_every: int = 0

    def __post_init__(self):
        if self.keep < 1 or min(self.every_steps, self.every_seconds, self.keep_every) < 0:
            raise ValueError(f"checkpoint: got {self}; wanted keep 1 or more and nothing below 0.")


@dataclass(frozen=True)
class HeldOut:
    """The held-out loss: of samples that the run never trains on, the same ones each time.

    every_steps: steps between evaluations, and one after the last step; 0: none. samples: how many are drawn, by the
    mixture's weights, of what its sources set aside (`held_out_shards` of a source, or data.held_out_one_in); a source
    with fewer gives some of them again. mixture: sources of their own with weights, instead. They change nothing of
    the run but its time.
    """

    every_steps: int = 0
    samples: int = 512
    mixture: Annotated[tuple[tuple[Source, float], ...], tyro.conf.Suppress] = ()

    def __post_init__(self):
        if self.every_steps < 0 or self.samples < 1:
            raise ValueError(
                f"held_out: got every_steps {self.every_steps} and samples {self.samples}; wanted 0 or more, and 1 or "
                "more."
            )


@dataclass(frozen=True)
class TrainConfig:
    """One run. Same config, same machine: same figures, interrupted or not."""

    name: str
    model: Any
    """A VLMConfig, or another model's that the objective knows."""
    data: Any
    """What gives the batches: a mixture with its row budgets, or captions for the tower."""
    objective: Objective
    """What is learned: NextToken, DPO, ..."""
    steps: int
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    initialize: Initialize = Initialize()
    freeze: tuple[str, ...] = ("vision",)
    """Parts, or path prefixes, that do not train: no gradient, no optimizer state."""
    lora: LoRA | None = None
    """Low-rank updates: they alone train, and what `lora.whole` names. None: all that `freeze` leaves trains whole."""
    average_decay: float = 0.0
    """Of a moving average of the trained parameters, which checkpoints hold beside the optimizer's state and drawing
    takes: each step, average = d * average + (1 - d) * parameters with d the smaller of this and (1 + step) /
    (10 + step). 0: none is kept."""
    accumulation: int = 1
    """Micro-batches of a batch, one after the other; the result is that of the whole batch."""
    prompt: Literal["chat", "few_shot"] = "chat"
    """How the trained model is asked: a user's turn, or text that a base model goes on with."""
    seed: int = 0
    """Of starting weights and of the order of the data; 0 or more, of any size (`seeds.random_key`)."""
    log_every: int = 10
    """Steps between lines of metrics; a line holds that step's own figures."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    watchdog_seconds: float = 0.0
    """Ends the process, with the name of the host that hangs, when nothing moves for so long; 0: never. Longer than
    compiling and saving take; data may take longer to open, while the process or its workers read or compute."""
    profile: ProfileConfig = ProfileConfig()
    held_out: HeldOut = HeldOut()
    evaluate: Annotated[tuple[Suite, ...], tyro.conf.Suppress] = ()
    """What the model is measured by: `xgenmm evaluate RUN` asks it, and training does every `evaluate_every` steps."""
    evaluate_every: int = 0
    """Steps between evaluations in training; 0: none. They change nothing of the run but its time."""

    @property
    def keeps_reference(self) -> bool:
        """Whether starting values are kept beside the trained parameters. Of updates the base is the reference."""
        return self.objective.needs_reference and (self.lora is None or bool(self.lora.whole))

    def __post_init__(self):
        if not self.name.strip():
            raise ValueError(f"name: got '{self.name}'; give one, which names the run's folder.")
        for name, least in (("steps", 1), ("accumulation", 1), ("log_every", 1), ("seed", 0), ("evaluate_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted at least {least}.")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay: got {self.average_decay}, wanted 0 to below 1, 0.9999.")
        if self.average_decay and self.lora is not None:
            raise ValueError("average_decay: no moving average of low-rank updates is kept; make it 0, or train whole.")
        if self.initialize.adapter is not None and self.lora is None:
            raise ValueError("initialize.adapter: the run has no low-rank updates; give it lora, or leave it away.")
        if self.evaluate_every and not self.evaluate:
            raise ValueError(
                f"evaluate_every: got {self.evaluate_every} and nothing to evaluate; give 0, or suites in the "
                "experiment's evaluate."
            )


def save_config(config: TrainConfig, path: Path) -> None:
    write_settings(to_json(config), path)


def write_settings(settings: dict[str, Any], path: Path) -> None:
    """The inverse of `read_settings`."""
    versions = {"version": FORMAT_VERSION, "rows": ROWS_VERSION}
    files.write_whole(path, json.dumps({**versions, **settings}, indent=1) + "\n")


def load_config(path: Path) -> TrainConfig:
    """The config of a run folder, or of its config.json. Raises ValueError where it is missing or no config."""
    file = path / "config.json" if path.is_dir() else path
    if file == path or not file.is_file():
        refuse_pickles(path)
    if not file.is_file():
        raise ValueError(
            f"run folder: '{path}' has no config.json; give a folder that `xgenmm train` wrote, or that `xgenmm "
            "convert RELEASED RUN` made of released weights."
        )
    settings = read_settings(file, "copy it again")
    if "class" not in settings and "model_type" in settings:
        raise ValueError(
            f"run folder: '{file.parent}' holds released weights and is no run; make one of them: xgenmm convert "
            f"{file.parent} RUN."
        )
    try:
        config = from_json(settings, Any)
    except ValueError as error:
        raise ValueError(f"'{file}': {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(f"run folder: '{file}' holds a {type(config).__name__}, wanted a TrainConfig.")
    return config


def read_settings(file: Path, remedy: str) -> dict[str, Any]:
    """`to_json` of the config in a run's config.json; its version is checked and left out, that of rows left out.

    Raises ValueError where it was written in another format, with the commit that reads it; and where it is no JSON
    object, with the remedy.
    """
    settings = read_object(file, {}, remedy)
    settings.pop("rows", None)
    version = settings.pop("version", 1 if "class" in settings else FORMAT_VERSION)
    known = version if type(version) is int else None
    if known == FORMAT_VERSION:
        return settings
    if known in READ_BY:
        commit = READ_BY[known]
        raise ValueError(
            f"'{file}' was written before the format of runs changed (version {version}, wanted {FORMAT_VERSION}); "
            f"read it with commit {commit} (git checkout {commit}), or start another run from its parameters "
            f"(xgenmm train FILE --initialize.run '{file.parent}' --workdir NEW)."
        )
    raise ValueError(
        f"'{file}': got version {brief(version)}, wanted {FORMAT_VERSION}; read it with the commit that the file "
        "'commit' beside it names, or a later one."
    )


def check_rows(file: Path) -> None:
    """Raises ValueError where the run of a config.json began with other rows than it would go on with."""
    rows = read_object(file, {}, "copy it again").get("rows", 1)
    known = rows if type(rows) is int else None
    if known == ROWS_VERSION:
        return
    if known in ROWS_BY:
        commit = ROWS_BY[known]
        raise ValueError(
            f"run folder: the run in '{file.parent}' began before the order and packing of rows changed (rows {rows}, "
            f"now {ROWS_VERSION}) and would not get those that it has left; go on with commit {commit} (git checkout "
            f"{commit}), or start another run from its parameters (xgenmm train FILE --initialize.run "
            f"'{file.parent}' --workdir NEW)."
        )
    raise ValueError(
        f"'{file}': got rows {brief(rows)}, wanted {ROWS_VERSION}; go on with the commit that the file 'commit' beside "
        "it names, or a later one."
    )


def read_object(file: Path, required: Mapping[str, type | types.UnionType], remedy: str) -> dict[str, Any]:
    """The JSON object in a file. required: keys that it has, at least, and the types of their values.

    Raises ValueError, which names the file, what it holds and the remedy, where it holds something else.
    """
    try:
        # Not `files.parse_json`: a path may hold bytes that are no UTF-8, which are lone surrogates in a string.
        value = json.loads(files.read_text(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"'{file}' is not JSON ({error}); {remedy}.") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(key), kind) for key, kind in required.items()):
        keys = f" with {', '.join(required)}" if required else ""
        raise ValueError(f"'{file}' holds {brief(value, 70)}, wanted an object{keys}; {remedy}.")
    return value
