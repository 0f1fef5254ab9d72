"""What benchmarks of open and of yes or no questions share: how rows are read, and how a model is asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.literals import literal_of
from xgenmm_jax.evaluation.published.tsv import Row
from xgenmm_jax.evaluation.scorers import estimates
from xgenmm_jax.evaluation.scorers.estimates import Estimate, Term
from xgenmm_jax.evaluation.scorers.yes_no import Label
from xgenmm_jax.evaluation.tasks import multiple_choice
from xgenmm_jax.evaluation.tasks.benchmark import Estimates, Message
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Scored

BRIEFLY = "\nAnswer the question using a single word or phrase."
"""What both toolkits add to most short questions."""


def example_of_row(row: Row, answers: Sequence[str] | None = None) -> Example:
    """A row of VLMEvalKit's tables.

    `fields` has the columns that are neither question nor answer, and "image", which questions about one picture share.

    answers: by default those of the column `answer`, "nan" where it has no value, as there.
    """
    fields = {name: text for name, text in row.cells.items() if name not in ("question", "answer")}
    fields["image"] = row.first_with_image
    texts = listed(row.cells.get("answer", "nan")) if answers is None else answers
    return Example(row.index, row.images, row.cells.get("question", ""), tuple(texts), fields=fields)


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


def some(answers: Sequence[str], index: str, path: Path) -> tuple[str, ...]:
    """Raises ValueError where there are none: the file is of a split whose answers are not public."""
    if not answers:
        raise ValueError(f"benchmark: '{path}', question {index} has no answers; wanted the validation split.")
    return tuple(answers)


def one_answer(row: Row) -> Example:
    """A row whose answer is a text, whatever it looks like."""
    return example_of_row(row, [row.cells["answer"]] if "answer" in row.cells else [])


def accuracy(predictions: Sequence[Prediction]) -> Estimate:
    """The mean score in percent, its error over pictures."""
    return estimates.ratio(Term(image_group(p), p.score, 1.0, p.extracted is None) for p in predictions)


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


def summary(lmms_name: str) -> Callable[[Sequence[Prediction], Profile], Estimates]:
    """VLMEvalKit's table, or lmms-eval's one accuracy under its name."""

    def summarize(predictions: Sequence[Prediction], profile: Profile) -> Estimates:
        return {lmms_name: accuracy(predictions)} if profile == "lmms" else accuracy_table(predictions)

    return summarize


def scored_label(label: Label, truth: str) -> Scored:
    """Whether what was read out of an answer to a yes or no question is the truth; case counts."""
    return Scored(float(label == truth), None if label == "Unknown" else label)


def image_group(prediction: Prediction) -> str:
    """What its example shares with the other questions about the same picture; its own id where that is not known."""
    return prediction.example.fields.get("image", prediction.example.id)
