"""Images in words: each cell of a 4 x 4 grid holds the names of what lies in it, for a language model to look into.

A large language model looks things up in its context from its first image on; one of nano's size has to learn it, and
from sentences, where "red" and "star" are two positions, it never did
(docs/log/language_model.md#symbolic-images-teach-lookup). Here it meets its later task in words alone:
`{red star top left}` is one position, as one vision token is.

Such an image has the size and type of any other, so rows, packing and order are those of real ones: in the first pixel
row of a cell the red channel holds the cell's words, numbers into WORDS.
"""

from dataclasses import dataclass

from jaxtyping import UInt8
import numpy as np
import PIL.Image

from xgenmm_jax.batch import ArrayLike
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.nano.world import drawings, world
from xgenmm_jax.nano.world.splits import COLORS, POSITIONS, SHAPES
from xgenmm_jax.nano.world.world import BASE_PX, Scene, Thing

CELLS = 4
"""Of a row and of a column."""
CELL_PX = BASE_PX // CELLS
WORDS_OF_CELL = CELL_PX
_KINDS = ("picture", "text", "digit")
_NAMES = tuple(word for name in (*drawings.OBJECTS, *(d.name for d in drawings.DANGERS)) for word in name.split())
_PARTS = tuple(word for position in POSITIONS for word in position.split())
WORDS: tuple[str, ...] = (
    "",
    *dict.fromkeys((*_KINDS, "frame", *COLORS, *SHAPES, *_PARTS, *_NAMES, *"0123456789", *world.ALPHABET)),
)
"""WORDS[0] stands for none."""
_NUMBER = {word: number for number, word in enumerate(WORDS)}
ENOUGH = 0.35
"""Of a cell: what covers as much of it is named in it. What covers as much of none is named where it covers most."""


@dataclass(frozen=True)
class WordPainter:
    """Gives a scene's image in words; it pickles, so any worker can make it."""

    scene: Scene

    def __call__(self) -> PIL.Image.Image:
        pixels = np.zeros((BASE_PX, BASE_PX, 3), np.uint8)
        for cell, words in enumerate(cell_words(self.scene)):
            top, left = (CELL_PX * i for i in divmod(cell, CELLS))
            numbers = [_NUMBER[word] for word in words[:WORDS_OF_CELL]]
            pixels[top, left : left + len(numbers), 0] = numbers
        return PIL.Image.fromarray(pixels)


def in_words(scene: Scene) -> LazyImage:
    """A scene of 64 x 64 pixels as an image in words.

    Raises:
        ValueError: another size.
    """
    if scene.size_px != (BASE_PX, BASE_PX):
        raise ValueError(f"picture in words: got a scene of {scene.size_px} pixels; wanted {BASE_PX} x {BASE_PX}.")
    return LazyImage(scene.size_px, WordPainter(scene))


def cell_words(scene: Scene) -> list[list[str]]:
    """For each cell, row by row, its words: `["picture", "red", "star", "top", "left"]`; `["picture"]` if empty."""
    cells: list[list[str]] = [["picture", *(["frame"] if scene.frame else [])] for _ in range(CELLS * CELLS)]
    for thing in scene.things:
        if thing.kind == "text":
            _lay_string(cells, thing)
            continue
        words = [*_called(thing), *thing.position.split()]
        cover = _cover(thing)
        for cell in {int(cover.argmax()), *np.flatnonzero(cover > ENOUGH).tolist()}:
            cells[cell] += words
    return cells


def _called(thing: Thing) -> list[str]:
    if thing.kind == "shape":
        return [thing.color, thing.name]
    return ["digit", thing.name] if thing.kind == "digit" else thing.name.split()


def _lay_string(cells: list[list[str]], thing: Thing) -> None:
    """Each character into the cell that holds its middle, and what all of them are."""
    left, top, right, bottom = thing.box
    row = (top + bottom) // 2 // CELL_PX
    columns = [int(left + (i + 0.5) * (right - left) / len(thing.name)) // CELL_PX for i in range(len(thing.name))]
    for column in dict.fromkeys(columns):
        characters = [c for c, at in zip(thing.name, columns, strict=True) if at == column]
        cells[row * CELLS + column] += ["text", *thing.position.split(), *characters]


def _cover(thing: Thing) -> np.ndarray:
    """The share of each cell that a thing's box covers, [CELLS * CELLS]."""
    left, top, right, bottom = thing.box
    start = np.arange(CELLS) * CELL_PX
    across = np.clip(np.minimum(right, start + CELL_PX) - np.maximum(left, start), 0, None)
    down = np.clip(np.minimum(bottom, start + CELL_PX) - np.maximum(top, start), 0, None)
    return (down[:, None] * across[None]).ravel() / CELL_PX**2


def word_numbers(pixels: UInt8[ArrayLike, "*n h w 3"]) -> UInt8[ArrayLike, "*n cells words"]:
    """What `WordPainter` wrote, from crops of 64 x 64; zeros are no words. numpy or JAX."""
    rows = pixels[..., ::CELL_PX, :, 0]
    return rows.reshape(*pixels.shape[:-3], CELLS * CELLS, WORDS_OF_CELL)
