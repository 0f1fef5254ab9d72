"""`xgenmm score FILE`: scores of predictions alone, of ours or another model's; no model is loaded."""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass, replace
import json
from typing import Any

import tyro

from xgenmm_jax import files
from xgenmm_jax.cli.data_tables import progress_bar
from xgenmm_jax.cli.evaluate_benchmarks import benchmark_of
from xgenmm_jax.cli.judge_options import JudgeOptions, setup_of
from xgenmm_jax.cli.options import UserPath, parse, refuse_no_file
from xgenmm_jax.evaluation.profiles import Profile, Reading
from xgenmm_jax.paths import Path


@dataclass(frozen=True)
class Arguments(JudgeOptions):
    """Scores a file of predictions, one JSON object a line with "id" (or "index") and "prediction".

    Files that `xgenmm evaluate` wrote say what they are of. For another program's, --task names the benchmark and
    --data the folder with its files. With --task geneval, dpg, wise_2025, wise_verified or mjhq the file is what a
    detector, a question answerer or a judge said of drawn pictures (docs/evaluation.md). With --judge what the judge
    replies is kept beside the file, as are its scores where `xgenmm evaluate` wrote the file and its rules are
    followed.
    """

    predictions: tyro.conf.Positional[UserPath]
    """A file of JSON lines."""
    task: str | None = None
    """The benchmark, or FILE.py:NAME for your own; by default that of the file's head."""
    data: UserPath | None = None
    """The folder with the benchmark's files, where lines have no reference answers."""
    profile: Profile | None = None
    """Whose rules; by default those that the model was asked by, or the paper's."""
    reading: Reading | None = None
    """How files and answers are read; by default as the file's head says, or carefully."""
    json: UserPath | None = None
    """Where all scores go, beside the table that is printed; judged ones into NAME.judged.json beside it."""
    against: UserPath | None = None
    """Another file of the same examples, as of other devices: the items whose texts differ are listed. Of mjhq: the
    features of the real pictures."""
    page: UserPath | None = None
    """Where a page of the answers that are not right goes; with --data it has their pictures."""


def main(argv: Sequence[str]) -> int:
    """Prints the table; gives the exit code."""
    arguments = parse(Arguments, argv, "xgenmm score")
    from rich.console import Console

    from xgenmm_jax.evaluation import answer_differences, benchmark_runs, judge_runs, prediction_files, results
    from xgenmm_jax.evaluation.image_generation.prompts import BENCHMARKS
    from xgenmm_jax.evaluation.tables import scores_table

    path = arguments.predictions
    if not path.is_file():
        raise ValueError(f"score: no file '{path}'; give the JSON lines of predictions.")
    for file, option in ((arguments.json, "--json"), (arguments.page, "--page")):
        if file is not None:
            refuse_no_file(file, option)
    if arguments.task in BENCHMARKS:
        from xgenmm_jax.cli import score_pictures

        return score_pictures.main(arguments)
    stored = prediction_files.read(path)
    head = stored.head
    task = arguments.task
    if head is not None and task not in (None, head.task) and ".py:" not in str(task):
        raise ValueError(f"--task: got '{task}', but '{path}' says that it is of '{head.task}'; leave it away.")
    if head is not None and len(stored.predictions) != head.items:
        raise ValueError(
            f"score: '{path}' has {len(stored.predictions):,} predictions and its head says {head.items:,}; run the "
            "same `xgenmm evaluate` again, which goes on where it stopped."
        )
    name = arguments.task or (head.task if head else None)
    if name is None:
        raise ValueError(f"--task: '{path}' has no head that says what it is of; give the benchmark's name.")
    benchmark = benchmark_of(name, head.task if head else None)
    asked_by = (head.profile, head.reading) if head and head.profile else (None, "careful")
    choice = benchmark.choice(
        arguments.profile or asked_by[0],  # type: ignore[arg-type]
        arguments.reading or asked_by[1],  # type: ignore[arg-type]
        head.reencode if head and head.reencode else "none",  # type: ignore[arg-type]
    )
    benchmark.check_profile(choice.profile)
    setup = setup_of(arguments)
    if setup is not None:
        judge_runs.judged_benchmarks([benchmark], choice.profile, setup)
    predictions, left_out = list(stored.predictions), {}
    if arguments.data is not None:
        loaded = benchmark.load(arguments.data, choice)
        predictions, left_out = with_examples(predictions, loaded.examples, path), dict(loaded.left_out)
    elif head is None:
        raise ValueError(f"--data: '{path}' has no reference answers; give the folder with the benchmark's files.")
    scored = results.rescored(benchmark, predictions, choice)
    result = results.result_of(benchmark, scored, choice, model=head.model if head else "", left_out=left_out)
    Console().print(scores_table(result))
    if arguments.json is not None:
        files.write_whole(arguments.json, json.dumps(result.to_json(), indent=1) + "\n")
    if arguments.against is not None:
        others = results.rescored(benchmark, prediction_files.read(arguments.against).predictions, choice)
        listed = differing_items(answer_differences.differences(scored, others), len(scored))
        Console().print(listed, markup=False, highlight=False, soft_wrap=True)
    if arguments.page is not None:
        from xgenmm_jax.cli import answer_pages

        answer_pages.write(arguments.page, benchmark, result, scored, has_pictures=arguments.data is not None)
    if setup is None:
        return 0
    with progress_bar() as show:
        replies = benchmark_runs.replies_file(path)
        judged = judge_runs.judged(benchmark, scored, choice, result, setup, replies, show)
    Console().print(scores_table(judged))
    if arguments.json is not None:
        beside = arguments.json.with_suffix(f".judged{arguments.json.suffix}")
        files.write_whole(beside, json.dumps(judged.to_json(), indent=1) + "\n")
    if head is not None and (head.profile, head.reading, head.reencode) == dataclasses.astuple(choice):
        results.write(judged, path.parent)
    return 0


def differing_items(differences: Sequence[Any], items: int) -> str:
    """A line for each item whose text differs, and how the scores differ by them."""
    lines = [
        f"{one.id}: {one.texts[0]!r} ({one.scores[0]:.2f}), {one.texts[1]!r} ({one.scores[1]:.2f})"
        for one in differences
    ]
    gain = sum(one.scores[1] - one.scores[0] for one in differences)
    lines.append(f"{len(differences):,} of {items:,} texts differ; the second's scores add up to {gain:+.2f} more.")
    return "\n".join(lines)


def with_examples(predictions: Sequence[Any], examples: Sequence[Any], path: Path) -> list[Any]:
    """Predictions with the benchmark's own examples, in their order.

    Raises ValueError where an example has no prediction, or a prediction no example: a score over a part would be
    another number.
    """
    by_id = {prediction.example.id: prediction for prediction in predictions}
    missing = [example.id for example in examples if example.id not in by_id]
    spare = set(by_id) - {example.id for example in examples}
    if missing or spare:
        what = f"lacks {len(missing):,} of {len(examples):,} examples (first: {missing[0]})" if missing else (
            f"has {len(spare):,} predictions of no example (first: {min(spare)})"
        )  # fmt: skip
        raise ValueError(f"score: '{path}' {what}; predict all examples of the files that are given.")
    # Pictures that could not be read when the model was asked are a fact of the predictions.
    pairs = ((by_id[example.id], example) for example in examples)
    return [
        replace(one, example=replace(example, unreadable=example.unreadable or one.example.unreadable))
        for one, example in pairs
    ]
