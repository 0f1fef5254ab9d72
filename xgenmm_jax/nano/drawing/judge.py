"""A program as judge of drawn pictures: what things it finds in one, and whether they are those of the caption.

It knows the world's inks, masks and drawings and no model. The background is the median of the border; what differs
from it by more than CONTRAST is drawn; connected parts are things. A thing's shape is the mask of highest IoU, its
color the nearest of the palette to its inner pixels, its place the cell of its box's center, and it is the drawing or
the shape that explains its pixels best. How often it is right on true pictures: docs/log/drawing.md.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import functools

from jaxtyping import Bool, Float32, UInt8
import numpy as np
import PIL.Image
from scipy import ndimage

from xgenmm_jax.nano.drawing.prompts import Clause, Prompt
from xgenmm_jax.nano.world import draw, drawings, world
from xgenmm_jax.nano.world.splits import COLORS, SHAPES
from xgenmm_jax.nano.world.world import BASE_PX, Box

CONTRAST = 45
"""Of 255, in the channel that differs most. The palest ink, pink on the darkest tint, differs by 52."""
EDGE_CONTRASTS = (20, 10, CONTRAST)
"""What touches a thing and differs as much is of it: drawings have pale wings, bellies and handles, decoders noise. The
others are tried where the first does not fit well, and the one of best fit is read."""
GOOD_FIT = 0.95
"""Where a reading fits as well, no other is tried."""
LEAST_PX = 16
"""Pixels of a part; smaller ones are specks. The smallest shape, a ring of 14 pixels, has some 100."""
LEAST_FIT = 0.5
"""A thing of which no shape or drawing explains as much is nothing in particular."""
_SIDE = 24


@dataclass(frozen=True, slots=True)
class Seen:
    """A thing in a picture.

    noun: of SHAPES or drawings.OBJECTS; "" where nothing fits. color: the nearest of COLORS. position: of POSITIONS.
    box: tight, pixels. fit: 1 - squared error of the best shape or drawing / that of an empty background, at most 1.
    """

    noun: str
    color: str
    position: str
    box: Box
    fit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one picture.

    is_correct: every clause is met, and there is nothing else. is_valid: as many things as the caption tells, each one
    recognized. nouns, colors, positions: (met, told) over the caption's things, each property by itself.
    """

    is_correct: bool
    is_valid: bool
    nouns: tuple[int, int]
    colors: tuple[int, int]
    positions: tuple[int, int]


def judge(prompt: Prompt, image: UInt8[np.ndarray, "64 64 3"]) -> Verdict:
    """Whether a picture is one of its caption."""
    seen = things(image)
    expected = [one for one in prompt.clauses for _ in range(one.count)]
    return Verdict(
        is_correct=len(seen) == len(expected) and all(_met(one, seen) for one in prompt.clauses),
        is_valid=len(seen) == len(expected) and all(one.noun for one in seen),
        nouns=_shared([one.noun for one in expected], [one.noun for one in seen]),
        colors=_shared([one.color for one in expected], [one.color for one in seen]),
        positions=_shared([one.position for one in expected], [one.position for one in seen]),
    )


def _met(clause: Clause, seen: Sequence[Seen]) -> bool:
    matches = sum(
        clause.noun == one.noun and clause.color in ("", one.color) and clause.position in ("", one.position)
        for one in seen
    )
    return matches == clause.count


def _shared(expected: Sequence[str], seen: Sequence[str]) -> tuple[int, int]:
    """How many of what is told is seen, and how many are told; "" tells nothing."""
    counts = Counter(one for one in expected if one)
    return (counts & Counter(seen)).total(), counts.total()


def things(image: UInt8[np.ndarray, "64 64 3"]) -> list[Seen]:
    """The things in a picture, in reading order of their boxes' tops."""
    pixels = image.astype(np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0)
    away = np.abs(pixels - background).max(axis=-1)
    readings = []
    for edge in EDGE_CONTRASTS:
        readings.append([_thing(pixels, background, away, part) for part in _parts(away, edge)])
        if _worst_fit(readings[-1]) >= GOOD_FIT:
            break
    return max(readings, key=_worst_fit)


def _worst_fit(seen: Sequence[Seen]) -> float:
    return min((one.fit for one in seen), default=1.0)


def _parts(away: Float32[np.ndarray, "h w"], edge: int) -> Iterator[Bool[np.ndarray, "h w"]]:
    """Connected parts; gaps of up to two pixels do not part, since some drawings have them."""
    square = np.ones((3, 3), bool)
    mask = away > edge
    labels, _ = ndimage.label(ndimage.binary_dilation(mask, square), square)
    for number in range(1, labels.max() + 1):
        part = mask & (labels == number)
        if (part & (away > CONTRAST)).sum() >= LEAST_PX:
            yield part


def _thing(
    pixels: Float32[np.ndarray, "h w 3"],
    background: Float32[np.ndarray, "3"],
    away: Float32[np.ndarray, "h w"],
    part: Bool[np.ndarray, "h w"],
) -> Seen:
    """A part as what explains it best, by its whole extent or, where it is blurred, by that of half its contrast."""
    # Other things in the square around the box are not this one's: they become background.
    alone = np.where(ndimage.binary_dilation(part, np.ones((3, 3), bool))[..., None], pixels, background)
    seen = _read(alone, background, part)
    if seen.fit >= GOOD_FIT:
        return seen
    core = part & (away > 0.5 * np.percentile(away[part], 90))
    return max(seen, _read(alone, background, core), key=lambda one: one.fit)


def _read(
    alone: Float32[np.ndarray, "h w 3"], background: Float32[np.ndarray, "3"], mask: Bool[np.ndarray, "h w"]
) -> Seen:
    """The thing whose extent a mask is; what lies outside its box counts against the fit."""
    ys, xs = np.nonzero(mask)
    box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    inner = ndimage.binary_erosion(mask)
    ink = np.median(alone[inner if inner.any() else mask], axis=0)
    palette = np.array([world.PALETTE[color] for color in COLORS], np.float32)
    color = COLORS[int(np.square(palette - ink).sum(axis=1).argmin())]
    crop = _square(alone.round().astype(np.uint8), box, background)
    name, error = _best_noun(crop, background, ink)
    energy = np.square(alone - background).sum(axis=-1)
    inside = energy[box[1] : box[3], box[0] : box[2]].sum()
    scale = max(box[2] - box[0], box[3] - box[1]) / _SIDE
    fit = 1 - (error * scale**2 + float(energy.sum() - inside)) / max(float(energy.sum()), 1.0)
    height, width = mask.shape
    return Seen(name if fit >= LEAST_FIT else "", color, world.position_of(box, (width, height)), box, fit)


def _square(
    image: UInt8[np.ndarray, "h w 3"], box: Box, background: Float32[np.ndarray, "3"]
) -> Float32[np.ndarray, "24 24 3"]:
    """The square around a box's center with its longer side, resized."""
    left, top, right, bottom = box
    side = max(right - left, bottom - top)
    square = PIL.Image.new("RGB", (side, side), tuple(int(round(float(value))) for value in background))
    part = PIL.Image.fromarray(image[top:bottom, left:right])
    square.paste(part, ((side - (right - left)) // 2, (side - (bottom - top)) // 2))
    return np.asarray(square.resize((_SIDE, _SIDE), PIL.Image.Resampling.BILINEAR), np.float32)


def _best_noun(
    crop: Float32[np.ndarray, "24 24 3"], background: Float32[np.ndarray, "3"], ink: Float32[np.ndarray, "3"]
) -> tuple[str, float]:
    """The shape of highest IoU or the drawing of least error, whichever has less; and its squared error, summed."""
    away, inked = crop - background, ink - background
    coverage = np.clip(away @ inked / max(float(inked @ inked), 1.0), 0, 1)
    masks = _shape_masks()
    ious = np.minimum(masks, coverage).sum(axis=(1, 2)) / np.maximum(masks, coverage).sum(axis=(1, 2))
    shape = int(ious.argmax())
    shape_error = float(np.square(masks[shape][..., None] * inked - away).sum())
    names, colors, alphas = _drawings()
    errors = np.square(alphas * (colors - background) - away).sum(axis=(1, 2, 3))
    drawing = int(errors.argmin())
    if shape_error <= errors[drawing]:
        return SHAPES[shape], shape_error
    return names[drawing], float(errors[drawing])


@functools.cache
def _shape_masks() -> Float32[np.ndarray, "8 24 24"]:
    """Coverage of each shape, as its tight box's square shows it."""
    masks = []
    for shape in SHAPES:
        mask = draw.shape_mask(shape, 2 * BASE_PX)
        left, top, right, bottom = mask.getbbox()  # type: ignore[misc]
        side = max(right - left, bottom - top)
        square = PIL.Image.new("L", (side, side))
        square.paste(mask.crop((left, top, right, bottom)), ((side - right + left) // 2, (side - bottom + top) // 2))
        masks.append(np.asarray(square.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX), np.float32) / 255)
    return np.stack(masks)


@functools.cache
def _drawings() -> tuple[list[str], Float32[np.ndarray, "T 24 24 3"], Float32[np.ndarray, "T 24 24 1"]]:
    """Name, colors and coverage of every object in every style, in the square of its visible part."""
    names, rgba = [], []
    for name in drawings.OBJECTS:
        for style in drawings.STYLES:
            left, top, right, bottom = world.visible_part(name, style)
            side = max(right - left, bottom - top)
            square = PIL.Image.new("RGBA", (side, side))
            part = drawings.sprite(name, style).crop((left, top, right, bottom))
            square.paste(part, ((side - right + left) // 2, (side - bottom + top) // 2))
            names.append(name)
            rgba.append(np.asarray(square.resize((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS), np.float32))
    stacked = np.stack(rgba)
    return names, stacked[..., :3], stacked[..., 3:] / 255
