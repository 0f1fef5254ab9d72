"""Pages of answers that are not right, of a file of predictions."""

from collections.abc import Sequence
import math

from xgenmm_jax import files
from xgenmm_jax.cli.score import with_examples
from xgenmm_jax.evaluation import prediction_files, results
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.tasks.benchmark import Benchmark
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.few_shot import FewShot
from xgenmm_jax.paths import Path
from xgenmm_jax.reporting import wrong_answers

CAPTIONS = "Captions are rated all together; here are those of which nothing is left when they are read."


def write(
    path: Path, benchmark: Benchmark, result: Result, predictions: Sequence[Prediction], has_pictures: bool
) -> None:
    """The page of scored predictions; whole or not there. has_pictures: whether the examples have their images."""
    note = CAPTIONS if isinstance(benchmark, FewShot) and benchmark.kind == "caption" else ""
    if math.isnan(result.value.value):
        note = f"{result.value.note}: what is wrong here is told by a rule alone."
    files.write_whole(path, wrong_answers.render(result, predictions, has_pictures, note))


def write_beside(path: Path, benchmark: Benchmark, result: Result, examples: Sequence[Example]) -> Path:
    """NAME.html beside a file NAME.jsonl of predictions. examples: the benchmark's, with their images."""
    predictions = with_examples(prediction_files.read(path).predictions, examples, path)
    page = path.with_suffix(".html")
    write(page, benchmark, result, results.rescored(benchmark, predictions, result.choice), has_pictures=True)
    return page
