"""A model asked published benchmarks: files first, then each benchmark into its file of predictions, then scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.evaluation import judge_runs, nearest, prediction_files, results, runner
from xgenmm_jax.evaluation.judge_runs import JudgeSetup
from xgenmm_jax.evaluation.profiles import Profile, Reading, Reencode
from xgenmm_jax.evaluation.published.files import Loaded
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark, Choice
from xgenmm_jax.evaluation.tasks.few_shot import Features, FewShot
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.paths import Path

OnProgress = Callable[[str, int, int], None]
"""(title, examples done, examples in all) of the benchmark that is asked."""


@dataclass(frozen=True)
class Ready:
    """A benchmark whose files were found and read. choice: whose rules it is asked by."""

    benchmark: Benchmark
    loaded: Loaded
    choice: Choice


def load_all(
    benchmarks: Sequence[Benchmark],
    data: Path,
    profile: Profile | None = None,
    reading: Reading = "careful",
    reencode: Reencode = "none",
    limit: int | None = None,
) -> list[Ready]:
    """All benchmarks' examples; before anything is asked, so that a missing file costs no hours.

    profile: None: each benchmark's own, see `Benchmark.choice`. limit: the first so many of each.

    Raises: ValueError that names every benchmark whose files are missing or damaged, one a line.
    """
    ready, wrong = [], []
    for benchmark in benchmarks:
        try:
            choice = benchmark.choice(profile, reading, reencode)
            loaded = benchmark.load(data, choice, limit)
            if all(example.unreadable for example in loaded.examples):
                count, reason = len(loaded.examples), loaded.examples[0].unreadable
                raise ValueError(f"{benchmark.name}: no picture of its {count:,} examples can be read; first: {reason}")
            ready.append(Ready(benchmark, loaded, choice))
        except (ValueError, OSError) as error:
            wrong.append(f"{benchmark.name}: {error}" if isinstance(error, OSError) else str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return ready


def ask(
    generator: Generator,
    ready: Ready,
    folder: Path,
    *,
    model: str,
    tokens: int = 0,
    style: ChatStyle = ChatStyle(),  # noqa: B008 - frozen
    on_progress: OnProgress = lambda *_: None,
) -> Result | None:
    """Asks what is not asked yet, scores, and writes NAME.jsonl and NAME.scores.json into a folder.

    Several hosts call this alike; the first one writes and gives the result, the others give None.

    model: names the parameters, so that another's predictions are not mixed in. tokens: that they were trained on.
    """
    benchmark, loaded, choice = ready.benchmark, ready.loaded, ready.choice
    if isinstance(benchmark, FewShot):
        task = benchmark.task(loaded.examples, choice, style, loaded.demonstrations, _features(generator, ready))
    else:
        task = benchmark.task(loaded.examples, choice, style)
    head = results.head_of(benchmark, choice, model, loaded.fingerprint, len(loaded.examples))
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_progress(benchmark.title, done, len(loaded.examples))

    on_progress(benchmark.title, 0, len(loaded.examples))
    predictions = runner.predict_into(generator, task, predictions_file(folder, benchmark), head, advance)
    if predictions is None:
        return None
    result = results.result_of(benchmark, predictions, choice, model=model, tokens=tokens, left_out=loaded.left_out)
    results.write(result, folder)
    return result


def judge(
    ready: Ready,
    folder: Path,
    result: Result,
    setup: JudgeSetup,
    on_progress: OnProgress = lambda *_: None,
) -> Result:
    """Judges the predictions that `ask` left in a folder, and writes NAME.judged.scores.json beside them.

    result: the scores by rules. The judge's replies are kept in NAME.judge.jsonl.
    """
    benchmark, choice = ready.benchmark, ready.choice
    stored = {one.example.id: one for one in prediction_files.read(predictions_file(folder, benchmark)).predictions}
    # The file's examples have no images, but know which could not be read.
    examples = [replace(one, unreadable=stored[one.id].example.unreadable) for one in ready.loaded.examples]
    predictions = [replace(stored[example.id], example=example) for example in examples]
    scored = results.rescored(benchmark, predictions, choice)
    replies = replies_file(predictions_file(folder, benchmark))
    judged = judge_runs.judged(benchmark, scored, choice, result, setup, replies, on_progress)
    results.write(judged, folder)
    return judged


def _features(generator: Generator, ready: Ready) -> Features | None:
    """Of the queries' and the demonstrations' images, where demonstrations are chosen by nearness."""
    if not isinstance(ready.benchmark, FewShot) or ready.benchmark.order != "nearest":
        return None
    examples = (*ready.loaded.examples, *ready.loaded.demonstrations)
    vectors = nearest.image_features(generator, (example.images[0] for example in examples if example.images))
    nothing = np.zeros_like(next(iter(vectors.values()), np.zeros(1, np.float32)))
    return lambda example: vectors.get(id(example.images[0]), nothing)


def predictions_file(folder: Path, benchmark: Benchmark) -> Path:
    """Where a benchmark's predictions lie in a folder."""
    return folder / f"{benchmark.name}.jsonl"


def replies_file(predictions: Path) -> Path:
    """Where a judge's replies about the predictions of a file are kept."""
    return predictions.with_name(f"{predictions.stem}.judge.jsonl")
