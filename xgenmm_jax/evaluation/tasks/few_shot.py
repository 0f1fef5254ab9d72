"""Captions and questions asked of a base model behind worked examples, with their images between the texts.

Demonstrations come from a part of the training set, drawn for each query from (seed, task, the query's id) alone: the
same for any batch size, order and number of hosts, and never with the query's own image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
import functools
from typing import Literal
import zlib

import numpy as np

from xgenmm_jax.data.text.chat import END_OF_CHUNK, IMAGE, ChatStyle
from xgenmm_jax.data.text.prompts import Prompt
from xgenmm_jax.data.text.tokenizer import Template, Tokenizer
from xgenmm_jax.evaluation import fewshot
from xgenmm_jax.evaluation.fewshot import AnswerKind
from xgenmm_jax.evaluation.profiles import Profile
from xgenmm_jax.evaluation.published.files import Loaded
from xgenmm_jax.evaluation.tasks.benchmark import Answering, Benchmark, Choice
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.task import Task
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.paths import Path

POOL = 2048
"""Training items from which demonstrations are drawn, as OpenFlamingo's query set."""
SEED = 42
TEXT_ONLY_SHOTS = 2
"""Of a prompt of 0 shots: demonstrations without their images, which show the form of an answer alone."""
CAPTION_TOKENS, ANSWER_TOKENS = 30, 10

TemplateName = Literal["openflamingo", "xgen", "mm1"]
Order = Literal["random", "nearest"]
"""nearest: the demonstrations whose images the tower finds most alike, the most alike last (RICES)."""

Keep = Callable[[str], bool] | None
"""Whether an entry of this id is wanted; None: all are."""

Features = Callable[[Example], np.ndarray]
"""An example's image as a vector [E] of length 1."""


@dataclass(frozen=True)
class FewShotTemplate:
    """How a shown and an asked example are written. "{}" is the question; images stand before.

    question, caption: what follows the image. end: behind a demonstration's answer. separator: between demonstrations.
    """

    question: str
    caption: str
    end: str
    separator: str


TEMPLATES: dict[TemplateName, FewShotTemplate] = {
    "openflamingo": FewShotTemplate("Question:{} Short answer:", "Output:", END_OF_CHUNK, "\n"),
    "xgen": FewShotTemplate(
        "{}\nAnswer the question using a single word or phrase.",
        "A short description of this image in one sentence:",
        END_OF_CHUNK,
        "",
    ),
    "mm1": FewShotTemplate("Question: {} Short answer: ", "A photo of ", "", "\n"),
}
"""openflamingo: its evaluation code. xgen: the released base model's demonstration. mm1: as its paper tells."""


@dataclass(frozen=True)
class FewShotOptions:
    """How few-shot benchmarks are asked, of the command line. Fields as in `FewShot`."""

    shots: tuple[int, ...] = (0, 4, 8)
    template: TemplateName = "openflamingo"
    order: Order = "random"
    beams: int = 1

    def __post_init__(self):
        if not self.shots or min(self.shots) < 0 or self.beams < 1:
            raise ValueError(f"--shots: got {self.shots} and {self.beams} beams; give 0 or more shots, 1 beam or more.")


@dataclass(frozen=True)
class DemonstrationPrompt:
    """A query behind demonstrations of a pool.

    kind: what is asked for. shots: demonstrations with their images; 0: TEXT_ONLY_SHOTS without. choose: gives a
    query's demonstrations.
    """

    kind: AnswerKind
    shots: int
    template: FewShotTemplate
    choose: Callable[[Example, int], Sequence[Example]]

    def __call__(self, example: Example, tokenizer: Tokenizer) -> Prompt:
        shown = self.choose(example, self.shots or TEXT_ONLY_SHOTS)
        parts: list[str] = []
        for demonstration in shown:
            parts += () if self.shots == 0 else (IMAGE,)
            parts += (*self._asked(demonstration), demonstration.answers[0])
            parts += (Template(self.template.end), Template(self.template.separator))
        parts += (IMAGE, *self._asked(example))
        images = () if self.shots == 0 else tuple(demonstration.images[0] for demonstration in shown)
        return Prompt(tuple(tokenizer.encode_parts(parts)), (*images, example.images[0]))

    def _asked(self, example: Example) -> tuple[str, ...]:
        """Texts in parts: the template's words give special ids, a question's never."""
        if self.kind == "caption":
            return (Template(self.template.caption),)
        before, _, after = self.template.question.partition("{}")
        return Template(before), example.question, Template(after)


@dataclass(frozen=True)
class FewShot(Benchmark):
    """A benchmark that is asked behind demonstrations.

    train: reads the training set's entries whose ids are kept; entries are opened as they are given. kind: what is
    asked for. beams: 3 as OpenFlamingo, or 1. Other fields: of `Benchmark`.
    """

    train: Callable[[Path, Keep], Iterator[Example | None]] | None = None
    kind: AnswerKind = "question"
    shots: int = 4
    template: TemplateName = "openflamingo"
    order: Order = "random"
    seed: int = SEED
    beams: int = 1

    @property
    def asked_as(self) -> str:
        """Template, order and seed of the demonstrations."""
        return f" {self.shots} shots, {self.template}, {self.order}, seed {self.seed}"

    @property
    def task_name(self) -> str:
        """The name without the number of shots: "coco"."""
        return self.name.rpartition("_")[0]

    def with_shots(self, shots: int, options: FewShotOptions = FewShotOptions()) -> "FewShot":  # noqa: B008 - frozen
        """The same benchmark behind so many demonstrations; its name and title say how many."""
        named = replace(self, name=f"{self.name}_{shots}", title=f"{self.title}, {shots} shots", shots=shots)
        asked = replace(named, template=options.template, order=options.order, beams=options.beams)
        return replace(asked, answering=asked.answering_of)

    def answering_of(self, profile: Profile) -> Answering:
        """Short answers that end where the next demonstration would begin."""
        tokens = CAPTION_TOKENS if self.kind == "caption" else ANSWER_TOKENS
        length_penalty = 0.0 if self.beams > 1 else 1.0
        decoding = Decoding(tokens, num_beams=self.beams, length_penalty=length_penalty)
        return Answering(decoding, until=("<|endofchunk|>", "\n"))

    def load(self, folder: Path, choice: Choice, limit: int | None = None) -> Loaded:
        """Queries, and the pool of demonstrations. Raises ValueError as `Benchmark.load`."""
        assert self.train is not None, self.name
        loaded = super().load(folder, choice, limit)
        return replace(loaded, demonstrations=tuple(draw_pool(functools.partial(self.train, folder), self.seed)))

    def task(
        self,
        examples: Sequence[Example],
        choice: Choice,
        style: ChatStyle = ChatStyle(),  # noqa: B008 - frozen
        demonstrations: Sequence[Example] = (),
        features: Features | None = None,
    ) -> Task:
        """demonstrations: the pool. features: of an example's image, for the order "nearest"."""
        task = super().task(examples, choice, style)
        if self.order == "nearest":
            choose = functools.partial(_nearest, list(demonstrations), features)
        else:
            choose = functools.partial(_drawn, list(demonstrations), self.task_name, self.seed)
        return replace(task, prompt=DemonstrationPrompt(self.kind, self.shots, TEMPLATES[self.template], choose))


def draw_pool(train: Callable[[Keep], Iterator[Example | None]], seed: int) -> Iterator[Example]:
    """POOL entries of a training set, those whose ids have the smallest hashes; all where it has fewer.

    Chosen by their ids alone, so that the order of the file and what else it holds do not matter; then opened.
    """
    ids: list[str] = []

    def note(id_: str) -> bool:
        ids.append(id_)
        return False

    for _ in train(note):
        pass
    chosen = set(sorted(set(ids), key=lambda id_: (zlib.crc32(f"{seed} {id_}".encode()), id_))[:POOL])
    given: set[str] = set()
    for example in train(chosen.__contains__):
        if example is not None and example.id not in given and _is_whole(example):
            given.add(example.id)
            yield example


def _is_whole(example: Example) -> bool:
    """Whether it can be shown: it has an answer, and pixels that can be read; every query that draws it needs them."""
    if example.unreadable or not example.answers:
        return False
    try:
        example.images[0].load()
    except (ValueError, OSError):
        return False
    return True


def image_id(example: Example) -> str:
    """Which image an example is about: two questions about one have the same."""
    return example.fields.get("image_id", example.id)


def _drawn(pool: list[Example], task: str, seed: int, query: Example, count: int) -> list[Example]:
    others = [example for example in pool if image_id(example) != image_id(query)]
    return fewshot.choose_demonstrations(replace(query, id=f"{task} {query.id}"), others, count, seed=seed)


def _nearest(pool: list[Example], features: Features | None, query: Example, count: int) -> list[Example]:
    if features is None:
        raise ValueError("few shots: demonstrations by nearness need the tower's features; ask a model.")
    others = [example for example in pool if image_id(example) != image_id(query)]
    if len(others) < count:
        raise ValueError(f"few shots: a pool of {len(others)} items for {count} demonstrations; enlarge it")
    target = features(query)
    alike = np.array([features(example) @ target for example in others])
    best = np.argsort(-alike, kind="stable")[:count]
    return [others[index] for index in best[::-1]]
