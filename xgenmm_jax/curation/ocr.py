"""Rows in the schema of BLIP3-OCR-200M out of images and an engine that reads their text.

Source: docs/reference/data.md#blip3-ocr-200m, docs/reference/data.md#blip3-ocr-hd-30m
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import json
from typing import Any, Literal, get_args

import pyarrow as pa

from xgenmm_jax.curation import language
from xgenmm_jax.curation.images import SourceImage
from xgenmm_jax.curation.makers import DrawnBox, LeftOutImage, MakeRows, RowOrReason, confidence_bin
from xgenmm_jax.curation.text_engines import Line, TextEngine
from xgenmm_jax.data.captions import ocr
from xgenmm_jax.data.captions.cells import FractionBox

NO_TEXT = "no text"
TOO_SMALL, TOO_LARGE = "sides too short", "a side too long"
HD_ABOVE_PX = 512
"""The paper's bound: both sides are longer."""


def captions_of(metadata: Mapping[str, Any], alt_text: str) -> list[dict[str, Any]]:
    """The twelve captions of a row: six granularities, and the same behind the image's alt text.

    metadata: of the released form; its entries in their order.
    """
    entries: list[tuple[str, FractionBox]] = []
    for entry in metadata["entries"]:
        (x1, y1), (x2, y2) = entry["bbox"][0], entry["bbox"][2]
        entries.append((entry["text"], (x1, y1, x2, y2)))
    return [
        {
            "text": ocr.caption(entries, granularity, True, alt_text if has_alt_text else None),
            "granularity": granularity,
            "include_datacomp_raw_cap": has_alt_text,
        }
        for has_alt_text in (False, True)
        for granularity in get_args(ocr.Granularity)
    ]


def metadata_of(lines: Sequence[Line], size_px: tuple[int, int], uid: str) -> dict[str, Any]:
    """The column `metadata`: corners as fractions of width and height, not rounded.

    The prefix of `uid` is the release's, wherever the image comes from.
    """
    width, height = size_px
    entries = [
        {"bbox": [[x / width, y / height] for x, y in line.quad], "text": line.text, "confidence": line.confidence}
        for line in lines
    ]
    return {"length": len(entries), "entries": entries, "uid": f"datacomp_ocr_{uid}"}


@dataclass(frozen=True)
class OcrRows:
    """The maker of `xgenmm curate ocr` and `ocr-hd`.

    least_confidence: lines below it are left out. least_lines: images with fewer lines are left out. languages: which
    language an image's text is in is told in `metadata`, and on the card. above_px: both sides must be longer.
    most_px: neither side may be; 0 for no bound.
    """

    engine: TextEngine
    command: Literal["ocr", "ocr-hd"] = "ocr"
    least_confidence: float = 0.5
    least_lines: int = 1
    languages: bool = True
    above_px: int = 0
    most_px: int = 0

    @property
    def batch(self) -> int:
        return 1

    @property
    def columns(self) -> tuple[tuple[str, pa.DataType], ...]:
        sizes = (("width", pa.int64()), ("height", pa.int64()))
        return (("captions", pa.string()), ("metadata", pa.string()), *(sizes if self.command == "ocr-hd" else ()))

    @property
    def source_columns(self) -> tuple[str, ...]:
        return ()

    def refusal(self, size_px: tuple[int, int]) -> LeftOutImage | None:
        width, height = size_px
        if min(size_px) <= self.above_px:
            return LeftOutImage(TOO_SMALL, f"{width} x {height} px, wanted more than {self.above_px} each")
        if self.most_px and max(size_px) > self.most_px:
            return LeftOutImage(TOO_LARGE, f"{width} x {height} px, wanted at most {self.most_px} each")
        return None

    def check(self) -> None:
        if not 0 <= self.least_confidence <= 1:
            raise ValueError(f"--least-confidence: got {self.least_confidence:g}; give 0 to 1.")
        if self.least_lines < 1:
            raise ValueError(f"--least-lines: got {self.least_lines}; give 1 or more: a row without text is none.")
        self.engine.check()
        if self.languages:
            language.identifier()

    def described(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in ("least_confidence", "least_lines", "languages")}
        bounds = {name: bound for name in ("above_px", "most_px") if (bound := getattr(self, name))}
        return {**self.engine.described(), **options, **bounds}

    def open(self) -> MakeRows:
        read = self.engine.open()
        identify = language.identifier() if self.languages else None

        def row_of(image: SourceImage) -> RowOrReason:
            width, height = image.pixels.size
            all_lines = [line for line in read(image.pixels) if line.text.strip()]
            lines = [line for line in all_lines if line.confidence >= self.least_confidence]
            if len(lines) < self.least_lines:
                below = f"{len(lines)} lines of {len(all_lines)} at confidence {self.least_confidence:g} or more"
                return LeftOutImage(NO_TEXT, f"{below}, wanted {self.least_lines}")
            metadata = metadata_of(lines, image.pixels.size, image.uid)
            if identify is not None:
                metadata["language"] = identify("\n".join(line.text for line in lines))
            captions = captions_of(metadata, image.alt_text)
            row = {"captions": _json(captions), "metadata": _json(metadata)}
            return row | ({"width": width, "height": height} if self.command == "ocr-hd" else {})

        return lambda images: [row_of(image) for image in images]

    def figures(self, row: Mapping[str, Any]) -> dict[str, Sequence[str]]:
        metadata = json.loads(row["metadata"])
        figures = {"confidences": [confidence_bin(entry["confidence"]) for entry in metadata["entries"]]}
        return figures | ({"languages": [metadata["language"]]} if "language" in metadata else {})

    def drawn(self, row: Mapping[str, Any]) -> tuple[list[DrawnBox], list[str]]:
        captions = {
            (one["granularity"], one["include_datacomp_raw_cap"]): one["text"] for one in json.loads(row["captions"])
        }
        boxes = []
        for entry in json.loads(row["metadata"])["entries"]:
            xs, ys = zip(*entry["bbox"], strict=True)
            boxes.append(DrawnBox((min(xs), min(ys), max(xs), max(ys)), f"{entry['text']} ({entry['confidence']:.2f})"))
        return boxes, [captions[0, False], captions[5, True]]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
