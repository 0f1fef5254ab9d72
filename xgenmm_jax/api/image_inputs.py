"""Images that users pass in, of any form, and lists of them: checked and brought into a few forms."""

from collections.abc import Iterable
import io
import os
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import PIL.Image

from xgenmm_jax import buckets
from xgenmm_jax.data.records import Crops, LazyImage
from xgenmm_jax.generation.arguments import shown
from xgenmm_jax.paths import BUCKETS, Path, user_path

Image = PIL.Image.Image | Crops | LazyImage | str | os.PathLike | bytes | bytearray | np.ndarray | io.IOBase | object
"""What users may pass as an image.

A PIL image; a file's name, or an object's in a bucket (gs://, s3://); the bytes of a file, or one that is open in
binary mode; pixels, as an array of any library: [h w], [h w 1], [h w 3] or [h w 4], whole numbers of 0 to 255 or floats
of 0 to 1; `Crops`, which are cut already.
"""

REMEDY = "give a PIL image, a file's name, a file's bytes or an array of pixels [h w 3]"
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/|data:|//")
_CHANNELS = (1, 2, 3, 4)
"""Grey, grey and alpha, RGB, RGBA."""
MOST_BYTES = 2**30
"""Of an object in a bucket, which is read as a whole."""


def readable(image: Image) -> LazyImage | Crops | PIL.Image.Image | Path | bytes:
    """The image in a form that it can be read from: a file's path, its bytes, a PIL image, or decoded already.

    Raises ValueError for a URL, which is not fetched; for a file that is closed; for pixels in another order or range;
    and for everything else that is no `Image`.
    """
    if isinstance(image, LazyImage):
        return image
    if isinstance(image, Crops):
        return _checked_crops(image)
    if isinstance(image, PIL.Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return _file(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return _encoded(bytes(image), "the bytes are none")
    if hasattr(image, "read"):
        return _read(image)
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return from_array(image)
    raise ValueError(f"image: got {shown(image)}; {REMEDY}.")


def _checked_crops(crops: Crops) -> Crops:
    """The same. Raises ValueError where they are no crops of an image."""
    shape = getattr(crops.pixels, "shape", ())
    if not hasattr(crops.pixels, "__array__") or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"image: got crops whose pixels are {shown(crops.pixels)}; give an array [n S S 3].")
    size = crops.size_px
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(isinstance(px, int | np.integer) for px in size):
        raise ValueError(f"image: got crops of size_px {shown(size)}; give (width, height) of the image, uncut.")
    if min(size) < 1:
        raise ValueError(f"image: got crops of an image of {size[0]} x {size[1]} px; give its size, uncut.")
    return crops


def _file(name: str | os.PathLike) -> Path:
    text = os.fspath(name)
    if not isinstance(text, str):
        raise ValueError(f"image: got the path {shown(text)} in bytes; give it as text (os.fsdecode).")
    is_elsewhere = _URL.match(text) is not None and not text.startswith(tuple(f"{name}://" for name in BUCKETS))
    path = pathlib.Path(text) if is_elsewhere else user_path(text, "image")
    if len(text) > 4096 or len(path.name) > 255:
        raise ValueError(f"image: got a text of {len(text):,} letters, no file's name; give encoded bytes as bytes.")
    if is_elsewhere and not path.exists():
        start = text if len(text) <= 60 else f"{text[:60]}..."
        raise ValueError(f"image: got '{start}', which is fetched from nowhere; save it, and give the file's name.")
    return path


def object_bytes(path: Path) -> bytes:
    """Of an image in a bucket. Raises ValueError where it is not there, is no image's size, or nothing answers."""
    try:
        size = buckets.size(path)
        data = buckets.read(path) if size <= MOST_BYTES else b""
    except FileNotFoundError:
        data = None
    if data is None:
        raise ValueError(f"image: no file '{path}'; check the path.")
    if size > MOST_BYTES:
        raise ValueError(f"image: '{path}' has {size:,} bytes, more than {MOST_BYTES:,}; give an image's file.")
    return _encoded(data, f"'{path}' is empty")


def _encoded(data: bytes, nothing: str) -> bytes:
    if not data:
        raise ValueError(f"image: {nothing}; give those of an image's file.")
    return data


def _read(file: Any) -> bytes:
    """All bytes of an open file, from its beginning where it has one; it stays open, and where it was."""
    name = f"the open file {getattr(file, 'name', '')}".rstrip()
    try:
        position = file.tell() if file.seekable() else None
        if position is not None:
            file.seek(0)
        data = file.read()
        if position is not None:
            file.seek(position)
    except (ValueError, OSError, AttributeError, TypeError) as error:
        what = "is closed" if getattr(file, "closed", False) else "cannot be read"
        raise ValueError(f"image: {name} {what} ({error}); open it for reading, in binary mode.") from error
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"image: {name} gives {type(data).__name__}; open it in binary mode, 'rb'.")
    return _encoded(bytes(data), f"{name} is empty")


def from_array(image: Any) -> PIL.Image.Image:
    """A PIL image of the pixels in any library's array, copied.

    Raises ValueError where the shape or the numbers are none of an image's.
    """
    try:
        array = np.asarray(image)
    except Exception as error:  # each library has its own: on another device, waiting for a gradient, ...
        remedy = "give it as a numpy array, of torch .detach().cpu().numpy()"
        reason = " ".join(str(error).split())
        raise ValueError(f"image: the {type(image).__name__} gives no array ({reason}); {remedy}.") from error
    pixels = _bytes_of(_checked_shape(array))
    return PIL.Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)).copy()


def _checked_shape(array: np.ndarray) -> np.ndarray:
    """[h w c] of an image. Raises ValueError for other shapes."""
    got = f"image: got an array of shape {array.shape}"
    if array.ndim == 4:
        raise ValueError(f"{got}, several images; give them one by one, in a list.")
    if array.ndim not in (2, 3) or not array.size:
        raise ValueError(f"{got}, wanted height, width and 3 channels.")
    array = array[..., None] if array.ndim == 2 else array
    if array.shape[2] not in _CHANNELS:
        if array.shape[0] in _CHANNELS:
            raise ValueError(f"{got}, with the channels first; put them last, array.transpose(1, 2, 0).")
        raise ValueError(f"{got}, {array.shape[2]} channels; wanted 3, red, green and blue.")
    return array


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """Pixels as uint8. Raises ValueError for numbers outside of 0 to 255, or for floats outside of 0 to 1."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    is_float = jnp.issubdtype(array.dtype, jnp.floating)  # bfloat16, too
    if not is_float and array.dtype.kind not in "iu":
        allowed_values = "whole numbers of 0 to 255, or floats of 0 to 1"
        raise ValueError(f"image: got an array of {array.dtype}; give {allowed_values}.")
    array = array.astype(np.float32) if is_float else array
    least, most, allowed = array.min(), array.max(), 1 if is_float else 255
    if not (least >= 0 and most <= allowed):  # nan is neither
        kind = "floats" if is_float else "whole numbers"
        raise ValueError(
            f"image: got an array of {kind} from {least:g} to {most:g}, wanted 0 to {allowed}; scale it first, as "
            "whole numbers of 0 to 255 or floats of 0 to 1."
        )
    return np.rint(array * 255).astype(np.uint8) if is_float else array.astype(np.uint8)


def is_image(value: Any) -> bool:
    """Whether this is an image, and no list of them: a text is a name, an array of three axes is pixels."""
    if isinstance(value, PIL.Image.Image | LazyImage | Crops | str | os.PathLike | bytes | bytearray | memoryview):
        return True
    return hasattr(value, "read") or getattr(value, "ndim", 0) in (2, 3)


def as_list(images: Any) -> list[Any]:
    """The images of one prompt: of a list, an array of several, one image alone, or None for none.

    Raises ValueError for what is no list.
    """
    if images is None:
        return []
    if is_image(images):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, dict | set | frozenset):
        raise ValueError(f"images: got {shown(images)}; give a list of them.")
    return list(images)


def per_prompt(images: Any, prompts: int, caller: str, rows: str) -> list[list[Any]]:
    """The images of each prompt.

    The images of a single prompt may also be a flat list: ["a.png"] is [["a.png"]]. With several prompts a flat list
    is refused, since it could mean one image for each prompt or all images for all. caller, rows: the function and
    its prompts in words, for errors.

    Raises ValueError where there are not as many lists as prompts.
    """
    if images is None:
        return [[] for _ in range(prompts)]
    outer = as_list(images)
    bare = [entry for entry in outer if is_image(entry)]
    if prompts == 1 and (is_image(images) or len(bare) == len(outer)):
        return [outer]
    if bare:
        raise ValueError(
            f"{caller}: got {shown(bare[0])} in place of a list of images; give each prompt its own list, as "
            "[[first], [second]]."
        )
    if len(outer) != prompts:
        raise ValueError(f"{caller}: got {prompts} {rows} {len(outer)} lists of images; give one for each.")
    return [as_list(entry) for entry in outer]
