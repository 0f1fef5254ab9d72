"""Captions turned round: the text is the prompt, its image what is to be drawn."""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import Reader
from xgenmm_jax.data.records import Caption, Record, TextToImage
from xgenmm_jax.data.storage.base import Raw

CAPTION = "{caption}"
INSTRUCTION = f"Please generate image based on the following caption: {CAPTION}"
"""BLIP3-o's. Source: docs/reference/blip3o.md#condition."""


@dataclass(frozen=True)
class DrawingPrompt:
    """How a caption is asked for; the change of a source (`Mapped`), and what `lmm.draw` writes.

    queries: of the model. instruction: the user's turn, "{caption}" where the caption stands.

    Raises ValueError where the caption stands nowhere.
    """

    queries: int = 64
    instruction: str = INSTRUCTION

    label: ClassVar[str] = "to_draw"

    def __post_init__(self):
        if self.instruction.count(CAPTION) != 1 or self.queries < 1:
            raise ValueError(
                f"data: DrawingPrompt has queries {self.queries} and instruction {self.instruction!r}; wanted 1 query "
                f"or more, and {CAPTION} once in the instruction."
            )

    def text(self, caption: str) -> str:
        """The user's turn that asks for this."""
        before, after = self.instruction.split(CAPTION)
        return before + caption + after

    def __call__(self, record: Record) -> TextToImage:
        """Raises RecordError for what is no caption."""
        if not isinstance(record, Caption):
            raise RecordError(record.id, f"it is a {type(record).__name__}, wanted a Caption to draw")
        return TextToImage(record.id, self.text(record.text), record.image, self.queries)


@dataclass(frozen=True)
class ToDraw:
    """The captions of another reader, to be drawn: ToDraw(ImageCaptions()) reads tars of jpg and txt.

    As a reader, and not a change of a source, so that an index knows the sizes.
    """

    reader: Reader
    prompt: DrawingPrompt = DrawingPrompt()

    label: ClassVar[str] = "to_draw"

    @property
    def fields(self) -> tuple[str, ...]:
        return self.reader.fields

    @property
    def optional(self) -> tuple[str, ...]:
        return self.reader.optional

    def choices(self, raw: Raw) -> int:
        return self.reader.choices(raw)

    def read(self, raw: Raw, choice: int) -> TextToImage:
        """Raises RecordError for a record that is no caption."""
        return self.prompt(self.reader.read(raw, choice))
