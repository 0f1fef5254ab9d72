"""The page of `xgenmm data show`: packed rows of a window as the model gets them. Data is escaped, its size is bounded.

Bounds: MOST_VIEWS crops and MOST_IMAGE_BYTES of pictures, MOST_PIECES of text; of what was left out MOST_GROUPS sources
and reasons and MOST_LISTED records of each. What is beyond them is counted on the page.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
import unicodedata

import numpy as np
import PIL.Image

from xgenmm_jax.data.errors import Skip
from xgenmm_jax.reporting.images import jpeg_uri, png_uri
from xgenmm_jax.reporting.page import render_template
from xgenmm_jax.reporting.window_rows import Piece, Row, RowImage, RowSample, Text, WindowRows

MOST_ROWS = 64
MOST_VIEWS = 600
MOST_IMAGE_BYTES = 8 * 2**20
MOST_PIECES = 60_000
MOST_GROUPS, MOST_LISTED = 100, 10
MOST_NAME, MOST_DETAIL, MOST_PIECE = 120, 400, 200
"""Characters of an id or a name, of an error, of a piece."""

EXACT_PX = 96
"""Views up to this side are shown with their own pixels; larger ones are made smaller, to SMALL_PX."""
SMALL_PX = 176
COLORS = 8
"""Of segments, one after the other; then the first again."""


class Bounds:
    """What of the bounds of a page is left."""

    def __init__(self):
        self.views, self.image_bytes, self.pieces = MOST_VIEWS, MOST_IMAGE_BYTES, MOST_PIECES


class Band(NamedTuple):
    """A part of a bar. percent: of the bar. kind: "sample", "damaged" or "padding"."""

    percent: float
    kind: str
    color: int
    title: str


def render(name: str, rows: WindowRows) -> str:
    """The page. name: of the run."""
    bounds = Bounds()
    reasons = Counter()
    for skip in rows.skipped:
        reasons[skip.reason] += skip.count
    groups = _groups(rows.skipped)
    return render_template(
        "xgenmm_jax.reporting",
        "data_page.html",
        refresh_s=0,
        name=visible(name, MOST_NAME),
        window=rows,
        fill={
            "positions": _share(rows.used.positions, rows.rows * rows.row.length),
            "crops": _share(rows.used.crops, rows.rows * rows.row.crops),
        },
        sources=[source._replace(name=visible(source.name, MOST_NAME)) for source in rows.sources],
        packed=sum(source.samples for source in rows.sources),
        reasons=[(visible(reason, MOST_NAME), count) for reason, count in reasons.most_common()],
        groups=groups[:MOST_GROUPS],
        more_groups=len(groups[MOST_GROUPS:]),
        more_samples=sum(group["count"] for group in groups[MOST_GROUPS:]),
        rows=[_row(row, rows, bounds) for row in rows.shown],
        view_px=rows.view_px,
        shown_px=rows.view_px if rows.view_px <= EXACT_PX else SMALL_PX,
    )


def _groups(skipped: Sequence[Skip]) -> list[dict[str, Any]]:
    """What was left out by source and reason, the most samples first; of each its first records.

    Few are shown at once, of more each group is folded.
    """
    members: dict[tuple[str, str, bool], list[Skip]] = {}
    for skip in skipped:
        members.setdefault((skip.source, skip.reason, skip.at_opening), []).append(skip)
    groups = [
        {
            **_skip(skips[0]),
            "count": sum(skip.count for skip in skips),
            "records": len(skips),
            "skips": [_skip(skip) for skip in skips[:MOST_LISTED]],
            "is_open": len(skipped) <= MOST_LISTED,
        }
        for skips in members.values()
    ]
    return sorted(groups, key=lambda group: -group["count"])


def _skip(skip: Skip) -> dict[str, Any]:
    return {
        "source": visible(skip.source, MOST_NAME),
        "record": visible(skip.record, MOST_NAME),
        "shard": visible(skip.shard, MOST_NAME),
        "reason": visible(skip.reason, MOST_NAME),
        "detail": visible(skip.detail, MOST_DETAIL),
        "count": skip.count,
        "at_opening": skip.at_opening,
    }


def _row(row: Row, rows: WindowRows, bounds: Bounds) -> dict[str, Any]:
    return {
        "number": row.number,
        "used": row.used,
        "targets": sum(text.targets for sample in row.samples for text in sample.texts),
        "positions": _bands(row.samples, "positions", rows.row.length),
        "crops": _bands(row.samples, "crops", rows.row.crops),
        "samples": [_sample(number, sample, bounds) for number, sample in enumerate(row.samples)],
        "padding": rows.row.length - row.used.positions,
        "padding_crops": rows.row.crops - row.used.crops,
    }


def _bands(samples: Sequence[RowSample], what: str, room: int) -> list[Band]:
    """The bar of a row's positions or crops: a band a sample in their order, padding at the end."""
    bands, used = [], 0
    for number, sample in enumerate(samples):
        count = getattr(sample.size, what)
        used += count
        if count:
            kind = "damaged" if sample.damage else "sample"
            title = f"{visible(sample.id, MOST_NAME)}: {count:,} {what if count > 1 else what[:-1]}"
            bands.append(Band(100 * count / room, kind, number % COLORS, title))
    if used < room:
        bands.append(Band(100 * (room - used) / room, "padding", 0, f"padding: {room - used:,} {what}"))
    return bands


def _sample(number: int, sample: RowSample, bounds: Bounds) -> dict[str, Any]:
    return {
        "color": number % COLORS,
        "id": visible(sample.id, MOST_NAME),
        "source": visible(sample.source, MOST_NAME),
        "start": sample.start,
        "end": sample.start + sample.size.positions - 1,
        "size": sample.size,
        "segments": [text.segment for text in sample.texts],
        "targets": sum(text.targets for text in sample.texts),
        "texts": [_text(text, bounds) for text in sample.texts],
        "images": [_image(image, bounds) for image in sample.images],
        "damage": None if sample.damage is None else _skip(sample.damage),
    }


def _text(text: Text, bounds: Bounds) -> dict[str, Any]:
    pieces = text.pieces[: bounds.pieces]
    bounds.pieces -= len(pieces)
    return {
        "segment": text.segment,
        "answer": text.answer,
        "targets": text.targets,
        "pieces": [_piece(piece) for piece in pieces],
        "more": sum(piece.positions for piece in text.pieces[len(pieces) :]),
    }


def _piece(piece: Piece) -> Piece:
    text = visible(piece.text, MOST_PIECE)
    return piece._replace(text=text.replace("\n", "↵\n"))


def _image(image: RowImage, bounds: Bounds) -> dict[str, Any]:
    """Its views as data URIs; `more`: how many are beyond the bounds of the page."""
    views = []
    for crop in image.crops[: bounds.views]:
        uri = view_uri(crop)
        if len(uri) > bounds.image_bytes:
            bounds.image_bytes = 0
            break
        bounds.image_bytes -= len(uri)
        views.append(uri)
    bounds.views -= len(views)
    columns, rows = image.grid
    return {
        "number": image.number,
        "size_px": image.size_px,
        "columns": columns,
        "rows": rows,
        "crops": len(image.crops),
        "views": views,
        "more": len(image.crops) - len(views),
    }


def view_uri(crop: np.ndarray) -> str:
    """A view as a data URI: its own pixels where it is small, else a JPEG of SMALL_PX. crop: uint8, S x S x 3."""
    image = PIL.Image.fromarray(crop)
    if image.width <= EXACT_PX:
        return png_uri(image)
    return jpeg_uri(image.resize((SMALL_PX, SMALL_PX), PIL.Image.Resampling.LANCZOS))


def visible(text: str, most: int) -> str:
    """A text of at most `most` characters in which nothing is hidden: "a\\u202eb" -> "a⟨U+202E⟩b".

    Control and format characters, which a browser would drop, break or obey (a reversed direction of writing), are
    written out; line breaks stay.
    """
    shown = []
    for character in text[:most]:
        if character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            shown.append("→" if character == "\t" else f"⟨U+{ord(character):04X}⟩")
        else:
            shown.append(character)
    return "".join(shown) + ("…" if len(text) > most else "")


def _share(part: int, whole: int) -> float:
    """In percent."""
    return 100 * part / max(1, whole)
