"""A run as evaluation toolkits use it: messages in, answers out, many at once."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from xgenmm_jax.data.records import LazyImage
from xgenmm_jax.data.text import prompts
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.evaluation.tasks.task import cut
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.generation.text.generator import Generator
from xgenmm_jax.generation.text.schedule import Limits
from xgenmm_jax.integrations.toolkit_requests import AnswerSettings, UserTurn

CHUNK = 1024
"""Prompts of one call of the generator, some sixteen batches; the progress bar moves between calls."""

Advance = Callable[[int], None]
"""Is told how many more prompts are answered."""


class ToolkitModel:
    """A run, asked as `xgenmm evaluate --tasks` asks it: the same prompts, images read as in training.

    lmm: of `xgenmm_jax.load(..., official_images=True)`.
    """

    def __init__(self, lmm: Any, limits: Limits = Limits()):  # noqa: B008 - frozen
        self._processor = lmm.processor
        self._generator: Generator = lmm.generator(limits)

    def prompt(self, message: UserTurn) -> Prompt:
        """The prompt of a message. Raises ValueError for what is no image."""
        return self._prompt(message, [self._processor.image(image) for image in message.images])

    def lazy_prompt(self, opened: Callable[[], UserTurn]) -> Prompt:
        """The prompt of a message whose images are decoded already each time it is asked for.

        They are taken once for their sizes and again when their pixels are needed, so that those of a whole
        benchmark are never in memory together.
        """
        message = opened()
        images = []
        for number, image in enumerate(message.images):
            size_px = self._processor.image(image).size_px
            images.append(LazyImage(size_px, _Reopened(self._processor.image, opened, number)))
        return self._prompt(message, images)

    def _prompt(self, message: UserTurn, images: Sequence[Any]) -> Prompt:
        style = self._processor.chat
        if message.system is not None:
            style = dataclasses.replace(style, system=message.system)
        return prompts.message_prompt(message.parts, images, self._processor.tokenizer, style)

    def answer(self, message: UserTurn, max_new_tokens: int) -> str:
        """The greedy answer to one message."""
        decoding = Decoding(max_new_tokens=max_new_tokens)
        return self._generator.generate([self.prompt(message)], decoding)[0]

    def answers(
        self,
        asked: Sequence[Callable[[], Prompt]],
        answering: Sequence[AnswerSettings],
        advance: Advance = lambda _: None,
    ) -> list[str]:
        """The answer to each prompt, in order, without spaces around, cut at the first of its stop texts.

        Prompts of the same decoding are answered together, whatever they are of. Sampled answers are drawn by
        the place of a prompt among those.
        """
        of_decoding: dict[Any, list[int]] = {}
        for number, settings in enumerate(answering):
            of_decoding.setdefault(settings.decoding, []).append(number)
        texts = [""] * len(asked)
        for decoding, numbers in of_decoding.items():
            for start in range(0, len(numbers), CHUNK):
                chunk = numbers[start : start + CHUNK]
                # The n-th prompt of a call draws from (seed, n): another seed for each call.
                of_call = dataclasses.replace(decoding, seed=decoding.seed + start // CHUNK)
                answers = self._generator.generate([asked[number]() for number in chunk], of_call)
                for number, answer in zip(chunk, answers, strict=True):
                    texts[number] = cut(answer, answering[number].until).strip()
                advance(len(chunk))
        return texts


@dataclasses.dataclass(frozen=True)
class _Reopened:
    """The pixels of one image of a message that is asked for again. number: of the image in the message."""

    open: Callable[[Any], Any]
    message: Callable[[], UserTurn]
    number: int

    def __call__(self):
        return self.open(self.message().images[self.number]).load()
