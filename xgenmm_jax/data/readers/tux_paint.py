"""Tux Paint's stamps: cut-out photographs and drawings, each with a text file of captions in many languages."""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import NO_LANGUAGE, LeftOut, RecordError
from xgenmm_jax.data.readers.image_captions import ImageCaptions
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class Stamps(ImageCaptions):
    """A `Caption` of the image file in "data" and one line of the text in "txt" (`Folder(..., beside=("txt",))`).

    The first line is English, each further one "de.utf8=Ein Clownfisch". languages: those of which one is drawn each
    time the record is. A text without a line in any of them is left out.

    Image files whose text is one caption as a whole: `ImageCaptions(image=("data",))`.
    """

    image: tuple[str, ...] = ("data",)
    languages: tuple[str, ...] = ("en",)

    label: ClassVar[str] = "stamps"

    def _texts(self, raw: Raw) -> list[str]:
        first, *lines = raw.text(self.caption).removeprefix("\ufeff").splitlines() or [""]
        if not first.strip():
            raise RecordError(raw.key, f"'{self.caption}' has no text in its first line")
        by_language = {name.removesuffix(".utf8"): text for name, is_line, text in _split(lines) if is_line}
        by_language["en"] = first
        texts = [text.strip() for name in self.languages if (text := by_language.get(name, "")).strip()]
        if not texts:
            raise LeftOut(raw.key, NO_LANGUAGE, f"it has no line in {', '.join(self.languages)} (languages)")
        return texts


def _split(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition("=") for line in lines]
