"""`xgenmm train FILE[:RUN] [overrides] [--workdir DIR]`: an experiment file by path, from any folder."""

from collections.abc import Iterator, Sequence
import contextlib
import importlib.util
import inspect
import os
from pathlib import Path
import sys
import traceback
from types import ModuleType

from xgenmm_jax.cli import errors
from xgenmm_jax.cli.errors import MOST, nearest
from xgenmm_jax.cli.options import parse_overrides, refuse_file
from xgenmm_jax.paths import run_path, user_path
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.hosts import distributed
from xgenmm_jax.training.hosts.distributed import Distributed

USAGE = (
    "usage: xgenmm train FILE[:RUN] [overrides] [--workdir DIR]; xgenmm train FILE --help lists the overrides.\n"
    "RUN is a function of the file, config by default: xgenmm train experiments/ablations/connector.py:mlp\n"
    "Several hosts: the same command on each. A TPU pod is found; elsewhere add --distributed.coordinator HOST:PORT\n"
    "--distributed.processes N --distributed.process I, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and\n"
    "JAX_PROCESS_ID. --distributed.processes 1: this host alone, also on a TPU."
)

OWN_OPTIONS = ("--workdir", "--distributed.coordinator", "--distributed.processes", "--distributed.process")


def main(argv: Sequence[str]) -> int:
    """Trains, or goes on training; gives the exit code (`cli/main.py` lists them)."""
    argv = list(argv)
    if not argv or argv[0].startswith("-"):
        print(USAGE, file=sys.stdout if argv[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    path, *rest = argv
    experiment = user_path(path, "experiment")
    rest, workdir = take_option(rest, "--workdir")
    if workdir is not None and "://" in workdir:
        raise ValueError(f"--workdir: got '{workdir}', wanted a folder; mount the bucket (docs/launch.md).")
    rest, hosts = take_hosts(rest)
    program = f"xgenmm train {path} [--workdir DIR]"
    config = parse_overrides(load_experiment(experiment), rest, program, beside=OWN_OPTIONS)
    folder = run_path(Path("runs") / config.name if workdir is None else workdir, "--workdir")
    refuse_file(folder)
    distributed.start(hosts)

    from xgenmm_jax.training.loop import train

    with errors.writing(folder):
        result = train(config, folder)
    if result.signal is not None:
        print(f"xgenmm train: saved step {result.step} in '{folder}'; the same command continues.", file=sys.stderr)
        return 128 + result.signal
    return 0


def take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """The arguments without `name VALUE` or `name=VALUE`, and the value.

    Raises ValueError where it is missing, as when it is an unset variable of the shell, or there twice.
    """
    rest, values, words = [], [], iter(argv)
    for word in words:
        if word.startswith(f"{name}="):
            values.append(word.removeprefix(f"{name}="))
        elif word == name:
            value = next(words, None)
            if value is None or value.startswith("--"):
                behind = "" if value is None else f", but the option {value}"
                raise ValueError(f"{name}: got no value{behind}; give one after it ({name}=VALUE takes any).")
            values.append(value)
        else:
            rest.append(word)
    if len(values) > 1:
        raise ValueError(f"{name}: got {' and '.join(map(repr, values))}; give one.")
    return rest, values[0] if values else None


def take_hosts(argv: list[str]) -> tuple[list[str], Distributed]:
    """The arguments without `--distributed.*`, and what they say; what they do not say the environment does.

    Raises ValueError where they say too little, or a number is none.
    """
    argv, coordinator = take_option(argv, "--distributed.coordinator")
    argv, processes = take_option(argv, "--distributed.processes")
    argv, process = take_option(argv, "--distributed.process")
    given = {distributed.COORDINATOR: coordinator, distributed.PROCESSES: processes, distributed.PROCESS: process}
    said = {name: value for name, value in given.items() if value is not None}
    return argv, distributed.from_environment(said or os.environ)


def load_experiment(path: Path) -> TrainConfig:
    """What `config()` of an experiment file returns; of "FILE:RUN", what RUN() of it returns.

    Raises ValueError where the file is missing, fails or gives no TrainConfig.
    """
    name = "config"
    if not path.is_file() and ":" in path.name:
        file, _, name = path.name.rpartition(":")
        path = path.with_name(file)
    module = import_experiment(path)
    if not inspect.isfunction(getattr(module, name, None)):
        runs = run_names(module)
        remedy = nearest(name, runs) if runs else "it must return a TrainConfig"
        raise ValueError(f"experiment: '{path}' has no function {name}(); {remedy}.")
    with _naming_the_line(path):
        config = getattr(module, name)()
    if not isinstance(config, TrainConfig):
        raise ValueError(f"experiment: {name}() of '{path}' returns a {type(config).__name__}, wanted a TrainConfig.")
    return config


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


def import_experiment(path: Path) -> ModuleType:
    """The module of an experiment file. Raises ValueError where it is missing or fails."""
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.py"))
        inside = f": {', '.join(files[:MOST])}{' ...' if len(files) > MOST else ''}" if files else ""
        raise ValueError(f"experiment: '{path}' is a folder; give a Python file in it{inside}.")
    if not path.is_file():
        files = sorted(file.name for file in path.parent.glob("*.py"))
        near = nearest(path.name, files) if files else ""
        raise ValueError(f"experiment: no file '{path}'{'; ' + near if near else ''}.")
    if not os.access(path, os.R_OK):
        raise ValueError(f"experiment: '{path}' may not be read by you; change its rights (chmod).")
    given, path = path, path.resolve()
    # Wherever the user stands, `import common` finds a neighbour and `import experiments.nano.common` the tree.
    tree = _tree(path)
    for folder in (tree.parent if tree.name == "experiments" else tree, path.parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"experiment: '{given}' is no Python file; give one whose name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with _naming_the_line(path):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _naming_the_line(path: Path) -> Iterator[None]:
    """What an experiment, or a neighbour that it imports, raises becomes a ValueError with its file and line."""
    try:
        yield
    except Exception as error:
        tree = f"{_tree(path.resolve())}{os.sep}"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(tree)]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else (str(path), None)
        said = f"{type(error).__name__}: {error}; correct it there"
        if isinstance(error, SyntaxError):
            file, line, said = error.filename or file, error.lineno, f"{error.msg}; correct it there"
        elif isinstance(error, ValueError):
            said = str(error).rstrip(".")
        at = "" if line is None else f" line {line}"
        raise ValueError(f"experiment: '{os.path.relpath(file)}'{at}: {said}.") from error


def _tree(path: Path) -> Path:
    """The folder "experiments" that a file lies in, or just its folder."""
    return next((folder for folder in path.parents if folder.name == "experiments"), path.parent)
