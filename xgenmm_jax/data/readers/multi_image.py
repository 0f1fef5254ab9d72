"""Conversations about several images: Mantis-Instruct and MMDU-45k, by the rules of LLaVA's form.

Source: docs/reference/data.md#fine-tuning-records
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from xgenmm_jax.data.errors import RecordError, is_of_a_record
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.readers.images import image_in
from xgenmm_jax.data.readers.llava_entries import IMAGE, Form, turns, why_no_turns, why_not_used
from xgenmm_jax.data.records import Conversation
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text.chat import unequal_images

MANTIS = Form(
    "conversation", "images", "role", "content", {"system": "system", "user": "user", "assistant": "assistant"}
)
MMDU = Form(
    "conversations",
    "image",
    "from",
    "value",
    {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"},
    marker="<ImageHere>",
)


@dataclass(frozen=True)
class Mantis(OneChoice):
    """A `Conversation` of a row of Mantis-Instruct: `images`, and `conversation`, {"role", "content"} each.

    An image is its encoded bytes, the struct {"bytes", "path"}, or a path. Without bytes it lies beside the table:
    the archive `train_images.zip` of its subset, unpacked.

    max_images: conversations with more images are not used, as in the official code; None uses all.
    """

    max_images: int | None = 4

    label: ClassVar[str] = "mantis"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("images", "conversation")

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where it is of another form or has too many images, or one that cannot be opened."""
        return _conversation(raw, _images(raw, MANTIS), self.max_images, MANTIS)


@dataclass(frozen=True)
class Mmdu(OneChoice):
    """A `Conversation` of an entry of `mmdu-45k.json`: `image`, paths, and `conversations`, {"from", "value"} each.

    "<ImageHere>" stands for an image, in any question.

    max_images: as of `Mantis`. has_folders: an image is looked for under its path as it is written; by default under
        the last part of it, which is how `mmdu-45k_pics.zip` holds them.
    """

    max_images: int | None = 4
    has_folders: bool = False

    label: ClassVar[str] = "mmdu"

    @property
    def fields(self) -> tuple[str, ...]:
        return ("image", "conversations")

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError as `Mantis.read`."""
        images = _images(raw, MMDU)
        if not self.has_folders:
            images = [name.rpartition("/")[2] if isinstance(name, str) else name for name in images]
        return _conversation(raw, images, self.max_images, MMDU)


def _images(raw: Raw, form: Form) -> list[Any]:
    """What the record has for its images. Raises RecordError unless it is a list, one path or struct, or null."""
    if form.image not in raw.fields:
        there = ", ".join(map(repr, raw.fields)) or "nothing"
        raise RecordError(raw.key, f"no '{form.image}'; it has {there}")
    value = raw.fields[form.image]
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _conversation(raw: Raw, values: list[Any], max_images: int | None, form: Form) -> Conversation:
    """Raises RecordError where the conversation is not used, or one of its images cannot be opened."""
    row = dict(raw.fields)
    if why := why_no_turns(row, form) or why_not_used(row, len(values), max_images, form):
        raise RecordError(raw.key, f"{why[0]} ({why[1]})")
    images = []
    for number, value in enumerate(values, start=1):
        try:
            images.append(raw.image(value) if isinstance(value, str) else image_in(raw, value))
        except (ValueError, OSError) as error:
            if not is_of_a_record(error):
                raise
            raise RecordError(raw.key, f"image {number} of {len(values)}: {error}") from error
    in_order = turns(row, len(images), form)
    markers = sum(turn.text.count(IMAGE) for turn in in_order if turn.role == "user")
    if images and markers != len(images):
        raise RecordError(raw.key, unequal_images("it", markers, len(images)).removeprefix("chat: "))
    return Conversation(raw.key, tuple(images), in_order)
