"""`xgenmm evaluate RUN`: the suite's metrics of a run, as a table and as evaluation.json in its folder."""

from collections.abc import Sequence
import contextlib
from dataclasses import dataclass, replace
import time
from typing import TYPE_CHECKING, Literal

import tyro

from xgenmm_jax import files, hub
from xgenmm_jax.cli import errors
from xgenmm_jax.cli.errors import nearest
from xgenmm_jax.cli.hosts import held_by_first, joined, take_hosts
from xgenmm_jax.cli.judge_options import JudgeOptions
from xgenmm_jax.cli.options import RunSource, UserPath, parse, refuse_no_file
from xgenmm_jax.evaluation.profiles import Profile, Reading, Reencode
from xgenmm_jax.paths import Path

if TYPE_CHECKING:
    from xgenmm_jax.api import LMM
    from xgenmm_jax.evaluation.runner import Evaluation


@dataclass(frozen=True)
class Arguments(JudgeOptions):
    """Scores a run: on published benchmarks (--tasks), by what its config names (evaluate), or on held-out drawn items.

    Without --tasks: writes evaluation.json, answers.jsonl and examples/ into the run's folder; with --json the metrics
    alone are written, into that file, and the run's folder stays as it is. Benchmarks: adds predictions, scores and a
    page of the answers that are not right to RUN/evaluation/PROFILE/ and goes on there after a kill.
    Several hosts: the same command on each, with --distributed.* as for `xgenmm train`; the first one writes.
    """

    run: tyro.conf.Positional[RunSource]
    """A folder that `xgenmm train` wrote, or a released xGen-MM v1.5 folder; or a model of the hub, ORG/MODEL or
    ORG/MODEL@REVISION, with --output or --json."""
    tasks: str | None = None
    """Benchmarks: table1, table2, fewshot, blip2 (its zero-shot tasks), a list as mmstar,pope,ocrbench, or FILE.py:NAME
    for your own. Of a run that draws also geneval, dpg, wise_2025, wise_verified, mjhq: pictures for their scorers; of
    BLIP-2's first stage retrieval, coco_retrieval, flickr30k_retrieval, or drawn_retrieval, which needs no files."""
    data: UserPath | None = None
    """The folder with the benchmarks' files."""
    profile: Profile | None = None
    """Whose prompts and scores: VLMEvalKit of the paper's time, of ms-vlmeval, of today; lmms-eval; the authors'. By
    default the paper's, of benchmarks that VLMEvalKit has not the authors'."""
    reading: Reading = "careful"
    """as_published: with that toolkit's faults in reading files and answers, to compare with numbers it printed."""
    reencode: Reencode = "none"
    """jpeg75: pictures encoded again as VLMEvalKit did until February 2026."""
    shots: tuple[int, ...] = (0, 4, 8)
    """Numbers of demonstrations of few-shot tasks."""
    template: Literal["openflamingo", "xgen", "mm1"] = "openflamingo"
    """How few-shot prompts are written."""
    demonstrations: Literal["random", "nearest"] = "random"
    """nearest: the training images that the tower finds most like the query's."""
    beams: int = 1
    """Of few-shot answers; OpenFlamingo has 3."""
    output: UserPath | None = None
    """Where benchmarks' predictions and scores go instead of RUN/evaluation/PROFILE."""
    kinds: tuple[str, ...] = ()
    """Which parts of the suite, for instance: questions reading shots. By default all that a stage teaches, beside is
    none of them."""
    items: int | None = None
    """Questions of each kind; 300 by default, 500 for each number of shots. Of a benchmark, the first so many."""
    seed: int = 0
    """Each seed draws other held-out items; the demo's report has those of 0. To choose settings, use others."""
    style: Literal["auto", "chat", "few_shot"] = "auto"
    """chat: fine-tuned models. few_shot: base models. auto: by what the run was trained on."""
    json: UserPath | None = None
    """Where the metrics go instead of the run's evaluation.json; the answers are then not written."""


def main(argv: Sequence[str]) -> int:
    """Prints the table; gives the exit code."""
    argv, hosts = take_hosts(argv)
    arguments = parse(Arguments, argv, "xgenmm evaluate")
    if arguments.items is not None and arguments.items < 1:
        raise ValueError(f"--items: got {arguments.items}; give 1 or more.")
    if arguments.seed < 0:
        raise ValueError(f"--seed: got {arguments.seed}; give 0 or more.")
    if isinstance(arguments.run, hub.HubName):
        option = "--json FILE" if arguments.tasks is None else "--output FOLDER"
        if (arguments.json if arguments.tasks is None else arguments.output) is None:
            raise ValueError(
                f"RUN: no folder '{arguments.run}' here; of a model of the hub give {option} too, for what is written."
            )
        arguments = replace(arguments, run=hub.fetch(arguments.run, "RUN"))
    if arguments.tasks is not None:
        from xgenmm_jax.cli import evaluate_benchmarks, evaluate_drawing, evaluate_retrieval
        from xgenmm_jax.training.runs.run_lock import EVALUATION_LOCK_FILE, RunLock

        if evaluate_retrieval.is_asked(arguments.tasks):
            return evaluate_retrieval.main(arguments.run, arguments.tasks, arguments.data, arguments.output)
        # A second process would write its predictions between ours.
        folder = arguments.output or arguments.run
        lock = RunLock(folder, EVALUATION_LOCK_FILE, "give --output FOLDER") if folder.is_dir() else None
        with joined(hosts) as is_first, held_by_first(lock) if lock else contextlib.nullcontext():
            if (drawn := evaluate_drawing.asked_for(arguments.tasks)) is not None:
                return evaluate_drawing.main(arguments, drawn, is_first)
            return evaluate_benchmarks.main(arguments, arguments, is_first)
    if arguments.judge is not None:
        raise ValueError("--judge: drawn items and what the config names need none; give --tasks, or leave it away.")
    # Imported here: --help does not wait for JAX.
    from xgenmm_jax.training import device_memory
    from xgenmm_jax.training.runs.run_lock import EVALUATION_LOCK_FILE, RunLock

    if arguments.kinds:
        from xgenmm_jax.nano.tasks import ALL_GROUPS

        for kind in arguments.kinds:
            if kind not in ALL_GROUPS:
                raise ValueError(f"--kinds: no '{kind}'; {nearest(kind, ALL_GROUPS)}.")
    target = arguments.json or arguments.run / "evaluation.json"
    if arguments.run.exists():
        refuse_no_file(target, "--json")
    writes = arguments.json is None and arguments.run.is_dir()
    lock = RunLock(arguments.run, EVALUATION_LOCK_FILE, "give --json FILE") if writes else None
    # No option changes how many answers are written at once.
    remedies = f"end what else computes on the devices, or give more of them; {device_memory.ON_CPU}"
    memory = device_memory.explained("this evaluation", remedies)
    # The lock is against a second evaluation; the run may train meanwhile.
    with joined(hosts) as is_first, held_by_first(lock) if lock else contextlib.nullcontext(), memory:
        return _evaluate(arguments, target, is_first)


def _evaluate(arguments: Arguments, target: Path, is_first: bool) -> int:
    from xgenmm_jax import api
    from xgenmm_jax.evaluation import predictions

    run = api.load(arguments.run)
    # An option of the drawn world asks for it, whatever the config names.
    wants_drawn = arguments.kinds or arguments.items is not None or arguments.seed or arguments.style != "auto"
    pages: dict[str, str] = {}
    if not wants_drawn and run.run.evaluate:
        evaluation, pages = _of_config(run)
    elif wants_drawn or _saw_drawn_world(run):
        evaluation = _of_drawn_world(run, arguments)
    else:
        raise ValueError(
            f"evaluate: the config of '{arguments.run}' names nothing to evaluate; give --tasks NAMES --data DIR, or "
            "--kinds KINDS for drawn items."
        )
    if not is_first:
        return 0
    answers = len(evaluation.predictions)
    print_table(str(arguments.run), evaluation.metrics, answers, evaluation.seconds)
    with errors.writing(target):
        if arguments.json is None:
            predictions.write_predictions(evaluation.predictions, arguments.run)
            for name, page in pages.items():
                files.write_whole(arguments.run / f"{name}.html", page)
                print(f"the page is {arguments.run / name}.html")
        predictions.write_metrics(evaluation.metrics, answers, target)
    return 0


def _of_config(run: "LMM") -> "tuple[Evaluation, dict[str, str]]":
    """By the suites of the run's config; with pages of what was drawn, by the suite's name."""
    from xgenmm_jax.evaluation.tasks.suite import DrawingSuite, InputFormat, make_tasks, run_tasks

    asked = InputFormat(run.processor.chat, run.run.prompt, run.processor.anyres)
    tasks = make_tasks(run.run.evaluate, asked)
    started = time.monotonic()
    evaluation = run_tasks(run.generator(), tasks, run.run.evaluate)
    metrics, pages = dict(evaluation.metrics), {}
    for suite in run.run.evaluate:
        if isinstance(suite, DrawingSuite):
            drawn, pages[suite.name] = suite.metrics_of(run.drawer())
            metrics |= drawn
    return replace(evaluation, metrics=metrics, seconds=time.monotonic() - started), pages


def _saw_drawn_world(run: "LMM") -> bool:
    """Whether a run of before configs named suites trained on records of the drawn world."""
    from xgenmm_jax.data.source import without_changes

    sources = [without_changes(source) for source, _ in getattr(run.run.data, "mixture", ())]
    return any(type(source).__module__.startswith("xgenmm_jax.nano.") for source in sources)


def _of_drawn_world(run: "LMM", arguments: Arguments) -> "Evaluation":
    """On drawn items, as the options say."""
    from xgenmm_jax.nano import tasks

    style = ("chat" if run.is_tuned() else "few_shot") if arguments.style == "auto" else arguments.style
    for kind in arguments.kinds:
        if kind in tasks.NOT_FOR[style]:
            other = "few_shot" if style == "chat" else "chat"
            raise ValueError(
                f"--kinds: '{kind}' is not asked in the style {style}; leave it out, or give --style {other}."
            )
    config = tasks.DrawnWorld(style, groups=arguments.kinds or tasks.GROUPS, seed=arguments.seed)
    if arguments.items is not None:
        config = replace(config, items=arguments.items, shot_items=arguments.items)
    return tasks.run_suite(run.generator(), config, run.processor.chat)


def print_table(title: str, metrics: dict[str, float], answers: int, seconds: float) -> None:
    """Metrics by group, one line each. The title is printed as it is: a run's name may look like rich's markup."""
    from rich.console import Console
    from rich.text import Text

    from xgenmm_jax.evaluation.tables import metrics_table

    console = Console()
    console.print(Text(title, "italic"), soft_wrap=True)
    console.print(metrics_table(metrics, f"{answers:,} answers in {seconds:.0f} s"))
