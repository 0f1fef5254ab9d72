"""Boxes of a scene's things, and captions that contain them."""

from xgenmm_jax.data.captions import grounding
from xgenmm_jax.data.captions.cells import FractionBox
from xgenmm_jax.nano.world import language
from xgenmm_jax.nano.world.world import Scene, Thing


def fraction_box(thing: Thing, size_px: tuple[int, int], digits: int = 2) -> FractionBox:
    """A thing's box as fractions of the image, rounded: two digits are as fine as a pixel of a base view."""
    width, height = size_px
    left, top, right, bottom = thing.box
    x1, x2, y1, y2 = (round(v, digits) for v in (left / width, right / width, top / height, bottom / height))
    return (x1, y1, x2, y2)


def grounding_caption(scene: Scene, level: grounding.Level) -> str:
    """Every thing with its position."""
    return language.enumeration([_grounded(t, scene.size_px, level) for t in language.reading_order(scene)])


def _grounded(thing: Thing, size_px: tuple[int, int], level: grounding.Level) -> str:
    noun = language.noun(thing)
    determiner = language.phrase(thing).removesuffix(noun)
    box, corners = fraction_box(thing, size_px, 6), language.box_text(thing.box, size_px)
    return grounding.grounded(determiner, noun, box, corners, level)
