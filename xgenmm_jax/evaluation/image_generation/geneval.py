"""GenEval's rules over what a detector and a color model say of pictures (docs/reference/blip3o.md#image-benchmarks).

A prompt's metadata asks for classes ("include": count, color, position relative to an earlier clause) and forbids
others ("exclude"). Boxes are (left, top, right, bottom, score), float32 as the detector gives them: a score is above a
threshold where it is above its float32 value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from typing import Any, NamedTuple

from jaxtyping import Float32
import numpy as np

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
Boxes = Float32[np.ndarray, "_n 5"]
Box = Float32[np.ndarray, "..."]
"""Its first four numbers are the corners."""


@dataclass(frozen=True)
class Options:
    """threshold, counting_threshold: what scores must exceed, of prompts of the tag "counting" the second.
    max_objects: kept of a class. max_overlap: of a box and a more confident one of its class; 1 keeps all. position:
    share of summed sizes by which centers must be apart.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position: float = 0.1


PUBLISHED = Options()


class Verdict(NamedTuple):
    """Of one picture. reasons: a sentence for each clause that is not met. selected: of each class the detections that
    count, numbers into its boxes, most confident first. colors: of the objects whose color a clause asked for.
    """

    is_correct: bool
    reasons: tuple[str, ...]
    selected: dict[str, list[int]]
    colors: dict[str, list[str]]


def evaluate(
    metadata: Mapping[str, Any],
    detections: Mapping[str, Boxes],
    colors: Mapping[str, Sequence[str]],
    options: Options = PUBLISHED,
) -> Verdict:
    """Whether a picture shows what its prompt asks for.

    Of a class only the `count` most confident detections are looked at, so a fourth dog that is brown does not make up
    for a third that is black. Only "exclude" forbids more than asked for.

    metadata: a line of evaluation_metadata.jsonl. colors: of each detection, in the order of the boxes; needed of
    classes whose color is asked for.

    Raises:
        ValueError: a color that is needed is missing.
    """
    threshold = options.counting_threshold if metadata["tag"] == "counting" else options.threshold
    every = {name: _selected(boxes, threshold, options) for name, boxes in detections.items()}
    selected = {name: rows for name, rows in every.items() if rows}
    looked_at: dict[str, list[str]] = {}
    reasons: list[str] = []
    # Of each clause the detections that meet it; later ones may stand relative to them.
    groups: list[Boxes | None] = []
    for clause in metadata.get("include", ()):
        name, count = clause["class"], clause["count"]
        chosen = selected.get(name, [])[:count]
        reason = ""
        if len(chosen) < count:
            reason = f"{name}: got {len(chosen)}, wanted {count} or more"
        elif "color" in clause:
            looked_at[name] = [_color(colors, name, index) for index in chosen]
            if (right := looked_at[name].count(clause["color"])) < count:
                reason = f"{clause['color']} {name}: got {right}, wanted {count}; colors {', '.join(looked_at[name])}"
        boxes = detections[name][chosen] if chosen else np.zeros((0, 5), np.float32)
        if not reason and "position" in clause:
            relation, target = clause["position"]
            reason = _position_reason(name, boxes, relation, groups[target], options)
        groups.append(None if reason else boxes)
        reasons += [reason] if reason else []
    for clause in metadata.get("exclude", ()):
        if (number := len(selected.get(clause["class"], ()))) >= clause["count"]:
            reasons.append(f"{clause['class']}: got {number}, wanted fewer than {clause['count']}")
    return Verdict(not reasons, tuple(reasons), selected, looked_at)


def _selected(boxes: Boxes, threshold: float, options: Options) -> list[int]:
    """Detections above the threshold, most confident first; of equal ones the later row first, as NumPy 1 sorts."""
    order = np.argsort(boxes[:, 4], kind="stable")[::-1]
    left = [int(i) for i in order if boxes[i, 4] > np.float32(threshold)][: options.max_objects]
    if options.max_overlap == 1:
        return left
    selected = []
    while left:
        first, *left = left
        selected.append(first)
        left = [i for i in left if iou(boxes[first], boxes[i]) < options.max_overlap]
    return selected


def _color(colors: Mapping[str, Sequence[str]], name: str, index: int) -> str:
    try:
        return colors[name][index]
    except (KeyError, IndexError):
        raise ValueError(
            f"geneval: got no color of detection {index} of '{name}', which the prompt asks for."
        ) from None


def _position_reason(name: str, boxes: Boxes, relation: str, targets: Boxes | None, options: Options) -> str:
    """ "" where every box is so to every target."""
    if targets is None:
        return f"{name}: got nothing that it could be {relation}"
    for box in boxes:
        for target in targets:
            if relation not in (actual := relations(box, target, options.position)):
                return f"{name}: got {' and '.join(sorted(actual)) or 'no relation'}, wanted {relation}"
    return ""


def relations(box: Box, target: Box, share: float = 0.1) -> set[str]:
    """How a box stands to another: "left of", "right of", "above", "below"; one, two that go together, or none.

    The offset of the centers, less `share` of the summed sizes in each direction, counts in a direction where it is
    more than half of the distance of the centers.
    """
    corners = np.stack([box[:4], target[:4]]).astype(np.float32).reshape(2, 2, 2)
    center, other_center = corners.mean(axis=1)
    sizes = np.abs(corners[:, 1] - corners[:, 0]).sum(axis=0)
    offset = center - other_center
    beyond = np.maximum(np.abs(offset) - np.float32(share) * sizes, 0) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return set()
    across, down = beyond / np.linalg.norm(offset)
    holding = {"left of": across < -0.5, "right of": across > 0.5, "above": down < -0.5, "below": down > 0.5}
    return {name for name, holds in holding.items() if holds}


def iou(box: Box, other: Box) -> float:
    """Overlap of boxes whose corners are pixels: one pixel is added to each side. In [0, 1]."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:4], other[2:4])
    shared = _area(low, high)
    either = _area(box[:2], box[2:4]) + _area(other[:2], other[2:4]) - shared
    return float(shared / either) if either else 0.0


def _area(low: Box, high: Box) -> np.float32:
    return np.prod(np.maximum(high - low + np.float32(1), np.float32(0)))


def colors_of(scores: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[str]]:
    """The color of each detection from ten scores in the order of COLORS; of equal ones the first."""
    return {name: [COLORS[int(np.argmax(row))] for row in rows] for name, rows in scores.items()}


class Judged(NamedTuple):
    """A picture's prompt, as its metadata, and whether it is correct."""

    metadata: Mapping[str, Any]
    is_correct: bool


@dataclass(frozen=True)
class Summary:
    """correct: of each tag (correct pictures, pictures). overall: unweighted mean of the tags' shares, in [0, 1].
    prompts: (prompts with a correct picture, prompts); prompts of equal metadata are one.
    """

    correct: dict[str, tuple[int, int]]
    overall: float
    prompts: tuple[int, int]


def summarize(judged: Sequence[Judged]) -> Summary:
    """Scores of all pictures: shares are over pictures, not prompts.

    Raises:
        ValueError: no pictures.
    """
    if not judged:
        raise ValueError("geneval: got no judged pictures, wanted some.")
    tags: dict[str, list[bool]] = {}
    prompts: dict[str, bool] = {}
    for metadata, is_correct in judged:
        tags.setdefault(metadata["tag"], []).append(is_correct)
        key = json.dumps(metadata)
        prompts[key] = prompts.get(key, False) or is_correct
    correct = {tag: (sum(outcomes), len(outcomes)) for tag, outcomes in tags.items()}
    overall = sum(right / count for right, count in correct.values()) / len(correct)
    return Summary(correct, overall, (sum(prompts.values()), len(prompts)))
