"""MINT-1T: web pages as OBELICS has them; PDFs and ArXiv's papers, whose images are the pages of one TIFF.

Source: docs/reference/data.md#mint-1t
"""

from collections.abc import Iterator
from dataclasses import dataclass
import functools
from typing import Any, ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import list_in
from xgenmm_jax.data.readers.documents import UrlDocuments, check_lists
from xgenmm_jax.data.readers.interleaved import Interleaved, OpenImage
from xgenmm_jax.data.records import Document, LazyImage
from xgenmm_jax.data.storage.base import Raw

IMAGES = ("tiff", "tif", "jpg", "jpeg", "png")
"""Suffixes of a document's image file, in the order in which they are looked for."""


@dataclass(frozen=True, kw_only=True)
class MintHtml(UrlDocuments):
    """MINT-1T's web pages. Of its other lists of images, which follow an order of their own, nothing is read."""

    label: ClassVar[str] = "mint1t_html"


@dataclass(frozen=True, kw_only=True)
class TiffDocuments(Interleaved):
    """Base of readers of tars of `KEY.json` with the lists `images` and `texts`, and of KEY's images in one TIFF.

    Page i of the TIFF is the i-th image that is not null; its size is that of the page, read from its header. In copies
    of which a document's only image was written as JPEG or PNG, that file is page 0.
    """

    @property
    def fields(self) -> tuple[str, ...]:
        return ("json",)

    @property
    def optional(self) -> tuple[str, ...]:
        return IMAGES

    def read(self, raw: Raw, choice: int) -> Document:
        """Raises RecordError where the lists do not fit together or no image can be had, LeftOut as `Interleaved`."""
        document = raw.json("json")
        if not isinstance(document, dict):
            raise RecordError(raw.key, f"'json' holds {type(document).__name__}, wanted an object")
        lists = Raw(raw.key, document)
        names, texts = list_in(lists, "images"), list_in(lists, "texts")
        check_lists(lists, names, texts)
        suffix = next((suffix for suffix in self.optional if raw.fields.get(suffix) is not None), None)
        return self.document(raw, self._parts(raw, names, texts, suffix), choice)

    def _parts(self, raw: Raw, names: list[Any], texts: list[Any], suffix: str | None) -> Iterator[str | OpenImage]:
        page = 0
        for name, text in zip(names, texts, strict=True):
            if name is None:
                yield text
                continue
            yield functools.partial(_page, raw, suffix, name, page)
            page += 1


def _page(raw: Raw, suffix: str | None, name: str, page: int) -> LazyImage:
    if suffix is None:
        there = ", ".join(map(repr, raw.fields)) or "nothing"
        raise ValueError(f"no image file for '{name[:100]}': wanted a member 'tiff'; it has {there}")
    return image_from_bytes(raw.data(suffix), f"'{raw.key}.{suffix}'", official=True, page=page)


@dataclass(frozen=True, kw_only=True)
class MintPdf(TiffDocuments):
    """MINT-1T's PDFs."""

    label: ClassVar[str] = "mint1t_pdf"


@dataclass(frozen=True, kw_only=True)
class MintArxiv(TiffDocuments):
    """MINT-1T's papers from ArXiv. Their text keeps its LaTeX."""

    label: ClassVar[str] = "mint1t_arxiv"
    licence: ClassVar[str] = "cc-by-4.0"  # docs/reference/data.md#mint-1t
