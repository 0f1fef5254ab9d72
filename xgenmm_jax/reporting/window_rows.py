"""What a window's packed rows hold, as plain values: the rows that the model gets, and where they come from."""

from collections import Counter
from collections.abc import Iterator, Sequence
import re
from typing import Literal, NamedTuple

from jaxtyping import Float32, Int64, UInt8
import numpy as np

from xgenmm_jax.batch import Batch, DrawingBatch
from xgenmm_jax.data.errors import CUT_SHORT, Skip
from xgenmm_jax.data.rows import build, quarantine
from xgenmm_jax.data.rows.config import DataConfig
from xgenmm_jax.data.rows.loading import RowBuilder
from xgenmm_jax.data.rows.packing import RowConfig, Size
from xgenmm_jax.data.rows.window import Planned, Window, measurer_of, open_sources, plan_window
from xgenmm_jax.data.text.tokenizer import SPACE, Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Piece(NamedTuple):
    """Tokens of a row that are shown as one.

    kind: a text's token, or several that are the bytes of a character; a special token; an image's vision tokens.
    """

    text: str
    kind: Literal["text", "special", "image"]
    is_target: bool
    positions: int = 1
    image: int = 0
    """Its number in the row, from 1; 0: none."""


class RowImage(NamedTuple):
    """An image of a row, and the crops of it that the model gets.

    number: in the row, from 1. size_px: (width, height) before it was cut. grid: (columns, rows) of crops; (0, 0): the
    global view alone. crops: the global view first, then the grid's row by row.
    """

    number: int
    size_px: tuple[int, int]
    grid: tuple[int, int]
    crops: UInt8[np.ndarray, "n S S 3"] | Float32[np.ndarray, "n S S 3"]


class Text(NamedTuple):
    """A segment's positions. answer: "chosen" or "rejected" in a preference pair, else empty."""

    segment: int
    answer: str
    pieces: list[Piece]
    targets: int


class RowSample(NamedTuple):
    """A sample's part of a row.

    start: its first position. size: what it was planned to take. damage: why it is padding, where it is.
    """

    id: str
    source: str
    start: int
    size: Size
    texts: list[Text]
    images: list[RowImage]
    damage: Skip | None


class Row(NamedTuple):
    """number: in the window, from 1."""

    number: int
    samples: list[RowSample]
    used: Size
    """What its samples were planned to take."""


class SourceShare(NamedTuple):
    """What a window has of one source, or of several with the same name.

    weight: share of the mixture, as samples and positions share of those in rows; 0 to 1. median, longest, p95: of the
    positions that a sample takes. cut: samples that are used without their end. dropped: drawn, and in no row.
    """

    name: str
    weight: float
    drawn: int
    samples: int
    sample_share: float
    position_share: float
    median: int
    p95: int
    longest: int
    crops: int
    cut: int
    dropped: int


class WindowRows(NamedTuple):
    """A window as it is planned, and some of its rows.

    rows: how many it has; shown: the first of them. used: sums over all rows. skipped: what sources left out when they
    were opened, what the window leaves out, and the damage of the rows shown.
    """

    number: int
    seed: int
    rows: int
    shown: list[Row]
    row: RowConfig
    view_px: int
    drawn: int
    used: Size
    sources: list[SourceShare]
    skipped: list[Skip]


def window_rows(config: DataConfig, seed: int, number: int, most_rows: int) -> WindowRows:
    """The first `most_rows` rows of window `number`, read and decoded, and figures of the whole window.

    Raises ValueError where the run would end: data that are not there, a sample that no row can hold.
    """
    sources, measurer = open_sources(config), measurer_of(config)
    window = plan_window(config, sources, measurer, seed, number)
    names = [source.name for source in sources]
    builder = RowBuilder(config, seed, sources)
    shown: list[Row] = []
    damaged: list[Skip] = []
    try:
        # One at a time: a row of the paper's sizes has some 10 MB of pixels.
        for at, planned in enumerate(window.rows[:most_rows], start=1):
            built = builder.build([planned])
            batch = built.batch.batch if isinstance(built.batch, DrawingBatch) else built.batch
            out = build.row_of(batch, 0)
            shown.append(_row(at, planned, built.members[0], out, config, names, measurer.tokenizer))
            damaged += built.skipped
    finally:
        builder.close()
    planned_sizes = [planned.size for row in window.rows for planned in row]
    used = Size(*np.array(planned_sizes, np.int64).reshape(-1, len(Size._fields)).sum(axis=0).tolist())
    skipped = [*quarantine.at_opening(sources), *window.skipped, *damaged]
    return WindowRows(
        number,
        seed,
        len(window.rows),
        shown,
        config.row,
        config.anyres.view_px,
        sum(window.drawn),
        used,
        source_shares(config, names, window, number),
        skipped,
    )


def source_shares(config: DataConfig, names: Sequence[str], window: Window, number: int) -> list[SourceShare]:
    """A line for each name, in the mixture's order. names: of its sources."""
    phase = [phase for phase in config.order_phases if phase.window <= number][-1]
    weights = [*phase.weights, *[0.0] * (len(names) - len(phase.weights))]
    sizes: dict[str, list[Size]] = {name: [] for name in names}
    for planned in (planned for row in window.rows for planned in row):
        sizes[names[planned.draw.component]].append(planned.size)
    cut = Counter()
    for skip in window.skipped:
        if skip.reason == CUT_SHORT:
            cut[skip.source] += skip.count
    samples = sum(map(len, sizes.values()))
    positions = sum(size.positions for of_source in sizes.values() for size in of_source)
    shares = []
    for name, of_source in sizes.items():
        lengths = np.array([size.positions for size in of_source], np.int64)
        drawn = sum(count for one, count in zip(names, window.drawn, strict=True) if one == name)
        shares.append(
            SourceShare(
                name,
                sum(weight for one, weight in zip(names, weights, strict=True) if one == name) / sum(weights),
                drawn,
                len(of_source),
                len(of_source) / max(1, samples),
                int(lengths.sum()) / max(1, positions),
                *(_quantile(lengths, share) for share in (0.5, 0.95, 1.0)),
                sum(size.crops for size in of_source),
                cut[name],
                drawn - len(of_source),
            )
        )
    return shares


def _quantile(lengths: Int64[np.ndarray, " n"], share: float) -> int:
    """One of the lengths; 0 where there is none."""
    return int(np.quantile(lengths, share, method="inverted_cdf")) if len(lengths) else 0


def _row(
    number: int,
    planned: Sequence[Planned],
    members: Sequence[str | Skip],
    batch: Batch,
    config: DataConfig,
    names: Sequence[str],
    tokenizer: Tokenizer,
) -> Row:
    """batch: the row alone, see `build.row_of`. names: of the mixture's sources."""
    used = Size(0, 0, 0, 0)
    samples = []
    for one, member in zip(planned, members, strict=True):
        is_damaged, first = isinstance(member, Skip), used.segments + 1
        texts, images = [], []
        if not is_damaged:
            answers = ("chosen", "rejected") if one.size.segments == 2 else ("",)
            texts = [_text(batch, first + index, answer, config.row, tokenizer) for index, answer in enumerate(answers)]
            images = [_image(batch, used.images + index) for index in range(one.size.images)]
        id_, damage = (member.record, member) if is_damaged else (member, None)
        source = names[one.draw.component]
        samples.append(RowSample(id_, source, used.positions, one.size, texts, images, damage))
        used = build.added(used, one.size)
    return Row(number, samples, used)


def _image(batch: Batch, index: int) -> RowImage:
    crops = batch.pixels[np.flatnonzero(batch.crop_image == index)]
    size, grid = (tuple(array[index].tolist()) for array in (batch.image_size_px, batch.image_grid))
    return RowImage(index + 1, size, grid, crops)


def _text(batch: Batch, segment: int, answer: str, row: RowConfig, tokenizer: Tokenizer) -> Text:
    at = np.flatnonzero(batch.segment_ids == segment)
    # Of each position the number of its image from 1, 0 where it is text.
    of_crop = batch.slot[at] // row.vision_tokens
    images = of_crop if row.vision_tokens_per == "image" else batch.crop_image[of_crop]
    images = np.where(batch.slot[at] < 0, 0, images + 1)
    is_target = batch.loss_mask[at]
    pieces = list(_pieces(batch.token_ids[at].tolist(), images.tolist(), is_target.tolist(), tokenizer))
    return Text(segment, answer, pieces, int(is_target.sum()))


def _pieces(ids: list[int], images: list[int], targets: list[bool], tokenizer: Tokenizer) -> Iterator[Piece]:
    specials = set(tokenizer.special_ids.values())
    start = 0
    while start < len(ids):
        stop, piece = start + 1, tokenizer.piece(ids[start])
        if images[start]:
            while stop < len(ids) and images[stop] == images[start]:
                stop += 1
            yield Piece(piece, "image", False, stop - start, images[start])
        elif ids[start] in specials:
            yield Piece(piece, "special", targets[start])
        elif _BYTE.fullmatch(piece):
            # Bytes, by the characters that they are; those that are none are one U+FFFD each.
            values = bytearray()
            stop = start
            while stop < len(ids) and targets[stop] == targets[start] and not images[stop]:
                byte = _BYTE.fullmatch(tokenizer.piece(ids[stop]))
                if byte is None:
                    break
                values.append(int(byte[1], 16))
                stop += 1
            for character in values.decode("utf-8", "surrogateescape"):
                size = len(character.encode("utf-8", "surrogateescape"))
                shown = "\ufffd" if "\udc80" <= character <= "\udcff" else character
                yield Piece(shown, "text", targets[start], size)
        else:
            yield Piece(piece.replace(SPACE, " "), "text", targets[start])
        start = stop
