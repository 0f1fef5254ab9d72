"""Images from files, bytes and PIL images: opened by their header, decoded on demand, with one sentence per error.

Formats and damaged files: `image_files.py`. Pixels of any depth as RGB: `image_pixels.py`. There are two ways of
reading. A user's photo is rotated upright and transparency becomes white: what a person sees.
`official=True` reads as the released code does, which training and comparisons with it need: orientation is ignored and
alpha dropped. Deeper numbers than bytes are scaled in both (`image_pixels.py`).
"""

from collections.abc import Callable
import functools
import io
from pathlib import Path
from typing import TypeVar

import PIL.Image

from xgenmm_jax.data import image_pixels, tiff_copy
from xgenmm_jax.data.image_files import (
    WANTED,
    ImageFile,
    TiffPage,
    head_of,
    in_words,
    is_read,
    kind_of,
    late_metadata,
    open_pil,
    repaired,
    tiff_pages,
)
from xgenmm_jax.data.records import LazyImage

T = TypeVar("T")
MAX_PIXELS = 89_000_000  # 267 MB decoded; Pillow itself warns a little above


class _Refused(ValueError):
    """A whole sentence of ours about a file that Pillow reads."""


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS, *, official: bool = False) -> LazyImage:
    """The image in a file: its header is read now, its pixels on `load`. Of several frames it is the first.

    official: orientation and transparency as in the released code, for data; by default as a person sees the file.

    Raises:
        ValueError: missing, empty, not an image, or larger than `max_pixels`; on `load`: truncated or damaged.
    """
    path, name = Path(path), f"'{str(path)[:300]}'"
    try:
        if path.is_dir():
            raise ValueError(f"image: {name} is a folder; give one image file.")
        if not path.is_file():
            raise ValueError(f"image: no file {name}; check the path.")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ValueError(f"image: {name} cannot be opened ({in_words(error)}); check the path.") from error
    return _image(path, name, max_pixels, official)


def image_from_bytes(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, official: bool = False, page: int = 0
) -> LazyImage:
    """The image in encoded bytes, as `open_image`. name: what errors call it. page: of a TIFF, counted from 0."""
    if page == 0:
        return _image(data, name, max_pixels, official)
    pages = _pages(data, name)
    if not 0 < page < len(pages):
        raise ValueError(f"image: {name} has {len(pages)} pages, got page {page}; wanted 0 to {len(pages) - 1}.")
    return _image(pages[page], f"{name}, page {page + 1},", max_pixels, official)


def page_openers(data: bytes, name: str) -> list[Callable[[], LazyImage]]:
    """What opens each page of a TIFF, or the one image of any other format, as data are read.

    Raises ValueError where the file is cut off within the list of its pages; an opener, where its page is damaged.
    """
    pages = _pages(data, name)
    names = [name, *(f"{name}, page {number}," for number in range(2, len(pages) + 1))]
    return [functools.partial(_image, *page, MAX_PIXELS, True) for page in zip(pages, names, strict=True)]


def _pages(data: bytes, name: str) -> list[ImageFile]:
    kind = kind_of(head_of(data))
    if kind is None or kind.reader != "TIFF":
        return [data]
    try:
        return tiff_pages(data)
    except ValueError as error:
        raise ValueError(f"image: {name} {error}") from error


def load_official(data: bytes, name: str) -> PIL.Image.Image:
    """The pixels of the image in encoded bytes, as data are read. Raises ValueError as `open_image` and its `load`."""
    return image_from_bytes(data, name, official=True).load()


def encoded(image: LazyImage) -> bytes:
    """Bytes from which `image_from_bytes(..., official=True)` gives this image's pixels: those of its file where that
    was read as data are, of a TIFF of several pages those of the page alone, else a PNG of its pixels.

    Raises ValueError where the file is gone, or the pixels are damaged and have no file that could be copied.
    """
    load = image.load
    is_partial = isinstance(load, functools.partial)
    if is_partial and load.func is load_official:
        return load.args[0]
    if is_partial and load.func is _load and load.args[3]:
        file, name = load.args[:2]
        if not isinstance(file, TiffPage):
            try:
                data = file if isinstance(file, bytes) else file.read_bytes()
            except OSError as error:
                raise ValueError(f"image: {name} cannot be opened ({in_words(error)}); check the path.") from error
            file, *more = _pages(data, name)
            if not more:
                return data
        if (of_page := tiff_copy.alone(file.data, file.offset)) is not None:
            return of_page
    buffer = io.BytesIO()
    image.load().save(buffer, "PNG")
    return buffer.getvalue()


def image_from_pil(
    image: PIL.Image.Image, name: str = "the image", max_pixels: int = MAX_PIXELS, *, official: bool = False
) -> LazyImage:
    """The image in a PIL image of any mode, as it is now; later changes of it do not count.

    Raises ValueError as `open_image` and its `load`.
    """
    _check_size(image, name, max_pixels)
    try:
        meant = image_pixels.meaning(image)
        image.load()
        upright = 1 if official else image_pixels.orientation(image)
        pixels = image_pixels.rgb(image.copy(), meant, upright, official)
    except image_pixels.Undecided as error:
        raise ValueError(f"image: {name} {error}") from error
    except Exception as error:
        # Of a file that was closed before its pixels were read, Pillow raises an assertion without words.
        reason = "its file is closed" if isinstance(error, AssertionError) else in_words(error)
        remedy = "open it again, and close it afterwards"
        raise ValueError(f"image: {name} cannot be read as RGB ({reason}); {remedy}.") from error
    return LazyImage(pixels.size, pixels.copy)


def _image(file: ImageFile, name: str, max_pixels: int, official: bool) -> LazyImage:
    header = functools.partial(_header, name=name, max_pixels=max_pixels, official=official)
    size_px = _read(file, name, header, "cannot be opened")
    load = functools.partial(_load, file, name, size_px, official)
    return LazyImage(size_px, load, load)


def _load(
    file: ImageFile, name: str, size_px: tuple[int, int], official: bool, least_px: int | None = None
) -> PIL.Image.Image:
    pixels = functools.partial(_pixels, name=name, size_px=size_px, official=official, least_px=least_px)
    return _read(file, name, pixels, "is truncated or damaged")


def _header(image: PIL.Image.Image, name: str, max_pixels: int, official: bool) -> tuple[int, int]:
    _check_size(image, name, max_pixels)
    if not official and late_metadata(image):
        image.load()  # PNG alone, and rarely
    return image_pixels.shown_size(image, official)


def _check_size(image: PIL.Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _Refused(f"image: {name} has {width} x {height} pixels, more than {max_pixels:,}; scale it down.")
    if min(width, height) < 1:
        raise _Refused(f"image: {name} has {width} x {height} pixels; {WANTED}.")


def _pixels(
    image: PIL.Image.Image, name: str, size_px: tuple[int, int], official: bool, least_px: int | None
) -> PIL.Image.Image:
    if sorted(image.size) != sorted(size_px):
        raise _other_size(image, name, size_px)
    # Of JPEG alone; it keeps the image as it is where no scale leaves both sides so long.
    is_scaled = least_px is not None and image.draft(image.mode, (least_px, least_px)) is not None
    meant = image_pixels.meaning(image)
    image.load()
    upright = 1 if official else image_pixels.orientation(image)
    try:
        pixels = image_pixels.rgb(image, meant, upright, official)
    except image_pixels.Undecided as error:
        raise _Refused(f"image: {name} {error}") from error
    if pixels.size != size_px and not is_scaled:
        raise _other_size(pixels, name, size_px)
    return pixels


def _other_size(image: PIL.Image.Image, name: str, size_px: tuple[int, int]) -> _Refused:
    return _Refused(
        f"image: {name} has {image.width} x {image.height} pixels and its header said {size_px[0]} x {size_px[1]}; "
        "leave it alone while it is used, or copy it again."
    )


def _read(file: ImageFile, name: str, work: Callable[[PIL.Image.Image], T], failing: str) -> T:
    """What `work` makes of the image in the file; where that fails, of the file without its metadata.

    failing: what is said of a file that Pillow takes for an image and fails on.
    """
    try:
        return _once(file, name, work)
    except _Refused:
        raise
    # Pillow's readers raise anything for damaged files: struct.error, KeyError, RuntimeError, MemoryError, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            what = f"cannot be opened ({in_words(error)}); check the path and its permissions."
            raise ValueError(f"image: {name} {what}") from error
        try:
            bare = repaired(file)
            if bare is not None:
                return _once(bare, name, work)
        except _Refused:
            raise
        except Exception:
            pass  # what was wrong with the file as it is says more
        raise ValueError(f"image: {name} {_reason(file, error, failing)}") from error


def _once(file: ImageFile, name: str, work: Callable[[PIL.Image.Image], T]) -> T:
    try:
        with open_pil(file) as image:
            return work(image)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise _Refused(f"image: {name} is gigantic ({in_words(error)}); scale it down.") from error


def _reason(file: ImageFile, error: Exception, failing: str) -> str:
    head = head_of(file)
    kind = kind_of(head)
    if not head:
        return "is empty; copy it again."
    if kind is not None and not is_read(kind):
        return f"is {kind.name}, which is not read here; {kind.remedy}."
    if isinstance(error, PIL.UnidentifiedImageError):
        if kind is None:
            return f"is not an image or its header is damaged; {WANTED}."
        return f"is {kind.name}, damaged or of a rare sort; copy it again or convert it to PNG or JPEG."
    return f"{failing} ({in_words(error)}); copy it again."
