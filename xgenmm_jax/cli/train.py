"""`xgenmm train FILE[:RUN] [overrides] [--workdir DIR]`: an experiment file by path, from any folder."""

from collections.abc import Sequence
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import os
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

import tyro

from xgenmm_jax.cli.errors import nearest
from xgenmm_jax.training import distributed
from xgenmm_jax.training.config import TrainConfig
from xgenmm_jax.training.distributed import Distributed

USAGE = (
    "usage: xgenmm train FILE[:RUN] [overrides] [--workdir DIR]; xgenmm train FILE --help lists the overrides.\n"
    "RUN is a function of the file, config by default: xgenmm train experiments/ablations/connector.py:mlp\n"
    "Several hosts: the same command on each. A TPU pod is found; elsewhere add --distributed.coordinator HOST:PORT\n"
    "--distributed.processes N --distributed.process I, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and\n"
    "JAX_PROCESS_ID. --distributed.processes 1: this host alone, also on a TPU."
)


def main(argv: Sequence[str]) -> int:
    """Trains, or goes on training; gives the exit code (`cli/main.py` lists them)."""
    argv = list(argv)
    if not argv or argv[0].startswith("-"):
        print(USAGE, file=sys.stdout if argv[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    path, *rest = argv
    rest, workdir = take_option(rest, "--workdir")
    if workdir is not None and "://" in workdir:
        raise ValueError(f"--workdir: got '{workdir}', wanted a folder; mount the bucket (docs/launch.md).")
    rest, hosts = take_hosts(rest)
    config = parse_overrides(load_experiment(Path(path)), rest, f"xgenmm train {path} [--workdir DIR]")
    folder = Path(workdir) if workdir is not None else Path("runs") / config.name
    distributed.start(hosts)

    from xgenmm_jax.training.loop import train

    result = train(config, folder)
    if result.signal is not None:
        print(f"xgenmm train: saved step {result.step} in '{folder}'; the same command continues.", file=sys.stderr)
        return 128 + result.signal
    return 0


def take_option(argv: list[str], name: str) -> tuple[list[str], str | None]:
    """The arguments without `name VALUE` or `name=VALUE`, and the value. Raises ValueError where it is missing."""
    for place, word in enumerate(argv):
        if word.startswith(f"{name}="):
            return argv[:place] + argv[place + 1 :], word.removeprefix(f"{name}=")
        if word == name:
            if place + 1 == len(argv):
                raise ValueError(f"{name}: got no value; give one after it.")
            return argv[:place] + argv[place + 2 :], argv[place + 1]
    return argv, None


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

    Raises ValueError where the file is missing or gives no TrainConfig.
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
    """The module of an experiment file. Raises ValueError where it is missing."""
    if not path.is_file():
        files = sorted(file.name for file in path.parent.glob("*.py"))
        near = nearest(path.name, files) if files else ""
        raise ValueError(f"experiment: no file '{path}'{'; ' + near if near else ''}.")
    path = path.resolve()
    # Wherever the user stands, `import common` finds a neighbour and `import experiments.nano.common` the tree.
    tree = next((folder.parent for folder in path.parents if folder.name == "experiments"), path.parent)
    for folder in (tree, path.parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"experiment: '{path}' is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def parse_overrides(config: Any, argv: Sequence[str], program: str) -> Any:
    """The config with the command line's changes, typed by its dataclasses.

    Exits with code 2 and one sentence on stderr for an unknown option or a value of another type.
    """
    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text):
            parsed, unknown = tyro.cli(
                type(config),
                default=config,
                args=list(argv),
                prog=program,
                config=(tyro.conf.AvoidSubcommands,),
                return_unknown_args=True,
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        _leave(_first_sentence(text.getvalue()))
    bad = [word for word in unknown if word.startswith("-")] or unknown
    if bad:
        name = bad[0].split("=")[0]
        _leave(f"no option {name}; {nearest(name, option_names(config))}")
    return parsed


def option_names(value: Any, prefix: str = "--") -> list[str]:
    """Every option that overrides a field: "--optimizer.peak-lr"."""
    names = []
    if dataclasses.is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    else:
        items = [(str(number), item) for number, item in enumerate(value)]
    for name, item in items:
        option = f"{prefix}{name.replace('_', '-')}"
        is_nested = isinstance(item, tuple) and any(dataclasses.is_dataclass(i) or isinstance(i, tuple) for i in item)
        if dataclasses.is_dataclass(item) or is_nested:
            names.extend(option_names(item, f"{option}."))
        else:
            names.append(option)
    return names


def _first_sentence(box: str) -> str:
    """The error out of tyro's box: what stands between its title and the next rule; wrapped lines are joined."""
    lines = [line.strip(" │") for line in box.splitlines()[1:]]
    sentence: list[str] = []
    for line in lines:
        if set(line) <= set("─-╰╯"):
            if sentence:
                break
        else:
            sentence.append(line)
    return " ".join(sentence).rstrip(".") or box.strip()


def _leave(sentence: str) -> None:
    print(f"xgenmm: {sentence}.", file=sys.stderr)
    raise SystemExit(2)
