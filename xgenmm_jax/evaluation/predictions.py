"""What a model answered, example by example: records, JSON lines, and images of a few."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation.tasks.example import Example

Metrics = dict[str, float]

MOST_IMAGES = 4
"""Of one prediction that `write_predictions` keeps, the last ones: the query's is the last."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to an example, and its score in [0, 1].

    task: the task's name. prompt: what the model was asked, demonstrations included; None where the prediction was read
    from a file.
    """

    task: str
    example: Example
    text: str
    score: float
    prompt: Prompt | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """All of it but images and prompt."""
        return {
            "measure": self.task,
            "id": self.example.id,
            "question": self.example.question,
            "truth": list(self.example.answers),
            "answer": self.text,
            "score": round(self.score, 4),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Prediction":
        """Of what `to_json` gave; the example has no images."""
        example = Example(line["id"], (), line["question"], tuple(line["truth"]))
        return cls(line["measure"], example, line["answer"], line["score"])


def append_predictions(path: Path, predictions: Mapping[str, Prediction]) -> None:
    """Adds a line for each to a file of an unfinished evaluation, and waits until the disk has them.

    predictions: by request, a string that says what was asked of the model and how.
    """
    lines = (json.dumps({"request": key, **prediction.to_json()}) for key, prediction in predictions.items())
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def read_predictions(path: Path) -> dict[str, Prediction]:
    """The predictions of an unfinished evaluation by request, none where there is no file.

    What a kill left of a last line is cut off the file, so that lines can be added.

    Raises: ValueError that names the line which is no prediction.
    """
    if not path.is_file():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    predictions = {}
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            value = files.parse_json(line)
            predictions[value["request"]] = Prediction.from_json(value)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"'{path}': line {number} is no prediction; delete the file to ask all anew.") from error
    return predictions


def write_metrics(metrics: Metrics, answers: int, path: Path) -> None:
    """Metrics and the number of answers as JSON; the file is whole or not there."""
    files.write_whole(path, json.dumps({"metrics": metrics, "answers": answers}, indent=1) + "\n")


def write_predictions(predictions: Iterable[Prediction], folder: Path, examples: int = 6) -> None:
    """answers.jsonl with every prediction; examples/ with the images of a few of each task, right and wrong ones.

    A line whose images were kept names them under "pictures", MOST_IMAGES at most. What an earlier evaluation left is
    replaced when all is written.
    """

    def write(path: Path) -> None:
        with files.whole_folder(folder / "examples", replace=True) as images:
            _write_lines(predictions, path, images, examples // 2)

    files.write_whole(folder / "answers.jsonl", write)


def _write_lines(predictions: Iterable[Prediction], path: Path, images: Path, examples: int) -> None:
    """examples: as many right and as many wrong ones of each task keep their images."""
    with path.open("w", encoding="utf-8") as file:
        shown: Counter[tuple[str, bool]] = Counter()
        for prediction in predictions:
            line = prediction.to_json()
            key = (prediction.task, prediction.score >= 0.5)
            shown[key] += 1
            if shown[key] <= examples:
                stem = f"{prediction.task.replace('/', '-')}-{'right' if key[1] else 'wrong'}-{shown[key]}"
                line["pictures"] = _save_images(prediction, images, stem)
            file.write(json.dumps(line) + "\n")


def _save_images(prediction: Prediction, folder: Path, stem: str) -> Sequence[str]:
    """The paths of the images that the model saw, from the folder of answers.jsonl."""
    seen = prediction.prompt.images if prediction.prompt else ()
    names = [f"{stem}-{number}.png" for number in range(len(seen[-MOST_IMAGES:]))]
    for name, image in zip(names, seen[-MOST_IMAGES:], strict=True):
        image.load().save(folder / name)
    return [f"examples/{name}" for name in names]
