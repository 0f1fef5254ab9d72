"""Experiment files: Python by path, from any folder; what goes wrong in one is a sentence with its line."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import importlib
import inspect
import os
from pathlib import Path
import sys
import traceback
from types import MappingProxyType, ModuleType

from xgenmm_jax import user_files
from xgenmm_jax.cli import renamed
from xgenmm_jax.cli.errors import MOST, nearest
from xgenmm_jax.cli.options import take_option
from xgenmm_jax.training.config import TrainConfig

EXPERIMENT = "experiment"
"""What errors call a file whose option says nothing else."""
NOTHING: Mapping[str, str] = MappingProxyType({})
SIZES = ("nano", "micro")
"""Of `--at`."""
NAMES_AT = MappingProxyType({("nano", "blip3o.pretrain"): "draw", ("nano", "blip2.stage1"): "blip2_stage1"})
"""Files of stages that have another name at a size: experiments/blip3o/pretrain.py is experiments/nano/draw.py."""


def load_experiment(path: Path, at: str | None = None, given: Mapping[str, str] = NOTHING) -> TrainConfig:
    """What `config()` of an experiment file returns; of "FILE:RUN", what RUN() of it returns.

    at: "nano" or "micro", for a function whose parameters are stages, `def mlp(base=stage1.config)`: each is given the
    stage of that size instead of its default. given: of `take_arguments`.

    Raises ValueError where the file is missing, fails or gives no TrainConfig, or has no stages to exchange.
    """
    function = _function(path)
    stages = {} if at is None else _stages_at(function, at)
    missing = [option for name, option in _options_of(function, needed=True).items() if name not in given]
    if missing:
        words = " ".join((function.__doc__ or "").split())
        described = words[words.find("--") :] if "--" in words else "give them."
        raise ValueError(f"experiment: '{path}' needs {' and '.join(missing)}; {described}")
    with naming_the_line(path):
        config = function(**stages, **given)
    if not isinstance(config, TrainConfig):
        name = function.__name__
        raise ValueError(f"experiment: {name}() of '{path}' returns a {type(config).__name__}, wanted a TrainConfig.")
    return config


def take_arguments(path: Path, argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The arguments without those of the experiment's own function, and these by parameter: data_json is --data.json.

    Raises ValueError where one has no value.
    """
    try:
        function = _function(path)
    except ValueError:  # `load_experiment` tells what is wrong, or it is a source
        return argv, {}
    given = {}
    for name, option in _options_of(function).items():
        argv, value = take_option(argv, option)
        if value is not None:
            given[name] = value
    return argv, given


def _options_of(function: Callable[..., TrainConfig], needed: bool = False) -> dict[str, str]:
    """The parameters of an experiment's function that are given as options, those without a default and with None.

    needed: the ones alone that it cannot do without.
    """
    parameters = inspect.signature(function).parameters.values()
    left_away = () if needed else (None,)
    names = [one.name for one in parameters if one.default in (one.empty, *left_away)]
    return {name: f"--{name.replace('_', '.', 1).replace('_', '-')}" for name in names}


def needed_help(path: Path, given: Mapping[str, str]) -> str | None:
    """What the experiment's function says of itself where an option that it needs is not given; else None."""
    function = _function(path)
    needed = _options_of(function, needed=True)
    if not needed.keys() - given.keys():
        return None
    words = {name: f"{option} {name.rpartition('_')[2].upper()}" for name, option in _options_of(function).items()}
    usage = " ".join(one if name in needed else f"[{one}]" for name, one in words.items())
    return (
        f"usage: xgenmm train {path} {usage} [options]\n\n{inspect.getdoc(function) or ''}\n\n"
        "With these, --help shows the options that are used most, --help-all every one, with their values."
    )


def _function(path: Path) -> Callable[..., TrainConfig]:
    """The function of an experiment file, or of "FILE:RUN", that gives the config."""
    name = "config"
    if not path.is_file() and ":" in path.name:
        file, _, name = path.name.rpartition(":")
        path = path.with_name(file)
    module = import_experiment(path)
    if not inspect.isfunction(getattr(module, name, None)):
        runs = run_names(module)
        new = renamed.run(name, runs)
        remedy = f"it is {path}:{new} now" if new else nearest(name, runs) if runs else "it must return a TrainConfig"
        raise ValueError(f"experiment: '{path}' has no function {name}(); {remedy}.")
    return getattr(module, name)


def _stages_at(function: Callable[..., TrainConfig], at: str) -> dict[str, Callable[[], TrainConfig]]:
    """The parameters of a function whose defaults are stages, each with the stage of another size.

    `experiments.stage1.config` is at nano `experiments.nano.stage1.config`, and at micro, which is one file,
    `experiments.micro.stage1`. Raises ValueError where there are none, or no such size has them.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    stages = {name: default for name, default in defaults.items() if inspect.isfunction(default)}
    if not stages:
        raise ValueError(f"--at: {function.__name__}() takes no stage that '{at}' could replace; leave --at away.")
    replaced = {name: _stage_at(default, at) for name, default in stages.items()}
    missing = next((name for name, stage in replaced.items() if stage is None), None)
    if missing is not None:
        sizes = [size for size in SIZES if all(_stage_at(default, size) for default in stages.values())]
        which = f"{'one of ' if len(sizes) > 1 else ''}{', '.join(sizes)}"
        remedy = f"wanted {which}" if sizes else "no other size has it either, leave --at away"
        raise ValueError(f"--at: got '{at}', which has no {_name_at(stages[missing], at)}; {remedy}.")
    return replaced


def _stage_at(default: Callable[[], TrainConfig], at: str) -> Callable[[], TrainConfig] | None:
    """A stage of the paper's size at another; None where there is none."""
    stage = _name_at(default, at)
    try:
        size = importlib.import_module(f"experiments.{at}")
        if not hasattr(size, "__path__"):
            return getattr(size, stage, None)
        return getattr(importlib.import_module(f"experiments.{at}.{stage}"), "config", None)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("experiments"):
            raise
        return None


def _name_at(default: Callable[[], TrainConfig], at: str) -> str:
    stage = default.__module__.partition(".")[2]
    return NAMES_AT.get((at, stage), stage)


def run_names(module: ModuleType) -> list[str]:
    """The functions of an experiment file that give a TrainConfig and need no argument, in their order."""
    return [
        name
        for name, function in vars(module).items()
        if not name.startswith("_")
        and inspect.isfunction(function)
        and function.__module__ == module.__name__
        and (signature := inspect.signature(function)).return_annotation is TrainConfig
        and all(parameter.default is not parameter.empty for parameter in signature.parameters.values())
    ]


def import_experiment(path: Path, what: str = EXPERIMENT) -> ModuleType:
    """The module of an experiment file.

    what: what errors call it, as "--annotator". The module has its name, `annotator_mine` of mine.py, so that a source
    and an annotator may stand in two files of one name. Runs keep names of modules: `experiment_mine` stays that.

    Raises ValueError where it is missing or fails.
    """
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.py"))
        inside = f": {', '.join(files[:MOST])}{' ...' if len(files) > MOST else ''}" if files else ""
        raise ValueError(f"{what}: '{path}' is a folder; give a Python file in it{inside}.")
    if not path.is_file():
        files = sorted(file.name for file in path.parent.glob("*.py"))
        moved = renamed.file(path)
        near = f"it is {moved} now" if moved else nearest(path.name, files) if files else ""
        raise ValueError(f"{what}: no file '{path}'{'; ' + near if near else ''}.")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{what}: '{path}' may not be read by you; change its rights (chmod).")
    given, path = path, path.resolve()
    # Wherever the user stands, `import common` finds a neighbour and `import experiments.nano.recipes` the tree.
    tree = _tree(path)
    for folder in (tree.parent if tree.name == "experiments" else tree, path.parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    if path.suffix != ".py":
        raise ValueError(f"{what}: '{given}' is no Python file; give one whose name ends in .py.")
    # Once for a command, which asks for the function's own options before it calls it.
    state = path.stat()
    key = (path, state.st_mtime_ns, state.st_size)
    if key not in _executed:
        _executed.clear()
        with naming_the_line(path, what):
            _executed[key] = user_files.load(f"{what.lstrip('-')}_{path.stem.replace('.', '_')}", path)
    return _executed[key]


_executed: dict[tuple[Path, int, int], ModuleType] = {}
"""The file that was executed last, as it was then."""


@contextlib.contextmanager
def naming_the_line(path: Path, what: str = EXPERIMENT) -> Iterator[None]:
    """What an experiment, or a neighbour that it imports, raises becomes a ValueError with its file and line.

    what: what errors call it.
    """
    try:
        yield
    except Exception as error:
        tree = f"{_tree(path.resolve())}{os.sep}"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(tree)]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (str(path), None)
        sentence = f"{type(error).__name__}: {error}; correct it there"
        if isinstance(error, SyntaxError):
            file, line, sentence = error.filename or file, error.lineno, f"{error.msg}; correct it there"
        elif isinstance(error, ValueError):
            sentence = str(error).rstrip(".")
        at = "" if line is None else f" line {line}"
        raise ValueError(f"{what}: '{os.path.relpath(file)}'{at}: {sentence}.") from error


def _tree(path: Path) -> Path:
    """The folder "experiments" that a file lies in, or just its folder."""
    return next((folder for folder in path.parents if folder.name == "experiments"), path.parent)
