"""The pixels of any image as RGB in 8 bits: deep numbers scaled, transparency on white, the photo upright.

Pillow's `convert("RGB")` clips numbers above 255 to white and takes 0..1 for black, drops transparency, and leaves a
photo as the camera held it. What stands here needs the image as it was opened, before `load` forgets half of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.PngImagePlugin
import PIL.TiffImagePlugin

WHITE = (255, 255, 255)
_FILLED = 16
"""A range is taken for an image's own where the largest number is above one of so many parts of it."""
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_UNSIGNED = 1
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_SEMI = {"La": "LA", "RGBa": "RGBA"}  # colours multiplied by alpha: what Pillow converts them to first


class Undecided(ValueError):
    """A predicate without its subject: what an image holds that tells nobody which of its numbers are white."""


class Meaning(NamedTuple):
    """What the file says about its numbers and Pillow's mode does not.

    white: the number that means white where the format tells; None: the numbers themselves must.
    """

    white: int | None = None
    is_unsigned: bool = False  # 32 bits, which Pillow keeps in signed numbers
    is_inverted: bool = False  # TIFF's WhiteIsZero, which Pillow obeys in 8 bits alone
    transparency: Any = None  # what stands in `info`, in the scale of the pixels


def meaning(image: PIL.Image.Image) -> Meaning:
    """Of an image that is not loaded yet; of one that is, as far as it is still known."""
    transparency = _transparency(image)
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        orientation(image)
    if image.mode.startswith("I;16"):
        white = 65535
        if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
            white = 2 ** min(16, *_tag(image, _BITS, 16)) - 1
        return Meaning(white, False, _is_inverted(image), transparency)
    if image.mode == "F":
        return Meaning(is_inverted=_is_inverted(image), transparency=transparency)
    if image.mode == "I":
        if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
            is_short = _tag(image, _BITS, 32)[0] == 16
            return Meaning(32767 if is_short else None, _tag(image, _SAMPLE_FORMAT, _UNSIGNED)[0] == _UNSIGNED)
        if image.format in ("PPM", "PNG"):  # Pillow scales PPM to 16 bits; PNG's were "I" before Pillow 11
            return Meaning(65535, transparency=transparency)
    return Meaning(transparency=transparency)


def _is_inverted(image: PIL.Image.Image) -> bool:
    # Without the tag, which the format demands, Pillow reads 0; nobody who leaves it out means a negative.
    return isinstance(image, PIL.TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def _tag(image: PIL.TiffImagePlugin.TiffImageFile, tag: int, default: int) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)
    return value if isinstance(value, tuple) else (value,)


def _transparency(image: PIL.Image.Image) -> Any:
    """The colour or index that is transparent; PNG gives it in the file's depth, and Pillow's pixels have 8 bits."""
    value = image.info.get("transparency")
    if value is None or not isinstance(image, PIL.PngImagePlugin.PngImageFile):
        return value
    raw = str(image.tile[0][3]) if image.tile else ""
    if image.mode == "RGB" and isinstance(value, tuple) and (raw.endswith(";16B") or max(value) > 255):
        return tuple(number >> 8 for number in value)
    if raw in ("L;2", "L;4") and isinstance(value, int):
        return value * {"L;2": 85, "L;4": 17}[raw]
    return value


def orientation(image: PIL.Image.Image) -> int:
    """1 to 8, as EXIF or XMP tells; 1, upright, where they tell nothing or are damaged."""
    try:
        value = image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # EXIF is the camera's; whatever Pillow finds wrong with it does not touch the pixels
        if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
            image.getexif = PIL.Image.Exif  # Pillow, which turns TIFF by itself, would ask again and fail
        return 1


def shown_size(image: PIL.Image.Image, official: bool) -> tuple[int, int]:
    """(width, height) that `rgb` will have, told from the header of an image that is not loaded yet."""
    width, height = image.size
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        # Pillow turns TIFF by itself, in the official code as here; which versions say so in `size` differs.
        width, height = image.tag_v2[PIL.ExifTags.Base.ImageWidth], image.tag_v2[PIL.ExifTags.Base.ImageLength]
    elif official:
        return width, height
    return (height, width) if orientation(image) in _SIDEWAYS else (width, height)


def rgb(image: PIL.Image.Image, meant: Meaning, upright: int, official: bool) -> PIL.Image.Image:
    """The image as RGB, without `info`, so that nobody turns it again. The image is loaded and ours: it may change.

    upright: the `orientation` to undo. official: transparency is dropped, as in the released code.

    Raises Undecided where nothing tells which of its numbers are black and white.
    """
    alpha = None if official else _alpha(image, meant)
    # Where it stays, Pillow warns of palettes with several transparent colours.
    image.info.pop("transparency", None)
    if image.mode in _DEEP:
        image = PIL.Image.fromarray(_gray(image, meant))
    # `convert` copies even where nothing is to be done. A JPEG that is loaded is as good as its copy; images of formats
    # with several frames would look for these in a file that is closed.
    is_done = image.mode == "RGB" and image.format == "JPEG"
    pixels = image if is_done else _plain(image).convert("RGB")
    if alpha is not None:
        ground = PIL.Image.new("RGB", pixels.size, WHITE)
        ground.paste(pixels, mask=alpha)
        pixels = ground
    if upright in _TURNS:
        pixels = pixels.transpose(_TURNS[upright])
    pixels.info = {}
    return pixels


def _plain(image: PIL.Image.Image) -> PIL.Image.Image:
    return image.convert(_SEMI[image.mode]) if image.mode in _SEMI else image


def _alpha(image: PIL.Image.Image, meant: Meaning) -> PIL.Image.Image | None:
    """Opacity in 8 bits; None where nothing is transparent."""
    if meant.transparency is not None:
        if image.mode in _DEEP:
            opaque = np.asarray(image) != meant.transparency
            return PIL.Image.fromarray(np.where(opaque, np.uint8(255), np.uint8(0)))
        image.info["transparency"] = meant.transparency
    elif not image.has_transparency_data:
        return None
    alpha = _plain(image).convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha


def _gray(image: PIL.Image.Image, meant: Meaning) -> np.ndarray:
    """Bytes of an image of deeper numbers. The high byte stands for 16 bits, as it does where Pillow reads RGB of
    16 bits, libpng strips and torchvision converts: so gray and colour agree."""
    numbers = np.asarray(image)
    if meant.is_unsigned:
        numbers = numbers.view(np.uint32)
    gray = _by_rows(numbers, _scaling(numbers, meant))
    return 255 - gray if meant.is_inverted else gray


def _scaling(numbers: np.ndarray, meant: Meaning) -> Callable[[np.ndarray], np.ndarray]:
    low, high = numbers.min(), numbers.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise Undecided("holds numbers that are not finite, which have no brightness; replace them.")
    is_float = numbers.dtype.kind == "f"
    if meant.white is not None and low >= 0 and high <= meant.white:
        shift = meant.white.bit_length() - 8
        return lambda rows: rows >> shift
    if low >= 0 and is_float:
        if high <= 1:
            return lambda rows: rows * 255 + 0.5
        if 255 / _FILLED < high <= 255:
            return lambda rows: rows + 0.5
        if 65535 / _FILLED < high <= 65535:
            return lambda rows: rows / 256
    elif low >= 0:
        if high <= 255:
            return lambda rows: rows
        for white in (65535, np.iinfo(numbers.dtype).max):
            if white / _FILLED < high <= white:
                shift = int(white).bit_length() - 8
                return lambda rows: rows >> shift
    if low == high:
        raise Undecided(f"holds the number {low:g} alone, which may be black or white; save it in 8 bits.")
    # Heights, counts, distances: scaled from their range, as viewers of such files show them.
    low, scale = float(low), 255 / (float(high) - float(low))
    return lambda rows: (rows.astype(np.float64) - low) * scale + 0.5


def _by_rows(numbers: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray], rows: int = 256) -> np.ndarray:
    """A large image is converted in parts: in float64 the whole would take 700 MB."""
    result = np.empty(numbers.shape, np.uint8)
    for first in range(0, len(numbers), rows):
        result[first : first + rows] = scaled(numbers[first : first + rows])
    return result
