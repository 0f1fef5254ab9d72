"""`xgenmm plan FILE[:RUN] --topology v5e:16x16 [--slices 2] [overrides]`: the step of a run compiled for TPUs."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

from xgenmm_jax import files
from xgenmm_jax.cli.options import checked_path, parse_overrides, refuse_no_file
from xgenmm_jax.paths import local_path

if TYPE_CHECKING:
    from xgenmm_jax.planning.plan import Plan


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
        description="Compiles the step that `xgenmm train` runs for a TPU topology, without a TPU and without data.",
        epilog="Every other option overrides the experiment, as with `xgenmm train`: --data.batch-rows 256.",
    )
    add = parser.add_argument
    add("experiment", help="FILE or FILE:RUN")
    add("--topology", required=True, help="chip and shape of a slice: v5e:16x16, v6e:4x4, v4:4x4x4, v5p:4x4x8")
    add("--slices", type=int, default=1, help="slices of that shape, joined by the datacenter's network")
    add("--search", action="store_true", help="find mesh, rematerialisation and rows at a time with the best bound")
    add("--utilisation", type=float, default=0.5, help="share of the chips' peak that is assumed to be reached")
    add("--tokens", type=float, help="positions of the stage; default: steps x rows x length of the experiment")
    add("--compiler-option", action="append", default=[], metavar="NAME=VALUE", help="for libtpu; may be repeated")
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
    if not 0 < arguments.utilisation <= 1:
        raise ValueError(f"--utilisation: got {arguments.utilisation:g}, wanted a share between 0 and 1.")
    prepare_environment()
    # Imported here: --help does not wait for JAX, which reads the environment when it is imported.
    import jax

    from xgenmm_jax.cli.experiment_files import load_experiment
    from xgenmm_jax.planning.plan import make_plan, to_json
    from xgenmm_jax.planning.program import check_options
    from xgenmm_jax.planning.search import search, settings
    from xgenmm_jax.planning.topology import find_topology
    from xgenmm_jax.training.config import TrainConfig

    jax.config.update("jax_enable_compilation_cache", False)  # its programs cannot be loaded where no TPU is
    command = f"xgenmm plan {arguments.experiment}"
    list_all = f"xgenmm train {arguments.experiment} --help-all"
    config = parse_overrides(TrainConfig, load_experiment(experiment), overrides, command, help_option=list_all)
    with _quiet():
        # The chips, which need not be there: the compiler knows them by name.
        topology = find_topology(arguments.topology, arguments.slices)
    check_options(topology.devices[0], options)
    tokens = arguments.tokens or float(config.steps * config.data.batch_rows * config.data.row.length)
    common = (config.name, config, topology, options, arguments.utilisation, tokens)
    # The plan of the config as it is, or of the fastest settings that fit.
    plan = search(*common, show=_show) if arguments.search else make_plan(*common)
    print_plan(plan)
    if arguments.search and plan.fits:
        print(f"best settings: {' '.join(settings(plan.config))}")
        rows, before = plan.config.data.batch_rows, config.data.batch_rows
        if rows != before:
            print(f"the batch is {rows} rows instead of {before}, in fewer steps: look at the rate again")
    if options:
        print(f"the run takes the compiler's options from LIBTPU_INIT_ARGS={_init_args(options)}")
    if report_file is not None:
        report = to_json(plan) | ({"settings": settings(plan.config)} if arguments.search else {})
        files.write_whole(report_file, json.dumps(report, indent=1) + "\n")
    return 0 if plan.fits else 3


def print_plan(plan: "Plan") -> None:
    """A table in sections; where the run does not fit, what to change."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    config, chips = plan.config, len(plan.topology.devices)
    slices = f"{plan.topology.slices} slices of " if plan.topology.slices > 1 else ""
    table = Table()
    table.add_column("a chip, a step" if plan.fits else "a step")
    table.add_column("value", justify="right")
    for section in _sections(plan):
        for name, value in section:
            table.add_row(Text(name), Text(value))
        table.add_section()
    console = Console(highlight=False, markup=False)
    console.print(Text(f"{plan.name} on {slices}{plan.topology.name}, {chips} chips", "italic"), soft_wrap=True)
    console.print(table)
    row = config.data.row
    console.print(
        f"mesh {plan.mesh_words}; {config.data.batch_rows} rows of {row.length} positions and {row.crops} crops, "
        f"{plan.rows_per_chip:g} a chip at a time; decoder's remat {config.model.decoder.remat}; compiled in "
        f"{plan.compile_s:.0f} s"
    )
    console.print(plan.advice if not plan.fits else _verdict(plan))


def _sections(plan: "Plan") -> Iterator[list[tuple[str, str]]]:
    chips = len(plan.topology.devices)
    if plan.fits:
        kinds = [(name, size) for name, size in plan.memory._asdict().items() if size]
        yield [(f"memory: {name}", f"{size / 2**30:.3g} GiB") for name, size in kinds]
    model, hardware = plan.work.model, plan.work.hardware
    flops = [(f"FLOPs: {part}", f"{value / chips / 1e12:.3g} T") for part, value in model._asdict().items()]
    yield [*flops, ("FLOPs: with rematerialisation", f"{hardware.total / chips / 1e12:.3g} T")]
    if not plan.fits:
        return
    traffic = [(kind, sent) for kind, sent in plan.traffic.items()]
    yield [
        (f"traffic: {kind} x {sent.times}", f"{(sent.link_bytes + sent.network_bytes) / 2**30:.3g} GiB")
        for kind, sent in traffic
    ]
    yield [(f"time at full rate: {name}", f"{1000 * value:.3g} ms") for name, value in plan.times._asdict().items()]
    for name, share, budget in (
        ("bound", plan.bound_utilisation, plan.bound),
        ("expected", min(plan.utilisation, plan.bound_utilisation), plan.expected),
    ):
        yield [
            (f"{name}: MFU", f"{share:.0%}"),
            (f"{name}: tokens/s a chip", f"{budget.tokens_per_second / chips:,.0f}"),
            (f"{name}: stage of {plan.tokens / 1e9:.3g}B positions", f"{budget.days:.3g} days"),
            (f"{name}: chip-hours", f"{plan.chip_hours(budget):,.0f}"),
        ]


def _verdict(plan: "Plan") -> str:
    peak, available = plan.memory.peak / 2**30, plan.topology.chip.hbm_bytes / 2**30
    return f"fits: {peak:.2f} GiB of {available:.2f} GiB a chip."


def prepare_environment() -> None:
    """JAX on the CPU; libtpu as a compiler alone: quiet, beside others of its kind, looking for no TPU."""
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
