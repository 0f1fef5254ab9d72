"""Image files through Pillow: formats that are read, names of the others, repair of damaged metadata.

Pixels: `image_pixels.py`. What both give together, with errors for users: `images.py`.
"""

from collections.abc import Iterator
import contextlib
import functools
import importlib.util
import io
from pathlib import Path
import re
import struct
from typing import NamedTuple
import warnings
import zlib

import PIL.Image
import PIL.PngImagePlugin

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is read, JPEG with MPO. None of them runs another program (EPS runs Ghostscript) or holds images of sizes that
the header hides (ICO, ICNS). HEIF is read where pillow-heif is installed."""
WANTED = "wanted PNG, JPEG, WebP, GIF, BMP, TIFF, PNM, AVIF or JPEG 2000"

# Ignored for the whole process: our errors say what is wrong with a file, and `warnings.catch_warnings` around the
# calls is not safe in the loader's threads.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

PNG_MARK = b"\x89PNG\r\n\x1a\n"
MOST_PAGES = 10_000
"""A TIFF of more is refused: to know them each page's directory is looked up."""
_HEAD = 256
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")


class Kind(NamedTuple):
    """A format as a person calls it, Pillow's name of it if we read it, and what to do with a file that is not read."""

    name: str
    reader: str = ""
    remedy: str = "convert it to PNG or JPEG"


_HEIC = Kind("HEIC", "HEIF", "convert it to JPEG, or pip install pillow-heif, with which it is read")
_KINDS = (
    (rb"\x89PNG\r\n\x1a\n", Kind("PNG", "PNG")),
    (rb"\xff\xd8\xff", Kind("JPEG", "JPEG")),
    (rb"RIFF....WEBP", Kind("WebP", "WEBP")),
    (rb"GIF8[79]a", Kind("GIF", "GIF")),
    (rb"II[*+]\0|MM\0[*+]", Kind("TIFF", "TIFF")),
    (rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51", Kind("JPEG 2000", "JPEG2000")),
    (rb"\0\0\0\x0cJXL \r\n|\xff\x0a", Kind("JPEG XL")),
    (rb"8BPS", Kind("a Photoshop file")),
    (rb"DDS ", Kind("DDS")),
    (rb"\0\0\x01\0", Kind("an icon (ICO)")),
    (rb"icns", Kind("an icon (ICNS)")),
    (rb"%!PS|\xc5\xd0\xd3\xc6", Kind("EPS")),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml.*|<!--.*)?<(svg|!DOCTYPE svg)", Kind("SVG")),
    (rb"(?i:\s*<(!doctype html|html|head))", Kind("a web page", remedy="download the image itself")),
    (rb"%PDF", Kind("PDF", remedy="convert its pages to PNG")),
    (rb"version https://git-lfs", Kind("a pointer of Git LFS", remedy="fetch the file itself: git lfs pull")),
    (rb"\x1f\x8b|PK\x03\x04", Kind("an archive", remedy="unpack it")),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", Kind("a video", remedy="save a frame of it as PNG")),
)


def kind_of(head: bytes) -> Kind | None:
    """What a file's first bytes say that it is; None: nothing that is known here."""
    if head[4:8] == b"ftyp":
        length = int.from_bytes(head[:4], "big")
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(length, len(head)), 4))]
        if any(brand in _HEIC_BRANDS for brand in brands):
            return _HEIC
        if b"avif" in brands or b"avis" in brands:
            return Kind("AVIF", "AVIF")
        if b"mif1" in brands or b"msf1" in brands:
            return _HEIC._replace(name="HEIF")
    return next((kind for pattern, kind in _KINDS if re.match(pattern, head, re.DOTALL)), None)


class TiffPage(NamedTuple):
    """One page of a TIFF: the bytes of the file, and where in them the page's directory lies."""

    data: bytes
    offset: int

    def opened(self) -> io.BytesIO:
        """The file with this page as its first."""
        file = io.BytesIO(self.data)
        form, start, _, _ = _tiff_layout(self.data)
        file.seek(start)
        file.write(struct.pack(form, self.offset))
        file.seek(0)
        return file


ImageFile = Path | bytes | TiffPage


def tiff_pages(data: bytes) -> list[TiffPage]:
    """The pages of a TIFF in their order, found by their directories alone; no pixel is read.

    Raises ValueError, a predicate without its subject, where the chain of directories is broken.
    """
    form, start, count_form, entry = _tiff_layout(data)
    pages: dict[int, TiffPage] = {}
    while True:
        try:
            [offset] = struct.unpack_from(form, data, start)
            if offset == 0:
                return list(pages.values())
            [count] = struct.unpack_from(count_form, data, offset)
        except struct.error as error:
            raise ValueError(f"ends before page {len(pages) + 1}; copy it again.") from error
        if offset in pages:
            raise ValueError(f"has the same page twice, as {len(pages) + 1} again; copy it again.")
        if len(pages) == MOST_PAGES:
            raise ValueError(f"has more than {MOST_PAGES:,} pages; cut it into several files.")
        pages[offset] = TiffPage(data, offset)
        # A directory is a number of entries, the entries, and where the next directory lies.
        start = offset + struct.calcsize(count_form) + count * entry


def _tiff_layout(data: bytes) -> tuple[str, int, str, int]:
    """How a TIFF writes places, where the first page's stands, how it writes counts, bytes of a directory's entry."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    return (f"{order}Q", 8, f"{order}Q", 20) if is_big else (f"{order}I", 4, f"{order}H", 12)


def is_read(kind: Kind) -> bool:
    """Whether it is read here: AVIF depends on Pillow's build, HEIC on pillow-heif."""
    return kind.reader in (_heif_formats() if kind.reader == "HEIF" else _formats())


def head_of(file: ImageFile) -> bytes:
    """The first bytes."""
    if isinstance(file, TiffPage):
        return file.data[:_HEAD]
    if isinstance(file, bytes):
        return file[:_HEAD]
    with open(file, "rb") as stream:
        return stream.read(_HEAD)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of ours that this Pillow has."""
    PIL.Image.init()
    return tuple(name for name in FORMATS if name in PIL.Image.OPEN)


@functools.cache
def _heif_formats() -> tuple[str, ...]:
    """What reads HEIC: pillow-heif, which is no requirement of ours, where it is installed."""
    if importlib.util.find_spec("pillow_heif") is None:
        return ()
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def open_pil(file: ImageFile) -> PIL.Image.Image:
    """The image in a file or in bytes, its pixels not read. Raises whatever Pillow's readers raise."""
    if isinstance(file, TiffPage):
        return PIL.Image.open(file.opened(), formats=("TIFF",))
    try:
        return PIL.Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats())
    except Exception:
        kind = kind_of(head_of(file))
        if kind is None or kind.reader != "HEIF" or not _heif_formats():
            raise
    return PIL.Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_heif_formats())


def repaired(file: ImageFile) -> bytes | None:
    """The file without metadata that may keep Pillow from its pixels; None where that can do nothing.

    Pillow refuses a PNG for a text or a profile above 1 MB or a wrong checksum in one, and an AVIF for damaged EXIF.
    """
    kind = kind_of(head_of(file))
    if kind is None or kind.reader not in ("PNG", "AVIF"):
        return None
    data = file if isinstance(file, bytes) else file.read_bytes()
    # An item of no known kind is passed over.
    return _png_pixels(data) if kind.reader == "PNG" else re.sub(rb"(infe.{8})Exif", rb"\1free", data, flags=re.DOTALL)


def late_metadata(image: PIL.Image.Image) -> bool:
    """Whether a PNG that is not loaded yet has its EXIF behind the pixels, where Pillow reads it with them."""
    if not isinstance(image, PIL.PngImagePlugin.PngImageFile) or not image.tile or "exif" in image.info:
        return False
    offset = image.fp.tell()
    try:
        behind = False
        for kind, start, length in _png_chunks(image.fp):
            behind = behind or kind == b"IDAT"
            if behind and kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                image.fp.seek(start)
                words = image.fp.read(min(length, 32))
                if kind == b"eXIf" or words.startswith((b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")):
                    return True
        return False
    finally:
        image.fp.seek(offset)


def _png_chunks(stream: io.BufferedIOBase) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its data begin, their length) of each chunk; the stream may be moved in between."""
    offset = len(PNG_MARK)
    while True:
        stream.seek(offset)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, offset + 8, length
        offset += 12 + length


def _png_pixels(data: bytes) -> bytes:
    """A PNG's critical chunks, and of the others EXIF and what is transparent, where they are whole."""
    parts = [PNG_MARK]
    for kind, start, length in _png_chunks(io.BytesIO(data)):
        whole = data[start - 8 : start + length + 4]
        is_critical = kind[0] & 32 == 0
        if is_critical and len(whole) < 8 + length:
            return b"".join([*parts, whole])  # cut off, and what came behind it would be read as its data
        if is_critical or (kind in (b"tRNS", b"eXIf") and zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")):
            parts.append(whole)
    parts.append(b"\0\0\0\0IEND\xaeB`\x82")
    return b"".join(parts)


def in_words(error: BaseException, most: int = 160) -> str:
    """An error in one short line, by its kind where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    with contextlib.suppress(Exception):
        text = " ".join(str(error).split())
        if text:
            return text if len(text) <= most else f"{text[:most]}..."
    return type(error).__name__
