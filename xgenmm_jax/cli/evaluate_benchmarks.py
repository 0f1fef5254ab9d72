"""`xgenmm evaluate RUN --tasks NAMES`: published benchmarks, or a user's own tasks, asked and scored."""

from collections.abc import Sequence
import contextlib
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from xgenmm_jax.cli.data_tables import progress_bar
from xgenmm_jax.cli.judge_options import JudgeOptions, setup_of
from xgenmm_jax.evaluation.profiles import Profile, Reading, Reencode
from xgenmm_jax.paths import Path, local_path

if TYPE_CHECKING:
    from xgenmm_jax.data.text.tokenizer import Tokenizer
    from xgenmm_jax.evaluation.benchmark_runs import Ready
    from xgenmm_jax.generation.text.schedule import Limits

SMALL_WIDTH = 512
"""Of a decoder: nano and micro."""
FOLDER = "evaluation"
"""In the run's folder; in it is a folder for each profile."""


@runtime_checkable
class Arguments(Protocol):
    """The options of `xgenmm evaluate` that concern benchmarks."""

    run: Path
    tasks: str
    data: Path | None
    profile: Profile | None
    reading: Reading
    reencode: Reencode
    shots: tuple[int, ...]
    template: Literal["openflamingo", "xgen", "mm1"]
    demonstrations: Literal["random", "nearest"]
    beams: int
    items: int | None
    output: Path | None


def main(arguments: Arguments, judge_options: JudgeOptions, is_first: bool = True) -> int:
    """Asks what is not asked yet, writes pages of what is not right, prints a table, judges; gives the exit code.

    is_first: of several hosts, which all ask, the one that writes and prints.
    """
    from xgenmm_jax import api
    from xgenmm_jax.cli import answer_pages
    from xgenmm_jax.evaluation import benchmark_runs, judge_runs
    from xgenmm_jax.evaluation.tables import results_table
    from xgenmm_jax.training.runs import fingerprints

    benchmarks = benchmarks_of(arguments)
    if arguments.data is None:
        raise ValueError("--data: got none; give the folder with the benchmarks' files.")
    if not arguments.data.is_dir():
        raise ValueError(f"--data: no folder '{arguments.data}'; give the one with the benchmarks' files.")
    setup = setup_of(judge_options)
    judged = [] if setup is None else judge_runs.judged_benchmarks(benchmarks, arguments.profile, setup)
    # Every file is read before the model is: what is missing is told at once.
    options = (arguments.profile, arguments.reading, arguments.reencode, arguments.items)
    ready = benchmark_runs.load_all(benchmarks, arguments.data, *options)
    run = api.load(arguments.run, official_images=True)
    model, tokens = fingerprints.of_model(arguments.run), fingerprints.tokens_of(arguments.run)
    results = []
    generator = run.generator(limits_of(run.config.decoder.width))
    if is_first:
        for sentence in without_stops(ready, generator.tokenizer):
            print(sentence)
    with progress_bar() if is_first else contextlib.nullcontext(lambda *_: None) as show:
        for one in ready:
            folder = folder_of(arguments, one.choice.profile)
            result = benchmark_runs.ask(
                generator, one, folder, model=model, tokens=tokens, style=run.processor.chat, on_progress=show
            )
            if result is None:
                continue
            results.append(result)
            answers = benchmark_runs.predictions_file(folder, one.benchmark)
            answer_pages.write_beside(answers, one.benchmark, result, one.loaded.examples)
    if not is_first:
        return 0
    _print(results_table(results, str(arguments.run)))
    if setup is None:
        return 0
    with progress_bar() as show:
        with_judge = [
            benchmark_runs.judge(one, folder_of(arguments, one.choice.profile), result, setup, on_progress=show)
            for one, result in zip(ready, results, strict=True)
            if one.benchmark in judged
        ]
    _print(results_table(with_judge, str(arguments.run)))
    return 0


def without_stops(ready: "Sequence[Ready]", tokenizer: "Tokenizer") -> list[str]:
    """A sentence for each benchmark one of whose ends is no single token, so that answers are written beyond it."""
    sentences = []
    for one in ready:
        stops = one.benchmark.answering(one.choice.profile).stops
        for text in (text for text in stops if tokenizer.id_of(text) is None):
            sentences.append(
                f"{one.benchmark.title}: {text!r} is no token of this model; answers are cut at it and do not end "
                "there, so that beams and least lengths count what stands behind."
            )
    return sentences


def folder_of(arguments: Arguments, profile: Profile) -> Path:
    """Where predictions and scores by a profile lie."""
    return arguments.output or arguments.run / FOLDER / profile


def limits_of(width: int) -> "Limits":
    """A large decoder's table keeps the vision tokens of a hundred images, so that many questions share beginnings."""
    from xgenmm_jax.generation.text.schedule import Limits

    return Limits() if width <= SMALL_WIDTH else Limits(vision_mib=1024)


def benchmarks_of(arguments: Arguments) -> Sequence[Any]:
    """The benchmarks by name, by a table's name, or of a user's file.

    Raises ValueError for a name that there is not, and where a user's file fails, with its line.
    """
    from xgenmm_jax.evaluation.tasks import suites
    from xgenmm_jax.evaluation.tasks.few_shot import FewShotOptions

    file, separator, name = arguments.tasks.rpartition(":")
    if separator and file.endswith(".py"):
        return own_benchmarks(local_path(file, "--tasks"), name)
    options = FewShotOptions(arguments.shots, arguments.template, arguments.demonstrations, arguments.beams)
    return suites.named(arguments.tasks.split(","), options)


def benchmark_of(name: str, task: str | None) -> Any:
    """The one benchmark of a name, or of a user's file as FILE.py:NAME. task: which of a file's, if it has several.

    Raises ValueError where the name stands for several.
    """
    from xgenmm_jax.evaluation.tasks import suites

    file, separator, attribute = name.rpartition(":")
    if separator and file.endswith(".py"):
        listed = own_benchmarks(local_path(file, "--task"), attribute)
        benchmarks = [one for one in listed if one.name == task] or list(listed)
    else:
        benchmarks = suites.named([name])
    if len(benchmarks) != 1:
        raise ValueError(f"--task: '{name}' stands for {', '.join(one.name for one in benchmarks)}; give one of them.")
    return benchmarks[0]


def own_benchmarks(path: Path, name: str) -> Sequence[Any]:
    """The benchmarks under a name of a user's file, one or a sequence of them. Raises ValueError, with the line."""
    from xgenmm_jax.cli.experiment_files import import_experiment
    from xgenmm_jax.evaluation.tasks.benchmark import Benchmark

    module = import_experiment(path)
    value = getattr(module, name, None)
    listed = tuple(value) if isinstance(value, list | tuple) else (value,)
    wrong = [one for one in listed if not isinstance(one, Benchmark)]
    if not listed or wrong:
        got = "nothing" if value is None else type(wrong[0]).__name__ if wrong else "an empty list"
        raise ValueError(f"--tasks: {name} of '{path}' is {got}; wanted a Benchmark, or a tuple of them.")
    return listed


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
