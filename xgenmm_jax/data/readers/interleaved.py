"""Documents of images and texts in their order: what of one is trained on, the same for all data sets of them.

Source: docs/reference/training.md#openflamingo-pre-training; what the paper did is not published
(docs/reference/training.md#not-published).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
import hashlib
from typing import Literal

from xgenmm_jax.data.errors import FEW_IMAGES, LAST_IMAGE, ONE_IMAGE, LeftOut, RecordError, is_of_a_record
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.storage.base import Raw

OpenImage = Callable[[], LazyImage]
"""Opens an image of a document by its header. Raises ValueError or OSError where it cannot be had."""


@dataclass(frozen=True, kw_only=True)
class Interleaved(OneChoice):
    """Base of readers of documents. With its defaults, all that is published.

    missing: what an image costs that is missing or whose header is damaged: itself ("leave_out"), or the document
        ("error").
    least_side_px, most_aspect: images with a shorter side, or whose longer side is more than so many times the
        shorter, are left out. most_images: so many are kept, the first ones; None: all.
    shift: "never": images stand where they are published; "always": each where the one before it stood, the first at
        the beginning of the text; "drawn": one of the two, drawn anew each time that the document is.
    lead_text: whether the text before the first image is kept.
    least_images: documents of which fewer are left are left out. single_images: the share of those with one image that
        is kept, by a hash of their key, so always the same ones. lone_last_image: whether documents are kept that end
        in their only image.

    Images that are left out are counted in `Document.dropped`. Where images move, one at the beginning has no place
    before it and is left out. Where then no document is left, or one that is left out, they stay as published.

    Nothing is decided by chance when a record is read: the two forms are `choices`, so the index knows both lengths.
    What is too long for a row is cut there, never inside an image (`data/rows/packing.py`).
    """

    missing: Literal["leave_out", "error"] = "leave_out"
    least_side_px: int = 0
    most_aspect: float | None = None
    most_images: int | None = None
    shift: Literal["never", "always", "drawn"] = "never"
    lead_text: bool = True
    least_images: int = 1
    single_images: float = 1.0
    lone_last_image: bool = True

    def __post_init__(self):
        name = type(self).__name__
        for option, allowed in (("missing", ("leave_out", "error")), ("shift", ("never", "always", "drawn"))):
            if (value := getattr(self, option)) not in allowed:
                listed = " or ".join(map(repr, allowed))
                raise ValueError(f"data: {name}({option}={value!r}); wanted {listed}.")
        least = self.least_images
        if least < 1 or self.least_side_px < 0 or (self.most_images is not None and self.most_images < least):
            raise ValueError(
                f"data: {name}(least_side_px={self.least_side_px}, least_images={least}, "
                f"most_images={self.most_images}); wanted 0 or more, 1 or more, and not less than that."
            )
        if not 0 <= self.single_images <= 1 or (self.most_aspect is not None and not self.most_aspect >= 1):
            raise ValueError(
                f"data: {name}(single_images={self.single_images}, most_aspect={self.most_aspect}); wanted 0 to 1, and "
                "1 or more."
            )

    def choices(self, raw: Raw) -> int:
        return 2 if self.shift == "drawn" else 1

    def document(self, raw: Raw, parts: Iterable[str | OpenImage], choice: int, left_out: int = 0) -> Document:
        """The document of these texts and images in their published order.

        left_out: how many more images it has, which are not to be used.

        Raises RecordError where no image can be had, LeftOut where the options leave the document out.
        """
        parts_used: list[str | LazyImage] = []
        errors: list[Exception] = []
        named, opened, used = left_out, 0, 0
        for part in parts:
            if isinstance(part, str):
                parts_used.append(part)
                continue
            named += 1
            # An image that will not be used is not opened; where images may move, which ones they are shows later.
            if used == self.most_images and self.shift == "never":
                continue
            try:
                image = part()
            except (ValueError, OSError) as error:
                # A file system that does not answer is no image that is missing.
                if not is_of_a_record(error):
                    raise
                if self.missing == "error":
                    raise RecordError(raw.key, error) from error
                errors.append(error)
                continue
            opened += 1
            if self._fits(image):
                parts_used.append(image)
                used += 1
        if not named:
            raise RecordError(raw.key, "it names no image; PlainText reads text alone")
        if errors and not opened:
            raise RecordError(raw.key, f"none of its {len(errors)} images can be had; the first: {errors[0]}")
        placed = _first_images(parts_used, self.most_images)
        if why := self._why_not(raw.key, placed, named):
            raise LeftOut(raw.key, *why)
        if self.shift == "always" or (self.shift == "drawn" and choice == 1):
            moved = _first_images(_moved(parts_used), self.most_images)
            placed = placed if self._why_not(raw.key, moved, named) else moved
        if not self.lead_text:
            first = next(index for index, part in enumerate(placed) if isinstance(part, LazyImage))
            placed = placed[first:]
        return Document(raw.key, tuple(placed), dropped=named - _count(placed))

    def _fits(self, image: LazyImage) -> bool:
        shorter, longer = sorted(image.size_px)
        return shorter >= self.least_side_px and (self.most_aspect is None or longer <= self.most_aspect * shorter)

    def _why_not(self, key: str, parts: Sequence[str | LazyImage], named: int) -> tuple[str, str] | None:
        """Reason and words for which the options leave out a document of these parts; None where they do not."""
        images = _count(parts)
        if images < self.least_images:
            return FEW_IMAGES, f"{images} of its {named} images are left, fewer than {self.least_images} (least_images)"
        if images > 1:
            return None
        if not self.lone_last_image and _ends_in_image(parts):
            return LAST_IMAGE, "no text stands behind its only image (lone_last_image)"
        if int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64 >= self.single_images:
            return ONE_IMAGE, f"{self.single_images:g} of the documents with one image are kept (single_images)"
        return None


def _count(parts: Sequence[str | LazyImage]) -> int:
    return sum(isinstance(part, LazyImage) for part in parts)


def _first_images(parts: Sequence[str | LazyImage], most: int | None) -> list[str | LazyImage]:
    """All texts, and the first images, at most so many."""
    left = len(parts) if most is None else most
    first: list[str | LazyImage] = []
    for part in parts:
        if isinstance(part, LazyImage):
            left -= 1
            if left < 0:
                continue
        first.append(part)
    return first


def _moved(parts: Sequence[str | LazyImage]) -> list[str | LazyImage]:
    """Each image where the one before it stood, the first at the beginning; images that stood there are left out.

    Images with no text between them stand together and move together. As it is where all stand at the beginning.

    Example: ("a", 1, "b", 2, 3, "c") -> (1, "a", 2, 3, "b", "c"); (1, "a", 2, "b") -> (2, "a", "b").
    """
    texts = [part for part in parts if isinstance(part, str)]
    groups: dict[int, list[LazyImage]] = {}
    index = 0
    for part in parts:
        if isinstance(part, str):
            index += 1
        else:
            groups.setdefault(index, []).append(part)
    behind = [index for index in groups if index > 0]
    if not behind:
        return list(parts)
    moved = {new: groups[old] for old, new in zip(behind, [0, *behind], strict=False)}
    result: list[str | LazyImage] = []
    for index in range(len(texts) + 1):
        result += moved.get(index, [])
        result += texts[index : index + 1]
    return result


def _ends_in_image(parts: Sequence[str | LazyImage]) -> bool:
    last = next((part for part in reversed(parts) if isinstance(part, LazyImage) or part.strip()), None)
    return isinstance(last, LazyImage)
