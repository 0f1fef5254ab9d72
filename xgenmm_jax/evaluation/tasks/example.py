"""One example of a task: what the model sees, and what an answer is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from xgenmm_jax.data.records import LazyImage


@dataclass(frozen=True)
class Example:
    """A question about images, with its reference answers.

    id: unique within the task. images: in the order of the prompt. question: as published; a task's prompt builder adds
    hints, choices and instructions. answers: every reference answer, the usual one first. choices: the options of a
    multiple-choice question, in order. fields: further columns that scores or metrics need, such as a category, a
    split, or the group whose questions must all be right.
    """

    id: str
    images: tuple[LazyImage, ...]
    question: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
