"""Records that are dialogues already: lists of questions and answers as structs, in the Cauldron and VLGuard.

Source: docs/reference/data.md#fine-tuning-records, docs/reference/data.md#preference-and-safety-records
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import AllNeeded
from xgenmm_jax.data.readers.images import image_in
from xgenmm_jax.data.readers.questions import check_turns_option
from xgenmm_jax.data.readers.turns import conversation
from xgenmm_jax.data.records import Conversation
from xgenmm_jax.data.storage.base import Raw

INSTRUCTIONS = ("instruction", "safe_instruction", "unsafe_instruction")


@dataclass(frozen=True)
class Cauldron(AllNeeded):
    """A `Conversation` of a row of the Cauldron: `images`, a list, and `texts`, {"user", "assistant", "source"} each.

    The images stand before the first question, in their order: the texts have no markers, and a row whose texts have
    some is an error of its record.

    turns: "all" texts follow one another in one conversation; of "one", one is drawn each time the row is. max_images:
    rows with more are errors of their record.
    """

    turns: Literal["all", "one"] = "all"
    max_images: int = 4

    label: ClassVar[str] = "cauldron"

    def __post_init__(self):
        check_turns_option(self.turns)

    @property
    def fields(self) -> tuple[str, ...]:
        return ("images", "texts")

    def choices(self, raw: Raw) -> int:
        texts = raw.fields.get("texts")
        return max(1, len(texts)) if self.turns == "one" and isinstance(texts, list) else 1

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where a text is empty or missing, ValueError where an image is missing or damaged."""
        values = raw.value("images")
        if not isinstance(values, list | None):
            raise RecordError(raw.key, f"'images' is {type(values).__name__}, wanted a list")
        if values is not None and len(values) > self.max_images:
            raise RecordError(raw.key, f"{len(values)} images; wanted at most {self.max_images}")
        pairs = [(_said(raw, one, "user"), _said(raw, one, "assistant")) for one in _structs(raw, "texts")]
        if self.turns == "one":
            pairs = pairs[choice : choice + 1]
        return conversation(raw, [image_in(raw, value) for value in values or ()], pairs, images_first=True)


@dataclass(frozen=True)
class VLGuard(AllNeeded):
    """A `Conversation` of an entry of VLGuard: an image, and one or two instructions with their responses.

    An unsafe image has one instruction and a refusal; a safe one a safe instruction with its answer and an unsafe one
    with a refusal.

    turns: "all" instructions in one conversation, the first of them drawn each time the entry is, since its authors
    shuffle the two; of "one", one is drawn.
    """

    turns: Literal["all", "one"] = "all"

    label: ClassVar[str] = "vlguard"

    def __post_init__(self):
        check_turns_option(self.turns)

    @property
    def fields(self) -> tuple[str, ...]:
        return ("image", "instr-resp")

    def choices(self, raw: Raw) -> int:
        entries = raw.fields.get("instr-resp")
        return max(1, len(entries)) if isinstance(entries, list) else 1

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where an instruction or its response is missing, ValueError for no image."""
        pairs = []
        for entry in _structs(raw, "instr-resp"):
            names = [name for name in INSTRUCTIONS if entry.get(name) is not None]
            if len(names) != 1:
                there = " and ".join(map(repr, names)) or "none"
                raise RecordError(raw.key, f"'instr-resp' has {there} of {', '.join(INSTRUCTIONS)}; wanted one")
            pairs.append((_said(raw, entry, names[0]), _said(raw, entry, "response")))
        pairs = pairs[choice:] + pairs[:choice]
        return conversation(raw, [raw.image(raw.text("image"))], pairs[:1] if self.turns == "one" else pairs)


def _structs(raw: Raw, name: str) -> list[dict[str, Any]]:
    value = raw.value(name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise RecordError(raw.key, f"'{name}' is {type(value).__name__}, wanted a list of objects")
    return value


def _said(raw: Raw, struct: dict[str, Any], name: str) -> str:
    """A text of a struct. Raises RecordError where it is missing, blank or no text."""
    text = struct.get(name)
    if not isinstance(text, str) or not text.strip():
        there = ", ".join(map(repr, struct)) if name not in struct else type(text).__name__
        raise RecordError(raw.key, f"no text in '{name}': it has {there}; wanted one that is not blank")
    return text
