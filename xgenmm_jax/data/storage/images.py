"""Images of records: files of a folder beside them, and Hugging Face's form inside of tables."""

from collections.abc import Callable
from dataclasses import dataclass
import hashlib
import posixpath
from typing import Any
from urllib.parse import unquote

from xgenmm_jax.data import joined, source_paths
from xgenmm_jax.data.errors import SourceError, shown
from xgenmm_jax.data.images import image_from_bytes, open_image
from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.storage import files
from xgenmm_jax.data.storage.base import no_images

MOST_IMAGE_BYTES = 256 << 20
"""A longer file of a folder with a URL is refused, since it is read whole."""

MOST_NAME_BYTES = 1024
"""The longest name of a file of such a folder; object stores take no longer ones."""

SUFFIXES = (".jpg", ".png", ".webp", ".gif", "")
"""Ends of the names of files that are named by their URL's hash, in the order in which they are looked for."""


def opener(folder: str | None) -> Callable[[str], LazyImage]:
    """`Raw.image` of a storage whose images lie in a folder, as files or as fetched tars (`data/joined.py`).

    Raises SourceError where there is no such folder.
    """
    if folder is None:
        return no_images
    check_folder(folder)
    return (joined.JoinedImages(folder) if joined.is_joined(folder) else ImageFolder(folder)).open


def check_folder(folder: str) -> None:
    """Raises SourceError where there is no such folder on a disk; a bucket is not asked."""
    if not files.is_remote(folder) and not source_paths.at_home(folder).is_dir():
        raise SourceError(f"data: no folder '{folder}', which was to hold the images of records; check the path.")


@dataclass(frozen=True)
class ImageFolder:
    """Images by the names that records give, in a folder by path or URL.

    A name that is itself a URL is looked up as the SHA-256 of the URL (UTF-8) in 64 hexadecimal digits and one of
    `SUFFIXES`: "http://example.com/a.jpg" lies in the folder as
    "4fd63207a70baba7076795ee9c3357851d661f231b21bdfec34671a1b14d7f09.jpg" or as ".png" and so on, whatever the URL ends
    in. Nothing is ever fetched from such a URL: whoever has the images names them so.
    """

    folder: str

    def open(self, name: str) -> LazyImage:
        """Raises ValueError where the name leads out of the folder, or the image is missing or damaged."""
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"image: its name is {shown(name, 300)!r}; wanted the name of a file of '{self.folder}'.")
        if not name.lower().startswith(("http://", "https://")):
            return self._open(name)
        hashed = hashlib.sha256(name.encode()).hexdigest()
        for suffix in SUFFIXES:
            if self._has(hashed + suffix):
                return self._open(hashed + suffix)
        raise ValueError(
            f"image: no file '{hashed}' (.jpg, .png, .webp, .gif) of '{name[:300]}' in '{self.folder}'; images of URLs "
            "are named by the SHA-256 of the URL, and are not fetched."
        )

    def _has(self, name: str) -> bool:
        if not files.is_remote(self.folder):
            return source_paths.inside(source_paths.at_home(self.folder), name).is_file()
        return _size_if_there(_below(self.folder, name)) is not None

    def _open(self, name: str) -> LazyImage:
        if not files.is_remote(self.folder):
            return open_image(source_paths.inside(source_paths.at_home(self.folder), name), official=True)
        url = _below(self.folder, name)
        length = _size_if_there(url)
        if length is None:
            raise ValueError(f"image: no file '{url[:300]}'; check the folder of images.")
        if length > MOST_IMAGE_BYTES:
            raise ValueError(
                f"image: '{url[:300]}' has {length:,} bytes, more than {MOST_IMAGE_BYTES:,}; scale it down."
            )
        return image_from_bytes(files.read(url, 0, length), f"'{url[:300]}'", official=True)


def _below(folder: str, name: str) -> str:
    """The URL of a file below a folder's. Raises ValueError where the name leads out of it."""
    # A web server takes %2e%2e for "..".
    paths = [posixpath.normpath(one) for one in (name, unquote(name))]
    if files.is_remote(name) or any(path.startswith(("/", "../")) or path == ".." for path in paths):
        raise ValueError(f"'{name[:300]}' lies outside of '{folder}'; move it inside and write its place there.")
    if len(name.encode()) > MOST_NAME_BYTES:
        raise ValueError(f"image: the name '{name[:100]}...' has more than {MOST_NAME_BYTES:,} bytes; shorten it.")
    return f"{folder}{'' if folder.endswith('/') else '/'}{paths[0]}"


def _size_if_there(url: str) -> int | None:
    """Bytes of a file, None where it is not there. Raises SourceError where the storage itself does not answer."""
    try:
        return files.size(url)
    except SourceError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def image_bytes(value: Any) -> bytes:
    """The encoded image of a table's column: bytes, or Hugging Face's struct {"bytes": bytes, "path": str or None}.

    Raises ValueError where it holds none; of a struct with a path alone, `Raw.image` opens the path.
    """
    inner = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(inner, bytes) and inner:
        return inner
    path = value.get("path") if isinstance(value, dict) else None
    what = f"the path '{shown(path, 300)}' alone" if path else f"{type(inner).__name__} in place of bytes"
    raise ValueError(f"image: the record has {what if inner != b'' else 'no bytes'}; wanted an encoded image.")
