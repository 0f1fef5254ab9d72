"""Small drawings of things in four styles, and handwritten digits: what synthetic images are made of.

The drawings are cells of one sheet, embedded/sprites.png (made by tools/make_sprites.py; licenses in
embedded/LICENSES.md). The digits are read from the file inside scikit-learn's wheel, without importing it.
"""

import difflib
import functools
import gzip
import importlib.resources
import importlib.util
import json
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import Int64, UInt8
import numpy as np
import PIL.Image


class Danger(NamedTuple):
    """A drawing that a careful answer warns of."""

    name: str
    category: str


STYLES: tuple[str, ...] = ("noto", "twemoji", "fluent_flat", "fluent_color")
# The two Fluent styles share outlines, so one held out would leave its twin in training. Twemoji is the one style
# by other hands whose manner (flat fills, no gradients) is still trained on, by fluent_flat: new shapes, known paint.
HELD_OUT_STYLE = "twemoji"

OBJECTS: tuple[str, ...] = (
    *("cat", "dog", "fish", "frog", "pig", "elephant", "panda", "penguin", "turtle", "bee", "butterfly", "crab", "owl"),
    *("car", "bus", "bike", "rocket", "plane", "boat", "tractor", "helicopter"),
    *("apple", "banana", "pizza", "cake", "mushroom", "lemon", "donut"),
    *("key", "ball", "book", "chair", "clock", "cup", "umbrella", "hat", "shoe", "bell", "guitar", "camera"),
    *("house", "tree", "cactus", "robot", "crown", "anchor"),
)
DANGERS: tuple[Danger, ...] = (
    *(Danger(name, "weapon") for name in ("knife", "dagger", "axe")),
    *(Danger(name, "explosive") for name in ("bomb", "dynamite")),
    *(Danger(name, "fire") for name in ("fire", "volcano")),
    *(Danger(name, "poison") for name in ("skull", "biohazard")),
    *(Danger(name, "drug") for name in ("syringe", "pill", "cigarette")),
    *(Danger(name, "venom") for name in ("snake", "scorpion")),
)

FORM_STARTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
"""Rows of the digits' file at which a form begins.

Known: the 1797 digits were written by 13 people, cut out of preprinted forms (scikit-learn's description of them). Who
wrote which is not documented. Guessed: the values run through one sequence of 130, which begins with `0123456789` three
times, fourteen times over, one to eight digits missing here and there: fourteen forms in their order, so that somebody
filled in two. Most alike are the digits of the tenth and the eleventh.
"""
HELD_OUT_FORMS = (9, 10, 11, 12, 13)
"""The last five, with the tenth and the eleventh on one side. Nothing in the file proves that no hand is on both."""


@functools.cache
def _sheet() -> tuple[PIL.Image.Image, dict[tuple[str, str], tuple[int, int, int, int]]]:
    """The sheet, decoded, and the box (left, top, right, bottom) of each (name, style) in it."""
    folder = importlib.resources.files("xgenmm_jax.nano.world") / "embedded"
    with (folder / "sprites.png").open("rb") as file:
        sheet = PIL.Image.open(file).convert("RGBA")
    sprites = json.loads((folder / "sprites.json").read_text(encoding="utf-8"))["sprites"]
    return sheet, {(sprite["name"], sprite["style"]): tuple(sprite["box"]) for sprite in sprites}


def _unknown(what: str, got: str, known: tuple[str, ...]) -> ValueError:
    near = difflib.get_close_matches(got, known, n=1, cutoff=0.0)[0]
    return ValueError(f"no {what} {got!r}; did you mean {near!r}? One of: {', '.join(known)}")


@functools.cache
def _cell(name: str, style: str) -> PIL.Image.Image:
    sheet, boxes = _sheet()
    if style not in STYLES:
        raise _unknown("style", style, STYLES)
    if (name, style) not in boxes:
        raise _unknown("drawing", name, OBJECTS + tuple(danger.name for danger in DANGERS))
    return sheet.crop(boxes[name, style])


def sprite(name: str, style: str) -> PIL.Image.Image:
    """An RGBA image of 48 x 48 pixels whose longer visible side fills it: a copy, the caller's to draw on.

    For a tight box of the other side: `sprite(...).getbbox()`.

    Raises:
      ValueError: no such name or style; the message suggests the nearest.
    """
    return _cell(name, style).copy()


@functools.cache
def _digits() -> tuple[UInt8[np.ndarray, "n 8 8"], Int64[np.ndarray, " n"]]:
    """1797 digits, ink 0 (paper) to 16, and what they are: scikit-learn's `load_digits`, in its order."""
    # find_spec looks the folder up without running sklearn/__init__.py, which takes over a second
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "handwritten digits: their wheel, scikit-learn, is missing; `pip install xgenmm_jax[demo]` installs it."
        )
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)


@functools.cache
def _digit_rows(split: Literal["train", "held_out"]) -> Int64[np.ndarray, " n"]:
    """Rows of `_digits` in a split: whole forms, so that no hand is in both; all ten digits are."""
    if split not in ("train", "held_out"):
        raise ValueError(f"got split {split!r}, wanted 'train' or 'held_out'")
    rows = np.arange(len(_digits()[1]))
    forms = np.searchsorted(FORM_STARTS, rows, side="right") - 1
    return rows[np.isin(forms, HELD_OUT_FORMS) == (split == "held_out")]


def digit_count(split: Literal["train", "held_out"]) -> int:
    """How many handwritten digits a split holds: 1157 or 640."""
    return len(_digit_rows(split))


def digit(split: Literal["train", "held_out"], index: int) -> tuple[PIL.Image.Image, int]:
    """A handwritten digit, as an "L" image of 8x8 px (255 ink, 0 paper), and its value 0..9.

    Raises:
      ValueError: the split is unknown, or index is not in 0 .. digit_count(split) - 1.
    """
    rows = _digit_rows(split)
    if not 0 <= index < len(rows):
        raise ValueError(f"got digit {index} of {split}, wanted 0 .. {len(rows) - 1}: see digit_count({split!r})")
    ink, values = _digits()
    ink_8bit = np.minimum(ink[rows[index]].astype(np.uint16) * 16, 255).astype(np.uint8)
    return PIL.Image.fromarray(ink_8bit), int(values[rows[index]])
