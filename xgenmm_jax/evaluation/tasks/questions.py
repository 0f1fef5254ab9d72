"""What benchmarks of open and of yes or no questions share: how rows are read, and how a model is asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.data import source_paths
from xgenmm_jax.data.images import open_image
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.literals import literal_of
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.yes_no import Label
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import VLMEVALKIT_ANSWERING, Answering, Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored
from xgenmm_jax.generation.text.decoding import Decoding

BRIEFLY = "\nAnswer the question using a single word or phrase."
"""What both toolkits add to most short questions."""


def example_of_row(row: Row, answers: Sequence[str] | None = None) -> Example:
    """A row of VLMEvalKit's tables; `fields` has the columns that are neither question nor answer, and `picture`.

    answers: by default those of the column `answer`, "nan" where it has no value, as there.
    """
    fields = {name: text for name, text in row.cells.items() if name not in ("question", "answer")}
    fields["picture"] = row.picture
    found = listed(row.cells.get("answer", "nan")) if answers is None else answers
    return Example(row.index, row.images, row.cells.get("question", ""), tuple(found), fields=fields)


def listed(cell: str) -> tuple[str, ...]:
    """The reference answers of a cell: those of a list where it can be read as one, else the cell itself.

    `"['5', 5]"` gives `("5", "5")`. VLMEvalKit takes any answer that looks like a list for one: "[2010, 2014]" are two.

    Raises: ValueError where the list is empty.
    """
    value = literal_of(cell)
    if not isinstance(value, list):
        return (cell,)
    if not value:
        raise ValueError("benchmark: a row has an empty list of answers; copy the file again.")
    return tuple(part if isinstance(part, str) else str(part) for part in value)


def one_answer(row: Row) -> Example:
    """A row whose answer is a text, whatever it looks like."""
    return example_of_row(row, [row.cells["answer"]] if "answer" in row.cells else [])


def opened(folder: Path, path: str) -> LazyImage:
    """The picture at a path of the authors' files below their folder. Raises ValueError where it lies outside."""
    return open_image(source_paths.inside(folder, path), official=True)


def entries(path: Path, key: str = "") -> list[dict[str, Any]]:
    """The objects of the list in a JSON file, or of the one under a key of its object.

    Raises: ValueError where there is no such list of objects.
    """
    value = files.read_json(path)
    if key:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        where = f" under '{key}'" if key else ""
        raise ValueError(f"benchmark: '{path}' has no list of objects{where}; copy the file again.")
    return value


def entry_error(path: Path, number: int, error: Exception) -> ValueError:
    """Of an entry of the authors' files that lacks a key or has another type there."""
    return ValueError(f"benchmark: '{path}', entry {number}: {error!r}; copy the file again.")


def accuracy(predictions: Sequence[Prediction]) -> Estimate:
    """The mean score in percent, its error over pictures."""
    return estimates.ratio(Term(picture_of(p), p.score, 1.0, p.extracted is None) for p in predictions)


def accuracy_table(predictions: Sequence[Prediction]) -> Estimates:
    """VLMEvalKit's table of open questions, in percent: overall and by split, by category where there are no splits."""
    table = {"Overall": accuracy(predictions)}
    has_splits = any("split" in prediction.example.fields for prediction in predictions)
    column = "split" if has_splits else "category"
    for name in sorted({value for p in predictions if (value := p.example.fields.get(column)) is not None}):
        table[name] = accuracy([p for p in predictions if p.example.fields.get(column) == name])
    return table


def briefly(example: Example, profile: Profile) -> Message:
    """The pictures, the question and the request for a word or phrase."""
    return multiple_choice.images_first(example, example.question + BRIEFLY)


def scored_label(label: Label, truth: str) -> Scored:
    """Whether what was read out of an answer to a yes or no question is the truth; case counts."""
    return Scored(float(label == truth), None if label == "Unknown" else label)


def picture_of(prediction: Prediction) -> str:
    """What its example shares with the other questions about the same picture; its own id where that is not known."""
    return prediction.example.fields.get("picture", prediction.example.id)


def lmms_or_vlmevalkit(max_new_tokens: int, until: str = "\n\n") -> Callable[[Profile], Answering]:
    """lmms-eval's length of answers and text that ends them, and VLMEvalKit's for all other profiles."""
    of_lmms = Answering(Decoding(max_new_tokens=max_new_tokens), until=(until,))

    def answering(profile: Profile) -> Answering:
        return of_lmms if profile == "lmms" else VLMEVALKIT_ANSWERING

    return answering
