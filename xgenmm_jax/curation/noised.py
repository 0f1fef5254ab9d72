"""Preference pairs whose worse answer is a model's own about the image with noise on it.

Source: docs/reference/training.md#preference-and-safety-tuning, docs/reference/data.md#noise-on-images
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
import numpy as np
import PIL.Image
import pyarrow as pa

from xgenmm_jax.curation.images import SourceImage
from xgenmm_jax.curation.makers import DrawnBox, LeftOutImage, MakeRows, RowOrReason
from xgenmm_jax.data.records import Conversation, Preference, images_of
from xgenmm_jax.data.text.chat import IMAGE

NO_QUESTION, SEVERAL_TURNS, SEVERAL_IMAGES = "no question", "several turns", "several images"
SAME_ANSWER, NO_ANSWER = "the same answer", "no answer"
STEPS = 1000
"""Of the diffusion whose noise it is."""
NOISE_PX = 384
"""Longest side of the grid of noise, which is enlarged to the image: finer noise would be gone when the image is
resized for the model."""


@functools.cache
def signal_shares() -> Float[np.ndarray, "1000"]:
    """Of each step what is left of the image, as a share of its variance: near 1 at step 0, falling.

    Step 500 leaves 0.86 of the amplitude beside noise of standard deviation 0.51; step 999 0.29 beside 0.96.
    """
    betas = 1 / (1 + np.exp(-np.linspace(-6, 6, STEPS))) * (0.005 - 0.00001) + 0.00001
    return np.cumprod(1 - betas)


def noised(pixels: PIL.Image.Image, step: int, seed: Sequence[int]) -> PIL.Image.Image:
    """An RGB image after so many steps of diffusion, of the same size; the same for the same seed.

    Values of -1 to 1 are scaled by the root of `signal_shares` and normal noise is added, then cut to 0 to 255.
    """
    share = float(signal_shares()[step])
    width, height = pixels.size
    scale = min(1.0, NOISE_PX / max(width, height))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    grid = np.random.default_rng(list(seed)).standard_normal((rows, columns, 3), np.float32)
    nearest = (np.arange(height) * rows // height, np.arange(width) * columns // width)
    values = np.asarray(pixels, np.float32)
    values /= 127.5
    values -= 1
    values *= share**0.5
    values += np.float32((1 - share) ** 0.5) * grid[nearest[0]][:, nearest[1]]
    return PIL.Image.fromarray(np.clip(np.rint((values + 1) * 127.5), 0, 255).astype(np.uint8))


class Question(NamedTuple):
    """A question about one image with a good answer. prompt: without the `<image>` before it."""

    prompt: str
    chosen: str


AnswerQuestions = Callable[[Sequence[tuple[str, PIL.Image.Image]]], list[str]]
"""The greedy answers to questions, each about one image."""


@runtime_checkable
class Answering(Protocol):
    """What answers; a frozen dataclass with plain options. The model's run is loaded above this layer."""

    def check(self) -> None:
        """Raises ValueError where there is no such run."""
        ...

    def described(self) -> dict[str, Any]:
        """Which weights they are, as JSON."""
        ...

    def open(self) -> AnswerQuestions: ...


def question_of(image: SourceImage) -> Question | LeftOutImage:
    """The question of a record and its good answer; of a conversation the first ones."""
    record = image.record
    if not isinstance(record, Conversation | Preference):
        return LeftOutImage(NO_QUESTION, f"a record of a {type(record).__name__} asks nothing; give another --reader")
    if len(images_of(record)) > 1:
        return LeftOutImage(SEVERAL_IMAGES, f"it has {len(images_of(record))}, and a pair is about one")
    turns = [turn for turn in record.turns if turn.role != "system"]
    if isinstance(record, Preference):
        if len(turns) != 1:
            return LeftOutImage(SEVERAL_TURNS, f"its prompt has {len(turns)} turns, wanted one")
        chosen = record.chosen
    else:
        if len(turns) < 2 or [turn.role for turn in turns[:2]] != ["user", "assistant"]:
            return LeftOutImage(NO_QUESTION, "the conversation does not begin with a question and its answer")
        chosen = turns[1].text
    prompt = turns[0].text.removeprefix(f"{IMAGE}\n").strip()
    if not prompt.replace(IMAGE, "").strip() or not chosen.strip():
        return LeftOutImage(NO_QUESTION, "its question or its answer is empty")
    return Question(prompt, chosen.strip())


@dataclass(frozen=True)
class NoisedPairs:
    """The maker of `xgenmm curate noised`.

    step: of diffusion, 0 to 999. seed: of the noise, with the bytes of the image's file. batch: questions that are
        answered together.
    """

    answering: Answering
    step: int = 500
    seed: int = 0
    batch: int = 8

    @property
    def command(self) -> str:
        return "noised"

    @property
    def columns(self) -> tuple[tuple[str, pa.DataType], ...]:
        return (*((name, pa.string()) for name in ("prompt", "chosen", "rejected")), ("noise_step", pa.int64()))

    @property
    def source_columns(self) -> tuple[str, ...]:
        return ()

    def refusal(self, size_px: tuple[int, int]) -> LeftOutImage | None:
        return None

    def check(self) -> None:
        if not 0 <= self.step < STEPS:
            raise ValueError(f"--noise-step: got {self.step}; give 0 to {STEPS - 1}.")
        if self.seed < 0:
            raise ValueError(f"--noise-seed: got {self.seed}; give 0 or more.")
        if self.batch < 1:
            raise ValueError(f"--batch: got {self.batch}; give 1 or more.")
        self.answering.check()

    def described(self) -> dict[str, Any]:
        noise = {"noise_step": self.step, "noise_seed": self.seed, "noise_px": NOISE_PX}
        # What is answered together may change the last bits of a logit.
        return {**self.answering.described(), **noise, "batch": self.batch}

    def open(self) -> MakeRows:
        answer = self.answering.open()

        def rows_of(images: Sequence[SourceImage]) -> list[RowOrReason]:
            questions = [question_of(image) for image in images]
            asked = [
                (question.prompt, noised(image.pixels, self.step, (self.seed, int(image.digest, 16))))
                for image, question in zip(images, questions, strict=True)
                if isinstance(question, Question)
            ]
            answers = iter(answer(asked) if asked else [])
            return [
                self._row(question, next(answers)) if isinstance(question, Question) else question
                for question in questions
            ]

        return rows_of

    def _row(self, question: Question, answer: str) -> RowOrReason:
        rejected = answer.strip()
        if not rejected:
            return LeftOutImage(NO_ANSWER, "the run ended its answer at once")
        if rejected == question.chosen:
            return LeftOutImage(SAME_ANSWER, f"the noise left the answer as it is: {rejected[:80]!r}")
        return {**question._asdict(), "rejected": rejected, "noise_step": self.step}

    def figures(self, row: Mapping[str, Any]) -> dict[str, Sequence[str]]:
        return {"answer_words": [str(min(40, len(row["rejected"].split())))]}

    def drawn(self, row: Mapping[str, Any]) -> tuple[list[DrawnBox], list[str]]:
        return [], [f"{name}: {row[name]}" for name in ("prompt", "chosen", "rejected")]
