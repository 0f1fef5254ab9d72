"""`xgenmm plan FILE[:RUN] --for v5e:16x16` or `--topology v5e:16x16 [overrides]`: the step of a run, compiled."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import importlib.util
import json
import os
import pathlib
import re
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from xgenmm_jax import files
from xgenmm_jax.cli.options import checked_path, parse_overrides, refuse_no_file
from xgenmm_jax.paths import local_path

if TYPE_CHECKING:
    from xgenmm_jax.planning.plan import Plan


GPUS = ("h100", "h200")  # those of `planning/topology.py`, which imports JAX


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+): invalid int value: (.*)", r"\1: got \2, wanted a whole number", message)
        message = re.sub(r"^argument (\S+): invalid float value: (.*)", r"\1: got \2, wanted a number", message)
        print(f"xgenmm plan: {message}; xgenmm plan --help lists the options.", file=sys.stderr)
        raise SystemExit(2)


def parser() -> argparse.ArgumentParser:
    """The command's own options; all others override fields of the experiment."""
    parser = _Parser(
        prog="xgenmm plan",
        allow_abbrev=False,
        description="Compiles the step that `xgenmm train` runs for a TPU topology, without a TPU and without data. "
        "GPUs that are not here are estimated.",
        epilog="Every other option overrides the experiment, as with `xgenmm train`: --data.batch-rows 256.",
    )
    add = parser.add_argument
    add("experiment", help="FILE or FILE:RUN")
    where = parser.add_mutually_exclusive_group(required=True).add_argument
    where("--topology", help="chips: v5e:16x16, v5p:4x4x8, tpu7x:4x4x4, h100:8, h200; 2xv5e:16x16 for two slices")
    where("--for", dest="chips", metavar="TOPOLOGY", help="the same, with the settings that `train --for` takes for it")
    add("--slices", type=int, help="slices of that shape, joined by the datacenter's network; by default 1")
    add("--estimate", action="store_true", help="compile nothing: memory by the estimate, at once")
    add("--search", action="store_true", help="find mesh, rematerialisation and rows at a time with the best bound")
    add("--utilisation", type=float, help="share of the chips' peak that is assumed: by default 0.5, 0.4 on v6e")
    add("--tokens", type=float, help="positions of the stage; default: steps x rows x length of the experiment")
    add("--compiler-option", action="append", default=[], metavar="NAME=VALUE", help="for libtpu; may be repeated")
    add("--cache", help="folder in which the compiled step is kept, for `xgenmm train` on these chips")
    add("--json", help="where to write the plan as JSON")
    return parser


def main(argv: Sequence[str]) -> int:
    """Prints the plan. 0: it fits. 3: it does not; the last line says what to change."""
    arguments, overrides = parser().parse_known_args(list(argv))
    experiment = local_path(arguments.experiment, "experiment")
    report_file = None if arguments.json is None else checked_path(arguments.json, "--json")
    if report_file is not None:
        refuse_no_file(report_file, "--json")
    options = _compiler_options(arguments.compiler_option)
    cache = _cache_folder(arguments)
    if arguments.utilisation is not None and not 0 < arguments.utilisation <= 1:
        raise ValueError(f"--utilisation: got {arguments.utilisation:g}, wanted a share between 0 and 1.")
    prepare_environment(arguments.topology or arguments.chips)
    # Imported here: --help does not wait for JAX, which reads the environment when it is imported.
    import jax

    from xgenmm_jax.cli.experiment_files import load_experiment, take_arguments
    from xgenmm_jax.planning import presets
    from xgenmm_jax.planning.kept import keeping
    from xgenmm_jax.planning.plan import estimate_plan, make_plan, to_json
    from xgenmm_jax.planning.program import another_libtpu, check_options
    from xgenmm_jax.planning.search import search, settings
    from xgenmm_jax.planning.topology import find_topology, named_topology
    from xgenmm_jax.training.config import TrainConfig

    if cache is None:
        jax.config.update("jax_enable_compilation_cache", False)  # its programs cannot be loaded where no TPU is
    overrides, given = take_arguments(experiment, list(overrides))
    base = load_experiment(experiment, given=given)
    option = "--topology" if arguments.chips is None else "--for"
    where = (arguments.topology or arguments.chips, arguments.slices, option)
    with _quiet():
        # The chips, which need not be there: the compiler knows them by name.
        topology = named_topology(*where) if arguments.estimate else find_topology(*where)
    chosen = None if arguments.chips is None else presets.preset(base, topology)
    command = f"xgenmm plan {arguments.experiment}"
    list_all = f"xgenmm train {arguments.experiment} --help-all"
    config = base if chosen is None else chosen.config
    config = parse_overrides(TrainConfig, config, overrides, command, help_option=list_all)
    if not topology.is_named:
        check_options(topology.devices[0], options)
    elif options or cache is not None:
        what = "--compiler-option" if options else "--cache"
        raise ValueError(f"{what}: nothing is compiled for {topology.label}; leave it away.")
    tokens = arguments.tokens or float(config.steps * config.data.batch_rows * config.data.row.length)
    utilisation = arguments.utilisation or topology.chip.usual_mfu
    # The plan of the config as it is, or of the fastest settings that fit; by the compiler, or by the estimate.
    before = config
    said_of_cache = None
    if topology.is_named:
        config = presets.estimated(config, topology).config if arguments.search else config
        plan = estimate_plan(config.name, config, topology, utilisation, tokens)
    else:
        common = (config.name, config, topology, options, utilisation, tokens)
        with contextlib.nullcontext() if cache is None else keeping(cache) as said_of_cache:
            plan = search(*common, show=_show) if arguments.search else make_plan(*common)
    if chosen is not None:
        print("\n".join(presets.lines(chosen, base)))
    print_plan(plan)
    if not topology.is_named and topology.label.partition(":")[0] not in GPUS and (note := another_libtpu()):
        print(note)
    if arguments.search and plan.fits:
        print(f"best settings: {' '.join(settings(plan.config))}")
        rows, had = plan.config.data.batch_rows, before.data.batch_rows
        if rows != had:
            print(f"the batch is {rows} rows instead of {had}, in fewer steps: look at the rate again")
    if said_of_cache is not None and plan.fits:
        print(said_of_cache())
    if options:
        print(f"the run takes the compiler's options from LIBTPU_INIT_ARGS={_init_args(options)}")
    if report_file is not None:
        has_settings = arguments.search or chosen is not None
        report = to_json(plan) | ({"settings": settings(plan.config)} if has_settings else {})
        files.write_whole(report_file, json.dumps(report, indent=1) + "\n")
    return 0 if plan.fits else 3


def print_plan(plan: "Plan") -> None:
    """A table in sections; where the run does not fit, what to change."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    config, devices, word = plan.config, len(plan.topology.devices), plan.device_word
    slices = f"{plan.topology.slices} slices of " if plan.topology.slices > 1 else ""
    table = Table()
    table.add_column(f"a {word}, a step" if plan.fits else "a step")
    table.add_column("value", justify="right")
    for section in _sections(plan):
        for name, value in section:
            table.add_row(Text(name), Text(value))
        table.add_section()
    console = Console(highlight=False, markup=False)
    console.print(Text(f"{plan.name} on {slices}{plan.topology.name}, {devices} {word}s", "italic"), soft_wrap=True)
    console.print(table)
    row = config.data.row
    console.print(
        f"mesh {plan.mesh_words}; {config.data.batch_rows} rows of {row.length} positions and {row.crops} crops, "
        f"{plan.rows_per_chip:g} a {word} at a time; decoder's remat {config.model.decoder.remat}; "
        + (f"compiled in {plan.compile_s:.0f} s" if plan.estimate is None else "by the estimate, nothing is compiled")
    )
    console.print(plan.advice if not plan.fits else _verdict(plan))


def _sections(plan: "Plan") -> Iterator[list[tuple[str, str]]]:
    chips, word = len(plan.topology.devices), plan.device_word
    estimate = plan.estimate
    if estimate is not None:
        kinds = {"estimate": estimate.estimate, "at least": estimate.least, "at most": estimate.most}
        yield [(f"memory: {name}", f"{size / 2**30:.3g} GiB") for name, size in kinds.items()]
    elif plan.fits:
        kinds = [(name, size) for name, size in plan.memory._asdict().items() if size]
        yield [(f"memory: {name}", f"{size / 2**30:.3g} GiB") for name, size in kinds]
    model, hardware = plan.work.model, plan.work.hardware
    flops = [(f"FLOPs: {part}", f"{value / chips / 1e12:.3g} T") for part, value in model._asdict().items() if value]
    yield [*flops, ("FLOPs: with rematerialisation", f"{hardware.total / chips / 1e12:.3g} T")]
    if not plan.fits:
        return
    traffic = [(kind, sent) for kind, sent in plan.traffic.items()]
    yield [
        (f"traffic: {kind} x {sent.times}", f"{(sent.link_bytes + sent.network_bytes) / 2**30:.3g} GiB")
        for kind, sent in traffic
    ]
    yield [(f"time at full rate: {name}", f"{1000 * value:.3g} ms") for name, value in plan.times._asdict().items()]
    budgets = {"bound": plan.bound, "bound, traffic as compiled": plan.exposed, "expected": plan.expected}
    if estimate is not None:
        del budgets["bound, traffic as compiled"]
    for name, budget in budgets.items():
        yield [
            (f"{name}: MFU", f"{plan.utilisation_of(budget):.0%}"),
            (f"{name}: tokens/s a {word}", f"{budget.tokens_per_second / chips:,.0f}"),
            (f"{name}: stage of {plan.tokens / 1e9:.3g}B positions", f"{budget.days:.3g} days"),
            (f"{name}: chip-hours", f"{plan.chip_hours(budget):,.0f}"),
        ]


def _verdict(plan: "Plan") -> str:
    if plan.estimate is not None:
        return f"{'should' if plan.estimate.is_likely else 'may not'} fit, by the estimate: {plan.estimate.words}."
    peak, available = plan.memory.peak / 2**30, plan.topology.chip.hbm_bytes / 2**30
    return f"fits: {peak:.2f} GiB of {available:.2f} GiB a {plan.device_word}."


def prepare_environment(topology: str) -> None:
    """JAX on the CPU; libtpu as a compiler alone: quiet, beside others of its kind, looking for no TPU.

    GPUs compile for themselves: for these JAX takes what it finds, and reserves nothing.
    """
    if re.match(rf"(\d+x)?({'|'.join(GPUS)})\b", topology) and importlib.util.find_spec("jax_plugins") is not None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    else:
        os.environ["JAX_PLATFORMS"] = "cpu"
    for name, value in (
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_MIN_LOG_LEVEL", "3"),
        ("TPU_STDERR_LOG_LEVEL", "3"),
    ):
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallows what libtpu writes while it looks for the TPU that is not there; errors are exceptions."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _cache_folder(arguments: argparse.Namespace) -> pathlib.Path | None:
    """Where the step is kept. Raises ValueError where it would be another than the run's."""
    if arguments.cache is None:
        return None
    if arguments.search:
        raise ValueError("--cache: --search compiles steps of other settings; plan again with those that it finds.")
    if arguments.compiler_option:
        raise ValueError(
            "--cache: a run takes the compiler's options from LIBTPU_INIT_ARGS and looks for a step that was compiled "
            "so; set it for this command too, in place of --compiler-option."
        )
    return local_path(arguments.cache, "--cache")


def _compiler_options(words: Sequence[str]) -> dict[str, str]:
    options = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not name or not equals:
            raise ValueError(f"--compiler-option: got '{word}', wanted NAME=VALUE, xla_tpu_scoped_vmem_limit_kib=9.")
        options[name] = value
    return options


def _init_args(options: Mapping[str, str]) -> str:
    """As the shell takes it."""
    return shlex.quote(" ".join(f"--{name}={value}" for name, value in options.items()))


def _show(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)
