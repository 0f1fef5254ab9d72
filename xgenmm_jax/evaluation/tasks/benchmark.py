"""A published benchmark as a declaration: its files, how a model is asked, how an answer is scored and summed up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
import functools

from xgenmm_jax.data.text.chat import ChatStyle
from xgenmm_jax.evaluation.predictions import Prediction
from xgenmm_jax.evaluation.profiles import PROFILES, Profile, Reading, Reencode
from xgenmm_jax.evaluation.published.cells import read_answer
from xgenmm_jax.evaluation.published.files import Loaded, Published, reencoded, with_image_groups
from xgenmm_jax.evaluation.scorers.estimates import Estimate
from xgenmm_jax.evaluation.tasks.example import Example
from xgenmm_jax.evaluation.tasks.judging import Judging
from xgenmm_jax.evaluation.tasks.prompts import MessagePrompt
from xgenmm_jax.evaluation.tasks.task import Scored, Task
from xgenmm_jax.generation.text.decoding import Decoding
from xgenmm_jax.paths import Path, is_in_bucket

Message = tuple[str | int, ...]
"""A user's turn: texts, and indices of the example's images, in order."""

Estimates = dict[str, Estimate]
"""Scores by name. The names are those of the profile's implementation: "Overall", "val/Counting"."""


@dataclass(frozen=True)
class Answering:
    """How a profile lets a model answer. until: texts that end an answer, cut off behind generation.

    stops: those of them that are an end token to the benchmark's own code. Where the tokenizer has one token for such a
    text, beams end there and none does before the least length; else it is cut off alone.
    """

    decoding: Decoding
    until: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """As a dataclass's, `stops` only where there are some: files of answers, also old ones, keep it."""
        stops = f", stops={self.stops!r}" if self.stops else ""
        return f"Answering(decoding={self.decoding!r}, until={self.until!r}{stops})"


VLMEVALKIT_ANSWERING = Answering(Decoding(max_new_tokens=1024))
"""VLMEvalKit's adapter of the released model, for every benchmark."""


def vlmevalkit_answering(profile: Profile) -> Answering:
    """That of VLMEvalKit, whatever the profile."""
    return VLMEVALKIT_ANSWERING


def lmms_answering(
    max_new_tokens: int = 1024, until: tuple[str, ...] = ("\n\n",), temperature: float = 0.0
) -> Callable[[Profile], Answering]:
    """Answers as a task of lmms-eval asks for in its profile, VLMEvalKit's in the others.

    until: a blank line ends an answer, unless the task names other texts. A task without a length has 1,024 tokens.
    """
    lmms = Answering(Decoding(max_new_tokens=max_new_tokens, temperature=temperature), until)
    return functools.partial(_answering, lmms)


def _answering(lmms: Answering, profile: Profile) -> Answering:
    return lmms if profile == "lmms" else VLMEVALKIT_ANSWERING


@dataclass(frozen=True)
class Choice:
    """Which implementation is followed, and how files, answers and pictures are read."""

    profile: Profile = "paper"
    reading: Reading = "careful"
    reencode: Reencode = "none"


@dataclass(frozen=True)
class Benchmark:
    """A published benchmark.

    name: on the command line and of its task. title: in tables. source: where it is published. published: the
    containers that it is read from, in order of preference.
    message: how an example is asked. answering: how long the answer may be. score: of one answer. summarize: all scores
    of a set of predictions, in the benchmark's units: percent, or points. headline: the name of the score that tables
    show, by profile where it differs. normalize: the headline score in [0, 100] for averages.
    profiles: implementations that have it. judging: what a judge may be asked, None where rules alone score.
    version: grows when prompts or scores change, so that predictions of before are not mixed with new ones.
    """

    name: str
    title: str
    source: str
    published: tuple[Published, ...]
    message: Callable[[Example, Profile], Message]
    score: Callable[[str, Example, Profile], Scored]
    summarize: Callable[[Sequence[Prediction], Profile], Estimates]
    headline: str | Mapping[str, str] = "Overall"
    normalize: Callable[[float], float] = float
    answering: Callable[[Profile], Answering] = vlmevalkit_answering
    profiles: tuple[Profile, ...] = PROFILES
    judging: Judging | None = None
    version: int = 1

    def load(self, folder: Path, choice: Choice, limit: int | None = None) -> Loaded:
        """Its examples from the user's folder. limit: the first so many.

        Raises ValueError where the profile has no such benchmark, or the folder none of its containers: with their
        paths and where they are published.
        """
        self.check_profile(choice.profile)
        for published in self.published:
            if choice.profile in published.profiles and (files := published.find(folder)):
                loaded = published.read(files, choice.reading)
                examples = with_image_groups(reencoded(loaded.examples[:limit], choice.reencode))
                if not examples:
                    raise ValueError(f"{self.name}: '{files[0]}' has no example; copy it again.")
                left_out = dict(loaded.left_out)
                if len(examples) < len(loaded.examples):
                    left_out["not asked (--items)"] = len(loaded.examples) - len(examples)
                return replace(loaded, examples=examples, left_out=left_out)
        tables = " In a bucket tables alone are read (.tsv, .parquet)." if is_in_bucket(folder) else ""
        fitting = [one.where for one in self.published if choice.profile in one.profiles]
        raise ValueError(
            f"{self.name}: nothing of it in '{folder}' for the profile '{choice.profile}'; wanted "
            f"{' or '.join(fitting)}.{tables} It is published at {self.source}."
        )

    def check_profile(self, profile: Profile) -> None:
        """Raises ValueError where the profile has no such benchmark."""
        if profile not in self.profiles:
            raise ValueError(
                f"{self.name}: no rule of the profile '{profile}'; wanted one of {', '.join(self.profiles)}."
            )

    def task(self, examples: Sequence[Example], choice: Choice, style: ChatStyle = ChatStyle()) -> Task:  # noqa: B008
        """The task of asking a model these examples by a profile. style: the template that the model was tuned with."""
        profile = choice.profile
        answering = self.answering(profile)
        return Task(
            self.name,
            tuple(examples),
            MessagePrompt(functools.partial(_with_profile, self.message, profile), style),
            functools.partial(_score, self.score, profile),
            answering.decoding,
            until=answering.until,
            stops=answering.stops,
            read_answer=functools.partial(read_answer, profile=profile, reading=choice.reading),
        )

    @property
    def asked_as(self) -> str:
        """What changes the prompts beside profile and examples, for the head of predictions."""
        return ""

    def choice(
        self, profile: Profile | None = None, reading: Reading = "careful", reencode: Reencode = "none"
    ) -> Choice:
        """Whose rules it is asked and scored by. profile None: the paper's where it has them, else the authors' own, or
        lmms-eval's."""
        if profile is None:
            profile = next((one for one in ("paper", "official") if one in self.profiles), self.profiles[0])
        return Choice(profile, reading, reencode)

    def headline_of(self, profile: Profile) -> str:
        """The name of the score that tables show."""
        if isinstance(self.headline, str):
            return self.headline
        return self.headline.get(profile, self.headline["paper"])


def _with_profile(message: Callable[[Example, Profile], Message], profile: Profile, example: Example) -> Message:
    return message(example, profile)


def _score(score: Callable[[str, Example, Profile], Scored], profile: Profile, answer: str, example: Example) -> Scored:
    return score(answer, example, profile)
