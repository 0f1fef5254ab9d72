"""Fonts of matplotlib's wheel: their files, the extent of a string, and painting it."""

import functools
import importlib.util
import pathlib

import PIL.ImageDraw
import PIL.ImageFont


@functools.cache
def font_folder() -> pathlib.Path:
    """Where the wheel keeps its TTF files. Found without importing matplotlib, which takes 0.3 s.

    Raises:
        ValueError: matplotlib is not installed.
    """
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ValueError("fonts: their wheel, matplotlib, is missing; `pip install xgenmm_jax[demo]` installs it.")
    return pathlib.Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@functools.cache
def load(font: str, size: int) -> PIL.ImageFont.FreeTypeFont:
    # Basic layout: the same pixels whether or not the machine has libraqm.
    return PIL.ImageFont.truetype(str(font_folder() / f"{font}.ttf"), size, layout_engine=PIL.ImageFont.Layout.BASIC)


@functools.lru_cache(maxsize=65536)
def _bounds(font: str, size: int, string: str) -> tuple[int, int, int, int]:
    left, top, right, bottom = load(font, size).getbbox(string)
    # Pillow counts the empty margins of the first and the last character in.
    before, after = _margins(font, size, string[0])[0], _margins(font, size, string[-1])[1]
    return (int(left) + before, int(top), int(right) - after, int(bottom))


@functools.cache
def _margins(font: str, size: int, character: str) -> tuple[int, int]:
    """Empty pixels left and right of a character's ink."""
    mask = load(font, size).getmask(character)
    left, _, right, _ = mask.getbbox()
    return (left, mask.size[0] - right)


def extent(font: str, size: int, string: str) -> tuple[int, int]:
    """Width and height in pixels of a string's ink."""
    left, top, right, bottom = _bounds(font, size, string)
    return (right - left, bottom - top)


def paint(
    canvas: PIL.ImageDraw.ImageDraw,
    string: str,
    corner: tuple[int, int],
    font: str,
    size: int,
    ink: tuple[int, int, int],
) -> None:
    """Paints a string so that its ink's top left pixel is `corner`."""
    left, top, _, _ = _bounds(font, size, string)
    canvas.text((corner[0] - left, corner[1] - top), string, fill=ink, font=load(font, size))
