"""Pairs of a better and a worse answer: VLFeedback's rated completions, and sets with an answer of each kind a record.

Source: docs/reference/data.md#preference-and-safety-records
"""

from dataclasses import dataclass
import itertools
import math
from typing import Any, ClassVar, Literal, NamedTuple

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.images import OneImage
from xgenmm_jax.data.records import Preference, Turn
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text.chat import IMAGE

MOST_COMPLETIONS = 16
"""Of a prompt, four in the published file. All pairs of more would make a record as large as a shard."""


@dataclass(frozen=True, kw_only=True)
class VlFeedback(OneImage):
    """A `Preference` of a record of VLFeedback: a prompt about an image, and completions that a model has rated.

    A completion's rating is the mean over its aspects. One with a rating that is no number is in no pair; nor are two
    completions with the same mean or the same text, and an empty one is never the better.

    `JsonFiles("vlfeedback_80k.jsonl", images=folder)` with `merged_images.zip` unpacked there; of a table with the
    image inside: `VlFeedback(image=("image",), image_name="")`.

    pairs: "best_worst" is the best completion and the worst one, the first of equals, as the first version of the paper
        has it; "all" are all pairs whose means differ, of which one is drawn each time the record is, as the set's
        authors build them.
    """

    pairs: Literal["best_worst", "all"] = "best_worst"
    image: tuple[str, ...] = ()
    image_name: str = "img_path"

    label: ClassVar[str] = "vlfeedback"

    def __post_init__(self):
        super().__post_init__()
        if self.pairs not in ("best_worst", "all"):
            raise ValueError(f"data: VlFeedback(pairs={self.pairs!r}); wanted 'best_worst' or 'all'.")

    @property
    def fields(self) -> tuple[str, ...]:
        return ("prompt", "completions", *self.image_fields)

    def choices(self, raw: Raw) -> int:
        """Pairs to choose from. Raises RecordError as `read`."""
        return len(self._pairs(raw))

    def read(self, raw: Raw, choice: int) -> Preference:
        """Raises RecordError where it is of another form, no two means differ, or its image is missing or damaged."""
        chosen, rejected = self._pairs(raw)[choice]
        return _preference(raw, self, raw.text("prompt"), chosen, rejected)

    def _pairs(self, raw: Raw) -> list[tuple[str, str]]:
        """Better and worse answer of each pair."""
        rated = [one for one in _completions(raw) if one.mean is not None]
        if self.pairs == "best_worst" and rated:
            rated = [max(rated, key=_mean), min(rated, key=_mean)]
        pairs = []
        for one, other in itertools.combinations(rated, 2):
            better, worse = sorted((one, other), key=_mean, reverse=True)
            is_pair = better.mean != worse.mean and better.response != worse.response
            if is_pair and better.response.strip():
                pairs.append((better.response, worse.response))
        if not pairs:
            means = ", ".join(f"{_mean(one):.3g}" for one in rated) or "none"
            raise RecordError(raw.key, f"no pair: wanted two answers whose mean ratings differ, the means are {means}")
        return pairs


class _Completion(NamedTuple):
    response: str
    mean: float | None
    """Rating; None where one of the aspects has no number."""


def _mean(completion: _Completion) -> float:
    assert completion.mean is not None
    return completion.mean


def _completions(raw: Raw) -> list[_Completion]:
    """The completions, of a struct of lists or a list of objects. Raises RecordError where they are something else."""
    if "completions" not in raw.fields:
        there = ", ".join(map(repr, raw.fields)) or "nothing"
        raise RecordError(raw.key, f"no 'completions'; it has {there}")
    value = raw.fields["completions"]
    if isinstance(value, dict):
        responses, annotations = (value.get(name) for name in ("response", "annotations"))
        if not isinstance(responses, list) or not isinstance(annotations, list) or len(responses) != len(annotations):
            there = ", ".join(map(repr, value)) or "nothing"
            raise RecordError(
                raw.key, f"'completions' has {there}; wanted lists 'response' and 'annotations' of one length"
            )
        entries = list(zip(responses, annotations, strict=True))
    elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
        entries = [(one.get("response"), one.get("annotations")) for one in value]
    else:
        raise RecordError(
            raw.key, f"'completions' is {type(value).__name__}, wanted an object of lists or a list of objects"
        )
    if len(entries) > MOST_COMPLETIONS:
        raise RecordError(raw.key, f"{len(entries):,} completions, more than {MOST_COMPLETIONS}")
    return [_completion(raw, number, *entry) for number, entry in enumerate(entries, start=1)]


def _completion(raw: Raw, number: int, response: Any, annotation: Any) -> _Completion:
    if not isinstance(response, str):
        raise RecordError(raw.key, f"'response' {number} is {type(response).__name__}, wanted text")
    if not isinstance(annotation, dict):
        raise RecordError(raw.key, f"'annotations' {number} is {type(annotation).__name__}, wanted aspects' ratings")
    ratings = [_rating(aspect) for aspect in annotation.values()]
    rated = [rating for rating in ratings if rating is not None]
    return _Completion(response, sum(rated) / len(rated) if rated and len(rated) == len(ratings) else None)


def _rating(aspect: Any) -> float | None:
    """The number of {"Rating": "4", "Rationale": ...}, None where there is none: "N/A"."""
    value = aspect.get("Rating") if isinstance(aspect, dict) else None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        rating = float(value)
    except (ValueError, OverflowError):
        return None
    return rating if math.isfinite(rating) else None


@dataclass(frozen=True, kw_only=True)
class Preferences(OneImage):
    """A `Preference` of a record with a better and a worse answer, each in a field of its own.

    {"image", "prompt", "chosen", "rejected"}, `image` the name of a file, is how rejected answers of one's own are
    written, such as those of noised images: `JsonFiles("noised.jsonl", images=folder)`.

    prompt: what the user says; the image stands before it where it has no "<image>".
    json: field whose text is a JSON object that has the prompt and the answers, "" where they are fields themselves.
    """

    prompt: str = "prompt"
    chosen: str = "chosen"
    rejected: str = "rejected"
    json: str = ""
    image: tuple[str, ...] = ()
    image_name: str = "image"

    label: ClassVar[str] = "preferences"

    @property
    def fields(self) -> tuple[str, ...]:
        said = (self.json,) if self.json else (self.prompt, self.chosen, self.rejected)
        return (*said, *self.image_fields)

    def read(self, raw: Raw, choice: int) -> Preference:
        """Raises RecordError where prompt or answer is missing or empty or both answers are the same, or no image."""
        said = raw
        if self.json:
            members = raw.json(self.json)
            if not isinstance(members, dict):
                raise RecordError(raw.key, f"'{self.json}' holds {type(members).__name__}, wanted an object")
            said = Raw(raw.key, members)
        prompt, chosen, rejected = (said.text(name) for name in (self.prompt, self.chosen, self.rejected))
        for name, text in ((self.chosen, chosen), (self.rejected, rejected)):
            if not text.strip():
                raise RecordError(raw.key, f"'{name}' is empty")
        if chosen == rejected:
            raise RecordError(raw.key, f"'{self.chosen}' and '{self.rejected}' are the same")
        return _preference(raw, self, prompt, chosen, rejected)


RLAIF_V = Preferences(image=("image",), image_name="", prompt="question")
"""Tables with the image inside."""

RLHF_V = Preferences(image=("image",), image_name="", prompt="question", json="text")
"""Tables with the image inside; question and answers in the JSON text of a column."""


def _preference(raw: Raw, reader: OneImage, prompt: str, chosen: str, rejected: str) -> Preference:
    """Raises RecordError where the prompt is empty or asks about several images, or the image cannot be had."""
    markers = prompt.count(IMAGE)
    if not prompt.replace(IMAGE, "").strip() or markers > 1:
        raise RecordError(raw.key, f"a prompt with {markers} {IMAGE}" if markers > 1 else "the prompt is empty")
    try:
        image = reader.image_of(raw)
    except ValueError as error:
        raise error if isinstance(error, RecordError) else RecordError(raw.key, error) from error
    asked = prompt if markers else f"{IMAGE}\n{prompt}"
    return Preference(raw.key, (image,), (Turn("user", asked),), chosen, rejected)
