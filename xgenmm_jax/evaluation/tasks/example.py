"""One example of a task: what the model sees, and what an answer is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from xgenmm_jax.data.records import LazyImage


@dataclass(frozen=True)
class Example:
    """A question about images, with its reference answers.

    id: unique within the task. images: in the published order. question: as published; a task's prompt builder adds
    hints, options and instructions. answers: every reference answer, the usual one first. options: those of a
    multiple-choice question, letter to text, in order; a blank one is absent. fields: further columns that prompts,
    scores or metrics need, such as a category, a split, or the group whose questions must all be right.
    unreadable: why an image cannot be read, else ""; such an example is not asked, and its answer is wrong.
    """

    id: str
    images: tuple[LazyImage, ...]
    question: str
    answers: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    unreadable: str = ""
