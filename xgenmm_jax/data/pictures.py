"""Opening picture files, with one clear sentence for what cannot be one."""

import functools
import io
from pathlib import Path
import warnings

import PIL.Image

from xgenmm_jax.data.records import Picture

MAX_PIXELS = 89_000_000  # 267 MB decoded; Pillow itself warns a little above
# Ours comes as an error right behind. Not around the call: warnings.catch_warnings is not safe in the loader's threads.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
_WANTED = "wanted a picture that Pillow reads (PNG, JPEG, WebP, TIFF, GIF, ...)"


def open_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in a file: its header is read now, its pixels on `load`.

    As in the official code, transparency and EXIF orientation are ignored.

    Raises:
        ValueError: missing, empty, not a picture, or larger than `max_pixels`; on `load`: truncated or damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"picture: '{path}' is a folder; give one picture file.")
    if not path.is_file():
        raise ValueError(f"picture: no file '{path}'; check the path.")
    return Picture(_size(path, f"'{path}'", max_pixels), functools.partial(_load, path, f"'{path}'"))


def picture_from_bytes(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in encoded bytes, as `open_picture`. name: what errors call it."""
    return Picture(_size(io.BytesIO(data), name, max_pixels), functools.partial(_load_bytes, data, name))


def _open(file: Path | io.BytesIO, name: str) -> PIL.Image.Image:
    try:
        return PIL.Image.open(file)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ValueError(f"picture: {name} is gigantic ({error}); scale it down.") from error
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"picture: {name} is not a picture or its header is damaged; {_WANTED}.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"picture: {name} cannot be opened ({error}); {_WANTED}.") from error


def _size(file: Path | io.BytesIO, name: str, max_pixels: int) -> tuple[int, int]:
    with _open(file, name) as image:
        width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"picture: {name} has {width} x {height} pixels, more than {max_pixels:,}; scale it down.")
    if min(width, height) < 1:
        raise ValueError(f"picture: {name} has {width} x {height} pixels; {_WANTED}.")
    return width, height


def _load(file: Path | io.BytesIO, name: str) -> PIL.Image.Image:
    with _open(file, name) as image:
        try:
            return image.convert("RGB")
        # Pillow's decoders raise any of these for damaged data.
        except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
            raise ValueError(f"picture: {name} is truncated or damaged ({error}); copy it again.") from error


def _load_bytes(data: bytes, name: str) -> PIL.Image.Image:
    return _load(io.BytesIO(data), name)
