"""Paints scenes."""

import functools
import math

import PIL.Image
import PIL.ImageDraw

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.nano.world import draw_text, drawings
from xgenmm_jax.nano.world.world import Box, Scene, Thing, visible_part

_SUPERSAMPLE = 4
HAZARD_YELLOW = (250, 205, 0)


def _star(points: int, inner: float) -> list[tuple[float, float]]:
    corners = []
    for i in range(2 * points):
        radius = 0.5 if i % 2 == 0 else 0.5 * inner
        angle = math.pi * (i / points - 0.5)
        corners.append((0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle)))
    return corners


def _heart() -> list[tuple[float, float]]:
    corners = []
    for i in range(48):
        t = 2 * math.pi * i / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((0.5 + x / 33, 0.46 - y / 31))
    return corners


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corners in the unit square, y down."""
    if shape == "triangle":
        return [(0.5, 0.04), (1.0, 0.94), (0.0, 0.94)]
    if shape == "star":
        return _star(5, 0.42)
    if shape == "heart":
        return _heart()
    if shape == "diamond":
        return [(0.5, 0.0), (0.86, 0.5), (0.5, 1.0), (0.14, 0.5)]
    low, high = 0.33, 0.67
    return [
        (low, 0.0), (high, 0.0), (high, low), (1.0, low), (1.0, high), (high, high),
        (high, 1.0), (low, 1.0), (low, high), (0.0, high), (0.0, low), (low, low),
    ]  # fmt: skip


@functools.lru_cache(maxsize=1024)
def shape_mask(shape: str, size: int) -> PIL.Image.Image:
    """The coverage of a shape: L, size x size, smooth edges."""
    side = size * _SUPERSAMPLE
    mask = PIL.Image.new("L", (side, side), 0)
    canvas = PIL.ImageDraw.Draw(mask)
    if shape in ("circle", "ring"):
        canvas.ellipse((0, 0, side - 1, side - 1), fill=255)
        if shape == "ring":
            inset = side * 0.25
            canvas.ellipse((inset, inset, side - 1 - inset, side - 1 - inset), fill=0)
    elif shape == "square":
        inset = side * 0.06
        canvas.rectangle((inset, inset, side - 1 - inset, side - 1 - inset), fill=255)
    else:
        canvas.polygon([(x * (side - 1), y * (side - 1)) for x, y in _polygon(shape)], fill=255)
    return mask.resize((size, size), PIL.Image.Resampling.BOX)


@functools.lru_cache(maxsize=2048)
def resized_sprite(name: str, style: str, size_px: tuple[int, int]) -> PIL.Image.Image:
    """The visible part of a drawing, RGBA, at a size."""
    part = drawings.sprite(name, style).crop(visible_part(name, style))
    return part.resize(size_px, PIL.Image.Resampling.LANCZOS)


@functools.lru_cache(maxsize=32)
def _hazard_frame(size_px: tuple[int, int], width: int, phase: int) -> PIL.Image.Image:
    """Diagonal black and yellow stripes along the border, RGBA, empty inside."""
    image = PIL.Image.new("RGBA", size_px, HAZARD_YELLOW + (255,))
    canvas = PIL.ImageDraw.Draw(image)
    step = 10
    for start in range(-size_px[1] - step + phase, size_px[0] + step, step):
        end = start + step // 2
        height = size_px[1]
        canvas.polygon([(start, 0), (end, 0), (end + height, height), (start + height, height)], fill=(15, 15, 15, 255))
    canvas.rectangle((width, width, size_px[0] - 1 - width, size_px[1] - 1 - width), fill=(0, 0, 0, 0))
    return image


def _paint_thing(image: PIL.Image.Image, canvas: PIL.ImageDraw.ImageDraw, thing: Thing) -> None:
    left, top, right, bottom = thing.box
    size = right - left
    if thing.kind == "shape":
        image.paste(thing.ink, (left, top), shape_mask(thing.name, size))
    elif thing.kind == "text":
        draw_text.paint(canvas, thing.name, (left, top), thing.look, thing.size, thing.ink)
    elif thing.kind == "object":
        sprite = resized_sprite(thing.name, thing.look, (size, bottom - top))
        image.paste(sprite, (left, top), sprite)
    elif thing.kind == "bar":
        canvas.rectangle(_inclusive(thing.box), fill=thing.ink)
    else:
        split, index = thing.look.split("/")
        stroke = drawings.digit(split, int(index))[0].resize((size, size), PIL.Image.Resampling.BICUBIC)
        image.paste(thing.ink, (left, top), stroke)


def _inclusive(box: Box) -> Box:
    return (box[0], box[1], box[2] - 1, box[3] - 1)


def draw(scene: Scene) -> PIL.Image.Image:
    """RGB, scene.size_px."""
    image = PIL.Image.new("RGB", scene.size_px, scene.background)
    canvas = PIL.ImageDraw.Draw(image)
    width = max(6, min(scene.size_px) // 10)
    if scene.frame == "hazard":
        frame = _hazard_frame(scene.size_px, width, scene.frame_ink[0] % 10)
        image.paste(frame, (0, 0), frame)
    elif scene.frame == "plain":
        canvas.rectangle((0, 0, scene.size_px[0] - 1, scene.size_px[1] - 1), outline=scene.frame_ink, width=width)
    for thing in scene.things:
        _paint_thing(image, canvas, thing)
    return image


def lazy_image(scene: Scene) -> LazyImage:
    """An image that is painted when asked for; it pickles, so any worker can paint it."""
    return LazyImage(scene.size_px, functools.partial(draw, scene))


def scene_of(image: LazyImage) -> Scene:
    """The scene of an image that `lazy_image` gave.

    Raises:
        ValueError: it is another image.
    """
    painter = image.load
    if not (isinstance(painter, functools.partial) and painter.func is draw):
        raise ValueError(f"scene: got an image of {image.size_px} pixels that is not drawn; wanted an embedded one.")
    return painter.args[0]
