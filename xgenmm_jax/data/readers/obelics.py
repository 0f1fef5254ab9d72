"""OBELICS: web pages as images and texts in their order.

Source: docs/reference/data.md#obelics
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.readers.documents import UrlDocuments


@dataclass(frozen=True, kw_only=True)
class Obelics(UrlDocuments):
    """OBELICS' web pages."""

    label: ClassVar[str] = "obelics"
