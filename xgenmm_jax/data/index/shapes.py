"""Sizes of samples without their content: what planning needs to know of a sample, in 6 bytes a caption.

A tokenized sample is a list of pieces. A piece begins at an image or behind a place where the sample may be cut, so it
has at most one image, which stands first. Of each piece the number of tokens is kept (an image counts as its one
`<image>` id) and whether it begins with an image and may be cut behind; of each image its width and height.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxtyping import Bool, Int64, UInt8, UInt16
import numpy as np

from xgenmm_jax.data.records import Sample
from xgenmm_jax.data.text.tokenizer import Tokenizer

DOCUMENT, TEXT, CONVERSATION, PAIR, BAD = range(5)
"""Kinds of samples. A DOCUMENT has images and may be cut anywhere but inside one; one more token, the end of text,
stands behind its last piece; TEXT is the same without images, its end of text inside its piece; a CONVERSATION is cut
behind answers alone, a PAIR never. BAD: a record that gives no sample."""

IMAGE, CUT, TOKENS = 1 << 15, 1 << 14, (1 << 14) - 1
"""Bits of a piece. A piece of more than TOKENS tokens is written as several without flags between them."""

MOST_PX = (1 << 16) - 1
"""The longest side of an image that is kept; a record with a longer one is BAD."""


class Shapes(NamedTuple):
    """Sizes of n samples, one after the other.

    pieces, image_px: of all samples; the ends say where each sample's stop. A PAIR's pieces are those of the chosen
    answer's tokens, the last of them with CUT, and behind it those of the rejected one's; its images stand in both and
    are kept once.

    Example, a caption of 9 tokens with an image of 640 x 480 pixels: kind DOCUMENT, pieces [IMAGE | CUT | 11] (the
    image, the text, `<|endofchunk|>`), image_px [[640, 480]]; with the end of text the sample has 12 tokens.
    """

    kinds: UInt8[np.ndarray, " n"]
    pieces: UInt16[np.ndarray, " p"]
    piece_ends: Int64[np.ndarray, " n"]
    image_px: UInt16[np.ndarray, "i 2"]
    image_ends: Int64[np.ndarray, " n"]

    def take(self, numbers: Int64[np.ndarray, " m"]) -> "Shapes":
        """The samples of these numbers, in their order."""
        pieces, piece_ends = _ragged(self.pieces, self.piece_ends, numbers)
        image_px, image_ends = _ragged(self.image_px, self.image_ends, numbers)
        return Shapes(self.kinds[numbers], pieces, piece_ends, image_px, image_ends)

    @property
    def count(self) -> int:
        return len(self.kinds)


def empty_shapes() -> Shapes:
    none = np.empty(0, np.int64)
    return Shapes(np.empty(0, np.uint8), np.empty(0, np.uint16), none, np.empty((0, 2), np.uint16), none)


def join(parts: Sequence[Shapes]) -> Shapes:
    """The samples of all parts, in their order."""
    if not parts:
        return empty_shapes()
    ends = []
    for name, flat in (("piece_ends", "pieces"), ("image_ends", "image_px")):
        offsets = np.cumsum([0, *(len(getattr(part, flat)) for part in parts[:-1])])
        shifted = [getattr(part, name) + offset for part, offset in zip(parts, offsets, strict=True)]
        ends.append(np.concatenate(shifted))
    kinds, pieces, image_px = (np.concatenate([part[number] for part in parts]) for number in (0, 1, 3))
    return Shapes(kinds, pieces, ends[0], image_px, ends[1])


def shapes_of(samples: Iterable[Sample | None], tokenizer: Tokenizer) -> Shapes:
    """The shapes of tokenized samples, which passed `check_sides`; None is a record that gives none."""
    kinds: list[int] = []
    pieces: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []
    piece_ends, image_ends, total = [], [], 0
    for sample in samples:
        if sample is None:
            kinds.append(BAD)
        else:
            kind, of_sample = _pieces(sample, tokenizer)
            kinds.append(kind)
            pieces.append(of_sample)
            total += len(of_sample)
            sizes += (image.size_px for image in sample.images)
        piece_ends.append(total)
        image_ends.append(len(sizes))
    return Shapes(
        np.array(kinds, np.uint8),
        np.concatenate(pieces) if pieces else np.empty(0, np.uint16),
        np.array(piece_ends, np.int64),
        np.array(sizes, np.uint16).reshape(-1, 2),
        np.array(image_ends, np.int64),
    )


def check_sides(sample: Sample) -> None:
    """Raises ValueError where an image has a longer side than a shape can tell."""
    for image in sample.images:
        if max(image.size_px) > MOST_PX:
            width, height = image.size_px
            raise ValueError(
                f"image: one of {sample.id} has {width} x {height} pixels, a side above {MOST_PX:,}; scale it down."
            )


def _pieces(sample: Sample, tokenizer: Tokenizer) -> tuple[int, UInt16[np.ndarray, " p"]]:
    ids = sample.token_ids
    if sample.rejected_ids is not None:
        return PAIR, np.concatenate([_coded([len(ids)], [CUT]), _coded([len(sample.rejected_ids)], [0])])
    # Pieces begin at images and behind supervised ends of answers and chunks.
    is_image = ids == tokenizer.image_id
    is_end = ((ids == tokenizer.end_id) | (ids == tokenizer.end_of_chunk_id)) & sample.loss_mask
    begins = is_image.copy()
    begins[1:] |= is_end[:-1]
    begins[:1] = True
    starts = np.flatnonzero(begins)
    lasts = np.append(starts[1:], len(ids)) - 1
    lengths = lasts - starts + 1
    flags = np.where(is_image[starts], IMAGE, 0) | np.where(is_end[lasts], CUT, 0)
    if (ids == tokenizer.end_id).any():
        return CONVERSATION, _coded(lengths, flags)
    if not sample.images:
        return TEXT, _coded(lengths, flags)
    assert lengths[-1] == 1 and flags[-1] == 0, f"{sample.id} ends with something else than an end of text"
    return DOCUMENT, _coded(lengths[:-1], flags[:-1])


def _coded(
    lengths: Int64[np.ndarray, " p"] | list[int], flags: Int64[np.ndarray, " p"] | list[int]
) -> UInt16[np.ndarray, " q"]:
    """Pieces as numbers of 16 bits: an image's flag stands in the first of a long one, a cut's in the last."""
    coded: list[int] = []
    for length, flag in zip(map(int, lengths), map(int, flags), strict=True):
        if length <= TOKENS:
            coded.append(length | flag)
            continue
        full, rest = divmod(length - 1, TOKENS)
        parts = [TOKENS] * full + [rest + 1]
        parts[0] |= flag & IMAGE
        parts[-1] |= flag & CUT
        coded += parts
    return np.array(coded, np.uint16)


def _ragged(flat: np.ndarray, ends: Int64[np.ndarray, " n"], numbers: Int64[np.ndarray, " m"]) -> tuple:
    """The parts of `flat` that belong to these numbers, and where each of them ends."""
    starts = np.concatenate([np.zeros(1, np.int64), ends])[numbers]
    lengths = ends[numbers] - starts
    new_ends = np.cumsum(lengths, dtype=np.int64)
    source = np.arange(new_ends[-1] if len(new_ends) else 0) + np.repeat(starts - (new_ends - lengths), lengths)
    return flat[source], new_ends


def tokens_of(shapes: Shapes) -> Int64[np.ndarray, " n"]:
    """Tokens of each sample, one for an image; of a pair those of both answers."""
    lengths = np.concatenate([np.zeros(1, np.int64), np.cumsum(shapes.pieces & TOKENS, dtype=np.int64)])
    starts = np.concatenate([np.zeros(1, np.int64), shapes.piece_ends[:-1]]) if shapes.count else shapes.piece_ends
    return lengths[shapes.piece_ends] - lengths[starts] + (shapes.kinds == DOCUMENT)


def is_bad(shapes: Shapes) -> Bool[np.ndarray, " n"]:
    """Which records give no sample."""
    return shapes.kinds == BAD
