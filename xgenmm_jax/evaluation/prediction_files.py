"""Predictions of one task as JSON lines: a head that says what they are of, then a line an example.

A line holds the example's text and reference answers too, so that a file can be scored without the benchmark's files,
and by another's rules. In a bucket, where nothing grows, the file is written as a whole with every chunk of lines, of
which there are few.
"""

from collections.abc import Sequence
import dataclasses
from dataclasses import dataclass
import json
import os
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.evaluation.model_names import without_folder
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.paths import Path, is_in_bucket

FORMAT = 1
_HEAD_KEY = "xgenmm_predictions"


@dataclass(frozen=True)
class Head:
    """What a file of predictions is of; two files of unlike heads are never mixed.

    task, version: the task's name and version. profile, reading, reencode: of `evaluation.profiles`, "" for a task that
    has none. model: names the parameters, as "sft_multi step 400 1f3a90c2", of which the folder's name may change.
    examples: fingerprint of the examples. items: their number. decoding: how answers were written.
    """

    task: str
    version: int
    profile: str
    reading: str
    reencode: str
    model: str
    examples: str
    items: int
    decoding: str


@dataclass(frozen=True)
class PredictionFile:
    """head: None where another program wrote the lines. predictions: without scores; examples have no images."""

    head: Head | None
    predictions: tuple[Prediction, ...]


def begin_or_continue(path: Path, head: Head, chunks: Sequence[int]) -> int:
    """How many chunks of predictions the file holds whole; a new file gets its head.

    chunks: the lines of each. What a kill left behind the last whole chunk is cut off.

    Raises: ValueError where the file's head is another, with what differs.
    """
    if not path.is_file() or not path.read_bytes().partition(b"\n")[1]:
        files.make_folder(path.parent)
        files.write_whole(path, json.dumps({_HEAD_KEY: FORMAT, **dataclasses.asdict(head)}) + "\n")
        return 0
    stored = read(path, cut=True).head
    if stored is None:
        raise ValueError(f"'{path}': line 1 is no head of predictions; give another folder, or delete the file.")
    before, now = (dataclasses.replace(one, model=without_folder(one.model)) for one in (stored, head))
    differing = [
        f"{field.name} {getattr(stored, field.name)!r}, now {getattr(head, field.name)!r}"
        for field in dataclasses.fields(Head)
        if getattr(before, field.name) != getattr(now, field.name)
    ]
    if differing:
        raise ValueError(
            f"'{path}' holds predictions of {'; '.join(differing)}; give another folder (--output), or delete the file."
        )
    lines = path.read_bytes().split(b"\n")[1:-1]
    whole, done = 0, 0
    for count in chunks:
        if whole + count > len(lines):
            break
        whole, done = whole + count, done + 1
    if whole < len(lines):
        remaining = path.read_bytes().split(b"\n")[: whole + 1]
        _cut(path, sum(len(line) + 1 for line in remaining))
    return done


def append(path: Path, predictions: Sequence[Prediction]) -> None:
    """Adds a line for each, and waits until the disk has them."""
    text = "".join(json.dumps(_line(prediction)) + "\n" for prediction in predictions)
    if is_in_bucket(path):
        files.write_whole(path, path.read_bytes() + text.encode())
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _cut(path: Path, length: int) -> None:
    """Leaves so many bytes of a file."""
    if is_in_bucket(path):
        files.write_whole(path, path.read_bytes()[:length])
    else:
        os.truncate(path, length)


def read(path: Path, cut: bool = False) -> PredictionFile:
    """The predictions of a file, ours or another program's: lines with "id" or "index", and "prediction".

    cut: what a kill left of a last line is cut off the file, so that lines can be added; else it is an error.

    Raises: ValueError that names the line which is no prediction.
    """
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if cut and whole < len(data):
        _cut(path, whole)
        data = data[:whole]
    head, predictions = None, []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = files.parse_json(line)
            if not isinstance(value, dict):
                raise TypeError("no object")
            if _HEAD_KEY in value:
                head = _head(value, path)
                continue
            predictions.append(_prediction(value, head.task if head else ""))
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(
                f'\'{path}\': line {number} is no prediction ({error}); wanted a JSON object with "id" or "index", '
                'and "prediction".'
            ) from error
    ids = [prediction.example.id for prediction in predictions]
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise ValueError(f"'{path}' has two predictions of '{twice}'; leave one of each example.")
    return PredictionFile(head, tuple(predictions))


def _head(value: dict[str, Any], path: Path) -> Head:
    if value[_HEAD_KEY] != FORMAT:
        raise ValueError(f"'{path}': got format {value[_HEAD_KEY]!r} of predictions, wanted {FORMAT}; ask anew.")
    return Head(**{field.name: value[field.name] for field in dataclasses.fields(Head)})


def _line(prediction: Prediction) -> dict[str, Any]:
    example = prediction.example
    line: dict[str, Any] = {
        "id": example.id, "prediction": prediction.text, "question": example.question, "answers": list(example.answers)
    }  # fmt: skip
    for name in ("options", "fields", "unreadable"):
        if value := getattr(example, name):
            line[name] = dict(value) if name != "unreadable" else value
    return line


def _prediction(value: dict[str, Any], task: str) -> Prediction:
    text = value["prediction"]
    if not isinstance(text, str):
        raise TypeError(f"prediction is {type(text).__name__}")
    example = Example(
        str(value["id"] if "id" in value else value["index"]),
        (),
        str(value.get("question", "")),
        (answers,) if isinstance(answers := value.get("answers", ()), str) else tuple(map(str, answers)),
        options={str(letter): str(option) for letter, option in value.get("options", {}).items()},
        fields={str(name): str(cell) for name, cell in value.get("fields", {}).items()},
        unreadable=str(value.get("unreadable", "")),
    )
    return Prediction(task, example, text, 0.0)
