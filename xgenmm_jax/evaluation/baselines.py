"""What answers that need no model score: constants, chosen from the examples themselves, and the reference answers.

A figure says something about a model as far as it differs from these. Constants are chosen on the very examples that
they are scored on, so none does better by luck.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import statistics

from xgenmm_jax.evaluation.predictions import Metrics, Prediction
from xgenmm_jax.evaluation.scorers import cider
from xgenmm_jax.evaluation.scorers.boxes import Box, box_iou, parse_box
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Task

Baselines = dict[str, Metrics]
"""By metric: the baselines' values by name, the one to show first, REFERENCES last."""

REFERENCES = "reference answers"
"""The first reference answer of each example given as its answer: what a scorer gives the truth."""
COMMONEST = "commonest answer"

_WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)
_BOX_STEPS = (0.08, 0.04, 0.02, 0.01)


def task_baselines(task: Task) -> Baselines:
    """Every metric of a task, of its constant answers and of its reference answers."""
    examples = tuple(task.examples)
    constants = {COMMONEST: commonest_answer(examples)}
    if task.constant_answers is not None:
        constants = dict(task.constant_answers(examples))
    answers = {name: [constant] * len(examples) for name, constant in constants.items()}
    answers[REFERENCES] = [example.answers[0] for example in examples]

    baselines: Baselines = {}
    for name, texts in answers.items():
        predictions = [
            Prediction(task.name, example, text, task.scored(text, example).score)
            for example, text in zip(examples, texts, strict=True)
        ]
        for metric, value in task.summarize(predictions).items():
            baselines.setdefault(metric, {})[name] = value
    return baselines


def baseline_of(baselines: Mapping[str, Metrics], metric: str) -> tuple[str, float] | None:
    """Name and value of the baseline to show beside a metric, None where there is none."""
    return next(((name, value) for name, value in baselines.get(metric, {}).items() if name != REFERENCES), None)


def commonest_answer(examples: Sequence[Example]) -> str:
    """The reference answer that most examples have; of equals the one that comes first."""
    counts = Counter(answer for example in examples for answer in dict.fromkeys(example.answers))
    return counts.most_common(1)[0][0]


def constant_box(examples: Sequence[Example]) -> str:
    """The box with the highest mean IoU, as text: `[0.05, 0.02][0.95, 0.48]`.

    Searched from the best of the true boxes, their mean and the whole image, one coordinate and a hundredth at a time:
    near the best there is, if not the best.
    """
    boxes = [box for example in examples if (box := parse_box(example.answers[0])) is not None]

    def mean_iou(candidate: Box) -> float:
        return sum(box_iou(candidate, box) for box in boxes) / len(boxes)

    mean = tuple(statistics.fmean(coordinates) for coordinates in zip(*boxes, strict=True))
    best_iou, best = max((mean_iou(box), box) for box in (*boxes, mean, _WHOLE_IMAGE))
    for step in _BOX_STEPS:
        improved = True
        while improved:
            iou, box = max((mean_iou(box), box) for box in _neighbours(best, step))
            improved = iou > best_iou
            if improved:
                best_iou, best = iou, box
    return "[{:.2f}, {:.2f}][{:.2f}, {:.2f}]".format(*best)


def _neighbours(box: Box, step: float) -> list[Box]:
    moved = [
        (*box[:index], min(max(box[index] + change, 0.0), 1.0), *box[index + 1 :])
        for index in range(4)
        for change in (-step, step)
    ]
    return [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in moved]


def constant_caption(examples: Sequence[Example]) -> str:
    """The reference caption that has the highest CIDEr-D where it is given for every image."""
    return cider.best_constant({example.id: example.answers for example in examples})
