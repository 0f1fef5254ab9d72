"""What a model answered, example by example: records, JSON lines, and images of a few."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import io
import json
import math
import pathlib
from typing import Any

from xgenmm_jax import files
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.paths import Path

Metrics = dict[str, float]

MOST_IMAGES = 4
"""Of one prediction that `write_predictions` keeps, the last ones: the query's is the last."""


@dataclass(frozen=True)
class Prediction:
    """A model's answer to an example, and its score in [0, 1].

    task: the task's name. prompt: what the model was asked, demonstrations included; None where the prediction was read
    from a file. extracted: what was read out of the answer; None: nothing, the answer counts as unparsed.
    """

    task: str
    example: Example
    text: str
    score: float
    prompt: Prompt | None = field(default=None, repr=False)
    extracted: str | None = ""

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


def write_metrics(metrics: Metrics, answers: int, path: Path) -> None:
    """Metrics and the number of answers as JSON, null for a metric that has no value; whole or not there."""
    metrics = {name: None if math.isnan(value) else value for name, value in metrics.items()}
    files.write_whole(path, json.dumps({"metrics": metrics, "answers": answers}, indent=1) + "\n")


def write_predictions(predictions: Iterable[Prediction], folder: Path, examples: int = 6) -> None:
    """answers.jsonl with every prediction; examples/ with the images of a few of each task, right and wrong ones.

    A line whose images were kept names them under "pictures", MOST_IMAGES at most. What an earlier evaluation left is
    replaced when all is written.
    """

    def write(path: pathlib.Path) -> None:
        with files.whole_folder(folder / "examples", replace=True) as images:
            _write_lines(predictions, path, images, examples // 2)

    files.write_whole(folder / "answers.jsonl", write)


def _write_lines(predictions: Iterable[Prediction], path: pathlib.Path, images: Path, examples: int) -> None:
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
        png = io.BytesIO()
        image.load().save(png, "PNG")
        files.write_whole(folder / name, png.getvalue())
    return [f"examples/{name}" for name in names]
