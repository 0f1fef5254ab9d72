"""BLIP3-OCR-200M and what has its schema: the strings that stand in an image, at six granularities.

Source: docs/reference/data.md#blip3-ocr-200m, docs/reference/data.md#ocr-captions
"""

from dataclasses import dataclass
import math
from typing import Any, ClassVar, Literal, get_args

from xgenmm_jax.data.captions import ocr
from xgenmm_jax.data.captions.cells import FractionBox
from xgenmm_jax.data.errors import RecordError, shown
from xgenmm_jax.data.readers.images import OneImage, row_of
from xgenmm_jax.data.records import Caption
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class Ocr(OneImage):
    """A `Caption` of the text in an image, out of a row's JSON columns `metadata` and `captions`.

    The released rows have no images. They are downloaded with img2dataset and save_additional_columns=["captions",
    "metadata"], whose tars and tables (output_format="parquet") are read; or they lie in a folder by the hash of `url`
    (`Parquet(pattern, images=folder)`, image_name="url").

    granularity: 0, text alone, to 5, corners in tags (`ocr.Granularity`); the paper's levels 1 to 6.
    raw_caption: the image's alt text stands first. raw_caption_field: column that holds it; "" takes what stands before
        the strings in the released `captions`.
    filler: phrases such as "The image contains the text", with which the captions were released to the letter. The
        paper's training has granularity 0 without them.
    source: "entries" makes the caption of `metadata`; "captions" takes the released one, with filler.
    """

    granularity: ocr.Granularity = 0
    raw_caption: bool = False
    filler: bool = False
    source: Literal["entries", "captions"] = "entries"
    raw_caption_field: str = ""

    label: ClassVar[str] = "ocr"

    def __post_init__(self):
        super().__post_init__()
        if self.granularity not in get_args(ocr.Granularity):
            raise ValueError(f"data: Ocr(granularity={self.granularity!r}); wanted 0 to 5.")
        if self.source not in ("entries", "captions"):
            raise ValueError(f"data: Ocr(source={self.source!r}); wanted 'entries' or 'captions'.")
        if self.source == "captions" and not self.filler:
            raise ValueError(
                "data: released captions have filler phrases, and Ocr(source='captions') takes them as they are; give "
                "filler=True, or source='entries', which writes them without."
            )
        if self.raw_caption_field and (self.source == "captions" or not self.raw_caption):
            raise ValueError(
                "data: Ocr(raw_caption_field=...) is read with raw_caption=True and source='entries' alone; leave it "
                "out, or give these."
            )

    @property
    def fields(self) -> tuple[str, ...]:
        names = ("captions",) if self.source == "captions" else ("metadata",)
        if self.raw_caption and self.source == "entries":
            names += (self.raw_caption_field or "captions",)
        return (*names, *self.image_fields)

    def read(self, raw: Raw, choice: int) -> Caption:
        """Raises RecordError where the columns are not of the released form, or there is no text or no image."""
        row = row_of(raw)
        if self.source == "captions":
            text = _released(row, self.granularity, self.raw_caption)
        else:
            entries = _entries(row)
            text = ocr.caption(entries, self.granularity, self.filler, self._alt_text(row))
        return Caption(raw.key, self.image_of(row), text)

    def _alt_text(self, row: Raw) -> str | None:
        if not self.raw_caption:
            return None
        if self.raw_caption_field:
            return row.text(self.raw_caption_field)
        # The same caption with and without: what is longer in front is the alt text, of any granularity.
        without, with_it = (f". {_released(row, 0, False)}", _released(row, 0, True))
        if not with_it.endswith(without):
            raise RecordError(
                row.key, "the caption with the raw caption does not end with the one without; its alt text is not known"
            )
        return with_it.removesuffix(without)


def _released(row: Raw, granularity: int, has_raw_caption: bool) -> str:
    """One of the 12 texts of `captions`."""
    chosen = ("granularity", granularity), ("include_datacomp_raw_cap", has_raw_caption)
    for one in _list(row, "captions", _json(row, "captions")):
        if not isinstance(one, dict):
            raise RecordError(row.key, f"'captions' has {type(one).__name__}, wanted objects")
        if all(type(one.get(name)) is type(value) and one[name] == value for name, value in chosen):
            text = one.get("text")
            if not isinstance(text, str) or not text.strip():
                raise RecordError(row.key, f"the caption of granularity {granularity} is {text!r:.100}, wanted a text")
            return text
    which = "with" if has_raw_caption else "without"
    raise RecordError(row.key, f"'captions' has none of granularity {granularity} {which} the raw caption")


def _entries(row: Raw) -> list[tuple[str, FractionBox]]:
    """The strings of `metadata` and where they stand, in the order of the engine that read them."""
    metadata = _json(row, "metadata")
    if not isinstance(metadata, dict):
        raise RecordError(row.key, f"'metadata' is {type(metadata).__name__}, wanted an object")
    if "entries" not in metadata:
        there = ", ".join(repr(name[:100]) for name in list(metadata)[:50]) or "nothing"
        raise RecordError(row.key, f"'metadata' has no 'entries'; it has {there}")
    entries = []
    for number, entry in enumerate(_list(row, "entries", metadata["entries"])):
        text = entry.get("text") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise RecordError(row.key, f"entry {number} of 'metadata' is {shown(entry)}; wanted its 'text'")
        entries.append((text, _box(row, number, entry.get("bbox"))))
    if not any(text.strip() for text, _ in entries):
        raise RecordError(row.key, "'metadata' has no text that stands in the image")
    return entries


def _box(row: Raw, number: int, quad: Any) -> FractionBox:
    """From the first of four points to the third, as the released captions do, whatever the other two say."""
    points = quad if isinstance(quad, list) else []
    sides = [side for point in points if isinstance(point, list) and len(point) == 2 for side in point]
    if len(points) != 4 or len(sides) != 8 or not all(map(_is_number, sides)):
        raise RecordError(row.key, f"'bbox' of entry {number} is {shown(quad)}; wanted four points of two numbers")
    return (float(sides[0]), float(sides[1]), float(sides[4]), float(sides[5]))


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value) or type(value) is int and abs(value) < 1 << 53


def _json(row: Raw, name: str) -> Any:
    row.text(name)  # which says what stands there instead of text
    return row.json(name)


def _list(row: Raw, name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(row.key, f"'{name}' is {type(value).__name__}, wanted a list")
    return value
