"""Questions about an image with one or several reference answers, a column each.

Source: docs/reference/data.md#builders-of-tensorflow-datasets
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from xgenmm_jax.data.images import image_from_bytes
from xgenmm_jax.data.readers.base import OneChoice, texts_of
from xgenmm_jax.data.records import Conversation, Turn
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text.chat import IMAGE

_QUESTION = "{question}"


@dataclass(frozen=True)
class ImageQuestions(OneChoice):
    """A `Conversation` of one question and its answer.

    answers: a text, or a list of which the most common is taken, upper and lower case counted as one, and the first
        of those that are equally common. TextVQA and VQA have the answers of ten people and score an answer by how
        many gave it; DocVQA lists spellings of one answer, each once, of which that is the first.
    prompt: what the user says, with "{question}" where the question stands; the image comes before it.
    """

    image: str = "image"
    question: str = "question"
    answers: str = "answers"
    prompt: str = _QUESTION

    label: ClassVar[str] = "image_questions"

    def __post_init__(self):
        if self.prompt.count(_QUESTION) != 1:
            raise ValueError(
                f"data: the prompt {self.prompt[:100]!r} has '{_QUESTION}' {self.prompt.count(_QUESTION)} times; "
                "write it once, where the question is to stand."
            )

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.image, self.question, self.answers)

    def read(self, raw: Raw, choice: int) -> Conversation:
        """Raises RecordError where there is no question or no answer, ValueError where the image is none."""
        [question] = texts_of(raw, self.question)
        answer = most_common(texts_of(raw, self.answers))
        image = image_from_bytes(raw.data(self.image), raw.key, official=True)
        asked = f"{IMAGE}\n{self.prompt.replace(_QUESTION, question)}"
        return Conversation(raw.key, (image,), (Turn("user", asked), Turn("assistant", answer)))


def most_common(answers: list[str]) -> str:
    """["Stop", "sign", "stop"] -> "Stop": the first spelling of what most say, or of what is said first of those."""
    first: dict[str, str] = {}
    for answer in answers:
        first.setdefault(answer.strip().casefold(), answer)
    counts = Counter(answer.strip().casefold() for answer in answers)
    return first[max(counts, key=counts.__getitem__)]
