"""The page of a benchmark's answers that are not right, with their pictures; it can be filtered in the browser.

Bounds: MOST_ITEMS answers, MOST_PICTURES of each and MOST_IMAGE_BYTES of all pictures; what is beyond them is counted
on the page.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.results import Result
from xgenmm_jax.evaluation.tables import number, rules_of
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.reporting.data_page import visible
from xgenmm_jax.reporting.images import jpeg_uri
from xgenmm_jax.reporting.page import render_template

MOST_ITEMS = 200
MOST_PICTURES = 8
MOST_IMAGE_BYTES = 12 * 2**20
THUMBNAIL_PX = 320
"""No side of a picture on the page is longer."""
MOST_TEXT, MOST_FIELD, MOST_ANSWERS, MOST_FIELDS = 2000, 120, 12, 24
"""Characters of a question or an answer and of a field; reference answers and fields of an item."""
MOST_VALUES = 40
"""A field of more values than that is shown and not offered as a filter."""

KINDS = {
    "wrong": "wrong",
    "partly": "partly right",
    "unparsed": "unparsed",
    "unreadable": "picture unreadable",
}
"""Why an answer is on the page -> what it is called there."""


def kind_of(prediction: Prediction) -> str:
    """A key of KINDS, "" for an answer that is right. What is read by a guess is unparsed, whatever its score."""
    if prediction.example.unreadable:
        return "unreadable"
    if prediction.extracted is None:
        return "unparsed"
    return "" if prediction.score >= 1 else "partly" if prediction.score > 0 else "wrong"


def render(result: Result, predictions: Sequence[Prediction], has_pictures: bool, note: str = "") -> str:
    """The page. has_pictures: whether the benchmark's files are there, so that examples have their images.

    note: what a reader must know of what counts as wrong.
    """
    kinds = [kind_of(prediction) for prediction in predictions]
    counts = Counter(kind for kind in kinds if kind)
    chosen = [predictions[index] for index in chosen_of(kinds, MOST_ITEMS)]
    filters = _filters(chosen)
    room = _Room()
    return render_template(
        "xgenmm_jax.reporting",
        "wrong_answers.html",
        refresh_s=0,
        title=visible(result.title, MOST_FIELD),
        model=visible(result.model, MOST_FIELD),
        rules=rules_of(result),
        headline=visible(result.headline, MOST_FIELD),
        value=number(result.value.value),
        stderr=number(result.value.stderr),
        note=note,
        answers=len(predictions),
        counts=[(kind, name, counts[kind]) for kind, name in KINDS.items() if counts[kind]],
        wrong=sum(counts.values()),
        has_pictures=has_pictures,
        filters=[(name, index, values) for index, (name, values) in enumerate(filters.items())],
        items=[_item(prediction, list(filters), room) for prediction in chosen],
        kinds=KINDS,
    )


def chosen_of(kinds: Sequence[str], most: int) -> list[int]:
    """Indices of at most so many that are not "", in order: of each kind evenly spread ones.

    Kinds share the room alike; what a rare kind leaves of its part goes to the others.
    """
    of_kind: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        if kind:
            of_kind.setdefault(kind, []).append(index)
    chosen: list[int] = []
    rarest_first = sorted(of_kind.values(), key=len)
    for rank, indices in enumerate(rarest_first):
        part = min(len(indices), (most - len(chosen)) // (len(rarest_first) - rank))
        chosen += [indices[number * len(indices) // part] for number in range(part)]
    return sorted(chosen)


def _filters(chosen: Sequence[Prediction]) -> dict[str, list[str]]:
    """Fields that part the items into groups, with their values: short ones, 2 to MOST_VALUES, fewer than items."""
    values: dict[str, set[str]] = {}
    for prediction in chosen:
        for name, value in prediction.example.fields.items():
            values.setdefault(name, set()).add(value)
    return {
        name: sorted(of_name)
        for name, of_name in values.items()
        if 1 < len(of_name) <= MOST_VALUES and len(of_name) < len(chosen) and max(map(len, of_name)) <= MOST_FIELD
    }


class _Room:
    """How many bytes of pictures the page still takes."""

    def __init__(self):
        self.image_bytes = MOST_IMAGE_BYTES


def _item(prediction: Prediction, filters: Sequence[str], room: _Room) -> dict[str, Any]:
    example = prediction.example
    right = set(example.answers)
    kind = kind_of(prediction)
    thumbnails = _thumbnails(example, room)
    fields = [(visible(name, MOST_FIELD), visible(value, MOST_FIELD)) for name, value in example.fields.items()]
    return {
        "id": visible(example.id, MOST_FIELD),
        "kind": kind,
        "score": f"{100 * prediction.score:.0f}",
        "pictures": thumbnails,
        "more_pictures": len(example.images) - len(thumbnails),
        "question": visible(example.question, MOST_TEXT),
        "options": [
            {
                "letter": visible(letter, MOST_FIELD),
                "text": visible(text, MOST_FIELD),
                "right": letter in right or text in right,
                "taken": prediction.extracted == letter,
            }
            for letter, text in example.options.items()
        ],
        "references": [visible(answer, MOST_TEXT) for answer in example.answers[:MOST_ANSWERS]],
        "more_references": max(0, len(example.answers) - MOST_ANSWERS),
        "prediction": visible(prediction.text, MOST_TEXT),
        "extracted": None if prediction.extracted is None else visible(prediction.extracted, MOST_TEXT),
        "unreadable": visible(example.unreadable, MOST_TEXT),
        "fields": fields[:MOST_FIELDS],
        "more_fields": max(0, len(fields) - MOST_FIELDS),
        # The values themselves: what the filters compare with.
        "filtered": [(index, example.fields[name]) for index, name in enumerate(filters) if name in example.fields],
    }  # fmt: skip


def _thumbnails(example: Example, room: _Room) -> list[Mapping[str, Any]]:
    """The first of an example's pictures: a data URI, "" where it cannot be read with the reason, and its own size."""
    thumbnails: list[Mapping[str, Any]] = []
    for image in example.images[:MOST_PICTURES]:
        try:
            uri, why = thumbnail_uri(image), ""
        except (ValueError, OSError) as error:
            uri, why = "", visible(str(error), MOST_TEXT)
        if len(uri) > room.image_bytes:
            room.image_bytes = 0
            break
        room.image_bytes -= len(uri)
        width, height = image.size_px
        thumbnails.append({"uri": uri, "why": why, "width": width, "height": height})
    return thumbnails


def thumbnail_uri(image: LazyImage) -> str:
    """A JPEG as a data URI, no side longer than THUMBNAIL_PX; a smaller picture keeps its pixels."""
    # A large JPEG is decoded at a fraction of its size, at which neither side is too short.
    decoded = image.load_scaled(THUMBNAIL_PX) if image.load_scaled is not None else image.load()
    if max(decoded.size) > THUMBNAIL_PX:
        decoded = decoded.copy()
        decoded.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), PIL.Image.Resampling.LANCZOS)
    return jpeg_uri(decoded)
