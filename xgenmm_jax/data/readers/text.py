"""Text without images, one field a record: JSON lines or tables of text."""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import Document
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class PlainText(OneChoice):
    """A `Document` of the text in one field."""

    field: str = "text"

    label: ClassVar[str] = "plain_text"

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.field,)

    def read(self, raw: Raw, choice: int) -> Document:
        """Raises RecordError where the text is missing or empty."""
        text = raw.text(self.field)
        if not text.strip():
            raise RecordError(raw.key, f"'{self.field}' is empty")
        return Document(raw.key, (text,))
