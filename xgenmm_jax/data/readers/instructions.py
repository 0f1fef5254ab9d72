"""Questions and answers without images: OpenOrca, Orca-Math and sets of their form, LIMA's lists of texts.

Source: docs/reference/data.md#fine-tuning-records
"""

from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.readers.base import OneChoice, list_in
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text.chat import check_turns


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


@dataclass(frozen=True)
class TextTurns(OneChoice):
    """A `Conversation` of a list of texts that the user and the assistant say in turn, the user first: LIMA's form."""

    texts: str = "conversations"

    label: ClassVar[str] = "text_turns"

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.texts,)

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where a text is empty or none, or the last one is a question, as in LIMA's test split."""
        texts = list_in(raw, self.texts)
        for number, text in enumerate(texts, start=1):
            if not isinstance(text, str) or not text.strip():
                got = "empty" if isinstance(text, str) else type(text).__name__
                raise RecordError(raw.key, f"text {number} of '{self.texts}' is {got}, wanted what somebody says")
        turns = tuple(Turn("assistant" if number % 2 else "user", text) for number, text in enumerate(texts))
        try:
            check_turns(f"'{self.texts}'", turns, last="assistant")
        except ValueError as error:
            raise RecordError(raw.key, str(error).removeprefix("chat: ")) from error
        return Conversation(raw.key, (), turns)


def _said(raw: Raw, field: str) -> str:
    text = raw.text(field)
    if not text.strip():
        raise RecordError(raw.key, f"'{field}' is empty")
    return text
