"""Questions and answers without images, one of each a record: OpenOrca, Orca-Math and sets of their form.

Source: docs/reference/data.md#fine-tuning-records
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import OneChoice
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.storage.base import Raw


@dataclass(frozen=True)
class Instructions(OneChoice):
    """A `Conversation` of one question and its answer; the names are OpenOrca's.

    system: field of the system turn, "" where there is none. A record whose system prompt is empty or null has no
        system turn of its own. Orca-Math: `Instructions(system="", answer="answer")`.
    """

    system: str = "system_prompt"
    question: str = "question"
    answer: str = "response"

    label: ClassVar[str] = "instructions"

    @property
    def fields(self) -> tuple[str, ...]:
        return (*((self.system,) if self.system else ()), self.question, self.answer)

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where question or answer is missing or empty."""
        turns = [Turn("user", _said(raw, self.question)), Turn("assistant", _said(raw, self.answer))]
        has_system = bool(self.system) and not (self.system in raw.fields and raw.fields[self.system] is None)
        if has_system and (prompt := raw.text(self.system)).strip():
            turns.insert(0, Turn("system", prompt))
        return Conversation(raw.key, (), tuple(turns))


def _said(raw: Raw, field: str) -> str:
    text = raw.text(field)
    if not text.strip():
        raise RecordError(raw.key, f"'{field}' is empty")
    return text
