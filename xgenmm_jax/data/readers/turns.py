"""Conversations out of questions and answers: where their images stand, and what a question is wrapped in."""

from collections.abc import Sequence
import re

from xgenmm_jax.data.errors import RecordError
from xgenmm_jax.data.records import Conversation, LazyImage, Turn
from xgenmm_jax.data.storage.base import Raw
from xgenmm_jax.data.text.chat import IMAGE, unequal_images

QUESTION = "{question}"


def conversation(
    raw: Raw, images: Sequence[LazyImage], pairs: Sequence[tuple[str, str]], images_first: bool = False
) -> Conversation:
    """Questions and answers about images, all in one conversation.

    One image that no question has a marker of stands before the first question, as in the official code.
    images_first: so do several, in their order, where the form has no markers: "<image>\\n<image>\\nWhich is larger?".

    Raises RecordError where a question or an answer is empty, or there are other markers than images.
    """
    if not pairs:
        raise RecordError(raw.key, "it has no question")
    for number, (question, answer) in enumerate(pairs):
        for name, text in (("question", question), ("answer", answer)):
            if not text.strip():
                raise RecordError(raw.key, f"{name} {number + 1} of {len(pairs)} is empty")
    markers = sum(question.count(IMAGE) for question, _ in pairs)
    before = ""
    if not markers and (len(images) == 1 or images_first):
        before = f"{IMAGE}\n" * len(images)
    elif markers != len(images):
        raise RecordError(raw.key, unequal_images("it", markers, len(images)).removeprefix("chat: "))
    turns = []
    for number, (question, answer) in enumerate(pairs):
        turns += [Turn("user", question if number else before + question), Turn("assistant", answer)]
    return Conversation(raw.key, tuple(images), tuple(turns))


def check_prompt(prompt: str, *placeholders: str) -> None:
    """Raises ValueError unless each placeholder, "{question}", stands once in a prompt."""
    for placeholder in placeholders:
        if (count := prompt.count(placeholder)) != 1:
            raise ValueError(
                f"data: the prompt {prompt[:100]!r} has '{placeholder}' {count} times; write it once, where the "
                f"{placeholder.strip('{}')} is to stand."
            )


def filled(prompt: str, **texts: str) -> str:
    """A prompt with its placeholders filled, once: ("{question} Briefly.", question="{a}?") -> "{a}? Briefly."."""
    return re.sub(rf"\{{({'|'.join(texts)})\}}", lambda match: texts[match[1]], prompt)
