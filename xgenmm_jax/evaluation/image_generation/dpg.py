"""DPG-Bench's score of answers to questions about pictures (docs/reference/blip3o.md#image-benchmarks).

Each prompt has questions that may depend on others: a thing that is not there has no color. Readings, as those of
files of answers: `as_published` has the public script's faults, for numbers that it printed; `careful` has none.
"""

from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass, field
import io
from typing import NamedTuple

from xgenmm_jax.evaluation.profiles import Reading

COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
Answers = Sequence[Mapping[int, str]]
"""Of one picture: of each of its crops, the answer to each question."""


@dataclass
class Item:
    """A prompt with its questions by their numbers, in the file's order.

    kinds: "attribute - color", of a question. parents: the questions that it depends on.
    """

    prompt: str
    questions: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    parents: dict[int, tuple[int, ...]] = field(default_factory=dict)


class DpgScores(NamedTuple):
    """In percent. total: mean over pictures. groups, kinds: mean over questions, "attribute" and "attribute - color".
    images: each one's share, in [0, 1]. failed: files of which nothing is scored, with the reason.
    """

    total: float
    groups: dict[str, float]
    kinds: dict[str, float]
    images: dict[str, float]
    failed: dict[str, str]


def read_items(text: str, reading: Reading = "careful") -> dict[str, Item]:
    """The items of dpg_bench.csv by their names.

    as_published: the first row of data is lost, and an item that comes back after another replaces its first part.

    Raises:
        ValueError: a column is missing, or a number is none.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if missing := set(COLUMNS) - set(rows.fieldnames or ()):
        raise ValueError(f"dpg: the table lacks the column '{min(missing)}'; give dpg_bench.csv as it is published.")
    items: dict[str, Item] = {}
    previous = ""
    for number, row in enumerate(rows):
        if number == 0 and reading == "as_published":
            continue
        name = row["item_id"]
        if name not in items or (reading == "as_published" and name != previous):
            items[name] = Item(row["text"])
        previous = name
        item = items[name]
        try:
            question = int(row["proposition_id"])
            parents = tuple(int(one) for one in row["dependency"].split(","))
        except ValueError:
            raise ValueError(
                f"dpg: row {number + 2} has the number '{row['proposition_id']}' and depends on '{row['dependency']}'; "
                "wanted whole numbers, with commas between."
            ) from None
        item.questions[question] = row["question_natural_language"]
        item.kinds[question] = row["tuple"].split("(")[0].strip()
        item.parents[question] = tuple(parent for parent in parents if parent != 0)
    return items


def score(items: Mapping[str, Item], answers: Mapping[str, Answers | None], reading: Reading = "careful") -> DpgScores:
    """Scores of the pictures of a folder, whose files are named as their items.

    A question counts where it is answered "yes" and no parent counts zero; a crop's score is the share of its
    questions, a picture's the mean of its crops. as_published: a parent that becomes zero after its child was looked
    at does not reach it, only "yes" to the letter is yes, names end at their first dot, and kinds are of the last crop
    alone, before dependencies; a picture with a question whose parent is lost is left out. careful: zeros reach all
    that depends on them, case and spaces of "yes" do not count, names lose their last ending, and kinds are of all
    crops, after dependencies.

    answers: by file names, "x.png"; None where the file is no picture.

    Raises:
        ValueError: an answer is missing, or (careful) a question depends on one that there is not.
    """
    images: dict[str, float] = {}
    failed: dict[str, str] = {}
    kinds: dict[str, list[float]] = {}
    for file, crops in answers.items():
        name = file.split(".")[0] if reading == "as_published" else file.rpartition(".")[0] or file
        item = items.get(name)
        if crops is None or item is None:
            failed[file] = "no picture" if crops is None else "no item of this name"
            continue
        lost = next((p for parents in item.parents.values() for p in parents if p not in item.questions), None)
        if lost is not None and reading == "careful":
            raise ValueError(f"dpg: a question of '{name}' depends on question {lost}, which the table does not have.")
        if lost is not None:
            failed[file] = f"a question depends on question {lost}, which is lost"
            continue
        scored = [_crop(item, crop, reading, f"crop {number} of '{file}'") for number, crop in enumerate(crops, 1)]
        shares = [sum(after.values()) / len(after) for _, after in scored]
        images[file] = sum(shares) / len(shares)
        for before, after in scored[-1:] if reading == "as_published" else scored:
            for question, value in (before if reading == "as_published" else after).items():
                kinds.setdefault(item.kinds[question], []).append(value)
    groups: dict[str, list[float]] = {}
    for kind, values in kinds.items():
        groups.setdefault(kind.split("-")[0].strip(), []).extend(values)
    if not images:
        raise ValueError(f"dpg: got {len(answers)} files and no picture to score; name them as the table's items.")
    total = 100 * sum(images.values()) / len(images)
    return DpgScores(total, _percent(groups), _percent(kinds), images, failed)


def _crop(
    item: Item, answers: Mapping[int, str], reading: Reading, where: str
) -> tuple[dict[int, float], dict[int, float]]:
    """1 or 0 of each question, before and after dependencies."""
    if missing := [question for question in item.questions if question not in answers]:
        raise ValueError(f"dpg: got no answer to question {missing[0]} of {where}.")
    before = {
        question: float(
            (answers[question] if reading == "as_published" else answers[question].strip().lower()) == "yes"
        )
        for question in item.questions
    }
    after = dict(before)
    while True:
        zeros = sum(value == 0 for value in after.values())
        for question, parents in item.parents.items():
            if any(after[parent] == 0 for parent in parents):
                after[question] = 0.0
        if reading == "as_published" or sum(value == 0 for value in after.values()) == zeros:
            return before, after


def _percent(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: 100 * sum(one) / len(one) for name, one in values.items()}
